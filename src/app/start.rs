//! How a node starts: listeners first, so that a wrong address is told before anything is
//! touched or any cluster asked; then the disk; then the threads, from the disk outwards.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc as thread_channel;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::api;
use crate::config::Config;
use crate::kv::Machine;
use crate::metrics::{self, Metrics};
use crate::node::applier::{self, Applier, ApplierHandle};
use crate::node::clock::{self, Ticker, Watchdog};
use crate::node::driver::{self, DriverParts, Inboxes};
use crate::node::persister::{self, Persister, WalHandle};
use crate::node::recovery::{self, Recovered};
use crate::node::snapshotter::Snapshotter;
use crate::node::{
    Event, Handle, Limits, Member, Members, Replica, ReplicaConfig, Room, Status, Ticket,
};
use crate::raft::{
    self, Configuration, EntryId, Index, LogCacheLimits, NodeId, Payload, Restored, Role, Term,
};
use crate::storage::{self, Identity, Options, PeerIncarnations, RealDisk, SnapshotStore, Wal};
use crate::transport::PeerRejection;

use super::accept;
use super::advice::Advice;
use super::bootstrap::Bootstrap;
use super::serve::{Clients, Consensus, Network, runtime};
use super::{COMPLETIONS_MAX, MESSAGES_MAX, REQUESTS_MAX, exit, unused};

/// The longest that a request waits for its outcome, as in etcd.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// Log kept in memory while a follower that is in touch lacks some of it, in units of what is kept
/// otherwise: by default half a minute of a fully loaded member, in which a snapshot of two
/// gigabytes arrives.
const LOG_LAGGING_FACTOR: usize = 8;

/// The least log that makes a snapshot worth its while.
const SNAPSHOT_LOG_BYTES_MIN: u64 = 16 << 20;

/// After a lost connection to the leader, members wait a random part of this before they ask for
/// votes: long enough that rarely two of them ask at once, too short for a client to notice.
const LOSS_DELAY: Duration = Duration::from_millis(20);

/// A running node.
pub struct Node {
    pub(super) handle: Handle,
    pub(super) rejected: watch::Receiver<Option<PeerRejection>>,
    metrics: Arc<Metrics>,
    pub(super) clients: Clients,
    pub(super) consensus: Consensus,
    pub(super) workers: Workers,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error("{variable}={addr}: cannot listen there: {source}")]
    Listen {
        /// Whose value it is.
        variable: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory is unusable, or belongs to somebody else.
    #[error("{}{}", .0, changed(.0))]
    Storage(#[from] storage::Error),
    /// What the log says cannot be followed.
    #[error(transparent)]
    Recovery(recovery::Error),
    /// A cluster refuses to take this node in.
    #[error("RAFT_JOIN: {addr} refuses this node: {why}")]
    NotTakenIn {
        /// Who was asked.
        addr: String,
        /// What it answered.
        why: String,
    },
    /// The system gives no more threads or sockets.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<recovery::Error> for StartError {
    fn from(error: recovery::Error) -> Self {
        match error {
            recovery::Error::Storage(error) => Self::Storage(error),
            other @ (recovery::Error::Snapshot { .. } | recovery::Error::UnknownCommand { .. }) => {
                Self::Recovery(other)
            }
        }
    }
}

/// Which variables say otherwise than they did when the directory was formed, if that is the fault.
fn changed(error: &storage::Error) -> &'static str {
    let storage::Error::ForeignDirectory { found, expected, .. } = error else {
        return "";
    };
    match (found.node_id == expected.node_id, found.cluster_id == expected.cluster_id) {
        (false, true) => ": RAFT_NODE_ID is not what it was, or RAFT_DATA_DIR is another member's",
        (false, false) => ": RAFT_DATA_DIR is the directory of a member of another cluster",
        (true, _) => {
            ": the cluster id is made of RAFT_CLUSTER_TOKEN and the ids in RAFT_PEERS, and one of \
             them is not what it was at the first start (they never change, also when members \
             come and go; a member that joined keeps RAFT_JOIN)"
        }
    }
}

impl StartError {
    /// With which code the process ends.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } | Self::NotTakenIn { .. } => exit::CONFIGURATION,
            Self::Storage(error) | Self::Recovery(recovery::Error::Storage(error)) => {
                exit::of_storage(error)
            }
            Self::Recovery(_) | Self::System { .. } => exit::BUG,
        }
    }
}

