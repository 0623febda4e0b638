//! The connections of one port: counted, and the one given up that is missed least.
//!
//! A port holds so many connections and no more. One that comes when the port is full takes the
//! place of the idlest: first of those that have not said yet what they speak, then of those
//! without a request under way. Where every one has such a request, the new one is closed.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::api::Underway;
use crate::metrics::PortMetrics;

/// How many connections are looked at to find an idle one: enough to find one of the idlest.
const LOOKED_AT_MAX: usize = 512;

/// A full port is told about this often, not for each connection.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// How long a port holds fewer connections after the system had no descriptor left.
const SHRUNK_FOR: Duration = Duration::from_mins(1);

/// The table of a port.
#[derive(Debug)]
pub(super) struct Connections {
    port: &'static str,
    max: usize,
    counts: PortMetrics,
    began: Instant,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    seats: Vec<Option<Arc<Line>>>,
    free: Vec<usize>,
    taken: usize,
    /// Where the last look ended.
    cursor: usize,
    /// Waits for a seat.
    waiting: Option<Waker>,
    told: Option<Instant>,
    /// As many connections as the system has been found to bear, and since when.
    shrunk: Option<(usize, Instant)>,
}

/// What is known of one connection.
#[derive(Debug)]
struct Line {
    underway: Underway,
    /// It has said what it speaks.
    spoke: AtomicBool,
    /// When bytes last went either way, in milliseconds since the table was made.
    active_ms: AtomicU64,
    closing: AtomicBool,
    /// The task that reads and writes it.
    task: Mutex<Option<Waker>>,
}

impl Connections {
    pub(super) fn new(port: &'static str, max: usize, counts: PortMetrics) -> Self {
        Self { port, max, counts, began: Instant::now(), table: Mutex::default() }
    }

