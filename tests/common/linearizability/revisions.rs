//! The checker that trusts revisions: is there one order of everything that explains every answer
//! and agrees with real time (strict serializability of the whole store)?
//!
//! The store itself says the order: each change has a revision of its own, and each answer says
//! the revision it was made at. So nothing is searched for but the few changes that nobody was
//! told of (see `timeline`). What is left is to compare every answer in full with what an
//! independent model gives at that place, and to see that time fits: whatever was answered before
//! an operation began stands before it. To that end each operation, at the time of its call, takes
//! the first place that explains its answer and is not before any place already answered: if an
//! order exists at all, these places are one.
//!
//! Serializable reads may be stale, so they keep no order among themselves; but what they show
//! must be a state that the store had come to, whole. One that shows a state from before the
//! history says nothing about it: nobody here knows that state.
//!
//! It does not see what nobody was shown: a lost write that nobody read again, unless a log is
//! given. Without a log a compaction that nobody answered may explain any refusal, at any time.

use super::Verdict;
use super::history::{Answer, Freshness, History, Operation, Outcome, Request, Time};
use super::timeline::{self, Log, Timeline};

/// Judges a history. With the committed `log`, in order, each command with the revision that the
/// store had after it, nothing about unanswered writes is guessed.
pub fn check(history: &History, log: Option<&Log>) -> Verdict {
    let history = &without_earlier(history);
    let timeline = match timeline::build(history, log) {
        Ok(timeline) => timeline,
        Err(verdict) => return verdict,
    };
    let mut sweep = Sweep::new(&history.operations, &timeline);
    for event in events(&history.operations) {
        let result = match event {
            Event::Call(at) => sweep.call(at),
            Event::Return(at) => {
                sweep.returned(at);
                Ok(())
            }
        };
        if let Err(what) = result {
            return Verdict::violation(what);
        }
    }
    Verdict::Linearizable
}

/// The history but for the reads that were allowed to show a state from before it, and did.
fn without_earlier(history: &History) -> History {
    let is_earlier = |operation: &Operation| {
        let shown = operation.returned().and_then(|(_, answer)| answer.revision());
        is_serializable(&operation.request) && shown.is_some_and(|shown| shown < history.base)
    };
    let operations = history.operations.iter().filter(|operation| !is_earlier(operation));
    History { base: history.base, operations: operations.cloned().collect() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call(usize),
    Return(usize),
}

/// Calls and returns in the order of time. Of one moment the calls come first: what is not known
/// to be over when another begins overlaps it.
fn events(operations: &[Operation]) -> Vec<Event> {
    let mut events: Vec<(Time, Event)> = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        match &operation.outcome {
            Outcome::Returned { at: end, .. } => {
                events.push((operation.called, Event::Call(at)));
                events.push((*end, Event::Return(at)));
            }
            Outcome::Unknown => events.push((operation.called, Event::Call(at))),
            Outcome::NoEffect { .. } => {}
        }
    }
    events.sort_unstable();
    events.into_iter().map(|(_, event)| event).collect()
}

/// Time passing.
struct Sweep<'a> {
    operations: &'a [Operation],
    timeline: &'a Timeline,
    /// Of each operation that made a step, that step.
    made: Vec<Option<usize>>,
    /// The place that each operation took.
    places: Vec<usize>,
    /// The last place that somebody knows the store has come to, and who.
    floor: usize,
    known_by: Option<usize>,
}

impl<'a> Sweep<'a> {
    fn new(operations: &'a [Operation], timeline: &'a Timeline) -> Self {
        let mut made = vec![None; operations.len()];
        for (place, step) in timeline.steps.iter().enumerate() {
            if let Some(owner) = step.owner {
                made[owner] = Some(place);
            }
        }
        let places = vec![0; operations.len()];
        Self { operations, timeline, made, places, floor: 0, known_by: None }
    }

    fn call(&mut self, at: usize) -> Result<(), String> {
        let operation = &self.operations[at];
        self.places[at] = match (self.made[at], operation.returned()) {
            (Some(place), answer) => {
                if place <= self.floor {
                    return Err(self.inverted(at, "made a change before it was asked for"));
                }
                let explained = answer.is_none_or(|(_, answer)| {
                    self.timeline.explains(place - 1, &operation.request, answer)
                });
                if !explained {
                    return Err(self.inverted(at, "could not be answered so there"));
                }
                place
            }
            (None, Some((end, answer))) => self.find(at, end, answer)?,
            (None, None) => return Ok(()),
        };
        Ok(())
    }

    fn returned(&mut self, at: usize) {
        let fresh = !is_serializable(&self.operations[at].request);
        if fresh && self.places[at] > self.floor {
            self.floor = self.places[at];
            self.known_by = Some(at);
        }
    }

    /// The first place that explains an answer which changed nothing.
    fn find(&self, at: usize, end: Time, answer: &Answer) -> Result<usize, String> {
        let request = &self.operations[at].request;
        let all = match answer.revision() {
            Some(revision) => self.timeline.at(revision),
            None => 0..self.timeline.steps.len(),
        };
        let from = if is_serializable(request) { 0 } else { self.floor };
        for place in all.start.max(from)..all.end {
            let owner = self.timeline.steps[place].owner;
            if owner.is_some_and(|owner| self.operations[owner].called > end) {
                break;
            }
            if self.timeline.explains(place, request, answer) {
                return Ok(place);
            }
        }
        Err(self.inverted(at, "shows no state that the store had between its call and its end"))
    }

    fn inverted(&self, at: usize, what: &str) -> String {
        let operation = &self.operations[at];
        let known = self.known_by.map(|by| &self.operations[by]);
        let state = self.timeline.steps[self.floor].state;
        format!("{operation:#?}\n{what}: before it, {state:?} was known by\n{known:#?}")
    }
}

fn is_serializable(request: &Request) -> bool {
    match request {
        Request::Write(_) => false,
        Request::Range(_, freshness) | Request::ReadTxn(_, freshness) => {
            *freshness == Freshness::Serializable
        }
    }
}
