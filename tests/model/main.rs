//! The core in every state of a small world: model checking of the production `RaftNode`.
//!
//! A plain `cargo test` runs each search within a budget, and each bug of the core until it dies.
//! `cargo test --profile sim --test model -- check|mutants|list` are the long forms.

mod command;
mod durable;
mod fingerprint;
mod ghost;
mod goals;
mod lab;
mod mutants;
mod opening;
mod presets;
mod promises;
mod rules;
mod search;
mod server;
mod story;
mod trials;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    match command::from_arguments() {
        Some(command) => command.run(),
        None => trials::run(),
    }
}
