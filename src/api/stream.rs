//! The body of a large response: a gRPC message that is encoded as the client's socket takes it.
//!
//! tonic would encode it whole. Here the handler leaves the response beside an empty message, and
//! `multiplex` puts its body in that one's place.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{BufMut, Bytes};
use http::HeaderMap;
use http_body::Frame;
use tonic::{Response, Status};

use crate::server::{self, Error, Grant, Responses, STALL_TIMEOUT};

use super::encode::{self, Part, Parts};
use super::error::to_status;

/// About so much is encoded at a time: some tens of microseconds.
const CHUNK_BYTES: usize = 64 << 10;

/// From here a value is not copied: it leaves as it stands in the store.
const SHARED_VALUE_BYTES: usize = 16 << 10;

/// A response under way to its client.
pub(super) struct Outgoing {
    responses: Responses,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What has yet to be encoded.
    parts: VecDeque<Part>,
    /// How many keys of the first part are.
    place: usize,
    /// What was encoded and has yet to be taken.
    ready: VecDeque<Bytes>,
    /// Leave for all that is here.
    grant: Option<Grant>,
    /// When the client took something last.
    taken: Instant,
    given_up: bool,
}

/// What a handler leaves to `multiplex`.
#[derive(Clone)]
pub(super) struct Handover(Arc<Outgoing>);

impl Handover {
    /// An answer to be given to `multiplex`: `M` is what the client is told it is.
    pub(super) fn response<M: Default>(
        responses: &Responses,
        grant: Grant,
        parts: Parts,
    ) -> Result<Response<M>, Status> {
        let Ok(len) = u32::try_from(parts.len) else {
            return Err(to_status(Error::ResponseTooLarge));
        };
        // Not compressed; then the length (gRPC over HTTP/2).
        let mut head = Vec::with_capacity(5);
        head.put_u8(0);
        head.put_u32(len);
        let state = State {
            parts: parts.parts,
            place: 0,
            ready: VecDeque::from([head.into()]),
            grant: Some(grant),
            taken: Instant::now(),
            given_up: false,
        };
        let outgoing = Arc::new(Outgoing { responses: responses.clone(), state: state.into() });
        let weak: Weak<Outgoing> = Arc::downgrade(&outgoing);
        responses.sent(weak);
        let mut response = Response::new(M::default());
        response.extensions_mut().insert(Self(outgoing));
        Ok(response)
    }

    /// The body of the response.
    pub(super) fn into_body(self) -> tonic::body::Body {
        tonic::body::Body::new(Body { outgoing: self.0, pause: None, ended: false })
    }
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To free millions of keys takes a while.
    fn free(&self, state: &mut State) {
        let left = (std::mem::take(&mut state.parts), state.grant.take());
        if left.0.len() > 1 {
            self.responses.elsewhere(Box::new(move || drop(left)));
        }
    }
}

impl server::Outgoing for Outgoing {
    fn give_up_if_stalled(&self) -> bool {
        let mut state = self.lock();
        if state.taken.elapsed() < STALL_TIMEOUT || state.given_up {
            return state.given_up;
        }
        state.given_up = true;
        state.ready.clear();
        self.free(&mut state);
        true
    }
}

impl State {
    /// Encodes the next chunk. False if nothing is left.
    fn encode(&mut self) -> bool {
        let mut out = Vec::new();
        let mut held_bytes = 0;
        let mut value = None;
        while out.len() < CHUNK_BYTES && value.is_none() {
            let Some(part) = self.parts.front() else { break };
            match part {
                Part::Encoded(bytes) => out.put_slice(bytes),
                Part::Key(number, kv) => {
                    encode::encode_key_value(*number, &kv.by_reference(), &mut out);
                    held_bytes += kv.by_reference().held_bytes();
                    value = Some(kv.value.clone());
                }
                Part::Keys(number, piece) => {
                    if let Some(kv) = piece.get(self.place) {
                        encode::encode_key_value(*number, &kv, &mut out);
                        held_bytes += kv.held_bytes();
                        if kv.value.len() < SHARED_VALUE_BYTES {
                            out.put_slice(kv.value);
                        } else {
                            value = piece.value(self.place);
                        }
                        self.place += 1;
                        continue;
                    }
                    self.place = 0;
                }
            }
            self.parts.pop_front();
        }
        if out.is_empty() && value.is_none() {
            return false;
        }
        // What was encoded now carries the leave for it, in its last part.
        let mut grant = self.grant.as_mut().map(|grant| grant.split(held_bytes));
        let value = value.filter(|value| !value.is_empty());
        let head = charged(out.into(), grant.take_if(|_| value.is_none()));
        self.ready.push_back(head);
        self.ready.extend(value.map(|value| charged(value, grant)));
        true
    }

