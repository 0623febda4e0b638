//! Reads every variable, fills in what follows from others, and holds them against each other.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use super::{Config, Peer, Reader, reachable, value};

const MINUTE_MS: u64 = 60_000;
const SHUTDOWN_GRACE_MS_MAX: u64 = 10 * MINUTE_MS;
const WATCH_PROGRESS_MS_MIN: u64 = 100;
const WATCH_PROGRESS_MS_MAX: u64 = 24 * 60 * MINUTE_MS;
const QUOTA_BYTES_MIN: u64 = 1 << 20;
const QUOTA_BYTES_MAX: u64 = 1 << 40;
const LOG_CACHE_BYTES_MIN: u64 = 1 << 20;
const LOG_CACHE_BYTES_MAX: u64 = 16 << 30;
const REQUEST_BYTES_MIN: u64 = 1 << 10;
const REQUEST_BYTES_MAX: u64 = 16 << 20;
const RESPONSE_MEMORY_BYTES_MIN: u64 = 4 << 20;
const RESPONSE_MEMORY_BYTES_MAX: u64 = 64 << 30;

/// Variables whose meaning is fixed, and whose work is still to be built. To ignore one would be
/// to run in plaintext, or apart, where the operator asked for the contrary.
const NOT_YET: [(&str, &str); 6] = [
    ("RAFT_TLS_CERT_FILE", NO_TLS),
    ("RAFT_TLS_KEY_FILE", NO_TLS),
    ("RAFT_TLS_CA_FILE", NO_TLS),
    ("RAFT_PEER_TLS_CERT_FILE", NO_TLS),
    ("RAFT_PEER_TLS_KEY_FILE", NO_TLS),
    ("RAFT_PEER_TLS_CA_FILE", NO_TLS),
];
const NO_TLS: &str = "it unset: TLS is not supported yet, and the port would be in plaintext";

/// The whole configuration; `None` only if a fault was noted.
pub(super) fn read(reader: &mut Reader) -> Option<Config> {
    for (name, expected) in NOT_YET {
        if reader.is_set(name) {
            reader.fault(name, expected);
        }
    }
    // Each of these notes its own faults; only then may the first missing one end the reading.
    let identity = identity(reader);
    let addresses = addresses(reader);
    let timing = timing(reader);
    let limits = limits(reader);
    let cluster_token = reader.get("RAFT_CLUSTER_TOKEN", value::cluster_token);
    let log_filter = reader.get("RAFT_LOG", value::log_filter);
    let log_format = reader.get("RAFT_LOG_FORMAT", value::log_format);
    let allowed_hosts = reader.get("RAFT_ALLOWED_HOSTS", value::hosts);
    let data_dir = reader.raw("RAFT_DATA_DIR").map(PathBuf::from);
    let members = members(reader, identity.as_ref(), addresses.as_ref());

    let (identity, addresses, timing, limits) = (identity?, addresses?, timing?, limits?);
    let members = members?;
    Some(Config {
        node_id: identity.id,
        data_dir: data_dir.unwrap_or_else(|| PathBuf::from("data").join(&identity.name)),
        node_name: identity.name,
        peers: members.peers,
        join: members.join,
        replaces: members.replaces,
        peer_overrides: members.peer_overrides,
        peer_listen: addresses.peer_listen,
        peer_advertise: members.peer_advertise,
        client_listen: addresses.client_listen,
        client_advertise: members.client_advertise,
        allowed_hosts: allowed_hosts.unwrap_or_default(),
        cluster_token: cluster_token?,
        heartbeat_interval_ms: timing.heartbeat_ms,
        election_timeout_min_ms: timing.election_min_ms,
        election_timeout_max_ms: timing.election_max_ms,
        quota_bytes: limits.quota_bytes,
        response_memory_bytes: limits.response_memory_bytes,
        watch_progress_interval_ms: limits.watch_progress_interval_ms,
        log_cache_bytes: limits.log_cache_bytes,
        max_request_bytes: limits.max_request_bytes,
        shutdown_grace_ms: limits.shutdown_grace_ms,
        log_filter: log_filter?,
        log_format: log_format?,
    })
}

struct Identity {
    id: NonZeroU64,
    name: String,
}

fn identity(reader: &mut Reader) -> Option<Identity> {
    let id = reader.get("RAFT_NODE_ID", value::node_id);
    let name = reader.get("RAFT_NODE_NAME", value::node_name);
    let id = id?;
    Some(Identity { id, name: name.unwrap_or_else(|| format!("node{id}")) })
}

struct Addresses {
    peer_listen: SocketAddr,
    client_listen: SocketAddr,
}

