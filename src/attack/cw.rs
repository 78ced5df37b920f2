//! CW, the attack of Carlini and Wagner: distance and margin in one objective, minimised by Adam in a variable that cannot leave the bounds.

use super::array::Array;
use super::geometry;
use super::targeted::MARGIN_TARGETS;
use super::{
    Attack, AttackSpec, Context, Error, Extent, Goal, Loss, Next, Parameter, Pass, Planned, Start,
    StateArray,
};
use crate::threat::Norm;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, sync::Arc};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "cw",
    summary: "Adam on distance and margin together, with a search for their balance, in ℓ2",
    what_it_does: "\
Looks for the nearest misclassified point in ℓ2: minimises ‖x − x₀‖₂² + c·max(κ − margin, 0) by Adam, with lengths in units of the distance between the bounds.
x is written as low + (high − low)·(1 + tanh w)/2, so that no step leaves the bounds; w starts at the clean sample scaled by 1 − 10⁻⁶, so that pixels at a bound can move.
Without bounds, w is x itself.
c starts at `weight`; after each search it is halved toward the largest one that failed, or multiplied by ten as long as none has succeeded.
A search ends early, for each sample by itself, where its objective has not fallen by 1/10,000 over a tenth of the steps, once Adam could have brought any element from its bound to the middle.",
    when_to_use: "\
As a slow and thorough check of ℓ2 distances, and for comparison with results in the literature.",
    when_not: "\
Where gradients cost something: `ddn`, `fmn` and `fab` come as near with a hundredth of them.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "1000",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps each search takes at most.",
        },
        Parameter {
            name: "searches",
            default: "9",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many values of c to try.",
        },
        Parameter {
            name: "step_size",
            default: "0.01",
            accepts: "a number above 0",
            help: "Adam's step size, in w.",
        },
        Parameter {
            name: "weight",
            default: "0.001",
            accepts: "a number above 0",
            help: "The first c.",
        },
        Parameter {
            name: "confidence",
            default: "0",
            accepts: "a number of at least 0",
            help: "κ: the margin by which points are to be misclassified.",
        },
        MARGIN_TARGETS,
    ],
    reference: "\
Carlini and Wagner: Towards Evaluating the Robustness of Neural Networks. IEEE S&P 2017, <https://arxiv.org/abs/1608.04644>, section 6.",
    build: |table| {
        let cw: Cw = SPEC.read(table)?;
        cw.check()?;
        Ok(Planned::Gradient(Arc::new(cw)))
    },
};

/// How much of the distance between the bounds the variable can reach.
const SCALE: f64 = 1.0 - 1e-6;

/// Adam's two rates, and what keeps its division finite.
const MEAN_RATE: f64 = 0.9;
const SQUARE_RATE: f64 = 0.999;
const GUARD: f64 = 1e-8;

/// A c that no search has succeeded with.
const UNBOUNDED: f64 = 1e10;

/// By what part the objective has to fall for a search to go on.
const PROGRESS: f64 = 0.9999;

/// How often progress is looked at in a search.
const LOOKS: u32 = 10;

/// How far the variable of an element at a bound is from the middle, atanh of [`SCALE`]: the objective may stand still as long as Adam has not
/// come so far.
const FROM_BOUND: f64 = 7.254_329;

/// The attack of Carlini and Wagner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cw {
    /// Steps per search, at most.
    pub steps: NonZeroU32,
    /// Values of c.
    pub searches: NonZeroU32,
    /// Adam's step size.
    pub step_size: f64,
    /// The first c.
    pub weight: f64,
    /// κ.
    pub confidence: f64,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
}

impl Default for Cw {
    fn default() -> Self {
        Cw {
            steps: const { NonZeroU32::new(1000).unwrap() },
            searches: const { NonZeroU32::new(9).unwrap() },
            step_size: 0.01,
            weight: 1e-3,
            confidence: 0.0,
            targets: 0,
        }
    }
}

const STATE: &[StateArray] = &[
    each("variable", Extent::Element),
    each("mean", Extent::Element),
    each("square", Extent::Element),
    each("step", Extent::Sample),
    each("mean_left", Extent::Sample),
    each("square_left", Extent::Sample),
    each("weight", Extent::Sample),
    each("failed", Extent::Sample),
    each("succeeded", Extent::Sample),
    each("found", Extent::Sample),
    each("objective", Extent::Sample),
];

const fn each(name: &'static str, extent: Extent) -> StateArray {
    StateArray { name, extent }
}

/// The state of Adam in one search.
#[derive(Clone, Copy)]
struct Search<'a> {
    variable: Array<'a>,
    mean: Array<'a>,
    square: Array<'a>,
    /// Steps done.
    step: Array<'a>,
    /// What Adam's means still have of their start: the rates to the power of the steps.
    mean_left: Array<'a>,
    square_left: Array<'a>,
    /// Not 0 where a point of this search was misclassified.
    found: Array<'a>,
    /// The objective when it was last looked at.
    objective: Array<'a>,
}

