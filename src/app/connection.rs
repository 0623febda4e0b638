//! One accepted connection, as the HTTP library reads and writes it.
//!
//! What the library leaves open is closed here: it waits without end for the first bytes of a
//! connection, and nothing else can end one from outside.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::authority::Mender;
use super::connections::Seat;

/// A connection that has not said by then what it speaks is closed.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// How HTTP/2 begins. Whatever else comes is HTTP/1, where the library has a time limit of its own.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read at once by way of the mender.
const MENDED_BYTES: usize = 4096;

/// A silent connection is probed by the kernel after so long, so often, and given up after so many
/// probes without an answer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// A connection and its place in the table of its port. `I` is what requests are told of it.
#[derive(Debug)]
pub(super) struct Connection<I> {
    stream: TcpStream,
    opening: Option<Opening>,
    /// Until it is known that there is nothing to mend.
    mender: Option<Mender>,
    info: I,
    seat: Seat,
}

/// The first bytes, which are not all there yet.
#[derive(Debug)]
struct Opening {
    seen_bytes: usize,
    limit: Pin<Box<Sleep>>,
}

impl Opening {
    fn new() -> Self {
        Self { seen_bytes: 0, limit: Box::pin(tokio::time::sleep(OPENING_TIMEOUT)) }
    }

    /// What is spoken, once that is known, after `bytes`.
    fn spoken(&mut self, bytes: &[u8]) -> Option<Protocol> {
        let rest = &PREFACE[self.seen_bytes..];
        let bytes = &bytes[..bytes.len().min(rest.len())];
        self.seen_bytes += bytes.len();
        if !rest.starts_with(bytes) {
            return Some(Protocol::Http1);
        }
        (self.seen_bytes == PREFACE.len()).then_some(Protocol::Http2)
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl<I> Connection<I> {
    pub(super) fn new(stream: TcpStream, seat: Seat, info: I) -> Self {
        set_options(&stream);
        Self { stream, opening: Some(Opening::new()), mender: None, info, seat }
    }

    /// The same, for a port whose clients may be of the kind that has its requests mended.
    pub(super) fn mended(self) -> Self {
        Self { mender: Some(Mender::new()), ..self }
    }

    fn opened(&mut self, bytes: &[u8]) {
        let Some(opening) = &mut self.opening else { return };
        let Some(protocol) = opening.spoken(bytes) else { return };
        self.opening = None;
        self.seat.spoke();
        if let (Protocol::Http1, Some(mender)) = (protocol, &mut self.mender) {
            mender.end();
        }
    }

    fn poll_plain(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.seat.active();
            self.opened(read);
        }
        self.ended(polled, cx)
    }

    /// Reads by way of the mender, until that is done.
    fn poll_mended(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(mender) = &mut self.mender else { return self.poll_plain(cx, buffer) };
            let readable = mender.readable(buffer.remaining());
            if !readable.is_empty() {
                let bytes = readable.len();
                buffer.put_slice(readable);
                mender.taken(bytes);
                return Poll::Ready(Ok(()));
            }
            if mender.is_done() {
                self.mender = None;
                continue;
            }
            let mut space = [0; MENDED_BYTES];
            let mut piece = ReadBuf::new(&mut space);
            ready!(self.poll_plain(cx, &mut piece))?;
            let Some(mender) = &mut self.mender else { continue };
            mender.put(piece.filled());
            if piece.filled().is_empty() {
                mender.end();
            }
        }
    }

    /// What a task that waits for the socket may wait for besides.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.seat.check_and_wait(cx)?;
        let Some(opening) = &mut self.opening else { return Ok(()) };
        if opening.limit.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "it did not say what it speaks"))
    }

    /// `polled`, or the error that ends the waiting.
    fn ended<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => match self.poll_end(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }
}

/// Replies go out at once, and a machine that is gone is noticed. A socket that refuses an option
/// serves all the same.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
}

impl<I: Unpin> AsyncRead for Connection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.seat.check()?;
        self.poll_mended(cx, buffer)
    }
}

impl<I: Unpin> AsyncWrite for Connection<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seat.check()?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if polled.is_ready() {
            self.seat.active();
        }
        self.ended(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seat.check()?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if polled.is_ready() {
            self.seat.active();
        }
        self.ended(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<I: Clone + Send + Sync + 'static> Connected for Connection<I> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_opening_is_over_when_it_is_known_what_is_spoken() {
        let mut http2 = Opening::new();
        assert_eq!(http2.spoken(&PREFACE[..10]), None);
        assert_eq!(http2.spoken(&PREFACE[10..23]), None);
        assert_eq!(http2.spoken(&PREFACE[23..]), Some(Protocol::Http2));
        let mut with_more = Opening::new();
        assert_eq!(with_more.spoken(&[PREFACE, b"more"].concat()), Some(Protocol::Http2));
        let mut http1 = Opening::new();
        assert_eq!(http1.spoken(b"GET / HTTP/1.1\r\n"), Some(Protocol::Http1));
        let mut like_it = Opening::new();
        assert_eq!(like_it.spoken(b"P"), None);
        assert_eq!(like_it.spoken(b"OST / HTTP/1.1\r\n"), Some(Protocol::Http1));
    }
}
