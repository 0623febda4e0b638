//! Three members in one process, to look at: who leads, and what changes.
//!
//! `cargo run --release --bin local_cluster` forms a cluster on this machine with temporary
//! data, on the ports that the compose file publishes as well. Each line is a change as the member
//! named in it sees it. Ctrl-C stops all three.
//!
//! A binary and no example: cargo builds the tests' own dependencies for an example, and with their
//! features the node's dependencies a second time.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is what it is for")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use raft_node::app::exit::CONFIGURATION;
use raft_node::app::{Node, StartError};
use raft_node::config::Config;
use raft_node::node::Status;
use raft_node::raft::{NodeId, Role};

const PEER_PORTS: [u16; 3] = [5001, 5002, 5003];
const CLIENT_PORTS: [u16; 3] = [2379, 22379, 32379];
const GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local_cluster: {error}");
            ExitCode::from(CONFIGURATION)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).init();
    let data = TemporaryDirectory::make()?;
    let nodes: Vec<Node> =
        (0..3).map(|place| start(place, data.path())).collect::<Result<_, _>>()?;
    println!("Three members of one cluster, with their data in {}", data.path().display());
    println!();
    let endpoints = CLIENT_PORTS.map(|port| format!("127.0.0.1:{port}")).join(",");
    println!("    etcdctl --endpoints={endpoints} put greeting hello");
    println!("    etcdctl --endpoints={endpoints} endpoint status -w table");
    println!("    http://127.0.0.1:{}/", CLIENT_PORTS[0]);
    println!();
    println!("Ctrl-C stops them.");
    println!();

    let start = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for node in &nodes {
            tokio::spawn(report(node.handle().watch_status(), start));
        }
        tokio::signal::ctrl_c().await
    })?;

    println!("\nstopping");
    // All at once: each has only the others to hand leadership to.
    let stops: Vec<_> =
        nodes.into_iter().map(|node| thread::spawn(move || node.stop(GRACE))).collect();
    for stop in stops {
        stop.join().map_err(|_| "a member could not be stopped")?;
    }
    println!("stopped; the data is gone");
    Ok(())
}

/// Goes with all that is in it.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn make() -> Result<Self, Box<dyn Error>> {
        let name = format!("raft-local-cluster-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("local_cluster: {} stays behind: {error}", self.0.display());
        }
    }
}

/// The member at `place`, counted from zero.
fn start(place: usize, data: &Path) -> Result<Node, Box<dyn Error>> {
    let id = place + 1;
    let peers: Vec<String> = PEER_PORTS
        .iter()
        .enumerate()
        .map(|(place, port)| format!("{}=127.0.0.1:{port}", place + 1))
        .collect();
    let config = Config::from_pairs([
        ("RAFT_NODE_ID", id.to_string()),
        ("RAFT_PEERS", peers.join(",")),
        ("RAFT_PEER_LISTEN", format!("127.0.0.1:{}", PEER_PORTS[place])),
        ("RAFT_CLIENT_LISTEN", format!("127.0.0.1:{}", CLIENT_PORTS[place])),
        ("RAFT_DATA_DIR", data.join(format!("node{id}")).display().to_string()),
    ])?;
    Node::start(&config).map_err(|error| match error {
        StartError::Listen { .. } => {
            format!("{error} (is another cluster running here, or the compose file's?)").into()
        }
        other => other.into(),
    })
}

/// What of a member's status is worth a line.
#[derive(Clone, Copy, PartialEq, Eq)]
struct View {
    role: Role,
    term: u64,
    leader: Option<NodeId>,
    ready: bool,
}

impl View {
    fn of(status: &Status) -> Self {
        Self { role: status.role, term: status.term.0, leader: status.leader, ready: status.ready }
    }

    fn tell(self) -> String {
        let what = match (self.role, self.leader) {
            (Role::Leader, _) => "LEADS".to_owned(),
            (Role::Follower | Role::PreCandidate | Role::Candidate, Some(leader)) => {
                format!("follows node{leader}")
            }
            (Role::PreCandidate, None) => "asks whether it could win an election".to_owned(),
            (Role::Candidate, None) => "stands for election".to_owned(),
            (Role::Follower, None) => "waits for a leader".to_owned(),
        };
        let ready = if self.ready { "ready" } else { "not ready" };
        format!("term {:<3} {what}, {ready}", self.term)
    }
}

/// Prints a line for every change, until the member stops.
async fn report(mut statuses: tokio::sync::watch::Receiver<Arc<Status>>, start: Instant) {
    let mut told = None;
    loop {
        let status = Arc::clone(&statuses.borrow_and_update());
        let view = View::of(&status);
        if told != Some(view) {
            let elapsed = start.elapsed().as_secs_f64();
            println!("{elapsed:>8.3} s  {:<6} {}", status.name, view.tell());
            told = Some(view);
        }
        if statuses.changed().await.is_err() {
            return;
        }
    }
}
