//! The clients: sessions on members that put, get, delete, compare and compact in bursts, try
//! another member when one fails, and write down what they saw.

use bytes::Bytes;

use raft_node::kv::{
    Command, CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use raft_node::node::{Applied, Event, RequestError};

use crate::linearizability::{Answer, ClientId, Freshness, OperationId, Request as Asked, Time};
use crate::process::Ticket;
use crate::simulator::{SimEvent, Simulator};

/// How soon a client tries again after a refusal.
const RETRY_US: u64 = 100_000;

/// One client.
#[derive(Clone, Debug)]
pub struct Client {
    /// The member it speaks to.
    home: usize,
    /// What is left of the burst.
    burst: u64,
    /// What it waits for.
    waiting: Option<Ticket>,
    /// The newest revision that it has seen.
    revision: i64,
    /// Makes its values its own.
    written: u64,
}

impl Client {
    /// A client of that member.
    pub fn new(home: usize) -> Self {
        Self { home, burst: 0, waiting: None, revision: 0, written: 0 }
    }
}

/// A request that a member was given, and who waits for it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which member.
    pub at: usize,
    /// What.
    pub what: What,
    /// The member has answered.
    pub answered: bool,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// An operation of a client, which may have stopped waiting.
    Operation { client: usize, operation: OperationId, waits: bool },
    /// Another leader.
    Transfer,
    /// A vote.
    Vote { candidate: usize, term: raft_node::raft::Term },
    /// A change of the membership.
    Change { asked: usize },
    /// A check by the simulator itself; whether it went well.
    Audit { written: Option<OperationId>, done: Option<bool> },
}

impl Simulator {
    /// A client has something to do.
    pub fn wake(&mut self, client: usize) {
        let enough = self.history.operations.len() >= self.plan.workload.requests_max;
        if self.healed || enough || self.clients[client].waiting.is_some() {
            return;
        }
        if self.clients[client].burst == 0 {
            self.clients[client].burst = self.workload_rng.around(self.plan.workload.burst) + 1;
        }
        let asked = self.think(client);
        if self.workload_rng.one_in(16) {
            let homes = self.homes();
            self.clients[client].home = homes[self.workload_rng.below(homes.len() as u64) as usize];
        }
        self.ask(client, asked);
    }

    /// A client asks its member.
    fn ask(&mut self, client: usize, asked: Asked) {
        let at = self.clients[client].home;
        let now = Time(self.now_us);
        let operation = self.history.call(ClientId(client as u64), now, asked);
        if self.members[at].process.is_none() {
            // Nobody listens there.
            self.history.refused(operation, now);
            self.stats.refused_requests += 1;
            self.move_on(client);
            return;
        }
        let ticket = self.open(at, What::Operation { client, operation, waits: true });
        self.clients[client].waiting = Some(ticket);
        let patience_us = self.plan.workload.patience_us;
        self.queue.push(self.now_us + patience_us, SimEvent::GiveUp { client, ticket });
        let life = self.members[at].life;
        self.queue.push(self.now_us, SimEvent::Request { at, life, ticket });
    }

    /// A new request at a member that runs.
    pub fn open(&mut self, at: usize, what: What) -> Ticket {
        let ticket = Ticket(self.requests.len());
        self.requests.push(Request { at, what, answered: false });
        self.process(at).open.insert(ticket);
        ticket
    }

    /// The simulator itself asks a member, to see that it answers: for a write or for a read.
    pub fn audit(&mut self, at: usize, reads: bool) -> Ticket {
        let written = (!reads).then(|| {
            let value = format!("audit {}", self.requests.len()).into();
            let put = PutRequest { key: "audit".into(), value, ..PutRequest::default() };
            let auditor = ClientId(self.clients.len() as u64);
            self.history.call(auditor, Time(self.now_us), Asked::Write(Command::Put(put)))
        });
        let ticket = self.open(at, What::Audit { written, done: None });
        let life = self.members[at].life;
        self.queue.push(self.now_us, SimEvent::Request { at, life, ticket });
        ticket
    }

