//! Delivery between members: carries [`Message`]s between members over `raft.v1.Raft`.
//!
//! Delivers what it can and drops what it must: Raft tolerates loss, so nothing here retries a
//! message, and every queue is bounded. What it does promise is *order within a kind* (entries
//! follow entries while a connection lives), *prompt news of a death* ([`Delivery::PeerLost`]
//! within milliseconds of a reset), and that nothing unchecked reaches the core (`codec`).
//!
//! # Lanes
//!
//! A member opens connections of its own to each peer, so that bulk never delays what keeps a
//! leader in office:
//!
//! | lane | carries out | and back | bound | when full |
//! |---|---|---|---|---|
//! | control | heartbeats | their replies | [`Config::control`] | dropped |
//! | control | votes, `TimeoutNow` | votes | 16 calls | dropped |
//! | control | proposals and reads for the leader | their answers | [`Config::bulk`] | dropped |
//! | bulk | entries | `Appended`, `Rejected` | [`Config::bulk`] | dropped |
//! | snapshot, on demand | chunks | a receipt | 2 chunks and the HTTP/2 window | reader waits |
//!
//! So there are two connections of each lane between two members, and any of them may be missing. A
//! message takes the one that `route` prefers, or another that stands: only a snapshot needs one
//! that this side dialled. A peer is lost when the last control connection is.
//!
//! What comes in is checked in the task that reads the socket and handed straight to the
//! [`Inbox`]; when the inbox is busy, that stream is not read on, and HTTP/2 holds the sender
//! back.
//!
//! # Tasks
//!
//! Nothing is spawned here: [`start`] is given a function that does, and calls it for the three
//! lanes of each peer. Inbound streams live in the tasks of their connections.
//!
//! | task | per | ends |
//! |---|---|---|
//! | `control` | peer | when the peer is removed or the transport closed |
//! | `bulk` | peer | likewise |
//! | `snapshot` | peer | likewise |
//!
//! # What is deliberately absent
//!
//! It knows neither storage nor the node: where snapshots are kept is behind [`Snapshots`].
//! TLS has its seams: on the way out in `dial::endpoint`, on the way in where the application
//! gives [`server_builder`] its listener.

mod decode;
mod detour;
mod dial;
mod encode;
mod instance;
mod log;
mod peers;
mod queue;
pub mod route;
mod server;
mod session;
mod snapshot;
#[cfg(any(test, feature = "sim"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tonic::transport::Server;
use tracing::info;

use crate::proto::raft::raft_server::RaftServer;
use crate::raft::message::Message;
use crate::raft::types::{Index, NodeId, SnapshotMeta};

pub use dial::describe;
pub use instance::PeerRejection;
use peers::{Peer, Peers};
pub use queue::Bounds;
pub use server::Service;

/// The decoder and what it is the counterpart of, for tests that throw bytes at them.
#[cfg(feature = "sim")]
pub mod bare {
    pub use super::decode::{Decoder, Error, ITEMS_MAX, snapshot};
    pub use super::encode::{Call, Frame, encode, route, snapshot_header};
}

