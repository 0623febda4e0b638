//! Which keys each revision changed, in order: what a watcher catches up from, and what tells
//! compaction where to look, so that its work is that of the changes made, not of the keys held.
//!
//! Every revision of the store changes something, so revisions follow each other without gaps and
//! a place in a queue is enough to find one: 4 bytes a revision and 4 a change. A map from
//! revision to key would take some 60.

use std::collections::VecDeque;

use crate::testpoints::{Mark, mark};

use super::revision::Revision;

/// Stands for a change that is not there any more (see [`RevisionLog::restore`]).
const NONE: u32 = u32::MAX;

/// What a change left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A version in the record of this number, unless it has been compacted since.
    Of(u32),
    /// Nothing: a snapshot came without it.
    Lost,
}

impl Change {
    fn new(record: u32) -> Self {
        if record == NONE { Self::Lost } else { Self::Of(record) }
    }
}

/// Record numbers by revision, from `first` on.
#[derive(Debug)]
pub(super) struct RevisionLog {
    /// The record each change touched.
    records: VecDeque<u32>,
    /// Where in `records` each revision begins, counted (and wrapping) from the first change
    /// ever: less than 2^32 of them are held at a time.
    begins: VecDeque<u32>,
    /// How many were taken off the front of `records`, wrapping.
    taken: u32,
    /// The revision of the front of `begins`.
    first: i64,
}

impl RevisionLog {
    /// None yet; the first to come has revision `first`.
    pub(super) fn new(first: i64) -> Self {
        Self { records: VecDeque::new(), begins: VecDeque::new(), taken: 0, first }
    }

    /// The revision of the oldest change held or, if there is none, of the next to come.
    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// The revision after the newest change held.
    fn next(&self) -> i64 {
        self.first + (self.begins.len() as u64).cast_signed()
    }

    /// Where the next change will stand.
    fn end(&self) -> u32 {
        self.taken.wrapping_add(self.records.len() as u32)
    }

    /// Adds a change, the next of its revision or the first of the next revision.
    pub(super) fn push(&mut self, at: Revision, record: u32) {
        assert!(self.records.len() < NONE as usize, "more changes than any memory holds");
        let end = self.end();
        if at.main == self.next() {
            assert!(at.sub == 0, "a revision begins with its first change: {at:?}");
            self.begins.push_back(end);
        }
        let begin = self.begins.back().expect("a revision was begun");
        assert!(
            at.main == self.next() - 1 && at.sub == end.wrapping_sub(*begin),
            "changes come without gaps: {at:?}"
        );
        self.records.push_back(record);
    }

    /// Takes what a snapshot held, in order. Of the oldest revision some changes may have been
    /// compacted: their places stay empty. None if anything else is missing.
    pub(super) fn restore(
        first: i64,
        upto: i64,
        changes: impl Iterator<Item = (Revision, u32)>,
    ) -> Option<Self> {
        /// More than one command of any size could overwrite within itself.
        const GAP_MAX: u32 = 1 << 24;
        let mut restored = Self::new(first);
        for (at, record) in changes {
            let mut next = restored.end_of(at.main)?;
            if at.main == first && at.sub >= next && at.sub - next < GAP_MAX {
                for sub in next..at.sub {
                    mark(Mark::ChangesLost);
                    restored.push(Revision { main: first, sub }, NONE);
                }
                next = at.sub;
            }
            if at.sub != next {
                return None;
            }
            restored.push(at, record);
        }
        (restored.next() == upto + 1).then_some(restored)
    }

    /// The next `sub` of revision `main`, if it is the last one or the one to follow it.
    fn end_of(&self, main: i64) -> Option<u32> {
        if main == self.next() {
            return Some(0);
        }
        let begin = self.begins.back().filter(|_| main == self.next() - 1)?;
        Some(self.end().wrapping_sub(*begin))
    }

