//! What is checked of every message first: whether it is valid at all, and what its term says
//! (§5.1)?
//!
//! Terms are settled here and nowhere else. A higher term makes a follower, except where that
//! would let somebody disturb who has no business to: a pre-vote is only a question, a candidate
//! must be worth listening to, a leader must have a say (`standing`), and answers count only from
//! members. A term out of reach is approached in steps. A lower term is told of the
//! higher one, so that a leader of the past steps down and a member that is stuck behind is freed.
//! Whatever no honest member sends is dropped.

use crate::testpoints::{self, Mark, Mutant};

use super::change::{ADDRESS_BYTES_MAX, ATTRIBUTE_BYTES_MAX, CHANGES_MAX, Change};
use super::election::VoteRequest;
use super::message::{Body, Message, Refusal};
use super::node::{RaftNode, RoleState};
use super::notice::Notice;
use super::types::{
    Attributes, Entry, EntryId, Index, NodeId, Payload, Proposal, SnapshotMeta, Term,
};

/// No honest cluster gets near it: at a million elections a second, in 100 000 years. Nobody who is
/// not honest gets there soon either: see `standing`.
const NUMBER_MAX: u64 = 1 << 62;

impl RaftNode {
    /// Takes a message from a peer. Never panics, whatever it holds.
    pub fn step(&mut self, message: Message) {
        if is_possible(self.id(), &message) {
            self.detector.heard(message.from, &self.config);
            match message.term.cmp(&self.term) {
                std::cmp::Ordering::Less => self.handle_lower_term(message),
                std::cmp::Ordering::Equal => {
                    if !claims_to_lead(&message.body) || self.may_claim_to_lead(message.from) {
                        self.dispatch(message);
                    }
                }
                std::cmp::Ordering::Greater => {
                    if self.handle_higher_term(&message) {
                        self.dispatch(message);
                    }
                }
            }
        }
        self.assert_invariants();
    }

    /// A message of a lower term has no effect here, but its sender may have to learn of this one.
    fn handle_lower_term(&mut self, message: Message) {
        let from = message.from;
        match message.body {
            Body::Append { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. } => {
                self.send(from, Body::HeartbeatReply { round: 0 });
            }
            Body::RequestVote { pre_vote, .. } if self.has_removed(from) => {
                self.send(from, Body::Removed { pre_vote });
            }
            Body::RequestVote { pre_vote, .. } => {
                self.send(from, Body::Vote { granted: false, pre_vote });
            }
            Body::Removed { .. } => self.handle_removed(from),
            // Whether the proposals were taken when that term was this one is not known any more:
            // no promise about them, just the term.
            Body::Propose { .. } | Body::Change { .. } => {
                self.send(from, Body::Refused { ids: Vec::new(), why: Refusal::NotLeader });
            }
            Body::ReadIndex { id } => {
                self.send(from, Body::Refused { ids: vec![id], why: Refusal::NotLeader });
            }
            // Who the members are is no matter of terms.
            Body::AskMembers => self.handle_ask_members(from),
            Body::Members { ids } => self.handle_members(from, ids),
            // A refusal stays true for ever.
            Body::Refused { ids, why } if self.membership.knows(from) => {
                self.handle_refused(ids, why);
            }
            Body::Appended { last } if testpoints::mutant(Mutant::StaleAckCounted) => {
                self.handle_appended(from, last);
            }
            Body::Vote { granted, pre_vote } if testpoints::mutant(Mutant::StaleVoteCounted) => {
                self.handle_vote(from, self.term, granted, pre_vote);
            }
            Body::TimeoutNow if testpoints::mutant(Mutant::StaleTimeoutNow) => {
                self.handle_timeout_now(from);
            }
            Body::Refused { .. }
            | Body::Vote { .. }
            | Body::Appended { .. }
            | Body::Rejected { .. }
            | Body::HeartbeatReply { .. }
            | Body::TimeoutNow
            | Body::ReadIndexReply { .. } => testpoints::mark(Mark::StaleAnswerIgnored),
        }
    }