    /// A request arrives at its member.
    pub fn request(&mut self, at: usize, life: u32, ticket: Ticket) {
        if !self.lives(at, life) {
            return;
        }
        let event = match self.requests[ticket.0].what {
            What::Transfer | What::Vote { .. } | What::Change { .. } => return,
            What::Audit { written: None, .. } => Event::Read { ticket },
            What::Audit { written: Some(operation), .. } | What::Operation { operation, .. } => {
                match &self.history.operations[operation.0].request {
                    Asked::Write(command) => Event::Propose { data: command.encode(), ticket },
                    Asked::Range(_, Freshness::Linearizable)
                    | Asked::ReadTxn(_, Freshness::Linearizable) => Event::Read { ticket },
                    Asked::Range(_, Freshness::Serializable)
                    | Asked::ReadTxn(_, Freshness::Serializable) => {
                        self.look(at, life, ticket);
                        return;
                    }
                }
            }
        };
        self.give(at, event);
    }

    /// Everything that a linearizable read must see is applied: it looks, now or a little later.
    pub fn may_read(&mut self, at: usize, ticket: Ticket) {
        let life = self.members[at].life;
        if self.rng.one_in(4) {
            let at_us = self.now_us + self.rng.below(2000);
            self.queue.push(at_us, SimEvent::Look { at, life, ticket });
        } else {
            self.look(at, life, ticket);
        }
    }

    /// A read looks at the store.
    pub fn look(&mut self, at: usize, life: u32, ticket: Ticket) {
        if !self.lives(at, life) {
            return;
        }
        if let What::Operation { operation, waits: true, .. } = self.requests[ticket.0].what {
            let process = self.members[at].process.as_ref().expect("it lives");
            let machine = process.machine.read().expect("nobody panics with the lock held");
            let store = machine.store();
            let refused = |error| Answer::Refused { error, revision: Some(store.revision()) };
            let answer = match &self.history.operations[operation.0].request {
                Asked::Range(range, _) => store.range(range).map_or_else(refused, Answer::Range),
                Asked::ReadTxn(txn, _) => store.read_txn(txn).map_or_else(refused, Answer::ReadTxn),
                Asked::Write(_) => unreachable!("a write does not look"),
            };
            drop(machine);
            self.stats.reads += 1;
            self.told(ticket, answer);
        }
        self.settle(at, ticket);
    }

    /// A command was applied where it was asked for.
    pub fn answered(&mut self, at: usize, ticket: Ticket, applied: Applied) {
        self.stats.writes += 1;
        self.trace(9, at, ticket.0 as u64);
        let process = self.members[at].process.as_ref().expect("it has just applied");
        let machine = process.machine.read().expect("nobody panics with the lock held");
        // The store may be further by now; a refusal is told with the revision that it met only if
        // nothing came after.
        let revision = (machine.applied() == applied.index.0).then(|| machine.store().revision());
        let response = applied.answer.map(|answer| answer.read(machine.store()));
        drop(machine);
        let answer = match response {
            Ok(response) => Answer::Written(response.expect("the store is still the same")),
            Err(error) => Answer::Refused { error, revision },
        };
        match self.requests[ticket.0].what {
            What::Operation { waits: true, .. } => self.told(ticket, answer),
            What::Audit { written: Some(operation), .. } => {
                self.history.returned(operation, Time(self.now_us), answer);
            }
            What::Operation { .. }
            | What::Audit { .. }
            | What::Transfer
            | What::Vote { .. }
            | What::Change { .. } => {}
        }
        self.settle(at, ticket);
    }

    /// A client has its answer.
    fn told(&mut self, ticket: Ticket, answer: Answer) {
        let What::Operation { client, operation, .. } = self.requests[ticket.0].what else {
            unreachable!("only operations are answered")
        };
        let revision = answer.revision().unwrap_or_default();
        self.clients[client].revision = self.clients[client].revision.max(revision);
        self.history.returned(operation, Time(self.now_us), answer);
        self.go_on(client);
    }

