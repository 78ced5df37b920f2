//! PGD, projected gradient descent: many small steps, each followed by a projection back into the ball and the bounds.

use super::array::Array;
use super::expectation;
use super::spec::LOSS;
use super::targeted::{self, EOT, TARGETS};
use super::{
    Attack, AttackSpec, Context, Error, Loss, Next, Parameter, Pass, Planned, Start, StateArray,
    geometry,
};
use crate::threat::parse_number;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{fmt, num::NonZeroU32, sync::Arc};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "pgd",
    summary: "Many small steps along the gradient, each projected back into the ball and the bounds",
    what_it_does: "\
Starts at a random point of the ball (uniform in the ball of the chosen norm, clipped to the bounds) and repeats x ← P(x + α·direction(g)), where α is the step size.
The direction is sign(g) in ℓ∞ and g/‖g‖₂ in ℓ2.
In ℓ1 a step is spread evenly over the 1 % of elements with the largest |g| that can still move.
P is the exact projection onto the part of the ball that lies within the bounds, in ℓ2 and ℓ1 too: clipping after projecting on the ball alone would end nearer to the clean sample than necessary.
With `targets=n` and the margin this is the multi-targeted attack: each restart raises the score of one class above the label's.",
    when_to_use: "\
As the standard measure of robustness. More steps and more restarts make it stronger; a robust accuracy that still falls with either was not the end.",
    when_not: "\
Alone, for a model whose gradients may say nothing (quantised, random, very confident): try `loss=margin` as well, and distrust a model that `pgd` breaks less often than `fgsm` does.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "40",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps each restart takes.",
        },
        Parameter {
            name: "step_size",
            default: "2.5·ε/steps",
            accepts: "a number above 0, as a decimal or a fraction such as 2/255",
            help: "α, the length of a step in the chosen norm, in the units of the data.",
        },
        Parameter {
            name: "restarts",
            default: "1",
            accepts: "a whole number from 1 to 4294967295",
            help: "How often to run from a new random point on a sample that is not broken yet.",
        },
        Parameter {
            name: "random_start",
            default: "true",
            accepts: "true or false",
            help: "`false` starts at the clean sample.",
        },
        LOSS,
        TARGETS,
        EOT,
    ],
    reference: "\
Madry, Makelov, Schmidt, Tsipras and Vladu: Towards Deep Learning Models Resistant to Adversarial Attacks. ICLR 2018, <https://arxiv.org/abs/1706.06083>.
With targets: Gowal, Uesato, Qin, Huang, Mann and Kohli: An Alternative Surrogate Loss for PGD-based Adversarial Testing. 2019, <https://arxiv.org/abs/1910.09338>.
The ℓ1 direction: Tramèr and Boneh: Adversarial Training and Robustness for Multiple Perturbations. NeurIPS 2019, <https://arxiv.org/abs/1904.13000>.",
    build: |table| {
        let pgd: Pgd = SPEC.read(table)?;
        pgd.check()?;
        Ok(Planned::Gradient(Arc::new(pgd)))
    },
};

/// How far all steps together reach, in units of ε, where no step size is given: any point of the ball can be reached from any other.
const REACH: f64 = 2.5;

/// Projected gradient descent (on the negative loss, whence the name).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pgd {
    /// Steps per restart.
    pub steps: NonZeroU32,
    /// The length of a step in the units of the data; 2.5·ε/steps where it is `None`.
    #[serde(
        deserialize_with = "positive_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub step_size: Option<f64>,
    /// Runs per sample, each from a random point of its own.
    pub restarts: NonZeroU32,
    /// Whether to start at a random point of the ball instead of the clean sample.
    pub random_start: bool,
    /// The loss to raise.
    pub loss: Loss,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
    /// Gradients that a step takes the mean of.
    pub eot: NonZeroU32,
}

impl Default for Pgd {
    fn default() -> Self {
        Pgd {
            steps: const { NonZeroU32::new(40).unwrap() },
            step_size: None,
            restarts: NonZeroU32::MIN,
            random_start: true,
            loss: Loss::default(),
            targets: 0,
            eot: NonZeroU32::MIN,
        }
    }
}

