//! The links between members: they are slow, lose, repeat, overtake, garble and break.
//!
//! Two members have two connections, one dialled by either, and a port may refuse all that are
//! dialled to it. Which of the two a message takes is decided by the production code.
//!
//! A connection has an epoch: what was under way when it broke never arrives. A garbled frame never
//! reaches a core: its checksum says so, and the connection breaks.

use raft_node::node::Event;
use raft_node::raft::{Body, Message};
use raft_node::transport::route::{Dialled, Kind};
use raft_node::transport::testing;

use crate::simulator::{CLUSTER, SimEvent, Simulator};

/// One direction of one link.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// How many faults cut it.
    pub cuts: u32,
    /// How much slower it is.
    pub slow_us: u64,
    /// Which connection stands.
    pub epoch: u32,
    /// When the last message on it arrives.
    last_us: u64,
}

/// The connection that one member dialled to another.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// How many faults keep it from being dialled. It stands where there is none.
    refused: u32,
    /// It broke, and who was dialled has not noticed.
    unnoticed: bool,
    /// Counts breakages.
    epoch: u32,
}

/// How a message travels.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// Who dialled the connection.
    dialler: usize,
    /// The connection's epoch.
    connection: u32,
    /// The link's epoch.
    link: u32,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Network {
    members: usize,
    links: Vec<Link>,
    /// By who dialled whom.
    connections: Vec<Connection>,
    /// On whose connection a member last heard a peer.
    heard: Vec<Dialled>,
}

impl Network {
    /// All links of so many members, in order.
    pub fn new(members: usize) -> Self {
        let pairs = members * members;
        Self {
            members,
            links: vec![Link::default(); pairs],
            connections: vec![Connection::default(); pairs],
            heard: vec![Dialled::There; pairs],
        }
    }

    /// The link from one to another.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.members + to]
    }

    /// Whether a message can pass.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.links[from * self.members + to].cuts == 0
    }

    fn connection(&mut self, by: usize, to: usize) -> &mut Connection {
        &mut self.connections[by * self.members + to]
    }

    /// Whether `by` cannot reach `to` by a connection of its own.
    pub fn refuses(&self, by: usize, to: usize) -> bool {
        self.connections[by * self.members + to].refused > 0
    }

    /// Whether a connection with `peer` seems to stand, as `at` sees it.
    fn seems_open(&self, at: usize, peer: usize, dialled: Dialled) -> bool {
        match dialled {
            Dialled::Here => !self.refuses(at, peer),
            Dialled::There => {
                !self.refuses(peer, at) || self.connections[peer * self.members + at].unnoticed
            }
        }
    }

    /// The connection that a message takes: by the one who dialled it.
    fn dialler(&self, from: usize, to: usize, body: &Body) -> Option<usize> {
        let Some(kind) = Kind::of(body) else { return Some(from) };
        let heard = self.heard[from * self.members + to];
        let way = kind.choose(heard, |way| self.seems_open(from, to, way.dialled))?;
        Some(match way.dialled {
            Dialled::Here => from,
            Dialled::There => to,
        })
    }

    /// A process ended, and what it knew of its connections with it.
    pub fn forget(&mut self, at: usize) {
        for peer in 0..self.members {
            self.connection(peer, at).unnoticed = false;
            self.heard[at * self.members + peer] = Dialled::There;
        }
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        for connection in &mut self.connections {
            connection.refused = 0;
            connection.unnoticed = false;
        }
        for link in &mut self.links {
            link.cuts = 0;
            link.slow_us = 0;
        }
    }
}

impl Simulator {
    /// Sends a message, which may get lost.
    pub fn send(&mut self, message: Message) {
        let (from, to) = (Self::place(message.from), Self::place(message.to));
        let plan = self.plan.links;
        if !self.reaches(&message) {
            self.stats.strangers += 1;
            return;
        }
        self.stats.messages += 1;
        if let Body::Append { .. } | Body::Heartbeat { .. } = message.body {
            self.members[from].led = message.term;
        }
        if !self.network.passes(from, to) {
            self.stats.cut += 1;
            return;
        }
        if self.members[to].process.is_some() {
            self.notice_reached(from, to);
        }
        if !self.healed {
            if self.rng.per_million(plan.lose) {
                self.stats.lost += 1;
                return;
            }
            if self.rng.per_million(plan.corrupt) {
                self.garble(from, to, message);
                return;
            }
            if self.rng.per_million(plan.duplicate) {
                self.stats.duplicated += 1;
                self.convey(from, to, message.clone());
            }
        }
        if self.rng.per_million(plan.encode) {
            let copy = testing::carry(CLUSTER, message.clone(), |_| {});
            assert_eq!(copy.as_ref(), Ok(&message), "a message is not what the wire made of it");
            self.stats.encoded += 1;
        }
        self.convey(from, to, message);
    }

    fn convey(&mut self, from: usize, to: usize, message: Message) {
        let plan = self.plan.links;
        let jitter_us = self.rng.around(plan.jitter_us);
        let now_us = self.now_us;
        let link = self.network.link(from, to);
        let mut at_us = now_us + plan.latency_us + link.slow_us + jitter_us;
        if at_us < link.last_us {
            if plan.reorder {
                self.stats.reordered += 1;
            } else {
                at_us = link.last_us;
            }
        }
        link.last_us = link.last_us.max(at_us);
        let link = link.epoch;
        let Some(dialler) = self.network.dialler(from, to, &message.body) else {
            self.stats.cut += 1;
            return;
        };
        if dialler == to {
            self.stats.sent_back += 1;
        }
        let connection = self.network.connection(dialler, from + to - dialler).epoch;
        let passage = Passage { dialler, connection, link };
        self.queue.push(at_us, SimEvent::Arrive { message, passage });
    }

