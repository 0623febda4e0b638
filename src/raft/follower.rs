//! Following a leader (§5.2, §5.3): take its entries, answer once they are durable.
//!
//! The answer to appends is one debt, not one message per append: "my log matches yours up to
//! `owed`". It is paid as far as the disk has come, so a group of batches that become durable
//! together is confirmed together, and nothing is confirmed before it is durable.

use crate::testpoints::{self, Mark, Mutant};

use super::message::{Body, Refusal};
use super::node::{RaftNode, RoleState};
use super::notice::Cause;
use super::read_index::ForwardedReads;
use super::types::{Entry, EntryId, Index, NodeId};

/// The state of a follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follower {
    /// The leader of this term, if known and not given up.
    pub(super) leader: Option<NodeId>,
    /// Ticks since the leader was heard (or a vote was given).
    pub(super) elapsed_ticks: u32,
    /// The election timeout, not stretched.
    pub(super) timeout_ticks: u32,
    /// A pre-vote is due before the timeout.
    pub(super) campaign_in_ticks: Option<u32>,
    /// The connection to the leader broke, and it has not been heard since.
    pub(super) link_lost: bool,
    /// The log matches the leader's up to here: to be confirmed.
    pub(super) pending_ack: Option<Index>,
    /// Confirmed, or durable before this leader came.
    pub(super) confirmed: Index,
    /// To whom the leader hands over, as it last said.
    pub(super) successor: Option<NodeId>,
    /// Own reads that are with the leader.
    pub(super) reads: ForwardedReads,
}

impl Follower {
    /// Follows `leader`, or nobody yet.
    pub fn new(leader: Option<NodeId>, timeout_ticks: u32, persisted: Index) -> Self {
        Self {
            leader,
            elapsed_ticks: 0,
            timeout_ticks,
            campaign_in_ticks: None,
            link_lost: false,
            pending_ack: None,
            confirmed: persisted,
            successor: None,
            reads: ForwardedReads::default(),
        }
    }

    /// The leader, unless the way to it is broken.
    pub fn reachable_leader(&self) -> Option<NodeId> {
        self.leader.filter(|_| !self.link_lost)
    }

    /// Whether a live leader shields against candidates.
    pub fn hears_leader(&self, ticks: u32) -> bool {
        self.reachable_leader().is_some() && self.elapsed_ticks < ticks
    }

    /// Another member is ahead in asking for pre-votes: do not cross it.
    pub fn defer_campaign(&mut self, ticks: u32) {
        self.campaign_in_ticks = self.campaign_in_ticks.map(|due| due.max(ticks + 1));
    }

    /// The leader speaks.
    fn heard(&mut self) {
        self.elapsed_ticks = 0;
        self.campaign_in_ticks = None;
        self.link_lost = false;
    }
}

impl RaftNode {
    /// Follows `leader`, or nobody yet, in the present term.
    pub(super) fn become_follower(&mut self, leader: Option<NodeId>) {
        let timeout_ticks = self.draw_election_timeout();
        let follower = Follower::new(leader, timeout_ticks, self.log.persisted());
        self.enter(RoleState::Follower(follower));
    }

