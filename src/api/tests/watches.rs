//! A stream of watches on the wire. The test's member announces no revision, so what is told is
//! read from history, or answers a request.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::watch_client::WatchClient;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;

use super::{CLUSTER_ID, member, put};

struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watches {
    async fn open(channel: Channel) -> Self {
        let (requests, asked) = mpsc::channel(16);
        let opened = WatchClient::new(channel).watch(ReceiverStream::new(asked)).await;
        Self { requests, responses: opened.expect("it is served").into_inner() }
    }

    async fn ask(&mut self, request: RequestUnion) -> pb::WatchResponse {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.send(request).await.expect("the stream goes on");
        self.next().await
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.expect("the stream goes on").expect("there is more")
    }
}

fn create(key: &'static str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.into(), start_revision, ..Default::default() }
}

#[tokio::test]
async fn watches_are_made_refused_and_ended_as_by_etcd() {
    let world = member(true).await;
    let mut kv = KvClient::new(world.client.clone());
    for value in ["1", "2"] {
        kv.put(put("k", value)).await.expect("done");
    }
    let mut watches = Watches::open(world.client.clone()).await;
    let created = watches.ask(RequestUnion::CreateRequest(create("other", 0))).await;
    assert_eq!((created.watch_id, created.created, created.canceled), (0, true, false));
    let header = created.header.expect("Go clients fail without one");
    assert_eq!((header.cluster_id, header.member_id, header.revision), (CLUSTER_ID, 1, 3));

    let twice = pb::WatchCreateRequest { watch_id: 7, ..create("other", 0) };
    assert_eq!(watches.ask(RequestUnion::CreateRequest(twice.clone())).await.watch_id, 7);
    let empty = pb::WatchCreateRequest { range_end: "a".into(), ..create("b", 0) };
    for (request, reason) in [
        (twice, "mvcc: duplicate watch ID provided on the WatchStream"),
        (empty, "mvcc: watcher range is empty"),
        (create("k", -1), "etcdserver: mvcc: required revision has been compacted"),
    ] {
        let refused = watches.ask(RequestUnion::CreateRequest(request)).await;
        assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
        assert_eq!(refused.cancel_reason, reason);
    }

    let filters = vec![FilterType::Nodelete as i32];
    let history = pb::WatchCreateRequest { prev_kv: true, filters, ..create("k", 2) };
    assert!(watches.ask(RequestUnion::CreateRequest(history)).await.created);
    let told = watches.next().await;
    let values: Vec<_> = told
        .events
        .iter()
        .map(|event| {
            let value = |kv: &Option<crate::proto::mvccpb::KeyValue>| {
                kv.as_ref().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
            };
            (event.r#type, value(&event.kv), value(&event.prev_kv))
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(values, [(0, some("1"), None), (0, some("2"), some("1"))]);

    let progress = watches.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let revision = progress.header.map(|header| header.revision);
    assert_eq!((progress.watch_id, revision, progress.events.len()), (-1, Some(3), 0));
    let cancel = pb::WatchCancelRequest { watch_id: 7 };
    let ended = watches.ask(RequestUnion::CancelRequest(cancel)).await;
    assert_eq!((ended.watch_id, ended.canceled, ended.compact_revision), (7, true, 0));

    kv.compact(pb::CompactionRequest { revision: 3, physical: false }).await.expect("done");
    assert!(watches.ask(RequestUnion::CreateRequest(create("k", 2))).await.created);
    let compacted = watches.next().await;
    let revision = compacted.header.map(|header| header.revision);
    assert_eq!((compacted.canceled, compacted.compact_revision, revision), (true, 3, Some(0)));
}

#[tokio::test]
async fn a_stream_that_wants_a_leader_is_refused_where_none_is_known() {
    let world = member(false).await;
    let (_requests, asked) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(asked));
    request.metadata_mut().insert("hasleader", "true".parse().expect("ASCII"));
    let refused = WatchClient::new(world.client.clone()).watch(request).await;
    let status = refused.expect_err("no leader");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
}
