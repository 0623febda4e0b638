//! Every metric of a member: name, unit, help. Names are etcd's where etcd has one, so that its
//! dashboards and alerts work unchanged; the rest starts with `raft_node_`. Some of etcd's gauges
//! only grow and are called `_total`: they are counters here, as the name says.
//!
//! Most are set where the thing happens. What is read from elsewhere when a scraper asks is said to
//! be *as of the scrape*.

mod peers;
mod process;
mod rpc;
mod text;
mod watches;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use peers::{PeerTraffic, Peers};
pub use rpc::{RpcCall, RpcKind, RpcName, Rpcs};
pub use text::Format;
pub use watches::WatchMetrics;

/// Log lines that were dropped or could not be written. Of the process, as its log is: there may be
/// losses before there is a node.
pub static LOG_LINES_LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// A batch that takes longer to apply is a slow one, as in etcd.
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// What does not change while the process lives.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    /// This member's id, as etcd's tools print it.
    pub server_id: String,
    /// The version of etcd whose behaviour it has.
    pub server_version: &'static str,
    /// The lowest such version that every member has.
    pub cluster_version: &'static str,
}

impl Collector for Constants {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let constants = [
            ("etcd_server_id", "The id of this member", ("server_id", self.server_id.as_str())),
            ("etcd_server_version", "The version", ("server_version", self.server_version)),
            (
                "etcd_cluster_version",
                "The lowest version that every member has",
                ("cluster_version", self.cluster_version),
            ),
        ];
        for (name, help, label) in constants {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(1_u64).encode(family.encode_family(&[label])?)?;
        }
        Ok(())
    }
}

/// A number whose name in etcd promises a counter, though it also falls: of no stated type, since
/// tools take a gauge of such a name for a mistake.
#[derive(Debug)]
struct Untyped {
    name: &'static str,
    help: &'static str,
    value: Gauge,
}

impl Collector for Untyped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { name, help, value } = self;
        value.encode(encoder.encode_descriptor(name, help, None, MetricType::Unknown)?)
    }
}

/// Sets a counter whose count is kept elsewhere.
pub fn mirror(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

/// The connections that come in at one port.
#[derive(Clone, Debug, Default)]
pub struct PortMetrics {
    /// Connections now.
    pub open: Gauge,
    /// Closed, the idlest, to make room for others.
    pub evicted: Counter,
    /// Closed at once, for want of room.
    pub refused: Counter,
    /// Attempts to accept that failed.
    pub failed: Counter,
}

impl PortMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("open", "Connections", self.open.clone());
        let counters = [
            ("evicted", "Idle connections closed to make room", &self.evicted),
            ("refused", "Connections closed for want of room", &self.refused),
            ("accepts_failed", "Failed attempts to accept", &self.failed),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }
}

/// The gauges, counters and histograms, and how to print them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The calls of clients.
    pub rpcs: Arc<Rpcs>,
    /// The other members; as of the scrape.
    pub peer_traffic: Arc<Peers>,
    /// Watches; as of the scrape.
    pub watches: WatchMetrics,
    /// 1 while a leader is known.
    pub has_leader: Gauge,
    /// 1 while this member leads.
    pub is_leader: Gauge,
    /// 1 while this member only receives.
    pub is_learner: Gauge,
    /// Leaders seen, the first included.
    pub leader_changes: Counter,
    /// The highest committed index.
    pub committed_index: Counter,
    /// The highest applied index.
    pub applied_index: Counter,
    /// Proposals of this member's clients under way.
    pub proposals_pending: Gauge,
    /// Proposals of this member's clients that failed.
    pub proposals_failed: Counter,
    /// The term.
    pub term: Gauge,
    /// The shortest election timeout in force.
    pub election_timeout_seconds: Gauge<f64, AtomicU64>,
    /// How long `fdatasync` of the log took.
    pub wal_fsync_seconds: Histogram,
    /// How long applying a batch took.
    pub apply_seconds: Histogram,
    /// Batches that took long to apply.
    pub slow_applies: Counter,
    /// Data held, history included, in bytes.
    pub db_size_bytes: Gauge<u64, AtomicU64>,
    /// Data held without what compaction could free, in bytes.
    pub db_size_in_use_bytes: Gauge<u64, AtomicU64>,
    /// The data size past which writes are refused, in bytes.
    pub quota_bytes: Gauge<u64, AtomicU64>,
    /// The store's revision.
    pub revision: Gauge,
    /// The compacted revision; as of the scrape.
    pub compact_revision: Gauge,
    /// Keys that have history, deleted ones included; as of the scrape.
    pub keys: Gauge,
    /// Room left on the disk of the data directory, in bytes.
    pub disk_free_bytes: Gauge<u64, AtomicU64>,
    /// 1 while what adds data is refused for want of room on the disk.
    pub disk_full: Gauge,
    /// Snapshots of its own state that this member wrote.
    pub snapshots_saved: Counter,
    /// How long writing a snapshot of its own state took.
    pub snapshot_save_seconds: Histogram,
    /// The client port.
    pub clients: PortMetrics,
    /// The peer port.
    pub peers: PortMetrics,
    /// The way to each peer and back.
    round_trip_seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

