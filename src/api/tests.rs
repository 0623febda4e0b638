//! The doors as clients meet them: generated clients against one member over loopback.
//!
//! Behind the doors stands the real [`Handle`], with a driver that applies each proposal at once,
//! or knows no leader.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::kv;
use crate::metrics::{Constants, Format, Metrics, RpcKind};
use crate::node::clock::Watchdog;
use crate::node::{self, Applied, Event, Handle, Limits, Member, RequestError, Ticket};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::cluster_client::ClusterClient;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::lease_client::LeaseClient;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::proto::node::node_registration_client::NodeRegistrationClient;
use crate::proto::node::{Empty, RequestVoteArgs, Signal};
use crate::raft::{Index, NodeId, Role, Term};
use crate::server::{self, Caller, Consistency, Outcome, Server};

use super::methods::{AtLearner, METHODS, Method};

mod watches;

/// The older version of reflection.
mod v1alpha {
    pub use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
    pub use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    pub use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    pub use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
}

const CLUSTER_ID: u64 = 0xc1;
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const RESPONSE_MEMORY_BYTES: u64 = 1 << 20;

/// One member without Raft. Its tasks end with the test's runtime.
struct TestServer {
    handle: Handle,
    server: Server,
    status: Arc<watch::Sender<Arc<node::Status>>>,
    client: Channel,
    peer: Channel,
    metrics: Arc<Metrics>,
}

/// A member that leads if `leads`, and otherwise knows no leader.
async fn member(leads: bool) -> TestServer {
    let id = NodeId::new(1).expect("positive");
    let status = node::Status {
        role: if leads { Role::Leader } else { Role::PreCandidate },
        leader: leads.then_some(id),
        ready: leads,
        leader_confirmed: leads,
        ..node::Status::leading(id)
    };
    let (status, statuses) = watch::channel(Arc::new(status));
    let (requests, inbox) = mpsc::channel(64);
    let machine = Arc::new(RwLock::new(kv::Machine::new()));
    let members = vec![Member {
        id,
        name: "node1".to_owned(),
        peer_addr: "node1:5001".to_owned(),
        client_addrs: vec!["node1:2379".to_owned()],
        learner: false,
    }];
    let limits = Limits {
        request_bytes_max: REQUEST_BYTES_MAX,
        quota_bytes: 1 << 30,
        request_timeout: std::time::Duration::from_secs(7),
    };
    let pulse = Watchdog::new();
    let handle =
        Handle::new(requests, statuses, pulse.clone(), Arc::clone(&machine), members, limits);
    tokio::spawn(drive(inbox, machine, leads, pulse));

    let metrics = Arc::new(Metrics::of(Constants::default(), super::rpc_names()));
    let rpcs = Arc::clone(&metrics.rpcs);
    let (work, to_do) = std::sync::mpsc::sync_channel(8);
    std::thread::spawn(move || to_do.into_iter().map(|work: server::Work| work()).count());
    let responses = server::Responses::new(RESPONSE_MEMORY_BYTES, work);
    tokio::spawn(responses.clone().watch());
    let pages = axum::Router::new();
    let names = super::Names::default();
    let server = Server::new(handle.clone(), responses);
    tokio::spawn(server.watches().clone().run());
    let front = super::client_service(server.clone(), pages, rpcs, names);
    let (client_addr, incoming) = listen().await;
    tokio::spawn(super::server().accept_http1(true).serve_with_incoming(front, incoming));
    let (peer_addr, incoming) = listen().await;
    let routes = super::peer_routes(handle.clone(), tonic::service::Routes::default());
    tokio::spawn(super::server().add_routes(routes).serve_with_incoming(incoming));
    TestServer {
        handle,
        server,
        status: Arc::new(status),
        client: connect(client_addr).await,
        peer: connect(peer_addr).await,
        metrics,
    }
}

