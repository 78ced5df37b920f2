//! `--minimal-epsilon`: the smallest radius that breaks each sample, for the terminal and as a file.

use super::arguments::{EvaluateArguments, Verbosity};
use super::evaluate::{Prepared, Showing, blame};
use super::exit::{Blame, Failure};
use super::output::{OutputFile, OutputFolder};
use super::progress::Progress;
use super::terminal::stdout_style;
use crate::evaluate::minimal_epsilon;
use crate::report::csv::RowWriter;
use crate::report::minimal;

/// A search that was asked for, its file opened before anything runs.
#[derive(Debug)]
pub(super) struct Search {
    range: (f64, f64),
    file: Option<OutputFile>,
}

impl Search {
    /// The search that the arguments ask for, if they do.
    pub(super) fn open(
        arguments: &EvaluateArguments,
        folder: Option<&OutputFolder>,
    ) -> Result<Option<Self>, Failure> {
        let Some(range) = arguments.minimal_epsilon else {
            return Ok(None);
        };
        let file = folder.map(|folder| folder.file("minimal_epsilon.csv"));
        Ok(Some(Search {
            range: (range.low, range.high),
            file: file.transpose().or_bad_input()?,
        }))
    }

    /// Searches; the table for the terminal, and the file, which has its name once it is committed.
    pub(super) fn run(
        self,
        prepared: &Prepared,
        verbosity: Verbosity,
    ) -> Result<(String, Option<OutputFile>), Failure> {
        let progress = Progress::new(verbosity).labelled("smallest ε");
        let rows = minimal_epsilon(
            &prepared.model,
            &prepared.dataset,
            &prepared.threats.common,
            self.range,
            prepared.gradient.as_ref(),
            &mut Showing(&progress),
        );
        progress.finish();
        let rows = rows.map_err(blame)?;
        let file = self.file.map(|file| {
            let mut writer = RowWriter::new(file)?;
            for row in &rows {
                writer.write(row)?;
            }
            writer.finish()
        });
        let file = file.transpose().or_bad_input()?;
        Ok((minimal::render(&rows, stdout_style()), file))
    }
}
