//! The forms that a report is written in.

use super::document::Document;
use super::{csv, html, json, junit, markdown, sarif};
use std::io;

/// A form of a report: the whole of a [`Document`] in, bytes out.
pub trait Format: Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;
    /// The file that it is written to, in the folder of the report.
    fn file_name(&self) -> &'static str;
    /// What it holds and whom it is for: one line, without a full stop.
    fn about(&self) -> &'static str;
    /// Whether it is written where nobody says which are.
    fn is_default(&self) -> bool {
        false
    }
    /// The bytes of the file.
    ///
    /// # Errors
    ///
    /// Where an encoder refuses what it is given.
    fn render(&self, document: &Document) -> io::Result<Vec<u8>>;
}

/// Every form. `samples.csv` is not among them: it is written row by row while the evaluation runs, by
/// [`SamplesWriter`](super::csv::SamplesWriter), so that memory does not grow with the data.
pub const FORMATS: &[&dyn Format] = &[
    &csv::SummaryCsv,
    &json::Json,
    &html::Html,
    &markdown::Markdown,
    &junit::Junit,
    &sarif::Sarif,
];

#[cfg(test)]
mod tests {
    use super::super::document::fixtures::{document, example, gated};
    use super::*;

    #[test]
    fn names_and_files_are_unique() {
        for (position, format) in FORMATS.iter().enumerate() {
            let mut earlier = FORMATS.iter().take(position);
            let same = |other: &&&dyn Format| {
                other.name() == format.name() || other.file_name() == format.file_name()
            };
            assert!(!earlier.any(|other| same(&other)), "{}", format.name());
        }
    }

    #[test]
    fn every_format_takes_every_document_and_gives_text() {
        let mut pictured = gated();
        pictured.examples.push(example());
        for document in [Document::default(), document(), gated(), pictured] {
            for format in FORMATS {
                let bytes = format.render(&document).unwrap();
                let text = String::from_utf8(bytes).unwrap();
                assert!(text.ends_with('\n'), "{}", format.name());
                assert!(!text.contains("NaN"), "{}", format.name());
            }
        }
    }
}
