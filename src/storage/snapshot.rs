//! Snapshot files: the state of the machine as of one entry, in checked chunks.
//!
//! A file is written under a temporary name, synced, and renamed, so a snapshot's name stands for
//! a whole snapshot. Which one counts, the log says: the file it names must be there and whole,
//! and every other is removed at start. So there is never a choice between two, and the
//! membership has one source. `docs/snapshot.md` has every byte.
//!
//! Deliberately absent: what the chunks mean. They are the machine's business, on this member and
//! on the wire.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::raft::types::{EntryId, SnapshotMeta};
use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::disk::{Access, Disk, DiskFile};
use super::error::{Context, Error};
use super::identity::Identity;
use super::record::{self, RecordReader};

/// The length of every chunk but the last.
pub const CHUNK_BYTES: usize = 256 << 10;

const MAGIC: [u8; 4] = *b"RSNP";
const VERSION: u16 = 1;
/// Checksum, magic, version, length: what every version has.
const PREFIX_BYTES: usize = 16;
/// Before the meta.
const FIXED_BYTES: usize = 32;
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Length and checksum before a chunk's bytes.
const CHUNK_HEAD_BYTES: usize = 8;
/// After the head of the chunk of length 0 that ends the file: chunk count and content bytes.
const FOOTER_BYTES: usize = 16;
/// Written bytes between two syncs: a sync of the log waits behind whatever is being flushed, here
/// or at a member on the same disk, so it must never be much. With 8 MiB, one write in a hundred
/// took three times as long while a snapshot was written.
const SYNC_BYTES: u64 = 256 << 10;
/// A snapshot is given up when less is left: what is written to the log has to find room yet.
const LEFT_BYTES: u64 = 4 << 20;

/// A snapshot file that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The length of the file.
    pub bytes: u64,
}

/// The snapshots in a data directory. Clones are the same store; any thread may write or read one.
pub struct SnapshotStore<D: Disk> {
    shared: Arc<Shared<D>>,
}

struct Shared<D: Disk> {
    disk: D,
    identity: Identity,
    _lock: Arc<D::Lock>,
    /// The one that the log names. The lock is held while files are opened or removed.
    current: Mutex<Option<SnapshotInfo>>,
    /// Received and not yet loaded, oldest first.
    received: Mutex<VecDeque<SnapshotReader<D>>>,
    /// For temporary names.
    counter: AtomicU64,
}

impl<D: Disk> Clone for SnapshotStore<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Disk> SnapshotStore<D> {
    /// The store of a log that begins after `base`, whose file must be there unless `base` is the
    /// beginning of all.
    pub(super) fn open(
        disk: &D,
        identity: Identity,
        base: &SnapshotMeta,
        lock: Arc<D::Lock>,
    ) -> Result<Self, Error> {
        let store = Self {
            shared: Arc::new(Shared {
                disk: disk.clone(),
                identity,
                _lock: lock,
                current: Mutex::new(None),
                received: Mutex::new(VecDeque::new()),
                counter: AtomicU64::new(0),
            }),
        };
        if base.last.index.0 > 0 {
            let info = store.reader(&file_name(base.last))?.info;
            if info.meta != *base {
                let path = disk.path(&file_name(base.last));
                return Err(Error::corrupt(
                    path,
                    0,
                    "the snapshot is not the one that the log names",
                ));
            }
            *store.current() = Some(info);
        }
        Ok(store)
    }

    /// The snapshot that the log names.
    pub fn latest(&self) -> Option<SnapshotInfo> {
        self.current().clone()
    }

    /// Begins the file of the snapshot `meta`. Several may be written at the same time.
    pub fn create(&self, meta: &SnapshotMeta) -> Result<SnapshotWriter<D>, Error> {
        let disk = &self.shared.disk;
        let number = self.shared.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{TEMPORARY}{number}", file_name(meta.last));
        let file = disk.open(&name, Access::Create).context("create", || disk.path(&name))?;
        let header = encode_header(self.shared.identity, meta);
        let mut writer = SnapshotWriter {
            store: self.clone(),
            meta: meta.clone(),
            name: Some(name),
            file,
            bytes: 0,
            synced_bytes: 0,
            link: u32::from_le_bytes(header[..4].try_into().expect("four bytes")),
            chunks: 0,
            content_bytes: 0,
            buffer: vec![0; CHUNK_HEAD_BYTES],
        };
        writer.write_out(&header)?;
        Ok(writer)
    }

