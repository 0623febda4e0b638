//! Leading (§5.3, §5.4.2): bring every follower's log to match, and commit what a quorum holds.
//!
//! Inputs only move cursors. What follows from them is sent when the caller takes its
//! [`Ready`](super::ready::Ready): many proposals that came in together leave in one append per
//! follower, and many commits are told once. Appends leave while the leader's own disk writes
//! (thesis §10.2.1); the leader counts itself as far as that disk has come, like any other.
//!
//! A commit is told at once to the follower at which somebody waits for it; the others hear of it
//! with the next append, and by the next tick if there is none. Under a single client that spares
//! two messages each way for every write.
//!
//! The leader that does not hear from a quorum for an election timeout steps down (thesis §6.2,
//! CheckQuorum). Commit indexes are not persisted for their own sake: they ride with what is.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::testpoints::{self, Mark, Mutant};

use super::config::Config;
use super::log::Log;
use super::message::{Body, Refusal};
use super::node::{RaftNode, RoleState};
use super::progress::{Progress, ProgressState};
use super::quorum;
use super::read_index::ReadRounds;
use super::transfer::Transfer;
use super::types::{Configuration, Entry, EntryId, Index, NodeId, Payload, RequestId};

/// The state of a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    /// Every other member, learners included; and those just removed, until they know.
    pub(super) peers: BTreeMap<NodeId, Progress>,
    pub(super) heartbeat_elapsed_ticks: u32,
    /// A tick has passed: every follower is to hear of what is committed.
    pub(super) commit_due: bool,
    pub(super) reads: ReadRounds,
    pub(super) transfer: Option<Transfer>,
}

impl Leader {
    /// Time passes. True if a heartbeat is due.
    fn tick(&mut self, heartbeat_ticks: u32) -> bool {
        self.commit_due = true;
        self.heartbeat_elapsed_ticks += 1;
        let due = self.heartbeat_elapsed_ticks >= heartbeat_ticks;
        if due {
            self.heartbeat_elapsed_ticks = 0;
        }
        due
    }

    /// Takes a read in, if there is room and leadership is not being handed over.
    pub fn admit_read(&mut self, id: RequestId, pending_max: usize) -> Result<(), Refusal> {
        if self.transfer.is_some() {
            Err(Refusal::Transferring)
        } else if self.reads.holds(id) {
            Ok(())
        } else if self.reads.pending() >= pending_max {
            Err(Refusal::Busy)
        } else {
            self.reads.add(id);
            Ok(())
        }
    }

    /// The latest read round that `peer` confirmed.
    pub fn round_confirmed(&self, peer: NodeId) -> u64 {
        self.peers.get(&peer).map_or(0, |progress| progress.round_confirmed)
    }
}

impl RaftNode {
    /// A quorum voted for this member (§5.2).
    pub(super) fn become_leader(&mut self) {
        let next = self.log.last().index.next();
        let others = self.membership.current().members();
        let id = self.config.id;
        let peers = others.into_iter().filter(|peer| *peer != id);
        let leader = Leader {
            peers: peers.map(|peer| (peer, Progress::new(next))).collect(),
            heartbeat_elapsed_ticks: 0,
            commit_due: false,
            reads: ReadRounds::default(),
            transfer: None,
        };
        assert!(self.term_leader.is_none(), "a term has one leader");
        self.term_leader = Some(id);
        self.enter(RoleState::Leader(leader));
        // §5.4.2, §8: what earlier terms left behind commits with this.
        let noop = self.next_entry(Payload::Noop);
        if !testpoints::mutant(Mutant::NoopForgotten) {
            self.log.append(noop);
        }
    }

    /// A tick of a leader.
    pub(super) fn tick_leader(&mut self) {
        let silent_max = self.election_ticks_max();
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        for (id, progress) in &mut leader.peers {
            progress.ticks_since_contact =
                progress.ticks_since_contact.saturating_add(1).min(silent_max + 1);
            if self.membership.current().learners.contains(id) {
                progress.round.ticks = progress.round.ticks.saturating_add(1).min(silent_max);
            }
        }
        let heartbeat_due = leader.tick(self.config.heartbeat_ticks);
        // CheckQuorum: a leader that cannot be heard must not keep others from finding a new one.
        let ticks_since_contact = self.quorum_silence(|progress| progress.ticks_since_contact);
        if ticks_since_contact.is_none_or(|ticks| ticks >= silent_max) {
            testpoints::mark(Mark::QuorumLost);
            self.note_quorum_lost(silent_max);
            self.become_follower(None);
            return;
        }
        self.tick_transfer();
        self.tick_snapshots();
        self.advance_change();
        self.drop_removed_peers();
        if heartbeat_due {
            self.broadcast_heartbeat();
        }
    }

