//! The arrows between the rooms of the house, which one crate's compiler does not see.
//!
//! `raft` decides agreement and `kv` decides meaning, and neither knows anybody: that is what lets
//! the simulation and the model run them as they are. The rest of the table keeps a change in one
//! room from reaching further than its neighbours. Tests may reach further, to stand in for one.

use std::collections::BTreeSet;

use crate::banned::test_files;
use crate::code::{self, Token};
use crate::paths::{self, Named};
use crate::tree::{File, Finding, Tree};

/// How much of a room may be named.
enum Reach {
    Room,
    /// Only these files of it, their public items, and these names.
    Part {
        files: &'static [&'static str],
        names: &'static [&'static str],
    },
}
use Reach::{Part, Room};

/// What agreement is about, without the machinery that reaches it.
const RAFT_NOUNS: Reach =
    Part { files: &["src/raft/types.rs", "src/raft/message.rs", "src/raft/change.rs"], names: &[] };
const RAFT_TYPES: Reach = Part { files: &["src/raft/types.rs"], names: &["Role"] };
/// What agreement is about, and how it may change who takes part.
const RAFT_REQUESTS: Reach =
    Part { files: &["src/raft/types.rs", "src/raft/change.rs"], names: &["Role"] };
/// The door of the engine room: what a request can ask of a node, and what it is told.
const NODE_DOOR: Reach =
    Part { files: &["src/node/handle.rs", "src/node/status.rs", "src/node/error.rs"], names: &[] };

struct Arrows {
    from: &'static str,
    to: &'static [(&'static str, Reach)],
}

/// `main`, `lib` and `app` wire the house and may name everything.
const WIRING: [&str; 3] = ["main", "lib", "app"];

/// What every room may name: marks and mutants, which are nothing in a production build.
const INSTRUMENTS: &str = "testpoints";

const ARROWS: [Arrows; 13] = [
    Arrows { from: "server", to: &[("node", NODE_DOOR), ("raft", RAFT_REQUESTS), ("kv", Room)] },
    Arrows {
        from: "api",
        to: &[
            ("server", Room),
            ("node", NODE_DOOR),
            ("raft", RAFT_REQUESTS),
            ("kv", Room),
            ("proto", Room),
            ("metrics", Room),
        ],
    },
    Arrows {
        from: "admin",
        to: &[
            ("server", Room),
            ("node", NODE_DOOR),
            ("raft", RAFT_TYPES),
            ("kv", Room),
            ("metrics", Room),
        ],
    },
    Arrows {
        from: "transport",
        to: &[("raft", RAFT_NOUNS), ("proto", Room), ("metrics", Room), ("log_limit", Room)],
    },
    Arrows {
        from: "node",
        to: &[
            ("raft", Room),
            ("kv", Room),
            ("storage", Room),
            ("metrics", Room),
            ("log_limit", Room),
        ],
    },
    Arrows { from: "storage", to: &[("raft", RAFT_TYPES)] },
    Arrows { from: "raft", to: &[] },
    Arrows { from: "kv", to: &[] },
    Arrows { from: "config", to: &[] },
    Arrows { from: "metrics", to: &[] },
    Arrows { from: "proto", to: &[] },
    Arrows { from: "testpoints", to: &[] },
    Arrows { from: "log_limit", to: &[] },
];

/// The room that a source file is in. The binaries beside the node are crates of their own.
pub fn room_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    let first = below.split('/').next()?;
    (first != "bin").then(|| first.trim_end_matches(".rs"))
}

fn module_of(path: &str) -> Vec<String> {
    let below = path.trim_start_matches("src/").trim_end_matches(".rs");
    let names = below.split('/').filter(|name| !["mod", "lib", "main"].contains(name));
    names.map(str::to_owned).collect()
}

fn in_a_room(file: &File) -> bool {
    file.is_rust() && room_of(&file.path).is_some()
}

pub fn check(tree: &Tree) -> Vec<Finding> {
    let sources: Vec<&File> = tree.files().filter(|file| in_a_room(file)).collect();
    let rooms: BTreeSet<&str> = sources.iter().filter_map(|file| room_of(&file.path)).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(|file| test_files(file)).collect();
    let is_test = |file: &File| tests.iter().any(|start| file.path.starts_with(start));
    let mut findings = Vec::new();
    for file in sources.into_iter().filter(|file| !is_test(file)) {
        let Some(room) = room_of(&file.path).filter(|room| !WIRING.contains(room)) else {
            continue;
        };
        let Some(arrows) = ARROWS.iter().find(|arrows| arrows.from == room) else {
            findings.push(file.finding(0, format!("no arrows are drawn for the room `{room}`")));
            continue;
        };
        findings.extend(check_file(tree, file, &rooms, arrows));
    }
    findings
}

