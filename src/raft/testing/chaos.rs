//! Seeded random runs: a small cluster under loss, repetition, reordering, delay, partitions,
//! crashes that lose writes, false alarms, transfers, compaction and snapshots. Then everything
//! heals, and the cluster must get back to work.
//!
//! `RAFT_CHAOS_SEEDS=10000` runs more seeds, `RAFT_CHAOS_FROM=n` starts at seed n.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::rng::Rng;
use super::super::{
    Body, Configuration, Entry, EntryId, Index, Message, NodeId, PeerState, Proposal, Ready,
    RequestId, Role, SnapshotMeta,
};
use super::super::{Change, TargetRole};
use super::checker::Checker;
use super::member::{Durable, Member};
use super::{config, id};

/// Members that know nothing, and wait to be added.
const STRANGERS: u64 = 2;

/// What a seed makes of the world: chances in parts of 1000.
#[derive(Debug)]
struct Weather {
    members: u64,
    initial: Configuration,
    storm: bool,
    drop: u32,
    repeat: u32,
    delay_ticks_max: u32,
    write: u32,
    apply: u32,
    propose: u32,
    read: u32,
    crash: u32,
    restart: u32,
    partition: u32,
    heal: u32,
    link_alarm: u32,
    transfer: u32,
    compact: u32,
    change: u32,
    tick: u32,
}

impl Weather {
    fn draw(rng: &mut Rng) -> Self {
        let members = if rng.between(0, 2) == 0 { 5 } else { 3 };
        let all: BTreeSet<NodeId> = (1..=members).map(id).collect();
        let mut initial = Configuration::of_voters(all.clone());
        match rng.between(0, 5) {
            0 => {
                initial.voters.remove(&id(members));
                initial.learners.insert(id(members));
            }
            1 => {
                initial.outgoing = all.iter().copied().filter(|id| id.get() != 1).collect();
            }
            2 => {
                initial.voters.remove(&id(members));
                initial.outgoing = all;
            }
            _ => {}
        }
        // One seed in four is a storm: leaders hardly ever get settled.
        let storm = if rng.between(0, 3) == 0 { 6 } else { 1 };
        let mut some = |low, high| rng.between(low, high) * rng.between(0, 1);
        Self {
            members,
            initial,
            storm: storm > 1,
            drop: some(1, 150),
            repeat: some(1, 150),
            delay_ticks_max: some(1, 6),
            crash: some(1, 6) * storm,
            partition: some(1, 10) * storm,
            link_alarm: some(1, 20),
            transfer: some(1, 15) * storm,
            compact: some(5, 60),
            change: some(5, 60),
            write: rng.between(300, 1000),
            apply: rng.between(300, 1000),
            propose: rng.between(20, 400),
            read: rng.between(10, 200),
            restart: rng.between(10, 60) * storm,
            heal: rng.between(10, 60) * storm,
            tick: rng.between(700, 1000),
        }
    }

    /// The same cluster on a fine day.
    fn clear_up(&mut self) {
        for fault in [
            &mut self.drop,
            &mut self.repeat,
            &mut self.crash,
            &mut self.partition,
            &mut self.link_alarm,
            &mut self.transfer,
            &mut self.compact,
            &mut self.change,
            &mut self.propose,
            &mut self.read,
        ] {
            *fault = 0;
        }
        (self.delay_ticks_max, self.write, self.apply) = (0, 1000, 1000);
        (self.restart, self.heal, self.tick) = (1000, 1000, 1000);
    }
}

