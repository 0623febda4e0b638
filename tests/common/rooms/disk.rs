//! The log and the snapshots of one member on a disk that loses, tears, rots and mixes up what it
//! was given, through many deaths. What was durable must be found again; what cannot be told from
//! damage must be refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft_node::raft::types::{
    Configuration, Entry, EntryId, HardState, Index, NodeId, Payload, Proposal, RequestId,
    SnapshotMeta, Term,
};
use raft_node::storage::testing::{Fault, SimDisk};
use raft_node::storage::{
    self, DataDir, Error, Identity, Options, Record, SnapshotInfo, Spare, SpareJob,
};

use super::Rng;

const LIVES: usize = 6;
/// Segments so small that everything happens soon.
const OPTIONS: Options =
    Options { segment_bytes: 4096, urgent_segment_bytes: 2048, recycled_max: 1 };

/// Whether a log of this seed kept its promises.
pub fn judge(seed: u64) -> Result<(), String> {
    let mut life = Life::new(seed);
    for _ in 0..LIVES {
        life.start()?;
        for _ in 0..life.rng.below(40) {
            life.step().map_err(|error| format!("a healthy disk: {error}"))?;
        }
        life.check_snapshot()?;
        life.die();
        life.rot()?;
    }
    life.start()?;
    mixed_up(seed)
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    hard_state: HardState,
    base: SnapshotMeta,
    entries: Vec<Entry>,
}

impl Held {
    fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base.last, |entry| entry.id)
    }

    fn append(&mut self, snapshot: Option<&SnapshotMeta>, entries: &[Entry]) {
        if let Some(snapshot) = snapshot {
            self.base = snapshot.clone();
            self.entries.clear();
        }
        if let Some(first) = entries.first() {
            self.entries.retain(|entry| entry.id.index < first.id.index);
            self.entries.extend_from_slice(entries);
        }
    }

    fn release(&mut self, base: &SnapshotMeta) {
        self.base = base.clone();
        self.entries.retain(|entry| entry.id.index > base.last.index);
    }

    /// Equal but for the commit index, which may lag.
    fn is(&self, other: &Self) -> bool {
        let lasting = |state: &Self| (state.hard_state.term, state.hard_state.vote);
        self.base == other.base && self.entries == other.entries && lasting(self) == lasting(other)
    }
}

struct Life {
    disk: SimDisk,
    rng: Rng,
    dir: Option<DataDir<SimDisk>>,
    job: Option<SpareJob<SimDisk>>,
    spare: Option<Spare<SimDisk>>,
    /// A snapshot of our own that is finished and not yet named by the log.
    late: Option<SnapshotInfo>,
    /// Every state since the last start, tried ones included, and the last that must survive.
    states: Vec<Held>,
    floor: usize,
}

impl Life {
    fn new(seed: u64) -> Self {
        let base = SnapshotMeta { last: EntryId::default(), config: members() };
        let first = Held { hard_state: HardState::default(), base, entries: Vec::new() };
        Self {
            disk: SimDisk::new(seed),
            rng: Rng::new(seed + 1),
            dir: None,
            job: None,
            spare: None,
            late: None,
            states: vec![first],
            floor: 0,
        }
    }

    fn start(&mut self) -> Result<(), String> {
        let opened = recover(&self.disk).map_err(|error| format!("does not start: {error}"))?;
        let (dir, found) = opened;
        self.accept(&found)?;
        self.states = vec![found];
        self.floor = 0;
        self.dir = Some(dir);
        Ok(())
    }

    /// Whether a state is one that may be found now.
    fn accept(&self, found: &Held) -> Result<(), String> {
        let fitting = self.states.iter().rposition(|state| state.is(found));
        if fitting.is_some_and(|at| at >= self.floor) {
            return Ok(());
        }
        let floor = self.states[self.floor].last();
        let what = format!("found a log up to {}, which is state {fitting:?}", found.last());
        Err(format!("{what}, but durable was state {} up to {floor}", self.floor))
    }

    fn dir(&mut self) -> &mut DataDir<SimDisk> {
        self.dir.as_mut().expect("the member runs")
    }

    fn now(&self) -> &Held {
        self.states.last().expect("there is always one")
    }

