//! The two threads that serve sockets: consensus with the peer port, and the client port.

use std::net::TcpListener;
use std::sync::mpsc as thread_channel;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{error, info};

use crate::api::Underway;
use crate::config::Config;
use crate::metrics::{self, Metrics};
use crate::node::driver::{Driver, DriverParts};
use crate::node::{Event, Handle, Ticket, read_batcher};
use crate::storage::{PeerIncarnations, RealDisk, SnapshotStore};
use crate::transport::{PeerRejection, Transport};
use crate::{admin, api, server, transport};

use super::accept::Incoming;
use super::advice::Advice;
use super::bridge::{DriverInbox, SnapshotFiles, TransportOutbox};
use super::connections::Connections;
use super::descriptors::Shares;
use super::round_trips::RoundTrips;
use super::start::{StartError, start_thread};
use super::{REQUESTS_MAX, RESPONSE_WORK_MAX};
use super::{memory, publish};

/// What the way to the peers is made of.
pub(super) struct Network {
    pub(super) messages: mpsc::Sender<Event<Ticket>>,
    pub(super) snapshots: SnapshotStore<RealDisk>,
    pub(super) instances: PeerIncarnations<RealDisk>,
    pub(super) rejections: watch::Sender<Option<PeerRejection>>,
    /// Told the transport once there is one, for the metrics.
    pub(super) made: Arc<OnceLock<Transport>>,
}

/// The thread of the driver, the transport and the peer port.
pub(super) struct Consensus {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Consensus {
    pub(super) fn start(
        config: &Config,
        listener: TcpListener,
        handle: &Handle,
        network: Network,
        driver: DriverParts<RealDisk>,
    ) -> Result<Self, StartError> {
        let runtime = runtime(Builder::new_current_thread())?;
        let counts = driver.metrics.peers.clone();
        let connections = Connections::new("peers", Shares::of_process().peers, counts);
        let incoming =
            Incoming::<TcpConnectInfo>::new(&runtime, listener, connections, |stream, _| {
                stream.connect_info()
            })?;
        let mut transport_config =
            transport::Config::new(driver.identity.cluster_id, driver.identity.node_id);
        transport_config.introduction = transport::Introduction {
            name: config.node_name.clone(),
            client_addr: config.client_advertise.clone(),
        };
        transport_config.instance = network.instances.own();
        let advice = Advice::new(config);
        transport_config.be_patient(Duration::from_millis(config.election_timeout_max_ms));
        let round_trips = RoundTrips::new(config, Arc::clone(&driver.metrics));
        let handle = handle.clone();
        let (end, ended) = oneshot::channel();
        let thread = start_thread("consensus", move || {
            runtime.block_on(async move {
                let mut server = transport::server_builder(&transport_config);
                let Network { messages, snapshots, instances, rejections, made } = network;
                let directory = handle.directory();
                let (transport, raft) = transport::start(
                    transport_config,
                    [],
                    DriverInbox::new(
                        messages,
                        directory.clone(),
                        instances,
                        rejections,
                        advice,
                        round_trips,
                    ),
                    SnapshotFiles::new(snapshots),
                    Arc::new(|_name, work| tokio::spawn(work).abort_handle()),
                );
                // Set once, here.
                let _ = made.set(transport.clone());
                let routes = api::peer_routes(handle, Routes::new(raft));
                let serving = tokio::spawn(async move {
                    if let Err(error) =
                        server.add_routes(routes).serve_with_incoming(incoming).await
                    {
                        let error = transport::describe(&error);
                        error!(error, "the peer port has failed");
                    }
                });
                let outbox = TransportOutbox::new(transport.clone(), directory);
                let driver = Driver::new(driver, outbox);
                tokio::select! {
                    () = driver.run() => {}
                    _ = ended => {}
                }
                transport.close();
                serving.abort();
            });
        })?;
        Ok(Self { end, thread })
    }

