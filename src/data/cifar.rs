//! The binary files of CIFAR-10 and CIFAR-100, also gzipped: records of label(s) and image, nothing else.
//!
//! Format: <https://www.cs.toronto.edu/~kriz/cifar.html>. CIFAR-10 (`data_batch_1.bin`, `test_batch.bin`): a label and 3·32·32 bytes,
//! the channels one after another. CIFAR-100 (`train.bin`, `test.bin`): a coarse label comes first, and is not used.
//! The files have no header, so a published name decides; where there is none, the size has to be a multiple of one kind of record.

use std::io::{self, Read};
use std::path::Path;

use super::error::{Error, Place};
use super::stream::{Bytes, Stream};
use super::{Contents, Description, Flag, Reader, Rows, Source};
use crate::tensor::DType;

const FORMAT: &str = "a CIFAR file";

/// Channels, rows, columns.
const SHAPE: [usize; 3] = [3, 32, 32];

/// The bytes of an image.
const IMAGE: usize = 3 * 32 * 32;

/// The reader of CIFAR's binary files.
pub(super) struct Cifar;

/// Which of the two data sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ten,
    Hundred,
}

impl Kind {
    /// By the names under which the files are published; more may stand between `data_batch` and `.bin`.
    fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_lowercase();
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        match stem.strip_suffix(".bin")? {
            "test_batch" => Some(Kind::Ten),
            "train" | "test" => Some(Kind::Hundred),
            stem => stem.starts_with("data_batch").then_some(Kind::Ten),
        }
    }

    /// Where the bytes are whole records of one kind and not of the other.
    fn of_size(size: u64) -> Option<Self> {
        let whole = |kind: Kind| size > 0 && size.is_multiple_of(kind.record());
        match (whole(Kind::Ten), whole(Kind::Hundred)) {
            (true, false) => Some(Kind::Ten),
            (false, true) => Some(Kind::Hundred),
            _ => None,
        }
    }

    /// The number of label bytes; the last one is the class.
    fn labels(self) -> usize {
        match self {
            Kind::Ten => 1,
            Kind::Hundred => 2,
        }
    }

    fn record(self) -> u64 {
        (self.labels() + IMAGE) as u64
    }

    fn classes(self) -> u8 {
        match self {
            Kind::Ten => 10,
            Kind::Hundred => 100,
        }
    }
}

impl Reader for Cifar {
    fn name(&self) -> &'static str {
        "CIFAR-10 or CIFAR-100 binary (.bin, also .gz)"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["test_batch.bin"]
    }

    fn flags(&self) -> &'static [Flag] {
        &[]
    }

    fn recognises(&self, path: &Path, _: &[u8]) -> bool {
        let by_size = || {
            let name = path.extension().is_some_and(|end| end == "bin");
            let size = std::fs::metadata(path).map_or(0, |file| file.len());
            name && Kind::of_size(size).is_some()
        };
        path.is_file() && (Kind::of_name(path).is_some() || by_size())
    }

    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        let place = Place::file(&source.path);
        let failed = |source| Error::Io {
            place: place.clone(),
            source,
        };
        let stream = Stream::file(&source.path).map_err(failed)?;
        let size = match stream.size().map_err(failed)? {
            Some(size) => size,
            None => decompressed_size(&stream).map_err(|source| Error::Damaged {
                place: place.clone(),
                row: 0,
                source,
            })?,
        };
        let kind = Kind::of_name(&source.path).or_else(|| Kind::of_size(size));
        let kind = kind.ok_or_else(|| Error::Malformed {
            place: place.clone(),
            format: FORMAT,
            reason: format!(
                "its {size} bytes are not whole records of CIFAR-10 ({}) or CIFAR-100 ({}) alone; a published name, as \
                 test_batch.bin or test.bin, says which it is",
                Kind::Ten.record(),
                Kind::Hundred.record()
            ),
        })?;
        let samples = size / kind.record();
        if size == 0 {
            return Err(Error::Empty {
                place,
                shape: vec![0, 3, 32, 32],
            });
        }
        if !size.is_multiple_of(kind.record()) {
            return Err(Error::Truncated {
                place,
                row: samples,
                samples: samples + 1,
            });
        }
        let notes = match kind {
            Kind::Ten => Vec::new(),
            Kind::Hundred => vec!["labels are CIFAR-100's 100 fine ones".to_owned()],
        };
        let description = Description {
            samples,
            shape: SHAPE.to_vec(),
            dtype: DType::U8,
            pixels: place.clone(),
            labels: place,
            notes,
        };
        Ok(Box::new(Records {
            stream,
            kind,
            description,
        }))
    }
}

fn decompressed_size(stream: &Stream) -> io::Result<u64> {
    io::copy(&mut stream.open(0)?, &mut io::sink())
}

/// An opened file.
struct Records {
    stream: Stream,
    kind: Kind,
    description: Description,
}

impl Contents for Records {
    fn description(&self) -> &Description {
        &self.description
    }

    fn rows(&self, start: u64) -> Result<Box<dyn Rows>, Error> {
        let place = self.description.pixels.clone();
        let skip = start.saturating_mul(self.kind.record());
        let bytes = self.stream.open(skip).map_err(|source| Error::Io {
            place: place.clone(),
            source,
        })?;
        Ok(Box::new(RecordRows {
            place,
            kind: self.kind,
            bytes,
            row: start,
            samples: self.description.samples,
        }))
    }
}

