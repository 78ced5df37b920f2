//! `samples.csv` and `summary.csv`: written as rows come, read back to the same numbers.
//!
//! The columns and their order are a contract with whoever reads the files (the module [`crate::outcome`] documents each).
//! Floats are decimals without exponent, as short as they can be while reading back to the same number; NaN is an empty field.
//! Readers find columns by name and skip those that they do not know, so that a file with more columns stays readable.

mod cell;

use crate::outcome::{SampleOutcome, SummaryRow};
use cell::Cell;
use std::fmt;
use std::io::{self, Read, Write};
use std::marker::PhantomData;

/// Writes `samples.csv`.
pub type SamplesWriter<W> = RowWriter<W, SampleOutcome>;
/// Writes `summary.csv`.
pub type SummaryWriter<W> = RowWriter<W, SummaryRow>;
/// Reads `samples.csv`.
pub type SamplesReader<R> = RowReader<R, SampleOutcome>;
/// Reads `summary.csv`.
pub type SummaryReader<R> = RowReader<R, SummaryRow>;

/// A record that is a row of a file: [`SampleOutcome`] or [`SummaryRow`].
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
    index, label, clean_prediction, attack, norm, epsilon, adversarial_prediction, robust, clean_loss, loss, linf, l2, l1, steps,
    restart,
);

row!(SummaryRow:
    model, attack, norm, epsilon, steps, restarts, samples, clean_accuracy, robust_accuracy, robust_accuracy_low,
    robust_accuracy_high, attack_success_rate, mean_linf, mean_l2, gradient_evaluations, seconds,
);

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

/// Reads rows one by one: an iterator of [`SampleOutcome`]s or [`SummaryRow`]s that ends after the first error.
pub struct RowReader<R, T> {
    records: csv::StringRecordsIntoIter<R>,
    /// The name of the file, for messages.
    file: String,
    /// Where in a record each of the columns is.
    positions: Vec<usize>,
    width: usize,
    failed: bool,
    row: PhantomData<fn() -> T>,
}

impl<R: Read, T: Row> RowReader<R, T> {
    /// Reads the header. `file` is what messages call the source.
    ///
    /// # Errors
    ///
    /// Where `reader` cannot be read, or the header lacks a column or has one twice.
    pub fn new(reader: R, file: impl Into<String>) -> Result<Self, ReadError> {
        let file = file.into();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
        let header = match reader.headers() {
            Ok(header) => header.clone(),
            Err(source) => return Err(ReadError::Unreadable { file, source }),
        };
        let mut positions = Vec::with_capacity(T::COLUMNS.len());
        let mut missing = Vec::new();
        for &column in T::COLUMNS {
            let mut found = header
                .iter()
                .enumerate()
                .filter(|(_, name)| name.trim() == column);
            match (found.next(), found.next()) {
                (None, _) => missing.push(column),
                (Some((position, _)), None) => positions.push(position),
                (Some(_), Some(_)) => return Err(ReadError::RepeatedColumn { file, column }),
            }
        }
        if !missing.is_empty() {
            return Err(ReadError::MissingColumns {
                file,
                columns: missing.join("`, `"),
            });
        }
        Ok(RowReader {
            records: reader.into_records(),
            file,
            positions,
            width: header.len(),
            failed: false,
            row: PhantomData,
        })
    }

    fn parse(&self, record: &csv::StringRecord) -> Result<T, ReadError> {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != self.width {
            return Err(ReadError::Width {
                file: self.file.clone(),
                line,
                found: record.len(),
                expected: self.width,
            });
        }
        // Every position lies within the header, and the record is as wide as that.
        let text = |column: usize| &record[self.positions[column]];
        T::read(
            |column| Ok(text(column)),
            |column, expected| ReadError::Value {
                file: self.file.clone(),
                line,
                column: T::COLUMNS[column],
                value: text(column).to_owned(),
                expected,
            },
        )
    }
}

impl<R: Read, T: Row> Iterator for RowReader<R, T> {
    type Item = Result<T, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = match self.records.next()? {
            Ok(record) => self.parse(&record),
            Err(source) => Err(ReadError::Unreadable {
                file: self.file.clone(),
                source,
            }),
        };
        self.failed = row.is_err();
        Some(row)
    }
}

impl<R, T> fmt::Debug for RowReader<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowReader")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Why a file of rows cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes cannot be read, or are no UTF-8.
    #[error("{file}: cannot be read as CSV")]
    Unreadable {
        /// The file.
        file: String,
        /// What went wrong.
        #[source]
        source: csv::Error,
    },
    /// The header lacks columns.
    #[error("{file}: the header has no column `{columns}`; is this file one of mohs's own?")]
    MissingColumns {
        /// The file.
        file: String,
        /// The names, joined.
        columns: String,
    },
    /// The header names a column twice.
    #[error("{file}: the header has the column `{column}` twice")]
    RepeatedColumn {
        /// The file.
        file: String,
        /// The name.
        column: &'static str,
    },
    /// A row is shorter or longer than the header.
    #[error("{file}, line {line}: {found} fields where the header has {expected}")]
    Width {
        /// The file.
        file: String,
        /// The line, from 1, the header being the first.
        line: u64,
        /// The number of fields in the row.
        found: usize,
        /// The number of columns.
        expected: usize,
    },
    /// A field does not hold what its column holds.
    #[error("{file}, line {line}, column `{column}`: `{value}` is not {expected}")]
    Value {
        /// The file.
        file: String,
        /// The line, from 1, the header being the first.
        line: u64,
        /// The column.
        column: &'static str,
        /// The field.
        value: String,
        /// What the column holds.
        expected: &'static str,
    },
}