    /// Some bits of a frame turn over on its way.
    fn garble(&mut self, from: usize, to: usize, message: Message) {
        let mut bits = [self.rng.next(), self.rng.next(), self.rng.next()];
        let count = self.rng.between(1, 3) as usize;
        let mut damaged = false;
        let read = testing::carry(CLUSTER, message, |bytes| {
            let whole = bytes.clone();
            for bit in &mut bits[..count] {
                let bit = *bit as usize % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            damaged = *bytes != whole;
        });
        assert!(read.is_err() || !damaged, "a damaged frame was read as {read:?}");
        self.stats.corrupted += 1;
        self.stats.refused += u64::from(read.is_err());
        self.disconnect(from, to);
    }

    /// The connections between two break, and both notice.
    pub fn disconnect(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.network.link(from, to).epoch += 1;
            self.tell_loss(to, from);
        }
    }

    /// Lets a member notice soon that its connection with `peer` broke.
    pub fn tell_loss(&mut self, at: usize, peer: usize) {
        let at_us = self.now_us + self.plan.links.latency_us + self.rng.below(3000);
        let life = self.members[at].life;
        self.queue.push(at_us, SimEvent::Lost { at, life, peer });
    }

    /// From now on nobody can dial `at`, and what others dialled breaks. They notice at once, `at`
    /// when it has heard nothing for a while.
    pub fn refuse(&mut self, at: usize) {
        for peer in (0..self.members.len()).filter(|peer| *peer != at) {
            let connection = self.network.connection(peer, at);
            connection.refused += 1;
            connection.epoch += 1;
            connection.unnoticed = true;
            let epoch = connection.epoch;
            if self.network.refuses(at, peer) {
                self.tell_loss(peer, at);
            }
            let at_us = self.now_us + self.plan.links.keepalive_us;
            self.queue.push(at_us, SimEvent::Unheard { at, peer, epoch });
        }
    }

    /// `at` has heard nothing for so long on a connection that broke.
    pub fn notice_breakage(&mut self, at: usize, peer: usize, epoch: u32) {
        let connection = self.network.connection(peer, at);
        if connection.epoch == epoch && std::mem::take(&mut connection.unnoticed) {
            let lost = self.network.refuses(at, peer);
            if lost {
                self.tell_loss(at, peer);
            }
        }
    }

    /// One fault less keeps others from dialling `at`.
    pub fn accept(&mut self, at: usize) {
        for peer in (0..self.members.len()).filter(|peer| *peer != at) {
            let connection = self.network.connection(peer, at);
            connection.refused = connection.refused.saturating_sub(1);
            let stands = connection.refused == 0;
            // Whoever is dialled anew knows that the connection before broke.
            if stands && std::mem::take(&mut connection.unnoticed) {
                self.tell_loss(at, peer);
            }
        }
    }

    /// Lets both ends look after a while whether they still hear each other.
    pub fn doubt(&mut self, at: usize, peer: usize) {
        let at_us = self.now_us + self.plan.links.keepalive_us + self.rng.below(100_000);
        let peer_life = self.members[peer].life;
        self.queue.push(at_us, SimEvent::Silence { at, peer, peer_life });
    }

    /// A message arrives, if its connection still stands.
    pub fn arrive(&mut self, message: Message, passage: Passage) {
        let (from, to) = (Self::place(message.from), Self::place(message.to));
        let dialled = from + to - passage.dialler;
        let connection = self.network.connection(passage.dialler, dialled).epoch;
        let passes = self.network.passes(from, to)
            && self.network.link(from, to).epoch == passage.link
            && connection == passage.connection
            && !self.network.refuses(passage.dialler, dialled);
        if !passes || self.members[to].process.is_none() {
            self.stats.cut += 1;
            return;
        }
        if !self.lets_in(to, from) {
            self.stats.strangers += 1;
            return;
        }
        let place = to * self.members.len() + from;
        self.network.heard[place] =
            if passage.dialler == to { Dialled::Here } else { Dialled::There };
        self.trace(2, to, message.term.0);
        self.tell(|| format!("{from} to {to}, in {}: {:?}", message.term, message.body));
        self.give(to, Event::Message(message));
    }

    /// A member learns that a connection broke.
    pub fn notice_loss(&mut self, at: usize, life: u32, peer: usize) {
        if self.lives(at, life) {
            self.trace(3, at, peer as u64);
            self.give(at, Event::PeerLost(self.members[peer].id));
        }
    }

    /// A keepalive ran out, unless the peer is there and heard. What a process dialled that ended
    /// since breaks; the connections of the one that came after it stand.
    pub fn notice_silence(&mut self, at: usize, peer: usize, peer_life: u32) {
        let lives = self.lives(peer, peer_life);
        if lives && self.network.passes(at, peer) && self.network.passes(peer, at) {
            return;
        }
        self.tell_loss(at, peer);
        if lives {
            self.network.link(peer, at).epoch += 1;
            // Nothing tells the peer but its own keepalive.
            let at_us = self.now_us + self.plan.links.keepalive_us + self.rng.below(100_000);
            let lost = SimEvent::Lost { at: peer, life: peer_life, peer: at };
            self.queue.push(at_us, lost);
        }
    }
}
