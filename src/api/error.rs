//! The one table from failures to gRPC statuses.
//!
//! Codes and texts are etcd's: its clients tell errors apart by the exact text. Two codes differ.
//! etcd sends "too many requests" and "not enough started members" as `UNKNOWN` by an oversight;
//! here they are what its own table of errors says, `RESOURCE_EXHAUSTED` and
//! `FAILED_PRECONDITION`, which its clients treat alike and all others understand.

use tonic::{Code, Status};

use crate::kv;
use crate::node::RequestError;
use crate::raft::ChangeError;
use crate::server::Error;

/// The status that tells a client of `error`.
pub(super) fn to_status(error: impl Into<Error>) -> Status {
    let (code, text) = row(error.into());
    Status::new(code, text)
}

const fn row(error: Error) -> (Code, &'static str) {
    match error {
        Error::Request(error) => request_row(error),
        Error::Kv(error) => kv_row(error),
        Error::ResponseTooLarge => (Code::ResourceExhausted, "etcdserver: response is too large"),
        Error::TooManyResponses => {
            (Code::ResourceExhausted, "etcdserver: too many large responses under way")
        }
        Error::NotTaken => {
            (Code::ResourceExhausted, "etcdserver: response was not taken for too long")
        }
        Error::Unanswered => (
            Code::ResourceExhausted,
            "etcdserver: the request was applied, but there is no room for its response",
        ),
        Error::ResponseLost => {
            (Code::Unavailable, "etcdserver: the request was applied, but its response was lost")
        }
        Error::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
        Error::BadUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
        Error::PeerUrlsExist => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        Error::TooManyLearners => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        Error::NotEnoughStarted => (
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        Error::Learner => (Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
    }
}

const fn request_row(error: RequestError) -> (Code, &'static str) {
    match error {
        RequestError::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        RequestError::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
        RequestError::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
        RequestError::ConnectionLost => {
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost")
        }
        RequestError::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
        RequestError::TooManyRequests => (Code::ResourceExhausted, "etcdserver: too many requests"),
        RequestError::TooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
        RequestError::NoSpace => {
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        }
        RequestError::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
        RequestError::BadTransferee => {
            (Code::FailedPrecondition, "etcdserver: bad leader transferee")
        }
        RequestError::Change(why) => change_row(why),
    }
}

/// etcd has no texts for what its server waits out: a change under way, a leader that is new.
const fn change_row(why: ChangeError) -> (Code, &'static str) {
    match why {
        ChangeError::InProgress | ChangeError::LeaderNotReady | ChangeError::NoQuorum => {
            (Code::Unavailable, "etcdserver: unhealthy cluster")
        }
        ChangeError::Exists | ChangeError::WasRemoved => {
            (Code::FailedPrecondition, "etcdserver: member ID already exist")
        }
        ChangeError::Unknown => (Code::NotFound, "etcdserver: member not found"),
        ChangeError::NotLearner => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        ChangeError::NotCaughtUp => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        ChangeError::TooMany => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        // Somebody who asks twice is answered as the first time; kept for completeness.
        ChangeError::NoChange => (Code::FailedPrecondition, "etcdserver: nothing would change"),
    }
}

const fn kv_row(error: kv::Error) -> (Code, &'static str) {
    use kv::Error;
    match error {
        Error::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        Error::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Error::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        Error::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        Error::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Error::TooManyOps => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        Error::DuplicateKey => {
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
        }
        Error::Compacted => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        }
        Error::FutureRevision => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_rooms_own_behind_etcds_prefix() {
        let kv = [
            kv::Error::EmptyKey,
            kv::Error::KeyNotFound,
            kv::Error::ValueProvided,
            kv::Error::LeaseProvided,
            kv::Error::LeaseNotFound,
            kv::Error::TooManyOps,
            kv::Error::DuplicateKey,
            kv::Error::Compacted,
            kv::Error::FutureRevision,
        ];
        for error in kv {
            assert_eq!(to_status(error).message(), format!("etcdserver: {error}"));
        }
        let request = [
            RequestError::NoLeader,
            RequestError::LeaderChanged,
            RequestError::Timeout,
            RequestError::ConnectionLost,
            RequestError::TooManyRequests,
            RequestError::TooLarge,
            RequestError::NotLeader,
            RequestError::BadTransferee,
            RequestError::Stopped,
        ];
        for error in request {
            assert_eq!(to_status(error).message(), format!("etcdserver: {error}"));
        }
    }

    #[test]
    fn codes_are_those_that_clients_act_on() {
        assert_eq!(to_status(RequestError::NoLeader).code(), Code::Unavailable);
        assert_eq!(to_status(RequestError::TooManyRequests).code(), Code::ResourceExhausted);
        assert_eq!(to_status(RequestError::NoSpace).code(), Code::ResourceExhausted);
        assert_eq!(to_status(kv::Error::Compacted).code(), Code::OutOfRange);
        assert_eq!(to_status(kv::Error::LeaseNotFound).code(), Code::NotFound);
        assert_eq!(to_status(Error::InvalidSortOption).code(), Code::InvalidArgument);
    }
}
