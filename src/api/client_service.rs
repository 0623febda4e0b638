//! What stands before every service of the client port: who may come in, how long a request may
//! take to arrive, and the count of those under way.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::arrival::{Arriving, SILENCE_MAX};
use super::entry::{self, Kind, Names};
use super::multiplex::{MultiplexFuture, Multiplexer, is_kv};
use super::underway::{Underway, UnderwayGuard, until_sent};

/// Calls whose clients send any number of requests, and may be silent in between.
const STREAMS: [&str; 3] =
    ["/grpc.reflection.", "/etcdserverpb.Watch/", "/etcdserverpb.Lease/LeaseKeepAlive"];

/// Everything that the client port serves, behind the checks.
#[derive(Clone)]
pub struct ClientService {
    front: Multiplexer,
    names: Names,
}

impl ClientService {
    /// `names`: under which names browsers may call this member.
    pub(super) fn new(front: Multiplexer, names: Names) -> Self {
        Self { front, names }
    }
}

impl Service<Request<Body>> for ClientService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ClientServiceFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.front.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> ClientServiceFuture {
        let kind = match entry::judge(&request, &self.names) {
            Ok(kind) => kind,
            Err(refusal) => return ClientServiceFuture::Refused(Some(refusal)),
        };
        let guard = request.extensions().get::<Underway>().map(Underway::begin);
        let path = request.uri().path();
        // A key-value answer is sent at once, or its connection is not idle meanwhile.
        let until = if is_kv(path) { Until::Answered } else { Until::Sent };
        let is_stream = STREAMS.iter().any(|start| path.starts_with(start));
        let request = match kind {
            Kind::Call if is_stream => request,
            Kind::Call | Kind::Page => {
                request.map(|body| Body::new(Arriving::new(body, SILENCE_MAX)))
            }
        };
        ClientServiceFuture::Served { answer: self.front.call(request), guard, until }
    }
}

/// When a request is under way no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Once its answer begins.
    Answered,
    /// Once its answer is sent.
    Sent,
}

/// An answer of [`ClientService`] under way.
pub enum ClientServiceFuture {
    /// From what is served.
    Served {
        /// The answer.
        answer: MultiplexFuture,
        /// Counts the request, where its connection is known.
        guard: Option<UnderwayGuard>,
        /// How long it counts.
        until: Until,
    },
    /// From the checks.
    Refused(Option<Box<Response<Body>>>),
}

impl Future for ClientServiceFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Served { answer, guard, until } => {
                let response = ready!(Pin::new(answer).poll(cx))?;
                let guard = guard.take();
                Poll::Ready(Ok(match until {
                    Until::Answered => response,
                    Until::Sent => until_sent(response, guard),
                }))
            }
            Self::Refused(refusal) => {
                let refusal = refusal.take().expect("a future is not polled after its end");
                Poll::Ready(Ok(*refusal))
            }
        }
    }
}
