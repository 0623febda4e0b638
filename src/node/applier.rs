//! The owner of the state machine: a thread that applies committed entries in order and answers
//! whoever waits for them.
//!
//! Readers share the store's lock, so a batch is applied in slices, and compaction is done a
//! little between them: no reader waits for long, and consensus never waits at all.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::kv::{Command, Machine, SnapshotCursor};
use crate::metrics::Metrics;
use crate::raft::{Configuration, Entry, EntryId, Payload, SnapshotMeta};
use crate::storage::{Disk, SnapshotStore};

use super::event::Event;
use super::handle::{Applied, Ticket};
use super::recovery::{self, Error};
use super::snapshotter;

/// Entries applied under one hold of the store's lock.
const SLICE_MAX: usize = 64;

/// Work for the owner of the state machine.
#[derive(Debug)]
pub enum Job {
    /// Apply these in order; answer the tickets.
    Apply(Vec<(Entry, Option<Ticket>)>),
    /// Replace the state by this snapshot, which is on disk.
    Restore(SnapshotMeta),
    /// Let a snapshot of the state as of now be written.
    SaveSnapshot,
}

/// The state machine and where it stands in the log.
pub struct Applier<D: Disk> {
    /// The state.
    pub machine: Arc<RwLock<Machine>>,
    /// The last entry applied.
    pub applied: EntryId,
    /// The membership as of that entry.
    pub config: Configuration,
    /// Where received snapshots are found.
    pub snapshots: SnapshotStore<D>,
    /// The snapshot writer.
    pub snapshotter: Sender<snapshotter::Job>,
    /// The driver.
    pub done: mpsc::Sender<Event<Ticket>>,
    /// For the time applying takes.
    pub metrics: Arc<Metrics>,
}

impl<D: Disk> Applier<D> {
    /// Runs until the senders of `jobs` or the driver are gone.
    ///
    /// # Errors
    ///
    /// When the state cannot go on as the log says.
    pub fn run(mut self, jobs: &Receiver<Job>) -> Result<(), Error> {
        loop {
            // Leftovers of a compaction go away while there is nothing else to do.
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(_) if !self.lock().compact_step(COMPACT_CHANGES) => continue,
                Err(_) => match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return Ok(()),
                },
            };
            match job {
                Job::Apply(entries) => self.apply(entries)?,
                Job::Restore(meta) => self.restore(&meta)?,
                Job::SaveSnapshot => self.save_snapshot(),
            }
        }
    }

    fn apply(&mut self, entries: Vec<(Entry, Option<Ticket>)>) -> Result<(), Error> {
        let began = Instant::now();
        let mut entries = entries.into_iter();
        loop {
            let mut answers = Vec::new();
            let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
            let mut slice = 0;
            for (entry, ticket) in entries.by_ref().take(SLICE_MAX) {
                slice += 1;
                assert!(
                    entry.id.index == self.applied.index.next(),
                    "entries are applied in order"
                );
                self.applied = entry.id;
                let response = match entry.payload {
                    Payload::Noop => continue,
                    Payload::Config(config) => {
                        self.config = config;
                        continue;
                    }
                    Payload::Command(proposal) => {
                        let command = Command::decode(&proposal.data)
                            .map_err(|source| Error::UnknownCommand { id: entry.id, source })?;
                        machine.apply(entry.id.index.0, command)
                    }
                };
                if let Some(ticket) = ticket {
                    answers.push((ticket, response, entry.id));
                }
            }
            // Keeps pace with what a compaction has to free, however busy the log is.
            machine.compact_step(COMPACT_WITH_SLICE);
            self.publish(&machine);
            drop(machine);
            for (ticket, response, id) in answers {
                answer(ticket, Applied { response, index: id.index, term: id.term });
            }
            if slice < SLICE_MAX {
                break;
            }
        }
        self.metrics.observe_apply(began.elapsed());
        self.report();
        Ok(())
    }

    fn restore(&mut self, meta: &SnapshotMeta) -> Result<(), Error> {
        let reader = self.snapshots.read()?.expect("a snapshot counts before it is restored");
        assert!(reader.info().meta == *meta, "no other snapshot has come between");
        let restored = recovery::load(reader)?;
        let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = std::mem::replace(&mut *machine, restored);
        self.publish(&machine);
        drop(machine);
        // Freeing millions of keys takes a while: nobody should wait for it.
        drop(replaced);
        self.applied = meta.last;
        self.config = meta.config.clone();
        self.report();
        Ok(())
    }

    fn save_snapshot(&self) {
        let meta = SnapshotMeta { last: self.applied, config: self.config.clone() };
        let cursor = SnapshotCursor::new(self.lock().store());
        // The snapshotter is gone only when the process is ending.
        let _ = self.snapshotter.send(snapshotter::Job { meta, cursor });
    }

    fn report(&self) {
        let data_bytes = self.lock().store().size_bytes();
        // The driver is gone only when the process is ending.
        let _ = self.done.blocking_send(Event::Applied { index: self.applied.index, data_bytes });
    }

    fn publish(&self, machine: &Machine) {
        let store = machine.store();
        self.metrics.db_size_bytes.set(store.size_bytes());
        self.metrics.db_size_in_use_bytes.set(store.size_in_use_bytes());
        self.metrics.revision.set(store.revision());
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Machine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes looked at by one step of compaction while there is nothing else to do.
const COMPACT_CHANGES: usize = 1000;

/// The same with each slice of entries: more than a slice of small commands adds.
const COMPACT_WITH_SLICE: usize = 2 * SLICE_MAX;

fn answer(ticket: Ticket, applied: Applied) {
    match ticket {
        // Nobody may be waiting any more.
        Ticket::Propose(reply) => drop(reply.send(Ok(applied))),
        other @ (Ticket::Barrier(_) | Ticket::Vote(_)) => {
            unreachable!("a command was proposed with a ticket of another kind: {other:?}")
        }
    }
}
