//! The versions that the image and the README state are those of the manifest.

use crate::tree::{Finding, Tree};

/// Where a version of the manifest is stated again, and by which words before it.
const STATED: [(&str, &str, &str); 3] = [
    ("version", "Dockerfile", "ARG VERSION="),
    ("rust-version", "Dockerfile", "ARG RUST_IMAGE=rust:"),
    ("rust-version", "README.md", "Rust "),
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(manifest) = tree.get("Cargo.toml") else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (key, path, before) in STATED {
        let Some(version) = value(&manifest.text, key) else {
            findings.push(manifest.finding(0, format!("no {key}")));
            continue;
        };
        let Some(file) = tree.get(path) else { continue };
        let wanted = format!("{before}{version}");
        if !file.text.contains(&wanted) {
            findings.push(file.finding(0, format!("`{wanted}` is not stated")));
        }
    }
    findings
}

/// What `key = "value"` says.
fn value<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
    line.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: (&str, &str) = ("Cargo.toml", "version = \"1.2.3\"\nrust-version = \"1.95\"");

    fn count(dockerfile: &str, readme: &str) -> usize {
        check(&Tree::of(&[MANIFEST, ("Dockerfile", dockerfile), ("README.md", readme)])).len()
    }

    #[test]
    fn stated_versions_are_the_manifests() {
        let dockerfile = "ARG RUST_IMAGE=rust:1.95-slim\nARG VERSION=1.2.3";
        assert_eq!(count(dockerfile, "needs Rust 1.95"), 0);
        assert_eq!(count("ARG RUST_IMAGE=rust:1.94\nARG VERSION=1.2.2", "Rust 1.95"), 2);
        assert_eq!(count(dockerfile, "needs Rust 1.90"), 1);
    }
}
