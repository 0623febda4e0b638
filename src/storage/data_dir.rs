//! The data directory as a whole, and the order in which a member comes back to life:
//! lock, identity, log, snapshot, records.
//!
//! ```text
//! let opening = storage::open(&disk, Options::default(), identity, &first_members)?;
//! if let Some(mut snapshot) = opening.read_snapshot()? { /* load the machine from its chunks */ }
//! let DataDir { wal, snapshots } = opening.replay(|record| …)?;
//! ```

use std::sync::Arc;

use crate::raft::types::{Configuration, EntryId, HardState, SnapshotMeta};
use crate::testpoints::{Mark, mark};

use super::disk::{Disk, DiskFile};
use super::error::{Context, Error};
use super::frame::Place;
use super::identity::{self, Identity};
use super::recovery::{Record, Recovery};
use super::restart_count;
use super::segment::{self, GroupReader, Next};
use super::snapshot::{self, SnapshotInfo, SnapshotReader, SnapshotStore};
use super::spare::SpareJob;
use super::state::LogState;
use super::wal::{self, Options, Wal};

const LOCK: &str = "lock";

/// A data directory, open and consistent. The directory stays locked until both parts, and all
/// clones of the store, are gone.
pub struct DataDir<D: Disk> {
    /// The log.
    pub wal: Wal<D>,
    /// The snapshots.
    pub snapshots: SnapshotStore<D>,
}

/// A data directory that was locked and looked over; the log is not replayed yet.
pub struct OpenedDataDir<D: Disk> {
    recovery: Recovery<D>,
    snapshots: SnapshotStore<D>,
    formed: bool,
    restarts: u64,
}

/// Opens the data directory of `identity`. An empty one is formed: `first` is then the membership
/// that its log begins with; otherwise the log knows better, and `first` is ignored.
pub fn open<D: Disk>(
    disk: &D,
    options: Options,
    identity: Identity,
    first: &Configuration,
) -> Result<OpenedDataDir<D>, Error> {
    options.check();
    let directory = || disk.path("");
    let lock = disk.lock(LOCK).context("lock", || disk.path(LOCK))?;
    let lock = Arc::new(lock.ok_or_else(|| Error::Locked { path: directory() })?);
    let found = identity::read(disk)?;
    if let Some(found) = found {
        identity.check(disk, identity::FILE, found)?;
    } else {
        form(disk, options, identity, first)?;
    }
    let recovery = Recovery::open(disk, options, identity, Arc::clone(&lock))?
        .ok_or_else(|| Error::corrupt(directory(), 0, "the log is missing"))?;
    let snapshots = SnapshotStore::open(disk, identity, recovery.base(), lock)?;
    let restarts = restart_count::count(disk).or_else(|error| {
        // It takes a few bytes, and without a start nothing can be deleted.
        let freed = || disk.remove(segment::RESERVE).and_then(|()| disk.sync_dir());
        if error.is_full() && freed().is_ok() { restart_count::count(disk) } else { Err(error) }
    })?;
    Ok(OpenedDataDir { recovery, snapshots, formed: found.is_none(), restarts })
}

impl<D: Disk> OpenedDataDir<D> {
    /// Whether this is the member's first start.
    pub fn is_first_start(&self) -> bool {
        self.formed
    }

    /// Which opening of the directory this is: 1 for the first, never the same twice.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Term, vote and commit as of the end of the log.
    pub fn hard_state(&self) -> HardState {
        self.recovery.hard_state()
    }

    /// What the log begins after: a snapshot, or index 0 and the first membership.
    pub fn base(&self) -> &SnapshotMeta {
        self.recovery.base()
    }

    /// The last entry of the log.
    pub fn last(&self) -> EntryId {
        self.recovery.last()
    }

    /// The snapshot at the base; `None` if the base is the beginning of all.
    pub fn snapshot(&self) -> Option<SnapshotInfo> {
        self.snapshots.latest()
    }

    /// Opens that snapshot. To be loaded before the records are applied.
    pub fn read_snapshot(&self) -> Result<Option<SnapshotReader<D>>, Error> {
        self.snapshots.read()
    }

    /// Hands every record after the base to `visit`, in order, then cuts a torn tail, removes
    /// leftovers, and gives the directory over.
    pub fn replay<E: From<Error>>(
        self,
        visit: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<DataDir<D>, E> {
        let wal = self.recovery.replay(visit)?;
        self.snapshots.remove_leftovers()?;
        Ok(DataDir { wal, snapshots: self.snapshots })
    }
}

/// Makes an empty directory that of `identity`. The identity file comes last: until it is durable
/// the next start forms the directory anew.
fn form<D: Disk>(
    disk: &D,
    options: Options,
    identity: Identity,
    first: &Configuration,
) -> Result<(), Error> {
    let names = disk.list().context("list", || disk.path(""))?;
    if names.iter().any(|name| name != LOCK) {
        mark(Mark::FormedAnew);
    }
    for name in &names {
        let unformed = match segment::parse_name(name) {
            Some(number) => is_unformed(disk, number)?,
            None => snapshot::parse_file_name(name).is_none(),
        };
        if !unformed {
            let what = format!("the identity is missing, but {name} is here");
            return Err(Error::corrupt(disk.path(identity::FILE), 0, what));
        }
    }
    let ours = |name: &&String| {
        segment::parse_name(name).is_some() || segment::parse_spare_name(name).is_some()
    };
    for name in names.iter().filter(ours) {
        disk.remove(name).context("remove", || disk.path(name))?;
    }
    let state = LogState {
        hard_state: HardState::default(),
        base: SnapshotMeta { last: EntryId::default(), config: first.clone() },
        last: EntryId::default(),
        keep_from: 1,
    };
    let name = segment::spare_name(1);
    let bytes = options.urgent_segment_bytes;
    let spare = SpareJob { disk: disk.clone(), name, reuse: false, bytes, left_bytes: 0 }.run()?;
    let place = Place { segment: 1, offset_bytes: 0, previous: 0 };
    let active = wal::begin_segment(disk, spare, place, state.start(identity, 0))?;
    active.file.sync_data().context("sync", || disk.path(&segment::name(1)))?;
    identity::write(disk, identity)
}

/// Whether segment `number` is what a first start leaves when it is cut short: at most its
/// beginning, and nothing after.
fn is_unformed<D: Disk>(disk: &D, number: u64) -> Result<bool, Error> {
    let mut reader = GroupReader::open(disk, number)?;
    let begun = matches!(reader.next()?, Next::Group(_));
    if begun && matches!(reader.next()?, Next::Group(_)) {
        return Ok(false);
    }
    let remains = reader.examine_rest()?;
    Ok(number == 1 && !(begun && remains))
}
