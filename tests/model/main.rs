//! The core in every state of a small world: model checking of the production `RaftNode`.
//!
//! A plain `cargo test` runs each search within a budget, and each bug of the core until it dies.
//! `cargo test --profile sim --test model -- check|mutants|list` are the long forms.

mod bounds;
mod command;
mod counterexample;
mod durable;
mod fingerprint;
mod ghost;
mod intern;
mod invariants;
mod mutants;
mod reachability;
mod search;
mod server;
mod setup;
mod specs;
mod system_state;
mod trials;

use std::process::ExitCode;

fn main() -> ExitCode {
    match command::from_arguments() {
        Some(command) => command.run(),
        None => trials::run(),
    }
}
