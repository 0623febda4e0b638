//! What the core wants done: the order contract between consensus and the world.
//!
//! The caller takes a [`Ready`] after feeding inputs, and must
//!
//! 1. send `messages` at any time: nothing they reveal waits for the disk;
//! 2. write `persist` to the disk, batches in the order of their `seq`, and once a batch is
//!    durable report `persisted(seq)` *and then* send its `messages_after` (vote, term and entry
//!    are on disk before anything reveals them, §5.1);
//! 3. apply `committed` in order, and report `applied(index)`;
//! 4. serve each of `reads` once its index is applied.
//!
//! Steps overlap freely: the leader's messages leave while its own disk writes (thesis §10.2.1).

use super::message::{Message, Refusal};
use super::notice::Notice;
use super::types::{
    Configuration, Entry, HardState, Index, NodeId, PersistSeq, RequestId, SnapshotMeta, Term,
};

/// Work for the caller. Empty fields ask nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To send now.
    pub messages: Vec<Message>,
    /// To make durable.
    pub persist: Option<Persist>,
    /// To apply, in order: committed, and durable here.
    pub committed: Vec<Entry>,
    /// Reads of this member that may be served once `index` is applied.
    pub reads: Vec<ReadState>,
    /// Proposals and reads of this member that will have no effect.
    pub refused: Vec<(RequestId, Refusal)>,
    /// Followers that need a snapshot: the log no longer reaches back to what they lack.
    pub snapshots_wanted: Vec<NodeId>,
    /// The role, the term or the leader changed since the last `Ready`.
    pub soft_state: Option<SoftState>,
    /// The membership in force is another than before: whom to reach, and where.
    pub configuration: Option<Configuration>,
    /// What happened in elections, for logs, in order.
    pub notices: Vec<Notice>,
}

impl Ready {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.persist.is_none()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && self.refused.is_empty()
            && self.snapshots_wanted.is_empty()
            && self.soft_state.is_none()
            && self.configuration.is_none()
            && self.notices.is_empty()
    }
}

/// One batch for the disk, to be written whole or not at all: its commit index speaks of the log
/// that its entries make, and would vouch for others in their place if they were missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Its number: consecutive.
    pub seq: PersistSeq,
    /// Term, vote and commit as of this batch.
    pub hard_state: HardState,
    /// The log restarts here: every entry before and after is replaced. Comes before `entries`.
    pub snapshot: Option<SnapshotMeta>,
    /// Consecutive entries. Their first index may be at or below the last one written: then the
    /// tail from there on is replaced (§5.3).
    pub entries: Vec<Entry>,
    /// To send once durable.
    pub messages_after: Vec<Message>,
}

/// Permission to serve a read (thesis §6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadState {
    /// The read.
    pub id: RequestId,
    /// What must have been applied.
    pub index: Index,
}

/// What the outside sees of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SoftState {
    /// The term now.
    pub term: Term,
    /// The role now.
    pub role: Role,
    /// The leader of this term, as far as known.
    pub leader: Option<NodeId>,
}

/// The roles of §5.2, with the pre-candidate of thesis §9.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Listens.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// In lower case, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}