async fn drive(
    mut inbox: mpsc::Receiver<Event<Ticket>>,
    machine: Arc<RwLock<kv::Machine>>,
    leads: bool,
    pulse: Watchdog,
) {
    let mut index = 0;
    while let Some(event) = inbox.recv().await {
        pulse.beat();
        match event {
            Event::Propose { ticket, .. } | Event::Read { ticket } if !leads => {
                ticket.fail(RequestError::NoLeader);
            }
            Event::Propose { data, ticket: Ticket::Propose(reply) } => {
                index += 1;
                let command = kv::Command::decode(&data).expect("encoded by the handle");
                let mut machine = machine.write().unwrap_or_else(PoisonError::into_inner);
                let answer = machine.answer(index, command);
                drop(reply.send(Ok(Applied { answer, index: Index(index), term: Term(5) })));
            }
            Event::Read { ticket: Ticket::Barrier(reply) } => {
                let _ = reply.send(Ok(()));
            }
            Event::VoteRequest { candidate, term, ticket: Ticket::Vote(reply) } => {
                let granted = candidate.get() == 1 && term > Term(5);
                let _ = reply.send(Ok(granted));
            }
            other => panic!("not asked for in these tests: {other:?}"),
        }
    }
}

async fn listen() -> (SocketAddr, TcpIncoming) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    (listener.local_addr().expect("bound"), TcpIncoming::from(listener))
}

async fn connect(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address");
    endpoint.connect().await.expect("it listens")
}

fn put(key: &'static str, value: impl Into<bytes::Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn get(key: &'static str, serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), serializable, ..Default::default() }
}

fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, message: &str) {
    let status = answer.expect_err("refused");
    assert_eq!((status.code(), status.message()), (code, message));
}

#[tokio::test]
async fn a_write_is_read_back_under_full_headers() {
    let world = member(true).await;
    let mut kv = KvClient::new(world.client);
    let header = |revision| {
        Some(pb::ResponseHeader { cluster_id: CLUSTER_ID, member_id: 1, revision, raft_term: 5 })
    };
    let answer = kv.put(put("k", "v")).await.expect("done").into_inner();
    assert_eq!(answer.header, header(2));
    let answer = kv.range(get("k", false)).await.expect("done").into_inner();
    assert_eq!((answer.header, answer.count), (header(2), 1));
    assert_eq!(&answer.kvs[0].value[..], b"v");
    let deletion = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
    let answer = kv.delete_range(deletion).await.expect("done").into_inner();
    assert_eq!((answer.header, answer.deleted), (header(3), 1));
    let answer = kv.txn(pb::TxnRequest::default()).await.expect("done").into_inner();
    assert_eq!((answer.header, answer.succeeded), (header(3), true));
    let compaction = pb::CompactionRequest { revision: 3, physical: false };
    let answer = kv.compact(compaction).await.expect("done").into_inner();
    assert_eq!(answer.header, header(3));
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_refused(kv.compact(compaction).await, Code::OutOfRange, text);
}

#[tokio::test]
async fn a_range_of_many_steps_is_answered_whole() {
    let world = member(true).await;
    let mut kv = KvClient::new(world.client);
    for number in 0..1200 {
        let key = format!("key{number:04}");
        let request = pb::PutRequest { key: key.into(), ..Default::default() };
        kv.put(request).await.expect("done");
    }
    let all = pb::RangeRequest { range_end: "z".into(), ..get("key", false) };
    let answer = kv.range(all).await.expect("done").into_inner();
    assert_eq!((answer.count, answer.kvs.len(), answer.more), (1200, 1200, false));
    assert!(answer.kvs.windows(2).all(|pair| pair[0].key < pair[1].key));
}

/// `count` keys of 1 KiB.
async fn kilobytes(kv: &mut KvClient<Channel>, count: usize) {
    for number in 0..count {
        kv.put(put_of(format!("key{number:04}"), vec![b'v'; 1024])).await.expect("done");
    }
}

