//! Words that do not belong in the tree: hosts of package registries, numbers of a tracker that its
//! readers cannot see, work left for later, and private names for what the field has a name for.
//!
//! The words are spelt in halves here, since this file is part of the tree as well.

use crate::tree::{File, Finding};

/// Which mirror or proxy serves packages is each machine's own affair.
const REGISTRIES: [(&str, &str); 10] = [
    ("crates", ".io"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("deb.debian", ".org"),
    ("snapshot.debian", ".org"),
    ("registry.npmjs", ".org"),
    ("proxy.golang", ".org"),
    ("docker", ".io"),
    ("ghcr", ".io"),
    ("quay", ".io"),
];

const LEFT_OVER: [(&str, &str); 5] =
    [("FIX", "ME"), ("XX", "X"), ("TO", "DO"), ("todo", "!"), ("unimplemented", "!")];

/// Private names, each with the field's.
const RETIRED: [(&str, &str, &str); 12] = [
    ("Cha", "nce", "Rng"),
    ("Read", "Grant", "ReadState"),
    ("Log", "Room", "LogCacheLimits"),
    ("Dis", "missal", "ShutdownReason"),
    ("Dis", "owned", "PeerRejection"),
    ("Ask", "PreVote", "PreVoteRequest"),
    ("Ask", "Vote", "VoteRequest"),
    ("Wait", "ers", "PendingProposals"),
    ("Happen", "ing", "SimEvent"),
    ("Relo", "cate", "UpdateAddress"),
    ("rest_", "election_timer", "reset_election_timer"),
    ("hush_", "panics", "silence_panics"),
];

pub fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        let mut found = |what: String| findings.push(file.finding(at + 1, what));
        for (front, back) in REGISTRIES {
            let host = format!("{front}{back}");
            if line.contains(&host) {
                found(format!("the host {host}"));
            }
        }
        for (front, back) in LEFT_OVER {
            let word = format!("{front}{back}");
            if has_word(line, &word) {
                found(word);
            }
        }
        for (front, back, name) in RETIRED {
            let word = format!("{front}{back}");
            if has_word(line, &word) {
                found(format!("{word}: the field says {name}"));
            }
        }
        if !has_its_own_numbers(file) && tracker_number(line) {
            found("a tracker's number".to_owned());
        }
    }
    findings
}

/// Where such a thing is a colour, or part of a protocol of a test.
fn has_its_own_numbers(file: &File) -> bool {
    ["html", "css", "svg", "json", "txt"].iter().any(|end| file.has_extension(end))
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let before = line[..at].chars().next_back().is_some_and(is_part);
        let after = line[at + word.len()..].chars().next().is_some_and(is_part);
        !before && (!after || word.ends_with('!'))
    })
}

/// A number behind a bare `#` or behind "issue". `owner/name#1` and `etcd #1` say whose it is.
fn tracker_number(line: &str) -> bool {
    // What stands in backticks is quoted from elsewhere.
    let lower = line.split('`').step_by(2).collect::<Vec<_>>().join("``").to_lowercase();
    let begins_with_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let by_hash = lower.match_indices('#').any(|(at, _)| {
        let before = &lower[..at];
        let alone = before.chars().next_back().is_none_or(|c| " (\t".contains(c));
        let number = lower[at + 1..].split(|c: char| !c.is_alphanumeric() && c != '-').next();
        let is_number = number.is_some_and(|n| n.parse::<u64>().is_ok());
        alone && is_number && !before.ends_with("etcd ") && !before.ends_with("](")
    });
    let by_word = ["issue ", "issues/"].iter().any(|word| {
        lower.match_indices(word).any(|(at, _)| begins_with_digit(&lower[at + word.len()..]))
    });
    by_hash || by_word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&File::new(path, text)).len()
    }

    #[test]
    fn private_names_are_found() {
        for (front, back, name) in RETIRED {
            assert_eq!(count("src/raft/node.rs", &format!("use super::{front}{back};")), 1);
            assert_eq!(count("src/raft/node.rs", &format!("use super::{name};")), 0);
        }
    }

    #[test]
    fn registries_are_found() {
        for (front, back) in REGISTRIES {
            assert!(count("README.md", &format!("see https://{front}{back}/x")) >= 1);
        }
    }

    #[test]
    fn left_over_work_is_found() {
        for (front, back) in LEFT_OVER {
            assert_eq!(count("src/a.rs", &format!("    {front}{back}(later)")), 1);
            assert_eq!(count("src/a.rs", &format!("    a{front}{back}")), 0);
        }
    }

    #[test]
    fn tracker_numbers_are_found() {
        for (hash, word) in [("#", "12"), ("(#", "7)"), ("issue ", "2"), ("/issues/", "31")] {
            let text = format!("see {hash}{word}");
            assert_eq!(count("src/a.rs", &text), 1, "{text}");
        }
        for text in
            ["# 1. Heading", "a/b#1", "etcd #1", "`write #2`", "[x](#1-surfaces)", "#1a2b3c"]
        {
            assert_eq!(count("src/a.rs", text), 0, "{text}");
        }
        assert_eq!(count("page.html", &format!("color: {}333", "#")), 0);
    }
}
