//! `DeepFool`: steps straight onto the nearest of the linearised boundaries, until the point is across.

use super::array::Array;
use super::geometry;
use super::{
    Attack, AttackSpec, Context, Error, Extent, Goal, Loss, Next, Parameter, Pass, Planned, Start,
    StateArray,
};
use crate::threat::Norm;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, sync::Arc};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "deepfool",
    summary: "Steps onto the nearest of the linearised boundaries until the point is misclassified",
    what_it_does: "\
Takes the margin of each candidate class and its gradient for a hyperplane, at distance |margin|/‖g‖_q (q = 2 in ℓ2, 1 in ℓ∞), and adds the shortest way onto the nearest of them \
to a perturbation r: r += distance·g/‖g‖₂ in ℓ2, distance·sign(g) in ℓ∞, each a ten-thousandth of the range of values longer. The next point is x₀ + (1 + overshoot)·r, clipped to the bounds.
A sample is done with its first misclassified point. Each step takes one gradient per candidate; the candidates are those with the largest scores of the clean sample.",
    when_to_use: "\
For a quick distance to compare with published ones: a few steps are enough.",
    when_not: "\
Where the smallest distance is wanted: it stops at its first find, beyond the boundary by the overshoot, and knows the bounds only as something to clip to; `fab` takes the same hyperplanes further.
In ℓ1: use `fmn` or `fab`.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "50",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps to take at most.",
        },
        Parameter {
            name: "candidates",
            default: "9",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many classes to look at beside the label; all, where there are fewer. Foolbox counts the label too.",
        },
        Parameter {
            name: "overshoot",
            default: "0.02",
            accepts: "a number from 0 to 1",
            help: "Which part of the perturbation to go beyond the boundary.",
        },
    ],
    reference: "\
Moosavi-Dezfooli, Fawzi and Frossard: DeepFool: a simple and accurate method to fool deep neural networks. CVPR 2016, <https://arxiv.org/abs/1511.04599>.",
    build: |table| {
        let deepfool: DeepFool = SPEC.read(table)?;
        deepfool.check()?;
        Ok(Planned::Gradient(Arc::new(deepfool)))
    },
};

/// A distance that no hyperplane has.
const NEVER: f64 = 1e30;

/// How much further each step goes, in units of the distance between the bounds; as in Foolbox.
const NUDGE: f64 = 1e-4;

/// Steps onto the nearest linearised boundary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepFool {
    /// Steps, each with one gradient for each candidate.
    pub steps: NonZeroU32,
    /// Classes to look at beside the label.
    pub candidates: NonZeroU32,
    /// From 0 to 1.
    pub overshoot: f64,
}

impl Default for DeepFool {
    fn default() -> Self {
        DeepFool {
            steps: const { NonZeroU32::new(50).unwrap() },
            candidates: const { NonZeroU32::new(9).unwrap() },
            overshoot: 0.02,
        }
    }
}

