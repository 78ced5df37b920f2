//! `mohs compare`: two reports, sample by sample.

use super::arguments::CompareArguments;
use super::exit::{Blame, Failure};
use super::output::{OutputFile, OutputFolder, commit};
use super::reports;
use super::terminal::{print, stdout_style};
use crate::outcome::Comparison;
use crate::report::comparison;
use crate::report::csv::{Row, RowWriter};

/// Runs the command.
pub(super) fn run(arguments: &CompareArguments) -> Result<(), Failure> {
    let files = arguments
        .out
        .as_deref()
        .map(|path| ComparisonFiles::in_folder(&OutputFolder::open(path).or_bad_input()?))
        .transpose()?;
    let first = reports::sheet(&arguments.first)?;
    let second = reports::sheet(&arguments.second)?;
    let names = [&arguments.first, &arguments.second].map(|path| path.display().to_string());
    let compared = Comparison::new((&names[0], first), (&names[1], second)).or_bad_input()?;
    for cell in &compared.unpaired {
        tracing::warn!("{cell} is in one of the two alone, and is left out");
    }
    if let Some(files) = files {
        commit(files.write(&compared)?).or_bad_input()?;
    }
    print(&comparison::render(&compared, stdout_style())).or_bad_input()
}

/// `comparison.csv` and `changes.csv`, opened before anything is computed.
#[derive(Debug)]
pub(super) struct ComparisonFiles {
    comparison: OutputFile,
    changes: OutputFile,
}

impl ComparisonFiles {
    pub(super) fn in_folder(folder: &OutputFolder) -> Result<Self, Failure> {
        Ok(ComparisonFiles {
            comparison: folder.file("comparison.csv").or_bad_input()?,
            changes: folder.file("changes.csv").or_bad_input()?,
        })
    }

    /// Fills the files; they have their names once they are committed.
    pub(super) fn write(self, compared: &Comparison) -> Result<Vec<OutputFile>, Failure> {
        Ok(vec![
            fill(self.comparison, compared.rows())?,
            fill(self.changes, compared.changes())?,
        ])
    }
}

fn fill<T: Row>(file: OutputFile, rows: impl Iterator<Item = T>) -> Result<OutputFile, Failure> {
    let mut writer = RowWriter::new(file).or_bad_input()?;
    for row in rows {
        writer.write(&row).or_bad_input()?;
    }
    writer.finish().or_bad_input()
}
