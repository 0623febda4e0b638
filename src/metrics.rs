//! Every metric of a member: name, unit, help. Names are etcd's where etcd has one, so that its
//! dashboards and alerts work unchanged; the rest starts with `raft_node_`.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Log lines that were dropped or could not be written. Of the process, as its log is: there may be
/// losses before there is a node.
pub static LOG_LINES_LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The gauges, counters and histograms, and how to print them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// 1 while a leader is known.
    pub has_leader: Gauge,
    /// 1 while this member leads.
    pub is_leader: Gauge,
    /// Leaders seen, the first included.
    pub leader_changes: Counter,
    /// The highest committed index.
    pub committed_index: Gauge,
    /// The highest applied index.
    pub applied_index: Gauge,
    /// Proposals of this member's clients under way.
    pub proposals_pending: Gauge,
    /// Proposals of this member's clients that failed.
    pub proposals_failed: Counter,
    /// The term.
    pub term: Gauge,
    /// How long `fdatasync` of the log took.
    pub wal_fsync_seconds: Histogram,
    /// How long applying a batch took.
    pub apply_seconds: Histogram,
    /// Data held, history included, in bytes.
    pub db_size_bytes: Gauge<u64, AtomicU64>,
    /// Data held without what compaction could free, in bytes.
    pub db_size_in_use_bytes: Gauge<u64, AtomicU64>,
    /// The data size past which writes are refused, in bytes.
    pub quota_bytes: Gauge<u64, AtomicU64>,
    /// The store's revision.
    pub revision: Gauge,
    /// Snapshots of its own state that this member wrote.
    pub snapshots_saved: Counter,
}

/// 50 µs to about 1.6 s.
fn latency_buckets() -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(0.000_05, 2.0, 16)
}

impl Metrics {
    /// All at zero, registered.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            has_leader: Gauge::default(),
            is_leader: Gauge::default(),
            leader_changes: Counter::default(),
            committed_index: Gauge::default(),
            applied_index: Gauge::default(),
            proposals_pending: Gauge::default(),
            proposals_failed: Counter::default(),
            term: Gauge::default(),
            wal_fsync_seconds: Histogram::new(latency_buckets()),
            apply_seconds: Histogram::new(latency_buckets()),
            db_size_bytes: Gauge::default(),
            db_size_in_use_bytes: Gauge::default(),
            quota_bytes: Gauge::default(),
            revision: Gauge::default(),
            snapshots_saved: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        let gauges = [
            ("etcd_server_has_leader", "Whether a leader is known", &self.has_leader),
            ("etcd_server_is_leader", "Whether this member leads", &self.is_leader),
            (
                "etcd_server_proposals_committed_total",
                "The highest committed index",
                &self.committed_index,
            ),
            (
                "etcd_server_proposals_applied_total",
                "The highest applied index",
                &self.applied_index,
            ),
            (
                "etcd_server_proposals_pending",
                "Proposals of this member's clients under way",
                &self.proposals_pending,
            ),
            ("etcd_debugging_mvcc_current_revision", "The store's revision", &self.revision),
            ("raft_node_term", "The Raft term", &self.term),
        ];
        for (name, help, gauge) in gauges {
            r.register(name, help, gauge.clone());
        }
        let counters = [
            ("etcd_server_leader_changes_seen", "Leaders seen", &self.leader_changes),
            ("etcd_server_proposals_failed", "Failed proposals", &self.proposals_failed),
            ("raft_node_snapshots_saved", "Snapshots written", &self.snapshots_saved),
            ("raft_node_log_lines_lost", "Log lines that were not written", &LOG_LINES_LOST),
        ];
        for (name, help, counter) in counters {
            r.register(name, help, counter.clone());
        }
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
                "etcd_server_quota_backend_bytes",
                "The data size past which writes are refused",
                &self.quota_bytes,
            ),
        ];
        for (name, help, gauge) in sizes {
            r.register(name, help, gauge.clone());
        }
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
    }

    /// In the text format that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// One `fdatasync` of the log took this long.
    pub fn observe_wal_fsync(&self, took: Duration) {
        self.wal_fsync_seconds.observe(took.as_secs_f64());
    }

    /// Applying one batch took this long.
    pub fn observe_apply(&self, took: Duration) {
        self.apply_seconds.observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
