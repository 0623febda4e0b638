//! The log writer: makes batches durable, as many as wait with one `fdatasync` (group commit), and
//! reports the last one done.
//!
//! [`Persister`] is what it does, one step at a time; [`run`] is the thread that does so in the
//! real node. A simulator takes the same steps in its own time. [`WalHandle`] is the driver's end:
//! a follower that has nothing else to write syncs a small batch on the spot while the disk answers
//! quickly, since its leader waits for nothing but that.
//!
//! A batch for which the disk has no room waits, and the later ones behind it, until there is some:
//! nothing of it was written, and nothing is promised before it is. Any other error ends the log
//! writer, and with it the process: after a failed write or sync nobody knows what the disk holds,
//! and a retry that succeeds proves nothing.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use crate::metrics::Metrics;
use crate::raft::{Entry, Persist, PersistSeq, SnapshotMeta};
use crate::storage::{self, Disk, SnapshotInfo, SnapshotStore, Spare, SpareJob, Wal};
use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::event::Event;
use super::handle::Ticket;
use super::room::Room;

#[cfg(test)]
mod tests;

/// Work for the log writer.
pub enum Job<D: Disk> {
    /// Append and sync this batch.
    Write(Persist),
    /// This snapshot is durable: record so, and recycle the log below it.
    Release(SnapshotMeta),
    /// A blank segment, or why there is none.
    Spare(Result<Spare<D>, storage::Error>),
    /// The log was written to on the spot and has been left alone since: time to vouch for it. Or
    /// the disk is short of room: time to look whether there is some.
    Rest,
    /// Nothing more will come. The maker of segments and the writer hold each other's senders, so
    /// neither would end by itself.
    End,
}

/// Batches under one sync. Bounds how long the first of them waits for the last.
pub const GROUP_MAX: usize = 256;

/// Bytes under one sync past which no batch is added: a sync of tens of megabytes keeps what came
/// just after them, a vote among it, waiting for as long as an election takes.
pub const GROUP_BYTES_MAX: usize = 4 << 20;

/// How soon another blank segment is tried for after one could not be made.
const SPARE_RETRY: Duration = Duration::from_secs(2);

/// How often the room on the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the log must be left alone before it is vouched for: a voucher in the middle of a
/// stream of writes costs time and says what the next group says anyway.
const VOUCH_AFTER: Duration = Duration::from_millis(2);

/// What is written on the spot, at most.
const AT_ONCE_MAX: usize = 16;
const AT_ONCE_BYTES_MAX: usize = 8 << 10;

/// The event loop waits for no disk that took longer than this the last time.
const QUICK: Duration = Duration::from_millis(1);

/// The log, and what was taken up since its last sync.
///
/// A round is: [`take`](Self::take) what waits, until the group [is full](Self::is_full);
/// [`sync`](Self::sync),
/// and report; [`release`](Self::release) until there is nothing to release. When nothing waits
/// after that, [`vouch`](Self::vouch).
pub struct Persister<D: Disk> {
    wal: Wal<D>,
    snapshots: SnapshotStore<D>,
    group: Group,
    /// Batches that wait for room, in order.
    held: VecDeque<Persist>,
    /// There may be room now.
    look_again: bool,
    room: Room,
    ahead: Ahead,
    /// How long the last sync took.
    last_sync: Duration,
    /// Why the log cannot go on; for its thread to say.
    failed: Option<storage::Error>,
}

/// How the making of segments ahead of need goes.
#[derive(Default)]
struct Ahead {
    /// There was no room for the next segment or the reserve, and one of them is missing still.
    no_room: bool,
    /// The last try failed, just now.
    failed: bool,
    /// That tries fail was said.
    told: bool,
    /// None is asked for before this.
    due: Duration,
}

/// What was taken up together.
#[derive(Default)]
struct Group {
    written: Option<PersistSeq>,
    jobs: usize,
    bytes: usize,
    /// Snapshots at which the log restarts.
    received: Vec<SnapshotInfo>,
    /// Snapshots of our own.
    released: VecDeque<SnapshotMeta>,
    ended: bool,
}

impl Group {
    fn is_full(&self) -> bool {
        self.jobs >= GROUP_MAX || self.bytes >= GROUP_BYTES_MAX
    }
}

impl<D: Disk> Persister<D> {
    /// The writer of `wal`, which makes the files of `snapshots` count.
    pub fn new(wal: Wal<D>, snapshots: SnapshotStore<D>) -> Self {
        Self {
            wal,
            snapshots,
            group: Group::default(),
            held: VecDeque::new(),
            look_again: false,
            room: Room::default(),
            ahead: Ahead::default(),
            last_sync: Duration::MAX,
            failed: None,
        }
    }