/// Streams that one connection may open: a peer needs three, and a few for votes.
const STREAMS_MAX: u32 = 256;
/// What may be under way unread, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Large frames cost fewer headers.
const HTTP2_FRAME_BYTES: u32 = 1 << 20;
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Streams reset for the other side's errors before its connection is closed.
const ERROR_RESETS_MAX: usize = 1024;
/// Streams reset by the peer before they were taken up: calls that it gave up, which is lawful.
/// Bounds what such streams hold until the connection's task has read what there was.
const PENDING_RESETS_MAX: usize = 4096;
/// Dials, votes and probes are given this many of the longest election time-outs, and no more than
/// so long.
const PATIENCE_TIMEOUTS: u32 = 2;
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// What the transport tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A peer said this. [`Body::InstallSnapshot`](crate::raft::message::Body::InstallSnapshot)
    /// comes once its content is stored.
    Message(Message),
    /// A control connection that this member dialled stands.
    PeerReached {
        /// With whom.
        peer: NodeId,
        /// Where it was dialled.
        address: String,
    },
    /// The last connection with this peer broke, of those by which messages reach it. At most once
    /// per breakage, and not for dials that fail.
    PeerLost(NodeId),
    /// A peer that calls says who it is.
    Introduced {
        /// Which it is.
        from: NodeId,
        /// What it says.
        introduction: Introduction,
    },
    /// A peer will not speak with this member again.
    PeerRejection {
        /// Which it is.
        by: NodeId,
        /// Why.
        why: PeerRejection,
    },
    /// The sending of a snapshot ended.
    SnapshotSent {
        /// To whom it went.
        to: NodeId,
        /// Its last index; zero when there was none to send.
        upto: Index,
        /// Whether the receiver has stored it.
        ok: bool,
    },
}

/// What members tell each other about themselves, for people and clients. Decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// How the member is called.
    pub name: String,
    /// Where clients reach it, `host:port`.
    pub client_addr: String,
}

impl Introduction {
    /// Longer names and addresses are not believed.
    pub const BYTES_MAX: usize = 512;
}

/// Takes what the transport tells.
pub trait Inbox: Clone + Send + Sync + 'static {
    /// Hands over. Waits while the taker is busy: that is what slows a peer down.
    fn deliver(&self, delivery: Delivery) -> impl Future<Output = ()> + Send;

    /// The way to `peer` and back took so long.
    fn round_trip(&self, _peer: NodeId, _took: Duration) {}

    /// Whether `peer` may be spoken with as `instance`, if it says which it is: the first `member`
    /// that is met under an id is the only one, and is remembered durably before this returns.
    fn meets(&self, _peer: NodeId, _instance: Option<u64>, _member: bool) -> bool {
        true
    }
}

/// Where snapshots come from and go to. Files are read and written off the event loop: that is
/// the implementor's business.
pub trait Snapshots: Clone + Send + Sync + 'static {
    /// Reads one.
    type Source: SnapshotSource;
    /// Writes one.
    type Sink: SnapshotSink;

    /// The newest snapshot, if there is any.
    fn newest(
        &self,
    ) -> impl Future<Output = io::Result<Option<(SnapshotMeta, Self::Source)>>> + Send;

    /// Makes room for a snapshot that comes in. Dropped unfinished, it leaves nothing behind.
    fn receive(&self, meta: &SnapshotMeta) -> impl Future<Output = io::Result<Self::Sink>> + Send;
}

/// The content of a snapshot, read in order.
pub trait SnapshotSource: Send + 'static {
    /// The next piece, at most `bytes_max` and never empty; nothing after the last.
    fn next(&mut self, bytes_max: usize) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// The content of a snapshot, written in order.
pub trait SnapshotSink: Send + 'static {
    /// Takes the next piece.
    fn write(&mut self, piece: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes the whole durable.
    fn finish(self) -> impl Future<Output = io::Result<()>> + Send;
}

/// A task's work.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts a task of this name. A task of the transport never panics unless there is a bug.
pub type Spawn = Arc<dyn Fn(&'static str, Work) -> AbortHandle + Send + Sync>;

/// What the transport goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster: frames of any other are refused.
    pub cluster: u64,
    /// This member.
    pub me: NodeId,
    /// Tells this member's data directory from any other of the same id; zero is not told.
    pub instance: u64,
    /// What the peers are told about this member.
    pub introduction: Introduction,
    /// What may wait in a control stream.
    pub control: Bounds,
    /// What may wait in a bulk or forwarding stream. Must exceed the core's in-flight window.
    pub bulk: Bounds,
    /// The largest frame, either way.
    pub frame_bytes_max: usize,
    /// The wait before the first redial; doubles up to `redial_max`. Both are jittered by half.
    pub redial_min: Duration,
    /// The longest wait between dials.
    pub redial_max: Duration,
    /// A dial, its greeting included, takes no longer.
    pub dial_timeout: Duration,
    /// A silent connection is probed this often, and given up after `keepalive_timeout`.
    pub keepalive_interval: Duration,
    /// How long a probe may stay unanswered.
    pub keepalive_timeout: Duration,
    /// The way to a peer and back is measured this often.
    pub ping_interval: Duration,
    /// A vote that is not answered by then is not coming.
    pub vote_timeout: Duration,
    /// The size of the pieces that a snapshot travels in.
    pub snapshot_chunk_bytes: usize,
    /// What a snapshot may take of the link to one peer, if limited: it shares its thread with
    /// consensus.
    pub snapshot_bytes_per_second: Option<u64>,
    /// A snapshot that makes no progress for so long is given up, by either side.
    pub snapshot_stall_timeout: Duration,
}

