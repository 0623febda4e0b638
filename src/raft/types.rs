//! The nouns of Raft (§5.1, §5.3): who, when, where in the log, and what is written there.
//!
//! Newtypes keep a term from being taken for an index. Nothing here decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU64;

use bytes::Bytes;

/// A member's identity: positive, chosen by the operator, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The id `raw`, unless it is zero, which stands for "nobody" on the wire and on disk.
    pub const fn new(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A logical epoch with at most one leader (§5.1). Zero is before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in the log. The first entry has index 1; zero is before the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl Index {
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; before the log stays before the log.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one entry for ever: two logs that hold the same id hold the same entry, and the same
/// entries before it (Log Matching, §5.3). Ordered as §5.4.1 compares logs: term, then index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term in which a leader created the entry.
    pub term: Term,
    /// Where it stands.
    pub index: Index,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// Names one request (a proposal or a read) of one run of one member, so that the caller that waits
/// for it at `origin` recognises its outcome. `sequence` strictly increases at its origin, also
/// across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The member at which the request came in.
    pub origin: NodeId,
    /// Its place in that member's sequence of requests.
    pub sequence: u64,
}

/// A command on its way into the log. What `data` means is not Raft's business.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// Who waits for it.
    pub id: RequestId,
    /// The encoded command.
    pub data: Bytes,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing: the entry by which a new leader commits what came before its term (§5.4.2, §8).
    Noop,
    /// A command for the state machine.
    Command(Proposal),
    /// A new membership, in force on every member from the moment it is appended there.
    Config(Configuration),
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// Its content.
    pub payload: Payload,
}

impl Entry {
    /// Bytes that count against batch, window and cache limits: content plus a fixed overhead.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 64;
        let content = match &self.payload {
            Payload::Noop => 0,
            Payload::Command(proposal) => proposal.data.len(),
            Payload::Config(config) => config.size_bytes(),
        };
        content + OVERHEAD_BYTES
    }
}

/// What a member must never forget (§5.1, "persistent state"). `commit` is a hint that shortens
/// recovery: it may lag, and is never ahead of what is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Who got this member's vote in `term`.
    pub vote: Option<NodeId>,
    /// Highest index known to be committed.
    pub commit: Index,
}

/// What a member says of itself, for people and clients. Decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// How it is called.
    pub name: String,
    /// Where clients reach it, `host:port`.
    pub client_addr: String,
}

/// Who takes part (§6, thesis chapter 4). In force as soon as it stands in the log.
///
/// During a joint change both `voters` and `outgoing` must agree; otherwise `outgoing` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// The voters; in a joint configuration, the incoming half.
    pub voters: BTreeSet<NodeId>,
    /// The outgoing half of a joint configuration.
    pub outgoing: BTreeSet<NodeId>,
    /// Members that receive the log but do not count.
    pub learners: BTreeSet<NodeId>,
    /// Of the learners, those that become voters by themselves once they have caught up, and whom
    /// each of them replaces then.
    pub promoting: BTreeMap<NodeId, Option<NodeId>>,
    /// Who was a member once: an id never comes back, since its votes and confirmations may. At
    /// most [`REMOVED_MAX`](super::change::REMOVED_MAX) of them, the highest.
    pub removed: BTreeSet<NodeId>,
    /// Every id up to this one that is not a member's counts as removed. It bounds `removed`.
    pub removed_upto: u64,
    /// Where each member is reached, the outgoing half included. Without an entry: where its
    /// operator said at first.
    pub addresses: BTreeMap<NodeId, String>,
    /// What each member said of itself. Without an entry it has said nothing yet.
    pub attributes: BTreeMap<NodeId, Attributes>,
    /// Who asked for it, if somebody did.
    pub request: Option<RequestId>,
}

impl Configuration {
    /// A configuration of voters alone.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Bytes that it counts for.
    fn size_bytes(&self) -> usize {
        let sets = [&self.voters, &self.outgoing, &self.learners, &self.removed];
        let ids: usize = sets.iter().map(|set| set.len() * 8).sum();
        let addresses: usize = self.addresses.values().map(|address| address.len() + 8).sum();
        let said = |one: &Attributes| one.name.len() + one.client_addr.len() + 8;
        let attributes: usize = self.attributes.values().map(said).sum();
        ids + self.promoting.len() * 16 + addresses + attributes
    }

    /// Everyone, once, in order of id.
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Whether `id` counts in any quorum.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` takes part at all, voting or learning.
    pub fn is_member(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether `id` was a member once, or counts as one that was, and is none now.
    pub fn was_removed(&self, id: NodeId) -> bool {
        !self.is_member(id) && (self.removed.contains(&id) || id.get() <= self.removed_upto)
    }

    /// Whether both halves must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

/// What a snapshot stands for: the log up to and including `last`, under `config` (§7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot covers.
    pub last: EntryId,
    /// The membership as of that entry.
    pub config: Configuration,
}

/// Counts the batches handed to the disk. Completion is reported by the highest number done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistSeq(pub u64);
