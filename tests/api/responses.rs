//! Large responses: what they may take of a member's memory and of its time.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::etcdserverpb::request_op::Request;
use raft_node::proto::etcdserverpb::response_op::Response;
use tokio::net::TcpStream;
use tonic::Code;

use crate::common::{Client, Cluster, Options, PATIENCE, http, within};

const MIB: u64 = 1 << 20;

fn everything() -> pb::RangeRequest {
    let (key, range_end) = ("\0".into(), "\0".into());
    pb::RangeRequest { key, range_end, ..pb::RangeRequest::default() }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: String, value: Vec<u8>) -> Request {
    Request::RequestPut(pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..pb::PutRequest::default()
    })
}

/// Writes `count` small keys, many at a time.
async fn fill(client: &Client, count: usize) {
    let keys: Vec<usize> = (0..count).collect();
    for keys in keys.chunks(128) {
        let puts = keys.iter().map(|number| op(put(format!("key{number:07}"), b"value".to_vec())));
        let txn = pb::TxnRequest { success: puts.collect(), ..pb::TxnRequest::default() };
        client.timely(client.kv().txn(txn)).await.expect("a write");
    }
}

/// Writes `count` keys of 1 MiB each.
async fn fill_large(client: &Client, count: usize) {
    for number in 0..count {
        client.put(&format!("large{number}"), vec![b'v'; MIB as usize]).await.expect("a write");
    }
}

/// 1.5 kB that ask for the whole store 127 times, and write one key.
fn greedy() -> pb::TxnRequest {
    let mut success = vec![op(put("greedy".to_owned(), Vec::new()))];
    success.resize(128, op(Request::RequestRange(everything())));
    pb::TxnRequest { success, ..pb::TxnRequest::default() }
}

/// However much is asked for by a write, it is collected by the member that was asked, and by no
/// other, nor by any when the log is read back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_reads_all_again_and_again_fills_no_others_memory() {
    const KEYS: usize = 10_000;
    let mut cluster = Cluster::start(Options::default().patient()).await;
    let client = cluster.client(1).with_deadline(Duration::from_mins(1));
    fill(&client, KEYS).await;
    let ids = cluster.ids();
    let before: Vec<u64> = ids.iter().map(|id| cluster.member(*id).memory_peak_bytes()).collect();
    let answer = client.timely(client.kv().txn(greedy())).await.expect("a transaction");
    assert_eq!(answer.responses.len(), 128);
    for outcome in &answer.responses[1..] {
        let Some(Response::ResponseRange(range)) = &outcome.response else { panic!("no range") };
        assert_eq!(range.kvs.len(), KEYS + 1, "each read sees the write before it");
    }
    drop(answer);
    for (id, before) in ids.iter().zip(&before).skip(1) {
        cluster.caught_up(*id, 1).await;
        // The kernel counts pages in batches for each thread: a peak may read lower than before.
        let grown = cluster.member(*id).memory_peak_bytes().saturating_sub(*before);
        assert!(grown < 64 * MIB, "member {id} took {grown} bytes more for a response not its own");
    }
    for id in &ids {
        cluster.kill(*id);
    }
    for id in &ids {
        cluster.restart(*id);
    }
    cluster.settled().await;
    for (id, before) in ids.iter().zip(before) {
        let peak = cluster.member(*id).memory_peak_bytes();
        assert!(
            peak < before + 64 * MIB,
            "member {id} took {peak} bytes to start, {before} before"
        );
    }
    assert!(cluster.client(2).value("greedy").await.expect("a read").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_response_is_too_large_is_refused_without_an_effect() {
    let mut cluster = Cluster::start(Options::single()).await;
    let client = cluster.client(1).with_deadline(Duration::from_mins(1));
    fill(&client, 50_000).await;
    let before = cluster.member(1).memory_peak_bytes();
    let status = client.timely(client.kv().txn(greedy())).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "etcdserver: response is too large");
    let only_reads = pb::TxnRequest { success: greedy().success.split_off(1), ..greedy() };
    let status = client.timely(client.kv().txn(only_reads)).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(client.value("greedy").await.expect("a read"), None);
    // What is read is collected up to the bound, and no further.
    let grown = cluster.member(1).memory_peak_bytes().saturating_sub(before);
    assert!(grown < 320 * MIB, "the member took {grown} bytes more");
}