struct World {
    rng: Rng,
    weather: Weather,
    now: u32,
    members: Vec<Member>,
    /// Messages under way, by when they arrive.
    network: Vec<(u32, Message)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Snapshots under way: arrival, from, to, what.
    snapshots: Vec<(u32, NodeId, NodeId, SnapshotMeta)>,
    sequences: BTreeMap<NodeId, u64>,
    proposed: Vec<RequestId>,
    checker: Checker,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0);
        let weather = Weather::draw(&mut rng);
        // The last ones are strangers, until somebody adds them.
        let members = (1..=weather.members + STRANGERS).map(|raw| {
            let mut config = config(raw, seed);
            if weather.storm {
                config.heartbeat_ticks = 1;
                config.election_ticks_min = 4;
                config.election_ticks_max = 8;
            }
            let known = raw <= weather.members;
            let initial = if known { weather.initial.clone() } else { Configuration::default() };
            Member::new(config, Durable::new(initial))
        });
        Self {
            members: members.collect(),
            rng,
            weather,
            now: 0,
            network: Vec::new(),
            cut: BTreeSet::new(),
            snapshots: Vec::new(),
            sequences: BTreeMap::new(),
            proposed: Vec::new(),
            checker: Checker::default(),
        }
    }

    fn rng(&mut self, of_1000: u32) -> bool {
        of_1000 > 0 && self.rng.between(1, 1000) <= of_1000
    }

    fn any_member(&mut self) -> usize {
        self.rng.between(0, self.members.len() as u32 - 1) as usize
    }

    fn step(&mut self) {
        self.now += 1;
        for at in 0..self.members.len() {
            if self.rng(self.weather.tick) {
                self.input(at, super::super::node::RaftNode::tick);
            }
        }
        self.deliver();
        self.deliver_snapshots();
        for at in 0..self.members.len() {
            self.work(at);
            self.ask(at);
            self.trouble(at);
        }
        if self.rng(self.weather.partition) {
            self.partition();
        }
        if self.rng(self.weather.heal) {
            self.cut.clear();
        }
        if self.now.is_multiple_of(16) {
            self.members.iter().for_each(|member| self.checker.check_log(member));
        }
    }

    /// Gives member `at` an input, if it is up, and does what it asks for.
    fn input(&mut self, at: usize, act: impl FnOnce(&mut super::super::RaftNode)) {
        let Some(node) = &mut self.members[at].node else { return };
        act(node);
        self.checker.observe(&self.members, at);
        // Sometimes several inputs come before the caller looks.
        if !self.rng(150) {
            self.drain(at);
        }
    }

    fn drain(&mut self, at: usize) {
        let Some(node) = &mut self.members[at].node else { return };
        let ready = node.ready();
        self.checker.observe(&self.members, at);
        let Ready { messages, persist, committed, reads, refused, snapshots_wanted, .. } = ready;
        self.members[at].writes.extend(persist);
        self.members[at].applying.extend(committed);
        for grant in reads {
            self.checker.read_released(grant);
        }
        for (id, _) in refused {
            self.checker.refused(id);
        }
        for message in &messages {
            self.send(at, message);
        }
        for peer in snapshots_wanted {
            self.begin_snapshot(at, peer);
        }
    }

    fn send(&mut self, at: usize, message: &Message) {
        Checker::check_message(&self.members[at].durable, message);
        let copies = 1 + u32::from(self.rng(self.weather.repeat));
        for _ in 0..copies {
            if self.rng(self.weather.drop) || self.cut.contains(&(message.from, message.to)) {
                continue;
            }
            let delay_ticks = self.rng.between(0, self.weather.delay_ticks_max);
            self.network.push((self.now + delay_ticks, message.clone()));
        }
    }

    fn deliver(&mut self) {
        let mut hops = 0;
        while let Some(at) = self.network.iter().position(|(due, _)| *due <= self.now) {
            // On a day without delays, answers come back within the tick: up to a point.
            hops += 1;
            if hops > 400 {
                break;
            }
            let (_, message) = match self.weather.delay_ticks_max {
                0 => self.network.remove(at),
                _ => self.network.swap_remove(at),
            };
            let to = message.to.get() as usize - 1;
            if !self.cut.contains(&(message.from, message.to)) {
                self.input(to, |node| node.step(message));
            }
        }
    }

    /// The disk and the state machine of member `at` do some work.
    fn work(&mut self, at: usize) {
        while self.rng(self.weather.write) {
            let Some(batch) = self.members[at].finish_write() else { break };
            let seq = batch.seq;
            if let Some(meta) = batch.snapshot {
                self.members[at].applying.clear();
                self.members[at].restoring = Some(meta.last.index);
            }
            for message in &batch.messages_after {
                self.send(at, message);
            }
            self.input(at, |node| node.persisted(seq));
        }
        if self.rng(self.weather.apply)
            && let Some(index) = self.members[at].restoring.take()
        {
            self.input(at, |node| node.applied(index));
        }
        while self.rng(self.weather.apply) {
            let Some(entry) = self.members[at].applying.pop_front() else { break };
            self.apply(at, &entry);
        }
        self.drain(at);
    }

    fn apply(&mut self, at: usize, entry: &Entry) {
        let index = entry.id.index;
        let applied = self.members[at].node.as_ref().expect("work to do").log.applied();
        assert_eq!(index, applied.next(), "applies in order, without gaps");
        assert!(self.members[at].durable.holds(entry.id), "applies what is not durable");
        let known = &self.checker.committed[index.0 as usize - 1];
        assert_eq!(known, entry, "state machine safety");
        self.input(at, |node| node.applied(index));
    }

    fn next_request(&mut self, at: usize) -> RequestId {
        let origin = self.members[at].config.id;
        let sequence = self.sequences.entry(origin).or_insert(0);
        *sequence += 1;
        RequestId { origin, sequence: *sequence }
    }

    fn propose(&mut self, at: usize) {
        let count = self.rng.between(1, 3);
        let proposals: Vec<Proposal> = (0..count)
            .map(|_| {
                let size = self.rng.between(0, 300) as usize;
                Proposal { id: self.next_request(at), data: Bytes::from(vec![0; size]) }
            })
            .collect();
        self.proposed.extend(proposals.iter().map(|proposal| proposal.id));
        self.input(at, |node| node.propose(proposals));
    }

    fn read(&mut self, at: usize) {
        let id = self.next_request(at);
        self.checker.read_begins(id);
        self.input(at, |node| node.read_index(id));
    }

    /// Clients of member `at`.
    fn ask(&mut self, at: usize) {
        if self.members[at].node.is_none() {
            return;
        }
        if self.rng(self.weather.propose) {
            self.propose(at);
        }
        if self.rng(self.weather.read) {
            self.read(at);
        }
    }

    /// Things that happen to member `at`.
    fn trouble(&mut self, at: usize) {
        if self.members[at].node.is_none() {
            if self.rng(self.weather.restart) {
                self.members[at].start();
            }
            return;
        }
        if self.rng(self.weather.crash) {
            self.crash(at);
            return;
        }
        if self.rng(self.weather.link_alarm) {
            let peer = self.any_member();
            let peer = self.members[peer].config.id;
            self.input(at, |node| node.peer_lost(peer));
        }
        if self.rng(self.weather.transfer) {
            let target = self.any_member();
            let target = (target != at).then(|| self.members[target].config.id);
            self.input(at, |node| {
                let _ = node.transfer_leadership(target);
            });
        }
        if self.rng(self.weather.transfer / 4) {
            self.input(at, super::super::node::RaftNode::campaign);
        }
        if self.rng(self.weather.compact) {
            self.compact(at);
        }
        if self.rng(self.weather.change) {
            self.change(at);
        }
    }

    /// Wants something changed about who takes part, sensible or not.
    fn change(&mut self, at: usize) {
        let count = self.rng.between(1, 2);
        let changes: Vec<Change> = (0..count).map(|_| self.any_change()).collect();
        let id = self.next_request(at);
        self.input(at, |node| node.change_membership(id, changes));
    }

    fn any_change(&mut self) -> Change {
        let (id, other) = (self.any_member() as u64 + 1, self.any_member() as u64 + 1);
        let (id, other) = (super::id(id), super::id(other));
        let address = format!("host{id}");
        match self.rng.between(0, 5) {
            0 => Change::Add { id, address, aim: TargetRole::Learner },
            1 => Change::Add { id, address, aim: TargetRole::Voter { replaces: None } },
            2 => Change::Add { id, address, aim: TargetRole::Voter { replaces: Some(other) } },
            3 => Change::Promote(id),
            4 => Change::Remove(id),
            _ => Change::UpdateAddress { id, address: format!("{address} in room {}", self.now) },
        }
    }

    fn crash(&mut self, at: usize) {
        let pending = self.members[at].writes.len() as u32;
        let done = self.rng.between(0, pending) as usize;
        self.members[at].crash(done);
        let crashed = self.members[at].config.id;
        self.checker.crashed(crashed, &self.members[at].durable);
        self.checker.forget_reads(crashed);
        // The others mostly notice.
        for other in 0..self.members.len() {
            if self.rng(500) {
                self.input(other, |node| node.peer_lost(crashed));
            }
        }
    }

    fn compact(&mut self, at: usize) {
        // A log still being written to disk in older batches cannot be pruned there: wait.
        if !self.members[at].writes.is_empty() || self.members[at].save_snapshot().is_none() {
            return;
        }
        let saved = self.members[at].durable.base.last.index;
        let keep = u64::from(self.rng.between(0, 5));
        self.input(at, |node| node.compact(Index(saved.0.saturating_sub(keep))));
    }

    fn begin_snapshot(&mut self, at: usize, to: NodeId) {
        let _ = self.members[at].writes.is_empty() && self.members[at].save_snapshot().is_some();
        let meta = self.members[at].durable.base.clone();
        let from = self.members[at].config.id;
        if meta.last == EntryId::default() {
            return;
        }
        if self.rng(self.weather.drop) {
            if self.rng(700) {
                self.input(at, |node| node.snapshot_sent(to, false, meta.last.index));
            }
            return;
        }
        let due = self.now + self.rng.between(0, 30);
        self.snapshots.push((due, from, to, meta));
    }

    fn deliver_snapshots(&mut self) {
        while let Some(at) = self.snapshots.iter().position(|(due, ..)| *due <= self.now) {
            let (_, from, to, meta) = self.snapshots.swap_remove(at);
            let (sender, receiver) = (from.get() as usize - 1, to.get() as usize - 1);
            let arrives = !self.cut.contains(&(from, to)) && self.members[receiver].node.is_some();
            let Some(node) = &self.members[sender].node else { continue };
            let (term, upto) = (node.term(), meta.last.index);
            // Only a leader sends; it may have lost that role in the meantime.
            if arrives && node.role() == Role::Leader {
                let message = Message { from, to, term, body: Body::InstallSnapshot { meta } };
                self.input(receiver, |node| node.step(message));
            }
            if self.rng(900) {
                self.input(sender, |node| node.snapshot_sent(to, arrives, upto));
            }
        }
    }

    /// Cuts links: one member off, two halves, or single directions.
    fn partition(&mut self) {
        let count = self.members.len() as u32;
        let ids: Vec<NodeId> = self.members.iter().map(|member| member.config.id).collect();
        let kind = self.rng.between(0, 2);
        let mut side: Vec<bool> = ids.iter().map(|_| self.rng(500)).collect();
        if kind == 0 {
            let one = self.rng.between(0, count - 1) as usize;
            side = (0..ids.len()).map(|at| at == one).collect();
        }
        for (a, from) in ids.iter().enumerate() {
            for (b, to) in ids.iter().enumerate() {
                let cuts = if kind == 2 { self.rng(250) } else { side[a] != side[b] };
                if a != b && cuts {
                    self.cut.insert((*from, *to));
                }
            }
        }
    }

    /// After the storm: one leader, everything applied everywhere, every request settled.
    fn recover(&mut self) {
        self.weather.clear_up();
        self.cut.clear();
        for _ in 0..700 {
            self.step();
        }
        self.proposed.clear();
        let config = self.settled_configuration();
        for at in 0..self.members.len() {
            let id = self.members[at].config.id;
            if config.is_member(id) {
                self.propose(at);
                self.read(at);
            } else {
                self.checker.forget_reads(id);
            }
        }
        for _ in 0..60 {
            self.step();
        }
        self.assert_recovered();
    }

    /// What the one leader has made of all changes.
    fn settled_configuration(&self) -> Configuration {
        let nodes = self.members.iter().filter_map(|member| member.node.as_ref());
        let leader = nodes.filter(|node| node.role() == Role::Leader).max_by_key(|n| n.term());
        let Some(leader) = leader else {
            let nodes = self.members.iter().filter_map(|member| member.node.as_ref());
            let statuses: Vec<_> = nodes.map(super::super::RaftNode::status).collect();
            panic!("no leader after the storm: {statuses:#?}");
        };
        let config = leader.membership().clone();
        assert!(!config.is_joint(), "a joint configuration is left: {config:?}");
        assert!(config.promoting.is_empty(), "who has caught up votes: {config:?}");
        config
    }

    fn assert_recovered(&self) {
        let config = self.settled_configuration();
        let members = self.members.iter().filter(|member| config.is_member(member.config.id));
        let status = |member: &Member| member.node.as_ref().expect("all are up").status();
        let statuses: Vec<_> = members.map(status).collect();
        let leaders = statuses.iter().filter(|status| status.role == Role::Leader).count();
        assert_eq!(leaders, 1, "one leader after the storm: {statuses:#?}");
        let committed = Index(self.checker.committed.len() as u64);
        for status in &statuses {
            assert_eq!(status.applied, committed, "all is applied everywhere: {statuses:#?}");
            assert_eq!(status.last.index, committed, "nothing is left over: {statuses:#?}");
            let replicate = |peer: &super::super::PeerStatus| peer.state == PeerState::Replicate;
            assert!(status.peers.values().all(replicate), "all stream: {statuses:#?}");
            assert_eq!(status.transferring_to, None);
        }
        assert_eq!(self.checker.reads_open(), 0, "every read has an outcome: {statuses:#?}");
        for id in &self.proposed {
            assert!(self.checker.settled(*id), "{id:?} on a fine day: {statuses:#?}");
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn random_runs_keep_every_promise() {
    let from = number("RAFT_CHAOS_FROM", 0);
    let (mut elections, mut commits, mut reads, mut refusals, mut changes) = (0, 0, 0, 0, 0);
    for seed in from..from + number("RAFT_CHAOS_SEEDS", 120) {
        // Printed by the test harness if a check fails.
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.recover();
        elections += world.checker.elections;
        commits += world.checker.committed.len();
        reads += world.checker.reads_released;
        refusals += world.checker.refusals;
        changes += world.checker.changes;
    }
    let all = [elections, commits, reads, refusals, changes];
    println!("elections, commits, reads, refusals, changes: {all:?}");
    assert!(all.iter().all(|count| *count > 0), "something of each happened: {all:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::new(42);
        (0..600).for_each(|_| world.step());
        let nodes: Vec<_> = world.members.iter().map(|member| member.node.clone()).collect();
        (nodes, world.network)
    };
    assert!(run() == run());
}