    pub(super) fn counts(&self) -> &PortMetrics {
        &self.counts
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// A seat for a new connection. In a full port the idlest connection is told to close, and the
    /// seat is ready once it has; `None` if there is none to close.
    pub(super) fn poll_seat(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Option<Seat>> {
        let mut table = self.lock();
        let max = self.max_now(&mut table);
        if table.taken >= max {
            let waits = self.evict(&mut table);
            if table.told.is_none_or(|told| told.elapsed() > TOLD_EVERY) {
                table.told = Some(Instant::now());
                warn!(
                    port = self.port,
                    max, "the port is full: new connections take the place of idle ones"
                );
            }
            if !waits {
                self.counts.refused.inc();
                return Poll::Ready(None);
            }
            table.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let line = Arc::new(Line {
            underway: Underway::default(),
            spoke: AtomicBool::new(false),
            active_ms: AtomicU64::new(self.now_ms()),
            closing: AtomicBool::new(false),
            task: Mutex::default(),
        });
        table.taken += 1;
        self.counts.open.inc();
        let at = table.free.pop().unwrap_or_else(|| {
            table.seats.push(None);
            table.seats.len() - 1
        });
        table.seats[at] = Some(Arc::clone(&line));
        Poll::Ready(Some(Seat { connections: Arc::clone(self), at, line }))
    }

    /// The system has no descriptor left: closes a quarter of the connections, the idlest, and
    /// holds no more for a while.
    pub(super) fn exhausted(&self) {
        let mut table = self.lock();
        let surplus = table.taken / 4 + 1;
        table.shrunk = Some((table.taken.saturating_sub(surplus).max(1), Instant::now()));
        for _ in 0..surplus {
            self.close_idlest(&mut table);
        }
    }

    fn max_now(&self, table: &mut Table) -> usize {
        table.shrunk = table.shrunk.filter(|(_, since)| since.elapsed() < SHRUNK_FOR);
        table.shrunk.map_or(self.max, |(max, _)| max.min(self.max))
    }

    /// Whether a seat will come free: one is told to close, or was told already.
    fn evict(&self, table: &mut Table) -> bool {
        let is_closing = |line: &Arc<Line>| line.closing.load(Ordering::Relaxed);
        table.window().any(is_closing) || self.close_idlest(table)
    }

    /// Tells the idlest connection of those that are looked at to close; whether there was one.
    fn close_idlest(&self, table: &mut Table) -> bool {
        let is_idle =
            |line: &&Arc<Line>| line.underway.count() == 0 && !line.closing.load(Ordering::Relaxed);
        let idlest = table.window().filter(is_idle).min_by_key(|line| {
            (line.spoke.load(Ordering::Relaxed), line.active_ms.load(Ordering::Relaxed))
        });
        let found = idlest.map(|line| line.close()).is_some();
        if found {
            self.counts.evicted.inc();
        }
        table.cursor = (table.cursor + LOOKED_AT_MAX) % table.seats.len().max(1);
        found
    }

    fn give_back(&self, at: usize) {
        let mut table = self.lock();
        table.seats[at] = None;
        table.free.push(at);
        table.taken -= 1;
        self.counts.open.dec();
        if let Some(waiting) = table.waiting.take() {
            waiting.wake();
        }
    }
}

impl Table {
    /// The connections to look at now.
    fn window(&self) -> impl Iterator<Item = &Arc<Line>> {
        let seats = self.seats.len();
        let places = (0..seats.min(LOOKED_AT_MAX)).map(move |step| (self.cursor + step) % seats);
        places.filter_map(|at| self.seats[at].as_ref())
    }
}

impl Line {
    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// One connection's place in the table, until dropped.
#[derive(Debug)]
pub(super) struct Seat {
    connections: Arc<Connections>,
    at: usize,
    line: Arc<Line>,
}

impl Seat {
    /// The requests under way on this connection.
    pub(super) fn underway(&self) -> &Underway {
        &self.line.underway
    }

    /// Bytes went one way or the other.
    pub(super) fn active(&self) {
        self.line.active_ms.store(self.connections.now_ms(), Ordering::Relaxed);
    }

    /// It has said what it speaks.
    pub(super) fn spoke(&self) {
        self.line.spoke.store(true, Ordering::Relaxed);
    }

    /// An error once this connection is to close.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.line.closing.load(Ordering::Relaxed) {
            let why = "closed for want of room: it was the idlest";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        Ok(())
    }

    /// The same for a task that is about to wait: it is woken when that changes.
    pub(super) fn check_and_wait(&self, cx: &Context<'_>) -> io::Result<()> {
        {
            let mut task = self.line.task.lock().unwrap_or_else(PoisonError::into_inner);
            match task.as_mut() {
                Some(task) => task.clone_from(cx.waker()),
                None => *task = Some(cx.waker().clone()),
            }
        }
        if self.line.closing.load(Ordering::SeqCst) { self.check() } else { Ok(()) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.give_back(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(max: usize) -> Arc<Connections> {
        Arc::new(Connections::new("clients", max, PortMetrics::default()))
    }

    fn seat(port: &Arc<Connections>) -> Poll<Option<Seat>> {
        port.poll_seat(&mut Context::from_waker(Waker::noop()))
    }

    fn seated(port: &Arc<Connections>) -> Seat {
        match seat(port) {
            Poll::Ready(Some(seat)) => seat,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_silent_give_way_before_the_idle() {
        let port = port(2);
        let idle = seated(&port);
        idle.spoke();
        let silent = seated(&port);
        assert!(seat(&port).is_pending());
        assert!(silent.check().is_err() && idle.check().is_ok());
        assert!(seat(&port).is_pending(), "one at a time is told");
        assert!(idle.check().is_ok());
        drop(silent);
        let _third = seated(&port);
        assert_eq!(port.counts().open.get(), 2);
        assert_eq!(port.counts().evicted.get(), 1);
    }

    #[test]
    fn who_is_served_stays() {
        let port = port(1);
        let served = seated(&port);
        let request = served.underway().begin();
        assert!(matches!(seat(&port), Poll::Ready(None)), "the new one is closed");
        assert_eq!(port.counts().refused.get(), 1);
        drop(request);
        assert!(seat(&port).is_pending());
        assert!(served.check_and_wait(&Context::from_waker(Waker::noop())).is_err());
    }

    #[test]
    fn the_longest_idle_gives_way() {
        let port = port(3);
        let all = [seated(&port), seated(&port), seated(&port)];
        for (active_ms, seat) in [(3, &all[0]), (1, &all[1]), (2, &all[2])] {
            seat.spoke();
            seat.line.active_ms.store(active_ms, Ordering::Relaxed);
        }
        port.exhausted();
        assert!(all[1].check().is_err() && all[0].check().is_ok() && all[2].check().is_ok());
        drop(all);
        let _two = [seated(&port), seated(&port)];
        assert!(seat(&port).is_pending(), "the system does not bear three");
    }
}
