//! The owner of the state machine: applies committed entries in order and replies to those who
//! wait for them.
//!
//! [`Applier`] is what it does, one step at a time, whatever the tickets are; [`run`] is the thread
//! that does so in the real node. A simulator takes the same steps in its own time.
//! [`ApplierHandle`] is the driver's end: while the thread has nothing to do, a few small commands
//! are applied on the spot, since to hand them over and to hear back takes longer than to apply
//! them.
//!
//! Readers share the store's lock, so a batch is applied in slices, and compaction is done a
//! little between them: no reader waits for long, and consensus never waits at all.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, TryLockError};
use std::time::Instant;
use std::vec;

use tokio::sync::{mpsc, watch};

use crate::kv::{Command, Machine, SnapshotCursor};
use crate::metrics::Metrics;
use crate::raft::{Configuration, Entry, EntryId, Index, Payload, SnapshotMeta};
use crate::storage::{Disk, SnapshotStore};
use crate::testpoints::{Mutant, mutant};

use super::event::Event;
use super::handle::{Applied, Ticket};
use super::recovery::{self, Error};
use super::snapshotter;
use super::throttle::Throttle;

#[cfg(test)]
mod tests;

/// Entries applied under one hold of the store's lock.
pub const SLICE_MAX: usize = 64;

/// Changes looked at by one step of compaction while there is nothing else to do.
const COMPACT_CHANGES: usize = 1000;

/// The same with each slice of entries: more than a slice of small commands adds.
const COMPACT_WITH_SLICE: usize = 2 * SLICE_MAX;

/// Entries that are applied on the spot, at most, and their bytes: tens of microseconds.
const AT_ONCE_MAX: usize = 16;
const AT_ONCE_BYTES_MAX: usize = 8 << 10;

/// Work for the owner of the state machine.
#[derive(Debug)]
pub enum Job<T> {
    /// Apply these in order; answer the tickets.
    Apply(Vec<(Entry, Option<T>)>),
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
    /// For the time that applying takes.
    pub metrics: Arc<Metrics>,
    /// Where the revision of the state is announced, after each change of it.
    pub revisions: watch::Sender<i64>,
}

/// Entries under way into the state machine.
pub type Batch<T> = vec::IntoIter<(Entry, Option<T>)>;

impl<D: Disk> Applier<D> {
    /// Applies the next slice of `batch` and gives the answers, which may be told at once. The
    /// batch is done when fewer than [`SLICE_MAX`] entries were left.
    ///
    /// # Errors
    ///
    /// When a command is not understood.
    pub fn apply_slice<T>(&mut self, batch: &mut Batch<T>) -> Result<Vec<(T, Applied)>, Error> {
        let mut answers = Vec::new();
        let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        for (entry, ticket) in batch.by_ref().take(SLICE_MAX) {
            assert!(entry.id.index == self.applied.index.next(), "entries are applied in order");
            self.applied = entry.id;
            let EntryId { index, term } = entry.id;
            let command = match entry.payload {
                Payload::Noop => continue,
                Payload::Config(config) => {
                    self.config = config;
                    continue;
                }
                Payload::Command(proposal) => Command::decode(&proposal.data)
                    .map_err(|source| Error::UnknownCommand { id: entry.id, source })?,
            };
            if let Some(ticket) = ticket {
                let answer = machine.answer(index.0, command);
                answers.push((ticket, Applied { answer, index, term }));
            } else {
                // A refusal is an outcome, and nothing waits for it here.
                let _ = machine.apply(index.0, command);
            }
        }
        // Keeps pace with what a compaction has to free, however busy the log is.
        machine.compact_step(COMPACT_WITH_SLICE);
        let revision = machine.store().revision();
        drop(machine);
        self.announce(revision);
        Ok(answers)
    }

    /// Replaces the state by the received snapshot `meta`. The log names it, or names a newer one
    /// by now, which is restored in its turn. After each piece, `rest` says how soon to go on.
    ///
    /// # Errors
    ///
    /// When the snapshot cannot be read, or makes no state.
    pub fn restore(&mut self, meta: &SnapshotMeta, rest: impl FnMut()) -> Result<(), Error> {
        let reader = self.snapshots.take_received();
        let reader = reader.expect("a snapshot counts before it is restored");
        assert!(reader.info().meta == *meta, "snapshots are restored as they were received");
        if mutant(Mutant::RestoreSkipped) {
            (self.applied, self.config) = (meta.last, meta.config.clone());
            return Ok(());
        }
        let restored = recovery::load(reader, rest)?;
        let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = std::mem::replace(&mut *machine, restored);
        let revision = machine.store().revision();
        drop(machine);
        self.revisions.send_replace(revision);
        // Freeing millions of keys takes a while: nobody should wait for it.
        drop(replaced);
        self.applied = meta.last;
        self.config = meta.config.clone();
        Ok(())
    }

    fn announce(&self, revision: i64) {
        self.revisions
            .send_if_modified(|announced| std::mem::replace(announced, revision) != revision);
    }

    /// A snapshot of the state as of now, to be written.
    pub fn snapshot(&self) -> snapshotter::Job {
        let mut meta = SnapshotMeta { last: self.applied, config: self.config.clone() };
        if mutant(Mutant::SnapshotMislabelled) && meta.last.index > Index(1) {
            meta.last.index = meta.last.index.prev();
        }
        snapshotter::Job { meta, cursor: SnapshotCursor::new(self.lock().store()) }
    }

    /// How far it has come, for the replica.
    pub fn report<T>(&self) -> Event<T> {
        Event::Applied { index: self.applied.index, data_bytes: self.data_bytes() }
    }

    /// What the data takes.
    pub fn data_bytes(&self) -> u64 {
        self.lock().store().size_bytes()
    }

