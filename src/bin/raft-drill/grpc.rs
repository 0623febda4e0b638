//! Unary gRPC calls over HTTP/2, with as little between the caller and the socket as there can be.
//!
//! A load generator shares the machine with the servers that it measures, so its own cost per
//! request decides how much of them can be seen. Against tonic's client this one saves a queue, a
//! task switch and a header map per call: the request head is cloned from a prepared one, the body
//! is one prepared frame. It is also a second reading of the protocol, independent of the library
//! that the server is built on.
//!
//! Deliberately absent: TLS, compression, streaming.

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use prost::Message;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// `KV.Put`.
pub const PUT: &str = "/etcdserverpb.KV/Put";
/// `KV.Range`.
pub const RANGE: &str = "/etcdserverpb.KV/Range";
/// `KV.Txn`.
pub const TXN: &str = "/etcdserverpb.KV/Txn";
/// `KV.DeleteRange`.
pub const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
/// `Maintenance.Status`.
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
/// `Maintenance.HashKV`.
pub const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";

/// How long a TCP connection may take to come up before the next attempt.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts to connect: short, since a failover is measured in milliseconds.
const REDIAL_PAUSE: Duration = Duration::from_millis(10);
/// Windows wide enough that the generator never makes a server wait.
const WINDOW_BYTES: u32 = 8 << 20;
/// The gRPC frame head: one byte of flags, four of length.
const FRAME_HEAD_BYTES: usize = 5;

/// Where a member answers clients: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

/// Where a lone node serves clients by default, and the first of the compose file's.
pub const ENDPOINT: &str = "127.0.0.1:2379";

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if text.starts_with("https://") {
            return Err(format!("`{text}`: this tool speaks plain HTTP/2 only, without TLS"));
        }
        let port = rest.rsplit_once(':').and_then(|(host, port)| {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && !host.contains('/')).then_some(port)
        });
        match port {
            Some(_) => Ok(Self(rest.to_owned())),
            None => Err(format!("`{text}` is not HOST:PORT, for example 127.0.0.1:2379")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call brought no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent.
    #[error("not connected")]
    NotConnected,
    /// The outcome is unknown.
    #[error("no answer within {0} ms")]
    Deadline(u128),
    /// The connection broke under the call: the outcome is unknown.
    #[error("connection lost")]
    Broken,
    /// The server's own refusal.
    #[error("{message} (code {code})")]
    Status {
        /// The gRPC code.
        code: i32,
        /// The server's text.
        message: String,
    },
    /// Not the answer that the protocol has here.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
}

/// A member's connection, kept up: it is dialled again whenever it breaks, and calls meanwhile fail
/// at once.
pub struct Link {
    endpoint: Endpoint,
    current: Arc<watch::Sender<Option<SendRequest<Bytes>>>>,
    redial: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts connecting.
    pub fn open(endpoint: Endpoint) -> Self {
        let current = Arc::new(watch::Sender::new(None));
        let redial = Arc::new(Notify::new());
        let task = tokio::spawn(keep_up(endpoint.clone(), current.clone(), redial.clone()));
        Self { endpoint, current, redial, task }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits until connected.
    pub async fn connected(&self, within: Duration) -> Result<(), CallError> {
        let mut watch = self.current.subscribe();
        match tokio::time::timeout(within, watch.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(CallError::NotConnected),
        }
    }

    /// Gives the connection up for a new one, because its other end no longer answers.
    pub fn give_up(&self) {
        self.redial.notify_one();
    }

    /// Sends one prepared frame and returns the frame that answers it, without its head.
    pub async fn call(&self, path: &'static str, frame: Bytes) -> Result<Bytes, CallError> {
        let sender = self.current.borrow().clone().ok_or(CallError::NotConnected)?;
        exchange(sender, path, frame).await
    }

    /// As [`Link::call`], but no longer than `deadline`.
    pub async fn call_within(
        &self,
        path: &'static str,
        frame: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        match tokio::time::timeout(deadline, self.call(path, frame)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::Deadline(deadline.as_millis())),
        }
    }

    /// Encodes, calls and decodes.
    pub async fn unary<A: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let answer = self.call_within(path, encode_frame(request), deadline).await?;
        A::decode(answer).map_err(|_| CallError::Malformed("not the expected message"))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message behind its frame head.
pub fn encode_frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("requests are far below 4 GiB"));
    message.encode(&mut frame).expect("the buffer grows as needed");
    frame.freeze()
}

async fn keep_up(
    endpoint: Endpoint,
    current: Arc<watch::Sender<Option<SendRequest<Bytes>>>>,
    redial: Arc<Notify>,
) {
    loop {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, dial(&endpoint)).await;
        if let Ok(Some((sender, connection))) = dialled {
            current.send_replace(Some(sender));
            tokio::select! {
                _ended = connection => {}
                () = redial.notified() => {}
            }
            current.send_replace(None);
        }
        tokio::time::sleep(REDIAL_PAUSE).await;
    }
}

