//! Is there an order of the calls on one register that agrees with real time and explains what
//! each saw? Wing and Gong's search (J. Parallel Distrib. Comput. 1993) with Lowe's memory of what
//! was tried (Concurrency Computat. 2017): which calls were placed, and what the register then
//! held, decide everything that can follow, so no such pair is tried twice.
//!
//! Two rules spare most of the rest. A call that must have a place, fits here and changes nothing
//! is placed here: whatever order places it later holds without it there too. And of unanswered
//! calls that do the same, the first begun is placed first: it may stand wherever the others may.
//! Which calls to try first is a guess, and either guess is at times a bad one, so both are made:
//! as the calls began, and what was answered before what was not.
//!
//! A set of placed calls is remembered by a 128-bit fingerprint, so the memory of a long history
//! is bounded by the steps taken and not by its length. Two sets that collide could hide a
//! fault's explanation, once in 10^25 histories or so.

use std::collections::HashSet;

use bytes::Bytes;
use raft_node::kv::CompareResult;

use super::history::Time;

/// What a call requires of the register before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no value.
    Absent,
    /// There is some value.
    Present,
    /// The value compares so with the given; no value compares with nothing.
    Compares(CompareResult, Bytes),
    /// The opposite of another.
    Not(Box<Expect>),
}

impl Expect {
    /// The register holds exactly that.
    pub fn is(value: &Bytes) -> Self {
        Self::Compares(CompareResult::Equal, value.clone())
    }

    fn accepts(&self, held: Option<&Bytes>) -> bool {
        match self {
            Self::Absent => held.is_none(),
            Self::Present => held.is_some(),
            Self::Compares(result, given) => held.is_some_and(|held| match result {
                CompareResult::Equal => held == given,
                CompareResult::NotEqual => held != given,
                CompareResult::Greater => held > given,
                CompareResult::Less => held < given,
            }),
            Self::Not(other) => !other.accepts(held),
        }
    }
}

/// What a call does to the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Keep,
    /// It holds this, or nothing.
    Set(Option<Bytes>),
}

/// One way in which a call may have gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// All of it must be so.
    pub expects: Vec<Expect>,
    /// And then this happens.
    pub effect: Effect,
}

impl Branch {
    fn accepts(&self, held: Option<&Bytes>) -> bool {
        self.expects.iter().all(|expect| expect.accepts(held))
    }
}

/// One operation as the register met it.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it began.
    pub called: Time,
    /// When it ended; none: it may take effect at any time after its call, or never.
    pub returned: Option<Time>,
    /// How it may have gone: one way, if it was answered.
    pub branches: Vec<Branch>,
    /// Which operation of the history it is.
    pub operation: usize,
}

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is such an order.
    Order,
    /// There is none.
    NoOrder,
    /// Too many steps.
    GaveUp,
}

/// Takes away what nobody can have seen: an unanswered write of a value that no call accepts
/// would explain nothing, and there would be ever so many places to try it at.
pub fn without_unseen(calls: Vec<Call>) -> Vec<Call> {
    let seen = |value: Option<&Bytes>, but: usize| {
        calls.iter().enumerate().filter(|(at, _)| *at != but).any(|(_, call)| {
            let looking = call.branches.iter().filter(|branch| !branch.expects.is_empty());
            looking.into_iter().any(|branch| branch.accepts(value))
        })
    };
    let matters = |at: usize, branch: &Branch| match &branch.effect {
        Effect::Keep => false,
        Effect::Set(value) => seen(value.as_ref(), at),
    };
    let keep_of = |at: usize, call: &Call| -> Vec<Branch> {
        let kept = |branch: &&Branch| call.returned.is_some() || matters(at, branch);
        call.branches.iter().filter(kept).cloned().collect()
    };
    let keep: Vec<Vec<Branch>> =
        calls.iter().enumerate().map(|(at, call)| keep_of(at, call)).collect();
    let kept = calls.into_iter().zip(keep).map(|(call, branches)| Call { branches, ..call });
    kept.filter(|call| !call.branches.is_empty()).collect()
}

