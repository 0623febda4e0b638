//! HTTP/1.1 on the client port, beside gRPC.

use crate::common::http::{get, request};
use crate::common::{Cluster, Options, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_healthy_member() {
    let mut cluster = Cluster::start(Options::single()).await;
    cluster.client(1).put("k", "v").await.expect("a write");
    let addr = cluster.member(1).client_addr.clone();
    let health = get(&addr, "/health").await;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
    for path in ["/livez", "/readyz", "/readyz/linearizable_read"] {
        let answer = get(&addr, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
    }
    let verbose = get(&addr, "/readyz?verbose").await;
    assert!(verbose.body.contains("[+]linearizable_read ok\n"), "{verbose:?}");
    let version = get(&addr, "/version").await;
    let version: serde_json::Value = serde_json::from_str(&version.body).expect("JSON");
    let number = version["etcdserver"].as_str().expect("a version");
    assert!(number.starts_with("3.6."), "{version}");
    assert_eq!(version["raft_node"], env!("CARGO_PKG_VERSION"), "{version}");
    let status = get(&addr, "/status").await;
    let status: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
    assert_eq!(status["node_version"], env!("CARGO_PKG_VERSION"), "{status}");
    let log = cluster.member(1).log();
    let told = format!("starting version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(log.contains(&told), "{log}");
    let metrics = get(&addr, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("etcd_server_has_leader 1"), "{}", metrics.body);
    let page = get(&addr, "/").await;
    assert!(page.head.contains("content-type: text/html"), "{page:?}");
    assert!(page.body.contains("<html"), "{page:?}");
    let nothing = get(&addr, "/nothing").await;
    assert_eq!(nothing.status, 404, "{nothing:?}");
    let posted = request(&addr, "POST", "/health").await.expect("an answer");
    assert_eq!(posted.status, 405, "{posted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_member_without_a_leader() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    cluster.member(1).start();
    let addr = cluster.member(1).client_addr.clone();
    eventually("the pages to answer", async || {
        request(&addr, "GET", "/livez").await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(get(&addr, "/livez").await.status, 200, "to restart it would not help");
    let health = get(&addr, "/health").await;
    let expected = "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n";
    assert_eq!((health.status, health.body.as_str()), (503, expected));
    let own = get(&addr, "/health?serializable=true").await;
    assert_eq!(own.status, 200, "its own data can be read: {own:?}");
    let ready = get(&addr, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]linearizable_read failed"), "{ready:?}");
}
