//! What the log says, as of one group: the facts that every further record must fit.
//!
//! The writer and recovery run the same code over the same records, so what one would not write
//! the other does not believe.

use std::collections::VecDeque;

use crate::raft::types::{EntryId, HardState, Index, SnapshotMeta};

use super::identity::Identity;
use super::record::{LogRecord, Malformed, Start};

/// The state of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogState {
    pub hard_state: HardState,
    /// What the log begins after.
    pub base: SnapshotMeta,
    /// The last entry.
    pub last: EntryId,
    /// The first segment still needed.
    pub keep_from: u64,
}

impl LogState {
    pub(super) fn of_start(start: &Start) -> Self {
        Self {
            hard_state: start.hard_state,
            base: start.base.clone(),
            last: start.last,
            keep_from: start.keep_from,
        }
    }

    /// What the next segment begins with; the length is filled in with its file.
    pub(super) fn start(&self, identity: Identity, previous_end_bytes: u64) -> Start {
        Start {
            identity,
            segment_bytes: 0,
            previous_end_bytes,
            keep_from: self.keep_from,
            hard_state: self.hard_state,
            base: self.base.clone(),
            last: self.last,
        }
    }

    /// Follows `record`, which lies in `segment`.
    pub(super) fn apply(&mut self, record: &LogRecord, segment: u64) -> Result<(), Malformed> {
        match record {
            LogRecord::Start(_) => return Err("a segment begins twice"),
            LogRecord::HardState(next) => {
                if next.term < self.hard_state.term {
                    return Err("the term goes back");
                }
                if next.commit < self.hard_state.commit {
                    return Err("the commit index goes back");
                }
                self.hard_state = *next;
            }
            LogRecord::Entry(entry) => {
                if entry.id.index <= self.base.last.index {
                    return Err("an entry lies below the snapshot");
                }
                if entry.id.index.prev() > self.last.index {
                    return Err("entries are missing");
                }
                self.last = entry.id;
            }
            LogRecord::Snapshot(base) => {
                if base.last.index < self.base.last.index {
                    return Err("the snapshot goes back");
                }
                self.last = base.last;
                self.base = base.clone();
                self.keep_from = segment;
            }
            LogRecord::Release { base, keep_from } => {
                let within = self.base.last.index..=self.last.index;
                if !within.contains(&base.last.index) {
                    return Err("a snapshot covers what the log does not hold");
                }
                if !(self.keep_from..=segment).contains(keep_from) {
                    return Err("a snapshot releases segments that are still needed");
                }
                self.base = base.clone();
                self.keep_from = *keep_from;
            }
        }
        Ok(())
    }
}

/// How many bytes the log holds after an index: known to about a megabyte, which is enough to
/// decide when a snapshot pays.
#[derive(Debug, Default)]
pub(super) struct Volume {
    total_bytes: u64,
    /// The total before the group that begins with the index; both ascend.
    points: VecDeque<(Index, u64)>,
}

impl Volume {
    const STEP_BYTES: u64 = 1 << 20;

    /// A group of `bytes` bytes was written whose first entry, if it has any, is `first`.
    pub(super) fn add(&mut self, first: Option<Index>, bytes: u64) {
        if let Some(first) = first {
            while self.points.back().is_some_and(|(index, _)| *index >= first) {
                self.points.pop_back();
            }
            let due = self
                .points
                .back()
                .is_none_or(|(_, before)| self.total_bytes - before >= Self::STEP_BYTES);
            if due {
                self.points.push_back((first, self.total_bytes));
            }
        }
        self.total_bytes += bytes;
    }

    /// The log begins after `base` now.
    pub(super) fn release(&mut self, base: Index) {
        while self.points.get(1).is_some_and(|(index, _)| index.prev() <= base) {
            self.points.pop_front();
        }
    }

    /// The log begins anew.
    pub(super) fn restart(&mut self) {
        self.points.clear();
    }

    /// The bytes from the first point on.
    pub(super) fn held_bytes(&self) -> u64 {
        self.points.front().map_or(0, |(_, before)| self.total_bytes - before)
    }
}
