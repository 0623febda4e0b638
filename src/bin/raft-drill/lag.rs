//! How late this process itself runs.
//!
//! A machine that is shared, or frozen for a moment with all that is on it, delays this tool as
//! much as the cluster that it measures. What the tool itself was late by tells such a moment from
//! a fault of the cluster.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often it looks at the clock.
const INTERVAL: Duration = Duration::from_millis(5);
/// Timers are no more exact than this, whatever the machine does.
const WORTH_NOTING: Duration = Duration::from_millis(3);

/// When this process woke too late, and by how much.
type Late = Vec<(Instant, Duration)>;

/// Wakes up every few milliseconds and notes when that was late.
pub struct LagMeter {
    late: Arc<Mutex<Late>>,
    task: JoinHandle<()>,
}

impl LagMeter {
    /// Starts on the runtime whose lateness matters.
    pub fn start() -> Self {
        let late = Arc::new(Mutex::new(Late::new()));
        let task = tokio::spawn(watch(late.clone()));
        Self { late, task }
    }

    /// The worst that touches `window`.
    pub fn worst(&self, window: &Range<Instant>) -> Duration {
        worst(&self.late.lock().expect("nothing panics with it in hand"), window)
    }
}

impl Drop for LagMeter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(late: Arc<Mutex<Late>>) {
    loop {
        let due = Instant::now() + INTERVAL;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        let by = now - due;
        if by > WORTH_NOTING {
            late.lock().expect("nothing panics with it in hand").push((now, by));
        }
    }
}

fn worst(late: &[(Instant, Duration)], window: &Range<Instant>) -> Duration {
    let touching =
        late.iter().filter(|(woke, by)| *woke > window.start && *woke < window.end + *by);
    touching.map(|(_, by)| *by).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lateness_that_touches_the_window_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let late = [(at(100), Duration::from_millis(50)), (at(300), Duration::from_millis(20))];
        let worst_ms = |from, to| worst(&late, &(at(from)..at(to))).as_millis();
        assert_eq!(worst_ms(0, 400), 50);
        assert_eq!(worst_ms(90, 200), 50, "the end of it");
        assert_eq!(worst_ms(0, 60), 50, "its beginning");
        assert_eq!(worst_ms(100, 280), 0, "between the two");
        assert_eq!(worst_ms(120, 400), 20);
    }

    #[tokio::test]
    async fn a_blocked_runtime_is_late() {
        let meter = LagMeter::start();
        let start = Instant::now();
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(60));
        while meter.worst(&(start..Instant::now())) < Duration::from_millis(40) {
            assert!(start.elapsed() < Duration::from_secs(30), "the lateness is not noted");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
