//! Everything between the sockets and the disk, as one synchronous state machine: events in,
//! effects out.
//!
//! It owns the consensus core and knows what the core must not: who waits for what, when a
//! snapshot is due, when the disk hangs, when to hand leadership over. It does no I/O, reads no
//! clock and draws no random number, so that a simulator runs whole members by calling it.
//!
//! Feed any number of events with [`Replica::handle`], then call [`Replica::flush`] once: what
//! arrived together is proposed, persisted and sent together.

use std::collections::VecDeque;

use crate::raft::{
    self, Entry, Index, LogCacheLimits, Message, NodeId, Payload, Persist, PersistSeq, RaftNode,
    ReadState, Ready, Refusal, RequestId, Restored, Role, SnapshotMeta, SoftState, Term,
};
use crate::testpoints::{Mark, Mutant, mark, mutant};

mod changes;
mod deadlines;
mod disk;
mod membership;
mod proposals;
mod snapshots;
mod transfers;
mod vote_requests;

use disk::DiskWatch;
use membership::MembershipWork;
use snapshots::SnapshotWork;
use transfers::PendingTransfer;

use super::error::RequestError;
use super::event::{Effect, Event};
use super::external_votes::Votes;
use super::intake;
use super::pending_proposals::{PendingProposals, Tick};
use super::reads::{Reads, Repeats};

/// How a replica behaves, in ticks and bytes.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The core's share.
    pub raft: raft::Config,
    /// Exceeds every request sequence of this member's earlier runs.
    pub first_sequence: u64,
    /// The longest that a request waits for its outcome.
    pub request_ticks: u32,
    /// The longest that a request waits for a leader to appear.
    pub park_ticks: u32,
    /// A small batch not durable after this long means that the disk hangs.
    pub disk_stall_ticks: u32,
    /// Proposals that wait at once; more are refused.
    pub proposals_max: usize,
    /// Their bytes; more are refused.
    pub proposal_bytes_max: usize,
    /// Reads that wait at once; more are refused.
    pub reads_max: usize,
    /// Log kept in memory for followers that lag, at most; those further behind get a snapshot. No
    /// more is kept than the larger of the data and `snapshot_log_bytes_min`, as a snapshot is
    /// shorter then.
    pub log_cache_limits: LogCacheLimits,
    /// The least log that makes a snapshot worth its while. The due size is the larger of this
    /// and the data, so that snapshots cost a constant factor of what is written.
    pub snapshot_log_bytes_min: u64,
}

/// Whether this member has seen, once, all that was committed when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CatchUp {
    /// Ask the leader how far that is.
    Wanted,
    /// Asked, first at this tick.
    Asked(RequestId, Tick, Repeats),
    /// It is this far.
    Until(Index),
    /// Seen.
    Done,
}

/// A batch on its way to the disk.
#[derive(Debug)]
struct PendingPersist {
    seq: PersistSeq,
    restore: Option<SnapshotMeta>,
    messages_after: Vec<Message>,
}

/// One member, without its sockets and its disk.
#[derive(Debug)]
pub struct Replica<T> {
    config: ReplicaConfig,
    raft: RaftNode,
    now: Tick,
    seen: SoftState,
    /// Since when no leader is known.
    leaderless_since: Tick,
    /// Refused requests are not tried again before this, unless the leader changes.
    retry_at: Tick,
    /// Nor are proposals that the leader had no room for, unless something is applied here.
    busy_until: Tick,
    pending_proposals: PendingProposals<T>,
    reads: Reads<T>,
    catch_up: CatchUp,
    applied: Index,
    /// The term of the last entry handed out for application.
    applying_term: Term,
    persists: VecDeque<PendingPersist>,
    disk: DiskWatch,
    transfers: Vec<PendingTransfer<T>>,
    votes: Votes<T>,
    snapshots: SnapshotWork,
    membership: MembershipWork<T>,
    stopping: bool,
    effects: Vec<Effect<T>>,
}

