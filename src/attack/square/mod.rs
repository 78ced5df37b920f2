//! The square attack: a random search over squares, that looks at the model's scores alone.

mod bump;

use super::grid::Grid;
use super::query::{Answer, QueryAttack, Scene, Search};
use super::{AttackSpec, Error, Goal, Loss, Parameter, Planned};
use crate::rng::Stream;
use crate::threat::{Bounds, Norm, confine_to};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "square",
    summary: "A random search over square patches, by scores alone",
    what_it_does: "\
Asks the model about one point after the other, without any gradient, and keeps a point where the loss is higher than it was.
In ℓ∞ every element is at one end of its range: first in vertical stripes of random sign, then a random square after another is set anew, with one random sign per channel.
In ℓ2 the first point is a field of bumps, each with two halves of opposite sign; then the length that two random windows hold, and what is left of ε, goes into a new bump in the first of them, and the second becomes 0.
ℓ1 is like ℓ2, with lengths in ℓ1.
A square has the share p of the picture, which starts at `p_init` and is halved after 10, 50, 200, 500, 1,000, 2,000, 4,000, 6,000 and 8,000 points.
In ℓ2 and ℓ1 a window's side is at least 3 (`smallest`), windows at the ends of the picture are half as likely as the others, and bounds cut off what lies beyond them, so that
points are less than ε away. With `fill=true` what was cut off goes to the elements that have room left: on pictures with a black or white ground the attack is far stronger then.
The picture are the last two axes of a sample that are longer than 1, and its channels what is before them (or behind them, where the last axis has at most 4 elements and the first more); a vector is a picture of one row, and its squares are stripes.
Each sample has random numbers of its own, and is let go as soon as it is broken.",
    when_to_use: "\
For models without useful gradients (decision trees, integers, rounding), and to find out whether gradients are hidden: a model that `square` breaks more often than `pgd` was not robust against `pgd`.",
    when_not: "\
Where gradients work, `pgd` is nearer to the truth for far fewer runs of the model.
In ℓ2 and ℓ1 its patches are of at least 3 × 3 elements, so that it does not reach the optimum even of a linear model; `smallest=1,rescale_schedule=true` with 20,000 queries does.
A model that gives labels without scores is for `hopskipjump`.",
    parameters: &[
        QUERIES,
        Parameter {
            name: "p_init",
            default: "0.8",
            accepts: "a number above 0 and at most 1",
            help: "The share of the picture that the first squares have.",
        },
        Parameter {
            name: "restarts",
            default: "1",
            accepts: "a whole number from 1 to 4294967295",
            help: "How often to run with new random numbers on a sample that is not broken yet.",
        },
        Parameter {
            name: "loss",
            default: "margin",
            accepts: "margin or cross-entropy",
            help: "The loss that the attack raises.",
        },
        Parameter {
            name: "rescale_schedule",
            default: "false",
            accepts: "true or false",
            help: "`true` stretches the schedule from 10,000 points to `queries`.",
        },
        Parameter {
            name: "smallest",
            default: "3",
            accepts: "a whole number from 1 to 4294967295",
            help: "The least side of a window in ℓ2 and ℓ1. With 1, single elements are reached in the end, which then share what they hold among two of them at random.",
        },
        Parameter {
            name: "fill",
            default: "false",
            accepts: "true or false",
            help: "In ℓ2 and ℓ1, `true` lengthens each perturbation until it is ε long within the bounds, too; else what the bounds cut off is lost.",
        },
    ],
    reference: "\
Andriushchenko, Croce, Flammarion and Hein: Square Attack: a Query-Efficient Black-Box Adversarial Attack via Random Search. ECCV 2020, <https://arxiv.org/abs/1912.00049>.
Two things differ from the authors' code, which draws each square for a whole batch, and never at the last row or column.",
    build: |table| {
        let square: Square = SPEC.read(table)?;
        square.check()?;
        Ok(Planned::Query(Arc::new(square)))
    },
};

const QUERIES: Parameter = Parameter {
    name: "queries",
    default: "5000",
    accepts: "a whole number from 1 to 4294967295",
    help: "How many points the model is asked about, per restart.",
};

