//! To the boundary between right and wrong, by labels alone: the first wrong point, and the bisection from there toward the clean sample.

use crate::rng::Stream;
use crate::threat::{Bounds, Norm};
use rand::Rng;
use rand_distr::StandardNormal;
use std::sync::Arc;

/// Random points that are tried before samples of other classes.
const TRIES: u32 = 100;

/// Looks for any point that the model gets wrong: random ones within the bounds, then samples that the model takes for another class.
#[derive(Debug)]
pub(super) struct Opening {
    tried: u32,
    /// Samples of other classes, the nearest last.
    others: Vec<Arc<[f32]>>,
}

impl Opening {
    pub(super) fn new(clean: &[f32], mut others: Vec<Arc<[f32]>>) -> Self {
        others.sort_by(|a, b| {
            Norm::L2
                .distance(clean, b)
                .total_cmp(&Norm::L2.distance(clean, a))
        });
        Opening { tried: 0, others }
    }

    /// The next point to try; `None` where there is no other.
    ///
    /// Where there are no bounds, noise around the clean sample grows from a hundredth of its size (or of 1) to a hundred times that.
    pub(super) fn next(
        &mut self,
        clean: &[f32],
        bounds: Bounds,
        stream: &mut Stream,
    ) -> Option<Vec<f32>> {
        if self.tried == TRIES {
            return self.others.pop().map(|other| other.to_vec());
        }
        self.tried += 1;
        let Bounds { low, high } = bounds;
        if low.is_finite() && high.is_finite() {
            let uniform = clean
                .iter()
                .map(|_| low + (high - low) * stream.random::<f32>());
            return Some(uniform.map(|value| value.clamp(low, high)).collect());
        }
        let size = clean
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let size = if size > 0.0 { size } else { 1.0 };
        #[expect(clippy::cast_precision_loss, reason = "at most a hundred tries")]
        let growth = 10_f32.powf(4.0 * self.tried as f32 / TRIES as f32 - 2.0);
        let noisy = clean.iter().map(|value| {
            let noise: f32 = stream.sample(StandardNormal);
            (value + size * growth * noise).max(low).min(high)
        });
        Some(noisy.collect())
    }
}

/// Halves the way between the clean sample and a wrong point, again and again.
///
/// In ℓ2 the points lie on the line between the two; in ℓ∞ they are the wrong point brought into smaller and smaller cubes.
#[derive(Debug)]
pub(super) struct Bisection {
    norm: Norm,
    /// The wrong end of the way as it was given.
    far: Vec<f32>,
    /// Where the model is still right, and where it is wrong, as shares of the way (ℓ2) or as radii (ℓ∞).
    right: f64,
    wrong: f64,
    /// The last wrong point.
    found: Vec<f32>,
    /// The gap at which to stop.
    gap: f64,
}

impl Bisection {
    /// Stops when the ends are nearer to each other than that share of the whole.
    pub(super) fn new(norm: Norm, clean: &[f32], far: Vec<f32>, share: f64) -> Self {
        let wrong = match norm {
            Norm::Linf => norm.distance(clean, &far),
            Norm::L2 | Norm::L1 | Norm::L0 => 1.0,
        };
        Bisection {
            norm,
            found: far.clone(),
            far,
            right: 0.0,
            wrong,
            gap: share * wrong,
        }
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.right, self.wrong)
    }

    /// The next point to ask about; `None` at the boundary.
    pub(super) fn next(&self, clean: &[f32]) -> Option<Vec<f32>> {
        let middle = self.middle();
        // Nothing lies between two neighbouring numbers.
        let over =
            self.wrong - self.right <= self.gap || middle <= self.right || middle >= self.wrong;
        if over {
            return None;
        }
        let point: Vec<f32> = clean
            .iter()
            .zip(&self.far)
            .map(|(&clean, &far)| {
                let (clean, far) = (f64::from(clean), f64::from(far));
                let moved = match self.norm {
                    Norm::Linf => far.clamp(clean - middle, clean + middle),
                    Norm::L2 | Norm::L1 | Norm::L0 => clean + middle * (far - clean),
                };
                moved as f32
            })
            .collect();
        (point != self.found).then_some(point)
    }

    /// Takes note of whether the model gets `point`, the last one, wrong.
    pub(super) fn answered(&mut self, point: &[f32], wrong: bool) {
        let middle = self.middle();
        if wrong {
            self.wrong = middle;
            self.found.copy_from_slice(point);
        } else {
            self.right = middle;
        }
    }

    /// The wrong point nearest to the clean sample, so far.
    pub(super) fn found(&self) -> &[f32] {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Key, Purpose, stream};

    fn seeded() -> Stream {
        stream(Key {
            seed: 0,
            sample: 0,
            restart: 0,
            purpose: Purpose::Queries,
        })
    }

    /// Peers give up on the whole batch where random points find nothing for one sample.
    #[test]
    fn after_random_points_come_samples_of_other_classes_the_nearest_first() {
        let (near, far): (Arc<[f32]>, Arc<[f32]>) = ([0.5, 0.6].into(), [1.0, 1.0].into());
        let clean = [0.5, 0.5];
        let mut opening = Opening::new(&clean, vec![far.clone(), near.clone()]);
        let mut stream = seeded();
        let mut next = || opening.next(&clean, Bounds::UNIT, &mut stream);
        for _ in 0..TRIES {
            let point = next().unwrap();
            assert!(point.iter().all(|&value| Bounds::UNIT.contain(value)));
        }
        assert_eq!(next().as_deref(), Some(&*near));
        assert_eq!(next().as_deref(), Some(&*far));
        assert_eq!(next(), None);
    }

    #[test]
    fn without_bounds_the_noise_grows() {
        let clean = [100.0; 50];
        let mut opening = Opening::new(&clean, Vec::new());
        let mut stream = seeded();
        let mut distance = || {
            let point = opening.next(&clean, Bounds::NONE, &mut stream).unwrap();
            Norm::Linf.distance(&clean, &point)
        };
        let first = distance();
        let last = (1..TRIES).map(|_| distance()).last().unwrap();
        assert!(first < 10.0 && last > 1000.0, "{first} {last}");
    }

    #[test]
    fn the_bisection_ends_on_the_wrong_side_next_to_the_border() {
        let clean = [0.0, 0.0];
        for (norm, border) in [(Norm::L2, 0.3), (Norm::Linf, 0.3)] {
            let mut bisection = Bisection::new(norm, &clean, vec![1.0, 0.2], 1e-4);
            let mut asked = 0;
            while let Some(point) = bisection.next(&clean) {
                bisection.answered(&point, point[0] > border);
                asked += 1;
            }
            let found = bisection.found()[0];
            assert!(found > border && found < border + 2e-4, "{norm}: {found}");
            assert!(asked <= 14, "{asked}");
        }
    }
}
