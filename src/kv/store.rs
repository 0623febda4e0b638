//! The store: the index of keys, the list of changes, where history begins and ends.
//!
//! Reading is for everybody who holds a shared reference; every way to change it is private to
//! this room and reached through [`Machine`](super::Machine) alone. A read that takes long is cut
//! into steps, each with its own short hold of whatever lock guards the store.

use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::compaction::{Pins, Sweep};
use super::error::Error;
use super::found::Found;
use super::key_index::{Bounds, KeyIndex, Version};
use super::range::RangeScan;
use super::revision::Revision;
use super::revision_log::{Change, RevisionLog};
use super::tidy::Tidy;
use super::txn_scan::TxnScan;
use super::types::{Event, EventKind, KeyValue, RangeRequest, RangeResponse};
use super::types::{TxnRequest, TxnResponse};

/// Every key at every revision since the last compaction.
#[derive(Debug)]
pub struct Store {
    pub(super) index: KeyIndex,
    pub(super) changes: RevisionLog,
    /// The newest revision, the one under way included.
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) sweep: Sweep,
    pub(super) pins: Pins,
    pub(super) tidy: Tidy,
}

impl Store {
    /// An empty store.
    pub(super) fn new() -> Self {
        Self {
            index: KeyIndex::default(),
            changes: RevisionLog::new(Revision::EMPTY_MAIN + 1),
            revision: Revision::EMPTY_MAIN,
            compacted: Revision::NEVER_COMPACTED,
            sweep: Sweep::default(),
            pins: Pins::default(),
            tidy: Tidy::default(),
        }
    }

    /// The current revision; 1 while nothing was ever written.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The oldest revision that can be read, or -1 before the first compaction.
    pub fn compacted_revision(&self) -> i64 {
        self.compacted
    }

    /// What the store takes up, history and unused room included: etcd's `dbSize`. An estimate
    /// that counts the same on every member with the same physical compaction behind it.
    pub fn size_bytes(&self) -> u64 {
        let (used, unused) = self.index.size_bytes();
        used + unused
    }

    /// The part of [`Self::size_bytes`] that holds keys and values: etcd's `dbSizeInUse`.
    pub fn size_in_use_bytes(&self) -> u64 {
        self.index.size_bytes().0
    }

