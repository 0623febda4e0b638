//! Slow links and the product's own time-outs: everything works, slower, as long as a leader can
//! stay one.

use std::time::{Duration, Instant};

use crate::beside::{Asks, Beside};
use crate::common::{Cluster, Load, Options, http, within};
use crate::room::Room;

/// A round trip of 80 ms: a follower's read takes longer than the shortest election time-out.
pub async fn of_a_continent() {
    serves_with(Duration::from_millis(40)).await;
}

/// A round trip of 200 ms, between the two election time-outs.
pub async fn of_an_ocean() {
    serves_with(Duration::from_millis(100)).await;
}

/// Writes and reads at every member; a member that starts again and one that joins get ready; the
/// log and the metrics tell how slow it is.
async fn serves_with(delay: Duration) {
    let room = Room::new(4);
    let mut cluster = Cluster::start(room.options(Options::default())).await;
    let lead = cluster.settled().await;
    cluster.client(lead.id).surely_put("beside", "value").await;
    room.wire.delay(delay);
    for id in cluster.ids() {
        for asks in [Asks::Put, Asks::Get] {
            let seen = Beside::watch(cluster.client(id), asks, Duration::from_secs(4)).await;
            let (answered, failures) = (seen.took.len(), &seen.failures);
            println!("{delay:?}: member {id}, {asks:?}: {answered} answers, p99 {:?}", seen.p99());
            assert!(failures.len() <= answered / 4, "{answered} answers, {failures:?}");
        }
    }
    let traffic = Load::start(cluster.clients());
    let lead = cluster.settled().await;
    let follower = cluster.others(lead.id)[0];
    let start = Instant::now();
    cluster.kill(follower);
    cluster.restart(follower);
    cluster.settled().await;
    println!("{delay:?}: a member that started again is ready after {:?}", start.elapsed());
    let start = Instant::now();
    cluster.join(4, &[1, 2, 3], &[]);
    cluster.voters(&[1, 2, 3, 4], lead.id).await;
    println!("{delay:?}: a member that joined votes after {:?}", start.elapsed());
    tells_how_slow_it_is(&mut cluster, lead.id).await;
    room.wire.heal();
    cluster.settled().await;
    traffic.stop().await.judge(&mut cluster).await;
}

async fn tells_how_slow_it_is(cluster: &mut Cluster, id: u64) {
    within(Duration::from_secs(10), "the log to say how slow the links are", async || {
        let log = cluster.member(id).log();
        let says = ["comes near the election time-out", "RAFT_ELECTION_TIMEOUT_MIN_MS"];
        if says.iter().all(|words| log.contains(words)) { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let addr = cluster.member(id).client_addr.clone();
    let metrics = http::get(&addr, "/metrics").await.body;
    assert!(metrics.contains("etcd_network_peer_round_trip_time_seconds_count{To="), "{metrics}");
}
