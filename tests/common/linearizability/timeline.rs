//! The one order of all changes: which operation made each revision, and what the store was then.
//!
//! The answers say most of it, for each change has a revision of its own. A revision that nobody
//! claims was made by an operation without an answer: the log says by which or, without a log, a
//! search through those that are left, cut short by every answer that shows the revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_node::kv::{
    Command, CompactionRequest, Error, KeyValue, Response, ResponseOp, TxnResponse,
};

use super::Verdict;
use super::history::{Answer, History, Operation, Outcome, Request};
use super::model::{self, Model, NEVER, State};

/// What the committed log says, in its order: each command with the revision that the store then
/// had. All of it, from the first entry on.
pub type Log = [(i64, Command)];

/// Answers computed before the search gives up.
const ANSWERS_MAX: usize = 2_000_000;

/// One state that the store went through.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The state.
    pub state: State,
    /// The operation that led to it, if it is known.
    pub owner: Option<usize>,
}

/// All states, in order, with all versions behind them.
pub struct Timeline {
    pub model: Model,
    pub steps: Vec<Step>,
    /// Targets of compactions that nobody answered and no log tells of.
    pub maybe_compacted: Vec<i64>,
}

impl Timeline {
    /// The places of the states that have this revision.
    pub fn at(&self, revision: i64) -> std::ops::Range<usize> {
        let from = self.steps.partition_point(|step| step.state.revision < revision);
        let to = self.steps.partition_point(|step| step.state.revision <= revision);
        from..to
    }

    /// Whether an operation that meets this state is told `answer`.
    pub fn explains(&self, place: usize, request: &Request, answer: &Answer) -> bool {
        let state = self.steps[place].state;
        let hidden = self.maybe_compacted.iter().filter(|target| {
            **target > state.compacted && **target <= state.revision && is_compacted(answer)
        });
        let levels = std::iter::once(state.compacted).chain(hidden.copied());
        levels
            .map(|compacted| self.model.outcome(State { compacted, ..state }, request).answer)
            .any(|expected| same(&expected, answer))
    }
}

/// Whether an answer is the expected one. A refusal need not say at which revision it was made.
pub fn same(expected: &Answer, answer: &Answer) -> bool {
    match (expected, answer) {
        (Answer::Refused { error: expected, .. }, Answer::Refused { error, revision: None }) => {
            expected == error
        }
        (expected, answer) => expected == answer,
    }
}

fn is_compacted(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused { error: Error::Compacted, .. })
}

/// Whether an answer claims that the operation changed something.
fn claims_change(answer: &Answer) -> bool {
    fn changed(txn: &TxnResponse) -> bool {
        txn.responses.iter().any(|response| match response {
            ResponseOp::Range(_) => false,
            ResponseOp::Put(_) => true,
            ResponseOp::DeleteRange(response) => response.deleted > 0,
            ResponseOp::Txn(inner) => changed(inner),
        })
    }
    match answer {
        Answer::Written(Response::Put(_)) => true,
        Answer::Written(Response::DeleteRange(response)) => response.deleted > 0,
        Answer::Written(Response::Txn(response)) => changed(response),
        Answer::Written(Response::Compact(_))
        | Answer::Range(_)
        | Answer::ReadTxn(_)
        | Answer::Refused { .. } => false,
    }
}

/// The timeline of a history, or why there is none.
pub fn build(history: &History, log: Option<&Log>) -> Result<Timeline, Verdict> {
    let mut builder = Builder::new(history, log)?;
    builder.search()?;
    Ok(builder.finish())
}

struct Builder<'a> {
    operations: &'a [Operation],
    /// By revision, from 2 on: whoever says that it made it.
    claims: BTreeMap<i64, usize>,
    /// What the log says made each revision.
    logged: Option<BTreeMap<i64, &'a Command>>,
    /// Writes without an answer, by the time of their calls.
    unknown: Vec<usize>,
    used: Vec<bool>,
    /// Answers that change nothing, by the revision that they say.
    answered: BTreeMap<i64, Vec<usize>>,
    /// Reads of the past, by the revision that they asked for.
    past: BTreeMap<i64, Vec<usize>>,
    /// What answers show of each revision: a key, and its value unless it was left out.
    seen: BTreeMap<i64, Vec<(&'a Bytes, &'a Bytes)>>,
    /// Compactions by the revision they met, with who asked if that is known.
    compactions: BTreeMap<i64, Vec<(i64, Option<usize>)>>,
    maybe_compacted: Vec<i64>,
    first: State,
    last: i64,
    timeline: Timeline,
    /// Who made each revision, as the search has it now.
    makers: Vec<usize>,
    answers: usize,
    /// The furthest that the search came, and what stopped it there.
    furthest: (i64, String),
}

