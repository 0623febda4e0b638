//! The promises of membership (§6, thesis chapter 4), checked as configurations are written and
//! committed.
//!
//! That the quorums of two configurations in force one after the other always have a member in
//! common follows from how they may differ: not in their voters, or by way of both majorities. So
//! that is what is looked at, once for each configuration, where it is first written.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use raft_node::raft::{Configuration, EntryId, Index, NodeId};

/// Whether those who say so are a majority; in a joint configuration, of each half.
pub fn decides(config: &Configuration, says_so: impl Fn(NodeId) -> bool) -> bool {
    let majority = |half: &BTreeSet<NodeId>| {
        half.iter().filter(|voter| says_so(**voter)).count() > half.len() / 2
    };
    majority(&config.voters) && (!config.is_joint() || majority(&config.outgoing))
}

/// All that were ever written, and the one that stands.
pub struct Configurations {
    written: HashMap<EntryId, Rc<Configuration>>,
    /// The latest one committed, and where.
    standing: (Index, Rc<Configuration>),
    /// Everybody who was a member of a committed one.
    members_ever: BTreeSet<NodeId>,
    /// How many were committed.
    pub committed: u64,
    /// Of those, joint ones.
    pub committed_joint: u64,
}

impl Configurations {
    /// The cluster begins under `first`.
    pub fn new(first: Rc<Configuration>) -> Self {
        Self {
            written: HashMap::new(),
            members_ever: first.members(),
            standing: (Index(0), first),
            committed: 0,
            committed_joint: 0,
        }
    }

    /// The latest one committed.
    pub fn standing(&self) -> &Rc<Configuration> {
        &self.standing.1
    }

    /// Whether that member is out, for good.
    pub fn has_removed(&self, id: NodeId) -> bool {
        let stands = self.standing();
        self.members_ever.contains(&id) && !stands.is_member(id) && !stands.is_joint()
    }

    /// What a configuration entry says, if `id` is one.
    pub fn of_entry(&self, id: EntryId) -> Option<&Rc<Configuration>> {
        self.written.get(&id)
    }

    /// `next` is written at `id`, after the configuration `before`, when everything up to
    /// `committed` was.
    pub fn write(
        &mut self,
        id: EntryId,
        next: &Rc<Configuration>,
        before: (Index, &Configuration),
        committed: Index,
    ) {
        if self.written.insert(id, Rc::clone(next)).is_some() {
            return;
        }
        let (since, before) = before;
        assert!(
            since <= committed,
            "one change at a time: {id} comes on top of the one at {since}, and {committed} is \
             committed"
        );
        let told = || format!("{before:?} became {next:?} at {id}");
        assert!(!next.voters.is_empty(), "somebody votes: {}", told());
        if before.is_joint() {
            let left = !next.is_joint() && next.voters == before.voters;
            assert!(left, "a joint configuration is left for its incoming half: {}", told());
        } else if next.is_joint() {
            assert!(next.outgoing == before.voters, "both majorities have a say: {}", told());
        } else {
            assert!(next.voters == before.voters, "voters change by way of both: {}", told());
        }
        let learned = next.voters.iter().all(|voter| before.is_member(*voter));
        assert!(learned, "new voters were learners before: {}", told());
        assert!(next.removed.is_superset(&before.removed), "removed for good: {}", told());
        let back = next.voters.iter().chain(&next.learners).any(|id| next.removed.contains(id));
        assert!(!back, "who was removed is no member: {}", told());
    }

    /// The configuration at `id` is committed.
    pub fn commit(&mut self, id: EntryId) {
        let Some(config) = self.written.get(&id).cloned() else { return };
        for new in config.members().difference(&self.standing().members()) {
            assert!(
                !self.members_ever.contains(new),
                "an id comes back: {new} was a member long before {id}"
            );
        }
        self.members_ever.extend(config.members());
        self.committed += 1;
        self.committed_joint += u64::from(config.is_joint());
        self.standing = (id.index, config);
    }
}
