//! The write-ahead log: what a member must not forget, in the order in which it came to be.
//!
//! One [`append`](Wal::append) is one group of records and one write; [`sync`](Wal::sync) makes
//! all appends before it durable (group commit). Segments are blank files made ahead of need; when
//! one is full the next is begun, and those that a snapshot covers are recycled
//! ([`release`](Wal::release)). `docs/wal.md` has every byte and every promise.
//!
//! On a disk that is full the log goes on in a file kept for that, the *reserve*: deletions, votes
//! and what makes room again still get through. When that is full too, an append fails with
//! [`Error::NoRoom`] before anything is written, and may be tried again.
//!
//! Deliberately absent: reading. The log is read once, by [`Recovery`](super::Recovery), and what
//! the core needs later it keeps in memory. Also absent: a second try after any other error. After
//! a failed write or sync nobody knows what the disk holds, so the log is *poisoned* and the
//! process must end.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use crate::raft::types::{Entry, EntryId, HardState, Index, SnapshotMeta};
use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::disk::{Disk, DiskFile};
use super::error::{Context, Error};
use super::frame::{self, HEADER_BYTES, Place, SECTOR_BYTES};
use super::identity::Identity;
use super::record::{self, LogRecord, Start};
use super::segment;
use super::spare::{Spare, SpareJob};
use super::state::{LogState, Volume};

/// The reserve is so many times as long as the shortest segment.
const RESERVE_URGENT_SEGMENTS: u64 = 4;

/// A group that holds a hard state and nothing else.
const VOUCHER_BYTES: u64 = 128;

/// Sizes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The length of a segment made ahead of need. A multiple of 512.
    pub segment_bytes: u64,
    /// The least length of a segment made on the spot: the first, and any that is needed before
    /// its spare is ready. Small, for an append waits for it. A multiple of 512.
    pub urgent_segment_bytes: u64,
    /// How many released segments are kept to be used again.
    pub recycled_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, urgent_segment_bytes: 4 << 20, recycled_max: 2 }
    }
}

impl Options {
    /// Sizes for a file system of `total_bytes`: a segment takes at most a sixteenth of it, since
    /// several are there at a time, and only whole ones are given back.
    pub fn for_disk(total_bytes: u64) -> Self {
        let sizes = Self::default();
        let part_bytes = (total_bytes / 16).next_multiple_of(1 << 20);
        let segment_bytes = part_bytes.clamp(sizes.urgent_segment_bytes, sizes.segment_bytes);
        Self { segment_bytes, ..sizes }
    }

    /// The length of the reserve.
    pub fn reserve_bytes(&self) -> u64 {
        RESERVE_URGENT_SEGMENTS * self.urgent_segment_bytes
    }

    pub(super) fn check(&self) {
        for bytes in [self.segment_bytes, self.urgent_segment_bytes] {
            let whole_sectors = bytes.is_multiple_of(SECTOR_BYTES as u64);
            assert!(whole_sectors && bytes >= 2048, "a segment is at least four whole sectors");
        }
    }
}

/// The log, open for appending. Dropping it gives up the directory.
pub struct Wal<D: Disk> {
    pub(super) disk: D,
    pub(super) options: Options,
    pub(super) identity: Identity,
    pub(super) _lock: Arc<D::Lock>,
    pub(super) state: LogState,
    pub(super) volume: Volume,
    pub(super) active: Active<D>,
    /// Full segments, oldest first.
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) spares: Spares<D>,
    /// The group being built.
    pub(super) buffer: Vec<u8>,
    pub(super) poisoned: bool,
}

/// The segment that is written to.
pub(super) struct Active<D: Disk> {
    pub file: D::File,
    pub file_bytes: u64,
    /// Where the next group goes.
    pub place: Place,
    /// Below this a sync succeeded.
    pub durable_bytes: u64,
    /// Below this a written group says so.
    pub vouched_bytes: u64,
    /// The end of the last group that holds more than such a voucher.
    pub content_bytes: u64,
}

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub number: u64,
    /// The last entry of the log when the segment was full.
    pub last: Index,
    pub file_bytes: u64,
}

