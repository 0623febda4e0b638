//! Linearizable reads without a log entry (thesis §6.4, ReadIndex).
//!
//! The leader remembers its commit index, then makes sure that it still leads: a quorum must
//! answer a heartbeat that was sent afterwards. Rounds carry a number that the leader counts up
//! itself and never reuses in a term, so an answer that comes late, or twice, speaks for its own
//! round and older ones only, never for reads that came after it. One round is under way at a
//! time; it starts at once when none is, and reads that come meanwhile ride the next one together.
//!
//! A new leader does not know what its predecessors committed until it has committed an entry of
//! its own term; until then reads wait (they are not dropped). There are no lease reads: they
//! would trust clocks.

use std::collections::BTreeMap;

use crate::testpoints::{self, Mark, Mutant};

use super::message::{Body, Refusal};
use super::node::{RaftNode, RoleState};
use super::quorum;
use super::ready::ReadState;
use super::types::{Index, NodeId, RequestId};

/// A forwarded read is given up after this many election timeouts. A caller that still waits has
/// asked again long before: a question or an answer that was lost, and one that a slow link delays,
/// look the same from here, and the late answer is as true as any.
const FORWARDED_READ_TIMEOUTS: u32 = 32;

/// The leader's side: reads in the round under way, and those that ride the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadRounds {
    /// Number of the latest round.
    pub(super) round: u64,
    pub(super) current: Option<Round>,
    pub(super) queue: Vec<RequestId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Round {
    /// The commit index when it started: at least that of each of its reads' arrival.
    pub(super) index: Index,
    pub(super) reads: Vec<RequestId>,
}

impl ReadRounds {
    /// Number of the latest round.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// How many reads wait.
    pub fn pending(&self) -> usize {
        self.queue.len() + self.current.as_ref().map_or(0, |round| round.reads.len())
    }

    /// Whether `id` waits already: it was asked for again before its answer came.
    pub fn holds(&self, id: RequestId) -> bool {
        let riding = self.current.iter().flat_map(|round| &round.reads);
        self.queue.iter().chain(riding).any(|known| *known == id)
    }

    /// Lets `id` ride the next round.
    pub fn add(&mut self, id: RequestId) {
        match &mut self.current {
            Some(round) if testpoints::mutant(Mutant::ReadJoinsRound) => round.reads.push(id),
            Some(_) | None => self.queue.push(id),
        }
    }

    /// Starts a round if there is reason to and none is under way.
    pub fn start(&mut self, committed: Index) -> Option<u64> {
        if self.current.is_some() || self.queue.is_empty() {
            return None;
        }
        if self.round == 0 || !testpoints::mutant(Mutant::ReadRoundReused) {
            self.round += 1;
        }
        self.current = Some(Round { index: committed, reads: std::mem::take(&mut self.queue) });
        Some(self.round)
    }

    /// A quorum confirmed `round`: hands out the reads that this releases.
    pub fn confirmed(&mut self, round: u64) -> Option<(Index, Vec<RequestId>)> {
        if round < self.round {
            return None;
        }
        self.current.take().map(|round| (round.index, round.reads))
    }

    /// Every read that waits, in order of arrival: leadership is over.
    pub fn abandon(self) -> Vec<RequestId> {
        let mut reads = self.current.map_or_else(Vec::new, |round| round.reads);
        reads.extend(self.queue);
        reads
    }
}

/// The follower's side: its own reads that are with the leader, and for how many ticks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ForwardedReads {
    pub(super) waiting_ticks: BTreeMap<RequestId, u32>,
}

impl ForwardedReads {
    /// How many are out.
    pub fn pending(&self) -> usize {
        self.waiting_ticks.len()
    }

    /// Whether `id` may go out, again or for the first time.
    pub fn has_room(&self, id: RequestId, pending_max: usize) -> bool {
        self.waiting_ticks.contains_key(&id) || self.pending() < pending_max
    }

    /// One more is out, or one is asked for again.
    pub fn add(&mut self, id: RequestId) {
        self.waiting_ticks.insert(id, 0);
    }

    /// One is answered. False if nobody waits for it.
    pub fn remove(&mut self, id: RequestId) -> bool {
        self.waiting_ticks.remove(&id).is_some()
    }

    /// Counts a tick, and gives up those for which nobody can be waiting any more.
    pub fn tick(&mut self, ticks_max: u32) -> Vec<RequestId> {
        for ticks in self.waiting_ticks.values_mut() {
            *ticks += 1;
        }
        let mut lost = Vec::new();
        self.waiting_ticks.retain(|id, ticks| {
            let keep = *ticks < ticks_max;
            if !keep {
                lost.push(*id);
            }
            keep
        });
        lost
    }

