//! The rows of one file as the decoder gives them, from any row group on.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::record::Row;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::super::error::{Error, Place};
use super::columns::Columns;

/// The file from the row group on that holds row `start`.
pub(super) fn reader(path: &Path, start: u64) -> Result<SerializedFileReader<File>, Error> {
    let file = File::open(path).map_err(|source| Error::Io {
        place: Place::file(path),
        source,
    })?;
    let mut end = 0;
    let behind = move |group: &RowGroupMetaData, _| {
        end += u64::try_from(group.num_rows()).unwrap_or(0);
        end > start
    };
    let options = ReadOptionsBuilder::new()
        .with_predicate(Box::new(behind))
        .build();
    guarded(path, || {
        SerializedFileReader::new_with_options(file, options)
    })
}

/// What the decoder gives, or the error of a file that it gives up on or panics at.
fn guarded<T>(
    path: &Path,
    action: impl FnOnce() -> Result<T, parquet::errors::ParquetError>,
) -> Result<T, Error> {
    let damaged = |reason: String| Error::Malformed {
        place: Place::file(path),
        format: "a Parquet file",
        reason,
    };
    match catch_unwind(AssertUnwindSafe(action)) {
        Ok(result) => result.map_err(|error| damaged(error.to_string())),
        Err(_) => Err(damaged("it is damaged: copy or download it again".into())),
    }
}

/// Rows as the decoder gives them.
pub(super) struct Stream {
    pub(super) columns: Columns,
    rows: RowIter<'static>,
    /// The number of the next row.
    pub(super) next: u64,
}

impl Stream {
    /// The rows from `start` on, of these two columns alone.
    pub(super) fn new(columns: &Columns, start: u64) -> Result<Self, Error> {
        let reader = reader(&columns.path, start)?;
        let wanted = |field: &&std::sync::Arc<Type>| {
            field.name() == columns.samples || field.name() == columns.labels
        };
        let metadata = reader.metadata();
        let schema = metadata.file_metadata().schema();
        let fields = schema.get_fields().iter().filter(wanted).cloned().collect();
        let total: i64 = metadata
            .row_groups()
            .iter()
            .map(|group| group.num_rows())
            .sum();
        let all = metadata.file_metadata().num_rows();
        // The groups that were left out lie before the first that is kept.
        let left_out = u64::try_from(all - total).unwrap_or(0);
        let name = schema.name().to_owned();
        let rows = guarded(&columns.path, || {
            let schema = Type::group_type_builder(&name)
                .with_fields(fields)
                .build()?;
            RowIter::from_file_into(Box::new(reader)).project(Some(schema))
        })?;
        let mut stream = Stream {
            columns: columns.clone(),
            rows,
            next: left_out,
        };
        while stream.next < start {
            stream.next_row()?;
        }
        Ok(stream)
    }

    pub(super) fn next_row(&mut self) -> Result<Row, Error> {
        let path = &self.columns.path;
        let row = guarded(path, || self.rows.next().transpose())?;
        self.next += 1;
        row.ok_or_else(|| {
            self.columns
                .malformed(self.next - 1, "the file ends before it")
        })
    }
}
