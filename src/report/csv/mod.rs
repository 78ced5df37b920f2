//! `samples.csv`, `summary.csv` and the tables of a comparison: written as rows come, read back to the same numbers.
//!
//! The columns and their order are a contract with whoever reads the files (the module [`crate::outcome`] documents each).
//! Floats are decimals without exponent, as short as they can be while reading back to the same number; NaN is an empty field.
//! Readers find columns by name and skip those that they do not know, so that a file with more columns stays readable.

mod cell;
mod reader;

use super::{Document, Format};
use crate::outcome::{ChangeRow, ComparisonRow, MinimalRow, SampleOutcome, SummaryRow};
use cell::Cell;
pub use reader::{ReadError, RowReader};
use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;

/// Writes `samples.csv`.
pub type SamplesWriter<W> = RowWriter<W, SampleOutcome>;
/// Writes `summary.csv`.
pub type SummaryWriter<W> = RowWriter<W, SummaryRow>;
/// Reads `samples.csv`.
pub type SamplesReader<R> = RowReader<R, SampleOutcome>;
/// Reads `summary.csv`.
pub type SummaryReader<R> = RowReader<R, SummaryRow>;

/// A record that is a row of a file, such as [`SampleOutcome`] or [`SummaryRow`].
pub trait Row: sealed::Cells + Sized {
    /// The names of the columns, in order.
    const COLUMNS: &'static [&'static str];
}

mod sealed {
    /// How a record becomes cells and back; not for use outside.
    pub trait Cells: Sized {
        /// One text per column.
        fn write(&self, cell: &mut dyn FnMut(String) -> csv::Result<()>) -> csv::Result<()>;
        /// Asks for the text of one column after the other; `what` says what a column holds.
        fn read<'t, E>(
            text: impl FnMut(usize) -> Result<&'t str, E>,
            wrong: impl Fn(usize, &'static str) -> E,
        ) -> Result<Self, E>;
    }
}

/// Makes a record a row whose columns are its fields, in the order given.
macro_rules! row {
    ($record:ident: $($field:ident),* $(,)?) => {
        impl Row for $record {
            const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        impl sealed::Cells for $record {
            fn write(&self, cell: &mut dyn FnMut(String) -> csv::Result<()>) -> csv::Result<()> {
                // Exhaustive, so that a field without a column does not compile.
                let $record { $($field),* } = self;
                $(cell($field.to_cell())?;)*
                Ok(())
            }

            fn read<'t, E>(
                mut text: impl FnMut(usize) -> Result<&'t str, E>,
                wrong: impl Fn(usize, &'static str) -> E,
            ) -> Result<Self, E> {
                let mut column = 0..;
                Ok($record {
                    $($field: {
                        let column = column.next().unwrap_or_default();
                        Cell::from_cell(text(column)?).map_err(|expected| wrong(column, expected))?
                    }),*
                })
            }
        }
    };
}

row!(SampleOutcome:
    index, label, clean_prediction, attack, norm, epsilon, adversarial_prediction, robust, clean_loss, loss, linf, l2, l1, l0,
    steps, restart,
);

row!(SummaryRow:
    model, attack, norm, epsilon, steps, restarts, samples, clean_accuracy, robust_accuracy, robust_accuracy_low,
    robust_accuracy_high, attack_success_rate, mean_linf, mean_l2, gradient_evaluations, seconds, untrustworthy,
);

row!(ComparisonRow:
    first, second, attack, norm, epsilon, samples, first_robust_accuracy, second_robust_accuracy, difference, difference_low,
    difference_high, first_only, second_only, p_value, more_robust,
);

row!(ChangeRow: index, attack, norm, epsilon, change);

row!(MinimalRow: index, label, attack, norm, minimal_epsilon, withstood);

/// `summary.csv`
#[derive(Debug)]
pub(super) struct SummaryCsv;

impl Format for SummaryCsv {
    fn name(&self) -> &'static str {
        "summary"
    }

    fn file_name(&self) -> &'static str {
        "summary.csv"
    }

    fn about(&self) -> &'static str {
        "A row per attack and ε, and one per ε over all attacks"
    }

    fn is_default(&self) -> bool {
        true
    }

    fn render(&self, document: &Document) -> io::Result<Vec<u8>> {
        let mut writer = SummaryWriter::new(Vec::new())?;
        for row in &document.summary.rows {
            writer.write(row)?;
        }
        writer.finish()
    }
}

