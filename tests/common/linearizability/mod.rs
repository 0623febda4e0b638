//! Was the whole store linearizable? Two independent judges of what its clients saw.
//!
//! `revisions` trusts the order that the store itself reports and checks that it explains every
//! answer in full (strict serializability of the whole store, in O(n log n)). `register` ignores
//! revisions and searches for an order of its own, key by key, so that a store that lies
//! consistently about its revisions is seen too. Both are deterministic and know nothing of the
//! production store but its requests and responses.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

pub mod history;
mod model;
pub mod register;
pub mod revisions;
mod search;
mod shape;
mod timeline;

pub use history::{
    Answer, ClientId, Freshness, History, Operation, OperationId, Outcome, Request, Time,
};

/// What a checker came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains all of it.
    Linearizable,
    /// There is none; the evidence, to be read by somebody.
    Violation(String),
    /// The search gave up before it knew: never to be taken for a pass.
    Undecided(String),
}

/// More of the evidence than anybody reads.
const EVIDENCE_CHARS_MAX: usize = 6000;

impl Verdict {
    fn violation(what: String) -> Self {
        match what.char_indices().nth(EVIDENCE_CHARS_MAX) {
            Some((cut, _)) => Self::Violation(format!("{} …", &what[..cut])),
            None => Self::Violation(what),
        }
    }

    /// Fails with the evidence unless the history is known to be linearizable.
    #[track_caller]
    pub fn expect_linearizable(self) {
        match self {
            Self::Linearizable => {}
            Self::Violation(what) => panic!("not linearizable: {what}"),
            Self::Undecided(why) => panic!("undecided: {why}"),
        }
    }
}
