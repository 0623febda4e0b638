//! What the parts of the proof report, and whether it is enough.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use raft_node::testpoints::{self, Mark, Mutant};
use serde_json::Value;

use crate::rooms;

/// Seeds that a bug of a single room may survive.
const ROOM_SEEDS: u64 = 2000;

/// Seeds that each room runs through without a bug.
const ROOM_SEEDS_SOUND: u64 = 500;

/// How a bug was found.
#[derive(Clone, Debug)]
pub struct Kill {
    /// What found it, and after how much.
    pub by: String,
    /// What gave it away.
    pub how: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Figures {
    /// What the simulation counted.
    pub counts: BTreeMap<String, u64>,
    /// Simulated time.
    pub hours: f64,
    /// How long that took.
    pub sweep_seconds: f64,
    /// Unique states of the model.
    pub states: u64,
    /// Steps between them.
    pub transitions: u64,
    /// How long that took.
    pub model_seconds: f64,
    /// Promises broken, by either.
    pub violations: u64,
    /// How often each marked path was taken.
    pub marks: BTreeMap<String, u64>,
    /// Each bug, by all that found it.
    pub kills: BTreeMap<Mutant, Vec<Kill>>,
}

impl Figures {
    /// Reads the reports in `folder`, and judges the rooms.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let mut figures = Self::default();
        for name in sweeps(folder)? {
            figures.take_sweep(&json(folder, &name)?);
        }
        figures.take_model(&json(folder, "model.json")?);
        figures.judge_rooms();
        figures.take_model_kills(&json(folder, "mutants-model.json")?);
        figures.take_sim_kills(&json(folder, "mutants-sim.json")?);
        Ok(figures)
    }

    fn take_sweep(&mut self, sweep: &Value) {
        for (name, count) in entries(&sweep["counts"]) {
            *self.counts.entry(name).or_default() += count;
        }
        self.hours += sweep["simulated_hours"].as_f64().unwrap_or_default();
        self.sweep_seconds += sweep["seconds"].as_f64().unwrap_or_default();
        self.violations += sweep["violations"].as_u64().unwrap_or(1);
        self.take_marks(&sweep["marks"]);
    }

    fn take_model(&mut self, model: &Value) {
        for search in model["searches"].as_array().into_iter().flatten() {
            self.states += search["states"].as_u64().unwrap_or_default();
            self.transitions += search["transitions"].as_u64().unwrap_or_default();
            self.model_seconds += search["seconds"].as_f64().unwrap_or_default();
            self.violations += search["violations"].as_u64().unwrap_or(1);
            self.take_marks(&search["marks"]);
        }
    }

    fn take_marks(&mut self, marks: &Value) {
        for (name, count) in entries(marks) {
            *self.marks.entry(name).or_default() += count;
        }
    }

    /// The store, the disk and the door by themselves: as they are, and with each of their bugs.
    fn judge_rooms(&mut self) {
        for seed in 0..ROOM_SEEDS_SOUND {
            let judgements = [
                rooms::store::judge(seed),
                rooms::disk::judge(seed),
                rooms::door::judge(seed),
                rooms::quorum::judge(seed),
                rooms::strangers::judge(seed),
                rooms::callers::judge(seed),
                rooms::poison::judge(seed),
            ];
            self.violations += judgements.iter().filter(|one| one.is_err()).count() as u64;
        }
        for (mark, hits) in testpoints::take_hits() {
            *self.marks.entry(mark.name().to_owned()).or_default() += hits;
        }
        for mutant in Mutant::ALL {
            if let Some(kill) = rooms::kill(*mutant, ROOM_SEEDS) {
                let by = format!("its room, {} seeds", kill.seed + 1);
                self.note(*mutant, Kill { by, how: kill.how });
            }
        }
    }

