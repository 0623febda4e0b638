//! Whole members in a simulated world: the production code from the gate of the transport to the
//! disk, on one thread, in simulated time, from a seed.
//!
//! Reading order: [`plan`] and [`faults`] are what a seed makes of the world; [`world`] turns it;
//! [`checks`] is what it promises; [`run`] is its course from faults over healing to the verdict.
//! [`sweep`] runs many, [`shrink`] makes a short story of one, [`cli`] has the commands.
//!
//! Run without arguments it is a test binary like any other; `cargo test --profile sim --test sim
//! -- sweep --help` shows the long forms.

use std::process::ExitCode;

use libtest_mimic::Arguments;

mod chance;
mod changes;
mod checks;
mod cli;
mod clients;
mod configurations;
mod faults;
mod hostile;
mod hosts;
mod lives;
mod network;
mod plan;
mod process;
mod queue;
mod run;
mod shrink;
mod stats;
mod strikes;
mod sweep;
mod transfers;
mod trials;
mod world;

#[path = "../common/linearizability/mod.rs"]
mod linearizability;

fn main() -> ExitCode {
    run::hush_panics();
    let first = std::env::args().nth(1).unwrap_or_default();
    if cli::COMMANDS.contains(&first.as_str()) {
        return cli::run();
    }
    libtest_mimic::run(&Arguments::from_args(), trials::all()).exit_code()
}
