//! Transactions that only read: they need no log entry, and may take long, so they are done in
//! steps like a [`RangeScan`]. All their ranges answer from one state.

use super::answer::{Outline, Ranges, fill};
use super::error::Error;
use super::found::Found;
use super::range::RangeScan;
use super::store::Store;
use super::txn::{self, Plan, Step};
use super::types::{RequestOp, ResponseOp, TxnRequest, TxnResponse};

/// A transaction being read.
#[derive(Debug)]
pub struct TxnScan {
    request: TxnRequest,
    outline: Outline,
    ranges: Ranges,
}

impl TxnScan {
    /// Begins to read: compares (which is not cut into steps), checks, fixes the revision and
    /// holds the history.
    ///
    /// Panics if the transaction might write: that one goes through the log.
    pub fn new(request: TxnRequest, store: &Store) -> Result<Self, Error> {
        assert!(request.is_read_only(), "a transaction that may write goes through the log");
        let plan = txn::plan(store, &request)?;
        let mut scans = Vec::new();
        let outline = outline(&plan, store.revision, store, &mut scans);
        let ranges = Ranges::new(scans, store);
        Ok(Self { request, outline, ranges })
    }

    /// Looks at up to `keys_max` more keys; true when there are no more. Begins anew if a snapshot
    /// has replaced the store.
    pub fn step(&mut self, store: &Store, keys_max: usize) -> Result<bool, Error> {
        if !self.ranges.are_of(store) {
            *self = Self::new(std::mem::take(&mut self.request), store)?;
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
    pub fn finish(self) -> TxnResponse {
        self.collect().listed()
    }

    /// The same, with the keys as they were found.
    pub fn collect(self) -> TxnResponse<Found> {
        match fill(self.outline, &mut self.ranges.finish()) {
            ResponseOp::Txn(response) => response,
            ResponseOp::Range(_) | ResponseOp::Put(_) | ResponseOp::DeleteRange(_) => {
                unreachable!("the outline is of a transaction")
            }
        }
    }
}

fn outline(plan: &Plan<'_>, revision: i64, store: &Store, scans: &mut Vec<RangeScan>) -> Outline {
    let mut ops = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        ops.push(match step {
            Step::Inner(inner) => outline(inner, 0, store, scans),
            Step::Op(RequestOp::Range(request)) => {
                let scan = RangeScan::unpinned(request.clone(), store);
                scans.push(scan.expect("the revision was checked with the plan"));
                Outline::Range
            }
            Step::Op(RequestOp::Put(_) | RequestOp::DeleteRange(_) | RequestOp::Txn(_)) => {
                unreachable!("the transaction only reads, and inner ones are plans")
            }
        });
    }
    Outline::Txn { revision, succeeded: plan.succeeded, ops }
}
