//! Snapshots on their way: out of a [`SnapshotSource`], into a [`SnapshotSink`].
//!
//! Memory is bounded whatever the size: two pieces wait here, and HTTP/2 lets no more than its
//! window be under way, since the receiver reads on only when its sink has taken a piece. Each
//! piece says where it belongs and what it sums to, and the last frame tells a whole snapshot
//! from one cut short; the receiver's core hears of it only once it is stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::decode::{self, Decoder, Error};
use super::encode::snapshot_header;
use super::log::Line;
use super::peers::{Peer, Peers};
use super::session::explain;
use super::{Config, Delivery, Inbox, SnapshotSink, SnapshotSource, Snapshots, dial, instance};
use crate::proto::raft as wire;
use crate::proto::raft::snapshot_frame::Body;
use crate::raft::message::Message;
use crate::raft::types::{Index, Term};

/// Pieces read ahead of the socket.
const PIECES_WAITING_MAX: usize = 2;
/// Making a snapshot durable may take this many times as long as a piece of it.
const FINISH_STALLS: u32 = 6;

/// The snapshot lane to `peer`: sends the newest at each request. Never ends by itself.
pub async fn lane<I: Inbox, S: Snapshots>(
    hub: Arc<Peers>,
    peer: Arc<Peer>,
    inbox: I,
    snapshots: S,
    mut requests: mpsc::Receiver<Term>,
) {
    let outgoing = Outgoing { hub: &hub, peer: &peer };
    let mut next = None;
    loop {
        let asked = match next.take() {
            Some(term) => Some(term),
            None => requests.recv().await,
        };
        let Some(term) = asked else { return };
        let began = Instant::now();
        let (upto, sent) = outgoing.send(&snapshots, term).await;
        let (to, took_ms) = (peer.id, began.elapsed().as_millis() as u64);
        match &sent {
            Ok(bytes) => {
                hub.counters.snapshots_sent.add();
                info!(peer = to.get(), last_index = upto.0, bytes, took_ms, "snapshot sent");
            }
            Err(why) => {
                hub.counters.snapshots_failed.add();
                if hub.log.admits(to, Line::SnapshotNotSent) {
                    warn!(peer = to.get(), last_index = upto.0, took_ms, why, "snapshot not sent");
                }
            }
        }
        // Asked for again meanwhile: one outcome serves both, but for a leader of a later term.
        next = requests.try_recv().ok().filter(|later| *later > term);
        inbox.deliver(Delivery::SnapshotSent { to, upto, ok: sent.is_ok() }).await;
    }
}

struct Outgoing<'a> {
    hub: &'a Peers,
    peer: &'a Peer,
}

impl Outgoing<'_> {
    async fn send<S: Snapshots>(&self, snapshots: &S, term: Term) -> (Index, Result<u64, String>) {
        match snapshots.newest().await {
            Ok(Some((meta, source))) => {
                if self.hub.log.admits(self.peer.id, Line::SnapshotBegun) {
                    let (peer, last_index) = (self.peer.id.get(), meta.last.index.0);
                    info!(peer, last_index, "sending a snapshot");
                }
                let header = snapshot_header(term, &meta);
                (meta.last.index, self.stream(header, source).await)
            }
            Ok(None) => (Index(0), Err("there is none".to_owned())),
            Err(error) => (Index(0), Err(error.to_string())),
        }
    }

    /// Streams the content; gives its size once the receiver has stored it.
    async fn stream<R: SnapshotSource>(
        &self,
        header: wire::SnapshotHeader,
        source: R,
    ) -> Result<u64, String> {
        let config = &self.hub.config;
        let mut client = dial::connect(config, self.peer.addr()).await?;
        let (frames, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let feed = Feed { config, route: self.hub.route(self.peer.id), frames };
        let feeding = feed.run(header, source);
        let pieces = instance::signed(ReceiverStream::new(receiver), config.instance);
        let answer = client.install_snapshot(pieces);
        tokio::pin!(feeding, answer);
        let bytes = tokio::select! {
            bytes = &mut feeding => bytes?,
            early = &mut answer => return Err(match early {
                Ok(_) => "the receiver was done before the end".to_owned(),
                Err(status) => explain(&status),
            }),
        };
        match timeout(config.snapshot_stall_timeout * FINISH_STALLS, answer).await {
            Ok(Ok(_)) => Ok(bytes),
            Ok(Err(status)) => Err(explain(&status)),
            Err(_) => Err("the receiver does not finish".to_owned()),
        }
    }
}

/// The end of the request stream that pieces go into.
struct Feed<'a> {
    config: &'a Config,
    route: wire::Route,
    frames: mpsc::Sender<wire::SnapshotFrame>,
}

