//! What can go wrong with the disk, in one enum. Every variant names the file, because the
//! operator who reads the one line has nothing else to go by.
//!
//! One variant is for retrying: [`Error::NoRoom`], which comes before anything was written. After a
//! failed write or `fsync` the kernel may have dropped the data and marked its pages clean, so a
//! later success would prove nothing.

use std::io;
use std::path::PathBuf;

use super::identity::Identity;

/// A failure of the storage room. All of them end the process, but for want of room for another
/// segment, which may be waited for, and those of a snapshot being written, which may be given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused or failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What it was done to.
        path: PathBuf,
        /// What was tried, as a verb.
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room for another segment of the log. Nothing was written: it may be tried again.
    #[error("no room for {}: {source}", path.display())]
    NoRoom {
        /// The file that was to be made.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written. Never repaired, never served.
    #[error("{} is damaged at byte {offset_bytes}: {what}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the damage shows.
        offset_bytes: u64,
        /// The evidence.
        what: String,
    },
    /// A later release wrote this file.
    #[error(
        "{} has format version {found}, this program knows up to {supported}",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The directory belongs to another member or another cluster.
    #[error("{} belongs to {found}, this member is {expected}", path.display())]
    ForeignDirectory {
        /// The file that says so.
        path: PathBuf,
        /// Whose data it is.
        found: Identity,
        /// Who asked for it.
        expected: Identity,
    },
    /// Another process uses the directory.
    #[error("data directory {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The log failed before; what is on the disk is unknown until the process starts anew.
    #[error("the log in {} failed before and takes nothing more", path.display())]
    Poisoned {
        /// The segment that was being written.
        path: PathBuf,
    },
}

impl Error {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => is_full(source),
            Self::Corrupt { .. }
            | Self::Version { .. }
            | Self::ForeignDirectory { .. }
            | Self::Locked { .. }
            | Self::Poisoned { .. } => false,
        }
    }

    /// Whether nothing was done, so that the same may be tried again later.
    pub fn may_be_tried_again(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { .. }
            | Self::Corrupt { .. }
            | Self::Version { .. }
            | Self::ForeignDirectory { .. }
            | Self::Locked { .. }
            | Self::Poisoned { .. } => false,
        }
    }

    pub(super) fn corrupt(path: PathBuf, offset_bytes: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path, offset_bytes, what: what.into() }
    }
}

/// Whether the disk, or what this user may have of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Turns an `io::Error` into an [`Error::Io`], with what was tried and on what.
pub(super) trait Context<T> {
    fn context(self, op: &'static str, path: impl FnOnce() -> PathBuf) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, op: &'static str, path: impl FnOnce() -> PathBuf) -> Result<T, Error> {
        self.map_err(|source| Error::Io { path: path(), op, source })
    }
}
