//! The variables that the docs, the image and the deployments name are those that the node knows,
//! and each that it knows is documented. A node refuses to start for an unknown one.

use std::collections::BTreeSet;

use crate::code;
use crate::tree::{File, Finding, Tree};

/// Where the node's own table is.
const TABLE: &str = "src/config/variables.rs";

/// What must name every variable.
const COMPLETE: &str = "docs/configuration.md";

/// Names that are wrong on purpose, where the docs show what the node says to them.
const WRONG_ON_PURPOSE: [&str; 1] = ["RAFT_NODEID"];

const PREFIX: &str = "RAFT_";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(table) = tree.get(TABLE) else {
        let missing = File::new(TABLE, "");
        return vec![missing.finding(0, "the table of variables is not there")];
    };
    let known: BTreeSet<String> =
        strings(&table.text).into_iter().flat_map(|s| names(&s)).collect();
    let mut findings = Vec::new();
    for file in tree.files().filter(|file| speaks_of_variables(file)) {
        for (at, line) in file.text.lines().enumerate() {
            let wrong = names(line)
                .into_iter()
                .filter(|name| !known.contains(name) && !WRONG_ON_PURPOSE.contains(&name.as_str()));
            findings.extend(wrong.map(|name| file.finding(at + 1, format!("{name} is not known"))));
        }
    }
    let complete = tree.get(COMPLETE).cloned().unwrap_or_else(|| File::new(COMPLETE, ""));
    let named: BTreeSet<String> = names(&complete.text).into_iter().collect();
    let missing = known.difference(&named);
    findings.extend(missing.map(|name| complete.finding(0, format!("{name} is not named"))));
    findings
}

fn speaks_of_variables(file: &File) -> bool {
    file.is_markdown()
        || ["Dockerfile", "docker-compose.yml", "justfile"].contains(&file.path.as_str())
        || [".ci/", "deploy/"].iter().any(|folder| file.path.starts_with(folder))
}

/// The names in `text`; a family such as `RAFT_TLS_*` is none.
fn names(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    let name = |word: &&str| word.starts_with(PREFIX) && !word.ends_with('_');
    words.filter(name).map(str::to_owned).collect()
}

/// What stands in the string literals of `source`.
fn strings(source: &str) -> Vec<String> {
    let without_comments: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(!code::tokens(&without_comments).is_empty(), "{TABLE} holds code");
    without_comments.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "// RAFT_COMMENTED\nstatic T: [&str; 2] = [\"RAFT_A\", \"RAFT_B_MS\"];";

    fn findings(docs: &str, compose: &str) -> Vec<String> {
        let files = [(TABLE, KNOWN), (COMPLETE, docs), ("docker-compose.yml", compose)];
        check(&Tree::of(&files)).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn known_and_documented() {
        assert_eq!(findings("RAFT_A, `RAFT_B_MS`, RAFT_TLS_*, RAFT_", "RAFT_A: 1"), [""; 0]);
    }

    #[test]
    fn unknown_or_undocumented() {
        assert_eq!(findings("RAFT_A RAFT_B_MS", "RAFT_B: 1"), ["RAFT_B is not known"]);
        assert_eq!(findings("RAFT_A", ""), ["RAFT_B_MS is not named"]);
        assert_eq!(findings("RAFT_A RAFT_B_MS RAFT_COMMENTED", "").len(), 1);
    }

    #[test]
    fn without_the_table_nothing_is_right() {
        assert_eq!(check(&Tree::of(&[("README.md", "")])).len(), 1);
    }
}
