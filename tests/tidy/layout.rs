//! Sizes and heads: what keeps a file readable.

use crate::tree::{File, Finding};

const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 600;

pub fn columns(file: &File) -> Vec<Finding> {
    // A table's rows and an address cannot be broken.
    let is_whole = |line: &str| {
        let comment = line.trim_start().trim_start_matches(['/', '!']);
        comment.starts_with(" |") || line.contains("://")
    };
    let too_long = |line: &str| line.chars().count() > COLUMNS_MAX && !is_whole(line);
    let lines = file.text.lines().enumerate().filter(|(_, line)| too_long(line));
    lines
        .map(|(at, line)| file.finding(at + 1, format!("{} columns", line.chars().count())))
        .collect()
}

pub fn lines(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let too_many = lines > LINES_MAX;
    too_many.then(|| file.finding(0, format!("{lines} lines"))).into_iter().collect()
}

pub fn head(file: &File) -> Vec<Finding> {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    let missing = !says;
    missing.then(|| file.finding(1, "no `//!` at the head")).into_iter().collect()
}

/// The image's dependency layer holds the manifest without tests, benches and examples: cargo looks
/// for their files only where the manifest leaves the path to be guessed.
pub fn targets(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut open: Option<(usize, &str)> = None;
    for (at, line) in file.text.lines().chain(["["]).enumerate() {
        if line.starts_with('[') {
            if let Some((start, name)) = open.take() {
                findings.push(file.finding(start, format!("{name} names no path")));
            }
            let is_target =
                ["[[bin]]", "[[test]]", "[[bench]]", "[[example]]"].contains(&line.trim());
            open = is_target.then(|| (at + 1, line.trim()));
        } else if line.starts_with("path") {
            open = None;
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(check: fn(&File) -> Vec<Finding>, text: &str) -> usize {
        check(&File::new("src/sample.rs", text)).len()
    }

    #[test]
    fn long_lines_are_found() {
        assert_eq!(count(columns, &"é".repeat(100)), 0);
        assert_eq!(count(columns, &"é".repeat(101)), 1);
        assert_eq!(count(columns, &format!("//! | {} |", "x".repeat(100))), 0);
        assert_eq!(count(columns, &format!("// https://{}", "x".repeat(100))), 0);
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(count(lines, &"x\n".repeat(600)), 0);
        assert_eq!(count(lines, &"x\n".repeat(601)), 1);
    }

    #[test]
    fn headless_modules_are_found() {
        assert_eq!(count(head, "//! Why.\nuse x;"), 0);
        for text in ["", "use x;", "//!\nuse x;", "// why\n//! late"] {
            assert_eq!(count(head, text), 1, "{text:?}");
        }
    }

    #[test]
    fn targets_without_path_are_found() {
        assert_eq!(count(targets, "[[bench]]\nname = \"a\"\npath = \"b\"\n[lib]\nname = \"c\""), 0);
        assert_eq!(count(targets, "[[bench]]\nname = \"a\"\n[lib]\npath = \"b\""), 1);
        assert_eq!(count(targets, "[lib]\n[[test]]\nname = \"a\""), 1);
    }
}