    fn next(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() && !self.encode() {
            return None;
        }
        self.ready.pop_front()
    }
}

/// Bytes with the leave to hold them, which is given back when they are written and freed.
struct Charged {
    bytes: Bytes,
    _grant: Grant,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn charged(bytes: Bytes, grant: Option<Grant>) -> Bytes {
    match grant {
        Some(grant) => Bytes::from_owner(Charged { bytes, _grant: grant }),
        None => bytes,
    }
}

/// The body, as the HTTP server asks for it.
struct Body {
    outgoing: Arc<Outgoing>,
    /// Between two chunks all else has its turn: the server asks on as long as the client's window
    /// is open.
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ended: bool,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let mut state = self.outgoing.lock();
        state.taken = Instant::now();
        if let Some(chunk) = state.next() {
            drop(state);
            self.pause = Some(Box::pin(tokio::task::yield_now()));
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let given_up = state.given_up;
        drop(state);
        self.ended = true;
        let mut trailers = HeaderMap::new();
        let status = if given_up { to_status(Error::NotTaken) } else { Status::ok("") };
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut state = self.outgoing.lock();
        self.outgoing.free(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use http_body::Body as _;
    use prost::Message;
    use tonic::Code;

    use crate::server::Outgoing as _;

    use super::*;
    use crate::api::convert;
    use crate::kv::{
        self, Answer, Command, DeleteRangeRequest, Found, Machine, PutRequest, RangeRequest,
        RequestOp, TxnRequest, TxnResponse,
    };
    use crate::proto::etcdserverpb as pb;

    const HEADER: pb::ResponseHeader =
        pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };

    fn responses() -> Responses {
        let (work, to_do) = sync_channel(8);
        std::thread::spawn(move || {
            to_do.into_iter().map(|work: crate::server::Work| work()).count()
        });
        Responses::new(64 << 20, work)
    }

    /// Keys with values of all sizes, some without, one of which leaves the store uncopied.
    fn machine() -> Machine {
        let mut machine = Machine::new();
        for number in 0..2000_u64 {
            let len = match number {
                500 => SHARED_VALUE_BYTES + 7,
                1999 => 3 * CHUNK_BYTES,
                _ => number as usize % 90,
            };
            let (key, value) = (format!("k{number:04}").into(), vec![b'v'; len].into());
            let put = PutRequest { key, value, ..PutRequest::default() };
            machine.apply(number + 1, Command::Put(put)).expect("a plain put");
        }
        machine
    }

    fn range(keys_only: bool) -> RangeRequest {
        let (key, range_end) = ("k".into(), "l".into());
        RangeRequest { key, range_end, keys_only, ..RangeRequest::default() }
    }

    /// A transaction of every kind of operation, twice done: to be listed, and to be encoded.
    fn txns() -> [TxnResponse<Found>; 2] {
        let put = PutRequest { key: "k1999".into(), prev_kv: true, ..PutRequest::default() };
        let delete = DeleteRangeRequest { key: "k0".into(), range_end: "k1".into(), prev_kv: true };
        let inner = TxnRequest {
            success: vec![RequestOp::Range(range(true)), RequestOp::DeleteRange(delete)],
            ..TxnRequest::default()
        };
        let request = TxnRequest {
            success: vec![
                RequestOp::Put(put),
                RequestOp::Txn(inner),
                RequestOp::Txn(TxnRequest::default()),
                RequestOp::Range(range(false)),
            ],
            ..TxnRequest::default()
        };
        [(); 2].map(|()| {
            let mut machine = machine();
            let Ok(Answer::Pending(mut scan)) = machine.answer(9999, Command::Txn(request.clone()))
            else {
                panic!("so much is not read at once");
            };
            scan.step(machine.store(), usize::MAX).expect("the same store");
            let kv::Response::Txn(txn) = scan.collect() else { panic!("a transaction") };
            txn
        })
    }

    async fn handover(responses: &Responses, parts: Parts) -> Handover {
        let grant = responses.grant(None, None).await.expect("there is room");
        let response = Handover::response::<pb::TxnResponse>(responses, grant, parts);
        let mut response = response.expect("it is not too long");
        response.extensions_mut().remove().expect("left for the front door")
    }

    async fn frame(body: &mut tonic::body::Body) -> Option<Frame<Bytes>> {
        let mut body = Pin::new(body);
        let next = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
        next.map(|frame| frame.expect("no frame fails"))
    }

    /// The message, and the status in the trailers.
    async fn received(mut body: tonic::body::Body) -> (Vec<u8>, Code) {
        let mut message = Vec::new();
        while let Some(frame) = frame(&mut body).await {
            match frame.into_data() {
                Ok(data) => message.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().expect("the last frame");
                    let status = Status::from_header_map(&trailers).expect("a status");
                    assert!(body.is_end_stream());
                    return (message, status.code());
                }
            }
        }
        panic!("a body ends with trailers");
    }

