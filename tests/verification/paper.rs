//! The part of `docs/verification.md` that this tool writes, between two lines that mark it.

use std::fmt::Write as _;
use std::path::PathBuf;

use raft_node::testpoints::{Mark, Mutant};

use crate::figures::{Figures, grouped};

const BEGIN: &str = "<!-- The ledger, written by `just ledger`: not by hand. -->";
const END: &str = "<!-- The end of the ledger. -->";

/// What the simulation counts, and how the ledger calls it.
const COUNTS: [(&str, &[&str]); 18] = [
    ("worlds", &["seeds"]),
    ("elections won", &["elections"]),
    ("entries committed", &["commits"]),
    ("operations of clients judged", &["operations_checked"]),
    ("states of two members compared", &["states_compared"]),
    ("messages", &["messages"]),
    (
        "messages lost, repeated, overtaken or damaged",
        &["lost", "duplicated", "reordered", "corrupted"],
    ),
    ("partitions: whole, one-way, bridges", &["partitions", "one_way", "bridges"]),
    ("links slowed or broken", &["slow_links", "disconnects"]),
    ("processes killed", &["kills"]),
    ("power cuts", &["power_cuts"]),
    ("processes stopped or paused", &["stops", "pauses"]),
    ("clocks that jumped or went wrong", &["clock_faults"]),
    ("disks slow, hung or full", &["slow_disks", "hung_disks", "disks_full"]),
    ("errors of reads and writes", &["write_errors", "read_errors"]),
    (
        "bits rotten, writes lost or misdirected",
        &["bits_rotten", "writes_lost", "writes_misdirected"],
    ),
    ("snapshots written", &["snapshots_saved"]),
    ("snapshots installed by another member", &["snapshots_installed"]),
];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/verification.md")
}

fn text() -> Result<String, String> {
    std::fs::read_to_string(path()).map_err(|error| format!("docs/verification.md: {error}"))
}

/// Writes the ledger in place of the one before.
pub fn write(figures: &Figures, commit: &str, date: &str) -> Result<(), String> {
    let paper = replaced(&text()?, &ledger(figures, commit, date))?;
    std::fs::write(path(), paper).map_err(|error| error.to_string())
}

fn replaced(paper: &str, ledger: &str) -> Result<String, String> {
    let missing = || format!("the lines `{BEGIN}` and `{END}` are missing");
    let (before, rest) = paper.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n\n{ledger}\n{END}{after}"))
}

fn ledger(figures: &Figures, commit: &str, date: &str) -> String {
    let mut out = String::new();
    let mut row = |what: &str, figure: String| {
        writeln!(out, "| {what} | {figure} |").expect("strings take everything");
    };
    row("figure", format!("commit {commit}, {date}"));
    row("---", "---:".to_owned());
    row("simulated hours of a cluster", format!("{:.0}", figures.hours));
    let ratio = figures.hours * 3600.0 / figures.sweep_seconds.max(1.0);
    row("times real time", format!("{ratio:.0}"));
    for (what, names) in COUNTS {
        let sum = names.iter().filter_map(|name| figures.counts.get(*name)).sum();
        row(what, grouped(sum));
    }
    row("unique states of the model", grouped(figures.states));
    row("steps between them", grouped(figures.transitions));
    row("bugs turned on, and found", found(figures));
    row("promises broken", figures.violations.to_string());
    out.push_str("\n| bug | what it does | found by |\n| --- | --- | --- |\n");
    for mutant in Mutant::ALL {
        let kills = figures.kills.get(mutant).map_or(&[][..], Vec::as_slice);
        let by: Vec<&str> = kills.iter().map(|kill| kill.by.as_str()).collect();
        let by = if by.is_empty() { "nothing".to_owned() } else { by.join("; ") };
        writeln!(out, "| `{}` | {} | {by} |", mutant.name(), mutant.what())
            .expect("strings take everything");
    }
    out.push_str("\n| mark | what it means | met |\n| --- | --- | ---: |\n");
    for mark in Mark::ALL {
        let met = figures.marks.get(mark.name()).copied().unwrap_or_default();
        writeln!(out, "| `{}` | {} | {} |", mark.name(), mark.what(), grouped(met))
            .expect("strings take everything");
    }
    out
}

fn found(figures: &Figures) -> String {
    format!("{} of {}", figures.kills.len(), Mutant::ALL.len())
}

fn row_of<'a>(paper: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("| `{name}` |");
    paper.lines().find(|line| line.starts_with(&start))
}

/// A test: no bug is missing from the paper, and none stands there unfound.
pub fn names_every_mutant() -> Result<(), String> {
    let paper = text()?;
    for mutant in Mutant::ALL {
        let row = row_of(&paper, mutant.name())
            .ok_or_else(|| format!("{} is not in the ledger: `just ledger`", mutant.name()))?;
        if row.ends_with("| nothing |") || !row.contains(mutant.what()) {
            return Err(format!("this row is not true: {row}"));
        }
    }
    Ok(())
}

/// A test: no mark is missing from the paper, and none stands there unmet.
pub fn names_every_mark() -> Result<(), String> {
    let paper = text()?;
    for mark in Mark::ALL {
        let row = row_of(&paper, mark.name())
            .ok_or_else(|| format!("{} is not in the ledger: `just ledger`", mark.name()))?;
        if row.ends_with("| 0 |") || !row.contains(mark.what()) {
            return Err(format!("this row is not true: {row}"));
        }
    }
    Ok(())
}

/// A test: what stands around the ledger stays.
pub fn replaces_its_part() -> Result<(), String> {
    let paper = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
    let new = replaced(&paper, "new\n")?;
    if new != format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n") {
        return Err(format!("it became: {new}"));
    }
    match replaced("no ledger here", "new\n") {
        Err(_) => Ok(()),
        Ok(paper) => Err(format!("a paper without a place for it became: {paper}")),
    }
}