    /// The same, telling `room` what it meets.
    #[must_use]
    pub fn telling(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// The log.
    pub fn wal(&self) -> &Wal<D> {
        &self.wal
    }

    /// Whether no more should be taken up before the next sync.
    pub fn is_full(&self) -> bool {
        self.group.is_full()
    }

    /// The making of a blank segment, if one is wanted. `now` counts from any fixed point.
    pub fn spare_job(&mut self, now: Duration) -> Option<SpareJob<D>> {
        if std::mem::take(&mut self.ahead.failed) {
            self.ahead.due = now + SPARE_RETRY;
        }
        if now < self.ahead.due { None } else { self.wal.spare_job() }
    }

    /// Takes one job up; what it writes is durable after the next [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// The first error of the disk, at once. Nothing may be done after it. That there is no room is
    /// none: the batch waits.
    pub fn take(&mut self, job: Job<D>) -> Result<(), storage::Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.group.jobs += 1;
        match job {
            Job::Write(persist) if self.is_waiting() => self.held.push_back(persist),
            Job::Write(persist) => self.write_or_hold(persist)?,
            Job::Release(meta) => self.group.released.push_back(meta),
            Job::Rest => {
                self.look_again = true;
                if self.room.is_low() && self.wal.has_spare() {
                    self.wal.remove_recyclable()?;
                }
            }
            Job::End => self.group.ended = true,
            Job::Spare(Ok(spare)) => {
                self.wal.add_spare(spare);
                self.look_again = true;
                self.ahead.told = false;
            }
            Job::Spare(Err(error)) => {
                if !std::mem::replace(&mut self.ahead.told, true) {
                    warn!(%error, "no segment made ahead");
                }
                self.ahead.no_room |= error.is_full();
                self.wal.spare_failed();
                self.ahead.failed = true;
            }
        }
        Ok(())
    }

    /// Writes what waited for room, if there may be some by now; to be called after each
    /// [`take`](Self::take) of all that came. Tells whether room is short.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn take_held(&mut self) -> Result<(), storage::Error> {
        if std::mem::take(&mut self.look_again) {
            while let Some(next) = self.held.pop_front() {
                let behind = self.held.len();
                self.write_or_hold(next)?;
                if self.held.len() > behind {
                    break;
                }
            }
        }
        self.ahead.no_room &= !(self.wal.has_spare() && self.wal.has_reserve());
        self.room.set_log(self.ahead.no_room, self.is_waiting());
        Ok(())
    }

    /// Whether batches wait for room.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    fn write_or_hold(&mut self, persist: Persist) -> Result<(), storage::Error> {
        match self.write(&persist) {
            Err(error) if error.may_be_tried_again() => {
                mark(Mark::WriteHeld);
                if mutant(Mutant::HeldWriteCounted) {
                    self.group.written = Some(persist.seq);
                }
                self.held.push_front(persist);
                Ok(())
            }
            done => done,
        }
    }

    fn write(&mut self, persist: &Persist) -> Result<(), storage::Error> {
        let Persist { seq, hard_state, snapshot, entries, messages_after: _ } = persist;
        let received = match snapshot {
            Some(meta) => Some(self.snapshots.finished(meta)?),
            None => None,
        };
        if let Some(received) = &received
            && mutant(Mutant::AdoptEarly)
        {
            self.snapshots.adopt(received.clone())?;
        }
        self.wal.append(*hard_state, snapshot.as_ref(), entries)?;
        self.group.bytes += entries.iter().map(Entry::size_bytes).sum::<usize>();
        self.group.received.extend(received);
        if self.group.written.replace(*seq).is_some() {
            mark(Mark::GroupOfBatches);
        }
        Ok(())
    }

    /// Makes durable what was taken up, and gives the last batch of it, to be reported.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn sync(&mut self) -> Result<Option<PersistSeq>, storage::Error> {
        (self.group.jobs, self.group.bytes) = (0, 0);
        let Some(seq) = self.group.written.take() else { return Ok(None) };
        self.wal.sync()?;
        for received in self.group.received.drain(..) {
            self.snapshots.adopt_received(received)?;
        }
        Ok(Some(seq))
    }

    /// Lets the log begin after the next snapshot that was taken up, and gives it, to be reported.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn release(&mut self) -> Result<Option<SnapshotMeta>, storage::Error> {
        let Some(meta) = self.group.released.pop_front() else { return Ok(None) };
        let written = self.snapshots.finished(&meta)?;
        match self.wal.release(&meta) {
            Err(error) if error.may_be_tried_again() => {
                self.group.released.push_front(meta);
                return Ok(None);
            }
            done => done?,
        }
        self.snapshots.adopt(written)?;
        self.look_again = true;
        Ok(Some(meta))
    }

    /// Writes down that all so far is durable: for when nothing waits.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn vouch(&mut self) -> Result<(), storage::Error> {
        self.wal.vouch()
    }
}

/// The driver's end.
pub struct WalHandle<D: Disk> {
    persister: Arc<Mutex<Persister<D>>>,
    jobs: Sender<Job<D>>,
    /// The last batch that the thread was given, until it reports it.
    given: Option<PersistSeq>,
    /// Ticks since a write on the spot that nobody has vouched for.
    rested_ticks: Option<u32>,
    metrics: Arc<Metrics>,
}