impl<'a> Builder<'a> {
    fn new(history: &'a History, log: Option<&'a Log>) -> Result<Self, Verdict> {
        let operations = history.operations.as_slice();
        let model = Model::new(history.base);
        let first = model.first();
        let timeline = Timeline { model, steps: Vec::new(), maybe_compacted: Vec::new() };
        let mut builder = Self {
            operations,
            claims: BTreeMap::new(),
            logged: None,
            unknown: Vec::new(),
            used: vec![false; operations.len()],
            answered: BTreeMap::new(),
            past: BTreeMap::new(),
            seen: BTreeMap::new(),
            compactions: BTreeMap::new(),
            maybe_compacted: Vec::new(),
            first,
            last: first.revision,
            timeline,
            makers: Vec::new(),
            answers: 0,
            furthest: (first.revision, String::new()),
        };
        builder.sort_operations()?;
        if let Some(log) = log {
            builder.read_log(log)?;
        }
        for targets in builder.compactions.values_mut() {
            targets.sort_unstable();
        }
        Ok(builder)
    }

    fn sort_operations(&mut self) -> Result<(), Verdict> {
        for (at, operation) in self.operations.iter().enumerate() {
            let answer = match (&operation.outcome, &operation.request) {
                (Outcome::Returned { answer, .. }, _) => answer,
                (Outcome::Unknown, Request::Write(Command::Compact(compact))) => {
                    self.maybe_compacted.push(compact.revision);
                    continue;
                }
                (Outcome::Unknown, Request::Write(_)) => {
                    self.unknown.push(at);
                    continue;
                }
                (Outcome::Unknown | Outcome::NoEffect { .. }, _) => continue,
            };
            // What an operation sees of its own writes may be gone when it is done.
            let own = answer.revision().filter(|_| claims_change(answer));
            each_shown(answer, &mut |kv| {
                if own != Some(kv.mod_revision) {
                    self.seen.entry(kv.mod_revision).or_default().push((&kv.key, &kv.value));
                }
            });
            let Some(revision) = answer.revision() else { continue };
            self.last = self.last.max(revision);
            if claims_change(answer) {
                if let Some(other) = self.claims.insert(revision, at) {
                    let both = [&self.operations[other], operation];
                    return violation(format!("revision {revision} is of both {both:#?}"));
                }
                continue;
            }
            if let (
                Answer::Written(Response::Compact(_)),
                Request::Write(Command::Compact(asked)),
            ) = (answer, &operation.request)
            {
                let compactions = self.compactions.entry(revision).or_default();
                compactions.push((asked.revision, Some(at)));
            }
            self.answered.entry(revision).or_default().push(at);
            if let (Answer::Range(_), Request::Range(range, _)) = (answer, &operation.request)
                && (self.first.revision..revision).contains(&range.revision)
            {
                self.past.entry(range.revision).or_default().push(at);
            }
        }
        self.unknown.sort_by_key(|at| self.operations[*at].called);
        Ok(())
    }

    /// The log knows who was not answered; and what was answered must be in it.
    fn read_log(&mut self, log: &'a Log) -> Result<(), Verdict> {
        let mut logged = BTreeMap::new();
        let mut now = self.first;
        self.maybe_compacted.clear();
        for (revision, command) in log {
            if let Command::Compact(CompactionRequest { revision: target }) = command {
                if (now.compacted + 1..=now.revision).contains(target) {
                    now.compacted = *target;
                    let known = self.compactions.entry(now.revision).or_default();
                    if known.iter().all(|(answered, _)| answered != target) {
                        known.push((*target, None));
                    }
                }
            } else if *revision == now.revision + 1 {
                logged.insert(*revision, command);
                now.revision = *revision;
            }
            if *revision != now.revision {
                let what = format!("{command:?} is said to have led to revision {revision}");
                return violation(format!("the log skips or goes back: at {now:?}, {what}"));
            }
        }
        if let Some((at, operation)) = self.claims.range(now.revision + 1..).next() {
            let operation = &self.operations[*operation];
            return violation(format!("revision {at} is not in the log: {operation:#?}"));
        }
        if self.last > now.revision {
            return violation(format!("revision {} was shown, but not logged", self.last));
        }
        self.last = now.revision;
        self.logged = Some(logged);
        Ok(())
    }

