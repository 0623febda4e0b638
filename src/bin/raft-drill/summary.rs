//! Two systems side by side, from the lines that `load --json --label` printed in turns.
//!
//! On a shared machine single figures wander; the ratio of medians of alternating rounds is what
//! can be trusted, and the ratio of each round beside it says how far.

use crate::load::Report;
use crate::output;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `summary`'s arguments.
#[derive(Args)]
pub struct SummaryArgs {
    /// A file with one JSON line per run
    file: PathBuf,
    /// The label of the system to compare with
    #[arg(long, default_value = "etcd")]
    base: String,
    /// The label of the system that is compared
    #[arg(long, default_value = "raft-node")]
    other: String,
}

/// A measured series: what is compared, and one figure per round.
type Series = BTreeMap<(String, u32, String), Vec<Report>>;

/// `raft-drill summary`.
pub fn run(args: &SummaryArgs) -> Result<(), String> {
    let name = args.file.display();
    let text = std::fs::read_to_string(&args.file).map_err(|error| format!("{name}: {error}"))?;
    let mut systems: BTreeMap<String, Series> = BTreeMap::new();
    for (index, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let report: Report = serde_json::from_str(row)
            .map_err(|error| format!("{name}, line {}: {error}", index + 1))?;
        let series = systems.entry(report.label.clone()).or_default();
        let what = (report.kind.clone(), report.clients, report.target.clone());
        series.entry(what).or_default().push(report);
    }
    let nothing = Series::new();
    let base = systems.get(&args.base).unwrap_or(&nothing);
    let other = systems.get(&args.other).unwrap_or(&nothing);
    let mut rows = Vec::new();
    for (what, theirs) in base {
        let (kind, clients, target) = what;
        // With one client there is nothing to do but wait: latency is the figure.
        let (unit, figure): (&str, fn(&Report) -> f64) = match clients {
            1 => ("p50 µs", |report| report.p50_us),
            _ => ("op/s", |report| report.per_second),
        };
        let ours = other.get(what).map_or(&[][..], Vec::as_slice);
        let theirs: Vec<f64> = theirs.iter().map(figure).collect();
        let ours: Vec<f64> = ours.iter().map(figure).collect();
        let what = format!("{kind}, {clients} clients, {target}: {unit}");
        rows.push(row(&what, &theirs, &ours));
    }
    output::table(&["", &args.base, &args.other, "ratio", "ratio by round"], &rows);
    Ok(())
}

fn row(what: &str, theirs: &[f64], ours: &[f64]) -> Vec<String> {
    let by_round: Vec<String> =
        theirs.iter().zip(ours).map(|(theirs, ours)| format!("{:.2}", ours / theirs)).collect();
    vec![
        what.to_owned(),
        format!("{:.0}", median(theirs)),
        format!("{:.0}", median(ours)),
        format!("{:.2}", median(ours) / median(theirs)),
        by_round.join(" "),
    ]
}

/// The middle one, or the mean of the two in the middle; not a number when there is none.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        assert!(median(&[]).is_nan());
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }
}
