//! The long forms: `check`, `mutants` and `list`.

#![expect(clippy::print_stdout, reason = "tables are what they are for")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use raft_node::testpoints::Mutant;
use serde_json::json;

use crate::search::{self, Found, Limits};
use crate::specs::{self, Preset};
use crate::trials::STATES_FOR_A_MUTANT;
use crate::{counterexample, mutants};

const PROGRESS: Duration = Duration::from_secs(10);

/// Model checking of the core.
#[derive(Debug, Parser)]
pub enum Command {
    /// Searches, and fails if a promise is broken or something that must be met is not.
    Check {
        /// One search; all of them without it.
        #[arg(long)]
        preset: Option<String>,
        /// States for each search.
        #[arg(long, default_value_t = 800_000)]
        states: usize,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Where to write the figures.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Looks whether every bug of the core is found.
    Mutants {
        /// One bug; all of them without it.
        #[arg(long)]
        only: Option<String>,
        /// States for each bug and search.
        #[arg(long, default_value_t = STATES_FOR_A_MUTANT)]
        states: usize,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Tells how each was found.
        #[arg(long)]
        stories: bool,
        /// Where to write the figures.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Names the searches and the bugs, or shows where one search starts.
    List {
        /// The search.
        preset: Option<String>,
    },
}

/// The command, if the first argument names one. Everything else is for the test harness.
pub fn from_arguments() -> Option<Command> {
    let first = std::env::args().nth(1)?;
    ["check", "mutants", "list"].contains(&first.as_str()).then(Command::parse)
}

impl Command {
    pub fn run(self) -> ExitCode {
        let (fine, figures, json) = match self {
            Self::Check { preset, states, threads, json } => {
                let (fine, figures) = check(preset.as_deref(), states, threads);
                (fine, figures, json)
            }
            Self::Mutants { only, states, threads, stories, json } => {
                let (fine, figures) = kill_all(only.as_deref(), states, threads, stories);
                (fine, figures, json)
            }
            Self::List { preset } => {
                list(preset.as_deref());
                return ExitCode::SUCCESS;
            }
        };
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&figures).expect("plain values");
            if let Err(error) = std::fs::write(&path, text + "\n") {
                println!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
        if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn list(only: Option<&str>) {
    if let Some(preset) = only.and_then(specs::named) {
        println!("{}\n{}", preset.what, counterexample::tell_opening(&preset.rules));
        return;
    }
    for preset in specs::all() {
        println!("{:14} {}", preset.name, preset.what);
    }
    for mutant in mutants::all() {
        println!("{:24} {}", mutant.name(), mutant.what());
    }
}

fn check(only: Option<&str>, states: usize, threads: usize) -> (bool, serde_json::Value) {
    let wanted = |preset: &Preset| only.is_none_or(|name| name == preset.name);
    let searches: Vec<Preset> = specs::all().into_iter().filter(wanted).collect();
    let mut fine = !searches.is_empty();
    let mut figures = Vec::new();
    let (mut all_states, mut all_seconds) = (0, 0.0);
    println!("search             states  transitions  depth  seconds  met");
    for preset in searches {
        let limits = Limits { states, threads, mutant: None, progress: Some(PROGRESS) };
        let found = search::run(&preset.rules, limits);
        let missed = preset.missed(&found);
        let more = if found.exhausted { " " } else { "+" };
        println!(
            "{:14} {:>10}{more} {:>11}  {:>5}  {:>7.1}  {}/{}",
            preset.name,
            found.states,
            found.transitions,
            found.depth,
            found.seconds,
            preset.wanted() - missed.len(),
            preset.wanted(),
        );
        if let Some(example) = &found.violation {
            println!("{}", counterexample::tell(&preset.rules, example));
        }
        if !missed.is_empty() {
            println!("  never met: {missed:?}");
        }
        fine &= found.violation.is_none() && missed.is_empty();
        all_states += found.states;
        all_seconds += found.seconds;
        figures.push(figures_of(&preset, &found, &missed));
    }
    println!("{:14} {all_states:>10}                      {all_seconds:>7.1}", "in all");
    (fine, json!({ "searches": figures, "states": all_states, "seconds": all_seconds }))
}

fn figures_of(preset: &Preset, found: &Found, missed: &[String]) -> serde_json::Value {
    let marks: serde_json::Map<_, _> =
        found.marks.iter().map(|(mark, count)| (mark.name().to_owned(), json!(count))).collect();
    json!({
        "preset": preset.name,
        "states": found.states,
        "transitions": found.transitions,
        "depth": found.depth,
        "exhausted": found.exhausted,
        "seconds": found.seconds,
        "violations": usize::from(found.violation.is_some()),
        "missed": missed,
        "marks": marks,
    })
}

fn kill_all(
    only: Option<&str>,
    states: usize,
    threads: usize,
    stories: bool,
) -> (bool, serde_json::Value) {
    let wanted = |mutant: &Mutant| only.is_none_or(|name| name == mutant.name());
    let bugs: Vec<Mutant> = mutants::all().filter(wanted).collect();
    let mut fine = !bugs.is_empty();
    let mut figures = Vec::new();
    println!("bug                       found in        states  depth  seconds  by");
    for mutant in bugs {
        let kill = mutants::kill(mutant, states, threads);
        fine &= kill.is_some();
        match &kill {
            Some(kill) => {
                println!(
                    "{:24}  {:14} {:>7}  {:>5}  {:>7.1}  {}",
                    mutant.name(),
                    kill.preset,
                    kill.states,
                    kill.example.actions.len(),
                    kill.seconds,
                    kill.example.violation.property,
                );
                if stories {
                    let preset = specs::named(kill.preset).expect("it was searched");
                    println!(
                        "{}",
                        counterexample::tell_of(&preset.rules, &kill.example, Some(mutant))
                    );
                }
            }
            None => println!("{:24}  LIVES", mutant.name()),
        }
        figures.push(json!({
            "mutant": mutant.name(),
            "what": mutant.what(),
            "preset": kill.as_ref().map(|kill| kill.preset),
            "states": kill.as_ref().map(|kill| kill.states),
            "depth": kill.as_ref().map(|kill| kill.example.actions.len()),
            "seconds": kill.as_ref().map(|kill| kill.seconds),
            "property": kill.as_ref().map(|kill| kill.example.violation.property),
        }));
    }
    (fine, json!({ "mutants": figures }))
}
