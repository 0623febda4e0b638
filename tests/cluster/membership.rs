//! Members come and go while clients write and read: nothing acknowledged is lost, and nobody waits
//! longer than for an election.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::node::NodeInfo;
use tonic::Code;

use crate::common::{Cluster, Load, Options, eventually};

/// A planned change costs no more than a hand-over, some 50 ms; a busy machine needs patience.
const PLANNED_GAP_MAX: Duration = Duration::from_secs(3);

const DISK: i32 = 74;
const CONFIGURATION: i32 = 78;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_and_shrinks_to_three_under_load() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(100).await;
    cluster.join(4, &[1, 2, 3], &[]);
    cluster.voters(&[1, 2, 3, 4], 1).await;
    cluster.join(5, &[4], &[]);
    cluster.voters(&[1, 2, 3, 4, 5], 2).await;
    cluster.settled().await;
    traffic.acknowledged(100).await;
    cluster.client(5).surely_put("from", "the fifth").await;
    for gone in [5, 4] {
        cluster.remove(gone, 1).await;
        cluster.dismissed(gone).await;
        traffic.acknowledged(100).await;
    }
    cluster.voters(&[1, 2, 3], 3).await;
    let outcome = traffic.stop().await;
    let gap = outcome.history.longest_gap();
    outcome.judge(&mut cluster).await;
    assert!(gap < PLANNED_GAP_MAX, "no write was acknowledged for {gap:?}");
}

/// One after the other, each dead machine by a new one, with one command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_first_members_are_replaced_by_new_machines() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        traffic.acknowledged(50).await;
        cluster.kill(old);
        let by: Vec<u64> = (old + 1..new).collect();
        cluster.join(new, &by, &[("RAFT_REPLACES", &old.to_string())]);
        let members: Vec<u64> = (old + 1..=new).collect();
        cluster.voters(&members, new).await;
        cluster.settled().await;
        cluster.client(new).surely_put("replaced", old.to_string()).await;
    }
    traffic.stop().await.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_and_ends() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    cluster.join(4, &[1], &[]);
    cluster.voters(&[1, 2, 3, 4], 1).await;
    let old = cluster.settled().await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(100).await;
    let other = cluster.others(old.id)[0];
    cluster.remove(old.id, other).await;
    cluster.dismissed(old.id).await;
    let new = cluster.settled().await;
    assert!(new.id != old.id, "{old:?} was followed by {new:?}");
    traffic.acknowledged(100).await;
    let outcome = traffic.stop().await;
    let gap = outcome.history.longest_gap();
    outcome.judge(&mut cluster).await;
    assert!(gap < PLANNED_GAP_MAX, "no write was acknowledged for {gap:?}");

    // It may try again as often as it likes: it ends, and disturbs nobody.
    for _ in 0..2 {
        cluster.restart(old.id);
        cluster.dismissed(old.id).await;
    }
    assert_eq!(cluster.settled().await, new);
}