    /// A request failed.
    pub fn failed(&mut self, at: usize, ticket: Ticket, why: RequestError) {
        self.trace(10, at, ticket.0 as u64);
        self.stats.failed_requests += 1;
        self.tell(|| format!("member {at} fails {ticket:?}: {why}"));
        match &mut self.requests[ticket.0].what {
            What::Operation { client, operation, waits: true } => {
                let (client, operation) = (*client, *operation);
                let reads =
                    !matches!(self.history.operations[operation.0].request, Asked::Write(_));
                if why.is_definite() || reads {
                    self.history.refused(operation, Time(self.now_us));
                }
                self.move_on(client);
            }
            What::Audit { written, done } => {
                *done = Some(false);
                if let (Some(operation), true) = (*written, why.is_definite()) {
                    self.history.refused(operation, Time(self.now_us));
                }
            }
            What::Change { asked } => {
                let asked = *asked;
                self.change_failed(asked, why);
            }
            What::Operation { .. } | What::Transfer | What::Vote { .. } => {}
        }
        self.settle_failed(at, ticket);
    }

    /// A request is answered: once, at the member that it was put to.
    pub fn settle(&mut self, at: usize, ticket: Ticket) {
        if let What::Audit { done, .. } = &mut self.requests[ticket.0].what {
            *done = Some(true);
        }
        self.settle_failed(at, ticket);
    }

    fn settle_failed(&mut self, at: usize, ticket: Ticket) {
        let request = &mut self.requests[ticket.0];
        assert!(!request.answered, "{request:?} is answered twice");
        assert_eq!(request.at, at, "{request:?} is answered by somebody else");
        request.answered = true;
        assert!(self.process(at).open.remove(&ticket), "{ticket:?} was not open");
    }

    /// The member that was asked is gone.
    pub fn orphan(&mut self, ticket: Ticket) {
        match &mut self.requests[ticket.0].what {
            What::Operation { client, waits: true, .. } => {
                let client = *client;
                self.move_on(client);
            }
            What::Audit { done, .. } => *done = Some(false),
            What::Change { asked } => {
                let asked = *asked;
                self.change_ended(asked);
            }
            What::Operation { .. } | What::Transfer | What::Vote { .. } => {}
        }
    }

    /// A client stops waiting: what became of its request it will never know.
    pub fn give_up(&mut self, client: usize, ticket: Ticket) {
        if self.clients[client].waiting != Some(ticket) {
            return;
        }
        self.stats.given_up += 1;
        self.move_on(client);
    }

    /// A client turns to another member.
    fn move_on(&mut self, client: usize) {
        let mut homes = self.homes();
        let mind = &mut self.clients[client];
        if let Some(ticket) = mind.waiting.take()
            && let What::Operation { waits, .. } = &mut self.requests[ticket.0].what
        {
            *waits = false;
        }
        homes.retain(|home| *home != mind.home);
        if !homes.is_empty() {
            mind.home = homes[self.workload_rng.below(homes.len() as u64) as usize];
        }
        let at_us = self.now_us + self.workload_rng.around(RETRY_US) + 1;
        self.queue.push(at_us, SimEvent::Wake { client });
    }

    /// A client goes on with its burst, or rests.
    fn go_on(&mut self, client: usize) {
        let workload = self.plan.workload;
        let mind = &mut self.clients[client];
        mind.waiting = None;
        mind.burst -= 1;
        let rest_us = if mind.burst == 0 { workload.pause_us } else { workload.think_us };
        let at_us = self.now_us + self.workload_rng.around(rest_us) + 1;
        self.queue.push(at_us, SimEvent::Wake { client });
    }