impl<T> Replica<T> {
    /// A member as the disk remembers it. `log_bytes` is the log since the snapshot at `latest`.
    pub fn new(
        config: ReplicaConfig,
        restored: Restored,
        latest_snapshot: Index,
        log_bytes: u64,
    ) -> Self {
        let applied = restored.applied;
        let pending_proposals = PendingProposals::new(
            config.raft.id,
            config.first_sequence,
            config.proposals_max,
            config.proposal_bytes_max,
        );
        let patience_min = Tick::from(config.raft.election_ticks_min);
        let spacing = Tick::from(config.raft.heartbeat_ticks);
        let reads = Reads::new(config.reads_max, patience_min, spacing);
        let raft = RaftNode::new(config.raft.clone(), restored);
        let status = raft.status();
        let mut replica = Self {
            seen: SoftState { term: status.term, role: status.role, leader: status.leader },
            now: 0,
            leaderless_since: 0,
            retry_at: 0,
            busy_until: 0,
            pending_proposals,
            reads,
            catch_up: CatchUp::Wanted,
            applied,
            applying_term: Term::default(),
            persists: VecDeque::new(),
            disk: DiskWatch::default(),
            transfers: Vec::new(),
            votes: Votes::new(),
            snapshots: SnapshotWork {
                log_bytes,
                latest: latest_snapshot,
                ..SnapshotWork::default()
            },
            membership: MembershipWork::new(),
            raft,
            stopping: false,
            effects: Vec::new(),
            config,
        };
        replica.update_peers();
        replica
    }

    /// The core's own account of itself.
    pub fn raft(&self) -> &RaftNode {
        &self.raft
    }

    /// Role, term and leader as last reported.
    pub fn seen(&self) -> SoftState {
        self.seen
    }

    /// The last entry known to be applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Whether everything that was committed when this member started is applied.
    pub fn caught_up(&self) -> bool {
        self.catch_up == CatchUp::Done
    }

    /// Whether the disk has let a batch wait for too long.
    pub fn disk_stalled(&self) -> bool {
        self.disk.is_stalled(self.config.disk_stall_ticks)
    }

    /// The shortest and the longest election timeout in force.
    pub fn election_ticks(&self) -> (u32, u32) {
        (self.raft.election_ticks_min(), self.raft.election_ticks_max())
    }

    /// Proposals that wait for their outcome.
    pub fn proposals_pending(&self) -> usize {
        self.pending_proposals.count()
    }

    /// Whether [`Event::Stop`] came.
    pub fn stopping(&self) -> bool {
        self.stopping
    }

    /// Whether [`Event::Stop`] has done what it can: leadership is not here.
    pub fn stopped(&self) -> bool {
        self.stopping && self.seen.role != Role::Leader
    }

    /// Takes one event in. Its effects come with the next [`flush`](Self::flush).
    pub fn handle(&mut self, event: Event<T>) {
        match event {
            Event::Tick => self.tick(false),
            Event::LateTick => self.tick(true),
            Event::Message(message) => {
                if let Some(message) = intake::admitted(message) {
                    self.raft.step(message);
                }
            }
            Event::PeerReached { peer, address } => self.raft.peer_reached(peer, Some(address)),
            Event::PeerLost(peer) => self.peer_lost(peer),
            Event::Propose { data, ticket } => self.propose(data, ticket),
            Event::Read { ticket } => self.read(ticket),
            Event::Persisted { seq } => self.persisted(seq),
            Event::Applied { index, data_bytes } => self.on_applied(index, data_bytes),
            Event::Shrunk { data_bytes } => self.data_is(data_bytes),
            Event::RoomShort(short) => self.snapshots.room_short = short,
            Event::SnapshotSaved { meta } => self.snapshot_saved(&meta),
            Event::SnapshotFailed => self.snapshot_failed(),
            Event::SnapshotSent { to, upto, ok } => self.raft.snapshot_sent(to, ok, upto),
            Event::Transfer { to, ticket } => self.transfer(to, ticket),
            Event::Change { changes, ticket } => self.change(changes, ticket),
            Event::VoteRequest { candidate, term, ticket } => {
                self.vote_request(candidate, term, ticket);
            }
            Event::Stop => self.stop(),
        }
    }

