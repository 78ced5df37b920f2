//! MI-FGSM: steps along a gradient with momentum.

use super::array::Array;
use super::expectation;
use super::pgd::positive_number;
use super::spec::LOSS;
use super::targeted::{self, EOT, TARGETS};
use super::{
    Attack, AttackSpec, Context, Error, Extent, Loss, Next, Parameter, Pass, Planned, Start,
    StateArray, geometry,
};
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, sync::Arc};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "mi_fgsm",
    summary: "Steps along the direction of an accumulated gradient",
    what_it_does: "\
Starts at the clean sample and repeats a ← μ·a + g/‖g‖₁, x ← P(x + α·direction(a)): each gradient is brought to length 1 in ℓ1 before it is added, so that early and late ones count alike.
The direction is sign(a) in ℓ∞, a/‖a‖₂ in ℓ2 and a sparse one in ℓ1, as for `pgd`; P is the exact projection onto the part of the ball that lies within the bounds.
A gradient that is all zero adds nothing; the momentum then goes on.",
    when_to_use: "\
To make examples that also fool other models (`transfer`): momentum keeps the direction that many points share.",
    when_not: "\
As a measure of robustness by itself: `apgd` and `pgd` find more with the same number of gradients.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "10",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps to take.",
        },
        Parameter {
            name: "step_size",
            default: "ε/steps",
            accepts: "a number above 0, as a decimal or a fraction such as 2/255",
            help: "α, the length of a step in the chosen norm, in the units of the data.",
        },
        Parameter {
            name: "decay",
            default: "1",
            accepts: "a number from 0",
            help: "μ: how much of the accumulated gradient is kept.",
        },
        LOSS,
        TARGETS,
        EOT,
    ],
    reference: "\
Dong, Liao, Pang, Su, Zhu, Hu and Li: Boosting Adversarial Attacks with Momentum. CVPR 2018, <https://arxiv.org/abs/1710.06081>.",
    build: |table| {
        let attack: MiFgsm = SPEC.read(table)?;
        attack.check()?;
        Ok(Planned::Gradient(Arc::new(attack)))
    },
};

/// The iterative gradient sign method with momentum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MiFgsm {
    /// Steps.
    pub steps: NonZeroU32,
    /// The length of a step in the units of the data; ε/steps where it is `None`.
    #[serde(
        deserialize_with = "positive_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub step_size: Option<f64>,
    /// μ, at least 0.
    pub decay: f64,
    /// The loss to raise.
    pub loss: Loss,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
    /// Gradients that a step takes the mean of.
    pub eot: NonZeroU32,
}

impl Default for MiFgsm {
    fn default() -> Self {
        MiFgsm {
            steps: const { NonZeroU32::new(10).unwrap() },
            step_size: None,
            decay: 1.0,
            loss: Loss::default(),
            targets: 0,
            eot: NonZeroU32::MIN,
        }
    }
}

impl Attack for MiFgsm {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        let sensible = |number: f64| number >= 0.0 && number.is_finite();
        if self
            .step_size
            .is_some_and(|size| !sensible(size) || size == 0.0)
        {
            return Err(SPEC.refuse("the step size must be a finite number above 0"));
        }
        if !sensible(self.decay) {
            return Err(SPEC.refuse("the decay must be a finite number from 0"));
        }
        targeted::check(&SPEC, self.targets, self.loss)?;
        targeted::check_passes(&SPEC, self.steps, self.eot)
    }

    fn steps(&self) -> u32 {
        self.steps.saturating_mul(self.eot).get()
    }

    fn moves(&self) -> u32 {
        self.steps.get()
    }

    fn targets(&self) -> u32 {
        self.targets
    }

    fn loss(&self) -> Loss {
        self.loss
    }

    fn step_size(&self, epsilon: f64) -> f64 {
        self.step_size
            .unwrap_or(epsilon / f64::from(self.steps.get()))
    }

    fn state(&self) -> &'static [StateArray] {
        const MOMENTUM: StateArray = StateArray {
            name: "momentum",
            extent: Extent::Element,
        };
        if self.eot > NonZeroU32::MIN {
            const {
                &[
                    MOMENTUM,
                    expectation::STATE[0],
                    expectation::STATE[1],
                    expectation::STATE[2],
                ]
            }
        } else {
            const { &[MOMENTUM] }
        }
    }

    fn init<'a>(&self, context: &Context<'a>, _: Option<Array<'a>>) -> Start<'a> {
        let start = Start {
            point: context.clean,
            state: vec![context.clean * 0.0],
        };
        expectation::init(self.eot, start)
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let step = |pass: &Pass<'a>, state: &[Array<'a>]| self.along(context, pass, state);
        expectation::step(self.eot, pass, state, step)
    }
}