/// The square attack.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Square {
    /// Points that the model is asked about per restart, the first one included.
    pub queries: NonZeroU32,
    /// The share of the picture that the first squares have.
    pub p_init: f64,
    /// Runs per sample, each with random numbers of its own.
    pub restarts: NonZeroU32,
    /// What is raised: `margin` or `cross-entropy`.
    pub loss: Loss,
    /// Whether the schedule of the squares' size is stretched from 10,000 queries to as many as there are.
    pub rescale_schedule: bool,
    /// The least side of a window in ℓ2 and ℓ1.
    pub smallest: NonZeroU32,
    /// Whether perturbations in ℓ2 and ℓ1 are ε long within the bounds, too.
    pub fill: bool,
}

impl Default for Square {
    fn default() -> Self {
        Square {
            queries: const { NonZeroU32::new(5000).unwrap() },
            p_init: 0.8,
            restarts: NonZeroU32::MIN,
            loss: Loss::Margin,
            rescale_schedule: false,
            smallest: const { NonZeroU32::new(3).unwrap() },
            fill: false,
        }
    }
}

/// The iterations at which the share of the picture is halved, of 10,000.
const HALVED_AFTER: [u64; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

impl Square {
    /// The share of the picture that a square has in an iteration, from 0.
    fn share(&self, iteration: u32) -> f64 {
        let iteration = u64::from(iteration);
        let iteration = if self.rescale_schedule {
            iteration * 10_000 / u64::from(self.queries.get())
        } else {
            iteration
        };
        let halvings = HALVED_AFTER.iter().filter(|&&after| iteration > after);
        self.p_init * 0.5_f64.powi(halvings.map(|_| 1).sum())
    }
}

impl QueryAttack for Square {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        if !(self.p_init > 0.0 && self.p_init <= 1.0) {
            return Err(SPEC.refuse(format!(
                "`p_init` cannot be {}; give a number above 0 and at most 1",
                self.p_init
            )));
        }
        match self.loss {
            Loss::Margin | Loss::CrossEntropy => Ok(()),
            Loss::Dlr => Err(SPEC.refuse(format!(
                "`loss` cannot be {}; give margin or cross-entropy",
                self.loss
            ))),
        }
    }

    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        match norm {
            Norm::Linf | Norm::L2 | Norm::L1 => Ok(()),
            Norm::L0 => Err(Error::Norm {
                attack: SPEC.name,
                norm,
                remedy: "use fmn",
            }),
        }
    }

    fn queries(&self) -> u32 {
        self.queries.get()
    }

    fn restarts(&self) -> u32 {
        self.restarts.get()
    }

    fn goal(&self) -> Goal {
        Goal::Radius
    }

    fn needs_scores(&self) -> bool {
        true
    }

    fn begin(&self, scene: Scene<'_>) -> Box<dyn Search> {
        Box::new(Squares::new(self, scene))
    }
}

/// One restart on one sample.
#[derive(Debug)]
struct Squares {
    square: Square,
    grid: Grid,
    norm: Norm,
    epsilon: f64,
    bounds: Bounds,
    label: usize,
    clean: Vec<f32>,
    /// The two ends of the range of each element in ℓ∞.
    ends: [Vec<f32>; 2],
    /// The best point so far, and how good it is.
    best: Vec<f32>,
    gain: f64,
    queries: u32,
    stream: Stream,
}

