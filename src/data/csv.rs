//! Tables of text, `.csv` or `.tsv`, also gzipped: one sample per line, one column of it the label.
//!
//! Columns are separated by commas, semicolons or tabs (whichever the first line has most of).
//! The first line is a header if one of its fields is no number.
//! The label column is the one named or numbered by `--label-column`, else the first named `label`, `y`, `class` or `target`.
//! All other columns, in order, are the values of the sample.

use std::path::Path;

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::arrays::read_error;
use super::columns::{label_column, list_columns, number, separator, whole_number};
use super::error::{Error, Place};
use super::stream::{Bytes, Stream};
use super::{Contents, Description, Flag, Reader, Rows, Source, labels};
use crate::tensor::DType;

const FORMAT: &str = "a table of numbers (CSV)";

/// The reader of tables.
pub(super) struct Csv;

impl Reader for Csv {
    fn name(&self) -> &'static str {
        "CSV (.csv, .tsv)"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".csv", ".tsv"]
    }

    fn flags(&self) -> &'static [Flag] {
        &[Flag::LabelColumn]
    }

    /// Any text might be a table, so only the name decides.
    fn recognises(&self, _: &Path, _: &[u8]) -> bool {
        false
    }

    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        let place = Place::file(&source.path);
        let stream = Stream::file(&source.path).map_err(|source| Error::Io {
            place: place.clone(),
            source,
        })?;
        let separator = stream.open(0).and_then(separator);
        let separator = separator.map_err(|source| read_error(&place, 0, 0, source))?;
        let mut table = Table {
            stream,
            separator,
            header: false,
            columns: 0,
            label: 0,
            description: Description {
                samples: 0,
                shape: Vec::new(),
                dtype: DType::F32,
                pixels: place.clone(),
                labels: place,
                notes: Vec::new(),
            },
        };
        table.read_layout(source)?;
        table.scan()?;
        Ok(Box::new(table))
    }
}

/// An opened table.
#[derive(Debug)]
struct Table {
    stream: Stream,
    separator: u8,
    header: bool,
    columns: usize,
    /// The position of the label column.
    label: usize,
    description: Description,
}

impl Table {
    /// Finds out from the first line what the columns are.
    fn read_layout(&mut self, source: &Source) -> Result<(), Error> {
        let place = &self.description.pixels;
        let mut lines = Lines::open(self, 0)?;
        if !lines.next()? {
            return Err(Error::Empty {
                place: place.clone(),
                shape: vec![0],
            });
        }
        let fields: Vec<_> = lines
            .record
            .iter()
            .map(|field| String::from_utf8_lossy(field).into_owned())
            .collect();
        self.header = fields
            .iter()
            .any(|field| !field.is_empty() && field.parse::<f64>().is_err());
        self.columns = fields.len();
        let names = self.header.then_some(fields.as_slice());
        let label = label_column(names, fields.len(), source.label_column.as_deref());
        self.label = label.map_err(|reason| Error::NoLabelColumn {
            path: source.path.clone(),
            reason,
            columns: list_columns(names, fields.len()),
        })?;
        let name = fields.get(self.label).filter(|_| self.header);
        let name = name.map(|name| format!(" `{name}`")).unwrap_or_default();
        self.description
            .notes
            .push(format!("the labels are column {}{name}", self.label));
        let column = format!("column {}{name}", self.label);
        self.description.labels = Place::member(&source.path, column);
        if self.columns < 2 {
            let reason =
                "it has a single column, so there are labels or values but not both".to_owned();
            return Err(Error::Malformed {
                place: place.clone(),
                format: FORMAT,
                reason,
            });
        }
        self.description.shape = vec![self.columns - 1];
        Ok(())
    }

    /// Counts the rows and finds out whether all values are whole numbers, as pixels are, in one pass.
    fn scan(&mut self) -> Result<(), Error> {
        let mut lines = Lines::open(self, 0)?;
        if self.header {
            lines.next()?;
        }
        let mut largest = Some(0);
        let mut samples = 0;
        while lines.next()? {
            lines.check_columns(samples)?;
            for (column, field) in lines.record.iter().enumerate() {
                if largest.is_some() && column != self.label {
                    let pair = largest.zip(whole_number(field));
                    largest = pair.map(|(largest, value)| largest.max(value));
                }
            }
            samples += 1;
        }
        if samples == 0 {
            let shape = vec![0, self.columns as u64 - 1];
            return Err(Error::Empty {
                place: self.description.pixels.clone(),
                shape,
            });
        }
        self.description.samples = samples;
        match largest {
            None => {}
            Some(0 | 1) => self.description.notes.push(
                "all values are 0 or 1: they are taken as they are, not as pixels".to_owned(),
            ),
            Some(2..=255) => self.description.dtype = DType::U8,
            Some(_) => self.description.dtype = DType::U32,
        }
        Ok(())
    }
}

