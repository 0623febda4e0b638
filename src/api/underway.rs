//! Requests under way on one connection: what tells a connection in use from one that is idle.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::server::ConnectionId;

/// The count of one connection. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct Underway(Arc<AtomicUsize>);

impl Underway {
    /// Which connection this is: another number than that of any other that is open.
    pub(super) fn connection(&self) -> ConnectionId {
        ConnectionId(Arc::as_ptr(&self.0).addr())
    }

    /// How many requests are under way.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until the guard is dropped.
    pub fn begin(&self) -> UnderwayGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        UnderwayGuard(self.clone())
    }
}

/// One request.
#[derive(Debug)]
pub struct UnderwayGuard(Underway);

impl Drop for UnderwayGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `response`, under way until all of it is sent.
pub(super) fn until_sent(response: Response<Body>, guard: Option<UnderwayGuard>) -> Response<Body> {
    match guard {
        Some(guard) if !response.body().is_end_stream() => {
            response.map(|body| Body::new(Sending { body, _guard: guard }))
        }
        Some(_) | None => response,
    }
}

struct Sending {
    body: Body,
    _guard: UnderwayGuard,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
