//! Calls as other clients than ours make them: given up, compressed, with much metadata, or with an
//! authority that HTTP/2 does not allow.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use raft_node::proto::etcdserverpb as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::common::{Client, Cluster, Options, PATIENCE};

/// A message as gRPC frames it.
fn framed(request: &impl Message) -> Bytes {
    let message = request.encode_to_vec();
    let len = u32::try_from(message.len()).expect("short");
    [&[0], &len.to_be_bytes()[..], &message].concat().into()
}

fn put(key: &str) -> Bytes {
    framed(&pb::PutRequest { key: key.to_owned().into(), ..pb::PutRequest::default() })
}

/// One connection to a member, and what is sent on it.
struct Connection(SendRequest<Bytes>);

impl Connection {
    async fn open(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connect");
        let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(requests)
    }

    fn head(path: &str) -> Request<()> {
        Request::post(format!("http://member{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request")
    }

    /// The status of a put, over this connection.
    async fn put(&self, key: &str) -> Result<Code, h2::Error> {
        let mut requests = self.0.clone().ready().await?;
        let (answer, mut body) =
            requests.send_request(Self::head("/etcdserverpb.KV/Put"), false)?;
        body.send_data(put(key), true)?;
        let answer = answer.await?;
        let head = answer.headers().clone();
        let mut answer = answer.into_body();
        while let Some(data) = answer.data().await {
            let bytes = data?.len();
            answer.flow_control().release_capacity(bytes)?;
        }
        let trailers = answer.trailers().await?.unwrap_or(head);
        Ok(grpc_status(&trailers))
    }

    /// Makes `count` calls and gives each up as soon as it is sent.
    async fn give_up(&self, count: usize) {
        /// Fewer than a connection may have under way.
        const AT_ONCE: usize = 500;
        let mut left = count;
        while left > 0 {
            let mut calls = Vec::new();
            for _ in 0..left.min(AT_ONCE) {
                let mut requests = self.0.clone().ready().await.expect("the connection stands");
                let head = Self::head("/etcdserverpb.KV/Put");
                let (answer, mut body) = requests.send_request(head, false).expect("a call");
                body.send_data(put("given up"), true).expect("a body");
                calls.push((answer, body));
            }
            // The connection's own task writes them.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            left -= calls.len();
            for (_, body) in &mut calls {
                body.send_reset(Reason::CANCEL);
            }
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_leave_the_connection_to_others() {
    let mut cluster = Cluster::start(Options::single()).await;
    let addr = cluster.member(1).client_addr.clone();
    let connection = Connection::open(&addr).await;
    assert_eq!(connection.put("before").await.expect("an answer"), Code::Ok);
    for count in [300, 10_000] {
        // While the member stands still they gather: it sees all of them, and their ends, at once.
        cluster.member(1).freeze();
        connection.give_up(300).await;
        cluster.member(1).thaw();
        connection.give_up(count).await;
        let after = tokio::time::timeout(PATIENCE, connection.put("after")).await;
        assert_eq!(after.expect("an answer in time").expect("the same connection"), Code::Ok);
    }
    cluster.member(1).assert_runs();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_port_bears_calls_that_are_given_up() {
    let mut cluster = Cluster::start(Options::single()).await;
    let connection = Connection::open(&cluster.member(1).peer_addr.clone()).await;
    connection.put("before").await.expect("an answer");
    cluster.member(1).freeze();
    connection.give_up(200).await;
    cluster.member(1).thaw();
    connection.put("after").await.expect("the same connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_requests_are_served_up_to_the_limit() {
    let cluster = Cluster::start(Options::single()).await;
    let client = cluster.client(1);
    let mut kv = client.kv().send_compressed(CompressionEncoding::Gzip);
    let put = |bytes: usize| pb::PutRequest {
        key: Bytes::from_static(b"k"),
        value: vec![b'v'; bytes].into(),
        ..pb::PutRequest::default()
    };
    client.timely(kv.put(put(1000))).await.expect("a write");
    assert_eq!(client.value("k").await.expect("a read"), Some(vec![b'v'; 1000]));
    // A few kilobytes on the wire.
    let bomb = client.timely(kv.put(put(64 << 20))).await.expect_err("too large");
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb}");
    client.timely(kv.put(put(1000))).await.expect("a write");
}

fn with_metadata(bytes: usize) -> tonic::Request<pb::RangeRequest> {
    let request = pb::RangeRequest { key: Bytes::from_static(b"k"), ..pb::RangeRequest::default() };
    let mut request = tonic::Request::new(request);
    let value = "x".repeat(bytes).parse().expect("metadata");
    request.metadata_mut().insert("token", value);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_taken_or_refused_by_its_name() {
    let cluster = Cluster::start(Options::single()).await;
    let client: &Client = cluster.client(1);
    let mut kv = client.kv();
    for bytes in [100, 16 << 10, 24 << 10] {
        client.timely(kv.range(with_metadata(bytes))).await.expect("a read");
    }
    for bytes in [40 << 10, 70 << 10, 500 << 10] {
        let refused = client.timely(kv.range(with_metadata(bytes))).await.expect_err("too much");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{bytes}: {refused}");
    }
    client.timely(kv.range(with_metadata(100))).await.expect("a read");
}

const GOAWAY: u8 = 7;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// A header field that goes into the table: by the index of its name, with a literal value.
fn field(index: u8, value: &[u8]) -> Vec<u8> {
    [&[0x40 | index, u8::try_from(value.len()).expect("short")], value].concat()
}

/// The kinds of the frames that come until stream `stream` ends.
async fn answered(connection: &mut TcpStream, stream: u32) -> Vec<u8> {
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await.expect("a frame");
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        connection.read_exact(&mut vec![0; len]).await.expect("its body");
        let [kind, flags] = [head[3], head[4]];
        let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if of != stream && kind != GOAWAY {
            continue;
        }
        kinds.push(kind);
        let is_end = kind <= 1 && flags & 1 == 1;
        if is_end || kind > 1 {
            return kinds;
        }
    }
}

/// What etcd's clients up to 3.4 send to a single endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_with_a_scheme_is_served() {
    const HEADERS: u8 = 1;
    const DATA: u8 = 0;
    let mut cluster = Cluster::start(Options::single()).await;
    let addr = cluster.member(1).client_addr.clone();
    let mut connection = TcpStream::connect(&addr).await.expect("connect");
    let status = framed(&pb::StatusRequest::default());
    let authority = format!("http://{addr}");
    let fields = [
        vec![0x83, 0x86],
        field(4, b"/etcdserverpb.Maintenance/Status"),
        field(1, authority.as_bytes()),
        field(31, b"application/grpc"),
    ];
    // The second request names everything by its place in the table.
    let again = [0x83, 0x86, 0xc0, 0xbf, 0xbe];
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("send");
    connection.write_all(&frame(4, 0, 0, &[])).await.expect("send");
    for (stream, block) in [(1, fields.concat()), (3, again.to_vec())] {
        connection.write_all(&frame(HEADERS, 4, stream, &block)).await.expect("send");
        connection.write_all(&frame(DATA, 1, stream, &status)).await.expect("send");
        let answer =
            tokio::time::timeout(Duration::from_secs(10), answered(&mut connection, stream));
        let kinds = answer.await.expect("an answer in time");
        assert_eq!(kinds, [HEADERS, DATA, HEADERS], "of stream {stream}");
    }
}
