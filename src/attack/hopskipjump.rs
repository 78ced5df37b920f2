//! HopSkipJump: from border point to border point along gradients that are estimated from labels alone (ℓ2 and ℓ∞).

use super::crossing::{Bisection, Opening};
use super::query::{Answer, QueryAttack, Scene, Search};
use super::{AttackSpec, Error, Goal, Parameter, Planned};
use crate::rng::Stream;
use crate::threat::{Bounds, Norm};
use rand::Rng;
use rand_distr::StandardNormal;
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "hopskipjump",
    summary: "Hops along the border between right and wrong by estimated gradients, by labels alone (ℓ2 and ℓ∞)",
    what_it_does: "\
Looks for the wrong point nearest to the clean sample, and asks the model for nothing but the predicted class.
Starts at a random point within the bounds that the model gets wrong (where 100 of them do not help, at a sample that the model takes for another class), and goes to the border by bisection.
From there it estimates the direction of the gradient from random points around (the directions in which they are wrong, less those in which they are right), takes a step along it of 1/√k of the distance in the k-th turn, halved until it ends on the wrong side, and goes back to the border by bisection.
A sample is broken at every ε from the distance found on.",
    when_to_use: "\
For models that give labels without scores: trees, anything with a decision at its end.",
    when_not: "\
With scores, `square` is better; with gradients, anything that follows them.",
    parameters: &[
        Parameter {
            name: "queries",
            default: "5000",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many points the model is asked about, the search for a start included.",
        },
        Parameter {
            name: "gradient_queries",
            default: "100",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many of them the first direction is estimated from; the k-th takes √k times as many, up to 10,000.",
        },
    ],
    reference: "\
Chen, Jordan and Wainwright: HopSkipJumpAttack: A Query-Efficient Decision-Based Attack. IEEE S&P 2020, <https://arxiv.org/abs/1904.02144>.",
    build: |table| Ok(Planned::Query(Arc::new(SPEC.read::<HopSkipJump>(table)?))),
};

/// The HopSkipJump attack.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HopSkipJump {
    /// Points that the model is asked about, the search for the first wrong one included.
    pub queries: NonZeroU32,
    /// Points that the first gradient is estimated from; the k-th takes √k times as many.
    pub gradient_queries: NonZeroU32,
}

impl Default for HopSkipJump {
    fn default() -> Self {
        HopSkipJump {
            queries: const { NonZeroU32::new(5000).unwrap() },
            gradient_queries: const { NonZeroU32::new(100).unwrap() },
        }
    }
}

impl QueryAttack for HopSkipJump {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        SPEC.only_norms(norm, &[Norm::Linf, Norm::L2], "use linf or l2")
    }

    fn queries(&self) -> u32 {
        self.queries.get()
    }

    fn goal(&self) -> Goal {
        Goal::MinimumNorm
    }

    fn needs_scores(&self) -> bool {
        false
    }

    fn wants_others(&self) -> bool {
        true
    }

    fn begin(&self, scene: Scene<'_>) -> Box<dyn Search> {
        Box::new(Hops::new(self, scene))
    }
}

/// No gradient is estimated from more points than this.
const MOST_GRADIENT_QUERIES: f64 = 10_000.0;
/// Single precision does not show a smaller change of an element, relative to the largest one.
const VISIBLE: f64 = 1e-6;
/// A step is halved so often before it is given up.
const HALVINGS: u32 = 25;

/// One run on one sample.
#[derive(Debug)]
struct Hops {
    norm: Norm,
    clean: Vec<f32>,
    bounds: Bounds,
    gradient_queries: f64,
    stream: Stream,
    phase: Phase,
    /// The point on the border from which the next hop starts.
    current: Vec<f32>,
    /// Gradients that were estimated.
    hops: u32,
}

#[derive(Debug)]
enum Phase {
    Opening(Opening),
    Bisection(Bisection),
    Estimate(Estimate),
    /// A step of that length along a direction.
    Step {
        direction: Vec<f64>,
        length: f64,
        halvings: u32,
    },
}

/// Running sums over random points around the current one.
#[derive(Debug)]
struct Estimate {
    /// How far the points are from the current one.
    radius: f64,
    wanted: u32,
    asked: u32,
    wrong: u32,
    /// Σ of the moves, and Σ of those that the model gets wrong, in units of the radius.
    all: Vec<f64>,
    of_wrong: Vec<f64>,
}

