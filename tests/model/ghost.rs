//! What the cluster owes (figure 3, §5.2 to §5.4, §8), and the memory it takes to see that: who
//! led, what was committed by anybody, and what its clients were told.

use std::collections::{BTreeMap, BTreeSet};

use raft_node::raft::canonical::Words;
use raft_node::raft::{
    Configuration, Entry, EntryId, Index, NodeId, Payload, ReadState, RequestId, Role, Term,
};

use crate::invariants::request_in;
use crate::server::{Checked, Event, Server, check};

/// The past, as far as it matters for what may come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ghost {
    leaders: BTreeMap<Term, NodeId>,
    /// Committed by anybody, ever: index 1 first.
    pub committed: Vec<Entry>,
    refused: BTreeSet<RequestId>,
    /// Reads without an answer, and how much was committed when each was put.
    reads: BTreeMap<RequestId, Index>,
}

impl Ghost {
    /// `servers` after the one at `at` has taken a step.
    pub fn observe(
        &mut self,
        servers: &[&Server],
        at: usize,
        initial: &Configuration,
        events: &[Event],
    ) -> Checked<()> {
        let server = servers[at];
        for event in events {
            match event {
                Event::Proposed | Event::LostWrites => {}
                Event::Reads(id) => {
                    self.reads.insert(*id, Index(self.committed.len() as u64));
                }
                Event::Granted(grant) => self.granted(*grant)?,
                Event::Refused(id) => self.refuse(*id)?,
                Event::Leads(term) => self.leads(server, *term)?,
                Event::Crashed => self.reads.retain(|read, _| read.origin != server.id),
            }
        }
        self.commits(servers, at)?;
        matching_logs(servers, at)?;
        self.still_durable(servers, initial)?;
        let base = &server.planned.base;
        check(
            // Before the log, one that joins knows of nobody.
            base.last.index == Index(0)
                || base.config == *self.configuration_at(base.last.index, initial),
            "a snapshot's membership is that of its last entry",
            || format!("{} has {base:?}", server.id),
        )
    }