    /// Everything that follows from the events since the last call, in the order to do it.
    pub fn flush(&mut self) -> Vec<Effect<T>> {
        self.submit();
        while self.drain() {
            self.submit();
        }
        std::mem::take(&mut self.effects)
    }

    fn tick(&mut self, late: bool) {
        self.now += 1;
        if late {
            self.raft.tick_late();
        } else {
            self.raft.tick();
            self.disk.tick();
        }
        // Deadlines are coarse: a look every few ticks spares the walk over all that waits.
        if self.now.is_multiple_of(8) {
            self.expire();
            self.tick_snapshots();
        }
        if self.seen.leader.is_none() && self.leaderless_too_long() {
            let parked = self.pending_proposals.give_up_parked();
            let queued = self.reads.give_up_queued();
            self.fail_all(parked.into_iter().chain(queued), RequestError::NoLeader);
        }
        self.ask_again();
        self.tick_membership();
        // A leader whose disk hangs cannot promise anything: somebody else should lead. The
        // core refuses when nobody can, and the attempt is repeated.
        if self.seen.role == Role::Leader && (self.disk_stalled() || self.stopping) {
            if self.disk_stalled() {
                mark(Mark::DiskHungLeading);
            }
            let _ = self.raft.transfer_leadership(None);
        }
    }

    /// Repeats questions that have no answer: they may be lost. Their ids stay the same, so that a
    /// late answer is an answer.
    fn ask_again(&mut self) {
        for id in self.reads.overdue(self.now) {
            self.raft.read_index(id);
        }
        if let CatchUp::Asked(id, _, repeats) = &mut self.catch_up
            && repeats.due(self.now)
        {
            let id = *id;
            if mutant(Mutant::LateAnswerUnheard) {
                self.catch_up = CatchUp::Wanted;
            } else {
                self.raft.read_index(id);
            }
        }
    }

    fn leaderless_too_long(&self) -> bool {
        // Where elections take longer, so does the wait for their outcome.
        let longer =
            u64::from(self.raft.election_ticks_max() - self.config.raft.election_ticks_max);
        self.now - self.leaderless_since >= u64::from(self.config.park_ticks) + 2 * longer
    }

    fn fail_all(&mut self, tickets: impl IntoIterator<Item = T>, why: RequestError) {
        self.effects.extend(tickets.into_iter().map(|ticket| Effect::Fail(ticket, why)));
    }

    fn peer_lost(&mut self, peer: NodeId) {
        if self.seen.leader == Some(peer) {
            // What was passed to it may be lost, and so may its answers.
            self.pending_proposals
                .shorten_deadlines(self.now + 2 * u64::from(self.config.park_ticks));
            self.reads.requeue();
        }
        self.raft.peer_lost(peer);
    }

    fn read(&mut self, ticket: T) {
        if self.seen.leader.is_none() && self.leaderless_too_long() {
            self.effects.push(Effect::Fail(ticket, RequestError::NoLeader));
            return;
        }
        let deadline = self.now + u64::from(self.config.request_ticks);
        if let Err(ticket) = self.reads.queue(ticket, deadline) {
            self.effects.push(Effect::Fail(ticket, RequestError::TooManyRequests));
        }
    }

