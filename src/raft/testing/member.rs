//! A member with a simulated disk and state machine: what the caller of the core does, in small.
//!
//! Batches are written in order and become durable, whole, when the test says so; a crash keeps
//! those. The state machine is the chain of entries it has applied.

use std::collections::VecDeque;

use super::super::{
    Config, Configuration, Entry, EntryId, HardState, Index, Persist, RaftNode, Restored,
    SnapshotMeta,
};

/// What survives a crash.
#[derive(Clone, Debug)]
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

    /// The last index on disk.
    pub fn last(&self) -> Index {
        self.entries.last().map_or(self.base.last.index, |entry| entry.id.index)
    }

    /// Whether the disk vouches for `id`, in the log or in the snapshot.
    pub fn holds(&self, id: EntryId) -> bool {
        id.index <= self.base.last.index || self.entries.iter().any(|entry| entry.id == id)
    }

    fn write(&mut self, hard_state: HardState, snapshot: Option<SnapshotMeta>, entries: &[Entry]) {
        self.hard_state = hard_state;
        if let Some(meta) = snapshot {
            self.base = meta;
            self.entries.clear();
        }
        if let Some(first) = entries.first() {
            assert!(first.id.index <= self.last().next(), "a gap in the log on disk");
            assert!(first.id.index > self.base.last.index, "rewrites what the snapshot holds");
            self.entries.retain(|entry| entry.id.index < first.id.index);
            self.entries.extend_from_slice(entries);
        }
    }
}

/// One member.
#[derive(Clone, Debug)]
pub struct Member {
    pub config: Config,
    /// None while it is down.
    pub node: Option<RaftNode>,
    pub durable: Durable,
    /// Batches under way to the disk.
    pub writes: VecDeque<Persist>,
    /// Entries on their way into the state machine.
    pub applying: VecDeque<Entry>,
    /// The state machine is about to be replaced by the snapshot up to here.
    pub restoring: Option<Index>,
}

impl Member {
    pub fn new(config: Config, durable: Durable) -> Self {
        let mut member = Self {
            config,
            node: None,
            durable,
            writes: VecDeque::new(),
            applying: VecDeque::new(),
            restoring: None,
        };
        member.start();
        member
    }

    /// Starts from what the disk holds.
    pub fn start(&mut self) {
        let Durable { hard_state, base, entries } = self.durable.clone();
        let applied = base.last.index;
        let restored = Restored { hard_state, base, entries, applied };
        self.node = Some(RaftNode::new(self.config.clone(), restored));
    }

    /// Stops at once. Of the writes under way, so many reached the disk: each whole or not at all.
    pub fn crash(&mut self, done: usize) {
        self.node = None;
        self.applying.clear();
        self.restoring = None;
        for _ in 0..done {
            let Some(batch) = self.writes.pop_front() else { break };
            self.durable.write(batch.hard_state, batch.snapshot, &batch.entries);
        }
        self.writes.clear();
    }

    /// The oldest write under way is durable. Returns it; the node has not been told.
    pub fn finish_write(&mut self) -> Option<Persist> {
        let batch = self.writes.pop_front()?;
        self.durable.write(batch.hard_state, batch.snapshot.clone(), &batch.entries);
        Some(batch)
    }

    /// The state machine writes a snapshot of all it has applied, which allows the log to go.
    pub fn save_snapshot(&mut self) -> Option<SnapshotMeta> {
        let node = self.node.as_ref()?;
        let applied = node.status().applied;
        if applied <= self.durable.base.last.index {
            return None;
        }
        let last = EntryId { term: node.term_at(applied)?, index: applied };
        let meta = SnapshotMeta { last, config: node.membership_at(applied).clone() };
        self.durable.base = meta.clone();
        self.durable.entries.retain(|entry| entry.id.index > applied);
        Some(meta)
    }
}
