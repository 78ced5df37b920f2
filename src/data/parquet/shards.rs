//! The files that together are a data set: one, or a folder of shards as the Hugging Face hub has them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::super::error::{Error, Place};

/// Whether a path is a folder with Parquet files right in it.
pub(super) fn is_folder(path: &Path) -> bool {
    path.is_dir() && listed(path).is_ok_and(|files| !files.is_empty())
}

/// The files of a data set in order: `path` itself, or the Parquet files in that folder, which have to be one split and all of it.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let files = listed(path)?;
    let names: Vec<Numbered> = files.iter().filter_map(|file| Numbered::of(file)).collect();
    let splits: BTreeSet<&str> = names.iter().map(|name| name.split.as_str()).collect();
    if splits.len() > 1 {
        return Err(malformed(
            path,
            format!(
                "it holds the splits {}; give the file of one of them, or a folder with the files of one alone",
                splits.into_iter().collect::<Vec<_>>().join(", ")
            ),
        ));
    }
    if let Some(of) = names.first().map(|name| name.of) {
        let present: BTreeSet<u64> = names.iter().map(|name| name.number).collect();
        let odd = names.len() != files.len() || names.iter().any(|name| name.of != of);
        if odd || present.len() != names.len() {
            let reason = "its files are not the parts of one data set, by their names; give one file, or the parts of one alone";
            return Err(malformed(path, reason.into()));
        }
        if let Some(missing) = (0..of).find(|number| !present.contains(number)) {
            return Err(malformed(
                path,
                format!("part {missing:05} of {of:05} is missing: download it again"),
            ));
        }
    }
    Ok(files)
}

/// What to say of a single file that is one of several.
pub(super) fn note(path: &Path) -> Option<String> {
    let name = Numbered::of(path)?;
    (name.of > 1).then(|| {
        format!(
            "this is one of {} parts of `{}`; a folder that holds them all is read whole",
            name.of, name.split
        )
    })
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed {
        place: Place::file(path),
        format: "a folder of Parquet files",
        reason,
    }
}

/// The Parquet files in a folder, by name; hidden ones are left out.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = std::fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    let mut files = read.map_err(|source| Error::Io {
        place: Place::file(folder),
        source,
    })?;
    files.retain(|path| {
        let name = name(path).to_lowercase();
        name.ends_with(".parquet") && !name.starts_with('.') && path.is_file()
    });
    files.sort();
    Ok(files)
}

pub(super) fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A name such as `test-00000-of-00003.parquet`.
struct Numbered {
    split: String,
    number: u64,
    of: u64,
}

impl Numbered {
    fn of(path: &Path) -> Option<Self> {
        let name = name(path);
        let stem = name.get(..name.len().checked_sub(".parquet".len())?)?;
        let (rest, of) = stem.rsplit_once("-of-")?;
        // A digest may follow the count: `-of-00003-8f6f6a9c`.
        let of = of.split('-').next()?.parse().ok()?;
        let (split, number) = rest.rsplit_once('-')?;
        Some(Numbered {
            split: split.to_owned(),
            number: number.parse().ok()?,
            of,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{Folder, message};
    use super::*;

    fn folder(names: &[&str]) -> Folder {
        let folder = Folder::new();
        for name in names {
            folder.write(name, b"PAR1");
        }
        folder
    }

    fn found(names: &[&str]) -> Result<Vec<String>, String> {
        let folder = folder(names);
        let files = files(&folder.path("")).map_err(message)?;
        Ok(files.iter().map(|file| name(file)).collect())
    }

    #[test]
    fn parts_come_in_the_order_of_their_names() {
        let parts = [
            "test-00001-of-00002.parquet",
            "README.md",
            ".hidden.parquet",
            "test-00000-of-00002.parquet",
        ];
        assert_eq!(found(&parts).unwrap(), [parts[3], parts[0]]);
        assert_eq!(found(&["0001.parquet", "0000.PARQUET"]).unwrap().len(), 2);
        let digests = [
            "t-00000-of-00002-8f6f.parquet",
            "t-00001-of-00002-1a2b.parquet",
        ];
        assert_eq!(found(&digests).unwrap(), digests);
        assert!(!is_folder(&folder(&["README.md"]).path("")));
    }

    #[test]
    fn several_splits_or_a_missing_part_are_refused() {
        let splits = found(&[
            "test-00000-of-00001.parquet",
            "train-00000-of-00001.parquet",
        ]);
        let error = splits.unwrap_err();
        assert!(error.contains("the splits test, train"), "{error}");
        let error = found(&["test-00000-of-00003.parquet", "test-00002-of-00003.parquet"]);
        let error = error.unwrap_err();
        assert!(error.contains("part 00001 of 00003 is missing"), "{error}");
        for odd in [
            &["test-00000-of-00001.parquet", "more.parquet"][..],
            &["test-00000-of-00001.parquet", "test-00000-of-00002.parquet"],
        ] {
            let error = found(odd).unwrap_err();
            assert!(error.contains("not the parts of one"), "{error}");
        }
    }

    #[test]
    fn a_single_part_is_said_to_be_one() {
        let said = note(Path::new("data/test-00000-of-00003.parquet")).unwrap();
        assert!(said.contains("one of 3 parts of `test`"), "{said}");
        for whole in ["test-00000-of-00001.parquet", "test.parquet", "a"] {
            assert_eq!(note(Path::new(whole)), None);
        }
    }
}
