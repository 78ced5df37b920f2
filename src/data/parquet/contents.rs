//! The rows of all files of a data set, one file after the other.

use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::FileReader;
use sha2::{Digest, Sha256};

use super::super::error::{Error, Place};
use super::super::picture::Target;
use super::super::{Contents, Description, Rows, Source, labels, sha256};
use super::columns::Columns;
use super::shards;
use super::stream::{self, Stream};
use super::value::{self, Kind};

/// Opens the file or the folder of files: reads the schemas, and the first row for the shape of a sample.
pub(super) fn open(source: &Source) -> Result<Box<dyn Contents>, Error> {
    let path = &source.path;
    let files = shards::files(path)?;
    let parts: Vec<Part> = files
        .iter()
        .map(|file| Part::open(file, source))
        .collect::<Result<_, _>>()?;
    let columns = parts.first().map(|part| part.columns.clone());
    let place = |column: fn(&Columns) -> &String| match &columns {
        Some(columns) => Place::member(path, column(columns)),
        None => Place::file(path),
    };
    let (pixels, labels) = (
        place(|columns| &columns.samples),
        place(|columns| &columns.labels),
    );
    let Some(first) = parts.iter().find(|part| part.samples > 0) else {
        return Err(Error::Empty {
            place: pixels,
            shape: vec![0],
        });
    };
    let columns = &first.columns;
    let row = Stream::new(columns, 0)?.next_row()?;
    let field = columns.field(&row, &columns.samples, 0)?;
    let (kind, dtype) = Kind::of(field).map_err(|reason| columns.malformed(0, &reason))?;
    let mut notes = vec![format!(
        "samples are the column `{}`, labels the column `{}`",
        columns.samples, columns.labels
    )];
    if path.is_dir() {
        let names: Vec<String> = files.iter().map(|file| shards::name(file)).collect();
        let ends = match names.as_slice() {
            [first, .., last] => format!("{first} to {last}"),
            names => names.concat(),
        };
        notes.push(format!(
            "the folder's {} Parquet files are read: {ends}",
            names.len()
        ));
    }
    notes.extend(
        files
            .first()
            .filter(|file| *file == path)
            .and_then(|file| shards::note(file)),
    );
    if let Kind::Pictures(target) = &kind {
        notes.push(target.note());
    }
    let description = Description {
        samples: parts.iter().map(|part| part.samples).sum(),
        shape: kind.shape(),
        dtype,
        pixels,
        labels,
        notes,
    };
    Ok(Box::new(Opened {
        parts: parts.into(),
        kind,
        description,
    }))
}

/// One file.
#[derive(Debug, Clone)]
struct Part {
    columns: Columns,
    samples: u64,
}

impl Part {
    fn open(path: &Path, source: &Source) -> Result<Self, Error> {
        let reader = stream::reader(path, 0)?;
        let metadata = reader.metadata().file_metadata();
        let fields = metadata.schema().get_fields();
        let names: Vec<String> = fields.iter().map(|field| field.name().to_owned()).collect();
        Ok(Part {
            columns: Columns::choose(path, &names, source)?,
            samples: u64::try_from(metadata.num_rows()).unwrap_or(0),
        })
    }
}

/// An opened data set.
struct Opened {
    parts: Arc<[Part]>,
    kind: Kind,
    description: Description,
}

impl Contents for Opened {
    fn description(&self) -> &Description {
        &self.description
    }

    fn rows(&self, start: u64) -> Result<Box<dyn Rows>, Error> {
        let mut before = start;
        let mut part = 0;
        for shard in self.parts.iter() {
            if before < shard.samples {
                break;
            }
            before -= shard.samples;
            part += 1;
        }
        let stream = match self.parts.get(part) {
            Some(shard) => Some(Stream::new(&shard.columns, before)?),
            None => None,
        };
        Ok(Box::new(Reading {
            parts: self.parts.clone(),
            part,
            stream,
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
            parts: self.parts.clone(),
            kind: Kind::Pictures(target),
            description,
        }))
    }

