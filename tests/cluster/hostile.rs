//! A host that reaches the peer ports, knows the cluster and is no member, against real processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_node::proto::raft as wire;
use raft_node::proto::raft::append_request::Body;
use raft_node::proto::raft::raft_client::RaftClient;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::common::{Cluster, Options};

/// The end of the range of terms.
const TERM_MAX: u64 = 1 << 62;

/// No member ever had it.
const STRANGER: u64 = 77;

/// Opens a stream and sends these; gives up soon, as nobody has to answer.
async fn stream(port: &mut RaftClient<Channel>, frames: Vec<wire::AppendRequest>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    for frame in frames {
        sender.send(frame).await.expect("there is room");
    }
    let call = async {
        let mut replies = port.append_entries(ReceiverStream::new(receiver)).await?.into_inner();
        while replies.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    let _ = tokio::time::timeout(Duration::from_millis(200), call).await;
}

/// Everything at once that would end a cluster which believed it.
async fn harass(port: &mut RaftClient<Channel>, cluster: u64, to: u64) {
    let route = Some(wire::Route { cluster, from: STRANGER, to });
    let frame = |term, body| wire::AppendRequest { route, term, body };
    let lane = wire::Lane::Control.into();
    let beat = |term| frame(term, Some(Body::Heartbeat(wire::Heartbeat::default())));
    let config = wire::Configuration { voters: vec![STRANGER], ..Default::default() };
    let payload = Some(wire::entry::Payload::Config(config));
    let entry = wire::Entry { term: TERM_MAX, index: 1, payload };
    let prev = Some(wire::EntryId::default());
    let append = wire::Append { prev, commit: 1, entries: vec![entry] };
    let hello = Body::Hello(wire::Hello { lane, ..Default::default() });
    let frames = vec![
        frame(0, Some(hello)),
        beat(TERM_MAX),
        beat(1),
        beat(2),
        frame(TERM_MAX, Some(Body::Append(append))),
    ];
    stream(port, frames).await;
    for term in [1, 2, 3, TERM_MAX] {
        let last = Some(wire::EntryId { term, index: 1 << 40 });
        let vote = wire::VoteRequest { route, term, last, pre_vote: false, transfer: true };
        let call = port.request_vote(vote);
        let _ = tokio::time::timeout(Duration::from_millis(100), call).await;
        let _ = port.timeout_now(wire::TimeoutNowRequest { route, term }).await;
    }
    // A vote that says which life of a member asks.
    for made_up in 100..140 {
        let route = Some(wire::Route { cluster, from: made_up, to });
        let last = Some(wire::EntryId::default());
        let vote = wire::VoteRequest { route, term: 1, last, ..Default::default() };
        let mut call = tonic::Request::new(vote);
        call.metadata_mut().insert("raft-instance", "00000000000000ff".parse().expect("ASCII"));
        let _ = tokio::time::timeout(Duration::from_millis(20), port.request_vote(call)).await;
    }
}

/// The files in which members keep whom they met.
fn met(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(met(&path));
        } else if path.file_name().is_some_and(|name| name == "instances") {
            let text = std::fs::read_to_string(&path).expect("readable");
            found.push((path, text));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_no_member_changes_nothing_and_leaves_no_trace() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    for id in cluster.ids() {
        cluster.client(id).surely_put("before", "it").await;
    }
    let header = cluster.client(1).status().await.expect("it serves").header.expect("always");
    let before = met(cluster.root());
    for id in cluster.ids() {
        let mut port = RaftClient::new(cluster.client(id).peer_channel());
        harass(&mut port, header.cluster_id, id).await;
    }
    cluster.client(lead.id).surely_put("after", "it").await;
    assert_eq!(cluster.settled().await, lead, "the same leader, in the same term");
    assert_eq!(met(cluster.root()), before, "whoever calls is not remembered");
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.restart(id);
    }
    let again = cluster.settled().await;
    assert!(again.term < 1000, "{again:?}");
    for id in cluster.ids() {
        cluster.client(id).surely_put("again", "it").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_heartbeat_in_a_members_name_does_not_end_the_cluster() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let header = cluster.client(1).status().await.expect("it serves").header.expect("always");
    let [to, from] = cluster.others(lead.id)[..] else { panic!("three members") };
    let mut port = RaftClient::new(cluster.client(to).peer_channel());
    let route = Some(wire::Route { cluster: header.cluster_id, from, to });
    let lane = wire::Lane::Control.into();
    let hello = Body::Hello(wire::Hello { lane, ..Default::default() });
    let frame = |term, body| wire::AppendRequest { route, term, body: Some(body) };
    let beat = Body::Heartbeat(wire::Heartbeat::default());
    stream(&mut port, vec![frame(0, hello), frame(TERM_MAX, beat)]).await;
    for id in cluster.ids() {
        cluster.client(id).surely_put("after", "it").await;
    }
    let lead = cluster.settled().await;
    assert!(lead.term < TERM_MAX >> 8, "{lead:?}");
}
