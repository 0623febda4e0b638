//! Agreement: the Raft consensus algorithm, as a value that eats inputs and yields work.
//!
//! A cluster of members keeps identical logs of commands although messages get lost, repeated,
//! delayed and reordered and members stop, crash and come back. This room decides what stands in
//! the log and how far it is final. It is pure: no clock, no socket, no disk, no randomness of its
//! own. Time is [`RaftNode::tick`], a message is [`RaftNode::step`], the disk reports
//! [`RaftNode::persisted`], randomness is a seed in [`Config`], and everything that is to be done
//! comes out of [`RaftNode::ready`]. The same inputs give the same outputs, bit for bit, which is
//! what lets a simulator replay a run from its seed and a model checker explore every order.
//!
//! References are to the extended Raft paper (Ongaro and Ousterhout, 2014: "§5.3") and to Ongaro's
//! dissertation (2014: "thesis §6.4").
//!
//! # The protocol
//!
//! *Terms* (§5.1). Time is cut into terms, each with at most one leader. Every message carries its
//! sender's term; a member that learns of a higher one follows it, and refuses what is of a lower
//! one. This is settled in one place, `step`, before anything else looks at a message.
//!
//! *Elections* (§5.2, §5.4.1; `election`). A member that misses its leader asks for votes; a
//! majority makes it leader. A member votes once a term, and only for a log that has at least what
//! its own has: so whoever wins holds every committed entry. Before it raises its term, it asks
//! whether it could win (PreVote, thesis §9.6), and members who hear from a live leader say no
//! (thesis §4.2.3): so a member that was cut off disturbs nobody when it returns. A leader who
//! cannot be heard by a quorum steps down (CheckQuorum, thesis §6.2). When the connection to a
//! leader breaks, that is taken as a hint that it died, and the pre-vote starts after a small
//! random delay in place of the whole timeout. Where live leaders are late again and again, the
//! timeouts become longer, within bounds (`detector`).
//!
//! *Replication* (§5.3; `replication`, `progress`, `follower`). Only the leader adds entries. A
//! follower takes them only where they join on to what it has, so two logs that agree on an entry
//! agree on everything before it. Where they part, a rejection names the highest entry that could
//! still match, and the leader answers with the highest of its own that could: a probe per term
//! that they differ in, at worst. Once they agree, appends stream, within a window.
//!
//! *Commitment* (§5.4.2; `replication`, `quorum`). An entry is final once a quorum holds it
//! durably and it is of the leader's own term; entries of earlier terms become final with it. So
//! that this happens without delay, a leader begins with an entry of its own that says nothing.
//!
//! *Durability* (§5.1, thesis §10.2.1; `ready`, `log`, `node`). Term, vote and entries are on disk
//! before a message reveals them. A vote for oneself, and a leader's own copy of an entry, count
//! when they are durable, no earlier; but the leader's messages leave while its disk still writes.
//! Several writes may be under way; what a finished one vouches for is judged against the log as
//! it is by then.
//!
//! *Snapshots* (§7; `snapshot`). The caller may forget any applied prefix of the log. A follower
//! that lacks some of it is sent a snapshot, whose membership goes with it.
//!
//! *Reads* (§8, thesis §6.4; `read_index`). A linearizable read costs a round of heartbeats and
//! no log entry, on any member.
//!
//! *Transfer* (thesis §3.10; `transfer`). A leader hands over to a member that has everything.
//!
//! *Membership* (§6, thesis §4; `membership`, `change`, `reconfigure`). A configuration is an
//! entry, in force as soon as it is in the log. Every change of who votes goes through a joint
//! configuration, in which the majorities of both halves must agree, and which whoever leads then
//! leaves by itself. New members begin as learners, and become voters once they have caught up.
//!
//! # Where this departs from the paper
//!
//! - A member refuses a vote to a candidate that is no voter by its own configuration, unless that
//!   candidate's log is newer than its own and a member vouches for it. The paper lets everybody
//!   vote for everybody (§6): that is needed when the voter is behind and cannot know the
//!   candidate, which is exactly when the candidate's log is newer. In all other cases the
//!   candidate was removed, or never belonged. Leaders are heard by the same rule (`standing`).
//! - Every request for a vote is answered, with a refusal where the paper is silent, since somebody
//!   may wait for the answer.
//! - A candidate that loses by refusals, or has one and no victory, asks again after a short random
//!   delay, in place of a whole election timeout. With one of three members down, a split vote
//!   would otherwise cost just that.
//! - Two that ask for pre-votes at the same time would both be granted them, and split the vote.
//!   The one with less right (older log, or equal logs and higher id) gives way.
//!
//! # What is deliberately absent
//!
//! - *Lease reads.* They trust clocks; a pause at the wrong moment makes them lie.
//! - *Leader with a hung disk.* It can lead for as long as its followers' disks work, and
//!   [`Status`] shows how far its own has fallen behind; when to hand over is the caller's call.
//! - *Exactly-once.* A proposal enters the log at most once a term; a client that repeats an
//!   unanswered one under a new name may see it take effect twice. That is for the state machine.
//! - *Pacing of a follower by its state machine.* Followers confirm what is durable, not what is
//!   applied. The leader's intake is bounded by its own apply, not by theirs.
//! - *Byzantine faults.* No message can make a node panic, break its own log's order or trust a
//!   confirmation of entries that never were, and whoever is no member is not heard (`standing`).
//!   But a member that lies about leading is believed.

pub mod types;

pub mod message;

pub mod config;
mod node;
pub mod notice;
pub mod ready;
pub mod status;

mod standing;
mod step;

mod detector;
mod election;
mod follower;
mod replication;
mod snapshot;

mod proposal;
mod read_index;
mod transfer;

mod change;
mod reconfigure;

mod log;
mod membership;
mod progress;

mod quorum;
mod rng;

#[cfg(feature = "sim")]
pub mod canonical;

#[cfg(test)]
mod testing;

pub use change::{
    ADDRESS_BYTES_MAX, ATTRIBUTE_BYTES_MAX, CHANGES_MAX, Change, ChangeError, MEMBERS_MAX,
    REMOVED_MAX, TargetRole,
};
pub use config::{Config, Restored};
pub use message::{Body, Message, Refusal};
pub use node::RaftNode;
pub use notice::{Cause, Notice};
pub use ready::{Persist, ReadState, Ready, Role, SoftState};
pub use snapshot::LogCacheLimits;
pub use status::{PeerState, PeerStatus, Status};
pub use transfer::TransferError;
pub use types::{
    Attributes, Configuration, Entry, EntryId, HardState, Index, NodeId, Payload, PersistSeq,
    Proposal, RequestId, SnapshotMeta, Term,
};
