//! Where the samples come from and which of them are wanted.

use std::path::{Path, PathBuf};

/// Which file(s) to read and which rows of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The data file.
    pub path: PathBuf,
    /// The labels, where they have a file of their own that is not found by its name.
    pub labels: Option<PathBuf>,
    /// The name of the samples' array in an archive; `x` if not given.
    pub x_key: Option<String>,
    /// The name of the labels' array in an archive; `y` if not given.
    pub y_key: Option<String>,
    /// The label column of a table: its name, or its position from 0 (negative: from the end, −1 is the last).
    pub label_column: Option<String>,
    /// The number of rows to leave out at the beginning.
    pub offset: u64,
    /// The largest number of rows to read; all if not given.
    pub limit: Option<u64>,
}

/// An option of a [`Source`] that only some formats understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flag {
    /// [`Source::labels`].
    Labels,
    /// [`Source::x_key`].
    XKey,
    /// [`Source::y_key`].
    YKey,
    /// [`Source::label_column`].
    LabelColumn,
}

impl Flag {
    /// The option as a user writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Flag::Labels => "a second file",
            Flag::XKey => "--x-key",
            Flag::YKey => "--y-key",
            Flag::LabelColumn => "--label-column",
        }
    }
}

impl Source {
    /// All rows of the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Source {
            path: path.into(),
            ..Source::default()
        }
    }

    /// A file, or a pair `DATA,LABELS`; a file whose own name contains a comma is taken as one.
    #[must_use]
    pub fn from_argument(argument: &str) -> Self {
        match argument.split_once(',') {
            Some((data, labels)) if !labels.is_empty() && !Path::new(argument).exists() => Source {
                labels: Some(labels.into()),
                ..Source::new(data)
            },
            _ => Source::new(argument),
        }
    }

    /// The format options that were given.
    pub(super) fn flags(&self) -> impl Iterator<Item = Flag> {
        [
            (Flag::Labels, self.labels.is_some()),
            (Flag::XKey, self.x_key.is_some()),
            (Flag::YKey, self.y_key.is_some()),
            (Flag::LabelColumn, self.label_column.is_some()),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
    }
}

/// The file beside `path` that holds its labels, by its name: each word (between `_`, `-` and `.`) `x` becomes `y`, `images`
/// becomes `labels` and `idx3` becomes `idx1`; a name without such a word gets `_labels` before its extension.
/// Where a name is not UTF-8, what cannot be read of it is replaced, so that the file is not found.
pub(super) fn labels_beside(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let mut renamed = String::with_capacity(name.len());
    let mut replaced = false;
    for piece in name.split_inclusive(['_', '-', '.']) {
        let word = piece.trim_end_matches(['_', '-', '.']);
        let label_word = match word {
            "x" => "y",
            "X" => "Y",
            "images" => "labels",
            "Images" => "Labels",
            _ if is_idx_rank(word) => "idx1",
            _ => word,
        };
        replaced |= label_word != word && !is_idx_rank(word);
        renamed.push_str(label_word);
        renamed.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    if replaced {
        return path.with_file_name(renamed);
    }
    let (stem, extension) = match name.strip_suffix(".gz") {
        Some(stem) => (stem, ".gz"),
        None => (&*name, ""),
    };
    let (stem, inner) = stem.rfind('.').map_or((stem, ""), |dot| stem.split_at(dot));
    path.with_file_name(format!("{stem}_labels{inner}{extension}"))
}

/// Whether `word` is `idx` and a number of axes, as in `t10k-images-idx3-ubyte`.
fn is_idx_rank(word: &str) -> bool {
    word.strip_prefix("idx")
        .is_some_and(|rank| matches!(rank.as_bytes(), [b'1'..=b'9']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_separates_data_and_labels() {
        let source = Source::from_argument("a/x.npy,b/y.npy");
        assert_eq!(source.path, Path::new("a/x.npy"));
        assert_eq!(source.labels.as_deref(), Some(Path::new("b/y.npy")));
        assert_eq!(Source::from_argument("test.npz"), Source::new("test.npz"));
    }

    #[test]
    fn an_existing_file_with_a_comma_in_its_name_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a,b.npz");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(
            Source::from_argument(path.to_str().unwrap()),
            Source::new(&path)
        );
    }

    #[test]
    fn labels_are_found_by_the_name_of_the_data() {
        for (data, labels) in [
            ("d/x.npy", "d/y.npy"),
            ("x_test.npy", "y_test.npy"),
            ("train-X.npy", "train-Y.npy"),
            ("test_images.npy", "test_labels.npy"),
            ("cifar.npy", "cifar_labels.npy"),
            ("max.npy", "max_labels.npy"),
            ("test.npy.gz", "test_labels.npy.gz"),
            ("digits", "digits_labels"),
            ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
            ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
            ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ] {
            assert_eq!(labels_beside(Path::new(data)), Path::new(labels));
        }
    }
}
