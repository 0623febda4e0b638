//! Connections on which nothing more comes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Cluster, Options, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection lasts on which `opening` comes and then nothing.
async fn lasts(addr: &str, opening: &[u8]) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    stream.write_all(opening).await.expect("send");
    let mut rest = Vec::new();
    // An error is an end as well.
    let ended = tokio::time::timeout(Duration::from_mins(2), stream.read_to_end(&mut rest));
    drop(ended.await.expect("closed in time"));
    start.elapsed()
}

/// The status of a call whose body does not come.
async fn without_body(addr: &str) -> String {
    let stream = TcpStream::connect(addr).await.expect("connect");
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let head = Request::post("http://member/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .body(())
        .expect("a request");
    let mut requests: h2::client::SendRequest<Bytes> = requests.ready().await.expect("HTTP/2");
    let (answer, _body) = requests.send_request(head, false).expect("a call");
    let answer = answer.await.expect("an answer");
    let status = answer.headers().get("grpc-status").expect("a status");
    status.to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stops_coming_is_given_up_and_what_is_idle_is_not() {
    let mut cluster = Cluster::start(Options::single()).await;
    let (clients, peers) =
        (cluster.member(1).client_addr.clone(), cluster.member(1).peer_addr.clone());
    let idle = cluster.client(1).clone();
    idle.surely_put("before", "1").await;
    let half = &PREFACE[..12];
    let header = b"GET /health HTTP/1.1\r\nHost: member\r\n";
    let (silent, half, header, silent_peer, half_peer, bodiless) = tokio::join!(
        lasts(&clients, b""),
        lasts(&clients, half),
        lasts(&clients, header),
        lasts(&peers, b""),
        lasts(&peers, half),
        without_body(&clients),
    );
    for (what, lasted, documented_s) in [
        ("silence", silent, 10),
        ("half a preface", half, 10),
        ("half a header", header, 30),
        ("silence at the peer port", silent_peer, 10),
        ("half a preface at the peer port", half_peer, 10),
    ] {
        assert!(lasted >= Duration::from_secs(documented_s - 1), "{what}: {lasted:?}");
        assert!(lasted < Duration::from_secs(documented_s + 20), "{what}: {lasted:?}");
    }
    assert_eq!(bodiless, "4", "DEADLINE_EXCEEDED");
    idle.put("after", "1").await.expect("the idle connection stands");
}

/// The settings of a socket, as the kernel tells them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_may_come_back_at_once() {
    let mut cluster = Cluster::start(Options::single()).await;
    let addr = cluster.member(1).client_addr.clone();
    // As many as the kernel lets any listener hold: beyond a thousand at least.
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    let allowed: usize = allowed.trim().parse().unwrap_or(128);
    let count = allowed.min(1000) - 100;
    cluster.member(1).freeze();
    let mut waiting = Vec::new();
    for _ in 0..count {
        let dial = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(&addr));
        waiting.push(dial.await.expect("the queue holds it").expect("connect"));
    }
    cluster.member(1).thaw();
    within(Duration::from_secs(30), "the member to answer", async || {
        cluster.client(1).put("k", "v").await.map_err(|status| status.to_string())
    })
    .await;
}