    async fn message(responses: &Responses, parts: Parts) -> Vec<u8> {
        let (framed, code) = received(handover(responses, parts).await.into_body()).await;
        assert_eq!((code, framed[0]), (Code::Ok, 0));
        let len = u32::from_be_bytes(framed[1..5].try_into().expect("four bytes"));
        assert_eq!(len as usize, framed.len() - 5, "the length is known beforehand");
        framed[5..].to_vec()
    }

    #[tokio::test]
    async fn a_range_in_chunks_is_the_message_that_it_would_be_whole() {
        let (responses, machine) = (responses(), machine());
        for keys_only in [false, true] {
            let found = || machine.store().find(&range(keys_only)).expect("now is there");
            let sent = message(&responses, Parts::range(HEADER, found()).await).await;
            let whole = convert::range_response(HEADER, found().listed());
            assert_eq!(pb::RangeResponse::decode(&sent[..]), Ok(whole));
        }
    }

    #[tokio::test]
    async fn a_transaction_in_chunks_is_the_message_that_it_would_be_whole() {
        let [listed, encoded] = txns();
        let sent = message(&responses(), Parts::txn(HEADER, encoded).await).await;
        let whole = convert::txn_response(HEADER, listed.listed());
        assert_eq!(pb::TxnResponse::decode(&sent[..]), Ok(whole));
    }

    #[tokio::test]
    async fn between_two_chunks_all_else_has_its_turn() {
        let (responses, machine) = (responses(), machine());
        let found = machine.store().find(&range(false)).expect("now is there");
        let handover = handover(&responses, Parts::range(HEADER, found).await).await;
        let mut body = handover.into_body();
        let mut chunks = 0;
        while let Some(frame) = frame(&mut body).await {
            let Ok(data) = frame.into_data() else { break };
            assert!(data.len() <= 4 * CHUNK_BYTES, "{} bytes at a time", data.len());
            chunks += 1;
            let mut body = Pin::new(&mut body);
            let waits =
                std::future::poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx).is_pending()));
            assert!(waits.await, "the next chunk follows at once");
        }
        assert!(chunks > 4, "{chunks} chunks");
    }

    #[tokio::test]
    async fn leave_is_given_back_as_what_was_sent_is_freed() {
        let responses = responses();
        let room = || responses.room_left();
        let all = room();
        let found = machine().store().find(&range(false)).expect("now is there");
        let held = found.kvs.held_bytes();
        let handover = handover(&responses, Parts::range(HEADER, found).await).await;
        if let Some(grant) = &mut handover.0.lock().grant {
            grant.shrink(held);
        }
        assert_eq!(room(), all - held);
        let mut body = handover.into_body();
        let mut taken = Vec::new();
        while let Some(frame) = frame(&mut body).await {
            taken.extend(frame.into_data().ok());
        }
        assert_eq!(room(), all - held, "the socket has not taken it yet");
        taken.truncate(taken.len() / 2);
        assert!(room() > all - held && room() < all);
        taken.clear();
        assert_eq!(room(), all);
    }

    #[tokio::test]
    async fn a_response_that_is_given_up_ends_with_a_status_and_holds_nothing() {
        let responses = responses();
        let all = responses.room_left();
        let found = machine().store().find(&range(false)).expect("now is there");
        let handover = handover(&responses, Parts::range(HEADER, found).await).await;
        assert!(!handover.0.give_up_if_stalled(), "it has just begun");
        let long_ago = Instant::now().checked_sub(STALL_TIMEOUT).expect("the machine is older");
        handover.0.lock().taken = long_ago;
        assert!(handover.0.give_up_if_stalled());
        // Freed on another thread, at its own pace.
        let began = Instant::now();
        while responses.room_left() != all {
            assert!(
                began.elapsed() < std::time::Duration::from_secs(20),
                "something is still held"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (sent, code) = received(handover.into_body()).await;
        assert_eq!((sent.len(), code), (0, Code::ResourceExhausted));
    }
}