    /// Frees some of what compaction has forgotten; true when nothing is left of it. For when
    /// nothing waits.
    pub fn compact_step(&self) -> bool {
        self.lock().compact_step(COMPACT_CHANGES)
    }

    /// Whether somebody is reading the store right now.
    fn is_read(&self) -> bool {
        matches!(self.machine.try_write(), Err(TryLockError::WouldBlock))
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Machine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end.
pub struct ApplierHandle<D: Disk> {
    applier: Arc<Mutex<Applier<D>>>,
    jobs: Sender<Job<Ticket>>,
    /// Jobs that the thread has not reported done. Order is kept because nothing is applied on the
    /// spot before this is none.
    unreported: usize,
}

impl<D: Disk> ApplierHandle<D> {
    /// To the thread that [`run`]s with the same applier and takes these jobs.
    pub fn new(applier: Arc<Mutex<Applier<D>>>, jobs: Sender<Job<Ticket>>) -> Self {
        Self { applier, jobs, unreported: 0 }
    }

    /// Gives the thread work. False if it has ended.
    pub fn send(&mut self, job: Job<Ticket>) -> bool {
        match &job {
            Job::Apply(_) | Job::Restore(_) => self.unreported += 1,
            Job::SaveSnapshot => {}
        }
        self.jobs.send(job).is_ok()
    }

    /// The thread has reported a job done.
    pub fn job_done(&mut self) {
        assert!(self.unreported > 0, "the applier reports only what it was given");
        self.unreported -= 1;
    }

    /// Applies `entries` here and now and answers who waits, if that is quickly done and nobody
    /// has to be waited for; else gives them back.
    ///
    /// # Errors
    ///
    /// The entries, to be sent.
    pub fn apply_at_once(
        &mut self,
        entries: Vec<(Entry, Option<Ticket>)>,
    ) -> Result<Event<Ticket>, Vec<(Entry, Option<Ticket>)>> {
        if self.unreported > 0 || !is_quick(&entries) {
            return Err(entries);
        }
        let mut applier = match self.applier.try_lock() {
            Ok(applier) => applier,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(entries),
        };
        // A reader that comes in between holds the store for one chunk at the most.
        if applier.is_read() {
            return Err(entries);
        }
        let began = Instant::now();
        apply(&mut applier, entries.into_iter()).expect("every command was just decoded");
        applier.metrics.observe_apply(began.elapsed());
        Ok(applier.report())
    }
}

/// Whether applying `entries` takes no longer than handing them over.
fn is_quick<T>(entries: &[(Entry, Option<T>)]) -> bool {
    let bytes: usize = entries.iter().map(|(entry, _)| entry.size_bytes()).sum();
    entries.len() <= AT_ONCE_MAX
        && bytes <= AT_ONCE_BYTES_MAX
        && entries.iter().all(|(entry, _)| match &entry.payload {
            Payload::Noop | Payload::Config(_) => true,
            Payload::Command(proposal) => {
                Command::decode(&proposal.data).is_ok_and(|command| command.names_its_keys())
            }
        })
}

/// The ways to others.
pub struct Channels {
    /// Its work.
    pub jobs: Receiver<Job<Ticket>>,
    /// The snapshot writer.
    pub snapshotter: Sender<snapshotter::Job>,
    /// The driver.
    pub done: mpsc::Sender<Event<Ticket>>,
}

/// Runs until the senders of the jobs or the driver are gone.
///
/// # Errors
///
/// When the state cannot go on as the log says.
pub fn run<D: Disk>(applier: &Mutex<Applier<D>>, ways: &Channels) -> Result<(), Error> {
    let mut shrinking = false;
    loop {
        // Leftovers of a compaction go away while there is nothing else to do.
        let job = match ways.jobs.try_recv() {
            Ok(job) => job,
            Err(_) if !lock(applier).compact_step() => {
                shrinking = true;
                continue;
            }
            Err(_) => {
                if std::mem::take(&mut shrinking) {
                    let data_bytes = lock(applier).data_bytes();
                    let _ = ways.done.blocking_send(Event::Shrunk { data_bytes });
                }
                match ways.jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return Ok(()),
                }
            }
        };
        let mut applier = lock(applier);
        match job {
            Job::Apply(entries) => {
                let began = Instant::now();
                apply(&mut applier, entries.into_iter())?;
                applier.metrics.observe_apply(began.elapsed());
            }
            Job::Restore(meta) => {
                let mut throttle = Throttle::begin();
                applier.restore(&meta, || throttle.rest())?;
            }
            Job::SaveSnapshot => {
                // The snapshotter is gone only when the process is ending.
                let _ = ways.snapshotter.send(applier.snapshot());
                continue;
            }
        }
        let report = applier.report();
        drop(applier);
        // The driver is gone only when the process is ending.
        let _ = ways.done.blocking_send(report);
    }
}

fn lock<D: Disk>(applier: &Mutex<Applier<D>>) -> MutexGuard<'_, Applier<D>> {
    applier.lock().unwrap_or_else(PoisonError::into_inner)
}

fn apply<D: Disk>(applier: &mut Applier<D>, mut batch: Batch<Ticket>) -> Result<(), Error> {
    loop {
        let more = batch.len() >= SLICE_MAX;
        for (ticket, applied) in applier.apply_slice(&mut batch)? {
            answer(ticket, applied);
        }
        if !more {
            return Ok(());
        }
    }
}

fn answer(ticket: Ticket, applied: Applied) {
    match ticket {
        // Nobody may be waiting any more.
        Ticket::Propose(reply) => drop(reply.send(Ok(applied))),
        other @ (Ticket::Barrier(_) | Ticket::Vote(_)) => {
            unreachable!("a command was proposed with a ticket of another kind: {other:?}")
        }
    }
}