    /// What a client asks next.
    fn think(&mut self, client: usize) -> Asked {
        let freshness = if self.workload_rng.one_in(5) {
            Freshness::Serializable
        } else {
            Freshness::Linearizable
        };
        if self.workload_rng.below(100) < self.plan.workload.reads {
            if self.workload_rng.one_in(10) {
                let success = vec![
                    RequestOp::Range(self.range(client)),
                    RequestOp::Range(self.range(client)),
                ];
                let compare = vec![self.compare(client)];
                let failure = vec![RequestOp::Range(self.range(client))];
                return Asked::ReadTxn(TxnRequest { compare, success, failure }, freshness);
            }
            return Asked::Range(self.range(client), freshness);
        }
        Asked::Write(match self.workload_rng.below(20) {
            0..=9 => Command::Put(self.put(client)),
            10..=11 => Command::DeleteRange(self.delete(client)),
            12..=18 => self.txn(client),
            _ => {
                let back = self.workload_rng.below(30).cast_signed();
                let revision = self.clients[client].revision - back;
                Command::Compact(CompactionRequest { revision: revision.max(1) })
            }
        })
    }

    fn key(&mut self) -> Bytes {
        let number = self.workload_rng.below(self.plan.workload.keys);
        Bytes::from(format!("k{number}"))
    }

    fn put(&mut self, client: usize) -> PutRequest {
        self.clients[client].written += 1;
        let mut value = format!("{client}-{}-", self.clients[client].written).into_bytes();
        let length = self.workload_rng.below(self.plan.workload.value_bytes) as usize;
        value.resize(value.len().max(length), b'.');
        let (key, prev_kv) = (self.key(), self.workload_rng.one_in(2));
        PutRequest { key, value: value.into(), prev_kv, ..PutRequest::default() }
    }

    fn delete(&mut self, _: usize) -> DeleteRangeRequest {
        let key = self.key();
        let range_end =
            if self.workload_rng.one_in(4) { Bytes::from_static(b"k9") } else { Bytes::new() };
        DeleteRangeRequest { key, range_end, prev_kv: self.workload_rng.one_in(2) }
    }

    fn range(&mut self, client: usize) -> RangeRequest {
        let mut range = RangeRequest { key: self.key(), ..RangeRequest::default() };
        if self.workload_rng.one_in(4) {
            range.key = Bytes::from_static(b"k");
            range.range_end = Bytes::from_static(b"l");
            range.limit = self.workload_rng.below(5).cast_signed();
        }
        if self.workload_rng.one_in(10) {
            let back = self.workload_rng.below(20).cast_signed() - 2;
            range.revision = (self.clients[client].revision - back).max(0);
        }
        range
    }

    fn compare(&mut self, client: usize) -> Compare {
        let revision = self.clients[client].revision - self.workload_rng.below(10).cast_signed();
        let target = if self.workload_rng.one_in(4) {
            CompareTarget::Version(self.workload_rng.below(3).cast_signed())
        } else {
            CompareTarget::Mod(revision)
        };
        let result =
            if self.workload_rng.one_in(2) { CompareResult::Less } else { CompareResult::Greater };
        Compare { key: self.key(), range_end: Bytes::new(), result, target }
    }

    fn txn(&mut self, client: usize) -> Command {
        let compare = vec![self.compare(client)];
        let mut first = self.put(client);
        let mut second = self.put(client);
        (first.prev_kv, second.prev_kv) = (true, false);
        let mut success = vec![RequestOp::Put(first.clone())];
        if second.key != first.key {
            success.push(RequestOp::Put(second));
        }
        let failure =
            vec![RequestOp::Range(RangeRequest { key: first.key, ..RangeRequest::default() })];
        Command::Txn(TxnRequest { compare, success, failure })
    }

    /// A vote that was given through a door is on disk, and was not given to anybody else.
    pub fn check_vote(&mut self, at: usize, ticket: Ticket, granted: bool) {
        let What::Vote { candidate, term } = self.requests[ticket.0].what else {
            unreachable!("a vote answers who asked for one")
        };
        let disk = self.checker.durable_vote(at);
        let named = disk.term > term || disk.vote == Some(self.members[candidate].id);
        assert!(!granted || named, "member {at} says it gave a vote that its disk does not have");
    }
}
