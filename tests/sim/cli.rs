//! The long forms: sweeps, single seeds, shrinking, and the table of mutants.
#![expect(clippy::print_stdout, reason = "these commands are for reading")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use raft_node::testpoints::{Mark, Mutant};

use crate::plan::{Cut, Length};
use crate::run::Run;
use crate::shrink;
use crate::sweep::{Found, Sweep};

/// Whole members in a simulated world.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds and count what happened
    Sweep(SweepArgs),
    /// Run one seed
    Seed(SeedArgs),
    /// Shorten a seed that breaks a promise
    Shrink(SeedArgs),
    /// Turn each deliberate bug on, and see what kills it
    Mutants(MutantsArgs),
}

#[derive(Debug, Args)]
struct SweepArgs {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// On how many threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Begin no seed after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Short worlds, as in the tests
    #[arg(long)]
    short: bool,
    /// Write the figures there
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SeedArgs {
    /// Which
    seed: u64,
    /// A short run, as in the tests
    #[arg(long)]
    short: bool,
    /// Tell what happens
    #[arg(long)]
    trace: bool,
    /// With this bug on
    #[arg(long)]
    mutant: Option<String>,
    /// Only these decisions of the injector: numbers with commas, or `none`
    #[arg(long)]
    keep: Option<String>,
    /// Faults go on for so many milliseconds
    #[arg(long)]
    ms: Option<u64>,
    /// At most so many requests
    #[arg(long)]
    requests: Option<usize>,
}

#[derive(Debug, Args)]
struct MutantsArgs {
    /// This one alone
    #[arg(long)]
    only: Option<String>,
    /// How many seeds each may survive
    #[arg(long, default_value_t = 400)]
    seeds: u64,
    /// The model's report: a bug that it found may survive fewer seeds
    #[arg(long)]
    found: Option<PathBuf>,
    /// How many seeds such a bug may survive
    #[arg(long, default_value_t = 200)]
    seeds_found: u64,
    /// On how many threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Write the table there
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The names of the commands: anything else is the test harness's to understand.
pub const COMMANDS: [&str; 4] = ["sweep", "seed", "shrink", "mutants"];

/// Does what the command line says.
pub fn run() -> ExitCode {
    let good = match Cli::parse().command {
        Command::Sweep(args) => sweep(&args),
        Command::Seed(args) => seed(&args),
        Command::Shrink(args) => shrink_seed(&args),
        Command::Mutants(args) => mutants(&args),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn length(short: bool) -> Length {
    if short { Length::Short } else { Length::Long }
}

fn sweep(args: &SweepArgs) -> bool {
    let sweep = Sweep {
        from: args.from,
        seeds: args.seeds,
        threads: args.threads,
        time_max: args.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        length: length(args.short),
        mutant: None,
        first_only: false,
        progress: true,
    };
    let found = sweep.run();
    tell(&found);
    if let Some(path) = &args.json {
        write(path, &figures(&found));
    }
    for (seed, violation) in &found.violations {
        println!("\nseed {seed}: {violation}");
        println!("again: {}", shrink::command(&Run::of(*seed, sweep.length)));
    }
    let missed = found.missed();
    for mark in &missed {
        println!("never met: {}: {}", mark.name(), mark.what());
    }
    found.violations.is_empty() && missed.is_empty()
}

fn tell(found: &Found) {
    for (name, count) in found.stats.all() {
        println!("{count:>12}  {}", name.replace('_', " "));
    }
    let seconds = found.took.as_secs_f64();
    let hours = found.stats.hours();
    println!("{hours:>12.1}  simulated hours in {seconds:.0} s, {} twice", found.twice);
    println!("{:>12.0}  times real time", hours * 3600.0 / seconds);
    for mark in Mark::ALL {
        let hits = found.hits.get(mark).copied().unwrap_or_default();
        println!("{hits:>12}  mark {}", mark.name());
    }
}

fn figures(found: &Found) -> serde_json::Value {
    let counts: serde_json::Map<_, _> = found
        .stats
        .all()
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect();
    let marks: serde_json::Map<_, _> = Mark::ALL
        .iter()
        .map(|mark| {
            (mark.name().to_owned(), found.hits.get(mark).copied().unwrap_or_default().into())
        })
        .collect();
    serde_json::json!({
        "simulated_hours": found.stats.hours(),
        "seconds": found.took.as_secs_f64(),
        "violations": found.violations.len(),
        "run_twice": found.twice,
        "counts": counts,
        "marks": marks,
    })
}

fn write(path: &PathBuf, value: &serde_json::Value) {
    let text = serde_json::to_string_pretty(value).expect("numbers and strings");
    std::fs::write(path, text + "\n").expect("the file can be written");
}

fn run_of(args: &SeedArgs) -> Run {
    let mutant = args.mutant.as_deref();
    let keep = args.keep.as_deref().map(|keep| match keep {
        "none" => Vec::new(),
        some => some.split(',').map(|at| at.parse().expect("numbers with commas")).collect(),
    });
    Run {
        seed: args.seed,
        length: length(args.short),
        cut: Cut { keep, faulty_us: args.ms.map(|ms| ms * 1000), requests_max: args.requests },
        mutant: mutant.map(|name| Mutant::named(name).expect("no mutant of that name")),
        verbose: args.trace,
    }
}

fn seed(args: &SeedArgs) -> bool {
    let report = run_of(args).report();
    println!("trace {:016x}, {} events", report.trace_hash, report.stats.events);
    if let Some(violation) = &report.violation {
        println!("violation: {violation}");
    }
    report.violation.is_none()
}

fn shrink_seed(args: &SeedArgs) -> bool {
    let Some(shrunk) = shrink::shrink(&run_of(args), 500) else {
        println!("seed {} breaks no promise", args.seed);
        return true;
    };
    println!("after {} worlds:\n{}", shrunk.tries, shrink::story(&shrunk));
    false
}

fn mutants(args: &MutantsArgs) -> bool {
    let wanted = |mutant: &&Mutant| args.only.as_deref().is_none_or(|name| name == mutant.name());
    let found_before = args.found.as_deref().map(found_by_the_model).unwrap_or_default();
    let mut rows = Vec::new();
    let mut survivors = 0;
    for mutant in Mutant::ALL.iter().filter(wanted) {
        let began = Instant::now();
        let known = found_before.contains(mutant);
        let sweep = Sweep {
            from: 0,
            seeds: if known { args.seeds_found } else { args.seeds },
            threads: args.threads,
            time_max: None,
            length: Length::Short,
            mutant: Some(*mutant),
            first_only: true,
            progress: false,
        };
        let found = sweep.run();
        let (seconds, seeds) = (began.elapsed().as_secs_f64(), found.stats.seeds);
        let killer = found.violations.values().next().map(|violation| first_words(violation));
        survivors += u32::from(killer.is_none());
        let told = killer.as_deref().unwrap_or("SURVIVES");
        println!("{:24} {seeds:5} seeds {seconds:7.1} s  {told}", mutant.name());
        rows.push(serde_json::json!({
            "mutant": mutant.name(), "what": mutant.what(), "killed_by": killer,
            "seeds": seeds, "seconds": seconds,
        }));
    }
    if let Some(path) = &args.json {
        write(path, &serde_json::Value::Array(rows));
    }
    survivors == 0
}

/// The bugs that the report of `model mutants` at `path` says were found.
fn found_by_the_model(path: &Path) -> Vec<Mutant> {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("no report at {}: {error}", path.display()));
    let report: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{} is no report: {error}", path.display()));
    let rows = report["mutants"].as_array().into_iter().flatten();
    rows.filter(|row| row["property"].is_string())
        .filter_map(|row| Mutant::named(row["mutant"].as_str()?))
        .collect()
}

/// What was violated, without where in the code that was noticed.
fn first_words(violation: &str) -> String {
    let told = violation.lines().nth(1).unwrap_or(violation);
    told.chars().take(110).collect()
}
