//! The way in from the client port: gRPC and HTTP on one listener.
//!
//! Key-value calls are nearly all of the traffic, so they go straight to their service; the
//! router, which boxes and copies for each request, sees only the rest. Here too every call is
//! counted, and what a learner does not answer is refused.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use http::{HeaderMap, Request, Response, StatusCode, header};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport;
use tonic::{Code, Status};
use tower::Service;

use crate::metrics::{RpcCall, Rpcs};
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::server::{Error, Server};

use super::counted;
use super::error::to_status;
use super::kv::KvService;
use super::methods::{self, AtLearner, METHODS, Method};
use super::stream::Handover;

type Kv = KvServer<KvService>;

/// How often an idle connection is asked for a sign of life, and how long the sign may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests under way on one connection; further ones wait at the client.
const STREAMS_MAX: u32 = 1024;

/// What is read of the headers of one request. More than is served (`entry`), so that a request
/// with somewhat too much is answered as a gRPC call; one with four times as much ends its
/// connection.
const HEADER_BYTES_MAX: u32 = 1 << 20;

/// Streams reset by us for the peer's faults before the connection is closed (the guard against
/// reset floods, which tonic leaves off).
const ERROR_RESETS_MAX: usize = 4096;

/// Streams reset by the peer before we took them up, likewise. To cancel is lawful, any number of
/// times; such streams are held until the connection's task has read what there was, at most 128
/// times one buffer of 16 KiB. So a client that cancels as fast as it can write stays below this.
/// It bounds memory, at 1 or 2 kB each, against one whose requests are smaller than any real one.
const PENDING_RESETS_MAX: usize = 32 * 1024;

/// A server with the limits that every port has. The client port adds `accept_http1(true)`.
pub fn server() -> transport::Server {
    transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
}

/// Everything that the client port serves.
#[derive(Clone)]
pub struct Multiplexer {
    server: Server,
    rpcs: Arc<Rpcs>,
    kv: Kv,
    rest: Routes,
}

impl Multiplexer {
    pub(super) fn new(
        server: Server,
        rpcs: Arc<Rpcs>,
        kv: Kv,
        services: Routes,
        http: Router,
    ) -> Self {
        let rest = services.into_axum_router().merge(http).fallback(unknown);
        Self { server, rpcs, kv, rest: Routes::from(rest).prepare() }
    }
}

impl Multiplexer {
    /// What is refused whatever the call: anything that a learner does not answer, and what may
    /// only be served under a leader (clients send the metadata `hasleader: true`, so as to turn
    /// to another member soon).
    fn admit(&self, method: &Method, request: &Request<Body>) -> Result<(), Error> {
        if method.at_learner == AtLearner::Refused {
            self.server.refuse_at_learner()?;
        }
        if requires_leader(request.headers()) {
            self.server.require_leader()?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Request<Body>) -> Answer {
        if is_kv(request.uri().path()) {
            Answer::Kv(self.kv.call(request))
        } else {
            Answer::Rest(Box::new(self.rest.call(request)))
        }
    }
}

impl Service<Request<Body>> for Multiplexer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = MultiplexFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        ready!(<Kv as Service<Request<Body>>>::poll_ready(&mut self.kv, cx))?;
        <Routes as Service<Request<Body>>>::poll_ready(&mut self.rest, cx)
    }

    fn call(&mut self, request: Request<Body>) -> MultiplexFuture {
        let Some(at) = methods::find(request.uri().path()) else {
            return MultiplexFuture { call: None, answer: self.answer(request) };
        };
        let (call, request) = counted::begin(&self.rpcs, at, request);
        let answer = match self.admit(&METHODS[at], &request) {
            Ok(()) => self.answer(request),
            Err(error) => Answer::Refusal(Some(to_status(error).into_http())),
        };
        MultiplexFuture { call: Some(call), answer }
    }
}

/// Whether a client wants to be served under a leader only.
pub(super) fn requires_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

pub(super) fn is_kv(path: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(Kv::NAME));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// An answer of [`Multiplexer`] under way.
pub struct MultiplexFuture {
    /// Counts it, if it is a known call.
    call: Option<RpcCall>,
    answer: Answer,
}

enum Answer {
    /// From the key-value service.
    Kv(<Kv as Service<Request<Body>>>::Future),
    /// From anything else; boxed, lest every key-value call carry its size.
    Rest(Box<<Routes as Service<Request<Body>>>::Future>),
    /// From here.
    Refusal(Option<Response<Body>>),
}

impl Future for MultiplexFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { call, answer } = self.get_mut();
        let response = match answer {
            Answer::Kv(answer) => {
                let mut response = ready!(answer.as_mut().poll(cx))?;
                // An answer's status follows in its trailers: its headers name the content type
                // and nothing else. Only a refusal has more.
                if response.headers().len() > 1 {
                    oversize_as_in_etcd(&mut response);
                }
                if let Some(handover) = response.extensions_mut().remove::<Handover>() {
                    *response.body_mut() = handover.into_body();
                }
                response
            }
            Answer::Rest(answer) => ready!(Pin::new(answer).poll(cx))?,
            Answer::Refusal(response) => {
                response.take().expect("a future is not polled after its end")
            }
        };
        Poll::Ready(Ok(match call.take() {
            Some(call) => counted::end(call, response),
            None => response,
        }))
    }
}

/// gRPC in Go, and so every etcd client, knows an oversized message as `RESOURCE_EXHAUSTED`; tonic
/// says `OUT_OF_RANGE`, which to an etcd client means a compacted or future revision.
fn oversize_as_in_etcd(response: &mut Response<Body>) {
    let Some(status) = Status::from_header_map(response.headers()) else { return };
    let Some((found, limit)) = oversize(&status) else { return };
    let message = format!("grpc: received message larger than max ({found} vs. {limit})");
    // On failure the old status stands, which is still a refusal.
    let _ = Status::resource_exhausted(message).add_header(response.headers_mut());
}

/// The sizes in tonic's refusal of an oversized message; `None` for any other status.
fn oversize(status: &Status) -> Option<(u64, u64)> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let sizes = status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = sizes.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some((found.parse().ok()?, limit.parse().ok()?))
}

/// Answers what no route matches, each caller in its own protocol: tonic's fallback would tell a
/// browser "200 OK".
async fn unknown(request: axum::extract::Request) -> Response<axum::body::Body> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let service = request.uri().path().trim_start_matches('/');
        let service = service.split_once('/').map_or(service, |(service, _)| service);
        Status::unimplemented(format!("unknown service {service}")).into_http()
    } else {
        (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_key_value_calls_take_the_short_way() {
        assert!(is_kv("/etcdserverpb.KV/Put"));
        assert!(is_kv("/etcdserverpb.KV/"));
        for other in ["/etcdserverpb.KV", "/etcdserverpb.KVX/Put", "/", "", "//etcdserverpb.KV/Put"]
        {
            assert!(!is_kv(other), "{other:?}");
        }
    }

    #[test]
    fn tonics_refusal_of_an_oversized_message_becomes_gos() {
        let text = "Error, decoded message length too large: found 10 bytes, the limit is: 4 bytes";
        let mut response = Status::out_of_range(text).into_http::<Body>();
        oversize_as_in_etcd(&mut response);
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (10 vs. 4)");
    }

    #[test]
    fn other_errors_out_of_range_stay_as_they_are() {
        let text = "etcdserver: mvcc: required revision has been compacted";
        let mut response = Status::out_of_range(text).into_http::<Body>();
        oversize_as_in_etcd(&mut response);
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, text));
    }
}
