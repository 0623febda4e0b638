//! Reads the log back: finds its end, judges damage, and hands out what it says.
//!
//! Two passes. Opening reads the beginnings of the segments and all of the last one: that gives
//! the base, the hard state and the end. [`Recovery::replay`] then streams the segments that are
//! needed, in order, through one block of memory, and cuts a torn tail.
//!
//! What may be cut is only what cannot have been acknowledged: the last segment's end, where a
//! sector is blank that no write left blank, with nothing after it that vouches for more.
//! Everything else is reported as damage (`docs/wal.md` has the full reasoning).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::raft::types::{Entry, EntryId, HardState, Index, SnapshotMeta};
use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::disk::{Access, Disk, DiskFile};
use super::error::{Context, Error};
use super::frame::Place;
use super::identity::Identity;
use super::record::{LogRecord, RecordReader, Start};
use super::segment::{self, GroupReader, Next};
use super::spare;
use super::state::{LogState, Volume};
use super::wal::{self, Active, Blank, Options, Sealed, Spares, Wal};

/// What the log says, in the order in which it was said. Entries at or below the base are left
/// out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The entry, and nothing after it: at or below the previous one's index it replaces the tail
    /// from there on.
    Entry(Entry),
    /// Term, vote and commit as of now. Entries handed out up to `commit` stay.
    HardState(HardState),
    /// None of the entries handed out so far are in the log.
    Restart,
}

/// A log that was found, looked over, and not yet replayed.
pub struct Recovery<D: Disk> {
    disk: D,
    options: Options,
    identity: Identity,
    lock: Arc<D::Lock>,
    /// As of the end of the log.
    state: LogState,
    /// The beginnings of the needed segments, the last one's included.
    starts: Vec<Start>,
    /// The end of the log.
    end: Place,
    /// Whether unacknowledged remains lie after the end.
    torn: bool,
    vouched_bytes: u64,
    content_bytes: u64,
    /// Segments that were released, or never begun.
    leftovers: Vec<u64>,
    spare_names: Vec<String>,
    reserve_exists: bool,
}

impl<D: Disk> Recovery<D> {
    /// Finds the log of `identity`; `None` if the directory holds no segment at all.
    pub(super) fn open(
        disk: &D,
        options: Options,
        identity: Identity,
        lock: Arc<D::Lock>,
    ) -> Result<Option<Self>, Error> {
        options.check();
        let names = disk.list().context("list", || disk.path(""))?;
        let mut numbers: Vec<u64> =
            names.iter().filter_map(|name| segment::parse_name(name)).collect();
        numbers.sort_unstable();
        let Some(newest) = numbers.last().copied() else {
            return Ok(None);
        };

        let (active, mut leftovers) = find_active(disk, newest, &numbers)?;
        let ActiveScan { start, state, end, torn, vouched_bytes, content_bytes } =
            scan_active(disk, active, identity)?;
        leftovers.extend(numbers.iter().filter(|number| **number < state.keep_from));
        let mut starts = Vec::new();
        for number in state.keep_from..active {
            starts.push(read_start(disk, number, identity)?);
        }
        starts.push(start);
        Ok(Some(Self {
            disk: disk.clone(),
            options,
            identity,
            lock,
            state,
            starts,
            end,
            torn,
            vouched_bytes,
            content_bytes,
            leftovers,
            reserve_exists: names.iter().any(|name| name == segment::RESERVE),
            spare_names: names
                .into_iter()
                .filter(|name| segment::parse_spare_name(name).is_some())
                .collect(),
        }))
    }

    /// Term, vote and commit as of the end.
    pub fn hard_state(&self) -> HardState {
        self.state.hard_state
    }

    /// What the log begins after.
    pub fn base(&self) -> &SnapshotMeta {
        &self.state.base
    }

    /// The last entry.
    pub fn last(&self) -> EntryId {
        self.state.last
    }

