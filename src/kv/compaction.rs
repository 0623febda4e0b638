//! Forgetting history, in two halves.
//!
//! The logical half is a command: from then on revisions below it cannot be read, on every member
//! alike. The physical half frees memory, in steps between commands, as far as no reader that
//! began earlier still needs it; its progress differs between members and shows in nothing but
//! memory. So it has to leave, like etcd, what a read at exactly the compacted revision sees, and
//! a tombstone of exactly that revision (etcd #19179), which a watcher from there has to hear of.
//!
//! A step walks the list of changes, not the keys: a version is history as soon as a later change
//! of the same key is not above the target, and then it is the version just before that change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::testpoints::{Mark, mark};

use super::error::Error;
use super::revision::Revision;
use super::revision_log::Change;
use super::store::Store;

/// The revisions that readers hold, each with how many hold it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pins(Arc<Mutex<BTreeMap<i64, usize>>>);

impl Pins {
    /// Keeps what a read at `floor` or above sees, until dropped.
    pub(super) fn pin(&self, floor: i64) -> Pin {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *held.entry(floor).or_insert(0) += 1;
        Pin { pins: self.clone(), floor }
    }

    /// The lowest one held.
    fn lowest(&self) -> Option<i64> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.first_key_value().map(|(floor, _)| *floor)
    }
}

/// A reader's hold on history. Belongs to one store: a store that replaces it has pins of its own.
#[derive(Debug)]
pub(super) struct Pin {
    pins: Pins,
    floor: i64,
}

impl Pin {
    /// Whether it holds the history of `store`, and not of one that `store` has replaced.
    pub(super) fn holds(&self, store: &Store) -> bool {
        Arc::ptr_eq(&self.pins.0, &store.pins.0)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(readers) = held.get_mut(&self.floor) {
            *readers -= 1;
            if *readers == 0 {
                held.remove(&self.floor);
            }
        }
    }
}

/// How far the physical half has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// Of the changes of `main`, the first that has not been looked at.
    next: Revision,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { next: Revision { main: Revision::NEVER_COMPACTED, sub: 0 } }
    }
}

impl Store {
    /// The logical half: etcd refuses to compact to the same revision twice.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted);
        }
        if revision > self.revision {
            return Err(Error::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    /// Whether compacted history still takes up memory.
    pub fn compaction_pending(&self) -> bool {
        self.changes.first() < self.compacted
            || self.changes.get(self.next_at(self.compacted)).is_some()
    }

    /// The physical half: looks at up to `budget` changes, or moves what is left together. True if
    /// there is nothing left that could be done now, though readers may keep some for later.
    pub(super) fn compact_step(&mut self, budget: usize) -> bool {
        let before_bytes = self.size_in_use_bytes();
        let swept = self.sweep_step(budget);
        self.note_freed(before_bytes - self.size_in_use_bytes());
        swept && self.tidy_step(budget)
    }

    fn sweep_step(&mut self, budget: usize) -> bool {
        let target = self.pins.lowest().map_or(self.compacted, |pin| pin.min(self.compacted));
        if target < self.compacted {
            mark(Mark::CompactionHeld);
        }
        if self.sweep.next.main == target && self.sweep.next.sub > 0 {
            mark(Mark::CompactionResumed);
        }
        for _ in 0..budget {
            match self.changes.front() {
                Some((at, change)) if at.main < target => {
                    if let Change::Of(number) = change {
                        self.index.trim(number, at, true);
                    }
                    self.changes.pop();
                    continue;
                }
                Some(_) | None => {}
            }
            // The changes of the target itself stay listed: watchers may begin there, and its
            // tombstones wait for the next compaction.
            let at = self.next_at(target);
            let Some(change) = self.changes.get(at) else {
                return true;
            };
            if let Change::Of(number) = change {
                self.index.trim(number, at, false);
            }
            self.sweep.next = Revision { main: target, sub: at.sub + 1 };
        }
        false
    }

    /// The change of revision `main` that is to be looked at next.
    fn next_at(&self, main: i64) -> Revision {
        let swept = self.sweep.next;
        Revision { main, sub: if swept.main == main { swept.sub } else { 0 } }
    }
}
