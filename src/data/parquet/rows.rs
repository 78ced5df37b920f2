//! The rows of a Parquet file, row group after row group.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use super::super::error::{Error, Place};
use super::super::picture::Target;
use super::super::{Contents, Description, Rows, Source, labels};
use crate::tensor::DType;

/// What columns of samples are called, the first that is there being taken.
const SAMPLES: [&str; 5] = ["image", "img", "pixel_values", "x", "features"];

/// What columns of labels are called.
const LABELS: [&str; 5] = ["label", "labels", "fine_label", "y", "target"];

/// The columns that are read.
#[derive(Debug, Clone)]
struct Columns {
    path: PathBuf,
    samples: String,
    labels: String,
}

/// What a sample is made from.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Encoded images.
    Pictures(Target),
    /// Lists of numbers, of this shape.
    Numbers(Vec<usize>),
}

/// Opens a file: reads its schema, and the first row for the shape of a sample.
pub(super) fn open(source: &Source) -> Result<Box<dyn Contents>, Error> {
    let path = &source.path;
    let reader = reader(path, 0)?;
    let metadata = reader.metadata().file_metadata();
    let samples = u64::try_from(metadata.num_rows()).unwrap_or(0);
    let names: Vec<String> = metadata
        .schema()
        .get_fields()
        .iter()
        .map(|f| f.name().to_owned())
        .collect();
    let columns = Columns {
        path: path.clone(),
        samples: samples_column(path, &names, source.x_key.as_deref())?,
        labels: labels_column(path, &names, source.label_column.as_deref())?,
    };
    let (pixels, label) = (
        columns.place(&columns.samples),
        columns.place(&columns.labels),
    );
    if samples == 0 {
        return Err(Error::Empty {
            place: pixels,
            shape: vec![0],
        });
    }
    let first = columns.stream(0)?.next_row()?;
    let field = columns.field(&first, &columns.samples, 0)?;
    let wrong = |reason: String| columns.malformed(0, &reason);
    let (kind, dtype) = match encoded(field) {
        Some(bytes) => (
            Kind::Pictures(Target::of_image(bytes).map_err(wrong)?),
            DType::U8,
        ),
        None => {
            let (shape, dtype) = shape(field).map_err(wrong)?;
            (Kind::Numbers(shape), dtype)
        }
    };
    let mut notes = vec![format!(
        "samples are the column `{}`, labels the column `{}`",
        columns.samples, columns.labels
    )];
    if let Kind::Pictures(target) = &kind {
        notes.push(target.note());
    }
    let description = Description {
        samples,
        shape: kind.shape(),
        dtype,
        pixels,
        labels: label,
        notes,
    };
    Ok(Box::new(Opened {
        columns,
        kind,
        description,
    }))
}

/// The file from the row group on that holds row `start`.
fn reader(path: &Path, start: u64) -> Result<SerializedFileReader<File>, Error> {
    let file = File::open(path).map_err(|source| Error::Io {
        place: Place::file(path),
        source,
    })?;
    let mut end = 0;
    let behind = move |group: &parquet::file::metadata::RowGroupMetaData, _| {
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

impl Columns {
    fn place(&self, column: &str) -> Place {
        Place::member(&self.path, column)
    }

    fn malformed(&self, row: u64, reason: &str) -> Error {
        Error::Malformed {
            place: self.place(&self.samples),
            format: "a column of images or of lists of numbers",
            reason: format!("row {row}: {reason}"),
        }
    }

    /// The rows from `start` on, of these two columns alone.
    fn stream(&self, start: u64) -> Result<Stream, Error> {
        let reader = reader(&self.path, start)?;
        let wanted = |field: &&std::sync::Arc<Type>| {
            field.name() == self.samples || field.name() == self.labels
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
        let rows = guarded(&self.path, || {
            let schema = Type::group_type_builder(&name)
                .with_fields(fields)
                .build()?;
            RowIter::from_file_into(Box::new(reader)).project(Some(schema))
        })?;
        let mut stream = Stream {
            columns: self.clone(),
            rows,
            next: left_out,
        };
        while stream.next < start {
            stream.next_row()?;
        }
        Ok(stream)
    }

    fn field<'a>(&self, row: &'a Row, column: &str, number: u64) -> Result<&'a Field, Error> {
        let mut fields = row.get_column_iter();
        let found = fields.find(|(name, _)| *name == column);
        found
            .map(|(_, field)| field)
            .ok_or_else(|| self.malformed(number, "the column is missing"))
    }
}

/// The bytes of an encoded image: of the column itself, or of its member `bytes`.
fn encoded(field: &Field) -> Option<&[u8]> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data()),
        Field::Group(row) => {
            let mut members = row.get_column_iter();
            members
                .find(|(name, _)| *name == "bytes")
                .and_then(|(_, field)| match field {
                    Field::Bytes(bytes) => Some(bytes.data()),
                    _ => None,
                })
        }
        _ => None,
    }
}