    /// A message of a higher term: follow it there, if its sender has a say. False: drop it.
    fn handle_higher_term(&mut self, message: &Message) -> bool {
        let from = message.from;
        let follow = match &message.body {
            // The leader of a later term may be of a membership that has not got here yet.
            Body::Append { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. } => {
                if !self.may_claim_to_lead(from) {
                    return false;
                }
                true
            }
            Body::RequestVote { last, pre_vote, transfer } => {
                (!pre_vote || testpoints::mutant(Mutant::PreVoteRaisesTerm))
                    && self.should_consider(VoteRequest {
                        candidate: from,
                        term: message.term,
                        last: *last,
                        pre_vote: *pre_vote,
                        transfer: *transfer,
                    })
            }
            // The term of a granted pre-vote is the one that was asked about; that of the others
            // does not matter.
            Body::Vote { granted: true, pre_vote: true }
            | Body::AskMembers
            | Body::Members { .. }
            | Body::Removed { .. } => false,
            // An order for those who follow already.
            Body::TimeoutNow => {
                testpoints::mark(Mark::TimeoutNowIgnored);
                return testpoints::mutant(Mutant::StaleTimeoutNow);
            }
            Body::Vote { .. }
            | Body::Appended { .. }
            | Body::Rejected { .. }
            | Body::HeartbeatReply { .. }
            | Body::Propose { .. }
            | Body::Change { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Refused { .. } => {
                if !self.membership.knows(from) {
                    return false;
                }
                true
            }
        };
        let leads = matches!(self.role, RoleState::Leader(_));
        if follow && !(leads && testpoints::mutant(Mutant::FutureIgnored)) {
            let term = self.within_reach(message.term);
            self.raise_term(term);
            self.out.note(Notice::HigherTerm { from, term });
            self.become_follower(None);
            return term == message.term;
        }
        true
    }

    /// A message of this term, or one whose term is for its handler to judge.
    fn dispatch(&mut self, message: Message) {
        let Message { from, to: _, term, body } = message;
        match body {
            Body::RequestVote { last, pre_vote, transfer } => {
                let candidate = from;
                let request = VoteRequest { candidate, term, last, pre_vote, transfer };
                self.handle_request_vote(request);
            }
            Body::Vote { granted, pre_vote } => self.handle_vote(from, term, granted, pre_vote),
            Body::Append { prev, entries, commit } => {
                if self.accept_leader(from) {
                    self.handle_append(from, prev, entries, commit);
                }
            }
            Body::Heartbeat { commit, round, successor } => {
                if self.accept_leader(from) {
                    self.handle_heartbeat(from, commit, round, successor);
                }
            }
            Body::InstallSnapshot { meta } => {
                if self.is_snapshot_within_reach(meta.last.index) && self.accept_leader(from) {
                    self.handle_install_snapshot(meta);
                }
            }
            Body::Appended { last } => self.handle_appended(from, last),
            Body::Rejected { prev, hint } => self.handle_rejected(from, prev, hint),
            Body::HeartbeatReply { round } => self.handle_heartbeat_reply(from, round),
            Body::TimeoutNow => self.handle_timeout_now(from),
            Body::Propose { proposals } => {
                if self.membership.knows(from) {
                    self.handle_propose(from, proposals);
                }
            }
            Body::ReadIndex { id } => {
                if self.membership.knows(from) {
                    self.handle_read_index(from, id);
                }
            }
            Body::Change { id, changes } => {
                if self.membership.knows(from) {
                    self.handle_change(from, id, &changes);
                }
            }
            Body::Removed { .. } => self.handle_removed(from),
            Body::ReadIndexReply { id, index } => self.handle_read_index_reply(from, id, index),
            Body::AskMembers => self.handle_ask_members(from),
            Body::Members { ids } => self.handle_members(from, ids),
            Body::Refused { ids, why } => {
                if self.membership.knows(from) {
                    self.handle_refused(ids, why);
                }
            }
        }
    }
}

/// Whether an honest member could have sent this to `own`.
fn is_possible(own: NodeId, message: &Message) -> bool {
    let Message { from, to, term, body } = message;
    *to == own
        && *from != own
        && term.0 <= NUMBER_MAX
        && match body {
            Body::RequestVote { last, .. } => is_possible_id(*last, *term),
            Body::Append { prev, entries, commit } => {
                is_possible_id(*prev, *term)
                    && is_possible_index(*commit)
                    && are_consecutive(*prev, entries, *term)
            }
            Body::Appended { last } => is_possible_index(*last),
            Body::Rejected { prev, hint } => {
                is_possible_index(*prev) && is_possible_id(*hint, *term)
            }
            Body::Heartbeat { commit, .. } => is_possible_index(*commit),
            Body::InstallSnapshot { meta } => is_possible_snapshot(meta, *term),
            Body::Propose { proposals } => are_of(*from, proposals),
            Body::ReadIndex { id } => id.origin == *from,
            Body::Change { id, changes } => {
                id.origin == *from && changes.len() <= CHANGES_MAX && changes.iter().all(is_decent)
            }
            Body::ReadIndexReply { index, .. } => is_possible_index(*index),
            Body::Vote { .. }
            | Body::HeartbeatReply { .. }
            | Body::TimeoutNow
            | Body::Removed { .. }
            | Body::AskMembers
            | Body::Members { .. }
            | Body::Refused { .. } => true,
        }
}

/// Whether only a leader says that.
fn claims_to_lead(body: &Body) -> bool {
    matches!(body, Body::Append { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. })
}

fn is_possible_index(index: Index) -> bool {
    index.0 <= NUMBER_MAX
}

fn is_possible_id(id: EntryId, term: Term) -> bool {
    is_possible_index(id.index) && id.term <= term && (id.index.0 == 0) == (id.term.0 == 0)
}

fn are_consecutive(prev: EntryId, entries: &[Entry], term: Term) -> bool {
    let mut last = prev;
    entries.iter().all(|entry| {
        let follows = entry.id.index == last.index.next() && entry.id.term >= last.term;
        last = entry.id;
        let payload_ok = match &entry.payload {
            Payload::Noop | Payload::Command(_) => true,
            Payload::Config(config) => !config.voters.is_empty(),
        };
        follows && payload_ok && entry.id.term.0 > 0 && is_possible_id(entry.id, term)
    })
}

fn is_possible_snapshot(meta: &SnapshotMeta, term: Term) -> bool {
    meta.last.index.0 > 0 && is_possible_id(meta.last, term) && !meta.config.voters.is_empty()
}

fn is_decent(change: &Change) -> bool {
    match change {
        Change::Add { address, .. } | Change::UpdateAddress { address, .. } => {
            !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX
        }
        Change::Publish { attributes: Attributes { name, client_addr }, .. } => {
            name.len() <= ATTRIBUTE_BYTES_MAX && client_addr.len() <= ATTRIBUTE_BYTES_MAX
        }
        Change::Promote(_) | Change::Remove(_) => true,
    }
}

/// Proposals come from the member where they came in, in the order in which they did.
fn are_of(from: NodeId, proposals: &[Proposal]) -> bool {
    proposals.iter().all(|proposal| proposal.id.origin == from)
        && proposals.is_sorted_by(|one, next| one.id.sequence < next.id.sequence)
}