impl<'a> Search<'a> {
    /// From the clean sample.
    fn start(context: &Context<'a>) -> Self {
        let space = Space::of(context);
        let none = context.epsilon * 0.0;
        let variable = space.variable(context.clean);
        Search {
            variable,
            mean: variable * 0.0,
            square: variable * 0.0,
            step: none,
            mean_left: none + 1.0,
            square_left: none + 1.0,
            found: none,
            objective: none + UNBOUNDED,
        }
    }

    /// `self` where `mask` is not 0, else `other`.
    fn or(self, mask: Array<'a>, other: Self) -> Self {
        let pick = |a: Array<'a>, b: Array<'a>| mask.select(a, b);
        Search {
            variable: pick(self.variable, other.variable),
            mean: pick(self.mean, other.mean),
            square: pick(self.square, other.square),
            step: pick(self.step, other.step),
            mean_left: pick(self.mean_left, other.mean_left),
            square_left: pick(self.square_left, other.square_left),
            found: pick(self.found, other.found),
            objective: pick(self.objective, other.objective),
        }
    }

    /// One step of Adam down `gradient`.
    fn adam(self, gradient: Array<'a>, step_size: f64) -> Self {
        let mean = MEAN_RATE * self.mean + (1.0 - MEAN_RATE) * gradient;
        let square = SQUARE_RATE * self.square + (1.0 - SQUARE_RATE) * gradient * gradient;
        let (mean_left, square_left) = (MEAN_RATE * self.mean_left, SQUARE_RATE * self.square_left);
        let scale = (square / (1.0 - square_left)).sqrt() + GUARD;
        Search {
            variable: self.variable - step_size * (mean / (1.0 - mean_left)) / scale,
            mean,
            square,
            step: self.step + 1.0,
            mean_left,
            square_left,
            ..self
        }
    }
}

/// How points and variables belong together: through tanh where there are bounds, else they are the same.
#[derive(Clone, Copy)]
struct Space<'a> {
    bounded: Array<'a>,
    middle: Array<'a>,
    half: Array<'a>,
}

impl<'a> Space<'a> {
    fn of(context: &Context<'a>) -> Self {
        let width = context.high - context.low;
        let bounded = width.lt(f64::from(f32::MAX));
        Space {
            bounded,
            middle: bounded.select((context.low + context.high) * 0.5, 0.0),
            half: bounded.select(width * 0.5, 1.0),
        }
    }

