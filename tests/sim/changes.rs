//! Members come and go: what operators ask for, who speaks with whom, and what of it must be true
//! in the end.
//!
//! The budget of damage follows the configuration that stands. A disk may be spoiled while nothing
//! is being changed, if the voters that remain are a quorum of good ones. While there is a spoiled
//! disk of which the cluster does not know yet, a change is asked for by itself, and only one that
//! leaves a good quorum; of one that has been gone for a while, the members themselves must take
//! heed. A member that was removed counts for nothing: its disk may be spoiled at any time. And
//! nobody's directory is emptied once members come and go: that machine joins under a new id.

use std::collections::{BTreeMap, BTreeSet};

use raft_node::node::{Event, PeerTable, RequestError};
use raft_node::raft::{Attributes, Body, Change, Configuration, Message, NodeId, TargetRole};

use crate::clients::What;
use crate::faults::Wish;
use crate::plan::{self, address};
use crate::process::Ticket;
use crate::processes::Death;
use crate::simulator::{SimEvent, Simulator};

/// After so long without a word of it, a change that nobody waits for is not under way.
const CALM_US: u64 = 10_000_000;

/// For so long the others may count on a member whose disk turned out to be damaged.
const MISSED_US: u64 = 15_000_000;

/// So long an operator waits before it takes a member by the hand: what members can tell each other
/// they have told by then.
const UNHEARD_US: u64 = 20_000_000;

/// Where each machine listens.
const ADDRESSES: usize = 4;

const VOTER: TargetRole = TargetRole::Voter { replaces: None };

/// A change that somebody wants.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What.
    pub changes: Vec<Change>,
    /// Nobody waits for it any more.
    pub ended: bool,
    /// Somebody was told that it is done.
    pub done: bool,
}

impl Simulator {
    /// An operator asks the member at `at`, if that can be without harm.
    pub fn ask_change(
        &mut self,
        at: usize,
        wish: Wish,
        which: (usize, usize),
        starts_us: Option<u64>,
    ) {
        if self.members[at].process.is_none() || self.members[at].paused_until_us.is_some() {
            return;
        }
        let changes = self.wished(wish, which);
        if !self.may_change(&changes) {
            return;
        }
        for change in &changes {
            if let (Change::Add { id, .. }, Some(starts_us)) = (change, starts_us)
                && self.members[Self::place(*id)].life == 0
            {
                let start = SimEvent::Start { at: Self::place(*id), life: 0 };
                self.queue.push(self.now_us + starts_us, start);
            }
        }
        self.stats.changes_asked += 1;
        self.asked_us = self.now_us;
        self.tell(|| format!("member {at} is asked for {changes:?}"));
        self.asked.push(Asked { changes: changes.clone(), ended: false, done: false });
        let ticket = self.open(at, What::Change { asked: self.asked.len() - 1 });
        self.give(at, Event::Change { changes, ticket });
    }

    /// What a wish comes to, as the members are now. If it cannot be, somebody moves.
    fn wished(&self, wish: Wish, (one, other): (usize, usize)) -> Vec<Change> {
        let standing = self.checker.configurations.standing();
        let members: Vec<NodeId> = standing.members().into_iter().collect();
        let learners: Vec<NodeId> = standing.learners.iter().copied().collect();
        let waiting = self.waiting();
        let moves = vec![if other % 3 == 0 {
            publication(of(&members, one), other)
        } else {
            relocation(of(&members, one), other)
        }];
        let few = standing.voters.len() <= self.plan.voters_min;
        match wish {
            Wish::Nonsense => nonsense(standing, one, other),
            Wish::UpdateAddress => moves,
            Wish::Promote if learners.is_empty() => vec![Change::Promote(of(&members, one))],
            Wish::Promote => vec![Change::Promote(of(&learners, one))],
            Wish::Remove if !few => vec![Change::Remove(of(&members, one))],
            Wish::RemoveLeader if !few => {
                let leader = self.leader().map(Self::id).filter(|id| standing.is_member(*id));
                vec![Change::Remove(leader.unwrap_or(of(&members, one)))]
            }
            _ if waiting.is_empty() => moves,
            Wish::Grow | Wish::Remove | Wish::RemoveLeader => vec![joining(&waiting, one, VOTER)],
            Wish::Learn => vec![joining(&waiting, one, TargetRole::Learner)],
            Wish::Replace => {
                let replaces = Some(of(&members, other));
                vec![joining(&waiting, one, TargetRole::Voter { replaces })]
            }
            Wish::Several if few => [moves, vec![joining(&waiting, one, VOTER)]].concat(),
            Wish::Several => self.several(&waiting, one, other),
        }
    }

