//! The snapshot writer: writes the state as of one revision to disk while later writes go on.
//!
//! [`Saving`] is one snapshot on its way, a chunk at a time; [`Snapshotter::run`] is the thread
//! that writes them in the real node. A simulator takes the same steps in its own time.
//!
//! The store being multi-version, its state at a revision stays readable for as long as that
//! revision is pinned: the export takes the store's lock for one chunk at a time, and no write
//! ever waits for the disk. The file counts only once the log names it, so the last step is the
//! log writer's.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::kv::{self, Machine, SnapshotCursor};
use crate::metrics::Metrics;
use crate::raft::SnapshotMeta;
use crate::storage::{self, Disk, SnapshotStore, SnapshotWriter};

use super::event::Event;
use super::handle::Ticket;
use super::persister;
use super::snapshot_stream;
use super::throttle::Throttle;

/// One snapshot to write.
#[derive(Debug)]
pub struct Job {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The state as of then, pinned.
    pub cursor: SnapshotCursor,
}

/// One snapshot on its way to the disk. Dropped before its end, it leaves nothing.
pub struct Saving<D: Disk> {
    cursor: SnapshotCursor,
    writer: SnapshotWriter<D>,
}

impl<D: Disk> Saving<D> {
    /// Begins the file.
    ///
    /// # Errors
    ///
    /// When the disk fails or is full. It concerns this snapshot alone.
    pub fn begin(job: Job, snapshots: &SnapshotStore<D>) -> Result<Self, Error> {
        Ok(Self { writer: snapshots.create(&job.meta)?, cursor: job.cursor })
    }

    /// Writes the next chunk of the state of `machine`; false when there is none.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin); or if a snapshot from outside replaced the state meanwhile.
    pub fn write(&mut self, machine: &RwLock<Machine>) -> Result<bool, Error> {
        let Some(chunk) = snapshot_stream::next_chunk(machine, &mut self.cursor)? else {
            return Ok(false);
        };
        self.writer.write(&snapshot_stream::head(&chunk))?;
        self.writer.write(&chunk)?;
        Ok(true)
    }

    /// Makes the file whole and durable, so that the log writer may let it count; its length.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub fn finish(self) -> Result<u64, Error> {
        Ok(self.writer.finish()?.bytes)
    }
}

/// What the snapshot writer needs.
pub struct Snapshotter<D: Disk> {
    /// The state.
    pub machine: Arc<RwLock<Machine>>,
    /// Where snapshots are kept.
    pub snapshots: SnapshotStore<D>,
    /// The log writer, who makes a finished snapshot count.
    pub persister: Sender<persister::Job<D>>,
    /// The driver.
    pub done: mpsc::Sender<Event<Ticket>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl<D: Disk> Snapshotter<D> {
    /// Runs until the senders of `jobs` are gone. A snapshot that cannot be written is given up
    /// and reported: the log still holds everything, and the disk may have room again later.
    pub fn run(self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let (meta, began) = (job.meta.clone(), Instant::now());
            let next = match self.write(job) {
                Ok(bytes) => {
                    let took_ms = began.elapsed().as_millis() as u64;
                    info!(
                        last_index = meta.last.index.0,
                        last_term = meta.last.term.0,
                        bytes,
                        took_ms,
                        "snapshot written"
                    );
                    self.metrics.snapshots_saved.inc();
                    self.metrics.snapshot_save_seconds.observe(began.elapsed().as_secs_f64());
                    self.persister.send(persister::Job::Release(meta)).is_ok()
                }
                Err(error) => {
                    warn!(last_index = meta.last.index.0, %error, "snapshot not written");
                    self.done.blocking_send(Event::SnapshotFailed).is_ok()
                }
            };
            if !next {
                return;
            }
        }
    }

    fn write(&self, job: Job) -> Result<u64, Error> {
        let mut saving = Saving::begin(job, &self.snapshots)?;
        let mut throttle = Throttle::begin();
        while saving.write(&self.machine)? {
            if self.done.is_closed() {
                return Err(Error::Ending);
            }
            throttle.rest();
        }
        saving.finish()
    }
}

/// Why a snapshot was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The node ends, and does not wait.
    #[error("the node is ending")]
    Ending,
    /// The state.
    #[error(transparent)]
    Export(#[from] kv::SnapshotError),
}
