//! Training on the points that projected gradient ascent finds.

use super::{
    ATTACK_MODE, AttackMode, Method, MethodSpec, Needs, RANDOM_START, Stats, ascend, ascent,
    check_step_size, right, step_size, steps, total_loss,
};
use crate::attack::Attack;
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
    name: "pgd",
    summary: "Training on the points that projected gradient ascent finds",
    what_it_does: "\
K ascent steps of the attack `pgd` from a random point of the ball, then one descent step on the mean cross-entropy at the last points.
K + 1 passes per weight step.",
    parameters: &[
        steps("7"),
        step_size("2.5·ε/steps"),
        RANDOM_START,
        ATTACK_MODE,
    ],
    reference: "\
Madry, Makelov, Schmidt, Tsipras and Vladu: Towards Deep Learning Models Resistant to Adversarial Attacks. ICLR 2018, <https://arxiv.org/abs/1706.06083>.",
    build: |table| {
        let pgd: Pgd = SPEC.read(table)?;
        check_step_size(&SPEC, pgd.step_size)?;
        Ok(Arc::new(pgd))
    },
};

/// Training on the points that projected gradient ascent finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pgd {
    /// Ascent steps per batch.
    pub steps: NonZeroU32,
    /// The length of a step; 2.5·ε/steps where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Whether to start at a random point of the ball.
    pub random_start: bool,
    /// Which form the model has while it is attacked.
    pub attack_mode: AttackMode,
}

impl Default for Pgd {
    fn default() -> Self {
        Pgd {
            steps: const { NonZeroU32::new(7).unwrap() },
            step_size: None,
            random_start: true,
            attack_mode: AttackMode::Eval,
        }
    }
}

impl Pgd {
    fn attack(&self) -> Arc<dyn Attack> {
        ascent(self.steps, self.step_size, self.random_start)
    }
}

impl Method for Pgd {
    fn label(&self) -> String {
        SPEC.label(self)
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
        let size = self.attack().step_size(engine.epsilon());
        let point = ascend(engine, 0, batch, self.steps.get(), size, None)?;
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
