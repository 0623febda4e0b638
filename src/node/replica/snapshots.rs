//! Snapshots: when one is due, and who waits for one.

use crate::proof::{Mark, mark};
use crate::raft::{Index, NodeId, SnapshotMeta};

use super::super::event::Effect;
use super::Replica;

/// What is known of this member's own snapshots.
#[derive(Debug, Default)]
pub(super) struct SnapshotWork {
    /// Log written since the last snapshot, in bytes.
    pub(super) log_bytes: u64,
    /// `log_bytes` when the snapshot now being written was asked for.
    pub(super) saving: Option<u64>,
    pub(super) latest: Index,
    pub(super) wanted_by: Vec<NodeId>,
}

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

    /// A member that joined has an empty membership before the first that its log tells: the
    /// snapshot of such an index would say that nobody takes part.
    pub(super) fn save_snapshot(&mut self) {
        let known = !self.raft.membership_at(self.applied).voters.is_empty();
        if known && self.snapshots.saving.is_none() {
            self.snapshots.saving = Some(self.snapshots.log_bytes);
            self.effects.push(Effect::SaveSnapshot);
        }
    }

    pub(super) fn snapshot_saved(&mut self, meta: &SnapshotMeta) {
        if let Some(covered) = self.snapshots.saving.take() {
            self.snapshots.log_bytes = self.snapshots.log_bytes.saturating_sub(covered);
        }
        self.snapshots.latest = self.snapshots.latest.max(meta.last.index);
        for to in std::mem::take(&mut self.snapshots.wanted_by) {
            self.effects.push(Effect::SendSnapshot { to });
        }
    }
}
