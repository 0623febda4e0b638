//! Power cuts and kills at every moment: what was synced is there, in order, and nothing else.

use super::life::Life;
use super::model::*;
use crate::storage::Error;
use crate::storage::testing::{Fault, SimDisk};

/// A life of some length, cut off at operation `at`; `false` if it ended before.
fn live_until_cut(life: &mut Life, at: u64, steps: usize) -> bool {
    life.disk.fault_at(at, Fault::PowerCut);
    let mut cut = life.start().is_err();
    for _ in 0..steps {
        cut = cut || life.step().is_err();
    }
    life.stop();
    cut
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_synced() {
    for seed in 0..12 {
        for at in 0.. {
            let mut life = Life::new(seed);
            if !live_until_cut(&mut life, at, 60) {
                assert!(at > 100, "the life was long enough to mean something");
                break;
            }
            life.disk.power_cut();
            life.start().unwrap();
            // What was recovered is durable by now, and new writes go well with it.
            life.stop();
            life.disk.power_cut();
            life.start().unwrap();
            life.append().unwrap();
            life.sync().unwrap();
            life.stop();
            life.disk.power_cut();
            life.start().unwrap();
        }
    }
}

#[test]
fn a_power_cut_during_recovery_loses_nothing() {
    for seed in 100..200 {
        let mut life = Life::new(seed);
        let at = 60 + seed * 7 % 90;
        live_until_cut(&mut life, at, 80);
        life.disk.power_cut();
        for cut in 0.. {
            let before = life.disk.operations();
            life.disk.fault_at(before + cut, Fault::PowerCut);
            let (history, floor) = (life.history.clone(), life.floor);
            let started = life.start();
            life.stop();
            life.disk.clear_faults();
            life.disk.power_cut();
            match started {
                Ok(()) => break,
                Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
            }
            (life.history, life.floor) = (history, floor);
        }
        life.start().unwrap();
    }
}

#[test]
fn many_lives_on_one_disk() {
    for seed in 1000..1400 {
        let mut life = Life::new(seed);
        life.start().unwrap();
        for _ in 0..25 {
            let at = life.disk.operations() + 1 + life.rng.below(120);
            if life.rng.one_in(2) {
                life.disk.fault_at(at, Fault::PowerCut);
            }
            let mut down = false;
            for _ in 0..life.rng.below(50) {
                down = life.step().is_err();
                if down {
                    break;
                }
            }
            life.stop();
            life.disk.clear_faults();
            if down || life.rng.one_in(3) {
                life.disk.power_cut();
            } else {
                life.disk.kill();
            }
            // A start may be cut off too.
            if life.rng.one_in(4) {
                let at = life.disk.operations() + life.rng.below(12);
                life.disk.fault_at(at, Fault::PowerCut);
                let (history, floor) = (life.history.clone(), life.floor);
                let started = life.start().is_ok();
                life.stop();
                life.disk.clear_faults();
                life.disk.power_cut();
                if !started {
                    (life.history, life.floor) = (history, floor);
                }
            }
            life.start().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}

#[test]
fn the_same_seed_is_the_same_life() {
    let run = |seed| {
        let mut life = Life::new(seed);
        live_until_cut(&mut life, 150, 80);
        life.disk.power_cut();
        let names = life.disk.names();
        names.iter().map(|name| (name.clone(), life.disk.content(name))).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

/// What a kill leaves in memory counts as found; if the power goes after the next start it must
/// still be there, even if the sync before the kill had failed and the pages look clean.
#[test]
fn what_was_found_after_a_failed_sync_is_made_durable() {
    for seed in 0..30 {
        let mut life = Life::new(seed);
        life.start().unwrap();
        for _ in 0..12 {
            life.append().unwrap();
        }
        let operation = life.disk.operations();
        life.disk.fault_at(operation, Fault::Fail(std::io::ErrorKind::Other));
        life.sync().unwrap_err();
        life.stop();
        life.disk.kill();
        life.start().unwrap();
        let found = life.now().clone();
        life.stop();
        life.disk.power_cut();
        let (_, after) = recover(&life.disk, small()).unwrap();
        assert_eq!(found, after);
    }
}

#[test]
fn a_first_start_that_was_cut_short_is_begun_again() {
    for at in 0.. {
        let disk = SimDisk::new(at);
        disk.fault_at(at, Fault::PowerCut);
        let done = recover(&disk, small()).is_ok();
        disk.clear_faults();
        disk.power_cut();
        let (_, model) = recover(&disk, small()).unwrap();
        assert_eq!(model, Model::new());
        if done {
            break;
        }
    }
}
