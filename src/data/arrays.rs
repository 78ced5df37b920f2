//! Data sets stored as two arrays, samples and labels, of fixed-size elements in row-major order.

use std::io::{self, Read};

use super::encoding::{Decoded, Encoding};
use super::error::{Error, Place};
use super::stream::{Bytes, Stream};
use super::{Contents, Description, Rows, labels};

/// The most values that a sample or a label vector may hold (1 GiB as float32).
/// More is a damaged header: a buffer for it must not be asked for.
const LARGEST_ROW: u64 = 1 << 28;

/// The bytes that are decoded at a time; a multiple of every element size.
const CHUNK: usize = 1 << 16;

/// An array in a file.
#[derive(Debug, Clone)]
pub(super) struct StoredArray {
    pub(super) place: Place,
    pub(super) stream: Stream,
    /// The number of bytes in the stream before the first element.
    pub(super) start: u64,
    pub(super) encoding: Encoding,
    pub(super) shape: Vec<u64>,
}

impl StoredArray {
    /// The extent of the first axis and the number of values per row, after checking that the file can hold them.
    fn rows(&self) -> Result<(u64, u64), Error> {
        let (&samples, row) = self.shape.split_first().unwrap_or((&0, &[]));
        let values = row
            .iter()
            .try_fold(1u64, |product, &axis| product.checked_mul(axis));
        let values = values
            .filter(|&values| values <= LARGEST_ROW)
            .ok_or_else(|| Error::SampleTooLarge {
                place: self.place.clone(),
                shape: self.shape.clone(),
                limit: LARGEST_ROW,
            })?;
        if samples == 0 || values == 0 {
            return Err(Error::Empty {
                place: self.place.clone(),
                shape: self.shape.clone(),
            });
        }
        self.check_size(samples, values)?;
        Ok((samples, values))
    }

    /// Compares the size of the file, where it is known, with what the header announces.
    fn check_size(&self, samples: u64, values: u64) -> Result<(), Error> {
        let size = self.stream.size().map_err(|source| Error::Io {
            place: self.place.clone(),
            source,
        })?;
        let Some(size) = size else { return Ok(()) };
        // At most 2²⁸ values of 8 bytes.
        let row = values.saturating_mul(self.encoding.dtype.size() as u64);
        let found = size.saturating_sub(self.start);
        match samples.checked_mul(row) {
            Some(expected) if found == expected => Ok(()),
            Some(expected) if found > expected => Err(Error::TrailingBytes {
                place: self.place.clone(),
                samples,
            }),
            _ => Err(Error::Truncated {
                place: self.place.clone(),
                row: found / row,
                samples,
            }),
        }
    }
}

/// A pair of arrays that is a data set.
#[derive(Debug)]
pub(super) struct Arrays {
    pixels: StoredArray,
    labels: StoredArray,
    /// The number of values per label: 1, or the length of a one-hot vector.
    label_width: u64,
    description: Description,
}

impl Arrays {
    /// Pairs the samples `[n, …]` with the labels `[n]`, `[n, 1]` or one-hot `[n, classes]`.
    pub(super) fn pair(pixels: StoredArray, labels: StoredArray) -> Result<Self, Error> {
        let (samples, _) = pixels.rows()?;
        let (found, label_width) = labels.rows()?;
        if samples != found {
            return Err(Error::LengthsDiffer {
                pixels: pixels.place,
                samples,
                labels: labels.place,
                found,
            });
        }
        let mut notes = Vec::new();
        if label_width > 1 {
            if labels.shape.len() > 2 {
                return Err(Error::LabelShape {
                    place: labels.place,
                    shape: labels.shape,
                });
            }
            notes.push(format!(
                "labels are one-hot vectors of length {label_width}: the position of the 1 is the class"
            ));
        }
        let shape = pixels
            .shape
            .iter()
            .skip(1)
            .map(|&axis| usize::try_from(axis))
            .collect::<Result<_, _>>();
        let shape = shape.map_err(|_| Error::SampleTooLarge {
            place: pixels.place.clone(),
            shape: pixels.shape.clone(),
            limit: LARGEST_ROW,
        })?;
        let description = Description {
            samples,
            shape,
            dtype: pixels.encoding.dtype,
            pixels: pixels.place.clone(),
            labels: labels.place.clone(),
            notes,
        };
        Ok(Arrays {
            pixels,
            labels,
            label_width,
            description,
        })
    }
}

