//! The store as etcd's documents describe it, kept apart from the production one so that the same
//! mistake is not made twice: every key with the list of all it ever was. Nothing is compacted;
//! what a compaction hides is an argument of every question.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_node::kv::{
    Command, CompactionResponse, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    DeleteRangeResponse, Error, KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, Response, ResponseOp, SortOrder, SortTarget, TxnRequest, TxnResponse,
};

use super::history::{Answer, Request};
use super::shape;

/// A state of the store: nothing after `revision`, nothing to be had below `compacted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The revision of the last change.
    pub revision: i64,
    /// The revision that was compacted to, or -1.
    pub compacted: i64,
}

/// The compacted revision of a store that was never compacted.
pub const NEVER: i64 = -1;

/// What one revision did to one key: the key after it, or none if it was deleted.
type Change = (Bytes, Option<KeyValue>);

/// What would come of a request.
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// What would change, at the revision after the state's. Empty: nothing.
    pub changes: Vec<Change>,
}

/// Every key at every revision up to the last one taken in.
#[derive(Clone, Debug)]
pub struct Model {
    /// The revision at which there was no key.
    base: i64,
    /// Of each key, when it changed and to what, oldest first.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    /// Which keys each revision after the base changed.
    changed: Vec<Vec<Bytes>>,
}

impl Model {
    /// A store without keys at revision `base`.
    pub fn new(base: i64) -> Self {
        Self { base, keys: BTreeMap::new(), changed: Vec::new() }
    }

    /// The state before all changes.
    pub fn first(&self) -> State {
        State { revision: self.base, compacted: NEVER }
    }

    /// The revision of the last change taken in.
    pub fn revision(&self) -> i64 {
        self.base + i64::try_from(self.changed.len()).expect("a history fits in memory")
    }

    /// Takes in what the next revision changed.
    pub fn push(&mut self, changes: Vec<Change>) {
        assert!(!changes.is_empty(), "a revision changes something");
        let revision = self.revision() + 1;
        let mut keys = Vec::new();
        for (key, now) in changes {
            self.keys.entry(key.clone()).or_default().push((revision, now));
            keys.push(key);
        }
        self.changed.push(keys);
    }

    /// Takes the last revision back.
    pub fn pop(&mut self) {
        for key in self.changed.pop().expect("something was taken in") {
            let versions = self.keys.get_mut(&key).expect("it was pushed");
            versions.pop();
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
    }

    /// What a client would be told, and what would change, if `request` met `state`.
    pub fn outcome(&self, state: State, request: &Request) -> Outcome {
        let mut draft = Draft { model: self, state, pending: Vec::new() };
        let answer = draft.answer(request).unwrap_or_else(|error| {
            draft.pending.clear();
            Answer::Refused { error, revision: Some(state.revision) }
        });
        Outcome { answer, changes: draft.settled() }
    }

    fn at(&self, key: &Bytes, revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let upto = versions.partition_point(|(since, _)| *since <= revision);
        versions[..upto].last()?.1.as_ref()
    }
}

/// A request under way: what it has changed so far stands in front of the state.
struct Draft<'a> {
    model: &'a Model,
    state: State,
    /// In the order in which it was done.
    pending: Vec<Change>,
}

