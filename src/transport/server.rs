//! The streams and calls that peers open to this member.
//!
//! A stream's frames are read, checked and handed to the inbox by the very task that writes the
//! replies: the response body *is* the reader. So a frame makes no extra change of task, and a
//! stream's end, whichever way it comes, drops everything it held.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::decode::{self, Decoder, Lane};
use super::detour::Streamed;
use super::log::Line;
use super::peers::{Peer, Peers};
use super::queue::Frames;
use super::route::Dialled;
use super::{Delivery, Inbox, Snapshots, encode, instance, snapshot};
use crate::proto::raft as wire;
use crate::proto::raft::raft_server::Raft;
use crate::raft::message::Message;

/// A stream that does not say who it is from by then is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// `raft.v1.Raft`, as served on the peer port.
pub struct Service<I, S> {
    hub: Arc<Peers>,
    inbox: I,
    snapshots: S,
}

impl<I: Inbox, S: Snapshots> Service<I, S> {
    pub(super) fn new(hub: Arc<Peers>, inbox: I, snapshots: S) -> Self {
        Self { hub, inbox, snapshots }
    }

    /// The member that a first frame comes from, on a call with this metadata.
    fn caller(
        &self,
        sender: Sender,
        metadata: &MetadataMap,
        route: Option<&wire::Route>,
    ) -> Result<(Arc<Peer>, Decoder), Status> {
        if self.hub.is_closed() {
            return Err(Status::unavailable("stopping"));
        }
        let peer = self.hub.caller(route).map_err(|error| refused(&self.hub, sender, error))?;
        let (from, me) = (peer.id, self.hub.config.me);
        if !self.inbox.meets(from, instance::told(metadata), peer.addr().is_some()) {
            return Err(refused(&self.hub, sender, decode::Error::OtherInstance { from, me }));
        }
        let decoder = Decoder { cluster: self.hub.config.cluster, me, peer: from };
        Ok((peer, decoder))
    }

    async fn deliver(&self, message: Message) {
        self.hub.counters.received.add();
        self.inbox.deliver(Delivery::Message(message)).await;
    }

    /// The response that reads the rest of `inbound`.
    fn replies<T, F: Streamed>(
        &self,
        inbound: Streaming<F>,
        decoder: Decoder,
        frames: Frames<T>,
        guard: Guard,
    ) -> Response<Replies<T>> {
        let reader = Reader {
            sender: guard.sender,
            hub: Arc::clone(&self.hub),
            peer: Arc::clone(&guard.peer),
            inbox: self.inbox.clone(),
            decoder,
        };
        let reading: Reading = Box::pin(reader.read(inbound));
        let replies = Replies { reading: Some(reading), frames, _guard: guard };
        instance::answered(replies, self.hub.config.instance)
    }
}

#[tonic::async_trait]
impl<I: Inbox, S: Snapshots> Raft for Service<I, S> {
    type AppendEntriesStream = Replies<wire::AppendReply>;
    type ForwardStream = Replies<wire::ForwardReply>;

    async fn request_vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteReply>, Status> {
        let sender = request.remote_addr();
        let (metadata, _, frame) = request.into_parts();
        let (peer, decoder) = self.caller(sender, &metadata, frame.route.as_ref())?;
        let message =
            decoder.vote_request(&frame).map_err(|error| refused(&self.hub, sender, error))?;
        let reply = peer.owe_vote(message.term, frame.pre_vote);
        self.deliver(message).await;
        match tokio::time::timeout(self.hub.config.vote_timeout, reply).await {
            Ok(Ok(reply)) => Ok(instance::answered(reply, self.hub.config.instance)),
            Ok(Err(_)) | Err(_) => Err(Status::deadline_exceeded("nothing to answer")),
        }
    }

