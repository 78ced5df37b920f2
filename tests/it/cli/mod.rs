//! The command line as a user meets it: the real binary, run in a folder of its own.

mod bad_data;
mod bad_machine;
mod bad_model;
mod bad_usage;
mod compare;
mod diagnostics;
pub(crate) mod fixtures;
mod formats;
mod gate;
mod minimal;
mod models;
mod norms;
mod results;

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// A folder in which mohs runs, and which the test owns.
pub(crate) struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Sandbox {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Everything in the folder, folders too, by its path from here.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        list(self.folder.path(), self.folder.path(), &mut names);
        names.sort();
        names
    }

    /// mohs in this folder, with nothing of the caller's settings that change what it prints.
    pub(crate) fn mohs(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mohs"));
        command.current_dir(self.folder.path()).args(arguments);
        for variable in [
            "NO_COLOR",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "GITHUB_ACTIONS",
            "GITHUB_STEP_SUMMARY",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs mohs, which has to end well; stdout and stderr.
    pub(crate) fn run(&self, arguments: &[&str]) -> (String, String) {
        let (code, stdout, stderr) = texts(&self.mohs(arguments).output().unwrap());
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        (stdout, stderr)
    }

    /// Runs mohs on input that it has to refuse with exit code 2.
    pub(crate) fn refused(&self, arguments: &[&str], words: &[&str]) -> String {
        self.fails(self.mohs(arguments), 2, words)
    }

    /// Runs a command that has to fail with a code and one message, which has the words in it; nothing may be left behind.
    pub(crate) fn fails(&self, mut command: Command, code: i32, words: &[&str]) -> String {
        let before = self.names();
        let (found, stdout, stderr) = texts(&command.output().unwrap());
        assert_eq!(found, Some(code), "{command:?}: {stdout}{stderr}");
        assert_eq!(stdout, "", "{command:?}");
        assert_eq!(stderr.matches("mohs: error: ").count(), 1, "{stderr}");
        for panic in ["panicked", "RUST_BACKTRACE", "src/"] {
            assert!(!stderr.contains(panic), "{stderr}");
        }
        for word in words {
            assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
        }
        assert_eq!(self.names(), before, "{command:?} left something behind");
        stderr
    }
}

fn list(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        names.push(
            path.strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/"),
        );
        if path.is_dir() {
            list(root, &path, names);
        }
    }
}

pub(crate) fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A file of the folder `models`.
pub(crate) fn shipped(name: &str) -> String {
    format!("{}/models/{name}", env!("CARGO_MANIFEST_DIR"))
}
