//! Holds what the compiler does not: the arrows between the rooms, what the pure rooms may name,
//! the sizes, the module heads, the links of the docs and the names of the variables.
//!
//! Each rule is a function from text to findings, kept beside samples that break it, so that a rule
//! that can no longer fail fails its own test. It reads files and nothing else, and needs no part
//! of the crate. Deliberately absent: what rustfmt and clippy already hold (function length,
//! unwrap).

mod arrows;
mod banned;
mod code;
mod layout;
mod links;
mod paths;
mod spawns;
mod tree;
mod variables;
mod versions;
mod words;

use tree::{File, Finding, Tree};

/// Fails with every finding at once, one a line, so that one run is enough to mend them all.
fn report(rule: &str, findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{rule}:\n{}\n", lines.join("\n"));
}

fn for_each(
    tree: &Tree,
    wanted: fn(&File) -> bool,
    check: fn(&File) -> Vec<Finding>,
) -> Vec<Finding> {
    let checked: Vec<&File> = tree.files().filter(|file| wanted(file)).collect();
    assert!(!checked.is_empty(), "the rule found no file to look at");
    checked.into_iter().flat_map(check).collect()
}

#[test]
fn rooms_name_only_the_rooms_they_may() {
    let tree = Tree::read();
    report("arrows between rooms (docs/ARCHITECTURE.md)", &arrows::check(&tree));
}

#[test]
fn pure_rooms_name_no_clock_no_chance_no_world() {
    let tree = Tree::read();
    report("names banned in the pure rooms", &banned::check(&tree));
}

#[test]
fn tasks_and_threads_start_in_app() {
    let tree = Tree::read();
    report("tasks and threads start in src/app.rs", &spawns::check(&tree));
}

#[test]
fn lines_have_at_most_100_columns() {
    let findings = for_each(&Tree::read(), File::is_wrapped, layout::columns);
    report("at most 100 columns", &findings);
}

#[test]
fn files_have_at_most_600_lines() {
    let findings = for_each(&Tree::read(), File::is_rust, layout::lines);
    report("at most 600 lines a file", &findings);
}

#[test]
fn modules_say_why_they_exist() {
    let findings = for_each(&Tree::read(), File::is_rust, layout::head);
    report("a module begins with //! and says why it exists", &findings);
}

#[test]
fn cargo_targets_name_their_paths() {
    let findings = for_each(&Tree::read(), |file| file.path == "Cargo.toml", layout::targets);
    report("the image builds from the manifest and src alone", &findings);
}

#[test]
fn links_of_the_docs_resolve() {
    let tree = Tree::read();
    report("links in Markdown", &links::check(&tree));
}

#[test]
fn variables_are_the_documented_ones() {
    let tree = Tree::read();
    report("RAFT_* variables", &variables::check(&tree));
}

#[test]
fn versions_are_the_manifests() {
    let tree = Tree::read();
    report("versions stated outside Cargo.toml", &versions::check(&tree));
}

#[test]
fn words_that_do_not_belong_here() {
    let findings = for_each(&Tree::read(), File::is_written_by_us, words::check);
    report("words that do not belong in the tree", &findings);
}