    /// Gives the core what waits for a leader, if there is one.
    fn submit(&mut self) {
        if self.seen.leader.is_none() || self.now < self.retry_at {
            return;
        }
        self.submit_proposals();
        self.submit_changes();
        if self.catch_up == CatchUp::Wanted {
            let id = self.pending_proposals.fresh_id();
            let repeats = Repeats::new(self.now, self.reads.patience());
            self.catch_up = CatchUp::Asked(id, self.now, repeats);
            self.raft.read_index(id);
        }
        if self.reads.wants_group(self.now) {
            let id = self.pending_proposals.fresh_id();
            self.reads.start_group(id, self.now);
            self.raft.read_index(id);
        }
    }

    /// Turns one `Ready` into effects. False once there is nothing left.
    fn drain(&mut self) -> bool {
        let ready = self.raft.ready();
        if ready.is_empty() {
            return false;
        }
        let Ready {
            messages,
            persist,
            committed,
            reads,
            refused,
            snapshots_wanted,
            soft_state,
            configuration,
            notices,
        } = ready;
        self.effects.extend(notices.into_iter().map(Effect::Notice));
        if configuration.is_some() {
            self.configuration_changed();
        }
        if let Some(soft_state) = soft_state {
            self.soft_state(soft_state);
        }
        for message in messages {
            self.send(message);
        }
        if let Some(persist) = persist {
            self.persist(persist);
        }
        if !committed.is_empty() {
            self.apply(committed);
        }
        for grant in reads {
            self.read_granted(grant);
        }
        for (id, why) in refused {
            self.refused(id, why);
        }
        for peer in snapshots_wanted {
            self.snapshot_wanted(peer);
        }
        true
    }

    fn soft_state(&mut self, soft_state: SoftState) {
        let before = std::mem::replace(&mut self.seen, soft_state);
        self.effects.push(Effect::SoftState(soft_state));
        if before.leader == soft_state.leader && before.term == soft_state.term {
            return;
        }
        self.retry_at = 0;
        if mutant(Mutant::ResubmitEarly) {
            self.pending_proposals.on_new_term(soft_state.term);
        }
        self.pending_proposals.shorten_deadlines(self.now + 2 * u64::from(self.config.park_ticks));
        self.reads.requeue();
        if matches!(self.catch_up, CatchUp::Asked(..)) {
            self.catch_up = CatchUp::Wanted;
        }
        match soft_state.leader {
            None if before.leader.is_some() => self.leaderless_since = self.now,
            Some(leader) if leader != self.config.raft.id => {
                for done in self.transfers.drain(..) {
                    self.effects.push(Effect::TransferDone(done.ticket));
                }
            }
            None | Some(_) => {}
        }
    }

    fn persist(&mut self, mut persist: Persist) {
        let bytes: u64 = persist.entries.iter().map(|entry| entry.size_bytes() as u64).sum();
        self.snapshots.log_bytes += bytes;
        self.disk.given(persist.seq, bytes);
        if persist.snapshot.is_some() {
            self.snapshots.log_bytes = 0;
        }
        if mutant(Mutant::SendBeforeSync) {
            for message in std::mem::take(&mut persist.messages_after) {
                self.send(message);
            }
        }
        self.persists.push_back(PendingPersist {
            seq: persist.seq,
            restore: persist.snapshot.clone(),
            messages_after: std::mem::take(&mut persist.messages_after),
        });
        self.effects.push(Effect::Persist(persist));
    }

    fn persisted(&mut self, seq: PersistSeq) {
        self.raft.persisted(seq);
        self.disk.done(seq);
        while self.persists.front().is_some_and(|batch| batch.seq <= seq) {
            let batch = self.persists.pop_front().expect("the front was just seen");
            for message in batch.messages_after {
                self.send(message);
            }
            if let Some(meta) = batch.restore {
                self.snapshots.latest = meta.last.index;
                // Its entries are skipped here, and with them the outcome of our own.
                let unknowable = self.pending_proposals.unknowable(meta.last.term);
                let denied = mutant(Mutant::SkippedDenied);
                let why = if denied { RequestError::NoLeader } else { RequestError::LeaderChanged };
                self.fail_all(unknowable, why);
                self.applying_term = self.applying_term.max(meta.last.term);
                self.membership_skipped_to(&meta);
                self.effects.push(Effect::Restore(meta));
            }
        }
    }

