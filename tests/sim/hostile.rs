//! Worlds with a host on their network that is no member, and says whatever it likes to whom it
//! likes. It knows the cluster, and what any observer could: terms, who leads, how long logs are.
//!
//! Where the channel says who dials, it speaks under an id of its own, thousands of times: nothing
//! may come of it, also while the leader is away and another is elected. Where the channel does
//! not, it says one thing in the name of a member: the cluster may lose a moment, and no more. A
//! lie about a log, a disk or a request is not among those: see ADR 11.

use std::panic::{AssertUnwindSafe, catch_unwind};

use libtest_mimic::Failed;

use raft_node::node::Event;
use raft_node::proof::{self, Mutant};
use raft_node::raft::{
    Body, Configuration, Entry, EntryId, Index, Message, NodeId, Payload, Proposal, Refusal,
    RequestId, SnapshotMeta, Term,
};
use raft_node::transport::testing;

use crate::chance::Chance;
use crate::hosts;
use crate::plan::Plan;
use crate::world::{CLUSTER, World};

const SEEDS: u64 = 6;

/// A leader has long been elected.
const BEGIN_US: u64 = 5_000_000;
/// How long the host speaks, and how often.
const SPEAKS_US: u64 = 30_000_000;
const EVERY_US: u64 = 5000;
/// By then a cluster that was disturbed once works again.
const RECOVERY_US: u64 = 10_000_000;

/// No single message may take a term beyond that.
const TERM_MAX: Term = Term(1 << 40);

fn stranger() -> NodeId {
    NodeId::new(99).expect("positive")
}

fn world(seed: u64) -> World {
    let mut world = World::new(Plan { decisions: Vec::new(), ..hosts::plan(seed) }, false);
    world.run_until(BEGIN_US);
    world
}

/// The trial: under its own id, all the time.
pub fn a_host_that_is_no_member_moves_nothing() -> Result<(), Failed> {
    for seed in 0..SEEDS {
        let mut world = world(seed);
        let mut chance = Chance::new(seed, 77);
        let before = (world.leader(), world.checker.elections);
        harass(&mut world, &mut chance);
        if (world.leader(), world.checker.elections) != before {
            return Err(format!("seed {seed}: an election, for the word of a stranger").into());
        }
        let old = world.leader().ok_or("nobody leads")?;
        world.members[old].paused_until_us = Some(u64::MAX);
        harass(&mut world, &mut chance);
        if world.leader().is_none_or(|leader| leader == old) {
            return Err(format!("seed {seed}: a stranger kept the others from a leader").into());
        }
        world.resume(old);
        world.run_until(world.now_us + RECOVERY_US);
        works(&world, seed)?;
        world.judge();
    }
    Ok(())
}

/// The trial: one message in the name of a member.
pub fn one_forged_message_does_no_lasting_harm() -> Result<(), Failed> {
    for seed in 0..10 * SEEDS {
        let mut world = world(seed % SEEDS);
        let mut chance = Chance::new(seed, 78);
        let from = World::id(chance.below(3) as usize);
        let at = (World::place(from) + 1 + chance.below(2) as usize) % 3;
        let forged = loop {
            let forged = forge(&world, &mut chance, from, at);
            let lies = matches!(
                forged.body,
                Body::Append { .. }
                    | Body::InstallSnapshot { .. }
                    | Body::Appended { .. }
                    | Body::HeartbeatReply { .. }
                    | Body::Refused { .. }
                    | Body::ReadIndexReply { .. }
                    | Body::Propose { .. }
            );
            if !lies {
                break forged;
            }
        };
        say(&mut world, at, forged);
        world.run_until(world.now_us + RECOVERY_US);
        works(&world, seed)?;
        world.judge();
    }
    Ok(())
}