impl Hops {
    fn new(parameters: &HopSkipJump, scene: Scene<'_>) -> Self {
        Hops {
            norm: scene.norm,
            clean: scene.clean.to_vec(),
            bounds: scene.bounds,
            gradient_queries: parameters.gradient_queries.get().into(),
            stream: scene.stream,
            phase: Phase::Opening(Opening::new(scene.clean, scene.others)),
            current: scene.clean.to_vec(),
            hops: 0,
        }
    }

    /// The next point to ask about; `None` where there is none.
    fn propose(&mut self) -> Option<Vec<f32>> {
        loop {
            match &mut self.phase {
                Phase::Opening(opening) => {
                    return opening.next(&self.clean, self.bounds, &mut self.stream);
                }
                Phase::Bisection(bisection) => match bisection.next(&self.clean) {
                    Some(point) => return Some(point),
                    None => {
                        self.current = bisection.found().to_vec();
                        self.phase = Phase::Estimate(self.estimate());
                    }
                },
                Phase::Estimate(estimate) if estimate.asked < estimate.wanted => {
                    return Some(self.around());
                }
                Phase::Estimate(estimate) => {
                    let direction = estimate.direction(self.norm);
                    self.hops += 1;
                    let length = self.distance() / f64::from(self.hops).sqrt();
                    self.phase = Phase::Step {
                        direction,
                        length,
                        halvings: 0,
                    };
                }
                Phase::Step { halvings, .. } if *halvings > HALVINGS => {
                    self.phase = Phase::Estimate(self.estimate());
                }
                Phase::Step {
                    direction, length, ..
                } => {
                    let length = *length;
                    let moved = self.current.iter().zip(direction.iter());
                    let moved =
                        moved.map(|(&value, direction)| f64::from(value) + length * direction);
                    return Some(within(self.bounds, moved));
                }
            }
        }
    }

    fn distance(&self) -> f64 {
        self.norm.distance(&self.clean, &self.current)
    }

    #[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
    fn width(&self) -> f64 {
        self.clean.len() as f64
    }

    /// To within d^(−3/2) of the way in ℓ2, d^(−2) in ℓ∞; to within a thousandth where there are few elements.
    fn bisection(&self, far: &[f32]) -> Bisection {
        let power = match self.norm {
            Norm::Linf => 2.0,
            Norm::L2 | Norm::L1 | Norm::L0 => 1.5,
        };
        let share = self.width().powf(-power).min(1e-3);
        Bisection::new(self.norm, &self.clean, far.to_vec(), share)
    }

    /// A new estimate around the current point, with a radius of 1/d of its distance (a tenth of the range of values at first).
    fn estimate(&self) -> Estimate {
        let range = f64::from(self.bounds.high) - f64::from(self.bounds.low);
        let radius = if self.hops == 0 && range.is_finite() {
            0.1 * range
        } else {
            self.distance() / self.width()
        };
        let largest = self
            .current
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let visible = VISIBLE * f64::from(largest) * self.width().sqrt();
        let wanted = self.gradient_queries * f64::from(self.hops + 1).sqrt();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1 to 10,000"
        )]
        let wanted = wanted.clamp(1.0, MOST_GRADIENT_QUERIES) as u32;
        Estimate {
            radius: radius.max(visible).max(f64::MIN_POSITIVE),
            wanted,
            asked: 0,
            wrong: 0,
            all: vec![0.0; self.clean.len()],
            of_wrong: vec![0.0; self.clean.len()],
        }
    }

    /// A random point around the current one.
    fn around(&mut self) -> Vec<f32> {
        let Phase::Estimate(Estimate { radius, .. }) = self.phase else {
            return self.current.clone();
        };
        let stream = &mut self.stream;
        let noise: Vec<f64> = match self.norm {
            Norm::Linf => self
                .clean
                .iter()
                .map(|_| stream.random_range(-1.0..1.0))
                .collect(),
            Norm::L2 | Norm::L1 | Norm::L0 => self
                .clean
                .iter()
                .map(|_| stream.sample(StandardNormal))
                .collect(),
        };
        let scale = radius / length(&noise);
        let moved = self.current.iter().zip(&noise);
        within(
            self.bounds,
            moved.map(|(&value, noise)| f64::from(value) + scale * noise),
        )
    }
}

impl Search for Hops {
    fn next(&mut self, point: &mut [f32]) -> bool {
        self.propose().is_some_and(|next| {
            point.copy_from_slice(&next);
            true
        })
    }

