//! A counterexample, told so that a person can follow it.

use std::fmt::Write as _;

use raft_node::raft::{Body, Entry, EntryId, HardState, Message, NodeId, Payload};
use raft_node::testpoints::{self, Mutant};

use crate::bounds::Rules;
use crate::intern::Lab;
use crate::search::Counterexample;
use crate::server::Server;
use crate::setup;
use crate::system_state::{Action, SystemState};

/// What happened, step by step; how it stood before the last step; and what that broke.
pub fn tell(rules: &Rules, example: &Counterexample) -> String {
    tell_of(rules, example, None)
}

/// The same, of a deliberate bug.
pub fn tell_of(rules: &Rules, example: &Counterexample, mutant: Option<Mutant>) -> String {
    testpoints::set_mutant(mutant);
    let text = retrace(rules, example);
    testpoints::set_mutant(None);
    text
}

fn retrace(rules: &Rules, example: &Counterexample) -> String {
    let lab = Lab::new(rules.clone());
    let mut text = String::new();
    let _ = writeln!(text, "opening: {:?}", rules.opening);
    if let Ok(mut world) = setup::play(&lab) {
        for (step, action) in example.actions.iter().enumerate() {
            let _ = writeln!(text, "{:3}. {}", step + 1, describe(&world, *action));
            match world.after(*action, &lab) {
                Ok(Some((next, _))) => world = next,
                Ok(None) | Err(_) => break,
            }
        }
        let _ = write!(text, "before the last step:\n{}", picture(&world));
    }
    let _ = writeln!(text, "broken: {}", example.violation.property);
    let _ = writeln!(text, "  {}", example.violation.detail);
    text
}

/// Where a search starts.
pub fn tell_opening(rules: &Rules) -> String {
    match setup::play(&Lab::new(rules.clone())) {
        Ok(world) => format!("after {:?}\n{}", rules.opening, picture(&world)),
        Err(violation) => format!("{violation:?}"),
    }
}

fn picture(world: &SystemState) -> String {
    let servers = world.servers.iter().map(|part| server(&part.server));
    let flying = world.net.iter().map(|packet| format!("in flight: {}", message(&packet.message)));
    servers.chain(flying).fold(String::new(), |text, line| text + "  " + &line + "\n")
}

fn describe(world: &SystemState, action: Action) -> String {
    let flying = |at: u8| message(&world.net[usize::from(at)].message);
    let one = |at: u8| at + 1;
    match action {
        Action::Deliver(at) => format!("arrives: {}", flying(at)),
        Action::Duplicate(at) => format!("arrives, and will again: {}", flying(at)),
        Action::Drop(at) => format!("is lost: {}", flying(at)),
        Action::Timeout(at) => format!("{}: election timeout", one(at)),
        Action::Tick(at) => format!("{}: tick", one(at)),
        Action::Heartbeat(at) => format!("{}: heartbeat", one(at)),
        Action::Silence(at) => format!("{}: hears no quorum for too long", one(at)),
        Action::PreVote(at, with) => format!("{} has pre-votes of {}", one(at), set(with)),
        Action::Elect(at, with) => format!("{} leads by votes of {}", one(at), set(with)),
        Action::Propose(at) => format!("{}: proposal", one(at)),
        Action::Read(at) => format!("{}: read", one(at)),
        Action::DiskDone(at) => format!("{}: a write is durable", one(at)),
        Action::Crash(at, done) => {
            format!("{}: crash and restart, with {done} writes done", one(at))
        }
        Action::LinkLost(at, peer) => format!("{}: connection to {} broke", one(at), one(peer)),
        Action::Transfer(at, to) => format!("{}: hand over to {}", one(at), one(to)),
        Action::Change(at, wish) => format!("{}: wish {wish} of the membership", one(at)),
        Action::Compact(at) => format!("{}: snapshot, log forgotten", one(at)),
    }
}

fn set(bits: u8) -> String {
    let ids = (0..8).filter(|at| bits & 1 << at != 0).map(|at| (at + 1).to_string());
    ids.collect::<Vec<_>>().join(" and ")
}

fn message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let body = match body {
        Body::Append { prev, entries, commit } => {
            format!("append after {prev} {} commit {commit}", log(entries))
        }
        other => format!("{other:?}"),
    };
    format!("{from} to {to} in term {term}: {body}")
}

fn server(server: &Server) -> String {
    let Server { id, node, durable, planned, writes, .. } = server;
    let vote = node.status().vote.map(NodeId::get);
    let HardState { term, vote: voted, commit } = durable.hard_state;
    let memory = format!("after {} {}", planned.base.last, log(&planned.entries));
    let disk = format!("after {} {}", durable.base.last, log(&durable.entries));
    format!(
        "{id}: {:?} of term {}, vote {vote:?}, log {memory}, commit {}\n     \
         on disk term {term}, vote {:?}, log {disk}, commit {commit}, {} writes under way",
        node.role(),
        node.term(),
        node.committed(),
        voted.map(NodeId::get),
        writes.len(),
    )
}

fn log(entries: &[Entry]) -> String {
    let one = |entry: &Entry| {
        let EntryId { term, index } = entry.id;
        let what = match &entry.payload {
            Payload::Noop => String::new(),
            Payload::Command(proposal) => {
                format!(" request {} of {}", proposal.id.sequence, proposal.id.origin)
            }
            Payload::Config(config) => format!(" {:?}", config.members()),
        };
        format!("{index}@{term}{what}")
    };
    format!("[{}]", entries.iter().map(one).collect::<Vec<_>>().join(", "))
}
