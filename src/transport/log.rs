//! What of the transport is logged, and how often: a peer that is refused, or whose connection
//! breaks again and again, must not fill the log.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::decode::Error;
use crate::log_limit::LogLimit;
use crate::raft::types::NodeId;

/// A refusal of one sender for one reason is logged once in this time.
const REFUSALS_PERIOD: Duration = Duration::from_mins(1);
/// Each line about one peer's connections is logged this often in that time.
const CONNECTIONS_BURST: u32 = 3;
const CONNECTIONS_PERIOD: Duration = Duration::from_secs(10);

/// A line about a peer's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// Our connection to it opened.
    Connected,
    /// Its connection to us opened.
    ConnectedToUs,
    /// Our connection to it broke.
    Broke,
    /// It is not reached.
    NotReached,
    /// A snapshot is on its way to it.
    SnapshotBegun,
    /// A snapshot did not get to it.
    SnapshotNotSent,
    /// A snapshot did not get here from it.
    SnapshotNotReceived,
}

/// The limits of the transport's lines.
#[derive(Debug)]
pub struct Log {
    /// By sender and reason.
    refusals: Mutex<LogLimit<(Option<IpAddr>, String)>>,
    connections: Mutex<LogLimit<(NodeId, Line)>>,
}

impl Log {
    pub fn new() -> Self {
        Self {
            refusals: Mutex::new(LogLimit::new(1, REFUSALS_PERIOD)),
            connections: Mutex::new(LogLimit::new(CONNECTIONS_BURST, CONNECTIONS_PERIOD)),
        }
    }

    /// Whether `line` about `peer` is to be logged now.
    pub fn admits(&self, peer: NodeId, line: Line) -> bool {
        let mut limit = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        limit.admit((peer, line), Instant::now()).is_some()
    }

    /// What `sender` sent was refused.
    pub fn refused(&self, sender: Option<SocketAddr>, error: &Error) {
        let why = error.to_string();
        let key = (sender.map(|sender| sender.ip()), why.clone());
        let mut limit = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = limit.admit(key, Instant::now()) else {
            return;
        };
        drop(limit);
        let sender = sender.map(|sender| sender.to_string());
        let suppressed = (suppressed > 0).then_some(suppressed);
        let hint = matches!(error, Error::Stranger { .. }).then_some(CLUSTER_HINT);
        warn!(sender, why, suppressed, hint, "frame refused");
    }
}

/// What two members of different clusters disagree about.
pub const CLUSTER_HINT: &str =
    "a cluster id is made of RAFT_CLUSTER_TOKEN and the ids in RAFT_PEERS: compare both members'";
