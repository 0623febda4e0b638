//! Changes of the membership, as clients and joining nodes ask for them.
//!
//! Checks are etcd's. What differs: a member that is added to vote is a learner until it has caught
//! up, and is promoted by itself; an id is one more than any that ever was, not a hash, so that it
//! can be put into `RAFT_NODE_ID`.

use std::time::{Duration, Instant};

use crate::node::{Handle, Member, RequestError};
use crate::raft::{Change, ChangeError, Configuration, NodeId, TargetRole};

use super::Error;

/// Learners that stay learners until somebody promotes them; as in etcd.
const LEARNERS_MAX: usize = 1;

/// How often an id is sought: another member may give the same one away meanwhile.
const ID_TRIES: usize = 4;

/// Two callers that register the same member at once: the second finds it done.
const REGISTER_TRIES: usize = 2;

/// How long a change waits for its turn, and how often it looks.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
const TURN_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The membership of one node's cluster.
#[derive(Clone)]
pub struct Membership {
    handle: Handle,
}

/// What a registration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// Nothing had to be done.
    Already,
    /// A new member.
    Added,
}

/// Why a machine is not a member.
#[derive(Debug)]
pub enum NotRegistered {
    /// Its id is that of a member elsewhere.
    IdInUse {
        /// The id.
        id: NodeId,
        /// Where that member is.
        address: String,
    },
    /// The membership could not be read or changed.
    Request(RequestError),
}

impl From<RequestError> for NotRegistered {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl Membership {
    /// The membership as the node behind `handle` sees and changes it.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The node.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The members, as this node knows them.
    pub fn list(&self) -> Vec<Member> {
        self.handle.members()
    }

    /// The members, as of a read index.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] if no read index is to be had.
    pub async fn list_linearizable(&self) -> Result<Vec<Member>, Error> {
        self.handle.read_barrier().await?;
        Ok(self.list())
    }

