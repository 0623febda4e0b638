//! From the raw string of a variable to a value: one function each, which says what it expected.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Peer;

/// More voters than this make every write slower and no cluster safer.
const MEMBERS_MAX: usize = 15;
const NAME_CHARS_MAX: usize = 64;
const TOKEN_CHARS_MAX: usize = 128;
/// The longest name that DNS knows.
const HOST_CHARS_MAX: usize = 253;

const UNITS: [(&str, u64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

pub(super) fn log_format(raw: &str) -> Result<LogFormat, String> {
    match raw {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json".to_owned()),
    }
}

/// A tracing filter. A bare word must be a level: tracing would take a misspelt one for the name
/// of a module, and log nothing.
pub(super) fn log_filter(raw: &str) -> Result<String, String> {
    let expected = "a level (error, warn, info, debug, trace, off) or directives such as \
                    warn,raft_node::raft=debug";
    let bare_words = raw.split(',').map(str::trim).filter(|one| !one.contains(['=', '[', '{']));
    for word in bare_words {
        word.parse::<LevelFilter>().map_err(|_| format!("{expected}; {word:?} is no level"))?;
    }
    match EnvFilter::try_new(raw) {
        Ok(_) => Ok(raw.to_owned()),
        Err(error) => Err(format!("{expected} ({error})")),
    }
}

/// Decimal digits and nothing else: no sign, no blanks.
fn digits(raw: &str) -> Option<u64> {
    let plain = !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| raw.parse().ok()).flatten()
}

pub(super) fn node_id(raw: &str) -> Result<NonZeroU64, String> {
    digits(raw)
        .and_then(NonZeroU64::new)
        .ok_or_else(|| format!("a positive integer up to {}", u64::MAX))
}

pub(super) fn integer(range: RangeInclusive<u64>, unit: &str, raw: &str) -> Result<u64, String> {
    digits(raw).filter(|number| range.contains(number)).ok_or_else(|| {
        format!("a whole number of {unit} from {} to {}", range.start(), range.end())
    })
}

/// A number of bytes, plain or with a binary unit: `2147483648`, `2GiB`.
pub(super) fn size(range: RangeInclusive<u64>, raw: &str) -> Result<u64, String> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((raw.strip_suffix(suffix)?, *unit)))
        .unwrap_or((raw, 1));
    digits(number.trim_end())
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| {
            format!(
                "a number of bytes from {} to {}, plain or with KiB, MiB, GiB or TiB",
                shown(*range.start()),
                shown(*range.end())
            )
        })
}

/// `bytes` in the largest unit that divides it.
fn shown(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// A name for people that is also safe as the last part of a path.
pub(super) fn node_name(raw: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits =
        raw.len() <= NAME_CHARS_MAX && raw.bytes().all(plain) && !raw.starts_with(['.', '-']);
    if fits {
        Ok(raw.to_owned())
    } else {
        Err(format!(
            "1 to {NAME_CHARS_MAX} letters, digits, '-', '_' or '.', first a letter or digit"
        ))
    }
}

pub(super) fn cluster_token(raw: &str) -> Result<String, String> {
    if raw.len() <= TOKEN_CHARS_MAX && raw.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(raw.to_owned())
    } else {
        Err(format!("1 to {TOKEN_CHARS_MAX} printable ASCII characters without blanks"))
    }
}

/// An address to bind: no name, since a bind must not depend on a resolver.
pub(super) fn listen(raw: &str) -> Result<SocketAddr, String> {
    raw.parse::<SocketAddr>().ok().filter(|addr| addr.port() != 0).ok_or_else(|| {
        "an IP address and a port from 1, such as 127.0.0.1:5001, 0.0.0.0:5001 or [::]:5001"
            .to_owned()
    })
}

/// An address to dial, as `host:port`: a name is resolved anew at each dial.
pub(super) fn advertise(raw: &str) -> Result<String, String> {
    if is_host_port(raw) {
        Ok(raw.to_owned())
    } else {
        Err("host:port that others can reach, such as node1:5001, 10.0.0.1:5001 or [fd00::1]:5001"
            .to_owned())
    }
}

fn is_host_port(raw: &str) -> bool {
    raw.rsplit_once(':').is_some_and(|(host, port)| {
        is_host(host) && digits(port).is_some_and(|port| (1..=u64::from(u16::MAX)).contains(&port))
    })
}

fn is_host(host: &str) -> bool {
    if let Some(ip) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return ip.parse::<Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified());
    }
    // Four numbers that are no address would be looked up as a name for ever.
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return host.parse::<Ipv4Addr>().is_ok_and(|ip| !ip.is_unspecified());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    host.len() <= HOST_CHARS_MAX
        && host
            .trim_end_matches('.')
            .split('.')
            .all(|label| !label.is_empty() && label.len() <= 63 && label.bytes().all(plain))
}

/// Members and where they are, ascending by id: `1=node1:5001,2=node2:5001`. The message of an
/// error names the entry that is wrong.
pub(super) fn peers(raw: &str) -> Result<Vec<Peer>, String> {
    let expected = "id=host:port for each member, such as 1=node1:5001,2=node2:5001";
    let mut peers = Vec::new();
    for entry in raw.split(',').map(str::trim) {
        let parsed = entry.split_once('=').and_then(|(id, addr)| {
            Some(Peer { id: node_id(id).ok()?, addr: advertise(addr).ok()? })
        });
        peers.push(parsed.ok_or_else(|| format!("{expected}; {entry:?} is not of that form"))?);
    }
    let mut ids = BTreeSet::new();
    let mut addrs = BTreeSet::new();
    for peer in &peers {
        if !ids.insert(peer.id) {
            return Err(format!("{expected}, each id once; {} is there twice", peer.id));
        }
        if !addrs.insert(peer.addr.to_ascii_lowercase()) {
            return Err(format!("{expected}, each address once; {} is there twice", peer.addr));
        }
    }
    if peers.len() > MEMBERS_MAX {
        return Err(format!("at most {MEMBERS_MAX} members; these are {}", peers.len()));
    }
    peers.sort();
    Ok(peers)
}

/// Peer addresses of a cluster to join, to be asked in this order.
pub(super) fn join(raw: &str) -> Result<Vec<String>, String> {
    let addrs: Vec<&str> = raw.split(',').map(str::trim).collect();
    if addrs.len() > MEMBERS_MAX {
        return Err(format!("at most {MEMBERS_MAX} addresses; these are {}", addrs.len()));
    }
    let expected = "host:port of one or more members, such as node1:5001,node2:5001";
    let wrong = |addr: &str| format!("{expected}; {addr:?} is not of that form");
    addrs.into_iter().map(|addr| advertise(addr).map_err(|_| wrong(addr))).collect()
}

/// Names without ports, or `*` for any.
pub(super) fn hosts(raw: &str) -> Result<Vec<String>, String> {
    let expected = "host names without ports, such as etcd.example.com, or * for any";
    let host = |host: &str| match host {
        host if host == "*" || is_host(host) => Ok(host.to_owned()),
        host => Err(format!("{expected}; {host:?} is not of that form")),
    };
    raw.split(',').map(str::trim).map(host).collect()
}
