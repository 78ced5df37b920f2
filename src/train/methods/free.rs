//! Free adversarial training: each pass moves the weights down and the perturbation up.

use super::{Method, MethodSpec, Needs, Stats, right, total_loss};
use crate::attack::Parameter;
use crate::model::training::Trainable;
use crate::train::engine::{Batch, Engine, Feed, column};
use crate::train::methods::ascent;
use crate::train::pass::{Ascent, PassSpec};
use crate::train::start::Noise;
use crate::train::{Error, Setting};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: MethodSpec = MethodSpec {
    kind: "method",
    name: "free",
    summary: "Each batch is replayed, and every pass moves the weights down and the perturbation up",
    what_it_does: "\
m times per batch: one pass at x + δ, clipped to the bounds, gives both gradients; the weights descend, and δ ← P(δ + ε·sign(g)).
δ goes on to the next batch, where each place in the batch keeps its own. One pass per weight step, and m times fewer epochs, so that the number of weight
steps is that of the epochs asked for; the schedule counts these.",
    parameters: &[Parameter {
        name: "replays",
        default: "4",
        accepts: "a whole number from 1 to 4294967295",
        help: "m, how often each batch is trained on.",
    }],
    reference: "\
Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor and Goldstein: Adversarial Training for Free! NeurIPS 2019, <https://arxiv.org/abs/1904.12843>.",
    build: |table| Ok(Arc::new(SPEC.read::<Free>(table)?)),
};

/// Free adversarial training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Free {
    /// How often each batch is trained on.
    pub replays: NonZeroU32,
}

impl Default for Free {
    fn default() -> Self {
        Free {
            replays: const { NonZeroU32::new(4).unwrap() },
        }
    }
}

impl Method for Free {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn replays(&self) -> u32 {
        self.replays.get()
    }

    fn needs(&self, _: &Setting, _: &Trainable) -> Result<Needs, Error> {
        let pass = PassSpec {
            ascent: Some(Ascent {
                attack: ascent(NonZeroU32::MIN, None, false),
                carried: true,
            }),
            ..PassSpec::step()
        };
        Ok(Needs {
            noise: Noise::None,
            passes: vec![pass],
        })
    }

    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error> {
        let size = column(batch.rows, engine.epsilon())?;
        let mut perturbation = engine.carried(batch.rows)?;
        let mut stats = Stats::default();
        for _ in 0..self.replays.get() {
            let feed = Feed {
                point: Some(&perturbation),
                step_size: Some(&size),
                ..Feed::default()
            };
            let mut ran = engine.run(0, batch, feed)?;
            stats.loss += total_loss(&ran)? / f64::from(self.replays.get());
            stats.robust = Some(right(&ran, batch)?);
            perturbation = ran
                .point
                .take()
                .ok_or_else(|| Error::internal("a pass gave no point"))?;
        }
        engine.carry(perturbation)?;
        Ok(stats)
    }
}