fn put_of(key: String, value: Vec<u8>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { range_end: "z".into(), ..get("key", false) }
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[tokio::test]
async fn a_response_is_the_same_whatever_its_size() {
    let world = member(true).await;
    let mut kv = KvClient::new(world.client);
    kilobytes(&mut kv, 150).await;
    let sorted = pb::RangeRequest {
        sort_order: pb::range_request::SortOrder::Descend.into(),
        sort_target: pb::range_request::SortTarget::Create.into(),
        ..all()
    };
    let answer = kv.range(sorted).await.expect("done").into_inner();
    let header = answer.header.expect("present");
    assert_eq!((header.revision, header.member_id, header.raft_term), (151, 1, 5));
    assert_eq!((answer.count, answer.kvs.len()), (150, 150));
    assert!(answer.kvs.windows(2).all(|pair| pair[0].create_revision > pair[1].create_revision));
    assert!(answer.kvs.iter().all(|kv| kv.value.len() == 1024));
    let range = || op(pb::request_op::Request::RequestRange(all()));
    let deletion =
        pb::DeleteRangeRequest { key: "key".into(), range_end: "z".into(), prev_kv: true };
    let request = pb::TxnRequest {
        success: vec![range(), op(pb::request_op::Request::RequestDeleteRange(deletion)), range()],
        ..Default::default()
    };
    let answer = kv.txn(request).await.expect("done").into_inner();
    assert_eq!(answer.header.expect("present").revision, 152);
    let outcomes: Vec<_> = answer.responses.into_iter().map(|op| op.response).collect();
    let [
        Some(pb::response_op::Response::ResponseRange(before)),
        Some(pb::response_op::Response::ResponseDeleteRange(deleted)),
        Some(pb::response_op::Response::ResponseRange(after)),
    ] = &outcomes[..]
    else {
        panic!("other outcomes than asked for: {outcomes:?}");
    };
    assert_eq!((before.kvs.len(), deleted.deleted, after.kvs.len()), (150, 150, 0));
    assert_eq!(before.kvs, deleted.prev_kvs);
    assert_eq!(after.header.expect("present").revision, 152);
}

#[tokio::test]
async fn a_long_read_gives_others_their_turn() {
    let world = member(true).await;
    for chunk in 0..16 {
        let puts = (0..128).map(|number| kv::PutRequest {
            key: format!("key{chunk:02}{number:03}").into(),
            ..kv::PutRequest::default()
        });
        let success = puts.map(kv::RequestOp::Put).collect();
        let txn = kv::TxnRequest { success, ..kv::TxnRequest::default() };
        world.handle.propose(kv::Command::Txn(txn)).await.expect("done");
    }
    let request = kv::RangeRequest {
        key: "key".into(),
        range_end: "z".into(),
        ..kv::RangeRequest::default()
    };
    let (caller, consistency) = (Caller::default(), Consistency::Serializable);
    let mut read = std::pin::pin!(world.server.range(caller, request, consistency));
    let mut turns = 0;
    let read = std::future::poll_fn(|cx| {
        turns += 1;
        read.as_mut().poll(cx)
    });
    let Outcome { response, grant, .. } = read.await.expect("done");
    assert_eq!((response.count, response.kvs.len(), grant.is_some()), (2048, 2048, true));
    assert!(turns >= 4, "2048 keys in {turns} turns");
}

#[tokio::test]
async fn what_a_response_cannot_hold_is_refused_without_an_effect() {
    let world = member(true).await;
    let mut kv = KvClient::new(world.client);
    // Half of the memory for responses, and one.
    kilobytes(&mut kv, RESPONSE_MEMORY_BYTES as usize / 2 / 1024).await;
    let too_large = "etcdserver: response is too large";
    assert_refused(kv.range(all()).await, Code::ResourceExhausted, too_large);
    let range = || op(pb::request_op::Request::RequestRange(all()));
    let read_only = pb::TxnRequest { success: vec![range()], ..Default::default() };
    assert_refused(kv.txn(read_only).await, Code::ResourceExhausted, too_large);
    let put_op = op(pb::request_op::Request::RequestPut(put("new", "v")));
    let write = pb::TxnRequest { success: vec![put_op, range()], ..Default::default() };
    assert_refused(kv.txn(write).await, Code::ResourceExhausted, too_large);
    let deletion =
        pb::DeleteRangeRequest { key: "key".into(), range_end: "z".into(), prev_kv: true };
    assert_refused(kv.delete_range(deletion.clone()).await, Code::ResourceExhausted, too_large);
    assert_eq!(kv.range(get("new", false)).await.expect("done").into_inner().count, 0);
    let count = pb::RangeRequest { count_only: true, ..all() };
    assert_eq!(kv.range(count).await.expect("done").into_inner().count, 512);
    let part = pb::RangeRequest { limit: 100, ..all() };
    assert_eq!(kv.range(part).await.expect("done").into_inner().kvs.len(), 100);
    let blind = pb::DeleteRangeRequest { prev_kv: false, ..deletion };
    assert_eq!(kv.delete_range(blind).await.expect("done").into_inner().deleted, 512);
}

#[tokio::test]
async fn without_a_leader_only_serializable_reads_are_served() {
    let world = member(false).await;
    let mut kv = KvClient::new(world.client);
    let no_leader = "etcdserver: no leader";
    assert_refused(kv.put(put("k", "v")).await, Code::Unavailable, no_leader);
    assert_refused(kv.range(get("k", false)).await, Code::Unavailable, no_leader);
    let read_only = pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(get("k", false))),
        }],
        ..Default::default()
    };
    assert_refused(kv.txn(read_only).await, Code::Unavailable, no_leader);
    kv.range(get("k", true)).await.expect("served");
    // A client that requires a leader is refused at once, whatever the call.
    let mut request = Request::new(get("k", true));
    request.metadata_mut().insert("hasleader", "true".parse().expect("ascii"));
    assert_refused(kv.range(request).await, Code::Unavailable, no_leader);
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused_by_etcds_names() {
    let world = member(true).await;
    let mut kv = KvClient::new(world.client);
    let value = vec![0; REQUEST_BYTES_MAX + 1];
    let text = "etcdserver: request is too large";
    assert_refused(kv.put(put("k", value)).await, Code::InvalidArgument, text);
    let request = put("k", vec![0; REQUEST_BYTES_MAX + 512 * 1024]);
    let (found, limit) = (prost::Message::encoded_len(&request), REQUEST_BYTES_MAX + 512 * 1024);
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    assert_refused(kv.put(request).await, Code::ResourceExhausted, &text);
}

