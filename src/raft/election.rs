//! Who leads (§5.2, §5.4.1), and when to ask (thesis §9.6, §6.2).
//!
//! A member that misses its leader first asks around whether it could win (pre-vote), which
//! changes nothing anywhere; only with a quorum behind it does it raise its term and campaign.
//! Others refuse both kinds of request while they hear from a live leader, unless that leader
//! itself wants the campaign, or their own connection to it broke too. The candidate's vote for
//! itself is a vote like any other: it counts once it is durable, and not if the term moved on.
//!
//! A broken connection to the leader is taken for a hint that it died: instead of the whole
//! election timeout, a small random delay passes before the pre-vote. A false alarm is harmless:
//! the others still hear the leader and refuse.
//!
//! A member that its leader cannot reach, while its own requests reach everybody, is refused for as
//! long as that lasts. After some refusals in a row it asks less often, until there is any news.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::testpoints::{self, Mark, Mutant};

use super::message::Body;
use super::node::{RaftNode, RoleState};
use super::notice::{Cause, Notice};
use super::quorum::{self, Tally};
use super::types::{EntryId, NodeId, Term};

/// After so many pre-votes in a row that a quorum refused, the rests between them double. A real
/// election is over long before.
const PRE_VOTES_AT_FULL_PACE: u32 = 8;

/// How often they double: if the others lose their leader too, and can do nothing without this
/// member, they do not wait for longer than that.
const PRE_VOTE_DOUBLINGS_MAX: u32 = 4;

/// A campaign, or the question whether to start one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidacy {
    /// The first answer of each voter.
    pub(super) votes: BTreeMap<NodeId, bool>,
    pub(super) elapsed_ticks: u32,
    pub(super) timeout_ticks: u32,
}

/// A request for a vote, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoteRequest {
    pub(super) candidate: NodeId,
    pub(super) term: Term,
    pub(super) last: EntryId,
    pub(super) pre_vote: bool,
    pub(super) transfer: bool,
}

impl RaftNode {
    /// Lets the election timeout fire now.
    pub fn campaign(&mut self) {
        self.election_timeout(Cause::Requested);
        self.assert_invariants();
    }

