//! Clients that write and read throughout, and the verdict on what they saw.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::mvccpb::KeyValue;

use crate::cluster::Containers;
use crate::common::history::{Recorder, Told};
use crate::common::load::settle_unclaimed;
use crate::common::{Client, Load, eventually};

/// The load of all clients on all members.
pub struct Traffic {
    load: Load,
    recorder: Recorder,
}

impl Traffic {
    /// Starts, and waits until writes are acknowledged.
    pub async fn start(containers: &Containers) -> Self {
        Self::start_at(containers, &containers.ids()).await
    }

    /// At these members, of whom some may be yet to come.
    pub async fn start_at(containers: &Containers, ids: &[u64]) -> Self {
        let clients: Vec<Client> = ids.iter().map(|id| containers.client(*id)).collect();
        let recorder = Recorder::since(forget_earlier(&clients[0]).await);
        let clients: Vec<Client> =
            clients.iter().map(|client| client.recorded(&recorder)).collect();
        let traffic = Self { load: Load::start(&clients), recorder };
        traffic.acknowledged(50).await;
        traffic
    }

    /// Waits until `count` more writes are acknowledged.
    pub async fn acknowledged(&self, count: usize) {
        self.load.acknowledged(count).await;
    }

    /// No acknowledged write is lost, no linearizable read was stale, all members hold the same.
    /// How long no write was acknowledged, at the worst.
    pub async fn judge(self, containers: &Containers) -> Duration {
        let history = self.load.stop().await.history;
        let mut held: Option<(u64, Held)> = None;
        for id in containers.ids() {
            let client = containers.client(id);
            find_all(&client, &history).await;
            let own = held_by(&client).await;
            let (first, wanted) = held.get_or_insert_with(|| (id, own.clone()));
            assert_eq!(*wanted, own, "members {first} and {id} hold different data");
        }
        let (writes, acked, reads) = history.counts();
        let gap = history.longest_gap();
        println!("    {acked} of {writes} writes acknowledged, {reads} reads, longest gap {gap:?}");
        let some = containers.client(containers.ids()[0]).recorded(&self.recorder);
        settle_unclaimed(&some, &self.recorder).await;
        self.recorder.told().assert_linearizable();
        gap
    }
}

/// The judges begin with a store that holds nothing; the revision that it has then.
async fn forget_earlier(client: &Client) -> i64 {
    let everything = pb::DeleteRangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..pb::DeleteRangeRequest::default()
    };
    let answer = client.timely(client.kv().delete_range(everything)).await;
    let answer = answer.expect("a settled cluster");
    answer.header.expect("every answer has a header").revision
}

/// A member still has every acknowledged write, at the revision of its acknowledgement.
async fn find_all(client: &Client, history: &Told) {
    for (key, value, revision) in history.acked() {
        let key = bytes::Bytes::copy_from_slice(key);
        let request = pb::RangeRequest { key, revision, ..pb::RangeRequest::default() };
        let answer = client.range(request).await.expect("a healthy member answers");
        let found = answer.kvs.first().map(|kv| (kv.value.to_vec(), kv.mod_revision));
        let wanted = Some((value.to_vec(), revision));
        assert_eq!(found, wanted, "member {} lost revision {revision}", client.id);
    }
}

/// A member's own revision and data.
type Held = (i64, Vec<KeyValue>);

/// What a member holds itself, once two looks with a linearizable read between them agree: writes
/// that nobody waits for any more may still be under way.
async fn held_by(client: &Client) -> Held {
    eventually(&format!("member {} to come to rest", client.id), async || {
        let before = own(client).await?;
        client.get("any").await.map_err(|error| error.to_string())?;
        let after = own(client).await?;
        if before == after { Ok(after) } else { Err("still changing".to_owned()) }
    })
    .await
}

async fn own(client: &Client) -> Result<Held, String> {
    let everything = pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        serializable: true,
        ..pb::RangeRequest::default()
    };
    let answer = client.range(everything).await.map_err(|error| error.to_string())?;
    Ok((answer.header.expect("every answer has a header").revision, answer.kvs))
}
