//! Intervals of keys, and a tree that finds those with a given key in them: a treap by start, whose
//! nodes know the furthest end below them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;

/// All keys from `start` to before `end`, or all from `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The first key.
    pub start: Bytes,
    /// The first key that is not in it; none if there is no such key.
    pub end: Option<Bytes>,
}

impl Interval {
    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && ends_after(self.end.as_ref(), key)
    }

    fn order(&self, other: &Self) -> Ordering {
        self.start
            .cmp(&other.start)
            .then_with(|| compare_ends(self.end.as_ref(), other.end.as_ref()))
    }
}

fn ends_after(end: Option<&Bytes>, key: &[u8]) -> bool {
    end.is_none_or(|end| end > key)
}

/// No end is behind every end.
fn compare_ends(one: Option<&Bytes>, other: Option<&Bytes>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.cmp(other),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
    }
}

/// Those who are interested in intervals.
#[derive(Debug)]
pub(super) struct IntervalTree<T> {
    root: Tree<T>,
    /// Makes the priorities of nodes.
    inserted: u64,
}

type Tree<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    interval: Interval,
    who: BTreeSet<T>,
    priority: u64,
    /// The furthest end of this interval and all below.
    furthest: Option<Bytes>,
    left: Tree<T>,
    right: Tree<T>,
}

impl<T> Default for IntervalTree<T> {
    fn default() -> Self {
        Self { root: None, inserted: 0 }
    }
}

impl<T: Copy + Ord> IntervalTree<T> {
    pub(super) fn insert(&mut self, interval: &Interval, who: T) {
        self.inserted += 1;
        let node = Box::new(Node {
            interval: interval.clone(),
            who: BTreeSet::from([who]),
            priority: scrambled(self.inserted),
            furthest: interval.end.clone(),
            left: None,
            right: None,
        });
        self.root = Some(insert(self.root.take(), node));
    }

    pub(super) fn remove(&mut self, interval: &Interval, who: T) {
        self.root = remove(self.root.take(), interval, who);
    }

    /// Visits all whose interval has `key` in it.
    pub(super) fn visit(&self, key: &[u8], visit: &mut impl FnMut(T)) {
        below(self.root.as_deref(), key, visit);
    }
}

fn below<T: Copy>(tree: Option<&Node<T>>, key: &[u8], visit: &mut impl FnMut(T)) {
    let Some(node) = tree.filter(|node| ends_after(node.furthest.as_ref(), key)) else { return };
    below(node.left.as_deref(), key, visit);
    if node.interval.start > key {
        return;
    }
    if ends_after(node.interval.end.as_ref(), key) {
        node.who.iter().for_each(|who| visit(*who));
    }
    below(node.right.as_deref(), key, visit);
}

impl<T> Node<T> {
    fn update(&mut self) {
        let children = [&self.left, &self.right];
        let ends = children.into_iter().flatten().map(|child| child.furthest.as_ref());
        let furthest = ends.chain([self.interval.end.as_ref()]).max_by(|a, b| compare_ends(*a, *b));
        self.furthest = furthest.flatten().cloned();
    }
}

fn insert<T: Copy + Ord>(tree: Tree<T>, new: Box<Node<T>>) -> Box<Node<T>> {
    let Some(mut node) = tree else { return new };
    match new.interval.order(&node.interval) {
        Ordering::Equal => node.who.extend(new.who),
        Ordering::Less => {
            let mut child = insert(node.left.take(), new);
            if child.priority > node.priority {
                node.left = child.right.take();
                node.update();
                child.right = Some(node);
                child.update();
                return child;
            }
            node.left = Some(child);
        }
        Ordering::Greater => {
            let mut child = insert(node.right.take(), new);
            if child.priority > node.priority {
                node.right = child.left.take();
                node.update();
                child.left = Some(node);
                child.update();
                return child;
            }
            node.right = Some(child);
        }
    }
    node.update();
    node
}

fn remove<T: Copy + Ord>(tree: Tree<T>, interval: &Interval, who: T) -> Tree<T> {
    let mut node = tree?;
    match interval.order(&node.interval) {
        Ordering::Less => node.left = remove(node.left.take(), interval, who),
        Ordering::Greater => node.right = remove(node.right.take(), interval, who),
        Ordering::Equal => {
            node.who.remove(&who);
            if node.who.is_empty() {
                return merge(node.left.take(), node.right.take());
            }
        }
    }
    node.update();
    Some(node)
}

fn merge<T>(left: Tree<T>, right: Tree<T>) -> Tree<T> {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = merge(left.right.take(), Some(right));
                left.update();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.update();
                Some(right)
            }
        }
    }
}

/// Spreads consecutive numbers: nobody chooses the priorities, so the tree stays shallow whatever
/// the intervals are.
fn scrambled(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}
