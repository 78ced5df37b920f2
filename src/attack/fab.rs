//! FAB, the fast adaptive boundary attack: steps onto linear pictures of the decision boundary, drawn toward the clean sample.

use super::array::Array;
use super::geometry::{self, Hyperplane};
use super::{
    Attack, AttackSpec, Context, Error, Goal, Loss, Next, Parameter, Pass, Planned, Start,
};
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, sync::Arc};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "fab",
    summary: "Steps onto the linearised boundary to one class after the other, drawn toward the clean sample",
    what_it_does: "\
Looks for the nearest misclassified point, in a run toward each of the classes with the largest scores beside the label's.
A step takes the margin of the target class and its gradient for a hyperplane, projects both the point and the clean sample onto the part of it that lies within the bounds,
and goes to (1 − α)(x + η·d) + α(x₀ + η·d₀), where d and d₀ are the two shortest ways, α = ‖d‖/(‖d‖ + ‖d₀‖) but at most the bias, and η is the overshoot.
From a misclassified point it first goes back to x₀ + β(x − x₀); the hyperplane is that of the misclassified point, which is nearer to the boundary, so that no gradient is spent on going back.
Runs after the first round of targets start at a random point whose distance is half of ε, or of the smallest distance found so far where that is less.",
    when_to_use: "\
Where the distance of each sample's boundary is wanted, and beside `apgd` where gradients are scaled or masked: no step size has to fit, and the size of the gradient does not matter.",
    when_not: "\
With very many classes and few gradients to spend: each target class takes its own run.
Where the gradients say nothing (quantised models): there is no hyperplane then.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "100",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps each run takes.",
        },
        Parameter {
            name: "targets",
            default: "9",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many classes to run toward, those with the largest scores first; all others, where there are fewer.",
        },
        Parameter {
            name: "restarts",
            default: "1",
            accepts: "a whole number from 1 to 4294967295",
            help: "How often to go through the targets; random starts from the second time on.",
        },
        Parameter {
            name: "overshoot",
            default: "1.05",
            accepts: "a number from 1 to 2",
            help: "η: how far beyond the hyperplane to go.",
        },
        Parameter {
            name: "pull_back",
            default: "0.9",
            accepts: "a number above 0 and below 1",
            help: "β: how much of the way from the clean sample is kept after a misclassified point.",
        },
        Parameter {
            name: "bias",
            default: "0.1",
            accepts: "a number from 0 to 1",
            help: "The largest α: how much the clean sample's own projection may count.",
        },
    ],
    reference: "\
Croce and Hein: Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack. ICML 2020, <https://arxiv.org/abs/1907.02044>; the targeted form: Croce and Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks. ICML 2020, <https://arxiv.org/abs/2003.01690>, section 6.",
    build: |table| {
        let fab: Fab = SPEC.read(table)?;
        fab.check()?;
        Ok(Planned::Gradient(Arc::new(fab)))
    },
};

/// A distance that no step is divided by less than.
const SHORTEST: f64 = 1e-8;

/// The fast adaptive boundary attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fab {
    /// Steps per run.
    pub steps: NonZeroU32,
    /// Classes to run toward.
    pub targets: NonZeroU32,
    /// Rounds through the targets.
    pub restarts: NonZeroU32,
    /// η, from 1 to 2.
    pub overshoot: f64,
    /// β, above 0 and below 1.
    pub pull_back: f64,
    /// The largest α, from 0 to 1.
    pub bias: f64,
}

impl Default for Fab {
    fn default() -> Self {
        Fab {
            steps: const { NonZeroU32::new(100).unwrap() },
            targets: const { NonZeroU32::new(9).unwrap() },
            restarts: NonZeroU32::MIN,
            overshoot: 1.05,
            pull_back: 0.9,
            bias: 0.1,
        }
    }
}

impl Attack for Fab {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        if !(1.0..=2.0).contains(&self.overshoot) {
            return Err(SPEC.refuse("the overshoot must be from 1 to 2"));
        }
        if !(self.pull_back > 0.0 && self.pull_back < 1.0) {
            return Err(SPEC.refuse("pull_back must be above 0 and below 1"));
        }
        if !(0.0..=1.0).contains(&self.bias) {
            return Err(SPEC.refuse("the bias must be from 0 to 1"));
        }
        Ok(())
    }

    fn steps(&self) -> u32 {
        self.steps.get()
    }

    fn restarts(&self) -> u32 {
        self.restarts.saturating_mul(self.targets).get()
    }

    fn starts_at_random(&self, restart: u32) -> bool {
        restart >= self.targets.get()
    }

    fn goal(&self) -> Goal {
        Goal::MinimumNorm
    }

    fn targets(&self) -> u32 {
        self.targets.get()
    }

    fn loss(&self) -> Loss {
        Loss::Margin
    }

    /// What random starts stay within.
    fn step_size(&self, epsilon: f64) -> f64 {
        0.5 * epsilon
    }

    fn init<'a>(&self, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
        let half = Context {
            epsilon: context.step_size,
            ..*context
        };
        Start {
            point: geometry::start(&half, noise),
            state: Vec::new(),
        }
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, _: &[Array<'a>]) -> Next<'a> {
        let (clean, point) = (context.clean, pass.point);
        let pulled = clean + self.pull_back * (point - clean);
        let base = pass.adversarial.select(pulled, point);
        // margin(x) = margin(point) + g · (x − point) is 0 on the hyperplane.
        let onto = |from: Array<'a>| {
            let gap = (pass.gradient * (point - from)).sum() - pass.loss;
            let hyperplane = Hyperplane {
                normal: pass.gradient,
                gap,
            };
            geometry::onto_hyperplane(context, from, hyperplane)
        };
        let (step, from_clean) = (onto(base), onto(clean));
        let lengths =
            [step, from_clean].map(|way| geometry::length(context.norm, way).max(SHORTEST));
        let share = (lengths[0] / (lengths[0] + lengths[1])).min(self.bias);
        let next = (1.0 - share) * (base + self.overshoot * step)
            + share * (clean + self.overshoot * from_clean);
        Next {
            point: geometry::within_bounds(context, next),
            state: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::plane::Plane;
    use crate::threat::{Bounds, Norm};

    #[test]
    fn the_nearest_point_of_a_linear_model_is_found() {
        for norm in Norm::CONVEX {
            for bounds in [Bounds::UNIT, Bounds::NONE] {
                Plane::new(norm, bounds, 6, 50).assert_nearest(&Fab::default(), 0.01);
            }
        }
    }

    #[test]
    fn a_sample_gets_the_same_alone_as_in_a_batch() {
        for norm in Norm::CONVEX {
            Plane::assert_alone(&Fab::default(), norm);
        }
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        for (fab, word) in [
            (
                Fab {
                    overshoot: 0.9,
                    ..Fab::default()
                },
                "overshoot",
            ),
            (
                Fab {
                    pull_back: 1.0,
                    ..Fab::default()
                },
                "pull_back",
            ),
            (
                Fab {
                    bias: f64::NAN,
                    ..Fab::default()
                },
                "bias",
            ),
        ] {
            let message = fab.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