/// Writes rows one by one; the header comes first, even where no row follows.
pub struct RowWriter<W: Write, T> {
    inner: csv::Writer<W>,
    row: PhantomData<fn(&T)>,
}

impl<W: Write, T: Row> RowWriter<W, T> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Where `writer` does not take it.
    pub fn new(writer: W) -> io::Result<Self> {
        let mut inner = csv::Writer::from_writer(writer);
        inner.write_record(T::COLUMNS)?;
        Ok(RowWriter {
            inner,
            row: PhantomData,
        })
    }

    /// Writes one row.
    ///
    /// # Errors
    ///
    /// Where the writer does not take it.
    pub fn write(&mut self, row: &T) -> io::Result<()> {
        row.write(&mut |cell| self.inner.write_field(cell))?;
        self.inner.write_record(None::<&[u8]>)?;
        Ok(())
    }

    /// Flushes, and gives the writer back.
    ///
    /// # Errors
    ///
    /// Where the writer does not take what is left.
    pub fn finish(self) -> io::Result<W> {
        self.inner.into_inner().map_err(|error| error.into_error())
    }
}

impl<W: Write, T> fmt::Debug for RowWriter<W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowWriter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Norm;

    fn outcome() -> SampleOutcome {
        SampleOutcome {
            index: 17,
            label: 3,
            clean_prediction: 3,
            attack: "pgd:steps=20,restarts=5".to_owned(),
            norm: Norm::Linf,
            epsilon: 8.0 / 255.0,
            adversarial_prediction: 5,
            robust: false,
            clean_loss: 1.5e-7,
            loss: 2.25,
            linf: 0.1 + 0.2,
            l2: f64::NAN,
            l1: 12.0,
            l0: 100.0,
            steps: 40,
            restart: 1,
        }
    }

    fn summary_row() -> SummaryRow {
        SummaryRow {
            model: "digits \"v2\".onnx".to_owned(),
            attack: "worst-case".to_owned(),
            norm: Norm::L2,
            epsilon: 0.5,
            steps: 41,
            restarts: 6,
            samples: 10,
            clean_accuracy: 0.9,
            robust_accuracy: 0.9,
            robust_accuracy_low: 0.554_983_88,
            robust_accuracy_high: 0.997_471_4,
            attack_success_rate: 0.0,
            mean_linf: f64::NAN,
            mean_l2: f64::NAN,
            gradient_evaluations: 1_820,
            seconds: 2.5,
            untrustworthy: String::new(),
        }
    }

    fn written<T: Row>(rows: &[T]) -> String {
        let mut writer = RowWriter::new(Vec::new()).unwrap();
        for row in rows {
            writer.write(row).unwrap();
        }
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    fn message<T: Row + fmt::Debug>(text: &str) -> String {
        RowReader::<_, T>::new(text.as_bytes(), "old/summary.csv")
            .and_then(Iterator::collect::<Result<Vec<T>, _>>)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn samples_have_the_columns_of_the_contract() {
        insta::assert_snapshot!(written(&[outcome()]), @r#"
        index,label,clean_prediction,attack,norm,epsilon,adversarial_prediction,robust,clean_loss,loss,linf,l2,l1,l0,steps,restart
        17,3,3,"pgd:steps=20,restarts=5",linf,0.03137254901960784,5,false,0.00000015,2.25,0.30000000000000004,,12,100,40,1
        "#);
    }

    #[test]
    fn summaries_have_the_columns_of_the_contract() {
        insta::assert_snapshot!(written(&[summary_row()]), @r#"
        model,attack,norm,epsilon,steps,restarts,samples,clean_accuracy,robust_accuracy,robust_accuracy_low,robust_accuracy_high,attack_success_rate,mean_linf,mean_l2,gradient_evaluations,seconds,untrustworthy
        "digits ""v2"".onnx",worst-case,l2,0.5,41,6,10,0.9,0.9,0.55498388,0.9974714,0,,,1820,2.5,
        "#);
    }

    #[test]
    fn a_file_without_rows_has_a_header() {
        assert_eq!(written::<SampleOutcome>(&[]).lines().count(), 1);
    }

    #[test]
    fn rows_read_back_as_they_were() {
        let samples = written(&[
            outcome(),
            SampleOutcome {
                index: 18,
                robust: true,
                ..outcome()
            },
        ]);
        let read: Vec<SampleOutcome> = SamplesReader::new(samples.as_bytes(), "samples.csv")
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        // Byte for byte, since NaN differs from itself.
        assert_eq!(written(&read), samples);
        assert!(read[0].l2.is_nan() && read[1].robust);
        assert_eq!(read[0].linf, 0.1 + 0.2);

        let summary = written(&[summary_row()]);
        let read: Vec<SummaryRow> = SummaryReader::new(summary.as_bytes(), "summary.csv")
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(written(&read), summary);
        assert_eq!(read[0].model, "digits \"v2\".onnx");
    }

    #[test]
    fn columns_are_found_by_name_and_others_skipped() {
        let text = written(&[summary_row()]);
        let shuffled: String = text
            .lines()
            .map(|line| {
                let (first, rest) = line.split_once(",worst").map_or_else(
                    || {
                        line.split_once(",attack")
                            .map(|(a, b)| (a, format!("attack{b}")))
                            .unwrap()
                    },
                    |(a, b)| (a, format!("worst{b}")),
                );
                format!("{rest},extra,{first}\r\n")
            })
            .collect();
        let row = SummaryReader::new(format!("\u{feff}{shuffled}").as_bytes(), "summary.csv")
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!(written(&[row]), text);
    }

    #[test]
    fn bad_files_are_refused_with_file_line_and_column() {
        let good = written(&[summary_row(), summary_row()]);
        let messages = [
            message::<SummaryRow>(""),
            message::<SummaryRow>(&good.replace("norm,epsilon", "Norm,Epsilon")),
            message::<SummaryRow>(&good.replace("steps,restarts", "steps,steps")),
            message::<SummaryRow>(&good.replace("steps,restarts", "steps,restarts,steps")),
            message::<SummaryRow>(&good.replacen(",l2,", ",l7,", 1)),
            message::<SummaryRow>(&good.replacen(",6,", ",-6,", 1)),
            message::<SummaryRow>(good.trim_end().trim_end_matches(',')),
            message::<SampleOutcome>(&written(&[outcome()]).replace("false", "no")),
        ];
        insta::assert_snapshot!(messages.join("\n"), @"
        old/summary.csv: is empty
        old/summary.csv: the header lacks `norm`, `epsilon`; is this file one of mohs's own?
        old/summary.csv: the header has the column `steps` twice
        old/summary.csv: the header has the column `steps` twice
        old/summary.csv, line 2, column `norm`: `l7` is not one of linf, l2, l1, l0
        old/summary.csv, line 2, column `restarts`: `-6` is not a whole number below 2^32
        old/summary.csv, line 3: 16 fields where the header has 17
        old/summary.csv, line 2, column `robust`: `no` is not true or false
        ");
    }

    #[test]
    fn a_reader_ends_after_its_first_error() {
        let text = written(&[summary_row(), summary_row()]).replace(",41,", ",x,");
        let reader = SummaryReader::new(text.as_bytes(), "summary.csv").unwrap();
        assert_eq!(reader.map(|row| row.is_ok()).collect::<Vec<_>>(), [false]);
    }
}
