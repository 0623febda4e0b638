//! What a leader knows of one follower, as numbers.

use super::super::progress::{CatchUpRound, Progress, ProgressState, Window};
use super::Words;

impl Words<'_> {
    pub(super) fn progress(&mut self, progress: &Progress) {
        let Progress {
            matched,
            next,
            state,
            silent_ticks,
            missed_ticks,
            round_confirmed,
            commit_told,
            commit_awaited,
            round: CatchUpRound { goal, ticks, kept_up },
            prodded,
            snapshot_failures,
            snapshot_rest_ticks,
        } = progress;
        self.number(matched.0);
        self.number(next.0);
        self.tick_count(*silent_ticks);
        self.tick_count(*missed_ticks);
        self.number(*round_confirmed);
        self.number(commit_told.0);
        self.number(commit_awaited.0);
        self.number(goal.0);
        self.tick_count(*ticks);
        self.flag(*kept_up);
        self.flag(*prodded);
        // Also where ticks are ignored: a tick of a leader ends a rest.
        self.number(u64::from(*snapshot_failures));
        self.number(u64::from(*snapshot_rest_ticks));
        match state {
            ProgressState::Probe { paused } => {
                self.number(1);
                self.flag(*paused);
            }
            ProgressState::Replicate(Window { messages, bytes: _ }) => {
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