impl Draft<'_> {
    fn answer(&mut self, request: &Request) -> Result<Answer, Error> {
        match request {
            Request::Write(command) => self.write(command).map(Answer::Written),
            Request::Range(range, _) => {
                shape::check_key(&range.key)?;
                // By itself, any revision that is not positive means now.
                let range = RangeRequest { revision: range.revision.max(0), ..range.clone() };
                self.check_range(&range)?;
                Ok(Answer::Range(self.range(&range)))
            }
            Request::ReadTxn(txn, _) => {
                let response = self.whole_txn(txn)?;
                assert!(self.pending.is_empty(), "{txn:?} is said to read only");
                Ok(Answer::ReadTxn(response))
            }
        }
    }

    fn write(&mut self, command: &Command) -> Result<Response, Error> {
        shape::check(command)?;
        match command {
            Command::Put(put) => {
                check_lease(put)?;
                self.check_kept(put)?;
                Ok(Response::Put(self.put(put)))
            }
            Command::DeleteRange(delete) => Ok(Response::DeleteRange(self.delete(delete))),
            Command::Txn(txn) => self.whole_txn(txn).map(Response::Txn),
            Command::Compact(compact) => {
                if compact.revision <= self.state.compacted {
                    return Err(Error::Compacted);
                }
                if compact.revision > self.state.revision {
                    return Err(Error::FutureRevision);
                }
                let revision = self.state.revision;
                Ok(Response::Compact(CompactionResponse { revision }))
            }
        }
    }

    /// What is true once all is done: the last change of each key.
    fn settled(self) -> Vec<Change> {
        let last: BTreeMap<Bytes, Option<KeyValue>> = self.pending.into_iter().collect();
        last.into_iter().collect()
    }

    fn revision(&self) -> i64 {
        self.state.revision + i64::from(!self.pending.is_empty())
    }

    fn now(&self, key: &Bytes) -> Option<&KeyValue> {
        match self.pending.iter().rev().find(|(changed, _)| changed == key) {
            Some((_, now)) => now.as_ref(),
            None => self.model.at(key, self.state.revision),
        }
    }

    /// The keys of a range as they are now, in order.
    fn all_now(&self, begin: &Bytes, end: &Bytes) -> Vec<KeyValue> {
        let mut found: BTreeMap<&Bytes, &KeyValue> = self.all_at(begin, end, self.state.revision);
        for (key, now) in &self.pending {
            match now {
                Some(kv) if shape::within(key, begin, end) => found.insert(key, kv),
                Some(_) | None => found.remove(key),
            };
        }
        found.into_values().cloned().collect()
    }

    fn all_at(&self, begin: &Bytes, end: &Bytes, revision: i64) -> BTreeMap<&Bytes, &KeyValue> {
        if end.is_empty() {
            let only = self.model.at(begin, revision);
            return only.map(|kv| (&kv.key, kv)).into_iter().collect();
        }
        let keys = self.model.keys.range(begin.clone()..).map(|(key, _)| key);
        keys.take_while(|key| shape::within(key, begin, end))
            .filter_map(|key| Some((key, self.model.at(key, revision)?)))
            .collect()
    }

    fn check_kept(&self, put: &PutRequest) -> Result<(), Error> {
        let missing = put.ignore_value && self.now(&put.key).is_none();
        if missing { Err(Error::KeyNotFound) } else { Ok(()) }
    }

    fn check_range(&self, range: &RangeRequest) -> Result<(), Error> {
        if range.revision > self.state.revision {
            return Err(Error::FutureRevision);
        }
        if range.revision != 0 && range.revision < self.state.compacted {
            return Err(Error::Compacted);
        }
        Ok(())
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let revision = self.state.revision + 1;
        let old = self.now(&put.key).cloned();
        let kept = old.as_ref().filter(|_| put.ignore_value).map(|kv| kv.value.clone());
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(1, |kv| kv.version + 1),
            value: kept.unwrap_or_else(|| put.value.clone()),
            lease: 0,
        };
        self.pending.push((put.key.clone(), Some(kv)));
        PutResponse { revision, prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone = self.all_now(&delete.key, &delete.range_end);
        self.pending.extend(gone.iter().map(|kv| (kv.key.clone(), None)));
        DeleteRangeResponse {
            revision: self.revision(),
            deleted: count(gone.len()),
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    fn range(&self, range: &RangeRequest) -> RangeResponse {
        let mut kvs = match range.revision {
            ..=0 => self.all_now(&range.key, &range.range_end),
            past => {
                let found = self.all_at(&range.key, &range.range_end, past);
                found.into_values().cloned().collect()
            }
        };
        let answer = RangeResponse {
            revision: self.revision(),
            count: count(kvs.len()),
            ..RangeResponse::default()
        };
        if range.count_only {
            return answer;
        }
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0);
        let limit = limit.unwrap_or(usize::MAX);
        let filtered = filter(range, &mut kvs);
        if range.sort_order == SortOrder::None && !filtered {
            // etcd fetches no more than that, and sorts only what it fetched.
            kvs.truncate(limit.saturating_add(1));
        }
        sort(range, &mut kvs);
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if range.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
            }
        }
        RangeResponse { kvs, more, ..answer }
    }

    fn whole_txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, Error> {
        shape::check_txn(txn)?;
        self.check_path(txn)?;
        let mut response = self.txn(txn);
        response.revision = self.revision();
        Ok(response)
    }

    /// Every operation that will be done can be done, on the state before all of them.
    fn check_path(&self, txn: &TxnRequest) -> Result<(), Error> {
        for op in self.branch(txn).1 {
            match op {
                RequestOp::Range(range) => self.check_range(range)?,
                RequestOp::Put(put) => {
                    self.check_kept(put)?;
                    check_lease(put)?;
                }
                RequestOp::DeleteRange(_) => {}
                RequestOp::Txn(inner) => self.check_path(inner)?,
            }
        }
        Ok(())
    }

    fn txn(&mut self, txn: &TxnRequest) -> TxnResponse {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                RequestOp::Range(range) => ResponseOp::Range(self.range(range)),
                RequestOp::Put(put) => ResponseOp::Put(self.put(put)),
                RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(self.delete(delete)),
                RequestOp::Txn(inner) => ResponseOp::Txn(self.txn(inner)),
            });
        }
        TxnResponse { revision: 0, succeeded, responses }
    }

    /// Which branch is taken: judged on the state before the whole request.
    fn branch<'t>(&self, txn: &'t TxnRequest) -> (bool, &'t [RequestOp]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.all_at(&compare.key, &compare.range_end, self.state.revision);
        if found.is_empty() {
            let is_value = matches!(compare.target, CompareTarget::Value(_));
            return !is_value && is_so(compare, &KeyValue::default());
        }
        found.into_values().all(|kv| is_so(compare, kv))
    }
}

