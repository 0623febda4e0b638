//! Breadth first over every order of events, each world once.
//!
//! Of the worlds seen, fingerprints are kept; of those at the edge, the worlds themselves and the
//! way that led there. Going by levels finds a shortest way to any violation.

#![expect(clippy::print_stderr, reason = "long searches tell how they come along")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use raft_node::testpoints::{self, Mark, Mutant};

use crate::bounds::Rules;
use crate::fingerprint::Set;
use crate::intern::{Lab, Sharded};
use crate::reachability::Goals;
use crate::server::Violation;
use crate::setup;
use crate::system_state::{Action, SystemState};

/// Worlds that a thread takes at a time.
const CHUNK: usize = 128;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub states: usize,
    pub threads: usize,
    pub mutant: Option<Mutant>,
    /// Tells how it goes every so often.
    pub progress: Option<Duration>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub states: usize,
    pub transitions: usize,
    /// Length of the longest way looked at.
    pub depth: usize,
    /// There was nothing left to look at.
    pub exhausted: bool,
    pub seconds: f64,
    pub goals: Goals,
    pub marks: BTreeMap<Mark, u64>,
    pub violation: Option<Counterexample>,
}

/// A way to a world that breaks a promise.
#[derive(Clone, Debug)]
pub struct Counterexample {
    pub violation: Violation,
    pub actions: Vec<Action>,
}

/// The way to a world, back from it.
struct Trail {
    action: Action,
    before: Option<Arc<Trail>>,
}

struct Edge {
    world: SystemState,
    trail: Option<Arc<Trail>>,
}

/// The search for every world within `rules`.
pub fn run(rules: &Rules, limits: Limits) -> Found {
    let started = Instant::now();
    let lab = Lab::new(rules.clone());
    testpoints::set_mutant(limits.mutant);
    testpoints::take_hits();
    let opened = setup::play(&lab);
    let marks = testpoints::take_hits();
    testpoints::set_mutant(None);
    let mut found = match opened {
        Ok(world) => Search::new(&lab, limits).levels(world, started),
        Err(violation) => {
            let violation = Some(Counterexample { violation, actions: Vec::new() });
            Found { violation, ..Found::default() }
        }
    };
    for (mark, count) in marks {
        *found.marks.entry(mark).or_default() += count;
    }
    found.seconds = started.elapsed().as_secs_f64();
    found
}

struct Search<'a> {
    lab: &'a Lab,
    limits: Limits,
    seen: Sharded<Set>,
    states: AtomicUsize,
    transitions: AtomicUsize,
    stop: AtomicBool,
    violation: Mutex<Option<Counterexample>>,
}

/// What one thread adds to a level.
#[derive(Default)]
struct Share {
    edge: Vec<Edge>,
    goals: Goals,
    marks: BTreeMap<Mark, u64>,
}

impl<'a> Search<'a> {
    fn new(lab: &'a Lab, limits: Limits) -> Self {
        Self {
            lab,
            limits,
            seen: Sharded::new(),
            states: AtomicUsize::new(0),
            transitions: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            violation: Mutex::new(None),
        }
    }

    fn levels(&self, world: SystemState, started: Instant) -> Found {
        self.is_new(&world);
        let mut edge = vec![Edge { world, trail: None }];
        let mut found = Found::default();
        let mut told = started;
        while !edge.is_empty() && !self.stop.load(Ordering::Relaxed) {
            found.depth += 1;
            let shares = self.level(edge);
            edge = Vec::new();
            for share in shares {
                edge.extend(share.edge);
                found.goals.extend(share.goals);
                for (mark, count) in share.marks {
                    *found.marks.entry(mark).or_default() += count;
                }
            }
            if self.limits.progress.is_some_and(|every| told.elapsed() >= every) {
                told = Instant::now();
                let (states, depth) = (self.states.load(Ordering::Relaxed), found.depth);
                eprintln!("  depth {depth}: {states} states, {} at the edge", edge.len());
            }
        }
        found.exhausted = edge.is_empty() && !self.stop.load(Ordering::Relaxed);
        found.states = self.states.load(Ordering::Relaxed);
        found.transitions = self.transitions.load(Ordering::Relaxed);
        let mut violation = self.violation.lock().unwrap_or_else(PoisonError::into_inner);
        found.violation = violation.take();
        found
    }

    /// One step further, everywhere.
    fn level(&self, edge: Vec<Edge>) -> Vec<Share> {
        let mut edge = edge.into_iter();
        let chunks: Vec<Vec<Edge>> =
            std::iter::from_fn(|| Some(edge.by_ref().take(CHUNK).collect::<Vec<_>>()))
                .take_while(|chunk| !chunk.is_empty())
                .collect();
        let threads = self.limits.threads.min(chunks.len());
        let chunks = Mutex::new(chunks);
        let work = || {
            testpoints::set_mutant(self.limits.mutant);
            testpoints::take_hits();
            let mut share = Share::default();
            while let Some(chunk) = { chunks.lock().unwrap_or_else(PoisonError::into_inner).pop() }
            {
                for from in chunk {
                    if self.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    self.expand(&from, &mut share);
                }
            }
            share.marks = testpoints::take_hits();
            testpoints::set_mutant(None);
            share
        };
        if threads <= 1 {
            return vec![work()];
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("panics are caught")).collect()
        })
    }

    fn expand(&self, from: &Edge, share: &mut Share) {
        for action in from.world.actions(&self.lab.rules) {
            let trail = || Some(Arc::new(Trail { action, before: from.trail.clone() }));
            match from.world.after(action, self.lab) {
                Ok(None) => {}
                Ok(Some((world, events))) => {
                    self.transitions.fetch_add(1, Ordering::Relaxed);
                    share.goals.note(&from.world, &world, &events);
                    if self.is_new(&world) {
                        share.edge.push(Edge { world, trail: trail() });
                    }
                }
                Err(violation) => self.violated(violation, trail().as_deref()),
            }
        }
    }

    fn is_new(&self, world: &SystemState) -> bool {
        let print = world.fingerprint(self.lab);
        let new = self.seen.with(print, |seen| seen.insert(print));
        if new && self.states.fetch_add(1, Ordering::Relaxed) + 1 >= self.limits.states {
            self.stop.store(true, Ordering::Relaxed);
        }
        new
    }

    fn violated(&self, violation: Violation, mut trail: Option<&Trail>) {
        let mut actions = Vec::new();
        while let Some(step) = trail {
            actions.push(step.action);
            trail = step.before.as_deref();
        }
        actions.reverse();
        let mut first = self.violation.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(Counterexample { violation, actions });
        self.stop.store(true, Ordering::Relaxed);
    }
}
