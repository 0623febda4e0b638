//! The store's operations, free of any protocol: what a request does, in whatever protocol it
//! comes.
//!
//! Each operation validates the request, reserves memory for its response, waits for a read index
//! or proposes a command, and returns a typed outcome (etcd: `etcdserver/v3_server.go`). `api`
//! converts and maps errors; the probes of `admin` use the same reads.
//!
//! [`Server`] holds no state of its own but the bounds on responses. What waits for an outcome is
//! in `node`, what a command means is in `kv`.
//!
//! Deliberately absent: users and roles. A request carries no identity yet, though a command has
//! room for one.

mod error;
mod kv;
mod maintenance;
mod members;
mod read;
mod responses;
mod watch;

use std::time::Duration;

use crate::node::Handle;
use crate::raft::Term;

pub use error::Error;
pub use maintenance::MemberStatus;
pub use members::{Membership, NotRegistered, Registered};
pub use responses::{Grant, Outgoing, Responses, STALL_TIMEOUT, Work};
pub use watch::{Hub, Kinds, NO_WATCH, WatchCounts, WatchRequest, WatchResponse, WatchStream};

/// How often a watch that asked for it is told its progress; etcd's default.
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_mins(10);

/// The operations of one node. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    handle: Handle,
    responses: Responses,
    watches: Hub,
    watch_progress_interval: Duration,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// The connection on which the request came, if connections are told apart.
    pub connection: Option<ConnectionId>,
}

/// A connection among those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub usize);

/// How recent the data must be that a read returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// What this member has applied.
    Serializable,
    /// Every write acknowledged before the call (Raft §6.4).
    Linearizable,
}

/// What a request came to.
#[derive(Debug)]
pub struct Outcome<R> {
    /// The response.
    pub response: R,
    /// The term in which it was given.
    pub term: Term,
    /// Memory reserved for the response, unless that is small. It is released when dropped.
    pub grant: Option<Grant>,
}

impl Server {
    /// The operations of the node behind `handle`, whose responses take memory from `responses`.
    pub fn new(handle: Handle, responses: Responses) -> Self {
        let watches = Hub::new(handle.clone());
        let watch_progress_interval = WATCH_PROGRESS_INTERVAL;
        Self { handle, responses, watches, watch_progress_interval }
    }

    /// The same, with watches told of their progress so often.
    #[must_use]
    pub fn telling_progress(self, watch_progress_interval: Duration) -> Self {
        Self { watch_progress_interval, ..self }
    }

    /// What tells the watches of this server, to be run.
    pub fn watches(&self) -> &Hub {
        &self.watches
    }

    /// Begins a stream of watches.
    ///
    /// # Errors
    ///
    /// [`Error::Request`], if the member stops, or if the client requires a leader and none is
    /// known.
    pub fn watch(&self, requires_leader: bool) -> Result<WatchStream, Error> {
        if requires_leader {
            self.require_leader()?;
        }
        WatchStream::open(self.watches.clone(), requires_leader, self.watch_progress_interval)
    }

    /// The node.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The bounds on responses.
    pub fn responses(&self) -> &Responses {
        &self.responses
    }

    /// Returns once this member may answer a read of that consistency.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] if no read index is to be had.
    pub async fn wait_for(&self, consistency: Consistency) -> Result<(), Error> {
        match consistency {
            Consistency::Serializable => Ok(()),
            Consistency::Linearizable => Ok(self.handle.read_barrier().await?),
        }
    }

    /// Refuses what a learner does not answer, on a learner.
    ///
    /// # Errors
    ///
    /// [`Error::Learner`].
    pub fn refuse_at_learner(&self) -> Result<(), Error> {
        if self.handle.status().learner { Err(Error::Learner) } else { Ok(()) }
    }

    /// Refuses at once what may only be served under a leader if this member knows none.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] with [`NoLeader`](crate::node::RequestError::NoLeader).
    pub fn require_leader(&self) -> Result<(), Error> {
        match self.handle.status().leader {
            Some(_) => Ok(()),
            None => Err(Error::Request(crate::node::RequestError::NoLeader)),
        }
    }
}