    fn take_model_kills(&mut self, report: &Value) {
        for row in report["mutants"].as_array().into_iter().flatten() {
            let (Some(mutant), Some(how)) = (mutant(row), row["property"].as_str()) else {
                continue;
            };
            let preset = row["preset"].as_str().unwrap_or_default();
            let states = row["states"].as_u64().unwrap_or_default();
            let by = format!("model `{preset}`, {} states", grouped(states));
            self.note(mutant, Kill { by, how: how.to_owned() });
        }
    }

    fn take_sim_kills(&mut self, report: &Value) {
        for row in report.as_array().into_iter().flatten() {
            let (Some(mutant), Some(how)) = (mutant(row), row["killed_by"].as_str()) else {
                continue;
            };
            let seeds = row["seeds"].as_u64().unwrap_or_default();
            self.note(mutant, Kill { by: format!("simulation, {seeds} seeds"), how: how.into() });
        }
    }

    fn note(&mut self, mutant: Mutant, kill: Kill) {
        self.kills.entry(mutant).or_default().push(kill);
    }

    /// Why it is not enough.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.violations > 0 {
            faults.push(format!("promises were broken: {}", self.violations));
        }
        if self.hours == 0.0 || self.states == 0 {
            faults.push("nothing was simulated, or no state was searched".to_owned());
        }
        for mutant in Mutant::ALL.iter().filter(|mutant| !self.kills.contains_key(mutant)) {
            faults.push(format!("{} survives: {}", mutant.name(), mutant.what()));
        }
        for mark in Mark::ALL {
            if self.marks.get(mark.name()).is_none_or(|hits| *hits == 0) {
                faults.push(format!("{} was never met: {}", mark.name(), mark.what()));
            }
        }
        faults
    }

    /// For people: every bug, and what found it first.
    pub fn table_of_mutants(&self) -> String {
        let mut table = String::new();
        for mutant in Mutant::ALL {
            let kills = self.kills.get(mutant).map_or(&[][..], Vec::as_slice);
            let by: Vec<&str> = kills.iter().map(|kill| kill.by.as_str()).collect();
            let by = if by.is_empty() { "SURVIVES".to_owned() } else { by.join("; ") };
            let how = kills.first().map_or("", |kill| kill.how.as_str());
            let how = how.lines().next().unwrap_or_default();
            writeln!(table, "{:26} {by}: {how}", mutant.name()).expect("strings take everything");
        }
        table
    }
}

/// A number for reading.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn mutant(row: &Value) -> Option<Mutant> {
    Mutant::named(row["mutant"].as_str()?)
}

fn entries(map: &Value) -> impl Iterator<Item = (String, u64)> {
    let all = map.as_object().into_iter().flatten();
    all.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default()))
}

/// The reports of sweeps, of which there may be several, over different seeds.
fn sweeps(folder: &Path) -> Result<Vec<String>, String> {
    let unreadable = |error| format!("{}: {error} (`just testpoints` makes it)", folder.display());
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut sweeps: Vec<String> = names.filter(|name| name.starts_with("sweep")).collect();
    sweeps.sort();
    Ok(sweeps)
}

fn json(folder: &Path, name: &str) -> Result<Value, String> {
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error} (`just testpoints` makes it)", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A test: with every bug found but one, and every mark met but one, exactly these are told.
pub fn tells_a_survivor() -> Result<(), String> {
    let mut figures = Figures { hours: 1.0, states: 1, ..Figures::default() };
    for mutant in &Mutant::ALL[1..] {
        figures.note(*mutant, Kill { by: "a test".into(), how: "it must".into() });
    }
    figures.marks = Mark::ALL[1..].iter().map(|mark| (mark.name().to_owned(), 1)).collect();
    let faults = figures.faults();
    let told = |name: &str| faults.iter().filter(|fault| fault.starts_with(name)).count();
    if faults.len() == 2 && told(Mutant::ALL[0].name()) == 1 && told(Mark::ALL[0].name()) == 1 {
        Ok(())
    } else {
        Err(format!("told instead: {faults:?}"))
    }
}
