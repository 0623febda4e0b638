//! What a node can tell about itself: for health checks, metrics and operators. Decides nothing.

use std::collections::BTreeMap;

use super::node::{RaftNode, RoleState};
use super::progress::ProgressState;
use super::ready::Role;
use super::types::{Configuration, EntryId, Index, NodeId, Term};

/// A picture of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who has its vote in that term.
    pub vote: Option<NodeId>,
    /// The leader, as far as known.
    pub leader: Option<NodeId>,
    /// Highest index known to be committed.
    pub commit: Index,
    /// Highest index that the state machine reported.
    pub applied: Index,
    /// Highest index that the disk reported. Falling behind `last` for long is a hung disk.
    pub persisted: Index,
    /// Batches given to the disk and not reported.
    pub batches_in_flight: usize,
    /// The last entry.
    pub last: EntryId,
    /// The first index in memory, if any: one after what was compacted.
    pub first: Index,
    /// Bytes of entries that are not applied yet.
    pub unapplied_bytes: usize,
    /// The membership in force.
    pub config: Configuration,
    /// To whom leadership is being handed over.
    pub transferring_to: Option<NodeId>,
    /// Reads waiting here for their index.
    pub reads_pending: usize,
    /// Leader only: for how many ticks no quorum was heard from.
    pub last_quorum_contact_ticks: Option<u32>,
    /// Leader only: the others.
    pub peers: BTreeMap<NodeId, PeerStatus>,
}

/// Another member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// It holds the leader's log up to here.
    pub matched: Index,
    /// The next entry to send to it.
    pub next: Index,
    /// How entries travel to it.
    pub state: PeerState,
    /// It was heard from within the shortest election timeout.
    pub recent_active: bool,
    /// Ticks since it was heard from; does not count far beyond the longest election timeout.
    pub ticks_since_contact: u32,
}

/// How entries travel to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// One message at a time.
    Probe,
    /// Streaming.
    Replicate,
    /// It waits for a snapshot.
    Snapshot,
}

impl PeerState {
    /// In lower case, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Replicate => "replicate",
            Self::Snapshot => "snapshot",
        }
    }
}

impl RaftNode {
    /// This member.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match &self.role {
            RoleState::Follower(_) => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// The leader of its term, as far as known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            RoleState::Follower(follower) => follower.leader,
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
            RoleState::Leader(_) => Some(self.config.id),
        }
    }

    /// Highest index known to be committed.
    pub fn committed(&self) -> Index {
        self.log.committed()
    }

    /// The first index in memory, if any: one after what was compacted.
    pub fn first_index(&self) -> Index {
        self.log.base().index.next()
    }

    /// The last index in the log.
    pub fn last_index(&self) -> Index {
        self.log.last().index
    }

    /// Highest index that the state machine reported.
    pub fn applied_index(&self) -> Index {
        self.log.applied()
    }

    /// The membership in force.
    pub fn membership(&self) -> &Configuration {
        self.membership.current()
    }

    /// Where the membership in force stands in the log; 0 if it is as old as the log in memory.
    pub fn membership_since(&self) -> Index {
        self.membership.since()
    }

    /// The membership as of `index`, which is not compacted: what a snapshot there must carry.
    pub fn membership_at(&self, index: Index) -> &Configuration {
        self.membership.at(index)
    }

    /// The term of the entry at `index`, if it is in memory or the last one compacted.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// All of it at once. Allocates: for reports, not for every message.
    pub fn status(&self) -> Status {
        let (peers, transferring_to, reads_pending) = match &self.role {
            RoleState::Leader(leader) => {
                let target = leader.transfer.as_ref().map(|transfer| transfer.target);
                (self.peer_statuses(), target, leader.reads.pending())
            }
            RoleState::Follower(follower) => (BTreeMap::new(), None, follower.reads.pending()),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => (BTreeMap::new(), None, 0),
        };
        Status {
            id: self.config.id,
            role: self.role(),
            term: self.term,
            vote: self.vote,
            leader: self.leader(),
            commit: self.log.committed(),
            applied: self.log.applied(),
            persisted: self.log.persisted(),
            batches_in_flight: self.log.batches_in_flight(),
            last: self.log.last(),
            first: self.log.base().index.next(),
            unapplied_bytes: self.log.unapplied_bytes(),
            config: self.membership.current().clone(),
            transferring_to,
            reads_pending,
            last_quorum_contact_ticks: self.quorum_contact_ticks(),
            peers,
        }
    }

    fn peer_statuses(&self) -> BTreeMap<NodeId, PeerStatus> {
        let RoleState::Leader(leader) = &self.role else {
            return BTreeMap::new();
        };
        let status = leader.peers.iter().map(|(id, progress)| {
            let state = match progress.state() {
                ProgressState::Probe { .. } => PeerState::Probe,
                ProgressState::Replicate(_) => PeerState::Replicate,
                ProgressState::Snapshot { .. } => PeerState::Snapshot,
            };
            let status = PeerStatus {
                matched: progress.matched(),
                next: progress.next(),
                state,
                recent_active: progress.ticks_since_contact < self.config.election_ticks_min,
                ticks_since_contact: progress.ticks_since_contact,
            };
            (*id, status)
        });
        status.collect()
    }
}
