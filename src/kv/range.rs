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

use crate::proof::{Mark, mark};

use super::compaction::Pin;
use super::error::Error;
use super::key::Key;
use super::key_index::{self, Version};
use super::store::Store;
use super::types::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};

/// A range being read.
#[derive(Debug)]
pub struct RangeScan {
    request: RangeRequest,
    /// As of which revision it reads.
    revision: i64,
    /// The revision of the store when it began.
    header: i64,
    /// None if it is done within one hold of the store.
    pin: Option<Pin>,
    /// The first key not looked at yet, if not the range's first.
    next: Option<Key>,
    found: Vec<Version>,
    /// What was found earlier: kept aside, so that no step has to move it all to make room.
    earlier: Vec<Vec<Version>>,
    count: i64,
    done: bool,
}

impl RangeScan {
    /// Begins to read: fixes the revision and holds its history.
    pub fn new(request: RangeRequest, store: &Store) -> Result<Self, Error> {
        let mut scan = Self::unpinned(request, store)?;
        scan.pin = Some(store.pins.pin(scan.revision));
        Ok(scan)
    }

    /// Begins to read what will be read to its end before the store can change.
    pub(super) fn unpinned(request: RangeRequest, store: &Store) -> Result<Self, Error> {
        let revision = store.readable(request.revision)?;
        Ok(Self {
            request,
            revision,
            header: store.revision,
            pin: None,
            next: None,
            found: Vec::new(),
            earlier: Vec::new(),
            count: 0,
            done: false,
        })
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

    /// The answer, once [`Self::step`] has said that it is done. Needs no store and no lock.
    pub fn finish(mut self) -> RangeResponse {
        assert!(self.done, "a scan is finished when its last step is done");
        if !self.earlier.is_empty() {
            self.earlier.push(self.found);
            self.found = self.earlier.into_iter().flatten().collect();
        }
        sort(&self.request, &mut self.found);
        let limit = limit(&self.request);
        let more = limit.is_some_and(|limit| self.found.len() > limit);
        self.found.truncate(limit.unwrap_or(usize::MAX));
        let convert =
            if self.request.keys_only { Version::to_key_only } else { Version::to_key_value };
        let kvs = self.found.iter().map(convert).collect();
        RangeResponse { revision: self.header, kvs, more, count: self.count }
    }

    /// Looks at `left` keys; the one to go on with.
    fn walk(&mut self, store: &Store, left: &mut usize) -> Option<Key> {
        let (begin, end) = key_index::bounds(&self.request.key, &self.request.range_end)?;
        let begin = self.next.as_ref().map_or(begin, |key| Bound::Included(key.as_slice()));
        let sort_at = sort_at(&self.request);
        if self.found.len() >= EARLIER_AT && sort_at.is_none() {
            self.earlier.push(std::mem::take(&mut self.found));
        }
        let earlier = self.earlier.iter().map(Vec::len).sum();
        let fetch_max = fetch_max(&self.request).saturating_sub(earlier);
        // Whether a key exists now stands in the tree itself.
        let now = self.revision == store.revision;
        for (key, slot) in store.index.range((begin, end)) {
            if *left == 0 {
                return Some(key.clone());
            }
            *left -= 1;
            if now && slot.is_deleted() {
                continue;
            }
            if now && self.found.len() >= fetch_max {
                self.count += 1;
                continue;
            }
            let Some(version) = store.index.record(*slot).live_at(self.revision) else {
                continue;
            };
            self.count += 1;
            if self.found.len() < fetch_max && passes(&self.request, version) {
                self.found.push(version.clone());
                if sort_at.is_some_and(|sort_at| self.found.len() >= sort_at) {
                    shorten(&self.request, &mut self.found);
                }
            }
        }
        None
    }
}

/// From how many found on a further step puts them aside.
const EARLIER_AT: usize = 4096;

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

/// Sorts what comes in the order of keys, and leaves equals in it.
fn sort(request: &RangeRequest, found: &mut [Version]) {
    let compare = |a: &Version, b: &Version| match request.sort_target {
        SortTarget::Key => a.key().cmp(b.key()),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create.cmp(&b.create),
        SortTarget::Mod => a.main.cmp(&b.main),
        SortTarget::Value => a.value().cmp(b.value()),
    };
    match request.sort_order {
        SortOrder::None | SortOrder::Ascend if request.sort_target == SortTarget::Key => {}
        SortOrder::None | SortOrder::Ascend => found.sort_by(compare),
        SortOrder::Descend => found.sort_by(|a, b| compare(b, a)),
    }
}

/// The one key `key` now, if it exists.
pub(super) fn current(store: &Store, key: &[u8]) -> Option<KeyValue> {
    store.current(key).map(Version::to_key_value)
}