impl Config {
    /// The defaults, for the member `me` of `cluster`.
    pub fn new(cluster: u64, me: NodeId) -> Self {
        Self {
            cluster,
            me,
            instance: 0,
            introduction: Introduction::default(),
            control: Bounds { frames_max: 256, bytes_max: 1 << 20 },
            bulk: Bounds { frames_max: 4096, bytes_max: 32 << 20 },
            frame_bytes_max: 16 << 20,
            redial_min: Duration::from_millis(10),
            redial_max: Duration::from_millis(500),
            dial_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(1),
            vote_timeout: Duration::from_secs(1),
            snapshot_chunk_bytes: 256 << 10,
            snapshot_bytes_per_second: Some(96 << 20),
            snapshot_stall_timeout: Duration::from_secs(10),
        }
    }

    /// Suits the limits of dials, votes and probes to a network for which the longest election
    /// time-out is `election_timeout`: where that was raised for the sake of long round trips, they
    /// take several.
    pub fn be_patient(&mut self, election_timeout: Duration) {
        let patience = (election_timeout * PATIENCE_TIMEOUTS).min(PATIENCE_MAX);
        self.dial_timeout = self.dial_timeout.max(patience);
        self.vote_timeout = self.vote_timeout.max(patience);
        self.keepalive_timeout = self.keepalive_timeout.max(patience);
    }
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed to a stream.
    pub sent: u64,
    /// Messages delivered to the inbox.
    pub received: u64,
    /// Messages dropped because no connection stood.
    pub unreachable: u64,
    /// Messages dropped because a queue was full.
    pub overflowed: u64,
    /// Messages dropped because no frame may be so large.
    pub oversized: u64,
    /// Streams and calls refused, or closed, for what they said.
    pub refused: u64,
    /// Connections tried.
    pub dials: u64,
    /// Connections tried in vain.
    pub dials_failed: u64,
    /// Breakages reported.
    pub peers_lost: u64,
    /// Snapshots that a peer has stored.
    pub snapshots_sent: u64,
    /// Snapshots that did not reach their peer whole.
    pub snapshots_failed: u64,
    /// Snapshots stored for a peer.
    pub snapshots_received: u64,
}

/// What went to one peer since it became one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCounts {
    /// Which it is.
    pub id: NodeId,
    /// Whether this member's control connection to it stands.
    pub connected: bool,
    /// Bytes of the messages handed to a stream, without frames.
    pub sent_bytes: u64,
    /// Messages dropped, for whatever reason.
    pub send_failures: u64,
    /// Breakages reported.
    pub losses: u64,
}

/// Makes a peer of a guest: it is dialled at this address from now on.
type StartLanes = Arc<dyn Fn(&Arc<Peer>, String) + Send + Sync>;

/// The way to the peers. A handle: clones share everything.
#[derive(Clone)]
pub struct Transport {
    hub: Arc<Peers>,
    start_lanes: StartLanes,
}

