//! The log in memory (§5.3), and how far each step of the pipeline has come with it.
//!
//! ```text
//!   base      applied   handed   committed        unissued      last
//!    |  gone     |  in the  |  agreed |  replicating  |  not yet   |
//!    |  before   |  applier |         |               |  for disk  |
//!                              persisted moves between base and unissued
//! ```
//!
//! Entries up to `base` were compacted away. The disk works behind our back, several batches at a
//! time, so "batch 7 is durable" must be read against what has happened to the log since: a batch
//! remembers up to where it still speaks of the present log, and cutting the log at `i` lowers
//! that to `i - 1` for every batch under way. A late acknowledgement of overwritten entries can
//! then never vouch for those that took their place, even when the indexes are the same.

use std::collections::VecDeque;

use crate::testpoints::{self, Mark, Mutant};

use super::types::{Entry, EntryId, Index, PersistSeq, Term};

/// Entries that are forgotten in one step: about a millisecond.
const FORGOTTEN_AT_ONCE_MAX: usize = 16_384;

/// Entries after `base`, and the cursors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    pub(super) base: EntryId,
    pub(super) entries: VecDeque<Entry>,
    /// Sizes of the entries.
    pub(super) bytes: usize,
    /// The disk holds this log up to here.
    pub(super) persisted: Index,
    /// Up to here entries went into some batch for the disk.
    pub(super) issued: Index,
    /// A snapshot replaced the log and is in no batch yet.
    pub(super) snapshot_unissued: bool,
    pub(super) batches: VecDeque<Batch>,
    pub(super) committed: Index,
    /// Up to here entries were handed out for apply.
    pub(super) handed: Index,
    pub(super) applied: Index,
    /// Sizes of the entries beyond `applied`.
    pub(super) unapplied_bytes: usize,
    /// Sizes of those among them that are handed out.
    pub(super) handed_bytes: usize,
}

/// A batch on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    pub(super) seq: PersistSeq,
    /// Once durable, the disk holds the present log up to here.
    pub(super) upto: Index,
}

impl Log {
    /// A log as the disk gave it back: all durable.
    pub fn new(base: EntryId, entries: Vec<Entry>, commit: Index, applied: Index) -> Self {
        let mut log = Self {
            base,
            entries: VecDeque::new(),
            bytes: 0,
            persisted: base.index,
            issued: base.index,
            snapshot_unissued: false,
            batches: VecDeque::new(),
            committed: base.index,
            handed: applied,
            applied,
            unapplied_bytes: 0,
            handed_bytes: 0,
        };
        for entry in entries {
            log.append(entry);
        }
        let last = log.last().index;
        assert!(base.index <= applied && applied <= last, "the disk gave back what was applied");
        log.persisted = last;
        log.issued = last;
        log.committed = commit.min(last).max(applied);
        log.unapplied_bytes = log.bytes_between(applied, last);
        log
    }

    /// The last entry that is gone (or nothing: index 0).
    pub fn base(&self) -> EntryId {
        self.base
    }

    /// The last entry.
    pub fn last(&self) -> EntryId {
        self.entries.back().map_or(self.base, |entry| entry.id)
    }

    /// Up to where the disk holds this log.
    pub fn persisted(&self) -> Index {
        self.persisted
    }

    /// Up to where it is known to be committed.
    pub fn committed(&self) -> Index {
        self.committed
    }

    /// Up to where the state machine has it.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Bytes of entries that are not yet applied.
    pub fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    /// How many batches the disk has yet to report.
    pub fn batches_in_flight(&self) -> usize {
        self.batches.len()
    }

