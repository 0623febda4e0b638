//! Watches; as of the scrape.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Untyped;

/// The watches of one member.
#[derive(Debug, Default)]
pub struct WatchMetrics {
    /// Streams of watches.
    pub streams: Gauge,
    /// Watches.
    pub watches: Gauge,
    /// Watches that read history, since they began in the past or did not keep up.
    pub behind: Gauge,
    /// Events handed to watches.
    pub events: Counter,
}

impl WatchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let falling = [
            ("etcd_debugging_mvcc_watch_stream_total", "Streams of watches", &self.streams),
            ("etcd_debugging_mvcc_watcher_total", "Watches", &self.watches),
            ("etcd_debugging_mvcc_slow_watcher_total", "Watches that read history", &self.behind),
        ];
        for (name, help, value) in falling {
            registry.register_collector(Box::new(Untyped { name, help, value: value.clone() }));
        }
        let (name, help) = ("etcd_debugging_mvcc_events", "Events handed to watches");
        registry.register(name, help, self.events.clone());
    }
}
