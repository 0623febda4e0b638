//! A snapshot that comes in: its file, and the proof that it makes a state.
//!
//! Once the log names a snapshot, it has taken the place of the log and of the state, and each
//! start begins with it. So it gets its name only after all of its content was understood. That
//! costs the memory of one more state while it comes in, as its restoring does in any case.

use crate::raft::{EntryId, SnapshotMeta};
use crate::storage::{self, Disk, SnapshotInfo, SnapshotStore, SnapshotWriter};
use crate::testpoints::{Mutant, mutant};

use super::recovery::Error;
use super::snapshot_stream::Import;

/// The file under way, and what it comes to.
pub struct Receiving<D: Disk> {
    writer: SnapshotWriter<D>,
    import: Import,
    last: EntryId,
}

impl<D: Disk> Receiving<D> {
    /// Begins the file of the snapshot `meta`.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn begin(store: &SnapshotStore<D>, meta: &SnapshotMeta) -> Result<Self, storage::Error> {
        let writer = store.create(meta)?;
        Ok(Self { writer, import: Import::default(), last: meta.last })
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// When the disk fails, or the content is no state.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        if !mutant(Mutant::SnapshotUnread) {
            let id = self.last;
            self.import.take(piece).map_err(|source| Error::Snapshot { id, source })?;
        }
        Ok(self.writer.write(piece)?)
    }

    /// Makes the whole durable, if it is one.
    ///
    /// # Errors
    ///
    /// When the disk fails, or something of the state is missing.
    pub fn finish(self) -> Result<SnapshotInfo, Error> {
        let Self { writer, import, last: id } = self;
        if !mutant(Mutant::SnapshotUnread) {
            let state = import.finish(id.index.0);
            drop(state.map_err(|source| Error::Snapshot { id, source })?);
        }
        Ok(writer.finish()?)
    }
}
