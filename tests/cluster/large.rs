//! Clients that write as much as they can, in large pieces.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;
use tokio::task::JoinSet;

use crate::common::{Client, Cluster, Options};

const CLIENTS: usize = 48;
const PUTS: usize = 2;
/// What else the machine does may call an election; it does not do so each time.
const ROUNDS_MAX: usize = 3;
const VALUE_BYTES: usize = 1_400_000;

/// 48 clients hold 67 MB under way, more than a leader takes in at once. All of it goes through the
/// log of each member while that member's heartbeats must too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_large_values_are_slowed_and_not_refused() {
    let mut cluster = Cluster::start(Options::default()).await;
    for _ in 0..ROUNDS_MAX {
        let before = cluster.settled().await;
        all_put(&cluster).await;
        if cluster.settled().await == before {
            return;
        }
    }
    panic!("their own load called an election in each of {ROUNDS_MAX} rounds");
}

async fn all_put(cluster: &Cluster) {
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let members = cluster.clients();
        let client = members[number % members.len()].with_deadline(Duration::from_mins(2));
        clients.spawn(async move { puts(&client, number).await });
    }
    while let Some(outcome) = clients.join_next().await {
        if let Err(status) = outcome.expect("no client panics") {
            assert_ne!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
            panic!("a put failed: {status:?}");
        }
    }
}

async fn puts(client: &Client, number: usize) -> Result<(), tonic::Status> {
    for put in 0..PUTS {
        let value = bytes::Bytes::from(vec![u8::try_from(put).expect("few puts"); VALUE_BYTES]);
        let request = || pb::PutRequest {
            key: format!("large {number}").into(),
            value: value.clone(),
            ..pb::PutRequest::default()
        };
        // On a busy machine a request may take longer than a member waits: slow is not refused.
        while let Err(status) = client.timely(client.kv().put(request())).await {
            if !status.message().contains("request timed out") {
                return Err(status);
            }
        }
    }
    Ok(())
}
