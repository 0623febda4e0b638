//! Snapshots in place of a log that is gone (§7).
//!
//! Only what a snapshot stands for passes through here. Its content travels beside, is checked
//! before `InstallSnapshot` is shown to the core, and goes into the state machine by the caller's
//! hand. The leader asks its caller to send one, once, and waits to hear how that went; since the
//! word may be lost, it looks for itself now and then, and in the end asks again. A follower to
//! which snapshots fail again and again (its disk is full, say) is sent one after ever longer
//! rests: each attempt costs the leader's disk and the network as much as the state is large.

use crate::testpoints::{self, Mark, Mutant};

use super::message::Body;
use super::node::{RaftNode, RoleState};
use super::progress::{Progress, ProgressState};
use super::types::{Index, NodeId, SnapshotMeta};

/// After this many election timeouts without a word, a snapshot is asked for again.
const SNAPSHOT_PATIENCE_TIMEOUTS: u32 = 32;

/// What applied entries may take in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCacheLimits {
    /// Those that only a follower out of touch might want, in bytes.
    pub bytes_max: usize,
    /// Those that a follower in touch lacks, in bytes: at least as much.
    pub lagging_bytes_max: usize,
}

impl RaftNode {
    /// How sending a snapshot (up to `upto`) to `peer` went. `ok`: it was received whole; the
    /// follower's own confirmation comes on its own.
    pub fn snapshot_sent(&mut self, peer: NodeId, ok: bool, upto: Index) {
        let last = self.log.last().index;
        let timeout_ticks = self.config.election_ticks_max;
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&peer) else {
            return;
        };
        match progress.state() {
            ProgressState::Snapshot { .. } => {
                if ok {
                    progress.snapshot_arrived();
                } else {
                    testpoints::mark(Mark::SnapshotFailed);
                    progress.snapshot_failed(timeout_ticks);
                }
                let reached = if ok { upto.min(last) } else { Index(0) };
                progress.probe_from(reached.max(progress.matched()).next());
                // Paced by signs of life: a follower that fails at once is not asked at once.
                progress.pause();
            }
            ProgressState::Probe { .. } | ProgressState::Replicate(_) => {}
        }
        self.assert_invariants();
    }

    /// A tick for a follower that waits for a snapshot.
    pub(super) fn tick_snapshots(&mut self) {
        let timeout_ticks = self.config.election_ticks_max;
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let mut look_at = Vec::new();
        for (id, progress) in &mut leader.peers {
            let next = progress.matched().next();
            progress.snapshot_rest_ticks = progress.snapshot_rest_ticks.saturating_sub(1);
            if let ProgressState::Snapshot { waited_ticks } = progress.state_mut() {
                *waited_ticks += 1;
                if *waited_ticks >= timeout_ticks * SNAPSHOT_PATIENCE_TIMEOUTS {
                    progress.probe_from(next);
                } else if *waited_ticks % timeout_ticks == 0 {
                    look_at.push(*id);
                }
            }
        }
        // A peer that has the snapshot acknowledges it; any other answer is stale.
        let (prev, commit) = (self.log.base(), self.log.committed());
        for id in look_at {
            self.send(id, Body::Append { prev, entries: Vec::new(), commit });
        }
    }

    /// A snapshot has arrived, whole.
    pub(super) fn handle_install_snapshot(&mut self, meta: SnapshotMeta) {
        let last = meta.last;
        let stale = last.index <= self.log.committed();
        let held = self.log.holds(last) && !testpoints::mutant(Mutant::SnapshotCutsLog);
        if stale && !testpoints::mutant(Mutant::StaleSnapshot) {
            testpoints::mark(Mark::StaleSnapshotIgnored);
            // Of the past. The leader has what is committed here.
            self.set_pending_ack(self.log.committed());
        } else if held {
            testpoints::mark(Mark::SnapshotHeldAlready);
            // The log has all of it: only the commit index is news (§7).
            self.log.commit_to(last.index);
            self.set_pending_ack(last.index);
        } else {
            testpoints::mark(Mark::SnapshotReplacesLog);
            self.log.restore(last);
            if !testpoints::mutant(Mutant::SnapshotKeepsMembership) {
                self.membership.restore(meta.config);
            }
            self.set_pending_ack(last.index);
        }
    }

    /// Forgets applied entries, oldest first, until those left take at most what `room` gives them,
    /// but keeps for a follower in touch what it lacks: one that is sent a snapshot would find the
    /// log gone on beyond it, need another, and never catch up while writes go on. What is left
    /// over goes with the next calls.
    pub fn shrink_log(&mut self, room: LogCacheLimits) {
        let base = self.log.base().index;
        let held = self.least_matched_in_touch();
        let lacking = held.is_some_and(|held| held <= base);
        let bytes_max = if lacking { room.lagging_bytes_max } else { room.bytes_max };
        let Some(excess) = self.log.excess(bytes_max) else {
            return;
        };
        if lacking {
            testpoints::mark(Mark::LaggardGivenUp);
        }
        let upto = held.filter(|_| !lacking).map_or(excess, |held| excess.min(held));
        if upto < excess {
            testpoints::mark(Mark::LogKeptForLaggard);
        }
        self.compact(upto);
    }

    /// What every follower that was heard from lately has.
    fn least_matched_in_touch(&self) -> Option<Index> {
        let RoleState::Leader(leader) = &self.role else {
            return None;
        };
        let in_touch =
            |progress: &&Progress| progress.ticks_since_contact < self.config.election_ticks_max;
        leader.peers.values().filter(in_touch).map(Progress::matched).min()
    }

    /// Forgets entries up to `upto`, all of them applied. A follower that still lacks one of them
    /// will need a snapshot.
    pub fn compact(&mut self, upto: Index) {
        self.log.compact(upto);
        self.membership.compact(upto.min(self.log.base().index));
        self.assert_invariants();
    }
}