    /// All of them: the leader is gone.
    pub fn abandon(self) -> Vec<RequestId> {
        self.waiting_ticks.into_keys().collect()
    }
}

impl RaftNode {
    /// Asks as of which index a linearizable read may be answered. The outcome comes in
    /// `Ready.reads` or `Ready.refused`, under `id`.
    pub fn read_index(&mut self, id: RequestId) {
        let pending_max = self.config.reads_pending_max;
        match &mut self.role {
            RoleState::Leader(leader) => match leader.admit_read(id, pending_max) {
                Ok(()) => {}
                Err(why) => self.out.refused.push((id, why)),
            },
            RoleState::Follower(follower) => match follower.reachable_leader() {
                Some(_) if !follower.reads.has_room(id, pending_max) => {
                    self.out.refused.push((id, Refusal::Busy));
                }
                Some(leader) => {
                    follower.reads.add(id);
                    self.send(leader, Body::ReadIndex { id });
                }
                None => self.out.refused.push((id, Refusal::NotLeader)),
            },
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.out.refused.push((id, Refusal::NotLeader));
            }
        }
        self.assert_invariants();
    }

    /// A follower asks on behalf of its client. A question that is repeated after
    /// its answer gets another.
    pub(super) fn handle_read_index(&mut self, from: NodeId, id: RequestId) {
        let pending_max = self.config.reads_pending_max;
        let admitted = match &mut self.role {
            RoleState::Leader(leader) => leader.admit_read(id, pending_max),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                Err(Refusal::NotLeader)
            }
        };
        if let Err(why) = admitted {
            self.send(from, Body::Refused { ids: vec![id], why });
        }
    }

    /// The leader answers. True for as long as anybody waits, however late: the leader confirmed
    /// itself after the question was put.
    pub(super) fn handle_read_index_reply(&mut self, from: NodeId, id: RequestId, index: Index) {
        if let RoleState::Follower(follower) = &mut self.role
            && follower.leader == Some(from)
            && follower.reads.remove(id)
        {
            self.out.reads.push(ReadState { id, index });
        }
    }

    /// Starts a round for the reads that wait, once it is known what is committed.
    pub(super) fn start_read_round(&mut self) {
        let committed = self.log.committed();
        // §8, thesis §6.4: without an own-term commit, the commit index may be of the past.
        let own_commit = self.log.term_at(committed) == Some(self.term)
            || testpoints::mutant(Mutant::ReadBeforeCommit);
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        if !own_commit {
            if leader.reads.pending() > 0 {
                testpoints::mark(Mark::ReadBeforeFirstCommit);
            }
            return;
        }
        if leader.reads.start(committed).is_some() {
            let voters: Vec<NodeId> = self.other_voters().collect();
            for voter in voters {
                self.send_heartbeat(voter);
            }
            self.release_reads();
        }
    }

    /// Releases the round under way if a quorum has confirmed it.
    pub(super) fn release_reads(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let own_round = leader.reads.round();
        let id = self.config.id;
        let confirmed = quorum::reached(self.membership.current(), |voter| {
            let sure = voter == id || testpoints::mutant(Mutant::ReadUnconfirmed);
            if sure { own_round } else { leader.round_confirmed(voter) }
        });
        let Some((index, reads)) = confirmed.and_then(|round| leader.reads.confirmed(round)) else {
            return;
        };
        let mut answers = Vec::new();
        for id in reads {
            if id.origin == self.config.id {
                self.out.reads.push(ReadState { id, index });
                continue;
            }
            if let Some(progress) = leader.peers.get_mut(&id.origin) {
                progress.commit_wanted = progress.commit_wanted.max(index);
            }
            answers.push((id, index));
        }
        for (id, index) in answers {
            self.send(id.origin, Body::ReadIndexReply { id, index });
        }
    }

    /// Tells the callers that these reads will not be answered from here.
    pub(super) fn refuse_reads(&mut self, reads: Vec<RequestId>, why: Refusal) {
        for id in reads {
            if id.origin == self.config.id {
                self.out.refused.push((id, why));
            } else {
                self.send(id.origin, Body::Refused { ids: vec![id], why });
            }
        }
    }

    /// How long a forwarded read may stay unanswered.
    pub(super) fn forwarded_read_ticks_max(&self) -> u32 {
        self.config.election_ticks_max * FORWARDED_READ_TIMEOUTS
    }
}