    fn apply(&mut self, committed: Vec<Entry>) {
        let mut batch = Vec::with_capacity(committed.len());
        for entry in committed {
            if entry.id.term > self.applying_term {
                self.applying_term = entry.id.term;
                self.pending_proposals.on_new_term(entry.id.term);
                let config = self.raft.membership();
                self.membership.changes.on_new_term(entry.id.term, config);
            }
            if let Payload::Config(config) = &entry.payload {
                let done = self.membership.changes.applied(config);
                self.effects.extend(done.map(Effect::ChangeDone));
            }
            let ticket = match &entry.payload {
                Payload::Command(proposal) => self.pending_proposals.resolve(proposal.id),
                Payload::Noop | Payload::Config(_) => None,
            };
            batch.push((entry, ticket));
        }
        self.effects.push(Effect::Apply(batch));
    }

    fn on_applied(&mut self, index: Index, data_bytes: u64) {
        assert!(index >= self.applied, "the applied index never goes back");
        self.applied = index;
        self.busy_until = 0;
        self.raft.applied(index);
        let ready = self.reads.applied(index);
        if !ready.is_empty() {
            self.effects.push(Effect::ReadReady(ready));
        }
        if let CatchUp::Until(until) = self.catch_up
            && until <= index
        {
            self.catch_up = CatchUp::Done;
        }
        self.data_is(data_bytes);
    }

    fn read_granted(&mut self, grant: ReadState) {
        if let CatchUp::Asked(id, asked, _) = self.catch_up
            && id == grant.id
        {
            self.reads.answered_after(asked, self.now);
            self.catch_up = if grant.index <= self.applied {
                CatchUp::Done
            } else {
                CatchUp::Until(grant.index)
            };
            return;
        }
        let ready = self.reads.grant(grant.id, grant.index, self.applied, self.now);
        if !ready.is_empty() {
            self.effects.push(Effect::ReadReady(ready));
        }
    }

    fn refused(&mut self, id: RequestId, why: Refusal) {
        if let CatchUp::Asked(asked, _, _) = self.catch_up
            && asked == id
        {
            self.catch_up = CatchUp::Wanted;
            self.retry_at = self.now + 1;
            return;
        }
        if let Some((ticket, outcome)) = self.membership.changes.refused(id, why, self.now) {
            self.effects.push(match outcome {
                Ok(()) => Effect::ChangeDone(ticket),
                Err(why) => Effect::Fail(ticket, why),
            });
            return;
        }
        match why {
            // Such requests are known to `changes` alone.
            Refusal::Change(_) => {}
            // Without effect, and somebody may take it soon.
            Refusal::NotLeader | Refusal::Transferring => {
                self.retry_at = self.now + 1;
                if !self.pending_proposals.refused(id) {
                    self.reads.refused(id);
                }
            }
            // Without effect, too: there is room once something is applied.
            Refusal::Busy if self.pending_proposals.refused(id) => self.leader_is_busy(),
            Refusal::Busy => {
                let reads = self.reads.dismiss(id).unwrap_or_default();
                self.fail_all(reads, RequestError::TooManyRequests);
            }
        }
    }

    /// Lets a message go, unless it answers a vote that no peer asked for.
    fn send(&mut self, message: Message) {
        let effect = match self.votes.answered(&message) {
            Some((ticket, granted)) => Effect::VoteReply { ticket, granted },
            None => Effect::Send(message),
        };
        self.effects.push(effect);
    }

    fn stop(&mut self) {
        self.stopping = true;
        if self.seen.role == Role::Leader {
            let _ = self.raft.transfer_leadership(None);
        }
    }
}