    /// Hands every record to `visit`, in order, then readies the log for appending: cuts what was
    /// torn and makes durable what was found.
    pub fn replay<E: From<Error>>(
        self,
        visit: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<Wal<D>, E> {
        let mut replay = Replay {
            base: self.state.base.last.index,
            handed_out: self.state.base.last.index,
            state: LogState::of_start(&self.starts[0]),
            volume: Volume::default(),
            visit,
        };
        let mut sealed = VecDeque::new();
        let mut previous: Option<Place> = None;
        for (at, start) in self.starts.iter().enumerate() {
            let number = self.state.keep_from + at as u64;
            let mut reader = GroupReader::open(&self.disk, number)?;
            let expected_end_bytes = match self.starts.get(at + 1) {
                Some(next) => next.previous_end_bytes,
                None => self.end.offset_bytes,
            };
            replay.segment(&mut reader, start, previous, expected_end_bytes)?;
            previous = Some(reader.place());
            if number < self.end.segment {
                sealed.push_back(Sealed {
                    number,
                    last: replay.state.last.index,
                    file_bytes: start.segment_bytes,
                });
            }
        }
        let handed_out = replay.handed_out == self.state.last.index;
        if replay.state != self.state || previous != Some(self.end) || !handed_out {
            let path = self.disk.path(&segment::name(self.end.segment));
            let what = "the log reads otherwise than a moment ago";
            return Err(Error::corrupt(path, self.end.offset_bytes, what).into());
        }
        let Replay { mut volume, .. } = replay;
        volume.release(self.state.base.last.index);
        Ok(self.finish(sealed, volume)?)
    }

    /// Makes the log ready for appending.
    fn finish(self, sealed: VecDeque<Sealed>, volume: Volume) -> Result<Wal<D>, Error> {
        let name = segment::name(self.end.segment);
        let path = || self.disk.path(&name);
        let file_bytes = self.starts[self.starts.len() - 1].segment_bytes;
        let file = self.disk.open(&name, Access::Write).context("open", path)?;
        let end_bytes = self.end.offset_bytes;
        if self.torn {
            mark(Mark::TornTailCut);
        }
        if self.torn && !mutant(Mutant::TailNotBlanked) {
            // An old group must never be read behind new ones.
            spare::blank(&file, end_bytes, file_bytes).context("zero", path)?;
        }
        if !mutant(Mutant::FoundNotRewritten) {
            rewrite(&file, self.vouched_bytes, end_bytes).context("rewrite", path)?;
        }
        file.sync_data().context("sync", path)?;

        let mut spares = Spares {
            ready: None,
            reserve: None,
            reserve_exists: self.reserve_exists,
            awaited: None,
            preferred: Blank::Next,
            recyclable: Vec::new(),
            counter: self
                .spare_names
                .iter()
                .filter_map(|name| segment::parse_spare_name(name))
                .max()
                .unwrap_or(0),
        };
        let leftovers = self.leftovers.iter().map(|number| segment::name(*number));
        let mut files = Vec::new();
        for name in self.spare_names.iter().cloned().chain(leftovers) {
            let path = || self.disk.path(&name);
            let file = self.disk.open(&name, Access::Read).context("open", path)?;
            let file_bytes = file.len_bytes().context("read", path)?;
            files.push((name, file_bytes));
        }
        wal::recycle_files(&self.disk, &self.options, &mut spares, files)?;

        let mut wal = Wal {
            active: Active {
                file,
                file_bytes,
                place: self.end,
                durable_bytes: end_bytes,
                vouched_bytes: self.vouched_bytes,
                content_bytes: self.content_bytes,
            },
            disk: self.disk,
            options: self.options,
            identity: self.identity,
            _lock: self.lock,
            state: self.state,
            volume,
            sealed,
            spares,
            buffer: Vec::new(),
            poisoned: false,
        };
        wal.vouch()?;
        Ok(wal)
    }
}

/// Writes the bytes `from..to` again, as they are. If a sync failed before the restart, the
/// system may hold them in memory, believe them written, and sync nothing; a page that is
/// written again is synced again.
fn rewrite(file: &impl DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut block = vec![0; 256 << 10];
    let mut at = from;
    while at < to {
        let bytes = (to - at).min(block.len() as u64) as usize;
        if file.read_at(&mut block[..bytes], at)? < bytes {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(&block[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

/// The newest segment that was begun, and those after it that were not.
fn find_active<D: Disk>(disk: &D, newest: u64, numbers: &[u64]) -> Result<(u64, Vec<u64>), Error> {
    let mut reader = GroupReader::open(disk, newest)?;
    if let Next::Group(_) = reader.next()? {
        return Ok((newest, Vec::new()));
    }
    // A crash between naming a segment and its first sync. Its predecessor is whole and the last.
    reader.examine_rest()?;
    let before = newest.checked_sub(1).filter(|before| numbers.contains(before));
    match before {
        Some(before) => {
            mark(Mark::UnbegunSegment);
            Ok((before, vec![newest]))
        }
        None => Err(reader.corrupt(0, "the newest segment is blank and the one before is gone")),
    }
}

struct ActiveScan {
    start: Start,
    state: LogState,
    end: Place,
    torn: bool,
    vouched_bytes: u64,
    content_bytes: u64,
}

fn scan_active<D: Disk>(disk: &D, number: u64, identity: Identity) -> Result<ActiveScan, Error> {
    let start = read_start(disk, number, identity)?;
    let mut reader = GroupReader::open(disk, number)?;
    let mut state = LogState::of_start(&start);
    let mut content_bytes = 0;
    while let Next::Group(group) = reader.next()? {
        let before = state.hard_state;
        let at = group.header.place.offset_bytes;
        // The beginning was followed already; it is content.
        let mut content = at == 0;
        let mut records = RecordReader::new(if at == 0 { Bytes::new() } else { group.body });
        while let Some(record) = records.next().map_err(|what| reader.corrupt(at, what))? {
            state.apply(&record, number).map_err(|what| reader.corrupt(at, what))?;
            content |= !matches!(record, LogRecord::HardState(_));
        }
        let after = state.hard_state;
        content |= (after.term, after.vote) != (before.term, before.vote);
        if content {
            content_bytes = reader.place().offset_bytes;
        }
    }
    let torn = reader.examine_rest()?;
    let (end, vouched_bytes) = (reader.place(), reader.durable_bytes());
    Ok(ActiveScan { start, state, end, torn, vouched_bytes, content_bytes })
}

/// The beginning of segment `number`, which must be there.
fn read_start<D: Disk>(disk: &D, number: u64, identity: Identity) -> Result<Start, Error> {
    let mut reader = GroupReader::open(disk, number).map_err(|error| match error {
        Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::corrupt(path, 0, "the segment is missing")
        }
        other => other,
    })?;
    let Next::Group(group) = reader.next()? else {
        return Err(reader.corrupt(0, "the segment has no beginning"));
    };
    let first = RecordReader::new(group.body).next().map_err(|what| reader.corrupt(0, what))?;
    let Some(LogRecord::Start(start)) = first else {
        return Err(reader.corrupt(0, "the segment begins with something else"));
    };
    identity.check(disk, &segment::name(number), start.identity)?;
    if start.keep_from > number {
        return Err(reader.corrupt(0, "the segment does not need itself"));
    }
    if start.segment_bytes != reader.file_bytes() {
        let what = format!("the file was {} bytes long", start.segment_bytes);
        return Err(reader.corrupt(reader.file_bytes(), what));
    }
    Ok(start)
}

/// The second pass, segment by segment.
struct Replay<V> {
    base: Index,
    /// The last index that the visitor holds.
    handed_out: Index,
    state: LogState,
    volume: Volume,
    visit: V,
}

impl<V> Replay<V> {
    /// Streams one segment, which must continue the one that ended at `previous` and have its own
    /// end at `expected_end_bytes`.
    fn segment<D: Disk, E: From<Error>>(
        &mut self,
        reader: &mut GroupReader<D>,
        start: &Start,
        previous: Option<Place>,
        expected_end_bytes: u64,
    ) -> Result<(), E>
    where
        V: FnMut(Record) -> Result<(), E>,
    {
        let number = reader.place().segment;
        let Next::Group(first) = reader.next()? else {
            return Err(reader.corrupt(0, "the segment has no beginning").into());
        };
        if previous.is_some_and(|previous| previous.previous != first.header.place.previous) {
            return Err(reader.corrupt(0, "the segment does not continue the one before").into());
        }
        // The commit index may have moved on without a record of its own.
        let commit = start.hard_state.commit;
        let told = commit >= self.state.hard_state.commit;
        self.state.hard_state.commit = commit;
        if !told || self.state != LogState::of_start(start) {
            return Err(reader.corrupt(0, "the segment begins with another state").into());
        }
        (self.visit)(Record::HardState(start.hard_state))?;

        while reader.place().offset_bytes < expected_end_bytes {
            let at = reader.place().offset_bytes;
            let Next::Group(group) = reader.next()? else {
                return Err(reader.corrupt(at, "a group is missing").into());
            };
            let group_bytes = reader.place().offset_bytes - at;
            let mut first = None;
            let mut records = RecordReader::new(group.body);
            while let Some(record) = records.next().map_err(|what| reader.corrupt(at, what))? {
                if let LogRecord::Entry(entry) = &record {
                    first.get_or_insert(entry.id.index);
                }
                self.state.apply(&record, number).map_err(|what| reader.corrupt(at, what))?;
                self.hand_out(record)?;
            }
            if first.is_some() {
                self.volume.add(first, group_bytes);
            }
        }
        if reader.place().offset_bytes != expected_end_bytes {
            return Err(reader.corrupt(expected_end_bytes, "the segment ended here").into());
        }
        Ok(())
    }

    fn hand_out<E>(&mut self, record: LogRecord) -> Result<(), E>
    where
        V: FnMut(Record) -> Result<(), E>,
    {
        match record {
            LogRecord::HardState(hard_state) => (self.visit)(Record::HardState(hard_state)),
            // Its predecessors went with a segment that a received snapshot made needless, and so
            // will it: the restart is further on.
            LogRecord::Entry(entry) if entry.id.index.prev() > self.handed_out => Ok(()),
            LogRecord::Entry(entry) if entry.id.index > self.base => {
                self.handed_out = entry.id.index;
                (self.visit)(Record::Entry(entry))
            }
            // The tail that it replaces may reach beyond the base.
            LogRecord::Entry(_) => self.restart(),
            LogRecord::Snapshot(_) => {
                self.volume.restart();
                self.restart()
            }
            LogRecord::Start(_) | LogRecord::Release { .. } => Ok(()),
        }
    }

    fn restart<E>(&mut self) -> Result<(), E>
    where
        V: FnMut(Record) -> Result<(), E>,
    {
        if self.handed_out == self.base {
            return Ok(());
        }
        mark(Mark::LogRestarted);
        self.handed_out = self.base;
        (self.visit)(Record::Restart)
    }
}
