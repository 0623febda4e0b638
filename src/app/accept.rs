//! The listeners: how connections come in, and what happens when they cannot.
//!
//! A listener never ends and never spins: a connection that ended before it was accepted is
//! passed over, and when the system has no descriptor or memory left, accepting pauses.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tracing::warn;

use super::connection::Connection;
use super::connections::{Connections, Seat};
use super::start::StartError;

/// Connections that the kernel holds until they are accepted: thousands of clients may come back at
/// the same moment. The system's own limit may be lower.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when the system cannot give a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Failures to accept are told this often.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// Binds a listener.
pub(super) fn listen(addr: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(addr)?;
    // Listening again changes the length of the queue and nothing else.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The connections that come in at one port.
pub(super) struct Incoming<I> {
    listener: TcpListener,
    connections: Arc<Connections>,
    info: fn(&TcpStream, &Seat) -> I,
    mended: bool,
    /// Accepted, and without a seat yet.
    unseated: Option<TcpStream>,
    pause: Option<Pin<Box<Sleep>>>,
    /// When it was told last that attempts fail.
    told: Option<Instant>,
}

impl<I> Incoming<I> {
    /// `info` makes what requests are told of their connection.
    pub(super) fn new(
        runtime: &Runtime,
        listener: StdListener,
        connections: Connections,
        info: fn(&TcpStream, &Seat) -> I,
    ) -> Result<Self, StartError> {
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(listener)
            .map_err(|source| StartError::System { what: "register a listener", source })?;
        Ok(Self {
            listener,
            connections: Arc::new(connections),
            info,
            mended: false,
            unseated: None,
            pause: None,
            told: None,
        })
    }

    /// The same, of clients that may be of the kind that has its requests mended.
    pub(super) fn mended(self) -> Self {
        Self { mended: true, ..self }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<TcpStream> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => return Poll::Ready(stream),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    self.connections.counts().failed.inc();
                    if self.told.is_none_or(|told| told.elapsed() > TOLD_EVERY) {
                        self.told = Some(Instant::now());
                        warn!(%error, "connections cannot be accepted: trying on");
                    }
                    self.connections.exhausted();
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        }
    }
}

/// Whether `error` tells of the connection that was to be accepted, not of the system.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied)
}

impl<I: Unpin> Stream for Incoming<I> {
    type Item = Result<Connection<I>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let stream = match self.unseated.take() {
                Some(stream) => stream,
                None => ready!(self.poll_accept(cx)),
            };
            match self.connections.poll_seat(cx) {
                Poll::Ready(Some(seat)) => {
                    let info = (self.info)(&stream, &seat);
                    let connection = Connection::new(stream, seat, info);
                    let connection = if self.mended { connection.mended() } else { connection };
                    return Poll::Ready(Some(Ok(connection)));
                }
                Poll::Ready(None) => drop(stream),
                Poll::Pending => {
                    self.unseated = Some(stream);
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn only_errors_of_the_system_pause_the_listener() {
        let of_connection = |errno: Errno| is_of_the_connection(&errno.into());
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PERM] {
            assert!(of_connection(errno), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS] {
            assert!(!of_connection(errno), "{errno}");
        }
    }
}