impl Feed<'_> {
    async fn run<R: SnapshotSource>(
        self,
        header: wire::SnapshotHeader,
        mut source: R,
    ) -> Result<u64, String> {
        let began = Instant::now();
        self.push(Body::Header(header)).await?;
        let mut offset = 0;
        loop {
            let piece = source.next(self.config.snapshot_chunk_bytes).await;
            let Some(data) = piece.map_err(|error| error.to_string())? else {
                break;
            };
            let (crc, size) = (crc32fast::hash(&data), data.len() as u64);
            self.push(Body::Chunk(wire::SnapshotChunk { offset, crc, data })).await?;
            offset += size;
            if let Some(rate) = self.config.snapshot_bytes_per_second {
                sleep_until(began + Duration::from_secs_f64(offset as f64 / rate as f64)).await;
            }
        }
        self.push(Body::End(wire::SnapshotEnd { bytes: offset })).await?;
        Ok(offset)
    }

    async fn push(&self, body: Body) -> Result<(), String> {
        let frame = wire::SnapshotFrame { route: Some(self.route), body: Some(body) };
        match timeout(self.config.snapshot_stall_timeout, self.frames.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the stream closed".to_owned()),
            Err(_) => Err("the receiver takes nothing in".to_owned()),
        }
    }
}

/// A snapshot that comes in.
pub struct Incoming<'a> {
    /// What is shared.
    pub hub: &'a Peers,
    /// The sender.
    pub peer: &'a Peer,
    /// Its decoder.
    pub decoder: Decoder,
}

impl Incoming<'_> {
    /// Stores the snapshot that `first` announces and `inbound` brings; gives the message that
    /// says so.
    pub async fn receive<S: Snapshots>(
        &self,
        snapshots: &S,
        first: wire::SnapshotFrame,
        mut inbound: Streaming<wire::SnapshotFrame>,
    ) -> Result<Message, Status> {
        let Some(Body::Header(header)) = first.body else {
            return Err(self.refuse(Error::Missing("header")));
        };
        let (term, meta) = decode::snapshot(&header).map_err(|error| self.refuse(error))?;
        let _one_at_a_time = self
            .hub
            .receiving
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being received"))?;
        let began = Instant::now();
        let mut sink = snapshots.receive(&meta).await.map_err(|error| not_stored(&error))?;
        let bytes = self.store(&mut sink, &mut inbound).await?;
        sink.finish().await.map_err(|error| not_stored(&error))?;
        self.hub.counters.snapshots_received.add();
        let took_ms = began.elapsed().as_millis() as u64;
        info!(
            peer = self.peer.id.get(),
            last_index = meta.last.index.0,
            bytes,
            took_ms,
            "snapshot received"
        );
        Ok(self.decoder.installed(term, meta))
    }

    async fn store<W: SnapshotSink>(
        &self,
        sink: &mut W,
        inbound: &mut Streaming<wire::SnapshotFrame>,
    ) -> Result<u64, Status> {
        let mut stored = 0;
        loop {
            let frame = timeout(self.hub.config.snapshot_stall_timeout, inbound.message())
                .await
                .map_err(|_| Status::deadline_exceeded("the sender sends nothing"))??
                .ok_or_else(|| Status::data_loss("cut short"))?;
            self.decoder.admit(frame.route.as_ref()).map_err(|error| self.refuse(error))?;
            match frame.body.ok_or_else(|| self.refuse(Error::Missing("body")))? {
                Body::Chunk(chunk) => {
                    if chunk.offset != stored || chunk.data.is_empty() {
                        let before = stored;
                        let found = chunk.offset;
                        return Err(self.refuse(Error::Disorder { what: "piece", before, found }));
                    }
                    if crc32fast::hash(&chunk.data) != chunk.crc {
                        return Err(Status::data_loss(format!("piece at {stored} is damaged")));
                    }
                    stored += chunk.data.len() as u64;
                    sink.write(chunk.data).await.map_err(|error| not_stored(&error))?;
                }
                Body::End(end) if end.bytes == stored => return Ok(stored),
                Body::End(end) => {
                    let text = format!("{stored} bytes came of {}", end.bytes);
                    return Err(Status::data_loss(text));
                }
                Body::Header(_) => return Err(self.refuse(Error::Missing("piece after header"))),
            }
        }
    }

    fn refuse(&self, error: Error) -> Status {
        self.hub.counters.refused.add();
        error.into()
    }
}

fn not_stored(error: &std::io::Error) -> Status {
    Status::internal(format!("not stored: {error}"))
}
