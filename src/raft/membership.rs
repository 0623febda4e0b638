//! Who takes part, as the log tells it (§6, thesis §4.1).
//!
//! A configuration is in force from the moment its entry is appended, committed or not, so
//! cutting the log's tail brings the previous one back, and a snapshot brings its own: the log is
//! the only source. This file keeps the history that is needed for that, no more: what a change
//! makes of a configuration is in `change`, and who may change it when, in `reconfigure`.

use std::collections::VecDeque;

use super::types::{Configuration, Entry, Index, NodeId, Payload};

/// The configurations that the log in memory holds, and the one it starts under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    pub(super) base: Configuration,
    /// Ascending by index, all beyond the base.
    pub(super) changes: VecDeque<(Index, Configuration)>,
    /// It is another than the caller was last told.
    pub(super) news: bool,
}

impl Membership {
    /// In force: `base`, as of the start of the log.
    pub fn new(base: Configuration) -> Self {
        Self { base, changes: VecDeque::new(), news: false }
    }

    /// The configuration in force: the latest in the log.
    pub fn current(&self) -> &Configuration {
        self.changes.back().map_or(&self.base, |(_, config)| config)
    }

    /// Where the configuration in force stands in the log; 0 if it is as old as the log.
    pub fn since(&self) -> Index {
        self.changes.back().map_or(Index(0), |(index, _)| *index)
    }

    /// The configuration in force, if it changed since this was last asked.
    pub fn take_changed(&mut self) -> Option<Configuration> {
        std::mem::take(&mut self.news).then(|| self.current().clone())
    }

    /// The configuration as of `index`.
    pub fn at(&self, index: Index) -> &Configuration {
        let change = self.changes.iter().rev().find(|(at, _)| *at <= index);
        change.map_or(&self.base, |(_, config)| config)
    }

    /// Whether `id` takes part at all, voting or learning.
    pub fn knows(&self, id: NodeId) -> bool {
        self.current().is_member(id)
    }

    /// Whether `id` takes part by any of the configurations that are known here.
    pub fn has_named(&self, id: NodeId) -> bool {
        self.base.is_member(id) || self.changes.iter().any(|(_, config)| config.is_member(id))
    }

    /// Takes note of an appended entry. True if it changed the membership.
    pub fn append(&mut self, entry: &Entry) -> bool {
        match &entry.payload {
            Payload::Noop | Payload::Command(_) => false,
            Payload::Config(config) => {
                assert!(
                    self.changes.back().is_none_or(|(last, _)| *last < entry.id.index),
                    "configurations come in log order"
                );
                self.changes.push_back((entry.id.index, config.clone()));
                self.news = true;
                true
            }
        }
    }

    /// The log lost everything from `from` on.
    pub fn truncate(&mut self, from: Index) {
        while self.changes.back().is_some_and(|(index, _)| *index >= from) {
            self.changes.pop_back();
            self.news = true;
        }
    }

    /// The log now begins after `upto`.
    pub fn compact(&mut self, upto: Index) {
        while self.changes.front().is_some_and(|(index, _)| *index <= upto) {
            let (_, config) = self.changes.pop_front().expect("just seen");
            self.base = config;
        }
    }

    /// A snapshot replaced the log: its membership wins.
    pub fn restore(&mut self, config: Configuration) {
        let news = self.news || config != *self.current();
        *self = Self { news, ..Self::new(config) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{EntryId, Term};

    fn entry(index: u64, payload: Payload) -> Entry {
        Entry { id: EntryId { term: Term(1), index: Index(index) }, payload }
    }

    fn voters(raw: &[u64]) -> Configuration {
        Configuration::of_voters(raw.iter().map(|id| NodeId::new(*id).expect("positive")))
    }

    #[test]
    fn a_change_is_in_force_when_appended_and_gone_when_truncated() {
        let mut membership = Membership::new(voters(&[1]));
        assert!(!membership.append(&entry(1, Payload::Noop)));
        assert!(membership.append(&entry(2, Payload::Config(voters(&[1, 2])))));
        assert!(membership.append(&entry(4, Payload::Config(voters(&[1, 2, 3])))));
        assert_eq!(membership.current(), &voters(&[1, 2, 3]));
        assert_eq!(membership.at(Index(1)), &voters(&[1]));
        assert_eq!(membership.at(Index(3)), &voters(&[1, 2]));
        membership.truncate(Index(5));
        assert_eq!(membership.current(), &voters(&[1, 2, 3]));
        membership.truncate(Index(4));
        assert_eq!(membership.current(), &voters(&[1, 2]));
        membership.truncate(Index(1));
        assert_eq!(membership.current(), &voters(&[1]));
    }

    #[test]
    fn compaction_keeps_what_is_in_force_and_a_snapshot_replaces_it() {
        let mut membership = Membership::new(voters(&[1]));
        membership.append(&entry(2, Payload::Config(voters(&[1, 2]))));
        membership.append(&entry(4, Payload::Config(voters(&[1, 2, 3]))));
        membership.compact(Index(3));
        assert_eq!(membership.at(Index(3)), &voters(&[1, 2]));
        membership.truncate(Index(4));
        assert_eq!(membership.current(), &voters(&[1, 2]));
        membership.append(&entry(4, Payload::Config(voters(&[4]))));
        membership.restore(voters(&[5, 6]));
        membership.truncate(Index(1));
        assert_eq!(membership.current(), &voters(&[5, 6]));
    }
}
