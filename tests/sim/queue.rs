//! What will happen, in the order in which it will: by time, and at one time as it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of things to come. The heap holds small keys; what they stand for stays in its slot.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    planned: u64,
}

impl<T> Queue<T> {
    /// Nothing to come.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), planned: 0 }
    }

    /// Plans `what` for `at_us`.
    pub fn push(&mut self, at_us: u64, what: T) {
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(what);
            slot
        } else {
            self.slots.push(Some(what));
            (self.slots.len() - 1) as u32
        };
        self.planned += 1;
        self.heap.push(Reverse((at_us, self.planned, slot)));
    }

    /// When the next thing is due.
    pub fn next_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_us, _, _))| *at_us)
    }

    /// Takes the next thing out.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at_us, _, slot)) = self.heap.pop()?;
        let what = self.slots[slot as usize].take().expect("a planned thing is in its slot");
        self.free.push(slot);
        Some((at_us, what))
    }
}