impl Contents for Arrays {
    fn description(&self) -> &Description {
        &self.description
    }

    fn rows(&self, start: u64) -> Result<Box<dyn Rows>, Error> {
        let (samples, values) = self.pixels.rows()?;
        let label = vec![0.0; usize::try_from(self.label_width).unwrap_or(0)];
        Ok(Box::new(ArrayRows {
            pixels: ArrayStream::open(&self.pixels, samples, values, start)?,
            labels: ArrayStream::open(&self.labels, samples, self.label_width, start)?,
            label,
        }))
    }
}

struct ArrayRows {
    pixels: ArrayStream,
    labels: ArrayStream,
    label: Vec<f64>,
}

impl Rows for ArrayRows {
    fn read(&mut self, pixels: &mut [f32], labels: &mut [u32]) -> Result<(), Error> {
        for slot in labels {
            let row = self.labels.row();
            self.labels.fill(&mut self.label)?;
            let class = match *self.label {
                [value] => labels::class(value),
                _ => labels::one_hot(&self.label),
            };
            *slot = class.map_err(|reason| Error::Label {
                place: self.labels.place.clone(),
                row,
                reason,
            })?;
        }
        self.pixels.fill(pixels)
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.pixels.finish()?;
        self.labels.finish()
    }
}

/// The elements of one array, in order.
struct ArrayStream {
    place: Place,
    encoding: Encoding,
    bytes: Bytes,
    buffer: Vec<u8>,
    /// The number of elements read or skipped so far.
    position: u64,
    samples: u64,
    /// The number of elements per row.
    values: u64,
}

impl ArrayStream {
    fn open(array: &StoredArray, samples: u64, values: u64, row: u64) -> Result<Self, Error> {
        let position = row.saturating_mul(values);
        let skip = position
            .saturating_mul(array.encoding.dtype.size() as u64)
            .saturating_add(array.start);
        let bytes = array
            .stream
            .open(skip)
            .map_err(|source| read_error(&array.place, row, samples, source))?;
        Ok(ArrayStream {
            place: array.place.clone(),
            encoding: array.encoding,
            bytes,
            buffer: Vec::new(),
            position,
            samples,
            values,
        })
    }

    /// The row that the next element belongs to.
    fn row(&self) -> u64 {
        self.position.checked_div(self.values).unwrap_or(0)
    }

    fn fill<T: Decoded>(&mut self, out: &mut [T]) -> Result<(), Error> {
        let size = self.encoding.dtype.size();
        for part in out.chunks_mut(CHUNK / size) {
            let wanted = part.len() * size;
            self.buffer.clear();
            let read = self
                .bytes
                .by_ref()
                .take(wanted as u64)
                .read_to_end(&mut self.buffer);
            self.position += (self.buffer.len() / size) as u64;
            read.map_err(|source| read_error(&self.place, self.row(), self.samples, source))?;
            if self.buffer.len() < wanted {
                return Err(self.truncated());
            }
            self.encoding.decode(&self.buffer, part);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        let last = self.samples.saturating_sub(1);
        match self.bytes.by_ref().take(1).read_to_end(&mut self.buffer) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::TrailingBytes {
                place: self.place.clone(),
                samples: self.samples,
            }),
            Err(source) => Err(read_error(&self.place, last, self.samples, source)),
        }
    }

    fn truncated(&self) -> Error {
        Error::Truncated {
            place: self.place.clone(),
            row: self.row(),
            samples: self.samples,
        }
    }
}

/// What an error while reading row `row` means.
pub(super) fn read_error(place: &Place, row: u64, samples: u64, source: io::Error) -> Error {
    let place = place.clone();
    match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated {
            place,
            row,
            samples,
        },
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::Damaged { place, row, source }
        }
        _ => Error::Io { place, source },
    }
}
