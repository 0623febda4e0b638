//! The map of the process: the only place where threads and tasks are started and channels are
//! made.
//!
//! | thread | runs | receives | from |
//! |---|---|---|---|
//! | `consensus` | one-threaded runtime: the driver, the transport, the peer port | events, bounded | all others |
//! | `wal` | the persister | batches | driver, snapshotter |
//! | `apply` | the applier | committed entries | driver |
//! | `snapshot` | the snapshotter | exports | applier |
//! | `clients` | runtime of the client port: gRPC and HTTP | sockets | clients |
//!
//! | channel | holds | bound | when full |
//! |---|---|---|---|
//! | client port → barrier task | read barriers | [`REQUESTS_MAX`] | `RESOURCE_EXHAUSTED` to the client |
//! | clients → driver | requests | [`REQUESTS_MAX`] | `RESOURCE_EXHAUSTED` to the client |
//! | transport → driver | messages | [`MESSAGES_MAX`] | the peer's stream waits |
//! | threads → driver | completions | [`COMPLETIONS_MAX`] | the thread waits |
//! | driver → persister, applier | batches | the core's windows of uncommitted and unapplied bytes | – |
//!
//! The consensus thread does nothing for clients but pass their requests on, so no load from
//! them, however odd, delays a heartbeat. One thread for driver and transport saves a message
//! two changes of thread.

mod bridge;
pub mod exit;
mod serve;
mod start;
mod stop;

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::api::ask;
use crate::config::Config;

pub use start::{Node, StartError};

/// Requests of clients that the driver has not yet taken.
pub const REQUESTS_MAX: usize = 16 * 1024;
/// Messages of peers that the driver has not yet taken.
pub const MESSAGES_MAX: usize = 1024;
/// Reports of the node's own threads that the driver has not yet taken.
pub const COMPLETIONS_MAX: usize = 1024;

/// Runs a node until it is told to stop.
pub fn run(config: &Config) -> ExitCode {
    // First, since process 1 of a container has no default for signals: one that arrives while
    // the log is being read back must not be lost.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => exit::fatal(exit::BUG, &format!("signals cannot be received: {error}")),
    };
    let node = match Node::start(config) {
        Ok(node) => node,
        Err(error) => exit::fatal(error.exit_code(), &error.to_string()),
    };
    // Not inside the macro, which evaluates nothing where the level is off: nobody would wait.
    let signal = signals.wait();
    info!(signal, "stopping");
    node.stop(Duration::from_millis(config.shutdown_grace_ms));
    info!("stopped");
    ExitCode::from(exit::CLEAN)
}

/// The signals that end a node.
struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        drop(entered);
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Waits for the next one and says which it is.
    fn wait(&mut self) -> &'static str {
        let Self { runtime, terminate, interrupt } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
    }
}

/// Asks the node that runs with this configuration how it is: `raft-node health`.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the answer is for the caller")]
pub fn health(config: &Config, service: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let asked = ask::health(config.client_listen, service);
        runtime.block_on(asked).map_err(|error| error.to_string())
    });
    match answer {
        Ok(true) => {
            println!("SERVING");
            ExitCode::from(exit::CLEAN)
        }
        Ok(false) => {
            println!("NOT_SERVING");
            ExitCode::from(exit::UNHEALTHY)
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(exit::UNHEALTHY)
        }
    }
}