impl Contents for Table {
    fn description(&self) -> &Description {
        &self.description
    }

    fn rows(&self, start: u64) -> Result<Box<dyn Rows>, Error> {
        let mut lines = Lines::open(self, self.description.samples)?;
        for _ in 0..start.saturating_add(self.header.into()) {
            lines.next()?;
        }
        Ok(Box::new(TableRows {
            lines,
            row: start,
            label: self.label,
            labels: self.description.labels.clone(),
        }))
    }
}

/// The lines of a table, header included.
struct Lines {
    reader: ::csv::Reader<Bytes>,
    record: ByteRecord,
    place: Place,
    columns: usize,
    samples: u64,
    read: u64,
}

impl Lines {
    fn open(table: &Table, samples: u64) -> Result<Self, Error> {
        let place = table.description.pixels.clone();
        let bytes = table.stream.open(0).map_err(|source| Error::Io {
            place: place.clone(),
            source,
        })?;
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(table.separator)
            .trim(::csv::Trim::All)
            .from_reader(bytes);
        Ok(Lines {
            reader,
            record: ByteRecord::new(),
            place,
            columns: table.columns,
            samples,
            read: 0,
        })
    }

    /// Reads the next line that is not empty; false at the end.
    fn next(&mut self) -> Result<bool, Error> {
        let read = self.reader.read_byte_record(&mut self.record);
        let more = read.map_err(|error| {
            let reason = error.to_string();
            match error.into_kind() {
                ErrorKind::Io(source) => read_error(&self.place, self.read, self.samples, source),
                _ => Error::Malformed {
                    place: self.place.clone(),
                    format: FORMAT,
                    reason,
                },
            }
        })?;
        self.read += u64::from(more);
        Ok(more)
    }

    fn check_columns(&self, row: u64) -> Result<(), Error> {
        if self.record.len() == self.columns {
            return Ok(());
        }
        let reason = format!(
            "it has {} columns, but the first line has {}: complete the line or remove it",
            self.record.len(),
            self.columns
        );
        Err(self.field_error(row, reason))
    }

    fn field_error(&self, row: u64, reason: String) -> Error {
        let line = self.record.position().map_or(0, ::csv::Position::line);
        Error::Field {
            place: self.place.clone(),
            row,
            line,
            reason,
        }
    }
}

struct TableRows {
    lines: Lines,
    row: u64,
    label: usize,
    labels: Place,
}

impl Rows for TableRows {
    fn read(&mut self, pixels: &mut [f32], labels: &mut [u32]) -> Result<(), Error> {
        let values = self.lines.columns.saturating_sub(1).max(1);
        for (sample, label) in pixels.chunks_mut(values).zip(labels) {
            if !self.lines.next()? {
                let place = self.labels.clone();
                return Err(Error::Truncated {
                    place,
                    row: self.row,
                    samples: self.lines.samples,
                });
            }
            self.lines.check_columns(self.row)?;
            let mut out = sample.iter_mut();
            for (column, field) in self.lines.record.iter().enumerate() {
                if column == self.label {
                    *label = self.class(field)?;
                } else if let Some(out) = out.next() {
                    *out = number(field).map_err(|reason| {
                        self.lines
                            .field_error(self.row, format!("column {column} {reason}"))
                    })?;
                }
            }
            self.row += 1;
        }
        Ok(())
    }
}

