//! Members that are further behind than any log reaches.

use std::time::Duration;

use crate::common::{Client, Cluster, Load, Options};

/// One value: large, so that few writes make a long log.
const VALUE_BYTES: usize = 128 << 10;
const KEYS: usize = 16;

/// Overwrites the same keys until `log_bytes` went through the log: the data stays small, so that
/// snapshots come due and the log before them goes.
async fn churn(client: &Client, log_bytes: usize) {
    for count in 0..log_bytes / VALUE_BYTES {
        let key = format!("churn/{}", count % KEYS);
        let mut value = vec![0; VALUE_BYTES];
        value[..8].copy_from_slice(&(count as u64).to_le_bytes());
        client.surely_put(&key, value).await;
    }
}

/// More than is kept in memory for stragglers, so that only a snapshot can help.
const FAR_BEHIND_BYTES: usize = 80 << 20;

/// Enough for a snapshot or two, and for the log before them to go.
const SNAPSHOTS_BYTES: usize = 40 << 20;

/// What a member sets aside for a full disk, whatever it holds.
const RESERVE_BYTES: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_far_behind_gets_a_snapshot() {
    // Not patient: for one that may still be in touch, more of the log would be kept.
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let straggler = cluster.others(lead.id)[0];
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(50).await;
    cluster.kill(straggler);
    churn(cluster.client(lead.id), FAR_BEHIND_BYTES).await;
    cluster.member(straggler).clear_log();
    cluster.restart(straggler);
    let lead = cluster.settled().await;
    cluster.caught_up(straggler, lead.id).await;
    got_a_snapshot(&mut cluster, straggler);
    traffic.acknowledged(50).await;
    traffic.stop().await.judge(&mut cluster).await;
    // What came by snapshot is as durable as what came by log.
    cluster.kill(straggler);
    cluster.restart(straggler);
    cluster.settled().await;
    crate::common::load::same_data(&cluster, &cluster.ids()).await;
}

/// Nothing of what a new machine lacks is in the leader's log any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_joins_gets_a_snapshot() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    churn(cluster.client(lead.id), FAR_BEHIND_BYTES).await;
    let traffic = Load::start(cluster.clients());
    cluster.join(4, &[lead.id], &[]);
    cluster.voters(&[1, 2, 3, 4], lead.id).await;
    assert_eq!(cluster.settled().await, lead, "its coming caused no election");
    cluster.caught_up(4, lead.id).await;
    got_a_snapshot(&mut cluster, 4);
    traffic.acknowledged(50).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// All members start from snapshot and log together, with more in them than one segment holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_restarts_from_its_snapshots() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let traffic = Load::start(cluster.clients());
    churn(cluster.client(lead.id), SNAPSHOTS_BYTES).await;
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        let bytes = directory_bytes(&cluster.member(id).data_dir);
        let bytes_max = 4 * SNAPSHOTS_BYTES as u64 + RESERVE_BYTES;
        assert!(bytes < bytes_max, "member {id} keeps {bytes} bytes");
        cluster.restart(id);
    }
    cluster.settled().await;
    traffic.acknowledged(50).await;
    traffic.stop().await.judge(&mut cluster).await;
    tokio::time::timeout(Duration::from_secs(1), cluster.client(1).status())
        .await
        .expect("an answer")
        .expect("the status");
}

fn got_a_snapshot(cluster: &mut Cluster, id: u64) {
    let log = cluster.member(id).log();
    assert!(log.contains("snapshot"), "member {id} says nothing of a snapshot:\n{log}");
}

fn directory_bytes(path: &std::path::Path) -> u64 {
    std::fs::read_dir(path)
        .expect("the data directory")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() { directory_bytes(&entry.path()) } else { metadata.len() }
        })
        .sum()
}
