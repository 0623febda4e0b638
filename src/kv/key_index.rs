//! Every key with its versions (etcd's `keyIndex`, which holds revisions only; here the values
//! stand with them, since all is in memory).
//!
//! An ordered tree maps each key to the number of its record; the records stand in a slab. So the
//! tree stays small (24 bytes of key and 4 of number, where a node is half empty on average), a
//! record is exactly one cache line, and the list of changes can name a key in 4 bytes. Most keys
//! have one version: it stands in the record. Older ones stand in a queue beside it, oldest first.
//!
//! The tree's entry also says whether the key is deleted now, so that counting the present keys
//! never leaves the tree.
//!
//! Knows no compaction and no readers: what may be removed is its caller's to know.

use std::collections::btree_map::{self, Entry};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::key::Key;
use super::revision::Revision;
use super::slab::Slab;
use super::types::KeyValue;

/// What a version is taken to cost beside key and value: its share of tree, slab and allocator.
const VERSION_OVERHEAD_BYTES: u64 = 128;

/// Larger versions have pages of their own in any allocator: nothing is gained by moving them.
const MOVED_BYTES_MAX: usize = 64 << 10;

/// One state of one key: put, or deleted (a tombstone, with `version` 0).
#[expect(clippy::struct_field_names, reason = "a version's number is its version, to clients")]
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// Key, then value, in one allocation of their exact size: what a response borrows.
    blob: Arc<[u8]>,
    /// The revision that created the key.
    pub(super) create: i64,
    /// Puts since then; 0 marks a tombstone.
    pub(super) version: i64,
    /// The lease it is attached to, or 0.
    pub(super) lease: i64,
    /// `mod_revision`.
    pub(super) main: i64,
    /// Its place within that revision.
    pub(super) sub: u32,
    /// Where in `blob` the value begins.
    key_bytes: u32,
}

impl Version {
    /// The state that `fields` says, with `blob` made of `key` and `value`. `scratch` is any
    /// buffer: it spares an allocation.
    fn new(key: &[u8], value: &[u8], fields: &Fields, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        scratch.extend_from_slice(key);
        scratch.extend_from_slice(value);
        let blob = Arc::from(scratch.as_slice());
        if scratch.capacity() > 64 * 1024 {
            *scratch = Vec::new();
        }
        Self {
            blob,
            create: fields.create,
            version: fields.version,
            lease: fields.lease,
            main: fields.at.main,
            sub: fields.at.sub,
            key_bytes: u32::try_from(key.len()).expect("keys are shorter than any request"),
        }
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        &self.blob[..self.key_bytes as usize]
    }

    /// The value; a tombstone has none.
    pub(super) fn value(&self) -> &[u8] {
        &self.blob[self.key_bytes as usize..]
    }

    /// Key and value on end.
    pub(super) fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Whether the key was deleted here.
    pub(super) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// When this state began.
    pub(super) fn revision(&self) -> Revision {
        Revision { main: self.main, sub: self.sub }
    }

    /// As clients see it, sharing the bytes.
    pub(super) fn to_key_value(&self) -> KeyValue {
        let mut key = bytes::Bytes::from_owner(Arc::clone(&self.blob));
        let value = key.split_off(self.key_bytes as usize);
        KeyValue {
            key,
            create_revision: self.create,
            mod_revision: self.main,
            version: self.version,
            value,
            lease: self.lease,
        }
    }

    /// The same state without its value, which is then not kept alive either.
    pub(super) fn without_value(&self) -> Self {
        Self { blob: Arc::from(self.key()), ..*self }
    }

    /// What a copy of it keeps in memory, at most: itself, and bytes that the store may drop.
    pub(super) fn held_bytes(&self) -> u64 {
        (size_of::<Self>() + self.blob.len()) as u64
    }

    fn size_bytes(&self) -> u64 {
        self.blob.len() as u64 + VERSION_OVERHEAD_BYTES
    }