impl Attack for DeepFool {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&self.overshoot) {
            return Err(SPEC.refuse("the overshoot must be from 0 to 1"));
        }
        Ok(())
    }

    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        SPEC.only_norms(
            norm,
            &[Norm::Linf, Norm::L2],
            "use fmn or fab, or attack in linf or l2",
        )
    }

    fn steps(&self) -> u32 {
        self.steps.saturating_mul(self.candidates).get()
    }

    fn goal(&self) -> Goal {
        Goal::MinimumNorm
    }

    fn targets(&self) -> u32 {
        self.candidates.get()
    }

    fn targets_in_turn(&self) -> bool {
        true
    }

    fn ends_when_found(&self) -> bool {
        true
    }

    fn for_classes(&self, classes: usize) -> Option<Arc<dyn Attack>> {
        let others = u32::try_from(classes.saturating_sub(1)).ok()?;
        let others = NonZeroU32::new(others).filter(|others| *others < self.candidates)?;
        Some(Arc::new(DeepFool {
            candidates: others,
            ..self.clone()
        }))
    }

    fn loss(&self) -> Loss {
        Loss::Margin
    }

    fn step_size(&self, _: f64) -> f64 {
        1.0
    }

    fn state(&self) -> &'static [StateArray] {
        const {
            &[
                StateArray {
                    name: "candidate",
                    extent: Extent::Sample,
                },
                StateArray {
                    name: "shortest",
                    extent: Extent::Sample,
                },
                StateArray {
                    name: "way",
                    extent: Extent::Element,
                },
                StateArray {
                    name: "total",
                    extent: Extent::Element,
                },
            ]
        }
    }

    fn init<'a>(&self, context: &Context<'a>, _: Option<Array<'a>>) -> Start<'a> {
        let each = |value: f64| context.epsilon * 0.0 + value;
        let nowhere = context.clean * 0.0;
        Start {
            point: context.clean,
            state: vec![each(0.0), each(NEVER), nowhere, nowhere],
        }
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let &[candidate, shortest, way, total] = state else {
            unreachable!("one array for each of `state`");
        };
        // A gradient of 0 is of a hyperplane that is nowhere near.
        let steepness = geometry::dual_length(context.norm, pass.gradient);
        let distance = (pass.loss.abs() / steepness).min(NEVER);
        let nearer = distance.lt(shortest);
        // Elements that meet a bound do not move, and each step then closes but a part of the gap: it would never be crossed.
        let width = context.high - context.low;
        let nudge = width.lt(NEVER).select(NUDGE * width, 0.0);
        let here = (distance + nudge) * geometry::steepest(context.norm, pass.gradient);
        let (shortest, way) = (nearer.select(distance, shortest), nearer.select(here, way));
        let last = candidate.gt(f64::from(self.candidates.get()) - 1.5);
        let total = last.select(total + way, total);
        let moved = context.clean + (1.0 + self.overshoot) * total;
        Next {
            point: last.select(geometry::within_bounds(context, moved), pass.point),
            state: vec![
                last.select(0.0, candidate + 1.0),
                last.select(NEVER, shortest),
                last.select(0.0, way),
                total,
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::host::HostArrays;
    use crate::attack::linear::{Scene, weights};
    use crate::attack::plane::Plane;
    use crate::threat::Bounds;
    use ndarray::{Array2, s};

    const NORMS: [Norm; 2] = [Norm::Linf, Norm::L2];

    fn short(overshoot: f64, candidates: u32) -> DeepFool {
        DeepFool {
            steps: NonZeroU32::new(3).unwrap(),
            candidates: NonZeroU32::new(candidates).unwrap(),
            overshoot,
        }
    }

    #[test]
    fn on_a_linear_model_the_distance_is_the_nearest_one_and_the_overshoot() {
        for norm in NORMS {
            let plane = Plane::new(norm, Bounds::NONE, 8, 50);
            plane.assert_nearest(&short(0.005, 1), 0.0051);
            plane.assert_nearest(&short(0.02, 1), 0.0201);
        }
    }

    #[test]
    fn a_sample_gets_the_same_alone_as_in_a_batch() {
        for norm in NORMS {
            Plane::assert_alone(&short(0.02, 1), norm);
        }
    }

    /// Every class has a hyperplane of its own; the one that is nearest is not the one of the largest score.
    #[test]
    fn of_several_classes_the_nearest_boundary_is_the_one_that_is_stepped_onto() {
        const CLASSES: usize = 5;
        for norm in NORMS {
            let width = 30;
            let scene = Scene::new(norm, 1.0, Bounds::NONE, 1, width);
            let normals = weights(CLASSES, width);
            let margins = [-40.0, -90.0, -12.0, -200.0, -35.0_f32];
            // The length of a row in the dual norm, as float64 has it.
            let dual = |row: usize| -> f64 {
                let row = normals.row(row);
                let sizes = row.iter().map(|&w| f64::from(w).abs());
                match norm {
                    Norm::Linf => sizes.sum(),
                    _ => sizes.map(|w| w * w).sum::<f64>().sqrt(),
                }
            };
            let nearest = (0..CLASSES)
                .map(|class| f64::from(-margins[class]) / dual(class))
                .fold(f64::INFINITY, f64::min);
            let attack = short(0.0, CLASSES as u32);
            let mut state = Vec::new();
            let mut point = scene.clean.clone();
            for (class, &margin) in margins.iter().enumerate() {
                let arrays = HostArrays::new(width);
                (point, state) = scene.with(&arrays, 1.0, |context| {
                    if class == 0 {
                        let start = attack.init(context, None);
                        state = start.state.iter().map(|&a| arrays.value(a)).collect();
                    }
                    let pass = Pass {
                        point: arrays.input(point.clone()),
                        gradient: arrays.input(normals.slice(s![class..=class, ..]).to_owned()),
                        loss: arrays.input(Array2::from_elem((1, 1), margin)),
                        adversarial: arrays.input(Array2::zeros((1, 1))),
                    };
                    let before: Vec<_> = state.drain(..).map(|a| arrays.input(a)).collect();
                    let next = attack.step(context, &pass, &before);
                    let state = next.state.iter().map(|&a| arrays.value(a)).collect();
                    (arrays.value(next.point), state)
                });
                let moved = norm.distance(&scene.clean.row(0).to_vec(), &point.row(0).to_vec());
                if class + 1 < CLASSES {
                    assert_eq!(moved, 0.0, "the point waits for every class");
                } else {
                    assert!(
                        (moved / nearest - 1.0).abs() < 1e-4,
                        "{norm}: {moved} {nearest}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_dead_gradient_moves_nothing() {
        for norm in NORMS {
            let mut plane = Plane::new(norm, Bounds::UNIT, 2, 10);
            plane.normal.fill(0.0);
            let visited = plane.run(&short(0.02, 1), None);
            assert_eq!(visited.last().unwrap(), &plane.scene.clean, "{norm}");
        }
    }

    #[test]
    fn no_more_candidates_are_looked_at_than_there_are() {
        let attack = DeepFool::default();
        let fitted = attack.for_classes(3).unwrap();
        assert_eq!((fitted.targets(), fitted.steps()), (2, 100));
        assert!(attack.for_classes(10).is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let message = short(-0.1, 1).check().unwrap_err().to_string();
        assert!(message.contains("overshoot"), "{message}");
        let message = short(0.1, 1).check_norm(Norm::L1).unwrap_err().to_string();
        assert!(message.contains("use fmn or fab"), "{message}");
    }
}
