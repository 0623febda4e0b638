//! The log writer: a thread that makes batches durable, as many as wait with one `fdatasync`
//! (group commit), and reports the last one done.
//!
//! An error ends it, and with it the process: after a failed write or sync nobody knows what the
//! disk holds, and a retry that succeeds proves nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use crate::metrics::Metrics;
use crate::raft::{Persist, PersistSeq, SnapshotMeta};
use crate::storage::{self, Disk, SnapshotInfo, SnapshotStore, Spare, SpareJob, Wal};

use super::event::Event;
use super::handle::Ticket;

/// Work for the log writer.
pub enum Job<D: Disk> {
    /// Append and sync this batch.
    Write(Persist),
    /// This snapshot is durable: record so, and recycle the log below it.
    Release(SnapshotMeta),
    /// A blank segment, or why there is none.
    Spare(Result<Spare<D>, storage::Error>),
    /// Nothing more will come. The maker of segments and the writer hold each other's senders, so
    /// neither would end by itself.
    End,
}

/// Batches under one sync. Bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 256;

/// How soon another blank segment is tried for after one could not be made: on a full disk every
/// try takes the room that appends still need.
const SPARE_RETRY: Duration = Duration::from_secs(10);

/// The log writer's ways to others.
pub struct Ways<D: Disk> {
    /// Its work.
    pub jobs: Receiver<Job<D>>,
    /// The snapshots, whose files the log makes count.
    pub snapshots: SnapshotStore<D>,
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
pub fn run<D: Disk>(mut wal: Wal<D>, ways: &Ways<D>) -> Result<(), storage::Error> {
    let mut spare_due = Instant::now();
    loop {
        if Instant::now() >= spare_due
            && let Some(job) = wal.spare_job()
        {
            // Without its maker, segments are made on the spot.
            let _ = ways.spares.send(job);
        }
        let first = if let Ok(job) = ways.jobs.try_recv() {
            job
        } else {
            // Nothing waits: the moment to write down that all so far is durable.
            wal.vouch()?;
            let Ok(job) = ways.jobs.recv() else { return Ok(()) };
            job
        };
        let group = write_group(&mut wal, first, ways)?;
        if group.spare_failed {
            spare_due = Instant::now() + SPARE_RETRY;
        }
        if let Some(seq) = group.written {
            let began = Instant::now();
            wal.sync()?;
            ways.metrics.observe_wal_fsync(began.elapsed());
            for received in group.received {
                ways.snapshots.adopt(received)?;
            }
            if ways.done.blocking_send(Event::Persisted { seq }).is_err() {
                return Ok(());
            }
        }
        for meta in group.released {
            let written = ways.snapshots.finished(&meta)?;
            wal.release(&meta)?;
            ways.snapshots.adopt(written)?;
            if ways.done.blocking_send(Event::SnapshotSaved { meta }).is_err() {
                return Ok(());
            }
        }
        if group.ended {
            return Ok(());
        }
    }
}

/// What was taken up together.
#[derive(Default)]
struct Group {
    written: Option<PersistSeq>,
    /// Snapshots at which the log restarts.
    received: Vec<SnapshotInfo>,
    /// Snapshots of our own.
    released: Vec<SnapshotMeta>,
    spare_failed: bool,
    ended: bool,
}

/// Appends `first` and whatever waits behind it.
fn write_group<D: Disk>(
    wal: &mut Wal<D>,
    first: Job<D>,
    ways: &Ways<D>,
) -> Result<Group, storage::Error> {
    let mut group = Group::default();
    let mut next = Some(first);
    let mut taken = 0;
    while let Some(job) = next {
        match job {
            Job::Write(persist) => {
                if let Some(meta) = &persist.snapshot {
                    group.received.push(ways.snapshots.finished(meta)?);
                }
                wal.append(persist.hard_state, persist.snapshot.as_ref(), &persist.entries)?;
                group.written = Some(persist.seq);
            }
            Job::Release(meta) => group.released.push(meta),
            Job::End => group.ended = true,
            Job::Spare(Ok(spare)) => wal.add_spare(spare),
            Job::Spare(Err(error)) => {
                warn!(%error, "no segment made ahead");
                wal.spare_failed();
                group.spare_failed = true;
            }
        }
        taken += 1;
        next = if taken < GROUP_MAX { ways.jobs.try_recv().ok() } else { None };
    }
    Ok(group)
}

/// The maker of blank segments: a thread of its own, since zeroing one takes longer than any
/// append may wait. Runs until the log writer is gone.
pub fn make_spares<D: Disk>(jobs: &Receiver<SpareJob<D>>, back: &Sender<Job<D>>) {
    while let Ok(job) = jobs.recv() {
        if back.send(Job::Spare(job.run())).is_err() {
            return;
        }
    }
}