#[tokio::test]
async fn members_and_status_are_told() {
    let world = member(true).await;
    let mut cluster = ClusterClient::new(world.client.clone());
    let request = pb::MemberListRequest { linearizable: true };
    let answer = cluster.member_list(request).await.expect("done").into_inner();
    assert_eq!(answer.header.expect("present").revision, 0);
    assert_eq!(answer.members[0].peer_ur_ls, ["http://node1:5001"]);
    assert_eq!(answer.members[0].client_ur_ls, ["http://node1:2379"]);
    let mut maintenance = MaintenanceClient::new(world.client);
    let answer = maintenance.status(pb::StatusRequest {}).await.expect("done").into_inner();
    assert_eq!((answer.version.as_str(), answer.leader, answer.raft_term), (super::VERSION, 1, 5));
    assert!(answer.errors.is_empty());
    world.status.send_modify(|status| Arc::make_mut(status).leader = None);
    let answer = maintenance.status(pb::StatusRequest {}).await.expect("done").into_inner();
    assert_eq!((answer.leader, answer.errors), (0, vec!["etcdserver: no leader".to_owned()]));
    let request = pb::MoveLeaderRequest { target_id: 1 };
    let moved = maintenance.move_leader(request).await;
    assert_refused(moved, Code::FailedPrecondition, "etcdserver: not leader");
}