    /// Takes a fresh allocation for its bytes; how many were copied.
    fn relocate(&mut self) -> usize {
        if self.blob.len() > MOVED_BYTES_MAX {
            return 0;
        }
        self.blob = Arc::from(&*self.blob);
        self.blob.len()
    }
}

/// What a version says beside key and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    /// When.
    pub(super) at: Revision,
    /// See [`Version::create`].
    pub(super) create: i64,
    /// See [`Version::version`].
    pub(super) version: i64,
    /// See [`Version::lease`].
    pub(super) lease: i64,
}

/// A key's versions, never none, in ascending order.
#[derive(Debug)]
pub(super) struct Record {
    /// The newest.
    head: Version,
    /// All others, oldest first.
    older: Option<Box<Older>>,
}

#[derive(Debug)]
struct Older(VecDeque<Version>);

const _: () = assert!(size_of::<Option<Record>>() == 64, "a record is to be one cache line");

impl Record {
    fn new(head: Version) -> Self {
        Self { head, older: None }
    }

    fn push(&mut self, version: Version) {
        debug_assert!(self.head.revision() < version.revision());
        let old = std::mem::replace(&mut self.head, version);
        let older = self.older.get_or_insert_with(|| Box::new(Older(VecDeque::with_capacity(1))));
        older.0.push_back(old);
    }

    /// The newest state.
    pub(super) fn head(&self) -> &Version {
        &self.head
    }

    /// The state after the change at `as_of`, unless the key did not exist then or was deleted.
    pub(super) fn live_at(&self, as_of: Revision) -> Option<&Version> {
        let found = if self.head.revision() <= as_of {
            &self.head
        } else {
            let older = &self.older.as_ref()?.0;
            let begun = older.partition_point(|version| version.revision() <= as_of);
            &older[begun.checked_sub(1)?]
        };
        (!found.is_tombstone() || mutant(Mutant::TombstoneReadable)).then_some(found)
    }

    /// The state that the change at exactly `at` made.
    pub(super) fn exactly(&self, at: Revision) -> Option<&Version> {
        if self.head.revision() == at {
            return Some(&self.head);
        }
        let older = &self.older.as_ref()?.0;
        older.binary_search_by_key(&at, Version::revision).ok().map(|place| &older[place])
    }

    /// The states that count as history between a compaction at `compacted` and `upto`, oldest
    /// first: the newest not above `compacted`, unless it is a tombstone below it, and all after
    /// it. What compaction has in fact removed by now makes no difference to this.
    pub(super) fn retained(&self, compacted: i64, upto: i64) -> impl Iterator<Item = &Version> {
        let known = self.upto(compacted);
        let begin = match known.checked_sub(1).map(|place| self.nth(place)) {
            Some(base) if base.is_tombstone() && base.main < compacted => known,
            Some(_) => known - 1,
            None => 0,
        };
        (begin..self.upto(upto)).map(|place| self.nth(place))
    }

    /// How many states began at or before `main`.
    pub(super) fn upto(&self, main: i64) -> usize {
        let older = self.older.as_ref().map_or(0, |older| older.0.len());
        if self.head.main <= main {
            return older + 1;
        }
        self.older.as_ref().map_or(0, |older| older.0.partition_point(|v| v.main <= main))
    }

    fn nth(&self, place: usize) -> &Version {
        match &self.older {
            Some(older) if place < older.0.len() => &older.0[place],
            Some(_) | None => &self.head,
        }
    }

    /// Removes what came before `at`, and the tombstone at `at` if `tombstone_too`. Says what
    /// that freed and whether nothing is left.
    fn trim(&mut self, at: Revision, tombstone_too: bool) -> Trimmed {
        assert!(self.head.revision() >= at, "a change outlives its record: {at:?}");
        let goes = |version: &Version| {
            version.revision() < at
                || (mutant(Mutant::CompactNewest) && version.revision() == at)
                || (tombstone_too && version.revision() == at && version.is_tombstone())
        };
        let mut bytes = 0;
        if let Some(older) = &mut self.older {
            while older.0.front().is_some_and(goes) {
                bytes += older.0.pop_front().map_or(0, |version| version.size_bytes());
            }
            if older.0.is_empty() {
                self.older = None;
            } else if older.0.capacity() > 8 + 4 * older.0.len() {
                older.0.shrink_to_fit();
            }
        }
        let empty = self.older.is_none() && goes(&self.head);
        Trimmed { bytes: bytes + if empty { self.head.size_bytes() } else { 0 }, empty }
    }