/// The trial: both of the above see the bugs that they are for.
pub fn a_cluster_that_believes_strangers_or_any_term_is_found_out() -> Result<(), Failed> {
    type Judge = fn() -> Result<(), Failed>;
    let judged: [(Mutant, Judge); 2] = [
        (Mutant::StrangerFollowed, a_host_that_is_no_member_moves_nothing),
        (Mutant::TermUnbounded, one_forged_message_does_no_lasting_harm),
    ];
    for (mutant, trial) in judged {
        proof::set_mutant(Some(mutant));
        // What the members assert of themselves counts too.
        let outcome = catch_unwind(AssertUnwindSafe(trial));
        proof::set_mutant(None);
        if matches!(outcome, Ok(Ok(()))) {
            return Err(format!("{} survives", mutant.name()).into());
        }
    }
    Ok(())
}

/// One leads, in a term that leaves room, and the others follow it.
fn works(world: &World, seed: u64) -> Result<(), Failed> {
    let leader = world.leader().ok_or_else(|| format!("seed {seed}: nobody leads"))?;
    let id = World::id(leader);
    for (at, process) in world.up() {
        let raft = process.replica.raft();
        if raft.leader() != Some(id) || raft.term() > TERM_MAX {
            let (term, leader) = (raft.term(), raft.leader());
            return Err(format!("seed {seed}: {at} is in {term} under {leader:?}").into());
        }
    }
    Ok(())
}

fn harass(world: &mut World, chance: &mut Chance) {
    let until_us = world.now_us + SPEAKS_US;
    while world.now_us < until_us {
        let at = chance.below(3) as usize;
        if world.members[at].paused_until_us.is_none() {
            let message = forge(world, chance, stranger(), at);
            say(world, at, message);
        }
        world.run_until(world.now_us + 1 + chance.below(2 * EVERY_US));
    }
}

/// Past the gate of the transport, if it lets it pass.
fn say(world: &mut World, at: usize, message: Message) {
    if let Ok(message) = testing::carry(CLUSTER, message, |_| {}) {
        world.give(at, Event::Message(message));
    }
}

/// Something that looks right to `at`, more or less.
fn forge(world: &World, chance: &mut Chance, from: NodeId, at: usize) -> Message {
    let process = world.members[at].process.as_ref().expect("nothing fails here");
    let raft = process.replica.raft();
    let own = raft.term().0;
    let term = chance.pick(&[own, own + 1, own + 1, own + (1 << 33), 1 << 62, 0]);
    let last = raft.last_index();
    let index = chance.pick(&[last, last.next(), Index(0), Index(1 << 62)]);
    let body = forge_body(chance, from, own, last, index);
    Message { from, to: World::id(at), term: Term(term), body }
}

fn forge_body(chance: &mut Chance, from: NodeId, own: u64, last: Index, index: Index) -> Body {
    let (yes, pre_vote) = (chance.one_in(2), chance.one_in(2));
    let id = RequestId { origin: from, sequence: chance.next() >> 1 };
    let config = Configuration::of_voters([from]);
    let place = |index: Index| EntryId { term: Term(own.min(index.0)), index };
    match chance.below(15) {
        0 | 1 => Body::RequestVote { last: place(index), pre_vote, transfer: yes },
        2 => Body::Vote { granted: yes, pre_vote },
        3 => {
            let id = EntryId { term: Term(own), index: last.next() };
            let entries = vec![Entry { id, payload: Payload::Config(config) }];
            Body::Append { prev: place(last), entries, commit: index }
        }
        4 => Body::Appended { last: index },
        5 => Body::Rejected { prev: index, hint: EntryId::default() },
        6 => Body::Heartbeat {
            commit: index,
            round: chance.below(9),
            successor: yes.then_some(from),
        },
        7 => Body::HeartbeatReply { round: chance.next() },
        8 => Body::InstallSnapshot { meta: SnapshotMeta { last: place(index.next()), config } },
        9 => Body::TimeoutNow,
        10 => Body::Propose { proposals: vec![Proposal { id, data: b"poison".as_slice().into() }] },
        11 => Body::ReadIndex { id },
        12 => Body::Members { ids: vec![stranger()] },
        13 => Body::Removed { pre_vote },
        _ => Body::Refused { ids: vec![id], why: Refusal::NotLeader },
    }
}
