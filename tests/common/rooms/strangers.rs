//! The core's rules for what a host says that can reach the members and is none of them.
//!
//! A small cluster is led and quiet. Then a host speaks: with an id of its own, whatever it likes
//! and however often, which must not change a thing; or as one of the members, once, of which the
//! cluster must recover by itself; or as one of the members again and again, that it wants votes in
//! the leader's name, which must not cost the leader its office.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_node::raft::{
    Body, Configuration, Entry, EntryId, HardState, Index, Message, NodeId, Payload, Proposal,
    RaftNode, Refusal, RequestId, Restored, Role, SnapshotMeta, Term,
};

use super::Rng;
use super::quorum::{ELECTION_TICKS, config};

/// The host, where it says so.
const STRANGER: u64 = 9;

/// No message may take a term further than that.
const TERM_MAX: u64 = 1 << 40;

struct Cluster {
    nodes: BTreeMap<NodeId, RaftNode>,
    /// What each has applied.
    applied: BTreeMap<NodeId, Vec<EntryId>>,
}

/// One cluster, one host.
pub fn judge(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let count = rng.of(&[3, 4, 5]);
    let mut cluster = Cluster::new(count, seed);
    for _ in 0..10 * ELECTION_TICKS {
        cluster.tick();
    }
    let leader = cluster.leader().ok_or("nobody leads, and nothing had happened")?;
    cluster.propose(leader, 1);
    cluster.tick();
    match rng.below(3) {
        0 => cluster.hear_a_stranger(leader, &mut rng)?,
        1 => cluster.hear_a_forgery(leader, &mut rng),
        _ => cluster.hear_of_a_transfer(leader, &mut rng)?,
    }
    cluster.work_again()
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("counted from one")
}

impl Cluster {
    fn new(count: u64, seed: u64) -> Self {
        let first = Configuration::of_voters((1..=count).map(id));
        let node = |raw: u64| {
            let base = SnapshotMeta { last: EntryId::default(), config: first.clone() };
            let (hard_state, applied) = (HardState::default(), Index(0));
            let restored = Restored { hard_state, base, entries: Vec::new(), applied };
            (id(raw), RaftNode::new(config(id(raw), seed), restored))
        };
        let nodes = (1..=count).map(node).collect();
        Self { nodes, applied: BTreeMap::new() }
    }

    fn leader(&self) -> Option<NodeId> {
        let leaders = self.nodes.values().filter(|node| node.role() == Role::Leader);
        leaders.max_by_key(|node| node.term()).map(RaftNode::id)
    }

    fn propose(&mut self, at: NodeId, sequence: u64) {
        let id = RequestId { origin: at, sequence };
        let proposal = Proposal { id, data: Bytes::from_static(b"data") };
        self.nodes.get_mut(&at).expect("a member").propose(vec![proposal]);
    }

    /// Says anything, in its own name: nobody may so much as look up.
    fn hear_a_stranger(&mut self, leader: NodeId, rng: &mut Rng) -> Result<(), String> {
        let before = self.standing();
        for _ in 0..300 {
            let to = rng.of(&self.members());
            let forger = Forger { last: self.nodes[&to].last_index().0, term: before.1 };
            let (term, body) = (forger.term(rng), forger.body(rng, id(STRANGER)));
            let message = Message { from: id(STRANGER), to, term, body };
            let what = format!("{message:?}");
            self.step(message);
            if self.standing() != before {
                return Err(format!("{before:?} became {:?} by {what}", self.standing()));
            }
            if rng.one_in(10) {
                self.tick();
            }
        }
        let leads = self.leader() == Some(leader);
        if leads { Ok(()) } else { Err(format!("{leader} lost its office to a stranger")) }
    }

    /// Says something once, in the name of a member. A lie of the leader about its log is not
    /// among it, nor one of a follower about its disk: who speaks as a member is for the channel
    /// to know.
    fn hear_a_forgery(&mut self, leader: NodeId, rng: &mut Rng) {
        let to = rng.of(&self.members());
        let from = rng.of(&self.members());
        let forger =
            Forger { last: self.nodes[&to].last_index().0, term: self.nodes[&leader].term().0 };
        let body = loop {
            match forger.body(rng, from) {
                Body::Append { .. }
                | Body::InstallSnapshot { .. }
                | Body::Propose { .. }
                | Body::Appended { .. }
                | Body::HeartbeatReply { .. } => {}
                other => break other,
            }
        };
        let term = forger.term(rng);
        self.step(Message { from, to, term, body });
        for _ in 0..20 * ELECTION_TICKS {
            self.tick();
        }
    }

    /// Says, in the names of voters, that the leader wants them to lead; and orders the same.
    fn hear_of_a_transfer(&mut self, leader: NodeId, rng: &mut Rng) -> Result<(), String> {
        let others: Vec<NodeId> = self.members().into_iter().filter(|id| *id != leader).collect();
        let term = self.nodes[&leader].term();
        let last = EntryId { term, index: Index(1 << 20) };
        for _ in 0..100 {
            let (from, to) = (rng.of(&others), rng.of(&self.members()));
            let (term, body) = if rng.one_in(3) {
                (term, Body::TimeoutNow)
            } else {
                (term.next(), Body::RequestVote { last, pre_vote: false, transfer: true })
            };
            self.step(Message { from, to, term, body });
            if rng.one_in(3) {
                self.tick();
            }
        }
        if self.leader() == Some(leader) && self.nodes[&leader].term() == term {
            return Ok(());
        }
        Err(format!("{leader} lost its office by votes that it did not want"))
    }

