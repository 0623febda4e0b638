//! The checker that ignores revisions: key by key, is there any order in real time that explains
//! the values seen? It guards the other one, which believes what the store says of its order.
//!
//! An operation on several keys is judged by what it saw and did on each: a store that is
//! linearizable is so key by key (Herlihy and Wing, 1990), so nothing honest is refused. What it
//! does not see: that the parts of a transaction happened at one moment, anything about the past
//! (reads at a revision, compaction), serializable reads, counts and versions.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft_node::kv::{
    Command, Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Error,
    PutRequest, RangeRequest, RangeResponse, RequestOp, Response, ResponseOp, TxnRequest,
    TxnResponse,
};

use super::Verdict;
use super::history::{Answer, Freshness, History, Operation, Outcome, Request};
use super::search::{self, Branch, Call, Effect, Expect, Found};
use super::shape::within;

/// Steps after which the search for one key gives up.
const STEPS_MAX: usize = 4_000_000;

/// Judges a history.
pub fn check(history: &History) -> Verdict {
    check_within(history, STEPS_MAX)
}

/// [`check`] with another budget for each key.
pub fn check_within(history: &History, steps_max: usize) -> Verdict {
    let mut undecided = None;
    for key in keys(history) {
        let calls = history.operations.iter().enumerate();
        let calls = calls.filter_map(|(at, operation)| call(&key, at, operation)).collect();
        let calls = search::without_unseen(calls);
        match search::search(&calls, steps_max) {
            Found::Order => {}
            Found::NoOrder => {
                let shortest = search::shortest_failure(&calls, steps_max);
                return Verdict::violation(explain(history, &key, &shortest));
            }
            Found::GaveUp => {
                let why = format!("key {key:?}: no answer after {steps_max} steps");
                undecided.get_or_insert(Verdict::Undecided(why));
            }
        }
    }
    undecided.unwrap_or(Verdict::Linearizable)
}

/// The operation whose answer has no place any more, and those around it.
fn explain(history: &History, key: &Bytes, calls: &[Call]) -> String {
    let answered = calls.iter().filter(|call| call.returned.is_some());
    let last =
        answered.max_by_key(|call| call.returned).expect("without answers there is an order");
    let overlaps = |call: &&Call| {
        call.operation != last.operation && call.returned.is_none_or(|end| end >= last.called)
    };
    let beside: Vec<&Call> = calls.iter().filter(overlaps).collect();
    let mut before: Vec<&Call> =
        calls.iter().filter(|call| call.returned.is_some_and(|end| end < last.called)).collect();
    before.sort_by_key(|call| std::cmp::Reverse(call.returned));
    let show = |call: &Call| format!("  {:?}", history.operations[call.operation]);
    let lines =
        |some: &[&Call]| some.iter().take(8).map(|one| show(one)).collect::<Vec<_>>().join("\n");
    format!(
        "key {key:?} has no order of the first {} answers.\nThe last of them:\n{}\n\
         It overlaps:\n{}\nThe latest before it:\n{}",
        calls.iter().filter(|call| call.returned.is_some()).count(),
        show(last),
        lines(&beside),
        lines(&before),
    )
}

/// Every key that somebody named, or was shown.
fn keys(history: &History) -> BTreeSet<Bytes> {
    let mut keys = BTreeSet::new();
    for operation in &history.operations {
        match &operation.request {
            Request::Write(Command::Put(put)) => {
                keys.insert(put.key.clone());
            }
            Request::Write(Command::DeleteRange(delete)) => {
                keys.insert(delete.key.clone());
            }
            Request::Write(Command::Txn(txn)) | Request::ReadTxn(txn, _) => {
                txn_keys(txn, &mut keys);
            }
            Request::Write(Command::Compact(_)) => {}
            Request::Range(range, _) => {
                keys.insert(range.key.clone());
            }
        }
        if let Some((_, Answer::Range(response))) = operation.returned() {
            keys.extend(response.kvs.iter().map(|kv| kv.key.clone()));
        }
    }
    keys
}

fn txn_keys(txn: &TxnRequest, keys: &mut BTreeSet<Bytes>) {
    keys.extend(txn.compare.iter().map(|compare| compare.key.clone()));
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            RequestOp::Range(range) => {
                keys.insert(range.key.clone());
            }
            RequestOp::Put(put) => {
                keys.insert(put.key.clone());
            }
            RequestOp::DeleteRange(delete) => {
                keys.insert(delete.key.clone());
            }
            RequestOp::Txn(inner) => txn_keys(inner, keys),
        }
    }
}

