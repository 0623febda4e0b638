//! What a node is born with: its settings, and what its disk gave back.
//!
//! Time is counted in ticks; how long one lasts is the caller's business.

use std::collections::BTreeMap;

use super::types::{Entry, HardState, Index, NodeId, SnapshotMeta};

/// The settings of one member. They need not agree across a cluster, but the election timeouts
/// should.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// How often a leader makes itself heard.
    pub heartbeat_ticks: u32,
    /// The shortest election timeout; also how long a live leader shields against other candidates.
    pub election_ticks_min: u32,
    /// The longest election timeout; also when a leader without quorum steps down, and when a
    /// transfer is given up.
    pub election_ticks_max: u32,
    /// After "connection to the leader lost", wait `1..=` this many ticks before the pre-vote.
    pub leader_lost_delay_ticks_max: u32,
    /// Most bytes of entries in one `Append`; a single larger entry still goes.
    pub append_bytes_max: usize,
    /// Most `Append`s on their way to one follower.
    pub inflight_messages_max: usize,
    /// Bytes of entries on their way to one follower past which none are added.
    pub inflight_bytes_max: usize,
    /// Most bytes that a leader takes in before they are applied here. One proposal always fits
    /// when nothing waits. Counting up to the apply, not just the commit, also holds the producers
    /// back when this member's disk or state machine is the slow one.
    pub uncommitted_bytes_max: usize,
    /// Most reads waiting for their index, here and on behalf of followers.
    pub reads_pending_max: usize,
    /// Bytes of committed entries handed out and not yet applied past which none are added; also
    /// the most in one `Ready`. A single larger entry still goes.
    pub ready_bytes_max: usize,
    /// Where the first members are reached, as far as this member's operator said. A change
    /// writes it into the log.
    pub addresses: BTreeMap<NodeId, String>,
    /// Where members are dialled in place of what the log says. A member named here or above may
    /// lead this member, whether its log knows of it or not.
    pub address_overrides: BTreeMap<NodeId, String>,
    /// Fixes every random choice of this node.
    pub seed: u64,
}

impl Config {
    /// Stops a node that could not work. Settings come from our own code, which checks what
    /// operators write.
    pub(super) fn assert_sound(&self) {
        assert!(self.heartbeat_ticks >= 1, "a leader must be heard");
        assert!(self.heartbeat_ticks < self.election_ticks_min, "heartbeats must beat elections");
        assert!(self.election_ticks_min <= self.election_ticks_max, "timeout range is empty");
        assert!(self.election_ticks_max <= u32::MAX / 64, "timeouts are multiplied");
        assert!(self.leader_lost_delay_ticks_max >= 1, "the loss delay draws from 1");
        assert!(self.inflight_messages_max >= 1, "nothing could be sent");
        assert!(self.inflight_bytes_max >= 1, "nothing could be sent");
        assert!(self.ready_bytes_max >= 1, "nothing could be applied");
    }
}

/// What the disk gave back at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Term, vote and commit hint, as of the last batch that the disk holds whole. A hint beyond
    /// the log counts up to its end.
    pub hard_state: HardState,
    /// The log in memory begins after this entry, under this membership. On a first start:
    /// index 0, term 0, the first members.
    pub base: SnapshotMeta,
    /// Consecutive from `base.last.index + 1`, all durable. The storage vouches for that.
    pub entries: Vec<Entry>,
    /// How far the state machine is; at least `base.last.index`.
    pub applied: Index,
}
