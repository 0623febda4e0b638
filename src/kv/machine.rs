//! The replicated state machine (Raft §2): commands in, outcomes out, nothing else.

use super::answer::{AT_ONCE_KEYS, Answer, Notes, Outline};
use super::command::Command;
use super::error::Error;
use super::store::Store;
use super::txn;
use super::types::{CompactionResponse, Response};

/// The owner of the store, and the only way to change it.
///
/// Two machines that were given the same commands in the same order hold equal stores and came to
/// equal outcomes, whatever was answered and read, and whatever compaction steps came in between.
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

    /// Applies the command at log index `index` where no answer is awaited; gives the revision of
    /// the store after it. An error is an outcome like any other: every member comes to the same,
    /// and the store is as before.
    ///
    /// Panics if the index is not above the last one: a command is applied once.
    #[expect(clippy::needless_pass_by_value, reason = "a command is applied once")]
    pub fn apply(&mut self, index: u64, command: Command) -> Result<i64, Error> {
        self.run(index, &command, None)?;
        Ok(self.store.revision())
    }

    /// Applies the command likewise, with the same effect, and gives the answer to it. What is long
    /// of that is yet to be read.
    #[expect(clippy::needless_pass_by_value, reason = "a command is applied once")]
    pub fn answer(&mut self, index: u64, command: Command) -> Result<Answer, Error> {
        self.answer_within(index, &command, AT_ONCE_KEYS)
    }

    /// The same, with up to `keys_max` keys read at once.
    pub(super) fn answer_within(
        &mut self,
        index: u64,
        command: &Command,
        keys_max: usize,
    ) -> Result<Answer, Error> {
        let mut notes = Notes::default();
        let outline = self.run(index, command, Some(&mut notes))?;
        let Some(outline) = outline else {
            let revision = self.store.revision();
            return Ok(Answer::Ready(Response::Compact(CompactionResponse { revision })));
        };
        Ok(Answer::begin(outline, notes, &self.store, keys_max))
    }

    /// Has the effect of `command`. Its outcome is told if there are `notes` to be taken, but that
    /// of a compaction, which has none.
    fn run(
        &mut self,
        index: u64,
        command: &Command,
        notes: Option<&mut Notes>,
    ) -> Result<Option<Outline>, Error> {
        assert!(index > self.applied, "applied {} already, not again {index}", self.applied);
        self.applied = index;
        let store = &mut self.store;
        match command {
            Command::Put(request) => txn::put(store, request, notes),
            Command::DeleteRange(request) => txn::delete_range(store, request, notes),
            Command::Txn(request) => txn::apply(store, request, notes),
            Command::Compact(request) => store.compact(request.revision).map(|()| None),
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
