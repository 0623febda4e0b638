//! Requests and responses in etcd's vocabulary, free of protobuf. Revisions and leases are plain
//! `i64` here because they are so for every client; what they mean is on each field.
//!
//! A response says at which revision it was made; cluster, member and term are the API's to add.

use bytes::Bytes;

use super::command::Command;
use super::found::Found;

/// One key as of some revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyValue {
    /// The key, never empty.
    pub key: Bytes,
    /// The revision at which the key was last created.
    pub create_revision: i64,
    /// The revision at which it was last put.
    pub mod_revision: i64,
    /// How often it was put since it was created; 1 for a new key.
    pub version: i64,
    /// What was put.
    pub value: Bytes,
    /// The lease it is attached to; 0 for none.
    pub lease: i64,
}

/// In which direction a range is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortOrder {
    /// As the keys come, ascending; by another target than the key, the same as `Ascend`.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// By what a range is sorted. Equals stay in the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortTarget {
    /// By key.
    #[default]
    Key,
    /// By version.
    Version,
    /// By creation revision.
    Create,
    /// By modification revision.
    Mod,
    /// By value.
    Value,
}

/// Reads keys. Whether a stale answer will do (`serializable`) is the caller's business: the
/// store always answers from what it has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeRequest {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends, exclusive; empty: only `key`; one zero byte: no end.
    pub range_end: Bytes,
    /// At most so many keys; 0 or less: all.
    pub limit: i64,
    /// As of this revision; 0 or less: now.
    pub revision: i64,
    /// In which direction to sort.
    pub sort_order: SortOrder,
    /// By what to sort.
    pub sort_target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Answer the count alone; `limit` does not matter then.
    pub count_only: bool,
    /// Leave out what was modified before; 0: no bound.
    pub min_mod_revision: i64,
    /// Leave out what was modified after; 0: no bound.
    pub max_mod_revision: i64,
    /// Leave out what was created before; 0: no bound.
    pub min_create_revision: i64,
    /// Leave out what was created after; 0: no bound.
    pub max_create_revision: i64,
}

/// The keys read: a list of their own, or as they were found in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse<L = Vec<KeyValue>> {
    /// The revision of the store when it was read, also if an older one was asked for.
    pub revision: i64,
    /// The keys, as sorted and limited.
    pub kvs: L,
    /// Whether the limit cut keys off.
    pub more: bool,
    /// How many keys the range has at that revision, whatever limit and filters left out.
    pub count: i64,
}

/// Writes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
    /// The lease to attach it to; 0 for none, which detaches it from the one it had.
    pub lease: i64,
    /// Answer what was there before.
    pub prev_kv: bool,
    /// Keep the value that is there.
    pub ignore_value: bool,
    /// Keep the lease that is there. Refused as long as there are no leases.
    pub ignore_lease: bool,
}

/// A key was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The revision of this put.
    pub revision: i64,
    /// What was there before, if asked for and if there was.
    pub prev_kv: Option<KeyValue>,
}

/// Deletes keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeleteRangeRequest {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends, as in [`RangeRequest::range_end`].
    pub range_end: Bytes,
    /// Answer what was deleted.
    pub prev_kv: bool,
}

/// Keys were deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeResponse<L = Vec<KeyValue>> {
    /// The revision of the deletion; unchanged if nothing was deleted.
    pub revision: i64,
    /// How many keys there were.
    pub deleted: i64,
    /// What was deleted, by key, if asked for.
    pub prev_kvs: L,
}

/// How a comparison must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareResult {
    /// The key's is the given one.
    Equal,
    /// The key's is larger.
    Greater,
    /// The key's is smaller.
    Less,
    /// The key's is another.
    NotEqual,
}

/// What is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CompareTarget {
    /// The version; a missing key has 0.
    Version(i64),
    /// The creation revision; a missing key has 0.
    Create(i64),
    /// The modification revision; a missing key has 0.
    Mod(i64),
    /// The value; with a missing key no comparison of values holds.
    Value(Bytes),
    /// The lease; a missing key has 0.
    Lease(i64),
}