impl Attack for Pgd {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        if self.step_size.is_some_and(|size| !is_step_size(size)) {
            return Err(SPEC.refuse("the step size must be a finite number above 0"));
        }
        targeted::check(&SPEC, self.targets, self.loss)?;
        targeted::check_restarts(&SPEC, self.restarts, self.random_start)?;
        targeted::check_passes(&SPEC, self.steps, self.eot)
    }

    fn steps(&self) -> u32 {
        self.steps.saturating_mul(self.eot).get()
    }

    fn moves(&self) -> u32 {
        self.steps.get()
    }

    fn restarts(&self) -> u32 {
        targeted::runs(self.restarts, self.targets)
    }

    fn targets(&self) -> u32 {
        self.targets
    }

    fn random_start(&self) -> bool {
        self.random_start
    }

    fn loss(&self) -> Loss {
        self.loss
    }

    fn step_size(&self, epsilon: f64) -> f64 {
        self.step_size
            .unwrap_or(REACH * epsilon / f64::from(self.steps.get()))
    }

    fn state(&self) -> &'static [StateArray] {
        if self.eot > NonZeroU32::MIN {
            &expectation::STATE
        } else {
            &[]
        }
    }

    fn init<'a>(&self, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
        let start = Start {
            point: geometry::start(context, noise),
            state: Vec::new(),
        };
        expectation::init(self.eot, start)
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let step = |pass: &Pass<'a>, _: &[Array<'a>]| {
            let moved = pass.point + context.step_size * geometry::direction(context, pass);
            Next {
                point: geometry::project(context, moved),
                state: Vec::new(),
            }
        };
        expectation::step(self.eot, pass, state, step)
    }
}

