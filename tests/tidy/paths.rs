//! The paths that a file names: `use` trees spelt out, `super` and `self` resolved.

use crate::code::Token;

/// One path as written, spelt out from its `use` tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub segments: Vec<String>,
    /// The name that a `use` gives it here.
    pub bound: Option<String>,
    /// The modules of this file, inline ones, that it stands in.
    pub inside: Vec<String>,
    pub line: usize,
}

impl Named {
    /// The path from the crate's root, if it is one of this crate's by its first word.
    pub fn absolute(&self, file_module: &[String]) -> Option<Vec<String>> {
        let mut rest = self.segments.as_slice();
        let mut base = Vec::new();
        if matches!(rest.first()?.as_str(), "self" | "super") {
            base = [file_module, &self.inside].concat();
        } else if rest.first()? != "crate" {
            return None;
        }
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    pub fn is(&self, wanted: &[&str]) -> bool {
        self.segments.len() >= wanted.len() && self.segments.iter().zip(wanted).all(|(a, b)| a == b)
    }

    pub fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// Every path of two words or more, and every imported name.
pub fn named(tokens: &[Token]) -> Vec<Named> {
    let mut walk = Walk { tokens, scopes: Vec::new(), found: Vec::new() };
    let mut at = 0;
    while at < tokens.len() {
        at = walk.step(at);
    }
    walk.found
}

struct Walk<'a> {
    tokens: &'a [Token],
    /// One for each open brace; named where the brace is a module's.
    scopes: Vec<Option<String>>,
    found: Vec<Named>,
}

impl Walk<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn is_name(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(Token::is_name)
    }

    fn step(&mut self, at: usize) -> usize {
        match self.text(at) {
            "{" => {
                let is_module = at >= 2 && self.text(at - 2) == "mod";
                self.scopes.push(is_module.then(|| self.text(at - 1).to_owned()));
            }
            "}" => drop(self.scopes.pop()),
            "use" => return self.tree(self.after_root(at + 1), Vec::new(), true),
            _ if self.begins_path(at) => return self.tree(at, Vec::new(), false),
            _ => {}
        }
        at + 1
    }

    fn begins_path(&self, at: usize) -> bool {
        let continues = at > 0
            && (self.text(at - 1) == "."
                || (self.text(at - 1) == "::" && at > 1 && self.is_name(at - 2)));
        self.is_name(at) && self.text(at + 1) == "::" && !continues
    }

    /// `use ::tokio` is `use tokio`.
    fn after_root(&self, at: usize) -> usize {
        if self.text(at) == "::" { at + 1 } else { at }
    }

    /// Reads the path or tree that begins at `at`, below `path`, and gives the token after it.
    fn tree(&mut self, mut at: usize, mut path: Vec<String>, is_use: bool) -> usize {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        while self.is_name(at) || self.text(at) == "*" {
            path.push(self.text(at).to_owned());
            at += 1;
            if self.text(at) != "::" {
                break;
            }
            at += 1;
            if self.text(at) == "{" && is_use {
                return self.group(at + 1, &path);
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut bound = is_use.then(|| path.last().cloned()).flatten();
        if is_use && self.text(at) == "as" {
            bound = Some(self.text(at + 1).to_owned());
            at += 2;
        }
        if !path.is_empty() {
            let inside = self.scopes.iter().flatten().cloned().collect();
            self.found.push(Named { segments: path, bound, inside, line });
        }
        at
    }

    fn group(&mut self, mut at: usize, path: &[String]) -> usize {
        while at < self.tokens.len() && self.text(at) != "}" {
            let after = self.tree(at, path.to_vec(), true);
            // A comma, or something not understood: go on behind it.
            at = if self.text(after) == "}" { after } else { after.max(at) + 1 };
        }
        at + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::tokens;

    fn texts(source: &str) -> Vec<String> {
        named(&tokens(source)).iter().map(Named::text).collect()
    }

    #[test]
    fn use_trees_are_spelt_out() {
        let source = "use crate::{a, b::{self, c as d, e::*}}; use ::tokio; pub use x;";
        let expected = ["crate::a", "crate::b", "crate::b::c", "crate::b::e::*", "tokio", "x"];
        assert_eq!(texts(source), expected);
    }

    #[test]
    fn paths_in_expressions_and_types_are_found() {
        let source =
            "fn f(a: crate::kv::K) -> b::C<d::E> { v.collect::<std::vec::Vec<u8>>(); g::<u8>() }";
        assert_eq!(texts(source), ["crate::kv::K", "b::C", "d::E", "std::vec::Vec", "g"]);
    }

    #[test]
    fn imports_know_their_names_here() {
        let found = named(&tokens("use crate::raft as r; use crate::kv;"));
        let bound: Vec<_> = found.iter().filter_map(|path| path.bound.as_deref()).collect();
        assert_eq!(bound, ["r", "kv"]);
    }

    #[test]
    fn super_counts_inline_modules() {
        let source = "use super::x; mod tests { use super::y; use super::super::super::kv::z; }";
        let module = ["raft".to_owned(), "log".to_owned()];
        let found: Vec<_> = named(&tokens(source))
            .iter()
            .filter_map(|path| path.absolute(&module))
            .map(|path| path.join("::"))
            .collect();
        assert_eq!(found, ["raft::x", "raft::log::y", "kv::z"]);
    }
}
