//! FGSM, the fast gradient sign method: one step to the corner of the ℓ∞ ball.

use super::array::Array;
use super::spec::LOSS;
use super::targeted::{self, TARGETS};
use super::{Attack, AttackSpec, Context, Error, Loss, Next, Pass, Planned, Start, geometry};
use crate::threat::Norm;
use std::sync::Arc;

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "fgsm",
    summary: "One step of ε along the sign of the gradient (ℓ∞)",
    what_it_does: "\
Moves every element by ε in the direction in which the loss grows, and clips to the bounds: x + ε·sign(g).
Elements with a gradient of exactly 0 stay where they are.",
    when_to_use: "\
As a first look that costs one gradient evaluation per sample, and to compare with published numbers.",
    when_not: "\
To claim robustness: one step finds far fewer adversarial examples than `pgd`, and models trained on single steps can hide from them altogether.
In the ℓ2 and ℓ1 norms the same single step is `fgm`.",
    parameters: &[LOSS, TARGETS],
    reference: "\
Goodfellow, Shlens and Szegedy: Explaining and Harnessing Adversarial Examples. ICLR 2015, <https://arxiv.org/abs/1412.6572>, section 4.",
    build: |table| {
        let fgsm: Fgsm = SPEC.read(table)?;
        fgsm.check()?;
        Ok(Planned::Gradient(Arc::new(fgsm)))
    },
};

/// The fast gradient sign method.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fgsm {
    /// The loss to raise.
    pub loss: Loss,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
}

impl Attack for Fgsm {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        targeted::check(&SPEC, self.targets, self.loss)
    }

    fn steps(&self) -> u32 {
        1
    }

    fn targets(&self) -> u32 {
        self.targets
    }

    fn loss(&self) -> Loss {
        self.loss
    }

    fn step_size(&self, epsilon: f64) -> f64 {
        epsilon
    }

    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        match norm {
            Norm::Linf => Ok(()),
            Norm::L2 | Norm::L1 | Norm::L0 => Err(Error::Norm {
                attack: SPEC.name,
                norm,
                remedy: "use fgm, the same single step in the l2 and l1 norms",
            }),
        }
    }

    fn init<'a>(&self, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
        Start {
            point: geometry::start(context, noise),
            state: Vec::new(),
        }
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, _: &[Array<'a>]) -> Next<'a> {
        let moved = pass.point + context.step_size * pass.gradient.sign();
        Next {
            point: geometry::within_bounds(context, moved),
            state: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::linear::{Scene, weights};
    use crate::threat::Bounds;
    use ndarray::{Array2, array};

    #[test]
    fn one_step_reaches_the_optimum_of_a_linear_model() {
        for bounds in [Bounds::UNIT, Bounds::NONE] {
            let scene = Scene::new(Norm::Linf, 0.07, bounds, 6, 50);
            let weights = weights(6, 50);
            let visited = scene.run(&Fgsm::default(), None, |_| weights.clone());
            assert_eq!(visited.len(), 2);
            assert_eq!(visited[0], scene.clean);
            scene.assert_allowed(&visited[1]);
            let gains = scene.gain(&weights, &visited[1]);
            for (gain, best) in gains.into_iter().zip(scene.best_gain(&weights)) {
                assert!((gain / best - 1.0).abs() < 1e-5, "{gain} of {best}");
            }
        }
    }

    #[test]
    fn elements_without_gradient_stay() {
        let mut scene = Scene::new(Norm::Linf, 0.25, Bounds::UNIT, 1, 4);
        scene.clean = array![[0.5, 0.5, 0.5, 0.9]];
        let gradient = array![[0.0, -0.0, -1e-40, 7.0]];
        let visited = scene.run(&Fgsm::default(), None, |_| gradient.clone());
        assert_eq!(visited[1], array![[0.5, 0.5, 0.25, 1.0]]);
    }

    #[test]
    fn epsilon_zero_returns_the_input() {
        let scene = Scene::new(Norm::Linf, 0.0, Bounds::UNIT, 2, 9);
        let visited = scene.run(&Fgsm::default(), None, |_| Array2::ones((2, 9)));
        assert_eq!(visited[1], scene.clean);
    }
}