    /// The term of the entry at `index`, if that is `base` or in memory.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.position(index).map(|at| self.entries[at].id.term)
    }

    /// Whether this very entry is in the log (as far as memory reaches).
    pub fn holds(&self, id: EntryId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The name of the entry at `index`, which is `base` or in memory.
    pub fn id_at(&self, index: Index) -> EntryId {
        let term = self.term_at(index).expect("the caller asks for what is in memory");
        EntryId { term, index }
    }

    /// The highest entry at most at `limit.index` and of at most `limit.term`: the highest that
    /// another log, which has `limit` there, could share. Index 0 if memory does not reach back
    /// that far. Both sides of a conflict use it, so a probe skips a whole term (§5.3).
    pub fn highest_possible(&self, limit: EntryId) -> EntryId {
        let fits = |id: EntryId| id.index <= limit.index && id.term <= limit.term;
        let count = self.entries.partition_point(|entry| fits(entry.id));
        match count.checked_sub(1) {
            Some(at) => self.entries[at].id,
            None if fits(self.base) => self.base,
            None => EntryId::default(),
        }
    }

    /// Entries from `from` on, at most `bytes_max` bytes, but at least one if there is any.
    pub fn slice(&self, from: Index, upto: Index, bytes_max: usize) -> Vec<Entry> {
        let Some(start) = self.position(from) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.size_bytes();
            entry.id.index <= upto && (first || bytes <= bytes_max)
        };
        self.entries.range(start..).take_while(fits).cloned().collect()
    }

    /// Entries `from` to `upto`, as far as they are here.
    pub fn iter(&self, from: Index, upto: Index) -> impl Iterator<Item = &Entry> {
        let start = self.position(from).unwrap_or(self.entries.len());
        self.entries.range(start..).take_while(move |entry| entry.id.index <= upto)
    }

    /// Adds the next entry.
    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.id.index == last.index.next(), "indexes are consecutive");
        assert!(entry.id.term >= last.term, "terms never fall along a log");
        self.unapplied_bytes += entry.size_bytes();
        self.bytes += entry.size_bytes();
        self.entries.push_back(entry);
    }

    /// Drops everything from `from` on: it conflicts with a leader's log (§5.3).
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.committed, "a committed entry never changes");
        let at = self.position(from).expect("only what is there can conflict");
        let bytes: usize = self.entries.range(at..).map(Entry::size_bytes).sum();
        self.unapplied_bytes -= bytes;
        self.bytes -= bytes;
        self.entries.truncate(at);
        let kept = from.prev();
        self.persisted = self.persisted.min(kept);
        self.issued = self.issued.min(kept);
        for batch in self.batches.iter_mut().filter(|batch| batch.upto > kept) {
            testpoints::mark(Mark::WriteOvertaken);
            if !testpoints::mutant(Mutant::OvertakenWriteCounted) {
                batch.upto = kept;
            }
        }
    }

    /// A snapshot that ends with `last` replaces the whole log (§7).
    pub fn restore(&mut self, last: EntryId) {
        assert!(last.index > self.committed, "a snapshot of the past brings nothing");
        // What was committed is part of the snapshot's past; nothing else on disk is vouched for
        // until the snapshot is there too.
        self.persisted = if testpoints::mutant(Mutant::SnapshotUnsaved) {
            last.index
        } else {
            self.persisted.min(self.committed)
        };
        for batch in &mut self.batches {
            batch.upto = batch.upto.min(self.persisted);
        }
        self.base = last;
        self.entries.clear();
        self.bytes = 0;
        self.issued = last.index;
        self.snapshot_unissued = true;
        self.committed = last.index;
        self.handed = last.index;
        self.unapplied_bytes = 0;
        self.handed_bytes = 0;
    }

    /// Whether something waits to be given to the disk.
    pub fn needs_batch(&self) -> bool {
        self.snapshot_unissued || self.issued < self.last().index
    }

    /// What batch `seq` has to write: whether to restart the log at `base`, and which entries, at
    /// most `bytes_max` of them. A single larger one still goes; the rest is for the next batch.
    pub fn begin_batch(&mut self, seq: PersistSeq, bytes_max: usize) -> (bool, Vec<Entry>) {
        let entries = self.slice(self.issued.next(), self.last().index, bytes_max);
        let upto = entries.last().map_or(self.issued, |entry| entry.id.index);
        let restart = std::mem::take(&mut self.snapshot_unissued);
        self.issued = upto;
        self.batches.push_back(Batch { seq, upto });
        (restart, entries)
    }

    /// Every batch up to `seq` is durable.
    pub fn batches_done(&mut self, seq: PersistSeq) {
        while self.batches.front().is_some_and(|batch| batch.seq <= seq) {
            let batch = self.batches.pop_front().expect("just seen");
            self.persisted = self.persisted.max(batch.upto);
        }
    }

    /// Raises the commit index. Never lowers it.
    pub fn commit_to(&mut self, index: Index) {
        assert!(index <= self.last().index, "only what is in the log can be committed");
        self.committed = self.committed.max(index);
    }

    /// Committed and durable entries for the state machine, as far as it keeps up.
    pub fn take_committed(&mut self, bytes_max: usize) -> Vec<Entry> {
        // A snapshot goes into the state machine before anything that follows it.
        if self.applied < self.base.index || self.handed_bytes >= bytes_max {
            return Vec::new();
        }
        let upto = if testpoints::mutant(Mutant::ApplyUndurable) {
            self.committed
        } else {
            self.committed.min(self.persisted)
        };
        let entries = self.slice(self.handed.next(), upto, bytes_max);
        if let Some(last) = entries.last() {
            self.handed = last.id.index;
            self.handed_bytes += entries.iter().map(Entry::size_bytes).sum::<usize>();
        }
        entries
    }

    /// The state machine has everything up to `index`.
    pub fn applied_to(&mut self, index: Index) {
        assert!(index <= self.handed, "applied what was never handed out");
        if index <= self.applied {
            return;
        }
        let bytes = self.bytes_between(self.applied, index);
        self.applied = index;
        self.unapplied_bytes -= bytes;
        self.handed_bytes -= bytes;
    }

    /// Forgets entries up to `upto`, which the state machine has.
    pub fn compact(&mut self, upto: Index) {
        assert!(upto <= self.applied, "only what is applied may be forgotten");
        let Some(at) = self.position(upto) else {
            return;
        };
        self.base = self.entries[at].id;
        self.bytes -= self.entries.drain(..=at).map(|entry| entry.size_bytes()).sum::<usize>();
    }

    /// The last index whose loss brings the entries below `bytes_max`, as far as they are applied,
    /// and as far as they can be forgotten without making anybody wait.
    pub fn excess(&self, bytes_max: usize) -> Option<Index> {
        let mut left = self.bytes;
        let goes = |entry: &&Entry| {
            let goes = left > bytes_max && entry.id.index <= self.applied;
            left -= entry.size_bytes();
            goes
        };
        self.entries
            .iter()
            .take(FORGOTTEN_AT_ONCE_MAX)
            .take_while(goes)
            .last()
            .map(|entry| entry.id.index)
    }

    /// Holds after every input.
    pub fn assert_invariants(&self) {
        let last = self.last().index;
        assert!(self.base.index <= self.committed, "only committed entries are compacted");
        assert!(self.applied <= self.handed, "applied what was never handed out");
        assert!(self.handed <= self.committed, "handed out what is not committed");
        assert!(self.committed <= last, "committed what is not in the log");
        assert!(self.persisted <= self.issued, "durable before it was issued");
        assert!(self.issued <= last, "issued what is not in the log");
        assert!(self.handed_bytes <= self.unapplied_bytes, "handed out more than there is");
    }

    fn position(&self, index: Index) -> Option<usize> {
        let at = usize::try_from(index.0.checked_sub(self.base.index.0 + 1)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    /// Sizes of the entries in memory after `from`, up to and including `upto`.
    fn bytes_between(&self, from: Index, upto: Index) -> usize {
        let first = from.max(self.base.index).next();
        let (Some(first), Some(last)) = (self.position(first), self.position(upto)) else {
            return 0;
        };
        self.entries.range(first..=last).map(Entry::size_bytes).sum()
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