    /// The machines that may still join.
    fn waiting(&self) -> Vec<NodeId> {
        let standing = self.checker.configurations.standing();
        let ids = (self.plan.members..self.plan.places()).map(Self::id);
        ids.filter(|id| !standing.is_member(*id) && !standing.removed.contains(id)).collect()
    }

    /// Two things in one step, where there are enough voters for both.
    fn several(&self, waiting: &[NodeId], one: usize, other: usize) -> Vec<Change> {
        let standing = self.checker.configurations.standing();
        let voters: Vec<NodeId> = standing.voters.iter().copied().collect();
        let learners: Vec<NodeId> = standing.learners.iter().copied().collect();
        let goes = Change::Remove(of(&voters, one));
        match other % 4 {
            0 => vec![goes, joining(waiting, other / 4, VOTER)],
            1 if voters.len() > self.plan.voters_min + 1 => {
                vec![goes, Change::Remove(of(&voters, one + 1))]
            }
            2 if !learners.is_empty() => vec![Change::Promote(of(&learners, other / 4)), goes],
            _ => vec![joining(waiting, one, VOTER), relocation(of(&voters, one), other)],
        }
    }

    /// Whether asking for `changes` can do no harm that would be the injector's own fault.
    fn may_change(&self, changes: &[Change]) -> bool {
        let latent = (0..self.members.len()).any(|at| {
            let member = &self.members[at];
            let missed = member.ruined && member.ruined_us + MISSED_US < self.now_us;
            member.damage.is_some() && !missed && !self.is_of_no_account(at)
        });
        if !latent {
            return true;
        }
        let standing = self.checker.configurations.standing();
        let mut voters = standing.voters.clone();
        for change in changes {
            match change {
                Change::Add { id, aim: TargetRole::Voter { replaces }, .. } => {
                    voters.insert(*id);
                    voters.retain(|voter| Some(*voter) != *replaces);
                }
                Change::Promote(id) => {
                    voters.insert(*id);
                }
                Change::Remove(id) => {
                    voters.remove(id);
                }
                Change::Add { .. } | Change::UpdateAddress { .. } | Change::Publish { .. } => {}
            }
        }
        self.is_calm() && !voters.is_empty() && self.has_good_quorum(&voters, None)
    }

    /// Whether nothing is being changed, as far as anybody could tell.
    pub fn is_calm(&self) -> bool {
        let standing = self.checker.configurations.standing();
        let ruined = |id: &NodeId| self.members[Self::place(*id)].ruined;
        self.asked_us + CALM_US < self.now_us
            && self.asked.iter().all(|asked| asked.ended)
            && !self.checker.unsettled()
            && !standing.is_joint()
            && standing.promoting.keys().all(ruined)
    }

    /// Whether the disks of most of `voters` are good, and will be if that of `more` is not.
    pub fn has_good_quorum(&self, voters: &BTreeSet<NodeId>, more: Option<usize>) -> bool {
        let good = |id: &&NodeId| {
            let at = Self::place(**id);
            !self.members[at].ruined && self.members[at].damage.is_none() && more != Some(at)
        };
        voters.iter().filter(good).count() > voters.len() / 2
    }

    /// Whether a member was removed, for good: nobody relies on it.
    pub fn is_of_no_account(&self, at: usize) -> bool {
        self.checker.configurations.has_removed(Self::id(at))
    }

    /// Whether a machine is to run once everything is well: members, those that somebody wants to
    /// be, and about half of those that were removed, who must disturb nobody.
    pub fn has_a_place(&self, at: usize) -> bool {
        let id = Self::id(at);
        if self.checker.configurations.has_removed(id) {
            return self.members[at].life.is_multiple_of(2);
        }
        let adds =
            |change: &Change| matches!(change, Change::Add { id: added, .. } if *added == id);
        at < self.plan.members
            || self.members[at].life > 0
            || self.asked.iter().flat_map(|asked| &asked.changes).any(adds)
    }

