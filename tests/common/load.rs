//! Clients that write and read through faults, and remember all of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::mvccpb::KeyValue;
use tokio::task::JoinSet;

use super::history::{Recorder, Told};
use super::{Client, Cluster, eventually};

const WRITERS: usize = 6;
const READERS: usize = 3;
const KEYS: usize = 5;
/// Between two requests of one client: the machine has other tests to run.
const PAUSE: Duration = Duration::from_millis(4);
/// After a write that failed: each may have happened or not, and who searches for an order that
/// explains all of it has to try both.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// After this a client gives up on a member and turns to any: a frozen one would hold it for ever.
const DEADLINE: Duration = Duration::from_millis(500);

/// Writers and readers under way.
pub struct Load {
    recorder: Recorder,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// What each key was last seen to hold, for those who want to swap it.
    seen: Mutex<BTreeMap<String, String>>,
    acked: AtomicUsize,
    stop: AtomicBool,
}

/// What a load left.
pub struct Outcome {
    recorder: Recorder,
    /// What its clients did and saw.
    pub history: Told,
}

impl Load {
    /// Clients of `members`: each writer keeps to one, so that a member that hangs holds up none
    /// but its own; each reader turns to any, for each request.
    pub fn start(members: &[Client]) -> Self {
        Self::paced(members, PAUSE)
    }

    /// The same, with such a pause between two requests of a client.
    pub fn paced(members: &[Client], pause: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let recorder = members[0].recorder().cloned().unwrap_or_default();
        let members: Vec<Client> = members
            .iter()
            .map(|client| client.with_deadline(DEADLINE).recorded(&recorder))
            .collect();
        for writer in 0..WRITERS {
            let own = members[writer % members.len()].clone();
            tasks.spawn(write(writer, own, pause, Arc::clone(&shared)));
        }
        for _ in 0..READERS {
            tasks.spawn(read(members.clone(), pause, Arc::clone(&shared)));
        }
        Self { recorder, shared, tasks }
    }

    /// Waits until `count` more writes are acknowledged.
    pub async fn acknowledged(&self, count: usize) {
        let goal = self.shared.acked.load(Ordering::Relaxed) + count;
        eventually(&format!("{count} more writes to be acknowledged"), async || {
            let acked = self.shared.acked.load(Ordering::Relaxed);
            if acked >= goal { Ok(()) } else { Err(format!("{acked} of {goal}")) }
        })
        .await;
    }

    /// Ends the load and gives what it saw.
    pub async fn stop(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client panics");
        }
        let history = self.recorder.told();
        assert!(history.counts().2 > 0, "a load without reads shows nothing");
        Outcome { history, recorder: self.recorder }
    }
}

impl Outcome {
    /// No acknowledged write is lost, no linearizable read was stale, and all running members of
    /// `cluster` hold the same.
    pub async fn judge(self, cluster: &mut Cluster) {
        let (writes, acked, reads) = self.history.counts();
        let gap = self.history.longest_gap();
        println!("{acked} of {writes} writes acknowledged, {reads} reads, longest gap {gap:?}");
        let running: Vec<u64> =
            cluster.ids().into_iter().filter(|id| cluster.member(*id).runs()).collect();
        for id in cluster.ids() {
            let log = cluster.member(id).log();
            assert!(!log.contains("bug at "), "an assertion of member {id} failed");
        }
        for id in &running {
            find_all(cluster.client(*id), &self.history).await;
        }
        same_data(cluster, &running).await;
        settle_unclaimed(cluster.client(running[0]), &self.recorder).await;
        self.recorder.told().assert_linearizable();
    }
}

/// What the store was when somebody changed it without an answer: tells who it was, as a rule.
pub async fn settle_unclaimed(client: &Client, recorder: &Recorder) {
    for revision in recorder.told().unclaimed() {
        let request = pb::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            revision,
            ..pb::RangeRequest::default()
        };
        eventually(&format!("{} to answer a read", client.id), async || {
            client.range(request.clone()).await.map_err(|status| status.to_string())
        })
        .await;
    }
}

