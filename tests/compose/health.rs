//! Every probe of every member, against what is true.

use std::time::Duration;

use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::{Containers, name};
use crate::common::{http, within};
use crate::docker::docker;

/// What is true of a running member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// It can be sent requests.
    pub ready: bool,
    /// It leads, and a quorum hears it.
    pub leads: bool,
}

/// A change shows in every probe this soon. Two of docker's probes may pass before it believes.
const SOON: Duration = Duration::from_secs(10);

pub async fn all_probes_agree(containers: &Containers) {
    containers.settled().await;
    tell_the_lead(containers, &containers.ids()).await;
}

/// Waits until every probe of these members tells that it is ready, and which of them leads.
pub async fn tell_the_lead(containers: &Containers, ids: &[u64]) {
    within(SOON, &format!("{ids:?} to tell who leads"), async || {
        let lead = containers.led(ids).await;
        let mut all = Vec::new();
        for id in ids {
            let truth = Truth { ready: true, leads: *id == lead.id };
            let lies = lies(containers, *id, truth).await;
            all.extend(lies.into_iter().map(|lie| format!("{id}: {lie}")));
        }
        if all.is_empty() { Ok(()) } else { Err(format!("under {lead:?}, {}", all.join(", "))) }
    })
    .await;
}

/// Waits until every probe of a running member tells the truth, and nothing else.
pub async fn tells(containers: &Containers, id: u64, truth: Truth) {
    within(SOON, &format!("member {id} to tell that {truth:?}"), async || {
        let lies = lies(containers, id, truth).await;
        if lies.is_empty() { Ok(()) } else { Err(lies.join(", ")) }
    })
    .await;
}

async fn lies(containers: &Containers, id: u64, truth: Truth) -> Vec<String> {
    let client = containers.client(id);
    let mut lies = Vec::new();
    let mut hold = |probe: String, found: bool, wanted: bool| {
        if found != wanted {
            lies.push(format!("{probe} says {found}"));
        }
    };
    for (service, wanted) in [("", true), ("ready", truth.ready), ("leader", truth.leads)] {
        for (port, health) in [("client", client.health()), ("peer", client.peer_health())] {
            let serves = serves(health, service).await;
            hold(format!("{service:?} on the {port} port"), serves, wanted);
        }
        let exec = docker(&["exec", &name(id), "/raft-node", "health", service]);
        hold(format!("`raft-node health {service}`"), exec.is_ok(), wanted);
    }
    let kv = serves(client.health(), "etcdserverpb.KV").await;
    hold("etcdserverpb.KV".to_owned(), kv, truth.ready);
    let registration = serves(client.peer_health(), "proto.NodeRegistration").await;
    hold("proto.NodeRegistration".to_owned(), registration, truth.ready);
    let addr = containers.client_addr(id);
    for (path, wanted) in [("/livez", true), ("/readyz", truth.ready), ("/health", truth.ready)] {
        let answer = http::request(&addr, "GET", path).await;
        hold(format!("GET {path}"), answer.is_ok_and(|answer| answer.status == 200), wanted);
    }
    let docker_says = containers.docker_health(id) == "healthy";
    hold("docker".to_owned(), docker_says, truth.ready);
    lies
}

async fn serves(mut health: HealthClient<Channel>, service: &str) -> bool {
    let request = HealthCheckRequest { service: service.to_owned() };
    let check = tokio::time::timeout(Duration::from_secs(2), health.check(request)).await;
    check.is_ok_and(|answer| {
        answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
    })
}

/// A member that is down or frozen answers nobody.
pub async fn is_silent(containers: &Containers, id: u64) {
    let client = containers.client(id).with_deadline(Duration::from_millis(500));
    assert!(!client.serves("").await, "member {id} calls itself alive");
    assert!(client.get("any").await.is_err(), "member {id} answers a read");
    assert!(client.put("any", "value").await.is_err(), "member {id} answers a write");
}
