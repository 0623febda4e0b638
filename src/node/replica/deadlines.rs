//! Requests whose time is up, and what they are told.

use crate::testpoints::{Mutant, mutant};

use super::super::error::RequestError;
use super::super::event::Effect;
use super::Replica;

impl<T> Replica<T> {
    pub(super) fn expire(&mut self) {
        let in_doubt = if mutant(Mutant::DoubtDenied) {
            RequestError::NoLeader
        } else if self.seen.leader.is_none() {
            RequestError::LeaderChanged
        } else {
            RequestError::Timeout
        };
        let without_effect = match self.seen.leader {
            Some(_) => RequestError::TooManyRequests,
            None => RequestError::NoLeader,
        };
        for (ticket, why) in self.pending_proposals.expired(self.now, in_doubt, without_effect) {
            self.effects.push(Effect::Fail(ticket, why));
        }
        let late = self.reads.expired(self.now);
        self.fail_all(late, RequestError::Timeout);
        let (late, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.transfers)
            .into_iter()
            .partition(|transfer| transfer.deadline <= self.now);
        self.transfers = kept;
        self.fail_all(late.into_iter().map(|late| late.ticket), RequestError::Timeout);
        for (ticket, why) in self.membership.changes.expired(self.now) {
            self.effects.push(Effect::Fail(ticket, why));
        }
        while let Some(ticket) = self.votes.expired(self.now) {
            self.effects.push(Effect::Fail(ticket, RequestError::Timeout));
        }
    }
}
