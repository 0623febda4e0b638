//! The map of the process: the only place where threads and tasks are started and channels are
//! made.
//!
//! | thread | runs | receives | from |
//! |---|---|---|---|
//! | `consensus` | one-threaded runtime: the driver, the transport, the peer port | events, bounded | all others |
//! | `wal` | the persister | batches | driver, snapshotter |
//! | `spare` | makes segments ahead of need | jobs | persister |
//! | `apply` | the applier | committed entries | driver |
//! | `snapshot` | the snapshotter | exports | applier |
//! | `responses` | sorts and frees long lists | work, bounded | clients |
//! | `clients` | runtime of the client port: gRPC and HTTP | sockets | clients |
//! | `log` | the writer of the standard error | lines, bounded in bytes | all others |
//!
//! | channel | holds | bound | when full |
//! |---|---|---|---|
//! | client port → barrier task | read barriers | [`REQUESTS_MAX`] | `RESOURCE_EXHAUSTED` to the client |
//! | clients → driver | requests | [`REQUESTS_MAX`] | `RESOURCE_EXHAUSTED` to the client |
//! | clients → responses | lists to sort or free | [`RESPONSE_WORK_MAX`] | `clients` does it itself |
//! | transport → driver | messages | [`MESSAGES_MAX`] | the peer's stream waits |
//! | threads → driver | completions | [`COMPLETIONS_MAX`] | the thread waits |
//! | applier → watches | the newest revision | one | the newest replaces it |
//! | watches → a client's stream | events | 1024, or 1 MiB | the stream reads history instead |
//! | driver → persister, applier | batches | the core's windows of uncommitted and unapplied bytes | – |
//!
//! The consensus thread does nothing for clients but pass their requests on, so no load from
//! them, however odd, delays a heartbeat. One thread for driver and transport saves a message
//! two changes of thread.

mod accept;
mod advice;
mod authority;
mod bootstrap;
mod bridge;
mod connection;
mod connections;
mod descriptors;
pub mod exit;
pub mod log;
mod memory;
mod publish;
mod round_trips;
mod serve;
mod start;
mod stop;
mod unused;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::api::{self, health_client};
use crate::config::Config;
use crate::transport::{self, PeerRejection};

use advice::Advice;
use bootstrap::Bootstrap;

pub use start::{Node, StartError};

/// Requests of clients that the driver has not yet taken.
pub const REQUESTS_MAX: usize = 16 * 1024;
/// Long lists that have yet to be sorted or freed.
pub const RESPONSE_WORK_MAX: usize = 64;
/// Messages of peers that the driver has not yet taken.
pub const MESSAGES_MAX: usize = 1024;
/// Reports of the node's own threads that the driver has not yet taken.
pub const COMPLETIONS_MAX: usize = 1024;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of this program and of the API that it serves, in a line.
pub fn version() -> String {
    format!("raft-node {VERSION} (serves the API of etcd {})", api::VERSION)
}

/// Runs a node until it is told to stop, or has nothing more to do.
pub fn run(config: &Config) -> ExitCode {
    info!(
        version = VERSION,
        etcd_api = api::VERSION,
        node_id = config.node_id.get(),
        name = config.node_name,
        "starting"
    );
    descriptors::raise_limit();
    // Early, since process 1 of a container has no default for signals: one that arrives while
    // the log is being read back must not be lost.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => exit::fatal(exit::BUG, &format!("signals cannot be received: {error}")),
    };
    let origin = match signals.unless_signalled(Bootstrap::find(config)) {
        Ok(Ok(origin)) => origin,
        Ok(Err(error)) => exit::fatal(error.exit_code(), &Advice::new(config).on_start(&error)),
        Err(signal) => {
            info!(signal, "stopped before the cluster took this node in");
            return ExitCode::from(exit::CLEAN);
        }
    };
    let node = match Node::start_from(config, &origin) {
        Ok(node) => node,
        Err(error) => exit::fatal(error.exit_code(), &Advice::new(config).on_start(&error)),
    };
    // Not inside the macro, which evaluates nothing where the level is off: nobody would wait.
    match signals.unless_signalled(node.dismissed()) {
        Err(signal) => info!(signal, "stopping"),
        Ok(ShutdownReason::Removed) => info!("removed from the cluster: stopping"),
        // Not in order: nothing that this member may still say is to be heard.
        Ok(ShutdownReason::OtherInstance) => exit::fatal(exit::DISK, &wiped(config)),
    }
    node.stop(Duration::from_millis(config.shutdown_grace_ms));
    info!("stopped");
    ExitCode::from(exit::CLEAN)
}

/// What the operator of a member whose directory was lost should do.
fn wiped(config: &Config) -> String {
    let (id, directory) = (config.node_id, config.data_dir.display());
    format!(
        "node {id} has been a member of this cluster with another data directory than {directory}: \
         the votes that it gave are forgotten here. Bring that directory back, or {}",
        Advice::new(config).replace()
    )
}

/// Why a node has nothing more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// It was removed from the cluster.
    Removed,
    /// The cluster knows another data directory under its id.
    OtherInstance,
}

impl Node {
    /// Waits until the cluster has no more place for this node.
    pub async fn dismissed(&self) -> ShutdownReason {
        let (mut status, mut rejected) = (self.handle().watch_status(), self.rejected.clone());
        tokio::select! {
            Ok(_) = status.wait_for(|status| status.removed) => ShutdownReason::Removed,
            Ok(why) = rejected.wait_for(Option::is_some) => match *why {
                Some(PeerRejection::OtherInstance) => ShutdownReason::OtherInstance,
                Some(PeerRejection::Removed) | None => ShutdownReason::Removed,
            },
            else => std::future::pending().await,
        }
    }
}

/// The signals that end a node.
struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        drop(entered);
        Ok(Self { runtime, terminate, interrupt })
    }

    /// What `work` gives, or the signal that came first.
    fn unless_signalled<T>(&mut self, work: impl Future<Output = T>) -> Result<T, &'static str> {
        let Self { runtime, terminate, interrupt } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => Err("SIGTERM"),
                _ = interrupt.recv() => Err("SIGINT"),
                done = work => Ok(done),
            }
        })
    }
}

/// Asks the node that runs with this configuration how it is: `raft-node health`.
pub fn health(config: &Config, service: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let asked = health_client::health(config.client_listen, service);
        runtime.block_on(asked).map_err(|error| transport::describe(&error))
    });
    match answer {
        Ok(true) => {
            log::print(&mut io::stdout(), "SERVING");
            ExitCode::from(exit::CLEAN)
        }
        Ok(false) => {
            log::print(&mut io::stdout(), "NOT_SERVING");
            ExitCode::from(exit::UNHEALTHY)
        }
        Err(why) => {
            log::print(&mut io::stderr(), &why);
            ExitCode::from(exit::UNHEALTHY)
        }
    }
}
