//! What members say to each other: one variant per remote procedure of the paper (figure 2,
//! figure 13, thesis §3.10, §6.4, §9.6) and its reply.
//!
//! A message is a value: how it travels is the transport's business, and it may be lost,
//! duplicated, delayed or reordered. Cluster identity and authenticity are checked before a
//! message gets here.

use super::change::{Change, ChangeError};
use super::types::{Entry, EntryId, Index, NodeId, Proposal, RequestId, SnapshotMeta, Term};

/// A message between two members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who says it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The sender's term; in a pre-vote request and in the grant of one, the term that the
    /// candidate would campaign in.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// The content of a [`Message`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Asks for a vote (§5.2), or whether one would be given (`pre_vote`, thesis §9.6).
    RequestVote {
        /// The candidate's last entry (§5.4.1).
        last: EntryId,
        /// Only asks: grants nothing, changes no term.
        pre_vote: bool,
        /// The leader asked for this campaign (thesis §3.10): leader stickiness does not apply,
        /// where the leader has said so.
        transfer: bool,
    },
    /// Answers `RequestVote`.
    Vote {
        /// Whether it is given.
        granted: bool,
        /// Which kind of request it answers.
        pre_vote: bool,
    },
    /// Replicates entries (§5.3). Empty `entries` probe.
    Append {
        /// The entry before the first of `entries`.
        prev: EntryId,
        /// Consecutive entries from `prev.index + 1`.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The receiver's log matches the leader's up to and including `last`, durably.
    Appended {
        /// The last matching index.
        last: Index,
    },
    /// The receiver does not hold `prev` of an `Append`.
    Rejected {
        /// The index of that `prev`, by which the leader tells a stale rejection.
        prev: Index,
        /// The highest entry of the receiver that could still match: its index at most
        /// `prev`, its term at most that of `prev`. Lets a probe skip a term a time.
        hint: EntryId,
    },
    /// Keeps followers calm, and confirms leadership for reads (thesis §6.4).
    Heartbeat {
        /// The leader's commit index, at most what the receiver is known to hold.
        commit: Index,
        /// The leader's read round: never reused in its term.
        round: u64,
        /// To whom the leader hands over: it may campaign although the leader lives.
        successor: Option<NodeId>,
    },
    /// Answers `Heartbeat`, with its `round`.
    HeartbeatReply {
        /// The round answered.
        round: u64,
    },
    /// A snapshot (§7) whose content has arrived whole and verified beside this message.
    InstallSnapshot {
        /// What it stands for.
        meta: SnapshotMeta,
    },
    /// The leader hands over: campaign at once (thesis §3.10).
    TimeoutNow,
    /// A follower passes proposals to the leader of `term`.
    Propose {
        /// In the order in which they came in; sequences strictly increase.
        proposals: Vec<Proposal>,
    },
    /// A follower passes on changes of the membership that its operator wants.
    Change {
        /// The request.
        id: RequestId,
        /// To be done in one step.
        changes: Vec<Change>,
    },
    /// A follower passes reads to the leader of `term`: "as of which index may I answer?".
    ReadIndex {
        /// The reads.
        id: RequestId,
    },
    /// Answers `ReadIndex`: the read may be served from any state that includes `index`.
    ReadIndexReply {
        /// The read.
        id: RequestId,
        /// What must have been applied.
        index: Index,
    },
    /// The receiver asked for a vote, and is no member any more.
    Removed {
        /// Which kind of request it answers.
        pre_vote: bool,
    },
    /// Who are the members? Asked of those who are known, when somebody unknown speaks.
    AskMembers,
    /// Answers `AskMembers`.
    Members {
        /// All members by the sender's configuration.
        ids: Vec<NodeId>,
    },
    /// The leader did not take these proposals or reads: they will never take effect.
    Refused {
        /// What was refused.
        ids: Vec<RequestId>,
        /// Why.
        why: Refusal,
    },
}

/// Why a proposal or read was not taken. It has had, and will have, no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not the leader (any more), and no leader to pass it to.
    NotLeader,
    /// The leader is handing leadership over: try the next one.
    Transferring,
    /// Too much is uncommitted or waiting already.
    Busy,
    /// The membership cannot be changed like this, or not now.
    Change(ChangeError),
}
