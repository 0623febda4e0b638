//! Reading a range as of one revision (etcd's `Range`), in steps.
//!
//! The order of business is etcd's: fetch, filter, sort, cut. An unsorted and unfiltered read
//! stops fetching one key past its limit (that one says `more`) and only counts from there on. A
//! sort by another target than the key without a sort order does so too, and sorts what it then
//! has: odd, but etcd's.
//!
//! The revision is fixed when the scan begins, and pinned: writes and compactions between the
//! steps change nothing in its answer.

use std::ops::Bound;

use crate::testpoints::{Mark, mark};

use super::compaction::Pin;
use super::error::Error;
use super::found::{Found, PIECE_KEYS};
use super::key::Key;
use super::key_index::{self, Version};
use super::revision::Revision;
use super::store::Store;
use super::types::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};

/// A range being read.
#[derive(Debug)]
pub struct RangeScan {
    request: RangeRequest,
    /// The last change that it sees.
    as_of: Revision,
    /// The revision of the store when it began.
    header: i64,
    /// None if the caller holds the history.
    pin: Option<Pin>,
    /// The first key not looked at yet, if not the range's first.
    next: Option<Key>,
    kept: Kept,
    count: i64,
    done: bool,
}

impl RangeScan {
    /// Begins to read: fixes the revision and holds its history.
    pub fn new(request: RangeRequest, store: &Store) -> Result<Self, Error> {
        let mut scan = Self::unpinned(request, store)?;
        scan.pin = Some(store.pins.pin(scan.floor()));
        Ok(scan)
    }

    /// Begins to read what is read to its end before the store can change, or under the pin of
    /// whoever steps it.
    pub(super) fn unpinned(request: RangeRequest, store: &Store) -> Result<Self, Error> {
        Self::within_write(request, store, Revision::end_of(store.revision))
    }

    /// The same in the middle of a write that has come to `so_far`.
    pub(super) fn within_write(
        request: RangeRequest,
        store: &Store,
        so_far: Revision,
    ) -> Result<Self, Error> {
        let revision = store.readable(request.revision)?;
        let as_of = if revision == store.revision { so_far } else { Revision::end_of(revision) };
        Ok(Self::begin(request, as_of, store))
    }

    /// Begins to read the state after the change at `as_of`, which is there.
    pub(super) fn begin(request: RangeRequest, as_of: Revision, store: &Store) -> Self {
        Self {
            request,
            as_of,
            header: store.revision,
            pin: None,
            next: None,
            kept: Kept::default(),
            count: 0,
            done: false,
        }
    }

    /// Only to measure what it would find.
    pub(super) fn measuring(mut self) -> Self {
        self.kept.measured_only = true;
        self
    }

    /// The revision that has to be held for it: in the middle of a write, the one before it.
    pub(super) fn floor(&self) -> i64 {
        let whole = self.as_of == Revision::end_of(self.as_of.main);
        self.as_of.main - i64::from(!whole)
    }

    /// Looks at up to `keys_max` more keys; true when there are no more. If `store` is not the
    /// one it began with (a snapshot has replaced it), it begins anew, and fails if the revision
    /// asked for is not to be had there.
    pub fn step(&mut self, store: &Store, keys_max: usize) -> Result<bool, Error> {
        if self.done {
            return Ok(true);
        }
        if self.pin.as_ref().is_some_and(|pin| !pin.holds(store)) {
            mark(Mark::ReadBegunAnew);
            *self = Self::new(std::mem::take(&mut self.request), store)?;
        }
        Ok(self.step_within(store, &mut keys_max.max(1)))
    }

    /// Looks at up to `left` more keys of the store it began with, and says how many are left of
    /// those; true when it is done.
    pub(super) fn step_within(&mut self, store: &Store, left: &mut usize) -> bool {
        if !self.done {
            self.next = self.walk(store, left);
            self.done = self.next.is_none();
        }
        self.done
    }

    /// What it has found so far would hold in memory.
    pub fn held_bytes(&self) -> u64 {
        let Kept { len, bytes, measured_only, .. } = self.kept;
        match limit(&self.request) {
            // Of all that is sorted for the sake of a few, so many of middling size.
            Some(limit) if measured_only && len > limit => bytes / len as u64 * limit as u64,
            Some(_) | None => bytes,
        }
    }