impl Node {
    /// Starts a node: returns once it serves, which may be before it knows a leader. One that is to
    /// join a cluster, and has not done so before, waits here until it was taken in.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let origin = runtime(Builder::new_current_thread())?.block_on(Bootstrap::find(config))?;
        Self::start_from(config, &origin)
    }

    pub(super) fn start_from(config: &Config, origin: &Bootstrap) -> Result<Self, StartError> {
        let listeners = Listeners::bind(config)?;
        let disk = RealDisk::open(&config.data_dir)?;
        let recovered = recover(config, origin, &disk)?;
        let instances = PeerIncarnations::open(&disk, rand::random::<u64>().max(1))?;
        let membership = in_force(&recovered.restored);
        unused::warn_of(config, &membership);

        let (metrics, room) = (Arc::new(measured(config)), Room::default());
        let pulse = Watchdog::new();
        let (revisions, revisions_seen) = watch::channel(recovered.machine.store().revision());
        let machine = Arc::new(RwLock::new(recovered.machine));
        let (requests, clients_inbox) = mpsc::channel(REQUESTS_MAX);
        let (messages, peers_inbox) = mpsc::channel(MESSAGES_MAX);
        let (completions, completions_inbox) = mpsc::channel(COMPLETIONS_MAX);
        let (status, status_seen) = watch::channel(Arc::new(first_status(config, origin)));
        let (rejections, rejected) = watch::channel(None);
        let handle = Handle::new(
            requests,
            status_seen,
            pulse.clone(),
            Arc::clone(&machine),
            members(config, origin),
            limits(config),
        )
        .minding(room.clone())
        .announcing(revisions_seen);
        name_members(&handle.directory(), config, &membership);

        let replica_config = replica_config(config, origin, recovered.restarts);
        let confirm_ticks = replica_config.raft.election_ticks_max;
        let (latest, log_bytes) = (recovered.latest_snapshot, recovered.log_bytes);
        let replica = Replica::new(replica_config, recovered.restored, latest, log_bytes);
        let (workers, persister, applier) = Workers::start(WorkersParts {
            wal: recovered.wal,
            snapshots: recovered.snapshots.clone(),
            applied: recovered.applied,
            config: recovered.config.clone(),
            machine,
            completions,
            metrics: Arc::clone(&metrics),
            advice: Advice::new(config),
            disk,
            room: room.clone(),
            revisions,
        })?;
        let driver = DriverParts {
            identity: identity(config, origin),
            replica,
            inboxes: Inboxes {
                completions: completions_inbox,
                peers: peers_inbox,
                clients: clients_inbox,
            },
            persister,
            applier,
            ticker: Ticker::new(tick(config), confirm_ticks + 1),
            pulse,
            status,
            metrics: Arc::clone(&metrics),
            room,
            confirm_ticks,
        };
        let made = Arc::new(OnceLock::new());
        let (snapshots, told) = (recovered.snapshots, Arc::clone(&made));
        let network = Network { messages, snapshots, instances, rejections, made: told };
        let consensus = Consensus::start(config, listeners.peers, &handle, network, driver)?;
        let clients = Clients::start(config, listeners.clients, &handle, &metrics, made)?;
        Ok(Self { handle, rejected, metrics, clients, consensus, workers })
    }

    /// The node.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// The two ports, bound.
pub(super) struct Listeners {
    clients: TcpListener,
    peers: TcpListener,
}

impl Listeners {
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            clients: listen("RAFT_CLIENT_LISTEN", config.client_listen)?,
            peers: listen("RAFT_PEER_LISTEN", config.peer_listen)?,
        })
    }
}

/// What the worker threads are made of.
struct WorkersParts {
    wal: Wal<RealDisk>,
    snapshots: SnapshotStore<RealDisk>,
    applied: EntryId,
    config: Configuration,
    machine: Arc<RwLock<Machine>>,
    completions: mpsc::Sender<Event<Ticket>>,
    metrics: Arc<Metrics>,
    advice: Advice,
    disk: RealDisk,
    room: Room,
    revisions: watch::Sender<i64>,
}

