//! What a member's disk holds: what a crash leaves, and what a start begins with.

use raft_node::raft::canonical::Words;
use raft_node::raft::{
    Configuration, Entry, EntryId, HardState, Index, Payload, Persist, Restored, SnapshotMeta,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    pub hard_state: HardState,
    pub base: SnapshotMeta,
    pub entries: Vec<Entry>,
}

impl Durable {
    pub fn new(config: Configuration) -> Self {
        let base = SnapshotMeta { last: EntryId::default(), config };
        Self { hard_state: HardState::default(), base, entries: Vec::new() }
    }

    pub fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base.last, |entry| entry.id)
    }

    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.base.last.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Whether this very entry is here, or behind the snapshot.
    pub fn holds(&self, id: EntryId) -> bool {
        id.index <= self.base.last.index || self.entry(id.index).is_some_and(|entry| entry.id == id)
    }

    /// The membership that this log tells of.
    pub fn configuration(&self) -> &Configuration {
        let change = self.entries.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Config(config) => Some(config),
            Payload::Noop | Payload::Command(_) => None,
        });
        change.unwrap_or(&self.base.config)
    }

    /// A batch is durable.
    pub fn write(&mut self, batch: &Persist) {
        self.hard_state = batch.hard_state;
        if let Some(meta) = &batch.snapshot {
            self.base = meta.clone();
            self.entries.clear();
        }
        let Some(first) = batch.entries.first() else { return };
        assert!(first.id.index <= self.last().index.next(), "a gap in the log on disk");
        assert!(first.id.index > self.base.last.index, "rewrites what the snapshot holds");
        self.entries.retain(|entry| entry.id.index < first.id.index);
        self.entries.extend_from_slice(&batch.entries);
    }

    /// A snapshot of everything up to `meta.last`, which stands in this log.
    pub fn save_snapshot(&mut self, meta: SnapshotMeta) {
        self.entries.retain(|entry| entry.id.index > meta.last.index);
        self.base = meta;
    }

    pub fn restored(&self) -> Restored {
        Restored {
            hard_state: self.hard_state,
            base: self.base.clone(),
            entries: self.entries.clone(),
            applied: self.base.last.index,
        }
    }

    pub fn words(&self, words: &mut Words<'_>) {
        words.hard_state(&self.hard_state);
        words.snapshot(&self.base);
        words.list_of(self.entries.iter(), Words::entry);
    }
}
