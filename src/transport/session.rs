//! The lanes to one peer: dial, greet, carry, and dial again.
//!
//! A session is one connection from its greeting to its end. Messages enter through the slots of
//! [`Peer`] and leave without passing through a lane's task: it only reads what comes back,
//! makes the calls, and notices the end.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use super::decode::{Decoder, Error, Lane};
use super::detour::Streamed;
use super::dial::{self, Backoff};
use super::encode::{self, Call};
use super::log::{CLUSTER_HINT, Line};
use super::peers::{Inputs, Peer, Peers};
use super::route::Dialled;
use super::{Delivery, Inbox, Snapshots, Work, instance, snapshot};
use crate::proto::raft as wire;
use crate::proto::raft::raft_client::RaftClient;
use crate::raft::message::Message;

/// Calls under way at once; one more, and the oldest is given up.
const CALLS_UNDER_WAY_MAX: usize = 16;
/// How long a broken bulk connection waits to see whether the peer itself is gone.
const BULK_GRACE: Duration = Duration::from_millis(50);

/// The work of the three lanes to `peer`, and the names of their tasks.
pub fn lanes<I: Inbox, S: Snapshots>(
    hub: &Arc<Peers>,
    peer: &Arc<Peer>,
    inputs: Inputs,
    inbox: &I,
    snapshots: &S,
) -> [(&'static str, Work); 3] {
    let session = || Sessions {
        hub: Arc::clone(hub),
        peer: Arc::clone(peer),
        inbox: inbox.clone(),
        decoder: Decoder { cluster: hub.config.cluster, me: hub.config.me, peer: peer.id },
    };
    let (control, bulk) = (session(), session());
    let (hub, peer, inbox) = (Arc::clone(hub), Arc::clone(peer), inbox.clone());
    let snapshot = snapshot::lane(hub, peer, inbox, snapshots.clone(), inputs.snapshots);
    [
        ("control", Box::pin(async move { control.control(inputs.calls).await })),
        ("bulk", Box::pin(async move { bulk.bulk().await })),
        ("snapshot", Box::pin(snapshot)),
    ]
}

/// How a session ended.
enum End {
    /// It never began.
    NotReached(String),
    /// It lasted.
    Broke { why: String, lived: Duration },
}

struct Sessions<I> {
    hub: Arc<Peers>,
    peer: Arc<Peer>,
    inbox: I,
    decoder: Decoder,
}

/// An open control connection.
struct Control {
    client: RaftClient<Channel>,
    beat_replies: Streaming<wire::AppendReply>,
    forward_replies: Streaming<wire::ForwardReply>,
}

/// A call that waits for a connection, since when.
type Waiting = Option<(Instant, Call)>;

impl<I: Inbox> Sessions<I> {
    /// The control lane. Never ends by itself.
    async fn control(&self, mut calls: mpsc::Receiver<Call>) {
        let talk = async {
            let mut pauses = Pauses::new(&self.hub, &self.peer, Lane::Control);
            let mut waiting = None;
            loop {
                let end = self.control_session(&mut calls, &mut waiting).await;
                pauses.pause(end).await;
            }
        };
        tokio::select! {
            biased;
            () = self.report_losses() => {}
            () = talk => {}
        }
    }

    async fn report_losses(&self) {
        loop {
            self.peer.lost.notified().await;
            self.hub.counters.peers_lost.add();
            self.inbox.deliver(Delivery::PeerLost(self.peer.id)).await;
        }
    }

    async fn control_session(
        &self,
        calls: &mut mpsc::Receiver<Call>,
        waiting: &mut Waiting,
    ) -> End {
        let opened = tokio::select! {
            biased;
            opened = self.open_control() => opened,
            never = keep_latest(calls, waiting) => match never {},
        };
        let end = match opened {
            Ok(control) => {
                let began = Instant::now();
                self.peer.set_connected(true);
                let (id, log) = (self.peer.id, &self.hub.log);
                if log.admits(id, Line::Connected) {
                    info!(peer = id.get(), addr = self.peer.addr(), "peer connected");
                }
                if let Some(address) = self.peer.addr().map(ToOwned::to_owned) {
                    let peer = self.peer.id;
                    self.inbox.deliver(Delivery::PeerReached { peer, address }).await;
                }
                let why = tokio::select! {
                    why = self.read(control.beat_replies) => why,
                    why = self.read(control.forward_replies) => why,
                    never = self.measure() => match never {},
                    never = self.make_calls(&control.client, calls, waiting) => match never {},
                };
                self.peer.set_connected(false);
                if log.admits(id, Line::Broke) {
                    warn!(peer = id.get(), why, "peer connection broke");
                }
                End::Broke { why, lived: began.elapsed() }
            }
            Err(why) => End::NotReached(why),
        };
        self.peer.beats.close_any();
        self.peer.forwards.close_any();
        end
    }

    /// Connects, and opens both streams: their heads come once the peer has accepted us.
    async fn open_control(&self) -> Result<Control, String> {
        let (config, peer) = (&self.hub.config, &self.peer);
        self.hub.counters.dials.add();
        let mut client = dial::connect(config, peer.addr()).await?;
        let mut second = client.clone();
        let route = self.hub.route(peer.id);
        let hello = encode::append_hello(route, Lane::Control);
        let hello = encode::introduced(hello, &config.introduction);
        let beats = peer.beats.open_with(config.control, hello);
        let forwards = peer.forwards.open_with(config.bulk, encode::forward_hello(route));
        let beats = instance::signed(beats, config.instance);
        let forwards = instance::signed(forwards, config.instance);
        let streams =
            async { tokio::try_join!(client.append_entries(beats), second.forward(forwards)) };
        let (beat_replies, forward_replies) = self.greeted(streams).await?;
        self.recognise(beat_replies.metadata())?;
        Ok(Control {
            client,
            beat_replies: beat_replies.into_inner(),
            forward_replies: forward_replies.into_inner(),
        })
    }

    /// Waits for the heads of streams.
    async fn greeted<T>(
        &self,
        heads: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, String> {
        let patience = self.hub.config.dial_timeout;
        match tokio::time::timeout(patience, heads).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(status)) => {
                if let Some(why) = instance::rejected(&status) {
                    self.inbox.deliver(Delivery::PeerRejection { by: self.peer.id, why }).await;
                } else if status.code() == Code::PermissionDenied
                    && status.message().contains("cluster")
                {
                    return Err(format!("{}; {CLUSTER_HINT}", explain(&status)));
                }
                Err(explain(&status))
            }
            Err(_) => Err(format!("no greeting within {patience:?}")),
        }
    }

    /// Refuses to listen to another instance than the one that was met under this id.
    fn recognise(&self, metadata: &MetadataMap) -> Result<(), String> {
        let (from, me) = (self.peer.id, self.hub.config.me);
        match instance::told(metadata) {
            told @ Some(_) if !self.inbox.meets(from, told, true) => {
                self.hub.counters.refused.add();
                Err(Error::OtherInstance { from, me }.to_string())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Hands what comes back to the inbox until the stream ends; says why it did.
    async fn read<F: Streamed>(&self, mut stream: Streaming<F>) -> String {
        loop {
            let frame = match stream.message().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return "closed by the peer".to_owned(),
                Err(status) => return explain(&status),
            };
            if let Some(number) = frame.pong() {
                let took = self.hub.now_us().saturating_sub(number);
                self.inbox.round_trip(self.peer.id, Duration::from_micros(took));
                continue;
            }
            match frame.read(&self.decoder) {
                Ok(message) => {
                    self.hub.counters.received.add();
                    self.peer.heard_on(Dialled::Here);
                    self.inbox.deliver(Delivery::Message(message)).await;
                }
                Err(error) => {
                    self.hub.counters.refused.add();
                    return format!("refused what the peer said: {error}");
                }
            }
        }
    }

    /// Measures the way there and back, now and then.
    async fn measure(&self) -> Infallible {
        loop {
            // Lost where the stream is full: the next one measures as well.
            let _ = self.peer.beats.push(encode::ping(self.hub.now_us()), 0);
            tokio::time::sleep(self.hub.config.ping_interval).await;
        }
    }

    async fn make_calls(
        &self,
        client: &RaftClient<Channel>,
        calls: &mut mpsc::Receiver<Call>,
        waiting: &mut Waiting,
    ) -> Infallible {
        let patience = self.hub.config.vote_timeout;
        let mut under_way: Vec<CallUnderWay> = Vec::new();
        let fresh = waiting.take().filter(|(since, _)| since.elapsed() < patience);
        if let Some((_, call)) = fresh {
            under_way.push(self.call(client, call));
        }
        loop {
            tokio::select! {
                biased;
                vote = first_done(&mut under_way), if !under_way.is_empty() => {
                    if let Some((message, metadata)) = vote
                        && self.recognise(&metadata).is_ok()
                    {
                        self.hub.counters.received.add();
                        self.inbox.deliver(Delivery::Message(message)).await;
                    }
                }
                Some(call) = calls.recv() => {
                    if under_way.len() == CALLS_UNDER_WAY_MAX {
                        drop(under_way.remove(0));
                    }
                    under_way.push(self.call(client, call));
                }
                else => pending::<()>().await,
            }
        }
    }

    fn call(&self, client: &RaftClient<Channel>, call: Call) -> CallUnderWay {
        let config = &self.hub.config;
        let (patience, own) = (config.vote_timeout, config.instance);
        Box::pin(make_call(client.clone(), self.decoder, call, patience, own))
    }

    /// The bulk lane. Never ends by itself.
    async fn bulk(&self) {
        let mut pauses = Pauses::new(&self.hub, &self.peer, Lane::Bulk);
        loop {
            let end = match self.open_bulk().await {
                Ok(replies) => {
                    let began = Instant::now();
                    self.peer.set_bulk_connected(true);
                    let why = self.read(replies).await;
                    self.peer.set_bulk_connected(false);
                    let given = self.peer.appends.close_any();
                    self.suspect(given > 1).await;
                    End::Broke { why, lived: began.elapsed() }
                }
                Err(why) => {
                    self.peer.appends.close_any();
                    End::NotReached(why)
                }
            };
            pauses.pause(end).await;
        }
    }

    async fn open_bulk(&self) -> Result<Streaming<wire::AppendReply>, String> {
        let (config, peer) = (&self.hub.config, &self.peer);
        self.hub.counters.dials.add();
        let mut client = dial::connect(config, peer.addr()).await?;
        let hello = encode::append_hello(self.hub.route(peer.id), Lane::Bulk);
        let appends = peer.appends.open_with(config.bulk, hello);
        let appends = instance::signed(appends, config.instance);
        let replies = self.greeted(client.append_entries(appends)).await?;
        self.recognise(replies.metadata())?;
        Ok(replies.into_inner())
    }

    /// A bulk connection that carried entries broke. If the peer itself is gone, its control
    /// connection breaks too, and tells. If not, the entries under way are lost all the same,
    /// and whoever counts on them must hear of it.
    async fn suspect(&self, carried: bool) {
        if !carried {
            return;
        }
        // A control connection that breaks, or that has broken and come back, has told already.
        let epoch = self.peer.epoch.load(Ordering::Relaxed);
        tokio::time::sleep(BULK_GRACE).await;
        if self.peer.is_connected() && self.peer.epoch.load(Ordering::Relaxed) == epoch {
            self.peer.lost.notify_one();
        }
    }
}

/// Keeps the latest call for the connection to come; older ones are of older campaigns.
async fn keep_latest(calls: &mut mpsc::Receiver<Call>, waiting: &mut Waiting) -> Infallible {
    loop {
        match calls.recv().await {
            Some(call) => *waiting = Some((Instant::now(), call)),
            None => pending().await,
        }
    }
}

/// What a call brings back, and what its sender says of itself.
type Answer = Option<(Message, MetadataMap)>;
type CallUnderWay = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Makes one call; what it brings back is for the core.
async fn make_call(
    mut client: RaftClient<Channel>,
    decoder: Decoder,
    call: Call,
    patience: Duration,
    own: u64,
) -> Answer {
    let answer = async {
        match call {
            Call::Vote(frame) => {
                let mut request = instance::signed(frame, own);
                request.set_timeout(patience);
                let (metadata, reply, _) = client.request_vote(request).await?.into_parts();
                Ok(Some((decoder.vote_reply(&reply)?, metadata)))
            }
            Call::TimeoutNow(frame) => {
                client.timeout_now(instance::signed(frame, own)).await?;
                Ok::<_, Status>(None)
            }
        }
    };
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(message)) => message,
        Ok(Err(status)) => {
            debug!(peer = decoder.peer.get(), why = explain(&status), "call failed");
            None
        }
        Err(_) => None,
    }
}

