//! How commands get into the log (§5.3, §8), here or by way of a follower.
//!
//! Only the leader appends. A follower passes proposals on; whoever waits for them stays with it
//! and recognises the entry when it is applied. Messages may be repeated, so the leader remembers
//! the highest sequence that it has *dealt with* per origin and term: what was taken is never
//! taken twice, and what was refused stays refused. A refusal is a promise ("this will never take
//! effect"), so it is given only by whoever can know that; otherwise there is silence, and the
//! origin learns from the change of leader that the outcome is unknown.

use std::collections::BTreeMap;

use crate::testpoints::{self, Mark, Mutant};

use super::message::{Body, Refusal};
use super::node::{RaftNode, RoleState};
use super::types::{Entry, EntryId, NodeId, Payload, Proposal, RequestId};

/// What became of forwarded proposals in the present term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forwards {
    /// Highest sequence taken or refused, by origin.
    pub(super) dealt_with: BTreeMap<NodeId, u64>,
    /// The same, of changes of the membership: they travel apart from proposals.
    pub(super) changes: BTreeMap<NodeId, u64>,
    /// Whether that is all there is to know: not after a restart within the term.
    pub(super) complete: bool,
}

impl Forwards {
    /// After a restart: this member may have led the term before, and have forgotten.
    pub fn after_restart() -> Self {
        let complete = testpoints::mutant(Mutant::RefusesForgotten);
        Self { dealt_with: BTreeMap::new(), changes: BTreeMap::new(), complete }
    }

    /// In a new term.
    pub fn in_new_term() -> Self {
        Self { complete: true, ..Self::after_restart() }
    }

    /// Whether a change of the membership comes for the first time, for all that is known. It does
    /// not come for the first time twice.
    pub fn is_fresh_change(&mut self, id: RequestId) -> bool {
        let highest = self.changes.entry(id.origin).or_insert(0);
        let fresh = self.complete && id.sequence > *highest;
        *highest = (*highest).max(id.sequence);
        fresh
    }

    /// Drops from `proposals` what was dealt with already, and notes the rest as dealt with.
    fn fresh(&mut self, origin: NodeId, mut proposals: Vec<Proposal>) -> Vec<Proposal> {
        let highest = self.dealt_with.entry(origin).or_insert(0);
        proposals.retain(|proposal| {
            let news = proposal.id.sequence > *highest;
            if !news {
                testpoints::mark(Mark::ProposalRepeated);
            }
            news || testpoints::mutant(Mutant::ProposalTwice)
        });
        if let Some(last) = proposals.last() {
            *highest = last.id.sequence;
        }
        proposals
    }
}

impl RaftNode {
    /// Puts commands into the log: here if this member leads, else through the leader. What is
    /// not taken comes back in `Ready.refused`; what becomes of the rest shows when it is applied.
    pub fn propose(&mut self, proposals: Vec<Proposal>) {
        match &self.role {
            RoleState::Leader(_) => {
                if let Some((ids, why)) = self.append_proposals(proposals) {
                    self.out.refused.extend(ids.into_iter().map(|id| (id, why)));
                }
            }
            RoleState::Follower(follower) if follower.reachable_leader().is_some() => {
                let leader = follower.reachable_leader().expect("just seen");
                if !proposals.is_empty() {
                    self.send(leader, Body::Propose { proposals });
                }
            }
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                let ids = proposals.into_iter().map(|proposal| (proposal.id, Refusal::NotLeader));
                self.out.refused.extend(ids);
            }
        }
        self.assert_invariants();
    }

    /// A follower passes on what its clients propose. Its message is of this term.
    pub(super) fn handle_propose(&mut self, from: NodeId, proposals: Vec<Proposal>) {
        if !self.forwards.complete {
            testpoints::mark(Mark::ProposalUnanswered);
            return;
        }
        let proposals = self.forwards.fresh(from, proposals);
        let refused = match &self.role {
            RoleState::Leader(_) => self.append_proposals(proposals),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                Some((proposals.iter().map(|one| one.id).collect(), Refusal::NotLeader))
            }
        };
        if let Some((ids, why)) = refused
            && !ids.is_empty()
        {
            self.send(from, Body::Refused { ids, why });
        }
    }

    /// Somebody did not take what this member passed on.
    pub(super) fn handle_refused(&mut self, ids: Vec<RequestId>, why: Refusal) {
        let own = self.config.id;
        for id in ids.into_iter().filter(|id| id.origin == own) {
            if let RoleState::Follower(follower) = &mut self.role {
                follower.reads.remove(id);
            }
            self.out.refused.push((id, why));
        }
    }

    /// Appends as many as fit, in order. Returns what did not, and why.
    fn append_proposals(&mut self, proposals: Vec<Proposal>) -> Option<(Vec<RequestId>, Refusal)> {
        let RoleState::Leader(leader) = &self.role else {
            unreachable!("only the leader appends");
        };
        if leader.transfer.is_some() && !testpoints::mutant(Mutant::ProposeInTransfer) {
            testpoints::mark(Mark::ProposalInTransfer);
            return Some((proposals.iter().map(|one| one.id).collect(), Refusal::Transferring));
        }
        let mut proposals = proposals.into_iter();
        while let Some(proposal) = proposals.next() {
            let id = proposal.id;
            let entry = self.next_entry(Payload::Command(proposal));
            let waiting = self.log.unapplied_bytes();
            let total = waiting.saturating_add(entry.size_bytes());
            if waiting > 0 && total > self.config.uncommitted_bytes_max {
                // Not even smaller ones that come after it: order is kept per origin.
                let ids = std::iter::once(id).chain(proposals.map(|one| one.id)).collect();
                return Some((ids, Refusal::Busy));
            }
            self.log.append(entry);
        }
        None
    }

    /// An entry of this term, to stand at the end of the log.
    pub(super) fn next_entry(&self, payload: Payload) -> Entry {
        Entry { id: EntryId { term: self.term, index: self.log.last().index.next() }, payload }
    }
}
