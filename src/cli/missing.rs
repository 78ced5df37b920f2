//! Files that a user named and that are not there: what is there instead.

use super::exit::Failure;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file that does not exist, with what the user may have meant.
#[derive(Debug, thiserror::Error)]
#[error("{}: no such file; {hint}", path.display())]
struct Missing {
    path: PathBuf,
    hint: String,
}

/// How many names are shown.
const SHOWN: usize = 5;

/// Refuses a path where there is nothing, before anything else is done.
///
/// Whatever else may be wrong with the file is left to what reads it.
pub(super) fn require(path: &Path, extensions: &[&str]) -> Result<(), Failure> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::bad_input(Missing {
            path: path.into(),
            hint: hint(path, extensions),
        })),
        _ => Ok(()),
    }
}

/// What the folder holds that has a fitting extension, the most similar names first.
fn hint(path: &Path, extensions: &[&str]) -> String {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return format!(
            "the folder {} does not exist or cannot be read",
            folder.display()
        );
    };
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names: Vec<(usize, String)> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| extensions.iter().any(|extension| name.ends_with(extension)))
        .map(|name| (distance(&wanted, &name), name))
        .collect();
    names.sort();
    let kinds = extensions.join(", ");
    let folder = if folder == Path::new(".") {
        "this folder".to_owned()
    } else {
        folder.display().to_string()
    };
    if names.is_empty() {
        return format!("there is no {kinds} file in {folder}");
    }
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<String> = names
        .into_iter()
        .take(SHOWN)
        .map(|(_, name)| name)
        .collect();
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("in {folder} there is {}{more}", shown.join(", "))
}

/// How many letters have to be put in, taken out or changed to make one name of the other (Levenshtein).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&b) {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = changed.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters() {
        assert_eq!(distance("modle.onnx", "model.onnx"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_most_similar_names_come_first_and_other_kinds_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["z.onnx", "model.onnx", "model.npz"] {
            fs::write(at(name), "").unwrap();
        }
        let text = |name: &str| {
            let failure = require(&at(name), &[".onnx"]).unwrap_err();
            failure
                .to_string()
                .replace(folder.path().to_str().unwrap(), "ROOT")
                .replace('\\', "/")
        };
        assert_eq!(
            text("modle.onnx"),
            "ROOT/modle.onnx: no such file; in ROOT there is model.onnx, z.onnx"
        );
        assert_eq!(
            text("none/model.onnx"),
            "ROOT/none/model.onnx: no such file; the folder ROOT/none does not exist or cannot be read"
        );
        for number in 0..7 {
            fs::write(at(&format!("{number}.onnx")), "").unwrap();
        }
        assert!(text("modle.onnx").ends_with(" and 4 more"));
        require(&at("model.onnx"), &[".onnx"]).unwrap();
        require(folder.path(), &[".onnx"]).unwrap();
    }
}
