//! `raft-drill`: loads a cluster, breaks it, and checks what its clients lost.
//!
//! It speaks the etcd v3 API and nothing else, so that the same run, unchanged, measures etcd. It
//! is not in the image: it strikes containers from outside, by the `docker` command, which an empty
//! image does not hold. The feature `drill`, on by default, builds it.
//!
//! Exit codes: 0 passed, 1 failed, 75 void (this host was too busy for a judgement), 2 usage.

mod bulk;
mod drill;
#[cfg(test)]
mod fake;
mod grpc;
mod lag;
mod load;
mod output;
mod probe;
mod summary;
mod verdict;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use verdict::Failure;

/// Loads, drills and checks a cluster that speaks the etcd v3 API.
#[derive(Parser)]
#[command(name = "raft-drill", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 passed, 1 failed, 75 void (this host was too busy)")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Closed-loop load: operations per second, latency percentiles, errors
    Load(load::LoadArgs),
    /// Write and read at every member all the time: gaps, lost writes, stale reads
    Probe(probe::ProbeArgs),
    /// Strike the leader again and again while the probe runs
    Drill(drill::DrillArgs),
    /// Write many keys quickly
    Fill(bulk::FillArgs),
    /// Compare the hash of every member's store at one revision
    Hash(bulk::HashArgs),
    /// Medians and ratios of two systems from the lines of `load --json --label`
    Summary(summary::SummaryArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Load(args) => load::run(&args).map_err(Failure::from),
        Command::Probe(args) => probe::run(&args),
        Command::Drill(args) => drill::run(&args),
        Command::Fill(args) => bulk::run_fill(&args).map_err(Failure::from),
        Command::Hash(args) => bulk::run_hash(&args).map_err(Failure::from),
        Command::Summary(args) => summary::run(&args).map_err(Failure::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::progress(&format!("raft-drill: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_knows_where_a_cluster_is_by_default() {
        for words in [&["load", "put"][..], &["probe"], &["drill", "stop"], &["fill"], &["hash"]] {
            let words = ["raft-drill"].iter().chain(words);
            Cli::try_parse_from(words).unwrap_or_else(|why| panic!("{why}"));
        }
    }
}