    /// Opens the snapshot that the log names, for loading or sending. It stays readable when a
    /// newer one takes its place.
    pub fn read(&self) -> Result<Option<SnapshotReader<D>>, Error> {
        match &*self.current() {
            Some(info) => self.reader(&file_name(info.meta.last)).map(Some),
            None => Ok(None),
        }
    }

    /// The finished snapshot `meta`, whether or not the log names it yet.
    pub fn finished(&self, meta: &SnapshotMeta) -> Result<SnapshotInfo, Error> {
        let name = file_name(meta.last);
        let reader = self.reader(&name)?;
        if reader.info.meta != *meta {
            let path = self.shared.disk.path(&name);
            return Err(Error::corrupt(path, 0, "the snapshot is of another membership"));
        }
        Ok(reader.info)
    }

    /// The log names `info` now, durably: it is the latest, and older ones go.
    pub fn adopt(&self, info: SnapshotInfo) -> Result<(), Error> {
        let mut current = self.current();
        let newer = current.as_ref().is_some_and(|now| now.meta.last.index > info.meta.last.index);
        if newer && !mutant(Mutant::StaleSnapshotAdopted) {
            mark(Mark::LateSnapshotIgnored);
            return Ok(());
        }
        if current.is_some() {
            mark(Mark::SnapshotReplaced);
        }
        let index = info.meta.last.index;
        let kept = info.meta.last;
        *current = Some(info);
        self.remove_where(|last| last != kept && last.index <= index)
    }

    /// As [`adopt`](Self::adopt), for a snapshot that another member sent: it is opened now, to be
    /// loaded in its turn. By then a newer one may have taken its place, and its name.
    pub fn adopt_received(&self, info: SnapshotInfo) -> Result<(), Error> {
        let reader = self.reader(&file_name(info.meta.last))?;
        let mut received = self.received();
        if !received.is_empty() {
            mark(Mark::SnapshotOvertaken);
        }
        received.push_back(reader);
        drop(received);
        self.adopt(info)
    }

    /// The oldest received snapshot that was not taken yet.
    pub fn take_received(&self) -> Option<SnapshotReader<D>> {
        self.received().pop_front()
    }

    /// Removes everything but the current snapshot: at start, nothing else can be of use.
    pub(super) fn remove_leftovers(&self) -> Result<(), Error> {
        let current = self.current();
        let kept = current.as_ref().map(|info| info.meta.last);
        let disk = &self.shared.disk;
        for name in disk.list().context("list", || disk.path(""))? {
            if name.starts_with(PREFIX) && name.contains(TEMPORARY) {
                disk.remove(&name).context("remove", || disk.path(&name))?;
            }
        }
        self.remove_where(|last| Some(last) != kept)
    }

    fn remove_where(&self, needless: impl Fn(EntryId) -> bool) -> Result<(), Error> {
        let disk = &self.shared.disk;
        for name in disk.list().context("list", || disk.path(""))? {
            if parse_file_name(&name).is_some_and(&needless) {
                disk.remove(&name).context("remove", || disk.path(&name))?;
            }
        }
        disk.sync_dir().context("sync the directory", || disk.path(""))
    }

    fn reader(&self, name: &str) -> Result<SnapshotReader<D>, Error> {
        let disk = &self.shared.disk;
        let path = disk.path(name);
        let file = disk.open(name, Access::Read).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                return Error::corrupt(
                    path.clone(),
                    0,
                    "the snapshot that the log names is missing",
                );
            }
            Error::Io { path: path.clone(), op: "open", source }
        })?;
        let bytes = file.len_bytes().context("read", || path.clone())?;
        let (meta, found, header) = read_header(&file, bytes, &path)?;
        self.shared.identity.check(disk, name, found)?;
        Ok(SnapshotReader {
            path,
            file,
            info: SnapshotInfo { meta, bytes },
            at_bytes: header.len() as u64,
            link: u32::from_le_bytes(header[..4].try_into().expect("four bytes")),
            chunks: 0,
            content_bytes: 0,
            ended: false,
        })
    }

    fn current(&self) -> MutexGuard<'_, Option<SnapshotInfo>> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self) -> MutexGuard<'_, VecDeque<SnapshotReader<D>>> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PREFIX: &str = "snapshot-";
const TEMPORARY: &str = ".tmp-";

/// The name of the snapshot up to `last`.
pub(super) fn file_name(last: EntryId) -> String {
    format!("{PREFIX}{:020}-{:010}", last.index.0, last.term.0)
}

