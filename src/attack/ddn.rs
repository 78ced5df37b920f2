//! DDN, decoupled direction and norm: gradient steps put back onto a sphere that shrinks where the point is misclassified and grows where it is not.

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
    name: "ddn",
    summary: "Gradient steps on a sphere whose radius follows the boundary, in ℓ2",
    what_it_does: "\
Looks for the nearest misclassified point in ℓ2.
A step of length α goes along the gradient of the cross-entropy; the perturbation is then scaled to length r and clipped to the bounds.
r ← r(1 − γ) where the point is misclassified, r ← r(1 + γ) where it is not.
α falls from 1 to 0.01 along half a cosine, in units of the distance between the bounds, in which r starts, too.",
    when_to_use: "\
For the ℓ2 distance of each sample's boundary in few gradients.",
    when_not: "\
In other norms: use `fmn` or `fab`.
For samples whose cross-entropy has run flat: they stay where they are, which is said; `fmn` and `fab` follow the margin.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "100",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps to take.",
        },
        Parameter {
            name: "radius",
            default: "1",
            accepts: "a number above 0",
            help: "The first r, in units of the distance between the bounds (of the data where there are none).",
        },
        Parameter {
            name: "radius_step",
            default: "0.05",
            accepts: "a number above 0 and below 1",
            help: "γ: the part by which the radius changes.",
        },
        MARGIN_TARGETS,
    ],
    reference: "\
Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger: Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses. CVPR 2019, <https://arxiv.org/abs/1811.09600>.",
    build: |table| {
        let ddn: Ddn = SPEC.read(table)?;
        ddn.check()?;
        Ok(Planned::Gradient(Arc::new(ddn)))
    },
};

/// The first and the last step size.
const STEP_SIZES: (f64, f64) = (1.0, 0.01);

/// Decoupled direction and norm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ddn {
    /// Steps.
    pub steps: NonZeroU32,
    /// The first radius, in units of the distance between the bounds.
    pub radius: f64,
    /// γ, above 0 and below 1.
    pub radius_step: f64,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
}

impl Default for Ddn {
    fn default() -> Self {
        Ddn {
            steps: const { NonZeroU32::new(100).unwrap() },
            radius: 1.0,
            radius_step: 0.05,
            targets: 0,
        }
    }
}

impl Attack for Ddn {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        if !(self.radius > 0.0 && self.radius.is_finite()) {
            return Err(SPEC.refuse("the radius must be a finite number above 0"));
        }
        if !(self.radius_step > 0.0 && self.radius_step < 1.0) {
            return Err(SPEC.refuse("radius_step must be above 0 and below 1"));
        }
        Ok(())
    }

    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        SPEC.only_norms(norm, &[Norm::L2], "use fmn or fab")
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

    /// The cross-entropy has no targeted form.
    fn loss(&self) -> Loss {
        if self.targets > 0 {
            Loss::Margin
        } else {
            Loss::CrossEntropy
        }
    }

    fn step_size(&self, _: f64) -> f64 {
        STEP_SIZES.0
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
            ]
        }
    }

    fn init<'a>(&self, context: &Context<'a>, _: Option<Array<'a>>) -> Start<'a> {
        let none = context.epsilon * 0.0;
        let radius = none + geometry::width_of_bounds(context) * self.radius;
        Start {
            point: context.clean,
            state: vec![none, radius],
        }
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let &[step, radius] = state else {
            unreachable!("one array for each of `state`");
        };
        let (first, last) = STEP_SIZES;
        let size = Cosine::at(step, self.steps.get()).between(first, last);
        let factor = pass
            .adversarial
            .select(1.0 - self.radius_step, 1.0 + self.radius_step);
        let radius = (radius * factor).min(geometry::longest(context));
        let direction = geometry::steepest(Norm::L2, pass.gradient);
        let width = geometry::width_of_bounds(context);
        let perturbation = pass.point - context.clean + size * width * direction;
        let on_sphere = radius * geometry::steepest(Norm::L2, perturbation);
        Next {
            point: geometry::within_bounds(context, context.clean + on_sphere),
            state: vec![step + 1.0, radius],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::plane::Plane;
    use crate::threat::Bounds;

    #[test]
    fn the_nearest_point_of_a_linear_model_is_found() {
        for bounds in [Bounds::UNIT, Bounds::NONE] {
            Plane::new(Norm::L2, bounds, 8, 50).assert_nearest(&Ddn::default(), 0.01);
        }
    }

    #[test]
    fn a_sample_gets_the_same_alone_as_in_a_batch() {
        let ddn = Ddn {
            steps: NonZeroU32::new(20).unwrap(),
            ..Ddn::default()
        };
        Plane::assert_alone(&ddn, Norm::L2);
    }

    #[test]
    fn other_norms_are_refused_with_the_attack_to_use() {
        let message = Ddn::default()
            .check_norm(Norm::Linf)
            .unwrap_err()
            .to_string();
        assert!(message.contains("fmn"), "{message}");
        assert!(Ddn::default().check_norm(Norm::L2).is_ok());
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        for (ddn, word) in [
            (
                Ddn {
                    radius: f64::INFINITY,
                    ..Ddn::default()
                },
                "radius",
            ),
            (
                Ddn {
                    radius_step: 0.0,
                    ..Ddn::default()
                },
                "radius_step",
            ),
        ] {
            let message = ddn.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