/// The outcome of whichever call ends first; that call is gone then.
async fn first_done(calls: &mut Vec<CallUnderWay>) -> Answer {
    poll_fn(|cx| {
        for at in 0..calls.len() {
            if let Poll::Ready(answer) = calls[at].as_mut().poll(cx) {
                drop(calls.remove(at));
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}

/// A status in one line, with the causes that its message does not name.
pub fn explain(status: &Status) -> String {
    let (code, message) = (status.code(), status.message());
    match std::error::Error::source(status) {
        None => format!("{code:?}: {message}"),
        Some(source) => format!("{code:?}: {message}: {}", dial::describe(source)),
    }
}

/// The waits between the sessions of one lane, and what is logged about them.
struct Pauses<'a> {
    hub: &'a Peers,
    peer: &'a Peer,
    lane: Lane,
    backoff: Backoff,
    /// Why the peer was not reached the last time: said once, not at every dial.
    said: Option<String>,
}

impl<'a> Pauses<'a> {
    fn new(hub: &'a Peers, peer: &'a Peer, lane: Lane) -> Self {
        Self { hub, peer, lane, backoff: Backoff::new(&hub.config), said: None }
    }

    async fn pause(&mut self, end: End) {
        match end {
            End::NotReached(why) => {
                self.hub.counters.dials_failed.add();
                if self.lane == Lane::Control
                    && self.said.as_ref() != Some(&why)
                    && self.hub.log.admits(self.peer.id, Line::NotReached)
                {
                    let (peer, addr) = (self.peer.id.get(), self.peer.addr());
                    info!(peer, addr, why, "peer not reached; trying on");
                    self.said = Some(why);
                }
            }
            End::Broke { why, lived } => {
                debug!(peer = self.peer.id.get(), lane = ?self.lane, why, "connection broke");
                self.said = None;
                self.backoff.after(lived);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(self.backoff.wait()) => {}
            () = self.peer.redial(self.lane).notified() => self.backoff.reset(),
        }
    }
}
