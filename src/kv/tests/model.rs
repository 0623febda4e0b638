//! The model: every revision a whole map. It shares the request types with the store and the
//! refusals' names, and no code.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::kv::{
    Command, CompactionResponse, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    DeleteRangeResponse, Error, Event, EventKind, KeyValue, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, Response, ResponseOp, SortOrder, SortTarget, TxnRequest, TxnResponse,
};

type State = BTreeMap<Bytes, KeyValue>;

#[derive(Clone)]
pub(super) struct Model {
    /// The state at each revision; the first is that of revision 1.
    states: Vec<State>,
    /// What led to each, with the state of the key before.
    events: Vec<Vec<Event>>,
    pub(super) compacted: i64,
}

/// A command under way.
struct Draft<'a> {
    model: &'a Model,
    state: State,
    events: Vec<Event>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { states: vec![State::new()], events: vec![Vec::new()], compacted: -1 }
    }

    pub(super) fn revision(&self) -> i64 {
        number(self.states.len())
    }

    fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    pub(super) fn apply(&mut self, command: &Command) -> Result<Response, Error> {
        let mut draft = Draft { model: self, state: self.state().clone(), events: Vec::new() };
        let response = match command {
            Command::Put(request) => {
                shape_put(request)?;
                if request.lease != 0 {
                    return Err(Error::LeaseNotFound);
                }
                if request.ignore_value && !draft.state.contains_key(&request.key) {
                    return Err(Error::KeyNotFound);
                }
                Response::Put(draft.put(request))
            }
            Command::DeleteRange(request) => {
                shape_key(&request.key)?;
                Response::DeleteRange(draft.delete(request))
            }
            Command::Txn(request) => {
                self.check_txn(request)?;
                let mut response = draft.txn(request);
                response.revision = draft.revision();
                Response::Txn(response)
            }
            Command::Compact(request) => {
                if request.revision <= self.compacted {
                    return Err(Error::Compacted);
                }
                if request.revision > self.revision() {
                    return Err(Error::FutureRevision);
                }
                self.compacted = request.revision;
                let revision = self.revision();
                return Ok(Response::Compact(CompactionResponse { revision }));
            }
        };
        let Draft { state, events, .. } = draft;
        if !events.is_empty() {
            self.states.push(state);
            self.events.push(events);
        }
        Ok(response)
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        if request.revision > self.revision() {
            return Err(Error::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(Error::Compacted);
        }
        let draft = Draft { model: self, state: self.state().clone(), events: Vec::new() };
        Ok(draft.range(request))
    }

    pub(super) fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        self.check_txn(request)?;
        let mut draft = Draft { model: self, state: self.state().clone(), events: Vec::new() };
        Ok(TxnResponse { revision: self.revision(), ..draft.txn(request) })
    }

    pub(super) fn events(&self, revision: i64) -> Vec<Event> {
        if revision < self.compacted || revision < 1 || revision > self.revision() {
            return Vec::new();
        }
        let events = &self.events[place(revision)];
        if revision > self.compacted {
            return events.clone();
        }
        // Of the compacted revision itself: the last of each key, without what was before.
        let last = |(place, event): &(usize, &Event)| {
            !events[place + 1..].iter().any(|later| later.kv.key == event.kv.key)
        };
        let kept = events.iter().enumerate().filter(last);
        kept.map(|(_, event)| Event { prev_kv: None, ..event.clone() }).collect()
    }

    fn check_txn(&self, request: &TxnRequest) -> Result<(), Error> {
        shape_txn(request, 128)?;
        written(&request.success)?;
        written(&request.failure)?;
        self.check_path(request)
    }

    fn check_path(&self, request: &TxnRequest) -> Result<(), Error> {
        for op in taken(self.state(), request) {
            match op {
                RequestOp::Range(range) => {
                    if range.revision > self.revision() {
                        return Err(Error::FutureRevision);
                    }
                    if range.revision != 0 && range.revision < self.compacted {
                        return Err(Error::Compacted);
                    }
                }
                RequestOp::Put(put) => {
                    if put.ignore_value && !self.state().contains_key(&put.key) {
                        return Err(Error::KeyNotFound);
                    }
                    if put.lease != 0 {
                        return Err(Error::LeaseNotFound);
                    }
                }
                RequestOp::DeleteRange(_) => {}
                RequestOp::Txn(inner) => self.check_path(inner)?,
            }
        }
        Ok(())
    }
}