fn addresses(reader: &mut Reader) -> Option<Addresses> {
    let peer_listen = reader.get("RAFT_PEER_LISTEN", value::listen);
    let client_listen = reader.get("RAFT_CLIENT_LISTEN", value::listen);
    let (peer_listen, client_listen) = (peer_listen?, client_listen?);
    let same_ip = peer_listen.ip() == client_listen.ip()
        || peer_listen.ip().is_unspecified()
        || client_listen.ip().is_unspecified();
    if same_ip && peer_listen.port() == client_listen.port() {
        let name = "RAFT_CLIENT_LISTEN";
        reader.fault(name, format!("another port than RAFT_PEER_LISTEN={peer_listen}"));
    }
    Some(Addresses { peer_listen, client_listen })
}

struct Members {
    peers: Vec<Peer>,
    join: Vec<String>,
    replaces: Option<NonZeroU64>,
    peer_overrides: Vec<Peer>,
    peer_advertise: String,
    client_advertise: String,
}

/// The first members, or those to join, and the addresses that are told of this one: what is not
/// set follows from the listen addresses, for a node that is a cluster of its own.
fn members(
    reader: &mut Reader,
    identity: Option<&Identity>,
    addresses: Option<&Addresses>,
) -> Option<Members> {
    let peers = reader.get("RAFT_PEERS", value::peers);
    let join = reader.get("RAFT_JOIN", value::join);
    let replaces = reader.get("RAFT_REPLACES", value::node_id);
    let peer_overrides = reader.get("RAFT_PEER_OVERRIDES", value::peers).unwrap_or_default();
    let peer_advertise = reader.get("RAFT_PEER_ADVERTISE", value::advertise);
    let client_advertise = reader.get("RAFT_CLIENT_ADVERTISE", value::advertise);
    let id = identity?.id;
    if peer_overrides.iter().any(|peer| peer.id == id) {
        reader.fault("RAFT_PEER_OVERRIDES", format!("other members than RAFT_NODE_ID={id}"));
    }
    let own_entry = peers.iter().flatten().find(|peer| peer.id == id).cloned();
    let joins = reader.is_set("RAFT_JOIN") && own_entry.is_none();
    if reader.is_set("RAFT_JOIN") && !reader.is_set("RAFT_NODE_ID") {
        reader.fault("RAFT_NODE_ID", "an id that no member of the cluster to join ever had");
    }
    if joins {
        joining(reader, addresses);
    } else if reader.is_set("RAFT_REPLACES") {
        let expected = "it together with RAFT_JOIN, and on a machine that is no first member";
        reader.fault("RAFT_REPLACES", expected);
    }
    if replaces == Some(id) {
        reader.fault("RAFT_REPLACES", "another member than RAFT_NODE_ID: ids are never reused");
    }
    if peers.is_some() && own_entry.is_none() && !joins {
        let expected = format!("an entry for this node, RAFT_NODE_ID={id}, or RAFT_JOIN beside it");
        reader.fault("RAFT_PEERS", expected);
    }
    let addresses = addresses?;
    let peer_advertise = peer_advertise
        .or_else(|| own_entry.map(|peer| peer.addr))
        .unwrap_or_else(|| reachable(addresses.peer_listen).to_string());
    let client_advertise = client_advertise
        .unwrap_or_else(|| client_address(addresses.client_listen, &peer_advertise));
    let (peers, join) = match (peers, join) {
        (_, Some(join)) if joins => (Vec::new(), join),
        (Some(peers), _) => (peers, Vec::new()),
        (None, _) => (vec![Peer { id, addr: peer_advertise.clone() }], Vec::new()),
    };
    Some(Members { peers, join, replaces, peer_overrides, peer_advertise, client_advertise })
}

/// What a node that joins must say.
fn joining(reader: &mut Reader, addresses: Option<&Addresses>) {
    let everywhere = addresses.is_some_and(|addresses| addresses.peer_listen.ip().is_unspecified());
    if everywhere && !reader.is_set("RAFT_PEER_ADVERTISE") {
        let expected = "host:port by which the members of the cluster to join reach this one";
        reader.fault("RAFT_PEER_ADVERTISE", expected);
    }
}

/// Clients cannot dial "every interface": the host by which peers know us is the better guess.
fn client_address(client_listen: SocketAddr, peer_advertise: &str) -> String {
    if !client_listen.ip().is_unspecified() {
        return client_listen.to_string();
    }
    let (host, _) = peer_advertise.rsplit_once(':').expect("checked to be host:port");
    format!("{host}:{}", client_listen.port())
}

