//! The configuration: environment variables, and nothing else.
//!
//! This is the only module that reads the environment. A node with a wrong configuration must not
//! start, and its operator should have to mend it once: so every variable is checked, every fault
//! is collected, and each is one line that names the variable, its value and what was expected. A
//! variable that nobody knows is a fault too, because a misspelt name silently ignored is the
//! worst of all.
//!
//! figment layers the environment over the defaults of [`VARIABLES`]. Both hold raw strings, and
//! each is read by one function in [`value`]: figment's own environment provider would guess types
//! (a cluster token of `00123` became a number) and would stop at the first fault.
//!
//! Deliberately absent: flags that configure, configuration files, reading any file or resolving
//! any name.

mod check;
mod fault;
mod names;
mod usage;
mod value;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;

use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};

pub use fault::{Fault, Faults};
pub use usage::{USAGE, help};
pub use value::LogFormat;
pub use variables::{VARIABLES, Variable};

/// Every variable begins with this.
pub const PREFIX: &str = "RAFT_";

/// One of the first members of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The member's id.
    pub id: NonZeroU64,
    /// `host:port` at which this node reaches it.
    pub addr: String,
}

/// What one node is told about itself and its cluster: complete, checked, consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member (`RAFT_NODE_ID`).
    pub node_id: NonZeroU64,
    /// The name shown to people (`RAFT_NODE_NAME`).
    pub node_name: String,
    /// The first members, this node among them, ascending by id (`RAFT_PEERS`). None, if it joins.
    pub peers: Vec<Peer>,
    /// Peer addresses of the cluster to join (`RAFT_JOIN`). None, if it is a first member.
    pub join: Vec<String>,
    /// The member whose place it takes when it joins (`RAFT_REPLACES`).
    pub replaces: Option<NonZeroU64>,
    /// Where members are dialled in place of what the log says (`RAFT_PEER_OVERRIDES`).
    pub peer_overrides: Vec<Peer>,
    /// Where the peer port is bound (`RAFT_PEER_LISTEN`).
    pub peer_listen: SocketAddr,
    /// `host:port` at which the other members reach this one (`RAFT_PEER_ADVERTISE`).
    pub peer_advertise: String,
    /// Where the client port is bound (`RAFT_CLIENT_LISTEN`).
    pub client_listen: SocketAddr,
    /// `host:port` that clients are told (`RAFT_CLIENT_ADVERTISE`).
    pub client_advertise: String,
    /// More names by which browsers may call the client port, or `*` (`RAFT_ALLOWED_HOSTS`).
    pub allowed_hosts: Vec<String>,
    /// Log, snapshots, votes and identity (`RAFT_DATA_DIR`).
    pub data_dir: PathBuf,
    /// Part of the cluster id (`RAFT_CLUSTER_TOKEN`).
    pub cluster_token: String,
    /// Milliseconds between a leader's heartbeats (`RAFT_HEARTBEAT_INTERVAL_MS`).
    pub heartbeat_interval_ms: u64,
    /// Least milliseconds of silence before a pre-vote (`RAFT_ELECTION_TIMEOUT_MIN_MS`).
    pub election_timeout_min_ms: u64,
    /// Most milliseconds of silence before a pre-vote (`RAFT_ELECTION_TIMEOUT_MAX_MS`).
    pub election_timeout_max_ms: u64,
    /// Data size in bytes past which writes are refused (`RAFT_QUOTA_BYTES`).
    pub quota_bytes: u64,
    /// Log kept in memory in bytes, for followers that lag (`RAFT_LOG_CACHE_BYTES`).
    pub log_cache_bytes: usize,
    /// Largest client request in bytes (`RAFT_MAX_REQUEST_BYTES`).
    pub max_request_bytes: usize,
    /// Between two notifications of progress, in milliseconds (`RAFT_WATCH_PROGRESS_INTERVAL_MS`).
    pub watch_progress_interval_ms: u64,
    /// What the large responses under way may hold, in bytes (`RAFT_RESPONSE_MEMORY_BYTES`).
    pub response_memory_bytes: u64,
    /// The longest that a stop by SIGTERM may take, in milliseconds (`RAFT_SHUTDOWN_GRACE_MS`).
    pub shutdown_grace_ms: u64,
    /// A filter that `tracing_subscriber::EnvFilter` accepts (`RAFT_LOG`).
    pub log_filter: String,
    /// How a log line is written (`RAFT_LOG_FORMAT`).
    pub log_format: LogFormat,
}

impl Config {
    /// The configuration in this process's environment.
    pub fn from_env() -> Result<Self, Faults> {
        Self::from_os_pairs(std::env::vars_os())
    }

