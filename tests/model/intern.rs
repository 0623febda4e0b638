//! Parts of worlds, each held once, with what they do when something happens to them.
//!
//! Millions of worlds are made of a few thousand different servers and messages. A world holds
//! references to them; their fingerprints under every renaming are taken once; and so is what a
//! server does with an input, since that depends on nothing else.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};

use raft_node::raft::Message;
use raft_node::raft::canonical::Words;

use crate::bounds::{Rules, Wish};
use crate::fingerprint::{self, Fingerprint, Table};
use crate::server::{Checked, Event, Input, Reaction, Server, Violation, react};

const SHARDS: usize = 64;

/// So many remembered reactions per shard; then all of them are forgotten.
const REMEMBERED_MAX: usize = 100_000;

/// A table that two threads share.
pub struct Sharded<T>(Vec<Mutex<T>>);

impl<T: Default> Sharded<T> {
    pub fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(T::default())).collect())
    }

    pub fn with<R>(&self, key: Fingerprint, work: impl FnOnce(&mut T) -> R) -> R {
        let shard = &self.0[(key >> 96) as usize % SHARDS];
        work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A server, and its fingerprint under each renaming.
pub struct Part {
    pub server: Server,
    pub prints: Vec<Fingerprint>,
}

/// A message in flight, and its fingerprint under each renaming.
#[derive(Debug)]
pub struct Packet {
    pub message: Message,
    pub prints: Vec<Fingerprint>,
}

/// What a server did with an input.
pub struct Done {
    pub part: Arc<Part>,
    pub sent: Vec<Arc<Packet>>,
    pub events: Vec<Event>,
}

type Outcome = Checked<Option<Arc<Done>>>;

pub struct Lab {
    pub rules: Rules,
    parts: Sharded<Table<Arc<Part>>>,
    packets: Sharded<Table<Arc<Packet>>>,
    done: Sharded<Table<Outcome>>,
}

impl Lab {
    pub fn new(rules: Rules) -> Self {
        let (parts, packets, done) = (Sharded::new(), Sharded::new(), Sharded::new());
        Self { rules, parts, packets, done }
    }

    pub fn part(&self, server: Server) -> Arc<Part> {
        let print = |names| server.fingerprint(names, &self.rules);
        let key = print(&self.rules.names[0]);
        if let Some(part) = self.parts.with(key, |parts| parts.get(&key).cloned()) {
            return part;
        }
        let prints = self.rules.names.iter().map(print).collect();
        let part = Arc::new(Part { server, prints });
        self.parts.with(key, |parts| parts.entry(key).or_insert(part).clone())
    }

    pub fn packet(&self, message: Message) -> Arc<Packet> {
        let print = |names| {
            let mut words = Words::new(names, self.rules.ticks);
            words.message(&message);
            fingerprint::of(words.list())
        };
        let key = print(&self.rules.names[0]);
        if let Some(packet) = self.packets.with(key, |packets| packets.get(&key).cloned()) {
            return packet;
        }
        let prints = self.rules.names.iter().map(print).collect();
        let packet = Arc::new(Packet { message, prints });
        self.packets.with(key, |packets| packets.entry(key).or_insert(packet).clone())
    }

    /// What `part` does with `input`. A panic is a violation like any other.
    pub fn react(&self, part: &Part, input: &Input) -> Outcome {
        let key = part.prints[0] ^ self.input_print(input);
        if let Some(outcome) = self.done.with(key, |done| done.get(&key).cloned()) {
            return outcome;
        }
        let outcome = quietly(|| react(&part.server, input, &self.rules)).map(|reaction| {
            reaction.map(|Reaction { server, sent, events }| {
                let sent = sent.into_iter().map(|message| self.packet(message)).collect();
                Arc::new(Done { part: self.part(server), sent, events })
            })
        });
        self.done.with(key, |done| {
            if done.len() >= REMEMBERED_MAX {
                done.clear();
            }
            done.insert(key, outcome.clone());
        });
        outcome
    }

    fn input_print(&self, input: &Input) -> Fingerprint {
        let mut words = Words::new(&self.rules.names[0], self.rules.ticks);
        match input {
            Input::Message(message) => {
                words.number(0);
                words.message(message);
            }
            Input::Timeout => words.number(1),
            Input::Tick => words.number(2),
            Input::Heartbeat => words.number(3),
            Input::Silence => words.number(4),
            Input::Propose => words.number(5),
            Input::Read => words.number(6),
            Input::DiskDone => words.number(7),
            Input::Crash(done) => {
                words.number(8);
                words.number(*done as u64);
            }
            Input::LinkLost(peer) => {
                words.number(9);
                words.member(*peer);
            }
            Input::Transfer(to) => {
                words.number(10);
                words.member(*to);
            }
            Input::Change(wish) => {
                words.number(13);
                let (kind, who) = match wish {
                    Wish::Add(who) => (0, who),
                    Wish::Promote(who) => (1, who),
                    Wish::Remove(who) => (2, who),
                };
                words.number(kind);
                words.number(*who);
            }
            Input::Compact => words.number(11),
            Input::SnapshotSent { to, ok, upto } => {
                words.number(12);
                words.member(*to);
                words.number(u64::from(*ok));
                words.number(upto.0);
            }
        }
        fingerprint::of(words.list())
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the core, whose assertions are properties: what a panic says is kept, not printed.
fn quietly<T>(work: impl FnOnce() -> Checked<T>) -> Checked<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if QUIET.get() {
                SAID.set(panic.to_string());
            } else {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.unwrap_or_else(|_| {
        Err(Violation { property: "the core's own assertions hold", detail: SAID.take() })
    })
}
