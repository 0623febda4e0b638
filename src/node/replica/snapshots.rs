//! Snapshots: when one is due, and who waits for one.

use crate::raft::{Index, LogCacheLimits, NodeId, SnapshotMeta};
use crate::testpoints::{Mark, mark};

use super::super::event::Effect;
use super::super::pending_proposals::Tick;
use super::Replica;

/// What is known of this member's own snapshots.
#[derive(Debug, Default)]
pub(super) struct SnapshotWork {
    /// Log written since the last snapshot, in bytes.
    pub(super) log_bytes: u64,
    /// What the data took when it was last heard of, if it was.
    pub(super) data_bytes: Option<u64>,
    /// `log_bytes` when the snapshot now being written was asked for.
    pub(super) saving: Option<u64>,
    pub(super) latest: Index,
    pub(super) wanted_by: Vec<NodeId>,
    /// The disk is short of room: the log is to be shorter than it would be otherwise.
    pub(super) room_short: bool,
    /// Those of its own that could not be written, since the last that could.
    pub(super) failures: u32,
    /// None is begun before this.
    pub(super) retry_at: Tick,
}

/// On a disk that is short of room, a snapshot is due after this part of the log that makes one due
/// otherwise.
const SHORT_PART: u64 = 16;

/// The longest wait before another try is this power of two election timeouts.
const RETRY_DOUBLINGS_MAX: u32 = 6;

impl<T> Replica<T> {
    pub(super) fn snapshot_wanted(&mut self, peer: NodeId) {
        if self.snapshots.latest.next() >= self.raft.first_index() {
            self.effects.push(Effect::SendSnapshot { to: peer });
            return;
        }
        mark(Mark::SnapshotAwaited);
        if !self.snapshots.wanted_by.contains(&peer) {
            self.snapshots.wanted_by.push(peer);
        }
        self.save_snapshot();
    }

    /// The data takes so much now.
    pub(super) fn data_is(&mut self, data_bytes: u64) {
        self.snapshots.data_bytes = Some(data_bytes);
        self.shrink_log();
        if self.snapshots.log_bytes > self.enough_log_bytes() {
            self.save_snapshot();
        }
    }

    /// So much log is worth a snapshot, and no more of it worth keeping in memory.
    fn enough_log_bytes(&self) -> u64 {
        let least = self.config.snapshot_log_bytes_min;
        let least = if self.snapshots.room_short { least / SHORT_PART } else { least };
        least.max(self.snapshots.data_bytes.unwrap_or(u64::MAX))
    }

    /// Forgets log that nobody is likely to need.
    pub(super) fn shrink_log(&mut self) {
        let enough_bytes = usize::try_from(self.enough_log_bytes()).unwrap_or(usize::MAX);
        let LogCacheLimits { bytes_max, lagging_bytes_max } = self.config.log_cache_limits;
        self.raft.shrink_log(LogCacheLimits {
            bytes_max: bytes_max.min(enough_bytes),
            lagging_bytes_max,
        });
    }

    /// A member that joined has an empty membership before the first that its log tells: the
    /// snapshot of such an index would say that nobody takes part.
    pub(super) fn save_snapshot(&mut self) {
        let known = !self.raft.membership_at(self.applied).voters.is_empty();
        let rested = self.now >= self.snapshots.retry_at;
        if known && rested && self.snapshots.saving.is_none() {
            self.snapshots.saving = Some(self.snapshots.log_bytes);
            self.effects.push(Effect::SaveSnapshot);
        }
    }

    /// On a full disk each try writes until there is no room, for as long as there is none.
    pub(super) fn snapshot_failed(&mut self) {
        let work = &mut self.snapshots;
        work.saving = None;
        let doublings = work.failures.min(RETRY_DOUBLINGS_MAX);
        work.failures = work.failures.saturating_add(1);
        work.retry_at = self.now + (u64::from(self.config.raft.election_ticks_max) << doublings);
    }

    /// Now and then: what was put off may be due.
    pub(super) fn tick_snapshots(&mut self) {
        self.shrink_log();
        let due = self.snapshots.log_bytes > self.enough_log_bytes();
        let put_off = self.snapshots.failures > 0 || self.snapshots.room_short;
        if put_off && (due || !self.snapshots.wanted_by.is_empty()) {
            self.save_snapshot();
        }
    }

    pub(super) fn snapshot_saved(&mut self, meta: &SnapshotMeta) {
        (self.snapshots.failures, self.snapshots.retry_at) = (0, 0);
        if let Some(covered) = self.snapshots.saving.take() {
            self.snapshots.log_bytes = self.snapshots.log_bytes.saturating_sub(covered);
        }
        self.snapshots.latest = self.snapshots.latest.max(meta.last.index);
        for to in std::mem::take(&mut self.snapshots.wanted_by) {
            self.effects.push(Effect::SendSnapshot { to });
        }
    }
}
