//! TRADES: accuracy on the samples, and agreement with the points around them.

use super::{
    ATTACK_MODE, AttackMode, Method, MethodSpec, Needs, RANDOM_START, Stats, ascend, ascent,
    check_step_size, right, step_size, steps, total_loss,
};
use crate::attack::{Attack, Parameter};
use crate::model::training::{Objective, Trainable};
use crate::train::engine::{Batch, Engine, Feed};
use crate::train::pass::PassSpec;
use crate::train::start::Noise;
use crate::train::{Error, Setting};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: MethodSpec = MethodSpec {
    kind: "method",
    name: "trades",
    summary: "Cross-entropy on the samples, and agreement with the points around them",
    what_it_does: "\
K ascent steps of the attack `pgd` on KL(f(x) ‖ f(x′)) from x′ = x + 0.001·N(0, 1), without the labels; then one descent step on
CE(f(x)) + β·KL(f(x) ‖ f(x′)), with the gradient through both. K + 2 passes per weight step.",
    parameters: &[
        steps("10"),
        step_size("2.5·ε/steps"),
        RANDOM_START,
        Parameter {
            name: "beta",
            default: "6",
            accepts: "a number above 0",
            help: "β, how much agreement counts.",
        },
        ATTACK_MODE,
    ],
    reference: "\
Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan: Theoretically Principled Trade-off between Robustness and Accuracy. ICML 2019, <https://arxiv.org/abs/1901.08573>.",
    build: |table| {
        let trades: Trades = SPEC.read(table)?;
        check_step_size(&SPEC, trades.step_size)?;
        let beta = trades.beta > 0.0 && trades.beta.is_finite();
        SPEC.require(beta, "beta", trades.beta)?;
        Ok(Arc::new(trades))
    },
};

/// The standard deviation of the first perturbation, in the units of the data.
const DEVIATION: f64 = 0.001;

/// TRADES.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trades {
    /// Ascent steps per batch.
    pub steps: NonZeroU32,
    /// The length of a step; 2.5·ε/steps where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Whether to start beside the sample; at the sample itself the divergence has no gradient.
    pub random_start: bool,
    /// How much agreement counts.
    pub beta: f64,
    /// Which form the model has while it is attacked.
    pub attack_mode: AttackMode,
}

impl Default for Trades {
    fn default() -> Self {
        Trades {
            steps: const { NonZeroU32::new(10).unwrap() },
            step_size: None,
            random_start: true,
            beta: 6.0,
            attack_mode: AttackMode::Eval,
        }
    }
}

impl Trades {
    fn attack(&self) -> Arc<dyn Attack> {
        ascent(self.steps, self.step_size, self.random_start)
    }
}

impl Method for Trades {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn needs(&self, setting: &Setting, _: &Trainable) -> Result<Needs, Error> {
        if setting.inner {
            return Err(Error::Config(
                "trades compares the model at two inputs, and cannot perturb an inner tensor; use freelb or fgm with --wrt".into(),
            ));
        }
        let training = self.attack_mode == AttackMode::Train;
        let ascent = PassSpec {
            objective: Objective::Divergence,
            training,
            ..PassSpec::ascent(self.attack())
        };
        let scores = PassSpec {
            scores: true,
            ascent: None,
            training,
            ..PassSpec::ascent(self.attack())
        };
        let step = PassSpec {
            objective: Objective::Trades { beta: self.beta },
            ..PassSpec::step()
        };
        Ok(Needs {
            noise: match self.random_start {
                true => Noise::Normal(DEVIATION),
                false => Noise::None,
            },
            passes: vec![ascent, scores, step],
        })
    }

    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error> {
        let scores = engine.scores(1, batch, Feed::default())?;
        let size = self.attack().step_size(engine.epsilon());
        let steps = self.steps.get();
        let point = ascend(engine, 0, batch, steps, size, Some(&scores))?;
        let feed = Feed {
            adversarial: point.as_ref(),
            ..Feed::default()
        };
        let ran = engine.run(2, batch, feed)?;
        Ok(Stats {
            loss: total_loss(&ran)?,
            clean: Some(right(&ran, batch)?),
            robust: None,
        })
    }
}