    /// A tick of a leader that did not run when it passed (see [`RaftNode::tick_late`]).
    pub(super) fn tick_leader_late(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        for progress in leader.peers.values_mut() {
            progress.missed_ticks = progress.missed_ticks.saturating_add(1);
        }
        if leader.tick(self.config.heartbeat_ticks) {
            self.broadcast_heartbeat();
        }
    }

    /// For how many ticks of the clock no quorum has been heard; none without voters, or when not
    /// leading.
    pub fn quorum_contact_ticks(&self) -> Option<u32> {
        self.quorum_silence(|progress| {
            progress.ticks_since_contact.saturating_add(progress.missed_ticks)
        })
    }

    /// The same, by what is counted of each peer.
    fn quorum_silence(&self, silent: impl Fn(&Progress) -> u32) -> Option<u32> {
        let RoleState::Leader(leader) = &self.role else {
            return None;
        };
        let lately = quorum::reached(self.membership.current(), |voter| {
            Reverse(match leader.peers.get(&voter) {
                Some(progress) => silent(progress),
                None if voter == self.config.id => 0,
                None => u32::MAX,
            })
        });
        lately.map(|Reverse(ticks)| ticks)
    }

    fn broadcast_heartbeat(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        for progress in leader.peers.values_mut() {
            progress.resend_checked = false;
        }
        let peers: Vec<NodeId> = leader.peers.keys().copied().collect();
        for peer in peers {
            self.send_heartbeat(peer);
        }
    }

    /// Commit at most what `peer` is known to hold: it may not hold the rest.
    pub(super) fn send_heartbeat(&mut self, peer: NodeId) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&peer) else {
            return;
        };
        let commit = if testpoints::mutant(Mutant::HeartbeatCommitsAll) {
            self.log.committed()
        } else {
            progress.matched().min(self.log.committed())
        };
        progress.commit_sent = progress.commit_sent.max(commit);
        let round = leader.reads.round();
        let successor = leader.successor();
        self.send(peer, Body::Heartbeat { commit, round, successor });
    }

    /// `from` answers as a follower of this leader. None if it is not one.
    fn heard_from(&mut self, from: NodeId) -> Option<&mut Progress> {
        let RoleState::Leader(leader) = &self.role else {
            return None;
        };
        let ticks_since_contact = leader.peers.get(&from)?.ticks_since_contact;
        // Only then can this end a silence of the quorum that is worth a note.
        let overdue = ticks_since_contact > self.config.heartbeat_ticks;
        let before =
            if overdue { self.quorum_silence(|one| one.ticks_since_contact) } else { None };
        self.progress_mut(from)?.ticks_since_contact = 0;
        if let (Some(before), Some(after)) =
            (before, self.quorum_silence(|one| one.ticks_since_contact))
            && after < before
        {
            self.detector.observe(before, &self.config);
        }
        let progress = self.progress_mut(from)?;
        progress.missed_ticks = 0;
        Some(progress)
    }

    fn progress_mut(&mut self, peer: NodeId) -> Option<&mut Progress> {
        match &mut self.role {
            RoleState::Leader(leader) => leader.peers.get_mut(&peer),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        }
    }

    /// `from` holds the log up to `last`.
    pub(super) fn handle_appended(&mut self, from: NodeId, last: Index) {
        // Nobody can confirm what was never there.
        if last > self.log.last().index {
            return;
        }
        let base = self.log.base().index;
        if let Some(progress) = self.heard_from(from) {
            progress.confirm(last, base);
            self.advance_commit();
            self.promote_when_due(from);
            self.advance_transfer(from, false);
        }
    }

    /// `from` lacks the entry at `prev`.
    pub(super) fn handle_rejected(&mut self, from: NodeId, prev: Index, hint: EntryId) {
        // The highest entry here that can match, given the highest there (§5.3).
        let limit = EntryId { term: hint.term, index: hint.index.min(prev) };
        let possible = self.log.highest_possible(limit);
        if let Some(progress) = self.heard_from(from) {
            let news = progress.reject(prev, possible.index);
            testpoints::mark(if news { Mark::ProbeMovesBack } else { Mark::StaleRejection });
        }
    }

    /// `from` follows, as of `round`.
    pub(super) fn handle_heartbeat_reply(&mut self, from: NodeId, round: u64) {
        let RoleState::Leader(leader) = &self.role else {
            return;
        };
        if round > leader.reads.round() {
            return;
        }
        let Some(progress) = self.heard_from(from) else {
            return;
        };
        if progress.round_confirmed < round {
            progress.round_confirmed = round;
            self.release_reads();
        }
        self.retransmit_if_stalled(from);
        self.promote_when_due(from);
        self.advance_transfer(from, true);
    }

    /// Sees to it that nothing lost on the way to `peer`, which lives, stays lost. A probe may go
    /// out again. In a stream, an empty append after all of it is rejected if any is missing. At
    /// most once a heartbeat: mostly the answer is just under way, and read rounds bring many
    /// replies.
    fn retransmit_if_stalled(&mut self, peer: NodeId) {
        let (last, base, commit) = (self.log.last().index, self.log.base(), self.log.committed());
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&peer) else {
            return;
        };
        if std::mem::replace(&mut progress.resend_checked, true) {
            return;
        }
        match progress.state() {
            ProgressState::Probe { .. } => progress.resume(),
            ProgressState::Snapshot { .. } => {}
            ProgressState::Replicate(_) if progress.matched() == last => {}
            ProgressState::Replicate(_) if progress.next().prev() < base.index => {
                progress.probe_from(progress.matched().next());
            }
            ProgressState::Replicate(_) => {
                let prev = self.log.id_at(progress.next().prev());
                let entries = Vec::new();
                self.send(peer, Body::Append { prev, entries, commit });
            }
        }
    }

    /// §5.3, §5.4.2: an entry is committed when a quorum holds it durably and it is of this term;
    /// whatever comes before it is committed with it.
    pub(super) fn advance_commit(&mut self) {
        let RoleState::Leader(leader) = &self.role else {
            return;
        };
        let (id, persisted) = (self.config.id, self.log.persisted());
        let mut config = self.membership.current();
        let counted = Configuration::of_voters(config.voters.iter().copied().chain([id]));
        if testpoints::mutant(Mutant::RemovedCounted) && !config.is_voter(id) {
            config = &counted;
        }
        let held = quorum::reached(config, |voter| {
            if voter == id {
                let undurable = testpoints::mutant(Mutant::CountUndurable);
                return if undurable { self.log.last().index } else { persisted };
            }
            leader.peers.get(&voter).map_or(Index(0), Progress::matched)
        });
        let Some(index) = held.filter(|index| *index > self.log.committed()) else {
            return;
        };
        let own_term = self.log.term_at(index) == Some(self.term);
        if own_term || testpoints::mutant(Mutant::CommitOldTerm) {
            let before = self.log.committed();
            self.log.commit_to(index);
            self.record_commit_waiters(before);
            self.advance_change();
        } else {
            testpoints::mark(Mark::OldTermWithheld);
        }
    }

    /// A member that forwarded a proposal which was committed since `before` waits to hear of it.
    fn record_commit_waiters(&mut self, before: Index) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        for entry in self.log.iter(before.next(), self.log.committed()) {
            if let Payload::Command(proposal) = &entry.payload
                && let Some(progress) = leader.peers.get_mut(&proposal.id.origin)
            {
                progress.commit_wanted = entry.id.index;
            }
        }
    }

    /// Sends to each follower what its progress allows.
    pub(super) fn replicate(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let mut messages = Vec::new();
        let commit_due = std::mem::take(&mut leader.commit_due);
        for (peer, progress) in &mut leader.peers {
            if commit_due {
                progress.commit_wanted = self.log.committed();
            }
            let wants_snapshot = replicate_to(progress, &self.log, &self.config, |body| {
                messages.push((*peer, body));
            });
            if wants_snapshot {
                self.out.snapshots_wanted.push(*peer);
            }
        }
        for (peer, body) in messages {
            self.send(peer, body);
        }
    }

    /// The connection to a follower broke: what was on its way may be lost.
    pub(super) fn follower_link_lost(&mut self, peer: NodeId) {
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.peers.get_mut(&peer)
        {
            progress.link_lost();
        }
    }
}

