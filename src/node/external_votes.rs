//! Votes that are that do not come from a peer (`NodeRegistration.RequestVote`).
//!
//! The core is asked as a peer would ask it, and its reply is caught on its way out, which for a
//! grant is after the disk.

use std::collections::VecDeque;

use crate::raft::{Body, Message, NodeId, Term};
use crate::testpoints::{Mutant, mutant};

use super::pending_proposals::Tick;

/// A vote that does not go to a peer.
#[derive(Debug)]
struct Asked<T> {
    candidate: NodeId,
    term: Term,
    deadline: Tick,
    ticket: T,
}

/// All of them, oldest first.
#[derive(Debug)]
pub struct Votes<T>(VecDeque<Asked<T>>);

impl<T> Votes<T> {
    /// None yet.
    pub fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Somebody asked, and waits until `deadline`.
    pub fn ask(&mut self, candidate: NodeId, term: Term, ticket: T, deadline: Tick) {
        self.0.push_back(Asked { candidate, term, deadline, ticket });
    }

    /// Whose question `message` answers, and how, if it is a vote that was asked for here. Should
    /// the candidate itself have asked as well, either gets one of two answers of the same rule;
    /// but a vote given in one term says nothing of another.
    pub fn answered(&mut self, message: &Message) -> Option<(T, bool)> {
        let Body::Vote { granted, pre_vote: false } = message.body else { return None };
        let answers = |asked: &Asked<T>| {
            let of_term = asked.term == message.term || mutant(Mutant::VoteOfAnyTerm);
            asked.candidate == message.to && (of_term || !granted)
        };
        let at = self.0.iter().position(answers)?;
        self.0.remove(at).map(|asked| (asked.ticket, granted))
    }

    /// Hands back the next whose time is up.
    pub fn expired(&mut self, now: Tick) -> Option<T> {
        let late = self.0.front().is_some_and(|asked| asked.deadline <= now);
        if late { self.0.pop_front().map(|asked| asked.ticket) } else { None }
    }
}
