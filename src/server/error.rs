//! Why an operation failed. Which code and text a client is told is the protocol's.

use crate::kv;
use crate::node::RequestError;
use crate::raft::ChangeError;

/// Anything an operation refuses or fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The node gave no outcome.
    Request(RequestError),
    /// The outcome is a refusal by the state machine, or would be.
    Kv(kv::Error),
    /// The response would be larger than `RAFT_RESPONSE_MEMORY_BYTES` lets one be.
    ResponseTooLarge,
    /// Too many large responses are under way.
    TooManyResponses,
    /// A client does not take its response.
    NotTaken,
    /// Either of the first two, for a write that was applied.
    Unanswered,
    /// The response to a write that was applied is not to be had.
    ResponseLost,
    /// A sort order or target that does not exist.
    InvalidSortOption,
    /// Peer URLs that are none, or not one.
    BadUrls,
    /// Peer URLs of another member.
    PeerUrlsExist,
    /// One learner more than may stay one.
    TooManyLearners,
    /// The voters after a change that were ever started would make no quorum.
    NotEnoughStarted,
    /// A learner does not answer this.
    Learner,
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<ChangeError> for Error {
    fn from(error: ChangeError) -> Self {
        Self::Request(RequestError::Change(error))
    }
}

impl From<kv::Error> for Error {
    fn from(error: kv::Error) -> Self {
        Self::Kv(error)
    }
}

impl From<kv::AnswerLost> for Error {
    fn from(_: kv::AnswerLost) -> Self {
        Self::ResponseLost
    }
}
