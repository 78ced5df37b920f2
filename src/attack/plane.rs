//! For tests: attacks that look for the nearest adversarial point, run on host arrays against linear models, whose nearest one is known in
//! closed form.

use super::host::HostArrays;
use super::linear::{Scene, weights};
use super::{Attack, Pass};
use crate::threat::{Bounds, Norm};
use ndarray::{Array2, Zip};

/// A model of two classes for each sample: the margin against the label is `normal · (x − clean) − gap`.
pub(super) struct Plane {
    pub(super) scene: Scene,
    /// `[n, d]`
    pub(super) normal: Array2<f32>,
    /// What each sample's margin lacks at the clean point: above 0.
    pub(super) gap: Vec<f32>,
}

impl Plane {
    /// Samples of which each can be broken within the bounds, some near its boundary and some far.
    pub(super) fn new(norm: Norm, bounds: Bounds, samples: usize, width: usize) -> Self {
        let scene = Scene::new(norm, 1e3, bounds, samples, width);
        let normal = weights(samples, width);
        let gap = (0..samples).map(|i| {
            let all: f64 = walk(&scene, &normal, i)
                .iter()
                .map(|(w, r)| w * r.min(1.0))
                .sum();
            (all * (0.03 + 0.9 * (i as f64 / samples as f64).powi(2))) as f32
        });
        let gap = gap.collect();
        Plane { scene, normal, gap }
    }

    /// The first `count` samples from `first` on alone.
    pub(super) fn part(&self, first: usize, count: usize) -> Self {
        let rows = |values: &Array2<f32>| {
            values
                .slice(ndarray::s![first..first + count, ..])
                .to_owned()
        };
        Plane {
            scene: Scene {
                clean: rows(&self.scene.clean),
                ..self.scene
            },
            normal: rows(&self.normal),
            gap: self.gap[first..first + count].to_vec(),
        }
    }

    /// The margin of each sample's point.
    fn margins(&self, points: &Array2<f32>) -> Vec<f32> {
        let gains = self.scene.gain(&self.normal, points);
        let pairs = gains.into_iter().zip(&self.gap);
        pairs
            .map(|(gain, &gap)| (gain - f64::from(gap)) as f32)
            .collect()
    }

    /// Every point the attack visits, its last one included.
    pub(super) fn run(&self, attack: &dyn Attack, noise: Option<Array2<f32>>) -> Vec<Array2<f32>> {
        let step_size = attack.step_size(self.scene.epsilon);
        let width = self.scene.clean.ncols();
        let arrays = HostArrays::new(width);
        let (mut point, mut state) = self.scene.with(&arrays, step_size, |context| {
            let start = attack.init(context, noise.map(|noise| arrays.input(noise)));
            let state: Vec<_> = start.state.iter().map(|&s| arrays.value(s)).collect();
            (arrays.value(start.point), state)
        });
        let mut visited = vec![point.clone()];
        for _ in 0..attack.steps() {
            let arrays = HostArrays::new(width);
            (point, state) = self.scene.with(&arrays, step_size, |context| {
                let margins = self.margins(&point);
                let column = |values: Vec<f32>| {
                    arrays.input(Array2::from_shape_vec((values.len(), 1), values).unwrap())
                };
                let adversarial = margins.iter().map(|&m| f32::from(u8::from(m > 0.0)));
                let pass = Pass {
                    point: arrays.input(point.clone()),
                    gradient: arrays.input(self.normal.clone()),
                    adversarial: column(adversarial.collect()),
                    loss: column(margins),
                };
                let state: Vec<_> = state.drain(..).map(|s| arrays.input(s)).collect();
                let next = attack.step(context, &pass, &state);
                let state = next.state.iter().map(|&s| arrays.value(s)).collect();
                (arrays.value(next.point), state)
            });
            visited.push(point.clone());
        }
        visited
    }

    /// The distance of each sample's nearest adversarial point among those visited; ∞ where there is none.
    pub(super) fn nearest(&self, visited: &[Array2<f32>]) -> Vec<f64> {
        let mut nearest = vec![f64::INFINITY; self.gap.len()];
        for points in visited {
            let rows = points.rows().into_iter().zip(self.scene.clean.rows());
            let rows = rows.zip(self.margins(points)).zip(&mut nearest);
            for (((point, clean), margin), nearest) in rows {
                assert!(point.iter().all(|&value| self.scene.bounds.contain(value)));
                if margin > 0.0 {
                    let distance = self.scene.norm.distance(&clean.to_vec(), &point.to_vec());
                    *nearest = nearest.min(distance);
                }
            }
        }
        nearest
    }