/// Sends what one follower lacks and has room for. True if it needs a snapshot instead.
fn replicate_to(
    progress: &mut Progress,
    log: &Log,
    config: &Config,
    mut send: impl FnMut(Body),
) -> bool {
    let (last, commit) = (log.last().index, log.committed());
    loop {
        let idle = progress.next() > last;
        let wait = match progress.state() {
            ProgressState::Probe { paused } => *paused,
            ProgressState::Replicate(_) if idle => progress.commit_sent >= progress.commit_wanted,
            ProgressState::Replicate(window) => {
                let full = window.is_full(config.inflight_messages_max, config.inflight_bytes_max);
                if full {
                    testpoints::mark(Mark::WindowFull);
                }
                full
            }
            ProgressState::Snapshot { .. } => true,
        };
        if wait {
            return false;
        }
        let prev = progress.next().prev();
        if prev < log.base().index {
            if progress.ticks_since_contact > config.election_ticks_max {
                // A peer that is away needs nothing until it is back.
                testpoints::mark(Mark::SnapshotPostponed);
                progress.pause();
                return false;
            }
            if progress.snapshot_rest_ticks > 0 {
                testpoints::mark(Mark::SnapshotRested);
                progress.pause();
                return false;
            }
            progress.await_snapshot();
            return true;
        }
        let entries = log.slice(progress.next(), last, config.append_bytes_max);
        let bytes = entries.iter().map(Entry::size_bytes).sum();
        let upto = entries.last().map_or(prev, |entry| entry.id.index);
        progress.sent(upto, bytes);
        progress.commit_sent = commit;
        send(Body::Append { prev: log.id_at(prev), entries, commit });
    }
}
