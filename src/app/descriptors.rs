//! The file descriptors of the process: how many there may be, and what they are for.
//!
//! Connections are what others can make without bound, so they are counted against a share, and
//! what is left over is for the disk, the way to the peers and the runtimes: they never meet a
//! table that clients have filled.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Descriptors that no client gets, as in etcd.
const RESERVE: u64 = 150;
/// Of the reserve, those for connections that come in from peers.
const PEERS: u64 = 64;
/// More clients would need more memory than a descriptor each.
const CLIENTS_MAX: u64 = 65_536;

/// How many connections each port may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) clients: usize,
    pub(super) peers: usize,
}

impl Shares {
    /// The shares in the limit of this process.
    pub(super) fn of_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// The shares in `limit` descriptors. A low limit is halved between clients and the rest.
    fn of(limit: u64) -> Self {
        let reserve = RESERVE.min(limit / 2);
        let peers = (reserve * PEERS / RESERVE).max(1);
        let clients = (limit - reserve).clamp(1, CLIENTS_MAX);
        Self { clients: clients as usize, peers: peers as usize }
    }
}

/// Takes as many descriptors as the system lets this process have: the lower, soft limit is there
/// for programs that cannot number more than 1024.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        warn!(%error, "the limit of open files stays as it is");
    }
    let limit = getrlimit(Resource::Nofile).current;
    let shares = Shares::of_process();
    info!(
        // Absent where there is none.
        limit,
        clients_max = shares.clients,
        peers_max = shares.peers,
        "open files"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_rest_does_not_need() {
        assert_eq!(Shares::of(1024), Shares { clients: 874, peers: 64 });
        assert_eq!(Shares::of(256), Shares { clients: 128, peers: 54 });
        assert_eq!(Shares::of(u64::MAX), Shares { clients: 65_536, peers: 64 });
        assert_eq!(Shares::of(0), Shares { clients: 1, peers: 1 });
    }
}
