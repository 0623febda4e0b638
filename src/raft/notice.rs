//! What happened in elections, for logs: no decision depends on a notice.
//!
//! The core logs nothing itself, since a clock and a subscriber are the world's. What an operator
//! asks after a failover (why was there an election, who voted for whom, whom did the leader not
//! hear) is known only here, so it leaves with [`Ready`](super::ready::Ready) as data.

use super::node::{Outbox, RaftNode, RoleState};
use super::types::{NodeId, Term};

/// Notices that one `Ready` carries; more are dropped. Peers cause them, so they are bounded.
pub const NOTICES_MAX: usize = 64;

/// One event of an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This member asks whether it could win the election of `term` (thesis §9.6).
    PreVoteStarted {
        /// The term that it asks about.
        term: Term,
        /// Why now.
        cause: Cause,
    },
    /// This member asks for votes in `term` (§5.2).
    CampaignStarted {
        /// Its new term.
        term: Term,
        /// The leader asked for it by `TimeoutNow`; else a pre-vote was won.
        transfer: bool,
        /// Whose pre-votes were granted.
        granted: Vec<NodeId>,
    },
    /// This member answered a request for a vote or a pre-vote.
    VoteAnswered {
        /// Who asked.
        candidate: NodeId,
        /// The term asked about.
        term: Term,
        /// Whether it was a pre-vote.
        pre_vote: bool,
        /// Whether it was granted.
        granted: bool,
    },
    /// A voter answered this member.
    VoteReceived {
        /// Who answered.
        from: NodeId,
        /// Whether it was a pre-vote.
        pre_vote: bool,
        /// Whether it was granted.
        granted: bool,
    },
    /// A quorum granted its votes: this member leads.
    Elected {
        /// Its term.
        term: Term,
        /// Whose votes were granted.
        granted: Vec<NodeId>,
        /// Whose votes were refused.
        refused: Vec<NodeId>,
    },
    /// A quorum refused.
    Refused {
        /// Whether it was a pre-vote.
        pre_vote: bool,
        /// Who refused.
        refused: Vec<NodeId>,
    },
    /// A message of a higher term came from `from`, whose say counts.
    HigherTerm {
        /// Who sent it.
        from: NodeId,
        /// Its term.
        term: Term,
    },
    /// This leader did not hear a quorum for an election timeout, and steps down (CheckQuorum).
    QuorumLost {
        /// The voters that were not heard.
        silent: Vec<NodeId>,
        /// For how many ticks no quorum was heard.
        ticks: u32,
    },
}

/// Why a member asks for pre-votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No leader was heard for an election timeout.
    ElectionTimeout,
    /// The connection to the leader broke.
    ConnectionLost,
    /// An earlier pre-vote or campaign was not won.
    NotElected,
    /// The caller wants it.
    Requested,
}

impl Cause {
    /// In words, for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ElectionTimeout => "election timeout",
            Self::ConnectionLost => "connection to the leader lost",
            Self::NotElected => "earlier attempt not won",
            Self::Requested => "requested",
        }
    }
}

impl Outbox {
    /// Keeps `notice` for the next `Ready`, if there is room.
    pub(super) fn note(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push(notice);
        }
    }
}

impl RaftNode {
    /// Whose answers in the present candidacy are `granted`.
    pub(super) fn answered(&self, granted: bool) -> Vec<NodeId> {
        let (RoleState::PreCandidate(candidacy) | RoleState::Candidate(candidacy)) = &self.role
        else {
            return Vec::new();
        };
        let votes = candidacy.votes.iter().filter(|(_, vote)| **vote == granted);
        votes.map(|(id, _)| *id).collect()
    }

    /// Notes which voters this leader has not heard for `ticks`.
    pub(super) fn note_quorum_lost(&mut self, ticks: u32) {
        let RoleState::Leader(leader) = &self.role else {
            return;
        };
        let is_silent = |voter: &NodeId| {
            leader.peers.get(voter).is_none_or(|progress| progress.ticks_since_contact >= ticks)
        };
        let silent = self.other_voters().filter(is_silent).collect();
        self.out.note(Notice::QuorumLost { silent, ticks });
    }
}
