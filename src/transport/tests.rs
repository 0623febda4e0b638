//! Members on real loopback sockets. Each runs in a runtime of its own, so that it can be killed
//! as a process is: all its sockets closed at once, nothing said.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};

use super::decode::Lane;
use super::encode::{append_hello, route};
use super::*;
use crate::proto::raft as wire;
use crate::proto::raft::raft_client::RaftClient;
use crate::raft::message::{Body, Refusal};
use crate::raft::types::{Configuration, Entry, EntryId, Payload, Proposal, RequestId, Term};

mod callers;
mod detours;

const CLUSTER: u64 = 0xBEE;
/// Far longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

/// An inbox that can be made busy for entries alone.
#[derive(Clone)]
struct Mailbox {
    sender: mpsc::Sender<Delivery>,
    entries_wait: Arc<Semaphore>,
    met: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

impl Inbox for Mailbox {
    async fn deliver(&self, delivery: Delivery) {
        // Comes with each connection, at any place among the rest.
        if matches!(delivery, Delivery::PeerReached { .. }) {
            return;
        }
        if let Delivery::Message(Message { body: Body::Append { .. }, .. }) = &delivery {
            drop(self.entries_wait.acquire().await);
        }
        let _ = self.sender.send(delivery).await;
    }

    fn meets(&self, peer: NodeId, told: Option<u64>, member: bool) -> bool {
        let mut met = self.met.lock().unwrap();
        let _ = told.filter(|_| member).map(|told| *met.entry(peer).or_insert(told));
        met.get(&peer).is_none_or(|met| told == Some(*met))
    }
}

/// Snapshots of `bytes` bytes each of which follows from its place.
#[derive(Clone, Default)]
struct Store {
    bytes: u64,
    read: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    /// The most that was ever read and not yet written.
    lead_max: Arc<AtomicU64>,
    finished: Arc<AtomicBool>,
    received: Arc<Mutex<Option<SnapshotMeta>>>,
    /// Where reading it fails.
    fail_at: Option<u64>,
}

fn meta() -> SnapshotMeta {
    let last = EntryId { term: Term(2), index: Index(77) };
    SnapshotMeta { last, config: Configuration::of_voters([node(1), node(2)]) }
}

fn content(from: u64, size: u64) -> Bytes {
    (from..from + size).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

impl Snapshots for Store {
    type Source = Store;
    type Sink = Store;

    async fn newest(&self) -> io::Result<Option<(SnapshotMeta, Store)>> {
        Ok((self.bytes > 0).then(|| (meta(), self.clone())))
    }

    async fn receive(&self, meta: &SnapshotMeta) -> io::Result<Store> {
        *self.received.lock().unwrap() = Some(meta.clone());
        Ok(self.clone())
    }
}

impl SnapshotSource for Store {
    async fn next(&mut self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        let at = self.read.load(Ordering::SeqCst);
        if self.fail_at.is_some_and(|fail_at| at >= fail_at) {
            return Err(io::Error::other("the disk fails"));
        }
        let size = (self.bytes - at).min(bytes_max as u64);
        let read = self.read.fetch_add(size, Ordering::SeqCst) + size;
        self.lead_max.fetch_max(read - self.written.load(Ordering::SeqCst), Ordering::SeqCst);
        Ok((size > 0).then(|| content(at, size)))
    }
}

impl SnapshotSink for Store {
    async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        let at = self.written.load(Ordering::SeqCst);
        assert!(piece == content(at, piece.len() as u64), "content differs behind {at}");
        // A disk slower than the network.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.written.fetch_add(piece.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    async fn finish(self) -> io::Result<()> {
        self.finished.store(true, Ordering::SeqCst);
        Ok(())
    }
}

struct Member {
    id: NodeId,
    addr: SocketAddr,
    runtime: Runtime,
    transport: Transport,
    /// Dropped: the peer port takes no more, and drains.
    stop: oneshot::Sender<()>,
    port: JoinHandle<()>,
    inbox: mpsc::Receiver<Delivery>,
    entries_wait: Arc<Semaphore>,
}

fn listeners(count: usize) -> Vec<TcpListener> {
    (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect()
}

/// Where somebody was killed, once the last of its sockets is gone: a runtime takes its time to
/// drop what it held.
fn listen_again(addr: SocketAddr) -> TcpListener {
    let began = std::time::Instant::now();
    loop {
        match TcpListener::bind(addr) {
            Ok(listener) => return listener,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{addr} stays taken: {error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn table(listeners: &[TcpListener]) -> Vec<(NodeId, String)> {
    let addr = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    (1..).map(node).zip(listeners.iter().map(addr)).collect()
}

impl Member {
    fn start(id: u64, listener: TcpListener, peers: &[(NodeId, String)], store: Store) -> Self {
        Self::start_with(Config::new(CLUSTER, node(id)), listener, peers, store)
    }

    fn start_with(
        config: Config,
        listener: TcpListener,
        peers: &[(NodeId, String)],
        store: Store,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (sender, inbox) = mpsc::channel(16);
        let entries_wait = Arc::new(Semaphore::new(1));
        let (id, addr) = (config.me, listener.local_addr().unwrap());
        let handle = runtime.handle().clone();
        let spawn: Spawn = Arc::new(move |_, work| handle.spawn(work).abort_handle());
        let met = Arc::default();
        let inbox_side = Mailbox { sender, entries_wait: Arc::clone(&entries_wait), met };
        let mut server = server_builder(&config);
        let (transport, service) = start(config, peers.iter().cloned(), inbox_side, store, spawn);
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let port = runtime.spawn(async move {
            let incoming = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpIncoming::from(incoming).with_nodelay(Some(true));
            let stopped = async { drop(stopped.await) };
            let router = server.add_service(service);
            router.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        Self { id, addr, runtime, transport, stop, port, inbox, entries_wait }
    }

    /// All sockets closed, nothing said.
    fn kill(self) -> SocketAddr {
        self.runtime.shutdown_background();
        self.addr
    }

    fn next(&mut self) -> Delivery {
        let next = self.runtime.block_on(async { timeout(PATIENCE, self.inbox.recv()).await });
        next.expect("something is delivered in time").unwrap()
    }

    fn next_message(&mut self) -> Message {
        match self.next() {
            Delivery::Message(message) => message,
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    /// What is delivered within `wait`, if anything.
    fn next_within(&mut self, wait: Duration) -> Option<Delivery> {
        self.runtime.block_on(async { timeout(wait, self.inbox.recv()).await }).ok().flatten()
    }

    fn say(&self, to: u64, body: Body) -> Message {
        let message = Message { from: self.id, to: node(to), term: Term(9), body };
        self.transport.send(message.clone());
        message
    }

    /// Sends until it arrives: the first may find no stream yet.
    fn say_until_heard(&self, other: &mut Member, body: &Body) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = self.say(other.id.get(), body.clone());
            if let Some(heard) = other.next_within(Duration::from_millis(50)) {
                assert_eq!(heard, Delivery::Message(sent));
                while other.next_within(Duration::from_millis(100)).is_some() {}
                return;
            }
            assert!(Instant::now() < deadline, "never heard");
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn beat(round: u64) -> Body {
    Body::Heartbeat { commit: Index(3), round, successor: None }
}

fn entries(first: u64, count: u64, bytes: usize) -> Body {
    let entry = |index| Entry {
        id: EntryId { term: Term(1), index: Index(index) },
        payload: Payload::Command(Proposal {
            id: RequestId { origin: node(1), sequence: index },
            data: Bytes::from(vec![index as u8; bytes]),
        }),
    };
    let prev = EntryId { term: Term(u64::from(first > 1)), index: Index(first - 1) };
    Body::Append { prev, entries: (first..first + count).map(entry).collect(), commit: Index(0) }
}

/// Two members who hear each other on both lanes.
fn pair(stores: [Store; 2]) -> (Member, Member) {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two.try_clone().unwrap()]);
    let [first, second] = stores;
    let mut one = Member::start(1, one, &peers, first);
    let mut two = Member::start(2, two, &peers, second);
    acquaint(&mut one, &mut two);
    (one, two)
}

fn acquaint(one: &mut Member, two: &mut Member) {
    one.say_until_heard(two, &beat(0));
    two.say_until_heard(one, &beat(0));
    one.say_until_heard(two, &entries(1, 1, 1));
    two.say_until_heard(one, &entries(1, 1, 1));
}

#[test]
fn every_kind_of_message_arrives_and_so_do_the_replies() {
    let (mut one, mut two) = pair([Store::default(), Store::default()]);
    assert!(one.transport.connected(node(2)) && two.transport.connected(node(1)));
    let asks = |origin| RequestId { origin: node(origin), sequence: 5 };
    let proposal = Proposal { id: asks(1), data: Bytes::from_static(b"put") };
    let there_and_back = [
        (beat(4), Body::HeartbeatReply { round: 4 }),
        (entries(2, 3, 100), Body::Appended { last: Index(4) }),
        (
            entries(9, 1, 1),
            Body::Rejected { prev: Index(8), hint: EntryId { term: Term(1), index: Index(4) } },
        ),
        (
            Body::RequestVote { last: EntryId::default(), pre_vote: true, transfer: false },
            Body::Vote { granted: true, pre_vote: true },
        ),
        (Body::ReadIndex { id: asks(1) }, Body::ReadIndexReply { id: asks(1), index: Index(3) }),
        (
            Body::Propose { proposals: vec![proposal] },
            Body::Refused { ids: vec![asks(1)], why: Refusal::Busy },
        ),
    ];
    for (there, back) in there_and_back {
        let sent = one.say(2, there);
        assert_eq!(two.next_message(), sent);
        let sent = two.say(1, back);
        assert_eq!(one.next_message(), sent);
    }
    let sent = one.say(2, Body::TimeoutNow);
    assert_eq!(two.next_message(), sent);
    assert_eq!(one.transport.counters().refused, 0);
}

#[test]
fn entries_arrive_in_order_and_whole_however_large_their_frames() {
    let (one, mut two) = pair([Store::default(), Store::default()]);
    let mut sent = Vec::new();
    let mut first = 1;
    for count in [1, 4000, 2, 1000, 1, 1] {
        sent.push(one.say(2, entries(first, count, 256)));
        first += count;
    }
    for message in sent {
        assert_eq!(two.next_message(), message);
    }
}

#[test]
fn votes_come_back_to_the_calls_that_asked_for_them() {
    let (mut one, mut two) = pair([Store::default(), Store::default()]);
    let ask = |member: &Member, term: u64, pre_vote| {
        let body = Body::RequestVote { last: EntryId::default(), pre_vote, transfer: false };
        let message = Message { from: member.id, to: node(2), term: Term(term), body };
        member.transport.send(message);
    };
    for (term, pre_vote) in [(5, true), (5, false), (6, false)] {
        ask(&one, term, pre_vote);
        two.next_message();
    }
    // The vote of term 5 stays unanswered: the answer for 6 must not be lost to it.
    for (term, granted, pre_vote) in [(6, true, false), (8, false, true)] {
        let body = Body::Vote { granted, pre_vote };
        let vote = Message { from: node(2), to: node(1), term: Term(term), body };
        two.transport.send(vote.clone());
        assert_eq!(one.next_message(), vote);
    }
}

#[test]
fn a_vote_asked_for_before_the_connection_stands_leaves_with_it() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two.try_clone().unwrap()]);
    let one = Member::start(1, one, &peers, Store::default());
    let vote = Body::RequestVote { last: EntryId::default(), pre_vote: true, transfer: false };
    let sent = one.say(2, vote);
    let mut two = Member::start(2, two, &peers, Store::default());
    assert_eq!(two.next_message(), sent);
}

#[test]
fn a_killed_peer_is_reported_once_and_at_once_and_found_again_when_it_returns() {
    let (mut one, two) = pair([Store::default(), Store::default()]);
    let addr = two.kill();
    let killed = Instant::now();
    assert_eq!(one.next(), Delivery::PeerLost(node(2)));
    assert!(killed.elapsed() < Duration::from_secs(1), "took {:?}", killed.elapsed());
    until("the loss is known", || !one.transport.connected(node(2)));
    // Dials fail meanwhile, and none of them is news.
    let before = one.transport.counters().dials_failed;
    until("dials fail", || one.transport.counters().dials_failed > before + 4);
    assert_eq!(one.next_within(Duration::from_millis(100)), None);
    assert_eq!(one.transport.counters().peers_lost, 1);

    let peers = [(node(1), one.addr.to_string()), (node(2), addr.to_string())];
    let listener = listen_again(addr);
    let mut two = Member::start(2, listener, &peers, Store::default());
    acquaint(&mut one, &mut two);
    two.kill();
    assert_eq!(one.next(), Delivery::PeerLost(node(2)), "and is reported the next time too");
}

#[test]
fn a_peer_that_closes_in_order_is_reported_too_and_its_port_drains() {
    let (mut one, two) = pair([Store::default(), Store::default()]);
    two.transport.close();
    assert_eq!(one.next(), Delivery::PeerLost(node(2)));
    until("it is refused", || one.transport.counters().dials_failed > 0);
    assert!(!two.transport.connected(node(1)));
    drop(two.stop);
    // Ours end too: otherwise a connection without streams would keep the port open.
    one.transport.close();
    two.runtime.block_on(async { timeout(PATIENCE, two.port).await.unwrap().unwrap() });
}

#[test]
fn a_removed_peer_is_refused_and_a_new_one_is_dialled() {
    let (mut one, mut two) = pair([Store::default(), Store::default()]);
    one.transport.set_removed([node(2)].into());
    one.transport.update_peers([]);
    assert_eq!(two.next(), Delivery::PeerLost(node(1)));
    assert_eq!(two.next(), Delivery::PeerRejection { by: node(1), why: PeerRejection::Removed });
    two.say(1, beat(1));
    assert_eq!(one.next_within(Duration::from_millis(100)), None);
    one.transport.set_removed(BTreeSet::new());
    one.transport.update_peers([(node(2), two.addr.to_string())]);
    until("it is reached again", || two.transport.connected(node(1)));
    while two.next_within(Duration::from_millis(100)).is_some() {}
    acquaint(&mut one, &mut two);
}

#[test]
fn entries_that_wait_do_not_delay_heartbeats_and_are_bounded() {
    let (one, mut two) = pair([Store::default(), Store::default()]);
    let wait = two.runtime.block_on(Arc::clone(&two.entries_wait).acquire_owned()).unwrap();
    let mut index = 1;
    until("the queue is full", || {
        one.say(2, entries(index, 16, 64 << 10));
        index += 16;
        one.transport.counters().overflowed > 0
    });
    let bytes = index * (64 << 10);
    assert!(bytes < 100 << 20, "{bytes} bytes were taken in for a peer that reads nothing");
    for round in 1..20 {
        let sent = one.say(2, beat(round));
        assert_eq!(two.next_message(), sent, "though entries wait");
    }
    drop(wait);
    for expected in (1..).step_by(16).take(10) {
        let Body::Append { entries, .. } = two.next_message().body else {
            panic!("entries were expected")
        };
        assert_eq!(entries[0].id.index, Index(expected));
    }
}

#[test]
fn a_large_snapshot_arrives_whole_within_bounded_memory() {
    let bytes = 50 << 20;
    let store = Store { bytes, ..Store::default() };
    // Both members share the counts, so that one can see the other's.
    let (mut one, mut two) = pair([store.clone(), store.clone()]);
    one.say(2, beat(1));
    two.next_message();
    one.transport.send_snapshot(node(2));
    let body = Body::InstallSnapshot { meta: meta() };
    let told = Message { from: node(1), to: node(2), term: Term(9), body };
    assert_eq!(two.next_message(), told);
    assert!(store.finished.load(Ordering::SeqCst), "told before it was stored");
    assert_eq!(store.written.load(Ordering::SeqCst), bytes);
    assert_eq!(*store.received.lock().unwrap(), Some(meta()));
    let sent = Delivery::SnapshotSent { to: node(2), upto: Index(77), ok: true };
    assert_eq!(one.next(), sent);
    let lead = store.lead_max.load(Ordering::SeqCst);
    assert!(lead <= 16 << 20, "{lead} bytes were read ahead of the receiver's disk");
    let counts = (one.transport.counters(), two.transport.counters());
    assert_eq!((counts.0.snapshots_sent, counts.1.snapshots_received), (1, 1));
}

#[test]
fn a_snapshot_that_cannot_be_sent_is_reported_and_not_installed() {
    let failing = Store { bytes: 10 << 20, fail_at: Some(1 << 20), ..Store::default() };
    let (mut one, mut two) = pair([failing.clone(), failing.clone()]);
    one.say(2, beat(1));
    two.next_message();
    one.transport.send_snapshot(node(2));
    let failed = Delivery::SnapshotSent { to: node(2), upto: Index(77), ok: false };
    assert_eq!(one.next(), failed);
    assert_eq!(two.next_within(Duration::from_millis(100)), None);
    assert!(!failing.finished.load(Ordering::SeqCst));
}

#[test]
fn a_snapshot_is_asked_of_a_member_that_has_none() {
    let (mut one, _two) = pair([Store::default(), Store::default()]);
    one.transport.send_snapshot(node(2));
    let none = Delivery::SnapshotSent { to: node(2), upto: Index(0), ok: false };
    assert_eq!(one.next(), none);
    assert_eq!(one.transport.counters().snapshots_failed, 1);
}

/// What a client of the bare protocol is answered.
struct Bare {
    client: RaftClient<tonic::transport::Channel>,
}

impl Bare {
    async fn to(member: &Member) -> Self {
        let client = RaftClient::connect(format!("http://{}", member.addr)).await.unwrap();
        Self { client }
    }

    /// Opens a bulk stream by `first`, sends `frames`; gives how it ended.
    async fn stream(&mut self, frames: Vec<wire::AppendRequest>) -> Result<(), Status> {
        // Stays open, so that only a refusal can end it.
        let (sender, receiver) = mpsc::channel(8);
        for frame in frames {
            sender.send(frame).await.unwrap();
        }
        let request = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut replies = self.client.append_entries(request).await?.into_inner();
        timeout(PATIENCE, replies.message()).await.expect("refused in time").map(drop)
    }
}

fn hello(cluster: u64, from: u64, to: u64) -> wire::AppendRequest {
    append_hello(route(cluster, node(from), node(to)), Lane::Bulk)
}

#[test]
fn strangers_are_refused_by_what_they_say() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two]);
    let mut one = Member::start(1, one, &peers, Store::default());
    let handle = one.runtime.handle().clone();
    let mut bare = handle.block_on(Bare::to(&one));
    let mut refusal = |frames| handle.block_on(bare.stream(frames)).expect_err("it is refused");

    let stranger = refusal(vec![hello(0xBAD, 2, 1)]);
    assert_eq!(stranger.code(), Code::PermissionDenied);
    assert!(stranger.message().contains("cluster 0000000000000bad"), "{stranger:?}");
    one.transport.set_removed([node(7)].into());
    let removed = refusal(vec![hello(CLUSTER, 7, 1)]);
    assert_eq!(removed.code(), Code::PermissionDenied);
    assert_eq!(removed.message(), "node 7 was removed from the cluster");
    let astray = refusal(vec![hello(CLUSTER, 2, 3)]);
    assert_eq!(astray.code(), Code::FailedPrecondition);
    assert_eq!(astray.message(), "frame is for node 3, this is node 1");

    let mut late = hello(CLUSTER, 2, 1);
    late.body = None;
    assert_eq!(refusal(vec![late]).code(), Code::InvalidArgument);
    let turned = refusal(vec![hello(CLUSTER, 2, 1), hello(0xBAD, 2, 1)]);
    assert_eq!(turned.code(), Code::PermissionDenied, "also behind a good beginning");
    let twice = refusal(vec![hello(CLUSTER, 2, 1), hello(CLUSTER, 2, 1)]);
    assert_eq!(twice.code(), Code::InvalidArgument);

    let vote = wire::VoteRequest { route: None, term: 1, ..wire::VoteRequest::default() };
    let refused = handle.block_on(bare.client.request_vote(vote)).expect_err("it is refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(one.next_within(Duration::from_millis(50)), None);
    assert_eq!(one.transport.counters().refused, 7);
}

#[test]
fn entries_lost_with_their_connection_alone_are_news_too() {
    let (mut one, two) = pair([Store::default(), Store::default()]);
    // Another stream takes the place of the one that carries the entries of node 1.
    let handle = two.runtime.handle().clone();
    let mut bare = handle.block_on(Bare::to(&two));
    let usurper = handle.spawn(async move { bare.stream(vec![hello(CLUSTER, 1, 2)]).await });
    assert_eq!(one.next(), Delivery::PeerLost(node(2)));
    assert!(one.transport.connected(node(2)), "the peer itself is well");
    usurper.abort();
}

#[test]
fn a_snapshot_cut_short_or_damaged_is_not_installed() {
    let [one, two] = <[_; 2]>::try_from(listeners(2)).unwrap();
    let peers = table(&[one.try_clone().unwrap(), two]);
    let store = Store::default();
    let mut one = Member::start(1, one, &peers, store.clone());
    let handle = one.runtime.handle().clone();
    let mut bare = handle.block_on(Bare::to(&one));
    let frame = |body| wire::SnapshotFrame {
        route: Some(route(CLUSTER, node(2), node(1))),
        body: Some(body),
    };
    let header = || {
        frame(wire::snapshot_frame::Body::Header(super::encode::snapshot_header(Term(9), &meta())))
    };
    let piece = |offset, crc| {
        let data = Bytes::from_static(b"\0\x01\x02");
        frame(wire::snapshot_frame::Body::Chunk(wire::SnapshotChunk { offset, crc, data }))
    };
    let good = crc32fast::hash(b"\0\x01\x02");
    let end = |bytes| frame(wire::snapshot_frame::Body::End(wire::SnapshotEnd { bytes }));
    for (frames, code) in [
        (vec![piece(0, good)], Code::InvalidArgument),
        (vec![header(), piece(0, good)], Code::DataLoss),
        (vec![header(), piece(0, good ^ 1), end(3)], Code::DataLoss),
        (vec![header(), piece(1, good), end(3)], Code::InvalidArgument),
        (vec![header(), piece(0, good), end(4)], Code::DataLoss),
        (vec![header(), header()], Code::InvalidArgument),
    ] {
        store.written.store(0, Ordering::SeqCst);
        let sent = bare.client.install_snapshot(tokio_stream::iter(frames));
        let refused = handle.block_on(sent).expect_err("it is refused");
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    assert_eq!(one.next_within(Duration::from_millis(50)), None);
    assert!(!store.finished.load(Ordering::SeqCst));
}