/// What the snapshot of that name covers.
pub(super) fn parse_file_name(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let last = EntryId {
        index: crate::raft::types::Index(number(index)?),
        term: crate::raft::types::Term(number(term)?),
    };
    (file_name(last) == name).then_some(last)
}

fn encode_header(identity: Identity, meta: &SnapshotMeta) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&[0; 2]);
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&identity.cluster_id.to_le_bytes());
    header.extend_from_slice(&identity.node_id.get().to_le_bytes());
    record::put_meta(&mut header, meta);
    let bytes = u32::try_from(header.len()).expect("a configuration is small");
    header[12..16].copy_from_slice(&bytes.to_le_bytes());
    let crc = crc32c::crc32c(&header[4..]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    header
}

fn read_header(
    file: &impl DiskFile,
    file_bytes: u64,
    path: &Path,
) -> Result<(SnapshotMeta, Identity, Vec<u8>), Error> {
    let damaged = |what| Error::corrupt(path.to_path_buf(), 0, what);
    let mut header = vec![0; PREFIX_BYTES];
    let count = file.read_at(&mut header, 0).context("read", || path.to_path_buf())?;
    let bytes = u32::from_le_bytes(header[12..16].try_into().expect("four bytes")) as usize;
    let plausible = (FIXED_BYTES..=HEADER_BYTES_MAX).contains(&bytes) && bytes as u64 <= file_bytes;
    if count < PREFIX_BYTES || header[4..8] != MAGIC || !plausible {
        return Err(damaged("this is not a snapshot"));
    }
    header.resize(bytes, 0);
    let count = file.read_at(&mut header, 0).context("read", || path.to_path_buf())?;
    if count < bytes || header[..4] != crc32c::crc32c(&header[4..]).to_le_bytes() {
        return Err(damaged("the header's checksum differs"));
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        let (found, supported) = (version.into(), VERSION.into());
        return Err(Error::Version { path: path.to_path_buf(), found, supported });
    }
    let cluster_id = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
    let node_id = u64::from_le_bytes(header[24..32].try_into().expect("eight bytes"));
    let node_id = crate::raft::types::NodeId::new(node_id);
    let node_id = node_id.ok_or_else(|| damaged("the header names no node"))?;
    let mut fields = RecordReader::new(Bytes::copy_from_slice(&header[FIXED_BYTES..]));
    let meta = fields.meta().map_err(damaged)?;
    if fields.at() != bytes - FIXED_BYTES {
        return Err(damaged("the header is longer than its content"));
    }
    Ok((meta, Identity { cluster_id, node_id }, header))
}

/// The checksum of a chunk, which covers the one before it.
fn chunk_link(previous: u32, length: u32, bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&previous.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
    crc32c::crc32c_append(crc, bytes)
}

/// A snapshot on its way to the disk. Dropped before [`finish`](Self::finish), it leaves nothing.
/// An error here concerns this file alone: the caller may give it up and go on.
pub struct SnapshotWriter<D: Disk> {
    store: SnapshotStore<D>,
    meta: SnapshotMeta,
    /// The temporary name; `None` once it was renamed.
    name: Option<String>,
    file: D::File,
    bytes: u64,
    synced_bytes: u64,
    link: u32,
    chunks: u64,
    content_bytes: u64,
    /// The head and content of the next chunk.
    buffer: Vec<u8>,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Adds content, in pieces of any size.
    pub fn write(&mut self, mut content: &[u8]) -> Result<(), Error> {
        while !content.is_empty() {
            let room = CHUNK_HEAD_BYTES + CHUNK_BYTES - self.buffer.len();
            let (now, later) = content.split_at(room.min(content.len()));
            self.buffer.extend_from_slice(now);
            content = later;
            if now.len() == room {
                self.write_chunk()?;
            }
        }
        Ok(())
    }

    /// Makes the snapshot whole and durable, under its name. The log does not name it yet.
    pub fn finish(mut self) -> Result<SnapshotInfo, Error> {
        if self.buffer.len() > CHUNK_HEAD_BYTES {
            self.write_chunk()?;
        }
        let mut totals = self.chunks.to_le_bytes().to_vec();
        totals.extend_from_slice(&self.content_bytes.to_le_bytes());
        let mut footer = 0_u32.to_le_bytes().to_vec();
        footer.extend_from_slice(&chunk_link(self.link, 0, &totals).to_le_bytes());
        footer.extend_from_slice(&totals);
        self.write_out(&footer)?;

        let disk = &self.store.shared.disk;
        let temporary = self.name.as_deref().expect("a writer has a name until it is finished");
        if !mutant(Mutant::SnapshotUnsynced) {
            self.file.sync_data().context("sync", || disk.path(temporary))?;
        }
        disk.rename(temporary, &file_name(self.meta.last))
            .context("rename", || disk.path(temporary))?;
        self.name = None;
        let disk = &self.store.shared.disk;
        if !mutant(Mutant::SnapshotNameUnsynced) {
            disk.sync_dir().context("sync the directory", || disk.path(""))?;
        }
        Ok(SnapshotInfo { meta: self.meta.clone(), bytes: self.bytes })
    }

