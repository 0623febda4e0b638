//! The event loop: the only place where a [`Replica`] meets the world.
//!
//! One turn takes everything that has arrived, gives it to the replica, and does what the
//! replica wants done, without ever waiting for a disk, the state machine or a socket: each of
//! those reports back by an event. Two exceptions save changes of thread, which are most of the
//! latency of a single client: it applies a few small commands itself while the state machine is
//! free ([`applier::ApplierHandle`]), and on a follower it syncs a small batch itself while the
//! disk is quick ([`persister::WalHandle`]). Completions come first and peers before clients, so
//! that load from clients cannot starve consensus. Ticks come after what peers said, and of
//! several that are due at once only the last counts as silence of the peers: the loop did not run
//! in the others, and nor did the tasks that read the sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::metrics::{Metrics, mirror};
use crate::raft::{Message, NodeId, Persist, Role, SoftState};
use crate::storage::Disk;

use super::applier;
use super::clock::{Ticker, Watchdog};
use super::event::{Effect, Event, PeerTable};
use super::handle::Ticket;
use super::persister;
use super::replica::Replica;
use super::report::Reporter;
use super::room::Room;
use super::status::Status;
use super::timeouts::TimeoutReport;

/// Events of one source taken into one turn. Bounds how long others wait.
const BURST_MAX: usize = 256;

/// The way to the peers.
pub trait Outbox {
    /// Sends, or drops when the peer is not reached or slow. Never waits.
    fn send(&self, message: Message);
    /// Starts to stream the latest snapshot; its outcome comes as [`Event::SnapshotSent`].
    fn send_snapshot(&self, to: NodeId);
    /// From now on these are spoken with, and no others.
    fn set_peers(&self, table: PeerTable);
}

/// Where events come from. All bounded.
pub struct Inboxes {
    /// The disk, the state machine, the snapshotter.
    pub completions: mpsc::Receiver<Event<Ticket>>,
    /// The transport.
    pub peers: mpsc::Receiver<Event<Ticket>>,
    /// The handle.
    pub clients: mpsc::Receiver<Event<Ticket>>,
}

/// The order in which they are looked at.
#[derive(Clone, Copy)]
enum Source {
    Completions,
    Peers,
    Clients,
}

impl Inboxes {
    fn of(&mut self, source: Source) -> &mut mpsc::Receiver<Event<Ticket>> {
        match source {
            Source::Completions => &mut self.completions,
            Source::Peers => &mut self.peers,
            Source::Clients => &mut self.clients,
        }
    }
}

/// What never changes about this member.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id.
    pub node_id: NodeId,
    /// Its cluster.
    pub cluster_id: u64,
    /// Its name.
    pub name: Arc<str>,
}

/// What the event loop is made of, but for the way to the peers.
pub struct DriverParts<D: Disk> {
    /// Who this is.
    pub identity: Identity,
    /// The member itself.
    pub replica: Replica<Ticket>,
    /// Its inputs.
    pub inboxes: Inboxes,
    /// The way to its disk. Bounded by the core's windows, not by itself.
    pub persister: persister::WalHandle<D>,
    /// The way to its state machine. Likewise.
    pub applier: applier::ApplierHandle<D>,
    /// Time.
    pub ticker: Ticker,
    /// Shows that the loop turns.
    pub pulse: Watchdog,
    /// Where its status is published.
    pub status: watch::Sender<Arc<Status>>,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// What is known of the room on the disk.
    pub room: Room,
    /// A leader whose quorum contact is older than this many ticks is not confirmed.
    pub confirm_ticks: u32,
}

/// The event loop.
pub struct Driver<O, D: Disk> {
    parts: DriverParts<D>,
    outbox: O,
    reporter: Reporter,
    timeouts: TimeoutReport,
    /// As the replica was told.
    room_short: bool,
}

impl<O: Outbox, D: Disk> Driver<O, D> {
    /// A loop that sends by `outbox`.
    pub fn new(parts: DriverParts<D>, outbox: O) -> Self {
        let reporter = Reporter::new(parts.ticker.length(), Instant::now());
        let timeouts = TimeoutReport::new(parts.ticker.length());
        Self { parts, outbox, reporter, timeouts, room_short: false }
    }

