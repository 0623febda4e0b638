//! Transactions: compare, then one branch or the other, at one revision.
//!
//! In etcd's order. All comparisons first, those of inner transactions too, on the state before
//! any operation; that fixes the path. Then every operation on the path is checked against that
//! same state: one that cannot be done refuses the whole. Only then are they done, in order, each
//! seeing what those before it did, and none of them can fail any more.

use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::answer::{Notes, Outline};
use super::error::Error;
use super::key_index::{self, Version};
use super::range::{self, RangeScan};
use super::store::{Store, Write};
use super::types::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, PutResponse,
    RangeRequest, RequestOp, TxnRequest,
};

/// Does a put that is a command of its own.
pub(super) fn put(
    store: &mut Store,
    request: &PutRequest,
    notes: Option<&mut Notes>,
) -> Result<Option<Outline>, Error> {
    request.validate()?;
    check_lease(request)?;
    check_previous(store, request)?;
    Ok(do_put(&mut Write::new(store), request, notes))
}

/// Does a deletion that is a command of its own.
pub(super) fn delete_range(
    store: &mut Store,
    request: &DeleteRangeRequest,
    notes: Option<&mut Notes>,
) -> Result<Option<Outline>, Error> {
    request.validate()?;
    Ok(do_delete(&mut Write::new(store), request, notes))
}

/// Does a transaction.
pub(super) fn apply(
    store: &mut Store,
    request: &TxnRequest,
    notes: Option<&mut Notes>,
) -> Result<Option<Outline>, Error> {
    let plan = plan(store, request)?;
    let mut write = Write::new(store);
    let mut outline = execute(&plan, &mut write, notes);
    if let Some(Outline::Txn { revision, .. }) = &mut outline {
        *revision = store.revision;
    }
    Ok(outline)
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

/// Takes the steps. What they read and deleted is noted, and their outcome told, only where there
/// is somewhere to note it: on the state both have no effect.
fn execute(
    plan: &Plan<'_>,
    write: &mut Write<'_>,
    mut notes: Option<&mut Notes>,
) -> Option<Outline> {
    let mut ops = Vec::new();
    for step in &plan.steps {
        let notes = notes.as_deref_mut();
        ops.extend(match step {
            Step::Inner(inner) => execute(inner, write, notes),
            Step::Op(RequestOp::Range(request)) => {
                notes.map(|notes| do_range(write, request, notes))
            }
            Step::Op(RequestOp::Put(request)) => do_put(write, request, notes),
            Step::Op(RequestOp::DeleteRange(request)) => do_delete(write, request, notes),
            Step::Op(RequestOp::Txn(_)) => unreachable!("inner transactions are plans"),
        });
    }
    notes.map(|_| Outline::Txn { revision: 0, succeeded: plan.succeeded, ops })
}

fn do_range(write: &Write<'_>, request: &RangeRequest, notes: &mut Notes) -> Outline {
    let scan = RangeScan::within_write(request.clone(), write.store, write.so_far());
    notes.scans.push(scan.expect("the revision was checked before"));
    Outline::Range
}

fn do_put(
    write: &mut Write<'_>,
    request: &PutRequest,
    notes: Option<&mut Notes>,
) -> Option<Outline> {
    let keeps = request.ignore_value || request.ignore_lease;
    let shows = request.prev_kv && notes.is_some();
    let before = if keeps || shows { range::current(write.store, &request.key) } else { None };
    let kept = before.as_ref().filter(|_| keeps);
    assert!(kept.is_some() == keeps, "what is to be kept was checked to be there");
    let value = kept.filter(|_| request.ignore_value).map_or(&request.value, |kv| &kv.value);
    let lease = kept.filter(|_| request.ignore_lease).map_or(request.lease, |kv| kv.lease);
    write.put(&request.key, value, lease);
    let revision = write.revision();
    notes.map(|_| Outline::Put(PutResponse { revision, prev_kv: before.filter(|_| shows) }))
}

fn do_delete(
    write: &mut Write<'_>,
    request: &DeleteRangeRequest,
    mut notes: Option<&mut Notes>,
) -> Option<Outline> {
    let listed = request.prev_kv;
    if let Some(notes) = notes.as_deref_mut().filter(|_| listed) {
        notes.deletion(request, write.store, write.so_far());
    }
    let bounds = key_index::bounds(&request.key, &request.range_end);
    let deleted = bounds.map_or(0, |bounds| write.delete(bounds)).into();
    notes.map(|_| Outline::Delete { revision: write.revision(), deleted, listed })
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
