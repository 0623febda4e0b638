//! The snapshot writer: a thread that writes the state as of one revision to disk while later
//! writes go on.
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
use crate::storage::{self, Disk, SnapshotStore};

use super::event::Event;
use super::handle::Ticket;
use super::image;
use super::persister;

/// One snapshot to write.
#[derive(Debug)]
pub struct Job {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The state as of then, pinned.
    pub cursor: SnapshotCursor,
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
                    info!(last = %meta.last, bytes, took_ms, "snapshot written");
                    self.metrics.snapshots_saved.inc();
                    self.persister.send(persister::Job::Release(meta)).is_ok()
                }
                Err(error) => {
                    warn!(last = %meta.last, %error, "snapshot not written");
                    self.done.blocking_send(Event::SnapshotFailed).is_ok()
                }
            };
            if !next {
                return;
            }
        }
    }

    fn write(&self, job: Job) -> Result<u64, Error> {
        let mut writer = self.snapshots.create(&job.meta)?;
        image::export(&self.machine, job.cursor, |piece| writer.write(piece).map_err(Error::from))?;
        Ok(writer.finish()?.bytes)
    }
}

/// Why a snapshot was not written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error(transparent)]
    Export(#[from] kv::SnapshotError),
}
