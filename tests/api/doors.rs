//! Health and reflection, on both ports.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::common::{Cluster, Options, PATIENCE};

fn question(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_answered_on_both_ports() {
    let cluster = Cluster::start(Options::single()).await;
    let client = cluster.client(1);
    let own: [(HealthClient<Channel>, &str); 2] =
        [(client.health(), "etcdserverpb.KV"), (client.peer_health(), "proto.NodeRegistration")];
    for (mut health, own) in own {
        for service in ["", "ready", "leader", own, "grpc.health.v1.Health"] {
            let answer = client.timely(health.clone().check(question(service))).await;
            let answer = answer.unwrap_or_else(|status| panic!("{service}: {status}"));
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
        let unknown = health.check(question("nonsense")).await.expect_err("unknown");
        assert_eq!(unknown.code(), Code::NotFound);
    }
}

/// The next verdict of a watch.
async fn next(watch: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let verdict = tokio::time::timeout(PATIENCE, watch.next()).await.expect("a verdict in time");
    verdict.and_then(Result::ok).map(|verdict| verdict.status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_every_change() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let others = cluster.others(lead.id);
    let follower = cluster.client(others[0]).clone();
    let mut health = follower.health();
    let mut ready = health.watch(question("ready")).await.expect("a watch").into_inner();
    let mut leads = health.watch(question("leader")).await.expect("a watch").into_inner();
    assert_eq!(next(&mut ready).await, Some(ServingStatus::Serving));
    assert_eq!(next(&mut leads).await, Some(ServingStatus::NotServing));
    cluster.kill(others[1]);
    cluster.kill(lead.id);
    assert_eq!(next(&mut ready).await, Some(ServingStatus::NotServing), "no majority");
    cluster.restart(lead.id);
    assert_eq!(next(&mut ready).await, Some(ServingStatus::Serving));
    cluster.settled().await;
    // A stop is announced, and the watch does not hold it up.
    let stop = cluster.stop(others[0]);
    let stop = tokio::time::timeout(Duration::from_secs(10), stop);
    let (last, stopped) = tokio::join!(last_verdict(&mut ready), stop);
    stopped.expect("a stop in time");
    assert_eq!(last, Some(ServingStatus::NotServing));
}

/// The verdict after which the watch ends.
async fn last_verdict(watch: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let mut last = None;
    while let Some(verdict) = next(watch).await {
        last = Some(verdict);
    }
    last
}

async fn reflected(channel: Channel, request: MessageRequest) -> ServerReflectionResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let requests = tokio_stream::once(request);
    let mut client = ServerReflectionClient::new(channel);
    let mut answers =
        client.server_reflection_info(requests).await.expect("reflection").into_inner();
    answers.next().await.expect("an answer").expect("no error")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_what_is_served() {
    let cluster = Cluster::start(Options::single()).await;
    let client = cluster.client(1);
    let ports = [
        (
            client.channel(),
            &["etcdserverpb.KV", "etcdserverpb.Maintenance", "etcdserverpb.Cluster"][..],
            "etcdserverpb.KV.Txn",
        ),
        (
            client.peer_channel(),
            &["raft.v1.Raft", "proto.NodeRegistration"][..],
            "proto.NodeRegistration.RequestVote",
        ),
    ];
    for (channel, services, symbol) in ports {
        let list = MessageRequest::ListServices(String::new());
        let answer = reflected(channel.clone(), list).await.message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("{answer:?}");
        };
        let listed: BTreeSet<String> = list.service.into_iter().map(|one| one.name).collect();
        for service in services.iter().chain(&["grpc.health.v1.Health"]) {
            assert!(listed.contains(*service), "{service} is not in {listed:?}");
        }
        let symbol = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let answer = reflected(channel, symbol).await.message_response;
        assert!(
            matches!(&answer, Some(MessageResponse::FileDescriptorResponse(files))
                if !files.file_descriptor_proto.is_empty()),
            "{answer:?}"
        );
    }
}