#[tokio::test]
async fn health_is_answered_and_watched_on_both_ports() {
    let world = member(true).await;
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for (channel, own) in
        [(world.client.clone(), "etcdserverpb.KV"), (world.peer.clone(), "proto.NodeRegistration")]
    {
        let mut health = HealthClient::new(channel);
        for service in ["", "ready", "leader", own] {
            let answer = health.check(ask(service)).await.expect("known").into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
        for service in ["nonsense", "etcdserverpb.Lease"] {
            let status = health.check(ask(service)).await.expect_err("unknown");
            assert_eq!(status.code(), Code::NotFound);
            let status = health.watch(ask(service)).await.expect_err("unknown");
            assert_eq!(status.code(), Code::NotFound);
        }
    }
    let mut health = HealthClient::new(world.client);
    let mut verdicts = health.watch(ask("ready")).await.expect("known").into_inner();
    let first = verdicts.next().await.expect("goes on").expect("no error");
    assert_eq!(first.status(), ServingStatus::Serving);
    world.status.send_modify(|status| Arc::make_mut(status).ready = false);
    let second = verdicts.next().await.expect("goes on").expect("no error");
    assert_eq!(second.status(), ServingStatus::NotServing);
    world.status.send_modify(|status| Arc::make_mut(status).shutting_down = true);
    assert!(verdicts.next().await.is_none(), "a watch must not outlive the node");
}

#[tokio::test]
async fn the_first_service_of_this_project_does_its_work() {
    let world = member(true).await;
    let mut registration = NodeRegistrationClient::new(world.peer);
    let nodes = registration.get_nodes(Empty {}).await.expect("done").into_inner().nodes;
    assert_eq!((nodes[0].id.as_str(), nodes[0].addr.as_str()), ("1", "node1:5001"));
    let beat = registration.send_heart_beat(Signal { flag: false }).await.expect("done");
    assert!(beat.into_inner().flag);
    world.status.send_modify(|status| Arc::make_mut(status).leader_confirmed = false);
    let beat = registration.send_heart_beat(Signal { flag: true }).await.expect("done");
    assert!(!beat.into_inner().flag, "a leader that nobody hears is in touch with none");
    for (id, term, granted) in [("1", 6, true), ("1", 5, false), ("1", -1, false), ("x", 9, false)]
    {
        let args = RequestVoteArgs { candidate_id: id.to_owned(), candidate_term: term };
        let reply = registration.request_vote(args).await.expect("answered").into_inner();
        assert_eq!(reply.vote_granted, granted, "candidate {id}, term {term}");
    }
}

#[tokio::test]
async fn services_that_do_not_exist_are_unimplemented_by_name() {
    let world = member(true).await;
    let mut lease = LeaseClient::new(world.client);
    let granted = lease.lease_grant(pb::LeaseGrantRequest::default()).await;
    assert_refused(granted, Code::Unimplemented, "unknown service etcdserverpb.Lease");
}

/// One answer of reflection, in the newer of its versions.
async fn reflected(channel: Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.expect("served").into_inner().next().await;
    answer.expect("one answer").expect("no error").message_response.expect("a message")
}

/// The same in the older version, whose messages have the same form.
async fn reflected_alpha(channel: Channel, symbol: &str) -> v1alpha::MessageResponse {
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::MessageRequest::FileContainingSymbol(symbol.to_owned())),
    };
    let mut reflection = v1alpha::ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.expect("served").into_inner().next().await;
    answer.expect("one answer").expect("no error").message_response.expect("a message")
}

#[tokio::test]
async fn reflection_names_what_is_served_and_describes_all_that_it_names() {
    let world = member(true).await;
    for (channel, served) in
        [(world.client, super::CLIENT_SERVICES), (world.peer, super::PEER_SERVICES)]
    {
        let list = MessageRequest::ListServices(String::new());
        let answer = reflected(channel.clone(), list).await;
        let MessageResponse::ListServicesResponse(list) = answer else {
            panic!("another answer than asked for: {answer:?}");
        };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, served);
        for service in served {
            let symbol = MessageRequest::FileContainingSymbol((*service).to_owned());
            let answer = reflected(channel.clone(), symbol).await;
            let described = matches!(answer, MessageResponse::FileDescriptorResponse(_));
            assert!(described, "{service}: {answer:?}");
            let answer = reflected_alpha(channel.clone(), service).await;
            let described = matches!(answer, v1alpha::MessageResponse::FileDescriptorResponse(_));
            assert!(described, "{service}: {answer:?}");
        }
    }
}