    fn write_chunk(&mut self) -> Result<(), Error> {
        let length = (self.buffer.len() - CHUNK_HEAD_BYTES) as u32;
        self.link = chunk_link(self.link, length, &self.buffer[CHUNK_HEAD_BYTES..]);
        self.buffer[..4].copy_from_slice(&length.to_le_bytes());
        self.buffer[4..8].copy_from_slice(&self.link.to_le_bytes());
        self.chunks += 1;
        self.content_bytes += u64::from(length);
        let chunk = std::mem::take(&mut self.buffer);
        self.write_out(&chunk)?;
        self.buffer = chunk;
        self.buffer.truncate(CHUNK_HEAD_BYTES);
        Ok(())
    }

    fn write_out(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let path = || self.store.shared.disk.path(self.name.as_deref().unwrap_or_default());
        self.file.write_at(bytes, self.bytes).context("write", path)?;
        self.bytes += bytes.len() as u64;
        if self.bytes - self.synced_bytes >= SYNC_BYTES {
            self.file.sync_data().context("sync", path)?;
            self.synced_bytes = self.bytes;
            let free_bytes = self.store.shared.disk.free_bytes();
            if free_bytes.context("ask for the room left for", path)? < LEFT_BYTES {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(Error::NoRoom { path: path(), source });
            }
        }
        Ok(())
    }
}

impl<D: Disk> Drop for SnapshotWriter<D> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            mark(Mark::SnapshotAbandoned);
            // If this fails the next start removes it.
            self.store.shared.disk.remove(name).ok();
        }
    }
}

/// Reads a snapshot, checking every byte before handing it out.
pub struct SnapshotReader<D: Disk> {
    path: PathBuf,
    file: D::File,
    info: SnapshotInfo,
    at_bytes: u64,
    link: u32,
    chunks: u64,
    content_bytes: u64,
    ended: bool,
}

impl<D: Disk> SnapshotReader<D> {
    /// What is being read.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// The next chunk of the content, at most [`CHUNK_BYTES`]; `None` at the end, which has been
    /// checked too: only then is the snapshot known to be whole.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0; CHUNK_HEAD_BYTES];
        self.read_exact(&mut head, 0)?;
        let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
        let link = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
        if length as usize > CHUNK_BYTES {
            return Err(self.corrupt("a chunk is too long"));
        }
        let end = length == 0;
        let mut bytes = vec![0; if end { FOOTER_BYTES } else { length as usize }];
        self.read_exact(&mut bytes, CHUNK_HEAD_BYTES as u64)?;
        if link != chunk_link(self.link, length, &bytes) {
            return Err(self.corrupt("a chunk's checksum differs"));
        }
        if end {
            return self.end(&bytes);
        }
        self.link = link;
        self.chunks += 1;
        self.content_bytes += u64::from(length);
        self.at_bytes += (CHUNK_HEAD_BYTES + bytes.len()) as u64;
        Ok(Some(Bytes::from(bytes)))
    }

    fn end(&mut self, totals: &[u8]) -> Result<Option<Bytes>, Error> {
        let mut expected = self.chunks.to_le_bytes().to_vec();
        expected.extend_from_slice(&self.content_bytes.to_le_bytes());
        if totals != expected {
            return Err(self.corrupt("the totals differ"));
        }
        if self.at_bytes + (CHUNK_HEAD_BYTES + FOOTER_BYTES) as u64 != self.info.bytes {
            return Err(self.corrupt("the file goes on after its end"));
        }
        self.ended = true;
        Ok(None)
    }

    fn read_exact(&self, buffer: &mut [u8], after_bytes: u64) -> Result<(), Error> {
        let at = self.at_bytes + after_bytes;
        let count = self.file.read_at(buffer, at).context("read", || self.path.clone())?;
        if count < buffer.len() {
            return Err(self.corrupt("the file ends early"));
        }
        Ok(())
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::corrupt(self.path.clone(), self.at_bytes, what)
    }
}