type Connection = h2::client::Connection<TcpStream, Bytes>;

async fn dial(endpoint: &Endpoint) -> Option<(SendRequest<Bytes>, Connection)> {
    let stream = TcpStream::connect(&endpoint.0).await.ok()?;
    stream.set_nodelay(true).ok()?;
    h2::client::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .enable_push(false)
        .handshake(stream)
        .await
        .ok()
}

async fn exchange(
    sender: SendRequest<Bytes>,
    path: &'static str,
    frame: Bytes,
) -> Result<Bytes, CallError> {
    let broken = |_: h2::Error| CallError::Broken;
    let mut sender = sender.ready().await.map_err(|_| CallError::NotConnected)?;
    let (answer, mut body) = sender.send_request(head(path), false).map_err(broken)?;
    body.send_data(frame, true).map_err(broken)?;
    let (head, mut stream) = answer.await.map_err(broken)?.into_parts();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.map_err(broken)?;
        let _ended_stream_needs_no_window = stream.flow_control().release_capacity(chunk.len());
        if first.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if !head.status.is_success() {
        return Err(CallError::Malformed("not an HTTP success"));
    }
    match stream.trailers().await.map_err(broken)? {
        Some(trailers) => status(&trailers)?,
        None => status(&head.headers)?, // trailers-only: a refusal without a body
    }
    if !rest.is_empty() {
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        first = whole.freeze();
    }
    unframe(first)
}

fn unframe(mut frame: Bytes) -> Result<Bytes, CallError> {
    let Some(head) = frame.first_chunk::<FRAME_HEAD_BYTES>().copied() else {
        return Err(CallError::Malformed("no message in the answer"));
    };
    let body = frame.split_off(FRAME_HEAD_BYTES);
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || length != body.len() {
        return Err(CallError::Malformed("compressed or cut short"));
    }
    Ok(body)
}

/// Every request but its path is the same; cloning static names and values copies no text.
fn head(path: &'static str) -> http::Request<()> {
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some(http::uri::Authority::from_static("member"));
    uri.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
    *request.uri_mut() = http::Uri::from_parts(uri).expect("scheme, authority and path are given");
    let headers = request.headers_mut();
    let grpc = http::HeaderValue::from_static("application/grpc");
    headers.insert(http::header::CONTENT_TYPE, grpc);
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    request
}

fn status(headers: &http::HeaderMap) -> Result<(), CallError> {
    let code = headers.get("grpc-status").ok_or(CallError::Malformed("no grpc-status"))?;
    if code == "0" {
        return Ok(());
    }
    let code = code.to_str().ok().and_then(|text| text.parse().ok());
    let message = headers.get("grpc-message").map_or(&[][..], http::HeaderValue::as_bytes);
    Err(CallError::Status {
        code: code.ok_or(CallError::Malformed("grpc-status is no number"))?,
        message: percent_decoded(message),
    })
}

/// gRPC escapes its messages as `%20`; a stray `%` stands for itself.
fn percent_decoded(text: &[u8]) -> String {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let escaped = match text[at..] {
            [b'%', high, low, ..] => hex(high).zip(hex(low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            plain.push((high * 16 + low) as u8);
            at += 3;
        } else {
            plain.push(text[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_takes_what_etcdctl_takes() {
        let plain: Endpoint = "127.0.0.1:2379".parse().unwrap();
        let url: Endpoint = "http://127.0.0.1:2379/".parse().unwrap();
        assert_eq!(plain, url);
        assert!("https://127.0.0.1:2379".parse::<Endpoint>().unwrap_err().contains("TLS"));
        for wrong in ["", "node1", ":2379", "node1:port", "http://node1/x:1"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn refusals_are_read_from_trailers() {
        let mut headers = http::HeaderMap::new();
        assert!(matches!(status(&headers), Err(CallError::Malformed(_))));
        headers.insert("grpc-status", http::HeaderValue::from_static("0"));
        assert!(status(&headers).is_ok());
        headers.insert("grpc-status", http::HeaderValue::from_static("14"));
        let message = http::HeaderValue::from_static("etcdserver:%20no%20leader 100%");
        headers.insert("grpc-message", message);
        let refusal = status(&headers).unwrap_err();
        assert_eq!(refusal.to_string(), "etcdserver: no leader 100% (code 14)");
    }

    #[test]
    fn frames_are_checked() {
        let frame = encode_frame(&"abc".to_owned());
        assert_eq!(unframe(frame.clone()).unwrap().len(), frame.len() - FRAME_HEAD_BYTES);
        assert!(unframe(frame.slice(..frame.len() - 1)).is_err());
        assert!(unframe(Bytes::new()).is_err());
    }
}