impl Draft<'_> {
    fn revision(&self) -> i64 {
        self.model.revision() + i64::from(!self.events.is_empty())
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let old = self.state.get(&request.key).cloned();
        let revision = self.model.revision() + 1;
        let mut kv = KeyValue {
            key: request.key.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: request.value.clone(),
            lease: 0,
        };
        if let Some(old) = &old {
            kv.create_revision = old.create_revision;
            kv.version = old.version + 1;
            if request.ignore_value {
                kv.value = old.value.clone();
            }
        }
        self.state.insert(kv.key.clone(), kv.clone());
        let prev_kv = self.model.state().get(&kv.key).cloned();
        self.events.push(Event { kind: EventKind::Put, kv, prev_kv });
        PutResponse { revision, prev_kv: old.filter(|_| request.prev_kv) }
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let all = self.state.values();
        let gone: Vec<KeyValue> =
            all.filter(|kv| within(&kv.key, &request.key, &request.range_end)).cloned().collect();
        for kv in &gone {
            self.state.remove(&kv.key);
            let key = kv.key.clone();
            let mod_revision = self.model.revision() + 1;
            let prev_kv = self.model.state().get(&key).cloned();
            let kv = KeyValue { key, mod_revision, ..KeyValue::default() };
            self.events.push(Event { kind: EventKind::Delete, kv, prev_kv });
        }
        DeleteRangeResponse {
            revision: self.revision(),
            deleted: number(gone.len()),
            prev_kvs: if request.prev_kv { gone } else { Vec::new() },
        }
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let state = match request.revision {
            ..=0 => &self.state,
            revision if revision == self.revision() => &self.state,
            revision => &self.model.states[place(revision)],
        };
        let mut kvs: Vec<KeyValue> = state
            .values()
            .filter(|kv| within(&kv.key, &request.key, &request.range_end))
            .cloned()
            .collect();
        let count = number(kvs.len());
        let revision = self.revision();
        if request.count_only {
            return RangeResponse { revision, kvs: Vec::new(), more: false, count };
        }
        let bounds = [
            (request.min_mod_revision, request.max_mod_revision),
            (request.min_create_revision, request.max_create_revision),
        ];
        let mut all = true;
        for ((min, max), of) in bounds
            .into_iter()
            .zip([(|kv: &KeyValue| kv.mod_revision) as fn(&KeyValue) -> i64, |kv| {
                kv.create_revision
            }])
        {
            all &= min == 0 && max == 0;
            kvs.retain(|kv| (min == 0 || of(kv) >= min) && (max == 0 || of(kv) <= max));
        }
        let limit =
            if request.limit > 0 { usize::try_from(request.limit).unwrap() } else { usize::MAX };
        if all && request.sort_order == SortOrder::None {
            kvs.truncate(limit.saturating_add(1));
        }
        let target = request.sort_target;
        kvs.sort_by(|a, b| order(target, a, b));
        if request.sort_order == SortOrder::Descend {
            // Equals keep the order of their keys.
            kvs.reverse();
            let same = |a: &KeyValue, b: &KeyValue| order(target, a, b).is_eq();
            kvs.chunk_by_mut(same).for_each(<[KeyValue]>::reverse);
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
            }
        }
        RangeResponse { revision, kvs, more, count }
    }

    fn txn(&mut self, request: &TxnRequest) -> TxnResponse {
        let before = self.model.state();
        let responses = taken(before, request)
            .iter()
            .map(|op| match op {
                RequestOp::Range(range) => ResponseOp::Range(self.range(range)),
                RequestOp::Put(put) => ResponseOp::Put(self.put(put)),
                RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(self.delete(delete)),
                RequestOp::Txn(inner) => ResponseOp::Txn(self.txn(inner)),
            })
            .collect();
        let succeeded = request.compare.iter().all(|compare| holds(before, compare));
        TxnResponse { revision: 0, succeeded, responses }
    }
}

