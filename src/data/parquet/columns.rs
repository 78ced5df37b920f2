//! Which columns of a file are read, by the names that data sets use.

use std::path::{Path, PathBuf};

use parquet::record::{Field, Row};

use super::super::Source;
use super::super::error::{Error, Place};

/// What columns of samples are called, the first that is there being taken.
const SAMPLES: [&str; 5] = ["image", "img", "pixel_values", "x", "features"];

/// What columns of labels are called.
const LABELS: [&str; 5] = ["label", "labels", "fine_label", "y", "target"];

/// The columns that are read.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) path: PathBuf,
    pub(super) samples: String,
    pub(super) labels: String,
}

impl Columns {
    /// The columns that `source` asks for, or the first that have a usual name, of a file at `path` with columns of these `names`.
    pub(super) fn choose(path: &Path, names: &[String], source: &Source) -> Result<Self, Error> {
        Ok(Columns {
            path: path.into(),
            samples: samples_column(path, names, source.x_key.as_deref())?,
            labels: labels_column(path, names, source.label_column.as_deref())?,
        })
    }

    pub(super) fn place(&self, column: &str) -> Place {
        Place::member(&self.path, column)
    }

    pub(super) fn malformed(&self, row: u64, reason: &str) -> Error {
        Error::Malformed {
            place: self.place(&self.samples),
            format: "a column of images or of lists of numbers",
            reason: format!("row {row}: {reason}"),
        }
    }

    /// The field of a row that is in `column`.
    pub(super) fn field<'a>(
        &self,
        row: &'a Row,
        column: &str,
        number: u64,
    ) -> Result<&'a Field, Error> {
        let mut fields = row.get_column_iter();
        let found = fields.find(|(name, _)| *name == column);
        found
            .map(|(_, field)| field)
            .ok_or_else(|| self.malformed(number, "the column is missing"))
    }
}

fn samples_column(path: &Path, names: &[String], asked: Option<&str>) -> Result<String, Error> {
    let wanted = match asked {
        Some(name) => names.iter().find(|own| *own == name),
        None => SAMPLES
            .iter()
            .find_map(|name| names.iter().find(|own| own == name)),
    };
    wanted.cloned().ok_or_else(|| Error::NoSuchArray {
        path: path.into(),
        key: asked.unwrap_or("image").to_owned(),
        available: names.join(", "),
        flag: "--x-key",
    })
}

fn labels_column(path: &Path, names: &[String], asked: Option<&str>) -> Result<String, Error> {
    let wanted = match asked {
        Some(name) => {
            let by_position = || {
                name.parse::<usize>()
                    .ok()
                    .and_then(|position| names.get(position))
            };
            names.iter().find(|own| *own == name).or_else(by_position)
        }
        None => LABELS
            .iter()
            .find_map(|name| names.iter().find(|own| own == name)),
    };
    wanted.cloned().ok_or_else(|| Error::NoLabelColumn {
        path: path.into(),
        reason: match asked {
            Some(name) => format!("there is no column `{name}`"),
            None => format!("none of {} is there", LABELS.join(", ")),
        },
        columns: names.join(", "),
    })
}
