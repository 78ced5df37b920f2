//! Samples in memory, to be taken in any order.
//!
//! Bytes stay bytes, so that a training set of images needs a quarter of what floats would; everything else is held as float32.

use super::prepare::Preparation;
use super::{Dataset, Error};
use crate::tensor::DType;

/// The number of values that are read at once, at least one sample.
const BLOCK: usize = 1 << 20;

/// All selected samples of a data set.
#[derive(Debug)]
pub struct Resident {
    values: Values,
    labels: Vec<u32>,
    /// The row in the file of the first sample.
    first: u64,
    /// The number of values of one sample.
    width: usize,
    preparation: Preparation,
}

/// The values as stored, one sample behind the other.
#[derive(Debug)]
enum Values {
    /// With what each byte stands for.
    Bytes(Vec<u8>, Box<[f32; 256]>),
    Floats(Vec<f32>),
}

/// A sample's place in a [`Resident`], with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The row in the file.
    pub index: u64,
    /// The class.
    pub label: u32,
}

impl Dataset {
    /// Reads all selected samples into memory.
    ///
    /// # Errors
    /// Where the file is cut off or damaged, or a label is no class number.
    pub fn resident(&self) -> Result<Resident, Error> {
        let description = self.description();
        let width: usize = description.shape.iter().product();
        let mut left = usize::try_from(self.len()).unwrap_or(usize::MAX);
        let mut rows = self.rows()?;
        let block = (BLOCK / width.max(1)).max(1);
        let mut pixels = Vec::new();
        let mut labels = Vec::new();
        let mut label_block = Vec::new();
        let preparation = self.preparation().clone();
        let mut values = match description.dtype {
            DType::U8 | DType::Bool => Values::Bytes(Vec::new(), preparation.of_bytes()),
            _ => Values::Floats(Vec::new()),
        };
        while left > 0 {
            let count = block.min(left);
            pixels.resize(count * width, 0.0);
            label_block.resize(count, 0);
            rows.read(&mut pixels, &mut label_block)?;
            labels.extend_from_slice(&label_block);
            match &mut values {
                Values::Bytes(bytes, _) => bytes.extend(pixels.iter().map(|&value| byte(value))),
                Values::Floats(floats) => {
                    preparation.rescale(&mut pixels);
                    floats.extend_from_slice(&pixels);
                }
            }
            left -= count;
        }
        if self.reaches_end() {
            rows.finish()?;
        }
        Ok(Resident {
            values,
            labels,
            first: self.offset(),
            width,
            preparation,
        })
    }
}

/// A byte that was widened to a float.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the readers give bytes as whole numbers from 0 to 255"
)]
fn byte(value: f32) -> u8 {
    value as u8
}

impl Resident {
    /// The number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Writes the values of the sample at a position, as [`Dataset::samples`] gives them; `None` where there is no such sample.
    pub fn read(&self, position: usize, out: &mut [f32]) -> Option<Place> {
        let label = *self.labels.get(position)?;
        let range = position * self.width..(position + 1) * self.width;
        match &self.values {
            Values::Bytes(bytes, meaning) => {
                let sample = bytes.get(range)?.iter();
                let meaning = |byte: u8| meaning.get(usize::from(byte)).copied();
                let values = sample.map(|&byte| meaning(byte).unwrap_or_default());
                if self.preparation.transposes() {
                    let scaled: Vec<f32> = values.collect();
                    self.preparation.arrange(&scaled, out);
                } else {
                    out.iter_mut()
                        .zip(values)
                        .for_each(|(out, value)| *out = value);
                }
            }
            Values::Floats(floats) => self.preparation.arrange(floats.get(range)?, out),
        }
        Some(Place {
            index: self.first + position as u64,
            label,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Folder, array, npz};
    use super::super::{Layout, Options, Source};
    use super::*;

    #[test]
    fn samples_are_those_of_the_stream_in_any_order() {
        let folder = Folder::new();
        let labels = array(&[40], (0..40i64).map(|row| row % 7).collect());
        let bytes = array(&[40, 2, 3, 4], (0..=250u8).cycle().take(960).collect());
        let floats = array(&[40, 2, 3, 4], (0..960).map(|v| v as f32 / 960.0).collect());
        for (name, file) in [
            ("bytes.npz", npz(&bytes, &labels, true)),
            ("floats.npz", npz(&floats, &labels, false)),
        ] {
            let path = folder.write(name, &file);
            for layout in [None, Some(Layout::Nhwc)] {
                let source = Source {
                    offset: 3,
                    limit: Some(30),
                    ..Source::new(&path)
                };
                let shape = match layout {
                    None => vec![2, 3, 4],
                    Some(_) => vec![4, 2, 3],
                };
                let options = Options {
                    layout,
                    input_shape: Some(shape),
                    ..Options::default()
                };
                let dataset = Dataset::open(&source).unwrap().prepared(&options).unwrap();
                let resident = dataset.resident().unwrap();
                assert_eq!(resident.len(), 30);
                let streamed: Vec<_> = dataset.samples().unwrap().map(Result::unwrap).collect();
                let mut pixels = vec![0.0; dataset.sample_len()];
                for (position, sample) in streamed.iter().enumerate().rev() {
                    let place = resident.read(position, &mut pixels).unwrap();
                    assert_eq!(pixels, sample.pixels);
                    assert_eq!((place.index, place.label), (sample.index, sample.label));
                }
                assert_eq!(resident.read(30, &mut pixels), None);
            }
        }
    }
}
