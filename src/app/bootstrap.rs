//! Where a node comes from: it is one of the first members, or it joins a cluster that runs.
//!
//! One that joins asks the members that it was told of, one after the other, to take it in, and is
//! told the cluster's id. That is done once: from then on its data directory says it. It begins
//! with an empty membership, under which it can neither vote nor stand; the leader calls it, and
//! brings it up.

use std::collections::BTreeSet;
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tracing::{info, warn};

use crate::config::Config;
use crate::proto::raft as wire;
use crate::proto::raft::membership_client::MembershipClient;
use crate::raft::{Configuration, NodeId};
use crate::storage::{self, RealDisk};
use crate::transport::describe;

use super::start::{Listeners, StartError, node_id};

/// How long one member may take to answer. A change waits for a leader, and for a quorum.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait after all were asked in vain: doubles from the one to the other, jittered by half.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A cluster, and what is known of its members before the log says it.
#[derive(Clone, Debug)]
pub(super) struct Bootstrap {
    /// The cluster.
    pub(super) cluster_id: u64,
    /// The membership that the log begins with.
    pub(super) first: Configuration,
    /// Where members are reached, as far as the log does not know better.
    pub(super) peers: Vec<(NodeId, String)>,
}

impl Bootstrap {
    /// The cluster that this node forms with the other first members.
    fn formed(config: &Config) -> Self {
        let peers: Vec<_> = config
            .peers
            .iter()
            .filter_map(|peer| Some((NodeId::new(peer.id.get())?, peer.addr.clone())))
            .collect();
        let first = Configuration::of_voters(peers.iter().map(|(id, _)| *id));
        Self { cluster_id: config.cluster_id(), first, peers }
    }

    /// A cluster that took this node in.
    fn joined(cluster_id: u64, peers: Vec<(NodeId, String)>) -> Self {
        Self { cluster_id, first: Configuration::default(), peers }
    }

    /// The origin of a node that need not ask anybody; `None` if it has yet to join.
    fn known(config: &Config) -> Result<Option<Self>, StartError> {
        if config.join.is_empty() {
            return Ok(Some(Self::formed(config)));
        }
        let disk = RealDisk::open(&config.data_dir)?;
        let identity = storage::identity(&disk)?;
        Ok(identity.map(|identity| Self::joined(identity.cluster_id, Vec::new())))
    }

    /// The origin of a node, for which a cluster may have to be asked.
    pub(super) async fn find(config: &Config) -> Result<Self, StartError> {
        if let Some(origin) = Self::known(config)? {
            return Ok(origin);
        }
        // A member that cannot listen would be listed, and never start. Bound again later: nothing
        // is served meanwhile, so connections are to be refused.
        drop(Listeners::bind(config)?);
        Self::join(config).await
    }

    /// Asks the cluster to take this node in, until it does.
    async fn join(config: &Config) -> Result<Self, StartError> {
        let mut pause = PAUSE_MIN;
        let mut said = BTreeSet::new();
        loop {
            for addr in &config.join {
                match ask(config, addr).await {
                    Ok(reply) => return joined(config, addr, reply),
                    Err(status) if is_final(&status) => {
                        let why = status.message().to_owned();
                        return Err(StartError::NotTakenIn { addr: addr.clone(), why });
                    }
                    Err(status) => {
                        let why = status.message();
                        // Once for each reason, not for each try.
                        if said.insert(format!("{addr}: {why}")) {
                            warn!(addr, why, "not taken in yet; trying on");
                        }
                    }
                }
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn joined(config: &Config, addr: &str, reply: wire::JoinReply) -> Result<Bootstrap, StartError> {
    if reply.cluster == 0 {
        let why = "it does not say which cluster it is of".to_owned();
        return Err(StartError::NotTakenIn { addr: addr.to_owned(), why });
    }
    let own = node_id(config);
    let peers: Vec<_> = reply
        .members
        .into_iter()
        .filter_map(|member| Some((NodeId::new(member.id)?, member.address)))
        .filter(|(id, address)| *id != own && !address.is_empty())
        .collect();
    info!(by = addr, cluster = format!("{:016x}", reply.cluster), members = peers.len(), "joined");
    Ok(Bootstrap::joined(reply.cluster, peers))
}

/// Whether asking again, or asking somebody else, would be in vain.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::AlreadyExists | Code::NotFound | Code::FailedPrecondition
    )
}

async fn ask(config: &Config, addr: &str) -> Result<wire::JoinReply, Status> {
    let unreachable = |error: tonic::transport::Error| Status::unavailable(describe(&error));
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(unreachable)?;
    let endpoint = endpoint.connect_timeout(DIAL_TIMEOUT).timeout(ASK_TIMEOUT);
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, endpoint.connect()).await;
    let channel = dialled
        .map_err(|_| Status::unavailable(format!("no connection within {DIAL_TIMEOUT:?}")))?
        .map_err(unreachable)?;
    let request = wire::JoinRequest {
        id: config.node_id.get(),
        address: config.peer_advertise.clone(),
        replaces: config.replaces.map_or(0, std::num::NonZeroU64::get),
    };
    Ok(MembershipClient::new(channel).join(request).await?.into_inner())
}
