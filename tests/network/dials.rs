//! A leader that nobody can dial, and that dials everybody. Its heartbeats arrive, and so must what
//! followers' clients want.

use std::time::Duration;

use crate::beside::{Asks, Beside, Seen};
use crate::common::Load;
use crate::room::Room;
use crate::wire::Cut;

/// Longer than it takes to notice that a connection is dead.
const HOW_LONG: Duration = Duration::from_secs(8);
/// Two election time-outs, and time for a busy machine; a request that is never answered takes
/// twice as long.
const SERVICE: Duration = Duration::from_secs(3);
/// What a busy machine adds to any latency.
const SLACK: Duration = Duration::from_millis(100);

/// Whoever dials the leader is told that nothing listens there.
pub async fn rejected() {
    followers_serve(Cut::Rejected).await;
}

/// What is dialled to the leader gets lost, and nobody is told.
pub async fn silent() {
    followers_serve(Cut::Dialled).await;
}

async fn followers_serve(cut: Cut) {
    let room = Room::new(3);
    let mut cluster = room.cluster().await;
    let lead = cluster.settled().await;
    let traffic = Load::start(cluster.clients());
    let before = watch(&cluster, lead.id, Duration::from_secs(3)).await;
    room.wire.change_to(lead.id, |way| way.cut = cut);
    let during = watch(&cluster, lead.id, HOW_LONG).await;
    for (before, during) in before.iter().zip(&during) {
        let (p99_before, p99) = (before.p99(), during.p99());
        println!("p99 {p99_before:?} before, {p99:?} during, at worst {:?}", during.worst());
        assert!(during.failures.is_empty(), "{:?}", during.failures);
        assert!(during.worst() < SERVICE, "{:?}", during.worst());
        assert!(p99 <= 2 * p99_before + SLACK, "{p99:?}, before it was {p99_before:?}");
    }
    room.wire.heal();
    cluster.settled().await;
    traffic.stop().await.judge(&mut cluster).await;
}

/// What clients of the followers see: writes and reads at each.
async fn watch(cluster: &crate::common::Cluster, leader: u64, how_long: Duration) -> Vec<Seen> {
    let followers = cluster.others(leader);
    let started: Vec<Beside> = followers
        .iter()
        .flat_map(|id| [Asks::Put, Asks::Get].map(|asks| Beside::start(cluster.client(*id), asks)))
        .collect();
    tokio::time::sleep(how_long).await;
    let mut seen = Vec::new();
    for beside in started {
        seen.push(beside.stop().await);
    }
    seen
}