fn check_file(tree: &Tree, file: &File, rooms: &BTreeSet<&str>, arrows: &Arrows) -> Vec<Finding> {
    let module = module_of(&file.path);
    let tokens = code::without_tests(&code::tokens(&file.text));
    let mut findings = Vec::new();
    for (path, target) in resolved(&paths::named(&tokens), &module, rooms) {
        if target[0] == arrows.from || target[0] == INSTRUMENTS {
            continue;
        }
        let reach = arrows.to.iter().find(|(room, _)| *room == target[0]).map(|(_, reach)| reach);
        if !reach.is_some_and(|reach| allows(reach, tree, &target)) {
            let what = format!("`{}` must not name `{}`", arrows.from, target.join("::"));
            findings.push(file.finding(path.line, what));
        }
    }
    findings
}

/// The paths that lead into a room, from the crate's root: written out, or through a `use` of the
/// room in the same file.
fn resolved(
    named: &[Named],
    module: &[String],
    rooms: &BTreeSet<&str>,
) -> Vec<(Named, Vec<String>)> {
    let mut found = Vec::new();
    let mut imported: Vec<(String, String)> = Vec::new();
    for path in named {
        let Some(target) = path.absolute(module) else {
            continue;
        };
        if target.first().is_none_or(|first| !rooms.contains(first.as_str())) {
            continue;
        }
        if let ([room], Some(bound)) = (target.as_slice(), &path.bound) {
            imported.push((bound.clone(), room.clone()));
        }
        found.push((path.clone(), target));
    }
    for path in named {
        let through = imported.iter().find(|(bound, _)| *bound == path.segments[0]);
        if let Some((_, room)) = through {
            let rest = path.segments[1..].iter().cloned();
            let target: Vec<String> = std::iter::once(room.clone()).chain(rest).collect();
            found.push((path.clone(), target));
        }
    }
    found
}

fn allows(reach: &Reach, tree: &Tree, target: &[String]) -> bool {
    let (Part { files, names }, [_, name, ..]) = (reach, target) else {
        return true; // the room as a whole, or its bare name, whose uses are looked at themselves
    };
    let is_in = |path: &&str| {
        let stem = path.trim_end_matches(".rs").rsplit('/').next();
        stem == Some(name.as_str())
            || tree.get(path).is_some_and(|file| public_items(file).contains(name))
    };
    names.contains(&name.as_str()) || files.iter().any(is_in)
}

fn public_items(file: &File) -> BTreeSet<String> {
    let tokens = code::tokens(&file.text);
    let is_item = |token: &Token| {
        ["struct", "enum", "type", "const", "static", "trait", "fn"].contains(&token.text.as_str())
    };
    let windows = tokens.windows(3);
    windows
        .filter(|three| three[0].text == "pub" && is_item(&three[1]))
        .map(|three| three[2].text.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: (&str, &str) = ("src/raft/types.rs", "pub struct Term(u64);");
    const CORE: (&str, &str) = ("src/raft/node.rs", "pub struct RaftNode;");
    const KV: (&str, &str) = ("src/kv/mod.rs", "");

    fn findings(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::of(&[TYPES, CORE, KV, (path, text)]);
        check(&tree).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_room_names_what_its_arrows_lead_to() {
        assert_eq!(findings("src/storage/wal.rs", "use crate::raft::types::Term;"), [""; 0]);
        assert_eq!(
            findings("src/storage/wal.rs", "use crate::raft; type T = raft::Term;"),
            [""; 0]
        );
        assert_eq!(findings("src/app.rs", "use crate::{kv, raft::RaftNode};"), [""; 0]);
        assert_eq!(
            findings("src/raft/log.rs", "use super::types::Term; use crate::raft::x;"),
            [""; 0]
        );
        let test = "#[cfg(test)] mod tests { use crate::kv; }";
        assert_eq!(findings("src/raft/log.rs", test), [""; 0]);
        assert_eq!(findings("src/bin/drill/main.rs", "use crate::kv;"), [""; 0]);
    }

    #[test]
    fn a_room_names_no_other() {
        for text in [
            "use crate::kv;",
            "use crate::{raft::types, kv::Command};",
            "fn f(_: crate::kv::Command) {}",
            "use super::super::kv::Command;",
            "mod inner { use super::super::super::kv; }",
            "// use crate::raft\nuse crate::kv as meaning;",
        ] {
            let found = findings("src/raft/log.rs", text);
            assert!(found.len() == 1 && found[0].contains("`kv"), "{text}: {found:?}");
        }
    }

    #[test]
    fn nouns_do_not_lead_to_the_machinery() {
        for text in [
            "use crate::raft::RaftNode;",
            "use crate::raft::node::RaftNode;",
            "use crate::raft::*;",
            "use crate::raft; fn f(_: raft::RaftNode) {}",
            "use crate::raft as core; fn f(_: core::RaftNode) {}",
        ] {
            assert_eq!(findings("src/storage/wal.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_new_room_must_be_drawn() {
        assert_eq!(findings("src/attic.rs", "").len(), 1);
    }
}
