//! Memory follows what is stored: what compaction frees, or the log no longer needs, the system
//! gets back, on every member and without any further request.

use std::time::Duration;

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::etcdserverpb::request_op::Request;

use crate::common::http::gauge;
use crate::common::{self, Client, Cluster, Options};

const KEYS: u64 = 8_000;
const WRITES: u64 = 80_000;
const VALUE_BYTES: usize = 1 << 10;
const OPS_PER_TXN: u64 = 100;

/// What a member takes whatever it stores, the log kept for others and buffers included.
const CONSTANT_BYTES: u64 = 112 << 20;

/// Writes keys in an order without pattern, so that those versions that survive lie scattered.
async fn overwrite(client: &Client) -> i64 {
    let mut revision = 0;
    for batch in 0..WRITES / OPS_PER_TXN {
        let success = (0..OPS_PER_TXN).map(|at| {
            // Distinct within a batch: the stride is coprime to the number of keys.
            let key = ((batch * OPS_PER_TXN + at) * 4_409 + batch / 3) % KEYS;
            let value = vec![b'v'; VALUE_BYTES + (key % 128) as usize];
            let put = pb::PutRequest {
                key: format!("memory/{key:08}").into(),
                value: value.into(),
                ..pb::PutRequest::default()
            };
            pb::RequestOp { request: Some(Request::RequestPut(put)) }
        });
        let txn = pb::TxnRequest { success: success.collect(), ..pb::TxnRequest::default() };
        let mut service = client.kv();
        let done = client.timely(service.txn(txn)).await.expect("the transaction is done");
        revision = done.header.expect("every answer has a header").revision;
    }
    revision
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_gauges_follow_what_compaction_leaves() {
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let lead = cluster.settled().await;
    let revision = overwrite(cluster.client(lead.id)).await;
    for id in cluster.ids() {
        cluster.caught_up(id, lead.id).await;
    }
    let compact = pb::CompactionRequest { revision, physical: false };
    let client = cluster.client(lead.id);
    client.timely(client.kv().compact(compact)).await.expect("compacted");
    for id in cluster.ids() {
        let addr = cluster.member(id).client_addr.clone();
        let pid = cluster.member(id).pid();
        let what = format!("member {id} gives back what compaction freed");
        common::within(Duration::from_mins(1), &what, async || {
            let live = gauge(&addr, "etcd_mvcc_db_total_size_in_bytes").await;
            let resident = resident_bytes(pid);
            let most = live + live / 2 + CONSTANT_BYTES;
            let data = KEYS * (VALUE_BYTES as u64 + 256);
            if live > 2 * data || resident > most {
                return Err(format!("{live} bytes live, {resident} of at most {most} resident"));
            }
            Ok(())
        })
        .await;
    }
}
