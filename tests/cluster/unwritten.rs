//! Logs that cannot be written: a full file system, a pipe that is not drained.

use std::fs::File;
use std::io::{PipeReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::http::get;
use crate::common::{Cluster, Options};

/// What every write to it answers: no space left on the device.
fn full_disk() -> File {
    File::options().write(true).open("/dev/full").expect("open /dev/full")
}

/// A pipe without room, and the end that is not read.
fn full_pipe() -> (OwnedFd, PipeReader) {
    /// What a pipe of Linux holds.
    const PIPE_BYTES: usize = 64 << 10;
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&vec![b'.'; PIPE_BYTES]).expect("fill the pipe");
    (writer.into(), reader)
}

async fn lost_lines(cluster: &mut Cluster, id: u64) -> u64 {
    let addr = cluster.member(id).client_addr.clone();
    let metrics = get(&addr, "/metrics").await.body;
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("raft_node_log_lines_lost_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {metrics}"))
}

/// An election, a restart and a stop: everything that logs.
async fn live_through_it(mut cluster: Cluster, stderr: impl Fn() -> Stdio) -> Cluster {
    let lead = cluster.settled().await;
    cluster.client(lead.id).surely_put("before", "1").await;
    cluster.kill(lead.id);
    let next = cluster.settled().await;
    assert_ne!(next.id, lead.id);
    cluster.client(next.id).surely_put("after", "1").await;
    cluster.member(lead.id).start_logging_to(stderr());
    cluster.settled().await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_log_to_a_full_disk_live_on() {
    let mut cluster = Cluster::prepare(Options::default()).await;
    for id in cluster.ids() {
        cluster.member(id).start_logging_to(full_disk());
    }
    let mut cluster = live_through_it(cluster, || full_disk().into()).await;
    for id in cluster.ids() {
        assert!(lost_lines(&mut cluster, id).await > 0, "{id} counts what it cannot say");
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_log_to_a_pipe_that_is_not_drained_live_on() {
    let (pipe, _reader) = full_pipe();
    let shared = || Stdio::from(pipe.try_clone().expect("share the pipe"));
    // More than any buffer holds.
    let chatty = Options::default().env("RAFT_LOG", "trace");
    let mut cluster = Cluster::prepare(chatty).await;
    for id in cluster.ids() {
        cluster.member(id).start_logging_to(shared());
    }
    let mut cluster = live_through_it(cluster, shared).await;
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
}

#[tokio::test]
async fn the_end_of_a_process_does_not_wait_for_its_log() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let (pipe, _reader) = full_pipe();
    let mut cluster = Cluster::prepare(Options::single()).await;
    let member = cluster.member(1);
    member.set("RAFT_CLIENT_LISTEN", &addr);
    let start = Instant::now();
    member.start_logging_to(pipe);
    let status = member.exit(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(78), "the code says why: {status}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_command_answers_by_its_code_alone() {
    let mut cluster = Cluster::start(Options::single()).await;
    let mut health = cluster.member(1).command();
    health.arg("health").stdout(full_disk()).stderr(full_disk());
    let status = health.status().expect("start raft-node");
    assert_eq!(status.code(), Some(0), "{status}");
    let mut wrong = cluster.member(1).command();
    wrong.args(["health", "nonsense"]).stdout(full_disk()).stderr(full_disk());
    let status = wrong.status().expect("start raft-node");
    assert_eq!(status.code(), Some(1), "{status}");
}