/// A condition on one key, or on every key of a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Compare {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends, as in [`RangeRequest::range_end`].
    pub range_end: Bytes,
    /// How the key's must compare with the given.
    pub result: CompareResult,
    /// What of the key, and the given.
    pub target: CompareTarget,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestOp {
    /// Read.
    Range(RangeRequest),
    /// Write.
    Put(PutRequest),
    /// Delete.
    DeleteRange(DeleteRangeRequest),
    /// A transaction within.
    Txn(TxnRequest),
}

/// If all of `compare` holds then `success` else `failure`, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TxnRequest {
    /// The conditions, all of them judged on the state before the whole transaction.
    pub compare: Vec<Compare>,
    /// Done if all hold.
    pub success: Vec<RequestOp>,
    /// Done otherwise.
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether neither branch, at any depth, can write: such a transaction needs no log entry.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            RequestOp::Range(_) => true,
            RequestOp::Put(_) | RequestOp::DeleteRange(_) => false,
            RequestOp::Txn(inner) => inner.is_read_only(),
        })
    }
}

/// The outcome of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseOp<L = Vec<KeyValue>> {
    /// Of a read.
    Range(RangeResponse<L>),
    /// Of a write.
    Put(PutResponse),
    /// Of a deletion.
    DeleteRange(DeleteRangeResponse<L>),
    /// Of a transaction within. Its `revision` is 0: etcd leaves that header empty.
    Txn(TxnResponse<L>),
}

/// A transaction was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse<L = Vec<KeyValue>> {
    /// The revision after it; unchanged if it changed nothing.
    pub revision: i64,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// The outcome of each operation of the branch taken.
    pub responses: Vec<ResponseOp<L>>,
}

/// Forgets history. Whether to wait until the space is free (`physical`) is the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompactionRequest {
    /// The oldest revision that must stay readable.
    pub revision: i64,
}

/// History was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionResponse {
    /// The revision of the store, which a compaction does not change.
    pub revision: i64,
}

/// What applying a [`Command`](super::Command) came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<L = Vec<KeyValue>> {
    /// Of a put.
    Put(PutResponse),
    /// Of a deletion.
    DeleteRange(DeleteRangeResponse<L>),
    /// Of a transaction.
    Txn(TxnResponse<L>),
    /// Of a compaction.
    Compact(CompactionResponse),
}

/// A request that is a command, and the response that it has.
pub trait WriteRequest: Into<Command> {
    /// What it comes to.
    type Response;

    /// Its response among all. Panics if it is that of another kind of command.
    fn from_response(response: Response<Found>) -> Self::Response;
}

/// Makes a [`WriteRequest`] of each request: the variants of [`Command`] and [`Response`] have the
/// same name.
macro_rules! write_requests {
    ($($variant:ident($request:ty) -> $response:ty;)*) => {
        $(
            impl From<$request> for Command {
                fn from(request: $request) -> Self {
                    Self::$variant(request)
                }
            }

            impl WriteRequest for $request {
                type Response = $response;

                fn from_response(response: Response<Found>) -> $response {
                    match response {
                        Response::$variant(response) => response,
                        other => panic!("a command has a response of its kind, not {other:?}"),
                    }
                }
            }
        )*
    };
}

write_requests! {
    Put(PutRequest) -> PutResponse;
    DeleteRange(DeleteRangeRequest) -> DeleteRangeResponse<Found>;
    Txn(TxnRequest) -> TxnResponse<Found>;
    Compact(CompactionRequest) -> CompactionResponse;
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was put.
    Put,
    /// It was deleted.
    Delete,
}

/// One change, as a watcher is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after it; of a deletion only `key` and `mod_revision` are set.
    pub kv: KeyValue,
    /// The key before it, unless there was none or it has been compacted.
    pub prev_kv: Option<KeyValue>,
}

impl Event {
    /// About what it takes in memory and on the wire.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 64;
        let of = |kv: &KeyValue| OVERHEAD_BYTES + kv.key.len() + kv.value.len();
        of(&self.kv) + self.prev_kv.as_ref().map_or(0, of)
    }
}
