//! A whole cluster at one moment, and what can happen to it next.
//!
//! There is no clock: a timer may fire whenever it could, a message may take any time, and one that
//! never arrives is lost. A member that is down is one to which nothing happens, so a crash brings
//! it back at once. What is bounded is how often things go wrong, and how much is in flight.

use std::sync::Arc;

use raft_node::raft::canonical::{Ticks, Words};
use raft_node::raft::{Body, Configuration, Role, Term};

use crate::bounds::{BUDGETS, Budget, Budgets, Elections, Rules};
use crate::durable::Durable;
use crate::fingerprint::{self, Fingerprint};
use crate::ghost::Ghost;
use crate::intern::{Lab, Packet, Part};
use crate::server::{Checked, Event, Input, Server, check};

#[derive(Clone)]
pub struct SystemState {
    pub servers: Vec<Arc<Part>>,
    /// In flight, in no order that means anything.
    pub net: Vec<Arc<Packet>>,
    pub ghost: Arc<Ghost>,
    spent: Budgets,
}

/// Something that happens. Servers and messages go by their place in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Deliver(u8),
    /// Arrives, and stays in flight.
    Duplicate(u8),
    Drop(u8),
    Timeout(u8),
    Tick(u8),
    Heartbeat(u8),
    Silence(u8),
    /// The first becomes a candidate by the pre-votes of a set.
    PreVote(u8, u8),
    /// The first becomes leader by the votes of a set.
    Elect(u8, u8),
    Propose(u8),
    Read(u8),
    DiskDone(u8),
    /// So many of its writes reached the disk.
    Crash(u8, u8),
    LinkLost(u8, u8),
    Transfer(u8, u8),
    Compact(u8),
    /// One of the wishes of the rules.
    Change(u8, u8),
}

/// What happened, for those who look for something: to whom, and what.
pub type Events = Vec<(usize, Event)>;

impl SystemState {
    pub fn new(lab: &Lab) -> Self {
        let rules = &lab.rules;
        let start = |id| {
            let joins = !rules.wishes.is_empty() && !rules.initial.is_member(id);
            let birth = if joins { Configuration::default() } else { rules.initial.clone() };
            let mut durable = Durable::new(birth);
            if let Some((owner, entries)) = &rules.logs {
                // It led term 1, by everybody's vote.
                durable.hard_state.term = Term(1);
                durable.hard_state.vote = Some(*owner);
                if *owner == id {
                    durable.entries.clone_from(entries);
                }
            }
            lab.part(Server::new(id, durable, rules))
        };
        let servers = rules.ids().map(start).collect();
        let spent = [0; BUDGETS];
        Self { servers, net: Vec::new(), ghost: Arc::default(), spent }
    }

    fn server(&self, at: usize) -> &Server {
        &self.servers[at].server
    }

    /// One fingerprint for all worlds that differ in the names of members only.
    pub fn fingerprint(&self, lab: &Lab) -> Fingerprint {
        let disk_term = |part: &Arc<Part>| part.server.durable.hard_state.term;
        let term = self.servers.iter().map(disk_term).min().unwrap_or_default();
        let renamed = lab.rules.names.iter().enumerate().map(|(at, names)| {
            let mut words = Words::new(names, Ticks::Ignore);
            self.ghost.words(&mut words, term);
            self.spent.iter().for_each(|times| words.number(u64::from(*times)));
            // Sums: neither servers nor messages have an order but by their names.
            let parts = self.servers.iter().map(|part| part.prints[at]);
            let packets = self.net.iter().map(|packet| packet.prints[at].rotate_left(1));
            parts.chain(packets).fold(fingerprint::of(words.list()), u128::wrapping_add)
        });
        renamed.min().expect("no renaming is one, too")
    }

