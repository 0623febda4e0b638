//! Whether the network itself does what it is told: else the other tests would show nothing.

use std::time::Duration;

use crate::beside::{Asks, Beside};
use crate::common::{Load, eventually};
use crate::room::Room;
use crate::wire::{Cut, Way};

/// A write takes one round trip, so as long as two delays at least; and a cut is one.
pub async fn as_told() {
    let room = Room::new(3);
    let options = room.options(crate::common::Options::default().patient());
    let mut cluster = crate::common::Cluster::start(options).await;
    let lead = cluster.settled().await;
    let client = cluster.client(lead.id);
    let fast = Beside::watch(client, Asks::Put, Duration::from_secs(1)).await;
    let delay = Duration::from_millis(30);
    room.wire.delay(delay);
    let slow = Beside::watch(client, Asks::Put, Duration::from_secs(1)).await;
    println!("p99 {:?}, and {:?} where a packet takes {delay:?}", fast.p99(), slow.p99());
    assert!(slow.took.iter().all(|took| *took >= 2 * delay), "{slow:?}");
    assert!(slow.failures.is_empty(), "{:?}", slow.failures);
    room.wire.heal();
    room.wire.change_to(lead.id, |way| way.cut = Cut::All);
    eventually("the leader to notice that it hears nobody", async || {
        let lead_now = cluster.lead_by(lead.id).await;
        if lead_now.is_err() { Ok(()) } else { Err(format!("{lead_now:?}")) }
    })
    .await;
    room.wire.heal();
    cluster.settled().await;
}

/// Packets that are lost are sent again; nothing that was acknowledged is lost.
pub async fn loss() {
    let room = Room::new(3);
    let mut cluster = room.cluster().await;
    let traffic = Load::start(cluster.clients());
    room.wire.set_all(Way { lost_of_1000: 20, ..Way::default() });
    traffic.acknowledged(200).await;
    room.wire.heal();
    cluster.settled().await;
    traffic.stop().await.judge(&mut cluster).await;
}
