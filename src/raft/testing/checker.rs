//! The paper's promises (figure 3) and some of ours, checked over a whole cluster as it runs.

use std::collections::{BTreeMap, BTreeSet};

use super::super::quorum::{self, Tally};
use super::super::{
    Body, Configuration, Entry, EntryId, Index, Message, NodeId, Payload, ReadState, RequestId,
    Role, Term,
};
use super::member::{Durable, Member};

/// All that has been seen.
#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, NodeId>,
    /// Committed by anybody, ever: index 1 first.
    pub committed: Vec<Entry>,
    /// Every entry ever seen in a log, with the one before it.
    entries: BTreeMap<EntryId, (EntryId, Entry)>,
    /// Highest term and commit seen of each member since it started.
    seen: BTreeMap<NodeId, (Term, Index)>,
    proposals_committed: BTreeSet<RequestId>,
    proposals_refused: BTreeSet<RequestId>,
    /// How much was committed anywhere when the read was put.
    reads: BTreeMap<RequestId, Index>,
    pub elections: usize,
    pub reads_released: usize,
    pub refusals: usize,
    /// Joint configurations committed.
    pub changes: usize,
    /// The configuration committed last.
    configuration: Option<Configuration>,
}

impl Checker {
    /// After any event at `members[at]`.
    pub fn observe(&mut self, members: &[Member], at: usize) {
        let Some(node) = &members[at].node else { return };
        let (id, term, commit) = (node.id(), node.term(), node.committed());
        let seen = self.seen.entry(id).or_default();
        assert!(term >= seen.0, "member {id}: the term fell");
        assert!(commit >= seen.1, "member {id}: the commit index fell");
        let commit_before = seen.1;
        *seen = (term, commit);
        if commit > commit_before {
            self.check_commit(members, at, commit_before);
        }
        if node.role() == Role::Leader && self.leaders.get(&term) != Some(&id) {
            let other = self.leaders.insert(term, id);
            assert_eq!(other, None, "election safety: {id} leads in term {term} too");
            self.elections += 1;
            self.check_leader_completeness(&members[at]);
        }
    }

    /// A member crashed, and remembers what its disk does.
    pub fn crashed(&mut self, id: NodeId, durable: &Durable) {
        self.seen.insert(id, (durable.hard_state.term, durable.base.last.index));
    }

    /// The newly committed entries are what everybody else committed; first commits are durable on
    /// a quorum.
    fn check_commit(&mut self, members: &[Member], at: usize, before: Index) {
        let node = members[at].node.as_ref().expect("observed");
        let from = before.max(node.log.base().index).next();
        for entry in node.log.slice(from, node.committed(), usize::MAX) {
            let index = entry.id.index;
            if let Some(known) = self.committed.get(index.0 as usize - 1) {
                assert_eq!(*known, entry, "state machine safety at {index}");
                continue;
            }
            assert_eq!(self.committed.len() as u64 + 1, index.0, "commits without gaps");
            // A leader counts by the latest configuration in its log, whatever it counts.
            let leads = node.role() == Role::Leader;
            let config = if leads { node.membership() } else { node.membership_at(index) };
            let durable = |id: NodeId| {
                let member = members.iter().find(|member| member.config.id == id);
                Some(member.is_some_and(|member| member.durable.holds(entry.id)))
            };
            let held = quorum::tally(config, durable);
            assert_eq!(held, Tally::Won, "{} is committed on no durable quorum", entry.id);
            if let Payload::Command(proposal) = &entry.payload {
                let id = proposal.id;
                assert!(self.proposals_committed.insert(id), "{id:?} took effect twice");
                assert!(!self.proposals_refused.contains(&id), "{id:?} was refused");
            }
            if let Payload::Config(config) = &entry.payload {
                self.check_adjacent(config);
                self.changes += usize::from(config.is_joint());
            }
            self.committed.push(entry);
        }
    }

