//! What went to each of the other members, under etcd's names. The transport counts it, and it is
//! copied when a scraper asks.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One other member.
#[derive(Clone, Debug)]
pub struct PeerTraffic {
    /// Its id, as etcd's tools print it.
    pub id: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Connections to it that broke.
    pub losses: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Messages to it that were dropped.
    pub send_failures: u64,
}

/// All of them, as of the scrape.
#[derive(Debug, Default)]
pub struct Peers {
    own: String,
    traffic: Mutex<Vec<PeerTraffic>>,
}

impl Peers {
    pub(super) fn new(own: String) -> Self {
        Self { own, traffic: Mutex::default() }
    }

    /// This went to them so far.
    pub fn set(&self, traffic: Vec<PeerTraffic>) {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner) = traffic;
    }
}

impl Collector for Peers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        if traffic.is_empty() {
            return Ok(());
        }
        let own = self.own.as_str();
        let (name, help) = ("etcd_network_active_peers", "Whether the peer is connected");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for peer in &*traffic {
            let labels = [("Local", own), ("Remote", peer.id.as_str())];
            let connected = ConstGauge::new(u64::from(peer.connected));
            connected.encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("etcd_network_disconnected_peers", "Connections that broke");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for peer in &*traffic {
            let labels = [("Local", own), ("Remote", peer.id.as_str())];
            ConstCounter::new(peer.losses).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("etcd_network_peer_sent_bytes", "Bytes sent to the peer");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for peer in &*traffic {
            let labels = [("To", peer.id.as_str())];
            ConstCounter::new(peer.sent_bytes).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("etcd_network_peer_sent_failures", "Messages that were dropped");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for peer in &*traffic {
            let labels = [("To", peer.id.as_str())];
            ConstCounter::new(peer.send_failures).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