/// The threads that wait for disks. Each ends when nobody can give it work any more, but for the
/// log writer, who is told.
pub(super) struct Workers {
    persister: thread_channel::Sender<persister::Job<RealDisk>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts them; gives the driver's ends of the two that it works with.
    fn start(
        parts: WorkersParts,
    ) -> Result<(Self, WalHandle<RealDisk>, ApplierHandle<RealDisk>), StartError> {
        let (persister, persister_jobs) = thread_channel::channel();
        let (spares, spare_jobs) = thread_channel::channel();
        let (to_snapshotter, snapshotter_jobs) = thread_channel::channel();
        let (to_applier, applier_jobs) = thread_channel::channel();
        let WorkersParts { wal, snapshots, applied, config, machine, .. } = parts;
        let WorkersParts { completions, metrics, advice, disk, room, revisions, .. } = parts;

        let ways = persister::Channels {
            jobs: persister_jobs,
            done: completions.clone(),
            spares,
            metrics: Arc::clone(&metrics),
        };
        let snapshotter = Snapshotter {
            machine: Arc::clone(&machine),
            snapshots: snapshots.clone(),
            persister: persister.clone(),
            done: completions.clone(),
            metrics: Arc::clone(&metrics),
        };
        let log = Persister::new(wal, snapshots.clone()).telling(room.clone());
        let log = Arc::new(Mutex::new(log));
        let log_way = WalHandle::new(Arc::clone(&log), persister.clone(), Arc::clone(&metrics));
        let applier = Applier { machine, applied, config, snapshots, metrics, revisions };
        let applier = Arc::new(Mutex::new(applier));
        let applier_way = ApplierHandle::new(Arc::clone(&applier), to_applier);
        let applier_ways = applier::Channels {
            jobs: applier_jobs,
            snapshotter: to_snapshotter,
            done: completions,
        };
        let back = persister.clone();
        let applier_advice = advice.clone();
        let threads = vec![
            start_thread("spare", move || {
                persister::make_spares(&spare_jobs, &back, &disk, &room);
            })?,
            start_thread("wal", move || run_persister(&log, &ways, &advice))?,
            start_thread("snapshot", move || snapshotter.run(&snapshotter_jobs))?,
            start_thread("apply", move || run_applier(&applier, &applier_ways, &applier_advice))?,
        ];
        Ok((Self { persister, threads }, log_way, applier_way))
    }

    /// Lets them finish what they have, once the driver is gone.
    pub(super) fn end(self) {
        // An error: it has ended already.
        let _ = self.persister.send(persister::Job::End);
        for thread in self.threads {
            // A panic has ended the process already, or is a test's to see.
            drop(thread.join());
        }
    }
}

fn run_persister(
    log: &Mutex<Persister<RealDisk>>,
    ways: &persister::Channels<RealDisk>,
    advice: &Advice,
) {
    if let Err(error) = persister::run(log, ways) {
        exit::fatal(exit::of_storage(&error), &advice.on_storage(&error));
    }
}

fn run_applier(applier: &Mutex<Applier<RealDisk>>, ways: &applier::Channels, advice: &Advice) {
    match applier::run(applier, ways) {
        Ok(()) => {}
        Err(error) => {
            let why = advice.on_recovery(&error);
            exit::fatal(StartError::from(error).exit_code(), &why);
        }
    }
}

/// Starts a thread of the process.
pub(super) fn start_thread(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| StartError::System { what: "start a thread", source })
}

fn listen(variable: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    accept::listen(addr).map_err(|source| StartError::Listen { variable, addr, source })
}

fn recover(
    config: &Config,
    origin: &Bootstrap,
    disk: &RealDisk,
) -> Result<Recovered<RealDisk>, StartError> {
    let began = Instant::now();
    let identity = Identity { cluster_id: origin.cluster_id, node_id: node_id(config) };
    let options = Options::for_disk(disk.total_bytes()?);
    let cache_bytes = config.log_cache_bytes;
    let recovered = recovery::recover(disk, options, identity, &origin.first, cache_bytes)?;
    info!(
        data_dir = %config.data_dir.display(),
        term = recovered.restored.hard_state.term.0,
        applied = recovered.applied.index.0,
        took_ms = began.elapsed().as_millis() as u64,
        "data directory read"
    );
    Ok(recovered)
}

fn identity(config: &Config, origin: &Bootstrap) -> driver::Identity {
    driver::Identity {
        node_id: node_id(config),
        cluster_id: origin.cluster_id,
        name: config.node_name.as_str().into(),
    }
}

/// The members as the log names them. Also one who is not named there yet is called something.
fn name_members(directory: &Members, config: &Config, membership: &Configuration) {
    directory.set(membership);
    let (name, client_addr) = (config.node_name.clone(), config.client_advertise.clone());
    directory.introduce(node_id(config), name, client_addr);
}

/// The membership in force: the last that the log holds, committed or not.
fn in_force(restored: &Restored) -> Configuration {
    let last = restored.entries.iter().rev().find_map(|entry| match &entry.payload {
        Payload::Config(config) => Some(config),
        Payload::Noop | Payload::Command(_) => None,
    });
    last.unwrap_or(&restored.base.config).clone()
}

