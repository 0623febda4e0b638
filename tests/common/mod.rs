//! Real `raft-node` processes on loopback, the network between them, clients, and the referee.
//!
//! Nothing here sleeps to let something happen: a test waits for the condition it needs, with a
//! limit generous enough for a busy machine, and fails with what it was waiting for. When a test
//! fails, the logs of all members are printed.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "for whoever reads the test's output"
)]

pub mod client;
pub mod cluster;
pub mod history;
pub mod http;
pub mod linearizability;
pub mod link;
pub mod load;
pub mod member;

use std::fs::File;
use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub use client::Client;
pub use cluster::{Cluster, Options};
pub use load::Load;
pub use member::Member;

/// How long a test waits for what should take a moment.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `look` finds something, and returns it. `look` otherwise says what it saw instead,
/// for the message of the failure.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look).await
}

/// [`eventually`], with another limit.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}; last seen: {seen}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says loudly that a test could not be made here.
pub fn ignored(why: &str) {
    eprintln!("IGNORED: {why}");
}

/// A loopback port that is free now. Below the range from which the system takes the ports of
/// outgoing connections, so that none of those takes it while a member is down.
pub fn free_port() -> u16 {
    static BLOCK: LazyLock<(u16, File)> = LazyLock::new(claim_block);
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..BLOCK_PORTS {
        let port = BLOCK.0 + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCK_PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// Ports that one process of tests has for itself.
const BLOCK_PORTS: u16 = 1000;
const FIRST_PORT: u16 = 10_000;
const BLOCKS: u16 = 22;

/// The first port of a block that no other process of tests uses, and the lock that says so.
fn claim_block() -> (u16, File) {
    for block in 0..BLOCKS {
        let path = std::env::temp_dir().join(format!("raft-node-tests-ports-{block}.lock"));
        let lock = File::options().create(true).append(true).open(path);
        if let Ok(lock) = lock.and_then(|lock| Ok(lock.try_lock().map(|()| lock)?)) {
            return (FIRST_PORT + block * BLOCK_PORTS, lock);
        }
    }
    panic!("{BLOCKS} processes run these tests at once");
}
