//! For tests: attacks run on host arrays against linear models, whose best perturbation is known in closed form.

use super::array::Array;
use super::host::HostArrays;
use super::{Attack, Context, Pass};
use crate::rng::{Key, Purpose, stream};
use crate::threat::{Bounds, Norm};
use ndarray::{Array1, Array2};

/// A threat model and the samples under it.
pub(super) struct Scene {
    pub(super) norm: Norm,
    pub(super) epsilon: f64,
    pub(super) bounds: Bounds,
    /// `[n, d]`
    pub(super) clean: Array2<f32>,
}

impl Scene {
    /// Samples of `width` elements spread over the bounds (over [0, 1] where there are none), some of them at a bound.
    pub(super) fn new(
        norm: Norm,
        epsilon: f64,
        bounds: Bounds,
        samples: usize,
        width: usize,
    ) -> Self {
        let clean = Array2::from_shape_fn((samples, width), |(i, j)| {
            let place = (i * 31 + j * 17) % 23;
            place as f32 / 22.0
        });
        Scene {
            norm,
            epsilon,
            bounds,
            clean,
        }
    }

    /// Builds the context in `arrays` and hands it to `body`.
    pub(super) fn with<R>(
        &self,
        arrays: &HostArrays,
        step_size: f64,
        body: impl FnOnce(&Context<'_>) -> R,
    ) -> R {
        let clean = arrays.input(self.clean.clone());
        body(&Context {
            norm: self.norm,
            clean,
            low: clean.constant(self.bounds.low.into()),
            high: clean.constant(self.bounds.high.into()),
            epsilon: clean.constant(self.epsilon),
            step_size: clean.constant(step_size),
        })
    }

    /// Random numbers for a start of each sample, keyed as the engine does it: `samples` are the samples' numbers.
    pub(super) fn noise(&self, samples: &[u64]) -> Array2<f32> {
        let width = self.clean.ncols();
        let mut noise = Array2::zeros((samples.len(), width));
        for (mut row, &sample) in noise.rows_mut().into_iter().zip(samples) {
            let mut stream = stream(Key {
                seed: 0,
                sample,
                restart: 0,
                purpose: Purpose::RandomStart,
            });
            row.assign(&Array1::from(self.norm.draw(width, &mut stream)));
        }
        noise
    }

    /// Every point the attack visits, the first one included, where `gradient` is the model's.
    pub(super) fn run(
        &self,
        attack: &dyn Attack,
        noise: Option<Array2<f32>>,
        gradient: impl Fn(&Array2<f32>) -> Array2<f32>,
    ) -> Vec<Array2<f32>> {
        let step_size = attack.step_size(self.epsilon);
        let arrays = HostArrays::new(self.clean.ncols());
        let (mut point, mut state) = self.with(&arrays, step_size, |context| {
            let start = attack.init(context, noise.map(|noise| arrays.input(noise)));
            (arrays.value(start.point), values(&arrays, &start.state))
        });
        let mut visited = vec![point.clone()];
        for _ in 0..attack.steps() {
            let arrays = HostArrays::new(self.clean.ncols());
            (point, state) = self.with(&arrays, step_size, |context| {
                let pass = Pass {
                    point: arrays.input(point.clone()),
                    gradient: arrays.input(gradient(&point)),
                    loss: arrays.input(Array2::zeros((point.nrows(), 1))),
                    adversarial: arrays.input(Array2::zeros((1, 1))),
                };
                let state: Vec<_> = state.drain(..).map(|s| arrays.input(s)).collect();
                let next = attack.step(context, &pass, &state);
                (arrays.value(next.point), values(&arrays, &next.state))
            });
            visited.push(point.clone());
        }
        visited
    }

    /// Σ weights·(point − clean) of each sample.
    pub(super) fn gain(&self, weights: &Array2<f32>, point: &Array2<f32>) -> Vec<f64> {
        let terms = self.clean.rows().into_iter().zip(point.rows());
        terms
            .zip(weights.rows())
            .map(|((clean, point), weights)| {
                let terms = clean.iter().zip(point).zip(weights);
                terms
                    .map(|((&clean, &point), &weight)| {
                        f64::from(weight) * (f64::from(point) - f64::from(clean))
                    })
                    .sum()
            })
            .collect()
    }

    /// The largest gain that the threat model allows for each sample, in float64.
    pub(super) fn best_gain(&self, weights: &Array2<f32>) -> Vec<f64> {
        let rows = self.clean.rows().into_iter().zip(weights.rows());
        rows.map(|(clean, weights)| {
            let moves: Vec<(f64, f64)> = clean
                .iter()
                .zip(weights)
                .map(|(&clean, &weight)| {
                    let room = if weight > 0.0 {
                        f64::from(self.bounds.high) - f64::from(clean)
                    } else {
                        f64::from(clean) - f64::from(self.bounds.low)
                    };
                    (f64::from(weight).abs(), room)
                })
                .collect();
            best_gain(self.norm, self.epsilon, moves)
        })
        .collect()
    }

    /// Panics where a point is outside of the ball (beyond float32 rounding) or the bounds.
    pub(super) fn assert_allowed(&self, point: &Array2<f32>) {
        for (clean, point) in self.clean.rows().into_iter().zip(point.rows()) {
            let (clean, point) = (clean.to_vec(), point.to_vec());
            assert!(point.iter().all(|&value| self.bounds.contain(value)));
            let distance = self.norm.distance(&clean, &point);
            let rounding = match self.norm {
                Norm::Linf => 1.2e-7,
                Norm::L2 => 1.2e-7 * (clean.len() as f64).sqrt(),
                Norm::L1 => 1.2e-7 * clean.len() as f64,
                Norm::L0 => 0.0,
            };
            assert!(
                distance <= self.epsilon * (1.0 + 1e-6) + rounding,
                "{}: {distance} for {}",
                self.norm,
                self.epsilon
            );
        }
    }
}

fn values(arrays: &HostArrays, state: &[Array<'_>]) -> Vec<Array2<f32>> {
    state.iter().map(|&array| arrays.value(array)).collect()
}

/// max Σ wᵢ·mᵢ where 0 ≤ mᵢ ≤ roomᵢ and the norm of m is at most ε; pairs of |wᵢ| and roomᵢ.
fn best_gain(norm: Norm, epsilon: f64, mut moves: Vec<(f64, f64)>) -> f64 {
    match norm {
        Norm::Linf => moves.iter().map(|(w, room)| w * room.min(epsilon)).sum(),
        // The best move is proportional to the weights until it meets a bound.
        Norm::L2 => {
            let at = |scale: f64| {
                moves
                    .iter()
                    .map(move |(w, room)| (w, (scale * w).min(*room)))
            };
            let length = |scale| at(scale).map(|(_, m)| m * m).sum::<f64>().sqrt();
            let (mut low, mut high) = (0.0, 1e12);
            for _ in 0..200 {
                let middle = 0.5 * (low + high);
                if length(middle) > epsilon {
                    high = middle;
                } else {
                    low = middle;
                }
            }
            at(low).map(|(w, m)| w * m).sum()
        }
        // Those that gain most, to their bounds.
        Norm::L0 => {
            let mut gains: Vec<f64> = moves.iter().map(|(w, room)| w * room).collect();
            gains.sort_by(|a, b| b.total_cmp(a));
            let count = gains.iter().enumerate();
            let within = count.take_while(|(place, _)| (place + 1) as f64 <= epsilon);
            within.map(|(_, gain)| gain).sum()
        }
        // The heaviest first, each as far as it goes.
        Norm::L1 => {
            moves.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut left = epsilon;
            let mut gain = 0.0;
            for (w, room) in moves {
                let moved = room.min(left);
                left -= moved;
                gain += w * moved;
            }
            gain
        }
    }
}

/// Weights without pattern, no two of a sample equal in size, both signs.
pub(super) fn weights(samples: usize, width: usize) -> Array2<f32> {
    Array2::from_shape_fn((samples, width), |(i, j)| {
        let size = ((i * 7 + j * 37) % 101) as f32 + 1.0 + j as f32 * 1e-3;
        if (i + j) % 3 == 0 { -size } else { size }
    })
}