    /// Turns until every sender of a client request is gone, or the task is dropped.
    pub async fn run(mut self) {
        // Whom to reach, before anything arrives.
        self.perform();
        loop {
            let Inboxes { completions, peers, clients } = &mut self.parts.inboxes;
            let next_tick = self.parts.ticker.next();
            let first = tokio::select! {
                biased;
                Some(event) = completions.recv() => Some(event),
                Some(event) = peers.recv() => Some(event),
                () = tokio::time::sleep_until(next_tick.into()) => None,
                request = clients.recv() => match request {
                    Some(event) => Some(event),
                    None => return,
                },
            };
            if let Some(event) = first {
                self.take(event);
            }
            self.take_what_else_came();
            // Whatever woke the loop: under load there is always an event, and time passes too.
            let ticks = self.parts.ticker.due();
            self.tick(ticks);
            self.perform();
            if ticks > 0 {
                self.reporter.tick(self.parts.replica.seen().term, Instant::now());
            }
            self.parts.pulse.beat();
            self.publish(ticks > 0);
        }
    }

    fn tick(&mut self, ticks: u32) {
        for late in (0..ticks).rev() {
            let tick = if late == 0 { Event::Tick } else { Event::LateTick };
            self.parts.replica.handle(tick);
        }
        if ticks == 0 {
            return;
        }
        let (least, longest) = self.parts.replica.election_ticks();
        let seconds = self.timeouts.report(least, longest);
        self.parts.metrics.election_timeout_seconds.set(seconds);
        self.look_at_disk();
    }

    fn look_at_disk(&mut self) {
        if !self.parts.persister.tick() {
            warn!("the log writer has stopped");
        }
        let short = self.parts.room.is_short();
        if std::mem::replace(&mut self.room_short, short) != short {
            self.parts.replica.handle(Event::RoomShort(short));
        }
    }

    fn take(&mut self, event: Event<Ticket>) {
        match &event {
            Event::Applied { .. } => self.parts.applier.job_done(),
            Event::Persisted { seq } => self.parts.persister.done(*seq),
            _ => {}
        }
        self.parts.replica.handle(event);
    }

    fn take_what_else_came(&mut self) {
        for source in [Source::Completions, Source::Peers, Source::Clients] {
            for _ in 0..BURST_MAX {
                let Ok(event) = self.parts.inboxes.of(source).try_recv() else { break };
                self.take(event);
            }
        }
    }

