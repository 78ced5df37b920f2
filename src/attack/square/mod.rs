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
The picture are the last two axes of a sample that are longer than 1, and its channels what is before them (or behind them, where the last axis has at most 4 elements and the first more); a vector is a picture of one row, and its squares are stripes.
Each sample has random numbers of its own, and is let go as soon as it is broken.",
    when_to_use: "\
For models without useful gradients (decision trees, integers, rounding), and to find out whether gradients are hidden: a model that `square` breaks more often than `pgd` was not robust against `pgd`.",
    when_not: "\
Where gradients work, `pgd` is nearer to the truth for far fewer runs of the model.
In ℓ2 and ℓ1 its patches are of at least 3 × 3 elements, so that it does not reach the optimum even of a linear model.
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
}

impl Default for Square {
    fn default() -> Self {
        Square {
            queries: const { NonZeroU32::new(5000).unwrap() },
            p_init: 0.8,
            restarts: NonZeroU32::MIN,
            loss: Loss::Margin,
            rescale_schedule: false,
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

    /// Squares of at least 3 × 3 with a middle, as far as the picture is large enough.
    fn shift(&mut self, point: &mut [f32]) {
        let extents = self.extents(|length| length.max(3) | 1);
        let differences = self.best.iter().zip(&self.clean);
        let mut delta: Vec<f64> = differences
            .map(|(best, clean)| f64::from(best - clean))
            .collect();
        bump::shift(
            self.norm,
            self.grid,
            &mut delta,
            self.epsilon,
            extents,
            &mut self.stream,
        );
        self.go(&delta, point);
    }

    fn extents(&self, fit: fn(usize) -> usize) -> (usize, usize) {
        // The first query is no iteration.
        let share = self.square.share(self.queries - 1);
        #[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
        let area = share * self.grid.area() as f64;
        self.grid.extents(area, fit)
    }

    /// Asks about clean + δ within the bounds.
    fn go(&self, delta: &[f64], point: &mut [f32]) {
        let Bounds { low, high } = self.bounds;
        let values = point.iter_mut().zip(&self.clean).zip(delta);
        for ((value, &clean), delta) in values {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "samples are single precision"
            )]
            let moved = (f64::from(clean) + delta) as f32;
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
                self.go(&delta, point);
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
mod tests {
    use super::super::query::linear::Model;
    use super::*;
    use crate::attack::AttackPlan;

    fn square(queries: u32) -> Square {
        Square {
            queries: NonZeroU32::new(queries).unwrap(),
            ..Square::default()
        }
    }

    /// A margin that no perturbation overcomes, so that the search goes on to its end.
    const NEVER: f64 = 100.0;

    #[test]
    fn it_reaches_the_optimum_of_a_linear_model_in_linf() {
        for shape in [&[1, 8, 8][..], &[3, 5, 7], &[6, 6, 3], &[50], &[1, 1, 9]] {
            let model = Model::new(shape, NEVER);
            let attack = Square {
                rescale_schedule: true,
                ..square(5000)
            };
            let mut search = attack.begin(model.scene(Norm::Linf, 0.1, 0));
            let outcome = model.run(search.as_mut(), Norm::Linf, 5000);
            let share = outcome.gain / (0.1 * model.slope(Norm::Linf));
            assert!((0.99..1.0 + 1e-6).contains(&share), "{shape:?}: {share}");
        }
    }

    /// The authors' code, on the same weights, comes to 0.51 to 0.66 of the optimum in five runs: it never moves the last row and column alone.
    #[test]
    fn in_l2_it_comes_further_than_the_reference_does() {
        let model = Model::new(&[1, 8, 8], NEVER);
        let attack = Square {
            rescale_schedule: true,
            ..square(5000)
        };
        for sample in 0..5 {
            let mut search = attack.begin(model.scene(Norm::L2, 0.5, sample));
            let outcome = model.run(search.as_mut(), Norm::L2, 5000);
            let share = outcome.gain / (0.5 * model.slope(Norm::L2));
            assert!((0.7..1.0 + 1e-6).contains(&share), "{share}");
        }
    }

    /// The optimum has all of ε on the largest weight, which no bump of 3 × 3 or more does.
    #[test]
    fn in_l1_it_comes_near_the_optimum() {
        let model = Model::new(&[1, 8, 8], NEVER);
        let attack = Square {
            rescale_schedule: true,
            ..square(5000)
        };
        for sample in 0..5 {
            let mut search = attack.begin(model.scene(Norm::L1, 0.5, sample));
            let outcome = model.run(search.as_mut(), Norm::L1, 5000);
            let share = outcome.gain / (0.5 * model.slope(Norm::L1));
            assert!((0.7..1.0 + 1e-6).contains(&share), "{share}");
        }
    }

    #[test]
    fn points_stay_in_the_ball_and_the_bounds() {
        for norm in Norm::CONVEX {
            for shape in [&[2, 9, 4][..], &[30]] {
                let mut model = Model::new(shape, NEVER);
                for (value, place) in model.clean.iter_mut().zip(0_u8..) {
                    *value = f32::from(place % 5) / 4.0;
                }
                let mut search = square(300).begin(model.scene(norm, 0.3, 1));
                let outcome = model.run(search.as_mut(), norm, 300);
                assert_eq!(outcome.asked.len(), 300);
                for point in &outcome.asked {
                    assert!(point.iter().all(|&value| Bounds::UNIT.contain(value)));
                    let distance = norm.distance(&model.clean, point);
                    assert!(distance <= 0.3 * (1.0 + 1e-6), "{norm} {distance}");
                }
            }
        }
    }

    /// The schedule of the authors' code: iteration 10 still has the first size.
    #[test]
    fn squares_shrink_after_the_iterations_of_the_paper() {
        let square = Square::default();
        for (iteration, halvings) in [
            (0, 0),
            (10, 0),
            (11, 1),
            (50, 1),
            (51, 2),
            (200, 2),
            (201, 3),
            (501, 4),
            (1001, 5),
            (2001, 6),
            (4001, 7),
            (4999, 7),
            (6001, 8),
            (8001, 9),
        ] {
            let share = 0.8 * 0.5_f64.powi(halvings);
            assert_eq!(square.share(iteration), share, "{iteration}");
        }
        let stretched = Square {
            rescale_schedule: true,
            ..square
        };
        assert_eq!(stretched.share(5), 0.8);
        assert_eq!(stretched.share(6), 0.4);
        assert_eq!(stretched.share(4001), 0.8 * 0.5_f64.powi(9));
    }

    #[test]
    fn only_what_raises_the_loss_is_kept() {
        let model = Model::new(&[1, 8, 8], NEVER);
        let mut search = square(200).begin(model.scene(Norm::Linf, 0.1, 0));
        let mut best = f64::NEG_INFINITY;
        for _ in 0..200 {
            let mut point = model.clean.clone();
            assert!(search.next(&mut point));
            let gain = model.gain(&point);
            best = best.max(gain);
            let answer = Answer {
                wrong: false,
                scores: &[0.0, gain as f32],
                probabilities: false,
            };
            search.answered(&point, &answer);
            assert!((model.gain(search.best()) - best).abs() < 1e-5);
        }
    }

    /// Peers draw one square for the whole batch, so that a sample's result depends on those beside it.
    #[test]
    fn every_sample_has_squares_of_its_own() {
        let model = Model::new(&[1, 8, 8], NEVER);
        let points = |sample| {
            let mut search = square(20).begin(model.scene(Norm::Linf, 0.1, sample));
            model.run(search.as_mut(), Norm::Linf, 20).asked
        };
        let (one, other) = (points(1), points(2));
        assert_eq!(one, points(1));
        assert!(one.iter().zip(&other).all(|(one, other)| one != other));
    }

    #[test]
    fn the_cross_entropy_is_that_of_logits_or_of_probabilities() {
        let answer = |scores, probabilities| Answer {
            wrong: false,
            scores,
            probabilities,
        };
        let logits = gain(Loss::CrossEntropy, &answer(&[1000.0, 0.0], false), 1);
        assert!((logits - 1000.0).abs() < 1e-9);
        let probabilities = gain(Loss::CrossEntropy, &answer(&[0.75, 0.25], true), 1);
        assert!((probabilities - 4_f64.ln()).abs() < 1e-9);
        assert_eq!(gain(Loss::Margin, &answer(&[0.75, 0.25], true), 1), 0.5);
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        for (text, expected) in [
            (
                "square:p_init=0",
                "attack `square`: `p_init` cannot be 0; give a number above 0 and at most 1",
            ),
            (
                "square:p_init=1.5",
                "attack `square`: `p_init` cannot be 1.5; give a number above 0 and at most 1",
            ),
            (
                "square:loss=dlr",
                "attack `square`: `loss` cannot be dlr; give margin or cross-entropy",
            ),
        ] {
            assert_eq!(AttackPlan::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
