//! Transactions that only read: they need no log entry, and may take long, so they are done in
//! steps like a [`RangeScan`]. All their ranges answer from one state.

use super::compaction::Pin;
use super::error::Error;
use super::range::RangeScan;
use super::store::Store;
use super::txn::{self, Plan, Step};
use super::types::{RequestOp, ResponseOp, TxnRequest, TxnResponse};

/// A transaction being read.
#[derive(Debug)]
pub struct TxnScan {
    request: TxnRequest,
    revision: i64,
    pin: Pin,
    outline: Outline,
    /// The ranges of the outline, in order.
    scans: Vec<RangeScan>,
    done: usize,
}

/// What the answer will look like: the branches taken.
#[derive(Debug)]
struct Outline {
    succeeded: bool,
    /// A range, or a transaction within.
    ops: Vec<Option<Outline>>,
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
        let outline = outline(&plan, store, &mut scans);
        let pin = store.pins.pin(store.compacted);
        Ok(Self { revision: store.revision, pin, outline, scans, done: 0, request })
    }

    /// Looks at up to `keys_max` more keys; true when there are no more. Begins anew if a snapshot
    /// has replaced the store.
    pub fn step(&mut self, store: &Store, keys_max: usize) -> Result<bool, Error> {
        if self.done < self.scans.len() && !self.pin.holds(store) {
            *self = Self::new(std::mem::take(&mut self.request), store)?;
        }
        let mut left = keys_max.max(1);
        while let Some(scan) = self.scans.get_mut(self.done) {
            if !scan.step_within(store, &mut left) {
                return Ok(false);
            }
            self.done += 1;
        }
        Ok(true)
    }

    /// The answer, once [`Self::step`] has said that it is done.
    pub fn finish(self) -> TxnResponse {
        assert!(self.done == self.scans.len(), "a scan is finished when its last step is done");
        let mut scans = self.scans.into_iter();
        TxnResponse { revision: self.revision, ..answer(self.outline, &mut scans) }
    }
}

fn outline(plan: &Plan<'_>, store: &Store, scans: &mut Vec<RangeScan>) -> Outline {
    let mut ops = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        ops.push(match step {
            Step::Inner(inner) => Some(outline(inner, store, scans)),
            Step::Op(RequestOp::Range(request)) => {
                let scan = RangeScan::unpinned(request.clone(), store);
                scans.push(scan.expect("the revision was checked with the plan"));
                None
            }
            Step::Op(RequestOp::Put(_) | RequestOp::DeleteRange(_) | RequestOp::Txn(_)) => {
                unreachable!("the transaction only reads, and inner ones are plans")
            }
        });
    }
    Outline { succeeded: plan.succeeded, ops }
}

fn answer(outline: Outline, scans: &mut impl Iterator<Item = RangeScan>) -> TxnResponse {
    let mut responses = Vec::with_capacity(outline.ops.len());
    for op in outline.ops {
        responses.push(if let Some(inner) = op {
            ResponseOp::Txn(answer(inner, scans))
        } else {
            let scan = scans.next().expect("every range of the outline has a scan");
            ResponseOp::Range(scan.finish())
        });
    }
    TxnResponse { revision: 0, succeeded: outline.succeeded, responses }
}