    fn answered(&mut self, point: &[f32], answer: &Answer<'_>) {
        let wrong = answer.wrong;
        match &mut self.phase {
            Phase::Opening(_) => {
                if wrong {
                    self.phase = Phase::Bisection(self.bisection(point));
                }
            }
            Phase::Bisection(bisection) => bisection.answered(point, wrong),
            Phase::Estimate(estimate) => {
                let values = point.iter().zip(&self.current);
                let sums = estimate.all.iter_mut().zip(&mut estimate.of_wrong);
                for ((&value, &current), (all, of_wrong)) in values.zip(sums) {
                    let moved = (f64::from(value) - f64::from(current)) / estimate.radius;
                    *all += moved;
                    if wrong {
                        *of_wrong += moved;
                    }
                }
                estimate.asked += 1;
                estimate.wrong += u32::from(wrong);
            }
            Phase::Step { .. } if wrong => self.phase = Phase::Bisection(self.bisection(point)),
            Phase::Step {
                length, halvings, ..
            } => {
                *length /= 2.0;
                *halvings += 1;
            }
        }
    }

    fn best(&self) -> &[f32] {
        &self.current
    }
}

impl Estimate {
    /// The direction in which points are wrong more often than on average: of length 1 in ℓ2, the signs in ℓ∞.
    fn direction(&self, norm: Norm) -> Vec<f64> {
        // Answers are ±1. Where all are alike, they have no average to be compared with.
        let mean = 2.0 * f64::from(self.wrong) / f64::from(self.asked) - 1.0;
        let baseline = if mean.abs() == 1.0 { 0.0 } else { mean };
        let sums = self.all.iter().zip(&self.of_wrong);
        let mut direction: Vec<f64> = sums
            .map(|(all, of_wrong)| 2.0 * of_wrong - all - baseline * all)
            .collect();
        match norm {
            Norm::Linf => {
                for value in &mut direction {
                    *value = f64::from(i8::from(*value > 0.0) - i8::from(*value < 0.0));
                }
            }
            Norm::L2 | Norm::L1 | Norm::L0 => {
                let length = length(&direction).max(f64::MIN_POSITIVE);
                for value in &mut direction {
                    *value /= length;
                }
            }
        }
        direction
    }
}

fn within(Bounds { low, high }: Bounds, values: impl Iterator<Item = f64>) -> Vec<f32> {
    values
        .map(|value| (value as f32).max(low).min(high))
        .collect()
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::query::linear::Model;
    use super::*;

    #[test]
    fn it_finds_the_nearest_wrong_point_of_a_linear_model() {
        for (norm, width, queries) in [
            (Norm::L2, 2, 2000),
            (Norm::L2, 20, 5000),
            (Norm::L2, 60, 20_000),
            (Norm::Linf, 2, 2000),
            (Norm::Linf, 20, 20_000),
        ] {
            let distance = 0.2;
            let slope = Model::new(&[width], 0.0).slope(norm);
            let model = Model::new(&[width], distance * slope);
            let mut search = HopSkipJump::default().begin(model.scene(norm, 1.0, 0));
            let outcome = model.run(search.as_mut(), norm, queries);
            let excess = outcome.nearest / distance;
            assert!(
                (1.0 - 1e-5..1.01).contains(&excess),
                "{norm} {width}: {excess}"
            );
        }
    }

    #[test]
    fn points_stay_within_the_bounds() {
        let mut model = Model::new(&[40], 0.5);
        for (value, place) in model.clean.iter_mut().zip(0_u8..) {
            *value = f32::from(place % 5) / 4.0;
        }
        let mut search = HopSkipJump::default().begin(model.scene(Norm::L2, 1.0, 0));
        let outcome = model.run(search.as_mut(), Norm::L2, 1000);
        assert_eq!(outcome.asked.len(), 1000);
        let mut values = outcome.asked.iter().flatten();
        assert!(values.all(|&value| Bounds::UNIT.contain(value)));
    }

    /// Answers that are all alike say that the direction is right (or wrong) as a whole, not nothing.
    #[test]
    fn one_sided_answers_still_have_a_direction() {
        let estimate = |wrong| Estimate {
            radius: 1.0,
            wanted: 3,
            asked: 3,
            wrong,
            all: vec![0.6, -0.8],
            of_wrong: if wrong == 3 {
                vec![0.6, -0.8]
            } else {
                vec![0.0, 0.0]
            },
        };
        assert_eq!(estimate(3).direction(Norm::Linf), [1.0, -1.0]);
        assert_eq!(estimate(0).direction(Norm::Linf), [-1.0, 1.0]);
        let direction = estimate(3).direction(Norm::L2);
        assert!((direction[0] - 0.6).abs() < 1e-12 && (direction[1] + 0.8).abs() < 1e-12);
    }
}
