//! What is known of each peer, shared by those who send, its lanes, and its streams to us.
//!
//! Routing is here: which message takes which way. No lock is held across an await, none for
//! longer than a look-up, and [`Peers::send`] never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::error;

use super::decode::{self, Lane};
use super::detour;
use super::encode::{self, Call, Frame};
use super::log::Log;
use super::queue::{Dropped, Slot};
use super::route::{Dialled, Kind, Stream, Way};
use super::{Config, Counts, PeerCounts};
use crate::proto::raft as wire;
use crate::raft::message::Message;
use crate::raft::types::{NodeId, Term};

/// Votes and hand-overs that may wait for a connection or a turn.
const CALLS_MAX: usize = 16;
/// Votes of one peer that we may owe an answer.
const VOTES_OWED_MAX: usize = 16;

/// Guests that are spoken with at once.
const GUESTS_MAX: usize = 32;

/// Everything that lanes and streams share.
#[derive(Debug)]
pub struct Peers {
    /// As given.
    pub config: Config,
    /// What happened.
    pub counters: Counters,
    /// How often it is logged.
    pub log: Log,
    /// One snapshot is received at a time.
    pub receiving: Semaphore,
    by_id: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Members that were, and never will be again.
    removed: RwLock<BTreeSet<NodeId>>,
    closed: AtomicBool,
    born: Instant,
}

impl Peers {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            counters: Counters::default(),
            log: Log::new(),
            receiving: Semaphore::new(1),
            by_id: RwLock::default(),
            removed: RwLock::default(),
            closed: AtomicBool::new(false),
            born: Instant::now(),
        }
    }

    /// Time since the start.
    pub fn now_us(&self) -> u64 {
        self.born.elapsed().as_micros() as u64
    }

    /// The peer `id`, if it is a member.
    pub fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Puts the table through `change`.
    pub fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Arc<Peer>>) -> R) -> R {
        change(&mut self.by_id.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on nobody is spoken with.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.change(std::mem::take).values().for_each(|peer| peer.close());
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What went to each peer that is dialled.
    pub fn peer_counts(&self) -> Vec<PeerCounts> {
        let peers = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        peers.values().filter(|peer| peer.addr().is_some()).map(|peer| peer.counts()).collect()
    }

    /// The address of a frame from this member to `to`.
    pub fn route(&self, to: NodeId) -> wire::Route {
        encode::route(self.config.cluster, self.config.me, to)
    }

    /// Who a stream or call comes from. Somebody of this cluster who is not among the peers is a
    /// guest: a leader that was added while this member was away, or one who calls a machine that
    /// is yet to hear of any member. Whether it has a say is for the core to judge.
    pub fn caller(&self, route: Option<&wire::Route>) -> Result<Arc<Peer>, decode::Error> {
        let me = self.config.me;
        let from = decode::sender(self.config.cluster, me, route)?;
        if self.removed.read().unwrap_or_else(PoisonError::into_inner).contains(&from) {
            return Err(decode::Error::Removed { from });
        }
        let known = self.peer(from).or_else(|| self.change(|peers| guest(peers, from)));
        known.ok_or(decode::Error::NotMember { from, me })
    }

    /// From now on these are refused for good.
    pub fn set_removed(&self, removed: BTreeSet<NodeId>) {
        self.change(|peers| {
            peers.retain(|id, peer| {
                let stays = !removed.contains(id);
                if !stays {
                    peer.close();
                }
                stays
            });
        });
        *self.removed.write().unwrap_or_else(PoisonError::into_inner) = removed;
    }

    /// Sends `message` the way it takes, or drops it and counts that.
    pub fn send(&self, message: Message) {
        let to = message.to;
        let size = encode::size_bytes(&message);
        let counters = &self.counters;
        if size > self.config.frame_bytes_max {
            error!(
                peer = to.get(),
                size,
                max = self.config.frame_bytes_max,
                "message too large to send"
            );
            counters.oversized.add();
            return;
        }
        let sent = match self.peer(to) {
            Some(peer) => {
                let sent = peer.send(self.config.cluster, message, size);
                match sent {
                    Ok(()) => peer.traffic.sent_bytes.add_many(size as u64),
                    Err(Dropped::Closed | Dropped::Full) => peer.traffic.send_failures.add(),
                }
                sent
            }
            None => Err(Dropped::Closed),
        };
        match sent {
            Ok(()) => counters.sent.add(),
            Err(Dropped::Closed) => counters.unreachable.add(),
            Err(Dropped::Full) => counters.overflowed.add(),
        }
    }
}

/// Makes room for a guest, if there is any.
fn guest(peers: &mut BTreeMap<NodeId, Arc<Peer>>, id: NodeId) -> Option<Arc<Peer>> {
    if let Some(peer) = peers.get(&id) {
        return Some(Arc::clone(peer));
    }
    let guests = |peers: &BTreeMap<NodeId, Arc<Peer>>| {
        peers.values().filter(|peer| peer.addr().is_none()).count()
    };
    if guests(peers) >= GUESTS_MAX {
        peers.retain(|_, peer| peer.addr().is_some() || peer.speaks());
    }
    if guests(peers) >= GUESTS_MAX {
        return None;
    }
    let peer = Arc::new(Peer::new(id));
    peers.insert(id, Arc::clone(&peer));
    Some(peer)
}

/// One other member.
#[derive(Debug)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Where it is dialled: host and port. A guest is not dialled.
    addr: OnceLock<String>,
    /// For the lanes, once it is dialled.
    inputs: Mutex<Option<Inputs>>,
    /// Our heartbeats to it.
    pub beats: Slot<wire::AppendRequest>,
    /// Our entries to it.
    pub appends: Slot<wire::AppendRequest>,
    /// Our clients' requests to it.
    pub forwards: Slot<wire::ForwardRequest>,
    /// Our votes and hand-overs to it.
    pub calls: mpsc::Sender<Call>,
    /// Our requests that it be sent the latest snapshot, in this term.
    pub snapshots: mpsc::Sender<Term>,
    /// Our answers to its heartbeats.
    pub beat_replies: Slot<wire::AppendReply>,
    /// Our answers to its entries.
    pub append_replies: Slot<wire::AppendReply>,
    /// Our answers to its clients' requests.
    pub forward_replies: Slot<wire::ForwardReply>,
    /// Wakes the control lane to report that the peer was lost.
    pub lost: Notify,
    /// Wakes a lane that waits before its next dial: the peer was just heard of.
    pub redial: [Notify; 2],
    /// Counts control connections to it.
    pub epoch: AtomicU64,
    votes: Mutex<Vec<VoteOwed>>,
    /// The last term in which we spoke to it as leader.
    led: AtomicU64,
    /// A control connection is open to it.
    connected: AtomicBool,
    /// A bulk connection is open to it.
    bulk_connected: AtomicBool,
    /// It was last heard on a connection that it dialled.
    heard_there: AtomicBool,
    /// This member has taken it for its leader.
    followed: AtomicBool,
    /// A control connection opened, in either direction, since the last loss was reported.
    armed: AtomicBool,
    removed: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
    traffic: Traffic,
}

