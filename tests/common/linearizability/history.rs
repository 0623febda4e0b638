//! What clients asked, when, and what they were told: the evidence that the checkers judge.
//!
//! In the store's own words, so that a checker can compare every field of every answer. Holds no
//! clock: whoever records says what time it is, in simulated microseconds or real nanoseconds.

use raft_node::kv::{
    Command, Error, RangeRequest, RangeResponse, Response, TxnRequest, TxnResponse,
};

/// A moment. Only its order counts, so a history has one unit and need not say which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// Who asked. One client may have several operations under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Which operation of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub usize);

/// How fresh a read wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// It sees every write that was acknowledged before it began.
    Linearizable,
    /// Any state that the member asked has come through will do.
    Serializable,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Through the log, whether it then changes something or not.
    Write(Command),
    /// A read of a range.
    Range(RangeRequest, Freshness),
    /// A transaction that only reads, and so needs no log entry.
    ReadTxn(TxnRequest, Freshness),
}

/// What was answered. Each carries the revision of its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a write.
    Written(Response),
    /// Of a read of a range.
    Range(RangeResponse),
    /// Of a transaction that only reads.
    ReadTxn(TxnResponse),
    /// The store's own refusal: it looked, and did nothing.
    Refused {
        /// Why.
        error: Error,
        /// The revision of the store then, if it is known: over gRPC an error has no header.
        revision: Option<i64>,
    },
}

impl Answer {
    /// The revision that it was made at, if it says.
    pub fn revision(&self) -> Option<i64> {
        match self {
            Self::Written(Response::Put(response)) => Some(response.revision),
            Self::Written(Response::DeleteRange(response)) => Some(response.revision),
            Self::Written(Response::Txn(response)) | Self::ReadTxn(response) => {
                Some(response.revision)
            }
            Self::Written(Response::Compact(response)) => Some(response.revision),
            Self::Range(response) => Some(response.revision),
            Self::Refused { revision, .. } => *revision,
        }
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer of the store.
    Returned {
        /// When the client had it.
        at: Time,
        /// The answer.
        answer: Answer,
    },
    /// With the certainty that it did not happen and never will.
    NoEffect {
        /// When the client knew.
        at: Time,
    },
    /// With nothing: it may have happened, may happen later, or never.
    Unknown,
}

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: ClientId,
    /// When it was sent.
    pub called: Time,
    /// What was asked.
    pub request: Request,
    /// What became of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer, and when it came.
    pub fn returned(&self) -> Option<(Time, &Answer)> {
        match &self.outcome {
            Outcome::Returned { at, answer } => Some((*at, answer)),
            Outcome::NoEffect { .. } | Outcome::Unknown => None,
        }
    }
}

/// Everything that some clients did, in any order.
#[derive(Clone, Debug)]
pub struct History {
    /// The revision that the store had before all of it, when it held no key: 1 if it was new.
    pub base: i64,
    /// The operations. One without an end has the outcome [`Outcome::Unknown`].
    pub operations: Vec<Operation>,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// Nothing yet, on a new store.
    pub fn new() -> Self {
        Self { base: 1, operations: Vec::new() }
    }

    /// A request was sent. Until it is said to have ended, its outcome is unknown.
    pub fn call(&mut self, client: ClientId, at: Time, request: Request) -> OperationId {
        let outcome = Outcome::Unknown;
        self.operations.push(Operation { client, called: at, request, outcome });
        OperationId(self.operations.len() - 1)
    }

    /// Its answer came.
    pub fn returned(&mut self, id: OperationId, at: Time, answer: Answer) {
        self.end(id, at, Outcome::Returned { at, answer });
    }

    /// It turned out for certain to have had no effect.
    pub fn refused(&mut self, id: OperationId, at: Time) {
        self.end(id, at, Outcome::NoEffect { at });
    }

    fn end(&mut self, id: OperationId, at: Time, outcome: Outcome) {
        let operation = &mut self.operations[id.0];
        assert!(operation.outcome == Outcome::Unknown, "{operation:?} ended before");
        assert!(operation.called <= at, "{operation:?} ended at {at:?}, before it began");
        operation.outcome = outcome;
    }
}