    async fn append_entries(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendEntriesStream>, Status> {
        let sender = request.remote_addr();
        let (metadata, _, mut inbound) = request.into_parts();
        let hello = first(&mut inbound).await?;
        let (peer, decoder) = self.caller(sender, &metadata, hello.route.as_ref())?;
        let lane =
            decode::append_lane(&hello).map_err(|error| refused(&self.hub, sender, error))?;
        let (frames, guard) = match lane {
            Lane::Control => {
                if let Some(introduction) = decode::introduction(&hello) {
                    let from = peer.id;
                    self.inbox.deliver(Delivery::Introduced { from, introduction }).await;
                }
                self.open_control(sender, &peer)
            }
            Lane::Bulk => {
                let (generation, frames) = peer.append_replies.open(self.hub.config.bulk);
                (frames, Guard { sender, peer, stream: Inbound::Appends, generation })
            }
        };
        Ok(self.replies(inbound, decoder, frames, guard))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotFrame>>,
    ) -> Result<Response<wire::SnapshotReceipt>, Status> {
        let sender = request.remote_addr();
        let (metadata, _, mut inbound) = request.into_parts();
        let header = first(&mut inbound).await?;
        let (peer, decoder) = self.caller(sender, &metadata, header.route.as_ref())?;
        if !peer.may_send_snapshots() {
            let (from, me) = (peer.id, decoder.me);
            return Err(refused(&self.hub, sender, decode::Error::NotMember { from, me }));
        }
        let incoming = snapshot::Incoming { hub: &self.hub, peer: &peer, decoder };
        let received = incoming.receive(&self.snapshots, header, inbound).await;
        let message = received.inspect_err(|status| {
            if self.hub.log.admits(peer.id, Line::SnapshotNotReceived) {
                warn!(peer = peer.id.get(), why = status.message(), "snapshot not received");
            }
        })?;
        self.deliver(message).await;
        Ok(Response::new(wire::SnapshotReceipt {}))
    }

    async fn timeout_now(
        &self,
        request: Request<wire::TimeoutNowRequest>,
    ) -> Result<Response<wire::TimeoutNowReply>, Status> {
        let sender = request.remote_addr();
        let (metadata, _, frame) = request.into_parts();
        let (_, decoder) = self.caller(sender, &metadata, frame.route.as_ref())?;
        let message =
            decoder.timeout_now(&frame).map_err(|error| refused(&self.hub, sender, error))?;
        self.deliver(message).await;
        Ok(Response::new(wire::TimeoutNowReply {}))
    }

    async fn forward(
        &self,
        request: Request<Streaming<wire::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let sender = request.remote_addr();
        let (metadata, _, mut inbound) = request.into_parts();
        let hello = first(&mut inbound).await?;
        let (peer, decoder) = self.caller(sender, &metadata, hello.route.as_ref())?;
        decode::forward_lane(&hello).map_err(|error| refused(&self.hub, sender, error))?;
        let (generation, frames) = peer.forward_replies.open(self.hub.config.bulk);
        let guard = Guard { sender, peer, stream: Inbound::Forwards, generation };
        Ok(self.replies(inbound, decoder, frames, guard))
    }
}

impl<I: Inbox, S: Snapshots> Service<I, S> {
    /// A peer's control stream: the sign that it lives.
    fn open_control(&self, sender: Sender, peer: &Arc<Peer>) -> (Frames<wire::AppendReply>, Guard) {
        if peer.beat_replies.is_open() {
            // It dialled anew, so the connection before broke, unnoticed here.
            peer.gone();
        }
        let (generation, frames) = peer.beat_replies.open(self.hub.config.control);
        peer.heard_of();
        if !peer.is_connected() {
            peer.redial(Lane::Control).notify_one();
            peer.redial(Lane::Bulk).notify_one();
        }
        if self.hub.log.admits(peer.id, Line::ConnectedToUs) {
            let sender = sender.map(|sender| sender.to_string());
            info!(peer = peer.id.get(), sender, "peer connected to us");
        }
        (frames, Guard { sender, peer: Arc::clone(peer), stream: Inbound::Beats, generation })
    }
}

/// The first frame of a stream, by which it says who it is from.
async fn first<F>(inbound: &mut Streaming<F>) -> Result<F, Status> {
    match tokio::time::timeout(HELLO_TIMEOUT, inbound.message()).await {
        Ok(frame) => frame?.ok_or_else(|| Status::invalid_argument("stream without a first frame")),
        Err(_) => Err(Status::deadline_exceeded("no first frame in time")),
    }
}

/// Where a call comes from, as far as the socket knows.
type Sender = Option<SocketAddr>;

fn refused(hub: &Peers, sender: Sender, error: decode::Error) -> Status {
    hub.counters.refused.add();
    hub.log.refused(sender, &error);
    error.into()
}

/// Reads one stream into the inbox.
struct Reader<I> {
    sender: Sender,
    hub: Arc<Peers>,
    peer: Arc<Peer>,
    inbox: I,
    decoder: Decoder,
}

impl<I: Inbox> Reader<I> {
    async fn read<F: Streamed>(self, mut inbound: Streaming<F>) -> Result<(), Status> {
        while let Some(frame) = inbound.message().await? {
            if self.peer.is_removed() {
                let gone = decode::Error::NotMember { from: self.peer.id, me: self.decoder.me };
                return Err(refused(&self.hub, self.sender, gone));
            }
            if let Some(number) = frame.ping() {
                let pong = encode::pong(number);
                // Lost where the stream is full: the next one measures as well.
                let _ = self.peer.beat_replies.push(pong, 0);
                continue;
            }
            let message = frame
                .read(&self.decoder)
                .map_err(|error| refused(&self.hub, self.sender, error))?;
            self.hub.counters.received.add();
            self.peer.heard_on(Dialled::There);
            self.inbox.deliver(Delivery::Message(message)).await;
        }
        Ok(())
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A response body: reads the request while it writes the replies. Ends with the request, or
/// when another stream takes its place.
pub struct Replies<T> {
    /// Gone once the request has ended.
    reading: Option<Reading>,
    frames: Frames<T>,
    _guard: Guard,
}

impl<T> Stream for Replies<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(ended) = reading.as_mut().poll(cx) {
            self.reading = None;
            return Poll::Ready(ended.err().map(Err));
        }
        Pin::new(&mut self.frames).poll_next(cx).map(|frame| frame.map(Ok))
    }
}

/// Which of a peer's streams to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inbound {
    Beats,
    Appends,
    Forwards,
}

/// Ends the way back when the stream it goes by ends, however that comes about.
struct Guard {
    sender: Sender,
    peer: Arc<Peer>,
    stream: Inbound,
    generation: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let peer = &self.peer;
        match self.stream {
            Inbound::Beats => {
                if peer.beat_replies.close(self.generation) {
                    peer.broken();
                }
            }
            Inbound::Appends => drop(peer.append_replies.close(self.generation)),
            Inbound::Forwards => drop(peer.forward_replies.close(self.generation)),
        }
    }
}
