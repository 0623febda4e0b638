//! A node's state as a list of numbers, with other names for the members: what a model checker
//! takes fingerprints of. For tests only.
//!
//! Two nodes of equal settings and equal words behave alike from there on, up to the names. What
//! cannot matter for that is left out:
//!
//! - settings, which never change, and addresses, which decide nothing;
//! - the random draws yet to come: they choose timeouts, and a checker tries every timeout;
//! - what the last `Ready` told, which only keeps a `SoftState` from being told twice;
//! - ticks, if the caller lets none pass that could let anything fire (see [`Ticks`]);
//! - the number of a batch that is durable. Others count from the latest that is.
//!
//! Every structure is taken apart field by field, so that a new field cannot be forgotten here.
//!
//! The core is the same for every name but for one rule: of two that ask for pre-votes with equal
//! logs, the one with the lower id has more right. That touches no durable state. A checker that
//! takes states for equal up to names sees such a race from one side only.

mod follower_progress;

use std::collections::BTreeSet;

use super::change::{Change, TargetRole};
use super::detector::Detector;
use super::election::Candidacy;
use super::follower::Follower;
use super::log::{Batch, Log};
use super::membership::Membership;
use super::message::{Body, Message, Refusal};
use super::node::{DiskCursor, Outbox, RaftNode, RoleState};
use super::proposal::Forwards;
use super::read_index::{ForwardedReads, ReadRounds, Round};
use super::ready::ReadState;
use super::replication::Leader;
use super::standing::Standing;
use super::transfer::Transfer;
use super::types::{
    Configuration, Entry, EntryId, HardState, NodeId, Payload, PersistSeq, Proposal, RequestId,
    SnapshotMeta,
};

/// Other names for members 1 to n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The new name of member k + 1.
    new: Vec<u64>,
    /// Who is called k + 1.
    old: Vec<NodeId>,
}

impl Names {
    /// Member k + 1 is called `new[k]`: the numbers from 1 to n, in any order.
    pub fn new(new: Vec<u64>) -> Self {
        let mut old = vec![NodeId::new(1).expect("positive"); new.len()];
        for (at, name) in new.iter().enumerate() {
            old[*name as usize - 1] = NodeId::new(at as u64 + 1).expect("positive");
        }
        assert!(old.iter().collect::<BTreeSet<_>>().len() == new.len(), "one name each");
        Self { new, old }
    }

    /// The new name of `id`.
    pub fn of(&self, id: NodeId) -> u64 {
        self.new[id.get() as usize - 1]
    }
}

/// Whether ticks are part of what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// They are: the caller lets time pass tick by tick.
    Count,
    /// They are not: no tick ever reaches a follower or a candidate, and none that reaches a
    /// leader makes anything fire but a heartbeat.
    Ignore,
}

/// A list of numbers under construction.
#[derive(Debug)]
pub struct Words<'a> {
    names: &'a Names,
    ticks: Ticks,
    numbers: Vec<u64>,
}

impl<'a> Words<'a> {
    /// Nothing yet.
    pub fn new(names: &'a Names, ticks: Ticks) -> Self {
        Self { names, ticks, numbers: Vec::with_capacity(128) }
    }

    /// The list.
    pub fn list(&self) -> &[u64] {
        &self.numbers
    }

    /// A number.
    pub fn number(&mut self, number: u64) {
        self.numbers.push(number);
    }

    fn pair(&mut self, one: u64, other: u64) {
        self.number(one);
        self.number(other);
    }

    /// A member.
    pub fn member(&mut self, id: NodeId) {
        self.number(self.names.of(id));
    }

    fn maybe_member(&mut self, id: Option<NodeId>) {
        self.number(id.map_or(0, |id| self.names.of(id)));
    }

    fn flag(&mut self, flag: bool) {
        self.number(u64::from(flag));
    }

    fn tick_count(&mut self, ticks: u32) {
        if self.ticks == Ticks::Count {
            self.number(u64::from(ticks));
        }
    }

    fn maybe_ticks(&mut self, ticks: Option<u32>) {
        self.tick_count(ticks.map_or(0, |ticks| ticks + 1));
    }

    fn set(&mut self, ids: &BTreeSet<NodeId>) {
        self.number(ids.iter().map(|id| 1 << self.names.of(*id)).sum());
    }

