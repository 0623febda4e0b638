//! Links in Markdown lead somewhere: to a file of the tree, and to a heading that exists.
//!
//! Links to other hosts are not followed: a test must not depend on the world.

use std::collections::BTreeMap;

use crate::tree::{File, Finding, Tree};

pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.files().filter(|file| file.is_markdown()).flat_map(|file| check_file(tree, file)).collect()
}

fn check_file(tree: &Tree, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(&file.text) {
        for target in targets(&text) {
            if let Err(what) = resolve(tree, file, &target) {
                findings.push(file.finding(line, format!("({target}): {what}")));
            }
        }
    }
    findings
}

/// The numbered lines outside code blocks, without their inline code.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut in_block = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let outside = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
            lines.push((at + 1, outside));
        }
    }
    lines
}

/// `[words](target)`, `![words](target "title")` and `[name]: target`.
fn targets(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("](") {
        rest = &rest[at + 2..];
        let end = rest.find(')').unwrap_or(rest.len());
        found.push(&rest[..end]);
    }
    if let Some((_, definition)) = line.trim_start().split_once("]: ")
        && line.trim_start().starts_with('[')
    {
        found.push(definition);
    }
    let first_word = |target: &str| target.split_whitespace().next().map(str::to_owned);
    found.into_iter().filter_map(first_word).collect()
}

fn resolve(tree: &Tree, from: &File, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { from.path.clone() } else { beside(&from.path, path)? };
    if !tree.holds(&path) {
        return Err(format!("no such file: {path}"));
    }
    match tree.get(&path) {
        Some(file) if file.is_markdown() && !anchor.is_empty() => {
            let known = anchors(&file.text);
            let hint = || format!("no such heading in {path}, which has: {}", known.join(" "));
            known.iter().any(|known| known == anchor).then_some(()).ok_or_else(hint)
        }
        _ => Ok(()),
    }
}

/// `target` as seen from the folder of `from`.
fn beside(from: &str, target: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or("leads out of the tree")?),
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

/// The headings as the usual renderers name them.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        }
        let heading = line.trim_start_matches('#');
        if in_block || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let slug = slug(heading.trim());
        let count = seen.entry(slug.clone()).or_default();
        found.push(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    found
}

fn slug(heading: &str) -> String {
    let mut words = String::new();
    let mut rest = heading;
    // A link in a heading counts by its words.
    while let Some((before, after)) = rest.split_once("](") {
        words.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    words.push_str(rest);
    let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        let other = "# The log\n## `open` and *close*, twice\n## The log\n```\n# no heading\n```\n";
        let tree = Tree::of(&[("docs/a.md", text), ("docs/wal.md", other), ("src/x.rs", "")]);
        check(&tree).len()
    }

    #[test]
    fn links_that_lead_somewhere() {
        for text in [
            "[a](wal.md) and ![b](./wal.md#the-log \"title\")",
            "[a](wal.md#the-log-1) [b](wal.md#open-and-close-twice)",
            "[a](../src/x.rs#L3) [b](../src/) [c](https://example.org/nothing)",
            "# Here\n[a](#here)",
            "[a]: wal.md",
            "`[a](nothing.md)`",
            "```\n[a](nothing.md)\n```",
        ] {
            assert_eq!(findings(text), 0, "{text}");
        }
    }

    #[test]
    fn links_that_lead_nowhere() {
        for text in [
            "[a](nothing.md)",
            "[a](x.rs)",
            "[a](../../wal.md)",
            "[a](wal.md#no-heading)",
            "# Here\n[a](#there)",
            "[a]: nothing.md",
            "[a](wal.md) [b](nothing.md)",
        ] {
            assert_eq!(findings(text), 1, "{text}");
        }
    }
}
