//! Changing who takes part, on a live cluster (§6, thesis §4.2, §4.3).
//!
//! The leader appends the configuration that is to be, joint if its voters differ from the
//! present ones; once that is committed, whoever leads then appends the one that follows it. A
//! configuration counts from its append, so nobody ever campaigns or commits by an older one than
//! its log holds. One change at a time: none begins before the one in force is committed, and
//! simple, and the leader has committed an entry of its own term.
//!
//! Learners that are to vote are promoted as soon as they lag less than an election timeout behind.
//! A leader that a change leaves out goes on, without counting itself, until that change is
//! committed (thesis §4.2.2); then it hands over. Members that went are still brought up to the
//! change that took them out, so that they know; whoever missed it asks for votes one day, and is
//! told then.

use crate::testpoints::{self, Mark, Mutant};

use super::change::{Change, ChangeError};
use super::config::Config;
use super::message::{Body, Refusal};
use super::node::{RaftNode, RoleState};
use super::progress::{Progress, ProgressState};
use super::quorum::majority;
use super::types::{Configuration, NodeId, Payload, RequestId};

impl RaftNode {
    /// Asks for changes of the membership, to be done in one step: here if this member leads, else
    /// through the leader. A refusal comes in `Ready.refused`; else they are done once a
    /// configuration with this `request` that is not joint is applied.
    pub fn change_membership(&mut self, id: RequestId, changes: Vec<Change>) {
        match &self.role {
            RoleState::Leader(_) => {
                if let Err(why) = self.take_change(id, &changes) {
                    self.out.refused.push((id, why));
                }
            }
            RoleState::Follower(follower) if follower.reachable_leader().is_some() => {
                let leader = follower.reachable_leader().expect("just seen");
                self.send(leader, Body::Change { id, changes });
            }
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.out.refused.push((id, Refusal::NotLeader));
            }
        }
        self.assert_invariants();
    }

    /// A follower passes on what its operator wants. What came before is not answered again: its
    /// outcome may still be open.
    pub(super) fn handle_change(&mut self, from: NodeId, id: RequestId, changes: &[Change]) {
        if !self.forwards.is_fresh_change(id) {
            return;
        }
        let taken = match &self.role {
            RoleState::Leader(_) => self.take_change(id, changes),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                Err(Refusal::NotLeader)
            }
        };
        if let Err(why) = taken {
            self.send(from, Body::Refused { ids: vec![id], why });
        }
    }

    fn take_change(&mut self, id: RequestId, changes: &[Change]) -> Result<(), Refusal> {
        let RoleState::Leader(leader) = &self.role else {
            unreachable!("only the leader changes the membership");
        };
        if leader.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        self.begin_change(Some(id), changes).map_err(Refusal::Change)
    }

    fn begin_change(
        &mut self,
        request: Option<RequestId>,
        changes: &[Change],
    ) -> Result<(), ChangeError> {
        let underway =
            self.membership.current().is_joint() || self.membership.since() > self.log.committed();
        if underway && !testpoints::mutant(Mutant::ChangesAtOnce) {
            testpoints::mark(Mark::SecondChangeRefused);
            return Err(ChangeError::InProgress);
        }
        if self.log.term_at(self.log.committed()) != Some(self.term) {
            return Err(ChangeError::LeaderNotReady);
        }
        // What a member says of itself is not the occasion to fix where all are reached: until the
        // membership changes, their operators may still say so.
        let tells = changes.iter().all(Change::only_tells);
        let present = if tells { self.membership.current().clone() } else { self.with_addresses() };
        let target = Configuration { request, ..present.changed(changes)? };
        self.check_feasible(&present, &target)?;
        let next = present.towards(target);
        testpoints::mark(if next.is_joint() { Mark::JointEntered } else { Mark::LearnerChanged });
        self.append_configuration(next);
        Ok(())
    }

    /// The configuration in force, with every address that this member knows.
    fn with_addresses(&self) -> Configuration {
        let mut config = self.membership.current().clone();
        for id in config.members() {
            if let Some(address) = self.config.addresses.get(&id) {
                config.addresses.entry(id).or_insert_with(|| address.clone());
            }
        }
        config
    }

    /// Whether the cluster could go on under `target`: with new voters that have the data, and a
    /// quorum that is in touch.
    fn check_feasible(
        &self,
        present: &Configuration,
        target: &Configuration,
    ) -> Result<(), ChangeError> {
        if target.voters.difference(&present.voters).any(|new| !self.has_caught_up(*new)) {
            return Err(ChangeError::NotCaughtUp);
        }
        let moves = |voter: &NodeId| target.addresses.get(voter) != present.addresses.get(voter);
        let voters = || target.voters.iter().copied();
        if target.voters == present.voters && !voters().any(|voter| moves(&voter)) {
            return Ok(());
        }
        let there = |voter: NodeId| self.is_reached(voter, target, moves(&voter));
        let in_touch = voters().filter(|voter| self.in_touch(*voter) && there(*voter)).count();
        let enough = in_touch >= majority(target.voters.len());
        if !enough && !testpoints::mutant(Mutant::QuorumGivenUp) {
            return Err(ChangeError::NoQuorum);
        }
        Ok(())
    }

    /// Whether `voter` was last reached where `config` says that it is, or where the operator of
    /// this member overrides that. If it `moves` only now, it must have been reached there already,
    /// or count as out of touch until it is.
    fn is_reached(&self, voter: NodeId, config: &Configuration, moves: bool) -> bool {
        if voter == self.config.id || testpoints::mutant(Mutant::MovedCounted) {
            return true;
        }
        let reached = match self.reached.get(&voter) {
            None => return !moves,
            Some(None) => return false,
            Some(Some(reached)) => reached,
        };
        let overridden = self.config.address_overrides.get(&voter) == Some(reached);
        let logged = config.addresses.get(&voter);
        logged.is_none_or(|logged| logged == reached) || overridden && !moves
    }

    /// Whether a voter was heard from lately. One that has not answered this leader yet was not,
    /// though a new leader gives everybody time before it counts them as silent.
    fn in_touch(&self, voter: NodeId) -> bool {
        let silent_max = self.config.election_ticks_max;
        voter == self.config.id
            || self.progress(voter).is_some_and(|progress| {
                progress.ticks_since_contact < silent_max
                    && !matches!(progress.state(), ProgressState::Probe { .. })
            })
    }

    /// Whether a learner keeps up with the log (thesis §4.2.1).
    fn has_caught_up(&self, learner: NodeId) -> bool {
        let Config { election_ticks_min, election_ticks_max, .. } = self.config;
        self.progress(learner).is_some_and(|progress| {
            matches!(progress.state(), ProgressState::Replicate(_))
                && progress.round.keeps_up(election_ticks_max)
                && progress.ticks_since_contact < election_ticks_min
        })
    }

    fn progress(&self, peer: NodeId) -> Option<&Progress> {
        match &self.role {
            RoleState::Leader(leader) => leader.peers.get(&peer),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        }
    }

    fn append_configuration(&mut self, config: Configuration) {
        let entry = self.next_entry(Payload::Config(config));
        self.membership.append(&entry);
        self.log.append(entry);
        let next = self.log.last().index.next();
        let (own, config) = (self.config.id, self.membership.current());
        let RoleState::Leader(leader) = &mut self.role else {
            unreachable!("only the leader changes the membership");
        };
        for member in config.members().into_iter().filter(|member| *member != own) {
            leader.peers.entry(member).or_insert_with(|| Progress::new(next));
        }
        let transfer_ends =
            leader.transfer.as_ref().is_some_and(|transfer| !config.is_voter(transfer.target));
        if transfer_ends {
            leader.transfer = None;
        }
        // A round may have all the answers that it needs now, and none to come.
        self.release_reads();
    }

    /// Takes the next step of a change that is committed, by whichever leader it began.
    pub(super) fn advance_change(&mut self) {
        let RoleState::Leader(leader) = &self.role else {
            return;
        };
        let since = self.membership.since();
        let settled = since <= self.log.committed() || testpoints::mutant(Mutant::JointLeftEarly);
        let config = self.membership.current();
        if !settled || self.log.term_at(self.log.committed()) != Some(self.term) {
            return;
        }
        if config.is_joint() {
            let inherited = self.log.term_at(since) != Some(self.term);
            if inherited {
                testpoints::mark(Mark::JointInherited);
            }
            if !inherited || !testpoints::mutant(Mutant::JointForgotten) {
                let left = config.left();
                self.append_configuration(left);
            }
        } else if !config.is_member(self.config.id) && leader.transfer.is_none() {
            testpoints::mark(Mark::RemovedLeaderHandsOver);
            // The core refuses when nobody can take over: it is tried again with every tick.
            let _ = self.transfer_leadership(None);
        }
    }

    /// Makes `peer` a voter, if it is to be one and has caught up. If that cannot be now, there
    /// will be another occasion with its next answer.
    pub(super) fn promote_when_due(&mut self, peer: NodeId) {
        let (last, ticks_max) = (self.log.last().index, self.config.election_ticks_max);
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        if self.membership.current().learners.contains(&peer)
            && let Some(progress) = leader.peers.get_mut(&peer)
        {
            progress.round.advance(progress.matched, last, ticks_max);
        }
        let wanted = self.membership.current().promoting.contains_key(&peer);
        if wanted && leader.transfer.is_none() && self.has_caught_up(peer) {
            let _ = self.begin_change(None, &[Change::Promote(peer)]);
        }
    }

    /// Lets go of members that were taken out, once they were told so or cannot be.
    pub(super) fn drop_removed_peers(&mut self) {
        let silent_max = self.config.election_ticks_max;
        let (config, since) = (self.membership.current(), self.membership.since());
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        leader.peers.retain(|peer, progress| {
            let told = progress.matched() >= since && progress.commit_sent >= since;
            let gone = progress.ticks_since_contact > silent_max
                || matches!(progress.state(), ProgressState::Snapshot { .. });
            config.is_member(*peer) || !(told || gone)
        });
    }

    /// Whether `peer` was removed, for good.
    pub(super) fn has_removed(&self, peer: NodeId) -> bool {
        self.membership.since() <= self.log.committed()
            && self.membership.current().was_removed(peer)
    }

    /// A member says that this one was removed. Its word is good for no more than that this one
    /// need not go on, and is an answer: whoever follows a leader did not ask.
    pub(super) fn handle_removed(&mut self, from: NodeId) {
        let asked = matches!(self.role, RoleState::PreCandidate(_) | RoleState::Candidate(_));
        if asked && self.membership.knows(from) {
            testpoints::mark(Mark::RemovalToldLate);
            self.removal_notified = true;
        }
    }

    /// Whether this member was removed from the cluster, and knows it for certain or was told. It
    /// has nothing more to do.
    pub fn is_removed(&self) -> bool {
        self.removal_notified || self.has_removed(self.config.id)
    }
}
