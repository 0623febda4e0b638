//! From a run that breaks a promise to the few decisions that make it: time first, then the
//! faults (delta debugging), then the clients' requests.

use std::fmt::Write as _;

use crate::plan::{Cut, Length, Plan};
use crate::run::Run;

/// A run that is as short as it got.
pub struct Shrunk {
    /// What it is.
    pub run: Run,
    /// What is wrong with it.
    pub violation: String,
    /// How many worlds were tried.
    pub tries: u32,
}

struct Shrinker {
    best: Run,
    violation: String,
    tries: u32,
    tries_max: u32,
}

/// Shortens `run` for as long as it breaks the same promise; `None` if it breaks none.
pub fn shrink(run: &Run, tries_max: u32) -> Option<Shrunk> {
    let report = run.report();
    let violation = report.violation?;
    let decisions = Plan::draw(run.seed, run.length, &run.cut).decisions.len();
    let mut best = run.clone();
    best.cut.keep.get_or_insert_with(|| (0..decisions).collect());
    let mut shrinker = Shrinker { best, violation, tries: 1, tries_max };
    shrinker.shorten_time(report.stats.simulated_ms);
    shrinker.drop_faults();
    shrinker.drop_requests(report.stats.operations_checked as usize);
    shrinker.drop_faults();
    let Shrinker { best, violation, tries, .. } = shrinker;
    Some(Shrunk { run: best, violation, tries })
}

impl Shrinker {
    /// Takes `cut` if the run still breaks the same promise.
    fn try_cut(&mut self, cut: Cut) -> bool {
        if self.tries >= self.tries_max || cut == self.best.cut {
            return false;
        }
        self.tries += 1;
        let run = Run { cut, ..self.best.clone() };
        let Some(violation) = run.report().violation else { return false };
        if place(&violation) != place(&self.violation) {
            return false;
        }
        (self.best, self.violation) = (run, violation);
        true
    }

    /// Nothing after the violation matters; perhaps not all before it does.
    fn shorten_time(&mut self, violated_ms: u64) {
        let mut faulty_ms = violated_ms;
        for _ in 0..12 {
            let cut = Cut { faulty_us: Some(faulty_ms * 1000), ..self.best.cut.clone() };
            if !self.try_cut(cut) && self.best.cut.faulty_us.is_some() {
                break;
            }
            faulty_ms = faulty_ms * 3 / 4;
        }
        // What can no longer happen is no part of the story.
        let plan = Plan::draw(self.best.seed, self.best.length, &Cut::default());
        let until_us = self.best.cut.faulty_us.unwrap_or(plan.faulty_us);
        if let Some(keep) = &mut self.best.cut.keep {
            keep.retain(|at| plan.decisions[*at].at_us < until_us);
        }
    }

    /// Leaves out halves, quarters and so on of the faults.
    fn drop_faults(&mut self) {
        let mut parts = 2;
        loop {
            let keep = self.best.cut.keep.clone().unwrap_or_default();
            if keep.is_empty() {
                return;
            }
            let size = keep.len().div_ceil(parts);
            let smaller = (0..keep.len()).step_by(size).any(|from| {
                let mut rest = keep.clone();
                rest.drain(from..(from + size).min(keep.len()));
                self.try_cut(Cut { keep: Some(rest), ..self.best.cut.clone() })
            });
            if smaller {
                parts = parts.max(3) - 1;
            } else if size == 1 {
                return;
            } else {
                parts = (2 * parts).min(keep.len());
            }
            if self.tries >= self.tries_max {
                return;
            }
        }
    }

    fn drop_requests(&mut self, asked: usize) {
        let mut most = asked;
        while most > 0 {
            most /= 2;
            let cut = Cut { requests_max: Some(most), ..self.best.cut.clone() };
            if !self.try_cut(cut) {
                return;
            }
        }
    }
}

/// Where a violation was noticed: the same place, the same promise.
fn place(violation: &str) -> &str {
    violation.lines().next().unwrap_or_default()
}

/// The one command that shows `run` again.
pub fn command(run: &Run) -> String {
    let mut words = format!("cargo test --profile sim --test sim -- seed {}", run.seed);
    let mut add = |word: String| write!(words, " {word}").expect("a string takes all");
    if run.length == Length::Short {
        add("--short".to_owned());
    }
    if let Some(mutant) = run.mutant {
        add(format!("--mutant {}", mutant.name()));
    }
    if let Some(faulty_us) = run.cut.faulty_us {
        add(format!("--ms {}", faulty_us / 1000));
    }
    if let Some(requests_max) = run.cut.requests_max {
        add(format!("--requests {requests_max}"));
    }
    if let Some(keep) = &run.cut.keep {
        let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
        add(format!("--keep {}", if keep.is_empty() { "none".to_owned() } else { keep.join(",") }));
    }
    words
}

/// What remains, to be read.
pub fn story(shrunk: &Shrunk) -> String {
    let run = &shrunk.run;
    let plan = Plan::draw(run.seed, run.length, &run.cut);
    let mut told = String::new();
    let mut line = |text: String| writeln!(told, "{text}").expect("a string takes all");
    line(format!("{} members, {} clients", plan.members, plan.workload.clients));
    line(format!(
        "tick {} ms, heartbeat {} ticks, election {} to {} ticks",
        plan.tick_us / 1000,
        plan.heartbeat_ticks,
        plan.election_ticks_min,
        plan.election_ticks_max
    ));
    for decision in &plan.decisions {
        line(decision.to_string());
    }
    let seconds = plan.faulty_us as f64 / 1e6;
    line(format!("{seconds:8.3} s  everything heals, unless it broke before"));
    line(format!("violation: {}", shrunk.violation));
    line(format!("again: {}", command(run)));
    told
}
