//! What a leader knows of one follower, as numbers.

use super::super::progress::{CatchUpRound, Inflights, Progress, ProgressState};
use super::Words;

impl Words<'_> {
    pub(super) fn progress(&mut self, progress: &Progress) {
        let Progress {
            matched,
            next,
            state,
            ticks_since_contact,
            missed_ticks,
            round_confirmed,
            commit_sent,
            commit_wanted,
            round: CatchUpRound { goal, ticks, kept_up },
            resend_checked,
            snapshot_failures,
            snapshot_rest_ticks,
        } = progress;
        self.number(matched.0);
        self.number(next.0);
        self.tick_count(*ticks_since_contact);
        self.tick_count(*missed_ticks);
        self.number(*round_confirmed);
        self.number(commit_sent.0);
        self.number(commit_wanted.0);
        self.number(goal.0);
        self.tick_count(*ticks);
        self.flag(*kept_up);
        self.flag(*resend_checked);
        // Also where ticks are ignored: a tick of a leader ends a rest.
        self.number(u64::from(*snapshot_failures));
        self.number(u64::from(*snapshot_rest_ticks));
        match state {
            ProgressState::Probe { paused } => {
                self.number(1);
                self.flag(*paused);
            }
            ProgressState::Replicate(Inflights { messages, bytes: _ }) => {
                self.number(2);
                self.list_of(messages.iter(), |words, (last, bytes)| {
                    words.number(last.0);
                    words.number(*bytes as u64);
                });
            }
            ProgressState::Snapshot { waited_ticks } => {
                self.number(3);
                self.tick_count(*waited_ticks);
            }
        }
    }
}
