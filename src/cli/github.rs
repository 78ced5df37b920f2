//! What GitHub Actions shows of an evaluation: a page beside the run, and annotations.

use super::terminal::{PrintError, print};
use crate::report::Document;
use crate::report::markdown::{annotations, render};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Adds the report to the page that `GITHUB_STEP_SUMMARY` names, and prints annotations where `GITHUB_ACTIONS` is `true`.
///
/// A page that cannot be written is no reason to fail: the report itself is there.
pub(super) fn tell(document: &Document) -> Result<(), PrintError> {
    let page = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty());
    if let Some(path) = &page {
        append(path.as_ref(), &render(document));
    }
    if is_true(std::env::var_os("GITHUB_ACTIONS")) {
        print(&annotations(document))?;
    }
    Ok(())
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes())) {
        tracing::warn!("{}: the summary cannot be added: {error}", path.display());
    }
}

fn is_true(value: Option<OsString>) -> bool {
    value.is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_grows_and_one_that_cannot_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.md");
        append(&path, "one");
        append(&path, "two");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        append(folder.path(), "a folder takes no text");
        assert!(is_true(Some("true".into())) && !is_true(Some("1".into())) && !is_true(None));
    }
}