fn number(field: &Field) -> Option<(f64, DType)> {
    Some(match *field {
        Field::Byte(value) => (value.into(), DType::I8),
        Field::Short(value) => (value.into(), DType::I16),
        Field::Int(value) => (value.into(), DType::I32),
        Field::Long(value) => (value as f64, DType::I64),
        Field::UByte(value) => (value.into(), DType::U8),
        Field::UShort(value) => (value.into(), DType::U16),
        Field::UInt(value) => (value.into(), DType::U32),
        Field::ULong(value) => (value as f64, DType::U64),
        Field::Float16(value) => (value.to_f64(), DType::F16),
        Field::Float(value) => (value.into(), DType::F32),
        Field::Double(value) => (value, DType::F64),
        _ => return None,
    })
}

/// The shape of nested lists, by the first of each, and the type of their numbers.
fn shape(field: &Field) -> Result<(Vec<usize>, DType), String> {
    if let Some((_, dtype)) = number(field) {
        return Ok((Vec::new(), dtype));
    }
    let Field::ListInternal(list) = field else {
        return Err("it holds neither an image's bytes nor a list of numbers; choose another column with --x-key".into());
    };
    let first = list.elements().first().ok_or("the list is empty")?;
    let (mut inner, dtype) = shape(first)?;
    inner.insert(0, list.len());
    Ok((inner, dtype))
}

/// Writes nested lists of just this shape, row by row.
fn flatten(
    field: &Field,
    shape: &[usize],
    values: &mut std::slice::IterMut<'_, f32>,
) -> Result<(), String> {
    match (shape, field) {
        ([], field) => {
            let (number, _) = number(field).ok_or("a value is missing or no number")?;
            #[expect(clippy::cast_possible_truncation, reason = "models compute in float32")]
            let single = number as f32;
            if let Some(value) = values.next() {
                *value = single;
            }
            Ok(())
        }
        ([length, rest @ ..], Field::ListInternal(list)) if list.len() == *length => list
            .elements()
            .iter()
            .try_for_each(|element| flatten(element, rest, values)),
        ([length, ..], Field::ListInternal(list)) => Err(format!(
            "a list has {} elements, and that of the first row {length}",
            list.len()
        )),
        _ => Err("a list is missing".into()),
    }
}

impl Kind {
    fn shape(&self) -> Vec<usize> {
        match self {
            Kind::Pictures(target) => target.shape(),
            Kind::Numbers(shape) => shape.clone(),
        }
    }

    fn read(&self, field: &Field, pixels: &mut [f32]) -> Result<(), String> {
        match self {
            Kind::Pictures(target) => {
                let bytes = encoded(field)
                    .ok_or("the image has no bytes; store images in the file, not their paths")?;
                target.read(bytes, pixels)
            }
            Kind::Numbers(shape) => flatten(field, shape, &mut pixels.iter_mut()),
        }
    }
}

/// An opened file.
struct Opened {
    columns: Columns,
    kind: Kind,
    description: Description,
}

impl Contents for Opened {
    fn description(&self) -> &Description {
        &self.description
    }

    fn rows(&self, start: u64) -> Result<Box<dyn Rows>, Error> {
        Ok(Box::new(Reading {
            stream: self.columns.stream(start)?,
            kind: self.kind.clone(),
        }))
    }

    fn fitted(&self, shape: &[usize]) -> Option<Box<dyn Contents>> {
        let Kind::Pictures(_) = self.kind else {
            return None;
        };
        let target = Target::of_model(shape)?;
        let mut description = self.description.clone();
        description.shape = target.shape();
        // The last note is of the size.
        description.notes.pop();
        description.notes.push(target.note_of_model());
        Some(Box::new(Opened {
            columns: self.columns.clone(),
            kind: Kind::Pictures(target),
            description,
        }))
    }
}

/// Rows as the decoder gives them.
struct Stream {
    columns: Columns,
    rows: RowIter<'static>,
    /// The number of the next row.
    next: u64,
}

impl Stream {
    fn next_row(&mut self) -> Result<Row, Error> {
        let path = &self.columns.path;
        let row = guarded(path, || self.rows.next().transpose())?;
        self.next += 1;
        row.ok_or_else(|| {
            self.columns
                .malformed(self.next - 1, "the file ends before it")
        })
    }
}

struct Reading {
    stream: Stream,
    kind: Kind,
}

