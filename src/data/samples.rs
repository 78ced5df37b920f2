//! The stream of prepared samples.

use std::ops::Range;

use super::Rows;
use super::error::Error;
use super::prepare::Preparation;

/// The number of values that are read ahead, at least one sample.
const BLOCK: usize = 1 << 16;

/// One sample with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its row in the file, from 0.
    pub index: u64,
    /// Its values in row-major order, shaped [`Dataset::sample_shape`](super::Dataset::sample_shape).
    pub pixels: Vec<f32>,
    /// Its class.
    pub label: u32,
}

/// What belongs to a sample beside its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The row in the file, from 0.
    pub index: u64,
    /// The class.
    pub label: u32,
}

/// Several samples one after another, in buffers that are used again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The rows in the file.
    pub indices: Vec<u64>,
    /// The values, `[n, …]` in row-major order.
    pub pixels: Vec<f32>,
    /// The classes.
    pub labels: Vec<u32>,
}

/// A stream over the samples of a data set, read block by block.
///
/// [`read_into`](Samples::read_into) and [`read_batch`](Samples::read_batch) allocate nothing per sample; the iterator gives each
/// sample a buffer of its own. After an error the stream is over.
pub struct Samples {
    rows: Box<dyn Rows>,
    preparation: Preparation,
    /// Whether the selection ends where the file does.
    reaches_end: bool,
    /// The number of values per sample.
    values: usize,
    /// The row of the next sample.
    next: u64,
    /// The rows that are not in the block yet.
    unread: Range<u64>,
    pixels: Vec<f32>,
    labels: Vec<u32>,
    /// The position of the next sample in the block.
    cursor: usize,
    over: bool,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples")
            .field("next", &self.next)
            .field("unread", &self.unread)
            .finish_non_exhaustive()
    }
}

impl Samples {
    pub(super) fn new(
        rows: Box<dyn Rows>,
        selection: Range<u64>,
        reaches_end: bool,
        preparation: Preparation,
    ) -> Self {
        Samples {
            rows,
            reaches_end,
            values: preparation.shape.iter().product(),
            preparation,
            next: selection.start,
            unread: selection,
            pixels: Vec::new(),
            labels: Vec::new(),
            cursor: 0,
            over: false,
        }
    }

    /// Writes the next sample's values to `pixels`; `None` after the last.
    ///
    /// # Errors
    /// Where the file is cut off or damaged, a label is no class number, or `pixels` is not as long as a sample.
    pub fn read_into(&mut self, pixels: &mut [f32]) -> Result<Option<Entry>, Error> {
        if pixels.len() != self.values {
            return Err(Error::Buffer {
                expected: self.values,
                found: pixels.len(),
            });
        }
        if self.cursor == self.labels.len() && !self.load()? {
            return Ok(None);
        }
        let sample = self.pixels.chunks(self.values).nth(self.cursor);
        let (Some(sample), Some(&label)) = (sample, self.labels.get(self.cursor)) else {
            return Ok(None);
        };
        self.preparation.arrange(sample, pixels);
        let index = self.next;
        self.cursor += 1;
        self.next += 1;
        Ok(Some(Entry { index, label }))
    }

    /// Replaces the content of `batch` by the next samples, `size` of them or what is left; returns their number.
    ///
    /// # Errors
    /// As [`read_into`](Samples::read_into).
    pub fn read_batch(&mut self, size: usize, batch: &mut Batch) -> Result<usize, Error> {
        batch.indices.clear();
        batch.labels.clear();
        // Samples that the buffer already has room for are overwritten without clearing them first.
        let left = usize::try_from(self.left()).unwrap_or(usize::MAX).min(size);
        batch.pixels.resize(left.saturating_mul(self.values), 0.0);
        for pixels in batch.pixels.chunks_mut(self.values) {
            let Some(entry) = self.read_into(pixels)? else {
                break;
            };
            batch.indices.push(entry.index);
            batch.labels.push(entry.label);
        }
        if left < size || left == 0 {
            // The end was asked for: what follows the last row is checked now.
            self.load()?;
        }
        Ok(batch.labels.len())
    }

