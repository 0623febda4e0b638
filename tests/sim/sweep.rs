//! Many seeds, on several threads: what they add up to, what they found, and whether one seed is
//! one run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raft_node::testpoints::{Mark, Mutant};

use crate::plan::Length;
use crate::run::{Report, Run};
use crate::stats::Stats;

/// Every so many seeds one is run twice.
const TWICE_EVERY: u64 = 25;

/// Which seeds, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// No further seed is begun after this.
    pub time_max: Option<Duration>,
    /// How long each run goes on.
    pub length: Length,
    /// Which bug is on.
    pub mutant: Option<Mutant>,
    /// Stop at the first violation.
    pub first_only: bool,
    /// Say now and then how far it is.
    pub progress: bool,
}

/// What they came to.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What happened in all of them.
    pub stats: Stats,
    /// Rare paths that were taken.
    pub hits: BTreeMap<Mark, u64>,
    /// Seeds with a violation.
    pub violations: BTreeMap<u64, String>,
    /// Seeds that were run twice.
    pub twice: u64,
    /// How long it took.
    pub took: Duration,
}

impl Found {
    fn take(&mut self, seed: u64, report: Report) {
        self.stats.add(&report.stats);
        for (mark, hits) in report.hits {
            *self.hits.entry(mark).or_default() += hits;
        }
        if let Some(violation) = report.violation {
            self.violations.insert(seed, violation);
        }
    }

    /// Marks that were not met though a sweep must meet them.
    pub fn missed(&self) -> Vec<Mark> {
        Mark::ALL
            .iter()
            .copied()
            .filter(|mark| !self.hits.contains_key(mark) && !RARE.contains(mark))
            .collect()
    }
}

/// Marks that a sweep of a few hundred short worlds may miss: what takes more luck than that, and
/// what a single step of a simulated process does not leave room for.
const RARE: [Mark; 7] = [
    Mark::TimeoutNowIgnored,
    Mark::WriteOvertaken,
    Mark::ReadBegunAnew,
    Mark::ImageAbandoned,
    Mark::ChangesLost,
    Mark::LogRestarted,
    Mark::LateSnapshotIgnored,
];

impl Sweep {
    /// Runs them.
    pub fn run(&self) -> Found {
        let began = Instant::now();
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let found = Mutex::new(Found::default());
        thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| self.work(began, &next, &stop, &found));
            }
        });
        let mut found = found.into_inner().expect("panics are caught within");
        found.took = began.elapsed();
        found
    }

    fn work(&self, began: Instant, next: &AtomicU64, stop: &AtomicBool, found: &Mutex<Found>) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let late = self.time_max.is_some_and(|most| began.elapsed() > most);
            if number >= self.seeds || late || stop.load(Ordering::Relaxed) {
                return;
            }
            let seed = self.from + number;
            let run = Run { mutant: self.mutant, ..Run::of(seed, self.length) };
            let mut report = run.report();
            let twice = number.is_multiple_of(TWICE_EVERY);
            if twice && report.violation.is_none() {
                let again = run.report();
                if again.trace_hash != report.trace_hash {
                    report.violation = Some("two runs of the seed were two worlds".to_owned());
                }
            }
            let mut found = found.lock().expect("panics are caught within");
            found.twice += u64::from(twice);
            if report.violation.is_some() && self.first_only {
                stop.store(true, Ordering::Relaxed);
            }
            found.take(seed, report);
            if self.progress && found.stats.seeds.is_multiple_of(50) {
                tell_progress(&found, began.elapsed());
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "a long run says how far it is")]
fn tell_progress(found: &Found, took: Duration) {
    eprintln!(
        "{:6} seeds  {:8.1} h  {:6} elections  {:8} commits  {:3} violations  {:5} s",
        found.stats.seeds,
        found.stats.hours(),
        found.stats.elections,
        found.stats.commits,
        found.violations.len(),
        took.as_secs()
    );
}