    /// Takes fresh allocations for all that it holds; how many bytes were copied.
    fn relocate(&mut self) -> usize {
        let mut copied = self.head.relocate();
        if let Some(older) = self.older.take() {
            let mut versions = VecDeque::with_capacity(older.0.len());
            for mut version in older.0 {
                copied += version.relocate() + size_of::<Version>();
                versions.push_back(version);
            }
            self.older = Some(Box::new(Older(versions)));
        }
        copied
    }
}

struct Trimmed {
    bytes: u64,
    empty: bool,
}

/// The number of a record, and whether its newest state is a tombstone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(u32);

impl Slot {
    const DELETED: u32 = 1 << 31;

    /// Numbers stay below this.
    const LIMIT: usize = Self::DELETED as usize - 1;

    /// The record's number.
    pub(super) fn number(self) -> u32 {
        self.0 & !Self::DELETED
    }

    /// Whether the key is deleted now.
    pub(super) fn is_deleted(self) -> bool {
        self.0 & Self::DELETED != 0
    }

    fn new(number: u32, deleted: bool) -> Self {
        Self(if deleted { number | Self::DELETED } else { number })
    }
}

/// From where to where: as [`KeyIndex::range`] takes it.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// etcd's reading of `key` and `range_end`: none if no key can lie between them.
pub(super) fn bounds<'a>(key: &'a [u8], range_end: &'a [u8]) -> Option<Bounds<'a>> {
    match range_end {
        [] => Some((Bound::Included(key), Bound::Included(key))),
        [0] => Some((Bound::Included(key), Bound::Unbounded)),
        _ if range_end <= key => None,
        _ if mutant(Mutant::RangeEndIncluded) => {
            Some((Bound::Included(key), Bound::Included(range_end)))
        }
        _ => Some((Bound::Included(key), Bound::Excluded(range_end))),
    }
}

/// All keys, in order.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    order: BTreeMap<Key, Slot>,
    slab: Slab<Record>,
    scratch: Vec<u8>,
    bytes: u64,
}