/// The smallest number of answers, in the order of their times, that already have no order.
pub fn shortest_failure(calls: &[Call], steps_max: usize) -> Vec<Call> {
    let mut ends: Vec<Time> = calls.iter().filter_map(|call| call.returned).collect();
    ends.sort_unstable();
    let upto = |end: Time| -> Vec<Call> {
        let begun = calls.iter().filter(|call| call.called <= end).cloned();
        begun
            .map(|call| Call {
                returned: call.returned.filter(|returned| *returned <= end),
                ..call
            })
            .collect()
    };
    let fails = |end: &Time| search(&upto(*end), steps_max) == Found::NoOrder;
    let shortest = ends.partition_point(|end| !fails(end));
    ends.get(shortest).map_or_else(|| calls.to_vec(), |end| upto(*end))
}

/// Searches for an order, in at most `steps_max` steps for each guess.
pub fn search(calls: &[Call], steps_max: usize) -> Found {
    match search_from(calls, Turn::All, steps_max) {
        Found::GaveUp => search_from(calls, Turn::Answered, steps_max),
        found @ (Found::Order | Found::NoOrder) => found,
    }
}

fn search_from(calls: &[Call], first_turn: Turn, steps_max: usize) -> Found {
    let mut search = Search::new(calls, first_turn);
    for _ in 0..steps_max {
        if search.unplaced == 0 {
            return Found::Order;
        }
        if !search.step() {
            return Found::NoOrder;
        }
    }
    Found::GaveUp
}

/// A call or a return, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Call(usize),
    Return(usize),
}

/// A call that was placed: how to take it back and go on.
struct Placed {
    entry: usize,
    branch: usize,
    held: Option<Bytes>,
    /// Nothing else needs to be tried in its place.
    forced: bool,
    turn: Turn,
}

/// Which calls are being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    All,
    Answered,
    Unanswered,
}

impl Turn {
    fn is_of(self, call: &Call) -> bool {
        match self {
            Self::All => true,
            Self::Answered => call.returned.is_some(),
            Self::Unanswered => call.returned.is_none(),
        }
    }
}