    /// The number of samples not given out yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        if self.over {
            0
        } else {
            self.unread.end.saturating_sub(self.next)
        }
    }

    /// Reads the next block; false at the end.
    fn load(&mut self) -> Result<bool, Error> {
        if self.over || self.cursor < self.labels.len() {
            return Ok(false);
        }
        // Over unless all goes well, so that nothing is read after an error.
        self.over = true;
        self.cursor = 0;
        self.labels.clear();
        let left = self.unread.end - self.unread.start;
        if left == 0 {
            if self.reaches_end {
                self.rows.finish()?;
            }
            return Ok(false);
        }
        let block = (BLOCK / self.values.max(1)).max(1);
        let block = usize::try_from(left).map_or(block, |left| left.min(block));
        self.labels.resize(block, 0);
        self.pixels.resize(block * self.values, 0.0);
        if let Err(error) = self.rows.read(&mut self.pixels, &mut self.labels) {
            self.labels.clear();
            return Err(error);
        }
        self.preparation.rescale(&mut self.pixels);
        self.unread.start += block as u64;
        self.over = false;
        Ok(true)
    }
}

impl Iterator for Samples {
    type Item = Result<Sample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut pixels = vec![0.0; self.values];
        match self.read_into(&mut pixels) {
            Ok(entry) => entry.map(|Entry { index, label }| {
                Ok(Sample {
                    index,
                    pixels,
                    label,
                })
            }),
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::super::fixtures::{Folder, array, npz, read};
    use super::*;

    /// More rows than one block holds.
    fn many(folder: &Folder) -> Dataset {
        let rows = 3 * BLOCK / 64 + 5;
        let pixels = (0..rows * 64).map(|value| (value % 251) as f32).collect();
        let labels = (0..rows).map(|row| (row % 10) as i64).collect();
        folder
            .open(
                "many.npz",
                &npz(&array(&[rows, 64], pixels), &array(&[rows], labels), true),
            )
            .unwrap()
    }

    #[test]
    fn batches_and_single_samples_are_the_same_stream() {
        let folder = Folder::new();
        let dataset = many(&folder);
        let single = read(&dataset).unwrap();
        for size in [1, 7, 1024, 10_000] {
            let (mut stream, mut batch, mut seen) =
                (dataset.samples().unwrap(), Batch::default(), 0);
            loop {
                let read = stream.read_batch(size, &mut batch).unwrap();
                assert_eq!(read, size.min(single.len() - seen));
                assert_eq!((batch.indices.len(), batch.pixels.len()), (read, read * 64));
                for (row, sample) in single[seen..seen + read].iter().enumerate() {
                    assert_eq!(
                        (batch.indices[row], batch.labels[row]),
                        (sample.index, sample.label)
                    );
                    assert_eq!(batch.pixels[row * 64..][..64], sample.pixels);
                }
                seen += read;
                assert_eq!(stream.left(), (single.len() - seen) as u64);
                if read == 0 {
                    break;
                }
            }
            assert_eq!(seen, single.len());
        }
    }

    #[test]
    fn a_buffer_of_the_wrong_size_is_refused() {
        let folder = Folder::new();
        let mut samples = many(&folder).samples().unwrap();
        assert!(matches!(
            samples.read_into(&mut [0.0; 63]),
            Err(Error::Buffer {
                expected: 64,
                found: 63
            })
        ));
        assert_eq!(
            samples.read_into(&mut [0.0; 64]).unwrap(),
            Some(Entry { index: 0, label: 0 })
        );
    }

    #[test]
    fn after_an_error_the_stream_is_over() {
        let folder = Folder::new();
        let x = array(&[2, 1], vec![0u8, 1]);
        let dataset = folder
            .open("a.npz", &npz(&x, &array(&[2], vec![0i8, -1]), false))
            .unwrap();
        let mut samples = dataset.samples().unwrap();
        assert!(samples.next().unwrap().is_err());
        assert!(samples.next().is_none());
        assert_eq!(samples.left(), 0);
    }
}
