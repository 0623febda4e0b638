//! Why a command or a read is refused. These are outcomes, equal on every member, not faults: a
//! refused command has no effect, and nothing here stops a node.
//!
//! The text of each is etcd's own without its `etcdserver: ` prefix, which the API adds: clients
//! tell errors apart by the exact text, so it carries no further evidence.

/// A refusal, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// A request names no key.
    #[error("key is not provided")]
    EmptyKey,
    /// A put wants to keep the value or lease of a key that is not there.
    #[error("key not found")]
    KeyNotFound,
    /// A put both gives a value and wants the old one kept.
    #[error("value is provided")]
    ValueProvided,
    /// A put both names a lease and wants the old one kept.
    #[error("lease is provided")]
    LeaseProvided,
    /// A put names a lease that does not exist.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// A transaction has more operations, or deeper nesting, than is allowed.
    #[error("too many operations in txn request")]
    TooManyOps,
    /// A transaction could change one key twice.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// The revision lies before the last compaction.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The revision has not been reached.
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
}
