//! The proposals of this member's clients, from arrival to outcome.
//!
//! Each is submitted under a fresh [`RequestId`] and recognised by it when it is applied here.
//! What makes failover gentle: once an entry of a later term is applied here, a proposal
//! submitted in an earlier term and not seen by then is in no log that can still win (Leader
//! Completeness, §5.4.3; a leader takes forwarded proposals of its own term only). It is then
//! certain to have no effect, and is submitted again instead of being failed.
//!
//! Submission is paced: at most a window of bytes is submitted and unresolved, the rest stays
//! parked, in order of arrival. The windows of all members together are what a leader takes in, so
//! that clients who write more than the cluster can take are slowed, not refused. Should a leader
//! refuse all the same, the proposal had no effect, and is parked again where it was.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::raft::{NodeId, Proposal, RequestId, Term};
use crate::testpoints::{Mark, mark};

use super::error::RequestError;

/// Proposals that are submitted and unresolved, at most, whatever their size.
const SUBMITTED_MAX: usize = 2048;

/// What a proposal counts for beside its data.
const OVERHEAD_BYTES: usize = 64;

/// A point in time, in ticks since the replica started.
pub type Tick = u64;

/// One proposal that somebody waits for.
#[derive(Debug)]
struct Waiter<T> {
    ticket: T,
    data: Bytes,
    /// Its place among all arrivals.
    arrival: u64,
    /// When the caller stops waiting.
    gives_up: Tick,
    /// At most `gives_up`; earlier once those who hold the proposal may be gone.
    deadline: Tick,
}

impl<T> Waiter<T> {
    fn size_bytes(&self) -> usize {
        self.data.len() + OVERHEAD_BYTES
    }
}

/// How much may be submitted.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes that are submitted and unresolved, at most. One proposal alone may exceed it.
    pub window_bytes: usize,
    /// Bytes submitted in one message, at most. Likewise.
    pub message_bytes: usize,
}