impl Rows for Reading {
    fn read(&mut self, pixels: &mut [f32], labels: &mut [u32]) -> Result<(), Error> {
        let values = self.kind.shape().iter().product::<usize>().max(1);
        for (pixels, label) in pixels.chunks_mut(values).zip(labels) {
            let number = self.stream.next;
            let row = self.stream.next_row()?;
            let columns = &self.stream.columns;
            let sample = columns.field(&row, &columns.samples, number)?;
            self.kind
                .read(sample, pixels)
                .map_err(|reason| columns.malformed(number, &reason))?;
            let class = match self::number(columns.field(&row, &columns.labels, number)?) {
                Some((value, _)) => labels::class(value),
                None => Err("the label is no number".into()),
            };
            *label = class.map_err(|reason| Error::Label {
                place: columns.place(&columns.labels),
                row: number,
                reason,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::super::fixtures::{Folder, exercise, message, read};
    use super::super::super::{Dataset, Options, Source};

    /// A file that `tests/parquet/make.py` has written.
    fn made(name: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests", "parquet", name]
            .iter()
            .collect()
    }

    fn open(name: &str) -> Dataset {
        Dataset::open(&Source::new(made(name))).unwrap()
    }

    #[test]
    fn images_are_decoded_through_all_row_groups_and_fitted_to_a_model() {
        let dataset = open("images.parquet");
        assert_eq!((dataset.len(), dataset.sample_shape()), (7, &[3, 4, 5][..]));
        let samples = read(&dataset).unwrap();
        let labels: Vec<u32> = samples.iter().map(|sample| sample.label).collect();
        assert_eq!(labels, [0, 1, 2, 0, 1, 2, 0]);
        for (index, sample) in (0u8..).zip(&samples) {
            // Red is ten times the row's number, green counts columns, blue rows.
            let pixel = |channel: usize, row: usize, column: usize| {
                sample.pixels[(channel * 4 + row) * 5 + column]
            };
            assert_eq!(
                [pixel(0, 0, 0), pixel(1, 0, 4), pixel(2, 3, 0)],
                [f32::from(10 * index), 4.0, 3.0]
            );
        }
        let options = Options {
            bounds: (0.0, 255.0),
            input_shape: Some(vec![1, 2, 2]),
            ..Options::default()
        };
        let fitted = dataset.prepared(&options).unwrap();
        assert_eq!(read(&fitted).unwrap()[0].pixels.len(), 4);
    }

    #[test]
    fn a_stream_may_begin_in_any_row_group() {
        for offset in 0..7 {
            let source = Source {
                offset,
                ..Source::new(made("images.parquet"))
            };
            let samples = read(&Dataset::open(&source).unwrap()).unwrap();
            assert_eq!(samples.len() as u64, 7 - offset);
            assert_eq!(
                samples[0].pixels[0],
                (10 * offset) as f32,
                "offset {offset}"
            );
        }
    }

    #[test]
    fn lists_of_numbers_have_the_shape_of_the_first() {
        let dataset = open("lists.parquet");
        assert_eq!(dataset.sample_shape(), [3]);
        let samples = read(&dataset).unwrap();
        assert_eq!(samples[1].pixels, [0.5, 1.5, -2.0]);
        let source = |key: &str| Source {
            x_key: Some(key.into()),
            label_column: Some("target".into()),
            ..Source::new(made("lists.parquet"))
        };
        for key in ["fixed", "nested"] {
            let dataset = Dataset::open(&source(key)).unwrap();
            assert_eq!(dataset.sample_shape(), [2, 2], "{key}");
            let samples = read(&dataset).unwrap();
            assert_eq!(samples[1].pixels, [4.0, 5.0, 6.0, 7.0], "{key}");
            assert_eq!(samples[1].label, 5);
        }
        let error = |key: &str| match Dataset::open(&source(key)) {
            Ok(dataset) => message(read(&dataset).unwrap_err()),
            Err(error) => message(error),
        };
        assert!(
            error("ragged").contains("row 1: a list has 1 elements"),
            "{}",
            error("ragged")
        );
        assert!(error("words").contains("--x-key"), "{}", error("words"));
        assert!(
            error("none").contains("it holds x, fixed, nested"),
            "{}",
            error("none")
        );
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = Folder::new();
        let bytes = std::fs::read(made("images.parquet")).unwrap();
        assert_eq!(exercise(&made("images.parquet")).unwrap(), 7);
        for length in (0..bytes.len()).step_by(37) {
            assert!(exercise(&folder.write("cut.parquet", &bytes[..length])).is_err());
        }
        for position in (0..bytes.len()).step_by(61) {
            let mut changed = bytes.clone();
            changed[position] ^= 0x55;
            // Never a crash; a changed colour is no error.
            let _ = exercise(&folder.write("changed.parquet", &changed));
        }
    }
}
