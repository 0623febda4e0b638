//! Why a request got no answer from the state machine.

use thiserror::Error;

use crate::raft::ChangeError;

/// A request's failure, before or instead of an outcome of the state machine.
///
/// Only [`RequestError::is_definite`] failures are known to have had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// No leader is known, and none came within the time that a request may wait for one.
    #[error("no leader")]
    NoLeader,
    /// The leader changed, and what became of the request is not known.
    #[error("leader changed")]
    LeaderChanged,
    /// No answer within the request time-out.
    #[error("request timed out")]
    Timeout,
    /// The connection to the leader broke with the request under way.
    #[error("request timed out, possibly due to connection lost")]
    ConnectionLost,
    /// A queue is full: too many requests wait already.
    #[error("too many requests")]
    TooManyRequests,
    /// The encoded command exceeds `RAFT_MAX_REQUEST_BYTES`.
    #[error("request is too large")]
    TooLarge,
    /// The data exceeds `RAFT_QUOTA_BYTES`.
    #[error("database space exceeded")]
    NoSpace,
    /// This member is not the leader, which the request needs.
    #[error("not leader")]
    NotLeader,
    /// Leadership cannot go to that member.
    #[error("bad leader transferee")]
    BadTransferee,
    /// The membership cannot be changed like this, or not now.
    #[error("{0}")]
    Change(ChangeError),
    /// This member is stopping.
    #[error("server stopped")]
    Stopped,
}

impl RequestError {
    /// Whether the request certainly had, and will have, no effect.
    pub const fn is_definite(self) -> bool {
        match self {
            Self::NoLeader
            | Self::TooManyRequests
            | Self::TooLarge
            | Self::NoSpace
            | Self::NotLeader
            | Self::BadTransferee
            | Self::Change(_) => true,
            Self::LeaderChanged | Self::Timeout | Self::ConnectionLost | Self::Stopped => false,
        }
    }
}
