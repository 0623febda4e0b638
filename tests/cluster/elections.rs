//! Who leads, and that nobody leads without need.

use std::time::Duration;

use crate::common::{Client, Cluster, Load, Options, PATIENCE, eventually, within};

/// Without a leader, a request waits a moment for one and is then refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_elect_one_leader_and_stay_with_it() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    for id in cluster.ids() {
        let leads = cluster.client(id).serves("leader").await;
        assert_eq!(leads, id == lead.id, "health of {id} under {lead:?}");
    }
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(300).await;
    traffic.stop().await.judge(&mut cluster).await;
    assert_eq!(cluster.settled().await, lead, "nobody stood for election");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_forms_in_whatever_order_its_members_come() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    cluster.member(2).start();
    let alone = cluster.client(2).clone();
    eventually("a lone member to be alive", async || {
        if alone.serves("").await { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    assert!(!alone.serves("ready").await, "a lone member of three is ready for nothing");
    assert!(alone.with_deadline(Duration::from_secs(20)).put("k", "v").await.is_err());
    cluster.member(3).start();
    cluster.settled().await;
    cluster.client(3).surely_put("k", "v").await;
    cluster.member(1).start();
    cluster.settled().await;
    assert_eq!(cluster.client(1).sure_value("k").await, Some(b"v".to_vec()));
}

/// The returning member's log is behind and its term old: without a pre-vote it would depose the
/// leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_returns_disturbs_nobody() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    let follower = cluster.others(lead.id)[0];
    let traffic = Load::start(cluster.clients());
    cluster.kill(follower);
    traffic.acknowledged(100).await;
    cluster.restart(follower);
    traffic.acknowledged(100).await;
    cluster.member(follower).freeze();
    traffic.acknowledged(100).await;
    cluster.member(follower).thaw();
    traffic.acknowledged(100).await;
    assert_eq!(cluster.settled().await, lead, "nobody stood for election");
    traffic.stop().await.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_promised() {
    let mut cluster = Cluster::start(Options::default()).await;
    cluster.client(1).surely_put("k", "before").await;
    let lead = cluster.settled().await;
    let others = cluster.others(lead.id);
    for id in &others {
        cluster.kill(*id);
    }
    let alone = cluster.client(lead.id).clone();
    steps_down(&alone).await;
    // Refused, and soon: not after a silence of the client's whole patience.
    let impatient = alone.with_deadline(REFUSED_WITHIN);
    let write = impatient.put("k", "lost").await.expect_err("no majority");
    let read = impatient.get("k").await.expect_err("no majority");
    for status in [&write, &read] {
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
        assert!(status.message().starts_with("etcdserver: "), "{status:?}");
    }
    let local = alone.get_local("k").await.expect("its own data needs nobody");
    assert_eq!(&local.kvs[0].value[..], b"before");
    for id in others {
        cluster.restart(id);
    }
    cluster.settled().await;
    for id in cluster.ids() {
        cluster.client(id).surely_put("k", "after").await;
    }
}

/// A leader that hears no quorum says so of itself.
async fn steps_down(leader: &Client) {
    within(PATIENCE, "the leader to see that it leads nobody", async || {
        let status = leader.status().await.map_err(|status| status.to_string())?;
        if leader.serves("leader").await || leader.serves("ready").await || status.leader != 0 {
            return Err(format!("it takes {} for the leader", status.leader));
        }
        Ok(())
    })
    .await;
    assert!(leader.serves("").await, "it is alive all the same");
}