    /// The configuration in `pairs` of name and value, as if they were the whole environment.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, Faults>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        Self::from_os_pairs(pairs.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    /// The variables that exist, in the order in which they are documented.
    pub const fn table() -> &'static [Variable] {
        &VARIABLES
    }

    fn from_os_pairs(pairs: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let environment = Environment::collect(pairs, &mut faults);
        let mut reader = Reader::new(environment, faults);
        let read = check::read(&mut reader);
        if reader.faults.is_empty() {
            Ok(read.expect("a value that cannot be had leaves a fault"))
        } else {
            Err(Faults::new(reader.faults))
        }
    }

    /// The id of the cluster that the first members form, equal on all of its members and in their
    /// data directories. One who joins is told it.
    ///
    /// FNV-1a (64 bits) over a version tag, the token's length and bytes, and the ids of the first
    /// members in ascending order, each as eight little-endian bytes; then the 64-bit finaliser of
    /// murmur3, so that near tokens give far ids. Zero, which stands for "unset" on the wire,
    /// becomes one.
    ///
    /// Addresses are left out on purpose: a member may move, or be reached by different names from
    /// different places, without becoming a stranger. Two clusters with the same ids on one
    /// network are told apart by `RAFT_CLUSTER_TOKEN`.
    pub fn cluster_id(&self) -> u64 {
        let mut hash = Fnv1a::new();
        hash.write(b"raft-node cluster 1");
        hash.write(&(self.cluster_token.len() as u64).to_le_bytes());
        hash.write(self.cluster_token.as_bytes());
        for peer in &self.peers {
            hash.write(&peer.id.get().to_le_bytes());
        }
        hash.finish().max(1)
    }

    /// Where this machine reaches the client port: the listen address, or loopback when that
    /// stands for every interface.
    pub fn client_loopback(&self) -> SocketAddr {
        reachable(self.client_listen)
    }
}

/// `listen`, with loopback in place of "every interface".
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The Fowler–Noll–Vo hash, variant 1a, of 64 bits: unlike the standard library's, it never
/// changes.
struct Fnv1a(u64);

impl Fnv1a {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

/// The known variables that are set, as raw strings.
struct Environment(BTreeMap<&'static str, String>);

impl Environment {
    /// Sorts `pairs` into what we know, what is a fault and what is none of our business.
    fn collect(pairs: impl Iterator<Item = (OsString, OsString)>, faults: &mut Vec<Fault>) -> Self {
        let ours: BTreeMap<String, OsString> = pairs
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        let mut known = BTreeMap::new();
        for (name, value) in ours {
            let variable = VARIABLES.iter().find(|variable| variable.name == name);
            match (variable, value.into_string()) {
                (Some(variable), Ok(value)) => {
                    known.insert(variable.name, value);
                }
                (Some(_), Err(value)) => {
                    faults.push(Fault::new(&name, &value.to_string_lossy(), "UTF-8 text"));
                }
                (None, Ok(value)) if names::injected_for_a_service(&name, &value) => {}
                (None, value) => {
                    let value = value.unwrap_or_else(|raw| raw.to_string_lossy().into_owned());
                    faults.push(Fault::new(&name, &value, names::hint(&name)));
                }
            }
        }
        Self(known)
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let values = self.0.iter().map(|(name, raw)| ((*name).to_owned(), raw.clone().into()));
        Ok(Profile::Default.collect(values.collect::<Dict>()))
    }
}

/// The fixed defaults of [`VARIABLES`]: written as a user would write them, read by the same code.
struct Defaults;

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named("default")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let values = VARIABLES
            .iter()
            .filter_map(|variable| Some((variable.name.to_owned(), variable.fixed?.into())));
        Ok(Profile::Default.collect(values.collect::<Dict>()))
    }
}

/// Reads one variable at a time and remembers every fault.
struct Reader {
    figment: Figment,
    set: BTreeMap<&'static str, String>,
    faults: Vec<Fault>,
}

impl Reader {
    fn new(environment: Environment, faults: Vec<Fault>) -> Self {
        let set = environment.0.clone();
        Self { figment: Figment::from(Defaults).merge(environment), set, faults }
    }

    /// The value of `name` by `parse`; `None` when it is neither set nor has a fixed default, or
    /// when it is wrong, which leaves a fault. `parse` says what it expected.
    fn get<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let raw = self.raw(name)?;
        match parse(&raw) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.fault(name, expected);
                None
            }
        }
    }

    /// What `name` is set to, or else its fixed default.
    fn raw(&self, name: &str) -> Option<String> {
        self.figment.extract_inner(name).ok()
    }

    fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// Notes that `name`, as it stands, is not what was `expected`.
    fn fault(&mut self, name: &str, expected: impl Into<String>) {
        let raw = self.raw(name).unwrap_or_default();
        let fault = Fault::new(name, &raw, expected);
        self.faults.push(if self.is_set(name) { fault } else { fault.of_default() });
    }
}

#[cfg(test)]
mod tests;
