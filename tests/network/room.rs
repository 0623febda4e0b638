//! The namespaces of one test, and how members get into them.
//!
//! A namespace lives as long as the process that holds it, and so does everything in it: whatever
//! becomes of a test, nothing is left over.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::common::member::Site;
use crate::common::{Cluster, Options};
use crate::wire::{Port, Wire};

/// The port on which members reach each other: what goes there was dialled by its sender.
pub const PEER_PORT: u16 = 2380;
const CLIENT_PORT: u16 = 2379;

/// Packets are large where no network is under them: fewer of them cost less.
const LINK_MTU: &str = "33000";
const PEERS_MTU: &str = "32000";

/// Namespaces for so many members, the network between them, and this process beside them.
pub struct Room {
    /// What lies between the members.
    pub wire: Wire,
    sites: Vec<Site>,
    // Last: the processes that hold the namespaces.
    _holders: Vec<Holder>,
}

/// A process that does nothing but keep a namespace.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Room {
    /// Namespaces for members 1 to `members`, those that are to join later included.
    pub fn new(members: u8) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        ip(None, &["link", "set", "dev", "lo", "up"]);
        let wire_port = 4789 + u16::from(number);
        let (mut holders, mut sites, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        for id in 1..=members {
            let holder = hold();
            let namespace = PathBuf::from(format!("/proc/{}/ns/net", holder.0.id()));
            let own = Addresses { number, id };
            own.link(&holder, &namespace);
            own.peers_network(&namespace, wire_port, members);
            ports.push(Port { id, addr: format!("{}:{wire_port}", own.at("2")) });
            sites.push(Site {
                peer_addr: format!("{}:{PEER_PORT}", peer_ip(id)),
                client_addr: format!("{}:{CLIENT_PORT}", own.at("2")),
                namespace: Some(namespace),
            });
            holders.push(holder);
        }
        let wire = Wire::lay(wire_port, &ports);
        Self { wire, sites, _holders: holders }
    }

    /// `options` for a cluster in this room.
    pub fn options(&self, options: Options) -> Options {
        Options { sites: self.sites.clone(), ..options }
    }

    /// A cluster of three with the product's own timing.
    pub async fn cluster(&self) -> Cluster {
        Cluster::start(self.options(Options::default())).await
    }
}

/// The addresses of one member's links.
struct Addresses {
    number: u8,
    id: u8,
}

impl Addresses {
    /// One end of the link to this process: `1` is ours, `2` the member's.
    fn at(&self, end: &str) -> String {
        format!("10.{}.{}.{end}", 100 + self.number, self.id)
    }

    /// A plain link to the member's namespace.
    fn link(&self, holder: &Holder, namespace: &PathBuf) {
        let ours = format!("r{}m{}", self.number, self.id);
        let pid = holder.0.id().to_string();
        let peer = ["type", "veth", "peer", "name", "eth0", "mtu", LINK_MTU, "netns", &pid];
        ip(None, &[&["link", "add", &ours, "mtu", LINK_MTU], &peer[..]].concat());
        ip(None, &["addr", "add", &format!("{}/30", self.at("1")), "dev", &ours]);
        ip(None, &["link", "set", "dev", &ours, "up"]);
        let inside = Some(namespace);
        ip(inside, &["link", "set", "dev", "lo", "up"]);
        ip(inside, &["addr", "add", &format!("{}/30", self.at("2")), "dev", "eth0"]);
        ip(inside, &["link", "set", "dev", "eth0", "up"]);
    }

    /// The network of the peers: each packet is put into a datagram to this process.
    fn peers_network(&self, namespace: &PathBuf, wire_port: u16, members: u8) {
        let inside = Some(namespace);
        let (ours, own, port) = (self.at("1"), self.at("2"), wire_port.to_string());
        let device = ["address", &mac(self.id), "mtu", PEERS_MTU, "gso_max_segs", "1"];
        let kind = ["type", "vxlan", "id", "1", "remote", &ours, "local", &own, "dstport", &port];
        ip(inside, &[&["link", "add", "peers0"], &device[..], &kind[..]].concat());
        ip(inside, &["link", "set", "dev", "peers0", "arp", "off", "up"]);
        ip(inside, &["addr", "add", &format!("{}/24", peer_ip(self.id)), "dev", "peers0"]);
        for other in (1..=members).filter(|other| *other != self.id) {
            let known = ["lladdr", &mac(other), "dev", "peers0", "nud", "permanent"];
            ip(inside, &[&["neigh", "add", &peer_ip(other)], &known[..]].concat());
        }
    }
}

fn peer_ip(id: u8) -> String {
    format!("10.9.0.{id}")
}

fn mac(id: u8) -> String {
    format!("02:00:00:00:00:{id:02x}")
}

/// Starts a process in a namespace of its own, and waits until it is there.
fn hold() -> Holder {
    let mut command = Command::new("unshare");
    command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
    let holder = Holder(command.spawn().expect("unshare"));
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    let (own, pid) = (of("self").expect("a namespace"), holder.0.id().to_string());
    let start = Instant::now();
    while of(&pid).is_ok_and(|namespace| namespace == own) {
        assert!(start.elapsed() < Duration::from_secs(10), "unshare makes no namespace");
        std::thread::sleep(Duration::from_millis(1));
    }
    holder
}

/// `ip` with these words, in that namespace.
fn ip(namespace: Option<&PathBuf>, words: &[&str]) {
    let mut command = match namespace {
        None => Command::new("ip"),
        Some(namespace) => {
            let mut enter = Command::new("nsenter");
            enter.arg(format!("--net={}", namespace.display())).arg("ip");
            enter
        }
    };
    let output = command.args(words).stdin(Stdio::null()).output().expect("ip");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {told}", words.join(" "));
}
