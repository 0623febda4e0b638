//! What an operator reads about elections: roles, leaders, votes, and for how long there was none.
//!
//! The core is pure and logs nothing; its [`Notice`]s and transitions are logged here, under the
//! target `raft_node::raft`, so that `RAFT_LOG=warn,raft_node::raft=debug` shows them and nothing
//! else. Every line states the term before and the term after, since a line with one of the two
//! reads as if two members led in one term. What can repeat quickly is limited.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::log_limit::LogLimit;
use crate::raft::{Configuration, NodeId, Notice, Role, SoftState, Term};

/// The target of these lines.
const RAFT: &str = "raft_node::raft";

/// How often one kind of line is logged within [`PERIOD`].
const BURST: u32 = 3;
const PERIOD: Duration = Duration::from_secs(10);

/// An election takes a fraction of this: longer, and something is wrong.
const LEADERLESS_WORTH_A_WARNING: Duration = Duration::from_secs(5);
/// The warning is repeated after this.
const LEADERLESS_REPEATED_EVERY: Duration = Duration::from_mins(1);

/// Lines that are limited, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    RoleChanged(&'static str, &'static str),
    LeaderLost(NodeId),
    LeaderKnown(NodeId, Term),
    VoteGiven(NodeId, Term),
    QuorumLost,
}

/// Logs what happens in elections.
#[derive(Debug)]
pub struct Reporter {
    tick_ms: u64,
    limit: LogLimit<Line>,
    /// Why the next transition happens.
    cause: Option<String>,
    leaderless_since: Option<Instant>,
    warned: Option<Instant>,
    membership: Option<Configuration>,
}

impl Reporter {
    /// A member that starts at `now`, whose ticks take `tick`.
    pub fn new(tick: Duration, now: Instant) -> Self {
        Self {
            tick_ms: tick.as_millis() as u64,
            limit: LogLimit::new(BURST, PERIOD),
            cause: None,
            leaderless_since: Some(now),
            warned: None,
            membership: None,
        }
    }

    /// Logs the membership in force, unless only what members say of themselves is new.
    pub fn membership(&mut self, config: &Configuration) {
        let attributes = BTreeMap::new();
        let config = Configuration { attributes, request: None, ..config.clone() };
        if self.membership.as_ref() == Some(&config) {
            return;
        }
        info!(
            voters = ids(&config.voters),
            outgoing = ids(&config.outgoing),
            learners = ids(&config.learners),
            "membership"
        );
        self.membership = Some(config);
    }

    /// Something happened in an election of `term`.
    pub fn notice(&mut self, notice: Notice, now: Instant) {
        match notice {
            Notice::PreVoteStarted { term, cause } => {
                let cause = cause.as_str();
                debug!(target: RAFT, asked_term = term.0, cause, "pre-vote started");
                self.cause = Some(cause.to_owned());
            }
            Notice::CampaignStarted { term, transfer, granted } => {
                let granted = ids(&granted);
                let cause = if transfer { "leadership transfer" } else { "pre-vote won" };
                debug!(target: RAFT, term = term.0, cause, granted, "election started");
                self.cause = Some(cause.to_owned());
            }
            Notice::VoteAnswered { candidate, term, pre_vote, granted } => {
                self.vote_answered(candidate, term, pre_vote, granted, now);
            }
            Notice::VoteReceived { from, pre_vote, granted } => {
                debug!(target: RAFT, peer = from.get(), pre_vote, granted, "vote received");
            }
            Notice::Elected { term, granted, refused } => {
                let (granted, refused) = (ids(&granted), ids(&refused));
                info!(target: RAFT, term = term.0, granted, refused, "elected");
                self.cause = Some(format!("elected by {granted}"));
            }
            Notice::Refused { pre_vote, refused } => {
                let refused = ids(&refused);
                debug!(target: RAFT, pre_vote, refused, "votes refused by a quorum");
                self.cause = Some(format!("refused by {refused}"));
            }
            Notice::HigherTerm { from, term } => {
                debug!(target: RAFT, peer = from.get(), term = term.0, "higher term received");
                self.cause = Some(format!("higher term from {from}"));
            }
            Notice::QuorumLost { silent, ticks } => {
                let silent = ids(&silent);
                if let Some(suppressed) = self.limit.admit(Line::QuorumLost, now) {
                    let silent_ms = u64::from(ticks) * self.tick_ms;
                    let suppressed = shown(suppressed);
                    warn!(
                        target: RAFT,
                        silent,
                        silent_ms,
                        suppressed,
                        "quorum lost: this leader did not hear these voters, and steps down"
                    );
                }
                self.cause = Some(format!("quorum lost: no answer from {silent}"));
            }
        }
    }

    fn vote_answered(
        &mut self,
        candidate: NodeId,
        term: Term,
        pre_vote: bool,
        granted: bool,
        now: Instant,
    ) {
        if pre_vote || !granted {
            let (candidate, term) = (candidate.get(), term.0);
            debug!(target: RAFT, candidate, term, pre_vote, granted, "vote answered");
        } else if self.limit.admit(Line::VoteGiven(candidate, term), now).is_some() {
            info!(target: RAFT, candidate = candidate.get(), term = term.0, "vote given");
        }
    }