    /// Everything that can happen next.
    pub fn actions(&self, rules: &Rules) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, packet) in (0u8..).zip(&self.net) {
            let twin = |other: &Arc<Packet>| Arc::ptr_eq(other, packet);
            if self.net[..usize::from(at)].iter().any(twin) {
                continue;
            }
            actions.push(Action::Deliver(at));
            if self.may(rules, Budget::Duplicates) {
                actions.push(Action::Duplicate(at));
            }
            if self.may(rules, Budget::Drops) {
                actions.push(Action::Drop(at));
            }
        }
        for at in 0..self.servers.len() {
            self.actions_of(at, rules, &mut actions);
        }
        actions
    }

    fn may(&self, rules: &Rules, budget: Budget) -> bool {
        self.spent[budget as usize] < rules.budgets[budget as usize]
    }

    fn actions_of(&self, at: usize, rules: &Rules, actions: &mut Vec<Action>) {
        let server = self.server(at);
        let leads = server.node.role() == Role::Leader;
        let me = at as u8;
        let others = (0..self.servers.len() as u8).filter(|other| *other != me);
        let mut add = |budget, action| {
            if self.may(rules, budget) {
                actions.push(action);
            }
        };
        if leads {
            add(Budget::Heartbeats, Action::Heartbeat(me));
            add(Budget::Silences, Action::Silence(me));
            others.clone().for_each(|to| add(Budget::Transfers, Action::Transfer(me, to)));
            let wishes = 0..rules.wishes.len() as u8;
            wishes.for_each(|wish| add(Budget::Changes, Action::Change(me, wish)));
        }
        if server.node.term().0 < rules.terms_max {
            match rules.elections {
                Elections::EachMessage if leads => {}
                Elections::EachMessage => add(Budget::Timeouts, Action::Timeout(me)),
                Elections::PreVoteAtOnce => rules
                    .helpers(at)
                    .for_each(|with| add(Budget::Timeouts, Action::PreVote(me, with))),
                Elections::AtOnce => rules
                    .helpers(at)
                    .for_each(|with| add(Budget::Timeouts, Action::Elect(me, with))),
            }
        }
        if server.node.leader().is_some() {
            // Else it is refused on the spot.
            add(Budget::Proposals, Action::Propose(me));
            add(Budget::Reads, Action::Read(me));
        }
        add(Budget::Ticks, Action::Tick(me));
        others.for_each(|peer| add(Budget::LinkLosses, Action::LinkLost(me, peer)));
        add(Budget::Compactions, Action::Compact(me));
        for done in 0..=server.writes.len() as u8 {
            add(Budget::Crashes, Action::Crash(me, done));
        }
        if !server.writes.is_empty() {
            actions.push(Action::DiskDone(me));
        }
    }

    /// The world after `action`. None: it could not happen, or leads out of bounds.
    pub fn after(&self, action: Action, lab: &Lab) -> Checked<Option<(Self, Events)>> {
        let mut next = Step { world: self.clone(), lab, events: Vec::new() };
        if !next.take(action)? {
            return Ok(None);
        }
        let Step { mut world, events, .. } = next;
        let terms_max = lab.rules.terms_max;
        let beyond = world.servers.iter().any(|part| part.server.node.term().0 > terms_max);
        if !lab.rules.keeps_stale {
            world.sweep();
        }
        let fits = world.net.len() <= lab.rules.in_flight_max && !beyond;
        Ok(fits.then_some((world, events)))
    }

    /// Forgets messages that can have no effect any more: answers of a term that their receiver's
    /// disk is past.
    fn sweep(&mut self) {
        let servers = &self.servers;
        self.net.retain(|packet| {
            let message = &packet.message;
            let to = &servers[message.to.get() as usize - 1].server;
            let answer = matches!(
                message.body,
                Body::Vote { .. }
                    | Body::Appended { .. }
                    | Body::Rejected { .. }
                    | Body::HeartbeatReply { .. }
                    | Body::TimeoutNow
                    | Body::ReadIndexReply { .. }
            );
            !answer || message.term >= to.durable.hard_state.term
        });
    }
}