/// Starts to dial `peers` (this member among them is passed over), and gives the handle to send
/// by, and the service by which the peers reach this member, for the peer port.
pub fn start<I: Inbox, S: Snapshots>(
    config: Config,
    peers: impl IntoIterator<Item = (NodeId, String)>,
    inbox: I,
    snapshots: S,
    spawn: Spawn,
) -> (Transport, RaftServer<Service<I, S>>) {
    let frame_bytes_max = config.frame_bytes_max;
    let hub = Arc::new(Peers::new(config));
    let service = Service::new(Arc::clone(&hub), inbox.clone(), snapshots.clone());
    let server = RaftServer::new(service)
        .max_decoding_message_size(frame_bytes_max)
        .max_encoding_message_size(frame_bytes_max);
    let start_lanes = {
        let hub = Arc::clone(&hub);
        move |peer: &Arc<Peer>, addr| {
            let inputs = peer.settle(addr);
            let lanes = session::lanes(&hub, peer, inputs, &inbox, &snapshots);
            peer.keep_tasks(lanes.into_iter().map(|(name, work)| spawn(name, work)));
        }
    };
    let transport = Transport { hub, start_lanes: Arc::new(start_lanes) };
    transport.update_peers(peers);
    (transport, server)
}

impl Transport {
    /// Sends, or drops and counts it: when the peer is not reached, or slow. Never waits.
    pub fn send(&self, message: Message) {
        self.hub.send(message);
    }

    /// Starts to stream the newest snapshot to `to`, in the term in which this member last sent
    /// it entries or heartbeats. The outcome comes as [`Delivery::SnapshotSent`]; a request made
    /// while one is waiting or under way shares that one's.
    pub fn send_snapshot(&self, to: NodeId) {
        if let Some(peer) = self.hub.peer(to) {
            // Full: one is waiting already, and its outcome will do.
            let _ = peer.snapshots.try_send(peer.led_term());
        }
    }

    /// Makes `peers` the members that are dialled: starts and ends lanes, and closes the streams of
    /// those no longer among them. A changed address counts as another peer; a guest that becomes a
    /// member keeps its streams.
    pub fn update_peers(&self, peers: impl IntoIterator<Item = (NodeId, String)>) {
        if self.hub.is_closed() {
            return;
        }
        let me = self.hub.config.me;
        let wanted: Vec<_> = peers.into_iter().filter(|(id, _)| *id != me).collect();
        self.hub.change(|table| {
            table.retain(|id, peer| {
                let Some(addr) = peer.addr() else { return true };
                let stays = wanted.iter().any(|(w, wanted)| w == id && wanted == addr);
                if !stays {
                    info!(peer = id.get(), addr, "peer removed");
                    peer.close();
                }
                stays
            });
            for (id, addr) in wanted {
                let peer = table.entry(id).or_insert_with(|| Arc::new(Peer::new(id)));
                if peer.addr().is_none() {
                    (self.start_lanes)(peer, addr);
                }
            }
        });
    }

    /// Members that were removed for good: each is told so when it calls.
    pub fn set_removed(&self, removed: BTreeSet<NodeId>) {
        self.hub.set_removed(removed);
    }

    /// Whether this member's control connection to `peer` stands.
    pub fn connected(&self, peer: NodeId) -> bool {
        self.hub.peer(peer).is_some_and(|peer| peer.is_connected())
    }

    /// What happened so far.
    pub fn counters(&self) -> Counts {
        self.hub.counters.read()
    }

    /// What went to each peer so far.
    pub fn peer_counters(&self) -> Vec<PeerCounts> {
        self.hub.peer_counts()
    }

    /// Ends all lanes and streams: the peers notice at once, and the peer port can drain.
    pub fn close(&self) {
        self.hub.close();
    }
}

/// The settings of the peer port: every limit that the library leaves open is set. What it
/// cannot set is `TCP_NODELAY` on connections from a listener that it is given: whoever makes
/// the listener must, or each reply waits up to 40 ms for an acknowledgement.
pub fn server_builder(config: &Config) -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
}
