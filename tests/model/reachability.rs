//! What a search must have met, or else it may have proved nothing: the *sometimes* properties.

use std::collections::BTreeSet;

use raft_node::raft::{Payload, Role, Term};

use crate::server::Event;
use crate::system_state::{Events, SystemState};

/// Something that happens in some order of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Goal {
    /// Somebody leads term 2.
    LeaderInTerm2,
    /// Two lead at once, in different terms.
    TwoLeaders,
    /// A client's command is committed.
    CommandCommitted,
    /// An entry of an earlier term is committed by a leader of a later one.
    OldTermCommitted,
    /// A member other than the leader commits.
    FollowerCommits,
    /// A crash takes entries that were on their way to the disk.
    SuffixLost,
    /// A read is answered on the leader.
    LeaderRead,
    /// A read is answered on a follower.
    FollowerRead,
    /// A request is refused.
    Refused,
    /// A snapshot replaces what a follower has.
    SnapshotInstalled,
    /// The member that was to take over leads.
    TransferCompleted,
    /// A leader steps down, and nobody has made it.
    SteppedDown,
    /// A membership is committed.
    ConfigurationCommitted,
    /// One that needs both majorities is committed.
    JointCommitted,
    /// A member that was none at first votes for another.
    NewcomerVotes,
    /// A leader that is no member any more hands over, or is followed by another.
    RemovedLeaderFollowed,
}

/// Those met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goals(BTreeSet<Goal>);

impl Goals {
    pub fn has(&self, goal: Goal) -> bool {
        self.0.contains(&goal)
    }

    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Looks at one step.
    pub fn note(&mut self, before: &SystemState, after: &SystemState, events: &Events) {
        for (at, event) in events {
            self.note_event(before, after, *at, event);
        }
        let (old, new) = (&before.ghost.committed, &after.ghost.committed);
        for entry in &new[old.len()..] {
            let led = |part: &std::sync::Arc<crate::intern::Part>| {
                let node = &part.server.node;
                node.role() == Role::Leader && node.committed() >= entry.id.index
            };
            let terms = after.servers.iter().filter(|part| led(part));
            if terms.map(|part| part.server.node.term()).max() > Some(entry.id.term) {
                self.0.insert(Goal::OldTermCommitted);
            }
            match &entry.payload {
                Payload::Command(_) => self.0.insert(Goal::CommandCommitted),
                Payload::Config(config) if config.is_joint() => self.0.insert(Goal::JointCommitted),
                Payload::Config(_) => self.0.insert(Goal::ConfigurationCommitted),
                Payload::Noop => false,
            };
        }
        for (old, new) in before.servers.iter().zip(&after.servers) {
            if !std::sync::Arc::ptr_eq(old, new) {
                self.note_change(&old.server, &new.server);
            }
        }
    }

    fn note_event(&mut self, before: &SystemState, after: &SystemState, at: usize, event: &Event) {
        let leads =
            |world: &SystemState, at: usize| world.servers[at].server.node.role() == Role::Leader;
        match event {
            Event::Leads(term) => {
                let removed = |world: &SystemState| {
                    let led = |part: &&std::sync::Arc<crate::intern::Part>| {
                        part.server.node.role() == Role::Leader && part.server.node.is_removed()
                    };
                    world.servers.iter().any(|part| led(&part))
                };
                if removed(before) {
                    self.0.insert(Goal::RemovedLeaderFollowed);
                }
                if *term >= Term(2) {
                    self.0.insert(Goal::LeaderInTerm2);
                }
                if (0..after.servers.len()).filter(|at| leads(after, *at)).count() > 1 {
                    self.0.insert(Goal::TwoLeaders);
                }
                let wanted = before.servers.iter().any(|part| {
                    part.server.node.status().transferring_to == Some(after.servers[at].server.id)
                });
                if wanted {
                    self.0.insert(Goal::TransferCompleted);
                }
            }
            Event::Granted(_) => {
                let here = if leads(after, at) { Goal::LeaderRead } else { Goal::FollowerRead };
                self.0.insert(here);
            }
            Event::Refused(_) => {
                self.0.insert(Goal::Refused);
            }
            Event::LostWrites => {
                self.0.insert(Goal::SuffixLost);
            }
            Event::Proposed | Event::Reads(_) | Event::Crashed => {}
        }
    }

    fn note_change(&mut self, old: &crate::server::Server, new: &crate::server::Server) {
        let leads = new.node.role() == Role::Leader;
        if new.node.committed() > old.node.committed() && !leads {
            self.0.insert(Goal::FollowerCommits);
        }
        if new.planned.base.last > old.planned.last() {
            self.0.insert(Goal::SnapshotInstalled);
        }
        let (had, has) = (old.durable.hard_state.vote, new.durable.hard_state.vote);
        let joined = new.planned.base.config.voters.is_empty();
        if joined && has.is_some_and(|vote| vote != new.id) && has != had {
            self.0.insert(Goal::NewcomerVotes);
        }
        let stepped_down = old.node.role() == Role::Leader && !leads;
        if stepped_down && old.node.term() == new.node.term() {
            self.0.insert(Goal::SteppedDown);
        }
    }
}
