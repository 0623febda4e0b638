//! Nonsense, by the thousand: whatever a message holds, a node neither panics nor loses what it
//! has committed. (Every input is followed by the node's own assertions.)

use bytes::Bytes;

use super::super::rng::Rng;
use super::super::{
    Body, Configuration, Entry, EntryId, Index, Message, NodeId, Payload, Proposal, RaftNode,
    Refusal, RequestId, SnapshotMeta, Term,
};
use super::member::{Durable, Member};
use super::{config, id};

struct Forger {
    rng: Rng,
    /// Numbers near these look right.
    term: u64,
    index: u64,
}

impl Forger {
    fn number(&mut self, near: u64) -> u64 {
        match self.rng.between(0, 9) {
            0 => 0,
            1 => u64::MAX - u64::from(self.rng.between(0, 2)),
            2 => self.rng.draw(),
            3 => 1 << 62,
            _ => (near + u64::from(self.rng.between(0, 4))).saturating_sub(2),
        }
    }

    /// Mostly the term that is, or the next: a forger who shoots over it is heard once.
    fn term(&mut self) -> Term {
        match self.rng.between(0, 400) {
            0 => Term(u64::MAX),
            1 => Term((1 << 62) + 1),
            2 => Term(self.term + u64::from(self.rng.between(0, 1000))),
            3..=20 => Term(self.term + 1),
            21..=40 => Term(self.term.saturating_sub(1)),
            _ => Term(self.term),
        }
    }

    fn entry_id(&mut self) -> EntryId {
        EntryId { term: Term(self.number(self.term)), index: Index(self.number(self.index)) }
    }

    fn member(&mut self) -> NodeId {
        id(u64::from(self.rng.between(1, 5)))
    }

    fn configuration(&mut self) -> Configuration {
        let count = self.rng.between(0, 3);
        Configuration {
            voters: (0..count).map(|_| self.member()).collect(),
            outgoing: (0..count / 2).map(|_| self.member()).collect(),
            ..Configuration::default()
        }
    }

    fn payload(&mut self) -> Payload {
        match self.rng.between(0, 8) {
            0 => Payload::Config(self.configuration()),
            1 => Payload::Command(self.proposal()),
            _ => Payload::Noop,
        }
    }

    fn request(&mut self) -> RequestId {
        RequestId { origin: self.member(), sequence: self.number(3) }
    }

    fn proposal(&mut self) -> Proposal {
        Proposal { id: self.request(), data: Bytes::from_static(b"forged") }
    }

    /// Mostly consecutive entries: a forger who takes care gets further.
    fn append(&mut self) -> Body {
        let prev = self.entry_id();
        let count = u64::from(self.rng.between(0, 3));
        let careless = self.rng.between(0, 3) == 0;
        let mut term = prev.term.0.max(1);
        let entries = (1..=count).map(|nth| {
            term = term.saturating_add(u64::from(self.rng.between(0, 1)));
            let follows =
                EntryId { term: Term(term), index: Index(prev.index.0.wrapping_add(nth)) };
            let id = if careless { self.entry_id() } else { follows };
            Entry { id, payload: self.payload() }
        });
        Body::Append { prev, entries: entries.collect(), commit: Index(self.number(self.index)) }
    }

    fn body(&mut self) -> Body {
        let yes = self.rng.between(0, 1) == 0;
        let pre_vote = self.rng.between(0, 1) == 0;
        match self.rng.between(0, 15) {
            0 => Body::RequestVote { last: self.entry_id(), pre_vote, transfer: yes },
            1 => Body::Vote { granted: yes, pre_vote },
            2..=4 => self.append(),
            5 => Body::Appended { last: Index(self.number(self.index)) },
            6 => Body::Rejected { prev: Index(self.number(self.index)), hint: self.entry_id() },
            7 => Body::Heartbeat {
                commit: Index(self.number(self.index)),
                round: self.number(1),
                successor: yes.then(|| self.member()),
            },
            8 => Body::HeartbeatReply { round: self.number(1) },
            9 => Body::InstallSnapshot {
                meta: SnapshotMeta { last: self.entry_id(), config: self.configuration() },
            },
            10 => Body::TimeoutNow,
            11 => Body::Propose { proposals: (0..2).map(|_| self.proposal()).collect() },
            12 => Body::ReadIndex { id: self.request() },
            13 => Body::AskMembers,
            14 => Body::Members { ids: (0..3).map(|_| self.member()).collect() },
            _ if yes => {
                Body::ReadIndexReply { id: self.request(), index: Index(self.number(self.index)) }
            }
            _ => Body::Refused { ids: vec![self.request()], why: Refusal::Busy },
        }
    }

    fn message(&mut self) -> Message {
        Message {
            from: self.member(),
            to: id(if self.rng.between(0, 50) == 0 { 2 } else { 1 }),
            term: self.term(),
            body: self.body(),
        }
    }
}

/// Does what the node asks for, at once.
fn serve(member: &mut Member) {
    loop {
        let Some(node) = &mut member.node else { return };
        let ready = node.ready();
        if ready.is_empty() {
            return;
        }
        member.writes.extend(ready.persist);
        let last = ready.committed.last().map(|entry| entry.id.index);
        while let Some(batch) = member.finish_write() {
            let node = member.node.as_mut().expect("up");
            node.persisted(batch.seq);
            if let Some(meta) = batch.snapshot {
                node.applied(meta.last.index);
            }
        }
        let node = member.node.as_mut().expect("up");
        if let Some(index) = last {
            node.applied(index);
        }
    }
}

fn committed_ids(node: &RaftNode) -> Vec<EntryId> {
    let base = node.log.base().index;
    let entries = node.log.slice(base.next(), node.committed(), usize::MAX);
    entries.into_iter().map(|entry| entry.id).collect()
}

#[test]
fn no_message_breaks_a_node() {
    for seed in 0..60 {
        println!("seed {seed}");
        let initial = Configuration::of_voters((1..=3).map(id));
        let mut member = Member::new(config(1, seed), Durable::new(initial));
        let mut forger = Forger { rng: Rng::new(seed, 9), term: 1, index: 1 };
        for _ in 0..1500 {
            let message = forger.message();
            let node = member.node.as_mut().expect("up");
            let before = committed_ids(node);
            node.step(message);
            match forger.rng.between(0, 40) {
                0 => node.campaign(),
                1..=10 => node.tick(),
                11 => node.propose(vec![forger.proposal()]),
                12 => node.read_index(forger.request()),
                13 => node.peer_lost(forger.member()),
                14 => node.snapshot_sent(forger.member(), true, Index(forger.number(1))),
                15 => {
                    let _ = node.transfer_leadership(None);
                }
                _ => {}
            }
            let after = committed_ids(node);
            if node.log.base().index <= before.first().map_or(Index(0), |id| id.index) {
                assert!(after.starts_with(&before), "what is committed stays");
            }
            forger.term = node.term().0.min(1 << 40);
            forger.index = node.log.last().index.0.min(1 << 40);
            if forger.rng.between(0, 2) == 0 {
                serve(&mut member);
            }
        }
    }
}
