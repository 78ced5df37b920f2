//! Where perturbations start, and which positions of a sample are real.

use super::loader::Prepared;
use crate::attack::array::Array;
use crate::attack::host::HostArrays;
use crate::attack::{Attack, Context};
use crate::rng::{Key, Purpose, stream};
use crate::threat::{Bounds, Norm};
use ndarray::Array2;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::sync::Arc;

/// What is drawn for the first point of a perturbation.
#[derive(Debug, Clone)]
pub(super) enum Noise {
    /// Nothing: the perturbation starts at 0.
    None,
    /// What the attack starts with: a point of the ball.
    Attack(Arc<dyn Attack>),
    /// A normal distribution with this standard deviation, as TRADES has it.
    Normal(f64),
    /// Uniform between ±initial / √(real elements), as `FreeLB` has it.
    Uniform(f64),
}

/// What is perturbed: the model's input or an inner tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Space {
    /// The input: points are samples, within the bounds.
    Input,
    /// An inner tensor of this shape: points are perturbations, and the model adds them.
    Inner(Vec<usize>),
}

/// Makes the first points of a method's perturbations.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) noise: Noise,
    pub(super) space: Space,
    /// The shape of one sample.
    pub(super) sample_shape: Vec<usize>,
    pub(super) norm: Norm,
    pub(super) epsilon: f64,
    pub(super) bounds: Bounds,
    /// The value of padding in the samples.
    pub(super) padding: Option<f32>,
    /// Whether the method asks for points at all.
    pub(super) wanted: bool,
}

impl Start {
    /// The number of elements of a first point; 0 where none is asked for.
    pub(super) fn width(&self) -> usize {
        match &self.space {
            _ if !self.wanted => 0,
            Space::Input => self.sample_shape.iter().product(),
            Space::Inner(shape) => shape.iter().product(),
        }
    }

    /// The number of elements of a mask of real positions; 0 where nothing is padded.
    pub(super) fn mask_width(&self) -> usize {
        match self.padding {
            Some(_) if self.wanted => self.sample_shape.iter().product(),
            _ => 0,
        }
    }

    /// Writes the masks and first points of a batch.
    pub(super) fn fill(&self, batch: &mut Prepared, seed: u64, epoch: u64, sample_width: usize) {
        if let Some(padding) = self.padding.filter(|_| self.mask_width() > 0) {
            for (real, &value) in batch.real.iter_mut().zip(&batch.samples) {
                *real = f32::from(u8::from(value != padding));
            }
        }
        let width = self.width();
        if width == 0 {
            return;
        }
        let (samples, real, mask_width) = (&batch.samples, &batch.real, self.mask_width());
        let rows = batch
            .start
            .par_chunks_mut(width)
            .zip(batch.indices.par_iter());
        rows.enumerate().for_each(|(row, (point, &index))| {
            let key = Key {
                seed,
                sample: index,
                restart: u32::try_from(epoch).unwrap_or(u32::MAX),
                purpose: Purpose::TrainingStart,
            };
            let real = real.get(row * mask_width..(row + 1) * mask_width);
            let clean = samples.get(row * sample_width..(row + 1) * sample_width);
            self.first(
                point,
                clean.unwrap_or_default(),
                real.unwrap_or_default(),
                key,
            );
        });
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "points are single precision"
    )]
    fn first(&self, point: &mut [f32], clean: &[f32], real: &[f32], key: Key) {
        let mut random = stream(key);
        match self.space {
            Space::Input => point.copy_from_slice(clean),
            Space::Inner(_) => point.fill(0.0),
        }
        let noise: Vec<f32> = match &self.noise {
            Noise::None => return,
            Noise::Attack(attack) => {
                let drawn = self.norm.draw(point.len(), &mut random);
                self.attack_start(attack.as_ref(), point, drawn);
                return;
            }
            Noise::Normal(deviation) => {
                let normal = std::iter::repeat_with(|| StandardNormal.sample(&mut random));
                normal
                    .take(point.len())
                    .map(|drawn: f64| (drawn * deviation) as f32)
                    .collect()
            }
            Noise::Uniform(initial) => {
                // Each masked position stands for as many elements of the point.
                let stretch = point.len() / real.len().max(1);
                let count = match real {
                    [] => point.len(),
                    real => real.iter().filter(|&&real| real != 0.0).count() * stretch,
                };
                let size = initial / (count.max(1) as f64).sqrt();
                let is_real = |place: usize| {
                    let real = real.get(place / stretch.max(1));
                    real.is_none_or(|&real| real != 0.0)
                };
                (0..point.len())
                    .map(|place| {
                        let drawn = size * random.random_range(-1.0..1.0);
                        if is_real(place) { drawn as f32 } else { 0.0 }
                    })
                    .collect()
            }
        };
        let Bounds { low, high } = self.bounds;
        for (value, noise) in point.iter_mut().zip(noise) {
            *value += noise;
            if self.space == Space::Input {
                *value = value.clamp(low, high);
            }
        }
    }

    /// The attack's own first point, on the host.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "attacks compute in single precision"
    )]
    fn attack_start(&self, attack: &dyn Attack, point: &mut [f32], noise: Vec<f32>) {
        let arrays = HostArrays::new(point.len());
        let row = |values: Vec<f32>| -> Array<'_> {
            let columns = values.len();
            let row = Array2::from_shape_vec((1, columns), values);
            arrays.input(row.expect("one row of as many elements"))
        };
        let bounds = match self.space {
            Space::Input => self.bounds,
            Space::Inner(_) => Bounds::NONE,
        };
        let context = Context {
            norm: self.norm,
            clean: row(point.to_vec()),
            low: row(vec![bounds.low]),
            high: row(vec![bounds.high]),
            epsilon: row(vec![self.epsilon as f32]),
            step_size: row(vec![attack.step_size(self.epsilon) as f32]),
        };
        let noise = attack.random_start().then(|| row(noise));
        let first = attack.init(&context, noise);
        let values = arrays.value(first.point);
        point
            .iter_mut()
            .zip(values.iter())
            .for_each(|(to, &from)| *to = from);
    }
}
