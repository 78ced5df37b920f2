//! Training on the points that a single long step from a random one finds.

use super::{
    ATTACK_MODE, AttackMode, Method, MethodSpec, Needs, RANDOM_START, Stats, ascend, ascent,
    check_step_size, right, step_size, total_loss,
};
use crate::attack::{Attack, Parameter};
use crate::model::training::Trainable;
use crate::train::engine::{Batch, Engine, Feed};
use crate::train::pass::PassSpec;
use crate::train::start::Noise;
use crate::train::{Error, Setting};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: MethodSpec = MethodSpec {
    kind: "method",
    name: "fgsm",
    summary: "Training on the points that one long step from a random point finds",
    what_it_does: "\
δ uniform in the ball, δ ← P(δ + 1.25·ε·sign(g)), then one descent step on the mean cross-entropy at x + δ. Two passes per weight step.
Fast, and it may collapse: from one epoch to the next the model can become robust to single steps alone (catastrophic overfitting).
So after each epoch robust accuracy is measured with `pgd`, on the validation data or else on 256 samples of the training data; where it has fallen by
more than `guard`, training stops and the weights of the epoch before are the result.",
    parameters: &[
        step_size("1.25·ε"),
        RANDOM_START,
        ATTACK_MODE,
        Parameter {
            name: "guard",
            default: "0.2",
            accepts: "a number above 0; 1 never stops",
            help: "By how much robust accuracy may fall from one epoch to the next.",
        },
    ],
    reference: "\
Goodfellow, Shlens and Szegedy: Explaining and Harnessing Adversarial Examples. ICLR 2015, <https://arxiv.org/abs/1412.6572>.
Wong, Rice and Kolter: Fast is better than free: Revisiting adversarial training. ICLR 2020, <https://arxiv.org/abs/2001.03994>.",
    build: |table| {
        let fgsm: Fgsm = SPEC.read(table)?;
        check_step_size(&SPEC, fgsm.step_size)?;
        SPEC.require(fgsm.guard > 0.0, "guard", fgsm.guard)?;
        Ok(Arc::new(fgsm))
    },
};

/// How long the step is, in units of ε, where no step size is given.
const REACH: f64 = 1.25;

/// Training on the points that a single long step finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fgsm {
    /// The length of the step; 1.25·ε where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Whether to start at a random point of the ball.
    pub random_start: bool,
    /// Which form the model has while it is attacked.
    pub attack_mode: AttackMode,
    /// By how much robust accuracy may fall from one epoch to the next.
    pub guard: f64,
}

impl Default for Fgsm {
    fn default() -> Self {
        Fgsm {
            step_size: None,
            random_start: true,
            attack_mode: AttackMode::Eval,
            guard: 0.2,
        }
    }
}

impl Fgsm {
    /// The attack `pgd` with one step, which is the fast method: from a random point, and back into the ball.
    fn attack(&self) -> Arc<dyn Attack> {
        ascent(NonZeroU32::MIN, self.step_size, self.random_start)
    }
}

impl Method for Fgsm {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn guard(&self) -> Option<f64> {
        Some(self.guard)
    }

    fn needs(&self, _: &Setting, _: &Trainable) -> Result<Needs, Error> {
        let ascent = PassSpec {
            training: self.attack_mode == AttackMode::Train,
            ..PassSpec::ascent(self.attack())
        };
        Ok(Needs {
            noise: Noise::Attack(self.attack()),
            passes: vec![ascent, PassSpec::step()],
        })
    }

    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error> {
        let size = self.step_size.unwrap_or(REACH * engine.epsilon());
        let point = ascend(engine, 0, batch, 1, size, None)?;
        let feed = Feed {
            point: point.as_ref(),
            ..Feed::default()
        };
        let ran = engine.run(1, batch, feed)?;
        Ok(Stats {
            loss: total_loss(&ran)?,
            clean: None,
            robust: Some(right(&ran, batch)?),
        })
    }
}