/// The supply of blank files.
pub(super) struct Spares<D: Disk> {
    pub ready: Option<Spare<D>>,
    /// For want of any other.
    pub reserve: Option<Spare<D>>,
    /// There is a file of the reserve's name.
    pub reserve_exists: bool,
    /// A job is out that will bring one of them.
    pub awaited: Option<Blank>,
    /// What is tried for first, if both are wanted.
    pub preferred: Blank,
    /// Files of segment length to be zeroed again.
    pub recyclable: Vec<String>,
    /// For names.
    pub counter: u64,
}

/// What a [`SpareJob`] is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank {
    /// The next segment.
    Next,
    /// The reserve.
    Reserve,
}

impl<D: Disk> Spares<D> {
    pub(super) fn next_name(&mut self) -> String {
        self.counter += 1;
        segment::spare_name(self.counter)
    }
}

impl<D: Disk> Wal<D> {
    /// Term, vote and commit as last appended.
    pub fn hard_state(&self) -> HardState {
        self.state.hard_state
    }

    /// What the log begins after: the snapshot that it names, or the first configuration.
    pub fn base(&self) -> &SnapshotMeta {
        &self.state.base
    }

    /// The last entry.
    pub fn last(&self) -> EntryId {
        self.state.last
    }

    /// Bytes of log after the base, to about a megabyte.
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.volume.held_bytes()
    }

    /// Writes one group: the log restarts at `snapshot` if there is one (its file is durable by
    /// now), `entries` follow, replacing from the first one's index on, and `hard_state` holds
    /// after them. Durable after the next [`sync`](Self::sync).
    ///
    /// The commit index rides along: a call that would change nothing else writes nothing.
    pub fn append(
        &mut self,
        hard_state: HardState,
        snapshot: Option<&SnapshotMeta>,
        entries: &[Entry],
    ) -> Result<(), Error> {
        self.guarded(|wal| wal.append_group(hard_state, snapshot, entries))
    }

    /// Makes everything appended durable. Nothing to do is nothing done.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.guarded(|wal| {
            wal.sync_active()?;
            wal.recycle()
        })
    }

    /// Whether a group with `payload_bytes` of entries goes into the segment that is open, so that
    /// appending it makes no file.
    pub fn has_room_for(&self, payload_bytes: usize) -> bool {
        let room = self.active.file_bytes.saturating_sub(self.active.place.offset_bytes);
        frame::group_bytes(2 * payload_bytes + HEADER_BYTES) <= room && !self.poisoned
    }

    /// Whether appends wait for a sync.
    pub fn is_dirty(&self) -> bool {
        self.active.place.offset_bytes > self.active.durable_bytes
    }

    /// Makes the snapshot `base`, whose file is durable and whose last entry is in the log, the
    /// base of the log, durably, and recycles the segments that it covers. A base older than the
    /// present one changes nothing.
    pub fn release(&mut self, base: &SnapshotMeta) -> Result<(), Error> {
        if base.last.index <= self.state.base.last.index {
            return Ok(());
        }
        assert!(base.last.index <= self.state.last.index, "a snapshot covers what was logged");
        self.guarded(|wal| {
            let covered = wal.sealed.iter().filter(|sealed| sealed.last <= base.last.index);
            let mut keep_from = covered.map(|sealed| sealed.number + 1).max();
            if mutant(Mutant::ReleaseTooMuch) {
                keep_from = wal.sealed.back().map(|sealed| sealed.number + 1);
            }
            let keep_from = keep_from.unwrap_or(0).max(wal.state.keep_from);
            wal.begin_group();
            record::put_release(&mut wal.buffer, base, keep_from);
            record::put_hard_state(&mut wal.buffer, wal.state.hard_state);
            wal.write_group()?;
            wal.active.content_bytes = wal.active.place.offset_bytes;
            wal.follow(&LogRecord::Release { base: base.clone(), keep_from });
            wal.volume.release(base.last.index);
            wal.sync_active()?;
            wal.recycle()
        })
    }

    /// Writes down, without a sync, that the last sync succeeded, if no group says so yet. Then
    /// damage to the last acknowledged group is known for what it is (`docs/wal.md`). Costs a
    /// write of 128 bytes beside the next group; to be called when no append is waiting.
    pub fn vouch(&mut self) -> Result<(), Error> {
        let active = &self.active;
        let told = active.vouched_bytes >= active.content_bytes;
        // A full segment needs none: the next one vouches for all of it.
        let room = active.place.offset_bytes + VOUCHER_BYTES <= active.file_bytes;
        if told || !room || active.durable_bytes < active.content_bytes {
            return Ok(());
        }
        self.guarded(|wal| {
            wal.begin_group();
            record::put_hard_state(&mut wal.buffer, wal.state.hard_state);
            wal.write_group().map(drop)
        })
    }

    /// The work of making the next segment or the reserve, if it is needed and not under way. To be
    /// run on another thread and answered by [`add_spare`](Self::add_spare) or
    /// [`spare_failed`](Self::spare_failed). Without it an append makes a small segment itself.
    pub fn spare_job(&mut self) -> Option<SpareJob<D>> {
        let spares = &self.spares;
        if spares.awaited.is_some() || self.poisoned {
            return None;
        }
        let wanted = match (spares.ready.is_none(), spares.reserve.is_none()) {
            (false, false) => return None,
            (true, true) => spares.preferred,
            (true, false) => Blank::Next,
            (false, true) => Blank::Reserve,
        };
        self.spares.awaited = Some(wanted);
        if wanted == Blank::Reserve {
            return Some(SpareJob {
                disk: self.disk.clone(),
                name: segment::RESERVE.to_owned(),
                reuse: self.spares.reserve_exists,
                bytes: self.options.reserve_bytes(),
                left_bytes: 0,
            });
        }
        let recycled = self.spares.recyclable.pop();
        let reuse = recycled.is_some();
        if reuse {
            mark(Mark::SpareRecycled);
        }
        let name = recycled.unwrap_or_else(|| self.spares.next_name());
        Some(SpareJob {
            disk: self.disk.clone(),
            name,
            reuse,
            bytes: self.options.segment_bytes,
            left_bytes: self.options.reserve_bytes(),
        })
    }

    /// Takes what a [`SpareJob`] made.
    pub fn add_spare(&mut self, spare: Spare<D>) {
        let reserve = spare.name == segment::RESERVE;
        self.spares.reserve_exists |= reserve;
        let place = if reserve { &mut self.spares.reserve } else { &mut self.spares.ready };
        assert!(place.is_none(), "one spare at a time is asked for");
        *place = Some(spare);
        self.spares.awaited = None;
        self.spares.preferred = Blank::Next;
    }

    /// A [`SpareJob`] failed; the next call of [`spare_job`](Self::spare_job) asks again.
    pub fn spare_failed(&mut self) {
        // If there is no room for the one, there may be for the other.
        self.spares.preferred = match self.spares.awaited.take() {
            Some(Blank::Next) => Blank::Reserve,
            Some(Blank::Reserve) => {
                // The job has removed the file.
                self.spares.reserve_exists = false;
                Blank::Next
            }
            None => self.spares.preferred,
        };
    }

    /// Whether the next segment is ready.
    pub fn has_spare(&self) -> bool {
        self.spares.ready.is_some()
    }

    /// Whether there is a reserve for when the disk is full.
    pub fn has_reserve(&self) -> bool {
        self.spares.reserve.is_some()
    }

    /// Removes the files that were kept only to be used again.
    pub fn remove_recyclable(&mut self) -> Result<(), Error> {
        if self.spares.recyclable.is_empty() {
            return Ok(());
        }
        self.guarded(|wal| {
            for name in std::mem::take(&mut wal.spares.recyclable) {
                wal.disk.remove(&name).context("remove", || wal.disk.path(&name))?;
            }
            wal.disk.sync_dir().context("sync the directory", || wal.disk.path(""))
        })
    }

    /// Runs `work`, unless something failed before; if it fails, nothing runs after, but for a
    /// failure that comes before anything is done.
    pub(super) fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.poisoned {
            return Err(Error::Poisoned { path: self.path() });
        }
        let result = work(self);
        self.poisoned = result.as_ref().is_err_and(|error| !error.may_be_tried_again());
        result
    }

    fn append_group(
        &mut self,
        hard_state: HardState,
        snapshot: Option<&SnapshotMeta>,
        entries: &[Entry],
    ) -> Result<(), Error> {
        let hard_state = self.checked_hard_state(hard_state);
        self.check_entries(snapshot, entries);
        let before = self.state.hard_state;
        let lasting = (hard_state.term, hard_state.vote) != (before.term, before.vote);
        if snapshot.is_none() && entries.is_empty() && !lasting {
            self.state.hard_state = hard_state;
            return Ok(());
        }
        self.begin_group();
        if let Some(base) = snapshot {
            record::put_snapshot(&mut self.buffer, base);
        }
        for entry in entries {
            record::put_entry(&mut self.buffer, entry);
        }
        record::put_hard_state(&mut self.buffer, hard_state);
        let group_bytes = self.write_group()?;
        self.active.content_bytes = self.active.place.offset_bytes;

        if let Some(base) = snapshot {
            self.follow(&LogRecord::Snapshot(base.clone()));
            self.volume.restart();
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            self.state.last = last.id;
            self.volume.add(Some(first.id.index), group_bytes);
        }
        self.follow(&LogRecord::HardState(hard_state));
        Ok(())
    }

    /// The rules of §5.1 that a caller must not break, and a commit that does not go back.
    fn checked_hard_state(&self, next: HardState) -> HardState {
        let before = self.state.hard_state;
        assert!(next.term >= before.term, "the term never goes back");
        let same_vote = before.vote.is_none() || before.vote == next.vote;
        assert!(next.term > before.term || same_vote, "one vote in a term");
        HardState { commit: next.commit.max(before.commit), ..next }
    }

    fn check_entries(&self, snapshot: Option<&SnapshotMeta>, entries: &[Entry]) {
        let (base, last) = match snapshot {
            Some(base) => (base.last.index, base.last.index),
            None => (self.state.base.last.index, self.state.last.index),
        };
        assert!(base >= self.state.base.last.index, "the log never goes back behind a snapshot");
        let Some(first) = entries.first() else { return };
        let fits = first.id.index > base && first.id.index <= last.next();
        assert!(fits, "entries continue the log, or replace its end");
        let consecutive =
            entries.windows(2).all(|pair| pair[1].id.index == pair[0].id.index.next());
        assert!(consecutive, "a batch is consecutive");
    }

    fn follow(&mut self, record: &LogRecord) {
        self.state
            .apply(record, self.active.place.segment)
            .expect("what was checked before the write is believed after it");
    }

    fn begin_group(&mut self) {
        self.buffer.clear();
        self.buffer.resize(HEADER_BYTES, 0);
    }

    /// Writes the group in the buffer, in a new segment if this one is too full.
    fn write_group(&mut self) -> Result<u64, Error> {
        let group_bytes = frame::group_bytes(self.buffer.len() - HEADER_BYTES);
        if self.active.place.offset_bytes + group_bytes > self.active.file_bytes {
            self.roll(group_bytes)?;
        }
        let active = &mut self.active;
        let link = frame::seal(&mut self.buffer, active.place, active.durable_bytes);
        active
            .file
            .write_at(&self.buffer, active.place.offset_bytes)
            .context("write", || self.disk.path(&segment::name(active.place.segment)))?;
        active.vouched_bytes = active.durable_bytes;
        active.place.offset_bytes += group_bytes;
        active.place.previous = link;
        Ok(group_bytes)
    }

    /// Seals the active segment, all of it durable, and begins the next.
    fn roll(&mut self, group_bytes: u64) -> Result<(), Error> {
        let start = self.state.start(self.identity, self.active.place.offset_bytes);
        let room_bytes = group_bytes + frame::group_bytes(start_group(&start).len() - HEADER_BYTES);
        // Before anything else: if there is none, nothing has been done.
        let blank = self.next_segment(room_bytes)?;
        mark(Mark::SegmentRolled);
        self.sync_active()?;
        self.sealed.push_back(Sealed {
            number: self.active.place.segment,
            last: self.state.last.index,
            file_bytes: self.active.file_bytes,
        });
        let place = Place {
            segment: self.active.place.segment + 1,
            offset_bytes: 0,
            previous: self.active.place.previous,
        };
        self.active = begin_segment(&self.disk, blank, place, start)?;
        Ok(())
    }

    fn next_segment(&mut self, room_bytes: u64) -> Result<Spare<D>, Error> {
        let fits = |spare: &mut Spare<D>| spare.bytes >= room_bytes;
        if let Some(spare) = self.spares.ready.take_if(fits) {
            return Ok(spare);
        }
        match self.urgent_spare(room_bytes) {
            Err(error @ Error::NoRoom { .. }) => {
                let reserve = self.spares.reserve.take_if(fits).ok_or(error)?;
                mark(Mark::ReserveUsed);
                self.spares.reserve_exists = false;
                Ok(reserve)
            }
            made => made,
        }
    }

    fn urgent_spare(&mut self, room_bytes: u64) -> Result<Spare<D>, Error> {
        mark(Mark::UrgentSegment);
        let bytes = room_bytes.next_multiple_of(SECTOR_BYTES as u64);
        let bytes = bytes.max(self.options.urgent_segment_bytes);
        let name = self.spares.next_name();
        let disk = self.disk.clone();
        SpareJob { disk, name, reuse: false, bytes, left_bytes: 0 }.run()
    }

    fn sync_active(&mut self) -> Result<(), Error> {
        if !self.is_dirty() {
            return Ok(());
        }
        if !mutant(Mutant::WalSyncSkipped) {
            let mut synced = self.active.file.sync_data();
            if synced.is_err() && mutant(Mutant::SyncRetried) {
                synced = self.active.file.sync_data();
            }
            synced.context("sync", || self.path())?;
        }
        self.active.durable_bytes = self.active.place.offset_bytes;
        Ok(())
    }

    /// Takes the names from segments that the durable log does not need.
    fn recycle(&mut self) -> Result<(), Error> {
        let needless = |sealed: &Sealed| sealed.number < self.state.keep_from;
        let count = self.sealed.iter().take_while(|sealed| needless(sealed)).count();
        if count == 0 {
            return Ok(());
        }
        assert!(!self.is_dirty(), "what releases a segment is durable first");
        let files: Vec<_> = self
            .sealed
            .drain(..count)
            .map(|sealed| (segment::name(sealed.number), sealed.file_bytes))
            .collect();
        recycle_files(&self.disk, &self.options, &mut self.spares, files)
    }

    fn path(&self) -> PathBuf {
        self.disk.path(&segment::name(self.active.place.segment))
    }
}