    /// Ends the thread: the peers see the connections close.
    pub(super) fn end(self) {
        // An error: it has ended already.
        let _ = self.end.send(());
        drop(self.thread.join());
    }
}

/// The threads of the client port.
pub(super) struct Clients {
    drain: oneshot::Sender<()>,
    drained: thread_channel::Receiver<()>,
}

impl Clients {
    pub(super) fn start(
        config: &Config,
        listener: TcpListener,
        handle: &Handle,
        metrics: &Arc<Metrics>,
        transport: Arc<OnceLock<Transport>>,
    ) -> Result<Self, StartError> {
        let runtime = runtime(clients_runtime())?;
        let connections =
            Connections::new("clients", Shares::of_process().clients, metrics.clients.clone());
        let incoming = Incoming::<Underway>::new(&runtime, listener, connections, |_, seat| {
            seat.underway().clone()
        })?
        .mended();
        let names = allowed_names(config);
        let versions = admin::Versions {
            node: super::VERSION,
            server: api::VERSION,
            cluster: api::CLUSTER_VERSION,
            storage: api::STORAGE_VERSION,
        };
        let (barriers, asked) = mpsc::channel(REQUESTS_MAX);
        runtime.spawn(read_batcher::run(asked, handle.requests()));
        runtime.spawn(memory::give_back());
        runtime.spawn(publish::publish(handle.clone(), publish::attributes(config)));
        let handle = handle.clone().sharing_barriers(barriers);
        let (work, to_do) = thread_channel::sync_channel::<server::Work>(RESPONSE_WORK_MAX);
        // Ends with the services, which hold the other end.
        start_thread("responses", move || {
            while let Ok(work) = to_do.recv() {
                work();
            }
        })?;
        let responses = server::Responses::new(config.response_memory_bytes, work);
        runtime.spawn(responses.clone().watch());
        let progress_interval = Duration::from_millis(config.watch_progress_interval_ms);
        let operations =
            server::Server::new(handle.clone(), responses).telling_progress(progress_interval);
        runtime.spawn(operations.watches().clone().run());
        let watches = operations.watches().clone();
        let scrape = scrape(handle, watches, metrics, transport);
        let http = admin::router(operations.clone(), versions, scrape);
        let service = api::client_service(operations, http, Arc::clone(&metrics.rpcs), names);
        let (drain, drain_asked) = oneshot::channel();
        let (done, drained) = thread_channel::channel();
        info!(
            clients = %config.client_listen,
            peers = %config.peer_listen,
            node_id = config.node_id.get(),
            name = config.node_name,
            "serving"
        );
        start_thread("clients", move || {
            let asked = async { drop(drain_asked.await) };
            let serving = api::server()
                .accept_http1(true)
                .serve_with_incoming_shutdown(service, incoming, asked);
            if let Err(error) = runtime.block_on(serving) {
                error!(error = transport::describe(&error), "the client port has failed");
            }
            // Nobody may be listening any more.
            let _ = done.send(());
        })?;
        Ok(Self { drain, drained })
    }

    /// Takes no more connections, and waits for the requests under way until `deadline`. Whether
    /// all of them were answered.
    pub(super) fn drain(self, deadline: Instant) -> bool {
        let _ = self.drain.send(());
        let left = deadline.saturating_duration_since(Instant::now());
        self.drained.recv_timeout(left).is_ok()
    }
}

fn traffic(peer: transport::PeerCounts) -> metrics::PeerTraffic {
    metrics::PeerTraffic {
        id: format!("{:x}", peer.id.get()),
        connected: peer.connected,
        losses: peer.losses,
        sent_bytes: peer.sent_bytes,
        send_failures: peer.send_failures,
    }
}

/// Renders the metrics, those that are kept elsewhere as they are now: what the store takes up
/// changes without any event, by compaction.
fn scrape(
    handle: Handle,
    watches: server::Hub,
    metrics: &Arc<Metrics>,
    transport: Arc<OnceLock<Transport>>,
) -> impl Fn(metrics::Format) -> String + Send + Sync + 'static {
    let metrics = Arc::clone(metrics);
    move |format| {
        handle.with_store(|store| {
            metrics.db_size_bytes.set(store.size_bytes());
            metrics.db_size_in_use_bytes.set(store.size_in_use_bytes());
            metrics.revision.set(store.revision());
            metrics.compact_revision.set(store.compacted_revision());
            metrics.keys.set(i64::try_from(store.keys()).unwrap_or(i64::MAX));
        });
        let server::WatchCounts { streams, watches, behind, events } = watches.counts();
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.watches.streams.set(signed(streams));
        metrics.watches.watches.set(signed(watches));
        metrics.watches.behind.set(signed(behind));
        metrics::mirror(&metrics.watches.events, events);
        metrics.disk_free_bytes.set(handle.room().free_bytes());
        metrics.disk_full.set(i64::from(handle.room().is_short()));
        let peers = transport.get().map(Transport::peer_counters).unwrap_or_default();
        metrics.peer_traffic.set(peers.into_iter().map(traffic).collect());
        metrics.render(format)
    }
}

/// The names by which browsers may call this member: its own, and those that the operator lists.
fn allowed_names(config: &Config) -> api::Names {
    let (own, _) = config.client_advertise.rsplit_once(':').expect("checked to be host:port");
    api::Names::new(own, &config.allowed_hosts)
}

/// On a small machine one thread for all clients costs a third less CPU per request than several
/// (no stealing, no wake-ups between them); on a larger one, one thread would be the bound.
fn clients_runtime() -> Builder {
    const SMALL_MACHINE_CORES: usize = 2;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= SMALL_MACHINE_CORES {
        return Builder::new_current_thread();
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(cores - 1).thread_name("clients");
    builder
}

pub(super) fn runtime(mut builder: Builder) -> Result<Runtime, StartError> {
    builder
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "start a runtime", source })
}
