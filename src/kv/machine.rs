//! The replicated state machine (Raft §2): commands in, outcomes out, nothing else.

use super::command::Command;
use super::error::Error;
use super::store::Store;
use super::txn;
use super::types::{CompactionResponse, Response};

/// The owner of the store, and the only way to change it.
///
/// Two machines that were given the same commands in the same order hold equal stores and gave
/// equal answers, whatever compaction steps and reads came in between.
#[derive(Debug)]
pub struct Machine {
    store: Store,
    applied: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A machine to which nothing has been applied.
    pub fn new() -> Self {
        Self { store: Store::new(), applied: 0 }
    }

    /// A machine that goes on from a snapshot (see [`SnapshotImport`](super::SnapshotImport)) of
    /// the state after log index `applied`.
    pub fn restore(store: Store, applied: u64) -> Self {
        Self { store, applied }
    }

    /// Applies the command at log index `index`. An error is an outcome like any other: every
    /// member comes to the same, and the store is as before.
    ///
    /// Panics if the index is not above the last one: a command is applied once.
    pub fn apply(&mut self, index: u64, command: Command) -> Result<Response, Error> {
        assert!(index > self.applied, "applied {} already, not again {index}", self.applied);
        self.applied = index;
        match command {
            Command::Put(request) => txn::put(&mut self.store, &request).map(Response::Put),
            Command::DeleteRange(request) => {
                txn::delete_range(&mut self.store, &request).map(Response::DeleteRange)
            }
            Command::Txn(request) => txn::apply(&mut self.store, &request).map(Response::Txn),
            Command::Compact(request) => {
                self.store.compact(request.revision)?;
                let revision = self.store.revision();
                Ok(Response::Compact(CompactionResponse { revision }))
            }
        }
    }

    /// Frees some of what compaction has forgotten, looking at up to `budget` changes (of which
    /// each takes well below a microsecond, or a little more if it frees). True when there is
    /// nothing left to do now. Changes nothing that anybody could see, but memory.
    pub fn compact_step(&mut self, budget: usize) -> bool {
        self.store.compact_step(budget)
    }

    /// The store, to read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The log index of the last command applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }
}
