//! The linearizable reads of this member's clients, in groups.
//!
//! All reads that arrived since the last group share one ReadIndex (thesis §6.4), so their cost
//! to the cluster is one round per group, however many there are. A read has no effect: a group
//! whose round was lost or refused is simply asked for again under a new id.

use std::collections::BTreeMap;

use crate::proof::{Mark, Mutant, mark, mutant};
use crate::raft::{Index, RequestId};

use super::waiters::Tick;

/// Rounds under way at once. A second would let a read that has just missed one go without waiting
/// for it, but under load it would halve what each carries and double what reads cost everybody.
const GROUPS_MAX: usize = 1;

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
}

/// All reads that somebody waits for.
#[derive(Debug)]
pub struct Reads<T> {
    queued: Vec<Waiting<T>>,
    groups: BTreeMap<RequestId, Group<T>>,
    granted: BTreeMap<Index, Vec<Waiting<T>>>,
    count: usize,
    count_max: usize,
}

impl<T> Reads<T> {
    /// None yet; at most `count_max` at once.
    pub fn new(count_max: usize) -> Self {
        Self {
            queued: Vec::new(),
            groups: BTreeMap::new(),
            granted: BTreeMap::new(),
            count: 0,
            count_max,
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
    pub fn wants_group(&self) -> bool {
        !self.queued.is_empty() && self.groups.len() < GROUPS_MAX
    }

    /// Everything queued becomes the group `id`.
    pub fn start_group(&mut self, id: RequestId, now: Tick) {
        let reads = std::mem::take(&mut self.queued);
        self.groups.insert(id, Group { reads, asked: now });
    }

    /// The group `id` may be served once `index` is applied. Hands out its tickets if it is.
    pub fn grant(&mut self, id: RequestId, index: Index, applied: Index) -> Vec<T> {
        let Some(group) = self.groups.remove(&id) else { return Vec::new() };
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

    /// Groups asked for at or before `asked` are taken for lost: their reads wait again.
    pub fn requeue(&mut self, asked: Tick) {
        let lost: Vec<RequestId> = self
            .groups
            .iter()
            .filter(|(_, group)| group.asked <= asked)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            mark(Mark::ReadsAskedAgain);
            self.refused(id);
        }
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
