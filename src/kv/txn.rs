//! Transactions: compare, then one branch or the other, at one revision.
//!
//! In etcd's order. All comparisons first, those of inner transactions too, on the state before
//! any operation; that fixes the path. Then every operation on the path is checked against that
//! same state: one that cannot be done refuses the whole. Only then are they done, in order, each
//! seeing what those before it did, and none of them can fail any more.

use crate::proof::{Mark, Mutant, mark, mutant};

use super::error::Error;
use super::key_index::{self, Version};
use super::range::{self, RangeScan};
use super::store::{Store, Write};
use super::types::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};

/// Does a put that is a command of its own.
pub(super) fn put(store: &mut Store, request: &PutRequest) -> Result<PutResponse, Error> {
    request.validate()?;
    check_lease(request)?;
    check_previous(store, request)?;
    Ok(do_put(&mut Write::new(store), request))
}

/// Does a deletion that is a command of its own.
pub(super) fn delete_range(
    store: &mut Store,
    request: &DeleteRangeRequest,
) -> Result<DeleteRangeResponse, Error> {
    request.validate()?;
    Ok(do_delete(&mut Write::new(store), request))
}

/// Does a transaction.
pub(super) fn apply(store: &mut Store, request: &TxnRequest) -> Result<TxnResponse, Error> {
    let plan = plan(store, request)?;
    let mut write = Write::new(store);
    let mut response = execute(&plan, &mut write);
    response.revision = store.revision;
    Ok(response)
}

/// The branch taken, and those within it.
pub(super) struct Plan<'a> {
    pub(super) succeeded: bool,
    pub(super) steps: Vec<Step<'a>>,
}

/// One thing to do.
pub(super) enum Step<'a> {
    Op(&'a RequestOp),
    Inner(Plan<'a>),
}

/// Compares and checks: what is left to do then cannot fail.
pub(super) fn plan<'a>(store: &Store, request: &'a TxnRequest) -> Result<Plan<'a>, Error> {
    request.validate()?;
    let plan = choose(store, request);
    if !mutant(Mutant::TxnUnchecked) {
        check(store, &plan).inspect_err(|_| mark(Mark::TxnRefused))?;
    }
    Ok(plan)
}

fn choose<'a>(store: &Store, request: &'a TxnRequest) -> Plan<'a> {
    let succeeded = request.compare.iter().all(|compare| holds(store, compare));
    let ops = if succeeded { &request.success } else { &request.failure };
    let step = |op: &'a RequestOp| match op {
        RequestOp::Txn(inner) => Step::Inner(choose(store, inner)),
        RequestOp::Range(_) | RequestOp::Put(_) | RequestOp::DeleteRange(_) => Step::Op(op),
    };
    Plan { succeeded, steps: ops.iter().map(step).collect() }
}

fn check(store: &Store, plan: &Plan<'_>) -> Result<(), Error> {
    for step in &plan.steps {
        match step {
            Step::Inner(inner) => check(store, inner)?,
            Step::Op(RequestOp::Range(request)) => check_range(store, request)?,
            Step::Op(RequestOp::Put(request)) => {
                check_previous(store, request)?;
                check_lease(request)?;
            }
            Step::Op(RequestOp::DeleteRange(_)) => {}
            Step::Op(RequestOp::Txn(_)) => unreachable!("inner transactions are plans"),
        }
    }
    Ok(())
}

/// Unlike a range by itself, one in a transaction takes only 0 for "now".
fn check_range(store: &Store, request: &RangeRequest) -> Result<(), Error> {
    if request.revision == 0 {
        return Ok(());
    }
    if request.revision > store.revision {
        return Err(Error::FutureRevision);
    }
    if request.revision < store.compacted {
        return Err(Error::Compacted);
    }
    Ok(())
}

/// What is to be kept must be there.
fn check_previous(store: &Store, request: &PutRequest) -> Result<(), Error> {
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && store.current(&request.key).is_none() {
        return Err(Error::KeyNotFound);
    }
    Ok(())
}

/// There are no leases yet, so none can be found.
fn check_lease(request: &PutRequest) -> Result<(), Error> {
    if request.lease == 0 { Ok(()) } else { Err(Error::LeaseNotFound) }
}

fn execute(plan: &Plan<'_>, write: &mut Write<'_>) -> TxnResponse {
    let mut responses = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        responses.push(match step {
            Step::Inner(inner) => ResponseOp::Txn(execute(inner, write)),
            Step::Op(RequestOp::Range(request)) => do_range(write.store, request),
            Step::Op(RequestOp::Put(request)) => ResponseOp::Put(do_put(write, request)),
            Step::Op(RequestOp::DeleteRange(request)) => {
                ResponseOp::DeleteRange(do_delete(write, request))
            }
            Step::Op(RequestOp::Txn(_)) => unreachable!("inner transactions are plans"),
        });
    }
    TxnResponse { revision: 0, succeeded: plan.succeeded, responses }
}

fn do_range(store: &Store, request: &RangeRequest) -> ResponseOp {
    let mut scan =
        RangeScan::unpinned(request.clone(), store).expect("the revision was checked before");
    scan.step(store, usize::MAX).expect("the store is still the same");
    ResponseOp::Range(scan.finish())
}

fn do_put(write: &mut Write<'_>, request: &PutRequest) -> PutResponse {
    let keeps = request.ignore_value || request.ignore_lease;
    let before =
        if keeps || request.prev_kv { range::current(write.store, &request.key) } else { None };
    let kept = before.as_ref().filter(|_| keeps);
    assert!(kept.is_some() == keeps, "what is to be kept was checked to be there");
    let value = kept.filter(|_| request.ignore_value).map_or(&request.value, |kv| &kv.value);
    let lease = kept.filter(|_| request.ignore_lease).map_or(request.lease, |kv| kv.lease);
    write.put(&request.key, value, lease);
    PutResponse { revision: write.revision(), prev_kv: before.filter(|_| request.prev_kv) }
}

fn do_delete(write: &mut Write<'_>, request: &DeleteRangeRequest) -> DeleteRangeResponse {
    let mut prev_kvs = Vec::new();
    let mut deleted = 0;
    if let Some(bounds) = key_index::bounds(&request.key, &request.range_end) {
        deleted = write.delete(bounds, |version| {
            if request.prev_kv {
                prev_kvs.push(version.to_key_value());
            }
        });
    }
    DeleteRangeResponse { revision: write.revision(), deleted: i64::from(deleted), prev_kvs }
}

/// Whether a condition holds for every key of its range or, if there is none, for a missing key.
fn holds(store: &Store, compare: &Compare) -> bool {
    let Some(bounds) = key_index::bounds(&compare.key, &compare.range_end) else {
        return holds_for(compare, None);
    };
    let mut versions = store.current_range(bounds).peekable();
    if versions.peek().is_none() {
        return holds_for(compare, None);
    }
    versions.all(|version| holds_for(compare, Some(version)))
}

fn holds_for(compare: &Compare, found: Option<&Version>) -> bool {
    let number = |of: fn(&Version) -> i64, given: i64| found.map_or(0, of).cmp(&given);
    let ordering = match &compare.target {
        CompareTarget::Version(given) => number(|version| version.version, *given),
        CompareTarget::Create(given) => number(|version| version.create, *given),
        CompareTarget::Mod(given) => number(|version| version.main, *given),
        CompareTarget::Lease(given) => number(|version| version.lease, *given),
        CompareTarget::Value(given) => match found {
            // Not even "differs": the wire cannot tell a missing value from an empty one.
            None => return false,
            Some(version) => version.value().cmp(given),
        },
    };
    match compare.result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
    }
}
