//! What a web page can make a browser send to a member.

use raft_node::proto::etcdserverpb as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Cluster, Options};

/// The status of the answer to a request as a browser writes it.
async fn sent(addr: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    let mut lines = vec![format!("{method} {path} HTTP/1.1"), "Connection: close".to_owned()];
    if !headers.iter().any(|(name, _)| *name == "Host") {
        lines.push(format!("Host: {addr}"));
    }
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    lines.push(format!("Content-Length: {}\r\n\r\n", body.len()));
    let head = lines.join("\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no HTTP: {answer}"))
}

/// A message as gRPC frames it.
fn framed(request: &impl prost::Message) -> Vec<u8> {
    let message = request.encode_to_vec();
    let len = u32::try_from(message.len()).expect("short");
    [&[0], &len.to_be_bytes()[..], &message].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_elsewhere_cannot_change_anything() {
    let mut cluster = Cluster::start(Options::single()).await;
    cluster.client(1).put("k", "v").await.expect("a write");
    let addr = cluster.member(1).client_addr.clone();
    let everything = pb::DeleteRangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..pb::DeleteRangeRequest::default()
    };
    let body = framed(&everything);
    let path = "/etcdserverpb.KV/DeleteRange";
    // Without a preflight a browser sends the simple types alone; with one, any.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/grpc", ""] {
        let plain = sent(&addr, "POST", path, &[("Content-Type", kind)], &body).await;
        assert_eq!(plain, 415, "{kind}");
        let foreign = [("Content-Type", kind), ("Origin", "http://evil.example.com")];
        let foreign = sent(&addr, "POST", path, &foreign, &body).await;
        assert_eq!(foreign, 403, "{kind}");
    }
    let kept = cluster.client(1).value("k").await.expect("a read");
    assert_eq!(kept.as_deref(), Some(&b"v"[..]), "nothing was deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_is_shown_to_no_page_elsewhere() {
    let options = Options::single().env("RAFT_ALLOWED_HOSTS", "etcd.example.com");
    let mut cluster = Cluster::start(options).await;
    let addr = cluster.member(1).client_addr.clone();
    for (path, host, status) in [
        ("/status", "localhost:2379", 200),
        ("/status", "node1:2379", 200),
        ("/status", "etcd.example.com", 200),
        ("/status", "evil.example.com:2379", 421),
        ("/", "evil.example.com:2379", 421),
        // Load balancers and Prometheus ask under many names.
        ("/readyz", "raft.retransmit_if_stalled.example.com:2379", 200),
        ("/metrics", "raft.retransmit_if_stalled.example.com:2379", 200),
    ] {
        assert_eq!(sent(&addr, "GET", path, &[("Host", host)], b"").await, status, "{path} {host}");
    }
    for (name, value, status) in [
        ("Origin", "http://evil.example.com", 403),
        ("Origin", "http://localhost:3000", 403),
        ("Origin", "null", 403),
        ("Origin", "https://etcd.example.com", 200),
        ("Origin", &format!("http://{addr}"), 200),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
    ] {
        let answer = sent(&addr, "GET", "/metrics", &[(name, value)], b"").await;
        assert_eq!(answer, status, "{name}: {value}");
    }
}