    /// The membership as of a committed index.
    fn configuration_at<'a>(
        &'a self,
        index: Index,
        initial: &'a Configuration,
    ) -> &'a Configuration {
        let upto = self.committed.iter().take(index.0 as usize).rev();
        let change = upto.filter_map(|entry| match &entry.payload {
            Payload::Config(config) => Some(config),
            Payload::Noop | Payload::Command(_) => None,
        });
        change.take(1).next().unwrap_or(initial)
    }

    /// §8: a read sees whatever was committed before it was put.
    fn granted(&mut self, grant: ReadState) -> Checked<()> {
        let least = self.reads.remove(&grant.id);
        check(least.is_some(), "a read is answered once", || format!("{grant:?}"))?;
        check(least <= Some(grant.index), "no stale read", || {
            format!("{grant:?}, but {least:?} was committed when it was put")
        })
    }

    /// What is refused takes no effect, ever.
    fn refuse(&mut self, id: RequestId) -> Checked<()> {
        if self.reads.remove(&id).is_some() {
            return Ok(());
        }
        self.refused.insert(id);
        let done = self.committed.iter().any(|entry| request_in(entry) == Some(id));
        check(!done, "what is refused has no effect", || format!("{id:?} is refused but committed"))
    }

    /// Election Safety and Leader Completeness.
    fn leads(&mut self, server: &Server, term: Term) -> Checked<()> {
        let leader = *self.leaders.entry(term).or_insert(server.id);
        check(leader == server.id, "at most one leader a term", || {
            format!("{leader} and {} lead term {term}", server.id)
        })?;
        let lacks = self.committed.iter().find(|entry| !server.planned.holds(entry.id));
        check(lacks.is_none(), "a leader has all that is committed", || {
            format!("{} leads term {term} without {:?}", server.id, lacks)
        })
    }

    /// State Machine Safety; and what is committed first is committed by a leader, and on a durable
    /// quorum of the membership that it counts by.
    fn commits(&mut self, servers: &[&Server], at: usize) -> Checked<()> {
        let server = servers[at];
        let Server { id, node, planned, .. } = server;
        let upto = node.committed().0;
        for index in planned.base.last.index.0 + 1..=upto {
            let entry = planned.entry(Index(index)).expect("the log reaches to the commit index");
            if let Some(known) = self.committed.get(index as usize - 1) {
                check(known == entry, "what is committed is the same everywhere", || {
                    format!("{id} commits {entry:?}, but {known:?} was")
                })?;
                continue;
            }
            let next = self.committed.len() as u64 + 1;
            check(
                index == next && node.role() == Role::Leader,
                "leaders commit, in order",
                || format!("{id} commits {index} as a {:?} where {next} is next", node.role()),
            )?;
            // A configuration decides on itself: it may have been left by now.
            let config = match &entry.payload {
                Payload::Config(own) => own,
                Payload::Noop | Payload::Command(_) => node.membership(),
            };
            let quorum = is_durable(servers, config, entry.id);
            check(quorum, "what is committed is durable on a quorum", || {
                format!("{id} commits {entry:?}")
            })?;
            self.commit(entry)?;
        }
        let base = planned.base.last;
        let known = self.committed.get((base.index.0 as usize).wrapping_sub(1));
        check(
            base.index == Index(0) || known.is_some_and(|entry| entry.id == base),
            "a snapshot is of what is committed",
            || format!("{id} begins after {base}, where {known:?} is committed"),
        )
    }

    fn commit(&mut self, entry: &Entry) -> Checked<()> {
        if let Some(request) = request_in(entry) {
            let again = self.committed.iter().any(|other| request_in(other) == Some(request));
            check(!again, "a proposal is committed once", || format!("{request:?}"))?;
            let refused = self.refused.contains(&request);
            check(!refused, "what is refused has no effect", || format!("{request:?}"))?;
        }
        self.committed.push(entry.clone());
        Ok(())
    }

    /// Nothing that was committed leaves the disks of a quorum.
    fn still_durable(&self, servers: &[&Server], initial: &Configuration) -> Checked<()> {
        let Some(last) = self.committed.last() else { return Ok(()) };
        // What follows a joint configuration, and may have decided, needs its incoming half alone.
        let voters = self.configuration_at(last.id.index, initial).voters.iter().copied();
        let config = Configuration::of_voters(voters);
        check(is_durable(servers, &config, last.id), "what is committed stays durable", || {
            format!("{:?} is gone from a quorum's disks", last.id)
        })
    }

    /// What of the past can matter in a cluster whose disks all know at least `term`: nobody can
    /// come to lead an earlier one.
    pub fn words(&self, words: &mut Words<'_>, term: Term) {
        words.list_of(
            self.leaders.range(term..).collect::<Vec<_>>().into_iter(),
            |words, (term, id)| {
                words.number(term.0);
                words.member(*id);
            },
        );
        // One name, one history: the last entry stands for all of it.
        words.number(self.committed.len() as u64);
        words.entry_id(self.committed.last().map_or(EntryId::default(), |entry| entry.id));
        words.bag_of(self.refused.iter(), |words, id| words.request(*id));
        words.bag_of(self.reads.iter(), |words, (id, least)| {
            words.request(*id);
            words.number(least.0);
        });
    }
}

/// Whether the disks of a quorum hold `id`; in a joint configuration, of a quorum of each half.
fn is_durable(servers: &[&Server], config: &Configuration, id: EntryId) -> bool {
    let majority = |half: &BTreeSet<NodeId>| {
        let holds = |server: &&&Server| half.contains(&server.id) && server.durable.holds(id);
        servers.iter().filter(holds).count() > half.len() / 2
    };
    majority(&config.voters) && (config.outgoing.is_empty() || majority(&config.outgoing))
}

/// Log Matching: where two logs share the name of an entry, they are the same up to there.
fn matching_logs(servers: &[&Server], at: usize) -> Checked<()> {
    let one = &servers[at].planned;
    for server in servers.iter().filter(|server| server.id != servers[at].id) {
        let other = &server.planned;
        let same_name =
            |entry: &&Entry| other.entry(entry.id.index).is_some_and(|twin| twin.id == entry.id);
        let Some(shared) = one.entries.iter().rev().find(same_name) else { continue };
        let upto = one.entries.iter().take_while(|entry| entry.id.index <= shared.id.index);
        let differs = upto
            .clone()
            .find(|entry| other.entry(entry.id.index).is_some_and(|twin| twin != *entry));
        check(differs.is_none(), "logs that share an entry share what comes before it", || {
            format!("{} and {} at {:?}", servers[at].id, server.id, differs)
        })?;
    }
    Ok(())
}