    /// A machine that is there: this one, or another.
    pub fn somebody(&self, at: usize) -> usize {
        let there = |at: &usize| {
            let member = &self.members[*at];
            member.process.is_some() || (self.has_a_place(*at) && !member.retired)
        };
        if !self.plan.changing() || there(&at) {
            return at;
        }
        let all: Vec<usize> = (0..self.members.len()).filter(there).collect();
        all.get(at % all.len().max(1)).copied().unwrap_or(at)
    }

    /// Whom clients turn to: to whoever runs, or should.
    pub fn homes(&self) -> Vec<usize> {
        let standing = self.checker.configurations.standing();
        let is_one =
            |at: &usize| self.members[*at].process.is_some() || standing.is_member(Self::id(*at));
        (0..self.members.len()).filter(is_one).collect()
    }

    /// Somebody was told that a change is done: it is in force, unless it was undone already.
    pub fn change_done(&mut self, at: usize, ticket: Ticket) {
        let What::Change { asked } = self.requests[ticket.0].what else {
            unreachable!("only changes are done")
        };
        self.stats.changes_done += 1;
        self.asked[asked].done = true;
        self.tell(|| format!("member {at} says done: {:?}", self.asked[asked].changes));
        self.is_in_force(asked);
        self.change_ended(asked);
        self.settle(at, ticket);
    }

    /// A change was refused, or nobody knows what became of it.
    pub fn change_failed(&mut self, asked: usize, why: RequestError) {
        if why.is_definite() {
            self.stats.changes_refused += 1;
        } else {
            self.stats.changes_open += 1;
        }
        self.change_ended(asked);
    }

    /// Nobody waits for a change any more.
    pub fn change_ended(&mut self, asked: usize) {
        self.asked[asked].ended = true;
        self.asked_us = self.now_us;
    }

    fn is_in_force(&self, asked: usize) {
        let standing = self.checker.configurations.standing();
        let changes = &self.asked[asked].changes;
        let moved_again = |id: NodeId| {
            let moves = |change: &&Change| match change {
                Change::UpdateAddress { id: moved, .. } => *moved == id,
                Change::Add { .. }
                | Change::Promote(_)
                | Change::Remove(_)
                | Change::Publish { .. } => false,
            };
            self.asked.iter().flat_map(|asked| &asked.changes).filter(moves).count() > 1
        };
        for change in changes {
            let holds = match change {
                Change::Add { id, .. } => standing.is_member(*id) || standing.removed.contains(id),
                Change::Promote(id) => {
                    standing.voters.contains(id) || standing.removed.contains(id)
                }
                Change::Remove(id) => {
                    !standing.voters.contains(id)
                        && !standing.learners.contains(id)
                        && standing.removed.contains(id)
                }
                Change::Publish { id, .. } => {
                    standing.attributes.contains_key(id) || standing.removed.contains(id)
                }
                Change::UpdateAddress { id, address } => {
                    found(*id, standing.addresses.get(id)) == *address
                        || standing.removed.contains(id)
                        || moved_again(*id)
                }
            };
            assert!(holds, "said to be done, and is not: {change:?} of {changes:?}: {standing:?}");
        }
    }

    /// In the end: all that was said to be done is, and who was to become a voter has.
    pub fn changes_hold(&self) {
        let standing = self.checker.configurations.standing();
        for asked in (0..self.asked.len()).filter(|asked| self.asked[*asked].done) {
            self.is_in_force(asked);
            for change in &self.asked[asked].changes {
                let Change::Add { id, aim: TargetRole::Voter { replaces }, .. } = change else {
                    continue;
                };
                if standing.voters.contains(id) {
                    let stays = replaces.is_some_and(|replaced| standing.is_member(replaced));
                    assert!(!stays, "{change:?}, but both are members: {standing:?}");
                }
            }
        }
    }

