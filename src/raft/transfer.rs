//! Handing leadership over on purpose (thesis §3.10).
//!
//! The leader takes no more requests, brings the target's log up to its own, and tells it to
//! campaign at once (`TimeoutNow`). The target needs no pre-vote, and its request for votes says
//! that the leader wants it. That alone would let anybody depose a live leader again and again, so
//! the leader's heartbeats name its successor, and only that one is not shielded against. If
//! nothing has come of it after an election timeout, the leader carries on. Reads that wait are
//! still answered if a quorum confirms their round: it does not matter why a leader might be
//! replaced, only that it was not.

use thiserror::Error;

use crate::testpoints::{self, Mark, Mutant};

use super::message::Body;
use super::node::{RaftNode, RoleState};
use super::replication::Leader;
use super::types::NodeId;

/// A transfer under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    pub(super) target: NodeId,
    pub(super) elapsed_ticks: u32,
    /// It was told to campaign.
    pub(super) told: bool,
}

impl Leader {
    /// Who was told to campaign in this leader's place.
    pub(super) fn successor(&self) -> Option<NodeId> {
        self.transfer.as_ref().filter(|transfer| transfer.told).map(|transfer| transfer.target)
    }
}

/// Why leadership is not being handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// There is nothing to hand over.
    #[error("not the leader")]
    NotLeader,
    /// The target may not lead.
    #[error("member {0} is not a voter")]
    NotVoter(NodeId),
    /// The target leads already.
    #[error("member {0} leads already")]
    AlreadyLeader(NodeId),
    /// No other voter was heard from lately.
    #[error("no other voter is in touch")]
    NoTarget,
}

impl RaftNode {
    /// Hands leadership to `to`, or to the most caught-up voter that is in touch. A second call
    /// with another target replaces the first. Success shows as a transition.
    pub fn transfer_leadership(&mut self, to: Option<NodeId>) -> Result<(), TransferError> {
        let target = match to {
            Some(target) => target,
            None => self.best_target()?,
        };
        let RoleState::Leader(leader) = &mut self.role else {
            return Err(TransferError::NotLeader);
        };
        if target == self.config.id {
            return Err(TransferError::AlreadyLeader(target));
        }
        if !self.membership.current().voters.contains(&target) {
            return Err(TransferError::NotVoter(target));
        }
        if leader.transfer.as_ref().is_none_or(|transfer| transfer.target != target) {
            leader.transfer = Some(Transfer { target, elapsed_ticks: 0, told: false });
            if let Some(progress) = leader.peers.get_mut(&target) {
                progress.resume();
            }
            self.advance_transfer(target, false);
        }
        self.assert_invariants();
        Ok(())
    }

    /// The most caught-up other voter heard from within an election timeout.
    fn best_target(&self) -> Result<NodeId, TransferError> {
        let RoleState::Leader(leader) = &self.role else {
            return Err(TransferError::NotLeader);
        };
        let config = self.membership.current();
        let in_touch = leader.peers.iter().filter(|(id, progress)| {
            config.voters.contains(id)
                && progress.ticks_since_contact < self.config.election_ticks_min
        });
        // The lowest id among equals: any rule would do, but it must be one.
        let best = in_touch.max_by_key(|(id, progress)| {
            (
                progress.matched(),
                std::cmp::Reverse(progress.ticks_since_contact),
                std::cmp::Reverse(**id),
            )
        });
        best.map(|(id, _)| *id).ok_or(TransferError::NoTarget)
    }

    /// `peer` was heard from: tell it to campaign if it is the target and has everything. `again`
    /// repeats an order that may have been lost.
    pub(super) fn advance_transfer(&mut self, peer: NodeId, again: bool) {
        let last = self.log.last().index;
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(transfer) = &mut leader.transfer else {
            return;
        };
        let caught_up = leader.peers.get(&peer).is_some_and(|peer| peer.matched() == last)
            || testpoints::mutant(Mutant::TransferTooEarly);
        if transfer.target == peer && caught_up && (again || !transfer.told) {
            transfer.told = true;
            // First of all the others: they shield this leader, unless it has said that it goes.
            let voters: Vec<NodeId> = self.other_voters().filter(|voter| *voter != peer).collect();
            for voter in voters {
                self.send_heartbeat(voter);
            }
            self.send(peer, Body::TimeoutNow);
        }
    }

    /// Whether the leader of this term wants `candidate` to campaign, and has said so here.
    pub(super) fn is_successor(&self, candidate: NodeId) -> bool {
        let successor = match &self.role {
            RoleState::Follower(follower) => follower.successor,
            RoleState::Leader(leader) => leader.successor(),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        };
        successor == Some(candidate) || testpoints::mutant(Mutant::SuccessorUnnamed)
    }

    /// Gives up on a transfer that takes longer than an election.
    pub(super) fn tick_transfer(&mut self) {
        let ticks_max = self.config.election_ticks_max;
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(transfer) = &mut leader.transfer {
            transfer.elapsed_ticks += 1;
            if transfer.elapsed_ticks >= ticks_max {
                testpoints::mark(Mark::TransferTimedOut);
                leader.transfer = None;
            }
        }
    }

    /// The leader wants this member to lead.
    pub(super) fn handle_timeout_now(&mut self, from: NodeId) {
        let follows = match &self.role {
            RoleState::Follower(follower) => follower.leader == Some(from),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) | RoleState::Leader(_) => false,
        };
        let obeys = follows || testpoints::mutant(Mutant::StaleTimeoutNow);
        if obeys && self.promotable() {
            self.start_election(true);
        } else {
            testpoints::mark(Mark::TimeoutNowIgnored);
        }
    }
}
