//! Hand-overs that an operator asked for (thesis §3.10): who waits until another member leads.

use crate::raft::{NodeId, Role};

use super::super::error::RequestError;
use super::super::event::Effect;
use super::super::pending_proposals::Tick;
use super::Replica;

/// Somebody waits for leadership to move.
#[derive(Debug)]
pub(super) struct PendingTransfer<T> {
    pub(super) ticket: T,
    /// When the core has given up for certain.
    pub(super) deadline: Tick,
}

impl<T> Replica<T> {
    pub(super) fn transfer(&mut self, to: Option<NodeId>, ticket: T) {
        if self.seen.role != Role::Leader {
            self.effects.push(Effect::Fail(ticket, RequestError::NotLeader));
            return;
        }
        if to == Some(self.config.raft.id) {
            self.effects.push(Effect::TransferDone(ticket));
            return;
        }
        match self.raft.transfer_leadership(to) {
            Ok(()) => {
                let deadline = self.now + 2 * u64::from(self.config.raft.election_ticks_max);
                self.transfers.push(PendingTransfer { ticket, deadline });
            }
            Err(_) => self.effects.push(Effect::Fail(ticket, RequestError::BadTransferee)),
        }
    }
}