    /// Whether a configuration is one to end with: nothing is under way in it, nor could be.
    pub fn is_final(&self, config: &Configuration) -> bool {
        let ruined = |id: &NodeId| self.members[Self::place(*id)].ruined;
        !config.is_joint() && config.promoting.keys().all(ruined)
    }

    /// Whether a member has a way to send this: it dials its peers, and answers whoever dialled it.
    pub fn reaches(&self, message: &Message) -> bool {
        let process = self.members[Self::place(message.from)].process.as_ref();
        let circle = &process.expect("who sends runs").circle;
        let answers = matches!(
            message.body,
            Body::Vote { .. }
                | Body::Appended { .. }
                | Body::Rejected { .. }
                | Body::HeartbeatReply { .. }
                | Body::ReadIndexReply { .. }
                | Body::Removed { .. }
                | Body::Members { .. }
                | Body::Refused { .. }
        );
        let dialled = circle.table.peers.get(&message.to);
        dialled.is_some_and(|addr| listens(message.to, addr))
            || answers && circle.guests.contains(&message.to)
    }

    /// What a member is told of addresses when it starts. The environment of a first member names
    /// all of them; a machine that joins hears them from the cluster, once.
    pub fn told_addresses(&self, at: usize) -> BTreeMap<NodeId, String> {
        let joins = at >= self.plan.members;
        if self.named.contains(&at) || joins && self.members[at].life == 0 {
            let standing = self.checker.configurations.standing();
            let address = |id: NodeId| (id, found(id, standing.addresses.get(&id)));
            standing.members().into_iter().map(address).collect()
        } else if joins {
            BTreeMap::new()
        } else {
            self.plan.first_addresses()
        }
    }

    /// All members that somebody knew may be gone by now, so that nobody it believes can tell it of
    /// the leader. After `since_us`, its operator names those who are there, as the manual says.
    pub fn name_members(&mut self, since_us: &mut BTreeMap<usize, u64>) {
        let Some(leader) = self.leader().map(Self::id) else { return };
        for at in self.sound() {
            let lost = self.members[at].process.as_ref().is_some_and(|process| {
                let raft = process.replica.raft();
                raft.leader().is_none() && raft.id() != leader && !raft.has_standing(leader)
            });
            if !lost {
                since_us.remove(&at);
            } else if *since_us.entry(at).or_insert(self.now_us) + UNHEARD_US < self.now_us {
                since_us.remove(&at);
                self.tell(|| format!("the operator of {at} names the members"));
                self.stats.members_named += 1;
                self.named.insert(at);
                self.die(at, Death::Killed, Some(1000));
            }
        }
    }

    /// A member learns that a connection which it dialled stands: over it, a message just went to
    /// a peer that runs.
    pub fn notice_reached(&mut self, at: usize, peer: usize) {
        let id = Self::id(peer);
        let life = self.members[at].life;
        let circle = &mut self.process(at).circle;
        let Some(address) = circle.table.peers.get(&id).cloned() else { return };
        if !listens(id, &address) || circle.reached.get(&id) == Some(&address) {
            return;
        }
        circle.reached.insert(id, address.clone());
        let event = Event::PeerReached { peer: id, address };
        self.queue.push(self.now_us, SimEvent::Sent { at, life, event });
    }

    /// Whether a member lets another one in. Who was removed is told so.
    pub fn lets_in(&mut self, at: usize, from: usize) -> bool {
        let id = Self::id(from);
        let circle = &mut self.process(at).circle;
        if circle.table.removed.contains(&id) {
            self.tell(|| format!("member {at} says that {from} was removed"));
            let there = &self.members[from];
            if there.process.is_some() && there.paused_until_us.is_none() {
                self.retire(from);
            }
            return false;
        }
        if !circle.table.peers.contains_key(&id) {
            circle.guests.insert(id);
        }
        true
    }