/// What went to one peer.
#[derive(Debug, Default)]
struct Traffic {
    sent_bytes: Counter,
    send_failures: Counter,
    losses: Counter,
}

/// The ends of a peer's queues that its lanes hold.
#[derive(Debug)]
pub struct Inputs {
    pub calls: mpsc::Receiver<Call>,
    pub snapshots: mpsc::Receiver<Term>,
}

#[derive(Debug)]
struct VoteOwed {
    term: Term,
    pre_vote: bool,
    answer: oneshot::Sender<wire::VoteReply>,
}

impl Peer {
    /// A guest.
    pub fn new(id: NodeId) -> Self {
        let (calls, calls_input) = mpsc::channel(CALLS_MAX);
        let (snapshots, snapshots_input) = mpsc::channel(1);
        let inputs = Inputs { calls: calls_input, snapshots: snapshots_input };
        Self {
            id,
            addr: OnceLock::new(),
            inputs: Mutex::new(Some(inputs)),
            beats: Slot::default(),
            appends: Slot::default(),
            forwards: Slot::default(),
            calls,
            snapshots,
            beat_replies: Slot::default(),
            append_replies: Slot::default(),
            forward_replies: Slot::default(),
            lost: Notify::new(),
            redial: [Notify::new(), Notify::new()],
            epoch: AtomicU64::new(0),
            votes: Mutex::default(),
            led: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            bulk_connected: AtomicBool::new(false),
            heard_there: AtomicBool::new(true),
            followed: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            tasks: Mutex::default(),
            traffic: Traffic::default(),
        }
    }

    /// What went to it so far.
    pub fn counts(&self) -> PeerCounts {
        PeerCounts {
            id: self.id,
            connected: self.is_connected(),
            sent_bytes: self.traffic.sent_bytes.get(),
            send_failures: self.traffic.send_failures.get(),
            losses: self.traffic.losses.get(),
        }
    }

    /// Where it is dialled, unless it is a guest.
    pub fn addr(&self) -> Option<&str> {
        self.addr.get().map(String::as_str)
    }