    /// Whether [`Self::collect`] takes long: there is much to sort.
    pub fn is_long_to_sort(&self) -> bool {
        is_sorted(&self.request) && self.kept.len > PIECE_KEYS
    }

    /// The answer, once [`Self::step`] has said that it is done. Needs no store and no lock.
    pub fn finish(self) -> RangeResponse {
        self.collect().listed()
    }

    /// The same, with the keys as they were found.
    pub fn collect(self) -> RangeResponse<Found> {
        assert!(self.done, "a scan is finished when its last step is done");
        let limit = limit(&self.request);
        let more = limit.is_some_and(|limit| self.kept.len > limit);
        let kvs = self.kept.finish(&self.request, limit.unwrap_or(usize::MAX));
        RangeResponse { revision: self.header, kvs, more, count: self.count }
    }

    /// Looks at `left` keys; the one to go on with.
    fn walk(&mut self, store: &Store, left: &mut usize) -> Option<Key> {
        let (begin, end) = key_index::bounds(&self.request.key, &self.request.range_end)?;
        let begin = self.next.as_ref().map_or(begin, |key| Bound::Included(key.as_slice()));
        if sort_at(&self.request).is_none() {
            self.kept.set_aside();
        }
        let fetch_max = fetch_max(&self.request);
        // Whether a key exists now stands in the tree itself.
        let now = self.as_of == Revision::end_of(store.revision);
        for (key, slot) in store.index.range((begin, end)) {
            if *left == 0 {
                return Some(key.clone());
            }
            *left -= 1;
            if now && slot.is_deleted() {
                continue;
            }
            if now && self.kept.len >= fetch_max {
                self.count += 1;
                continue;
            }
            let Some(version) = store.index.record(*slot).live_at(self.as_of) else {
                continue;
            };
            self.count += 1;
            if self.kept.len < fetch_max && passes(&self.request, version) {
                self.kept.keep(&self.request, version);
            }
        }
        None
    }
}

/// What a scan has found, or the measure of it.
#[derive(Debug, Default)]
struct Kept {
    found: Vec<Version>,
    /// What was found earlier: kept aside, so that no step has to move it all to make room.
    earlier: Vec<Vec<Version>>,
    /// How many they are.
    len: usize,
    /// What they hold in memory.
    bytes: u64,
    /// Nothing is kept but these two numbers.
    measured_only: bool,
}

impl Kept {
    fn keep(&mut self, request: &RangeRequest, version: &Version) {
        self.len += 1;
        if self.measured_only {
            self.bytes += version.held_bytes();
            return;
        }
        // A value to sort by is needed until the end.
        let bare = request.keys_only && request.sort_target != SortTarget::Value;
        let version = if bare { version.without_value() } else { version.clone() };
        self.bytes += version.held_bytes();
        self.found.push(version);
        if sort_at(request).is_some_and(|sort_at| self.found.len() >= sort_at) {
            shorten(request, &mut self.found);
            self.len = self.found.len();
            self.bytes = held_bytes(&self.found);
        }
    }

    fn set_aside(&mut self) {
        if self.found.len() >= PIECE_KEYS {
            self.earlier.push(std::mem::take(&mut self.found));
        }
    }

    /// Sorted as `request` wants, and cut to `limit`.
    fn finish(self, request: &RangeRequest, limit: usize) -> Found {
        assert!(!self.measured_only, "what is only measured was not kept");
        let mut pieces = self.earlier;
        pieces.push(self.found);
        let cut = self.len > limit;
        let bare = request.keys_only && request.sort_target == SortTarget::Value;
        if is_sorted(request) {
            let mut all = match <[_; 1]>::try_from(pieces) {
                Ok([all]) => all,
                Err(pieces) => pieces.into_iter().flatten().collect(),
            };
            sort(request, &mut all);
            all.truncate(limit);
            if bare {
                for version in &mut all {
                    *version = version.without_value();
                }
            }
            pieces = in_pieces(all);
        } else if cut {
            truncate(&mut pieces, limit);
        }
        let bytes = if cut || bare {
            pieces.iter().map(|piece| held_bytes(piece)).sum()
        } else {
            self.bytes
        };
        Found::new(pieces, bytes)
    }
}

