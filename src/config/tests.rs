//! The configuration as its users meet it: what a setting gives, and what a wrong one is told.

use std::os::unix::ffi::OsStringExt;

use super::*;

fn config(pairs: &[(&str, &str)]) -> Config {
    Config::from_pairs(pairs.iter().copied()).unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
    let faults = Config::from_pairs(pairs.iter().copied()).expect_err("must be refused");
    let lines: Vec<String> = faults.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), faults.iter().count(), "one line each");
    lines
}

/// The only fault of `pairs`, which must name the variable and its value.
fn fault(pairs: &[(&str, &str)], variable: &str) -> String {
    let lines = faults(pairs);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with(variable), "{} is not about {variable}", lines[0]);
    lines[0].clone()
}

const THREE: (&str, &str) = ("RAFT_PEERS", "1=node1:5001,2=node2:5001,3=node3:5001");

#[test]
fn nothing_set_is_a_cluster_of_one_on_this_machine() {
    let config = config(&[]);
    assert_eq!(config.node_id.get(), 1);
    assert_eq!(config.node_name, "node1");
    assert_eq!(config.peers, [Peer { id: config.node_id, addr: "127.0.0.1:5001".into() }]);
    assert_eq!(config.peer_listen.to_string(), "127.0.0.1:5001");
    assert_eq!(config.peer_advertise, "127.0.0.1:5001");
    assert_eq!(config.client_listen.to_string(), "127.0.0.1:2379");
    assert_eq!(config.client_advertise, "127.0.0.1:2379");
    assert_eq!(config.data_dir, PathBuf::from("data/node1"));
    assert_eq!(config.cluster_token, "raft");
    assert_eq!(config.heartbeat_interval_ms, 50);
    assert_eq!((config.election_timeout_min_ms, config.election_timeout_max_ms), (150, 300));
    assert_eq!(config.quota_bytes, 2 << 30);
    assert_eq!(config.log_cache_bytes, 64 << 20);
    assert_eq!(config.max_request_bytes, 3 << 19);
    assert_eq!(config.response_memory_bytes, 512 << 20);
    assert_eq!(config.shutdown_grace_ms, 5000);
    assert_eq!(config.watch_progress_interval_ms, 600_000);
    assert_eq!((config.log_filter.as_str(), config.log_format), ("info", LogFormat::Text));
}

