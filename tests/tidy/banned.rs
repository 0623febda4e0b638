//! What the pure rooms may not name: time, chance and disk are their arguments.
//!
//! `raft` and `kv` must give the same outputs, bit for bit, for the same inputs. So besides the
//! world itself they do without hash tables, whose order differs from run to run.

use std::collections::BTreeSet;

use crate::arrows::room_of;
use crate::code::{self, Token};
use crate::paths;
use crate::tree::{File, Finding, Tree};

const PURE: [&str; 2] = ["raft", "kv"];

/// Banned wherever they stand as a word.
const WORDS: [&str; 15] = [
    "tokio",
    "tonic",
    "tracing",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "DefaultHasher",
    "thread_rng",
    "from_os_rng",
    "ThreadRng",
    "OsRng",
    "SysRng",
    "make_rng",
];

/// Banned as the beginning of a path.
const PATHS: [&[&str]; 9] = [
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "env"],
    &["std", "process"],
    &["std", "io"],
    &["rand", "rng"],
    &["rand", "random"],
    &["rand", "*"],
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let pure = |file: &&File| {
        file.is_rust() && room_of(&file.path).is_some_and(|room| PURE.contains(&room))
    };
    let files: Vec<&File> = tree.files().filter(pure).collect();
    let tests: BTreeSet<String> = files.iter().flat_map(|file| test_files(file)).collect();
    let is_test = |file: &File| tests.iter().any(|start| file.path.starts_with(start));
    files.into_iter().filter(|file| !is_test(file)).flat_map(check_file).collect()
}

/// How the paths of the test modules begin that `file` declares: `src/raft/tests` for both
/// `tests.rs` and what is in `tests/`.
pub fn test_files(file: &File) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').expect("a source file is below src/");
    let base = match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => file.path.trim_end_matches(".rs").to_owned(),
    };
    let modules = code::test_modules(&code::tokens(&file.text));
    modules
        .into_iter()
        .flat_map(|module| [format!("{base}/{module}.rs"), format!("{base}/{module}/")])
        .collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let tokens = code::without_tests(&code::tokens(&file.text));
    let is_banned = |token: &&Token| WORDS.contains(&token.text.as_str());
    let words = tokens.iter().filter(is_banned).map(|token| (token.line, token.text.clone()));
    let named = paths::named(&tokens);
    let paths = named
        .iter()
        .filter(|path| PATHS.iter().any(|banned| path.is(banned)))
        .map(|path| (path.line, path.text()));
    let found: BTreeSet<(usize, String)> = words.chain(paths).collect();
    found.into_iter().map(|(line, what)| file.finding(line, format!("`{what}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn the_world_is_banned_from_the_pure_rooms() {
        for text in [
            "use tokio::sync::mpsc;",
            "use std::{fmt, fs};",
            "fn f() { std::thread::yield_now(); }",
            "use std::time::{Duration, Instant};",
            "use std::collections::HashMap;",
            "fn f() { rand::rng(); }",
            "use rand::rngs::SysRng;",
        ] {
            assert_eq!(count("src/raft/node.rs", text), 1, "{text}");
            assert_eq!(count("src/kv/store.rs", text), 1, "{text}");
            assert_eq!(count("src/node/driver.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn words_about_the_world_are_not_the_world() {
        let text = "//! Knows no tokio.\nuse std::time::Duration; const A: &str = \"HashMap\";";
        assert_eq!(count("src/raft/node.rs", text), 0);
    }

    #[test]
    fn tests_may_read_their_scripts() {
        assert_eq!(count("src/raft/node.rs", "#[cfg(test)] mod t { use std::fs; }"), 0);
        let declared = [
            ("src/raft/mod.rs", "#[cfg(test)] mod testing;"),
            ("src/raft/testing.rs", "use std::fs;"),
            ("src/raft/testing/deep.rs", "use std::fs;"),
            ("src/raft/testing_not.rs", "use std::fs;"),
        ];
        let found = check(&Tree::of(&declared));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "src/raft/testing_not.rs");
    }
}
