//! What the disk remembers: the newest snapshot, the log behind it, and the state that they make.
//!
//! The log is replayed as a stream. Entries known to be committed are applied on the way, and of
//! the rest only as much is kept as the core keeps in memory anyway: starting takes no more
//! memory than running.

use std::collections::VecDeque;

use crate::kv::{Command, DecodeError, Machine, SnapshotError};
use crate::raft::{
    Configuration, Entry, EntryId, HardState, Index, Payload, Restored, SnapshotMeta,
};
use crate::storage::{self, DataDir, Disk, Identity, Options, Record, SnapshotReader};
use crate::storage::{SnapshotStore, Wal};
use crate::testpoints::{Mutant, mutant};

use super::snapshot_stream::Import;

#[cfg(test)]
mod tests;

/// A member as its data directory remembers it.
pub struct Recovered<D: Disk> {
    /// The state.
    pub machine: Machine,
    /// The last entry that the state holds.
    pub applied: EntryId,
    /// The membership as of that entry.
    pub config: Configuration,
    /// For the core.
    pub restored: Restored,
    /// The log, ready for more.
    pub wal: Wal<D>,
    /// The snapshots.
    pub snapshots: SnapshotStore<D>,
    /// The last index of the newest snapshot.
    pub latest_snapshot: Index,
    /// The log since that snapshot.
    pub log_bytes: u64,
    /// Which opening of the directory this is.
    pub restarts: u64,
}

/// Why the disk's word cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk fails, or holds damage, or belongs to somebody else.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The snapshot's bytes are whole, but make no state.
    #[error("snapshot {id} cannot be loaded: {source}")]
    Snapshot {
        /// Its last entry.
        id: EntryId,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// A committed command that this version does not understand.
    #[error("entry {id} holds a command that this version does not understand: {source}")]
    UnknownCommand {
        /// The entry.
        id: EntryId,
        /// What is wrong with it.
        source: DecodeError,
    },
}

/// Opens the data directory and reads it back. An empty one becomes that of `identity`, with
/// `first` as its members. Of the log at most about `cache_bytes_max` stay in memory.
///
/// # Errors
///
/// [`Error`]; nothing on the disk has been changed that a later start would miss.
pub fn recover<D: Disk>(
    disk: &D,
    options: Options,
    identity: Identity,
    first: &Configuration,
    cache_bytes_max: usize,
) -> Result<Recovered<D>, Error> {
    let opening = storage::open(disk, options, identity, first)?;
    let restarts = opening.restarts();
    let mut hard_state = opening.hard_state();
    if mutant(Mutant::VoteForgotten) {
        hard_state.vote = None;
    }
    let base = opening.base().clone();
    let machine = match opening.read_snapshot()? {
        Some(reader) => load(reader, || ())?,
        None => Machine::new(),
    };
    let mut replay = Replay {
        machine,
        applied: base.last,
        config: base.config.clone(),
        latest_snapshot: base.last.index,
        base,
        entries: VecDeque::new(),
        entry_bytes: 0,
        commit: Index(0),
        cache_bytes_max,
    };
    let DataDir { wal, snapshots } = opening.replay(|record| replay.take(record))?;
    replay.commit(hard_state.commit)?;
    Ok(Recovered {
        log_bytes: wal.bytes_since_snapshot(),
        machine: replay.machine,
        applied: replay.applied,
        config: replay.config,
        latest_snapshot: replay.latest_snapshot,
        restored: Restored {
            hard_state,
            base: replay.base,
            entries: replay.entries.into(),
            applied: replay.applied.index,
        },
        wal,
        snapshots,
        restarts,
    })
}

/// The machine in a snapshot. After each piece, `rest` says how soon to go on.
///
/// # Errors
///
/// [`Error::Storage`] or [`Error::Snapshot`].
pub fn load<D: Disk>(
    mut reader: SnapshotReader<D>,
    mut rest: impl FnMut(),
) -> Result<Machine, Error> {
    let id = reader.info().meta.last;
    let unusable = |source| Error::Snapshot { id, source };
    let mut import = Import::default();
    while let Some(piece) = reader.next_chunk()? {
        import.take(&piece).map_err(unusable)?;
        rest();
    }
    import.finish(id.index.0).map_err(unusable)
}

/// The log as far as it has been read back.
struct Replay {
    machine: Machine,
    applied: EntryId,
    /// The membership as of `applied`.
    config: Configuration,
    latest_snapshot: Index,
    /// Where `entries` begin.
    base: SnapshotMeta,
    entries: VecDeque<Entry>,
    entry_bytes: usize,
    commit: Index,
    cache_bytes_max: usize,
}

impl Replay {
    fn take(&mut self, record: Record) -> Result<(), Error> {
        match record {
            Record::Entry(entry) => {
                self.cut(entry.id.index);
                self.entry_bytes += entry.size_bytes();
                self.entries.push_back(entry);
                Ok(())
            }
            Record::HardState(hard_state) => self.note(hard_state),
            Record::Restart => {
                let (applied, base) = (self.applied, self.base.last);
                assert!(applied.index <= base.index, "a restart after {applied}, base {base}");
                self.cut(Index(0));
                Ok(())
            }
        }
    }

    fn note(&mut self, hard_state: HardState) -> Result<(), Error> {
        self.commit(hard_state.commit)
    }

    /// Forgets the entries from `from` on: a later leader replaced them.
    fn cut(&mut self, from: Index) {
        while self.entries.back().is_some_and(|last| last.id.index >= from) {
            let entry = self.entries.pop_back().expect("the back was just seen");
            assert!(entry.id.index > self.applied.index, "what is committed is never replaced");
            self.entry_bytes -= entry.size_bytes();
        }
    }

    /// Applies what is committed, and forgets what is applied beyond the cache's size.
    fn commit(&mut self, commit: Index) -> Result<(), Error> {
        self.commit = self.commit.max(commit);
        if mutant(Mutant::RecoverBeyondCommit)
            && let Some(last) = self.entries.back()
        {
            self.commit = self.commit.max(last.id.index);
        }
        let done = self.applied.index.0.saturating_sub(self.base.last.index.0) as usize;
        for at in done..self.entries.len() {
            let entry = &self.entries[at];
            if entry.id.index > self.commit {
                break;
            }
            match &entry.payload {
                Payload::Noop => {}
                Payload::Config(config) => self.config = config.clone(),
                Payload::Command(proposal) => {
                    let command = Command::decode(&proposal.data)
                        .map_err(|source| Error::UnknownCommand { id: entry.id, source })?;
                    // A refusal is an outcome; its caller is gone.
                    let _ = self.machine.apply(entry.id.index.0, command);
                }
            }
            self.applied = entry.id;
        }
        while self.entry_bytes > self.cache_bytes_max
            // By index: an entry of an older term may lie beyond what is applied.
            && self.entries.front().is_some_and(|first| first.id.index <= self.applied.index)
        {
            let entry = self.entries.pop_front().expect("the front was just seen");
            self.entry_bytes -= entry.size_bytes();
            if let Payload::Config(config) = entry.payload {
                self.base.config = config;
            }
            self.base.last = entry.id;
        }
        Ok(())
    }
}