    /// Does what the replica wants done, until it wants nothing more.
    fn perform(&mut self) {
        loop {
            let effects = self.parts.replica.flush();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.perform_one(effect);
            }
        }
    }

    fn perform_one(&mut self, effect: Effect<Ticket>) {
        match effect {
            Effect::Send(message) => self.outbox.send(message),
            Effect::Persist(persist) => self.persist(persist),
            Effect::Apply(entries) => match self.parts.applier.apply_at_once(entries) {
                Ok(applied) => self.parts.replica.handle(applied),
                Err(entries) => self.queue_for_applier(applier::Job::Apply(entries)),
            },
            Effect::Restore(meta) => self.queue_for_applier(applier::Job::Restore(meta)),
            Effect::SaveSnapshot => self.queue_for_applier(applier::Job::SaveSnapshot),
            Effect::SendSnapshot { to } => self.outbox.send_snapshot(to),
            Effect::ReadReady(tickets) => tickets.into_iter().for_each(barrier_passed),
            Effect::TransferDone(ticket) | Effect::ChangeDone(ticket) => barrier_passed(ticket),
            Effect::Peers(table) => {
                self.reporter.membership(&table.configuration);
                self.outbox.set_peers(table);
            }
            Effect::Removed => {
                info!("removed from the cluster");
                self.parts.status.send_modify(|status| Arc::make_mut(status).removed = true);
            }
            Effect::VoteReply { ticket: Ticket::Vote(reply), granted } => {
                let _ = reply.send(Ok(granted));
            }
            Effect::VoteReply { ticket, .. } => {
                unreachable!("a vote was asked for with a ticket of another kind: {ticket:?}")
            }
            Effect::Fail(ticket, why) => {
                if matches!(ticket, Ticket::Propose(_)) {
                    self.parts.metrics.proposals_failed.inc();
                }
                ticket.fail(why);
            }
            Effect::Notice(notice) => self.reporter.notice(notice, Instant::now()),
            Effect::SoftState(soft_state) => self.report(soft_state),
        }
    }

    /// A leader's followers would wait while it writes: only others do so on the spot.
    fn persist(&mut self, persist: Persist) {
        if self.parts.replica.seen().role != Role::Leader
            && let Some(written) = self.parts.persister.write_at_once(&persist)
        {
            return self.parts.replica.handle(written);
        }
        // The other thread is gone only when the process is ending.
        if !self.parts.persister.send(persist) {
            warn!("the log writer has stopped");
        }
    }

    fn queue_for_applier(&mut self, job: applier::Job<Ticket>) {
        if !self.parts.applier.send(job) {
            warn!("the state machine has stopped");
        }
    }

    fn report(&mut self, now: SoftState) {
        let before = {
            let status = self.parts.status.borrow();
            SoftState { term: status.term, role: status.role, leader: status.leader }
        };
        if now.leader.is_some() && (before.leader, before.term) != (now.leader, now.term) {
            self.parts.metrics.leader_changes.inc();
        }
        self.reporter.transition(before, now, Instant::now());
        // Seen by the next report; the full status follows at the end of the turn.
        self.parts.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            (status.role, status.term, status.leader) = (now.role, now.term, now.leader);
        });
    }

    /// Publishes the status if it changed. Indexes alone are published once per tick: nobody
    /// needs them sooner, and they change with every write.
    fn publish(&self, ticked: bool) {
        let next = self.status_now();
        let changed = {
            let last = self.parts.status.borrow();
            if ticked {
                **last != next
            } else {
                (last.role, last.term, last.leader, last.ready, last.leader_confirmed)
                    != (next.role, next.term, next.leader, next.ready, next.leader_confirmed)
                    || last.learner != next.learner
            }
        };
        if !changed {
            return;
        }
        let metrics = &self.parts.metrics;
        metrics.has_leader.set(i64::from(next.leader.is_some()));
        metrics.is_leader.set(i64::from(next.role == Role::Leader));
        metrics.term.set(next.term.0.cast_signed());
        metrics.is_learner.set(i64::from(next.learner));
        mirror(&metrics.committed_index, next.commit.0);
        mirror(&metrics.applied_index, next.applied.0);
        metrics.proposals_pending.set(i64::try_from(next.proposals_pending).unwrap_or(i64::MAX));
        self.parts.status.send_replace(Arc::new(next));
    }

    fn status_now(&self) -> Status {
        let raft = self.parts.replica.raft();
        let seen = self.parts.replica.seen();
        let disk_stalled = self.parts.replica.disk_stalled();
        let shutting_down = self.parts.replica.stopping();
        let applied_at_start = self.parts.replica.caught_up();
        let (own, config) = (self.parts.identity.node_id, raft.membership());
        // One that is yet to hear of any member is to learn too.
        let learner = config.learners.contains(&own) || config.voters.is_empty();
        Status {
            node_id: own,
            cluster_id: self.parts.identity.cluster_id,
            name: Arc::clone(&self.parts.identity.name),
            role: seen.role,
            term: seen.term,
            leader: seen.leader,
            commit: raft.committed(),
            applied: self.parts.replica.applied(),
            last_index: raft.last_index(),
            proposals_pending: self.parts.replica.proposals_pending(),
            // A restart makes no room, and takes some.
            alive: !disk_stalled || self.parts.room.is_waited_for(),
            ready: seen.leader.is_some()
                && applied_at_start
                && !shutting_down
                && !disk_stalled
                && !learner,
            leader_confirmed: seen.role == Role::Leader
                && raft
                    .quorum_contact_ticks()
                    .is_some_and(|silent| silent <= self.parts.confirm_ticks),
            applied_at_start,
            disk_stalled,
            shutting_down,
            learner,
            removed: self.parts.status.borrow().removed,
        }
    }
}

fn barrier_passed(ticket: Ticket) {
    match ticket {
        Ticket::Barrier(reply) => drop(reply.send(Ok(()))),
        other @ (Ticket::Propose(_) | Ticket::Vote(_)) => {
            unreachable!("a barrier was asked for with a ticket of another kind: {other:?}")
        }
    }
}

/// How long one tick lasts: fine enough for the short delay after a lost connection, coarse
/// enough to cost nothing.
pub fn tick_length(heartbeat_interval: Duration) -> Duration {
    (heartbeat_interval / 10).max(Duration::from_millis(1))
}
