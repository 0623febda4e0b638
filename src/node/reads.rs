//! The linearizable reads of this member's clients, in groups.
//!
//! All reads that arrived since the last group share one ReadIndex (thesis §6.4), so their cost
//! to the cluster is one round per group, however many there are. A read has no effect: a group
//! that was refused is asked for again under a new id.
//!
//! A group that is not answered is asked for again under the *same* id, ever more patiently. The
//! question or its answer may be lost, or the way may be slow; an answer to any of the questions
//! is good for the group, since all its reads came in before the first of them. So a round trip
//! may take longer than any time-out here.

use std::collections::BTreeMap;

use crate::raft::{Index, RequestId};
use crate::testpoints::{Mark, Mutant, mark, mutant};

use super::pending_proposals::Tick;

/// Rounds under way at once. On a fast network it is one: a second would halve what each carries
/// and double what reads cost. A read that has just missed a round goes without waiting for it only
/// where the latest began a while ago.
const GROUPS_MAX: usize = 32;
/// A question is repeated after this many times the time that an answer usually takes.
const PATIENCE_ANSWERS: Tick = 2;
/// The wait before the next repetition doubles, up to this many times the first.
const PATIENCE_GROWTH_MAX: Tick = 8;

/// One read and when it gives up.
#[derive(Debug)]
struct Waiting<T> {
    ticket: T,
    deadline: Tick,
}

/// Reads that were asked for together.
#[derive(Debug)]
struct Group<T> {
    reads: Vec<Waiting<T>>,
    asked: Tick,
    repeats: Repeats,
}

/// When a question is to be repeated, while it has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    due: Tick,
    wait: Tick,
    wait_max: Tick,
}

impl Repeats {
    /// For a question asked now, with so long a wait before the first repetition.
    pub fn new(now: Tick, wait: Tick) -> Self {
        Self { due: now + wait, wait, wait_max: wait * PATIENCE_GROWTH_MAX }
    }

    /// Whether the question is to be repeated now; then the next wait is longer.
    pub fn due(&mut self, now: Tick) -> bool {
        if now < self.due {
            return false;
        }
        self.wait = (self.wait * 2).min(self.wait_max);
        self.due = now + self.wait;
        true
    }
}

/// All reads that somebody waits for.
#[derive(Debug)]
pub struct Reads<T> {
    queued: Vec<Waiting<T>>,
    groups: BTreeMap<RequestId, Group<T>>,
    granted: BTreeMap<Index, Vec<Waiting<T>>>,
    count: usize,
    count_max: usize,
    groups_max: usize,
    /// The shortest wait before a question is repeated.
    patience_min: Tick,
    /// How long after the latest question the next group may go, though that is not answered.
    spacing: Tick,
    /// The latest question.
    latest: Tick,
    /// How long answers take: the latest, or a little less than the longest of late.
    answer_ticks: Tick,
}

impl<T> Reads<T> {
    /// None yet; at most `count_max` at once. A question is not repeated within `patience_min`, and
    /// a group does not follow one that has no answer within `spacing`.
    pub fn new(count_max: usize, patience_min: Tick, spacing: Tick) -> Self {
        Self {
            queued: Vec::new(),
            groups: BTreeMap::new(),
            granted: BTreeMap::new(),
            count: 0,
            count_max,
            groups_max: (count_max / 4).clamp(1, GROUPS_MAX),
            patience_min,
            spacing,
            latest: 0,
            answer_ticks: 0,
        }
    }

    /// Takes a new read in, unless too many wait already.
    ///
    /// # Errors
    ///
    /// Hands the ticket back when the bound is reached.
    pub fn queue(&mut self, ticket: T, deadline: Tick) -> Result<(), T> {
        if self.count >= self.count_max {
            return Err(ticket);
        }
        self.count += 1;
        self.queued.push(Waiting { ticket, deadline });
        Ok(())
    }

    /// Whether a new group should be asked for now.
    pub fn wants_group(&self, now: Tick) -> bool {
        let may = self.groups.is_empty()
            || (self.groups.len() < self.groups_max && now >= self.latest + self.spacing);
        !self.queued.is_empty() && may
    }

    /// How long a question waits before it is repeated, by what answers take.
    pub fn patience(&self) -> Tick {
        self.patience_min.max(PATIENCE_ANSWERS * self.answer_ticks)
    }

    /// A question that was first asked at `asked` has its answer.
    pub fn answered_after(&mut self, asked: Tick, now: Tick) {
        let took = now - asked;
        self.answer_ticks = took.max(self.answer_ticks - self.answer_ticks.div_ceil(8));
    }

    /// Everything queued becomes the group `id`.
    pub fn start_group(&mut self, id: RequestId, now: Tick) {
        let reads = std::mem::take(&mut self.queued);
        self.latest = now;
        let repeats = Repeats::new(now, self.patience());
        self.groups.insert(id, Group { reads, asked: now, repeats });
    }

