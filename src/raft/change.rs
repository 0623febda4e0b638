//! What a change of membership makes of a configuration (§6, thesis §4.3): pure arithmetic.
//!
//! Several changes may be asked for in one step; they are done one after the other, and the
//! outcome is one target. If it has other voters than before, the way there leads through a joint
//! configuration, in which both majorities must agree, so that no two of the quorums on the way
//! can decide apart from each other. Whether a leader may begin at all is judged in `reconfigure`.
//!
//! New members come as learners, always: a voter that still has to receive the data would count
//! in quorums that it cannot help to fill.

use thiserror::Error;

use super::types::{Attributes, Configuration, NodeId};
use crate::testpoints::{self, Mutant};

/// Most members of a cluster, learners included. Every one costs the leader a stream.
pub const MEMBERS_MAX: usize = 64;

/// Most changes that one request may ask for.
pub const CHANGES_MAX: usize = 16;

/// Most removed ids that a configuration lists, since the list is copied with every change. The
/// lowest give way, and from then on every id up to them that is not a member's counts as removed.
pub const REMOVED_MAX: usize = 256;

/// Longest address in bytes: a DNS name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 260;

/// Longest name, or address for clients, that a member may say of itself, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 512;

/// One change of who takes part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new member, which begins as a learner.
    Add {
        /// Its id, which no member ever had.
        id: NodeId,
        /// Where the others reach it.
        address: String,
        /// What it is to become.
        aim: TargetRole,
    },
    /// A learner that has caught up becomes a voter.
    Promote(NodeId),
    /// A member goes, and never comes back under its id.
    Remove(NodeId),
    /// A member is reached elsewhere.
    UpdateAddress {
        /// The member.
        id: NodeId,
        /// Where the others reach it from now on.
        address: String,
    },
    /// A member says how it is called, and where its clients reach it.
    Publish {
        /// The member.
        id: NodeId,
        /// What it says.
        attributes: Attributes,
    },
}

impl Change {
    /// Whether it only tells something, and changes neither who takes part nor where.
    pub(super) fn only_tells(&self) -> bool {
        match self {
            Self::Publish { .. } => true,
            Self::Add { .. } | Self::Promote(_) | Self::Remove(_) | Self::UpdateAddress { .. } => {
                false
            }
        }
    }
}

/// What a new member is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetRole {
    /// A learner, until somebody asks for more.
    Learner,
    /// A voter, as soon as it has caught up.
    Voter {
        /// The member that goes in the same step.
        replaces: Option<NodeId>,
    },
}

/// Why a membership stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ChangeError {
    /// One change at a time.
    #[error("another change is under way")]
    InProgress,
    /// The leader is new, and does not know yet what its predecessors left behind.
    #[error("the leader has not committed anything in its term")]
    LeaderNotReady,
    /// The id, or the address, belongs to a member.
    #[error("a member has this id or address")]
    Exists,
    /// The id belonged to a member that was removed.
    #[error("a member of this id was removed")]
    WasRemoved,
    /// No member has this id.
    #[error("no member has this id")]
    Unknown,
    /// It votes already.
    #[error("the member is no learner")]
    NotLearner,
    /// The learner lacks too much of the log.
    #[error("the learner has not caught up")]
    NotCaughtUp,
    /// The voters that are in touch would make no quorum.
    #[error("the voters that are in touch would make no quorum")]
    NoQuorum,
    /// There is no room for more members.
    #[error("a cluster has at most {MEMBERS_MAX} members")]
    TooMany,
    /// Nothing would be different.
    #[error("nothing would change")]
    NoChange,
}

impl Configuration {
    /// What `changes`, one after the other, make of this configuration, which is not joint.
    pub(super) fn changed(&self, changes: &[Change]) -> Result<Self, ChangeError> {
        let mut target = self.clone();
        for change in changes {
            target.apply(change)?;
        }
        if target.voters.is_empty() {
            return Err(ChangeError::NoQuorum);
        }
        if target == *self { Err(ChangeError::NoChange) } else { Ok(target) }
    }

    fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        match change {
            Change::Add { id, address, aim } => self.add(*id, address, *aim),
            Change::Promote(id) => self.promote(*id),
            Change::Remove(id) => self.remove(*id),
            Change::UpdateAddress { id, address } => {
                if !self.is_member(*id) {
                    return Err(ChangeError::Unknown);
                }
                let taken = self.addresses.iter().any(|(one, at)| one != id && at == address);
                if taken {
                    return Err(ChangeError::Exists);
                }
                self.addresses.insert(*id, address.clone());
                Ok(())
            }
            Change::Publish { id, attributes } => {
                if !self.is_member(*id) {
                    return Err(ChangeError::Unknown);
                }
                self.attributes.insert(*id, attributes.clone());
                Ok(())
            }
        }
    }

    fn add(&mut self, id: NodeId, address: &str, aim: TargetRole) -> Result<(), ChangeError> {
        if self.is_member(id) || self.addresses.values().any(|taken| taken == address) {
            return Err(ChangeError::Exists);
        }
        if self.was_removed(id) && !testpoints::mutant(Mutant::RemovedReturns) {
            return Err(ChangeError::WasRemoved);
        }
        if self.members().len() >= MEMBERS_MAX {
            return Err(ChangeError::TooMany);
        }
        if let TargetRole::Voter { replaces } = aim {
            if replaces.is_some_and(|replaced| !self.is_member(replaced)) {
                return Err(ChangeError::Unknown);
            }
            self.promoting.insert(id, replaces);
        }
        self.learners.insert(id);
        self.addresses.insert(id, address.to_owned());
        Ok(())
    }

    fn promote(&mut self, id: NodeId) -> Result<(), ChangeError> {
        if !self.learners.remove(&id) {
            return Err(if self.is_member(id) {
                ChangeError::NotLearner
            } else {
                ChangeError::Unknown
            });
        }
        self.voters.insert(id);
        match self.promoting.remove(&id).flatten() {
            // Somebody else may have removed it meanwhile.
            Some(replaced) if self.is_member(replaced) => self.remove(replaced),
            Some(_) | None => Ok(()),
        }
    }

    fn remove(&mut self, id: NodeId) -> Result<(), ChangeError> {
        if !self.is_member(id) {
            return Err(ChangeError::Unknown);
        }
        self.voters.remove(&id);
        self.learners.remove(&id);
        self.promoting.remove(&id);
        self.addresses.remove(&id);
        self.attributes.remove(&id);
        self.removed.insert(id);
        while self.removed.len() > REMOVED_MAX {
            let lowest = self.removed.pop_first().expect("more than the most");
            self.removed_upto = lowest.get();
        }
        Ok(())
    }

    /// The first step to `target`: through both, if the voters differ (§6). Voters that go keep
    /// their addresses until the joint configuration is left: their majority is needed until then.
    pub(super) fn towards(&self, target: Self) -> Self {
        if target.voters == self.voters || testpoints::mutant(Mutant::JointSkipped) {
            return target;
        }
        let mut joint = Self { outgoing: self.voters.clone(), ..target };
        for (id, address) in &self.addresses {
            if joint.outgoing.contains(id) && !testpoints::mutant(Mutant::OutgoingUnreached) {
                joint.addresses.entry(*id).or_insert_with(|| address.clone());
            }
        }
        joint
    }

    /// What follows a joint configuration.
    pub(super) fn left(&self) -> Self {
        let mut left = Self { outgoing: std::collections::BTreeSet::new(), ..self.clone() };
        let mut addresses = std::mem::take(&mut left.addresses);
        addresses.retain(|id, _| !left.was_removed(*id));
        Self { addresses, ..left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).expect("positive")
    }

    fn three() -> Configuration {
        Configuration::of_voters([1, 2, 3].map(id))
    }

    fn add(raw: u64, aim: TargetRole) -> Change {
        Change::Add { id: id(raw), address: format!("node{raw}:5001"), aim }
    }

    const VOTER: TargetRole = TargetRole::Voter { replaces: None };

    #[test]
    fn a_new_member_learns_first_and_becomes_a_voter_through_both_majorities() {
        let learning = three().changed(&[add(4, VOTER)]).expect("room for it");
        assert_eq!(learning.learners, [id(4)].into());
        assert_eq!(learning.promoting, [(id(4), None)].into());
        assert_eq!(three().towards(learning.clone()), learning, "no quorum changes");

        let target = learning.changed(&[Change::Promote(id(4))]).expect("it is a learner");
        assert_eq!(target.voters, [1, 2, 3, 4].map(id).into());
        assert!(target.learners.is_empty() && target.promoting.is_empty());
        let joint = learning.towards(target.clone());
        assert_eq!((&joint.voters, &joint.outgoing), (&target.voters, &three().voters));
        assert_eq!(joint.left(), target);
    }

    #[test]
    fn a_replacement_comes_and_goes_in_one_step() {
        let aim = TargetRole::Voter { replaces: Some(id(1)) };
        let learning = three().changed(&[add(4, aim)]).expect("room for it");
        assert!(learning.voters.contains(&id(1)), "it stays until the other can vote");
        let target = learning.changed(&[Change::Promote(id(4))]).expect("it is a learner");
        assert_eq!(target.voters, [2, 3, 4].map(id).into());
        assert_eq!(target.removed, [id(1)].into());

        let gone = learning.changed(&[Change::Remove(id(1))]).expect("a member");
        let target = gone.changed(&[Change::Promote(id(4))]).expect("removed meanwhile");
        assert_eq!(target.voters, [2, 3, 4].map(id).into());
    }

    #[test]
    fn what_a_member_says_of_itself_goes_when_it_goes_and_changes_nothing_else() {
        let attributes = Attributes { name: "two".to_owned(), client_addr: "two:2379".to_owned() };
        let says = |raw| Change::Publish { id: id(raw), attributes: attributes.clone() };
        let told = three().changed(&[says(2)]).expect("a member");
        assert_eq!(told.attributes, [(id(2), attributes.clone())].into());
        assert_eq!(Configuration { attributes: [].into(), ..told.clone() }, three());
        assert_eq!(three().towards(told.clone()), told, "no quorum changes");
        assert_eq!(told.changed(&[says(2)]), Err(ChangeError::NoChange));
        assert_eq!(told.changed(&[says(4)]), Err(ChangeError::Unknown));
        let gone = told.changed(&[Change::Remove(id(2))]).expect("a member");
        assert!(gone.attributes.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with_learner = three().changed(&[add(4, TargetRole::Learner)]).expect("room for it");
        let moved = Change::UpdateAddress { id: id(2), address: "node4:5001".to_owned() };
        let same = Change::UpdateAddress { id: id(4), address: "node4:5001".to_owned() };
        let replaces = TargetRole::Voter { replaces: Some(id(9)) };
        let table = [
            (vec![], ChangeError::NoChange),
            (vec![same], ChangeError::NoChange),
            (vec![add(4, TargetRole::Learner)], ChangeError::Exists),
            (vec![add(2, VOTER)], ChangeError::Exists),
            (vec![moved], ChangeError::Exists),
            (vec![add(5, replaces)], ChangeError::Unknown),
            (vec![Change::Promote(id(2))], ChangeError::NotLearner),
            (vec![Change::Promote(id(9))], ChangeError::Unknown),
            (vec![Change::Remove(id(9))], ChangeError::Unknown),
            (vec![Change::Remove(id(4)), add(4, VOTER)], ChangeError::WasRemoved),
            ([1, 2, 3].map(|raw| Change::Remove(id(raw))).into(), ChangeError::NoQuorum),
            ((5..90).map(|raw| add(raw, VOTER)).collect(), ChangeError::TooMany),
        ];
        for (changes, why) in table {
            assert_eq!(with_learner.changed(&changes), Err(why), "{changes:?}");
        }
        let gone = with_learner.changed(&[Change::Remove(id(4))]).expect("a member");
        assert_eq!(gone.changed(&[add(4, VOTER)]), Err(ChangeError::WasRemoved));
        assert!(gone.addresses.is_empty(), "nobody is reached there any more");
    }
}