#[test]
fn a_member_of_three_in_containers() {
    let config = config(&[
        ("RAFT_NODE_ID", "2"),
        ("RAFT_PEERS", " 3=node3:5001, 1=node1:5001 ,2=node2:5001"),
        ("RAFT_PEER_LISTEN", "0.0.0.0:5001"),
        ("RAFT_CLIENT_LISTEN", "[::]:2379"),
        ("RAFT_QUOTA_BYTES", "512MiB"),
        ("RAFT_LOG_CACHE_BYTES", "4MiB"),
        ("RAFT_LOG", "warn,raft_node::raft=debug"),
        ("RAFT_LOG_FORMAT", "json"),
        ("PATH", "/bin"),
        ("RAFTING", "fun"),
    ]);
    let ids: Vec<u64> = config.peers.iter().map(|peer| peer.id.get()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(config.peer_advertise, "node2:5001");
    assert_eq!(config.client_advertise, "node2:2379", "nobody can dial every interface");
    assert_eq!(config.client_loopback().to_string(), "[::1]:2379");
    assert_eq!(config.data_dir, PathBuf::from("data/node2"));
    assert_eq!(config.quota_bytes, 512 << 20);
    assert_eq!(config.log_cache_bytes, 4 << 20);
    assert_eq!(config.log_format, LogFormat::Json);
}

#[test]
fn raw_strings_stay_what_they_were() {
    let config = config(&[("RAFT_CLUSTER_TOKEN", "00123"), ("RAFT_NODE_NAME", "1.50")]);
    assert_eq!((config.cluster_token.as_str(), config.node_name.as_str()), ("00123", "1.50"));
}

#[test]
fn empty_is_unset() {
    let with_empty: Vec<(&str, &str)> =
        VARIABLES.iter().map(|variable| (variable.name, "")).chain([("RAFT_TYPO", "")]).collect();
    assert_eq!(config(&with_empty), config(&[]));
}

#[test]
fn every_fault_is_told_at_once() {
    let lines = faults(&[
        ("RAFT_NODE_ID", "0"),
        ("RAFT_PEER_LISTEN", "localhost:5001"),
        ("RAFT_HEARTBEAT_INTERVAL_MS", "fast"),
        ("RAFT_QUOTA_BYTES", "2 gigabytes"),
        ("RAFT_LOG_FORMAT", "xml"),
        ("RAFT_NODEID", "1"),
    ]);
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(lines.contains(
        &r#"RAFT_NODEID="1": expected a known variable; did you mean RAFT_NODE_ID?"#.to_owned()
    ));
    assert!(lines.contains(&r#"RAFT_LOG_FORMAT="xml": expected text or json"#.to_owned()));
}

#[test]
fn values_out_of_their_range() {
    for (name, value) in [
        ("RAFT_NODE_ID", "-1"),
        ("RAFT_NODE_ID", "+1"),
        ("RAFT_NODE_ID", "18446744073709551616"),
        ("RAFT_NODE_NAME", "../escape"),
        ("RAFT_NODE_NAME", ".."),
        ("RAFT_NODE_NAME", "two words"),
        ("RAFT_PEER_LISTEN", "127.0.0.1"),
        ("RAFT_PEER_LISTEN", "127.0.0.1:0"),
        ("RAFT_CLIENT_LISTEN", "127.0.0.1:65536"),
        ("RAFT_CLIENT_LISTEN", "0.0.0.0:5001"),
        ("RAFT_PEER_ADVERTISE", "node1"),
        ("RAFT_PEER_ADVERTISE", "0.0.0.0:5001"),
        ("RAFT_CLIENT_ADVERTISE", "http://node1:2379"),
        ("RAFT_CLIENT_ADVERTISE", "10.0.0.300:2379"),
        ("RAFT_CLIENT_ADVERTISE", "fd00::1:2379"),
        ("RAFT_CLUSTER_TOKEN", "a b"),
        ("RAFT_HEARTBEAT_INTERVAL_MS", "0"),
        ("RAFT_HEARTBEAT_INTERVAL_MS", "76"),
        ("RAFT_ELECTION_TIMEOUT_MIN_MS", "99"),
        ("RAFT_ELECTION_TIMEOUT_MAX_MS", "199"),
        ("RAFT_QUOTA_BYTES", "1023KiB"),
        ("RAFT_QUOTA_BYTES", "99999999999999TiB"),
        ("RAFT_MAX_REQUEST_BYTES", "17MiB"),
        ("RAFT_RESPONSE_MEMORY_BYTES", "5MiB"),
        ("RAFT_RESPONSE_MEMORY_BYTES", "65GiB"),
        ("RAFT_SHUTDOWN_GRACE_MS", "5s"),
        ("RAFT_LOG", "inof"),
        ("RAFT_LOG", "raft_node=loud"),
        ("RAFT_REPLACES", "2"),
        ("RAFT_TLS_CERT_FILE", "/etc/cert.pem"),
        ("RAFT_PEER_TLS_CA_FILE", "/etc/ca.pem"),
    ] {
        let lines = faults(&[(name, value)]);
        let variable = if value == "76" { "RAFT_ELECTION_TIMEOUT_MIN_MS" } else { name };
        assert!(lines.len() == 1 && lines[0].starts_with(variable), "{name}={value:?}: {lines:#?}");
    }
}

#[test]
fn values_at_the_edge_are_taken() {
    for (name, value) in [
        ("RAFT_NODE_ID", "18446744073709551615"),
        ("RAFT_PEER_LISTEN", "[::1]:65535"),
        ("RAFT_PEER_ADVERTISE", "[fd00::1]:1"),
        ("RAFT_CLIENT_ADVERTISE", "node_1.example.org.:2379"),
        ("RAFT_HEARTBEAT_INTERVAL_MS", "75"),
        ("RAFT_ELECTION_TIMEOUT_MIN_MS", "100"),
        ("RAFT_ELECTION_TIMEOUT_MAX_MS", "200"),
        ("RAFT_QUOTA_BYTES", "1073741824"),
        ("RAFT_MAX_REQUEST_BYTES", "16MiB"),
        ("RAFT_RESPONSE_MEMORY_BYTES", "6MiB"),
        ("RAFT_SHUTDOWN_GRACE_MS", "0"),
        ("RAFT_LOG", "off"),
        ("RAFT_LOG", "raft_node::raft=trace"),
    ] {
        config(&[(name, value)]);
    }
}

#[test]
fn members_that_do_not_add_up() {
    for value in [
        "1=node1:5001,1=node2:5001",
        "1=node1:5001,2=NODE1:5001",
        "2=node2:5001",
        "node1:5001",
        "1=node1:5001,",
        "0=node0:5001,1=node1:5001",
        "1=node1",
    ] {
        fault(&[("RAFT_PEERS", value)], "RAFT_PEERS");
    }
    let many: Vec<String> = (1..=16).map(|id| format!("{id}=node{id}:5001")).collect();
    fault(&[("RAFT_PEERS", &many.join(","))], "RAFT_PEERS");
    let line = fault(&[("RAFT_NODE_ID", "4"), THREE], "RAFT_PEERS");
    assert!(
        line.contains("expected an entry for this node, RAFT_NODE_ID=4, or RAFT_JOIN"),
        "{line}"
    );
    config(&[("RAFT_PEERS", "1=a:1,2=b:1")]);
}

#[test]
fn whoever_joins_says_who_it_is() {
    const JOIN: (&str, &str) = ("RAFT_JOIN", "node1:5001, node2:5001");
    const ID: (&str, &str) = ("RAFT_NODE_ID", "4");
    let joins = config(&[JOIN, ID, ("RAFT_REPLACES", "1")]);
    assert_eq!(joins.join, ["node1:5001", "node2:5001"]);
    assert_eq!((joins.peers.len(), joins.replaces.map(NonZeroU64::get)), (0, Some(1)));
    fault(&[JOIN], "RAFT_NODE_ID");
    fault(&[JOIN, THREE], "RAFT_NODE_ID");
    fault(&[JOIN, ID, ("RAFT_REPLACES", "4")], "RAFT_REPLACES");
    fault(&[JOIN, ID, ("RAFT_PEER_LISTEN", "0.0.0.0:5001")], "RAFT_PEER_ADVERTISE");
    for wrong in ["node1", "node1:5001,", "http://node1:5001", "1=node1:5001"] {
        fault(&[("RAFT_JOIN", wrong), ID], "RAFT_JOIN");
    }
}

#[test]
fn one_template_makes_first_members_and_those_who_join() {
    const JOIN: (&str, &str) = ("RAFT_JOIN", "node1:5001,node2:5001");
    let first = config(&[THREE, JOIN, ("RAFT_NODE_ID", "2")]);
    assert_eq!((first.peers.len(), first.join.len()), (3, 0));
    assert_eq!(first.cluster_id(), config(&[THREE]).cluster_id());
    let joins = config(&[THREE, JOIN, ("RAFT_NODE_ID", "4"), ("RAFT_REPLACES", "2")]);
    assert_eq!((joins.peers.len(), joins.join.len()), (0, 2));
    // A first member takes nobody's place.
    fault(&[THREE, JOIN, ("RAFT_NODE_ID", "2"), ("RAFT_REPLACES", "1")], "RAFT_REPLACES");
}

#[test]
fn a_default_that_clashes_says_that_it_is_one() {
    let line = fault(&[("RAFT_ELECTION_TIMEOUT_MIN_MS", "1000")], "RAFT_ELECTION_TIMEOUT_MAX_MS");
    assert!(line.contains(r#"="300" (the default): expected at least 1050"#), "{line}");
}

#[test]
fn services_of_the_orchestrator_are_ignored() {
    config(&[
        ("RAFT_SERVICE_HOST", "10.0.0.7"),
        ("RAFT_SERVICE_PORT", "2379"),
        ("RAFT_PORT", "tcp://10.0.0.7:2379"),
        ("RAFT_PORT_2379_TCP_ADDR", "10.0.0.7"),
    ]);
    fault(&[("RAFT_PORT", "2379")], "RAFT_PORT");
}

#[test]
fn bytes_that_are_no_text() {
    let pairs = [("RAFT_CLUSTER_TOKEN", OsString::from_vec(vec![b'a', 0xff]))];
    let faults = Config::from_pairs(pairs).expect_err("must be refused");
    assert_eq!(faults.to_string(), "RAFT_CLUSTER_TOKEN=\"a\u{fffd}\": expected UTF-8 text");
}

#[test]
fn a_long_value_is_cut_in_its_line() {
    let line = fault(&[("RAFT_LOG_FORMAT", &"é".repeat(5000))], "RAFT_LOG_FORMAT");
    assert!(line.len() < 400, "{line}");
}

/// The id is in data directories: should this test fail, old directories would be refused.
#[test]
fn the_cluster_id_is_for_ever() {
    assert_eq!(config(&[THREE]).cluster_id(), 0x9cfd_5727_218b_6704);
    assert_eq!(config(&[]).cluster_id(), 0x7d38_a937_df40_ddea);
}

#[test]
fn the_cluster_id_is_of_token_and_ids_alone() {
    let first = config(&[THREE]);
    let second = config(&[
        ("RAFT_NODE_ID", "2"),
        ("RAFT_PEERS", "3=127.0.0.1:1,2=127.0.0.1:2,1=127.0.0.1:3"),
        ("RAFT_HEARTBEAT_INTERVAL_MS", "20"),
    ]);
    assert_eq!(first.cluster_id(), second.cluster_id());
    let other_token = config(&[THREE, ("RAFT_CLUSTER_TOKEN", "raft2")]);
    let other_ids = config(&[("RAFT_PEERS", "1=node1:5001,2=node2:5001,4=node4:5001")]);
    assert_ne!(first.cluster_id(), other_token.cluster_id());
    assert_ne!(first.cluster_id(), other_ids.cluster_id());
}

#[test]
fn the_table_is_the_documentation() {
    let documented = include_str!("../../docs/configuration.md");
    for variable in Config::table() {
        let row = format!(
            "| `{}` | {} | {} |",
            variable.name,
            variable.fixed.map_or_else(|| variable.default.to_owned(), |raw| format!("`{raw}`")),
            variable.meaning
        );
        assert!(documented.contains(&row), "docs/configuration.md lacks the row\n{row}");
    }
    let rows = documented.lines().filter(|line| line.starts_with("| `RAFT_")).count();
    assert_eq!(rows, VARIABLES.len());
}