/// `client`'s member still has every acknowledged write, at its own revision.
async fn find_all(client: &Client, history: &Told) {
    for (key, value, revision) in history.acked() {
        let key = Bytes::copy_from_slice(key);
        let request = pb::RangeRequest { key, revision, ..pb::RangeRequest::default() };
        let answer = eventually(&format!("{} to answer a read", client.id), async || {
            client.range(request.clone()).await.map_err(|status| status.to_string())
        })
        .await;
        let found = answer.kvs.first().map(|kv| (&kv.value[..], kv.mod_revision));
        assert_eq!(found, Some((value, revision)), "member {} lost {request:?}", client.id);
    }
}

/// All of `ids` come to hold the same data, each its own: a write whose client gave up may still
/// be on its way.
pub async fn same_data(cluster: &Cluster, ids: &[u64]) {
    eventually(&format!("{ids:?} to hold the same"), async || {
        let first = own_data(cluster.client(ids[0])).await?;
        for id in &ids[1..] {
            let other = own_data(cluster.client(*id)).await?;
            if other != first {
                let differ = format!("{} has revision {}, {id} has {}", ids[0], first.0, other.0);
                let same_revision = first.0 == other.0;
                assert!(!same_revision, "{differ}, and other data:\n{first:?}\n{other:?}");
                return Err(differ);
            }
        }
        Ok(())
    })
    .await;
    same_hash(cluster, ids).await;
}

/// What a member holds itself, after a linearizable read went through it, and its revision.
async fn own_data(client: &Client) -> Result<(i64, Vec<KeyValue>), String> {
    client.get("any").await.map_err(|status| status.to_string())?;
    let everything = pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        serializable: true,
        ..pb::RangeRequest::default()
    };
    let answer = client.range(everything).await.map_err(|status| status.to_string())?;
    Ok((answer.header.expect("a header").revision, answer.kvs))
}

/// The members' whole histories are equal, as each hashes its own.
async fn same_hash(cluster: &Cluster, ids: &[u64]) {
    let mut hashes = Vec::new();
    let mut revision = 0;
    for id in ids {
        let client = cluster.client(*id);
        let request = pb::HashKvRequest { revision };
        let mut maintenance = client.maintenance();
        let answer = client.timely(maintenance.hash_kv(request)).await.expect("a hash");
        revision = answer.hash_revision;
        hashes.push((answer.hash_revision, answer.compact_revision, answer.hash));
    }
    let same = hashes.iter().all(|hash| *hash == hashes[0]);
    assert!(same, "{ids:?} hash their histories (revision, compaction, hash) to {hashes:?}");
}

fn any(members: &[Client]) -> &Client {
    &members[rand::random_range(0..members.len())]
}

fn any_key() -> String {
    format!("load/{}", rand::random_range(0..KEYS))
}

async fn write(writer: usize, member: Client, pause: Duration, shared: Arc<Shared>) {
    for count in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, value) = (any_key(), format!("writer {writer} count {count}"));
        let acked = match rand::random_range(0..10) {
            0 => member.delete(&key).await.is_ok(),
            1 | 2 => {
                let other = any_key();
                let expected = shared.seen.lock().expect("no client panics").get(&key).cloned();
                let keys = [key.as_str(), if other == key { "load/other" } else { &other }];
                member.swap(keys, &expected.unwrap_or_default(), &value).await.is_ok()
            }
            _ => member.put(&key, value.clone()).await.is_ok(),
        };
        shared.acked.fetch_add(usize::from(acked), Ordering::Relaxed);
        tokio::time::sleep(if acked { pause } else { pause.max(PAUSE_AFTER_FAILURE) }).await;
    }
}

async fn read(members: Vec<Client>, pause: Duration, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let (key, member) = (any_key(), any(&members));
        if rand::random_range(0..10) == 0 {
            // Whatever it says: a stale answer must be an old truth.
            let _ = member.get_local(&key).await;
        } else if let Ok(Some(value)) = member.value(&key).await {
            let value = String::from_utf8_lossy(&value).into_owned();
            shared.seen.lock().expect("no client panics").insert(key, value);
        }
        tokio::time::sleep(pause).await;
    }
}