    /// The group `id` may be served once `index` is applied. Hands out its tickets if it is.
    pub fn grant(&mut self, id: RequestId, index: Index, applied: Index, now: Tick) -> Vec<T> {
        let Some(group) = self.groups.remove(&id) else { return Vec::new() };
        self.answered_after(group.asked, now);
        if index <= applied || mutant(Mutant::ReadUnapplied) {
            self.count -= group.reads.len();
            return group.reads.into_iter().map(|read| read.ticket).collect();
        }
        self.granted.entry(index).or_default().extend(group.reads);
        Vec::new()
    }

    /// Hands out the reads for which `index` is enough.
    pub fn applied(&mut self, index: Index) -> Vec<T> {
        let mut out = Vec::new();
        while let Some(first) = self.granted.first_entry() {
            if *first.key() > index {
                break;
            }
            out.extend(first.remove().into_iter().map(|read| read.ticket));
        }
        self.count -= out.len();
        out
    }

    /// The group `id` was refused: its reads wait again. False if it is none of ours.
    pub fn refused(&mut self, id: RequestId) -> bool {
        let Some(group) = self.groups.remove(&id) else { return false };
        self.queued.extend(group.reads);
        true
    }

    /// The group `id` was refused for good. `None` if it is none of ours.
    pub fn dismiss(&mut self, id: RequestId) -> Option<Vec<T>> {
        let group = self.groups.remove(&id)?;
        self.count -= group.reads.len();
        Some(group.reads.into_iter().map(|read| read.ticket).collect())
    }

    /// The leader that was asked is gone: all reads without an answer wait again.
    pub fn requeue(&mut self) {
        for (_, group) in std::mem::take(&mut self.groups) {
            self.queued.extend(group.reads);
        }
    }

    /// The groups that are to be asked for again, for want of an answer. Those for which nobody
    /// waits any more are given up.
    pub fn overdue(&mut self, now: Tick) -> Vec<RequestId> {
        self.groups.retain(|_, group| !group.reads.is_empty());
        let due = |(id, group): (&RequestId, &mut Group<T>)| group.repeats.due(now).then_some(*id);
        let overdue: Vec<RequestId> = self.groups.iter_mut().filter_map(due).collect();
        if mutant(Mutant::LateAnswerUnheard) {
            for id in &overdue {
                self.refused(*id);
            }
            return Vec::new();
        }
        if !overdue.is_empty() {
            mark(Mark::ReadsAskedAgain);
        }
        overdue
    }

    /// Hands back everything that waits for a leader: there is none.
    pub fn give_up_queued(&mut self) -> Vec<T> {
        let queued = std::mem::take(&mut self.queued);
        self.count -= queued.len();
        queued.into_iter().map(|read| read.ticket).collect()
    }

    /// Hands back those whose time is up.
    pub fn expired(&mut self, now: Tick) -> Vec<T> {
        let mut out = Vec::new();
        take_late(&mut self.queued, now, &mut out);
        for group in self.groups.values_mut() {
            take_late(&mut group.reads, now, &mut out);
        }
        for reads in self.granted.values_mut() {
            take_late(reads, now, &mut out);
        }
        self.count -= out.len();
        out
    }
}

fn take_late<T>(reads: &mut Vec<Waiting<T>>, now: Tick, out: &mut Vec<T>) {
    if reads.iter().all(|read| read.deadline > now) {
        return;
    }
    let (late, kept): (Vec<_>, Vec<_>) =
        std::mem::take(reads).into_iter().partition(|read| read.deadline <= now);
    *reads = kept;
    out.extend(late.into_iter().map(|read| read.ticket));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::NodeId;

    fn id(sequence: u64) -> RequestId {
        RequestId { origin: NodeId::new(1).unwrap(), sequence }
    }

    #[test]
    fn a_late_answer_is_an_answer_and_makes_the_next_question_more_patient() {
        let mut reads = Reads::new(100, 15, 5);
        reads.queue('a', 1000).unwrap();
        reads.start_group(id(1), 0);
        let asked_again: Vec<Tick> =
            (1..=60).filter(|now| reads.overdue(*now) == [id(1)]).collect();
        assert_eq!(asked_again, [15, 45], "under the same id, ever more patiently");
        assert_eq!(reads.grant(id(1), Index(1), Index(1), 60), ['a']);
        assert_eq!(
            reads.grant(id(1), Index(1), Index(1), 61),
            [],
            "the other answers come too late"
        );
        assert_eq!(reads.patience(), 120);
    }

    #[test]
    fn a_group_waits_for_the_one_before_unless_that_takes_long() {
        let mut reads = Reads::new(100, 15, 5);
        reads.queue('a', 1000).unwrap();
        reads.start_group(id(1), 10);
        reads.queue('b', 1000).unwrap();
        assert!(!reads.wants_group(14));
        assert!(reads.wants_group(15));
        reads.start_group(id(2), 15);
        assert_eq!(reads.grant(id(2), Index(1), Index(1), 40), ['b'], "in any order");
        assert_eq!(reads.grant(id(1), Index(1), Index(1), 41), ['a']);
    }
}
