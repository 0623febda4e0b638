//! One `raft-node` process: started, signalled, waited for, and its log kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// As much of a member's log as a failed test prints.
const LOG_LINES_SHOWN: usize = 120;

/// Where a member runs and is reached.
#[derive(Clone, Debug)]
pub struct Site {
    /// `RAFT_PEER_LISTEN`.
    pub peer_addr: String,
    /// `RAFT_CLIENT_LISTEN`.
    pub client_addr: String,
    /// The network namespace that the process runs in, by a file that stands for it; this one's,
    /// if there is none.
    pub namespace: Option<PathBuf>,
}

impl Site {
    /// Free ports on loopback.
    pub fn loopback() -> Self {
        let port = || format!("127.0.0.1:{}", super::free_port());
        Self { peer_addr: port(), client_addr: port(), namespace: None }
    }
}

/// A member's process and all that belongs to it.
pub struct Member {
    /// `RAFT_NODE_ID`.
    pub id: u64,
    /// Where its peer port really is.
    pub peer_addr: String,
    /// Where its client port is.
    pub client_addr: String,
    /// `RAFT_DATA_DIR`.
    pub data_dir: PathBuf,
    log: PathBuf,
    namespace: Option<PathBuf>,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Member {
    /// A member that is yet to be started, with its files below `root`.
    pub fn new(id: u64, root: &Path, env: Vec<(String, String)>) -> Self {
        Self::at(Site::loopback(), id, root, env)
    }

    /// The same, at `site`.
    pub fn at(site: Site, id: u64, root: &Path, env: Vec<(String, String)>) -> Self {
        let Site { peer_addr, client_addr, namespace } = site;
        let data_dir = root.join(format!("node{id}"));
        let log = root.join(format!("node{id}.log"));
        let child = None;
        let mut member = Self { id, peer_addr, client_addr, data_dir, log, namespace, env, child };
        member.set("RAFT_NODE_ID", &id.to_string());
        member.set("RAFT_PEER_LISTEN", &member.peer_addr.clone());
        member.set("RAFT_CLIENT_LISTEN", &member.client_addr.clone());
        member.set("RAFT_DATA_DIR", &member.data_dir.display().to_string());
        member
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a variable for the next start.
    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// The binary under test, with this member's environment and no other.
    pub fn command(&self) -> Command {
        let node = env!("CARGO_BIN_EXE_raft-node");
        let mut command = match &self.namespace {
            None => Command::new(node),
            Some(namespace) => {
                // Becomes the node: the process that is signalled is the same.
                let mut enter = Command::new("/usr/bin/nsenter");
                enter.arg(format!("--net={}", namespace.display())).arg(node);
                enter
            }
        };
        command.env_clear().envs(self.env.iter().cloned()).env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null());
        command
    }

    /// Starts the process; its output goes to the end of its log.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("open the log");
        let mut command = self.command();
        command.stdout(log.try_clone().expect("share the log")).stderr(log);
        self.start_as(command);
    }

    /// Starts the process with so many file descriptors and no way to more.
    pub fn start_with_descriptors(&mut self, limit: u32) {
        let node = self.command();
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            // Becomes the node: the process that is signalled is the same.
            .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""))
            .arg(node.get_program())
            .args(node.get_args())
            .env_clear();
        command.envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = File::options().create(true).append(true).open(&self.log).expect("open the log");
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().expect("share the log")).stderr(log);
        self.start_as(command);
    }

    /// Starts the process with a standard error that is not its log.
    pub fn start_logging_to(&mut self, stderr: impl Into<Stdio>) {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(stderr);
        self.start_as(command);
    }

    fn start_as(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "member {} runs already", self.id);
        self.child = Some(command.spawn().expect("start raft-node"));
    }

    /// Whether the process was started and has not been seen to end.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Fails if the process has ended by itself.
    pub fn assert_runs(&mut self) {
        let child = self.child.as_mut().expect("the member was started");
        let ended = child.try_wait().expect("ask for raft-node's end");
        assert!(ended.is_none(), "member {} ended by itself: {ended:?}", self.id);
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the member runs").id()
    }

    fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid")
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).expect("signal raft-node");
    }

    /// SIGKILL, as `docker kill`: at once, whatever it is doing.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let mut child = self.child.take().expect("the member runs");
        child.wait().expect("wait for raft-node");
    }

    /// SIGTERM, as `docker stop`: asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGINT, as Ctrl-C: asks it to end.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGSTOP, as `docker pause`: it stands still and its connections stay open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        // Its threads stop one by one, on a busy machine not at once.
        let waited =
            waitpid(Some(self.process()), WaitOptions::UNTRACED).expect("wait for raft-node");
        assert!(waited.is_some_and(|(_, status)| status.stopped()), "{waited:?}");
    }

    /// SIGCONT: it goes on as if nothing had happened.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The most memory that the process has had so far (its `VmHWM`).
    pub fn memory_peak_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the member runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.expect("Linux tells it") * 1024
    }

    /// The exit code of the process, once it ends by itself.
    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let id = self.id;
        let child = self.child.as_mut().expect("the member runs");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for raft-node") {
                break status;
            }
            assert!(start.elapsed() < limit, "member {id} did not end within {limit:?}");
            tokio::time::sleep(super::LOOK_EVERY).await;
        };
        self.child = None;
        status
    }

    /// Everything that the process has printed in all of its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Forgets what was printed so far.
    pub fn clear_log(&self) {
        File::options().write(true).open(&self.log).and_then(|log| log.set_len(0)).ok();
    }

    fn print_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let hidden = lines.len().saturating_sub(LOG_LINES_SHOWN);
        eprintln!("---- log of member {} ({hidden} earlier lines hidden)", self.id);
        for line in &lines[hidden..] {
            eprintln!("{line}");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Stopped processes die of SIGKILL too.
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            self.print_log();
        }
    }
}