    /// Where the variable of a point is: atanh of its place between the bounds, a little drawn together.
    fn variable(self, point: Array<'a>) -> Array<'a> {
        let place = ((point - self.middle) / self.half).clamp(-1.0, 1.0) * SCALE;
        let unbounded = point;
        self.bounded
            .select(0.5 * ((1.0 + place) / (1.0 - place)).log(), unbounded)
    }

    /// The point of a variable, and its derivative.
    fn point(self, variable: Array<'a>) -> (Array<'a>, Array<'a>) {
        let place = variable.tanh();
        let point = self.middle + self.half * place;
        let slope = self.half * (1.0 - place * place);
        (
            self.bounded.select(point, variable),
            self.bounded.select(slope, 1.0),
        )
    }
}

impl Attack for Cw {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.step_size) {
            return Err(SPEC.refuse("the step size must be a finite number above 0"));
        }
        if !(positive(self.weight) && self.weight < UNBOUNDED) {
            return Err(SPEC.refuse("the weight must be above 0 and below 1e10"));
        }
        if !(self.confidence >= 0.0 && self.confidence.is_finite()) {
            return Err(SPEC.refuse("the confidence must be a finite number of at least 0"));
        }
        if self.steps.checked_mul(self.searches).is_none() {
            return Err(SPEC.refuse("steps times searches must be at most 4294967295"));
        }
        Ok(())
    }

    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        SPEC.only_norms(norm, &[Norm::L2], "use fmn or fab")
    }

    fn steps(&self) -> u32 {
        self.steps.saturating_mul(self.searches).get()
    }

    fn goal(&self) -> Goal {
        Goal::MinimumNorm
    }

    fn targets(&self) -> u32 {
        self.targets
    }

    fn loss(&self) -> Loss {
        Loss::Margin
    }

    fn step_size(&self, _: f64) -> f64 {
        self.step_size
    }

    fn state(&self) -> &'static [StateArray] {
        STATE
    }

    fn init<'a>(&self, context: &Context<'a>, _: Option<Array<'a>>) -> Start<'a> {
        let search = Search::start(context);
        let none = context.epsilon * 0.0;
        Start {
            point: context.clean,
            state: state(search, [none + self.weight, none, none + UNBOUNDED]),
        }
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state_in: &[Array<'a>]) -> Next<'a> {
        let &[
            variable,
            mean,
            square,
            step,
            mean_left,
            square_left,
            weight,
            failed,
            succeeded,
            found,
            objective,
        ] = state_in
        else {
            unreachable!("one array for each of `state`");
        };
        let search = Search {
            variable,
            mean,
            square,
            step,
            mean_left,
            square_left,
            found: found.max(pass.adversarial.select(pass.loss.gt(self.confidence), 0.0)),
            objective,
        };
        let space = Space::of(context);
        let width = geometry::width_of_bounds(context);
        let difference = (pass.point - context.clean) / width;
        let lacking = (self.confidence - pass.loss).max(0.0);
        let now = (difference * difference).sum() + weight * lacking;

        // A tenth of the steps apart; where a search is shorter than that, after each.
        let period = f64::from((self.steps.get() / LOOKS).max(1));
        let looked = (step - (step / period).floor() * period).lt(0.5);
        let stalled = looked * now.gt(objective * PROGRESS) * step.gt(FROM_BOUND / self.step_size);
        let over = stalled.max((search.step + 1.5).gt(f64::from(self.steps.get())));

        let (_, slope) = space.point(variable);
        let upward = 2.0 / width * difference - weight * lacking.gt(0.0).select(pass.gradient, 0.0);
        let stepped = Search {
            objective: looked.select(now, objective),
            ..search.adam(upward * slope, self.step_size)
        };
        let next = Search::start(context).or(over, stepped);

        let succeeded_now = search.found.select(succeeded.min(weight), succeeded);
        let failed_now = search.found.select(failed, failed.max(weight));
        let between = (failed_now + succeeded_now) * 0.5;
        let tried = succeeded_now
            .lt(UNBOUNDED / 2.0)
            .select(between, weight * 10.0);
        let balance = [
            over.select(tried.min(UNBOUNDED / 10.0), weight),
            over.select(failed_now, failed),
            over.select(succeeded_now, succeeded),
        ];
        let (point, _) = space.point(next.variable);
        Next {
            point: geometry::within_bounds(context, point),
            state: state(next, balance),
        }
    }
}

/// The arrays in the order of [`STATE`], the weight with its bracket among them.
fn state<'a>(search: Search<'a>, [weight, failed, succeeded]: [Array<'a>; 3]) -> Vec<Array<'a>> {
    vec![
        search.variable,
        search.mean,
        search.square,
        search.step,
        search.mean_left,
        search.square_left,
        weight,
        failed,
        succeeded,
        search.found,
        search.objective,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::host::HostArrays;
    use crate::attack::plane::Plane;
    use crate::threat::Bounds;
    use ndarray::array;

    fn short() -> Cw {
        Cw {
            steps: NonZeroU32::new(300).unwrap(),
            searches: NonZeroU32::new(8).unwrap(),
            step_size: 0.05,
            weight: 1e-2,
            confidence: 0.0,
            ..Cw::default()
        }
    }

    #[test]
    fn the_nearest_point_of_a_linear_model_is_found() {
        for (bounds, step_size) in [(Bounds::UNIT, 0.05), (Bounds::NONE, 0.004)] {
            let cw = Cw {
                step_size,
                ..short()
            };
            Plane::new(Norm::L2, bounds, 4, 12).assert_nearest(&cw, 0.01);
        }
    }

    /// Trap: an abort that waits for the whole batch makes results depend on what is in it.
    #[test]
    fn a_sample_gets_the_same_alone_as_in_a_batch() {
        let cw = Cw {
            steps: NonZeroU32::new(30).unwrap(),
            searches: NonZeroU32::new(2).unwrap(),
            ..short()
        };
        Plane::assert_alone(&cw, Norm::L2);
    }

    /// Trap: atanh of exactly ±1 has no slope, and black or white pixels never move.
    #[test]
    fn pixels_at_a_bound_can_move() {
        let mut plane = Plane::new(Norm::L2, Bounds::UNIT, 2, 6);
        plane.scene.clean = array![[0.0; 6], [1.0; 6]];
        plane.normal = array![[1.0; 6], [-1.0; 6]];
        plane.gap = vec![0.3, 0.3];
        plane.assert_nearest(&short(), 0.01);
    }

    #[test]
    fn variables_lead_back_to_their_points() {
        let arrays = HostArrays::new(4);
        let point = arrays.input(array![[0.0, 1.0, 0.25, 0.5]]);
        let context = |low: f64, high: f64| Context {
            norm: Norm::L2,
            clean: point,
            low: point.constant(low),
            high: point.constant(high),
            epsilon: point.constant(1.0),
            step_size: point.constant(1.0),
        };
        for (low, high, tolerance) in [
            (0.0, 1.0, 1e-6),
            (-1.0, 3.0, 4e-6),
            (f64::NEG_INFINITY, f64::INFINITY, 0.0),
        ] {
            let space = Space::of(&context(low, high));
            let (back, slope) = space.point(space.variable(point));
            let error = arrays.value((back - point).abs().largest())[[0, 0]];
            assert!(f64::from(error) <= tolerance, "{low} {high}: {error}");
            assert!(arrays.value(slope).iter().all(|&slope| slope > 0.0));
        }
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        for (cw, word) in [
            (
                Cw {
                    step_size: 0.0,
                    ..short()
                },
                "step size",
            ),
            (
                Cw {
                    weight: 1e11,
                    ..short()
                },
                "weight",
            ),
            (
                Cw {
                    confidence: -1.0,
                    ..short()
                },
                "confidence",
            ),
            (
                Cw {
                    searches: NonZeroU32::MAX,
                    ..short()
                },
                "searches",
            ),
        ] {
            let message = cw.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(short().check_norm(Norm::L1).is_err());
    }
}
