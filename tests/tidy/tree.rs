//! The files of the work tree, as text, and what a rule says about one.

use std::fmt;
use std::fs;
use std::path::Path;

/// A file of the tree: its path from the root, with `/`, and its text.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub fn has_extension(&self, wanted: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == wanted)
    }

    pub fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    pub fn is_markdown(&self) -> bool {
        self.has_extension("md")
    }

    /// Whether its lines are broken by hand at 100 columns. etcd's own files keep etcd's lines.
    pub fn is_wrapped(&self) -> bool {
        let scripts = ["Dockerfile", "justfile"].contains(&self.path.as_str())
            || self.path.starts_with(".ci/");
        let sources =
            ["rs", "proto", "yml", "yaml", "sh"].iter().any(|end| self.has_extension(end));
        (scripts || sources) && !self.path.starts_with("proto/etcd/")
    }

    /// Everything but what a tool writes.
    pub fn is_written_by_us(&self) -> bool {
        self.path.rsplit('/').next() != Some("Cargo.lock")
    }

    pub fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }
}

/// A line that breaks a rule; line 0 is the file as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// All text files below the root, but for what builds and clusters leave there.
pub struct Tree {
    files: Vec<File>,
}

const LEFT_OUT: [&str; 6] =
    [".git", "target", "data", "fuzz/target", "fuzz/corpus", "fuzz/artifacts"];

impl Tree {
    pub fn read() -> Self {
        let mut files = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        collect(root, root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    /// A tree of samples.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| File::new(path, text)).collect() }
    }

    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether `path` is a file or the folder of one.
    pub fn holds(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let entries = fs::read_dir(folder).expect("a folder of the tree can be listed");
    for entry in entries {
        let path = entry.expect("an entry of the tree can be read").path();
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        if LEFT_OUT.contains(&name.as_str()) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            files.push(File { path: name.replace('\\', "/"), text });
        }
    }
}
