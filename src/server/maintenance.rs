//! What operators do with one member.

use crate::kv::{HashScan, Store, StoreHash};
use crate::node::RequestError;
use crate::raft::{Index, NodeId, Term};

use super::read::STEP_KEYS;
use super::{Error, Server};

/// One member, as it sees itself.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// The last entry that it knows to be committed.
    pub committed: Index,
    /// The last entry that its store holds.
    pub applied: Index,
    /// The revision of its store.
    pub revision: i64,
    /// What the store takes, in bytes.
    pub size_bytes: u64,
    /// What of that a compaction would leave, in bytes.
    pub size_in_use_bytes: u64,
    /// The size past which the store takes no more, in bytes.
    pub quota_bytes: u64,
    /// It does not vote.
    pub is_learner: bool,
}

impl Server {
    /// Where this member stands.
    pub fn status(&self) -> MemberStatus {
        let (status, applied) = (self.handle.status(), self.handle.applied_index());
        let sizes =
            |store: &Store| (store.revision(), store.size_bytes(), store.size_in_use_bytes());
        let (revision, size_bytes, size_in_use_bytes) = self.handle.with_store(sizes);
        let this = self.handle.members().into_iter().find(|member| member.id == status.node_id);
        MemberStatus {
            leader: status.leader,
            term: status.term,
            committed: status.commit.max(applied),
            applied,
            revision,
            size_bytes,
            size_in_use_bytes,
            quota_bytes: self.handle.limits().quota_bytes,
            is_learner: this.is_some_and(|member| member.learner),
        }
    }

    /// The revision of this member's store.
    pub fn revision(&self) -> i64 {
        self.handle.with_store(Store::revision)
    }

    /// Hashes the history up to `revision`; 0: all of it.
    ///
    /// # Errors
    ///
    /// [`Error::Kv`] for a revision that is compacted, or not there yet.
    pub async fn hash_kv(&self, revision: i64) -> Result<StoreHash, Error> {
        let mut scan = self.handle.with_store(|store| HashScan::new(revision, store))?;
        while !self.handle.with_store(|store| scan.step(store, STEP_KEYS))? {
            tokio::task::yield_now().await;
        }
        Ok(scan.finish())
    }

    /// Hands leadership from this member to `target`.
    ///
    /// # Errors
    ///
    /// [`Error::Request`], if this member does not lead or `target` cannot.
    pub async fn move_leader(&self, target: Option<NodeId>) -> Result<(), Error> {
        let status = self.handle.status();
        if status.leader != Some(status.node_id) {
            return Err(Error::Request(RequestError::NotLeader));
        }
        let target = target.ok_or(RequestError::BadTransferee)?;
        Ok(self.handle.transfer_leadership(Some(target)).await?)
    }
}