impl KeyIndex {
    /// The record of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Record> {
        self.order.get(key).map(|slot| self.record(*slot))
    }

    /// The record that a tree entry names.
    pub(super) fn record(&self, slot: Slot) -> &Record {
        self.slab.get(slot.number()).expect("every key has a record")
    }

    /// The record that a change names, unless it is gone.
    pub(super) fn numbered(&self, number: u32) -> Option<&Record> {
        self.slab.get(number)
    }

    /// The keys between `bounds`, those deleted included, in order.
    pub(super) fn range(&self, bounds: Bounds<'_>) -> btree_map::Range<'_, Key, Slot> {
        self.order.range::<[u8], _>(bounds)
    }

    /// How many keys have a record, those deleted included.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// What the versions take up, and what stands empty beside them.
    pub(super) fn size_bytes(&self) -> (u64, u64) {
        (self.bytes, self.slab.unused_bytes())
    }

    /// Puts a value at `at`; says which record changed.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], lease: i64, at: Revision) -> u32 {
        let mut fields = Fields { at, create: at.main, version: 1, lease };
        match self.order.entry(Key::new(key)) {
            Entry::Occupied(mut entry) => {
                let number = entry.get().number();
                entry.insert(Slot::new(number, false));
                let record = self.slab.get_mut(number).expect("every key has a record");
                if !record.head.is_tombstone() || mutant(Mutant::CreationForgotten) {
                    fields.create = record.head.create;
                    fields.version = record.head.version + 1;
                }
                let version = Version::new(key, value, &fields, &mut self.scratch);
                self.bytes += version.size_bytes();
                record.push(version);
                number
            }
            Entry::Vacant(entry) => {
                let version = Version::new(key, value, &fields, &mut self.scratch);
                self.bytes += version.size_bytes();
                let number = self.slab.insert(Record::new(version), Slot::LIMIT);
                entry.insert(Slot::new(number, false));
                number
            }
        }
    }

    /// Deletes every key that exists between `bounds`, the first at `at` and each later one a
    /// `sub` further. Hands each record's number to `deleted`.
    pub(super) fn delete(
        &mut self,
        bounds: Bounds<'_>,
        mut at: Revision,
        mut deleted: impl FnMut(u32),
    ) {
        for (_, slot) in self.order.range_mut::<[u8], _>(bounds) {
            if slot.is_deleted() {
                continue;
            }
            let number = slot.number();
            *slot = Slot::new(number, true);
            let record = self.slab.get_mut(number).expect("every key has a record");
            deleted(number);
            let fields = Fields { at, create: 0, version: 0, lease: 0 };
            let tombstone = Version::new(record.head.key(), &[], &fields, &mut self.scratch);
            self.bytes += tombstone.size_bytes();
            record.push(tombstone);
            at.sub += 1;
        }
    }

    /// Every record's number is below this.
    pub(super) fn numbers_end(&self) -> u32 {
        self.slab.end()
    }

    /// Moves what record `number`, if there is one, has in memory to fresh allocations; how many
    /// bytes were copied.
    pub(super) fn relocate(&mut self, number: u32) -> usize {
        self.slab.get_mut(number).map_or(0, Record::relocate)
    }

    /// Gives back the memory of records that are gone, where a whole chunk of them is.
    pub(super) fn give_back(&mut self) {
        self.slab.give_back();
    }

    /// Removes from one record what came before its change at `at`, and, if that deleted the key
    /// and `tombstone_too`, the tombstone.
    pub(super) fn trim(&mut self, number: u32, at: Revision, tombstone_too: bool) {
        let record = self.slab.get_mut(number).expect("a listed change has a record");
        let trimmed = record.trim(at, tombstone_too);
        self.bytes -= trimmed.bytes;
        if trimmed.empty {
            mark(Mark::TombstoneSwept);
            let record = self.slab.remove(number).expect("it was there just now");
            let removed = self.order.remove(record.head.key());
            assert!(
                removed.is_some_and(|slot| slot.is_deleted() && slot.number() == number),
                "the record of a deleted key is not the one its key names"
            );
        }
    }
}

/// Builds an index from versions that come by key and, within a key, by age.
#[derive(Debug, Default)]
pub(super) struct Builder {
    order: Vec<(Key, Slot)>,
    index: KeyIndex,
}

impl Builder {
    /// Adds a version; its record's number. None if it does not come after the one before it.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8], fields: &Fields) -> Option<u32> {
        let version = Version::new(key, value, fields, &mut self.index.scratch);
        let bytes = version.size_bytes();
        let number = match self.order.last_mut() {
            Some((last, slot)) if last.as_slice() == key => {
                let record = self.index.slab.get_mut(slot.number()).expect("just made");
                if record.head.revision() >= version.revision() {
                    return None;
                }
                *slot = Slot::new(slot.number(), version.is_tombstone());
                record.push(version);
                slot.number()
            }
            Some((last, _)) if last.as_slice() > key => return None,
            Some(_) | None => {
                let deleted = version.is_tombstone();
                let number = self.index.slab.insert(Record::new(version), Slot::LIMIT);
                self.order.push((Key::new(key), Slot::new(number, deleted)));
                number
            }
        };
        self.index.bytes += bytes;
        Some(number)
    }

    /// The versions of the key added last.
    pub(super) fn last(&self) -> Option<&Record> {
        self.order.last().map(|(_, slot)| self.index.record(*slot))
    }

    /// The index. Its tree is packed, as one grown key by key is not.
    pub(super) fn finish(self) -> KeyIndex {
        let mut index = self.index;
        index.order = self.order.into_iter().collect();
        index
    }
}
