//! Processes that must not run: each ends with the code and the line that says why.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::{Cluster, Member, Options};

const CONFIGURATION: i32 = 78;

/// The end of a process that should not have started.
fn refused(member: &Member, arguments: &[&str]) -> Output {
    member.command().args(arguments).output().expect("start raft-node")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn lone() -> Cluster {
    Cluster::prepare(Options::single()).await
}

#[tokio::test]
async fn every_fault_of_the_environment_is_a_line() {
    let mut cluster = lone().await;
    let member = cluster.member(1);
    for (name, value) in [
        ("RAFT_HEARTBEAT_INTERVAL_MS", "often"),
        ("RAFT_CLIENT_LISTEN", "everywhere"),
        ("RAFT_QUOTA_BYTES", "-1"),
        ("RAFT_LOG_FORMAT", "xml"),
        ("RAFT_NODEID", "1"),
    ] {
        member.set(name, value);
    }
    let output = refused(member, &[]);
    assert_eq!(output.status.code(), Some(CONFIGURATION), "{output:?}");
    let told = told(&output);
    for line in [
        r#"RAFT_HEARTBEAT_INTERVAL_MS="often": expected a whole number of milliseconds"#,
        r#"RAFT_CLIENT_LISTEN="everywhere": expected an IP address and a port"#,
        r#"RAFT_QUOTA_BYTES="-1": expected a number of bytes"#,
        r#"RAFT_LOG_FORMAT="xml": expected text or json"#,
        r#"RAFT_NODEID="1": expected a known variable; did you mean RAFT_NODE_ID?"#,
    ] {
        assert_eq!(told.lines().filter(|told| told.contains(line)).count(), 1, "{line}\n{told}");
    }
    assert!(!cluster.member(1).data_dir.exists(), "a refused node leaves nothing behind");
}

#[tokio::test]
async fn an_unknown_variable_alone_is_enough_to_refuse() {
    let mut cluster = lone().await;
    cluster.member(1).set("RAFT_PEER", "1=127.0.0.1:5001");
    let output = refused(cluster.member(1), &[]);
    assert_eq!(output.status.code(), Some(CONFIGURATION), "{output:?}");
    assert!(told(&output).contains("did you mean RAFT_PEERS?"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_of_an_orchestrator_are_no_fault() {
    let mut cluster = lone().await;
    for (name, value) in [
        ("RAFT_SERVICE_HOST", "10.0.0.7"),
        ("RAFT_PORT", "tcp://10.0.0.7:2379"),
        ("RAFT_PORT_2379_TCP_ADDR", "10.0.0.7"),
        ("RAFT_QUOTA_BYTES", ""),
    ] {
        cluster.member(1).set(name, value);
    }
    cluster.member(1).start();
    cluster.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_for_machines_is_json_throughout() {
    let mut cluster = lone().await;
    cluster.member(1).set("RAFT_LOG_FORMAT", "json");
    cluster.member(1).start();
    cluster.settled().await;
    cluster.stop(1).await;
    let log = cluster.member(1).log();
    let events: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let elected = events.iter().any(|event| {
        event["message"] == "role changed" && event["to"] == "leader" && event["term"] == 1
    });
    assert!(elected, "no event tells of the election:\n{log}");
}

#[tokio::test]
async fn no_flag_configures_a_node() {
    let mut cluster = lone().await;
    let wrong: [&[&str]; 4] =
        [&["--config"], &["start"], &["--version", "--help"], &["health", "ready", "leader"]];
    for arguments in wrong {
        let output = refused(cluster.member(1), arguments);
        assert_eq!(output.status.code(), Some(CONFIGURATION), "{arguments:?}: {output:?}");
        assert!(told(&output).contains("raft-node health [service]"), "{output:?}");
    }
}

#[tokio::test]
async fn version_and_help_need_no_environment() {
    let mut cluster = lone().await;
    // What is wrong with the environment does not matter to whom asks what this program is.
    cluster.member(1).set("RAFT_NODEID", "1");
    let asked = |member: &Member, flag: &str| {
        let output = refused(member, &[flag]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let version = asked(cluster.member(1), "--version");
    assert!(version.starts_with(concat!("raft-node ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert_eq!(version.lines().count(), 1, "{version}");
    let help = asked(cluster.member(1), "--help");
    for word in ["RAFT_PEERS", "RAFT_CLUSTER_TOKEN", "health [service]", "78"] {
        assert!(help.contains(word), "{word} in {help}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    for variable in ["RAFT_PEER_LISTEN", "RAFT_CLIENT_LISTEN"] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = taken.local_addr().expect("an address").to_string();
        let mut cluster = lone().await;
        cluster.member(1).set(variable, &addr);
        let output = refused(cluster.member(1), &[]);
        assert_eq!(output.status.code(), Some(CONFIGURATION), "{output:?}");
        let told = told(&output);
        assert!(told.contains(&addr) && told.contains(variable), "{addr} in {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_command_asks_the_running_node() {
    let mut cluster = lone().await;
    let asked = |member: &Member, service: &str| {
        let arguments = if service.is_empty() { vec!["health"] } else { vec!["health", service] };
        refused(member, &arguments).status.code()
    };
    assert_eq!(asked(cluster.member(1), ""), Some(1), "nobody is there");
    cluster.member(1).start();
    cluster.settled().await;
    for service in ["", "ready", "leader", "etcdserverpb.KV"] {
        assert_eq!(asked(cluster.member(1), service), Some(0), "{service:?}");
    }
    assert_eq!(asked(cluster.member(1), "nonsense"), Some(1));
    cluster.member(1).freeze();
    let start = std::time::Instant::now();
    assert_eq!(asked(cluster.member(1), ""), Some(1), "a frozen node is not healthy");
    assert!(start.elapsed() < Duration::from_secs(10), "docker would have given up");
    cluster.member(1).thaw();
}

#[test]
fn a_local_cluster_on_taken_ports_says_so_in_a_line() {
    // Taken by this test, or by whatever else runs here.
    let _taken = TcpListener::bind("127.0.0.1:5001");
    let output = Command::new(env!("CARGO_BIN_EXE_local_cluster"))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("start local_cluster");
    let told = told(&output);
    assert_eq!(output.status.code(), Some(CONFIGURATION), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    for words in ["RAFT_PEER_LISTEN=127.0.0.1:5001", "cannot listen there", "another cluster"] {
        assert!(told.contains(words), "{words} in {told}");
    }
}