impl TableRows {
    fn class(&self, field: &[u8]) -> Result<u32, Error> {
        let text = String::from_utf8_lossy(field);
        let value = text
            .parse()
            .map_err(|_| format!("the label {text:?} is not a number"));
        value
            .and_then(labels::class)
            .map_err(|reason| Error::Label {
                place: self.labels.clone(),
                row: self.row,
                reason,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::super::fixtures::{Folder, gzip, message, read};
    use super::*;

    fn labels(dataset: &Dataset) -> Vec<u32> {
        read(dataset)
            .unwrap()
            .iter()
            .map(|sample| sample.label)
            .collect()
    }

    #[test]
    fn the_label_column_is_found_by_its_name() {
        let folder = Folder::new();
        for (name, text) in [
            ("a.csv", "p0,label,p1\n0.5,3,1\n0.25,4,0\n"),
            (
                "b.csv",
                "\u{feff}\"p0\";\"Label\";\"p1\"\r\n0.5;3;1\r\n\r\n0.25;4;0",
            ),
            ("c.tsv", "p0\tlabel\tp1\n0.5\t3\t1\n0.25\t4\t0\n"),
        ] {
            for text in [text.as_bytes().to_vec(), gzip(text.as_bytes())] {
                let dataset = folder.open(name, &text).unwrap();
                assert_eq!(
                    (dataset.len(), dataset.sample_shape(), dataset.dtype()),
                    (2, &[2][..], DType::F32)
                );
                assert_eq!(labels(&dataset), [3, 4]);
                assert_eq!(read(&dataset).unwrap()[1].pixels, [0.25, 0.0]);
            }
        }
    }

    #[test]
    fn the_label_column_is_chosen_by_name_or_position() {
        let folder = Folder::new();
        let headed = folder.write("headed.csv", b"digit,p0,2\n7,8,9\n");
        let bare = folder.write("bare.csv", b"7,8,9\n");
        for (path, column, label) in [
            (&headed, "digit", 7),
            (&headed, "1", 8),
            (&headed, "2", 9),
            (&bare, "0", 7),
            (&bare, "-1", 9),
            (&bare, "-3", 7),
        ] {
            let source = Source {
                label_column: Some(column.to_owned()),
                ..Source::new(path)
            };
            assert_eq!(
                labels(&Dataset::open(&source).unwrap()),
                [label],
                "{column}"
            );
        }
        for column in ["3", "-4", "none", "99999999999999999999"] {
            let source = Source {
                label_column: Some(column.to_owned()),
                ..Source::new(&bare)
            };
            let error = message(Dataset::open(&source).unwrap_err());
            assert!(
                error.contains("there is no column") && error.contains("0 to 2"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_unknown_label_column_lists_the_columns() {
        let folder = Folder::new();
        let error = message(folder.open("a.csv", b"digit,p0\n1,2\n").unwrap_err());
        assert!(
            error.contains("the columns are `digit`, `p0`: choose one with --label-column"),
            "{error}"
        );
        let error = message(folder.open("b.csv", b"1,2\n").unwrap_err());
        assert!(error.contains("no header"), "{error}");
    }

    #[test]
    fn whole_numbers_are_taken_as_pixels() {
        let folder = Folder::new();
        for (text, dtype) in [
            ("label,p\n1,0\n0,255\n", DType::U8),
            ("label,p\n1,0\n0,256\n", DType::U32),
            ("label,p\n1,0\n0,1\n", DType::F32),
            ("label,p\n1,0\n0,2.5\n", DType::F32),
            ("label,p\n1,0.5\n0,200\n", DType::F32),
            ("label,p\n1,-3\n0,200\n", DType::F32),
        ] {
            assert_eq!(
                folder.open("a.csv", text.as_bytes()).unwrap().dtype(),
                dtype,
                "{text}"
            );
        }
    }

    #[test]
    fn bad_rows_are_named_with_their_line() {
        let folder = Folder::new();
        for (text, reason) in [
            (
                "label,p\n1,0\n0,cat\n",
                "row 1 (near line 3): column 1 holds \"cat\", which is not a number",
            ),
            ("label,p\n1,\n", "row 0 (near line 2): column 1 is empty"),
            (
                "label,p\n1,0\n\n2,0,5\n",
                "row 1 (near line 3): it has 3 columns, but the first line has 2",
            ),
            (
                "label,p\n1.5,0\n",
                "(column 0 `label`), row 0: the label 1.5 is not a whole number",
            ),
            (
                "label,p\ncat,0\n",
                "row 0: the label \"cat\" is not a number",
            ),
            ("label,p\n0,nan\n", "row 0: value 0 of the sample is NaN"),
            ("label,p\n", "holds no samples"),
            ("", "holds no samples"),
            ("label\n1\n", "single column"),
        ] {
            let opened = folder.open("a.csv", text.as_bytes());
            let error = message(
                opened
                    .and_then(|dataset| dataset.validate(None, (0.0, 1.0)))
                    .unwrap_err(),
            );
            assert!(error.contains(reason), "{error}");
        }
    }
}
