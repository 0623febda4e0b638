//! What a leader knows of one follower (§5.3), and how fast it may send.
//!
//! ```text
//!             probe answered                       log no longer reaches back
//!   Probe ───────────────────▶ Replicate    any ──────────────────────────────▶ Snapshot
//!     ▲                            │          ▲                                     │
//!     └──── rejected, link lost ───┘          └───── installed, failed, given up ───┘
//! ```
//!
//! Probe sends one message and waits; Replicate streams within a window counted in messages and
//! in bytes; Snapshot sends nothing. `matched` only ever grows, and `next` stays beyond it, so no
//! stale, reordered or repeated answer can take back what a follower once confirmed.

use std::collections::VecDeque;

use super::types::Index;

/// A follower or learner, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    pub(super) matched: Index,
    pub(super) next: Index,
    pub(super) state: ProgressState,
    /// Ticks since it was last heard from, but for those at which this member did not listen.
    pub(super) ticks_since_contact: u32,
    /// Those.
    pub(super) missed_ticks: u32,
    /// The latest read round that it confirmed.
    pub(super) round_confirmed: u64,
    /// The commit index it was last told.
    pub(super) commit_sent: Index,
    /// Somebody there waits for this to be committed: a proposal or a read that it passed on.
    pub(super) commit_wanted: Index,
    /// How a learner keeps up.
    pub(super) round: CatchUpRound,
    /// Since the last heartbeat, it was already looked into whether messages to it got lost.
    pub(super) resend_checked: bool,
    /// Snapshots that failed to arrive since the last that did.
    pub(super) snapshot_failures: u32,
    /// No snapshot is sent before so many ticks have passed.
    pub(super) snapshot_rest_ticks: u32,
}

/// A learner's round of replication (thesis §4.2.1): it ends when the learner holds what the log
/// held when the round began. Who ends one within an election timeout keeps up, however long the
/// way there is. Kept for learners alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CatchUpRound {
    pub(super) goal: Index,
    pub(super) ticks: u32,
    /// The round before ended in time.
    pub(super) kept_up: bool,
}

impl CatchUpRound {
    /// Begins the next round if this one is over. `last` is the end of the log.
    pub fn advance(&mut self, matched: Index, last: Index, ticks_max: u32) {
        if matched >= self.goal {
            self.kept_up = self.ticks < ticks_max;
            self.goal = last;
            self.ticks = 0;
        }
    }

    /// Whether the learner lags less than `ticks_max` behind.
    pub fn keeps_up(&self, ticks_max: u32) -> bool {
        self.kept_up && self.ticks < ticks_max
    }
}

/// The longest rest between two failed snapshots is this power of two times the first.
const SNAPSHOT_REST_DOUBLINGS_MAX: u32 = 6;

/// How entries travel to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProgressState {
    /// Where its log agrees is a guess: one message at a time.
    Probe {
        /// One is out.
        paused: bool,
    },
    /// Its log agrees up to what was sent: stream.
    Replicate(Inflights),
    /// It waits for a snapshot.
    Snapshot {
        /// Ticks since the snapshot was asked for.
        waited_ticks: u32,
    },
}

/// Appends on their way, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inflights {
    /// Index of the last entry, and bytes, of each.
    pub(super) messages: VecDeque<(Index, usize)>,
    pub(super) bytes: usize,
}

impl Inflights {
    /// Whether one more has to wait.
    pub fn is_full(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.messages.len() >= messages_max || self.bytes >= bytes_max
    }

    /// One more is on its way, ending with `last`.
    pub fn push(&mut self, last: Index, bytes: usize) {
        self.bytes += bytes;
        self.messages.push_back((last, bytes));
    }

    /// Everything up to `index` has arrived.
    pub fn free_to(&mut self, index: Index) {
        while self.messages.front().is_some_and(|(last, _)| *last <= index) {
            let (_, bytes) = self.messages.pop_front().expect("just seen");
            self.bytes -= bytes;
        }
    }
}

impl Progress {
    /// Nothing is known but that its log may agree up to before `next`.
    pub fn new(next: Index) -> Self {
        Self {
            matched: Index(0),
            next,
            state: ProgressState::Probe { paused: false },
            ticks_since_contact: 0,
            missed_ticks: 0,
            round_confirmed: 0,
            commit_sent: Index(0),
            commit_wanted: Index(0),
            round: CatchUpRound { goal: next.prev(), ticks: 0, kept_up: false },
            resend_checked: false,
            snapshot_failures: 0,
            snapshot_rest_ticks: 0,
        }
    }

