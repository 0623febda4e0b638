//! Clients that write and read through faults, and remember all of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::mvccpb::KeyValue;
use tokio::task::JoinSet;

use super::history::{History, Read, Write};
use super::{Client, Cluster, eventually};

const WRITERS: usize = 4;
const READERS: usize = 3;
const KEYS: usize = 5;
/// Between two requests of one client: the machine has other tests to run.
const PAUSE: Duration = Duration::from_millis(4);
/// After this a client gives up on a member and turns to any: a frozen one would hold it for ever.
const DEADLINE: Duration = Duration::from_millis(500);

/// Writers and readers under way.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    history: Mutex<History>,
    acked: AtomicUsize,
    stop: AtomicBool,
}

/// What a load left.
pub struct Outcome {
    /// What its clients did and saw.
    pub history: History,
}

impl Load {
    /// Clients that each turn to any of `members` for each request.
    pub fn start(members: &[Client]) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let members: Vec<Client> =
            members.iter().map(|client| client.with_deadline(DEADLINE)).collect();
        for writer in 0..WRITERS {
            tasks.spawn(write(writer, members.clone(), Arc::clone(&shared)));
        }
        for _ in 0..READERS {
            tasks.spawn(read(members.clone(), Arc::clone(&shared)));
        }
        Self { shared, tasks }
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
        let history = std::mem::take(&mut *self.shared.history.lock().expect("no client panics"));
        assert!(!history.reads.is_empty(), "a load without reads shows nothing");
        Outcome { history }
    }
}

impl Outcome {
    /// No acknowledged write is lost, no linearizable read was stale, and all running members of
    /// `cluster` hold the same.
    pub async fn judge(self, cluster: &mut Cluster) {
        self.history.assert_linearizable();
        let acked = self.history.acked().count();
        println!(
            "{acked} writes acknowledged of {}, {} reads, longest gap {:?}",
            self.history.writes.len(),
            self.history.reads.len(),
            self.history.longest_gap()
        );
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
    }
}

/// `client`'s member still has every acknowledged write, at its own revision.
async fn find_all(client: &Client, history: &History) {
    for (write, revision) in history.acked() {
        let request = pb::RangeRequest {
            key: write.key.clone().into(),
            revision,
            ..pb::RangeRequest::default()
        };
        let answer = eventually(&format!("{} to answer a read", client.id), async || {
            client.range(request.clone()).await.map_err(|status| status.to_string())
        })
        .await;
        let found = answer.kvs.first().map(|kv| (&kv.value[..], kv.mod_revision));
        let expected = Some((write.value.as_bytes(), revision));
        assert_eq!(found, expected, "member {} lost {write:?}", client.id);
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

async fn write(writer: usize, members: Vec<Client>, shared: Arc<Shared>) {
    for count in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, value) = (any_key(), format!("writer {writer} count {count}"));
        let sent = Instant::now();
        let answer = any(&members).put(&key, value.clone()).await;
        let acked = answer.ok().map(|revision| (Instant::now(), revision));
        shared.acked.fetch_add(usize::from(acked.is_some()), Ordering::Relaxed);
        let write = Write { key, value, sent, acked };
        shared.history.lock().expect("no client panics").writes.push(write);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read(members: Vec<Client>, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let (key, member) = (any_key(), any(&members));
        let sent = Instant::now();
        if let Ok(answer) = member.get(&key).await {
            let found = answer
                .kvs
                .first()
                .map(|kv| (String::from_utf8_lossy(&kv.value).into_owned(), kv.mod_revision));
            let read = Read {
                key,
                sent,
                answered: Instant::now(),
                revision: answer.header.expect("every answer has a header").revision,
                found,
                member: member.id,
            };
            shared.history.lock().expect("no client panics").reads.push(read);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
