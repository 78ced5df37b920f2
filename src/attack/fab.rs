//! FAB, the fast adaptive boundary attack: steps onto linear pictures of the decision boundary, drawn toward the clean sample.

use super::array::Array;
use super::geometry::{self, Hyperplane};
use super::{
    Attack, AttackSpec, Context, Error, Extent, Goal, Loss, Next, Parameter, Pass, Planned, Start,
    StateArray,
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
Runs after the first round of targets start at a random point whose distance is half of ε, or of the smallest distance found so far where that is less.
With `untargeted=true` there is one run instead of one for each class: each of its steps takes the gradient toward every target, and goes by the hyperplane that is nearest to the point, at |margin|/‖g‖ in the dual norm.",
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
        Parameter {
            name: "untargeted",
            default: "false",
            accepts: "true or false",
            help: "`true` goes toward whichever of the targets is nearest at each step, which then takes one gradient per target.",
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

/// A distance that no hyperplane has.
const NEVER: f64 = 1e30;

/// What an untargeted run keeps between the gradients of one step.
const STATE: [StateArray; 4] = [
    StateArray {
        name: "candidate",
        extent: Extent::Sample,
    },
    StateArray {
        name: "distance",
        extent: Extent::Sample,
    },
    StateArray {
        name: "margin",
        extent: Extent::Sample,
    },
    StateArray {
        name: "normal",
        extent: Extent::Element,
    },
];

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
    /// Whether a run goes toward the nearest of the targets at each step, instead of toward one of them.
    pub untargeted: bool,
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
            untargeted: false,
        }
    }
}