/// The one that goes joined later, so its address stands in the log alone, and its vote is needed
/// until the cluster has left the joint configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_member_of_two_is_removed_although_it_joined_later() {
    let mut cluster = Cluster::start(Options::single()).await;
    cluster.join(2, &[1], &[]);
    cluster.voters(&[1, 2], 1).await;
    cluster.settled().await;
    cluster.remove(2, 1).await;
    cluster.dismissed(2).await;
    cluster.voters(&[1], 1).await;
    cluster.client(1).surely_put("alone", "again").await;
    cluster.stop(1).await;
    cluster.restart(1);
    cluster.settled().await;
    assert_eq!(cluster.client(1).sure_value("alone").await, Some(b"again".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joined_member_is_removed_while_its_vote_is_needed() {
    let mut cluster = Cluster::start(Options::default()).await;
    cluster.join(4, &[1], &[]);
    cluster.voters(&[1, 2, 3, 4], 1).await;
    let lead = cluster.settled().await;
    let down = *cluster.others(lead.id).iter().find(|id| **id != 4).expect("another");
    cluster.kill(down);
    let staying: Vec<u64> = cluster.others(down).into_iter().filter(|id| *id != 4).collect();
    cluster.remove(4, staying[0]).await;
    cluster.dismissed(4).await;
    cluster.settled().await;
    cluster.client(staying[1]).surely_put("two", "of three").await;
    cluster.restart(down);
    cluster.settled().await;
}

/// It did not hear of it: the others tell it when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_while_it_was_down_ends_when_it_returns() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let away = cluster.others(lead.id)[0];
    cluster.kill(away);
    cluster.remove(away, lead.id).await;
    let new = cluster.settled().await;
    cluster.restart(away);
    cluster.dismissed(away).await;
    assert_eq!(cluster.settled().await, new, "it disturbed nobody");
}

/// A learner asks for no votes, so nobody tells it in answer to one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_stays_one_and_ends_when_it_was_removed() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let address = format!("127.0.0.1:{}", crate::common::free_port());
    let client = cluster.client(lead.id).clone();
    let request =
        pb::MemberAddRequest { peer_ur_ls: vec![format!("http://{address}")], is_learner: true };
    let added = client.timely(client.members().member_add(request)).await.expect("added");
    assert_eq!(added.member.expect("the new one").id, 4);
    cluster.join(4, &[lead.id], &[("RAFT_PEER_LISTEN", &address)]);
    let lead = cluster.settled_among(&[1, 2, 3]).await;
    cluster.client(lead.id).surely_put("k", "v").await;
    cluster.caught_up(4, lead.id).await;
    let learner = cluster.client(4).clone();
    let status = learner.status().await.expect("the status");
    assert!(status.is_learner, "nobody promotes it unasked");
    for refused in [
        learner.put("through", "the learner").await.map(drop),
        learner.value("k").await.map(drop),
        learner
            .timely(learner.members().member_list(pb::MemberListRequest::default()))
            .await
            .map(drop),
    ] {
        let refused = refused.expect_err("a learner may lag, and decides nothing");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert_eq!(refused.message(), "etcdserver: rpc not supported for learner");
    }
    let own = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    assert_eq!(learner.range(own).await.expect("its own data").count, 1);
    assert!(!learner.serves("ready").await, "no client is to be sent to it");
    cluster.kill(4);
    cluster.remove(4, lead.id).await;
    cluster.restart(4);
    cluster.dismissed(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(50).await;
    let lead = cluster.settled().await;
    let mover = cluster.others(lead.id)[0];
    let port = crate::common::free_port();
    let address = format!("127.0.0.1:{port}");
    let client = cluster.client(lead.id).clone();
    let request =
        || pb::MemberUpdateRequest { id: mover, peer_ur_ls: vec![format!("http://{address}")] };
    eventually("the new address to be known", async || {
        let update = client.members().member_update(request()).await;
        update.map_err(|status| status.to_string())
    })
    .await;
    cluster.stop(mover).await;
    let member = cluster.member(mover);
    member.set("RAFT_PEER_LISTEN", &address);
    member.peer_addr.clone_from(&address);
    cluster.restart(mover);
    let lead = cluster.settled().await;
    cluster.caught_up(mover, lead.id).await;
    // The others do not fall back to what their environment says.
    for id in cluster.others(mover) {
        cluster.stop(id).await;
        cluster.restart(id);
        cluster.settled().await;
    }
    traffic.acknowledged(50).await;
    traffic.stop().await.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_while_one_voter_is_down() {
    let mut cluster = Cluster::start(Options::default()).await;
    let traffic = Load::start(cluster.clients());
    let lead = cluster.settled().await;
    let down = cluster.others(lead.id)[1];
    cluster.kill(down);
    let up = cluster.others(down);
    // It asks in vain first, and goes on.
    cluster.join(4, &[down, up[0], up[1]], &[]);
    cluster.voters(&[1, 2, 3, 4], up[0]).await;
    traffic.acknowledged(50).await;
    cluster.restart(down);
    cluster.settled().await;
    cluster.caught_up(down, 4).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// The member that was cut off does not know who leads by then, and is called by a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_during_a_partition_and_leads_when_it_heals() {
    let mut cluster = Cluster::start(Options::default().linked()).await;
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(50).await;
    let lead = cluster.settled().await;
    let lonely = cluster.others(lead.id)[0];
    cluster.net().silence(lonely);
    let majority = cluster.others(lonely);
    cluster.settled_among(&majority).await;
    cluster.join(4, &majority, &[]);
    cluster.voters(&[1, 2, 3, 4], majority[0]).await;
    let members: Vec<u64> = majority.iter().copied().chain([4]).collect();
    eventually("the new one to lead", async || {
        let lead = cluster.settled_among(&members).await;
        if lead.id == 4 {
            return Ok(());
        }
        let client = cluster.client(lead.id).clone();
        let request = pb::MoveLeaderRequest { target_id: 4 };
        let moved = client.timely(client.maintenance().move_leader(request)).await;
        Err(format!("{lead:?}, asked to hand over: {moved:?}"))
    })
    .await;
    cluster.net().heal();
    cluster.settled().await;
    traffic.acknowledged(50).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// A directory that comes back empty has forgotten its votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_directory_is_refused_and_its_place_taken_by_another() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let wiped = cluster.others(lead.id)[0];
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(50).await;
    cluster.kill(wiped);
    std::fs::remove_dir_all(&cluster.member(wiped).data_dir).expect("remove the data");
    cluster.restart(wiped);
    let status = cluster.member(wiped).exit(Duration::from_secs(20)).await;
    let log = cluster.member(wiped).log();
    assert_eq!(status.code(), Some(DISK), "{log}");
    assert!(log.contains(&format!("RAFT_REPLACES={wiped}")), "it says what to do:\n{log}");
    let staying = cluster.others(wiped);
    cluster.settled_among(&staying).await;
    cluster.join(4, &staying, &[("RAFT_REPLACES", &wiped.to_string())]);
    let members: Vec<u64> = staying.iter().copied().chain([4]).collect();
    cluster.voters(&members, 4).await;
    traffic.acknowledged(50).await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// Registered first by a client of the original service, started later, restarted as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_was_registered_by_a_client_joins_when_it_starts() {
    let mut cluster = Cluster::start(Options::default()).await;
    let address = format!("127.0.0.1:{}", crate::common::free_port());
    let client = cluster.client(1).clone();
    let info = NodeInfo { id: "4".to_owned(), addr: address.clone() };
    client.timely(client.registration().register_node(info)).await.expect("registered");
    cluster.join(4, &[2], &[("RAFT_PEER_LISTEN", &address)]);
    cluster.voters(&[1, 2, 3, 4], 1).await;
    cluster.settled().await;
    cluster.client(4).surely_put("before", "v").await;
    // The others need not be there when it starts again.
    cluster.kill(4);
    cluster.member(4).set("RAFT_JOIN", "127.0.0.1:1");
    cluster.restart(4);
    let lead = cluster.settled().await;
    cluster.caught_up(4, lead.id).await;
    assert_eq!(cluster.client(4).sure_value("before").await, Some(b"v".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_under_an_id_that_was_removed_is_not_taken_in() {
    let mut cluster = Cluster::start(Options::default()).await;
    cluster.kill(3);
    cluster.remove(3, 1).await;
    std::fs::remove_dir_all(&cluster.member(3).data_dir).expect("remove the data");
    let asked = cluster.member(1).peer_addr.clone();
    cluster.member(3).unset("RAFT_PEERS");
    cluster.member(3).set("RAFT_JOIN", &asked);
    cluster.restart(3);
    let status = cluster.member(3).exit(Duration::from_secs(20)).await;
    let log = cluster.member(3).log();
    assert_eq!(status.code(), Some(CONFIGURATION), "{log}");
    assert!(log.contains("a member of this id was removed"), "{log}");
    assert!(!cluster.member(3).data_dir.join("identity").exists(), "nothing was formed");
}
