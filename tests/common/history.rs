//! What the clients of one cluster did and saw, as they tell it themselves, and the verdict.
//!
//! Every write and every read that goes through a recorded [`Client`](super::Client) is in it,
//! whichever part of a test sent it: a revision that nobody made is a fault. A write whose answer
//! did not come may have happened, once, or not at all.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use raft_node::kv::{
    Command, DeleteRangeResponse, Error, KeyValue, PutResponse, RangeRequest, RangeResponse,
    ResponseOp, TxnResponse,
};
use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::etcdserverpb::request_op::Request as Asked;
use raft_node::proto::etcdserverpb::response_op::Response as Op;
use raft_node::proto::mvccpb;
use tonic::Status;

use super::linearizability::{
    Answer, ClientId, History, Operation, OperationId, Request, Time, register, revisions,
};

/// Where clients write down what they do. Clones are the same.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Mutex<History>>,
    start: Instant,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::since(1)
    }
}

impl Recorder {
    /// For a cluster that holds no key, and has come to `revision`.
    pub fn since(revision: i64) -> Self {
        let history = History { base: revision, ..History::default() };
        Self { shared: Arc::new(Mutex::new(history)), start: Instant::now() }
    }

    /// A request is about to be sent by a client of member `id`.
    pub fn call(&self, id: u64, request: Request) -> OperationId {
        let now = self.now();
        self.history().call(ClientId(id), now, request)
    }

    /// It was answered so. Only the store's own refusals say what became of it.
    pub fn returned<T>(
        &self,
        id: OperationId,
        result: &Result<T, Status>,
        answer: impl FnOnce(&T) -> Answer,
    ) {
        let answer = match result {
            Ok(response) => answer(response),
            Err(status) => match refusal(status) {
                Some(error) => Answer::Refused { error, revision: None },
                None => return,
            },
        };
        let now = self.now();
        self.history().returned(id, now, answer);
    }

    /// All so far.
    pub fn told(&self) -> Told {
        Told(self.history().clone())
    }

    fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_nanos();
        Time(u64::try_from(elapsed).expect("a test takes less than five centuries"))
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.shared.lock().expect("no client panics")
    }
}

fn refusal(status: &Status) -> Option<Error> {
    let known = [Error::Compacted, Error::FutureRevision, Error::KeyNotFound];
    known.into_iter().find(|error| status.message() == format!("etcdserver: {error}"))
}

/// A history as it was told.
#[derive(Clone, Debug)]
pub struct Told(pub History);

impl Told {
    /// Acknowledged puts: key, value, revision.
    pub fn acked(&self) -> impl Iterator<Item = (&[u8], &[u8], i64)> {
        self.0.operations.iter().filter_map(|operation| {
            let Request::Write(Command::Put(put)) = &operation.request else { return None };
            let (_, answer) = operation.returned()?;
            Some((&put.key[..], &put.value[..], answer.revision()?))
        })
    }

    /// Writes, writes that were acknowledged, and reads that were answered.
    pub fn counts(&self) -> (usize, usize, usize) {
        let (writes, others): (Vec<_>, Vec<_>) = self
            .0
            .operations
            .iter()
            .partition(|operation| matches!(operation.request, Request::Write(_)));
        let answered = |operations: &[&Operation]| {
            operations.iter().filter(|operation| operation.returned().is_some()).count()
        };
        (writes.len(), answered(&writes), answered(&others))
    }

    /// The longest time between two acknowledgements of writes, one following the other.
    pub fn longest_gap(&self) -> Duration {
        let writes = self.0.operations.iter();
        let writes = writes.filter(|operation| matches!(operation.request, Request::Write(_)));
        let mut times: Vec<Time> =
            writes.filter_map(|write| write.returned().map(|(at, _)| at)).collect();
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1].0 - pair[0].0);
        Duration::from_nanos(gaps.max().unwrap_or_default())
    }

    /// Revisions up to the last one shown that no acknowledged write says it made.
    pub fn unclaimed(&self) -> Vec<i64> {
        let revisions = |wanted: fn(&Request) -> bool| {
            let operations = self.0.operations.iter();
            operations
                .filter(move |operation| wanted(&operation.request))
                .filter_map(|operation| operation.returned()?.1.revision())
        };
        let claimed: std::collections::BTreeSet<i64> =
            revisions(|request| matches!(request, Request::Write(_))).collect();
        let last = revisions(|_| true).max().unwrap_or(self.0.base);
        (self.0.base + 1..=last).filter(|revision| !claimed.contains(revision)).collect()
    }

    /// Fails unless both judges accept it.
    pub fn assert_linearizable(&self) {
        register::check(&self.0).expect_linearizable();
        revisions::check(&self.0, None).expect_linearizable();
    }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.expect("every answer has a header").revision
}

fn key_value(kv: &mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value.clone(),
        lease: kv.lease,
    }
}

/// What a read was told.
pub fn ranged(response: &pb::RangeResponse) -> RangeResponse {
    RangeResponse {
        revision: revision(response.header.as_ref()),
        kvs: response.kvs.iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

/// What a put was told.
pub fn put(response: &pb::PutResponse) -> PutResponse {
    PutResponse {
        revision: revision(response.header.as_ref()),
        prev_kv: response.prev_kv.as_ref().map(key_value),
    }
}

/// What a deletion was told.
pub fn deleted(response: &pb::DeleteRangeResponse) -> DeleteRangeResponse {
    DeleteRangeResponse {
        revision: revision(response.header.as_ref()),
        deleted: response.deleted,
        prev_kvs: response.prev_kvs.iter().map(key_value).collect(),
    }
}

/// What a transaction was told.
pub fn txn(response: &pb::TxnResponse) -> TxnResponse {
    let op = |op: &pb::ResponseOp| match op.response.as_ref().expect("an outcome") {
        Op::ResponseRange(response) => ResponseOp::Range(ranged(response)),
        Op::ResponsePut(response) => ResponseOp::Put(put(response)),
        Op::ResponseDeleteRange(response) => ResponseOp::DeleteRange(deleted(response)),
        Op::ResponseTxn(response) => ResponseOp::Txn(txn(response)),
    };
    TxnResponse {
        revision: revision(response.header.as_ref()),
        succeeded: response.succeeded,
        responses: response.responses.iter().map(op).collect(),
    }
}

/// A read, by what its clients here may ask for.
pub fn range(request: &pb::RangeRequest) -> RangeRequest {
    RangeRequest {
        key: request.key.clone(),
        range_end: request.range_end.clone(),
        limit: request.limit,
        revision: request.revision,
        ..RangeRequest::default()
    }
}

/// [`Client::swap`](super::Client::swap) on the wire.
pub fn swap([first, second]: [&str; 2], expected: &str, value: &str) -> pb::TxnRequest {
    let put = |key: &str| pb::RequestOp {
        request: Some(Asked::RequestPut(pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..pb::PutRequest::default()
        })),
    };
    let get = pb::RangeRequest { key: first.to_owned().into(), ..pb::RangeRequest::default() };
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Value.into(),
        key: first.to_owned().into(),
        target_union: Some(pb::compare::TargetUnion::Value(expected.to_owned().into())),
        ..pb::Compare::default()
    };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![put(first), put(second)],
        failure: vec![pb::RequestOp { request: Some(Asked::RequestRange(get)) }],
    }
}
