//! FMN, the fast minimum-norm attack: gradient steps within a ball that shrinks where the point is misclassified and grows where it is not.

use super::array::Array;
use super::geometry;
use super::schedule::Cosine;
use super::targeted::MARGIN_TARGETS;
use super::{
    Attack, AttackSpec, Context, Error, Extent, Goal, Loss, Next, Parameter, Pass, Planned, Start,
    StateArray,
};
use crate::threat::Norm;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, sync::Arc};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "fmn",
    summary: "Gradient steps within a ball whose radius follows the boundary",
    what_it_does: "\
Looks for the nearest misclassified point.
The radius r of a ball around the clean sample is adapted to each point: r ← min(r(1 − γ), the smallest distance so far) where the point is misclassified, r ← r(1 + γ) where it is not.
In ℓ0, r is a number of elements, changes by one at least, and starts at 1; elsewhere, until the first misclassified point, r is the point's distance plus |margin|/‖g‖ in the dual norm: how far the boundary would be, were the model linear.
A step goes x ← P(x + α·g/‖g‖₂), where P is the exact projection onto the part of the ball that lies within the bounds (in ℓ0: the elements whose changes raise the margin most, by the gradient, stay as they are within the bounds, and the others go back).
α falls from `step_size` to a hundredth of it, and γ from `radius_step` to 0.001, both along half a cosine.",
    when_to_use: "\
For the distance of each sample's boundary in few gradients, in any norm.",
    when_not: "\
Where one number per radius is wanted: `apgd` and `autoattack` are made for that.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "100",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps to take.",
        },
        Parameter {
            name: "step_size",
            default: "1",
            accepts: "a number above 0",
            help: "The first α, in units of the distance between the bounds (of the data where there are none).",
        },
        Parameter {
            name: "radius_step",
            default: "0.05",
            accepts: "a number above 0 and below 1",
            help: "The first γ: the part by which the radius changes.",
        },
        MARGIN_TARGETS,
    ],
    reference: "\
Pintor, Roli, Brendel and Biggio: Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints. NeurIPS 2021, <https://arxiv.org/abs/2102.12827>.",
    build: |table| {
        let fmn: Fmn = SPEC.read(table)?;
        fmn.check()?;
        Ok(Planned::Gradient(Arc::new(fmn)))
    },
};

/// What γ ends at.
const LAST_RADIUS_STEP: f64 = 0.001;

/// The part of the first step size that the last one is.
const LAST_STEP_SIZE: f64 = 0.01;

/// By how much a radius goes beyond the boundary that it is after.
const BEYOND: f64 = 1.0 + 1e-4;

/// A distance that no sample has.
const NEVER: f64 = 1e30;

/// The fast minimum-norm attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fmn {
    /// Steps.
    pub steps: NonZeroU32,
    /// The first step's length (ℓ2), in units of the distance between the bounds.
    pub step_size: f64,
    /// The first γ, above 0 and below 1.
    pub radius_step: f64,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
}

impl Default for Fmn {
    fn default() -> Self {
        Fmn {
            steps: const { NonZeroU32::new(100).unwrap() },
            step_size: 1.0,
            radius_step: 0.05,
            targets: 0,
        }
    }
}

impl Attack for Fmn {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        if !(self.step_size > 0.0 && self.step_size.is_finite()) {
            return Err(SPEC.refuse("the step size must be a finite number above 0"));
        }
        if !(self.radius_step > 0.0 && self.radius_step < 1.0) {
            return Err(SPEC.refuse("radius_step must be above 0 and below 1"));
        }
        Ok(())
    }

    fn steps(&self) -> u32 {
        self.steps.get()
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

    fn check_norm(&self, _: Norm) -> Result<(), Error> {
        Ok(())
    }

    fn step_size(&self, _: f64) -> f64 {
        self.step_size
    }

    fn state(&self) -> &'static [StateArray] {
        const {
            &[
                StateArray {
                    name: "step",
                    extent: Extent::Sample,
                },
                StateArray {
                    name: "radius",
                    extent: Extent::Sample,
                },
                StateArray {
                    name: "nearest",
                    extent: Extent::Sample,
                },
            ]
        }
    }

    fn init<'a>(&self, context: &Context<'a>, _: Option<Array<'a>>) -> Start<'a> {
        let each = |value: f64| context.epsilon * 0.0 + value;
        // In ℓ0 the first step changes a single element.
        let radius = match context.norm {
            Norm::L0 => 1.0,
            Norm::Linf | Norm::L2 | Norm::L1 => NEVER,
        };
        Start {
            point: context.clean,
            state: vec![each(0.0), each(radius), each(NEVER)],
        }
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let &[step, radius, nearest] = state else {
            unreachable!("one array for each of `state`");
        };
        let schedule = Cosine::at(step, self.steps.get());
        let size = schedule.between(1.0, LAST_STEP_SIZE) * context.step_size;
        let part = schedule.between(self.radius_step, LAST_RADIUS_STEP.min(self.radius_step));

        let distance = geometry::length(context.norm, pass.point - context.clean);
        let nearest = pass.adversarial.select(distance.min(nearest), nearest);
        let radius = match context.norm {
            Norm::L0 => next_count(pass, radius, nearest, part),
            Norm::Linf | Norm::L2 | Norm::L1 => {
                let dual = geometry::dual_length(context.norm, pass.gradient);
                // A little beyond it: on the boundary itself the label may still win, and nothing would move any more.
                let boundary = (distance + pass.loss.abs() / dual) * BEYOND;
                let outside = nearest.lt(NEVER).select(radius * (1.0 + part), boundary);
                let inside = (radius * (1.0 - part)).min(nearest);
                pass.adversarial.select(inside, outside)
            }
        };
        let radius = radius.min(geometry::longest(context));

        let width = geometry::width_of_bounds(context);
        let direction = geometry::steepest(Norm::L2, pass.gradient);
        let moved = pass.point + size * width * direction;
        let ball = Context {
            epsilon: radius,
            ..*context
        };
        let projected = match context.norm {
            Norm::L0 => {
                let allowed = geometry::within_bounds(context, moved);
                let worth = (pass.gradient * (allowed - context.clean)).abs();
                geometry::l0::keep(&ball, allowed, worth)
            }
            Norm::Linf | Norm::L2 | Norm::L1 => geometry::project(&ball, moved),
        };
        Next {
            point: projected,
            state: vec![step + 1.0, radius, nearest],
        }
    }
}

