//! Where the tool speaks: reports to standard output, progress to standard error.
//!
//! Everything goes through here so that a closed pipe (`raft-drill … | head`) ends in silence and
//! not in a panic, and so that standard output holds nothing but the report.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// One line of the report.
pub fn line(text: &str) {
    let _closed_pipe_is_fine = writeln!(std::io::stdout().lock(), "{text}");
}

/// One line on how far the work is; never part of the report.
pub fn progress(text: &str) {
    let _closed_pipe_is_fine = writeln!(std::io::stderr().lock(), "{text}");
}

/// How often a run that takes long says how far it is: on a terminal, and where a file takes it.
const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Says at intervals how far a run is; never part of the report.
pub struct Ticker {
    interval: Duration,
    next: Instant,
}

impl Ticker {
    /// The first line is due after one interval.
    pub fn start() -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let interval = if on_terminal { ON_TERMINAL } else { ELSEWHERE };
        Self { interval, next: Instant::now() + interval }
    }

    /// When the next line is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Writes a line.
    pub fn tick(&mut self, text: &str) {
        self.next += self.interval;
        progress(text);
    }
}

/// Columns padded to their widest cell; the first is left-aligned, the others right-aligned.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(String::len).chain([title.len()]).max().unwrap_or(0)
        })
        .collect();
    let titles: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            let written = if column == 0 {
                write!(text, "{cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
            written.expect("a string takes whatever is written to it");
        }
        line(text.trim_end());
    }
}
