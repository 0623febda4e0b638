//! The bytes that survive: the write-ahead log and the snapshots of one member.
//!
//! Reading order: [`disk`] is the world, small enough to be simulated; `frame` and `record` are
//! the log's bytes; `segment`, `spare` and `state` its parts; [`Wal`] writes it and [`Recovery`]
//! reads it back; [`SnapshotStore`] keeps the snapshots; [`open()`] ties them together. The formats
//! and what they promise are in `docs/wal.md` and `docs/snapshot.md`, which tests hold to the code.
//!
//! The order is the caller's part, and this is all of it:
//! - a vote, a term, an entry: [`Wal::append`], [`Wal::sync`], *then* reveal it;
//! - a snapshot of our own: [`SnapshotWriter::finish`], [`Wal::release`],
//!   [`SnapshotStore::adopt`];
//! - a snapshot received: [`SnapshotWriter::finish`], [`Wal::append`] with it, [`Wal::sync`],
//!   [`SnapshotStore::adopt_received`].
//!
//! Knows nothing of consensus but its nouns, nothing of what commands mean, and has no thread, no
//! clock and no randomness of its own.

pub mod disk;

mod data_dir;
mod descriptors;
mod error;
mod frame;
mod identity;
mod peer_incarnations;
mod record;
mod recovery;
mod restart_count;
mod segment;
mod snapshot;
mod spare;
mod state;
mod wal;

#[cfg(any(test, feature = "sim"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use data_dir::{DataDir, OpenedDataDir, open};
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::Error;
pub use identity::{Identity, read as identity};
pub use peer_incarnations::PeerIncarnations;
pub use recovery::{Record, Recovery};
pub use snapshot::{CHUNK_BYTES, SnapshotInfo, SnapshotReader, SnapshotStore, SnapshotWriter};
pub use spare::{Spare, SpareJob};
pub use wal::{Options, Wal};
