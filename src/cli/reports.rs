//! Reports that were written before, read back.

use super::exit::{Blame, Failure};
use super::missing;
use crate::outcome::Sheet;
use crate::report::csv::{ReadError, SamplesReader};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The file of a report that has a row for each sample.
const SAMPLES: &str = "samples.csv";

/// Why a report cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("{}: this folder has no {SAMPLES}; give a folder that --out has written, or the file itself", .0.display())]
    NoSamples(PathBuf),
    #[error("{}: cannot be opened", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: is a {kind}; give {SAMPLES}, which has a row for each sample, or its folder", .path.display())]
    OtherFile { path: PathBuf, kind: &'static str },
    #[error(
        "{0}: was written by another version of mohs, or is none of its {SAMPLES}; evaluate the model anew with this one"
    )]
    OtherSchema(#[source] ReadError),
}

/// Whether a baseline is a model, to be evaluated, rather than a report.
pub(super) fn is_model(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "onnx")
}

/// What became of every sample of an earlier evaluation, from a `samples.csv` or the folder that it is in.
pub(super) fn sheet(path: &Path) -> Result<Sheet, Failure> {
    missing::require(path, &[SAMPLES])?;
    let file = if path.is_dir() {
        let file = path.join(SAMPLES);
        if !file.is_file() {
            return Err(Failure::bad_input(ReportError::NoSamples(path.into())));
        }
        file
    } else {
        path.to_owned()
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let kind = match &*name {
        "summary.csv" => Some("summary"),
        "report.json" | "report.html" | "report.md" | "junit.xml" | "report.sarif" => {
            Some("rendered report")
        }
        _ => None,
    };
    if let Some(kind) = kind {
        return Err(Failure::bad_input(ReportError::OtherFile {
            path: file,
            kind,
        }));
    }
    let opened = File::open(&file)
        .map_err(|source| ReportError::Unreadable {
            path: file.clone(),
            source,
        })
        .or_bad_input()?;
    let reader = SamplesReader::new(BufReader::new(opened), file.display().to_string());
    let reader = reader.map_err(|error| match error {
        ReadError::MissingColumns { .. } => Failure::bad_input(ReportError::OtherSchema(error)),
        error => Failure::bad_input(error),
    })?;
    let mut sheet = Sheet::new();
    for outcome in reader {
        sheet.add(&outcome.or_bad_input()?);
    }
    Ok(sheet)
}
