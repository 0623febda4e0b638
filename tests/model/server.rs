//! One member: the production core, its disk, and the writes under way between them.
//!
//! [`react`] is the whole of its behaviour: an input goes in, and everything that the core then
//! wants done is done, up to what waits for the disk. The state machine is always ready: what is
//! committed is applied at once, what a snapshot brings as soon as that is durable.

use std::collections::VecDeque;

use raft_node::raft::canonical::{Names, Words};
use raft_node::raft::{
    Body, EntryId, Index, Message, NodeId, Persist, Proposal, RaftNode, ReadState, Ready, Refusal,
    RequestId, Role, SnapshotMeta, Term,
};

use crate::bounds::{DiskPace, Rules, Wish};
use crate::durable::Durable;
use crate::fingerprint::{self, Fingerprint};
use crate::invariants;

/// Why the search stops.
#[derive(Clone, Debug)]
pub struct Violation {
    pub property: &'static str,
    pub detail: String,
}

pub type Checked<T> = Result<T, Violation>;

/// `property` holds, or else `detail` says what was found.
pub fn check(holds: bool, property: &'static str, detail: impl FnOnce() -> String) -> Checked<()> {
    if holds { Ok(()) } else { Err(Violation { property, detail: detail() }) }
}

#[derive(Clone, Debug)]
pub struct Server {
    pub id: NodeId,
    pub node: RaftNode,
    pub durable: Durable,
    /// What the disk will hold once all writes under way are done: the log in memory, whole.
    pub planned: Durable,
    pub writes: VecDeque<Persist>,
    /// The latest request that came in here.
    pub sequence: u64,
    /// Its leader was heard since the way to it broke.
    pub hears: bool,
    /// The way to its leader broke, and it was not heard since.
    pub cut_off: bool,
}

/// What can happen to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "made and used one at a time")]
pub enum Input {
    Message(Message),
    Timeout,
    Tick,
    /// A tick of a leader.
    Heartbeat,
    /// As many ticks without an answer as make a leader step down.
    Silence,
    Propose,
    Read,
    /// The oldest write is durable.
    DiskDone,
    /// Power fails and comes back: so many writes reached the disk.
    Crash(usize),
    LinkLost(NodeId),
    Transfer(NodeId),
    /// Somebody wants the membership changed.
    Change(Wish),
    /// Everything applied goes into a snapshot, and the log forgets it.
    Compact,
    SnapshotSent {
        to: NodeId,
        ok: bool,
        upto: Index,
    },
}

/// What the world sees of a reaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Proposed,
    Reads(RequestId),
    Granted(ReadState),
    Refused(RequestId),
    Leads(Term),
    /// A crash took entries that were on their way to the disk.
    LostWrites,
    Crashed,
}

/// The server afterwards, and what came out.
pub struct Reaction {
    pub server: Server,
    pub sent: Vec<Message>,
    pub events: Vec<Event>,
}

impl Server {
    pub fn new(id: NodeId, durable: Durable, rules: &Rules) -> Self {
        Self {
            id,
            node: RaftNode::new(rules.config(id), durable.restored()),
            planned: durable.clone(),
            durable,
            writes: VecDeque::new(),
            sequence: 0,
            hears: false,
            cut_off: false,
        }
    }

    pub fn fingerprint(&self, names: &Names, rules: &Rules) -> Fingerprint {
        let mut words = Words::new(names, rules.ticks);
        words.member(self.id);
        words.node(&self.node);
        self.durable.words(&mut words);
        words.list_of(self.writes.iter(), |words, batch| {
            let Persist { seq: _, hard_state, snapshot, entries, messages_after } = batch;
            words.hard_state(hard_state);
            words.list_of(snapshot.iter(), Words::snapshot);
            words.list_of(entries.iter(), Words::entry);
            words.bag_of(messages_after.iter(), Words::message);
        });
        words.number(self.sequence);
        fingerprint::of(words.list())
    }

    pub fn last(&self) -> EntryId {
        self.planned.last()
    }
}

/// Lets `input` happen. None: it cannot happen here.
pub fn react(before: &Server, input: &Input, rules: &Rules) -> Checked<Option<Reaction>> {
    let mut reaction = Reaction { server: before.clone(), sent: Vec::new(), events: Vec::new() };
    if !reaction.take(input, rules) {
        return Ok(None);
    }
    for message in &reaction.sent {
        invariants::of_a_message(&reaction.server.durable, message)?;
    }
    reaction.settle(rules)?;
    invariants::of_a_step(before, input, &reaction)?;
    Ok(Some(reaction))
}