/// All of them: parked (not submitted, or known to be dropped) and submitted.
#[derive(Debug)]
pub struct PendingProposals<T> {
    origin: NodeId,
    next_sequence: u64,
    /// In order of arrival.
    parked: VecDeque<Waiter<T>>,
    submitted: BTreeMap<u64, (Term, Waiter<T>)>,
    submitted_bytes: usize,
    arrivals: u64,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl<T> PendingProposals<T> {
    /// None yet. `first_sequence` exceeds every sequence of this member's earlier runs.
    pub fn new(origin: NodeId, first_sequence: u64, count_max: usize, bytes_max: usize) -> Self {
        Self {
            origin,
            next_sequence: first_sequence,
            parked: VecDeque::new(),
            submitted: BTreeMap::new(),
            submitted_bytes: 0,
            arrivals: 0,
            bytes: 0,
            count_max,
            bytes_max,
        }
    }

    /// A fresh id, for a proposal or a read.
    pub fn fresh_id(&mut self) -> RequestId {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        RequestId { origin: self.origin, sequence }
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.parked.len() + self.submitted.len()
    }

    /// Whether any waits to be submitted.
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Takes a new proposal in, unless too much waits already.
    ///
    /// # Errors
    ///
    /// Hands the ticket back when a bound is reached.
    pub fn park(&mut self, data: Bytes, ticket: T, gives_up: Tick) -> Result<(), T> {
        if self.count() >= self.count_max || self.bytes + data.len() > self.bytes_max {
            return Err(ticket);
        }
        self.bytes += data.len();
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.parked.push_back(Waiter { ticket, data, arrival, gives_up, deadline: gives_up });
        Ok(())
    }

    /// The next of those parked, in order of arrival, as proposals of `term` for one message; none
    /// if nothing is parked or the window is full.
    pub fn submit(&mut self, term: Term, pace: Pace) -> Vec<Proposal> {
        let mut proposals = Vec::new();
        let mut message_bytes = 0;
        while let Some(next) = self.parked.front() {
            let size_bytes = next.size_bytes();
            let window_full = self.submitted.len() >= SUBMITTED_MAX
                || self.submitted_bytes + size_bytes > pace.window_bytes;
            if window_full && !self.submitted.is_empty() {
                break;
            }
            message_bytes += size_bytes;
            if message_bytes > pace.message_bytes && !proposals.is_empty() {
                break;
            }
            let Some(mut waiter) = self.parked.pop_front() else { break };
            waiter.deadline = waiter.gives_up;
            let id = self.fresh_id();
            proposals.push(Proposal { id, data: waiter.data.clone() });
            self.submitted_bytes += size_bytes;
            self.submitted.insert(id.sequence, (term, waiter));
        }
        proposals
    }

    /// Takes one out of those that are submitted.
    fn withdraw(&mut self, sequence: u64) -> Option<Waiter<T>> {
        let (_, waiter) = self.submitted.remove(&sequence)?;
        self.submitted_bytes -= waiter.size_bytes();
        Some(waiter)
    }

    /// Parks one again, where it was.
    fn park_again(&mut self, waiter: Waiter<T>) {
        let at = self.parked.partition_point(|one| one.arrival < waiter.arrival);
        self.parked.insert(at, waiter);
    }

    /// The ticket of `id`, if somebody here waits for it: it is being applied, or has failed.
    pub fn resolve(&mut self, id: RequestId) -> Option<T> {
        if id.origin != self.origin {
            return None;
        }
        let waiter = self.withdraw(id.sequence)?;
        self.bytes -= waiter.data.len();
        Some(waiter.ticket)
    }

    /// `id` was refused: it had no effect, and waits again. False if it is none of ours.
    pub fn refused(&mut self, id: RequestId) -> bool {
        let Some(waiter) = self.withdraw(id.sequence) else { return false };
        self.park_again(waiter);
        true
    }

    /// The first entry of `term` is being applied: what was submitted in an earlier term and is
    /// still here has had no effect, and never will. It waits again, where it was.
    pub fn on_new_term(&mut self, term: Term) {
        let lost: Vec<u64> = self
            .submitted
            .iter()
            .filter(|(_, (submitted, _))| *submitted < term)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in lost.into_iter().rev() {
            mark(Mark::ProposalResubmitted);
            if let Some(waiter) = self.withdraw(sequence) {
                self.park_again(waiter);
            }
        }
    }

    /// What became of the submitted proposals will not be seen here (a snapshot skips their
    /// entries): hands back those of `term` or earlier.
    pub fn unknowable(&mut self, term: Term) -> Vec<T> {
        let (gone, kept) = std::mem::take(&mut self.submitted)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, (submitted, _))| *submitted <= term);
        self.submitted = kept;
        gone.into_values()
            .map(|(_, waiter)| {
                mark(Mark::OutcomeSkipped);
                self.bytes -= waiter.data.len();
                self.submitted_bytes -= waiter.size_bytes();
                waiter.ticket
            })
            .collect()
    }

    /// Submitted proposals shall hear by `deadline`: the leader that held them may be gone.
    pub fn shorten_deadlines(&mut self, deadline: Tick) {
        for (_, waiter) in self.submitted.values_mut() {
            waiter.deadline = waiter.deadline.min(deadline);
        }
    }

    /// Hands back everything parked: there is no leader to give it to.
    pub fn give_up_parked(&mut self) -> Vec<T> {
        let parked = std::mem::take(&mut self.parked);
        self.bytes -= parked.iter().map(|waiter| waiter.data.len()).sum::<usize>();
        parked.into_iter().map(|waiter| waiter.ticket).collect()
    }

    /// Hands back, with their fate, those whose time is up. `in_doubt` is what submitted ones
    /// are told; `without_effect` is for those parked, which are in no log.
    pub fn expired(
        &mut self,
        now: Tick,
        in_doubt: RequestError,
        without_effect: RequestError,
    ) -> Vec<(T, RequestError)> {
        let mut out = Vec::new();
        if self.parked.iter().any(|waiter| waiter.gives_up <= now) {
            let (late, kept): (VecDeque<_>, VecDeque<_>) =
                self.parked.drain(..).partition(|waiter| waiter.gives_up <= now);
            self.parked = kept;
            for waiter in late {
                self.bytes -= waiter.data.len();
                out.push((waiter.ticket, without_effect));
            }
        }
        let late: Vec<u64> = self
            .submitted
            .iter()
            .filter(|(_, (_, waiter))| waiter.deadline <= now)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in late {
            if let Some(waiter) = self.withdraw(sequence) {
                self.bytes -= waiter.data.len();
                out.push((waiter.ticket, in_doubt));
            }
        }
        out
    }
}