/// What the register `key` met of an operation, if anything.
fn call(key: &Bytes, at: usize, operation: &Operation) -> Option<Call> {
    let branches = match &operation.outcome {
        Outcome::Returned { answer, .. } => vec![answered(key, &operation.request, answer)],
        Outcome::NoEffect { .. } => return None,
        Outcome::Unknown => unanswered(key, &operation.request),
    };
    let idle = |branch: &Branch| branch.expects.is_empty() && branch.effect == Effect::Keep;
    if branches.iter().all(idle) {
        return None;
    }
    let returned = operation.returned().map(|(end, _)| end);
    Some(Call { called: operation.called, returned, branches, operation: at })
}

/// What an answered operation did and saw.
fn answered(key: &Bytes, request: &Request, answer: &Answer) -> Branch {
    let mut met = Met { key, branch: Branch { expects: Vec::new(), effect: Effect::Keep } };
    match (request, answer) {
        (Request::Write(Command::Put(put)), Answer::Written(Response::Put(response))) => {
            met.put(put, response.prev_kv.as_ref().map(|kv| &kv.value));
        }
        (
            Request::Write(Command::DeleteRange(delete)),
            Answer::Written(Response::DeleteRange(response)),
        ) => met.delete(delete, response),
        (Request::Write(Command::Txn(txn)), Answer::Written(Response::Txn(response)))
        | (Request::ReadTxn(txn, Freshness::Linearizable), Answer::ReadTxn(response)) => {
            met.txn(txn, response);
        }
        (Request::Range(range, Freshness::Linearizable), Answer::Range(response)) => {
            met.range(range, response);
        }
        (Request::Write(Command::Put(put)), Answer::Refused { error: Error::KeyNotFound, .. })
            if put.key == *key =>
        {
            met.branch.expects.push(Expect::Absent);
        }
        _ => {}
    }
    met.branch
}

/// What one key met, in the order in which an operation's parts were done.
struct Met<'a> {
    key: &'a Bytes,
    branch: Branch,
}

impl Met<'_> {
    /// Something was seen; after a write of its own it says nothing of the register before.
    fn see(&mut self, expect: Expect) {
        if self.branch.effect == Effect::Keep {
            self.branch.expects.push(expect);
        }
    }

    fn see_value(&mut self, value: Option<&Bytes>) {
        self.see(value.map_or(Expect::Absent, Expect::is));
    }

    fn put(&mut self, put: &PutRequest, previous: Option<&Bytes>) {
        if put.key != *self.key {
            return;
        }
        if put.prev_kv {
            self.see_value(previous);
        }
        if put.ignore_value {
            self.see(Expect::Present);
        } else {
            self.branch.effect = Effect::Set(Some(put.value.clone()));
        }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest, response: &DeleteRangeResponse) {
        if !within(self.key, &delete.key, &delete.range_end) {
            return;
        }
        if delete.prev_kv {
            let previous = response.prev_kvs.iter().find(|kv| kv.key == *self.key);
            self.see_value(previous.map(|kv| &kv.value));
        } else if response.deleted == 0 {
            self.see(Expect::Absent);
        } else if delete.range_end.is_empty() {
            self.see(Expect::Present);
        }
        self.branch.effect = Effect::Set(None);
    }

    fn range(&mut self, range: &RangeRequest, response: &RangeResponse) {
        if range.revision > 0 || !within(self.key, &range.key, &range.range_end) {
            return;
        }
        let bounds = [range.min_mod_revision, range.max_mod_revision];
        let filtered = bounds.into_iter().any(|bound| bound != 0)
            || range.min_create_revision != 0
            || range.max_create_revision != 0;
        let alone = range.range_end.is_empty();
        match response.kvs.iter().find(|kv| kv.key == *self.key) {
            Some(_) if range.keys_only => self.see(Expect::Present),
            Some(kv) => self.see_value(Some(&kv.value)),
            None if response.count == 0 => self.see(Expect::Absent),
            None if alone && (range.count_only || filtered) => self.see(Expect::Present),
            None if range.count_only || filtered || response.more => {}
            None => self.see(Expect::Absent),
        }
    }

    fn txn(&mut self, txn: &TxnRequest, response: &TxnResponse) {
        // Comparisons are made on the state before the whole, so before any write of its own.
        let about = |compare: &&Compare| compare.key == *self.key && compare.range_end.is_empty();
        if response.succeeded {
            let holding = txn.compare.iter().filter(about).filter_map(condition);
            self.branch.expects.extend(holding);
        } else if let [only] = txn.compare.as_slice()
            && about(&only)
        {
            let failing = condition(only).map(|expect| Expect::Not(Box::new(expect)));
            self.branch.expects.extend(failing);
        }
        let ops = if response.succeeded { &txn.success } else { &txn.failure };
        for (op, response) in ops.iter().zip(&response.responses) {
            match (op, response) {
                (RequestOp::Range(range), ResponseOp::Range(response)) => {
                    self.range(range, response);
                }
                (RequestOp::Put(put), ResponseOp::Put(response)) => {
                    self.put(put, response.prev_kv.as_ref().map(|kv| &kv.value));
                }
                (RequestOp::DeleteRange(delete), ResponseOp::DeleteRange(response)) => {
                    self.delete(delete, response);
                }
                (RequestOp::Txn(inner), ResponseOp::Txn(response)) => self.txn(inner, response),
                _ => {}
            }
        }
    }
}