struct Search<'a> {
    calls: &'a [Call],
    /// All calls and returns by time, and which of them are left, as a list with one more entry
    /// for both its ends.
    entries: Vec<Entry>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where the calls' returns are.
    returns: Vec<Option<usize>>,
    held: Option<Bytes>,
    placed: Vec<Placed>,
    fingerprint: u128,
    tried: HashSet<(u128, Option<Bytes>)>,
    /// Answered calls that have no place yet.
    unplaced: usize,
    /// What to try next: an entry, and from which of its branches on.
    at: usize,
    branch: usize,
    /// That entry alone is to be tried.
    forced: bool,
    first_turn: Turn,
    turn: Turn,
    /// Of each unanswered call, the one before it that does the same.
    twin: Vec<Option<usize>>,
    is_placed: Vec<bool>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call], first_turn: Turn) -> Self {
        let mut timed: Vec<(Time, Entry)> = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            timed.push((call.called, Entry::Call(number)));
            timed.extend(call.returned.map(|end| (end, Entry::Return(number))));
        }
        // Of one moment the calls come first: they overlap.
        timed.sort_unstable();
        let entries: Vec<Entry> = timed.into_iter().map(|(_, entry)| entry).collect();
        let mut returns = vec![None; calls.len()];
        for (at, entry) in entries.iter().enumerate() {
            if let Entry::Return(number) = entry {
                returns[*number] = Some(at);
            }
        }
        let ends = entries.len();
        let mut search = Self {
            calls,
            next: (1..=ends).chain([0]).collect(),
            previous: std::iter::once(ends).chain(0..ends).collect(),
            unplaced: returns.iter().flatten().count(),
            entries,
            returns,
            held: None,
            placed: Vec::new(),
            fingerprint: 0,
            tried: HashSet::new(),
            at: 0,
            branch: 0,
            forced: false,
            first_turn,
            turn: first_turn,
            twin: twins(calls),
            is_placed: vec![false; calls.len()],
        };
        search.begin();
        search
    }

    fn begin(&mut self) {
        let first = self.next[self.entries.len()];
        let looker = self.looker(first);
        self.forced = looker.is_some();
        self.turn = self.first_turn;
        self.at = looker.unwrap_or(first);
        self.branch = 0;
    }

    /// The first call that can be placed here, must be placed somewhere, and changes nothing.
    fn looker(&self, first: usize) -> Option<usize> {
        let mut at = first;
        while let Some(Entry::Call(number)) = self.entries.get(at) {
            let call = &self.calls[*number];
            if let ([only], Some(_)) = (call.branches.as_slice(), call.returned)
                && only.effect == Effect::Keep
                && only.accepts(self.held.as_ref())
            {
                return Some(at);
            }
            at = self.next[at];
        }
        None
    }

    /// Places a call, passes one by, or takes one back. False if there is none to take back.
    fn step(&mut self) -> bool {
        match self.entries.get(self.at) {
            Some(Entry::Call(number)) => {
                if self.try_call(*number) {
                    return true;
                }
                if self.forced {
                    return self.take_back();
                }
                self.at = self.next[self.at];
                self.branch = 0;
                true
            }
            Some(Entry::Return(_)) | None if self.turn == Turn::Answered => {
                self.turn = Turn::Unanswered;
                self.at = self.next[self.entries.len()];
                self.branch = 0;
                true
            }
            // Nothing that could come before this return is left to try.
            Some(Entry::Return(_)) | None => self.take_back(),
        }
    }

    fn try_call(&mut self, number: usize) -> bool {
        let call = &self.calls[number];
        if !self.turn.is_of(call) {
            return false;
        }
        if self.twin[number].is_some_and(|twin| !self.is_placed[twin]) {
            return false;
        }
        for (place, branch) in call.branches.iter().enumerate().skip(self.branch) {
            if !branch.accepts(self.held.as_ref()) {
                continue;
            }
            let then = match &branch.effect {
                Effect::Keep => self.held.clone(),
                Effect::Set(value) => value.clone(),
            };
            let fingerprint = self.fingerprint ^ print(number);
            if self.tried.insert((fingerprint, then.clone())) {
                let held = std::mem::replace(&mut self.held, then);
                let (entry, forced, turn) = (self.at, self.forced, self.turn);
                self.placed.push(Placed { entry, branch: place, held, forced, turn });
                self.is_placed[number] = true;
                self.fingerprint = fingerprint;
                self.unplaced -= usize::from(call.returned.is_some());
                self.unlink(self.at);
                if let Some(end) = self.returns[number] {
                    self.unlink(end);
                }
                self.begin();
                return true;
            }
        }
        false
    }

    /// Takes back the last call that was not the only one to try, and those after it.
    fn take_back(&mut self) -> bool {
        while let Some(placed) = self.placed.pop() {
            let forced = placed.forced;
            self.undo(placed);
            if !forced {
                return true;
            }
        }
        false
    }

    fn undo(&mut self, placed: Placed) {
        let Entry::Call(number) = self.entries[placed.entry] else {
            unreachable!("only calls are placed");
        };
        if let Some(end) = self.returns[number] {
            self.relink(end);
        }
        self.relink(placed.entry);
        self.unplaced += usize::from(self.calls[number].returned.is_some());
        self.fingerprint ^= print(number);
        self.is_placed[number] = false;
        self.held = placed.held;
        self.at = placed.entry;
        self.branch = placed.branch + 1;
        self.turn = placed.turn;
        self.forced = false;
    }

    fn unlink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    /// Undoes the last `unlink` that was not undone.
    fn relink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = at;
        self.previous[after] = at;
    }
}

/// Of each unanswered call, the last one begun before it that does the same.
fn twins(calls: &[Call]) -> Vec<Option<usize>> {
    let mut unanswered: Vec<usize> =
        (0..calls.len()).filter(|at| calls[*at].returned.is_none()).collect();
    unanswered.sort_by_key(|at| (calls[*at].called, *at));
    let mut twins = vec![None; calls.len()];
    for (nth, at) in unanswered.iter().enumerate() {
        let same = |other: &&usize| calls[**other].branches == calls[*at].branches;
        twins[*at] = unanswered[..nth].iter().rev().find(same).copied();
    }
    twins
}

/// A number of its own for each call (`SplitMix64`, twice).
fn print(number: usize) -> u128 {
    let mix = |seed: u64| {
        let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    let number = number as u64 + 1;
    u128::from(mix(2 * number)) << 64 | u128::from(mix(2 * number + 1))
}
