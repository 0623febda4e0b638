//! Real time: the only place of the node that reads a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The driver is taken for hung when it has not turned for this long. Several ticks, several
/// scheduling hiccups, and well below what an operator would wait.
const PULSE_FRESH: Duration = Duration::from_secs(1);

/// Turns the passing of real time into ticks.
#[derive(Debug)]
pub struct Ticker {
    tick: Duration,
    next: Instant,
    /// More ticks than this at once say nothing new.
    burst_max: u32,
}

impl Ticker {
    /// Ticks every `tick`. After a pause (a frozen process, a stolen processor) at most
    /// `burst_max` ticks are due at once: enough for a leader to see that it lost touch.
    pub fn new(tick: Duration, burst_max: u32) -> Self {
        Self { tick, next: Instant::now() + tick, burst_max }
    }

    /// How long a tick lasts.
    pub fn length(&self) -> Duration {
        self.tick
    }

    /// When the next tick is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// How many ticks have become due.
    pub fn due(&mut self) -> u32 {
        let now = Instant::now();
        let mut ticks = 0;
        while self.next <= now && ticks < self.burst_max {
            self.next += self.tick;
            ticks += 1;
        }
        // Those beyond the burst are forgotten.
        if self.next <= now {
            self.next = now + self.tick;
        }
        ticks
    }
}

/// Tells others whether the driver still turns.
#[derive(Clone, Debug)]
pub struct Watchdog {
    start: Instant,
    turned_ms: Arc<AtomicU64>,
}

impl Watchdog {
    /// Fresh from now.
    pub fn new() -> Self {
        Self { start: Instant::now(), turned_ms: Arc::new(AtomicU64::new(0)) }
    }

    /// The driver turned.
    pub fn beat(&self) {
        self.turned_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Whether it turned lately.
    pub fn is_fresh(&self) -> bool {
        let idle_ms = self.elapsed_ms().saturating_sub(self.turned_ms.load(Ordering::Relaxed));
        idle_ms < PULSE_FRESH.as_millis() as u64
    }

    fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

/// A seed for the core's random numbers: different at every start and on every member.
pub fn seed(node_id: u64) -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since_epoch.as_nanos() as u64) ^ node_id.rotate_left(32) ^ u64::from(std::process::id())
}
