//! Votes that no peer asked for (`NodeRegistration.RequestVote`).

use crate::raft::{self, Body, Message, NodeId, Term};

use super::super::event::Effect;
use super::Replica;

impl<T> Replica<T> {
    /// Asks the core for a vote as a peer would; [`Self::send`] catches the reply on its way out.
    pub(super) fn vote_request(&mut self, candidate: NodeId, term: Term, ticket: T) {
        let me = self.config.raft.id;
        if candidate == me || !self.raft.membership().is_voter(candidate) {
            self.effects.push(Effect::VoteReply { ticket, granted: false });
            return;
        }
        let deadline = self.now + u64::from(self.config.request_ticks);
        self.votes.ask(candidate, term, ticket, deadline);
        let last = raft::EntryId::default();
        let body = Body::RequestVote { last, pre_vote: false, transfer: false };
        self.raft.step(Message { from: candidate, to: me, term, body });
    }
}
