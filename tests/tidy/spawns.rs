//! Tasks and threads start in one place, so that the table there is the whole truth about who runs.

use std::collections::BTreeSet;

use crate::banned::test_files;
use crate::code;
use crate::paths;
use crate::tree::{File, Finding, Tree};

/// Where else something may be started, and why.
const ELSEWHERE: [(&str, &str); 0] = [];

const STARTS: [&str; 5] = ["spawn", "spawn_blocking", "spawn_local", "spawn_scoped", "JoinSet"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let is_library = |file: &&File| {
        file.is_rust() && file.path.starts_with("src/") && !file.path.starts_with("src/bin/")
    };
    let files: Vec<&File> = tree.files().filter(is_library).collect();
    let tests: BTreeSet<String> = files.iter().flat_map(|file| test_files(file)).collect();
    let is_test = |file: &File| tests.iter().any(|start| file.path.starts_with(start));
    let may = |file: &File| {
        let is_app = file.path == "src/app.rs" || file.path.starts_with("src/app/");
        is_app || ELSEWHERE.iter().any(|(path, _)| *path == file.path)
    };
    files.into_iter().filter(|file| !may(file) && !is_test(file)).flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let tokens = code::without_tests(&code::tokens(&file.text));
    let imported = paths::named(&tokens).into_iter().filter_map(|path| path.bound);
    let imported: BTreeSet<String> = imported.collect();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    // A bare name may be an argument by which `app` lets a room start its tasks.
    let is_path = |at: usize| at > 0 && [".", "::"].contains(&text(at - 1));
    let is_call = |at: usize| {
        STARTS.contains(&text(at))
            && ["(", "::"].contains(&text(at + 1))
            && (is_path(at) || imported.contains(text(at)))
    };
    let calls = (0..tokens.len()).filter(|&at| is_call(at)).map(|at| &tokens[at]);
    let what = |name: &str| format!("`{name}` outside src/app.rs");
    calls.map(|token| file.finding(token.line, what(&token.text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn starting_something_elsewhere_is_found() {
        for text in [
            "fn f() { tokio::spawn(g()); }",
            "fn f() { std::thread::Builder::new().name(n).spawn(g) }",
            "fn f() { thread::spawn::<_, ()>(g) }",
            "fn f() { tokio::task::spawn_blocking(g) }",
            "use tokio::task::JoinSet; fn f() { let s = JoinSet::new(); }",
            "use tokio::spawn; fn f() { spawn(g()); }",
        ] {
            assert_eq!(count("src/node/driver.rs", text), 1, "{text}");
            assert_eq!(count("src/app.rs", text), 0, "{text}");
            assert_eq!(count("src/app/tasks.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn talk_of_it_and_tests_are_not() {
        for text in [
            "//! never calls tokio::spawn(x)\nfn spawn(a: u8) {}",
            "fn f(spawn: Spawn) { spawn(name, work) }",
            "#[cfg(test)] mod tests { fn f() { tokio::spawn(g()); } }",
        ] {
            assert_eq!(count("src/node/driver.rs", text), 0, "{text}");
        }
    }
}
