//! Networks that are cut, silent, one-way or slow.

use std::time::Duration;

use crate::common::link::Way;
use crate::common::{Client, Cluster, Load, Options, eventually};

/// A leader that reaches nobody knows it within an election timeout, and says so.
async fn knows_that_it_leads_nobody(leader: &Client) {
    eventually("the cut-off leader to step down", async || {
        let status = leader.status().await.map_err(|status| status.to_string())?;
        if status.leader == 0 && !leader.serves("leader").await && !leader.serves("ready").await {
            Ok(())
        } else {
            Err(format!("it takes {} for the leader", status.leader))
        }
    })
    .await;
}

/// `docker network disconnect`: nothing arrives, and no connection breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_in_a_silent_network_steps_down_and_rejoins() {
    let mut cluster = Cluster::start(Options::default().linked()).await;
    let traffic = Load::start(cluster.clients());
    for _ in 0..2 {
        traffic.acknowledged(80).await;
        let old = cluster.settled().await;
        let others = cluster.others(old.id);
        cluster.net().silence(old.id);
        let new = cluster.settled_among(&others).await;
        assert!(new.term > old.term, "{old:?} was followed by {new:?}");
        knows_that_it_leads_nobody(cluster.client(old.id)).await;
        let local = cluster.client(old.id).get_local("load/0").await;
        local.expect("its own data, as of before");
        let stranded = cluster.client(old.id).get("load/0").await;
        stranded.expect_err("a linearizable read needs a majority");
        traffic.acknowledged(40).await;
        cluster.net().heal();
        let after = cluster.settled().await;
        cluster.caught_up(old.id, after.id).await;
    }
    traffic.stop().await.judge(&mut cluster).await;
}

/// Connections break and cannot be made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_leader_is_replaced_and_rejoins() {
    let mut cluster = Cluster::start(Options::default().linked()).await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(80).await;
    let old = cluster.settled().await;
    let others = cluster.others(old.id);
    cluster.net().cut(old.id);
    let new = cluster.settled_among(&others).await;
    assert!(new.term > old.term, "{old:?} was followed by {new:?}");
    knows_that_it_leads_nobody(cluster.client(old.id)).await;
    traffic.acknowledged(80).await;
    cluster.net().heal();
    let after = cluster.settled().await;
    cluster.caught_up(old.id, after.id).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// A follower alone raises no term: when it is back, the leader still leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_follower_rejoins_without_an_election() {
    let mut cluster = Cluster::start(Options::default().patient().linked()).await;
    let traffic = Load::start(cluster.clients());
    let lead = cluster.settled().await;
    let follower = cluster.others(lead.id)[0];
    for silent in [false, true] {
        if silent {
            cluster.net().silence(follower);
        } else {
            cluster.net().cut(follower);
        }
        let alone = cluster.client(follower).clone();
        eventually("the follower to miss its leader", async || {
            let status = alone.status().await.map_err(|status| status.to_string())?;
            if status.leader == 0 { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        traffic.acknowledged(100).await;
        cluster.net().heal();
        assert_eq!(cluster.settled().await, lead, "its return caused no election");
        cluster.caught_up(follower, lead.id).await;
    }
    traffic.stop().await.judge(&mut cluster).await;
}

/// What the leader sends arrives, what it is sent does not: it must not go on leading in name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_makes_way() {
    let mut cluster = Cluster::start(Options::default().linked()).await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(80).await;
    let old = cluster.settled().await;
    let others = cluster.others(old.id);
    for other in &others {
        cluster.net().set_way(*other, old.id, Way::Silent);
    }
    let new = cluster.settled_among(&others).await;
    assert!(new.term > old.term, "{old:?} was followed by {new:?}");
    traffic.acknowledged(80).await;
    cluster.net().heal();
    let after = cluster.settled().await;
    cluster.caught_up(old.id, after.id).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// Two members cannot speak with each other and both can with the third. Whoever leads, writes
/// go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_between_two_is_enough() {
    let mut cluster = Cluster::start(Options::default().linked()).await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(80).await;
    let lead = cluster.settled().await;
    let (cut_off, bridge) = (cluster.others(lead.id)[0], cluster.others(lead.id)[1]);
    cluster.net().set_way(lead.id, cut_off, Way::Silent);
    cluster.net().set_way(cut_off, lead.id, Way::Silent);
    traffic.acknowledged(200).await;
    eventually("the bridge to know a leader", async || cluster.lead_by(bridge).await).await;
    cluster.net().heal();
    cluster.settled().await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// Another continent. No member may take slow for dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_links_make_slow_writes_and_no_elections() {
    let mut cluster = Cluster::start(Options::default().patient().linked()).await;
    let lead = cluster.settled().await;
    cluster.net().slow(Duration::from_millis(40));
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(100).await;
    traffic.stop().await.judge(&mut cluster).await;
    assert_eq!(cluster.settled().await, lead, "nobody stood for election");
}