    /// `from` speaks as the leader of this term. False if that cannot be: then it is not listened
    /// to. A term has one leader (§5.2), whatever a message says.
    pub(super) fn accept_leader(&mut self, from: NodeId) -> bool {
        if self.term_leader.is_some_and(|leader| leader != from) {
            return false;
        }
        self.term_leader = Some(from);
        self.pre_votes_refused = 0;
        match &mut self.role {
            RoleState::Follower(follower) if follower.leader == Some(from) => {
                if !follower.link_lost {
                    self.detector.observe(follower.elapsed_ticks, &self.config);
                }
                follower.heard();
            }
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.become_follower(Some(from));
            }
            RoleState::Leader(_) => unreachable!("a leader is the leader of its term"),
        }
        true
    }

    /// Entries from the leader (§5.3).
    pub(super) fn handle_append(
        &mut self,
        from: NodeId,
        prev: EntryId,
        entries: Vec<Entry>,
        commit: Index,
    ) {
        let Some((prev, entries)) = self.skip_committed(prev, entries) else {
            return;
        };
        if !self.log.holds(prev) {
            let hint = self.log.highest_possible(prev);
            self.send(from, Body::Rejected { prev: prev.index, hint });
            return;
        }
        let upto = Index(prev.index.0 + entries.len() as u64);
        self.splice(entries);
        self.set_pending_ack(upto);
        // What comes after `upto` has not been compared with the leader's log.
        self.log.commit_to(commit.min(upto));
    }

    /// Leaves out of an append what is committed here: the leader of this term has the same
    /// (§5.4). None if it claims otherwise.
    fn skip_committed(
        &self,
        prev: EntryId,
        mut entries: Vec<Entry>,
    ) -> Option<(EntryId, Vec<Entry>)> {
        let committed = self.log.committed();
        let Some(excess) = committed.0.checked_sub(prev.index.0).filter(|excess| *excess > 0)
        else {
            return Some((prev, entries));
        };
        testpoints::mark(Mark::CommittedSkipped);
        let excess = usize::try_from(excess).unwrap_or(usize::MAX).min(entries.len());
        let rest = entries.split_off(excess);
        let known = |id: EntryId| self.log.term_at(id.index).is_none_or(|term| term == id.term);
        let agrees = known(prev) && entries.iter().all(|entry| known(entry.id));
        agrees.then(|| (self.log.id_at(committed), rest))
    }

    /// Makes the log continue with `entries`, of which it may hold some already.
    fn splice(&mut self, mut entries: Vec<Entry>) {
        let held = entries.iter().take_while(|entry| self.log.holds(entry.id)).count();
        let new =
            if testpoints::mutant(Mutant::CutMatching) { entries } else { entries.split_off(held) };
        let Some(first) = new.first() else { return };
        let from = first.id.index;
        if from <= self.log.last().index {
            testpoints::mark(Mark::ConflictTruncate);
            self.log.truncate(from);
            if !testpoints::mutant(Mutant::ConfigOutlivesCut) {
                self.membership.truncate(from);
            }
            if let RoleState::Follower(follower) = &mut self.role {
                follower.confirmed = follower.confirmed.min(from.prev());
                follower.pending_ack =
                    follower.pending_ack.map(|pending_ack| pending_ack.min(from.prev()));
            }
        }
        for entry in new {
            self.membership.append(&entry);
            self.log.append(entry);
        }
    }

    /// The log matches the leader's up to `upto`: tell it, once that is durable.
    pub(super) fn set_pending_ack(&mut self, upto: Index) {
        if let RoleState::Follower(follower) = &mut self.role {
            follower.pending_ack = follower.pending_ack.max(Some(upto));
        }
    }

    /// Confirms to the leader as much of what it is owed as is durable.
    pub(super) fn send_pending_ack(&mut self) {
        let persisted = self.log.persisted();
        let RoleState::Follower(follower) = &mut self.role else {
            return;
        };
        let (Some(leader), Some(pending_ack)) = (follower.leader, follower.pending_ack) else {
            return;
        };
        let last = if testpoints::mutant(Mutant::AckUndurable) {
            pending_ack
        } else {
            pending_ack.min(persisted)
        };
        let in_full = last == pending_ack;
        if in_full {
            follower.pending_ack = None;
        }
        // In part, too: under a steady stream of appends there is always something not durable yet.
        if in_full || last > follower.confirmed {
            if !in_full {
                testpoints::mark(Mark::ConfirmedInPart);
            }
            follower.confirmed = follower.confirmed.max(last);
            self.send(leader, Body::Appended { last });
        }
    }

    /// The leader is there, and says how far it is safe to apply.
    pub(super) fn handle_heartbeat(
        &mut self,
        from: NodeId,
        commit: Index,
        round: u64,
        successor: Option<NodeId>,
    ) {
        if let RoleState::Follower(follower) = &mut self.role {
            follower.successor = successor;
        }
        // The leader names no more than we confirmed; beyond our log it cannot mean us.
        if commit <= self.log.last().index {
            self.log.commit_to(commit);
        }
        self.send(from, Body::HeartbeatReply { round });
    }

    /// The connection to the leader broke.
    pub(super) fn leader_link_lost(&mut self) {
        let delay_ticks = self.rng.between(1, self.config.leader_lost_delay_ticks_max);
        let RoleState::Follower(follower) = &mut self.role else {
            return;
        };
        follower.link_lost = true;
        let due = follower.campaign_in_ticks.map_or(delay_ticks, |due| due.min(delay_ticks));
        follower.campaign_in_ticks = Some(due);
        let reads = std::mem::take(&mut follower.reads).abandon();
        self.refuse_reads(reads, Refusal::NotLeader);
    }

    /// A tick of a follower.
    pub(super) fn tick_follower(&mut self) {
        let read_ticks_max = self.forwarded_read_ticks_max();
        let RoleState::Follower(follower) = &mut self.role else {
            return;
        };
        let lost_reads = follower.reads.tick(read_ticks_max);
        follower.elapsed_ticks += 1;
        let timeout_ticks = self.detector.stretched(follower.timeout_ticks, &self.config);
        let mut due = follower.elapsed_ticks >= timeout_ticks;
        let cause = match (due, follower.link_lost) {
            (true, _) => Cause::ElectionTimeout,
            (false, true) => Cause::ConnectionLost,
            (false, false) => Cause::NotElected,
        };
        if let Some(ticks) = &mut follower.campaign_in_ticks {
            *ticks = ticks.saturating_sub(1);
            due |= *ticks == 0;
        }
        self.refuse_reads(lost_reads, Refusal::NotLeader);
        if due {
            self.election_timeout(cause);
        }
    }
}