    /// From now on it is dialled at `addr`; gives what its lanes need. Streams that it opened as a
    /// guest live on.
    pub fn settle(&self, addr: String) -> Inputs {
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.addr.set(addr).expect("a peer settles once");
        inputs.expect("a guest has its inputs")
    }

    /// Whether a snapshot may come from it: a member's may, and that of a guest whose entries the
    /// core has judged. Anybody else would fill the disk.
    pub fn may_send_snapshots(&self) -> bool {
        self.addr().is_some() || self.followed.load(Ordering::Relaxed)
    }

    /// Whether it has a stream open to us.
    fn speaks(&self) -> bool {
        self.beat_replies.is_open() || self.append_replies.is_open()
    }

    fn send(&self, cluster: u64, message: Message, size: usize) -> Result<(), Dropped> {
        let term = message.term;
        // A snapshot travels only with its content: see `Transport::send_snapshot`.
        let kind = Kind::of(&message.body).ok_or(Dropped::Closed)?;
        if kind == Kind::EntriesReply {
            self.followed.store(true, Ordering::Relaxed);
        }
        if let Kind::Heartbeat | Kind::Entries = kind {
            self.led.store(term.0, Ordering::Relaxed);
        }
        let frame = match encode::encode(cluster, message) {
            // Where no other way is, it waits for a connection.
            Frame::Call(call) if self.is_connected() || !self.beat_replies.is_open() => {
                return self.calls.try_send(call).map_err(|_| Dropped::Full);
            }
            Frame::VoteReply(reply) if self.answer_vote(term, reply).is_ok() => return Ok(()),
            frame => frame,
        };
        let way = kind.choose(self.heard(), |way| self.stands(way));
        // What is put into a stream that is being opened leaves once it stands.
        let way = way.or_else(|| kind.choose(self.heard(), |way| self.is_open(way)));
        self.push(way.ok_or(Dropped::Closed)?, frame, size)
    }

    fn push(&self, way: Way, frame: Frame, size: usize) -> Result<(), Dropped> {
        fn put<T>(slot: &Slot<T>, frame: Option<T>, size: usize) -> Result<(), Dropped> {
            slot.push(frame.ok_or(Dropped::Closed)?, size)
        }
        match (way.stream, way.dialled) {
            (Stream::Beats, Dialled::Here) => {
                put(&self.beats, detour::on_append_requests(frame), size)
            }
            (Stream::Beats, Dialled::There) => {
                put(&self.beat_replies, detour::on_append_replies(frame), size)
            }
            (Stream::Requests, Dialled::Here) => {
                put(&self.forwards, detour::on_forward_requests(frame), size)
            }
            (Stream::Requests, Dialled::There) => {
                put(&self.forward_replies, detour::on_forward_replies(frame), size)
            }
            (Stream::Entries, Dialled::Here) => {
                put(&self.appends, detour::on_append_requests(frame), size)
            }
            (Stream::Entries, Dialled::There) => {
                put(&self.append_replies, detour::on_append_replies(frame), size)
            }
        }
    }

    /// Whether frames can be put into a stream.
    fn is_open(&self, way: Way) -> bool {
        match (way.stream, way.dialled) {
            (Stream::Beats, Dialled::Here) => self.beats.is_open(),
            (Stream::Beats, Dialled::There) => self.beat_replies.is_open(),
            (Stream::Requests, Dialled::Here) => self.forwards.is_open(),
            (Stream::Requests, Dialled::There) => self.forward_replies.is_open(),
            (Stream::Entries, Dialled::Here) => self.appends.is_open(),
            (Stream::Entries, Dialled::There) => self.append_replies.is_open(),
        }
    }

    /// Whether the peer has accepted a stream.
    fn stands(&self, way: Way) -> bool {
        let accepted = match (way.stream, way.dialled) {
            (Stream::Beats | Stream::Requests, Dialled::Here) => self.is_connected(),
            (Stream::Entries, Dialled::Here) => self.bulk_connected.load(Ordering::Acquire),
            (_, Dialled::There) => true,
        };
        accepted && self.is_open(way)
    }

    /// The connection on which it was last heard.
    fn heard(&self) -> Dialled {
        if self.heard_there.load(Ordering::Relaxed) { Dialled::There } else { Dialled::Here }
    }

    /// It was heard on a connection that this side dialled, or the other.
    pub fn heard_on(&self, dialled: Dialled) {
        self.heard_there.store(dialled == Dialled::There, Ordering::Relaxed);
    }