    fn step(&mut self) -> Result<(), Error> {
        match self.rng.below(16) {
            0..=5 => self.append(),
            6..=8 => self.sync(),
            9 => self.dir().wal.vouch(),
            10 => self.finish_snapshot(),
            11 | 12 => self.adopt_late(),
            13 => self.install(),
            _ => self.next_spare(),
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.dir().wal.sync()?;
        self.floor = self.states.len() - 1;
        Ok(())
    }

    fn append(&mut self) -> Result<(), Error> {
        let mut state = self.now().clone();
        let mut first = state.last().index.0 + 1;
        if self.rng.one_in(5) {
            state.hard_state.term.0 += 1;
            state.hard_state.vote = NodeId::new(self.rng.below(4));
            let fixed = state.hard_state.commit.max(state.base.last.index).0;
            first -= self.rng.below(first - fixed).min(3);
        }
        let term = state.hard_state.term.max(state.last().term);
        state.hard_state.term = term;
        let count = 1 + self.rng.below(4);
        let entries: Vec<Entry> =
            (first..first + count).map(|index| entry(index, term, self.data(1200))).collect();
        let commit = state.hard_state.commit.0;
        state.hard_state.commit.0 = commit + self.rng.below(first + count - commit);
        let hard_state = state.hard_state;
        state.append(None, &entries);
        self.states.push(state);
        self.dir().wal.append(hard_state, None, &entries)
    }

    /// Values as users write them, and as a checksum's enemy would.
    fn data(&mut self, bytes_max: u64) -> Bytes {
        let length = self.rng.below(bytes_max);
        match self.rng.below(3) {
            0 => vec![0; length as usize].into(),
            _ => (0..length).map(|_| self.rng.below(256) as u8).collect::<Vec<_>>().into(),
        }
    }

    /// Writes a snapshot of what is applied, or gives it up.
    fn finish_snapshot(&mut self) -> Result<(), Error> {
        let state = self.now();
        let applied = state.hard_state.commit.min(state.last().index);
        let covered = state.entries.iter().find(|entry| entry.id.index == applied);
        let Some(last) = covered.map(|entry| entry.id) else { return Ok(()) };
        if self.late.as_ref().is_some_and(|late| late.meta.last.index >= last.index) {
            return Ok(());
        }
        let info = self.write_snapshot(&SnapshotMeta { last, config: members() })?;
        if let Some(info) = info {
            self.late = Some(info);
        }
        Ok(())
    }

    fn write_snapshot(&mut self, meta: &SnapshotMeta) -> Result<Option<SnapshotInfo>, Error> {
        let store = self.dir().snapshots.clone();
        let mut writer = store.create(meta)?;
        for piece in content(meta).chunks(333) {
            writer.write(piece)?;
        }
        if self.rng.one_in(8) {
            return Ok(None);
        }
        writer.finish().map(Some)
    }

    fn adopt_late(&mut self) -> Result<(), Error> {
        let Some(info) = self.late.take() else { return Ok(()) };
        let mut state = self.now().clone();
        if info.meta.last.index > state.base.last.index {
            state.release(&info.meta);
            self.states.push(state);
        }
        self.dir().wal.release(&info.meta)?;
        if self.now().base == info.meta {
            self.floor = self.states.len() - 1;
        }
        self.dir().snapshots.adopt(info)
    }

    /// A snapshot from the leader: the log restarts.
    fn install(&mut self) -> Result<(), Error> {
        let mut state = self.now().clone();
        state.hard_state.term = Term(state.hard_state.term.0.max(1));
        let term = state.hard_state.term;
        let after = state.hard_state.commit.max(state.base.last.index).0;
        let last = EntryId { index: Index(after + 1 + self.rng.below(9)), term };
        let learners = BTreeSet::from([node(9)]);
        let meta = SnapshotMeta { last, config: Configuration { learners, ..members() } };
        let Some(info) = self.write_snapshot(&meta)? else { return Ok(()) };
        let entries = [entry(last.index.0 + 1, term, self.data(200))];
        let entries = if self.rng.one_in(2) { &entries[..] } else { &[] };
        state.hard_state.commit = last.index;
        let hard_state = state.hard_state;
        state.append(Some(&meta), entries);
        self.states.push(state);
        self.dir().wal.append(hard_state, Some(&meta), entries)?;
        self.sync()?;
        self.dir().snapshots.adopt(info)
    }

    /// Moves the making of a segment on by one step: asked for, made, handed over.
    fn next_spare(&mut self) -> Result<(), Error> {
        if let Some(spare) = self.spare.take() {
            self.dir().wal.add_spare(spare);
        } else if let Some(job) = self.job.take() {
            self.spare = Some(job.run()?);
        } else {
            self.job = self.dir().wal.spare_job();
        }
        Ok(())
    }

    /// The snapshot that would be sent to others is the one that the log begins after.
    fn check_snapshot(&mut self) -> Result<(), String> {
        let base = self.now().base.clone();
        let latest = self.dir().snapshots.latest().map(|info| info.meta);
        match latest {
            Some(latest) if latest != base => Err(format!("{latest:?} is served after {base:?}")),
            None if base.last.index.0 > 0 => Err(format!("no snapshot is served after {base:?}")),
            Some(_) | None => Ok(()),
        }
    }

    fn die(&mut self) {
        if self.rng.one_in(3) {
            let fault = match self.rng.below(2) {
                0 => Fault::Fail(std::io::ErrorKind::Other),
                _ => Fault::PowerCut,
            };
            self.disk.fault_at(self.disk.operations() + self.rng.below(8), fault);
            // Whatever fails now, the member is dead.
            let _ = match self.rng.below(3) {
                0 => self.append().and_then(|()| self.sync()),
                1 => self.finish_snapshot().and_then(|()| self.adopt_late()),
                _ => self.install(),
            };
        }
        (self.dir, self.job, self.spare, self.late) = (None, None, None, None);
        self.disk.clear_faults();
        if self.rng.one_in(2) {
            self.disk.kill();
        } else {
            self.disk.power_cut();
        }
    }

    /// On a copy: one bit turned over is refused, or changes nothing.
    fn rot(&mut self) -> Result<(), String> {
        let copy = self.disk.fork();
        let files: Vec<String> =
            copy.names().into_iter().filter(|name| copy.content(name) != Some(vec![])).collect();
        let name = self.rng.of(&files);
        // Most of a segment is blank: look where something is.
        let bytes = copy.content(&name).expect("it is there");
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        let bit = self.rng.below(8 * written as u64) as usize;
        copy.rot(&name, |content| {
            // What is not synced yet may be shorter on the platters.
            if let Some(byte) = content.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        });
        match recover(&copy) {
            Ok((_, found)) => {
                self.accept(&found).map_err(|what| format!("bit {bit} of {name} is off: {what}"))
            }
            Err(_) => Ok(()),
        }
    }
}

/// Of two copies of a disk that went on apart, one gets the other's last write: the place and the
/// checksum are right, but it continues another past.
fn mixed_up(seed: u64) -> Result<(), String> {
    let mut life = Life::new(seed);
    life.start()?;
    let failed = |error: Error| error.to_string();
    life.append().and_then(|()| life.sync()).map_err(failed)?;
    life.dir = None;
    life.disk.kill();
    let disks = [life.disk.fork(), life.disk.fork()];
    for (disk, byte) in disks.iter().zip([1, 2]) {
        let (mut dir, state) = recover(disk).map_err(failed)?;
        let next = state.last().index.0 + 1;
        for index in [next, next + 1] {
            let data = Bytes::from(vec![byte; 100]);
            let entries = [entry(index, state.hard_state.term, data)];
            dir.wal.append(state.hard_state, None, &entries).map_err(failed)?;
        }
        dir.wal.sync().map_err(failed)?;
        drop(dir);
        disk.kill();
    }
    let segments = disks[0].names().into_iter().filter(|name| name.starts_with("wal-"));
    let name = segments.max().expect("there is a log");
    let [mine, other] = [0, 1].map(|at: usize| disks[at].content(&name).expect("the same names"));
    let is_group = |at: &usize| &mine[at + 4..at + 8] == b"RWAL";
    let last = (0..mine.len()).step_by(64).rfind(is_group).expect("groups");
    disks[0].rot(&name, |content| content[last..].copy_from_slice(&other[last..]));
    match recover(&disks[0]) {
        Err(_) => Ok(()),
        Ok(_) => Err("a write of another past was believed".to_owned()),
    }
}

/// Opens the directory as a starting member does, and reads all that it holds.
fn recover(disk: &SimDisk) -> Result<(DataDir<SimDisk>, Held), Error> {
    let identity = Identity { cluster_id: 0xc1, node_id: node(1) };
    let opening = storage::open(&disk.for_process(), OPTIONS, identity, &members())?;
    let base = opening.base().clone();
    if let Some(mut snapshot) = opening.read_snapshot()? {
        let mut found = Vec::new();
        while let Some(chunk) = snapshot.next_chunk()? {
            found.extend_from_slice(&chunk);
        }
        assert_eq!(found, content(&base), "a snapshot that reads well is what was written");
    }
    let mut state = Held { hard_state: opening.hard_state(), base, entries: Vec::new() };
    let dir = opening.replay(|record| {
        match record {
            Record::Entry(entry) => state.append(None, &[entry]),
            Record::HardState(hard_state) => state.hard_state = hard_state,
            Record::Restart => state.entries.clear(),
        }
        Ok::<(), Error>(())
    })?;
    Ok((dir, state))
}

/// What the state machine is taken to be, as of `meta`.
fn content(meta: &SnapshotMeta) -> Vec<u8> {
    let word = meta.last.index.0 * 31 + meta.last.term.0;
    (0..100 + word % 300).flat_map(|at| (word ^ at).to_le_bytes()).collect()
}

fn entry(index: u64, term: Term, data: Bytes) -> Entry {
    let id = RequestId { origin: node(2), sequence: 1000 + index };
    let payload = Payload::Command(Proposal { id, data });
    Entry { id: EntryId { index: Index(index), term }, payload }
}

fn members() -> Configuration {
    Configuration::of_voters([node(1), node(2), node(3)])
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("above 0")
}
