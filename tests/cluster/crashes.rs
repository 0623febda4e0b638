//! SIGKILL and SIGSTOP, under load, of each role and of all at once.

use crate::common::{Cluster, Load, Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_leader_is_replaced_and_returns() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    for _ in 0..3 {
        traffic.acknowledged(100).await;
        let old = cluster.settled().await;
        cluster.kill(old.id);
        let new = cluster.settled().await;
        assert!(new.id != old.id && new.term > old.term, "{old:?} was followed by {new:?}");
        traffic.acknowledged(100).await;
        cluster.restart(old.id);
        cluster.settled().await;
        cluster.caught_up(old.id, new.id).await;
    }
    traffic.acknowledged(100).await;
    traffic.stop().await.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_follower_costs_nothing_and_returns() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    for _ in 0..3 {
        traffic.acknowledged(100).await;
        let lead = cluster.settled().await;
        let follower = cluster.others(lead.id)[1];
        cluster.kill(follower);
        traffic.acknowledged(100).await;
        cluster.restart(follower);
        let lead = cluster.settled().await;
        cluster.caught_up(follower, lead.id).await;
    }
    traffic.stop().await.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_killed_whole_comes_back_whole() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    for _ in 0..3 {
        traffic.acknowledged(150).await;
        for id in cluster.ids() {
            cluster.kill(id);
        }
        for id in cluster.ids() {
            cluster.restart(id);
        }
        cluster.settled().await;
    }
    traffic.acknowledged(100).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// Two of three are down at times, each with another part of the log: only what a majority had is
/// promised, and all of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_crash_in_turn_forget_nothing() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    for round in 0..4 {
        traffic.acknowledged(60).await;
        let (first, second) = (round % 3 + 1, (round + 1) % 3 + 1);
        cluster.kill(first);
        traffic.acknowledged(20).await;
        cluster.kill(second);
        cluster.restart(first);
        traffic.acknowledged(20).await;
        cluster.restart(second);
    }
    cluster.settled().await;
    traffic.acknowledged(50).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// The frozen leader wakes up believing that it leads: its clients must not read from its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_returns_and_serves_nothing_stale() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    for _ in 0..3 {
        traffic.acknowledged(100).await;
        let old = cluster.settled().await;
        let others = cluster.others(old.id);
        cluster.client(old.id).surely_put("frozen", "old").await;
        cluster.member(old.id).freeze();
        let new = cluster.settled_among(&others).await;
        assert!(new.term > old.term, "{old:?} was followed by {new:?}");
        cluster.client(new.id).surely_put("frozen", "new").await;
        // Under way while it stands still, answered when it wakes up.
        let client = cluster.client(old.id).clone();
        let early = tokio::spawn(async move { client.value("frozen").await });
        traffic.acknowledged(50).await;
        cluster.member(old.id).thaw();
        let late = cluster.client(old.id).value("frozen").await;
        // An error is honest; an old value would not be.
        for value in [early.await.expect("no panic"), late].into_iter().flatten() {
            assert_eq!(value.as_deref(), Some(b"new".as_slice()));
        }
        cluster.settled().await;
    }
    traffic.stop().await.judge(&mut cluster).await;
}
