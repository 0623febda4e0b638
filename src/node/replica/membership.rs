//! Who takes part, as this member's surroundings are to know it: whom to reach, who waits for a
//! change, and whether there is a place left for this member at all.

use std::collections::BTreeMap;

use crate::raft::{Change, Configuration, NodeId, SnapshotMeta};

use super::super::error::RequestError;
use super::super::event::Effect;
use super::super::waiters::Tick;
use super::Replica;
use super::changes::Changes;

/// What is known of the membership beside the core.
#[derive(Debug)]
pub(super) struct MembershipWork<T> {
    pub(super) changes: Changes<T>,
    /// Members just removed, where they are, and until when they are still spoken with.
    parting: BTreeMap<NodeId, (Option<String>, Tick)>,
    /// The configuration that was last made known.
    known: Configuration,
    /// It was made known that this member was removed.
    removed: bool,
}

impl<T> MembershipWork<T> {
    /// At the start, under `known`; `committed` is what it comes from.
    pub(super) fn new(known: Configuration, committed: &Configuration) -> Self {
        let left_out = committed.members().into_iter().filter(|id| !known.is_member(*id));
        let parting = left_out.map(|id| (id, (committed.addresses.get(&id).cloned(), 0)));
        Self { changes: Changes::new(), parting: parting.collect(), known, removed: false }
    }
}

impl<T> Replica<T> {
    pub(super) fn change(&mut self, changes: Vec<Change>, ticket: T) {
        if self.seen.leader.is_none() && self.leaderless_too_long() {
            self.effects.push(Effect::Fail(ticket, RequestError::NoLeader));
            return;
        }
        let deadline = self.now + u64::from(self.config.request_ticks);
        if let Err(ticket) = self.membership.changes.want(changes, ticket, deadline) {
            self.effects.push(Effect::Fail(ticket, RequestError::TooManyRequests));
        }
    }

    /// Asks the leader for what waits.
    pub(super) fn submit_changes(&mut self) {
        let (now, term) = (self.now, self.raft.term());
        let waiters = &mut self.waiters;
        while let Some((id, changes)) =
            self.membership.changes.next_due(now, term, || waiters.fresh_id())
        {
            self.raft.change_membership(id, changes);
        }
    }

    /// Another configuration is in force.
    pub(super) fn configuration_changed(&mut self, config: Configuration) {
        let until = self.now + 4 * u64::from(self.config.raft.election_ticks_max);
        let work = &mut self.membership;
        for id in work.known.members() {
            let address = work.known.addresses.get(&id).cloned();
            work.parting.insert(id, (address, until));
        }
        work.known = config;
        self.tell_peers();
    }

    /// Members that were removed some time ago are no longer spoken with; those whom only an
    /// uncommitted change leaves out may be needed still.
    pub(super) fn tick_membership(&mut self) {
        let (now, work) = (self.now, &mut self.membership);
        let before = work.parting.len();
        let committed = self.raft.membership_at(self.raft.committed());
        work.parting.retain(|id, (_, until)| *until > now || committed.is_member(*id));
        if work.parting.len() != before {
            self.tell_peers();
        }
        if self.raft.is_removed() && !self.membership.removed {
            self.membership.removed = true;
            self.effects.push(Effect::Removed);
        }
    }

    fn tell_peers(&mut self) {
        let work = &mut self.membership;
        let members = work.known.members();
        work.parting.retain(|id, _| !members.contains(id));
        let mut peers: BTreeMap<NodeId, Option<String>> =
            work.parting.iter().map(|(id, (address, _))| (*id, address.clone())).collect();
        for id in members {
            peers.insert(id, work.known.addresses.get(&id).cloned());
        }
        self.effects.push(Effect::Peers(work.known.clone(), peers));
    }

    /// A snapshot was adopted: its membership may hide what became of our own changes.
    pub(super) fn membership_skipped_to(&mut self, meta: &SnapshotMeta) {
        let done = self.membership.changes.applied(&meta.config);
        self.effects.extend(done.map(Effect::ChangeDone));
        let hidden = self.membership.changes.unknowable(&meta.config);
        self.fail_all(hidden, RequestError::LeaderChanged);
    }
}