fn check_lease(put: &PutRequest) -> Result<(), Error> {
    // No lease was ever granted.
    if put.lease == 0 { Ok(()) } else { Err(Error::LeaseNotFound) }
}

fn is_so(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(given) => kv.version.cmp(given),
        CompareTarget::Create(given) => kv.create_revision.cmp(given),
        CompareTarget::Mod(given) => kv.mod_revision.cmp(given),
        CompareTarget::Value(given) => kv.value.cmp(given),
        CompareTarget::Lease(given) => kv.lease.cmp(given),
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

/// Leaves out what the bounds exclude; whether there were any bounds.
fn filter(range: &RangeRequest, kvs: &mut Vec<KeyValue>) -> bool {
    let above = |value: i64, min: i64| min == 0 || value >= min;
    let below = |value: i64, max: i64| max == 0 || value <= max;
    kvs.retain(|kv| {
        above(kv.mod_revision, range.min_mod_revision)
            && below(kv.mod_revision, range.max_mod_revision)
            && above(kv.create_revision, range.min_create_revision)
            && below(kv.create_revision, range.max_create_revision)
    });
    let bounds = [range.min_mod_revision, range.max_mod_revision];
    let bounds = bounds.into_iter().chain([range.min_create_revision, range.max_create_revision]);
    bounds.into_iter().any(|bound| bound != 0)
}

/// Sorts; equals stay in the order of their keys.
fn sort(range: &RangeRequest, kvs: &mut [KeyValue]) {
    let by = |a: &KeyValue, b: &KeyValue| match range.sort_target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match range.sort_order {
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(by),
        SortOrder::Descend => kvs.sort_by(|a, b| by(b, a)),
    }
}

fn count(items: usize) -> i64 {
    i64::try_from(items).expect("a history fits in memory")
}