    fn members(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// What no stranger may move.
    fn standing(&self) -> (NodeId, u64, Vec<(Index, Option<NodeId>)>) {
        let leader = self.leader().unwrap_or(id(STRANGER));
        let terms = self.nodes.values().map(|node| node.term().0).max().unwrap_or(0);
        let logs = self.nodes.values().map(|node| (node.last_index(), node.leader()));
        (leader, terms, logs.collect())
    }

    /// Somebody leads, in a term that leaves room, and everybody applies what it is asked for.
    fn work_again(&mut self) -> Result<(), String> {
        for _ in 0..20 * ELECTION_TICKS {
            self.tick();
        }
        let leader = self.leader().ok_or("nobody leads any more")?;
        let term = self.nodes[&leader].term();
        if term.0 > TERM_MAX {
            return Err(format!("term {term} by one message"));
        }
        let before = self.applied[&leader].len();
        self.propose(leader, 1 << 30);
        for _ in 0..2 * ELECTION_TICKS {
            self.tick();
        }
        let longest = &self.applied[&leader];
        if longest.len() <= before {
            return Err("the leader commits nothing any more".to_owned());
        }
        match self.applied.iter().find(|(_, applied)| *applied != longest) {
            None => Ok(()),
            Some((other, applied)) => {
                Err(format!("{other} applied {applied:?}, and {leader} {longest:?}"))
            }
        }
    }

    fn step(&mut self, message: Message) {
        self.nodes.get_mut(&message.to).expect("a member").step(message);
    }

    /// Time passes, and everything that is said arrives.
    fn tick(&mut self) {
        self.nodes.values_mut().for_each(RaftNode::tick);
        let mut said = self.work();
        while !said.is_empty() {
            for message in said {
                if self.nodes.contains_key(&message.to) {
                    self.step(message);
                }
            }
            said = self.work();
        }
    }

    /// Everybody does what there is to do. What they say comes back.
    fn work(&mut self) -> Vec<Message> {
        let mut said = Vec::new();
        for (id, node) in &mut self.nodes {
            loop {
                let ready = node.ready();
                if ready.is_empty() {
                    break;
                }
                said.extend(ready.messages);
                if let Some(batch) = ready.persist {
                    said.extend(batch.messages_after);
                    node.persisted(batch.seq);
                    if let Some(snapshot) = batch.snapshot {
                        node.applied(snapshot.last.index);
                    }
                }
                let applied = self.applied.entry(*id).or_default();
                applied.extend(ready.committed.iter().map(|entry| entry.id));
                if let Some(last) = ready.committed.last() {
                    node.applied(last.id.index);
                }
            }
        }
        said
    }
}

/// Makes up messages that look right.
struct Forger {
    /// The end of the log of whoever is to believe it.
    last: u64,
    /// The present term.
    term: u64,
}

impl Forger {
    fn term(&self, rng: &mut Rng) -> Term {
        Term(match rng.below(5) {
            0 => self.term,
            1 => self.term.saturating_sub(1),
            2 => 1 << 62,
            3 => self.term + 1 + rng.below(1 << 32),
            _ => self.term + 1,
        })
    }

    fn index(&self, rng: &mut Rng) -> Index {
        Index(match rng.below(4) {
            0 => 1 << 62,
            1 => 0,
            _ => self.last,
        })
    }

    fn entry_id(&self, rng: &mut Rng) -> EntryId {
        let index = self.index(rng);
        EntryId { term: Term(if index.0 == 0 { 0 } else { self.term }), index }
    }

    fn body(&self, rng: &mut Rng, from: NodeId) -> Body {
        let (yes, pre_vote) = (rng.one_in(2), rng.one_in(2));
        let request = RequestId { origin: from, sequence: rng.below(1 << 40) };
        let config = Configuration::of_voters([from]);
        match rng.below(15) {
            0 => Body::RequestVote { last: self.entry_id(rng), pre_vote, transfer: yes },
            1 => Body::Vote { granted: yes, pre_vote },
            2 => {
                let prev = EntryId { term: Term(self.term), index: Index(self.last) };
                let id = EntryId { term: prev.term, index: prev.index.next() };
                let entries = vec![Entry { id, payload: Payload::Config(config) }];
                Body::Append { prev, entries, commit: id.index }
            }
            3 => Body::Appended { last: self.index(rng) },
            4 => Body::Rejected { prev: self.index(rng), hint: EntryId::default() },
            5 | 6 => {
                let (commit, round) = (self.index(rng), rng.below(3));
                Body::Heartbeat { commit, round, successor: yes.then_some(from) }
            }
            7 => Body::HeartbeatReply { round: 1 << 40 },
            8 => {
                let last = EntryId { term: Term(self.term), index: Index(self.last + 100) };
                Body::InstallSnapshot { meta: SnapshotMeta { last, config } }
            }
            9 => Body::TimeoutNow,
            10 => {
                let proposal = Proposal { id: request, data: Bytes::from_static(b"forged") };
                Body::Propose { proposals: vec![proposal] }
            }
            11 => Body::ReadIndex { id: request },
            12 => Body::Members { ids: vec![id(STRANGER)] },
            13 => Body::Removed { pre_vote },
            _ => Body::Refused { ids: vec![request], why: Refusal::NotLeader },
        }
    }
}