    /// Finds who made each revision, such that every answer comes out as it was.
    fn search(&mut self) -> Result<(), Verdict> {
        let revisions = usize::try_from(self.last - self.first.revision);
        let mut next_candidate = vec![0; 1 + revisions.expect("the first is the lowest")];
        if let Err(what) = self.check_answers(self.first) {
            return violation(what);
        }
        while self.makers.len() < next_candidate.len() - 1 {
            let depth = self.makers.len();
            if self.answers > ANSWERS_MAX {
                let (revision, what) = &self.furthest;
                let why = format!("no order after {ANSWERS_MAX} answers; at {revision}: {what}");
                return Err(Verdict::Undecided(why));
            }
            if let Some(taken) = self.advance(next_candidate[depth]) {
                next_candidate[depth] = taken + 1;
                next_candidate[depth + 1] = 0;
                continue;
            }
            let Some(maker) = self.makers.pop() else {
                let (revision, what) = std::mem::take(&mut self.furthest);
                return violation(format!("nothing explains revision {revision}: {what}"));
            };
            self.used[maker] = false;
            self.timeline.model.pop();
        }
        Ok(())
    }

    /// Gives the next revision to the first candidate from `from` on with which all answers at
    /// that revision fit; which one that was.
    fn advance(&mut self, from: usize) -> Option<usize> {
        let revision = self.timeline.model.revision() + 1;
        let before = State { revision: revision - 1, compacted: self.compacted_before(revision) };
        let candidates = self.candidates(revision);
        if candidates.is_empty() {
            self.stopped(revision, || "nobody wrote it".to_owned());
        }
        for (place, maker) in candidates.iter().copied().enumerate().skip(from) {
            self.answers += 1;
            let outcome = self.timeline.model.outcome(before, &self.operations[maker].request);
            if let Some(what) = self.misfit(revision, maker, &outcome) {
                self.stopped(revision, || what);
                continue;
            }
            self.timeline.model.push(outcome.changes);
            let compacted = before.compacted;
            if let Err(what) = self.check_answers(State { revision, compacted }) {
                self.stopped(revision, || what);
                self.timeline.model.pop();
                continue;
            }
            self.used[maker] = true;
            self.makers.push(maker);
            return Some(place);
        }
        None
    }

    /// Why this operation, of which `outcome` would have come, did not make the revision.
    fn misfit(&self, revision: i64, maker: usize, outcome: &model::Outcome) -> Option<String> {
        let Operation { request, .. } = &self.operations[maker];
        let expected = &outcome.answer;
        if let Some((_, answer)) = self.operations[maker].returned()
            && !same(expected, answer)
        {
            return Some(format!("{request:?} was told {answer:?} instead of {expected:?}"));
        }
        if outcome.changes.is_empty() {
            return Some(format!("{request:?} changes nothing: {expected:?}"));
        }
        let unseen = |(key, value): &&(&Bytes, &Bytes)| {
            let now = outcome.changes.iter().find(|(changed, _)| changed == *key);
            let now = now.and_then(|(_, now)| now.as_ref());
            // A value that is not shown may be any.
            now.is_none_or(|kv| kv.value != **value && !value.is_empty())
        };
        let (key, value) = self.seen.get(&revision)?.iter().find(unseen)?;
        Some(format!("it showed {key:?} = {value:?}, which is not by {request:?}"))
    }

    /// Who could have made a revision.
    fn candidates(&mut self, revision: i64) -> Vec<usize> {
        let logged = self.logged.as_ref().map(|logged| logged[&revision]);
        let fits = |at: &usize| match &self.operations[*at].request {
            Request::Write(command) => logged.is_none_or(|logged| logged == command),
            Request::Range(..) | Request::ReadTxn(..) => false,
        };
        if let Some(claim) = self.claims.get(&revision).copied() {
            if fits(&claim) {
                return vec![claim];
            }
            let operation = &self.operations[claim];
            let what = format!("{operation:?} claims it, but the log has {logged:?}");
            self.stopped(revision, || what);
            return Vec::new();
        }
        let left = self.unknown.iter().copied().filter(|at| !self.used[*at]);
        left.filter(fits).collect()
    }

