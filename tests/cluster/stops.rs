//! SIGTERM and SIGINT: leadership is handed over, what is under way is finished, the code is 0.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::common::{Cluster, Load, Options};

/// A hand-over takes milliseconds; without one, an election timeout would pass. The limit is for
/// machines that do much else.
const GAP_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over_and_nobody_waits_for_an_election() {
    // Without a hand-over these timeouts would show: nothing else could elect a leader in time.
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let traffic = Load::start(cluster.clients());
    for _ in 0..3 {
        traffic.acknowledged(100).await;
        let old = cluster.settled().await;
        let start = Instant::now();
        cluster.stop(old.id).await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "the stop took {took:?}");
        let new = cluster.settled().await;
        assert_eq!(new.term, old.term + 1, "one election, {old:?} to {new:?}");
        traffic.acknowledged(100).await;
        cluster.restart(old.id);
        assert_eq!(cluster.settled().await, new, "the return caused no election");
    }
    let outcome = traffic.stop().await;
    let gap = outcome.history.longest_gap();
    outcome.judge(&mut cluster).await;
    assert!(gap < GAP_MAX, "no write was acknowledged for {gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_stop_together_and_come_back() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(100).await;
    for id in cluster.ids() {
        cluster.member(id).interrupt();
    }
    for id in cluster.ids() {
        let status = cluster.member(id).exit(Duration::from_secs(15)).await;
        assert_eq!(status.code(), Some(0), "member {id}: {status}");
    }
    for id in cluster.ids() {
        cluster.restart(id);
    }
    cluster.settled().await;
    traffic.acknowledged(100).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// A stop may find the node with nobody to hand anything to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_majority_stops_within_its_grace() {
    let mut cluster =
        Cluster::start(Options::default().env("RAFT_SHUTDOWN_GRACE_MS", "1000")).await;
    let lead = cluster.settled().await;
    for id in cluster.others(lead.id) {
        cluster.kill(id);
    }
    // Under way when the signal comes, and with no chance of success.
    let client = cluster.client(lead.id).clone();
    let write = tokio::spawn(async move { client.put("k", "v").await });
    let start = Instant::now();
    cluster.stop(lead.id).await;
    assert!(start.elapsed() < Duration::from_secs(4), "the stop took {:?}", start.elapsed());
    let status = write.await.expect("no panic").expect_err("nobody could acknowledge it");
    assert!(matches!(status.code(), Code::Unavailable | Code::Unknown), "{status:?}");
}
