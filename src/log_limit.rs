//! How often one event may be logged: what repeats is counted, and the count goes with the next
//! line.
//!
//! A peer or a broken network can cause the same event many times a second. A log line for each
//! hides the others, and costs the thread that writes it. Time is an argument. Memory is bounded:
//! once all keys are taken by events of the present period, an event with a new key is not logged
//! either, so that a peer which varies what it sends gains nothing by it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Events that are told apart at once.
const KEYS_MAX: usize = 64;

/// Lets each kind of event, told apart by `K`, be logged `burst` times in a period.
#[derive(Debug)]
pub struct LogLimit<K> {
    burst: u32,
    period: Duration,
    seen: BTreeMap<K, Seen>,
}

/// The period of one kind of event.
#[derive(Debug)]
struct Seen {
    since: Instant,
    logged: u32,
    suppressed: u64,
}

impl<K: Ord> LogLimit<K> {
    /// Nothing was logged yet.
    pub const fn new(burst: u32, period: Duration) -> Self {
        Self { burst, period, seen: BTreeMap::new() }
    }

    /// Whether this event is to be logged: then how many of its kind were not since the last that
    /// was.
    pub fn admit(&mut self, key: K, now: Instant) -> Option<u64> {
        let period = self.period;
        let is_over = |seen: &Seen| now.saturating_duration_since(seen.since) >= period;
        if let Some(seen) = self.seen.get_mut(&key) {
            if is_over(seen) {
                (seen.since, seen.logged) = (now, 0);
            }
            if seen.logged == self.burst {
                seen.suppressed += 1;
                return None;
            }
            seen.logged += 1;
            return Some(std::mem::take(&mut seen.suppressed));
        }
        if self.seen.len() == KEYS_MAX {
            self.seen.retain(|_, seen| !is_over(seen));
        }
        if self.seen.len() == KEYS_MAX {
            return None;
        }
        self.seen.insert(key, Seen { since: now, logged: 1, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    #[test]
    fn what_repeats_is_logged_in_bounds_and_counted() {
        let mut limit = LogLimit::new(2, PERIOD);
        let start = Instant::now();
        let admitted: Vec<_> = (0..5).map(|_| limit.admit("one", start)).collect();
        assert_eq!(admitted, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.admit("other", start), Some(0), "kinds do not count for each other");
        assert_eq!(limit.admit("one", start + PERIOD), Some(3), "the count goes with the next");
        assert_eq!(limit.admit("one", start + PERIOD), Some(0));
        assert_eq!(limit.admit("one", start + PERIOD), None);
    }

    #[test]
    fn keys_that_vary_take_no_memory_and_gain_no_lines() {
        let mut limit = LogLimit::new(1, PERIOD);
        let start = Instant::now();
        let admitted = (0..10_000).filter(|key| limit.admit(*key, start).is_some()).count();
        assert_eq!((admitted, limit.seen.len()), (KEYS_MAX, KEYS_MAX));
        assert_eq!(limit.admit(20_000, start + PERIOD), Some(0), "room comes back with time");
        assert_eq!(limit.seen.len(), 1);
    }
}