/// Keeps some of `files` as raw material for spares and removes the others, durably.
pub(super) fn recycle_files<D: Disk>(
    disk: &D,
    options: &Options,
    spares: &mut Spares<D>,
    files: Vec<(String, u64)>,
) -> Result<(), Error> {
    for (name, file_bytes) in files {
        let fits = file_bytes == options.segment_bytes;
        if fits && spares.recyclable.len() < options.recycled_max {
            let spare = spares.next_name();
            disk.rename(&name, &spare).context("rename", || disk.path(&name))?;
            spares.recyclable.push(spare);
        } else {
            disk.remove(&name).context("remove", || disk.path(&name))?;
        }
    }
    // Before a recycled file is zeroed its new name is durable: a segment's name never comes back
    // over bytes that are not a segment's.
    disk.sync_dir().context("sync the directory", || disk.path(""))
}

/// Makes `spare` the segment at `place` and writes its first group, which waits for the next sync.
pub(super) fn begin_segment<D: Disk>(
    disk: &D,
    spare: Spare<D>,
    place: Place,
    start: Start,
) -> Result<Active<D>, Error> {
    assert_eq!(place.offset_bytes, 0, "a segment begins at its beginning");
    let name = segment::name(place.segment);
    disk.rename(&spare.name, &name).context("rename", || disk.path(&spare.name))?;
    if !mutant(Mutant::SegmentNameUnsynced) {
        disk.sync_dir().context("sync the directory", || disk.path(""))?;
    }
    let mut group = start_group(&Start { segment_bytes: spare.bytes, ..start });
    let link = frame::seal(&mut group, place, 0);
    assert!(group.len() as u64 <= spare.bytes, "a segment has room for its beginning");
    spare.file.write_at(&group, 0).context("write", || disk.path(&name))?;
    let end_bytes = group.len() as u64;
    Ok(Active {
        file: spare.file,
        file_bytes: spare.bytes,
        place: Place { offset_bytes: end_bytes, previous: link, ..place },
        durable_bytes: 0,
        vouched_bytes: 0,
        content_bytes: end_bytes,
    })
}

/// The first group of a segment, not yet sealed.
fn start_group(start: &Start) -> Vec<u8> {
    let mut group = vec![0; HEADER_BYTES];
    record::put_start(&mut group, start);
    group
}