    /// What each member has in some map, in the order of the new names.
    fn by_member(&mut self, mut put: impl FnMut(&mut Self, NodeId)) {
        let names = self.names;
        names.old.iter().for_each(|id| put(self, *id));
    }

    /// The name of an entry.
    pub fn entry_id(&mut self, id: EntryId) {
        self.number(id.term.0);
        self.number(id.index.0);
    }

    /// The name of a request.
    pub fn request(&mut self, id: RequestId) {
        self.member(id.origin);
        self.number(id.sequence);
    }

    /// A list: its length, then its parts.
    pub fn list_of<T>(
        &mut self,
        parts: impl ExactSizeIterator<Item = T>,
        mut put: impl FnMut(&mut Self, T),
    ) {
        self.number(parts.len() as u64);
        parts.for_each(|part| put(self, part));
    }

    /// Parts whose order means nothing.
    pub fn bag_of<T>(&mut self, parts: impl Iterator<Item = T>, put: impl Fn(&mut Self, T)) {
        let mut lists: Vec<Vec<u64>> = parts
            .map(|part| {
                let mut words = Self { names: self.names, ticks: self.ticks, numbers: Vec::new() };
                put(&mut words, part);
                words.numbers
            })
            .collect();
        lists.sort_unstable();
        self.number(lists.len() as u64);
        for list in lists {
            self.number(list.len() as u64);
            self.numbers.extend(list);
        }
    }

    /// A configuration.
    pub fn configuration(&mut self, config: &Configuration) {
        let Configuration {
            voters,
            outgoing,
            learners,
            promoting,
            removed,
            removed_upto,
            // Decide nothing while no reached addresses are reported.
            addresses: _,
            attributes: _,
            request,
        } = config;
        self.set(voters);
        self.set(outgoing);
        self.set(learners);
        self.set(removed);
        self.number(*removed_upto);
        self.by_member(|words, id| match promoting.get(&id) {
            Some(replaced) => words.maybe_member(*replaced),
            None => words.number(u64::MAX),
        });
        match request {
            Some(id) => self.request(*id),
            None => self.number(0),
        }
    }

    /// An entry.
    pub fn entry(&mut self, entry: &Entry) {
        let Entry { id, payload } = entry;
        self.entry_id(*id);
        match payload {
            Payload::Noop => self.number(0),
            Payload::Command(proposal) => {
                self.number(1);
                self.proposal(proposal);
            }
            Payload::Config(config) => {
                self.number(2);
                self.configuration(config);
            }
        }
    }

    fn proposal(&mut self, proposal: &Proposal) {
        let Proposal { id, data } = proposal;
        self.request(*id);
        self.list_of(data.iter(), |words, byte| words.number(u64::from(*byte)));
    }

    /// What a snapshot stands for.
    pub fn snapshot(&mut self, meta: &SnapshotMeta) {
        self.entry_id(meta.last);
        self.configuration(&meta.config);
    }

    /// Term, vote and commit.
    pub fn hard_state(&mut self, state: &HardState) {
        let HardState { term, vote, commit } = state;
        self.number(term.0);
        self.maybe_member(*vote);
        self.number(commit.0);
    }

    fn refusal(&mut self, why: Refusal) {
        self.number(match why {
            Refusal::NotLeader => 0,
            Refusal::Transferring => 1,
            Refusal::Busy => 2,
            Refusal::Change(why) => 3 + why as u64,
        });
    }

    /// A message.
    pub fn message(&mut self, message: &Message) {
        let Message { from, to, term, body } = message;
        self.member(*from);
        self.member(*to);
        self.number(term.0);
        self.body(body);
    }

