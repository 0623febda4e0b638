//! When a call ends, and how many messages it had: read off the answer on its way out.
//!
//! A unary call is over with the head of its answer: a failure is in the head, and anything else
//! is one message. How a stream ends is in its trailers, so the bodies of streams are watched.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::metrics::{RpcCall, RpcKind, Rpcs};

/// The head of a message: one byte of flags, four of length.
const HEAD_BYTES: u32 = 5;

/// Begins to count a call of the method at this place, and watches its request if that is a stream.
pub(super) fn begin(
    rpcs: &Arc<Rpcs>,
    at: usize,
    request: Request<Body>,
) -> (RpcCall, Request<Body>) {
    let call = rpcs.begin(at);
    if call.kind() != RpcKind::BidiStream {
        call.received(1);
        return (call, request);
    }
    let rpcs = Arc::clone(rpcs);
    let seen = Seen::Request { rpcs, at };
    (call, request.map(|inner| Body::new(Watched { inner, messages: Messages::default(), seen })))
}

/// Counts the end of `call`, now or when the body of its answer ends.
pub(super) fn end(mut call: RpcCall, response: Response<Body>) -> Response<Body> {
    match (Status::from_header_map(response.headers()), call.kind()) {
        (Some(status), _) => call.end(place(status.code())),
        (None, RpcKind::Unary) => {
            call.sent(1);
            call.end(place(Code::Ok));
        }
        (None, RpcKind::ServerStream | RpcKind::BidiStream) => {
            let seen = Seen::Answer { call };
            return response
                .map(|inner| Body::new(Watched { inner, messages: Messages::default(), seen }));
        }
    }
    response
}

/// The place of a code among the counts.
fn place(code: Code) -> usize {
    code as usize
}

/// For whom a body is watched.
enum Seen {
    Request {
        rpcs: Arc<Rpcs>,
        at: usize,
    },
    /// Dropped with the body, and so counted as cancelled, if the client goes away first.
    Answer {
        call: RpcCall,
    },
}

impl Seen {
    fn messages(&self, count: u64) {
        match self {
            Self::Request { rpcs, at } => rpcs.received(*at, count),
            Self::Answer { call } => call.sent(count),
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if let Self::Answer { call } = self {
            let status = trailers.and_then(Status::from_header_map);
            call.end(status.map_or(place(Code::Unknown), |status| place(status.code())));
        }
    }
}

/// A body whose messages are counted.
struct Watched {
    inner: Body,
    messages: Messages,
    seen: Seen,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { inner, messages, seen } = self.get_mut();
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    seen.messages(messages.take(data));
                } else if let Some(trailers) = frame.trailers_ref() {
                    seen.end(Some(trailers));
                }
            }
            Some(Err(_)) | None => seen.end(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Counts the messages in a stream of bytes that is cut anywhere.
#[derive(Default)]
struct Messages {
    /// Bytes of the head so far.
    head: [u8; HEAD_BYTES as usize],
    head_bytes: u32,
    /// Bytes of the present message that are still to come.
    left: usize,
}

impl Messages {
    /// How many messages begin in `data`.
    fn take(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            let skipped = self.left.min(data.len());
            self.left -= skipped;
            data = &data[skipped..];
            while self.head_bytes < HEAD_BYTES && self.left == 0 {
                let Some((byte, rest)) = data.split_first() else { return begun };
                self.head[self.head_bytes as usize] = *byte;
                self.head_bytes += 1;
                data = rest;
            }
            if self.head_bytes == HEAD_BYTES {
                let [_, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length) as usize;
                self.head_bytes = 0;
                begun += 1;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for length in [0_u32, 3, 0, 300] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.extend(std::iter::repeat_n(7, length as usize));
        }
        for piece in 1..=bytes.len() {
            let mut messages = Messages::default();
            let count: u64 = bytes.chunks(piece).map(|piece| messages.take(piece)).sum();
            assert_eq!(count, 4, "in pieces of {piece}");
        }
    }
}
