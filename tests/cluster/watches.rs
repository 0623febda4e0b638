//! Watchers at every member, through the death of a leader and the end of their own member.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::etcdserverpb::watch_client::WatchClient;
use raft_node::proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

use crate::common::{Client, Cluster, Load, Options};

/// Generous: what is waited for takes far less.
const PATIENCE: Duration = Duration::from_mins(1);

/// A change, by its revision: the keys that it put, with their values, or deleted.
type Change = Vec<(Vec<u8>, Option<Vec<u8>>)>;

async fn open(
    client: &Client,
    create: pb::WatchCreateRequest,
) -> Result<Streaming<pb::WatchResponse>, Status> {
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The end of the requests does not end the stream.
    let requests = tokio_stream::iter([request]);
    let stream = WatchClient::new(client.channel()).watch(requests).await?;
    Ok(stream.into_inner())
}

/// All keys from `start_revision` on.
fn everything(start_revision: i64) -> pb::WatchCreateRequest {
    let (key, range_end) = (vec![0].into(), vec![0].into());
    pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

/// Watches everything at one member, anew after each break, until it was told of `last`.
fn follow(
    client: Client,
    mut last: watch::Receiver<Option<i64>>,
) -> JoinHandle<BTreeMap<i64, Change>> {
    tokio::spawn(async move {
        let mut told: BTreeMap<i64, Change> = BTreeMap::new();
        loop {
            let reached = |told: &BTreeMap<i64, Change>, last: Option<i64>| {
                let upto = told.last_key_value().map_or(1, |(revision, _)| *revision);
                last.is_some_and(|last| upto >= last)
            };
            let from = told.last_key_value().map_or(2, |(revision, _)| revision + 1);
            let Ok(mut stream) = open(&client, everything(from)).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            loop {
                if reached(&told, *last.borrow_and_update()) {
                    return told;
                }
                let response = tokio::select! {
                    response = stream.message() => response,
                    changed = last.changed() => {
                        changed.expect("the test says what is last before it ends");
                        continue;
                    }
                };
                let Ok(Some(response)) = response else { break };
                assert!(!response.canceled, "{response:?}");
                let mut revisions = Vec::new();
                for event in response.events {
                    let kv = event.kv.expect("an event has a key");
                    let before = told.last_key_value().map_or(1, |(revision, _)| *revision);
                    let (now, goes_on) =
                        (kv.mod_revision, revisions.last() == Some(&kv.mod_revision));
                    assert!(
                        now == before + 1 || now == before && goes_on,
                        "{now} after {before}: every revision, once, whole and in order"
                    );
                    revisions.push(now);
                    let is_put = event.r#type == 0;
                    let change = (kv.key.to_vec(), is_put.then(|| kv.value.to_vec()));
                    told.entry(now).or_default().push(change);
                }
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_at_every_member_are_told_all_once_and_in_order_through_failover() {
    let mut cluster = Cluster::start(Options::default()).await;
    let (said, last) = watch::channel(None);
    let watchers: Vec<_> =
        cluster.clients().iter().map(|client| follow(client.clone(), last.clone())).collect();
    let traffic = Load::start(cluster.clients());
    traffic.acknowledged(300).await;
    let lead = cluster.settled().await;
    cluster.kill(lead.id);
    traffic.acknowledged(300).await;
    cluster.restart(lead.id);
    cluster.settled().await;
    traffic.acknowledged(300).await;
    let lead = cluster.settled().await;
    cluster.stop(lead.id).await;
    traffic.acknowledged(300).await;
    cluster.restart(lead.id);
    cluster.settled().await;
    let outcome = traffic.stop().await;
    let id = cluster.ids()[0];
    cluster.client(id).surely_put("the last", "").await;
    let response = cluster.client(id).get("the last").await.expect("there is a leader");
    said.send_replace(Some(response.kvs[0].mod_revision));
    let mut all = Vec::new();
    for watcher in watchers {
        let told = tokio::time::timeout(PATIENCE, watcher).await.expect("they are told in time");
        all.push(told.expect("no watcher was told anything twice, or nothing"));
    }
    let upto = response.kvs[0].mod_revision;
    let told: Vec<BTreeMap<i64, Change>> = all
        .into_iter()
        .map(|told| told.into_iter().filter(|(at, _)| *at <= upto).collect())
        .collect();
    assert!(told.iter().all(|one| *one == told[0]), "all members tell the same");
    for (key, value, revision) in outcome.history.acked() {
        let change = told[0].get(&revision);
        let written = change.is_some_and(|change| {
            change.iter().any(|(at, put)| at == key && put.as_deref() == Some(value))
        });
        assert!(written, "the write of revision {revision} was acknowledged, and not told");
    }
    outcome.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_ends_its_watches_and_does_not_wait_for_them() {
    let mut cluster =
        Cluster::start(Options::default().env("RAFT_SHUTDOWN_GRACE_MS", "60000")).await;
    let lead = cluster.settled().await;
    let mut stream = open(cluster.client(lead.id), everything(0)).await.expect("it is served");
    let created = stream.message().await.expect("it goes on").expect("it is told");
    assert!(created.created, "{created:?}");
    let ended = tokio::spawn(async move {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the client is told why"),
                Err(status) => return status,
            }
        }
    });
    let stopped = tokio::time::timeout(Duration::from_secs(30), cluster.stop(lead.id));
    stopped.await.expect("no watcher holds a member that stops");
    let status = ended.await.expect("the stream ends");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
}