    /// The change at `at`, if there is one.
    pub(super) fn get(&self, at: Revision) -> Option<Change> {
        let place = usize::try_from(at.main.checked_sub(self.first)?).ok()?;
        let begin = *self.begins.get(place)?;
        let end = match self.begins.get(place + 1) {
            Some(next) => *next,
            None => self.end(),
        };
        if at.sub >= end.wrapping_sub(begin) {
            return None;
        }
        let offset = begin.wrapping_add(at.sub).wrapping_sub(self.taken);
        self.records.get(offset as usize).copied().map(Change::new)
    }

    /// The oldest change.
    pub(super) fn front(&self) -> Option<(Revision, Change)> {
        let begin = self.begins.front()?;
        let at = Revision { main: self.first, sub: self.taken.wrapping_sub(*begin) };
        Some((at, Change::new(*self.records.front()?)))
    }

    /// Forgets the oldest change.
    pub(super) fn pop(&mut self) {
        if self.records.pop_front().is_none() {
            return;
        }
        self.taken = self.taken.wrapping_add(1);
        let next = match self.begins.get(1) {
            Some(next) => *next,
            None => self.end(),
        };
        if next == self.taken {
            self.begins.pop_front();
            self.first += 1;
        }
        if self.records.capacity() > 4096 && self.records.capacity() / 8 > self.records.len() {
            self.records.shrink_to(2 * self.records.len());
            self.begins.shrink_to(2 * self.begins.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(main: i64, sub: u32) -> Revision {
        Revision { main, sub }
    }

    #[test]
    fn changes_are_found_by_revision_also_after_the_oldest_are_gone() {
        let mut changes = RevisionLog::new(2);
        for (revision, record) in [(at(2, 0), 7), (at(3, 0), 8), (at(3, 1), 9), (at(4, 0), 7)] {
            changes.push(revision, record);
        }
        assert_eq!(changes.get(at(3, 1)), Some(Change::Of(9)));
        assert_eq!(changes.get(at(3, 2)), None);
        assert_eq!(changes.get(at(5, 0)), None);
        changes.pop();
        changes.pop();
        assert_eq!(changes.front(), Some((at(3, 1), Change::Of(9))));
        assert_eq!(changes.get(at(3, 0)), None);
        assert_eq!(changes.get(at(3, 1)), Some(Change::Of(9)));
        assert_eq!(changes.get(at(4, 0)), Some(Change::Of(7)));
        changes.pop();
        changes.pop();
        assert_eq!((changes.first(), changes.front()), (5, None));
        changes.push(at(5, 0), 1);
        assert_eq!(changes.front(), Some((at(5, 0), Change::Of(1))));
    }

    #[test]
    fn positions_wrap() {
        let mut changes = RevisionLog::new(2);
        changes.taken = u32::MAX - 1;
        for record in 2..8 {
            changes.push(at(i64::from(record), 0), record);
            changes.push(at(i64::from(record), 1), record + 100);
        }
        for record in 2..8 {
            let found = changes.get(at(i64::from(record), 1));
            assert_eq!(found, Some(Change::Of(record + 100)));
        }
        for _ in 0..5 {
            changes.pop();
        }
        assert_eq!(changes.front(), Some((at(4, 1), Change::Of(104))));
    }

    #[test]
    fn a_restored_list_may_lack_changes_of_its_oldest_revision_only() {
        let some = [(at(5, 1), 1), (at(5, 3), 2), (at(6, 0), 3)];
        let restored = RevisionLog::restore(5, 6, some.into_iter()).unwrap();
        assert_eq!(restored.front(), Some((at(5, 0), Change::Lost)));
        assert_eq!(restored.get(at(5, 3)), Some(Change::Of(2)));
        assert_eq!(restored.get(at(6, 0)), Some(Change::Of(3)));
        for (upto, wrong) in [
            (6, vec![(at(5, 0), 1)]),
            (5, vec![(at(5, 0), 1), (at(6, 0), 1)]),
            (6, vec![(at(5, 0), 1), (at(6, 1), 1)]),
            (7, vec![(at(5, 0), 1), (at(7, 0), 1)]),
            (5, vec![(at(5, u32::MAX), 1)]),
            (5, vec![(at(4, 0), 1)]),
        ] {
            assert!(RevisionLog::restore(5, upto, wrong.iter().copied()).is_none(), "{wrong:?}");
        }
    }
}
