//! Members as processes of this machine, on loopback, with data in a temporary directory: the same
//! drill where there is no docker, and the way to put etcd through it.

use super::cluster::{Cluster, Fault};
use crate::grpc::Endpoint;
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

const MEMBERS: usize = 3;
/// A member that was asked to end and has not after this long is stuck.
const EXIT_PATIENCE: Duration = Duration::from_secs(15);
/// So much of its log is shown when a drill fails.
const LAST_WORDS_LINES: usize = 5;

/// Whose command line to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// This project
    RaftNode,
    /// etcd, for comparison
    Etcd,
}

/// Three processes, ended and their directory removed when dropped.
pub struct Processes {
    binary: PathBuf,
    system: System,
    dir: PathBuf,
    client_ports: Vec<u16>,
    peer_ports: Vec<u16>,
    children: Mutex<Vec<Option<Child>>>,
}

impl Processes {
    /// Starts three members that form a new cluster.
    pub fn start(binary: &Path, system: System) -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("raft-drill-{}", std::process::id()));
        let mut ports = free_ports(2 * MEMBERS)?;
        let peer_ports = ports.split_off(MEMBERS);
        let processes = Self {
            binary: binary.to_owned(),
            system,
            dir,
            client_ports: ports,
            peer_ports,
            children: Mutex::new((0..MEMBERS).map(|_| None).collect()),
        };
        let at_dir = |error| format!("{}: {error}", processes.dir.display());
        std::fs::create_dir_all(&processes.dir).map_err(at_dir)?;
        for member in 0..MEMBERS {
            processes.spawn(member)?;
        }
        Ok(processes)
    }

    fn children(&self) -> MutexGuard<'_, Vec<Option<Child>>> {
        self.children.lock().expect("nothing panics with the children in hand")
    }

    fn spawn(&self, member: usize) -> Result<(), String> {
        let log = self.log_path(member);
        let open = File::options().create(true).append(true).open(&log);
        let log = open.map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = match self.system {
            System::RaftNode => self.raft_node(member),
            System::Etcd => self.etcd(member),
        };
        let error_log = log.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(log).stderr(error_log);
        let child = command.spawn();
        let child = child.map_err(|error| format!("{}: {error}", self.binary.display()))?;
        self.children()[member] = Some(child);
        Ok(())
    }

    fn log_path(&self, member: usize) -> PathBuf {
        self.dir.join(format!("member{}.log", member + 1))
    }

    fn data_dir(&self, member: usize) -> PathBuf {
        self.dir.join(format!("member{}", member + 1))
    }

    fn raft_node(&self, member: usize) -> Command {
        let peers = self.peer_ports.iter().enumerate();
        let peers: Vec<String> =
            peers.map(|(index, port)| format!("{}=127.0.0.1:{port}", index + 1)).collect();
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"RAFT_") {
                command.env_remove(name); // the caller's, not the members'
            }
        }
        command
            .env("RAFT_NODE_ID", (member + 1).to_string())
            .env("RAFT_PEERS", peers.join(","))
            .env("RAFT_PEER_LISTEN", format!("127.0.0.1:{}", self.peer_ports[member]))
            .env("RAFT_CLIENT_LISTEN", format!("127.0.0.1:{}", self.client_ports[member]))
            .env("RAFT_DATA_DIR", self.data_dir(member));
        command
    }

    fn etcd(&self, member: usize) -> Command {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (url(self.client_ports[member]), url(self.peer_ports[member]));
        let members = self.peer_ports.iter().enumerate();
        let members: Vec<String> =
            members.map(|(index, port)| format!("n{index}={}", url(*port))).collect();
        let mut command = Command::new(&self.binary);
        command
            .args(["--name", &format!("n{member}"), "--log-level", "warn"])
            .arg("--data-dir")
            .arg(self.data_dir(member))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &members.join(",")]);
        command
    }

    fn signal(&self, member: usize, signal: Signal) -> Result<(), String> {
        let children = self.children();
        let Some(child) = &children[member] else {
            return Ok(());
        };
        kill_process(Pid::from_child(child), signal).map_err(|error| error.to_string())
    }

    /// Waits until the process is gone, which may take a while after SIGTERM.
    fn reap(&self, member: usize) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let mut children = self.children();
            let Some(child) = &mut children[member] else {
                return Ok(());
            };
            if child.try_wait().map_err(|error| error.to_string())?.is_some() {
                children[member] = None;
                return Ok(());
            }
            drop(children);
            if begun.elapsed() > EXIT_PATIENCE {
                return Err(format!("{} does not end", self.name(member)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Cluster for Processes {
    fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |port| format!("127.0.0.1:{port}").parse();
        let endpoints = self.client_ports.iter().map(endpoint);
        endpoints.map(|parsed| parsed.expect("a loopback address")).collect()
    }

    fn name(&self, member: usize) -> String {
        format!("member{}", member + 1)
    }

    fn strike(&self, member: usize, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Stop => {
                self.signal(member, Signal::TERM)?;
                self.reap(member)
            }
            Fault::Kill => {
                self.signal(member, Signal::KILL)?;
                self.reap(member)
            }
            Fault::Pause => self.signal(member, Signal::STOP),
            Fault::Disconnect => Err("cutting a network needs docker, not --processes".to_owned()),
        }
    }

    fn heal(&self, member: usize, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Stop | Fault::Kill => self.spawn(member),
            Fault::Pause => self.signal(member, Signal::CONT),
            Fault::Disconnect => Ok(()),
        }
    }

    fn called_healthy(&self, member: usize) -> Result<bool, String> {
        let mut children = self.children();
        let Some(child) = &mut children[member] else {
            return Ok(false);
        };
        match child.try_wait().map_err(|error| error.to_string())? {
            None => Ok(true),
            Some(status) => Err(format!("{} ended: {status}", self.name(member))),
        }
    }

    fn last_words(&self, member: usize) -> String {
        let log = std::fs::read_to_string(self.log_path(member)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].join("\n")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children().iter_mut().flatten() {
            let _gone_already_is_fine = child.kill();
            let _gone_already_is_fine = child.wait();
        }
        let _a_leftover_in_tmp_does_no_harm = std::fs::remove_dir_all(&self.dir);
    }
}

/// Ports that nobody listens on now. All are held until all are known, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let listeners: Result<Vec<TcpListener>, _> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let listeners = listeners.map_err(|error| format!("no free port: {error}"))?;
    let ports = listeners.iter().map(|listener| listener.local_addr().map(|addr| addr.port()));
    ports.collect::<Result<_, _>>().map_err(|error| format!("no free port: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(6).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }
}
