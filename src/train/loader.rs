//! Batches for training, made ahead of the device: shuffled by seed and epoch, cropped and flipped, with the point that each sample's perturbation
//! starts from.
//!
//! Everything that is drawn depends on the seed, the sample and the epoch alone, so that a training that is taken up again in the middle of an
//! epoch gets the same batches.
//! Start at [`Loader::run`].

use super::start::Start;
use crate::data::Resident;
use crate::rng::{Key, Purpose, stream};
use rand::Rng;
use rand::seq::SliceRandom;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, sync_channel};

/// Batches that wait for the device at most.
const AHEAD: usize = 2;

/// How images are varied from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Augmentation {
    /// Pixels of zeros (or the lower bound, where that is above 0) around the image, of which a random crop of the image's size is taken.
    pub crop: usize,
    /// Whether half of the images are flipped from left to right.
    pub flip: bool,
}

/// The order and the form of the samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Arrangement {
    /// The seed of everything random.
    pub seed: u64,
    /// Samples in a batch.
    pub batch_size: NonZeroUsize,
    /// Whether the last samples are left out where they do not fill a batch.
    pub whole_batches: bool,
    /// How images are varied.
    pub augmentation: Augmentation,
    /// The value around cropped images.
    pub border: f32,
}

/// Samples that are trained on together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prepared {
    /// The batch's position in its epoch.
    pub position: usize,
    /// The samples that count; others fill a batch of fixed size.
    pub counted: usize,
    /// The rows in the file.
    pub indices: Vec<u64>,
    /// The classes.
    pub labels: Vec<i64>,
    /// The samples, one behind the other.
    pub samples: Vec<f32>,
    /// The first point of each sample's perturbation; empty where the method asks for none.
    pub start: Vec<f32>,
    /// 1 for each real element of the sample and 0 for padding; empty where nothing is padded.
    pub real: Vec<f32>,
}

/// Hands out a training set in batches.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    samples: &'a Resident,
    /// The shape of one sample.
    shape: &'a [usize],
    arrangement: Arrangement,
    start: &'a Start,
}

impl<'a> Loader<'a> {
    /// A loader of samples of this shape.
    #[must_use]
    pub(super) fn new(
        samples: &'a Resident,
        shape: &'a [usize],
        arrangement: Arrangement,
        start: &'a Start,
    ) -> Self {
        Loader {
            samples,
            shape,
            arrangement,
            start,
        }
    }

    /// The number of batches in an epoch.
    #[must_use]
    pub(super) fn batches(&self) -> usize {
        let (samples, size) = (self.samples.len(), self.arrangement.batch_size.get());
        if self.arrangement.whole_batches {
            samples / size
        } else {
            samples.div_ceil(size)
        }
    }

