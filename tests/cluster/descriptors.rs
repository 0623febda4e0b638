//! Members that may open few files, and clients that hold connections and say nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::common::http::get;
use crate::common::{Client, Cluster, Options};

/// The test holds the other ends.
fn take_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raise the limit");
}

/// Connections that say nothing.
async fn silent(addr: &str, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let dial = tokio::time::timeout(Duration::from_secs(20), TcpStream::connect(addr));
        held.push(dial.await.expect("connect in time").expect("connect"));
    }
    held
}

/// Puts without a pause until told to stop; every one must be acknowledged.
async fn behave(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        client.put("beside", "1").await.expect("a client that behaves is served");
        acknowledged += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_shut_nobody_out_and_end_nothing() {
    take_descriptors();
    let mut cluster = Cluster::prepare(Options::default().patient()).await;
    for id in cluster.ids() {
        cluster.member(id).start_with_descriptors(256);
    }
    let lead = cluster.settled().await;
    let addr = cluster.member(lead.id).client_addr.clone();
    let peer_addr = cluster.member(lead.id).peer_addr.clone();

    let stop = Arc::new(AtomicBool::new(false));
    cluster.client(lead.id).surely_put("beside", "0").await;
    let beside = tokio::spawn(behave(cluster.client(lead.id).clone(), Arc::clone(&stop)));
    let clients = silent(&addr, 600).await;
    let peers = silent(&peer_addr, 300).await;

    let newcomer = Client::new(lead.id, &addr, &peer_addr);
    newcomer.put("k", "v").await.expect("a new client is served");
    assert_eq!(get(&addr, "/livez").await.status, 200);
    // The log needs segments: the first is of 4 MiB.
    for _ in 0..10 {
        newcomer.put("large", vec![b'x'; 1 << 20]).await.expect("a large write");
    }
    // A peer is let in.
    let other = cluster.others(lead.id)[0];
    cluster.kill(other);
    cluster.member(other).start_with_descriptors(256);
    assert_eq!(cluster.settled().await, lead, "nobody else was elected");

    stop.store(true, Ordering::Relaxed);
    assert!(beside.await.expect("no refusal") > 0);
    let metrics = get(&addr, "/metrics").await.body;
    assert!(!metrics.contains("raft_node_client_connections_evicted_total 0\n"), "{metrics}");
    for id in cluster.ids() {
        cluster.member(id).assert_runs();
    }
    drop((clients, peers));
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
}

/// So few that even the reserve does not last: connections cannot be accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_descriptors_waits_and_serves_again() {
    take_descriptors();
    let mut cluster = Cluster::prepare(Options::single()).await;
    cluster.member(1).start_with_descriptors(40);
    cluster.settled().await;
    let addr = cluster.member(1).client_addr.clone();
    let held = silent(&addr, 200).await;
    cluster.client(1).surely_put("k", "v").await;
    drop(held);
    for _ in 0..10 {
        cluster.client(1).surely_put("large", vec![b'x'; 1 << 20]).await;
    }
    cluster.member(1).assert_runs();
    let log = cluster.member(1).log();
    let told = log.lines().filter(|line| line.contains("trying on")).count();
    assert!(told < 50, "told once for each time, not for each attempt: {told}\n{log}");
    cluster.stop(1).await;
}