    /// Role, term or leader changed from `before` to `after`.
    pub fn transition(&mut self, before: SoftState, after: SoftState, now: Instant) {
        let cause = self.cause.take();
        let (old_term, term) = (before.term.0, after.term.0);
        let (from, to) = (before.role.as_str(), after.role.as_str());
        let led = [before.role, after.role].contains(&Role::Leader);
        let limited = (from != to).then(|| self.limit.admit(Line::RoleChanged(from, to), now));
        if let Some(suppressed) = limited
            && (led || suppressed.is_some())
        {
            let (cause, suppressed) = (cause.as_deref(), suppressed.and_then(shown));
            info!(target: RAFT, from, to, old_term, term, cause, suppressed, "role changed");
        }
        if before.leader == after.leader && (before.term == after.term || after.leader.is_none()) {
            return;
        }
        match (before.leader, after.leader) {
            (_, Some(leader)) => self.leader_known(leader, after.term, now),
            (Some(old), None) => {
                self.leaderless_since = Some(now);
                if let Some(suppressed) = self.limit.admit(Line::LeaderLost(old), now) {
                    let (old_leader, cause) = (old.get(), cause.as_deref());
                    let suppressed = shown(suppressed);
                    info!(
                        target: RAFT,
                        old_leader, old_term, term, cause, suppressed, "leader lost"
                    );
                }
            }
            (None, None) => {}
        }
    }

    fn leader_known(&mut self, leader: NodeId, term: Term, now: Instant) {
        let since = self.leaderless_since.take();
        let leaderless_ms = since.map(|since| (now - since).as_millis() as u64);
        let warned = self.warned.take().is_some();
        let admitted = self.limit.admit(Line::LeaderKnown(leader, term), now);
        if warned || admitted.is_some() {
            let (leader, term) = (leader.get(), term.0);
            let suppressed = admitted.and_then(shown);
            info!(target: RAFT, leader, term, leaderless_ms, suppressed, "leader known");
        }
    }

    /// Time passed: warns of a cluster that finds no leader.
    pub fn tick(&mut self, term: Term, now: Instant) {
        let Some(since) = self.leaderless_since else {
            return;
        };
        let due = match self.warned {
            None => since + LEADERLESS_WORTH_A_WARNING,
            Some(warned) => warned + LEADERLESS_REPEATED_EVERY,
        };
        if now >= due {
            self.warned = Some(now);
            let leaderless_ms = (now - since).as_millis() as u64;
            warn!(
                target: RAFT,
                leaderless_ms,
                term = term.0,
                "no leader: a majority of the voters must be up and reach each other"
            );
        }
    }
}

/// A count that is worth a field.
fn shown(suppressed: u64) -> Option<u64> {
    (suppressed > 0).then_some(suppressed)
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    ids.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::raft::Cause;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(report: impl FnOnce(&mut Reporter, Instant)) -> Vec<String> {
        let lines = Lines::default();
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let now = Instant::now();
            report(&mut Reporter::new(Duration::from_millis(5), now), now);
        });
        let text = lines.0.lock().expect("one thread").clone();
        String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
    }

    fn at(role: Role, term: u64, leader: Option<u64>) -> SoftState {
        SoftState { term: Term(term), role, leader: leader.and_then(NodeId::new) }
    }

    #[test]
    fn a_member_that_flaps_fills_no_log() {
        let lines = lines_of(|reporter, now| {
            let (led, asks) = (at(Role::Follower, 7, Some(1)), at(Role::PreCandidate, 7, None));
            let alone = at(Role::Follower, 7, None);
            for times in 0..200 {
                let now = now + Duration::from_millis(50 * times);
                let cause = Cause::ConnectionLost;
                reporter.notice(Notice::PreVoteStarted { term: Term(8), cause }, now);
                reporter.transition(led, asks, now);
                reporter.transition(asks, alone, now);
                reporter.transition(alone, led, now);
            }
        });
        assert!(lines.len() <= 4 * BURST as usize, "{} lines: {lines:#?}", lines.len());
        assert!(lines.iter().any(|line| line.contains("connection to the leader lost")));
    }

    #[test]
    fn a_hand_over_reads_as_two_terms() {
        let lines = lines_of(|reporter, now| {
            let from = NodeId::new(3).expect("positive");
            reporter.notice(Notice::HigherTerm { from, term: Term(2) }, now);
            reporter.transition(at(Role::Leader, 1, Some(1)), at(Role::Follower, 2, None), now);
            reporter.transition(at(Role::Follower, 2, None), at(Role::Follower, 2, Some(3)), now);
        });
        for words in [
            ["role changed", r#"from="leader" to="follower" old_term=1 term=2"#],
            ["leader lost", "old_leader=1 old_term=1 term=2"],
            ["leader known", "leader=3 term=2"],
        ] {
            let found = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
            assert!(found, "{words:?} in {lines:#?}");
        }
    }

    #[test]
    fn a_long_time_without_leader_is_logged_at_intervals_and_its_end_too() {
        let lines = lines_of(|reporter, now| {
            for second in 0..100 {
                reporter.tick(Term(4), now + Duration::from_secs(second));
            }
            let (before, after) = (at(Role::Follower, 4, None), at(Role::Follower, 5, Some(2)));
            reporter.transition(before, after, now + Duration::from_secs(100));
        });
        let warnings = lines.iter().filter(|line| line.contains("no leader")).count();
        assert_eq!(warnings, 2, "after 5 s and a minute later: {lines:#?}");
        assert!(lines.iter().any(|line| line.contains("leaderless_ms=100000")), "{lines:#?}");
    }
}
