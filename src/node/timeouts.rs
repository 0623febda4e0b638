//! Tells operators when the election time-outs in force leave the configured ones, and what to set.
//!
//! One line for each class (as configured, up to twice that, up to four times, beyond), not for
//! each value: on a loaded machine the stretch changes with every heartbeat.

use std::time::Duration;

use tracing::{info, warn};

/// By how much the time-outs are stretched, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Configured,
    UpToTwice,
    UpToFourTimes,
    Beyond,
}

/// What was last said of them.
#[derive(Debug)]
pub struct TimeoutReport {
    tick: Duration,
    /// The shortest, when nothing is stretched; known from the first report, which precedes any
    /// message.
    configured_ticks: Option<u32>,
    class: Class,
    /// The time-outs have been below the class for so many reports.
    below: u32,
}

/// A lower class is told of when it has lasted for so many ticks: ten seconds by default. Those who
/// are told of every dip learn nothing.
const CALM_REPORTS: u32 = 2000;

impl TimeoutReport {
    /// Ticks last that long.
    pub fn new(tick: Duration) -> Self {
        Self { tick, configured_ticks: None, class: Class::Configured, below: 0 }
    }

    /// Takes the time-outs now, once a tick. The shortest, in seconds, for the metrics.
    pub fn report(&mut self, least_ticks: u32, longest_ticks: u32) -> f64 {
        let configured = *self.configured_ticks.get_or_insert(least_ticks);
        let (least, longest) = (self.tick * least_ticks, self.tick * longest_ticks);
        let class = class(least_ticks, configured);
        if class >= self.class {
            self.below = 0;
        } else {
            self.below += 1;
        }
        if class > self.class {
            warn!(
                min_ms = least.as_millis() as u64,
                max_ms = longest.as_millis() as u64,
                "heartbeats are late again and again: election time-outs are stretched. Give the \
                 members more processor time, or set RAFT_ELECTION_TIMEOUT_MIN_MS and \
                 RAFT_ELECTION_TIMEOUT_MAX_MS to such values"
            );
            self.class = class;
        } else if self.below >= CALM_REPORTS {
            self.class = class;
            self.below = 0;
            info!(
                min_ms = least.as_millis() as u64,
                max_ms = longest.as_millis() as u64,
                "heartbeats are punctual again: election time-outs are shorter"
            );
        }
        least.as_secs_f64()
    }
}

fn class(ticks: u32, configured: u32) -> Class {
    let percent = u64::from(ticks) * 100 / u64::from(configured.max(1));
    match percent {
        ..=100 => Class::Configured,
        101..=200 => Class::UpToTwice,
        201..=400 => Class::UpToFourTimes,
        401.. => Class::Beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_told_of_once_and_given_up_when_it_has_been_calm() {
        let mut report = TimeoutReport::new(Duration::from_millis(5));
        assert!((report.report(30, 60) - 0.15).abs() < 1e-9);
        assert_eq!(report.class, Class::Configured);
        report.report(70, 140);
        assert_eq!(report.class, Class::UpToFourTimes);
        for _ in 1..CALM_REPORTS {
            report.report(31, 62);
            assert_eq!(report.class, Class::UpToFourTimes);
        }
        report.report(65, 130);
        assert_eq!(report.below, 0, "not calm for long enough");
        for _ in 0..CALM_REPORTS {
            report.report(31, 62);
        }
        assert_eq!(report.class, Class::UpToTwice);
    }
}
