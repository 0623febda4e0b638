//! The table of every variable: the names we know, their defaults and what they mean.

/// One environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its full name.
    pub name: &'static str,
    /// The default as documented.
    pub default: &'static str,
    /// The default as it would be set, where it does not depend on other variables.
    pub(super) fixed: Option<&'static str>,
    /// What it means, with its unit.
    pub meaning: &'static str,
}

const fn fixed(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, fixed: Some(default), meaning }
}

const fn derived(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, fixed: None, meaning }
}

/// Every variable, in the order in which they are documented.
pub static VARIABLES: [Variable; 30] = [
    fixed("RAFT_NODE_ID", "1", "this member: a positive integer, never reused"),
    derived("RAFT_NODE_NAME", "node<ID>", "the name that `member list` shows"),
    derived(
        "RAFT_PEERS",
        "itself alone",
        "the first members, the same ids on each: `1=node1:5001,2=node2:5001,3=node3:5001`",
    ),
    derived(
        "RAFT_JOIN",
        "unset",
        "peer addresses of a running cluster: a node that RAFT_PEERS does not name joins it",
    ),
    derived("RAFT_REPLACES", "unset", "with RAFT_JOIN: the dead member whose place this one takes"),
    fixed("RAFT_PEER_LISTEN", "127.0.0.1:5001", "where the members' port is bound"),
    derived(
        "RAFT_PEER_ADVERTISE",
        "its entry in RAFT_PEERS, else the listen address",
        "`host:port` at which the other members reach this one",
    ),
    derived(
        "RAFT_PEER_OVERRIDES",
        "unset",
        "where this member dials others in place of what the log says: `2=node2:5001`",
    ),
    fixed("RAFT_CLIENT_LISTEN", "127.0.0.1:2379", "where the clients' port is bound"),
    derived(
        "RAFT_CLIENT_ADVERTISE",
        "the listen address, or on all interfaces its port at the peer address's host",
        "`host:port` that clients are told",
    ),
    derived(
        "RAFT_ALLOWED_HOSTS",
        "unset",
        "more names by which browsers may call the client port: `etcd.example.com`, or `*`",
    ),
    derived("RAFT_DATA_DIR", "data/<name>", "the directory of log, snapshots and votes"),
    fixed(
        "RAFT_CLUSTER_TOKEN",
        "raft",
        "with the first members' ids, makes the cluster id: strangers are refused",
    ),
    fixed("RAFT_HEARTBEAT_INTERVAL_MS", "50", "milliseconds between a leader's heartbeats"),
    fixed(
        "RAFT_ELECTION_TIMEOUT_MIN_MS",
        "150",
        "milliseconds of silence before an election, at least: twice the heartbeat or more",
    ),
    fixed(
        "RAFT_ELECTION_TIMEOUT_MAX_MS",
        "300",
        "the same, at most: a heartbeat above the least or more; drawn anew between the two",
    ),
    fixed(
        "RAFT_QUOTA_BYTES",
        "2GiB",
        "data size past which writes are refused: bytes, or with KiB, MiB, GiB, TiB",
    ),
    fixed(
        "RAFT_LOG_CACHE_BYTES",
        "64MiB",
        "log kept in memory for followers that lag, at most: those further behind get a snapshot",
    ),
    fixed("RAFT_MAX_REQUEST_BYTES", "1536KiB", "the largest request of a client"),
    fixed(
        "RAFT_RESPONSE_MEMORY_BYTES",
        "512MiB",
        "memory for the large responses under way; one of them may take half of it",
    ),
    fixed(
        "RAFT_WATCH_PROGRESS_INTERVAL_MS",
        "600000",
        "milliseconds between the progress notifications of an idle watch that asked for them",
    ),
    fixed("RAFT_SHUTDOWN_GRACE_MS", "5000", "the longest that SIGTERM may take, in milliseconds"),
    fixed("RAFT_LOG", "info", "what is logged: `info`, or `warn,raft_node::raft=debug`"),
    fixed("RAFT_LOG_FORMAT", "text", "`text` or `json`"),
    derived("RAFT_TLS_CERT_FILE", "unset", "certificate of the client port (not supported yet)"),
    derived("RAFT_TLS_KEY_FILE", "unset", "key of the client port (not supported yet)"),
    derived("RAFT_TLS_CA_FILE", "unset", "CA of the client port (not supported yet)"),
    derived("RAFT_PEER_TLS_CERT_FILE", "unset", "certificate of the peer port (not supported yet)"),
    derived("RAFT_PEER_TLS_KEY_FILE", "unset", "key of the peer port (not supported yet)"),
    derived("RAFT_PEER_TLS_CA_FILE", "unset", "CA of the peer port (not supported yet)"),
];