    /// No leader was heard for too long.
    pub(super) fn election_timeout(&mut self, cause: Cause) {
        match &self.role {
            RoleState::Leader(_) => {}
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.note_suspicion();
                if self.promotable() {
                    self.start_pre_vote(cause);
                } else {
                    // It may not lead, but it should not believe in a dead leader either.
                    self.become_follower(None);
                }
            }
        }
    }

    /// An election begins. If that is for the silence of the leader alone, it may yet turn out to
    /// be alive.
    pub(super) fn note_suspicion(&mut self) {
        if let RoleState::Follower(follower) = &self.role
            && let Some(leader) = follower.reachable_leader()
            && follower.elapsed_ticks >= self.config.election_ticks_min
        {
            self.detector.suspect(leader, follower.elapsed_ticks);
        }
    }

    /// Whether this member may lead: a voter whose state machine is not waiting for a snapshot. A
    /// voter that only an uncommitted change leaves out may be needed still, since nobody without
    /// that entry can get its vote; its own does not count then (thesis §4.2.2).
    pub(super) fn promotable(&self) -> bool {
        let own = self.config.id;
        let needed = self.membership.at(self.log.committed()).is_voter(own)
            && !testpoints::mutant(Mutant::LeftOutSilent);
        (self.membership.current().is_voter(own) || needed)
            && self.log.applied() >= self.log.base().index
    }

    fn start_pre_vote(&mut self, cause: Cause) {
        let mut candidacy = self.candidacy(BTreeMap::from([(self.config.id, true)]));
        // A question costs nothing: if it or the answers get lost, ask again soon.
        candidacy.timeout_ticks = self.draw_retry();
        self.enter(RoleState::PreCandidate(candidacy));
        self.out.note(Notice::PreVoteStarted { term: self.term.next(), cause });
        self.ask_for_votes(self.term.next(), true, false);
        self.count_votes();
    }

    /// Campaigns for real, in a new term (§5.2).
    pub(super) fn start_election(&mut self, transfer: bool) {
        let granted = self.answered(true);
        self.raise_term(self.term.next());
        self.out.note(Notice::CampaignStarted { term: self.term, transfer, granted });
        self.vote = Some(self.config.id);
        let candidacy = self.candidacy(BTreeMap::new());
        self.enter(RoleState::Candidate(candidacy));
        self.ask_for_votes(self.term, false, transfer);
    }

    fn candidacy(&mut self, votes: BTreeMap<NodeId, bool>) -> Candidacy {
        let timeout_ticks = self.draw_election_timeout();
        let timeout_ticks = self.detector.stretched(timeout_ticks, &self.config);
        Candidacy { votes, elapsed_ticks: 0, timeout_ticks }
    }

    fn ask_for_votes(&mut self, term: Term, pre_vote: bool, transfer: bool) {
        let last = self.log.last();
        let voters: Vec<NodeId> = self.other_voters().collect();
        for voter in voters {
            self.send_as(term, voter, Body::RequestVote { last, pre_vote, transfer });
        }
    }

    /// Drawn anew for every campaign and every leader (§5.2). Not stretched yet.
    pub(super) fn draw_election_timeout(&mut self) -> u32 {
        self.rng.between(self.config.election_ticks_min, self.config.election_ticks_max)
    }

    /// The shortest election timeout in force: how long a live leader shields against candidates.
    pub fn election_ticks_min(&self) -> u32 {
        self.detector.stretched(self.config.election_ticks_min, &self.config)
    }

    /// The longest election timeout in force: when a leader without a quorum steps down.
    pub fn election_ticks_max(&self) -> u32 {
        self.detector.stretched(self.config.election_ticks_max, &self.config)
    }

    /// How long to wait before the next pre-vote, when the last one came to nothing.
    fn draw_retry(&mut self) -> u32 {
        let doublings = self.pre_votes_refused.saturating_sub(PRE_VOTES_AT_FULL_PACE);
        let ticks = self.rng.between(self.config.heartbeat_ticks, self.config.election_ticks_min);
        ticks.saturating_mul(1 << doublings.min(PRE_VOTE_DOUBLINGS_MAX))
    }

    /// Whether a candidate is worth listening to at all, before its term means anything here.
    ///
    /// A live leader shields against candidates, also as one (thesis §4.2.3, §6.2), unless it hands
    /// over to this very one. And whoever is no voter here must show a log that is newer than this
    /// one, which could tell of a membership that has not got here yet, and must have a say all the
    /// same. A removed member cannot show that log, and nobody vouches for a stranger.
    pub(super) fn should_consider(&self, request: VoteRequest) -> bool {
        let may_lead = self.membership.current().is_voter(request.candidate)
            || (request.last > self.log.last() && self.has_standing(request.candidate));
        let in_leader_lease = self.is_shielded(request);
        if may_lead && in_leader_lease {
            testpoints::mark(Mark::CandidateShielded);
        }
        may_lead && !in_leader_lease
    }

    fn is_shielded(&self, request: VoteRequest) -> bool {
        let hears_leader = match &self.role {
            RoleState::Leader(_) => true,
            RoleState::Follower(follower) => follower.hears_leader(self.election_ticks_min()),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => false,
        };
        let wanted = request.transfer
            && !request.pre_vote
            && request.term == self.term.next()
            && self.is_successor(request.candidate);
        hears_leader && !wanted && !testpoints::mutant(Mutant::ShieldIgnored)
    }

    /// Asks about a candidate that may be a member without having a say here.
    fn inquire_about(&mut self, request: VoteRequest) {
        let unknown = request.last > self.log.last() && !self.has_standing(request.candidate);
        if unknown && !self.is_shielded(request) {
            self.ask_for_members();
        }
    }

    /// Answers a request for a vote. `step` has raised the term already where it should.
    pub(super) fn handle_request_vote(&mut self, request: VoteRequest) {
        let candidate = request.candidate;
        if self.has_removed(candidate) {
            self.send(candidate, Body::Removed { pre_vote: request.pre_vote });
            return;
        }
        // §5.4.1: never for a log that lacks something which this one has.
        let complete = request.last >= self.log.last()
            || testpoints::mutant(Mutant::VoteBlind)
            || (request.transfer && testpoints::mutant(Mutant::TransferVoteBlind));
        let own = self.config.id;
        let mute =
            testpoints::mutant(Mutant::LearnerMute) && !self.membership.current().is_voter(own);
        if !complete {
            testpoints::mark(Mark::ShorterLogRefused);
        }
        let granted = complete
            && !mute
            && if request.pre_vote {
                request.term > self.term
                    && self.should_consider(request)
                    && !self.has_priority_over(request)
            } else {
                let free = (self.vote.is_none() && self.term_leader.is_none())
                    || testpoints::mutant(Mutant::VoteTwice);
                // A vote once given is given again: the answer may have been lost.
                request.term == self.term
                    && (self.vote == Some(candidate) || (free && self.should_consider(request)))
            };
        let (term, pre_vote) = (request.term, request.pre_vote);
        self.out.note(Notice::VoteAnswered { candidate, term, pre_vote, granted });
        let body = Body::Vote { granted, pre_vote };
        if !granted {
            self.inquire_about(request);
            self.send(candidate, body);
            return;
        }
        if request.pre_vote {
            self.defer_campaign();
        } else {
            if self.vote.is_none() {
                self.vote = Some(candidate);
                if !testpoints::mutant(Mutant::VoteUnsaved) {
                    self.disk.hard_state_changed();
                }
            } else {
                testpoints::mark(Mark::VoteRepeated);
            }
            self.reset_election_timer();
        }
        self.send_as(request.term, candidate, body);
    }

    /// Whether this member asks for the same term with more right: between rivals with equal logs
    /// the lower id has it. Else both could win their pre-votes, and then split the vote.
    fn has_priority_over(&self, rival: VoteRequest) -> bool {
        let rank = |last: EntryId, id: NodeId| (last, Reverse(id));
        let has_priority_over = matches!(self.role, RoleState::PreCandidate(_))
            && rival.term == self.term.next()
            && rank(self.log.last(), self.config.id) > rank(rival.last, rival.candidate);
        if has_priority_over {
            testpoints::mark(Mark::RivalOutranked);
        }
        has_priority_over
    }

    /// A pre-vote was granted: its winner gets time for its campaign.
    fn defer_campaign(&mut self) {
        self.pre_votes_refused = 0;
        match &mut self.role {
            RoleState::Follower(follower) => {
                follower.defer_campaign(self.config.leader_lost_delay_ticks_max);
            }
            RoleState::PreCandidate(_) => self.abort_campaign(),
            RoleState::Candidate(_) | RoleState::Leader(_) => {}
        }
    }

    /// Gives a campaign up, and asks again before a whole election timeout is over.
    fn abort_campaign(&mut self) {
        let delay_ticks = self.draw_retry();
        self.become_follower(None);
        if let RoleState::Follower(follower) = &mut self.role {
            follower.campaign_in_ticks = Some(delay_ticks);
            // No leader is known whose silence could mean anything before that.
            follower.timeout_ticks = follower.timeout_ticks.max(delay_ticks);
        }
    }

    /// After a vote the winner gets time to make itself heard.
    fn reset_election_timer(&mut self) {
        let timeout_ticks = self.draw_election_timeout();
        if let RoleState::Follower(follower) = &mut self.role {
            follower.elapsed_ticks = 0;
            follower.timeout_ticks = timeout_ticks;
            follower.campaign_in_ticks = None;
        }
    }

    /// An answer to a request for a vote. `term` is this member's, or in the grant of a pre-vote
    /// the term asked about.
    pub(super) fn handle_vote(&mut self, from: NodeId, term: Term, granted: bool, pre_vote: bool) {
        let about_now = match &self.role {
            RoleState::PreCandidate(_) => {
                pre_vote && term == if granted { self.term.next() } else { self.term }
            }
            RoleState::Candidate(_) => {
                (!pre_vote || testpoints::mutant(Mutant::PreVoteCounted)) && term == self.term
            }
            RoleState::Follower(_) | RoleState::Leader(_) => false,
        };
        if about_now && self.membership.current().is_voter(from) {
            if let RoleState::PreCandidate(candidacy) | RoleState::Candidate(candidacy) =
                &mut self.role
            {
                candidacy.votes.entry(from).or_insert(granted);
            }
            self.out.note(Notice::VoteReceived { from, pre_vote, granted });
            if !granted {
                self.doubt();
            }
            self.count_votes();
        }
    }

    /// The hard state is durable: the candidate's vote for itself counts from here on.
    pub(super) fn count_own_vote(&mut self) {
        let id = self.config.id;
        if let RoleState::Candidate(candidacy) = &mut self.role {
            candidacy.votes.insert(id, true);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let (candidacy, pre_vote) = match &self.role {
            RoleState::PreCandidate(candidacy) => (candidacy, true),
            RoleState::Candidate(candidacy) => (candidacy, false),
            RoleState::Follower(_) | RoleState::Leader(_) => return,
        };
        let votes = |id: NodeId| candidacy.votes.get(&id).copied();
        let config = if testpoints::mutant(Mutant::ConfigByApply) {
            self.membership.at(self.log.applied())
        } else {
            self.membership.current()
        };
        match quorum::tally(config, votes) {
            Tally::Won if pre_vote => self.start_election(false),
            // Nothing of this term may be done before the term is durable.
            Tally::Won if self.disk.hard_state_durable() => {
                let (granted, refused) = (self.answered(true), self.answered(false));
                self.out.note(Notice::Elected { term: self.term, granted, refused });
                self.become_leader();
            }
            Tally::Won | Tally::Open => {}
            Tally::Lost => self.lose(pre_vote),
        }
    }

    /// One voter refused. With a rival about, and a member down, that may be all that ever comes
    /// in: the candidate does not wait for a whole election timeout.
    fn doubt(&mut self) {
        let delay_ticks = self.draw_retry();
        if let RoleState::Candidate(candidacy) = &mut self.role {
            let due = candidacy.elapsed_ticks + delay_ticks;
            candidacy.timeout_ticks = candidacy.timeout_ticks.min(due);
        }
    }

    /// Refused by a quorum.
    fn lose(&mut self, pre_vote: bool) {
        let refused = self.answered(false);
        self.out.note(Notice::Refused { pre_vote, refused });
        if pre_vote {
            let matters_max = PRE_VOTES_AT_FULL_PACE + PRE_VOTE_DOUBLINGS_MAX;
            self.pre_votes_refused = (self.pre_votes_refused + 1).min(matters_max);
        }
        self.abort_campaign();
        if let RoleState::Follower(follower) = &mut self.role
            && !pre_vote
        {
            // The vote was split; a pre-vote quorum was there a moment ago.
            testpoints::mark(Mark::VoteSplit);
            let delay_ticks = self.rng.between(1, self.config.leader_lost_delay_ticks_max);
            follower.campaign_in_ticks = Some(delay_ticks);
        }
    }
}