impl Squares {
    fn new(square: &Square, scene: Scene<'_>) -> Self {
        let Scene {
            norm,
            epsilon,
            bounds,
            precision,
            clean,
            ..
        } = scene;
        let end = |toward: f32| {
            let mut end: Vec<f32> = clean.iter().map(|value| value + toward).collect();
            confine_to(precision, norm, epsilon, bounds, clean, &mut end);
            end
        };
        let ends = match norm {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "samples are single precision"
            )]
            Norm::Linf => [end(-epsilon as f32), end(epsilon as f32)],
            Norm::L2 | Norm::L1 | Norm::L0 => [Vec::new(), Vec::new()],
        };
        Squares {
            square: square.clone(),
            grid: Grid::new(scene.shape),
            norm,
            epsilon,
            bounds,
            label: scene.label as usize,
            clean: clean.to_vec(),
            ends,
            best: clean.to_vec(),
            gain: f64::NEG_INFINITY,
            queries: 0,
            stream: scene.stream,
        }
    }

    /// In each channel and column, all the way up or down.
    fn stripes(&mut self, point: &mut [f32]) {
        let grid = self.grid;
        for channel in 0..grid.channels {
            for column in 0..grid.columns {
                let end = self.end();
                for row in 0..grid.rows {
                    let position = grid.at(channel, row, column);
                    point[position] = self.ends[end][position];
                }
            }
        }
    }

    /// In each channel, one square all the way up or down.
    fn square(&mut self, point: &mut [f32]) {
        let extents = self.extents(|length| length);
        let window = self.grid.place(extents, &mut self.stream);
        for channel in 0..self.grid.channels {
            let end = self.end();
            for position in self.grid.positions(channel, &window) {
                point[position] = self.ends[end][position];
            }
        }
    }

    fn end(&mut self) -> usize {
        usize::from(bump::sign(&mut self.stream) > 0.0)
    }

    /// Squares with a middle and of at least 3 × 3 (or what is asked for), as far as the picture is large enough.
    fn shift(&mut self, point: &mut [f32]) {
        let smallest = self.square.smallest.get() as usize;
        let extents = self.extents(|length| length.max(smallest) | 1);
        let differences = self.best.iter().zip(&self.clean);
        let mut delta: Vec<f64> = differences
            .map(|(best, clean)| f64::from(best - clean))
            .collect();
        let (norm, grid, epsilon) = (self.norm, self.grid, self.epsilon);
        if smallest == 1 && extents == (1, 1) {
            bump::trade(norm, grid, &mut delta, epsilon, &mut self.stream);
        } else {
            bump::shift(norm, grid, &mut delta, epsilon, extents, &mut self.stream);
        }
        self.go(&mut delta, point);
    }

    fn extents(&self, fit: impl Fn(usize) -> usize) -> (usize, usize) {
        // The first query is no iteration.
        let share = self.square.share(self.queries - 1);
        #[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
        let area = share * self.grid.area() as f64;
        self.grid.extents(area, fit)
    }

    /// Asks about clean + δ within the bounds; with `fill`, about clean + t·δ, with the t that makes what is left of it there ε long.
    fn go(&self, delta: &mut [f64], point: &mut [f32]) {
        let Bounds { low, high } = self.bounds;
        if self.square.fill {
            let room = self.clean.iter().zip(&*delta).map(|(&clean, &delta)| {
                let end = if delta > 0.0 { high } else { low };
                (f64::from(end) - f64::from(clean)).abs()
            });
            bump::fill(self.norm, delta, &room.collect::<Vec<_>>(), self.epsilon);
        }
        let values = point.iter_mut().zip(&self.clean).zip(delta);
        for ((value, &clean), delta) in values {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "samples are single precision"
            )]
            let moved = (f64::from(clean) + *delta) as f32;
            *value = moved.max(low).min(high);
        }
    }
}

impl Search for Squares {
    fn next(&mut self, point: &mut [f32]) -> bool {
        if self.queries == self.square.queries.get() {
            return false;
        }
        point.copy_from_slice(&self.best);
        match (self.norm, self.queries) {
            (Norm::Linf, 0) => self.stripes(point),
            (Norm::Linf, _) => self.square(point),
            (_, 0) => {
                let mut delta = bump::tiles(self.norm, self.grid, &mut self.stream);
                bump::normalize(self.norm, &mut delta, self.epsilon);
                self.go(&mut delta, point);
            }
            (_, _) => self.shift(point),
        }
        self.queries += 1;
        true
    }

    fn answered(&mut self, point: &[f32], answer: &Answer<'_>) {
        let gain = gain(self.square.loss, answer, self.label);
        if gain > self.gain || answer.wrong {
            self.best.copy_from_slice(point);
            self.gain = self.gain.max(gain);
        }
    }

    fn best(&self) -> &[f32] {
        &self.best
    }
}

/// What the attack raises, from one row of scores.
fn gain(loss: Loss, answer: &Answer<'_>, label: usize) -> f64 {
    let scores = answer.scores;
    let own = scores
        .get(label)
        .copied()
        .map_or(f64::NEG_INFINITY, f64::from);
    let others = scores
        .iter()
        .enumerate()
        .filter(|(class, _)| *class != label);
    let best_other = others
        .map(|(_, &score)| f64::from(score))
        .fold(f64::NEG_INFINITY, f64::max);
    match loss {
        Loss::CrossEntropy if answer.probabilities => -own.max(f64::MIN_POSITIVE).ln(),
        Loss::CrossEntropy => {
            let top = own.max(best_other);
            let sum: f64 = scores.iter().map(|&s| (f64::from(s) - top).exp()).sum();
            top + sum.ln() - own
        }
        _ => best_other - own,
    }
}

#[cfg(test)]
mod tests;
