//! The node: all state of one member, what goes in and what comes out.
//!
//! Inputs (`step`, `tick`, `propose`, `persisted`, …) change state and fill an outbox; `ready`
//! drains it. What a node does with an input lives with its subject: `step` (terms), `election`,
//! `follower`, `replication`, `snapshot`, `read_index`, `proposal`, `transfer`.
//!
//! One rule covers every message that leaves: the term and vote at the time of sending are on disk
//! first (§5.1). Messages that have to wait for that ride on the batch that makes it so. Entries
//! have their own rule, in `follower`.

use std::collections::BTreeMap;

use crate::testpoints::{self, Mutant};

use super::config::{Config, Restored};
use super::detector::Detector;
use super::election::Candidacy;
use super::follower::Follower;
use super::log::Log;
use super::membership::Membership;
use super::message::{Body, Message, Refusal};
use super::notice::{Cause, Notice};
use super::proposal::Forwards;
use super::ready::{Persist, ReadState, Ready, Role, SoftState};
use super::replication::Leader;
use super::rng::Rng;
use super::standing::Standing;
use super::types::{HardState, Index, NodeId, PersistSeq, RequestId, SnapshotMeta, Term};

/// Messages that may wait for the disk. More than that, in the time of one write, is no honest
/// conversation; what does not fit is lost, as messages may be.
const MESSAGES_WAITING_MAX: usize = 4096;

/// Most bytes of entries in one batch for the disk; a single larger entry still goes. Term and vote
/// ride on the next batch, and must not wait for tens of megabytes.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// One member of the cluster, without clock, network, disk or randomness of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RaftNode {
    pub(super) config: Config,
    pub(super) term: Term,
    pub(super) vote: Option<NodeId>,
    /// The leader of this term once heard of; kept when it is given up, for no other can follow.
    pub(super) term_leader: Option<NodeId>,
    pub(super) role: RoleState,
    pub(super) detector: Detector,
    pub(super) log: Log,
    pub(super) membership: Membership,
    pub(super) standing: Standing,
    /// A member said that this one was removed.
    pub(super) removal_notified: bool,
    /// The address at which each peer was last reached by a connection of this member, or `None`
    /// if it has not been reached yet. A peer without an entry: the caller does not report that.
    pub(super) reached: BTreeMap<NodeId, Option<String>>,
    /// Pre-votes in a row that a quorum refused, as far as it matters.
    pub(super) pre_votes_refused: u32,
    pub(super) forwards: Forwards,
    pub(super) disk: DiskCursor,
    pub(super) out: Outbox,
    /// What the last `Ready` told of term, role and leader.
    pub(super) reported: SoftState,
    pub(super) rng: Rng,
}

/// The roles of §5.2, each with what is valid in it alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RoleState {
    /// Listens.
    Follower(Follower),
    /// Asks whether it could win.
    PreCandidate(Candidacy),
    /// Asks for votes.
    Candidate(Candidacy),
    /// Leads.
    Leader(Leader),
}

/// How far the disk has come with term and vote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DiskCursor {
    /// The latest batch handed out.
    pub(super) issued: PersistSeq,
    /// The latest batch that is durable.
    pub(super) done: PersistSeq,
    /// Term or vote changed since the latest batch.
    pub(super) dirty: bool,
    /// The batch that has the present term and vote, unless dirty.
    pub(super) hard_state_in: PersistSeq,
}

impl DiskCursor {
    /// Term or vote changed.
    pub fn hard_state_changed(&mut self) {
        self.dirty = true;
    }

    /// Whether the disk has the present term and vote.
    pub fn hard_state_durable(&self) -> bool {
        !self.dirty && self.hard_state_in <= self.done
    }
}

/// What has piled up for the next `Ready`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outbox {
    pub(super) messages: Vec<Message>,
    pub(super) reads: Vec<ReadState>,
    pub(super) refused: Vec<(RequestId, Refusal)>,
    pub(super) snapshots_wanted: Vec<NodeId>,
    /// For logs; bounded by [`NOTICES_MAX`](super::notice::NOTICES_MAX).
    pub(super) notices: Vec<Notice>,
}

