//! The replicated state machine: a multi-version key-value store with etcd's meaning. Pure.
//!
//! # Revisions
//!
//! The store counts its changes. Empty it is at revision 1; every [`Command`] that changes
//! something raises the revision by one, and all that it changes becomes visible at once at that
//! revision. What changes nothing (a deletion that finds no key, a refused transaction) leaves it.
//! A key at a revision is what the last change at or before it left: so every revision since the
//! last compaction is a consistent snapshot that costs nothing to take, and a read, however long,
//! never makes a write wait.
//!
//! # What `apply` promises
//!
//! [`Machine::apply`] is the only way to change anything; [`Machine::answer`] does the same and
//! says what came of it. It is a function of the state and the command: no clock, no randomness, no
//! iteration in an order that could differ; time, when it matters one day, comes as part of a
//! command. So every member that applies the same log holds the same
//! store and gives the same answers, and [`Store::hash`] says so in one number. A refusal
//! ([`Error`]) is such an answer too and leaves no effect; the words are etcd's without the
//! `etcdserver: ` in front. Requests are validated again here, though the API did so before it
//! proposed: nothing that stands in the log can make a member panic or fail half-way. Bytes that
//! are no command ([`DecodeError`]) never get here: the caller stops instead.
//!
//! # Locks, and who holds them how long
//!
//! The owner guards the machine with a lock: the applier writes, readers share. A read of unknown
//! length is a scan in steps ([`RangeScan`], [`TxnScan`], [`AnswerScan`], [`HashScan`],
//! [`SnapshotCursor`]), each step a short hold. A scan fixes its revision when it begins and pins
//! it, so that physical compaction leaves what it has yet to read; logical compaction may pass it
//! by. If a snapshot from the leader replaces the whole store, reads begin anew; the answer to a
//! write, and a snapshot being made, end with an error.
//! Physical compaction is done in steps too ([`Machine::compact_step`]) between commands.
//!
//! # Memory
//!
//! One million keys of 16 bytes with values of 256 take about 1.6 times their bytes: a tree of
//! short keys, a record of one cache line per key, and one allocation of exact size per version
//! that holds key and value (see `key_index`). Answers share that allocation. Nothing refers to
//! the buffers that commands came in.
//!
//! What a compaction leaves lies scattered over the pages of what it removed, and an allocator
//! gives back whole pages only. So after a compaction that freed much, what is left moves together
//! (see `tidy`), in steps like those of the compaction itself.
//!
//! # Deliberately absent
//!
//! - Leases, users and alarms: the command's format has room for them. Until then a put that names
//!   a lease finds none, and one that would keep its key's lease is refused likewise.
//! - Whether a read is linearizable, the quota, the size of requests: the node and the API know.
//! - etcd's own hash values and its database file: ours agree between our members only.
//! - etcd overlooks a put beneath a deletion without end (`range_end` of one zero byte) in one
//!   transaction; here it is refused like beneath any other.

mod command;
mod machine;
mod types;

mod codec;
mod error;
mod validate;

mod key;
mod key_index;
mod revision;
mod revision_log;
mod slab;
mod store;

mod answer;
mod compaction;
mod found;
mod hash;
mod range;
mod snapshot;
mod tidy;
mod txn;
mod txn_scan;
mod watch;

#[cfg(test)]
mod tests;

pub use answer::{Answer, AnswerLost, AnswerScan, Estimate};
pub use codec::DecodeError;
pub use command::Command;
pub use error::Error;
pub use found::{Found, KeyValueRef, Piece};
pub use hash::{HashScan, StoreHash};
pub use machine::Machine;
pub use range::RangeScan;
pub use snapshot::{SnapshotCursor, SnapshotError, SnapshotImport};
pub use store::Store;
pub use txn_scan::TxnScan;
pub use types::{
    CompactionRequest, CompactionResponse, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, DeleteRangeResponse, Event, EventKind, KeyValue, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, Response, ResponseOp, SortOrder, SortTarget,
    TxnRequest, TxnResponse, WriteRequest,
};
pub use validate::{TXN_DEPTH_MAX, TXN_OPS_MAX};
pub use watch::{Compacted, Follower, History, KeySet, KeySetIndex};