/// A step under way.
pub struct Step<'a> {
    pub world: SystemState,
    pub lab: &'a Lab,
    pub events: Events,
}

impl Step<'_> {
    fn take(&mut self, action: Action) -> Checked<bool> {
        let spend = |step: &mut Self, budget: Budget| step.world.spent[budget as usize] += 1;
        match action {
            Action::Deliver(at) => {
                let packet = self.world.net.swap_remove(usize::from(at));
                self.deliver(&packet)?;
                Ok(true)
            }
            Action::Duplicate(at) => {
                spend(self, Budget::Duplicates);
                let packet = self.world.net[usize::from(at)].clone();
                self.deliver(&packet)
            }
            Action::Drop(at) => {
                spend(self, Budget::Drops);
                let packet = self.world.net.swap_remove(usize::from(at));
                self.report_snapshot(&packet, false)?;
                Ok(true)
            }
            Action::Timeout(at) => self.paid(Budget::Timeouts, at, &Input::Timeout),
            Action::PreVote(at, with) => {
                spend(self, Budget::Timeouts);
                self.elect(usize::from(at), with, true)
            }
            Action::Elect(at, with) => {
                spend(self, Budget::Timeouts);
                self.elect(usize::from(at), with, false)
            }
            Action::Tick(at) => self.paid(Budget::Ticks, at, &Input::Tick),
            Action::Heartbeat(at) => self.paid(Budget::Heartbeats, at, &Input::Heartbeat),
            Action::Silence(at) => self.paid(Budget::Silences, at, &Input::Silence),
            Action::Propose(at) => self.paid(Budget::Proposals, at, &Input::Propose),
            Action::Read(at) => self.paid(Budget::Reads, at, &Input::Read),
            Action::DiskDone(at) => self.feed_and_send(at, &Input::DiskDone),
            Action::Crash(at, done) => {
                self.paid(Budget::Crashes, at, &Input::Crash(usize::from(done)))
            }
            Action::LinkLost(at, peer) => {
                spend(self, Budget::LinkLosses);
                let peer = self.world.server(usize::from(peer)).id;
                self.feed_and_send(at, &Input::LinkLost(peer))
            }
            Action::Transfer(at, to) => {
                spend(self, Budget::Transfers);
                let to = self.world.server(usize::from(to)).id;
                self.feed_and_send(at, &Input::Transfer(to))
            }
            Action::Compact(at) => self.paid(Budget::Compactions, at, &Input::Compact),
            Action::Change(at, wish) => {
                spend(self, Budget::Changes);
                let wish = self.lab.rules.wishes[usize::from(wish)];
                self.feed_and_send(at, &Input::Change(wish))
            }
        }
    }

    /// The same, at the cost of what there is only so much of.
    fn paid(&mut self, budget: Budget, at: u8, input: &Input) -> Checked<bool> {
        self.world.spent[budget as usize] += 1;
        self.feed_and_send(at, input)
    }

    /// False: nothing came of it.
    pub fn feed_and_send(&mut self, at: u8, input: &Input) -> Checked<bool> {
        let before = self.world.servers[usize::from(at)].clone();
        let Some(sent) = self.feed(usize::from(at), input)? else { return Ok(false) };
        let matters =
            !sent.is_empty() || !Arc::ptr_eq(&before, &self.world.servers[usize::from(at)]);
        self.world.net.extend(sent);
        Ok(matters)
    }

    /// False: nothing came of it.
    pub fn deliver(&mut self, packet: &Packet) -> Checked<bool> {
        let to = packet.message.to.get() - 1;
        let matters = self.feed_and_send(to as u8, &Input::Message(packet.message.clone()))?;
        self.report_snapshot(packet, true)?;
        Ok(matters)
    }

    /// Whoever sent a snapshot learns how that went.
    fn report_snapshot(&mut self, packet: &Packet, ok: bool) -> Checked<()> {
        let Body::InstallSnapshot { meta } = &packet.message.body else { return Ok(()) };
        let input = Input::SnapshotSent { to: packet.message.to, ok, upto: meta.last.index };
        self.feed_and_send(packet.message.from.get() as u8 - 1, &input)?;
        Ok(())
    }

    /// Lets `input` happen to the server at `at`, and looks whether every promise holds. What it
    /// sends comes back. None: it cannot happen.
    fn feed(&mut self, at: usize, input: &Input) -> Checked<Option<Vec<Arc<Packet>>>> {
        let Some(done) = self.lab.react(&self.world.servers[at], input)? else {
            return Ok(None);
        };
        let changed = !Arc::ptr_eq(&self.world.servers[at], &done.part);
        if changed || !done.events.is_empty() {
            self.world.servers[at] = done.part.clone();
            let mut ghost = Ghost::clone(&self.world.ghost);
            let servers: Vec<&Server> =
                self.world.servers.iter().map(|part| &part.server).collect();
            ghost.observe(&servers, at, &self.lab.rules.initial, &done.events)?;
            if ghost != *self.world.ghost {
                self.world.ghost = Arc::new(ghost);
            }
            self.events.extend(done.events.iter().map(|event| (at, event.clone())));
        }
        for packet in done.sent.iter().filter(|sent| sent.message.body == Body::TimeoutNow) {
            let target = packet.message.to.get() as usize - 1;
            let (theirs, own) =
                (self.world.server(target).durable.last(), self.world.server(at).last());
            check(theirs >= own, "who is told to campaign has everything", || {
                format!("{:?}, but it has {theirs} of {own}", packet.message)
            })?;
        }
        Ok(Some(done.sent.clone()))
    }

    /// Members agree: the timers of all have run out, those of the set `with` give `at` their
    /// pre-votes, and if that is not all, their votes. What else is said of it is lost.
    pub fn elect(&mut self, at: usize, with: u8, pre_vote_only: bool) -> Checked<bool> {
        let concerned = with | 1 << at;
        for one in (0..self.world.servers.len()).filter(|one| concerned & 1 << one != 0) {
            self.flush(one)?;
            let node = &self.world.server(one).node;
            let input = match node.leader() {
                Some(_) if node.role() == Role::Leader => Input::Silence,
                Some(leader) => Input::LinkLost(leader),
                None => continue,
            };
            // Of what it says to that, nothing arrives.
            self.feed(one, &input)?;
        }
        let wanted = if pre_vote_only { Role::Candidate } else { Role::Leader };
        // Whoever is a term behind learns of that the first time.
        for _ in 0..2 {
            self.campaign(at, concerned, pre_vote_only)?;
            if self.world.server(at).node.role() == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn campaign(&mut self, at: usize, concerned: u8, pre_vote_only: bool) -> Checked<()> {
        let mut said = self.feed(at, &Input::Timeout)?.unwrap_or_default();
        while let Some(packet) = said.pop() {
            let prompt = match &packet.message.body {
                Body::RequestVote { pre_vote, .. } | Body::Vote { pre_vote, .. } => {
                    *pre_vote || !pre_vote_only
                }
                _ => false,
            };
            let to = packet.message.to.get() as usize - 1;
            if !prompt {
                self.world.net.push(packet);
            } else if concerned & 1 << to != 0 {
                let input = Input::Message(packet.message.clone());
                said.extend(self.feed(to, &input)?.unwrap_or_default());
                if !pre_vote_only {
                    said.extend(self.flush(to)?);
                }
            }
        }
        Ok(())
    }

    /// All writes under way become durable. What they allow to be sent comes back.
    pub fn flush(&mut self, at: usize) -> Checked<Vec<Arc<Packet>>> {
        let mut said = Vec::new();
        while let Some(sent) = self.feed(at, &Input::DiskDone)? {
            said.extend(sent);
        }
        Ok(said)
    }
}