/// 50 µs to about 1.6 s.
fn latency_buckets() -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(0.000_05, 2.0, 16)
}

/// 1 ms to about half a minute.
fn snapshot_buckets() -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 16)
}

/// Of a family.
type Labels = Vec<(&'static str, String)>;

fn latency_histogram() -> Histogram {
    Histogram::new(latency_buckets())
}

impl Metrics {
    /// All at zero, for a member of which nothing is known.
    pub fn new() -> Self {
        Self::of(Constants::default(), [])
    }

    /// All at zero, for a member that serves these calls.
    pub fn of(constants: Constants, rpcs: impl IntoIterator<Item = RpcName>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            rpcs: Arc::new(Rpcs::new(rpcs)),
            peer_traffic: Arc::new(Peers::new(constants.server_id.clone())),
            watches: WatchMetrics::default(),
            is_learner: Gauge::default(),
            slow_applies: Counter::default(),
            compact_revision: Gauge::default(),
            keys: Gauge::default(),
            snapshot_save_seconds: Histogram::new(snapshot_buckets()),
            has_leader: Gauge::default(),
            is_leader: Gauge::default(),
            leader_changes: Counter::default(),
            committed_index: Counter::default(),
            applied_index: Counter::default(),
            proposals_pending: Gauge::default(),
            proposals_failed: Counter::default(),
            term: Gauge::default(),
            election_timeout_seconds: Gauge::default(),
            wal_fsync_seconds: Histogram::new(latency_buckets()),
            apply_seconds: Histogram::new(latency_buckets()),
            db_size_bytes: Gauge::default(),
            db_size_in_use_bytes: Gauge::default(),
            quota_bytes: Gauge::default(),
            revision: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            disk_full: Gauge::default(),
            snapshots_saved: Counter::default(),
            clients: PortMetrics::default(),
            peers: PortMetrics::default(),
            round_trip_seconds: Family::new_with_constructor(latency_histogram),
        };
        metrics.register_plain();
        metrics.register_sizes_and_durations();
        metrics.watches.register(&mut metrics.registry);
        metrics.registry.register_collector(Box::new(constants));
        metrics.registry.register_collector(Box::new(process::Process));
        metrics.registry.register_collector(Box::new(Arc::clone(&metrics.rpcs)));
        metrics.registry.register_collector(Box::new(Arc::clone(&metrics.peer_traffic)));
        metrics
            .clients
            .register(metrics.registry.sub_registry_with_prefix("raft_node_client_connections"));
        metrics
            .peers
            .register(metrics.registry.sub_registry_with_prefix("raft_node_peer_connections"));
        metrics
    }

    fn register_plain(&mut self) {
        let r = &mut self.registry;
        let gauges = [
            ("etcd_server_has_leader", "Whether a leader is known", &self.has_leader),
            ("etcd_server_is_leader", "Whether this member leads", &self.is_leader),
            ("etcd_server_is_learner", "Whether this member only receives", &self.is_learner),
            (
                "etcd_server_proposals_pending",
                "Proposals of this member's clients under way",
                &self.proposals_pending,
            ),
            ("etcd_debugging_mvcc_current_revision", "The store's revision", &self.revision),
            (
                "etcd_debugging_mvcc_compact_revision",
                "The compacted revision",
                &self.compact_revision,
            ),
            ("raft_node_term", "The Raft term", &self.term),
            (
                "raft_node_disk_full",
                "Whether writes are refused for want of room on the disk",
                &self.disk_full,
            ),
        ];
        for (name, help, gauge) in gauges {
            r.register(name, help, gauge.clone());
        }
        let counters = [
            ("etcd_server_leader_changes_seen", "Leaders seen", &self.leader_changes),
            ("etcd_server_proposals_failed", "Failed proposals", &self.proposals_failed),
            (
                "etcd_server_proposals_committed",
                "The highest committed index",
                &self.committed_index,
            ),
            ("etcd_server_proposals_applied", "The highest applied index", &self.applied_index),
            (
                "etcd_server_slow_apply",
                "Batches of entries that took more than 100 ms to apply",
                &self.slow_applies,
            ),
            ("raft_node_snapshots_saved", "Snapshots written", &self.snapshots_saved),
            ("raft_node_log_lines_lost", "Log lines that were not written", &LOG_LINES_LOST),
        ];
        for (name, help, counter) in counters {
            r.register(name, help, counter.clone());
        }
        r.register_collector(Box::new(Untyped {
            name: "etcd_debugging_mvcc_keys_total",
            help: "Keys that have history, deleted ones included",
            value: self.keys.clone(),
        }));
    }

    fn register_sizes_and_durations(&mut self) {
        let r = &mut self.registry;
        let sizes = [
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Data held, history included",
                &self.db_size_bytes,
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Data held without what compaction could free",
                &self.db_size_in_use_bytes,
            ),
            (
                "raft_node_disk_free_bytes",
                "Room left on the disk of the data directory",
                &self.disk_free_bytes,
            ),
            (
                "etcd_server_quota_backend_bytes",
                "The data size past which writes are refused",
                &self.quota_bytes,
            ),
        ];
        for (name, help, gauge) in sizes {
            r.register(name, help, gauge.clone());
        }
        r.register(
            "raft_node_election_timeout_seconds",
            "The shortest election timeout in force; beyond RAFT_ELECTION_TIMEOUT_MIN_MS where \
             heartbeats come late",
            self.election_timeout_seconds.clone(),
        );
        r.register(
            "etcd_disk_wal_fsync_duration_seconds",
            "Duration of fdatasync of the log",
            self.wal_fsync_seconds.clone(),
        );
        r.register(
            "etcd_disk_backend_commit_duration_seconds",
            "Duration of applying a batch of entries",
            self.apply_seconds.clone(),
        );
        r.register(
            "etcd_snap_db_save_total_duration_seconds",
            "Duration of writing a snapshot of the own state",
            self.snapshot_save_seconds.clone(),
        );
        r.register(
            "etcd_network_peer_round_trip_time_seconds",
            "The way to a peer and back",
            self.round_trip_seconds.clone(),
        );
    }

    /// As text, in one of the formats that scrapers read.
    pub fn render(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => text::prometheus(&text),
        }
    }

    /// One `fdatasync` of the log took this long.
    pub fn observe_wal_fsync(&self, took: Duration) {
        self.wal_fsync_seconds.observe(took.as_secs_f64());
    }

    /// The way to the member `peer` and back took this long.
    pub fn observe_round_trip(&self, peer: u64, took: Duration) {
        let labels = vec![("To", format!("{peer:x}"))];
        self.round_trip_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Applying one batch took this long.
    pub fn observe_apply(&self, took: Duration) {
        self.apply_seconds.observe(took.as_secs_f64());
        if took > SLOW_APPLY {
            self.slow_applies.inc();
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
