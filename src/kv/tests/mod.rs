//! What etcd's users rely on, a sentence a test; and a model so simple that it is right, against
//! which the store is held with random commands.

use bytes::Bytes;

use super::{
    Command, CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, Error,
    EventKind, KeyValue, Machine, PutRequest, RangeRequest, RangeResponse, RequestOp, Response,
    ResponseOp, TxnRequest, TxnResponse,
};

mod answer;
mod codec;
mod compaction;
mod model;
mod random;
mod range;
mod snapshot;
mod strategy;
mod txn;
mod write;

/// A machine that counts its own log.
struct Node {
    machine: Machine,
    index: u64,
}

impl Node {
    fn new() -> Self {
        Self { machine: Machine::new(), index: 0 }
    }

    /// With `keys` put in order, each as its own value.
    fn with(keys: &[&str]) -> Self {
        let mut node = Self::new();
        for key in keys {
            node.put(key, key);
        }
        node
    }

    fn apply(&mut self, command: Command) -> Result<Response, Error> {
        self.index += 1;
        let answer = self.machine.answer(self.index, command)?;
        Ok(answer.read(self.machine.store()).expect("the store is still the same"))
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        match self.apply(Command::Put(put(key, value))).unwrap() {
            Response::Put(response) => response.revision,
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, key: &str, range_end: &str) -> (i64, i64) {
        match self.apply(Command::DeleteRange(delete(key, range_end))).unwrap() {
            Response::DeleteRange(response) => (response.deleted, response.revision),
            other => panic!("{other:?}"),
        }
    }

    fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.apply(Command::Txn(request)).map(|response| match response {
            Response::Txn(response) => response,
            other => panic!("{other:?}"),
        })
    }

    fn compact(&mut self, revision: i64) -> Result<Response, Error> {
        self.apply(Command::Compact(CompactionRequest { revision }))
    }

    /// Physical compaction to its end.
    fn sweep(&mut self) {
        while !self.machine.compact_step(usize::MAX) {}
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.machine.store().range(request)
    }

    fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(&get(key)).unwrap().kvs.pop()
    }

    fn get_at(&self, key: &str, revision: i64) -> Result<Option<KeyValue>, Error> {
        self.range(&RangeRequest { revision, ..get(key) }).map(|mut response| response.kvs.pop())
    }

    fn revision(&self) -> i64 {
        self.machine.store().revision()
    }

    fn hash(&self) -> u32 {
        self.machine.store().hash(0).unwrap().hash
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

fn get(key: &str) -> RangeRequest {
    between(key, "")
}

fn between(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..RangeRequest::default() }
}

fn everything() -> RangeRequest {
    between("\0", "\0")
}

fn compare(key: &str, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { key: bytes(key), range_end: Bytes::new(), result, target }
}

fn keys(response: &RangeResponse) -> Vec<&str> {
    response.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}