    /// Calls `each` with the batches of an epoch in order, from the one at `first` on, until it gives `false` or an error; the next ones are made
    /// meanwhile.
    ///
    /// # Errors
    /// Those of `each`.
    pub(super) fn run<E>(
        &self,
        epoch: u64,
        first: usize,
        mut each: impl FnMut(Prepared) -> Result<bool, E>,
    ) -> Result<(), E> {
        let order = self.order(epoch);
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for position in first..self.batches() {
                    // The other end is gone where the training stops.
                    if sender.send(self.batch(&order, epoch, position)).is_err() {
                        break;
                    }
                }
            });
            // Dropped when this closure ends, whatever the outcome: the thread does not wait for ever.
            let receiver: Receiver<Prepared> = receiver;
            while let Ok(batch) = receiver.recv() {
                if !each(batch)? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The batches in the file's order, all samples as they are: for a look at the model that is the same each time.
    pub(super) fn in_order(&self) -> impl Iterator<Item = Prepared> + '_ {
        let order: Vec<usize> = (0..self.samples.len()).collect();
        let still = Loader {
            arrangement: Arrangement {
                augmentation: Augmentation::default(),
                ..self.arrangement
            },
            ..*self
        };
        let batches = order.len().div_ceil(self.arrangement.batch_size.get());
        (0..batches).map(move |position| still.batch(&order, 0, position))
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.samples.len()).collect();
        order.shuffle(&mut stream(Key {
            seed: self.arrangement.seed,
            sample: epoch,
            restart: 0,
            purpose: Purpose::Shuffle,
        }));
        order
    }

    fn batch(&self, order: &[usize], epoch: u64, position: usize) -> Prepared {
        let size = self.arrangement.batch_size.get();
        let chosen = order.iter().copied().skip(position * size).take(size);
        let mut chosen: Vec<usize> = chosen.collect();
        let counted = chosen.len();
        if self.arrangement.whole_batches && counted > 0 {
            chosen.extend(order.iter().copied().cycle().take(size - counted));
        }
        let width: usize = self.shape.iter().product();
        let mut batch = Prepared {
            position,
            counted,
            indices: Vec::new(),
            labels: Vec::new(),
            samples: vec![0.0; chosen.len() * width],
            start: vec![0.0; chosen.len() * self.start.width()],
            real: vec![0.0; chosen.len() * self.start.mask_width()],
        };
        let rows = (
            batch.samples.par_chunks_mut(width.max(1)),
            chosen.into_par_iter(),
        );
        let places: Vec<_> = rows
            .into_par_iter()
            .map(|(sample, position)| {
                let place = self.samples.read(position, sample)?;
                self.vary(sample, place.index, epoch);
                Some(place)
            })
            .collect();
        for place in places.into_iter().flatten() {
            batch.indices.push(place.index);
            batch.labels.push(i64::from(place.label));
        }
        self.start
            .fill(&mut batch, self.arrangement.seed, epoch, width);
        batch
    }

    fn vary(&self, sample: &mut [f32], index: u64, epoch: u64) {
        let Augmentation { crop, flip } = self.arrangement.augmentation;
        let &[.., height, width] = self.shape else {
            return;
        };
        if crop == 0 && !flip {
            return;
        }
        let mut random = stream(Key {
            seed: self.arrangement.seed,
            sample: index,
            restart: u32::try_from(epoch).unwrap_or(u32::MAX),
            purpose: Purpose::Augmentation,
        });
        let shift = [
            random.random_range(0..=2 * crop),
            random.random_range(0..=2 * crop),
        ];
        let flipped = flip && random.random::<bool>();
        let border = self.arrangement.border;
        for plane in sample.chunks_mut((height * width).max(1)) {
            let source = plane.to_vec();
            let at = |row: usize, column: usize| {
                let row = (row + shift[0])
                    .checked_sub(crop)
                    .filter(|&row| row < height)?;
                let column = (column + shift[1]).checked_sub(crop);
                let column = column.filter(|&column| column < width)?;
                source.get(row * width + column).copied()
            };
            for (position, pixel) in plane.iter_mut().enumerate() {
                let (row, column) = (position / width, position % width);
                let column = if flipped { width - 1 - column } else { column };
                *pixel = at(row, column).unwrap_or(border);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::start::{Noise, Space};
    use super::*;
    use crate::attack::Pgd;
    use crate::data::{Dataset, Source};
    use crate::threat::{Bounds, Norm};
    use ndarray::{Array1, Array4};
    use ndarray_npy::NpzWriter;
    use std::convert::Infallible;
    use std::sync::Arc;

    const SHAPE: [usize; 3] = [1, 2, 3];

    /// Samples of six numbers; the first is the sample's position divided by 100.
    fn resident(samples: usize) -> Resident {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.npz");
        let mut file = NpzWriter::new(std::fs::File::create(&path).unwrap());
        let pixels = Array4::from_shape_fn((samples, 1, 2, 3), |(sample, _, row, column)| {
            sample as f32 / 100.0 + (3 * row + column) as f32 / 10.0
        });
        let labels = Array1::from_shape_fn(samples, |sample| (sample % 3) as i64);
        file.add_array("x", &pixels).unwrap();
        file.add_array("y", &labels).unwrap();
        file.finish().unwrap();
        Dataset::open(&Source::new(path))
            .unwrap()
            .resident()
            .unwrap()
    }

    fn start(noise: Noise) -> Start {
        Start {
            wanted: !matches!(noise, Noise::None),
            noise,
            space: Space::Input,
            sample_shape: SHAPE.to_vec(),
            norm: Norm::Linf,
            epsilon: 0.1,
            bounds: Bounds::UNIT,
            padding: None,
        }
    }

    fn arrangement(batch_size: usize) -> Arrangement {
        Arrangement {
            seed: 7,
            batch_size: NonZeroUsize::new(batch_size).unwrap(),
            whole_batches: false,
            augmentation: Augmentation::default(),
            border: 0.0,
        }
    }

    fn batches(loader: &Loader<'_>, epoch: u64, first: usize) -> Vec<Prepared> {
        let mut batches = Vec::new();
        loader
            .run(epoch, first, |batch| {
                batches.push(batch);
                Ok::<_, Infallible>(true)
            })
            .unwrap();
        batches
    }

    #[test]
    fn every_epoch_has_every_sample_once_in_an_order_of_its_own() {
        let (samples, start) = (resident(20), start(Noise::None));
        let loader = Loader::new(&samples, &SHAPE, arrangement(6), &start);
        let order = |epoch| -> Vec<u64> {
            let batches = batches(&loader, epoch, 0);
            assert_eq!(batches.len(), loader.batches());
            batches
                .into_iter()
                .flat_map(|batch| batch.indices)
                .collect()
        };
        let (first, second) = (order(0), order(1));
        assert_ne!(first, second);
        assert_eq!(first, order(0));
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, (0..20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_epoch_that_is_taken_up_in_the_middle_has_the_same_batches() {
        let (samples, start) = (resident(20), start(Noise::Attack(Arc::new(Pgd::default()))));
        let varied = Arrangement {
            augmentation: Augmentation {
                crop: 1,
                flip: true,
            },
            ..arrangement(6)
        };
        let loader = Loader::new(&samples, &SHAPE, varied, &start);
        assert_eq!(batches(&loader, 3, 0)[2..], batches(&loader, 3, 2));
    }

    #[test]
    fn a_sample_gets_the_same_start_in_any_batch_and_another_in_the_next_epoch() {
        let (samples, start) = (resident(8), start(Noise::Attack(Arc::new(Pgd::default()))));
        let points = |batch_size: usize, epoch: u64| {
            let loader = Loader::new(&samples, &SHAPE, arrangement(batch_size), &start);
            let mut points: Vec<(u64, Vec<f32>)> = Vec::new();
            for batch in batches(&loader, epoch, 0) {
                let rows = batch.start.chunks(6).map(<[f32]>::to_vec);
                points.extend(batch.indices.into_iter().zip(rows));
            }
            points.sort_by_key(|(index, _)| *index);
            points
        };
        assert_eq!(points(3, 0), points(8, 0));
        assert_ne!(points(8, 0), points(8, 1));
        for (index, point) in points(8, 0) {
            for (place, value) in point.iter().enumerate() {
                let clean = index as f32 / 100.0 + place as f32 / 10.0;
                assert!((value - clean).abs() <= 0.1 + 1e-6 && (0.0..=1.0).contains(value));
            }
        }
    }

    #[test]
    fn crops_shift_by_at_most_that_many_pixels_and_flips_mirror() {
        let (samples, start) = (resident(60), start(Noise::None));
        let flipping = Arrangement {
            augmentation: Augmentation {
                crop: 0,
                flip: true,
            },
            ..arrangement(60)
        };
        let loader = Loader::new(&samples, &SHAPE, flipping, &start);
        let batch = batches(&loader, 0, 0).remove(0);
        let mut flipped = 0;
        for (row, &index) in batch.samples.chunks(6).zip(&batch.indices) {
            let clean: Vec<f32> = (0..6)
                .map(|place| index as f32 / 100.0 + place as f32 / 10.0)
                .collect();
            let mirrored: Vec<f32> = [2, 1, 0, 5, 4, 3].map(|place| clean[place]).to_vec();
            assert!(row == clean || row == mirrored, "{row:?}");
            flipped += usize::from(row == mirrored);
        }
        assert!((15..45).contains(&flipped), "{flipped} of 60");
        let cropping = Arrangement {
            augmentation: Augmentation {
                crop: 1,
                flip: false,
            },
            border: 0.5,
            ..arrangement(60)
        };
        let loader = Loader::new(&samples, &SHAPE, cropping, &start);
        let batch = batches(&loader, 0, 0).remove(0);
        let mut seen = std::collections::BTreeSet::new();
        for (row, &index) in batch.samples.chunks(6).zip(&batch.indices) {
            let clean = |row: i32, column: i32| {
                let inside = (0..2).contains(&row) && (0..3).contains(&column);
                let value = index as f32 / 100.0 + (3 * row + column) as f32 / 10.0;
                if inside { value } else { 0.5 }
            };
            let shifts = (-1..=1).flat_map(|down| (-1..=1).map(move |right| (down, right)));
            let mut fits = shifts.filter(|(down, right)| {
                (0..6)
                    .zip(row)
                    .all(|(place, &found)| found == clean(place / 3 + down, place % 3 + right))
            });
            seen.insert(fits.next().unwrap());
        }
        assert!(seen.len() >= 7, "{seen:?}");
    }

    #[test]
    fn batches_in_order_are_whole_where_they_have_to_be() {
        let (samples, start) = (resident(5), start(Noise::None));
        let whole = Arrangement {
            whole_batches: true,
            ..arrangement(4)
        };
        let loader = Loader::new(&samples, &SHAPE, whole, &start);
        assert_eq!(loader.batches(), 1);
        let batches: Vec<Prepared> = loader.in_order().collect();
        assert_eq!(batches[1].indices, [4, 0, 1, 2]);
        assert_eq!((batches[0].counted, batches[1].counted), (4, 1));
    }

    #[test]
    fn an_error_ends_the_epoch() {
        let (samples, start) = (resident(20), start(Noise::None));
        let loader = Loader::new(&samples, &SHAPE, arrangement(2), &start);
        let mut seen = 0;
        let ended = loader.run(0, 0, |_| {
            seen += 1;
            if seen == 3 { Err("enough") } else { Ok(true) }
        });
        assert_eq!((ended, seen), (Err("enough"), 3));
    }
}
