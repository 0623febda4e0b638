//! Files that will become segments, zeroed ahead of need and off the path of appends.
//!
//! A zeroed file lets `fdatasync` write the data and nothing else: no block is allocated, no
//! length changes. The zeros also carry meaning: a blank sector inside a group is proof that a
//! write was torn (see `frame`). So a recycled file is zeroed again, all of it, and synced,
//! before it may be used; its old content would prove nothing.

use crate::testpoints::{Mutant, mutant};

use super::disk::{Access, Disk, DiskFile};
use super::error::{Context, Error, is_full};

/// One write of zeros.
const STEP_BYTES: u64 = 1 << 20;
/// Zeros in flight between two syncs: what a sync of the log may have to queue behind.
const SYNC_BYTES: u64 = 8 << 20;
static ZEROS: [u8; STEP_BYTES as usize] = [0; STEP_BYTES as usize];

/// A file that is blank, durably, under a name of its own.
pub struct Spare<D: Disk> {
    pub(super) name: String,
    pub(super) file: D::File,
    pub(super) bytes: u64,
}

/// The making of a spare: takes as long as the disk needs to write a segment, on any thread.
#[derive(Debug)]
pub struct SpareJob<D: Disk> {
    pub(super) disk: D,
    pub(super) name: String,
    /// Whether the file exists, to be written over.
    pub(super) reuse: bool,
    pub(super) bytes: u64,
    /// Room that is to be left for others.
    pub(super) left_bytes: u64,
}

impl<D: Disk> SpareJob<D> {
    /// Makes the spare. A failure leaves the log as it was.
    ///
    /// # Errors
    ///
    /// [`Error::NoRoom`] without a try if the room is known to be too little: a try would take, for
    /// a while, what appends and snapshots still need.
    pub fn run(self) -> Result<Spare<D>, Error> {
        let path = self.disk.path(&self.name);
        self.make().map_err(|error| match error {
            Error::Io { source, .. } if is_full(&source) => Error::NoRoom { path, source },
            other => other,
        })
    }

    fn make(self) -> Result<Spare<D>, Error> {
        let Self { disk, name, reuse, bytes, left_bytes } = self;
        let path = || disk.path(&name);
        if !reuse {
            let free_bytes = disk.free_bytes().context("ask for the room left for", path)?;
            if free_bytes < bytes + left_bytes {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(Error::Io { path: path(), op: "make", source });
            }
        }
        let access = if reuse { Access::Write } else { Access::Create };
        let file = disk.open(&name, access).context("open", path)?;
        let from = if reuse && mutant(Mutant::SpareNotZeroed) { bytes } else { 0 };
        let zeroed = blank(&file, from, bytes).context("zero", path);
        if let Err(error) = zeroed {
            // Gives the space back; the error that matters is the first.
            disk.remove(&name).ok();
            return Err(error);
        }
        Ok(Spare { name, file, bytes })
    }
}

/// Makes the bytes `from..to` of `file` zero, durably.
pub(super) fn blank(file: &impl DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut at = from;
    while at < to {
        let step = (to - at).min(STEP_BYTES);
        file.write_at(&ZEROS[..step as usize], at)?;
        at += step;
        if (at - from).is_multiple_of(SYNC_BYTES) {
            file.sync_data()?;
        }
    }
    file.sync_data()
}