fn held_bytes(versions: &[Version]) -> u64 {
    versions.iter().map(Version::held_bytes).sum()
}

/// A long list in parts, which are then freed one by one.
fn in_pieces(all: Vec<Version>) -> Vec<Vec<Version>> {
    if all.len() <= PIECE_KEYS {
        return vec![all];
    }
    let mut pieces = Vec::with_capacity(all.len().div_ceil(PIECE_KEYS));
    let mut all = all.into_iter();
    while all.len() > 0 {
        pieces.push(all.by_ref().take(PIECE_KEYS).collect());
    }
    pieces
}

/// Cuts a list in parts to its first `limit`.
fn truncate(pieces: &mut Vec<Vec<Version>>, limit: usize) {
    let mut left = limit;
    for piece in pieces.iter_mut() {
        piece.truncate(left);
        left -= piece.len();
    }
    pieces.retain(|piece| !piece.is_empty());
}

/// How many keys to fetch before counting is enough.
fn fetch_max(request: &RangeRequest) -> usize {
    let by_key = request.sort_target == SortTarget::Key;
    let as_they_come = match request.sort_order {
        SortOrder::None => true,
        SortOrder::Ascend => by_key,
        SortOrder::Descend => false,
    };
    match limit(request) {
        _ if request.count_only => 0,
        Some(limit) if as_they_come && !has_filters(request) => limit.saturating_add(1),
        Some(_) | None => usize::MAX,
    }
}

/// With how many found a read that sorts all for the sake of a few drops those that cannot be in
/// its answer. None if it does not, or if they are so many that sorting them takes long.
fn sort_at(request: &RangeRequest) -> Option<usize> {
    let all = fetch_max(request) == usize::MAX;
    limit(request).filter(|limit| all && *limit <= 1024).map(|limit| 2 * limit + 1024)
}

fn limit(request: &RangeRequest) -> Option<usize> {
    usize::try_from(request.limit).ok().filter(|limit| *limit > 0 && !request.count_only)
}

fn has_filters(request: &RangeRequest) -> bool {
    [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ]
    .iter()
    .any(|bound| *bound != 0)
}

fn passes(request: &RangeRequest, version: &Version) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(version.main, request.min_mod_revision, request.max_mod_revision)
        && within(version.create, request.min_create_revision, request.max_create_revision)
}

/// Drops all but the first `limit` and one (which says that there were more) of what is sorted.
/// Those dropped cannot come back: the order of equals is that of their keys, which is also the
/// order in which they are found.
fn shorten(request: &RangeRequest, found: &mut Vec<Version>) {
    sort(request, found);
    if let Some(limit) = limit(request) {
        found.truncate(limit.saturating_add(1));
    }
}

/// Whether the order asked for is another than that of the keys.
fn is_sorted(request: &RangeRequest) -> bool {
    match request.sort_order {
        SortOrder::None | SortOrder::Ascend => request.sort_target != SortTarget::Key,
        SortOrder::Descend => true,
    }
}

/// Sorts what comes in the order of keys, and leaves equals in it.
fn sort(request: &RangeRequest, found: &mut [Version]) {
    if !is_sorted(request) {
        return;
    }
    let compare = |a: &Version, b: &Version| match request.sort_target {
        SortTarget::Key => a.key().cmp(b.key()),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create.cmp(&b.create),
        SortTarget::Mod => a.main.cmp(&b.main),
        SortTarget::Value => a.value().cmp(b.value()),
    };
    match request.sort_order {
        SortOrder::None | SortOrder::Ascend => found.sort_by(compare),
        SortOrder::Descend => found.sort_by(|a, b| compare(b, a)),
    }
}

/// The one key `key` now, if it exists.
pub(super) fn current(store: &Store, key: &[u8]) -> Option<KeyValue> {
    store.current(key).map(Version::to_key_value)
}