    /// It holds the leader's log up to here, durably.
    pub fn matched(&self) -> Index {
        self.matched
    }

    /// The first entry it has not been sent.
    pub fn next(&self) -> Index {
        self.next
    }

    /// How entries travel to it.
    pub fn state(&self) -> &ProgressState {
        &self.state
    }

    /// How entries travel to it, to be changed.
    pub(super) fn state_mut(&mut self) -> &mut ProgressState {
        &mut self.state
    }

    /// It confirmed everything up to `index`, which the leader has.
    pub fn confirm(&mut self, index: Index, log_base: Index) {
        self.matched = self.matched.max(index);
        self.next = self.next.max(self.matched.next());
        match &mut self.state {
            ProgressState::Replicate(window) => window.free_to(index),
            ProgressState::Probe { .. } => {
                self.next = self.matched.next();
                self.state = ProgressState::Replicate(Inflights::default());
                self.snapshot_arrived();
            }
            ProgressState::Snapshot { .. } => {
                // However it got there: once the log reaches back to it, no snapshot is needed.
                if self.matched >= log_base {
                    self.next = self.matched.next();
                    self.state = ProgressState::Replicate(Inflights::default());
                    self.snapshot_arrived();
                }
            }
        }
    }

    /// It does not hold the entry at `prev`, and can at best agree up to `possible`. False if
    /// that is old news.
    pub fn reject(&mut self, prev: Index, possible: Index) -> bool {
        match &mut self.state {
            ProgressState::Replicate(_) => {
                // Something before `prev` was lost on the way.
                if prev <= self.matched {
                    return false;
                }
                self.probe_from(self.matched.next());
                true
            }
            ProgressState::Probe { .. } => {
                if prev.next() != self.next || prev <= self.matched {
                    return false;
                }
                let next = possible.next().min(prev).max(self.matched.next());
                self.probe_from(next);
                true
            }
            ProgressState::Snapshot { .. } => false,
        }
    }

    /// The link broke: what was on its way may be lost. A snapshot under way reports for itself.
    ///
    /// What matched is only what one connection has taught, and is forgotten with it: whoever
    /// answers the next may have lost its disk meanwhile, and its rejection must not be taken for
    /// old news. Forgetting can delay a commit by one round trip, and takes none back.
    pub fn link_lost(&mut self) {
        self.round.kept_up = false;
        match &self.state {
            // Told twice of one breakage: where to probe is known already.
            ProgressState::Probe { .. } if self.matched == Index(0) => self.probe_from(self.next),
            ProgressState::Probe { .. } | ProgressState::Replicate(_) => {
                let next = self.matched.next();
                self.matched = Index(0);
                self.probe_from(next);
            }
            ProgressState::Snapshot { .. } => {}
        }
    }

    /// Starts probing at `next`.
    pub fn probe_from(&mut self, next: Index) {
        assert!(next > self.matched, "what matched stays matched");
        self.next = next;
        self.state = ProgressState::Probe { paused: false };
    }

    /// Stops probing until it is heard from again.
    pub fn pause(&mut self) {
        if let ProgressState::Probe { paused } = &mut self.state {
            *paused = true;
        }
    }

    /// It lives: a probe may go out again.
    pub fn resume(&mut self) {
        if let ProgressState::Probe { paused } = &mut self.state {
            *paused = false;
        }
    }

    /// A snapshot did not arrive. The first failure may be an accident of the connection, and the
    /// next attempt waits for nothing; a follower that cannot store one is asked again after ever
    /// longer rests, the first of `first_rest_ticks`.
    pub fn snapshot_failed(&mut self, first_rest_ticks: u32) {
        self.snapshot_failures = self.snapshot_failures.saturating_add(1);
        if let Some(doublings) = self.snapshot_failures.checked_sub(2) {
            let doublings = doublings.min(SNAPSHOT_REST_DOUBLINGS_MAX);
            self.snapshot_rest_ticks = first_rest_ticks.saturating_mul(1 << doublings);
        }
    }

    /// A snapshot arrived, or none is needed.
    pub fn snapshot_arrived(&mut self) {
        self.snapshot_failures = 0;
        self.snapshot_rest_ticks = 0;
    }

    /// It needs a snapshot.
    pub fn await_snapshot(&mut self) {
        self.state = ProgressState::Snapshot { waited_ticks: 0 };
    }

