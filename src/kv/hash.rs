//! One number over the history, equal on members that hold the same (etcd's `HashKV`).
//!
//! It covers every version that counts as history between the compacted revision and the one asked
//! for, by key and then by age, whatever compaction has physically removed. The number itself is
//! this project's own: it agrees between our members, not with etcd's.

use std::ops::Bound;

use super::compaction::Pin;
use super::error::Error;
use super::key::Key;
use super::key_index::Version;
use super::store::Store;

/// The hash and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHash {
    /// The number.
    pub hash: u32,
    /// The revision of the store when it was taken.
    pub revision: i64,
    /// The compacted revision, below which nothing is covered; -1 before the first compaction.
    pub compact_revision: i64,
    /// The revision above which nothing is covered.
    pub hash_revision: i64,
}

/// The running hash: what it is made of, in one place for both who take it and who check it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hasher(crc32fast::Hasher);

impl Hasher {
    /// Adds the next version.
    pub(super) fn add(&mut self, version: &Version) {
        let (key, value) = (version.key().len() as u64, version.value().len() as u64);
        let numbers = [
            key,
            value,
            version.main.cast_unsigned(),
            u64::from(version.sub),
            version.create.cast_unsigned(),
            version.version.cast_unsigned(),
            version.lease.cast_unsigned(),
        ];
        let mut fixed = [0; 56];
        for (place, number) in fixed.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.0.update(&fixed);
        self.0.update(version.blob());
    }

    /// The hash of all that was added.
    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// With so many bytes hashed a step ends, however few keys they were: about a millisecond.
const STEP_BYTES: usize = 4 << 20;

/// A hash being taken, in steps like a [`RangeScan`](super::RangeScan).
#[derive(Debug)]
pub struct HashScan {
    asked: i64,
    result: StoreHash,
    pin: Pin,
    next: Option<Key>,
    hasher: Hasher,
    done: bool,
}

impl HashScan {
    /// Begins to hash the history up to `revision`; 0: all of it.
    pub fn new(revision: i64, store: &Store) -> Result<Self, Error> {
        let result = StoreHash {
            hash: 0,
            revision: store.revision,
            compact_revision: store.compacted,
            hash_revision: store.readable(revision)?,
        };
        let pin = store.pins.pin(store.compacted);
        let hasher = Hasher::default();
        Ok(Self { asked: revision, result, pin, next: None, hasher, done: false })
    }

    /// Hashes up to `keys_max` more keys; true when there are no more. Begins anew if a snapshot
    /// has replaced the store.
    pub fn step(&mut self, store: &Store, keys_max: usize) -> Result<bool, Error> {
        if self.done {
            return Ok(true);
        }
        if !self.pin.holds(store) {
            *self = Self::new(self.asked, store)?;
        }
        self.next = self.walk(store, keys_max.max(1));
        self.done = self.next.is_none();
        Ok(self.done)
    }

    /// The hash, once [`Self::step`] has said that it is done.
    pub fn finish(self) -> StoreHash {
        assert!(self.done, "a scan is finished when its last step is done");
        StoreHash { hash: self.hasher.finish(), ..self.result }
    }

    fn walk(&mut self, store: &Store, mut left: usize) -> Option<Key> {
        let begin = match &self.next {
            Some(key) => Bound::Included(key.as_slice()),
            None => Bound::Unbounded,
        };
        let mut bytes = 0;
        for (key, slot) in store.index.range((begin, Bound::Unbounded)) {
            if left == 0 || bytes >= STEP_BYTES {
                return Some(key.clone());
            }
            left -= 1;
            let record = store.index.record(*slot);
            for version in record.retained(self.result.compact_revision, self.result.hash_revision)
            {
                self.hasher.add(version);
                bytes += version.blob().len();
            }
        }
        None
    }
}

impl Store {
    /// The hash of the history up to `revision` (0: all of it) in one go. For a large store there
    /// is [`HashScan`].
    pub fn hash(&self, revision: i64) -> Result<StoreHash, Error> {
        let mut scan = HashScan::new(revision, self)?;
        while !scan.step(self, usize::MAX)? {}
        Ok(scan.finish())
    }
}