    /// A member speaks with every other one whose answer a quorum may need: those in force, and
    /// those of the committed configuration. One that joined and was restarted knows nobody's
    /// address until the log says it: the leader dials it.
    pub fn speaks_with_all_needed(&self, at: usize) {
        let process = self.members[at].process.as_ref().expect("it acts");
        let (raft, table) = (process.replica.raft(), &process.circle.table);
        let (in_force, committed) = (raft.membership(), raft.membership_at(raft.committed()));
        let is_known = |id: &NodeId| {
            let logged = [&in_force.addresses, &committed.addresses];
            at < self.plan.members || logged.iter().any(|addresses| addresses.contains_key(id))
        };
        let needed = in_force.members().into_iter().chain(committed.members());
        let mut others = needed.filter(|id| *id != Self::id(at) && is_known(id));
        let left_out = others.find(|id| !table.peers.contains_key(id));
        assert_eq!(left_out, None, "member {at} does not speak with a member: {table:?}");
    }

    /// A member speaks with those of `table` from now on. The connections with those who were
    /// removed end, and so do those with one that is elsewhere now.
    pub fn speak_with(&mut self, at: usize, table: PeerTable) {
        let circle = &mut self.process(at).circle;
        let before = std::mem::replace(&mut circle.table, table).peers;
        let PeerTable { peers: now, removed, .. } = circle.table.clone();
        circle.guests.retain(|id| !now.contains_key(id) && !removed.contains(id));
        circle.reached.retain(|id, address| now.get(id) == Some(&*address));
        for (id, address) in before {
            if now.get(&id) != Some(&address) {
                let peer = Self::place(id);
                self.network.link(at, peer).epoch += 1;
                self.network.link(peer, at).epoch += 1;
                self.tell_loss(peer, at);
            }
        }
    }

    /// A member knows, or was told, that it was removed: its process ends.
    pub fn retire(&mut self, at: usize) {
        let (id, standing) = (Self::id(at), self.checker.configurations.standing());
        let removed = standing.removed.contains(&id) && !standing.is_member(id);
        assert!(removed, "member {at} takes itself for removed: {standing:?}");
        self.stats.members_removed += 1;
        self.members[at].retired = true;
        self.die(at, Death::Killed, None);
    }

    /// A removed member is started on its old disk.
    pub fn revive(&mut self, which: usize) {
        let waits = |at: &usize| {
            let member = &self.members[*at];
            member.process.is_none() && !member.ruined && self.is_of_no_account(*at)
        };
        let all: Vec<usize> = (0..self.members.len()).filter(waits).collect();
        if all.is_empty() {
            return;
        }
        let at = all[which % all.len()];
        self.stats.members_revived += 1;
        let life = self.members[at].life;
        self.queue.push(self.now_us, SimEvent::Start { at, life });
    }
}

/// Whether the machine of `id` is at `address`.
fn listens(id: NodeId, address: &str) -> bool {
    (0..ADDRESSES).any(|which| *address == plan::address(Simulator::place(id), which))
}

/// Where a member is reached: where the log says, or else where its operator did at first.
fn found(id: NodeId, logged: Option<&String>) -> String {
    logged.cloned().unwrap_or_else(|| address(Simulator::place(id), 0))
}

fn of(list: &[NodeId], which: usize) -> NodeId {
    list[which % list.len()]
}

fn joining(waiting: &[NodeId], which: usize, aim: TargetRole) -> Change {
    let id = of(waiting, which);
    Change::Add { id, address: address(Simulator::place(id), 0), aim }
}

fn relocation(id: NodeId, which: usize) -> Change {
    Change::UpdateAddress { id, address: address(Simulator::place(id), which % ADDRESSES) }
}

fn publication(id: NodeId, which: usize) -> Change {
    let (name, client_addr) = (format!("name{which}"), address(Simulator::place(id), 0));
    Change::Publish { id, attributes: Attributes { name, client_addr } }
}

/// What must be refused, or does nothing.
fn nonsense(standing: &Configuration, one: usize, other: usize) -> Vec<Change> {
    let members: Vec<NodeId> = standing.members().into_iter().collect();
    let voters: Vec<NodeId> = standing.voters.iter().copied().collect();
    let removed: Vec<NodeId> = standing.removed.iter().copied().collect();
    match other % 5 {
        0..=1 if !removed.is_empty() => vec![joining(&removed, one, VOTER)],
        0..=1 => vec![joining(&members, one, VOTER)],
        2 => vec![Change::Promote(of(&voters, one))],
        3 => voters.into_iter().map(Change::Remove).collect(),
        _ => Vec::new(),
    }
}