    fn body(&mut self, body: &Body) {
        match body {
            Body::RequestVote { last, pre_vote, transfer } => {
                self.number(0);
                self.entry_id(*last);
                self.flag(*pre_vote);
                self.flag(*transfer);
            }
            Body::Vote { granted, pre_vote } => {
                self.number(1);
                self.flag(*granted);
                self.flag(*pre_vote);
            }
            Body::Append { prev, entries, commit } => {
                self.number(2);
                self.entry_id(*prev);
                self.list_of(entries.iter(), Self::entry);
                self.number(commit.0);
            }
            Body::Appended { last } => self.pair(3, last.0),
            Body::Rejected { prev, hint } => {
                self.number(4);
                self.number(prev.0);
                self.entry_id(*hint);
            }
            Body::Heartbeat { commit, round, successor } => {
                self.number(5);
                self.number(commit.0);
                self.number(*round);
                self.maybe_member(*successor);
            }
            Body::HeartbeatReply { round } => self.pair(6, *round),
            Body::InstallSnapshot { meta } => {
                self.number(7);
                self.snapshot(meta);
            }
            Body::TimeoutNow => self.number(8),
            Body::Propose { proposals } => {
                self.number(9);
                self.list_of(proposals.iter(), Self::proposal);
            }
            Body::ReadIndex { id } => {
                self.number(10);
                self.request(*id);
            }
            Body::ReadIndexReply { id, index } => {
                self.number(11);
                self.request(*id);
                self.number(index.0);
            }
            Body::Change { id, changes } => {
                self.number(13);
                self.request(*id);
                self.list_of(changes.iter(), Self::change);
            }
            Body::Removed { pre_vote } => {
                self.number(14);
                self.flag(*pre_vote);
            }
            Body::AskMembers => self.number(15),
            Body::Members { ids } => {
                self.number(16);
                self.list_of(ids.iter(), |words, id| words.member(*id));
            }
            Body::Refused { ids, why } => {
                self.number(12);
                self.list_of(ids.iter(), |words, id| words.request(*id));
                self.refusal(*why);
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Add { id, address: _, aim: TargetRole::Learner } => {
                self.number(0);
                self.member(*id);
            }
            Change::Add { id, address: _, aim: TargetRole::Voter { replaces } } => {
                self.number(1);
                self.member(*id);
                self.maybe_member(*replaces);
            }
            Change::Promote(id) => {
                self.number(2);
                self.member(*id);
            }
            Change::Remove(id) => {
                self.number(3);
                self.member(*id);
            }
            Change::UpdateAddress { id, address: _ } => {
                self.number(4);
                self.member(*id);
            }
            Change::Publish { id, attributes: _ } => {
                self.number(5);
                self.member(*id);
            }
        }
    }

    /// A node, right after its `ready` had nothing more to say.
    pub fn node(&mut self, node: &RaftNode) {
        let RaftNode {
            config: _,
            term,
            vote,
            term_leader,
            role,
            detector,
            log,
            membership,
            standing,
            removal_notified,
            // The searches report none.
            reached: _,
            pre_votes_refused,
            forwards,
            disk,
            out,
            reported: _,
            rng: _,
        } = node;
        self.number(term.0);
        self.maybe_member(*vote);
        self.maybe_member(*term_leader);
        self.role(role);
        self.detector(detector);
        self.log(log, disk.done);
        self.membership(membership);
        let Standing { vouched, rest_ticks } = standing;
        self.set(vouched);
        self.flag(*rest_ticks > 0);
        self.tick_count(*rest_ticks);
        self.flag(*removal_notified);
        // Only lengthens rests.
        self.tick_count(*pre_votes_refused);
        self.forwards(forwards);
        let DiskCursor { issued, done, dirty, hard_state_in } = disk;
        self.batch_number(*issued, *done);
        self.batch_number(*hard_state_in, *done);
        self.flag(*dirty);
        self.outbox(out);
    }

    /// It decides nothing but how many ticks a silence may last.
    fn detector(&mut self, detector: &Detector) {
        let Detector { longest, second, suspect } = detector;
        if self.ticks == Ticks::Count {
            self.number(*longest);
            self.number(*second);
            self.maybe_member(suspect.as_ref().map(|suspect| suspect.leader));
            self.number(
                suspect.as_ref().map_or(0, |suspect| u64::from(suspect.ticks_since_contact)),
            );
        }
    }

    fn batch_number(&mut self, seq: PersistSeq, done: PersistSeq) {
        self.number(seq.0.saturating_sub(done.0));
    }

    fn role(&mut self, role: &RoleState) {
        match role {
            RoleState::Follower(follower) => {
                self.number(0);
                self.follower(follower);
            }
            RoleState::PreCandidate(candidacy) => {
                self.number(1);
                self.candidacy(candidacy);
            }
            RoleState::Candidate(candidacy) => {
                self.number(2);
                self.candidacy(candidacy);
            }
            RoleState::Leader(leader) => {
                self.number(3);
                self.leader(leader);
            }
        }
    }

    fn follower(&mut self, follower: &Follower) {
        let Follower {
            leader,
            elapsed_ticks,
            timeout_ticks,
            campaign_in_ticks,
            link_lost,
            pending_ack,
            confirmed,
            successor,
            reads,
        } = follower;
        self.maybe_member(*leader);
        self.tick_count(*elapsed_ticks);
        self.tick_count(*timeout_ticks);
        self.maybe_ticks(*campaign_in_ticks);
        self.flag(*link_lost);
        self.number(pending_ack.map_or(0, |pending_ack| pending_ack.0 + 1));
        self.number(confirmed.0);
        self.maybe_member(*successor);
        let ForwardedReads { waiting_ticks } = reads;
        self.list_of(waiting_ticks.iter(), |words, (id, ticks)| {
            words.request(*id);
            words.tick_count(*ticks);
        });
    }

    fn candidacy(&mut self, candidacy: &Candidacy) {
        let Candidacy { votes, elapsed_ticks, timeout_ticks } = candidacy;
        self.by_member(|words, id| {
            words.number(votes.get(&id).map_or(2, |granted| u64::from(*granted)));
        });
        self.tick_count(*elapsed_ticks);
        self.tick_count(*timeout_ticks);
    }

    fn leader(&mut self, leader: &Leader) {
        let Leader { peers, heartbeat_elapsed_ticks, commit_due, reads, transfer } = leader;
        self.by_member(|words, id| match peers.get(&id) {
            Some(progress) => words.progress(progress),
            None => words.number(0),
        });
        self.tick_count(*heartbeat_elapsed_ticks);
        self.flag(*commit_due);
        let ReadRounds { round, current, queue } = reads;
        self.number(*round);
        match current {
            Some(Round { index, reads }) => {
                self.number(index.0 + 1);
                self.bag_of(reads.iter(), |words, id| words.request(*id));
            }
            None => self.number(0),
        }
        self.bag_of(queue.iter(), |words, id| words.request(*id));
        match transfer {
            Some(Transfer { target, elapsed_ticks, told }) => {
                self.member(*target);
                self.tick_count(*elapsed_ticks);
                self.flag(*told);
            }
            None => self.number(0),
        }
    }

    fn log(&mut self, log: &Log, done: PersistSeq) {
        let Log {
            base,
            entries,
            bytes: _,
            persisted,
            issued,
            snapshot_unissued,
            batches,
            committed,
            handed,
            applied,
            unapplied_bytes,
            handed_bytes,
        } = log;
        self.entry_id(*base);
        self.list_of(entries.iter(), Self::entry);
        for index in [persisted, issued, committed, handed, applied] {
            self.number(index.0);
        }
        self.flag(*snapshot_unissued);
        self.list_of(batches.iter(), |words, Batch { seq, upto }| {
            words.batch_number(*seq, done);
            words.number(upto.0);
        });
        self.number(*unapplied_bytes as u64);
        self.number(*handed_bytes as u64);
    }

    fn membership(&mut self, membership: &Membership) {
        let Membership { base, changes, news: _ } = membership;
        self.configuration(base);
        self.list_of(changes.iter(), |words, (index, config)| {
            words.number(index.0);
            words.configuration(config);
        });
    }

    fn forwards(&mut self, forwards: &Forwards) {
        let Forwards { dealt_with, changes, complete } = forwards;
        self.by_member(|words, id| {
            words.number(dealt_with.get(&id).map_or(0, |sequence| sequence + 1));
            words.number(changes.get(&id).map_or(0, |sequence| sequence + 1));
        });
        self.flag(*complete);
    }

    fn outbox(&mut self, out: &Outbox) {
        // A notice decides nothing.
        let Outbox { messages, reads, refused, snapshots_wanted, notices: _ } = out;
        self.bag_of(messages.iter(), Self::message);
        self.list_of(reads.iter(), |words, ReadState { id, index }| {
            words.request(*id);
            words.number(index.0);
        });
        self.list_of(refused.iter(), |words, (id, why)| {
            words.request(*id);
            words.refusal(*why);
        });
        self.list_of(snapshots_wanted.iter(), |words, id| words.member(*id));
    }
}