    /// Entries of `bytes` bytes up to `last` were sent.
    pub fn sent(&mut self, last: Index, bytes: usize) {
        match &mut self.state {
            ProgressState::Probe { paused } => *paused = true,
            ProgressState::Replicate(window) => {
                if last >= self.next {
                    self.next = last.next();
                    window.push(last, bytes);
                }
            }
            ProgressState::Snapshot { .. } => {}
        }
    }

    /// Holds after every input.
    pub fn assert_invariants(&self, log_last: Index) {
        assert!(self.matched < self.next, "next is beyond what matches");
        assert!(self.matched <= log_last, "nobody confirms more than the leader has");
        assert!(self.next <= log_last.next(), "nothing was sent that the leader lacks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating(matched: u64) -> Progress {
        let mut progress = Progress::new(Index(matched + 1));
        progress.confirm(Index(matched), Index(0));
        progress
    }

    #[test]
    fn the_window_counts_messages_and_bytes() {
        let mut window = Inflights::default();
        assert!(!window.is_full(2, 100));
        window.push(Index(1), 40);
        assert!(!window.is_full(2, 100));
        window.push(Index(3), 40);
        assert!(window.is_full(2, 100));
        assert!(window.is_full(9, 80));
        window.free_to(Index(2));
        assert!(!window.is_full(2, 41));
        assert!(window.is_full(2, 40));
        window.free_to(Index(9));
        assert_eq!(window, Inflights::default());
    }

    #[test]
    fn stale_rejections_change_nothing() {
        let mut progress = replicating(5);
        progress.sent(Index(9), 10);
        let before = progress.clone();
        for prev in 0..=5 {
            assert!(!progress.reject(Index(prev), Index(0)), "matched prev {prev}");
        }
        assert_eq!(progress, before);

        assert!(progress.reject(Index(9), Index(0)));
        assert_eq!(progress.next(), Index(6), "falls back to what matches, never below");
        let before = progress.clone();
        for prev in [0, 4, 5, 6, 9, u64::MAX - 1] {
            assert!(!progress.reject(Index(prev), Index(0)), "not the probe's prev: {prev}");
        }
        assert_eq!(progress, before);
    }

    #[test]
    fn a_probe_moves_back_by_the_hint_but_always_moves() {
        let mut progress = Progress::new(Index(11));
        assert!(progress.reject(Index(10), Index(4)));
        assert_eq!(progress.next(), Index(5));
        // A hint that points at or beyond the rejected entry still moves back by one.
        assert!(progress.reject(Index(4), Index(99)));
        assert_eq!(progress.next(), Index(4));
        assert!(progress.reject(Index(3), Index(0)));
        assert_eq!(progress.next(), Index(1));
        assert!(!progress.reject(Index(0), Index(0)), "nothing comes before the log");
        assert_eq!(progress.next(), Index(1));
    }

    #[test]
    fn only_an_answer_or_a_sign_of_life_resumes_a_probe() {
        let mut progress = Progress::new(Index(1));
        progress.sent(Index(0), 0);
        assert_eq!(progress.state(), &ProgressState::Probe { paused: true });
        progress.resume();
        assert_eq!(progress.state(), &ProgressState::Probe { paused: false });
        progress.sent(Index(3), 9);
        assert_eq!(progress.next(), Index(1), "a probe promises nothing");
        progress.confirm(Index(3), Index(0));
        assert_eq!(progress.state(), &ProgressState::Replicate(Inflights::default()));
        assert_eq!(progress.next(), Index(4));
    }

    #[test]
    fn a_snapshot_ends_when_the_log_reaches_back_again() {
        let mut progress = Progress::new(Index(1));
        progress.await_snapshot();
        assert!(!progress.reject(Index(0), Index(0)));
        progress.confirm(Index(4), Index(9));
        assert_eq!(progress.state(), &ProgressState::Snapshot { waited_ticks: 0 });
        progress.confirm(Index(9), Index(9));
        assert_eq!(progress.state(), &ProgressState::Replicate(Inflights::default()));
        assert_eq!((progress.matched(), progress.next()), (Index(9), Index(10)));
    }

    #[test]
    fn a_member_that_comes_back_empty_is_believed() {
        // Bug: its rejections were taken for old news, since it had once confirmed more, and it
        // stayed empty for as long as the same leader led.
        let mut progress = Progress::new(Index(1));
        progress.confirm(Index(9), Index(0));
        progress.link_lost();
        assert_eq!((progress.matched(), progress.next()), (Index(0), Index(10)));
        assert!(progress.reject(Index(9), Index(0)), "news, over a new connection");
        assert_eq!(progress.next(), Index(1));
    }
}