    fn stopped(&mut self, revision: i64, what: impl FnOnce() -> String) {
        if revision >= self.furthest.0 && (self.furthest.1.is_empty() || revision > self.furthest.0)
        {
            self.furthest = (revision, what());
        }
    }

    fn compacted_before(&self, revision: i64) -> i64 {
        let earlier = self.compactions.range(..revision).flat_map(|(_, targets)| targets);
        earlier.map(|(target, _)| *target).max().unwrap_or(NEVER)
    }

    /// Every answer that says this revision is one that the store could give at it.
    fn check_answers(&mut self, first: State) -> Result<(), String> {
        let revision = first.revision;
        self.check_past(revision)?;
        let of_revision = self.compactions.get(&revision).into_iter().flatten();
        let mut states = vec![first];
        states.extend(of_revision.map(|(compacted, _)| State { revision, compacted: *compacted }));
        let maybe = self.maybe_compacted.iter().filter(|target| **target <= revision);
        let hidden: Vec<State> =
            maybe.map(|compacted| State { revision, compacted: *compacted }).collect();
        for at in self.answered.get(&revision).into_iter().flatten() {
            let operation = &self.operations[*at];
            let (_, answer) = operation.returned().expect("only those are in the list");
            let hidden = hidden.iter().filter(|_| is_compacted(answer));
            let mut expected = None;
            let fits = states.iter().chain(hidden).any(|state| {
                self.answers += 1;
                let outcome = self.timeline.model.outcome(*state, &operation.request);
                let fits = same(&outcome.answer, answer) && outcome.changes.is_empty();
                expected.get_or_insert(outcome.answer);
                fits
            });
            if !fits {
                return Err(format!("{operation:#?}\nshould have been told {expected:?}"));
            }
        }
        Ok(())
    }

    /// What was read of this revision later is so now: a wrong guess is to be seen at once, not
    /// when the revision of that later read is reached. That comparison is made too, in full.
    fn check_past(&mut self, revision: i64) -> Result<(), String> {
        let state = State { revision, compacted: NEVER };
        for at in self.past.get(&revision).into_iter().flatten() {
            let operation = &self.operations[*at];
            self.answers += 1;
            let outcome = self.timeline.model.outcome(state, &operation.request);
            if let Some((_, Answer::Range(told))) = operation.returned()
                && let Answer::Range(now) = &outcome.answer
                && (&now.kvs, now.count) != (&told.kvs, told.count)
            {
                return Err(format!("{operation:#?}\nshould have been told {now:?}"));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Timeline {
        let mut steps = Vec::new();
        let mut state = self.first;
        for revision in self.first.revision..=self.last {
            state.revision = revision;
            let maker = usize::try_from(revision - self.first.revision - 1).ok();
            let owner = maker.map(|place| self.makers[place]);
            steps.push(Step { state, owner });
            for (target, owner) in self.compactions.get(&revision).into_iter().flatten() {
                state.compacted = *target;
                steps.push(Step { state, owner: *owner });
            }
        }
        self.timeline.steps = steps;
        self.timeline.maybe_compacted = self.maybe_compacted;
        self.timeline
    }
}

fn violation<T>(what: String) -> Result<T, Verdict> {
    Err(Verdict::violation(what))
}

/// Every state of a key that an answer shows.
fn each_shown<'a>(answer: &'a Answer, show: &mut impl FnMut(&'a KeyValue)) {
    fn of_txn<'a>(txn: &'a TxnResponse, show: &mut impl FnMut(&'a KeyValue)) {
        for response in &txn.responses {
            match response {
                ResponseOp::Range(response) => response.kvs.iter().for_each(&mut *show),
                ResponseOp::Put(response) => response.prev_kv.iter().for_each(&mut *show),
                ResponseOp::DeleteRange(response) => {
                    response.prev_kvs.iter().for_each(&mut *show);
                }
                ResponseOp::Txn(inner) => of_txn(inner, show),
            }
        }
    }
    match answer {
        Answer::Written(Response::Put(response)) => response.prev_kv.iter().for_each(show),
        Answer::Written(Response::DeleteRange(response)) => {
            response.prev_kvs.iter().for_each(show);
        }
        Answer::Written(Response::Txn(response)) | Answer::ReadTxn(response) => {
            of_txn(response, show);
        }
        Answer::Written(Response::Compact(_)) | Answer::Refused { .. } => {}
        Answer::Range(response) => response.kvs.iter().for_each(show),
    }
}
