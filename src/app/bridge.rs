//! Where rooms that do not know each other meet: the transport's deliveries become the driver's
//! events, and the storage's snapshot files become what the transport streams.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::node::driver::Outbox;
use crate::node::received::Receiving;
use crate::node::{Event, Members, PeerTable, Ticket};
use crate::raft::{Message, NodeId, SnapshotMeta};
use crate::storage::{Disk, PeerIncarnations, RealDisk, SnapshotReader, SnapshotStore};
use crate::transport::{
    Delivery, Inbox, PeerRejection, SnapshotSink, SnapshotSource, Snapshots, Transport,
};

use super::advice::Advice;
use super::exit;
use super::round_trips::RoundTrips;

/// The way from the transport to the driver, to the list of members, and to the end of it all.
#[derive(Clone)]
pub(super) struct DriverInbox {
    events: mpsc::Sender<Event<Ticket>>,
    members: Members,
    instances: Arc<Mutex<PeerIncarnations<RealDisk>>>,
    rejections: watch::Sender<Option<PeerRejection>>,
    advice: Arc<Advice>,
    round_trips: Arc<RoundTrips>,
}

impl DriverInbox {
    pub(super) fn new(
        events: mpsc::Sender<Event<Ticket>>,
        members: Members,
        instances: PeerIncarnations<RealDisk>,
        rejections: watch::Sender<Option<PeerRejection>>,
        advice: Advice,
        round_trips: RoundTrips,
    ) -> Self {
        let (instances, advice) = (Arc::new(Mutex::new(instances)), Arc::new(advice));
        let round_trips = Arc::new(round_trips);
        Self { events, members, instances, rejections, advice, round_trips }
    }
}

impl Inbox for DriverInbox {
    async fn deliver(&self, delivery: Delivery) {
        let event = match delivery {
            Delivery::Message(message) => Event::Message(message),
            Delivery::PeerReached { peer, address } => Event::PeerReached { peer, address },
            Delivery::PeerLost(peer) => Event::PeerLost(peer),
            Delivery::Introduced { from, introduction } => {
                self.members.introduce(from, introduction.name, introduction.client_addr);
                return;
            }
            Delivery::PeerRejection { by, why } => {
                warn!(peer = by.get(), ?why, "a peer will not speak with this member again");
                self.rejections.send_replace(Some(why));
                return;
            }
            Delivery::SnapshotSent { to, upto, ok } => Event::SnapshotSent { to, upto, ok },
        };
        // The driver is gone only when the process is ending.
        drop(self.events.send(event).await);
    }

    fn round_trip(&self, peer: NodeId, took: Duration) {
        self.round_trips.observe(peer, took);
    }

    /// Waits for the disk when a member is met for the first time ever, and only then.
    fn meets(&self, peer: NodeId, instance: Option<u64>, member: bool) -> bool {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        match instances.meet(peer, instance, member) {
            Ok(same) => same,
            Err(error) => exit::fatal(exit::of_storage(&error), &self.advice.on_storage(&error)),
        }
    }
}

/// The way from the driver to the transport.
pub(super) struct TransportOutbox {
    transport: Transport,
    members: Members,
}

impl TransportOutbox {
    pub(super) fn new(transport: Transport, members: Members) -> Self {
        Self { transport, members }
    }
}

impl Outbox for TransportOutbox {
    fn send(&self, message: Message) {
        self.transport.send(message);
    }

    fn send_snapshot(&self, to: NodeId) {
        self.transport.send_snapshot(to);
    }

    fn set_peers(&self, table: PeerTable) {
        self.members.set(&table.configuration);
        self.transport.set_removed(table.removed);
        self.transport.update_peers(table.peers);
    }
}

/// Snapshot files, read and written on threads that may wait for the disk.
pub(super) struct SnapshotFiles<D: Disk>(SnapshotStore<D>);

impl<D: Disk> SnapshotFiles<D> {
    pub(super) fn new(store: SnapshotStore<D>) -> Self {
        Self(store)
    }
}

impl<D: Disk> Clone for SnapshotFiles<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> Snapshots for SnapshotFiles<D> {
    type Source = Source<D>;
    type Sink = Sink<D>;

    async fn newest(&self) -> io::Result<Option<(SnapshotMeta, Source<D>)>> {
        let store = self.0.clone();
        let reader = off_loop(move || store.read().map_err(io::Error::other)).await?;
        Ok(reader.map(|reader| {
            let meta = reader.info().meta.clone();
            (meta, Source { reader: Some(reader), rest: Bytes::new() })
        }))
    }

    async fn receive(&self, meta: &SnapshotMeta) -> io::Result<Sink<D>> {
        let (store, meta) = (self.0.clone(), meta.clone());
        let file = off_loop(move || Receiving::begin(&store, &meta).map_err(io::Error::other));
        Ok(Sink { file: Some(file.await?) })
    }
}

/// A snapshot being read. The reader is away while a thread reads.
pub(super) struct Source<D: Disk> {
    reader: Option<SnapshotReader<D>>,
    /// What is left of the last chunk.
    rest: Bytes,
}

impl<D: Disk> SnapshotSource for Source<D> {
    async fn next(&mut self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        if self.rest.is_empty() {
            let Some(mut reader) = self.reader.take() else { return Ok(None) };
            let (reader, chunk) = off_loop(move || {
                let chunk = reader.next_chunk().map_err(io::Error::other)?;
                Ok((reader, chunk))
            })
            .await?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.reader = Some(reader);
            self.rest = chunk;
        }
        Ok(Some(self.rest.split_to(bytes_max.min(self.rest.len()))))
    }
}

/// A snapshot being written. The file is away while a thread writes.
pub(super) struct Sink<D: Disk> {
    file: Option<Receiving<D>>,
}

impl<D: Disk> Sink<D> {
    fn file(&mut self) -> io::Result<Receiving<D>> {
        self.file.take().ok_or_else(|| io::Error::other("an earlier write failed"))
    }
}

impl<D: Disk> SnapshotSink for Sink<D> {
    async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        let mut file = self.file()?;
        let file = off_loop(move || {
            file.write(&piece).map_err(io::Error::other)?;
            Ok(file)
        })
        .await?;
        self.file = Some(file);
        Ok(())
    }

    async fn finish(mut self) -> io::Result<()> {
        let file = self.file()?;
        off_loop(move || file.finish().map(drop).map_err(io::Error::other)).await
    }
}

/// Runs what may wait for a disk where nobody waits for it.
async fn off_loop<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
