//! Asking the members who leads, and waiting until they agree or one has caught up.

use super::cluster::Cluster;
use crate::grpc::{self, Link};
use raft_node::proto::etcdserverpb::{RangeRequest, RangeResponse, StatusRequest, StatusResponse};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const ASK_DEADLINE: Duration = Duration::from_millis(500);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// gRPC's code for a health service that is asked about a name it does not know.
const NOT_FOUND: i32 = 5;

/// What a cluster agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steady {
    /// Its place among the endpoints.
    pub leader: usize,
    /// Raft's.
    pub term: u64,
}

/// Whom `members` name as leader and in which term, if they all name one of them and the same.
pub async fn steady(links: &[Arc<Link>], members: &[usize]) -> Option<Steady> {
    let mut agreed: Option<(u64, u64)> = None;
    let mut leader = None;
    for member in members {
        let status = status(&links[*member]).await?;
        let says = (status.leader, status.raft_term);
        if status.leader == 0 || agreed.is_some_and(|agreed| agreed != says) {
            return None;
        }
        agreed = Some(says);
        if status.header?.member_id == status.leader {
            leader = Some(*member);
        }
    }
    leader.zip(agreed).map(|(leader, (_, term))| Steady { leader, term })
}

/// Waits for [`steady`].
pub async fn until_steady(
    links: &[Arc<Link>],
    members: &[usize],
    within: Duration,
) -> Result<Steady, String> {
    let begun = Instant::now();
    loop {
        if let Some(steady) = steady(links, members).await {
            return Ok(steady);
        }
        if begun.elapsed() > within {
            return Err(format!("no leader that all agree on within {} s", within.as_secs()));
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

/// Waits until `member` is healthy by every account, follows `leader`, and has applied what the
/// leader had when asked first.
pub async fn until_back(
    cluster: &Arc<dyn Cluster>,
    links: &[Arc<Link>],
    member: usize,
    leader: usize,
    within: Duration,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut goal = None;
    loop {
        if goal.is_none() {
            goal = status(&links[leader]).await.map(|status| status.raft_index);
        }
        let lacking = match goal {
            Some(goal) => lacking(cluster, &links[member], member, goal).await?,
            None => Some("the leader does not answer"),
        };
        let Some(lacking) = lacking else {
            return Ok(());
        };
        if begun.elapsed() > within {
            let name = cluster.name(member);
            return Err(format!("{name} is not back after {} s: {lacking}", within.as_secs()));
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

/// What still keeps the member from being back.
async fn lacking(
    cluster: &Arc<dyn Cluster>,
    link: &Link,
    member: usize,
    goal: u64,
) -> Result<Option<&'static str>, String> {
    let Some(status) = status(link).await else {
        return Ok(Some("it does not answer"));
    };
    if status.leader == 0 {
        return Ok(Some("it knows no leader"));
    }
    if status.raft_applied_index < goal {
        return Ok(Some("it has not caught up"));
    }
    if !serves(link).await {
        return Ok(Some("its gRPC health is not SERVING"));
    }
    let read = RangeRequest { key: b"\0"[..].into(), ..Default::default() };
    if link.unary::<RangeResponse>(grpc::RANGE, &read, ASK_DEADLINE).await.is_err() {
        return Ok(Some("it answers no linearizable read"));
    }
    let cluster = cluster.clone();
    let healthy = tokio::task::spawn_blocking(move || cluster.called_healthy(member));
    let healthy = healthy.await.map_err(|stopped| stopped.to_string())??;
    Ok((!healthy).then_some("docker does not call it healthy"))
}

/// gRPC health: `ready` where the server knows that name, else the whole server.
async fn serves(link: &Link) -> bool {
    for service in ["ready", ""] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer: Result<HealthCheckResponse, _> =
            link.unary(HEALTH_CHECK, &request, ASK_DEADLINE).await;
        match answer {
            Ok(answer) => return answer.status() == ServingStatus::Serving,
            Err(grpc::CallError::Status { code: NOT_FOUND, .. }) => {}
            Err(_) => return false,
        }
    }
    false
}

async fn status(link: &Link) -> Option<StatusResponse> {
    link.unary(grpc::STATUS, &StatusRequest::default(), ASK_DEADLINE).await.ok()
}
