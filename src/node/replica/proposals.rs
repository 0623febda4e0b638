//! What clients of this member propose, on its way to the core.
//!
//! A leader takes in [`Config::uncommitted_bytes_max`](raft::Config::uncommitted_bytes_max), its
//! own clients' proposals and those that the others pass on. Each member submits an equal share of
//! that at most and keeps the rest parked, so in the ordinary case none is ever refused, and the
//! clients of no member starve those of another.

use bytes::Bytes;

use crate::testpoints::{Mutant, mutant};

use super::super::error::RequestError;
use super::super::event::Effect;
use super::super::pending_proposals::{Pace, Tick};
use super::Replica;

/// How soon a proposal that the leader had no room for is tried again, at the latest.
const BUSY_TICKS: Tick = 2;

impl<T> Replica<T> {
    pub(super) fn propose(&mut self, data: Bytes, ticket: T) {
        if self.seen.leader.is_none() && self.leaderless_too_long() {
            self.effects.push(Effect::Fail(ticket, RequestError::NoLeader));
            return;
        }
        let gives_up = self.now + u64::from(self.config.request_ticks);
        if let Err(ticket) = self.pending_proposals.park(data, ticket, gives_up) {
            self.effects.push(Effect::Fail(ticket, RequestError::TooManyRequests));
        }
    }

    /// Gives the core of what is parked as much as this member's share has room for.
    pub(super) fn submit_proposals(&mut self) {
        if self.now < self.busy_until || !self.pending_proposals.has_parked() {
            return;
        }
        let config = self.raft.membership();
        let members = config.voters.len() + config.outgoing.len() + config.learners.len();
        let raft = &self.config.raft;
        let pace = Pace {
            window_bytes: raft.uncommitted_bytes_max / members.max(1),
            message_bytes: raft.append_bytes_max,
        };
        // The core's own term, in which they travel: what is `seen` may be older.
        let stale = mutant(Mutant::SubmitStale).then_some(self.seen.term);
        let term = stale.unwrap_or(self.raft.term());
        while self.pending_proposals.has_parked() {
            let proposals = self.pending_proposals.submit(term, pace);
            if proposals.is_empty() {
                return;
            }
            self.raft.propose(proposals);
        }
    }

    /// A proposal was refused for want of room: without effect. There is room once something is
    /// applied.
    pub(super) fn leader_is_busy(&mut self) {
        self.busy_until = self.now + BUSY_TICKS;
    }
}
