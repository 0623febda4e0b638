//! How long the way to each peer and back takes: shown, and complained of before it is so long that
//! leadership does not last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::raft::NodeId;

/// From this share of the shortest election time-out on, a round trip is too long for comfort: a
/// leader that is not answered within a time-out steps down, and so little is left for delays.
const COMFORT_SHARE: u32 = 2;
/// What an election time-out should be, in round trips.
const TIMEOUT_ROUND_TRIPS: u32 = 5;

/// The round trips to all peers.
pub(super) struct RoundTrips {
    metrics: Arc<Metrics>,
    election_timeout_min: Duration,
    seen: Mutex<BTreeMap<NodeId, Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// Mostly of the past, so that one delay is no alarm.
    smoothed: Duration,
    slow: bool,
}

impl RoundTrips {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        let election_timeout_min = Duration::from_millis(config.election_timeout_min_ms);
        Self { metrics, election_timeout_min, seen: Mutex::default() }
    }

    /// The way to `peer` and back took so long.
    pub(super) fn observe(&self, peer: NodeId, took: Duration) {
        self.metrics.observe_round_trip(peer.get(), took);
        let limit = self.election_timeout_min / COMFORT_SHARE;
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(peer).or_insert(Seen { smoothed: took, slow: false });
        seen.smoothed = (seen.smoothed * 3 + took) / 4;
        let round_trip_ms = seen.smoothed.as_millis() as u64;
        if !seen.slow && seen.smoothed >= limit {
            seen.slow = true;
            let least_ms = (seen.smoothed * TIMEOUT_ROUND_TRIPS).as_millis() as u64;
            warn!(
                peer = peer.get(),
                round_trip_ms,
                "the round trip to a peer comes near the election time-out; set \
                 RAFT_ELECTION_TIMEOUT_MIN_MS to {least_ms} or more and \
                 RAFT_ELECTION_TIMEOUT_MAX_MS to twice that, at all members"
            );
        } else if seen.slow && seen.smoothed < limit / 2 {
            seen.slow = false;
            info!(peer = peer.get(), round_trip_ms, "the round trip to a peer is short again");
        }
    }
}
