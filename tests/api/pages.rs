//! HTTP/1.1 on the client port, beside gRPC.

use crate::common::http::{get, request, request_with};
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

/// What `etcdctl check`, dashboards and alerts made for etcd look for.
const FAMILIES: [&str; 34] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "process_virtual_memory_max_bytes",
    "os_fd_used",
    "os_fd_limit",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_handling_seconds",
    "etcd_cluster_version",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_keys_total",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_server_has_leader",
    "etcd_server_id",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "etcd_server_slow_apply_total",
    "etcd_server_version",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_in_the_format_that_is_announced() {
    let mut cluster = Cluster::start(Options::single()).await;
    cluster.client(1).surely_put("k", "v").await;
    let addr = cluster.member(1).client_addr.clone();
    let plain = get(&addr, "/metrics").await;
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    for line in ["# EOF", "# UNIT"] {
        assert!(!plain.body.contains(line), "{line} is of another format");
    }
    for family in FAMILIES {
        assert!(plain.body.contains(&format!("\n# TYPE {family} ")), "{family}: {}", plain.body);
    }
    let manual = include_str!("../../docs/metrics.md");
    for line in plain.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().expect("a name");
        assert!(manual.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
    let value = |name: &str| -> f64 {
        let line = plain.body.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_start_time_seconds") > 1.6e9);
    assert!(value("process_open_fds") > 3.0);
    assert!(value("etcd_server_proposals_applied_total") >= 1.0);
    checked_by_promtool(&plain.body);

    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = request_with(&addr, "GET", "/metrics", accept).await.expect("an answer");
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    assert!(open.body.contains("\n# TYPE grpc_server_started counter\n"), "{}", open.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_which_peers_are_reached() {
    let mut cluster = Cluster::start(Options::default()).await;
    let lead = cluster.settled().await;
    let [away, other] = cluster.others(lead.id)[..] else { panic!("three members") };
    let addr = cluster.member(lead.id).client_addr.clone();
    let told = async |lines: &[String]| {
        eventually("the metrics to tell of the peers", async || {
            let text = get(&addr, "/metrics").await.body;
            let missing = lines.iter().find(|line| !text.contains(line.as_str()));
            missing.map_or(Ok(()), |line| Err(format!("{line} is not in {text}")))
        })
        .await;
    };
    let active = |peer: u64, reached: u8| {
        let own = lead.id;
        format!("etcd_network_active_peers{{Local=\"{own}\",Remote=\"{peer}\"}} {reached}\n")
    };
    told(&[active(away, 1), active(other, 1)]).await;
    cluster.kill(away);
    let lost = format!("Remote=\"{away}\"}} 1\n");
    told(&[active(away, 0), active(other, 1), lost]).await;
    let text = get(&addr, "/metrics").await.body;
    let failures = format!("etcd_network_peer_sent_failures_total{{To=\"{away}\"}} ");
    let failures = text.lines().find_map(|line| line.strip_prefix(&failures));
    let failures: u64 = failures.and_then(|count| count.parse().ok()).expect("a count");
    assert!(failures > 0, "it is still spoken to, in vain");
    checked_by_promtool(&text);
}

/// What Prometheus itself says of the text, where its tool is installed.
fn checked_by_promtool(text: &str) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else { return };
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{}: {told}", output.status);
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
