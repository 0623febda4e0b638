//! The state machine as the content of a snapshot: the chunks of `kv`, each with its length in
//! front (four bytes, little-endian), one after the other. Storage and transport cut that content
//! as they like; here it is put together again.

use std::sync::{PoisonError, RwLock};

use bytes::{Buf, Bytes, BytesMut};

use crate::kv::{self, Machine, SnapshotCursor, SnapshotImport};

/// About how much of the state is looked at under one hold of the store's lock.
const CHUNK_BYTES: usize = 64 << 10;

/// The longest chunk that is believed: one version can be as large as a request.
const CHUNK_BYTES_MAX: usize = 256 << 20;

/// The next chunk of the state as of `cursor`, while the machine goes on. In the content its
/// [`head`] stands in front of it.
///
/// # Errors
///
/// If a snapshot from outside replaced the store.
pub fn next_chunk(
    machine: &RwLock<Machine>,
    cursor: &mut SnapshotCursor,
) -> Result<Option<Bytes>, kv::SnapshotError> {
    let machine = machine.read().unwrap_or_else(PoisonError::into_inner);
    cursor.next_chunk(machine.store(), CHUNK_BYTES)
}

/// What stands in front of `chunk`.
pub fn head(chunk: &Bytes) -> [u8; 4] {
    u32::try_from(chunk.len()).expect("a chunk is far smaller than 4 GiB").to_le_bytes()
}

/// Takes the content of a snapshot in any pieces.
#[derive(Default)]
pub struct Import {
    pending: BytesMut,
    chunks: SnapshotImport,
}

impl Import {
    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// When the content is not made of chunks with their heads.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), kv::SnapshotError> {
        self.pending.extend_from_slice(piece);
        while let Some(head) = self.pending.first_chunk::<4>() {
            let length = u32::from_le_bytes(*head) as usize;
            if length > CHUNK_BYTES_MAX {
                return Err(kv::SnapshotError::Invalid("a chunk is too long"));
            }
            if self.pending.len() < 4 + length {
                break;
            }
            self.pending.advance(4);
            let chunk: Bytes = self.pending.split_to(length).freeze();
            self.chunks.chunk(&chunk)?;
        }
        Ok(())
    }

    /// The machine, when all has been taken, as of log index `applied`.
    ///
    /// # Errors
    ///
    /// When something is missing.
    pub fn finish(self, applied: u64) -> Result<Machine, kv::SnapshotError> {
        if !self.pending.is_empty() {
            return Err(kv::SnapshotError::Invalid("it ends within a chunk"));
        }
        Ok(Machine::restore(self.chunks.finish()?, applied))
    }
}