pub(super) fn node_id(config: &Config) -> NodeId {
    NodeId::new(config.node_id.get()).expect("the configuration's id is not zero")
}

/// Everybody whose address is known from elsewhere than the log, this node included.
fn members(config: &Config, origin: &Bootstrap) -> Vec<Member> {
    let own = Member {
        id: node_id(config),
        name: config.node_name.clone(),
        peer_addr: config.peer_advertise.clone(),
        client_addrs: vec![config.client_advertise.clone()],
        learner: false,
    };
    let others = origin.peers.iter().filter(|(id, _)| *id != own.id).map(|(id, addr)| Member {
        id: *id,
        name: String::new(),
        peer_addr: addr.clone(),
        client_addrs: Vec::new(),
        learner: false,
    });
    let mut members: Vec<Member> = others.chain([own.clone()]).collect();
    members.sort_by_key(|member| member.id);
    members
}

/// Where members are reached, as this one was told.
fn addresses(config: &Config, origin: &Bootstrap) -> BTreeMap<NodeId, String> {
    members(config, origin).into_iter().map(|member| (member.id, member.peer_addr)).collect()
}

/// Its metrics, with what they say of this member once and for all.
fn measured(config: &Config) -> Metrics {
    let constants = metrics::Constants {
        server_id: format!("{:x}", config.node_id),
        server_version: api::VERSION,
        cluster_version: api::CLUSTER_VERSION,
    };
    let metrics = Metrics::of(constants, api::rpc_names());
    metrics.quota_bytes.set(config.quota_bytes);
    metrics
}

/// Where the operator says that members are, whatever the log says.
fn overrides(config: &Config) -> BTreeMap<NodeId, String> {
    let overrides = config.peer_overrides.iter();
    overrides.filter_map(|peer| Some((NodeId::new(peer.id.get())?, peer.addr.clone()))).collect()
}

fn tick(config: &Config) -> Duration {
    driver::tick_length(Duration::from_millis(config.heartbeat_interval_ms))
}

fn replica_config(config: &Config, origin: &Bootstrap, restarts: u64) -> ReplicaConfig {
    let tick_ms = tick(config).as_millis() as u64;
    let ticks =
        |ms: u64| u32::try_from(ms.div_ceil(tick_ms)).expect("the configuration is bounded");
    let election_ticks_max = ticks(config.election_timeout_max_ms);
    ReplicaConfig {
        raft: raft::Config {
            id: node_id(config),
            heartbeat_ticks: ticks(config.heartbeat_interval_ms),
            election_ticks_min: ticks(config.election_timeout_min_ms),
            election_ticks_max,
            leader_lost_delay_ticks_max: ticks(LOSS_DELAY.as_millis() as u64),
            append_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 16 << 20,
            uncommitted_bytes_max: 64 << 20,
            reads_pending_max: 4096,
            ready_bytes_max: 4 << 20,
            addresses: addresses(config, origin),
            address_overrides: overrides(config),
            seed: clock::seed(config.node_id.get()),
        },
        // Every opening of the directory has a range of its own.
        first_sequence: (restarts << 40) + 1,
        request_ticks: ticks(REQUEST_TIMEOUT.as_millis() as u64),
        park_ticks: 2 * election_ticks_max,
        disk_stall_ticks: 2 * election_ticks_max,
        proposals_max: REQUESTS_MAX,
        proposal_bytes_max: 128 << 20,
        reads_max: REQUESTS_MAX,
        log_cache_limits: LogCacheLimits {
            bytes_max: config.log_cache_bytes,
            lagging_bytes_max: LOG_LAGGING_FACTOR * config.log_cache_bytes,
        },
        snapshot_log_bytes_min: SNAPSHOT_LOG_BYTES_MIN,
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        request_bytes_max: config.max_request_bytes,
        quota_bytes: config.quota_bytes,
        request_timeout: REQUEST_TIMEOUT,
    }
}

fn first_status(config: &Config, origin: &Bootstrap) -> Status {
    Status {
        node_id: node_id(config),
        cluster_id: origin.cluster_id,
        name: config.node_name.as_str().into(),
        role: Role::Follower,
        term: Term::default(),
        leader: None,
        commit: Index::default(),
        applied: Index::default(),
        last_index: Index::default(),
        proposals_pending: 0,
        alive: true,
        ready: false,
        leader_confirmed: false,
        applied_at_start: false,
        disk_stalled: false,
        shutting_down: false,
        learner: false,
        removed: false,
    }
}