impl MiFgsm {
    /// One step along the momentum.
    fn along<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let &[momentum] = state else {
            unreachable!("one array for each of `state`");
        };
        let momentum = self.decay * momentum + geometry::of_unit_sum(pass.gradient);
        let along = Pass {
            gradient: momentum,
            ..*pass
        };
        let moved = pass.point + context.step_size * geometry::direction(context, &along);
        Next {
            point: geometry::project(context, moved),
            state: vec![momentum],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::linear::{Scene, weights};
    use crate::threat::{Bounds, Norm};
    use ndarray::{Array2, Axis, array, s};

    #[test]
    fn it_reaches_the_optimum_of_a_linear_model() {
        for (norm, epsilon, bounds, least) in [
            (Norm::Linf, 0.1, Bounds::UNIT, 0.999_9),
            (Norm::L2, 0.5, Bounds::NONE, 0.999_9),
            (Norm::L2, 0.5, Bounds::UNIT, 0.99),
            (Norm::L1, 0.5, Bounds::NONE, 0.99),
        ] {
            let scene = Scene::new(norm, epsilon, bounds, 6, 50);
            let weights = weights(6, 50);
            let attack = MiFgsm {
                steps: NonZeroU32::new(40).unwrap(),
                step_size: Some(epsilon / 10.0),
                ..MiFgsm::default()
            };
            let visited = scene.run(&attack, None, |_| weights.clone());
            let last = visited.last().unwrap();
            scene.assert_allowed(last);
            let gains = scene.gain(&weights, last);
            for (gain, best) in gains.into_iter().zip(scene.best_gain(&weights)) {
                assert!(gain >= least * best, "{norm} {epsilon}: {gain} of {best}");
            }
        }
    }

    /// Trap (prior art): 0/0 in the first step turns the momentum into NaN for good, the sample stays where it is and counts as robust.
    #[test]
    fn a_zero_gradient_at_first_does_not_stop_the_steps_after_it() {
        let scene = Scene::new(Norm::Linf, 0.1, Bounds::NONE, 1, 3);
        let clean = scene.clean.clone();
        let visited = scene.run(&MiFgsm::default(), None, |_| Array2::zeros((1, 3)));
        assert_eq!(visited.last().unwrap(), &clean);
        let calls = std::cell::Cell::new(0);
        let visited = scene.run(&MiFgsm::default(), None, |_| {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                Array2::zeros((1, 3))
            } else {
                array![[1.0, -2.0, 3.0]]
            }
        });
        let moved = visited.last().unwrap() - &clean;
        for (moved, expected) in moved.iter().zip([0.09, -0.09, 0.09]) {
            assert!((moved - expected).abs() < 1e-6, "{moved}");
        }
    }

    /// Trap (prior art): signs taken before they are accumulated lose what the momentum is for, the size of one element beside another.
    #[test]
    fn gradients_are_accumulated_and_not_their_signs() {
        let scene = Scene::new(Norm::Linf, 0.2, Bounds::NONE, 1, 2);
        let attack = MiFgsm {
            steps: NonZeroU32::new(2).unwrap(),
            ..MiFgsm::default()
        };
        let calls = std::cell::Cell::new(0);
        let visited = scene.run(&attack, None, |_| {
            calls.set(calls.get() + 1);
            // In ℓ1 of length 1, the first is (0.9, 0.1) and the second (−0.5, −0.5): sums 0.4 and −0.4.
            if calls.get() == 1 {
                array![[9.0, 1.0]]
            } else {
                array![[-2.0, -2.0]]
            }
        });
        let moved = visited.last().unwrap() - &scene.clean;
        assert!(
            (moved[[0, 0]] - 0.2).abs() < 1e-6 && moved[[0, 1]].abs() < 1e-6,
            "{moved}"
        );
    }

    /// Trap (prior art): with a fixed step of 2/255 instead of ε/n the ball is never filled, or left at once.
    #[test]
    fn the_steps_add_up_to_epsilon() {
        assert_eq!(MiFgsm::default().step_size(0.5), 0.05);
    }

    #[test]
    fn a_sample_gets_the_same_alone_as_in_a_batch() {
        for norm in Norm::CONVEX {
            let scene = Scene::new(norm, 0.3, Bounds::UNIT, 6, 50);
            let weights = weights(6, 50);
            let batch = scene.run(&MiFgsm::default(), None, |point| point * &weights);
            let alone = Scene {
                clean: scene.clean.slice(s![4..5, ..]).to_owned(),
                ..scene
            };
            let row = weights.select(Axis(0), &[4]);
            let alone = alone.run(&MiFgsm::default(), None, |point| point * &row);
            let batch = batch.last().unwrap().slice(s![4..5, ..]).to_owned();
            assert_eq!(&batch, alone.last().unwrap(), "{norm}");
        }
    }

    #[test]
    fn parameters_that_make_no_sense_are_refused() {
        for (attack, word) in [
            (
                MiFgsm {
                    step_size: Some(0.0),
                    ..MiFgsm::default()
                },
                "step size",
            ),
            (
                MiFgsm {
                    decay: f64::NAN,
                    ..MiFgsm::default()
                },
                "decay",
            ),
        ] {
            let message = attack.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
