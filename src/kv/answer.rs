//! What a command is answered: its outcome, which applying it settles, and the keys that it read
//! or deleted, which are collected afterwards where an answer is awaited, and nowhere else.
//!
//! To apply a command takes no more than its effect takes. What its reads saw in the middle of it
//! is still to be had then: every change has its place in the history ([`Revision`]), and an
//! answer holds the history that it has yet to read. So an answer of any length is read in steps
//! like any other read, by the member that was asked.
//!
//! [`Revision`]: super::revision::Revision

use super::command::Command;
use super::compaction::Pin;
use super::found::Found;
use super::range::RangeScan;
use super::revision::Revision;
use super::store::Store;
use super::txn::{self, Plan, Step};
use super::types::{
    DeleteRangeRequest, DeleteRangeResponse, PutResponse, RangeRequest, RequestOp, Response,
    ResponseOp, TxnResponse,
};

/// Keys that are read while the command is applied: an answer of so few is at hand at once.
pub(super) const AT_ONCE_KEYS: usize = 128;

/// The outcome of a command, without the keys that belong to it.
#[derive(Debug)]
pub(super) enum Outline {
    Put(PutResponse),
    Range,
    /// With or without what was deleted.
    Delete {
        revision: i64,
        deleted: i64,
        listed: bool,
    },
    Txn {
        revision: i64,
        succeeded: bool,
        ops: Vec<Outline>,
    },
}

/// What is noted of a command while it is done, if it is to be answered.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Its reads, and what it deleted, in order.
    pub(super) scans: Vec<RangeScan>,
}

impl Notes {
    /// Notes that what `request` deletes from `store`, which has come to `so_far`, is to be listed.
    pub(super) fn deletion(
        &mut self,
        request: &DeleteRangeRequest,
        store: &Store,
        so_far: Revision,
    ) {
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let range = RangeRequest { key, range_end, ..RangeRequest::default() };
        self.scans.push(RangeScan::begin(range, so_far, store));
    }
}

/// The answer to a command that was applied.
#[derive(Debug)]
pub enum Answer {
    /// It is at hand.
    Ready(Response<Found>),
    /// Its keys have yet to be collected.
    Pending(Box<AnswerScan>),
}

impl Answer {
    /// The answer that `outline` and `notes` make, with up to `keys_max` keys read now.
    pub(super) fn begin(outline: Outline, notes: Notes, store: &Store, keys_max: usize) -> Self {
        let mut ranges = Ranges::unpinned(notes.scans);
        if !ranges.step(store, keys_max) {
            ranges.pin(store);
            return Self::Pending(Box::new(AnswerScan { outline, ranges }));
        }
        Self::Ready(respond(outline, ranges))
    }

    /// All of it in one go, from the store that the command was applied to.
    ///
    /// # Errors
    ///
    /// [`AnswerLost`].
    pub fn read(self, store: &Store) -> Result<Response, AnswerLost> {
        match self {
            Self::Ready(response) => Ok(response.listed()),
            Self::Pending(mut scan) => {
                let done = scan.step(store, usize::MAX)?;
                assert!(done, "a step without bound ends the scan");
                Ok(scan.collect().listed())
            }
        }
    }
}

/// A snapshot has replaced the store before the answer was read: the command was applied, and
/// what it read is not to be had any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was lost")]
pub struct AnswerLost;

/// An answer being read.
#[derive(Debug)]
pub struct AnswerScan {
    outline: Outline,
    ranges: Ranges,
}

impl AnswerScan {
    /// Looks at up to `keys_max` more keys; true when there are no more.
    ///
    /// # Errors
    ///
    /// [`AnswerLost`].
    pub fn step(&mut self, store: &Store, keys_max: usize) -> Result<bool, AnswerLost> {
        if !self.ranges.are_of(store) {
            return Err(AnswerLost);
        }
        Ok(self.ranges.step(store, keys_max))
    }

    /// What it has found so far holds in memory.
    pub fn held_bytes(&self) -> u64 {
        self.ranges.held_bytes()
    }

    /// Whether [`Self::collect`] takes long.
    pub fn is_long_to_sort(&self) -> bool {
        self.ranges.are_long_to_sort()
    }

    /// The answer, once [`Self::step`] has said that it is done.
    pub fn collect(self) -> Response<Found> {
        respond(self.outline, self.ranges)
    }
}

/// What the answer to a command would hold if it were applied now: the same scans, of which
/// nothing is kept.
#[derive(Debug)]
pub struct Estimate {
    ranges: Ranges,
}

impl Estimate {
    /// Whether `command` may find more than one key by one of its operations: that of others need
    /// not be measured.
    pub fn is_due(command: &Command) -> bool {
        match command {
            Command::Put(_) | Command::Compact(_) => false,
            Command::DeleteRange(request) => lists_range(request),
            Command::Txn(request) => reads_ranges(&request.success, &request.failure),
        }
    }

    /// Begins to measure what `command` would find. None if it reads no range, or would be
    /// refused.
    pub fn new(command: &Command, store: &Store) -> Option<Self> {
        let mut notes = Notes::default();
        match command {
            Command::Put(_) | Command::Compact(_) => return None,
            Command::DeleteRange(request) => note_deletion(request, store, &mut notes),
            Command::Txn(request) => {
                note_ranges(&txn::plan(store, request).ok()?, store, &mut notes);
            }
        }
        let scans: Vec<_> = notes.scans.into_iter().map(RangeScan::measuring).collect();
        (!scans.is_empty()).then(|| Self { ranges: Ranges::new(scans, store) })
    }

