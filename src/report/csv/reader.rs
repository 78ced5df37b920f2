//! Rows read back, by the names of their columns.

use super::Row;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

/// Reads rows one by one: an iterator that ends after the first error.
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
        if header.is_empty() {
            return Err(ReadError::Empty { file });
        }
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
    /// There is not even a header.
    #[error("{file}: is empty")]
    Empty {
        /// The file.
        file: String,
    },
    /// The header lacks columns.
    #[error("{file}: the header lacks `{columns}`; is this file one of mohs's own?")]
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