/// Small reads one after the other, for as long as `meanwhile` lasts, and how long each took.
async fn small_reads(client: &Client, meanwhile: impl Future<Output = ()>) -> Vec<Duration> {
    let mut taken = Vec::new();
    let reads = async {
        loop {
            let began = Instant::now();
            client.get_local("small").await.expect("a read");
            taken.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        () = reads => unreachable!("they have no end"),
        () = meanwhile => {}
    }
    taken.sort();
    taken
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

/// The reader's messages are not decoded: that would take the machine from the member.
async fn read_whole(addr: &str, request: &pb::RangeRequest) -> usize {
    let mut body = ask(addr, request).await;
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.expect("a part of the response");
        received += data.len();
        body.flow_control().release_capacity(data.len()).expect("it was received");
    }
    received
}

/// Asks for `request`, and gives the body that has yet to be read.
async fn ask(addr: &str, request: &pb::RangeRequest) -> h2::RecvStream {
    let stream = TcpStream::connect(addr).await.expect("it listens");
    let (mut client, connection) = h2::client::Builder::new()
        .initial_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    let head = ::http::Request::post(format!("http://{addr}/etcdserverpb.KV/Range"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let (response, mut body) = client.send_request(head, false).expect("a stream");
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(request.encoded_len()).expect("it is short"));
    request.encode(&mut framed).expect("there is room");
    body.send_data(framed.freeze(), true).expect("it is sent");
    response.await.expect("an answer").into_body()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_read_beside_large_ones_is_served_between_their_parts() {
    let mut cluster = Cluster::start(Options::single()).await;
    let client = cluster.client(1).clone();
    let addr = cluster.member(1).client_addr.clone();
    client.put("small", "value").await.expect("a write");
    fill_large(&client, 100).await;
    fill(&client, 100_000).await;
    let alone = small_reads(&client, tokio::time::sleep(Duration::from_secs(2))).await;
    let local = pb::RangeRequest { serializable: true, ..everything() };
    let sorted = pb::RangeRequest {
        sort_order: pb::range_request::SortOrder::Descend.into(),
        sort_target: pb::range_request::SortTarget::Value.into(),
        ..local.clone()
    };
    let large = async {
        for request in [&local, &sorted, &local, &sorted] {
            let received = read_whole(&addr, request).await;
            assert!(received as u64 > 100 * MIB, "{received} bytes");
        }
    };
    let beside = small_reads(&client, large).await;
    let (alone, beside) = (p99(&alone), p99(&beside));
    println!("99 of 100 small reads took {alone:?} alone, {beside:?} beside large ones");
    // On a machine with nothing else to do it is a few milliseconds.
    assert!(beside < 20 * alone + Duration::from_secs(1), "{alone:?} alone, {beside:?} beside");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_take_a_bounded_part_of_the_memory() {
    let mut cluster = Cluster::start(Options::single()).await;
    let client = cluster.client(1).clone();
    let addr = cluster.member(1).client_addr.clone();
    client.put("small", "value").await.expect("a write");
    fill_large(&client, 100).await;
    let before = cluster.member(1).memory_peak_bytes();
    let request = pb::RangeRequest { serializable: true, ..everything() };
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (addr, request) = (addr.clone(), request.clone());
        held.spawn(async move {
            // Answered, or refused after a while; never read.
            let body = ask(&addr, &request).await;
            std::future::pending::<()>().await;
            drop(body);
        });
    }
    // What they keep is of keys that are overwritten meanwhile.
    fill_large(&client, 100).await;
    for _ in 0..50 {
        client.get_local("small").await.expect("a small read passes");
        assert_eq!(http::get(&addr, "/livez").await.status, 200);
    }
    let compaction = pb::CompactionRequest {
        revision: client.status().await.expect("the status").header.expect("one").revision,
        physical: false,
    };
    client.timely(client.kv().compact(compaction)).await.expect("a compaction");
    let grown = cluster.member(1).memory_peak_bytes().saturating_sub(before);
    assert!(grown < 700 * MIB, "the member took {grown} bytes more");
    held.abort_all();
    within(4 * PATIENCE, "a large read after they have gone", async || {
        match client.timely(client.kv().range(request.clone())).await {
            Ok(answer) if answer.kvs.len() == 101 => Ok(()),
            other => Err(format!("{:?}", other.map(|answer| answer.count))),
        }
    })
    .await;
}
