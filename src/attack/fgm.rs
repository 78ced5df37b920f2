//! FGM, the fast gradient method: one step to the surface of the ball of any norm.

use super::array::Array;
use super::spec::LOSS;
use super::targeted::{self, TARGETS};
use super::{Attack, AttackSpec, Context, Error, Loss, Next, Pass, Planned, Start, geometry};
use std::sync::Arc;

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "fgm",
    summary: "One step of length ε along the steepest direction of the norm",
    what_it_does: "\
Moves by ε in the direction that raises the loss most, to first order, among all of that length, and clips to the bounds.
ℓ2: x + ε·g/‖g‖₂, with the norm over the whole sample.
ℓ1: ε on the one element with the largest |g| (the first one where several are equal).
ℓ∞: the same as `fgsm`.
A sample whose gradient is all zero stays where it is; gradients are scaled before they are normalised, so that no small constant decides how far
samples with tiny gradients move.",
    when_to_use: "\
As a first look in the ℓ2 or ℓ1 norm that costs one gradient evaluation per sample, and for perturbed embeddings.",
    when_not: "\
To claim robustness: use `pgd`.
In ℓ1 within bounds it is weak, as a single element meets its bound long before the perturbation is ε long.",
    parameters: &[LOSS, TARGETS],
    reference: "\
Miyato, Dai and Goodfellow: Adversarial Training Methods for Semi-Supervised Text Classification. ICLR 2017, <https://arxiv.org/abs/1605.07725>, section 3.",
    build: |table| {
        let fgm: Fgm = SPEC.read(table)?;
        fgm.check()?;
        Ok(Planned::Gradient(Arc::new(fgm)))
    },
};

/// The fast gradient method.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fgm {
    /// The loss to raise.
    pub loss: Loss,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
}

impl Attack for Fgm {
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

    fn init<'a>(&self, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
        Start {
            point: geometry::start(context, noise),
            state: Vec::new(),
        }
    }

    /// Starts at the clean sample and goes ε far: clipping moves each element toward the clean sample, so that no projection is needed.
    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, _: &[Array<'a>]) -> Next<'a> {
        let direction = geometry::steepest(context.norm, pass.gradient);
        let moved = pass.point + context.step_size * direction;
        Next {
            point: geometry::within_bounds(context, moved),
            state: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Fgsm;
    use crate::attack::linear::{Scene, weights};
    use crate::threat::{Bounds, Norm};
    use ndarray::{Array2, array, s};

    #[test]
    fn one_step_reaches_the_optimum_of_a_linear_model() {
        for norm in Norm::CONVEX {
            let scene = Scene::new(norm, 0.3, Bounds::NONE, 6, 50);
            let weights = weights(6, 50);
            let visited = scene.run(&Fgm::default(), None, |_| weights.clone());
            assert_eq!(visited.len(), 2);
            scene.assert_allowed(&visited[1]);
            let gains = scene.gain(&weights, &visited[1]);
            for (gain, best) in gains.into_iter().zip(scene.best_gain(&weights)) {
                assert!((gain / best - 1.0).abs() < 1e-5, "{norm}: {gain} of {best}");
            }
        }
    }

    #[test]
    fn the_step_is_clipped_to_the_bounds() {
        let gradient = array![[3.0, -4.0]];
        for (norm, expected) in [
            (Norm::Linf, array![[1.0, 0.4]]),
            (Norm::L2, array![[1.0, 0.5]]),
            (Norm::L1, array![[0.9, 0.4]]),
        ] {
            let mut scene = Scene::new(norm, 0.5, Bounds::UNIT, 1, 2);
            scene.clean = array![[0.9, 0.9]];
            let visited = scene.run(&Fgm::default(), None, |_| gradient.clone());
            let error = (&visited[1] - &expected).mapv(f32::abs).sum();
            assert!(error < 1e-6, "{norm}: {}", visited[1]);
        }
    }

    #[test]
    fn in_linf_it_is_fgsm() {
        let scene = Scene::new(Norm::Linf, 0.07, Bounds::UNIT, 6, 50);
        let weights = weights(6, 50);
        assert_eq!(
            scene.run(&Fgm::default(), None, |_| weights.clone()),
            scene.run(&Fgsm::default(), None, |_| weights.clone())
        );
    }

    #[test]
    fn a_gradient_of_zero_leaves_the_sample() {
        for norm in Norm::CONVEX {
            let scene = Scene::new(norm, 0.3, Bounds::UNIT, 3, 8);
            let visited = scene.run(&Fgm::default(), None, |_| Array2::zeros((3, 8)));
            assert_eq!(visited[1], scene.clean, "{norm}");
        }
    }

    /// Trap: a guard added to ‖g‖, or a loss averaged over the batch, makes the step depend on how confident the model is.
    #[test]
    fn the_size_of_the_gradient_does_not_matter() {
        for norm in Norm::CONVEX {
            let scene = Scene::new(norm, 0.3, Bounds::UNIT, 6, 50);
            // Powers of two, so that the gradients are the same but for their size.
            let [usual, tiny] = [1.0, 2.0_f32.powi(-110)].map(|size| {
                let gradient = weights(6, 50) * size;
                scene.run(&Fgm::default(), None, |_| gradient.clone())
            });
            assert_eq!(usual, tiny, "{norm}");
        }
    }

    /// Trap: what one sample gets must not depend on the others in its batch.
    #[test]
    fn a_sample_gets_the_same_alone_as_in_a_batch() {
        for norm in Norm::CONVEX {
            let scene = Scene::new(norm, 0.3, Bounds::UNIT, 6, 50);
            let weights = weights(6, 50);
            let batch = scene.run(&Fgm::default(), None, |_| weights.clone());
            let alone = Scene {
                clean: scene.clean.slice(s![4..5, ..]).to_owned(),
                ..scene
            };
            let alone = alone.run(&Fgm::default(), None, |_| {
                weights.slice(s![4..5, ..]).to_owned()
            });
            assert_eq!(batch[1].slice(s![4..5, ..]), alone[1], "{norm}");
        }
    }
}
