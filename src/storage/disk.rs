//! The disk as this room sees it: one flat directory of files that are written at positions.
//!
//! The traits are small so that a simulated disk can stand in, and complete so that it can lie in
//! every way a real one does: nothing is durable before [`DiskFile::sync_data`], no name is
//! durable before [`Disk::sync_dir`], and each call may fail.
//!
//! Deliberately absent: appending (positions make torn writes visible), truncation (segments are
//! of fixed size), and any kind of retry, but for want of a descriptor (`descriptors`).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::descriptors::Spares;
use super::error::{Context, Error};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new, empty file, for reading and writing; an existing name is an error.
    Create,
}

/// One directory. Clones are the same directory.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Holds the directory for this process until dropped.
    type Lock: Send + Sync + 'static;

    /// Opens the file `name`.
    fn open(&self, name: &str, access: Access) -> io::Result<Self::File>;
    /// Gives the file `from` the name `to`, replacing what had that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes the name. An open file stays usable.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes every creation, renaming and removal so far durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Takes the directory for this process, by a file `name`; `None` if another process has it.
    fn lock(&self, name: &str) -> io::Result<Option<Self::Lock>>;
    /// Bytes that may still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// What to call the file `name` in messages; the directory itself for the empty name.
    fn path(&self, name: &str) -> PathBuf;
}

/// One open file.
pub trait DiskFile: Send + 'static {
    /// Reads at `offset_bytes` until `buffer` is full or the file ends; returns how much.
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset_bytes`, extending the file if it must.
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()>;
    /// Makes everything written so far, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// The length now.
    fn len_bytes(&self) -> io::Result<u64>;
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<PathBuf>,
    /// Held open, so that a sync needs no descriptor.
    directory: Arc<File>,
    spares: Arc<Spares>,
}

impl RealDisk {
    /// The directory `root`, made with its parents (mode 0700) if it does not exist.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let missing: Vec<PathBuf> = root
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .map(Path::to_path_buf)
            .collect();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .context("create the directory", || root.clone())?;
        for made in missing {
            let parent = match made.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            sync_directory(parent).context("sync the directory", || parent.to_path_buf())?;
        }
        let directory = File::open(&root).context("open the directory", || root.clone())?;
        let directory = Arc::new(directory);
        let spares = Arc::new(Spares::of(Arc::clone(&directory)));
        Ok(Self { root: Arc::new(root), directory, spares })
    }
}

impl RealDisk {
    /// Bytes of the whole file system.
    pub fn total_bytes(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(self.root.as_path());
        let stat =
            stat.map_err(io::Error::from).context("ask for the size of", || self.path(""))?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    fn open(&self, name: &str, access: Access) -> io::Result<RealFile> {
        // The standard library sets O_CLOEXEC on everything it opens.
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(access != Access::Read)
            .create_new(access == Access::Create)
            .mode(0o600);
        self.spares.open(|| options.open(self.root.join(name))).map(RealFile)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in self.spares.open(|| fs::read_dir(self.root.as_path()))? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = item?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Option<RealLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.root.join(name))?;
        // flock(2): released by the kernel however the process ends.
        match file.try_lock() {
            Ok(()) => Ok(Some(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(self.root.as_path())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.to_path_buf() } else { self.root.join(name) }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file of the file system.
#[derive(Debug)]
pub struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset_bytes + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Keeps every other process out of a directory.
#[derive(Debug)]
pub struct RealLock {
    _file: File,
}
