//! What a plain `cargo test` runs.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use raft_node::testpoints::Mutant;

use crate::search::{self, Limits};
use crate::specs::{self, Preset};
use crate::{counterexample, mutants};

/// Enough for every bug; most die within a few thousand.
pub const STATES_FOR_A_MUTANT: usize = 400_000;

pub fn run() -> ExitCode {
    let arguments = Arguments::from_args();
    let on = || {
        let on = raft_node::testpoints::ENABLED;
        if on { Ok(()) } else { Err("no marks and no mutants without debug assertions".into()) }
    };
    let mut trials = vec![Trial::test("the_instruments_are_in_this_build", on)];
    for preset in specs::all() {
        let name = format!("{}::keeps_every_promise", preset.name);
        trials.push(Trial::test(name, move || keeps_every_promise(&preset)));
    }
    for mutant in mutants::all() {
        let name = format!("mutants::{}_is_found", mutant.name());
        trials.push(Trial::test(name, move || is_found(mutant)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn keeps_every_promise(preset: &Preset) -> Result<(), Failed> {
    let limits = Limits { states: preset.states, threads: 1, mutant: None, progress: None };
    let found = search::run(&preset.rules, limits);
    if let Some(example) = &found.violation {
        return Err(counterexample::tell(&preset.rules, example).into());
    }
    let missed = preset.missed(&found);
    if missed.is_empty() { Ok(()) } else { Err(format!("never met: {missed:?}").into()) }
}

fn is_found(mutant: Mutant) -> Result<(), Failed> {
    match mutants::kill(mutant, STATES_FOR_A_MUTANT, 1) {
        Some(_) => Ok(()),
        None => Err(format!("{} lives: {}", mutant.name(), mutant.what()).into()),
    }
}