    /// The distance of each sample's boundary.
    pub(super) fn shortest(&self) -> Vec<f64> {
        let norm = self.scene.norm;
        let samples = self.gap.iter().enumerate();
        samples
            .map(|(i, &gap)| {
                let moves = shortest(norm, &walk(&self.scene, &self.normal, i), gap.into());
                let moves: Vec<f32> = moves.iter().map(|&m| m as f32).collect();
                norm.distance(&vec![0.0; moves.len()], &moves)
            })
            .collect()
    }

    /// Panics where the attack does not come within `part` of the shortest distance.
    pub(super) fn assert_nearest(&self, attack: &dyn Attack, part: f64) {
        let found = self.nearest(&self.run(attack, None));
        let shortest = self.shortest();
        Zip::from(&ndarray::Array1::from(found))
            .and(&ndarray::Array1::from(shortest))
            .for_each(|found, shortest| {
                let ratio = found / shortest;
                assert!(
                    ratio > 1.0 - 1e-5 && ratio < 1.0 + part,
                    "{} in {} within {:?}: {found} for {shortest} ({ratio})",
                    attack.label(),
                    self.scene.norm,
                    self.scene.bounds
                );
            });
    }

    /// Panics where a sample's points depend on the samples beside it.
    pub(super) fn assert_alone(attack: &dyn Attack, norm: Norm) {
        let all = Plane::new(norm, Bounds::UNIT, 64, 20);
        let together = all.run(attack, None);
        for (first, count) in [(0, 1), (40, 1), (63, 1), (20, 7)] {
            let apart = all.part(first, count).run(attack, None);
            for (together, apart) in together.iter().zip(&apart) {
                let rows = together.slice(ndarray::s![first..first + count, ..]);
                assert_eq!(rows, apart, "{norm} {first} {count}");
            }
        }
    }
}

/// |weight| and room of each element of a sample, toward the boundary.
fn walk(scene: &Scene, normal: &Array2<f32>, sample: usize) -> Vec<(f64, f64)> {
    let pairs = scene
        .clean
        .row(sample)
        .to_vec()
        .into_iter()
        .zip(normal.row(sample).to_vec());
    pairs
        .map(|(clean, weight)| {
            let room = if weight > 0.0 {
                f64::from(scene.bounds.high) - f64::from(clean)
            } else {
                f64::from(clean) - f64::from(scene.bounds.low)
            };
            (f64::from(weight).abs(), room)
        })
        .collect()
}

/// The size of each element of the shortest perturbation with Σ weight · size = gap and no size beyond its room, in float64, from the sorted
/// places where an element meets its bound; pairs of weight and room.
pub(super) fn shortest(norm: Norm, walk: &[(f64, f64)], gap: f64) -> Vec<f64> {
    let product = |moves: &[f64]| -> f64 {
        let pairs = walk.iter().zip(moves);
        pairs
            .map(|((w, _), m)| if *w > 0.0 { w * m } else { 0.0 })
            .sum()
    };
    let corner: Vec<f64> = walk
        .iter()
        .map(|&(w, room)| if w > 0.0 { room } else { 0.0 })
        .collect();
    if product(&corner) <= gap {
        return corner;
    }
    match norm {
        Norm::L1 => return fill(walk, gap, |(w, _)| w),
        Norm::L0 => return fill(walk, gap, |(w, room)| if w > 0.0 { w * room } else { 0.0 }),
        Norm::Linf | Norm::L2 => {}
    }
    let at = |level: f64| -> Vec<f64> {
        let sizes = walk.iter().map(|&(w, room)| match norm {
            Norm::L2 => (level * w).min(room),
            _ if w > 0.0 => level.min(room),
            _ => 0.0,
        });
        sizes.collect()
    };
    let mut places: Vec<f64> = walk
        .iter()
        .filter(|(w, room)| *w > 0.0 && room.is_finite())
        .map(|(w, room)| if norm == Norm::L2 { room / w } else { *room })
        .chain([0.0])
        .collect();
    places.sort_by(f64::total_cmp);
    let after = places.partition_point(|&place| product(&at(place)) <= gap);
    let left = places[after - 1];
    // Straight from here to the next place, or for ever.
    let right = places.get(after).copied().unwrap_or(2.0 * left + 1.0);
    let (here, there) = (product(&at(left)), product(&at(right)));
    at(left + (right - left) * (gap - here) / (there - here))
}

/// One element after the other, each as far as it goes: the heaviest first in ℓ1, those that reach furthest in ℓ0.
fn fill(walk: &[(f64, f64)], gap: f64, worth: impl Fn((f64, f64)) -> f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..walk.len()).collect();
    order.sort_by(|&a, &b| worth(walk[b]).total_cmp(&worth(walk[a])));
    let mut left = gap;
    let mut moves = vec![0.0; walk.len()];
    for i in order {
        let (w, room) = walk[i];
        if w > 0.0 {
            moves[i] = room.min(left / w);
            left -= moves[i] * w;
        }
    }
    moves
}