    /// Our bulk connection opened or broke.
    pub fn set_bulk_connected(&self, connected: bool) {
        self.bulk_connected.store(connected, Ordering::Release);
    }

    /// The term in which this member last led the peer.
    pub fn led_term(&self) -> Term {
        Term(self.led.load(Ordering::Relaxed))
    }

    /// Registers that the peer asked for a vote; the answer comes here, if it comes.
    pub fn owe_vote(&self, term: Term, pre_vote: bool) -> oneshot::Receiver<wire::VoteReply> {
        let (answer, receiver) = oneshot::channel();
        let mut votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
        votes.retain(|pending_ack| !pending_ack.answer.is_closed());
        if votes.len() == VOTES_OWED_MAX {
            votes.remove(0);
        }
        votes.push(VoteOwed { term, pre_vote, answer });
        receiver
    }

    /// Gives a vote to the call that asked for it. A refusal speaks of the voter's term, not of
    /// the one asked about: then the oldest call of its kind takes it, since what a vote says
    /// does not depend on the call that brings it.
    fn answer_vote(&self, term: Term, reply: wire::VoteReply) -> Result<(), Dropped> {
        let mut votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
        votes.retain(|pending_ack| !pending_ack.answer.is_closed());
        let same_kind = |pending_ack: &VoteOwed| pending_ack.pre_vote == reply.pre_vote;
        let at = votes
            .iter()
            .position(|pending_ack| same_kind(pending_ack) && pending_ack.term == term)
            .or_else(|| votes.iter().position(same_kind))
            .ok_or(Dropped::Closed)?;
        votes.remove(at).answer.send(reply).map_err(|_| Dropped::Closed)
    }

    /// A control connection opened, in either direction.
    pub fn heard_of(&self) {
        self.armed.store(true, Ordering::Release);
    }

    /// A control connection broke. Reported once the last one is gone, and once, however many one
    /// death breaks: while another stands, the peer lives, and what is said to it takes that one.
    pub fn broken(&self) {
        if !self.is_reached() {
            self.gone();
        }
    }

    /// All control connections broke, whether or not that was noticed here.
    pub fn gone(&self) {
        if self.armed.swap(false, Ordering::AcqRel) {
            self.traffic.losses.add();
            self.lost.notify_one();
        }
    }

    /// Whether a control connection stands, opened by either side.
    pub fn is_reached(&self) -> bool {
        self.is_connected() || self.beat_replies.is_open()
    }

    /// Whether our control connection is open.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Our control connection opened or broke.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
        if connected {
            self.epoch.fetch_add(1, Ordering::Relaxed);
            self.heard_of();
        } else {
            self.broken();
        }
    }

    /// What wakes `lane` from its wait for the next dial.
    pub fn redial(&self, lane: Lane) -> &Notify {
        match lane {
            Lane::Control => &self.redial[0],
            Lane::Bulk => &self.redial[1],
        }
    }

    /// Whether it was a member and is no more.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Keeps what ends the lanes.
    pub fn keep_tasks(&self, tasks: impl IntoIterator<Item = AbortHandle>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
    }

    /// Ends its lanes and its streams, for good.
    pub fn close(&self) {
        self.removed.store(true, Ordering::Release);
        self.connected.store(false, Ordering::Release);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(AbortHandle::abort);
        self.beats.close_any();
        self.appends.close_any();
        self.forwards.close_any();
        self.beat_replies.close_any();
        self.append_replies.close_any();
        self.forward_replies.close_any();
        self.votes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happened since the start; [`Counts`] says what each means.
#[derive(Debug, Default)]
pub struct Counters {
    pub sent: Counter,
    pub received: Counter,
    pub unreachable: Counter,
    pub overflowed: Counter,
    pub oversized: Counter,
    pub refused: Counter,
    pub dials: Counter,
    pub dials_failed: Counter,
    pub peers_lost: Counter,
    pub snapshots_sent: Counter,
    pub snapshots_failed: Counter,
    pub snapshots_received: Counter,
}

impl Counters {
    /// All of them now.
    pub fn read(&self) -> Counts {
        Counts {
            sent: self.sent.get(),
            received: self.received.get(),
            unreachable: self.unreachable.get(),
            overflowed: self.overflowed.get(),
            oversized: self.oversized.get(),
            refused: self.refused.get(),
            dials: self.dials.get(),
            dials_failed: self.dials_failed.get(),
            peers_lost: self.peers_lost.get(),
            snapshots_sent: self.snapshots_sent.get(),
            snapshots_failed: self.snapshots_failed.get(),
            snapshots_received: self.snapshots_received.get(),
        }
    }
}