fn is_step_size(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

/// A number above 0, or a text that holds one (`"2/255"`, as configuration files have to write it).
pub(super) fn positive_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f64>, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a positive number or fraction such as 2/255")
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<f64, E> {
            if is_step_size(value) {
                Ok(value)
            } else {
                Err(E::invalid_value(de::Unexpected::Float(value), &self))
            }
        }

        #[expect(
            clippy::cast_precision_loss,
            reason = "no step is longer than 2⁵³ to the unit"
        )]
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<f64, E> {
            self.visit_f64(value as f64)
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<f64, E> {
            let number = parse_number(value)
                .map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))?;
            self.visit_f64(number)
        }
    }

    deserializer.deserialize_any(Visitor).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::linear::{Scene, weights};
    use crate::attack::{AttackPlan, Fgm, Fgsm};
    use crate::threat::{Bounds, Norm};
    use ndarray::{Array2, Axis, array};
    use proptest::prelude::*;

    fn pgd(steps: u32, random_start: bool) -> Pgd {
        Pgd {
            steps: NonZeroU32::new(steps).unwrap(),
            random_start,
            ..Pgd::default()
        }
    }

    /// The largest gain over all visited points, as a share of the best that is possible.
    fn shares(scene: &Scene, weights: &Array2<f32>, visited: &[Array2<f32>]) -> Vec<f64> {
        let best = scene.best_gain(weights);
        let mut shares = vec![f64::NEG_INFINITY; best.len()];
        for point in visited {
            scene.assert_allowed(point);
            let gains = scene.gain(weights, point);
            for ((share, gain), best) in shares.iter_mut().zip(gains).zip(&best) {
                *share = share.max(gain / best);
            }
        }
        shares
    }

    #[test]
    fn it_reaches_the_optimum_of_a_linear_model() {
        for (norm, epsilon, bounds, tolerance) in [
            (Norm::Linf, 0.1, Bounds::UNIT, 1e-5),
            (Norm::Linf, 0.1, Bounds::NONE, 1e-5),
            (Norm::L2, 0.5, Bounds::NONE, 1e-5),
            (Norm::L2, 0.5, Bounds::UNIT, 1e-4),
            (Norm::L2, 2.5, Bounds::UNIT, 1e-4),
            (Norm::L1, 0.5, Bounds::NONE, 1e-5),
            // Near the optimum, steps of one coordinate at a time circle around it at the distance of a step.
            (Norm::L1, 2.5, Bounds::UNIT, 0.02),
        ] {
            let scene = Scene::new(norm, epsilon, bounds, 6, 50);
            let weights = weights(6, 50);
            let visited = scene.run(&pgd(40, false), None, |_| weights.clone());
            for share in shares(&scene, &weights, &visited) {
                assert!(
                    (1.0 - tolerance..1.0 + 1e-5).contains(&share),
                    "{norm} {epsilon} {bounds:?}: {share}"
                );
            }
        }
    }

    #[test]
    fn it_reaches_the_optimum_from_random_starts_too() {
        for (norm, epsilon, tolerance) in [
            (Norm::Linf, 0.1, 1e-5),
            (Norm::L2, 1.0, 1e-4),
            (Norm::L1, 1.0, 0.05),
        ] {
            let attack = Pgd {
                step_size: Some(epsilon / 10.0),
                ..pgd(100, true)
            };
            let scene = Scene::new(norm, epsilon, Bounds::UNIT, 6, 50);
            let weights = weights(6, 50);
            let noise = scene.noise(&[0, 1, 2, 3, 4, 5]);
            let visited = scene.run(&attack, Some(noise), |_| weights.clone());
            assert_ne!(visited[0], scene.clean);
            for share in shares(&scene, &weights, &visited) {
                assert!(share > 1.0 - tolerance, "{norm}: {share}");
            }
        }
    }

    /// Projecting onto the ball alone and clipping afterwards would end at 0.2798 here instead of 0.2828, short of the surface.
    #[test]
    fn bounds_are_met_by_projecting_and_not_by_clipping_afterwards() {
        let mut scene = Scene::new(Norm::L2, 0.3, Bounds::UNIT, 1, 2);
        scene.clean = array![[0.5, 0.9]];
        let visited = scene.run(&pgd(40, false), None, |_| array![[1.0, 1.0]]);
        let last = visited.last().unwrap() - &scene.clean;
        let expected = (0.3_f32.powi(2) - 0.1_f32.powi(2)).sqrt();
        assert!((last[[0, 0]] - expected).abs() < 1e-6, "{last}");
        assert!((last[[0, 1]] - 0.1).abs() < 1e-6, "{last}");
    }

    #[test]
    fn a_single_step_of_epsilon_is_the_single_step_attack() {
        let attack = Pgd {
            step_size: Some(0.3),
            ..pgd(1, false)
        };
        let weights = weights(6, 50);
        let scene = Scene::new(Norm::Linf, 0.3, Bounds::UNIT, 6, 50);
        assert_eq!(
            scene.run(&attack, None, |_| weights.clone()),
            scene.run(&Fgsm::default(), None, |_| weights.clone())
        );
        for norm in [Norm::L2, Norm::L1] {
            let scene = Scene::new(norm, 0.3, Bounds::NONE, 6, 50);
            let ours = scene.run(&attack, None, |_| weights.clone());
            let fgm = scene.run(&Fgm::default(), None, |_| weights.clone());
            let error = (&ours[1] - &fgm[1]).mapv(f32::abs).sum();
            assert!(error < 1e-5, "{norm}: {error}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_however_they_are_made() {
        for attack in [
            Pgd {
                step_size: Some(-0.1),
                ..Pgd::default()
            },
            Pgd {
                step_size: Some(f64::NAN),
                ..Pgd::default()
            },
            Pgd {
                restarts: NonZeroU32::new(2).unwrap(),
                ..pgd(40, false)
            },
        ] {
            let plan = AttackPlan::new([Arc::new(attack.clone()) as Arc<dyn Attack>]);
            assert!(matches!(plan, Err(Error::Value { .. })), "{attack:?}");
        }
    }

    #[test]
    fn the_default_step_size_shrinks_with_the_steps() {
        assert_eq!(Pgd::default().step_size(0.8), 2.5 * 0.8 / 40.0);
        assert_eq!(pgd(1, true).step_size(0.8), 2.0);
    }

    #[test]
    fn a_sample_gets_the_same_in_any_batch_and_order() {
        for norm in Norm::CONVEX {
            let scene = Scene::new(norm, 0.5, Bounds::UNIT, 6, 50);
            let weights = weights(6, 50);
            // A gradient that depends on the point, so that differences would grow.
            let run = |samples: &[usize]| {
                let part = Scene {
                    clean: scene.clean.select(Axis(0), samples),
                    ..scene
                };
                let weights = weights.select(Axis(0), samples);
                let numbers: Vec<u64> = samples.iter().map(|&sample| sample as u64).collect();
                let noise = part.noise(&numbers);
                let visited = part.run(&pgd(7, true), Some(noise), |point| {
                    (point * &weights).mapv(f32::sin)
                });
                visited.last().unwrap().clone()
            };
            let all = run(&[0, 1, 2, 3, 4, 5]);
            for order in [&[5, 4, 3, 2, 1, 0][..], &[3], &[2, 4]] {
                assert_eq!(run(order), all.select(Axis(0), order), "{norm} {order:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn every_visited_point_is_in_the_ball_and_the_bounds(
            norm in prop::sample::select(Norm::CONVEX.to_vec()),
            epsilon in prop_oneof![Just(2.0 / 255.0), Just(1e-9), 0.001..5.0_f64],
            bounded: bool,
            steps in 1..5_u32,
            width in 1..200_usize,
            twist in -10.0..10.0_f32,
        ) {
            let bounds = if bounded { Bounds::UNIT } else { Bounds::NONE };
            let scene = Scene::new(norm, epsilon, bounds, 3, width);
            let noise = scene.noise(&[7, 8, 9]);
            let visited = scene.run(&pgd(steps, true), Some(noise), |point| {
                point.mapv(|value| (value * twist * 50.0).cos() * twist.exp())
            });
            for point in &visited {
                scene.assert_allowed(point);
            }
        }
    }
}