impl RaftNode {
    /// A member as its disk remembers it.
    pub fn new(config: Config, restored: Restored) -> Self {
        config.assert_sound();
        let Restored { hard_state, base, entries, applied } = restored;
        let mut membership = Membership::new(base.config);
        for entry in &entries {
            membership.append(entry);
        }
        let log = Log::new(base.last, entries, hard_state.commit, applied);
        assert!(log.last().term <= hard_state.term, "the term is durable before its entries");
        let mut rng = Rng::new(config.seed, config.id.get());
        let timeout_ticks = rng.between(config.election_ticks_min, config.election_ticks_max);
        let follower = Follower::new(None, timeout_ticks, log.persisted());
        let node = Self {
            term: hard_state.term,
            vote: hard_state.vote,
            term_leader: None,
            role: RoleState::Follower(follower),
            detector: Detector::default(),
            log,
            membership,
            standing: Standing::default(),
            removal_notified: false,
            reached: BTreeMap::new(),
            pre_votes_refused: 0,
            forwards: Forwards::after_restart(),
            disk: DiskCursor::default(),
            out: Outbox::default(),
            reported: SoftState { term: hard_state.term, role: Role::Follower, leader: None },
            rng,
            config,
        };
        node.assert_invariants();
        node
    }

    /// Time passes, and this member was there to hear what others said in it.
    pub fn tick(&mut self) {
        self.detector.tick(&self.config);
        self.standing.rest_ticks = self.standing.rest_ticks.saturating_sub(1);
        match &mut self.role {
            RoleState::Follower(_) => self.tick_follower(),
            RoleState::PreCandidate(candidacy) | RoleState::Candidate(candidacy) => {
                candidacy.elapsed_ticks += 1;
                if candidacy.elapsed_ticks >= candidacy.timeout_ticks {
                    self.election_timeout(Cause::NotElected);
                }
            }
            RoleState::Leader(_) => self.tick_leader(),
        }
        self.assert_invariants();
    }

    /// A tick that the caller noticed too late: this member did not run when it passed, so it says
    /// nothing about the silence of others. What is owed to others falls due all the same.
    pub fn tick_late(&mut self) {
        if matches!(self.role, RoleState::Leader(_)) {
            self.tick_leader_late();
        }
        self.assert_invariants();
    }

    /// Every batch up to `seq` is durable.
    pub fn persisted(&mut self, seq: PersistSeq) {
        assert!(seq <= self.disk.issued, "durable before it was handed out");
        self.disk.done = self.disk.done.max(seq);
        self.log.batches_done(seq);
        if self.disk.hard_state_durable() {
            self.count_own_vote();
        }
        self.advance_commit();
        self.assert_invariants();
    }

    /// The state machine has everything up to `index`, by entries or by snapshot.
    pub fn applied(&mut self, index: Index) {
        self.log.applied_to(index);
        self.assert_invariants();
    }

    /// The connection to `peer` broke.
    pub fn peer_lost(&mut self, peer: NodeId) {
        self.detector.lost(peer);
        match &self.role {
            RoleState::Follower(follower) if follower.leader == Some(peer) => {
                self.leader_link_lost();
            }
            RoleState::Leader(_) => self.follower_link_lost(peer),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {}
        }
        self.assert_invariants();
    }

    /// A connection of this member to `peer` stands, at this address; `None`: there was none yet.
    /// A peer that the log says is elsewhere counts as out of touch when a change is judged.
    pub fn peer_reached(&mut self, peer: NodeId, address: Option<String>) {
        let members = self.membership.current().members();
        self.reached.retain(|id, _| *id == peer || members.contains(id));
        self.reached.insert(peer, address);
    }

