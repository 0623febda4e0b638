//! What watchers need of the store, without any watcher: the keys that one wants, an index from a
//! changed key to those who want it, and a reader that follows the changes.
//!
//! A [`Follower`] pins the history that it has yet to read, so a compaction never comes between a
//! change and those who are to be told of it, and what was there before a change (`prev_kv`) is
//! always found. A reader without a pin ([`Store::history`]) may find it compacted.
//!
//! Deliberately absent: queues, streams and what happens to a watcher that does not keep up. They
//! are `server`'s.

mod interval;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use self::interval::{Interval, IntervalTree};
use super::compaction::Pin;
use super::store::Store;
use super::types::Event;

/// The keys that a watcher wants, by etcd's rules: one key, a range, or all from a key on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySet {
    /// One key.
    One(Bytes),
    /// All keys from the first to before the end.
    Range(Interval),
}

impl KeySet {
    /// The keys from `key` to `range_end`; none if there is no key between them.
    pub fn new(key: Bytes, range_end: Bytes) -> Option<Self> {
        // As etcd: no key is the first key that can be.
        let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
        match &range_end[..] {
            [] => Some(Self::One(key)),
            [0] => Some(Self::Range(Interval { start: key, end: None })),
            end if end <= &key[..] => None,
            _ => Some(Self::Range(Interval { start: key, end: Some(range_end) })),
        }
    }

    /// Whether `key` is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Range(interval) => interval.contains(key),
        }
    }
}

/// From a key to those who want it, each known by a `T`.
#[derive(Debug)]
pub struct KeySetIndex<T> {
    keys: BTreeMap<Bytes, BTreeSet<T>>,
    ranges: IntervalTree<T>,
}

impl<T> Default for KeySetIndex<T> {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), ranges: IntervalTree::default() }
    }
}

impl<T: Copy + Ord> KeySetIndex<T> {
    /// `who` wants `keys`.
    pub fn insert(&mut self, keys: &KeySet, who: T) {
        match keys {
            KeySet::One(key) => {
                self.keys.entry(key.clone()).or_default().insert(who);
            }
            KeySet::Range(interval) => self.ranges.insert(interval, who),
        }
    }

    /// `who` does not want `keys` any more.
    pub fn remove(&mut self, keys: &KeySet, who: T) {
        match keys {
            KeySet::One(key) => {
                let Some(all) = self.keys.get_mut(key) else { return };
                all.remove(&who);
                if all.is_empty() {
                    self.keys.remove(key);
                }
            }
            KeySet::Range(interval) => self.ranges.remove(interval, who),
        }
    }

    /// Visits all who want `key`, each once for each set of theirs with it.
    pub fn visit(&self, key: &[u8], mut visit: impl FnMut(T)) {
        for who in self.keys.get(key).into_iter().flatten() {
            visit(*who);
        }
        self.ranges.visit(key, &mut visit);
    }

    /// Whether somebody wants `key`.
    pub fn is_wanted(&self, key: &[u8]) -> bool {
        let mut wanted = self.keys.contains_key(key);
        if !wanted {
            self.ranges.visit(key, &mut |_| wanted = true);
        }
        wanted
    }
}

/// History that was to be read has been compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest revision that can be read.
    pub revision: i64,
}

/// Reads the changes of a store as they are made, and pins those that it has yet to read.
#[derive(Debug)]
pub struct Follower {
    read: i64,
    pin: Pin,
}

impl Follower {
    /// Follows `store` from its next revision on.
    pub fn begin(store: &Store) -> Self {
        Self { read: store.revision(), pin: store.pins.pin(store.revision()) }
    }

    /// The last revision that was read.
    pub fn revision(&self) -> i64 {
        self.read
    }

    /// Reads the next revision, if there is one: the events of those keys of it that are `wanted`.
    ///
    /// # Errors
    ///
    /// The store was replaced by one whose history begins later. The follower goes on after the
    /// newest revision of that one.
    pub fn next(
        &mut self,
        store: &Store,
        wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<(i64, Vec<Event>)>, Compacted> {
        let replaced = !self.pin.holds(store);
        let horizon = if replaced { store.compacted_revision() } else { self.read };
        let next = self.read + 1;
        if next < horizon {
            *self = Self::begin(store);
            return Err(Compacted { revision: horizon });
        }
        if next > store.revision() {
            if replaced {
                self.pin = store.pins.pin(self.read);
            }
            return Ok(None);
        }
        let events = store.events_above(horizon, next, wanted).collect();
        self.read = next;
        self.pin = store.pins.pin(next);
        Ok(Some((next, events)))
    }
}

/// Events read from history, whole revisions, in order.
#[derive(Debug)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
    /// The first revision that was not read.
    pub next: i64,
    /// The revision of the store.
    pub revision: i64,
}

impl Store {
    /// Reads the events of `keys` from revision `from` on: as many revisions as fit into
    /// `changes_max` changes and `bytes_max` bytes of events, or one.
    ///
    /// # Errors
    ///
    /// The history at `from` has been compacted.
    pub fn history(
        &self,
        keys: &KeySet,
        from: i64,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<History, Compacted> {
        let compacted = self.compacted_revision();
        if from < compacted {
            return Err(Compacted { revision: compacted });
        }
        let (mut events, mut next) = (Vec::new(), from);
        let (mut changes, mut bytes) = (0, 0);
        while next <= self.revision() && changes < changes_max && bytes < bytes_max {
            let wanted = |key: &[u8]| {
                changes += 1;
                keys.contains(key)
            };
            let begin = events.len();
            events.extend(self.events_above(compacted, next, wanted));
            bytes += events[begin..].iter().map(Event::size_bytes).sum::<usize>();
            // A revision whose changes have all been compacted costs a step, too.
            changes += 1;
            next += 1;
        }
        Ok(History { events, next, revision: self.revision() })
    }
}

#[cfg(test)]
mod tests;