struct RecordRows {
    place: Place,
    kind: Kind,
    bytes: Bytes,
    row: u64,
    samples: u64,
}

impl RecordRows {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let place = || self.place.clone();
        let row = self.row;
        self.bytes
            .read_exact(buffer)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::Truncated {
                    place: place(),
                    row,
                    samples: self.samples,
                },
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Error::Damaged {
                    place: place(),
                    row,
                    source,
                },
                _ => Error::Io {
                    place: place(),
                    source,
                },
            })
    }
}

impl Rows for RecordRows {
    fn read(&mut self, pixels: &mut [f32], labels: &mut [u32]) -> Result<(), Error> {
        let mut image = [0; IMAGE];
        for (pixels, label) in pixels.chunks_mut(IMAGE).zip(labels) {
            let mut class = [0];
            for _ in 0..self.kind.labels() {
                self.fill(&mut class)?;
            }
            let [class] = class;
            if class >= self.kind.classes() {
                return Err(Error::Label {
                    place: self.place.clone(),
                    row: self.row,
                    reason: format!("the label {class} is none of {}", self.kind.classes()),
                });
            }
            *label = class.into();
            self.fill(&mut image)?;
            for (value, &byte) in pixels.iter_mut().zip(&image) {
                *value = byte.into();
            }
            self.row += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::super::fixtures::{Folder, gzip, message, read};
    use super::*;

    /// A record whose image counts up from its label.
    fn record(labels: &[u8]) -> Vec<u8> {
        let first = usize::from(*labels.last().unwrap());
        let image = (0..IMAGE).map(|position| ((first + position) % 256) as u8);
        labels.iter().copied().chain(image).collect()
    }

    fn ten() -> Vec<u8> {
        [record(&[9]), record(&[0]), record(&[4])].concat()
    }

    fn hundred() -> Vec<u8> {
        [record(&[19, 99]), record(&[3, 0])].concat()
    }

    fn labels(dataset: &Dataset) -> Vec<u32> {
        let samples = read(dataset).unwrap();
        samples.iter().map(|sample| sample.label).collect()
    }

    #[test]
    fn records_are_read_in_both_kinds_plain_and_gzipped() {
        let folder = Folder::new();
        for (name, bytes, expected) in [
            ("data_batch_1.bin", ten(), vec![9, 0, 4]),
            ("test_batch.bin", ten(), vec![9, 0, 4]),
            ("test_batch.bin.gz", gzip(&ten()), vec![9, 0, 4]),
            ("train.bin", hundred(), vec![99, 0]),
            ("test.bin.gz", gzip(&hundred()), vec![99, 0]),
        ] {
            let dataset = folder.open(name, &bytes).unwrap();
            assert_eq!(dataset.sample_shape(), SHAPE, "{name}");
            assert_eq!(labels(&dataset), expected, "{name}");
            let sample = &read(&dataset).unwrap()[0];
            let first = sample.label as f32;
            assert_eq!(sample.pixels[..3], [first, first + 1.0, first + 2.0]);
            assert_eq!(sample.pixels.len(), IMAGE);
        }
    }

    #[test]
    fn without_a_published_name_the_size_decides() {
        let folder = Folder::new();
        let open = |bytes: &[u8]| folder.open("some.bin", bytes);
        assert_eq!(labels(&open(&ten()).unwrap()), [9, 0, 4]);
        assert_eq!(labels(&open(&hundred()).unwrap()), [99, 0]);
        assert!(open(&ten()[1..]).is_err());
        assert_eq!(Kind::of_size(3073 * 3074), None);
    }

    #[test]
    fn an_offset_begins_at_its_record() {
        let folder = Folder::new();
        let source = Source {
            offset: 1,
            ..Source::new(folder.write("test.bin", &hundred()))
        };
        assert_eq!(labels(&Dataset::open(&source).unwrap()), [0]);
    }

    #[test]
    fn a_cut_file_is_an_error_that_names_file_and_record() {
        let folder = Folder::new();
        let bytes = ten();
        for cut in [gzip(&bytes[..bytes.len() - 1]), bytes[..6147].to_vec()] {
            let error = message(folder.open("data_batch_2.bin", &cut).unwrap_err());
            assert!(
                error.contains("data_batch_2.bin is cut off in row 2 of 3"),
                "{error}"
            );
        }
        // The name, and not the size, decides: these bytes are one record of CIFAR-10.
        let error = message(
            folder
                .open("test.bin", &record(&[1, 7])[..3073])
                .unwrap_err(),
        );
        assert!(error.contains("test.bin is cut off in row 0"), "{error}");
    }

    #[test]
    fn a_file_cut_after_it_was_opened_is_an_error() {
        let folder = Folder::new();
        let dataset = folder.open("test_batch.bin", &ten()).unwrap();
        folder.write("test_batch.bin", &ten()[..4000]);
        let error = message(read(&dataset).unwrap_err());
        assert!(error.contains("cut off in row 1 of 3"), "{error}");
    }

    #[test]
    fn a_label_beyond_the_classes_names_its_record() {
        let folder = Folder::new();
        let bytes = [record(&[1]), record(&[10])].concat();
        let error = message(read(&folder.open("test_batch.bin", &bytes).unwrap()).unwrap_err());
        assert!(
            error.contains("row 1: the label 10 is none of 10"),
            "{error}"
        );
    }
}
