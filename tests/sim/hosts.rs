//! Worlds on hosts that are short of processor time: nothing fails, but every process stands still
//! again and again, each on its own, for longer than an election time-out now and then. The clocks
//! and time-outs are those of production.
//!
//! What is asked for: next to no elections while nobody is gone, and, once the hosts are calm, a
//! failover as fast as on hosts that always were.

use libtest_mimic::Failed;

use crate::faults::{Decision, Fault, Whom};
use crate::plan::{Cut, Length, Links, Plan};
use crate::rng::Rng;
use crate::simulator::Simulator;

/// The first leader has long been elected.
const BEGIN_US: u64 = 5_000_000;
/// How long the hosts are loaded.
const LOADED_US: u64 = 300_000_000;
/// Time-outs that were stretched are as configured again.
const CALM_US: u64 = 120_000_000;
/// The longest election time-out, a split vote, and the way of the messages.
const FAILOVER_US_MAX: u64 = 700_000;
/// In five minutes, three members.
const ELECTIONS_MAX: u64 = 3;

const SEEDS: u64 = 4;

/// A plan of three members with production's ticks and links of a good network.
pub fn plan(seed: u64) -> Plan {
    let drawn = Plan::draw(seed, Length::Short, &Cut::default());
    let mut sizes = drawn.sizes;
    sizes.cache_bytes = 1 << 20;
    sizes.snapshot_log_bytes = 1 << 30;
    Plan {
        members: 3,
        joiners: 0,
        voters_min: 3,
        faulty_us: LOADED_US,
        decisions: Vec::new(),
        tick_us: 5000,
        heartbeat_ticks: 10,
        election_ticks_min: 30,
        election_ticks_max: 60,
        sizes,
        links: Links {
            latency_us: 100,
            jitter_us: 200,
            reorder: false,
            lose: 0,
            duplicate: 0,
            corrupt: 0,
            encode: 0,
            keepalive_us: 3_000_000,
        },
        ..drawn
    }
}

/// When the processes stand still, and for how long. About one turn in forty is a long one.
fn pauses(seed: u64) -> Vec<Decision> {
    let mut rng = Rng::new(seed, 7);
    let mut decisions = Vec::new();
    for member in 0..3 {
        let mut at_us = BEGIN_US;
        while at_us < BEGIN_US + LOADED_US {
            at_us += 1000 + rng.around(15_000);
            let for_us = match rng.below(40) {
                0 => rng.between(100_000, 400_000),
                1..=5 => rng.between(40_000, 120_000),
                _ => rng.between(2000, 40_000),
            };
            let whom = Whom::Member(member);
            decisions.push(Decision { at_us, fault: Fault::Pause { whom, for_us } });
            at_us += for_us;
        }
    }
    decisions
}

/// How long the cluster is without a leader when its leader stands still.
fn failover_us(simulator: &mut Simulator) -> Result<u64, Failed> {
    let old = simulator.leader().ok_or("nobody leads")?;
    let from_us = simulator.now_us;
    simulator.members[old].paused_until_us = Some(u64::MAX);
    while simulator.leader() == Some(old) {
        simulator.run_until(simulator.now_us + 1000);
        if simulator.now_us > from_us + 20_000_000 {
            return Err("no failover".into());
        }
    }
    let took_us = simulator.now_us - from_us;
    simulator.resume(old);
    Ok(took_us)
}

/// The trial.
pub fn loaded_hosts_bear_their_leader_and_calm_ones_replace_it_as_fast_as_ever()
-> Result<(), Failed> {
    for seed in 0..SEEDS {
        let mut simulator = Simulator::new(Plan { decisions: pauses(seed), ..plan(seed) }, false);
        simulator.run_until(BEGIN_US);
        let before = simulator.checker.elections;
        simulator.run_until(BEGIN_US + LOADED_US);
        let elections = simulator.checker.elections - before;
        if elections > ELECTIONS_MAX {
            return Err(format!("seed {seed}: {elections} elections, and nobody was gone").into());
        }
        simulator.run_until(BEGIN_US + LOADED_US + CALM_US);
        for _ in 0..3 {
            let took_us = failover_us(&mut simulator)?;
            if took_us > FAILOVER_US_MAX {
                return Err(format!("seed {seed}: a failover took {took_us} us").into());
            }
            simulator.run_until(simulator.now_us + 20_000_000);
        }
        simulator.judge();
    }
    Ok(())
}