fn order(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap()
}

/// Where a revision's state and events stand.
fn place(revision: i64) -> usize {
    usize::try_from(revision - 1).unwrap()
}

fn taken<'a>(before: &State, request: &'a TxnRequest) -> &'a [RequestOp] {
    if request.compare.iter().all(|compare| holds(before, compare)) {
        &request.success
    } else {
        &request.failure
    }
}

fn within(key: &Bytes, begin: &Bytes, end: &Bytes) -> bool {
    if end.is_empty() { key == begin } else { key >= begin && (&end[..] == b"\0" || key < end) }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let matching: Vec<&KeyValue> =
        state.values().filter(|kv| within(&kv.key, &compare.key, &compare.range_end)).collect();
    let missing = KeyValue::default();
    if matching.is_empty() {
        return !matches!(compare.target, CompareTarget::Value(_)) && one_holds(&missing, compare);
    }
    matching.into_iter().all(|kv| one_holds(kv, compare))
}

fn one_holds(kv: &KeyValue, compare: &Compare) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(given) => kv.version.cmp(given),
        CompareTarget::Create(given) => kv.create_revision.cmp(given),
        CompareTarget::Mod(given) => kv.mod_revision.cmp(given),
        CompareTarget::Value(given) => kv.value.cmp(given),
        CompareTarget::Lease(given) => kv.lease.cmp(given),
    };
    match compare.result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

fn shape_key(key: &Bytes) -> Result<(), Error> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

fn shape_put(request: &PutRequest) -> Result<(), Error> {
    shape_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    if request.ignore_lease { Err(Error::LeaseNotFound) } else { Ok(()) }
}

fn shape_txn(request: &TxnRequest, left: usize) -> Result<(), Error> {
    let used = request.compare.len().max(request.success.len()).max(request.failure.len());
    if used > left {
        return Err(Error::TooManyOps);
    }
    request.compare.iter().try_for_each(|compare| shape_key(&compare.key))?;
    request.success.iter().chain(&request.failure).try_for_each(|op| match op {
        RequestOp::Range(range) => shape_key(&range.key),
        RequestOp::Put(put) => shape_put(put),
        RequestOp::DeleteRange(delete) => shape_key(&delete.key),
        RequestOp::Txn(inner) => shape_txn(inner, left - used),
    })
}

type Written = (Vec<Bytes>, Vec<DeleteRangeRequest>);

/// The puts and deletes of `ops`, or that they collide.
fn written(ops: &[RequestOp]) -> Result<Written, Error> {
    let (mut puts, mut deletes): Written = Written::default();
    for op in ops {
        if let RequestOp::DeleteRange(delete) = op {
            deletes.push(delete.clone());
        }
    }
    let covered = |key: &Bytes, deletes: &[DeleteRangeRequest]| {
        deletes.iter().any(|delete| within(key, &delete.key, &delete.range_end))
    };
    for op in ops {
        if let RequestOp::Txn(inner) = op {
            let (success, failure) = (written(&inner.success)?, written(&inner.failure)?);
            for key in success.0.iter().chain(&failure.0) {
                if puts.contains(key) || covered(key, &deletes) {
                    return Err(Error::DuplicateKey);
                }
            }
            puts.extend(success.0.into_iter().chain(failure.0));
            deletes.extend(success.1.into_iter().chain(failure.1));
        }
    }
    for op in ops {
        if let RequestOp::Put(put) = op {
            if puts.contains(&put.key) || covered(&put.key, &deletes) {
                return Err(Error::DuplicateKey);
            }
            puts.push(put.key.clone());
        }
    }
    Ok((puts, deletes))
}
