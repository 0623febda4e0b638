//! A member's dealings with its disk, drawn from a seed, and what it may count on afterwards.
//!
//! `history` has every state that the log went through, tried ones included; `floor` is the latest
//! of them that is sure to survive. After any crash the disk must hold one from `floor` on.

use bytes::Bytes;

use super::model::*;
use crate::raft::types::{Entry, Index, NodeId};
use crate::storage::testing::SimDisk;
use crate::storage::testing::rng::Rng;
use crate::storage::{DataDir, Error, Options, Spare, SpareJob};

pub(super) struct Life {
    pub disk: SimDisk,
    pub rng: Rng,
    pub options: Options,
    dir: Option<DataDir<SimDisk>>,
    /// Made on "another thread", not yet handed over.
    job: Option<SpareJob<SimDisk>>,
    spare: Option<Spare<SimDisk>>,
    pub history: Vec<Model>,
    pub floor: usize,
}

impl Life {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            rng: Rng::new(seed ^ 0xfeed),
            options: small(),
            dir: None,
            job: None,
            spare: None,
            history: vec![Model::new()],
            floor: 0,
        }
    }

    /// Starts the member and checks what the disk gave back.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let (dir, found) = recover(&self.disk.for_process(), self.options)?;
        let fitting = self.history.iter().rposition(|state| found.matches(state));
        let Some(at) = fitting.filter(|at| *at >= self.floor) else {
            let floor = &self.history[self.floor];
            panic!("lost what was durable: found {fitting:?} {found:#?}, at least {floor:#?}");
        };
        assert!(found.hard_state.commit <= self.history[at].hard_state.commit);
        // From now on the member acts on what it found.
        self.history = vec![found];
        self.floor = 0;
        self.dir = Some(dir);
        Ok(())
    }

    pub(super) fn stop(&mut self) {
        (self.dir, self.job, self.spare) = (None, None, None);
    }

    pub(super) fn now(&self) -> &Model {
        self.history.last().expect("there is always a state")
    }

    pub(super) fn dir(&mut self) -> &mut DataDir<SimDisk> {
        self.dir.as_mut().expect("the member runs")
    }

    /// One thing that members do.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        match self.rng.below(20) {
            0..=7 => self.append(),
            8..=11 => self.sync(),
            12 => self.vote(),
            13 => self.dir().wal.vouch(),
            14 => self.snapshot(1),
            15 => self.snapshot(2),
            16 => self.install(),
            17 => self.append_much(),
            _ => self.spare(),
        }
    }

    pub(super) fn sync(&mut self) -> Result<(), Error> {
        self.dir().wal.sync()?;
        self.floor = self.history.len() - 1;
        Ok(())
    }

    pub(super) fn append(&mut self) -> Result<(), Error> {
        let count = 1 + self.rng.below(4);
        self.append_entries(count, 1200)
    }

    /// A group larger than any segment made ahead.
    fn append_much(&mut self) -> Result<(), Error> {
        self.append_entries(6, 6000)
    }

    fn append_entries(&mut self, count: u64, bytes_max: u64) -> Result<(), Error> {
        let mut state = self.now().clone();
        let last = state.last();
        let mut first = last.index.0 + 1;
        if self.rng.one_in(5) {
            // A new leader, with another idea of the end of the log.
            state.hard_state.term.0 += 1;
            state.hard_state.vote = None;
            let fixed = state.hard_state.commit.max(state.base.last.index).0;
            first -= self.rng.below(first - fixed).min(3);
        }
        let term = state.hard_state.term.0.max(last.term.0);
        state.hard_state.term.0 = term;
        let entries: Vec<Entry> = (first..first + count)
            .map(|index| command(index, term, self.data(bytes_max)))
            .collect();
        let end = first + count - 1;
        let commit = state.hard_state.commit.0;
        state.hard_state.commit.0 = commit + self.rng.below(end - commit + 1);
        let hard_state = state.hard_state;
        state.append(hard_state, None, &entries);
        self.history.push(state);
        self.dir().wal.append(hard_state, None, &entries)
    }

    /// Values as users write them, and as a checksum's enemy would.
    fn data(&mut self, bytes_max: u64) -> Bytes {
        let length = self.rng.below(bytes_max) as usize;
        match self.rng.below(4) {
            0 => vec![0; length].into(),
            1 => (0..length).map(|at| u8::from(at % 512 == 77)).collect::<Vec<_>>().into(),
            _ => (0..length).map(|_| self.rng.next() as u8).collect::<Vec<_>>().into(),
        }
    }

    fn vote(&mut self) -> Result<(), Error> {
        let mut state = self.now().clone();
        state.hard_state.term.0 += 1;
        state.hard_state.vote = NodeId::new(1 + self.rng.below(3));
        let hard_state = state.hard_state;
        self.history.push(state);
        self.dir().wal.append(hard_state, None, &[])
    }

    /// So many snapshots of our own, all written before the first is released.
    fn snapshot(&mut self, count: usize) -> Result<(), Error> {
        let mut metas = Vec::new();
        for _ in 0..count {
            let state = self.now();
            let applied = state.hard_state.commit.0.min(state.last().index.0);
            let after = metas.last().map_or(state.base.last.index.0, |last: &_| {
                let last: &crate::raft::types::SnapshotMeta = last;
                last.last.index.0
            });
            if applied <= after {
                break;
            }
            let index = after + 1 + self.rng.below(applied - after);
            let state = self.now();
            let entry = state.entries.iter().find(|entry| entry.id.index == Index(index));
            metas.push(meta(index, entry.expect("applied entries are held").id.term.0));
        }
        let store = self.dir().snapshots.clone();
        let mut infos = Vec::new();
        for meta in &metas {
            infos.push(write_snapshot(&store, meta)?);
        }
        for (meta, info) in metas.iter().zip(infos) {
            let mut state = self.now().clone();
            state.release(meta);
            self.history.push(state);
            self.dir().wal.release(meta)?;
            self.floor = self.history.len() - 1;
            store.adopt(info)?;
        }
        Ok(())
    }

    /// A snapshot from the leader: the log restarts.
    fn install(&mut self) -> Result<(), Error> {
        let mut state = self.now().clone();
        state.hard_state.term.0 += self.rng.below(2);
        let term = state.hard_state.term.0.max(1);
        state.hard_state.term.0 = term;
        if term > self.now().hard_state.term.0 {
            state.hard_state.vote = None;
        }
        let after = state.hard_state.commit.max(state.base.last.index).0;
        let snapshot = meta(after + 1 + self.rng.below(9), term);
        let store = self.dir().snapshots.clone();
        let info = write_snapshot(&store, &snapshot)?;
        let entries: Vec<_> = (1..=self.rng.below(3))
            .map(|ahead| command(snapshot.last.index.0 + ahead, term, self.data(200)))
            .collect();
        state.hard_state.commit = snapshot.last.index;
        let hard_state = state.hard_state;
        state.append(hard_state, Some(&snapshot), &entries);
        self.history.push(state);
        self.dir().wal.append(hard_state, Some(&snapshot), &entries)?;
        self.sync()?;
        store.adopt(info)
    }

    /// Moves the making of a segment on by one step: asked for, made, handed over.
    fn spare(&mut self) -> Result<(), Error> {
        if let Some(spare) = self.spare.take() {
            self.dir().wal.add_spare(spare);
        } else if let Some(job) = self.job.take() {
            match job.run() {
                Ok(spare) => self.spare = Some(spare),
                Err(error) => {
                    self.dir().wal.spare_failed();
                    return Err(error);
                }
            }
        } else {
            self.job = self.dir().wal.spare_job();
        }
        Ok(())
    }
}
