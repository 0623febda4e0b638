//! A member of one, in memory, with a flaw of choice: what the tool must find.
//!
//! For tests. It speaks through the `h2` server, so that the client is tested on a real socket.

use crate::grpc::{self, Endpoint};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use prost::Message as _;
use raft_node::proto::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
};
use raft_node::proto::mvccpb::KeyValue;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// It acknowledges every tenth write and forgets it.
    Forgets,
    /// Its reads show the state of five writes ago.
    ReadsThePast,
    /// It carries every tenth write out twice.
    WritesTwice,
    /// It refuses everything, as a member without a leader does.
    Refuses,
    /// It ends each connection at its third request.
    HangsUp,
}

#[derive(Default)]
struct Store {
    revision: i64,
    kvs: BTreeMap<Bytes, KeyValue>,
}

/// Serves until the test's runtime ends.
pub async fn member(flaw: Flaw) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let addr = listener.local_addr().expect("it is bound");
    let store = Arc::new(Mutex::new(Store::default()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, store.clone(), flaw));
        }
    });
    addr.to_string().parse().expect("an address is an endpoint")
}

async fn serve(stream: TcpStream, store: Arc<Mutex<Store>>, flaw: Flaw) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut requests = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        requests += 1;
        if flaw == Flaw::HangsUp && requests == 3 {
            return;
        }
        let path = request.uri().path().to_owned();
        tokio::spawn(answer(path, request.into_body(), respond, store.clone(), flaw));
    }
}

async fn answer(
    path: String,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    store: Arc<Mutex<Store>>,
    flaw: Flaw,
) {
    let mut frame = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        frame.extend_from_slice(&chunk);
    }
    let mut head = http::Response::new(());
    let mut trailers = http::HeaderMap::new();
    if flaw == Flaw::Refuses {
        head.headers_mut().insert("grpc-status", http::HeaderValue::from_static("14"));
        let message = http::HeaderValue::from_static("etcdserver:%20no%20leader");
        head.headers_mut().insert("grpc-message", message);
        let _the_client_may_have_gone = respond.send_response(head, true);
        return;
    }
    let message = &frame[5..];
    let answer = {
        let mut store = store.lock().expect("no test panics with the store in hand");
        match path.as_str() {
            grpc::PUT => store.put(PutRequest::decode(message).expect("a put"), flaw),
            grpc::RANGE => store.range(&RangeRequest::decode(message).expect("a range"), flaw),
            other => panic!("the fake member knows no {other}"),
        }
    };
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    let _the_client_may_have_gone =
        stream.send_data(answer, false).and_then(|()| stream.send_trailers(trailers));
}

fn header(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..Default::default() }
}

impl Store {
    fn put(&mut self, put: PutRequest, flaw: Flaw) -> Bytes {
        self.revision += 1;
        let tenth = self.revision % 10 == 0;
        if !(tenth && flaw == Flaw::Forgets) {
            let kv = KeyValue {
                key: put.key.clone(),
                value: put.value,
                create_revision: self.revision,
                mod_revision: self.revision,
                version: if tenth && flaw == Flaw::WritesTwice { 2 } else { 1 },
                lease: 0,
            };
            self.kvs.insert(put.key, kv);
        }
        grpc::encode_frame(&PutResponse { header: Some(header(self.revision)), prev_kv: None })
    }

    fn range(&self, range: &RangeRequest, flaw: Flaw) -> Bytes {
        let revision = self.revision - if flaw == Flaw::ReadsThePast { 5 } else { 0 };
        let end = match &range.range_end[..] {
            b"" => [&range.key[..], b"\0"].concat().into(),
            _ => range.range_end.clone(),
        };
        let limit = usize::try_from(range.limit).expect("no limit is negative");
        let limit = if limit == 0 { usize::MAX } else { limit };
        let visible = self.kvs.range(range.key.clone()..end).map(|(_, kv)| kv);
        let visible: Vec<KeyValue> =
            visible.filter(|kv| kv.mod_revision <= revision).cloned().collect();
        grpc::encode_frame(&RangeResponse {
            header: Some(header(revision)),
            more: visible.len() > limit,
            count: 0, // nobody here looks at it
            kvs: visible.into_iter().take(limit).collect(),
        })
    }
}
