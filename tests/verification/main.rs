//! The ledger of the proof: puts together what the simulation, the model and the judges of single
//! rooms found, says whether it is enough, and writes it into `docs/verification.md`.
//!
//! ```text
//! cargo test --profile sim --test verification -- verdict --from target/proof
//! cargo test --profile sim --test verification -- write   --from target/proof
//! ```
//!
//! Without a command, as under a plain `cargo test`, it holds that paper to the code: it must name
//! every bug that can be turned on, with what found it, and every mark.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a verdict is for reading")]

#[path = "../common/linearizability/mod.rs"]
mod linearizability;
#[allow(dead_code, reason = "shared with the tests of the judges themselves")]
#[path = "../common/rooms/mod.rs"]
mod rooms;

mod figures;
mod paper;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use libtest_mimic::{Arguments, Trial};

use figures::Figures;

/// The ledger of the proof.
#[derive(Debug, Parser)]
enum Command {
    /// Fails unless every bug was found, every mark was met and no promise was broken
    Verdict {
        /// The folder with `sweep*.json`, `model.json`, `mutants-sim.json`, `mutants-model.json`
        #[arg(long)]
        from: PathBuf,
    },
    /// The verdict, and the ledger in `docs/verification.md`
    Write {
        /// The same folder
        #[arg(long)]
        from: PathBuf,
        /// What the figures are of
        #[arg(long)]
        commit: String,
        /// When they were taken
        #[arg(long)]
        date: String,
    },
}

fn main() -> ExitCode {
    let first = std::env::args().nth(1);
    if first.is_some_and(|first| ["verdict", "write"].contains(&first.as_str())) {
        return run(&Command::parse());
    }
    let arguments = Arguments::from_args();
    let trials = vec![
        Trial::test("the_paper_names_every_bug_and_what_found_it", || {
            Ok(paper::names_every_mutant()?)
        }),
        Trial::test("the_paper_names_every_mark", || Ok(paper::names_every_mark()?)),
        Trial::test("a_bug_that_nothing_finds_is_told", || Ok(figures::tells_a_survivor()?)),
        Trial::test("a_ledger_replaces_the_one_before", || Ok(paper::replaces_its_part()?)),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(command: &Command) -> ExitCode {
    // What a bug makes the code assert is its verdict, not a failure of this tool.
    std::panic::set_hook(Box::new(|_| {}));
    let (Command::Verdict { from } | Command::Write { from, .. }) = command;
    let figures = match Figures::read(from) {
        Ok(figures) => figures,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let faults = figures.faults();
    print!("{}", figures.table_of_mutants());
    if let Command::Write { commit, date, .. } = command
        && let Err(error) = paper::write(&figures, commit, date)
    {
        eprintln!("docs/verification.md: {error}");
        return ExitCode::FAILURE;
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
