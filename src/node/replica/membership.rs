//! Who takes part, as this member's surroundings are to know it: whom to reach and where, who waits
//! for a change, and whether there is a place left for this member at all.
//!
//! A peer is needed from the moment that a configuration with it is appended until the moment that
//! one without it is committed, and its address with it. So the table of peers is made from the
//! configuration in force *and* the committed one, here and nowhere else: the simulation drives it,
//! and what carries messages only obeys.

use std::collections::{BTreeMap, BTreeSet};

use crate::raft::{Change, Configuration, NodeId, SnapshotMeta};

use super::super::error::RequestError;
use super::super::event::{Effect, PeerTable};
use super::super::pending_proposals::Tick;
use super::changes::Changes;
use super::{Replica, ReplicaConfig};

/// What is known of the membership beside the core.
#[derive(Debug)]
pub(super) struct MembershipWork<T> {
    pub(super) changes: Changes<T>,
    /// Members just removed, where they are, and until when they are still spoken with.
    parting: BTreeMap<NodeId, (Option<String>, Tick)>,
    /// What was last made known.
    table: PeerTable,
    /// The configuration in force was committed when it was made known.
    settled: bool,
    /// It was made known that this member was removed.
    removed: bool,
}

impl<T> MembershipWork<T> {
    pub(super) fn new() -> Self {
        Self {
            changes: Changes::new(),
            parting: BTreeMap::new(),
            table: PeerTable::default(),
            settled: false,
            removed: false,
        }
    }
}

impl ReplicaConfig {
    /// Where `id` is dialled: at the address of the committed configuration for as long as that
    /// knows it, since the one in force may never be committed if the member is not there.
    fn address_of(
        &self,
        id: NodeId,
        in_force: &Configuration,
        committed: &Configuration,
    ) -> Option<String> {
        let overridden = self.raft.address_overrides.get(&id);
        let first = self.raft.addresses.get(&id);
        let config = if committed.is_member(id) { committed } else { in_force };
        let logged = config.addresses.get(&id).or(first).or(in_force.addresses.get(&id));
        overridden.or(logged).cloned()
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
        let pending_proposals = &mut self.pending_proposals;
        while let Some((id, changes)) =
            self.membership.changes.next_due(now, term, || pending_proposals.fresh_id())
        {
            self.raft.change_membership(id, changes);
        }
    }

    /// Another configuration is in force.
    pub(super) fn configuration_changed(&mut self) {
        let until = self.now + 4 * u64::from(self.config.raft.election_ticks_max);
        for id in self.membership.table.configuration.members() {
            let address = self.membership.table.peers.get(&id).cloned();
            self.membership.parting.insert(id, (address, until));
        }
        self.update_peers();
    }

    /// Members that were removed some time ago are no longer spoken with, and one that moved is
    /// dialled at its new address once that is committed.
    pub(super) fn tick_membership(&mut self) {
        let (now, work) = (self.now, &mut self.membership);
        let before = work.parting.len();
        work.parting.retain(|_, (_, until)| *until > now);
        let settles = !work.settled && self.raft.membership_since() <= self.raft.committed();
        if work.parting.len() != before || settles {
            self.update_peers();
        }
        if self.raft.is_removed() && !self.membership.removed {
            self.membership.removed = true;
            self.effects.push(Effect::Removed);
        }
    }

    /// Makes the table of peers known, if it changed. One of no members yet is that of a node that
    /// joins: it dials those whom it asked.
    pub(super) fn update_peers(&mut self) {
        let own = self.config.raft.id;
        let configuration = self.raft.membership().clone();
        let committed = self.raft.membership_at(self.raft.committed()).clone();
        let mut peers = BTreeMap::new();
        let mut reach = |id: NodeId, address: Option<String>| {
            if let Some(address) = address.filter(|_| id != own) {
                peers.insert(id, address);
            }
        };
        self.membership.parting.retain(|id, _| !configuration.is_member(*id));
        for (id, (address, _)) in &self.membership.parting {
            reach(*id, address.clone());
        }
        let needed = configuration.members().into_iter().chain(committed.members());
        for id in needed {
            reach(id, self.config.address_of(id, &configuration, &committed));
        }
        if configuration.members().is_empty() {
            self.config.raft.addresses.iter().for_each(|(id, address)| {
                reach(*id, Some(address.clone()));
            });
        }
        let gone = |id: &NodeId| committed.was_removed(*id) && !peers.contains_key(id);
        let removed: BTreeSet<NodeId> = committed.removed.iter().copied().filter(gone).collect();
        let work = &mut self.membership;
        work.settled = self.raft.membership_since() <= self.raft.committed();
        for id in peers.keys().filter(|id| !work.table.peers.contains_key(id)) {
            self.raft.peer_reached(*id, None);
        }
        let table = PeerTable { configuration, peers, removed };
        if table != work.table {
            work.table = table.clone();
            self.effects.push(Effect::Peers(table));
        }
    }

    /// A snapshot was adopted: its membership may hide what became of our own changes.
    pub(super) fn membership_skipped_to(&mut self, meta: &SnapshotMeta) {
        let done = self.membership.changes.applied(&meta.config);
        self.effects.extend(done.map(Effect::ChangeDone));
        let hidden = self.membership.changes.unknowable(&meta.config);
        self.fail_all(hidden, RequestError::LeaderChanged);
    }
}