impl Fab {
    /// Where a step ends that goes by the boundary on which the margin, `margin` with gradient `normal` at the point, is 0.
    fn toward<'a>(
        &self,
        context: &Context<'a>,
        pass: &Pass<'a>,
        margin: Array<'a>,
        normal: Array<'a>,
    ) -> Array<'a> {
        let (clean, point) = (context.clean, pass.point);
        let pulled = clean + self.pull_back * (point - clean);
        let base = pass.adversarial.select(pulled, point);
        // margin(x) = margin(point) + g · (x − point) is 0 on the hyperplane.
        let onto = |from: Array<'a>| {
            let gap = (normal * (point - from)).sum() - margin;
            geometry::onto_hyperplane(context, from, Hyperplane { normal, gap })
        };
        let (step, from_clean) = (onto(base), onto(clean));
        let lengths =
            [step, from_clean].map(|way| geometry::length(context.norm, way).max(SHORTEST));
        let share = (lengths[0] / (lengths[0] + lengths[1])).min(self.bias);
        let next = (1.0 - share) * (base + self.overshoot * step)
            + share * (clean + self.overshoot * from_clean);
        geometry::within_bounds(context, next)
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
        let gradients = if self.untargeted {
            self.targets
        } else {
            NonZeroU32::MIN
        };
        self.steps.saturating_mul(gradients).get()
    }

    fn restarts(&self) -> u32 {
        let runs = if self.untargeted {
            NonZeroU32::MIN
        } else {
            self.targets
        };
        self.restarts.saturating_mul(runs).get()
    }

    fn starts_at_random(&self, restart: u32) -> bool {
        restart >= self.restarts() / self.restarts.get()
    }

    fn goal(&self) -> Goal {
        Goal::MinimumNorm
    }

    fn targets(&self) -> u32 {
        self.targets.get()
    }

    fn targets_in_turn(&self) -> bool {
        self.untargeted
    }

    fn for_classes(&self, classes: usize) -> Option<Arc<dyn Attack>> {
        let others = u32::try_from(classes.saturating_sub(1)).ok()?;
        let fewer = |others: &NonZeroU32| self.untargeted && *others < self.targets;
        let targets = NonZeroU32::new(others).filter(fewer)?;
        Some(Arc::new(Fab {
            targets,
            ..self.clone()
        }))
    }

    fn loss(&self) -> Loss {
        Loss::Margin
    }

    /// What random starts stay within.
    fn step_size(&self, epsilon: f64) -> f64 {
        0.5 * epsilon
    }

    fn state(&self) -> &'static [StateArray] {
        if self.untargeted { &STATE } else { &[] }
    }

    fn init<'a>(&self, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
        let half = Context {
            epsilon: context.step_size,
            ..*context
        };
        let each = |value: f64| context.epsilon * 0.0 + value;
        let state = if self.untargeted {
            vec![each(0.0), each(NEVER), each(0.0), context.clean * 0.0]
        } else {
            Vec::new()
        };
        Start {
            point: geometry::start(&half, noise),
            state,
        }
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let &[candidate, shortest, margin, normal] = state else {
            return Next {
                point: self.toward(context, pass, pass.loss, pass.gradient),
                state: Vec::new(),
            };
        };
        let steepness = geometry::dual_length(context.norm, pass.gradient);
        let distance = (pass.loss.abs() / steepness).min(NEVER);
        let nearer = distance.lt(shortest);
        let (shortest, margin, normal) = (
            nearer.select(distance, shortest),
            nearer.select(pass.loss, margin),
            nearer.select(pass.gradient, normal),
        );
        let last = candidate.gt(f64::from(self.targets.get()) - 1.5);
        let next = self.toward(context, pass, margin, normal);
        Next {
            point: last.select(next, pass.point),
            state: vec![
                last.select(0.0, candidate + 1.0),
                last.select(NEVER, shortest),
                last.select(0.0, margin),
                last.select(0.0, normal),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::host::HostArrays;
    use crate::attack::plane::Plane;
    use crate::threat::{Bounds, Norm};
    use ndarray::array;

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
            Plane::assert_alone(&untargeted(1), norm);
        }
    }

    fn untargeted(targets: u32) -> Fab {
        Fab {
            targets: NonZeroU32::new(targets).unwrap(),
            untargeted: true,
            ..Fab::default()
        }
    }

    /// With a single other class both are the same attack.
    #[test]
    fn untargeted_toward_one_class_goes_through_the_points_of_the_targeted_run() {
        for norm in Norm::CONVEX {
            let plane = Plane::new(norm, Bounds::UNIT, 6, 50);
            let targeted = plane.run(&Fab::default(), None);
            assert_eq!(targeted, plane.run(&untargeted(1), None), "{norm}");
        }
    }

    /// Three classes, whose boundaries are hyperplanes in different directions: the second one is the nearest.
    #[test]
    fn untargeted_goes_by_the_nearest_hyperplane_and_waits_until_it_has_seen_all() {
        let normals = [[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0_f32]];
        let margins = [-1.5, -1.0, -0.4_f32];
        let fab = untargeted(3);
        let (mut point, mut state) = (array![[0.5, 0.5, 0.5_f32]], Vec::new());
        for (candidate, (normal, margin)) in normals.into_iter().zip(margins).enumerate() {
            let arrays = HostArrays::new(3);
            let clean = arrays.input(array![[0.5, 0.5, 0.5]]);
            let context = Context {
                norm: Norm::L2,
                clean,
                low: clean.constant(0.0),
                high: clean.constant(1.0),
                epsilon: clean.constant(1.0),
                step_size: clean.constant(0.5),
            };
            if candidate == 0 {
                let start = fab.init(&context, None);
                state = start.state.iter().map(|&a| arrays.value(a)).collect();
            }
            let pass = Pass {
                point: arrays.input(point.clone()),
                gradient: arrays.input(array![normal]),
                loss: arrays.input(array![[margin]]),
                adversarial: arrays.input(array![[0.0]]),
            };
            let before: Vec<_> = state.drain(..).map(|a| arrays.input(a)).collect();
            let next = fab.step(&context, &pass, &before);
            state = next.state.iter().map(|&a| arrays.value(a)).collect();
            point = arrays.value(next.point);
            if candidate < 2 {
                assert_eq!(point, array![[0.5, 0.5, 0.5]], "waits for all");
            }
        }
        // 0.25 to the boundary, and 5 % further.
        assert!((point[[0, 1]] - 0.5 - 1.05 * 0.25).abs() < 1e-5, "{point}");
        assert_eq!((point[[0, 0]], point[[0, 2]]), (0.5, 0.5));
    }

    #[test]
    fn untargeted_takes_a_gradient_for_each_class_that_there_is() {
        let fab = untargeted(9);
        assert_eq!((fab.steps(), fab.restarts()), (900, 1));
        assert!(!fab.starts_at_random(0) && fab.starts_at_random(1));
        let fitted = fab.for_classes(3).unwrap();
        assert_eq!((fitted.steps(), fitted.targets()), (200, 2));
        assert!(Fab::default().for_classes(3).is_none());
        assert!(!Fab::default().starts_at_random(8) && Fab::default().starts_at_random(9));
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