/// Calls a method with an empty message, which stands for whatever it takes.
async fn call(channel: &Channel, method: &Method) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = format!("/{}/{}", method.service, method.name).parse().expect("a path");
    let codec = ProstCodec::<(), ()>::default();
    match method.kind {
        RpcKind::Unary => grpc.unary(Request::new(()), path, codec).await.map(drop),
        RpcKind::ServerStream => {
            grpc.server_streaming(Request::new(()), path, codec).await.map(drop)
        }
        RpcKind::BidiStream => {
            let nothing = Request::new(tokio_stream::empty::<()>());
            grpc.streaming(nothing, path, codec).await.map(drop)
        }
    }
}

#[tokio::test]
async fn a_learner_answers_what_claims_neither_to_be_recent_nor_to_decide() {
    let world = member(true).await;
    let text = "etcdserver: rpc not supported for learner";
    world.status.send_modify(|status| Arc::make_mut(status).learner = true);
    for method in METHODS {
        let answer = call(&world.client, method).await;
        let refused = answer.is_err_and(|status| {
            (status.code(), status.message()) == (Code::FailedPrecondition, text)
        });
        let expected = method.at_learner != AtLearner::Served;
        assert_eq!(refused, expected, "{}/{}", method.service, method.name);
    }
    let mut kv = KvClient::new(world.client.clone());
    kv.range(get("k", true)).await.expect("its own data, as old as they may be");
    assert_refused(kv.range(get("k", false)).await, Code::FailedPrecondition, text);

    world.status.send_modify(|status| Arc::make_mut(status).learner = false);
    kv.range(get("k", false)).await.expect("it votes now");
    kv.put(put("k", "v")).await.expect("it votes now");
}

#[tokio::test]
async fn calls_are_counted_by_their_ends() {
    let world = member(true).await;
    let mut kv = KvClient::new(world.client.clone());
    kv.put(put("k", "v")).await.expect("done");
    kv.put(put("", "v")).await.expect_err("no key");
    kv.range(get("k", false)).await.expect("done");
    let mut lease = LeaseClient::new(world.client.clone());
    lease.lease_grant(pb::LeaseGrantRequest::default()).await.expect_err("no such service");
    let list = MessageRequest::ListServices(String::new());
    reflected(world.client.clone(), list).await;
    let mut health = HealthClient::new(world.client.clone());
    let mut verdicts =
        health.watch(HealthCheckRequest::default()).await.expect("known").into_inner();
    verdicts.next().await.expect("goes on").expect("no error");
    drop(verdicts);

    let labels = |method: &str, service: &str, kind: &str| {
        format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"}}")
    };
    let put = labels("Put", "etcdserverpb.KV", "unary");
    let range = labels("Range", "etcdserverpb.KV", "unary");
    let info = labels("ServerReflectionInfo", super::REFLECTION, "bidi_stream");
    let watch = labels("Watch", super::HEALTH, "server_stream");
    let expected = [
        format!("grpc_server_started_total{{{put} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{put} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{put} 1"),
        format!("grpc_server_msg_received_total{{{put} 2"),
        format!("grpc_server_msg_sent_total{{{put} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{range} 1"),
        format!("grpc_server_handling_seconds_count{{{range} 1"),
        format!("grpc_server_started_total{{{info} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{info} 1"),
        format!("grpc_server_msg_received_total{{{info} 1"),
        format!("grpc_server_msg_sent_total{{{info} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{watch} 1"),
        format!("grpc_server_msg_sent_total{{{watch} 1"),
    ];
    // The server hears a little later that a client has gone.
    for _ in 0..1000 {
        let text = world.metrics.render(Format::Prometheus);
        if expected.iter().all(|line| text.lines().any(|printed| printed == line)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let text = world.metrics.render(Format::Prometheus);
    for line in &expected {
        assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
    }
}
