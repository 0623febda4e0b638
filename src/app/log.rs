//! The log's way out: a bounded buffer, and a thread that writes it to the standard error.
//!
//! Logging is best effort. A thread that logs never waits for whatever stands behind the standard
//! error (a full disk, a pipe that is not drained), and a line that cannot be written is counted
//! and dropped. Lines that fit are written in order, as many at once as there are.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Config, LogFormat};
use crate::metrics::LOG_LINES_LOST;

use super::exit;
use super::start::start_thread;

/// Lines that wait for the standard error. Further ones are dropped.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// How long the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before a non-blocking standard error that is full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(10);

static LOG: OnceLock<Buffer> = OnceLock::new();

/// Starts the log of the process.
pub fn start(config: &Config) {
    let buffer = LOG.get_or_init(Buffer::default);
    if let Err(error) = start_thread("log", || buffer.write_out(&mut io::stderr())) {
        exit::fatal(exit::BUG, &error.to_string());
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_filter))
        .with_writer(buffer)
        .log_internal_errors(false)
        .with_target(false);
    match config.log_format {
        LogFormat::Text => {
            log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
        }
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Logs a line that no level turns off.
pub(super) fn last_words(why: &str) {
    match LOG.get() {
        Some(buffer) => buffer.push(format!("{why}\n").as_bytes()),
        None => print(&mut io::stderr(), why),
    }
}

/// Waits a moment for what was logged to be written: before the process ends.
pub fn flush() {
    if let Some(buffer) = LOG.get() {
        buffer.flush(FLUSH_TIMEOUT);
    }
}

/// Prints a line for the caller of a command. One that does not listen misses it.
pub fn print(out: &mut impl Write, line: &str) {
    // There is nobody left to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Whole lines on their way out.
#[derive(Debug, Default)]
struct Buffer {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    pending: Vec<u8>,
    /// The writer has taken lines that are not yet written.
    writing: bool,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut lines = self.lock();
        if lines.pending.len() + line.len() > PENDING_BYTES_MAX {
            LOG_LINES_LOST.inc();
            return;
        }
        lines.pending.extend_from_slice(line);
        drop(lines);
        self.changed.notify_all();
    }

    /// Writes whatever comes, for ever.
    fn write_out(&self, out: &mut impl Write) {
        let mut batch = Vec::new();
        let mut broken_line = false;
        let mut told = 0;
        loop {
            let mut lines = self.lock();
            lines.writing = false;
            self.changed.notify_all();
            while lines.pending.is_empty() {
                lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
            }
            batch.clear();
            std::mem::swap(&mut lines.pending, &mut batch);
            lines.writing = true;
            drop(lines);
            if broken_line {
                batch.insert(0, b'\n');
            }
            let written = write_most(out, &batch);
            let rest = &batch[written..];
            broken_line = match batch[..written].last() {
                Some(last) => *last != b'\n',
                None => broken_line,
            };
            LOG_LINES_LOST.inc_by(rest.split_inclusive(|byte| *byte == b'\n').count() as u64);
            let lost = LOG_LINES_LOST.get();
            if rest.is_empty() && lost > told {
                warn!(lines = lost - told, "log lines were lost: they could not be written");
                told = lost;
            }
        }
    }

    fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut lines = self.lock();
        while lines.writing || !lines.pending.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Writes as much of `bytes` as `out` takes; says how much that is.
fn write_most(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(FULL_PAUSE);
            }
            Err(_) => break,
        }
    }
    written
}

impl<'a> MakeWriter<'a> for &'static Buffer {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter(self)
    }
}

/// Takes one line.
struct LineWriter(&'static Buffer);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Takes `room` bytes, and then nothing.
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_does_not_fit_is_left() {
        let mut out = Narrow { room: 7, taken: Vec::new() };
        assert_eq!(write_most(&mut out, b"one\ntwo\n"), 7);
        assert_eq!(write_most(&mut out, b"three\n"), 0);
        assert_eq!(out.taken, b"one\ntwo");
    }

    /// Passes every write on, and takes none before it may.
    struct Gate {
        open: mpsc::Receiver<()>,
        out: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().expect("the test goes on");
            self.out.send(bytes.to_vec()).expect("the test listens");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_stands_still_delays_nobody() {
        let buffer: &'static Buffer = Box::leak(Box::default());
        let (open, opened) = mpsc::channel();
        let (out, written) = mpsc::channel();
        thread::spawn(move || buffer.write_out(&mut Gate { open: opened, out }));
        let lost = LOG_LINES_LOST.get();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let lines_max = PENDING_BYTES_MAX / line.len();
        buffer.push(&line);
        while !buffer.lock().writing {
            thread::yield_now();
        }
        // What waits, and at least one line more.
        for _ in 0..=lines_max {
            buffer.push(&line);
        }
        assert!(LOG_LINES_LOST.get() > lost, "the buffer is bounded");
        buffer.flush(Duration::from_millis(1));
        assert!(buffer.lock().writing, "the end of the process does not wait for ever");
        open.send(()).expect("the writer waits");
        open.send(()).expect("the writer waits");
        let first = written.recv().expect("the writer goes on");
        assert_eq!(first.last(), Some(&b'\n'), "whole lines are written");
        assert!(written.recv().expect("the writer goes on").len() <= PENDING_BYTES_MAX);
        buffer.flush(Duration::from_secs(10));
        assert!(buffer.lock().pending.is_empty(), "everything that was taken is written");
    }
}