    /// Who was removed stays away, and voters change by way of both majorities alone (§6).
    fn check_adjacent(&mut self, next: &Configuration) {
        if let Some(last) = &self.configuration {
            assert!(last.removed.is_subset(&next.removed), "{next:?} forgets who was removed");
            if last.is_joint() {
                assert!(
                    !next.is_joint() && next.voters == last.voters,
                    "{next:?} follows {last:?}"
                );
            } else if next.is_joint() {
                assert_eq!(next.outgoing, last.voters, "the half that goes is the one there was");
            } else {
                assert_eq!(next.voters, last.voters, "voters change in a joint step alone");
            }
        }
        let back =
            next.removed.iter().find(|id| next.voters.contains(id) || next.learners.contains(id));
        assert_eq!(back, None, "a removed member came back");
        self.configuration = Some(next.clone());
    }

    fn check_leader_completeness(&self, member: &Member) {
        let node = member.node.as_ref().expect("observed");
        let base = node.log.base().index;
        for entry in &self.committed {
            let held = entry.id.index < base || node.log.holds(entry.id);
            assert!(held, "leader completeness: {} lacks {}", node.id(), entry.id);
        }
    }

    /// Log matching: one id, one entry, one predecessor. By induction: one history.
    pub fn check_log(&mut self, member: &Member) {
        let Some(node) = &member.node else { return };
        let mut prev = node.log.base();
        for entry in node.log.slice(prev.index.next(), node.log.last().index, usize::MAX) {
            let id = entry.id;
            let known = self.entries.entry(id).or_insert_with(|| (prev, entry.clone()));
            assert_eq!(known.0, prev, "log matching: {id} follows different entries");
            assert_eq!(known.1, entry, "log matching: {id} is two entries");
            prev = id;
        }
    }

    /// What a message reveals is on its sender's disk.
    pub fn check_message(durable: &Durable, message: &Message) {
        let hard_state = durable.hard_state;
        let asks_or_grants_pre_vote = matches!(
            message.body,
            Body::RequestVote { pre_vote: true, .. } | Body::Vote { granted: true, pre_vote: true }
        );
        let revealed =
            if asks_or_grants_pre_vote { Term(message.term.0 - 1) } else { message.term };
        // The term of a granted pre-vote is the candidate's idea.
        if !matches!(message.body, Body::Vote { granted: true, pre_vote: true }) {
            assert!(
                revealed <= hard_state.term,
                "reveals a term before it is durable: {message:?}"
            );
        }
        match &message.body {
            Body::Vote { granted: true, pre_vote: false } => assert!(
                hard_state.term > message.term || hard_state.vote == Some(message.to),
                "reveals a vote before it is durable: {message:?}"
            ),
            Body::RequestVote { pre_vote: false, last, .. } => {
                assert!(
                    hard_state.term > message.term || hard_state.vote == Some(message.from),
                    "campaigns before its own vote is durable: {message:?}"
                );
                assert!(durable.last() >= last.index || hard_state.term > message.term);
            }
            Body::Appended { last } => {
                assert!(durable.last() >= *last, "confirms before it is durable: {message:?}");
            }
            _ => {}
        }
    }

    /// A read is put somewhere.
    pub fn read_begins(&mut self, id: RequestId) {
        self.reads.insert(id, Index(self.committed.len() as u64));
    }

    /// A read may be served.
    pub fn read_released(&mut self, grant: ReadState) {
        self.reads_released += 1;
        let Some(least) = self.reads.remove(&grant.id) else { panic!("{grant:?} answered twice") };
        assert!(grant.index >= least, "stale read: {grant:?}, but {least} was committed before");
    }

    /// A proposal or read was refused.
    pub fn refused(&mut self, id: RequestId) {
        self.refusals += 1;
        if self.reads.remove(&id).is_none() {
            assert!(!self.proposals_committed.contains(&id), "{id:?} took effect, yet is refused");
            self.proposals_refused.insert(id);
        }
    }

    /// Reads put at `id` die with it.
    pub fn forget_reads(&mut self, id: NodeId) {
        self.reads.retain(|read, _| read.origin != id);
    }
}