    /// Of a folder the digest of the lines `DIGEST  FILE` of all its files in order, as `sha256sum` prints them.
    fn digest(&self) -> Result<Option<String>, Error> {
        if !self.description.pixels.path.is_dir() {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        for part in self.parts.iter() {
            let path = &part.columns.path;
            hasher.update(format!("{}  {}\n", sha256(path)?, shards::name(path)));
        }
        Ok(Some(format!("{:x}", hasher.finalize())))
    }
}

/// A stream over the files; none where all have been read.
struct Reading {
    parts: Arc<[Part]>,
    /// The position of the file that is being read.
    part: usize,
    stream: Option<Stream>,
    kind: Kind,
}

impl Reading {
    /// The stream that has the next row.
    fn stream(&mut self) -> Result<&mut Stream, Error> {
        let left = |part: &Part, stream: &Stream| stream.next < part.samples;
        while let Some(part) = self.parts.get(self.part) {
            match &self.stream {
                Some(stream) if left(part, stream) => break,
                Some(_) => {
                    self.part += 1;
                    self.stream = None;
                }
                None => self.stream = Some(Stream::new(&part.columns, 0)?),
            }
        }
        let last = self.parts.last().map(|part| part.columns.path.clone());
        self.stream.as_mut().ok_or_else(|| Error::Malformed {
            place: Place::file(last.unwrap_or_default()),
            format: "a Parquet file",
            reason: "it ends before its last row".into(),
        })
    }
}

impl Rows for Reading {
    fn read(&mut self, pixels: &mut [f32], labels: &mut [u32]) -> Result<(), Error> {
        let values = self.kind.shape().iter().product::<usize>().max(1);
        let kind = self.kind.clone();
        for (pixels, label) in pixels.chunks_mut(values).zip(labels) {
            let stream = self.stream()?;
            let number = stream.next;
            let row = stream.next_row()?;
            let columns = &stream.columns;
            let sample = columns.field(&row, &columns.samples, number)?;
            kind.read(sample, pixels)
                .map_err(|reason| columns.malformed(number, &reason))?;
            let class = match value::number(columns.field(&row, &columns.labels, number)?) {
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

    /// A folder with copies of `images.parquet` under these names.
    fn folder(names: &[&str]) -> Folder {
        let folder = Folder::new();
        let bytes = std::fs::read(made("images.parquet")).unwrap();
        for name in names {
            folder.write(name, &bytes);
        }
        folder
    }

    #[test]
    fn the_files_of_a_folder_are_read_one_after_the_other_from_anywhere() {
        let folder = folder(&["t-00000-of-00002.parquet", "t-00001-of-00002.parquet"]);
        let whole = Dataset::open(&Source::new(folder.path(""))).unwrap();
        assert_eq!(whole.len(), 14);
        let once: Vec<_> = read(&open("images.parquet")).unwrap();
        for offset in [0, 3, 6, 7, 8, 13] {
            let source = Source {
                offset,
                ..Source::new(folder.path(""))
            };
            let samples = read(&Dataset::open(&source).unwrap()).unwrap();
            assert_eq!(samples.len() as u64, 14 - offset);
            for sample in samples {
                let twin = &once[sample.index as usize % 7];
                assert_eq!((&sample.pixels, sample.label), (&twin.pixels, twin.label));
            }
        }
        let said: Vec<_> = whole.notes().collect();
        assert!(said[1].contains("2 Parquet files are read"), "{said:?}");
        let digests = whole.digests().unwrap();
        assert_eq!((digests.len(), digests[0].1.len()), (1, 64));
        assert_eq!(exercise(&folder.path("")).unwrap(), 14);
    }

    #[test]
    fn a_file_with_other_columns_among_them_is_named() {
        let folder = folder(&["0.parquet", "1.parquet"]);
        std::fs::copy(made("lists.parquet"), folder.path("1.parquet")).unwrap();
        let dataset = Dataset::open(&Source::new(folder.path(""))).unwrap();
        let error = message(read(&dataset).unwrap_err());
        assert!(
            error.contains("1.parquet (x)") && error.contains("row 0"),
            "{error}"
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