    /// Takes everything that has piled up to be done. See [`Ready`] for what is due in which order.
    pub fn ready(&mut self) -> Ready {
        self.start_read_round();
        self.replicate();
        self.send_pending_ack();
        let mut ready = Ready::default();
        if self.disk.dirty || self.log.needs_batch() {
            ready.persist = Some(self.next_batch());
        }
        if self.disk.hard_state_durable() || testpoints::mutant(Mutant::RevealEarly) {
            ready.messages = std::mem::take(&mut self.out.messages);
        }
        self.out.messages.truncate(MESSAGES_WAITING_MAX);
        ready.committed = self.log.take_committed(self.config.ready_bytes_max);
        ready.reads = std::mem::take(&mut self.out.reads);
        ready.refused = std::mem::take(&mut self.out.refused);
        ready.snapshots_wanted = std::mem::take(&mut self.out.snapshots_wanted);
        ready.notices = std::mem::take(&mut self.out.notices);
        ready.configuration = self.membership.take_changed();
        let now = SoftState { term: self.term, role: self.role(), leader: self.leader() };
        if now != self.reported {
            self.reported = now;
            ready.soft_state = Some(now);
        }
        self.assert_invariants();
        ready
    }

    fn next_batch(&mut self) -> Persist {
        let disk = &mut self.disk;
        disk.issued = PersistSeq(disk.issued.0 + 1);
        let seq = disk.issued;
        let mut messages_after = Vec::new();
        if disk.dirty {
            disk.dirty = false;
            disk.hard_state_in = seq;
            if !testpoints::mutant(Mutant::RevealEarly) {
                messages_after = std::mem::take(&mut self.out.messages);
            }
        }
        let (restart, entries) = self.log.begin_batch(seq, BATCH_BYTES_MAX);
        let snapshot = restart.then(|| SnapshotMeta {
            last: self.log.base(),
            config: self.membership.at(self.log.base().index).clone(),
        });
        Persist { seq, hard_state: self.hard_state(), snapshot, entries, messages_after }
    }

    fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed() }
    }

    /// Posts a message of the present term.
    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        self.send_as(self.term, to, body);
    }

    /// Posts a message about `term`.
    pub(super) fn send_as(&mut self, term: Term, to: NodeId, body: Body) {
        self.out.messages.push(Message { from: self.config.id, to, term, body });
    }

    /// The voters but this one, in order of id.
    pub(super) fn other_voters(&self) -> impl Iterator<Item = NodeId> {
        let config = self.membership.current();
        let outgoing = config.outgoing.difference(&config.voters);
        config.voters.iter().chain(outgoing).copied().filter(|voter| *voter != self.config.id)
    }

    /// Changes roles. What the old one still owed to others is settled.
    pub(super) fn enter(&mut self, role: RoleState) {
        match std::mem::replace(&mut self.role, role) {
            RoleState::Follower(follower) => {
                self.refuse_reads(follower.reads.abandon(), Refusal::NotLeader);
            }
            RoleState::Leader(leader) => {
                self.refuse_reads(leader.reads.abandon(), Refusal::NotLeader);
            }
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {}
        }
    }

    /// Enters a later term. The caller settles the role.
    pub(super) fn raise_term(&mut self, term: Term) {
        assert!(term > self.term, "terms only rise");
        self.note_suspicion();
        self.term = term;
        self.vote = None;
        self.term_leader = None;
        self.pre_votes_refused = 0;
        self.forwards = Forwards::in_new_term();
        if !testpoints::mutant(Mutant::TermUnsaved) {
            self.disk.hard_state_changed();
        }
    }

    /// Holds after every input. A violation is a bug of ours, and no answer would be right.
    pub(super) fn assert_invariants(&self) {
        self.log.assert_invariants();
        assert!(self.log.last().term <= self.term, "an entry from the future");
        assert!(self.reported.term <= self.term, "terms only rise");
        match &self.role {
            RoleState::Follower(follower) => {
                let leader = follower.leader;
                assert!(leader.is_none_or(|id| self.term_leader == Some(id)), "follows another");
                assert!(leader != Some(self.config.id), "follows itself");
            }
            RoleState::PreCandidate(_) => {}
            RoleState::Candidate(_) => {
                assert!(self.vote == Some(self.config.id), "a candidate votes for itself");
            }
            RoleState::Leader(leader) => {
                assert!(self.vote == Some(self.config.id), "a leader voted for itself");
                assert!(self.term_leader == Some(self.config.id), "a term has one leader");
                let last = self.log.last().index;
                leader.peers.values().for_each(|peer| peer.assert_invariants(last));
            }
        }
    }
}
