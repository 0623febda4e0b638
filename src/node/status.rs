//! What a member says of itself: the one source of health, of the status page and of headers.

use std::sync::{Arc, PoisonError, RwLock};

use crate::raft::{Index, NodeId, Role, Term};

/// A member of the cluster, as clients and operators know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where peers reach it, `host:port`.
    pub peer_addr: String,
    /// Where clients reach it, `host:port`; empty while not known.
    pub client_addrs: Vec<String>,
    /// Whether it only receives.
    pub learner: bool,
}

/// The members, and what each has said of itself. Shared.
#[derive(Clone, Debug)]
pub struct Members(Arc<RwLock<Vec<Member>>>);

impl Members {
    /// These, of whom some may not have introduced themselves yet.
    pub fn new(members: Vec<Member>) -> Self {
        Self(Arc::new(RwLock::new(members)))
    }

    /// All of them, in order of id.
    pub fn list(&self) -> Vec<Member> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A member says how it is called and where clients reach it. Nobody else is believed.
    pub fn introduce(&self, id: NodeId, name: String, client_addr: String) {
        let mut members = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.iter_mut().find(|member| member.id == id) {
            member.name = name;
            member.client_addrs = vec![client_addr];
        }
    }
}

/// A snapshot of one member's state. Published by the driver whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question that a probe may ask")]
pub struct Status {
    /// This member.
    pub node_id: NodeId,
    /// The cluster it belongs to.
    pub cluster_id: u64,
    /// Its name.
    pub name: Arc<str>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader of that term, as far as known.
    pub leader: Option<NodeId>,
    /// The last index known to be committed.
    pub commit: Index,
    /// The last index applied.
    pub applied: Index,
    /// The last index in the log.
    pub last_index: Index,
    /// Proposals of this member's clients that wait for their outcome.
    pub proposals_pending: usize,
    /// Its event loop turned, and its disk answered, lately.
    pub alive: bool,
    /// It knows a leader, has applied what was committed when it started, and is not stopping.
    pub ready: bool,
    /// It leads, and a quorum heard from it within an election timeout.
    pub leader_confirmed: bool,
    /// All that was committed when it started has been applied.
    pub applied_at_start: bool,
    /// The disk has let a write wait for too long.
    pub disk_stalled: bool,
    /// It is stopping.
    pub shutting_down: bool,
}