impl Reaction {
    fn take(&mut self, input: &Input, rules: &Rules) -> bool {
        let Self { server, sent, events } = self;
        let node = &mut server.node;
        match input {
            Input::Message(message) => {
                let leads = matches!(
                    message.body,
                    Body::Append { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. }
                );
                node.step(message.clone());
                let heard = leads && node.leader() == Some(message.from);
                server.hears |= heard;
                server.cut_off &= !heard;
            }
            Input::Timeout if node.role() == Role::Leader => return false,
            Input::Timeout => node.campaign(),
            Input::Tick => {
                // How long a follower is content with what it heard is the core's to know.
                server.hears = false;
                server.node.tick();
            }
            Input::Heartbeat if node.role() == Role::Leader => node.tick(),
            Input::Heartbeat => return false,
            // Whoever votes alone hears a quorum for ever.
            Input::Silence if votes_alone(node) => return false,
            Input::Silence => {
                // What it says meanwhile reaches nobody.
                while node.role() == Role::Leader {
                    node.tick();
                    node.ready();
                }
            }
            Input::Propose => {
                let id = server.next_request();
                events.push(Event::Proposed);
                server.node.propose(vec![Proposal { id, data: bytes::Bytes::new() }]);
            }
            Input::Read => {
                let id = server.next_request();
                events.push(Event::Reads(id));
                server.node.read_index(id);
            }
            Input::DiskDone => {
                let Some(batch) = server.writes.pop_front() else { return false };
                server.written(&batch, sent);
            }
            Input::Crash(done) => return self.crash(*done, rules),
            Input::LinkLost(peer) => {
                if node.leader() == Some(*peer) {
                    server.hears = false;
                    server.cut_off = true;
                }
                server.node.peer_lost(*peer);
            }
            Input::Transfer(to) => {
                // Whether it is possible is the core's to judge.
                let _ = node.transfer_leadership(Some(*to));
            }
            Input::Change(wish) => {
                let id = server.next_request();
                server.node.change_membership(id, wish.changes());
            }
            Input::Compact => return server.compact(),
            Input::SnapshotSent { to, ok, upto } => node.snapshot_sent(*to, *ok, *upto),
        }
        true
    }

    /// A write reaches the disk whole or not at all.
    fn crash(&mut self, done: usize, rules: &Rules) -> bool {
        let server = &mut self.server;
        let mut writes = std::mem::take(&mut server.writes);
        if done > writes.len() {
            return false;
        }
        for batch in writes.drain(..done) {
            server.durable.write(&batch);
        }
        if writes.iter().any(|batch| !batch.entries.is_empty()) {
            self.events.push(Event::LostWrites);
        }
        self.events.push(Event::Crashed);
        let sequence = server.sequence;
        *server = Server::new(server.id, server.durable.clone(), rules);
        server.sequence = sequence;
        true
    }

    /// Does what the core wants done, until it wants no more.
    fn settle(&mut self, rules: &Rules) -> Checked<()> {
        let Self { server, sent, events } = self;
        loop {
            let ready = server.node.ready();
            if ready.is_empty() {
                return Ok(());
            }
            let Ready {
                messages,
                persist,
                committed,
                reads,
                refused,
                snapshots_wanted,
                soft_state,
                configuration: _,
                notices: _,
            } = ready;
            for message in messages {
                invariants::of_a_message(&server.durable, &message)?;
                sent.push(message);
            }
            for to in snapshots_wanted {
                sent.extend(server.snapshot_for(to));
            }
            for entry in committed {
                invariants::of_an_apply(server, &entry)?;
                server.node.applied(entry.id.index);
            }
            for grant in reads {
                invariants::of_a_grant(server)?;
                events.push(Event::Granted(grant));
            }
            // Of a change that is refused nobody hears but its operator.
            let requests =
                refused.into_iter().filter(|(_, why)| !matches!(why, Refusal::Change(_)));
            events.extend(requests.map(|(id, _)| Event::Refused(id)));
            if let Some(soft_state) = soft_state.filter(|now| now.role == Role::Leader) {
                events.push(Event::Leads(soft_state.term));
            }
            if let Some(batch) = persist {
                server.planned.write(&batch);
                match rules.disk {
                    DiskPace::AtOnce => {
                        let before = sent.len();
                        server.written(&batch, sent);
                        for message in &sent[before..] {
                            invariants::of_a_message(&server.durable, message)?;
                        }
                    }
                    DiskPace::InItsTime => server.writes.push_back(batch),
                }
            }
        }
    }
}

impl Server {
    fn next_request(&mut self) -> RequestId {
        self.sequence += 1;
        RequestId { origin: self.id, sequence: self.sequence }
    }

    /// A batch is durable.
    fn written(&mut self, batch: &Persist, sent: &mut Vec<Message>) {
        self.durable.write(batch);
        sent.extend(batch.messages_after.iter().cloned());
        self.node.persisted(batch.seq);
        if let Some(meta) = &batch.snapshot {
            self.node.applied(meta.last.index);
        }
    }

    fn compact(&mut self) -> bool {
        let applied = self.node.applied_index();
        // While an older batch is under way, what it writes could reach behind the snapshot.
        if !self.writes.is_empty() || applied <= self.durable.base.last.index {
            return false;
        }
        let term = self.node.term_at(applied).expect("what is applied is in memory");
        let config = self.node.membership_at(applied).clone();
        let meta = SnapshotMeta { last: EntryId { term, index: applied }, config };
        self.durable.save_snapshot(meta.clone());
        self.planned.save_snapshot(meta);
        self.node.compact(applied);
        true
    }

    /// The newest snapshot, on its way with its content.
    fn snapshot_for(&self, to: NodeId) -> Option<Message> {
        let meta = self.durable.base.clone();
        let body = Body::InstallSnapshot { meta };
        (self.durable.base.last.index > Index(0)).then(|| Message {
            from: self.id,
            to,
            term: self.node.term(),
            body,
        })
    }
}

fn votes_alone(node: &RaftNode) -> bool {
    let config = node.membership();
    config.voters.iter().chain(&config.outgoing).all(|voter| *voter == node.id())
}
