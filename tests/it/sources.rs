//! The crate's own sources, for tests of its shape.

use std::path::{Path, PathBuf};

/// The folder of the crate.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A source file.
#[derive(Debug)]
pub struct Source {
    /// The path from the root, with `/`.
    pub path: String,
    /// The text without comments.
    pub code: String,
    /// The text as it is.
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        // `//` in a string (an address) cuts the rest of its line too, which loses no import.
        let code: Vec<&str> = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
            .collect();
        Source {
            path: path.to_owned(),
            code: code.join("\n"),
            text: text.to_owned(),
        }
    }

    /// The module of the first level that the file belongs to; `None` for `lib.rs` and `main.rs`.
    pub fn module(&self) -> Option<String> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!["lib", "main"].contains(&name)).then(|| name.to_owned())
    }

    /// The name of the module that the file is.
    pub fn name(&self) -> String {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// Every Rust file below a folder, by path.
pub fn rust_files(folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&root().join(folder), &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "{folder}");
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let inside = path.strip_prefix(root()).unwrap().to_string_lossy();
            let text = std::fs::read_to_string(&path).unwrap();
            sources.push(Source::new(&inside.replace('\\', "/"), &text));
        }
    }
}
