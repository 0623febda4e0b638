//! Members come and go under load, as the compose file and docker let them.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;

use crate::cluster::Containers;
use crate::common::eventually;
use crate::traffic::Traffic;

/// A planned change costs no more than a hand-over, some 50 ms; a busy machine needs patience.
const PLANNED_GAP_MAX: Duration = Duration::from_secs(3);

/// One more, and another one; then they go, one after the other.
pub async fn to_five_and_back(containers: &mut Containers) {
    containers.begin_anew().await;
    let traffic = Traffic::start(containers).await;
    for id in [4, 5] {
        containers.grow(id, None).await;
        traffic.acknowledged(100).await;
    }
    for id in [5, 4] {
        containers.remove(id).await;
        traffic.acknowledged(100).await;
    }
    containers.settled().await;
    planned(traffic.judge(containers).await);
}

/// One after the other, each dead machine by a new one. At each time three of six answer the load.
pub async fn all_replaced(containers: &mut Containers) {
    containers.begin_anew().await;
    let traffic = Traffic::start_at(containers, &[1, 2, 3, 4, 5, 6]).await;
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        traffic.acknowledged(100).await;
        containers.docker("kill", old);
        containers.discard(old);
        containers.grow(new, Some(old)).await;
        containers.settled().await;
    }
    traffic.acknowledged(100).await;
    traffic.judge(containers).await;
}

/// One of four, so that three go on.
pub async fn leader_removed(containers: &mut Containers) {
    containers.begin_anew().await;
    containers.grow(4, None).await;
    let old = containers.settled().await;
    let traffic = Traffic::start(containers).await;
    traffic.acknowledged(100).await;
    containers.remove(old.id).await;
    let new = containers.settled().await;
    assert!(new.id != old.id && new.term > old.term, "{old:?} was followed by {new:?}");
    traffic.acknowledged(100).await;
    planned(traffic.judge(containers).await);
}

/// Its container is made anew at an address that the others' environment does not know.
pub async fn address_changed(containers: &mut Containers) {
    let lead = containers.begin_anew().await;
    let traffic = Traffic::start(containers).await;
    let mover = containers.others(lead.id)[0];
    let client = containers.client(lead.id);
    eventually("the new address to be known", async || {
        let peer_ur_ls = vec![format!("http://node{mover}.raft_peers:6001")];
        let request = pb::MemberUpdateRequest { id: mover, peer_ur_ls };
        let update = client.timely(client.members().member_update(request)).await;
        update.map_err(|status| status.to_string())
    })
    .await;
    containers.relocate(mover);
    let lead = containers.settled().await;
    containers.caught_up(mover, lead.id).await;
    for id in containers.others(mover) {
        containers.docker("restart", id);
        containers.settled().await;
    }
    traffic.acknowledged(100).await;
    traffic.judge(containers).await;
}

/// It leads when the one who was cut off comes back, and has never heard of it.
pub async fn joined_in_a_partition(containers: &mut Containers) {
    let lead = containers.begin_anew().await;
    let traffic = Traffic::start(containers).await;
    let lonely = containers.others(lead.id)[0];
    containers.cut(lonely);
    containers.led(&containers.others(lonely)).await;
    containers.grow(4, None).await;
    let connected = containers.others(lonely);
    eventually("the new one to lead", async || {
        let lead = containers.led(&connected).await;
        if lead.id == 4 {
            return Ok(());
        }
        let client = containers.client(lead.id);
        let request = pb::MoveLeaderRequest { target_id: 4 };
        let moved = client.timely(client.maintenance().move_leader(request)).await;
        Err(format!("{lead:?}, asked to hand over: {moved:?}"))
    })
    .await;
    containers.mend(lonely);
    let lead = containers.settled().await;
    containers.caught_up(lonely, lead.id).await;
    traffic.acknowledged(100).await;
    traffic.judge(containers).await;
}

/// The first that it asks does not answer.
pub async fn joined_beside_the_dead(containers: &mut Containers) {
    containers.begin_anew().await;
    let traffic = Traffic::start(containers).await;
    containers.docker("kill", 1);
    containers.grow(4, None).await;
    traffic.acknowledged(100).await;
    containers.docker("start", 1);
    let lead = containers.settled().await;
    containers.caught_up(1, lead.id).await;
    traffic.acknowledged(100).await;
    traffic.judge(containers).await;
}

fn planned(gap: Duration) {
    assert!(gap < PLANNED_GAP_MAX, "no write was acknowledged for {gap:?}");
}