#[expect(clippy::struct_field_names, reason = "units stand last in every name")]
struct Timing {
    heartbeat_ms: u64,
    election_min_ms: u64,
    election_max_ms: u64,
}

fn timing(reader: &mut Reader) -> Option<Timing> {
    let bounded = |raw: &str| value::integer(1..=MINUTE_MS, "milliseconds", raw);
    let heartbeat_ms = reader.get("RAFT_HEARTBEAT_INTERVAL_MS", bounded);
    let election_min_ms = reader.get("RAFT_ELECTION_TIMEOUT_MIN_MS", bounded);
    let election_max_ms = reader.get("RAFT_ELECTION_TIMEOUT_MAX_MS", bounded);
    let (heartbeat_ms, election_min_ms, election_max_ms) =
        (heartbeat_ms?, election_min_ms?, election_max_ms?);
    // One late heartbeat must not cost a healthy leader its office.
    let least = 2 * heartbeat_ms;
    if election_min_ms < least {
        reader.fault(
            "RAFT_ELECTION_TIMEOUT_MIN_MS",
            format!("at least {least}, twice RAFT_HEARTBEAT_INTERVAL_MS={heartbeat_ms}"),
        );
    }
    // Without a spread, members that lost their leader would stand for election together.
    let least = election_min_ms + heartbeat_ms;
    if election_max_ms < least {
        reader.fault(
            "RAFT_ELECTION_TIMEOUT_MAX_MS",
            format!(
                "at least {least}, which is RAFT_ELECTION_TIMEOUT_MIN_MS={election_min_ms} \
                 and RAFT_HEARTBEAT_INTERVAL_MS={heartbeat_ms} together"
            ),
        );
    }
    Some(Timing { heartbeat_ms, election_min_ms, election_max_ms })
}

struct Limits {
    quota_bytes: u64,
    log_cache_bytes: usize,
    max_request_bytes: usize,
    response_memory_bytes: u64,
    shutdown_grace_ms: u64,
    watch_progress_interval_ms: u64,
}

fn limits(reader: &mut Reader) -> Option<Limits> {
    let quota_bytes =
        reader.get("RAFT_QUOTA_BYTES", |raw| value::size(QUOTA_BYTES_MIN..=QUOTA_BYTES_MAX, raw));
    let log_cache_bytes = reader.get("RAFT_LOG_CACHE_BYTES", |raw| {
        value::size(LOG_CACHE_BYTES_MIN..=LOG_CACHE_BYTES_MAX, raw)
    });
    let max_request_bytes = reader.get("RAFT_MAX_REQUEST_BYTES", |raw| {
        value::size(REQUEST_BYTES_MIN..=REQUEST_BYTES_MAX, raw)
    });
    let response_memory_bytes = reader.get("RAFT_RESPONSE_MEMORY_BYTES", |raw| {
        value::size(RESPONSE_MEMORY_BYTES_MIN..=RESPONSE_MEMORY_BYTES_MAX, raw)
    });
    let shutdown_grace_ms = reader.get("RAFT_SHUTDOWN_GRACE_MS", |raw| {
        value::integer(0..=SHUTDOWN_GRACE_MS_MAX, "milliseconds", raw)
    });
    let watch_progress_interval_ms = reader.get("RAFT_WATCH_PROGRESS_INTERVAL_MS", |raw| {
        value::integer(WATCH_PROGRESS_MS_MIN..=WATCH_PROGRESS_MS_MAX, "milliseconds", raw)
    });
    let (quota_bytes, max_request_bytes) = (quota_bytes?, max_request_bytes?);
    if max_request_bytes > quota_bytes {
        reader.fault("RAFT_MAX_REQUEST_BYTES", format!("at most RAFT_QUOTA_BYTES={quota_bytes}"));
    }
    let response_memory_bytes = response_memory_bytes?;
    // A response takes half at most, and a value must be readable with room around it.
    if max_request_bytes > response_memory_bytes / 4 {
        let least = 4 * max_request_bytes;
        let why = format!("at least {least}, four times RAFT_MAX_REQUEST_BYTES");
        reader.fault("RAFT_RESPONSE_MEMORY_BYTES", why);
    }
    Some(Limits {
        quota_bytes,
        response_memory_bytes,
        log_cache_bytes: usize::try_from(log_cache_bytes?).expect("bounded by 16 GiB"),
        max_request_bytes: usize::try_from(max_request_bytes).expect("bounded by 16 MiB"),
        shutdown_grace_ms: shutdown_grace_ms?,
        watch_progress_interval_ms: watch_progress_interval_ms?,
    })
}