impl<D: Disk> WalHandle<D> {
    /// To the thread that [`run`]s with the same persister and takes these jobs.
    pub fn new(
        persister: Arc<Mutex<Persister<D>>>,
        jobs: Sender<Job<D>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { persister, jobs, given: None, rested_ticks: None, metrics }
    }

    /// Gives the thread a batch. False if it has ended.
    pub fn send(&mut self, persist: Persist) -> bool {
        self.given = Some(persist.seq);
        self.rested_ticks = None;
        self.jobs.send(Job::Write(persist)).is_ok()
    }

    /// A tick has passed. False if the thread has ended.
    pub fn tick(&mut self) -> bool {
        match self.rested_ticks {
            None => true,
            Some(0) => {
                self.rested_ticks = Some(1);
                true
            }
            Some(_) => {
                self.rested_ticks = None;
                self.jobs.send(Job::Rest).is_ok()
            }
        }
    }

    /// The thread has reported every batch up to `seq`.
    pub fn done(&mut self, seq: PersistSeq) {
        self.given = self.given.filter(|given| *given > seq);
    }

    /// Writes `persist` and syncs here and now, if that is quickly done as far as anybody can know.
    /// If not, it is to be sent; after an error of the disk too, so that the thread can say what it
    /// was.
    pub fn write_at_once(&mut self, persist: &Persist) -> Option<Event<Ticket>> {
        let bytes: usize = persist.entries.iter().map(Entry::size_bytes).sum();
        let small = persist.entries.len() <= AT_ONCE_MAX && bytes <= AT_ONCE_BYTES_MAX;
        if self.given.is_some() || !small || persist.snapshot.is_some() {
            return None;
        }
        let mut persister = self.persister.try_lock().ok()?;
        if persister.last_sync > QUICK || !persister.wal.has_room_for(bytes) {
            return None;
        }
        let began = Instant::now();
        let written = persister
            .wal
            .append(persist.hard_state, None, &persist.entries)
            .and_then(|()| persister.wal.sync());
        if let Err(error) = written {
            persister.failed = Some(error);
            return None;
        }
        persister.last_sync = began.elapsed();
        self.metrics.observe_wal_fsync(persister.last_sync);
        self.rested_ticks = Some(0);
        Some(Event::Persisted { seq: persist.seq })
    }
}

/// The log writer's ways to others.
pub struct Channels<D: Disk> {
    /// Its work.
    pub jobs: Receiver<Job<D>>,
    /// The driver.
    pub done: mpsc::Sender<Event<Ticket>>,
    /// The maker of blank segments, who answers with [`Job::Spare`].
    pub spares: Sender<SpareJob<D>>,
    /// For the time that a sync takes.
    pub metrics: Arc<Metrics>,
}

/// Runs until [`Job::End`], or until the driver is gone.
///
/// # Errors
///
/// The first error of the disk, at once.
pub fn run<D: Disk>(
    persister: &Mutex<Persister<D>>,
    ways: &Channels<D>,
) -> Result<(), storage::Error> {
    let start = Instant::now();
    loop {
        if let Some(job) = lock(persister).spare_job(start.elapsed()) {
            // Without its maker, segments are made on the spot.
            let _ = ways.spares.send(job);
        }
        let first = match ways.jobs.recv_timeout(VOUCH_AFTER) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                lock(persister).vouch()?;
                let Ok(job) = ways.jobs.recv() else { return Ok(()) };
                job
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let mut persister = lock(persister);
        persister.take(first)?;
        while !persister.group.is_full()
            && let Ok(job) = ways.jobs.try_recv()
        {
            persister.take(job)?;
        }
        persister.take_held()?;
        let began = Instant::now();
        if let Some(seq) = persister.sync()? {
            persister.last_sync = began.elapsed();
            ways.metrics.observe_wal_fsync(persister.last_sync);
            if ways.done.blocking_send(Event::Persisted { seq }).is_err() {
                return Ok(());
            }
        }
        while let Some(meta) = persister.release()? {
            if ways.done.blocking_send(Event::SnapshotSaved { meta }).is_err() {
                return Ok(());
            }
        }
        if persister.group.ended {
            return persister.vouch();
        }
    }
}

fn lock<D: Disk>(persister: &Mutex<Persister<D>>) -> MutexGuard<'_, Persister<D>> {
    persister.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The maker of blank segments: a thread of its own, since zeroing one takes longer than any
/// append may wait. Looks at the room on the disk too, which may also take a while. Runs until the
/// log writer is gone.
pub fn make_spares<D: Disk>(
    jobs: &Receiver<SpareJob<D>>,
    back: &Sender<Job<D>>,
    disk: &D,
    room: &Room,
) {
    loop {
        match jobs.recv_timeout(LOOK_EVERY) {
            Ok(job) => {
                if back.send(Job::Spare(job.run())).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Ok(free_bytes) = disk.free_bytes() {
            room.see(free_bytes);
        }
        room.tell();
        if room.is_short() && back.send(Job::Rest).is_err() {
            return;
        }
    }
}
