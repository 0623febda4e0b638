//! Work that may take its time, so that it leaves the processors and the disk to those who have a
//! client waiting. On a machine of two cores a snapshot at full speed makes one write in a hundred
//! take three times as long.
//!
//! A low priority would not do: between containers it counts for nothing, and who holds a lock that
//! requests need, if only now and then, could lose its processor with the lock in hand.

use std::thread;
use std::time::{Duration, Instant};

/// How long to rest for each stretch of work as long as that.
const REST_PER_WORK: u32 = 2;

/// A step that waited for a slow disk is not to be waited for again.
const REST_MAX: Duration = Duration::from_millis(20);

/// How fast one such piece of work goes.
#[derive(Debug)]
pub struct Throttle {
    /// Since the last rest.
    began: Instant,
}

impl Throttle {
    /// The work begins now.
    pub fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// A step of it is done: rests in proportion.
    pub fn rest(&mut self) {
        thread::sleep(rest_after(self.began.elapsed()));
        self.began = Instant::now();
    }
}

fn rest_after(worked: Duration) -> Duration {
    (worked * REST_PER_WORK).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_not_waited_for_again() {
        assert_eq!(rest_after(Duration::from_millis(1)), Duration::from_millis(2));
        assert_eq!(rest_after(Duration::from_secs(5)), REST_MAX);
    }
}
