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