/// The next radius in ℓ0, a number of elements: by γ, but by one at least; never below 1, and where a point is misclassified, never beyond
/// the fewest elements so far.
fn next_count<'a>(
    pass: &Pass<'a>,
    radius: Array<'a>,
    fewest: Array<'a>,
    part: Array<'a>,
) -> Array<'a> {
    let fewer = (radius - 1.0).min((radius * (1.0 - part)).floor());
    let more = (radius + 1.0).max((radius * (1.0 + part)).floor());
    pass.adversarial.select(fewer.min(fewest), more).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::plane::Plane;
    use crate::threat::Bounds;

    #[test]
    fn the_nearest_point_of_a_linear_model_is_found() {
        for norm in Norm::CONVEX {
            for bounds in [Bounds::UNIT, Bounds::NONE] {
                // Without bounds, the nearest point in ℓ1 is on the axis of the largest weight, by however little: that takes long steps.
                let long = norm == Norm::L1 && bounds == Bounds::NONE;
                let fmn = Fmn {
                    step_size: if long { 100.0 } else { 1.0 },
                    ..Fmn::default()
                };
                Plane::new(norm, bounds, 8, 50).assert_nearest(&fmn, 0.01);
            }
        }
    }

    /// No fewer elements can reach the boundary than those that reach furthest, each to its bound.
    #[test]
    fn the_fewest_elements_that_break_a_linear_model_are_found() {
        // Long steps: each element that moves at all goes to its bound at once.
        let fmn = Fmn {
            step_size: 100.0,
            ..Fmn::default()
        };
        Plane::new(Norm::L0, Bounds::UNIT, 8, 50).assert_nearest(&fmn, 0.01);
    }

    #[test]
    fn a_sample_gets_the_same_alone_as_in_a_batch() {
        for norm in Norm::ALL {
            let fmn = Fmn {
                steps: NonZeroU32::new(20).unwrap(),
                ..Fmn::default()
            };
            Plane::assert_alone(&fmn, norm);
        }
    }

    /// Trap: a projection that puts every point on the sphere pushes points outwards that the ball already holds.
    #[test]
    fn a_point_within_the_ball_is_not_pushed_onto_its_sphere() {
        let plane = Plane::new(Norm::L2, Bounds::NONE, 8, 50);
        let small = Fmn {
            step_size: 1e-3,
            ..Fmn::default()
        };
        let visited = plane.run(&small, None);
        for (step, points) in visited.iter().enumerate() {
            for (clean, point) in plane.scene.clean.rows().into_iter().zip(points.rows()) {
                let distance = Norm::L2.distance(&clean.to_vec(), &point.to_vec());
                assert!(distance <= 1.001e-3 * step as f64, "{step}: {distance}");
            }
        }
    }

    /// Trap: elements are limited by the bounds, never by 1.
    #[test]
    fn perturbations_may_be_longer_than_one() {
        let mut plane = Plane::new(Norm::L2, Bounds::NONE, 4, 3);
        for gap in &mut plane.gap {
            *gap = 1e3;
        }
        plane.assert_nearest(&Fmn::default(), 0.01);
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        for (fmn, word) in [
            (
                Fmn {
                    step_size: 0.0,
                    ..Fmn::default()
                },
                "step size",
            ),
            (
                Fmn {
                    radius_step: 1.0,
                    ..Fmn::default()
                },
                "radius_step",
            ),
        ] {
            let message = fmn.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