/// What a comparison says of a register's value; none if it is about numbers that only revisions
/// explain.
fn condition(compare: &Compare) -> Option<Expect> {
    match (&compare.target, compare.result) {
        (CompareTarget::Value(given), result) => Some(Expect::Compares(result, given.clone())),
        // Every version and revision of a key that exists is above 0.
        (CompareTarget::Version(0) | CompareTarget::Create(0) | CompareTarget::Mod(0), result) => {
            match result {
                CompareResult::Equal => Some(Expect::Absent),
                CompareResult::NotEqual | CompareResult::Greater => Some(Expect::Present),
                CompareResult::Less => None,
            }
        }
        _ => None,
    }
}

/// How an unanswered operation may have gone, if it happened.
fn unanswered(key: &Bytes, request: &Request) -> Vec<Branch> {
    let blind = |effect| Branch { expects: Vec::new(), effect };
    match request {
        Request::Write(Command::Txn(txn)) => {
            if let Some(branches) = compare_and_swap(key, txn) {
                return branches;
            }
            let ops = txn.success.iter().chain(&txn.failure);
            ops.flat_map(|op| effects(key, op)).map(blind).collect()
        }
        Request::Write(Command::Put(put)) => {
            effects(key, &RequestOp::Put(put.clone())).into_iter().map(blind).collect()
        }
        Request::Write(Command::DeleteRange(delete)) => {
            effects(key, &RequestOp::DeleteRange(delete.clone())).into_iter().map(blind).collect()
        }
        Request::Write(Command::Compact(_)) | Request::Range(..) | Request::ReadTxn(..) => {
            Vec::new()
        }
    }
}

/// A transaction whose only comparison is of this key's value: what it may do depends on it.
fn compare_and_swap(key: &Bytes, txn: &TxnRequest) -> Option<Vec<Branch>> {
    let [compare] = txn.compare.as_slice() else { return None };
    if compare.key != *key || !compare.range_end.is_empty() {
        return None;
    }
    let holds = condition(compare)?;
    let fails = Expect::Not(Box::new(holds.clone()));
    let branch = |expect: &Expect, ops: &[RequestOp]| -> Vec<Branch> {
        let effects = ops.iter().flat_map(|op| effects(key, op));
        effects.map(|effect| Branch { expects: vec![expect.clone()], effect }).collect()
    };
    let mut branches = branch(&holds, &txn.success);
    branches.extend(branch(&fails, &txn.failure));
    Some(branches)
}

/// What an operation may do to the register, whichever way the transactions within it go.
fn effects(key: &Bytes, op: &RequestOp) -> Vec<Effect> {
    match op {
        RequestOp::Put(put) if put.key == *key && !put.ignore_value => {
            vec![Effect::Set(Some(put.value.clone()))]
        }
        RequestOp::DeleteRange(delete) if within(key, &delete.key, &delete.range_end) => {
            vec![Effect::Set(None)]
        }
        RequestOp::Put(_) | RequestOp::DeleteRange(_) | RequestOp::Range(_) => Vec::new(),
        RequestOp::Txn(inner) => {
            let ops = inner.success.iter().chain(&inner.failure);
            ops.flat_map(|op| effects(key, op)).collect()
        }
    }
}