    /// Looks at up to `keys_max` more keys; true when there are no more, or no store to look at.
    pub fn step(&mut self, store: &Store, keys_max: usize) -> bool {
        !self.ranges.are_of(store) || self.ranges.step(store, keys_max)
    }

    /// What was found so far would hold in memory.
    pub fn held_bytes(&self) -> u64 {
        self.ranges.held_bytes()
    }
}

/// Whether any of these may find more than one key each, at any depth.
fn reads_ranges(success: &[RequestOp], failure: &[RequestOp]) -> bool {
    success.iter().chain(failure).any(|op| match op {
        RequestOp::Put(_) => false,
        RequestOp::Range(request) => !request.range_end.is_empty() && !request.count_only,
        RequestOp::DeleteRange(request) => lists_range(request),
        RequestOp::Txn(inner) => reads_ranges(&inner.success, &inner.failure),
    })
}

fn lists_range(request: &DeleteRangeRequest) -> bool {
    request.prev_kv && !request.range_end.is_empty()
}

fn note_ranges(plan: &Plan<'_>, store: &Store, notes: &mut Notes) {
    for step in &plan.steps {
        match step {
            Step::Inner(inner) => note_ranges(inner, store, notes),
            Step::Op(RequestOp::Range(request)) => {
                notes.scans.extend(RangeScan::unpinned(request.clone(), store));
            }
            Step::Op(RequestOp::DeleteRange(request)) => note_deletion(request, store, notes),
            Step::Op(RequestOp::Put(_) | RequestOp::Txn(_)) => {}
        }
    }
}

fn note_deletion(request: &DeleteRangeRequest, store: &Store, notes: &mut Notes) {
    if lists_range(request) {
        notes.deletion(request, store, Revision::end_of(store.revision));
    }
}

/// Ranges that are read one after the other, under one pin.
#[derive(Debug)]
pub(super) struct Ranges {
    pin: Option<Pin>,
    scans: Vec<RangeScan>,
    done: usize,
    /// What the scans done hold.
    done_bytes: u64,
}

impl Ranges {
    pub(super) fn new(scans: Vec<RangeScan>, store: &Store) -> Self {
        let mut ranges = Self::unpinned(scans);
        ranges.pin(store);
        ranges
    }

    /// To be read to the end, or pinned, before the store can change.
    fn unpinned(scans: Vec<RangeScan>) -> Self {
        Self { pin: None, scans, done: 0, done_bytes: 0 }
    }

    fn pin(&mut self, store: &Store) {
        let floor = self.scans.iter().map(RangeScan::floor).min();
        self.pin = floor.map(|floor| store.pins.pin(floor));
    }

    /// Whether all that is left to be read is in `store`.
    pub(super) fn are_of(&self, store: &Store) -> bool {
        self.done == self.scans.len() || self.pin.as_ref().is_some_and(|pin| pin.holds(store))
    }

    pub(super) fn step(&mut self, store: &Store, keys_max: usize) -> bool {
        let mut left = keys_max.max(1);
        while let Some(scan) = self.scans.get_mut(self.done) {
            if !scan.step_within(store, &mut left) {
                return false;
            }
            self.done_bytes += scan.held_bytes();
            self.done += 1;
        }
        true
    }

    pub(super) fn held_bytes(&self) -> u64 {
        let current = self.scans.get(self.done);
        self.done_bytes + current.map_or(0, RangeScan::held_bytes)
    }

    pub(super) fn are_long_to_sort(&self) -> bool {
        self.scans.iter().any(RangeScan::is_long_to_sort)
    }

    /// What they found, in order. The history is not held any longer.
    pub(super) fn finish(self) -> impl Iterator<Item = RangeScan> {
        assert!(self.done == self.scans.len(), "ranges are finished when the last step is done");
        self.scans.into_iter()
    }
}

fn respond(outline: Outline, ranges: Ranges) -> Response<Found> {
    match fill(outline, &mut ranges.finish()) {
        ResponseOp::Put(put) => Response::Put(put),
        ResponseOp::DeleteRange(deletion) => Response::DeleteRange(deletion),
        ResponseOp::Txn(txn) => Response::Txn(txn),
        ResponseOp::Range(_) => unreachable!("a read is no command"),
    }
}

/// The outcome with the keys that `scans` found, from the first that is its own.
pub(super) fn fill(
    outline: Outline,
    scans: &mut impl Iterator<Item = RangeScan>,
) -> ResponseOp<Found> {
    let mut next = || scans.next().expect("every range of the outline has a scan").collect();
    match outline {
        Outline::Put(put) => ResponseOp::Put(put),
        Outline::Range => ResponseOp::Range(next()),
        Outline::Delete { revision, deleted, listed } => {
            let prev_kvs = if listed { next().kvs } else { Found::default() };
            ResponseOp::DeleteRange(DeleteRangeResponse { revision, deleted, prev_kvs })
        }
        Outline::Txn { revision, succeeded, ops } => {
            let mut responses = Vec::with_capacity(ops.len());
            for op in ops {
                responses.push(fill(op, scans));
            }
            ResponseOp::Txn(TxnResponse { revision, succeeded, responses })
        }
    }
}
