//! What happens to a replica, and what it wants done about it.
//!
//! A *ticket* `T` stands for the caller that waits for a request: a oneshot sender in the real
//! node, an operation number in simulation. Every ticket that enters by an [`Event`] leaves by
//! exactly one [`Effect`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::raft::{
    Change, Configuration, Entry, Index, Message, NodeId, Notice, Persist, PersistSeq,
    SnapshotMeta, SoftState, Term,
};

use super::error::RequestError;

/// An input of [`Replica`](super::Replica).
#[derive(Debug)]
pub enum Event<T> {
    /// One tick of the clock passed.
    Tick,
    /// Another passed before it, while this member did not run: nobody could be heard in it.
    LateTick,
    /// A peer said something.
    Message(Message),
    /// A connection that this member dialled stands.
    PeerReached {
        /// With whom.
        peer: NodeId,
        /// Where it was dialled.
        address: String,
    },
    /// An established connection with this peer broke.
    PeerLost(NodeId),
    /// A client of this member wants a command replicated.
    Propose {
        /// The encoded command.
        data: Bytes,
        /// Who waits: leaves with [`Effect::Apply`], or [`Effect::Fail`].
        ticket: T,
    },
    /// A client of this member wants to read linearizably.
    Read {
        /// Who waits: leaves with [`Effect::ReadReady`], or [`Effect::Fail`].
        ticket: T,
    },
    /// Every batch up to `seq` is durable.
    Persisted {
        /// The last batch done.
        seq: PersistSeq,
    },
    /// The state machine holds everything up to `index`.
    Applied {
        /// The last entry applied.
        index: Index,
        /// What the state machine's data takes, by which the next snapshot is timed.
        data_bytes: u64,
    },
    /// Without anything new applied, compaction has made the data smaller.
    Shrunk {
        /// What it takes now.
        data_bytes: u64,
    },
    /// Whether the disk is short of room has changed.
    RoomShort(bool),
    /// A snapshot of this member's own state is durable, and the log names it.
    SnapshotSaved {
        /// What it stands for.
        meta: SnapshotMeta,
    },
    /// A snapshot could not be written; it is tried again when next due.
    SnapshotFailed,
    /// The sending of a snapshot, asked for by [`Effect::SendSnapshot`], ended.
    SnapshotSent {
        /// To whom it went.
        to: NodeId,
        /// Its last index.
        upto: Index,
        /// Whether the receiver has it whole.
        ok: bool,
    },
    /// An operator wants another leader: `to`, or the voter that is most caught up.
    Transfer {
        /// The next leader.
        to: Option<NodeId>,
        /// Who waits: leaves with [`Effect::TransferDone`], or [`Effect::Fail`].
        ticket: T,
    },
    /// An operator wants the membership changed, in one step.
    Change {
        /// What is to change.
        changes: Vec<Change>,
        /// Who waits: leaves with [`Effect::ChangeDone`], or [`Effect::Fail`].
        ticket: T,
    },
    /// A vote is asked for by somebody whose log is empty (`NodeRegistration.RequestVote`).
    VoteRequest {
        /// Who wants to lead.
        candidate: NodeId,
        /// In which term.
        term: Term,
        /// Who waits: leaves with [`Effect::VoteReply`].
        ticket: T,
    },
    /// The member is about to stop: hand leadership over and take none again.
    Stop,
}

/// Whom a member speaks with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTable {
    /// The configuration in force.
    pub configuration: Configuration,
    /// Where each peer is dialled: the members of every configuration that still counts, and those
    /// just removed, for a while, so that they learn of it. This member is not among them, and no
    /// member whose address is not known.
    pub peers: BTreeMap<NodeId, String>,
    /// Those whose removal is committed, and who are no longer dialled: they are refused for good.
    pub removed: BTreeSet<NodeId>,
}

/// An output of [`Replica`](super::Replica).
#[derive(Debug)]
pub enum Effect<T> {
    /// Send this; it may be lost.
    Send(Message),
    /// Make this durable, in order; then report [`Event::Persisted`].
    Persist(Persist),
    /// Apply these in order, answer the tickets, then report [`Event::Applied`].
    Apply(Vec<(Entry, Option<T>)>),
    /// Replace the state machine by this snapshot, which is durable here; then report
    /// [`Event::Applied`].
    Restore(SnapshotMeta),
    /// Everything a linearizable read must see is applied.
    ReadReady(Vec<T>),
    /// Write a snapshot of what is applied, in the background.
    SaveSnapshot,
    /// Stream the latest snapshot to this peer, then report [`Event::SnapshotSent`].
    SendSnapshot {
        /// To whom.
        to: NodeId,
    },
    /// Another member leads now.
    TransferDone(T),
    /// The membership is as somebody wanted it, and what led there is committed.
    ChangeDone(T),
    /// Whom to reach from now on, and where. The first effect of a replica.
    Peers(PeerTable),
    /// This member was removed from the cluster: there is nothing more for it to do.
    Removed,
    /// The outcome of a [`Event::VoteRequest`]; if granted, it is durable.
    VoteReply {
        /// Who waits.
        ticket: T,
        /// Whether the vote was given.
        granted: bool,
    },
    /// The request failed.
    Fail(T, RequestError),
    /// Something happened in an election: for the log.
    Notice(Notice),
    /// Role, term or leader changed.
    SoftState(SoftState),
}