    /// How many keys have any history here, deleted ones included.
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// Reads a range in one go. For what may be long there is [`RangeScan`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.find(request).map(RangeResponse::listed)
    }

    /// The same, with the keys as they were found.
    pub fn find(&self, request: &RangeRequest) -> Result<RangeResponse<Found>, Error> {
        let mut scan = RangeScan::unpinned(request.clone(), self)?;
        let done = scan.step(self, usize::MAX)?;
        assert!(done, "a step without bound ends the scan");
        Ok(scan.collect())
    }

    /// Does a transaction that only reads in one go; [`TxnScan`] does it in steps, and says what
    /// it panics at.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let mut scan = TxnScan::new(request.clone(), self)?;
        let done = scan.step(self, usize::MAX)?;
        assert!(done, "a step without bound ends the scan");
        Ok(scan.finish())
    }

    /// What the change of revision `main` did, in order; nothing if there is no such revision, or
    /// if it has been compacted. Of the revision last compacted to, what later operations of the
    /// same transaction overwrote is missing.
    pub fn events(&self, main: i64) -> impl Iterator<Item = Event> + '_ {
        self.events_above(self.compacted, main, |_| true)
    }

    /// The same for the keys that are `wanted`, while history above `horizon` is held.
    pub(super) fn events_above<'a>(
        &'a self,
        horizon: i64,
        main: i64,
        mut wanted: impl FnMut(&[u8]) -> bool + 'a,
    ) -> impl Iterator<Item = Event> + 'a {
        let readable = main >= horizon;
        let places = (0..u32::MAX).map(move |sub| Revision { main, sub });
        places
            .map_while(move |at| Some((at, self.changes.get(at).filter(|_| readable)?)))
            .filter_map(move |(at, change)| self.event(horizon, at, change, &mut wanted))
    }

    fn event(
        &self,
        horizon: i64,
        at: Revision,
        change: Change,
        wanted: &mut impl FnMut(&[u8]) -> bool,
    ) -> Option<Event> {
        let Change::Of(number) = change else {
            return None;
        };
        let record = self.index.numbered(number)?;
        if !wanted(record.head().key()) {
            return None;
        }
        // At exactly the compacted revision only the last state of a key is history.
        let mut retained = record.retained(horizon, i64::MAX);
        let (version, before) = if at.main == horizon {
            (retained.next().filter(|version| version.revision() == at)?, None)
        } else {
            (record.exactly(at)?, record.live_at(Revision::end_of(at.main - 1)))
        };
        let prev_kv = before.map(Version::to_key_value);
        if version.is_tombstone() {
            let key = bytes::Bytes::copy_from_slice(version.key());
            let kv = KeyValue { key, mod_revision: at.main, ..KeyValue::default() };
            return Some(Event { kind: EventKind::Delete, kv, prev_kv });
        }
        Some(Event { kind: EventKind::Put, kv: version.to_key_value(), prev_kv })
    }

    /// The state of `key` now.
    pub(super) fn current(&self, key: &[u8]) -> Option<&Version> {
        self.index.get(key).map(super::key_index::Record::head).filter(|head| !head.is_tombstone())
    }

    /// The states now between `bounds`, in order.
    pub(super) fn current_range(&self, bounds: Bounds<'_>) -> impl Iterator<Item = &Version> {
        self.index
            .range(bounds)
            .filter(|(_, slot)| !slot.is_deleted())
            .map(|(_, slot)| self.index.record(*slot).head())
    }

    /// Which of 0 (now) or a revision is meant, if it can be read.
    pub(super) fn readable(&self, revision: i64) -> Result<i64, Error> {
        if revision <= 0 {
            return Ok(self.revision);
        }
        if revision > self.revision {
            mark(Mark::FutureRefused);
            if mutant(Mutant::FutureAnswered) {
                return Ok(self.revision);
            }
            return Err(Error::FutureRevision);
        }
        let oldest = self.compacted + i64::from(mutant(Mutant::CompactedOffByOne));
        if revision < oldest {
            mark(Mark::CompactedRefused);
            return Err(Error::Compacted);
        }
        Ok(revision)
    }
}

/// The changes of one command: all at one revision, which begins with the first of them.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) store: &'a mut Store,
    begin: i64,
    next: Revision,
}

impl<'a> Write<'a> {
    pub(super) fn new(store: &'a mut Store) -> Self {
        let begin = store.revision;
        let main = begin.checked_add(1).expect("revisions do not run out");
        Self { store, begin, next: Revision { main, sub: 0 } }
    }

    /// The revision now: the old one until something has changed.
    pub(super) fn revision(&self) -> i64 {
        self.store.revision
    }

    /// The last change made: what an operation that comes now sees up to.
    pub(super) fn so_far(&self) -> Revision {
        match self.next.sub.checked_sub(1) {
            Some(sub) if !mutant(Mutant::TxnReadsItsEnd) => Revision { sub, ..self.next },
            Some(_) => Revision::end_of(self.next.main),
            None => Revision::end_of(self.store.revision),
        }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let record = self.store.index.put(key, value, lease, self.next);
        self.store.changes.push(self.next, record);
        self.next.sub = self.next.sub.checked_add(1).expect("a command is of bounded size");
        self.store.revision = self.next.main;
        if mutant(Mutant::RevisionPerOperation) {
            self.next = Revision { main: self.next.main + 1, sub: 0 };
        }
    }

    /// Deletes what is there between `bounds`; how many that was.
    pub(super) fn delete(&mut self, bounds: Bounds<'_>) -> u32 {
        let first = self.next;
        let Store { index, changes, .. } = &mut *self.store;
        index.delete(bounds, first, |record| {
            changes.push(self.next, record);
            self.next.sub += 1;
        });
        if self.next.sub > 0 && !mutant(Mutant::RevisionNotBumped) {
            self.store.revision = self.next.main;
        }
        debug_assert!(self.store.revision - self.begin <= 1);
        self.next.sub - first.sub
    }
}
