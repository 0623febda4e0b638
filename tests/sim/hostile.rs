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
use raft_node::raft::{
    Body, Configuration, Entry, EntryId, Index, Message, NodeId, Payload, Proposal, Refusal,
    RequestId, SnapshotMeta, Term,
};
use raft_node::testpoints::{self, Mutant};
use raft_node::transport::testing;

use crate::hosts;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::simulator::{CLUSTER, Simulator};

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

fn simulator(seed: u64) -> Simulator {
    let mut simulator = Simulator::new(Plan { decisions: Vec::new(), ..hosts::plan(seed) }, false);
    simulator.run_until(BEGIN_US);
    simulator
}

/// The trial: under its own id, all the time.
pub fn a_host_that_is_no_member_moves_nothing() -> Result<(), Failed> {
    for seed in 0..SEEDS {
        let mut simulator = simulator(seed);
        let mut rng = Rng::new(seed, 77);
        let before = (simulator.leader(), simulator.checker.elections);
        harass(&mut simulator, &mut rng);
        if (simulator.leader(), simulator.checker.elections) != before {
            return Err(format!("seed {seed}: an election, for the word of a stranger").into());
        }
        let old = simulator.leader().ok_or("nobody leads")?;
        simulator.members[old].paused_until_us = Some(u64::MAX);
        harass(&mut simulator, &mut rng);
        if simulator.leader().is_none_or(|leader| leader == old) {
            return Err(format!("seed {seed}: a stranger kept the others from a leader").into());
        }
        simulator.resume(old);
        simulator.run_until(simulator.now_us + RECOVERY_US);
        works(&simulator, seed)?;
        simulator.judge();
    }
    Ok(())
}

/// The trial: one message in the name of a member.
pub fn one_forged_message_does_no_lasting_harm() -> Result<(), Failed> {
    for seed in 0..10 * SEEDS {
        let mut simulator = simulator(seed % SEEDS);
        let mut rng = Rng::new(seed, 78);
        let from = Simulator::id(rng.below(3) as usize);
        let at = (Simulator::place(from) + 1 + rng.below(2) as usize) % 3;
        let forged = loop {
            let forged = forge(&simulator, &mut rng, from, at);
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
        say(&mut simulator, at, forged);
        simulator.run_until(simulator.now_us + RECOVERY_US);
        works(&simulator, seed)?;
        simulator.judge();
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
        testpoints::set_mutant(Some(mutant));
        // What the members assert of themselves counts too.
        let outcome = catch_unwind(AssertUnwindSafe(trial));
        testpoints::set_mutant(None);
        if matches!(outcome, Ok(Ok(()))) {
            return Err(format!("{} survives", mutant.name()).into());
        }
    }
    Ok(())
}

/// One leads, in a term that leaves room, and the others follow it.
fn works(simulator: &Simulator, seed: u64) -> Result<(), Failed> {
    let leader = simulator.leader().ok_or_else(|| format!("seed {seed}: nobody leads"))?;
    let id = Simulator::id(leader);
    for (at, process) in simulator.up() {
        let raft = process.replica.raft();
        if raft.leader() != Some(id) || raft.term() > TERM_MAX {
            let (term, leader) = (raft.term(), raft.leader());
            return Err(format!("seed {seed}: {at} is in {term} under {leader:?}").into());
        }
    }
    Ok(())
}

fn harass(simulator: &mut Simulator, rng: &mut Rng) {
    let until_us = simulator.now_us + SPEAKS_US;
    while simulator.now_us < until_us {
        let at = rng.below(3) as usize;
        if simulator.members[at].paused_until_us.is_none() {
            let message = forge(simulator, rng, stranger(), at);
            say(simulator, at, message);
        }
        simulator.run_until(simulator.now_us + 1 + rng.below(2 * EVERY_US));
    }
}

/// Past the gate of the transport, if it lets it pass.
fn say(simulator: &mut Simulator, at: usize, message: Message) {
    if let Ok(message) = testing::carry(CLUSTER, message, |_| {}) {
        simulator.give(at, Event::Message(message));
    }
}

/// Something that looks right to `at`, more or less.
fn forge(simulator: &Simulator, rng: &mut Rng, from: NodeId, at: usize) -> Message {
    let process = simulator.members[at].process.as_ref().expect("nothing fails here");
    let raft = process.replica.raft();
    let own = raft.term().0;
    let term = rng.pick(&[own, own + 1, own + 1, own + (1 << 33), 1 << 62, 0]);
    let last = raft.last_index();
    let index = rng.pick(&[last, last.next(), Index(0), Index(1 << 62)]);
    let body = forge_body(rng, from, own, last, index);
    Message { from, to: Simulator::id(at), term: Term(term), body }
}

fn forge_body(rng: &mut Rng, from: NodeId, own: u64, last: Index, index: Index) -> Body {
    let (yes, pre_vote) = (rng.one_in(2), rng.one_in(2));
    let id = RequestId { origin: from, sequence: rng.next() >> 1 };
    let config = Configuration::of_voters([from]);
    let place = |index: Index| EntryId { term: Term(own.min(index.0)), index };
    match rng.below(15) {
        0 | 1 => Body::RequestVote { last: place(index), pre_vote, transfer: yes },
        2 => Body::Vote { granted: yes, pre_vote },
        3 => {
            let id = EntryId { term: Term(own), index: last.next() };
            let entries = vec![Entry { id, payload: Payload::Config(config) }];
            Body::Append { prev: place(last), entries, commit: index }
        }
        4 => Body::Appended { last: index },
        5 => Body::Rejected { prev: index, hint: EntryId::default() },
        6 => Body::Heartbeat { commit: index, round: rng.below(9), successor: yes.then_some(from) },
        7 => Body::HeartbeatReply { round: rng.next() },
        8 => Body::InstallSnapshot { meta: SnapshotMeta { last: place(index.next()), config } },
        9 => Body::TimeoutNow,
        10 => Body::Propose { proposals: vec![Proposal { id, data: b"poison".as_slice().into() }] },
        11 => Body::ReadIndex { id },
        12 => Body::Members { ids: vec![stranger()] },
        13 => Body::Removed { pre_vote },
        _ => Body::Refused { ids: vec![id], why: Refusal::NotLeader },
    }
}
