//! `etcdserverpb.KV`.

use raft_node::proto::etcdserverpb as pb;
use raft_node::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use raft_node::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use raft_node::proto::etcdserverpb::request_op::Request;
use raft_node::proto::etcdserverpb::response_op::Response;
use tonic::{Code, Status};

use crate::common::{Client, Cluster, Options};

async fn lone() -> Cluster {
    Cluster::start(Options::single()).await
}

/// The keys from `key` up to `end`.
fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

fn put_op(key: &str, value: &str) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestPut(put(key, value))) }
}

fn get_op(key: &str) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestRange(range(key, ""))) }
}

fn keys(response: &pb::RangeResponse) -> Vec<String> {
    response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.expect("every answer has a header").revision
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("must be refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

async fn txn(client: &Client, txn: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
    client.timely(client.kv().txn(txn)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_count_writes() {
    let cluster = lone().await;
    let client = cluster.client(1);
    let empty = client.get("k").await.expect("a read");
    assert_eq!((revision(empty.header.as_ref()), empty.kvs.len(), empty.count), (1, 0, 0));
    assert_eq!(client.put("k", "1").await.expect("a write"), 2);
    assert_eq!(client.put("k", "2").await.expect("a write"), 3);
    assert_eq!(client.put("l", "3").await.expect("a write"), 4);
    let found = client.get("k").await.expect("a read");
    let header = found.header.expect("a header");
    assert_eq!((header.revision, header.member_id), (4, 1));
    assert!(header.cluster_id != 0 && header.raft_term > 0, "{header:?}");
    let kv = &found.kvs[0];
    assert_eq!((&kv.value[..], kv.create_revision), (&b"2"[..], 2));
    assert_eq!((kv.mod_revision, kv.version, kv.lease), (3, 2, 0));
    let deleted = pb::DeleteRangeRequest { prev_kv: true, ..delete("k", "") };
    let deleted = client.timely(client.kv().delete_range(deleted)).await.expect("a write");
    assert_eq!((revision(deleted.header.as_ref()), deleted.deleted), (5, 1));
    assert_eq!(&deleted.prev_kvs[0].value[..], b"2");
    let nothing = client.timely(client.kv().delete_range(delete("k", ""))).await.expect("a write");
    assert_eq!((revision(nothing.header.as_ref()), nothing.deleted), (5, 0));
    assert_eq!(client.put("k", "new").await.expect("a write"), 6);
    let again = client.get("k").await.expect("a read");
    assert_eq!((again.kvs[0].create_revision, again.kvs[0].version), (6, 1));
    let past = pb::RangeRequest { revision: 3, ..range("k", "") };
    let past = client.range(past).await.expect("a read");
    assert_eq!((&past.kvs[0].value[..], revision(past.header.as_ref())), (&b"2"[..], 6));
}

fn delete(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        prev_kv: false,
    }
}

/// `a`, `b/1`, `b/2` and `c`, written in this order, with values from 3 down to 0.
async fn four_keys() -> Cluster {
    let cluster = lone().await;
    for (key, value) in [("a", "3"), ("b/1", "2"), ("b/2", "1"), ("c", "0")] {
        cluster.client(1).put(key, value).await.expect("a write");
    }
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_cut_and_counted() {
    let cluster = four_keys().await;
    let client = cluster.client(1);
    let all = client.range(range("\0", "\0")).await.expect("a read");
    assert_eq!(keys(&all), ["a", "b/1", "b/2", "c"]);
    assert_eq!((all.count, all.more), (4, false));
    let from = client.range(range("b/2", "\0")).await.expect("a read");
    assert_eq!(keys(&from), ["b/2", "c"]);
    let prefix = client.range(range("b/", "b0")).await.expect("a read");
    assert_eq!(keys(&prefix), ["b/1", "b/2"]);
    let limited = pb::RangeRequest { limit: 3, ..range("\0", "\0") };
    let limited = client.range(limited).await.expect("a read");
    assert_eq!((limited.kvs.len(), limited.count, limited.more), (3, 4, true));
    let counted = pb::RangeRequest { count_only: true, ..range("\0", "\0") };
    let counted = client.range(counted).await.expect("a read");
    assert_eq!((counted.kvs.len(), counted.count), (0, 4));
    let bare = pb::RangeRequest { keys_only: true, ..range("a", "") };
    assert!(client.range(bare).await.expect("a read").kvs[0].value.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_sorted_and_filtered() {
    let cluster = four_keys().await;
    let client = cluster.client(1);
    let by_value = pb::RangeRequest {
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Value.into(),
        ..range("\0", "\0")
    };
    assert_eq!(keys(&client.range(by_value).await.expect("a read")), ["c", "b/2", "b/1", "a"]);
    let newest = pb::RangeRequest {
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Mod.into(),
        limit: 1,
        ..range("\0", "\0")
    };
    assert_eq!(keys(&client.range(newest).await.expect("a read")), ["c"]);
    let young = pb::RangeRequest { min_mod_revision: 4, ..range("\0", "\0") };
    let young = client.range(young).await.expect("a read");
    assert_eq!((keys(&young), young.count), (vec!["b/2".to_owned(), "c".to_owned()], 4));
    let backwards = client.range(range("c", "a")).await.expect("no error");
    assert_eq!(backwards.count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_give_back_and_keep_what_was_there() {
    let cluster = lone().await;
    let client = cluster.client(1);
    let asks = pb::PutRequest { prev_kv: true, ..put("k", "1") };
    let first = client.timely(client.kv().put(asks.clone())).await.expect("a write");
    assert_eq!(first.prev_kv, None);
    let second = client.timely(client.kv().put(asks)).await.expect("a write");
    assert_eq!(&second.prev_kv.expect("the former").value[..], b"1");
    let keeps = pb::PutRequest { ignore_value: true, ..put("k", "") };
    client.timely(client.kv().put(keeps)).await.expect("a write");
    let kept = client.get("k").await.expect("a read");
    assert_eq!((&kept.kvs[0].value[..], kept.kvs[0].version), (&b"1"[..], 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_that_contradict_themselves_are_refused() {
    let cluster = lone().await;
    let client = cluster.client(1);
    let both = pb::PutRequest { ignore_value: true, ..put("k", "x") };
    let text = "etcdserver: value is provided";
    refused(client.timely(client.kv().put(both)).await, Code::InvalidArgument, text);
    let missing = pb::PutRequest { ignore_value: true, ..put("missing", "") };
    let text = "etcdserver: key not found";
    refused(client.timely(client.kv().put(missing)).await, Code::InvalidArgument, text);
    let leased = pb::PutRequest { lease: 7, ..put("k", "1") };
    let text = "etcdserver: requested lease not found";
    refused(client.timely(client.kv().put(leased)).await, Code::NotFound, text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_bytes() {
    let cluster = lone().await;
    let client = cluster.client(1);
    let any = vec![0, 255, 128];
    let binary = pb::PutRequest { key: any.clone().into(), ..put("", "v") };
    client.timely(client.kv().put(binary)).await.expect("a write");
    let found = client.range(pb::RangeRequest { key: any.into(), ..range("", "") }).await;
    assert_eq!(found.expect("a read").count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_etcds_own() {
    let cluster = lone().await;
    let client = cluster.client(1);
    let text = "etcdserver: key is not provided";
    refused(client.put("", "v").await, Code::InvalidArgument, text);
    refused(client.range(range("", "")).await, Code::InvalidArgument, text);
    let answer = client.timely(client.kv().delete_range(delete("", ""))).await;
    refused(answer, Code::InvalidArgument, text);
    let future = pb::RangeRequest { revision: 99, ..range("k", "") };
    let text = "etcdserver: mvcc: required revision is a future revision";
    refused(client.range(future).await, Code::OutOfRange, text);
    let odd = pb::RangeRequest { sort_order: 7, ..range("k", "") };
    let text = "etcdserver: invalid sort option";
    refused(client.range(odd).await, Code::InvalidArgument, text);
    let large = client.put("k", vec![0; (3 << 19) + 1]).await;
    refused(large, Code::InvalidArgument, "etcdserver: request is too large");
    let huge = client.put("k", vec![0; 3 << 20]).await.expect_err("must be refused");
    assert_eq!(huge.code(), Code::ResourceExhausted, "{huge:?}");
    assert_eq!(client.put("k", vec![0; 3 << 18]).await.expect("a write"), 2, "none of these wrote");
}

fn if_value(key: &str, result: CompareResult, value: &str) -> pb::Compare {
    pb::Compare {
        result: result.into(),
        target: CompareTarget::Value.into(),
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Value(value.to_owned().into())),
        ..pb::Compare::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_compare_then_do_one_thing_or_the_other() {
    let cluster = lone().await;
    let client = cluster.client(1);
    client.put("k", "1").await.expect("a write");
    let request = |expected: &str| pb::TxnRequest {
        compare: vec![if_value("k", CompareResult::Equal, expected)],
        success: vec![put_op("k", "2"), put_op("l", "2"), get_op("k")],
        failure: vec![get_op("k")],
    };
    let done = txn(client, request("1")).await.expect("a transaction");
    assert!(done.succeeded);
    assert_eq!(revision(done.header.as_ref()), 3, "one revision for all");
    let Some(Response::ResponseRange(read)) = &done.responses[2].response else {
        panic!("{done:?}");
    };
    assert_eq!(&read.kvs[0].value[..], b"2", "later operations see earlier ones");
    let not_done = txn(client, request("1")).await.expect("a transaction");
    assert!(!not_done.succeeded);
    assert_eq!(revision(not_done.header.as_ref()), 3);
    let Some(Response::ResponseRange(read)) = &not_done.responses[0].response else {
        panic!("{not_done:?}");
    };
    assert_eq!(&read.kvs[0].value[..], b"2");
    let twice = pb::TxnRequest {
        success: vec![put_op("k", "3"), put_op("k", "4")],
        ..pb::TxnRequest::default()
    };
    let text = "etcdserver: duplicate key given in txn request";
    refused(txn(client, twice).await, Code::InvalidArgument, text);
    let many: Vec<pb::RequestOp> = (0..129).map(|n| put_op(&format!("m{n}"), "")).collect();
    let many = pb::TxnRequest { success: many, ..pb::TxnRequest::default() };
    let text = "etcdserver: too many operations in txn request";
    refused(txn(client, many).await, Code::InvalidArgument, text);
    let inner = pb::TxnRequest { success: vec![put_op("n", "in")], ..pb::TxnRequest::default() };
    let outer = pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(Request::RequestTxn(inner)) }],
        ..pb::TxnRequest::default()
    };
    assert!(txn(client, outer).await.expect("a transaction").succeeded);
    assert_eq!(client.value("n").await.expect("a read"), Some(b"in".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_drops_history_for_good() {
    let mut cluster = lone().await;
    let client = cluster.client(1).clone();
    for value in ["1", "2", "3"] {
        client.put("k", value).await.expect("a write");
    }
    let compact = |revision| pb::CompactionRequest { revision, physical: true };
    client.timely(client.kv().compact(compact(3))).await.expect("a compaction");
    let past = |revision| pb::RangeRequest { revision, ..range("k", "") };
    let gone = "etcdserver: mvcc: required revision has been compacted";
    let ahead = "etcdserver: mvcc: required revision is a future revision";
    for life in 1..=2 {
        let at_floor = client.range(past(3)).await.expect("the floor itself stays");
        assert_eq!(&at_floor.kvs[0].value[..], b"2", "life {life}");
        refused(client.range(past(2)).await, Code::OutOfRange, gone);
        let again = client.timely(client.kv().compact(compact(3))).await;
        refused(again, Code::OutOfRange, gone);
        let future = client.timely(client.kv().compact(compact(99))).await;
        refused(future, Code::OutOfRange, ahead);
        if life == 1 {
            cluster.kill(1);
            cluster.restart(1);
            cluster.settled().await;
        }
    }
}

/// A large answer must neither be cut nor refused on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_be_larger_than_any_request() {
    let cluster = lone().await;
    let client = cluster.client(1);
    for count in 0..12 {
        client.put(&format!("big/{count:02}"), vec![count; 1 << 20]).await.expect("a write");
    }
    let found = client.range(range("big/", "big0")).await.expect("a read");
    let sizes: Vec<usize> = found.kvs.iter().map(|kv| kv.value.len()).collect();
    assert_eq!(sizes, [1 << 20; 12]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_yet_says_so() {
    let cluster = lone().await;
    let channel = cluster.client(1).channel();
    let mut leases = pb::lease_client::LeaseClient::new(channel);
    let status = leases.lease_grant(pb::LeaseGrantRequest::default()).await.expect_err("no leases");
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}
