//! Whole members in a simulated world: the production code from the decoder of the transport to the
//! disk, on one thread, in simulated time, from a seed.
//!
//! Reading order: [`plan`] and [`faults`] are what a seed makes of a run; [`simulator`] runs it;
//! [`checks`] is what it promises; [`run`] is its course from faults over healing to the verdict.
//! [`sweep`] runs many, [`shrink`] makes a short story of one, [`cli`] has the commands.
//!
//! Run without arguments it is a test binary like any other; `cargo test --profile sim --test sim
//! -- sweep --help` shows the long forms.

use std::process::ExitCode;

use libtest_mimic::Arguments;

mod changes;
mod checks;
mod cli;
mod clients;
mod configurations;
mod faults;
mod hostile;
mod hosts;
mod nemesis;
mod network;
mod plan;
mod process;
mod processes;
mod queue;
mod rng;
mod run;
mod shrink;
mod simulator;
mod stats;
mod sweep;
mod transfers;
mod trials;

#[path = "../common/linearizability/mod.rs"]
mod linearizability;

fn main() -> ExitCode {
    run::silence_panics();
    let first = std::env::args().nth(1).unwrap_or_default();
    if cli::COMMANDS.contains(&first.as_str()) {
        return cli::run();
    }
    libtest_mimic::run(&Arguments::from_args(), trials::all()).exit_code()
}