    /// Adds a member at `address`, under the next id, which is returned.
    ///
    /// # Errors
    ///
    /// [`Error`]; so for each change below.
    pub async fn add(&self, address: &str, aim: TargetRole) -> Result<NodeId, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.handle.read_barrier().await?;
            let config = self.handle.directory().configuration();
            if self.list().iter().any(|member| member.peer_addr == address) {
                return Err(Error::PeerUrlsExist);
            }
            let staying = config.learners.len() - config.promoting.len();
            if aim == TargetRole::Learner && staying >= LEARNERS_MAX {
                return Err(Error::TooManyLearners);
            }
            let id = next_id(&config).ok_or(ChangeError::TooMany)?;
            match self.change(Change::Add { id, address: address.to_owned(), aim }).await {
                Err(Error::Request(RequestError::Change(ChangeError::Exists)))
                    if tries < ID_TRIES => {}
                outcome => return outcome.map(|()| id),
            }
        }
    }

    /// Removes a member.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn remove(&self, id: NodeId) -> Result<(), Error> {
        self.change(Change::Remove(id)).await
    }

    /// Moves a member to another address.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn update_address(&self, id: NodeId, address: &str) -> Result<(), Error> {
        self.change(Change::UpdateAddress { id, address: address.to_owned() }).await
    }

    /// Makes a voter of a learner that has caught up.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn promote(&self, id: NodeId) -> Result<(), Error> {
        self.change(Change::Promote(id)).await
    }

    /// Ensures that `id` is a member at `address`, in the place of `replaces` if it is new. May be
    /// called again and again: a caller that lost the response retries, and a known id at its own
    /// address is fine. At another address it is refused: the caller cannot show that it is that
    /// member, and moving a healthy member to a newcomer's address would cut it off.
    ///
    /// # Errors
    ///
    /// [`NotRegistered`].
    pub async fn register(
        &self,
        id: NodeId,
        address: &str,
        replaces: Option<NodeId>,
    ) -> Result<Registered, NotRegistered> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.handle.read_barrier().await?;
            let address = address.to_owned();
            if let Some(member) = self.list().into_iter().find(|member| member.id == id) {
                if member.peer_addr == address {
                    return Ok(Registered::Already);
                }
                return Err(NotRegistered::IdInUse { id, address: member.peer_addr });
            }
            // A member that was removed already needs no more replacing.
            let config = self.handle.directory().configuration();
            let replaces = replaces.filter(|replaced| !config.was_removed(*replaced));
            let change = Change::Add { id, address, aim: TargetRole::Voter { replaces } };
            match self.change_in_turn(change).await {
                Err(RequestError::Change(ChangeError::Exists)) if tries < REGISTER_TRIES => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(Registered::Added),
            }
        }
    }

    /// Changes the membership, after a change that is under way or that a new leader has to settle
    /// first: members that start publish their names, and no client has to know that.
    async fn change_in_turn(&self, change: Change) -> Result<(), RequestError> {
        let asked = Instant::now();
        loop {
            match self.handle.change_membership(vec![change.clone()]).await {
                Err(RequestError::Change(
                    ChangeError::InProgress | ChangeError::LeaderNotReady,
                )) if asked.elapsed() < TURN_TIMEOUT => {
                    tokio::time::sleep(TURN_LOOK_INTERVAL).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn change(&self, change: Change) -> Result<(), Error> {
        match (self.change_in_turn(change.clone()).await, &change) {
            (Err(RequestError::Change(ChangeError::Exists)), Change::UpdateAddress { .. }) => {
                Err(Error::PeerUrlsExist)
            }
            (Err(RequestError::Change(ChangeError::NoQuorum)), _) => Err(self.no_quorum(&change)),
            (outcome, _) => outcome.map_err(Error::from),
        }
    }

    /// Why a change would leave no quorum. As in etcd, a quorum that cannot be had since members
    /// were never started is told from one whose members are out of touch, which may pass.
    fn no_quorum(&self, change: &Change) -> Error {
        let config = self.handle.directory().configuration();
        let members = self.list();
        let is_started = |id: NodeId| {
            members.iter().any(|member| member.id == id && !member.client_addrs.is_empty())
        };
        if too_few_started(&config, change, is_started) {
            Error::NotEnoughStarted
        } else {
            Error::from(ChangeError::NoQuorum)
        }
    }
}

/// Whether the voters after `change` would make no quorum though all that were ever started came.
fn too_few_started(
    config: &Configuration,
    change: &Change,
    is_started: impl Fn(NodeId) -> bool,
) -> bool {
    let mut voters = config.voters.clone();
    let mut promoted = None;
    match change {
        Change::Remove(id) => {
            voters.remove(id);
        }
        Change::Promote(id) => {
            voters.insert(*id);
            promoted = Some(*id);
        }
        Change::Add { .. } | Change::UpdateAddress { .. } | Change::Publish { .. } => {}
    }
    // One that is to be promoted has answered the leader.
    let is_there = |id: &&NodeId| promoted == Some(**id) || is_started(**id);
    voters.iter().filter(is_there).count() < voters.len() / 2 + 1
}

/// The id after all that were ever given away; once that is not to be had, since an operator chose
/// the highest there is, the lowest that was not.
fn next_id(config: &Configuration) -> Option<NodeId> {
    let last = config.members().last().max(config.removed.last()).map_or(0, |id| id.get());
    let next = last.max(config.removed_upto).checked_add(1).and_then(NodeId::new);
    let free = |id: &NodeId| !config.is_member(*id) && !config.was_removed(*id);
    let taken = (config.members().len() + config.removed.len()) as u64;
    let lowest = || {
        let first = config.removed_upto.saturating_add(1);
        (first..=first.saturating_add(taken)).filter_map(NodeId::new).find(free)
    };
    next.or_else(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_of_members_that_never_started_is_told_from_one_out_of_touch() {
        let id = |raw| NodeId::new(raw).expect("positive");
        let config = |voters: &[u64]| Configuration::of_voters(voters.iter().copied().map(id));
        let table: [(&[u64], Change, &[u64], bool); 6] = [
            // The last voter.
            (&[1], Change::Remove(id(1)), &[1], true),
            (&[1, 2, 3], Change::Remove(id(2)), &[1, 2, 3], false),
            (&[1, 2, 3], Change::Remove(id(1)), &[1, 2], true),
            (&[1, 2, 3], Change::Remove(id(3)), &[1, 2], false),
            (&[1], Change::Promote(id(2)), &[1], false),
            (&[1, 2], Change::Promote(id(3)), &[1], false),
        ];
        for (voters, change, started, expected) in table {
            let is_started = |id: NodeId| started.contains(&id.get());
            let told = too_few_started(&config(voters), &change, is_started);
            assert_eq!(told, expected, "{change:?} of {voters:?}, started {started:?}");
        }
    }

    #[test]
    fn an_id_is_never_given_away_twice() {
        let id = |raw| NodeId::new(raw).expect("positive");
        let mut config = Configuration::of_voters([id(1), id(3)]);
        assert_eq!(next_id(&config), Some(id(4)));
        config.removed.insert(id(8));
        assert_eq!(next_id(&config), Some(id(9)));
        config.learners.insert(id(u64::MAX));
        assert_eq!(next_id(&config), Some(id(2)), "ids do not run out");
        config.removed_upto = 7;
        assert_eq!(next_id(&config), Some(id(9)), "8 and all below were removed");
    }
}
