//! Training on the samples and on points one step away from them, together.

use super::{Method, MethodSpec, Needs, Stats, right, total_loss};
use crate::attack::Fgm as FgmAttack;
use crate::model::training::Trainable;
use crate::train::engine::{Batch, Engine, Feed, column};
use crate::train::pass::{Ascent, PassSpec, Weights};
use crate::train::start::Noise;
use crate::train::{Error, Setting};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const SPEC: MethodSpec = MethodSpec {
    kind: "method",
    name: "fgm",
    summary: "Training on the samples and on points one step of length ε away, together",
    what_it_does: "\
One descent step on ℓ(x) + ℓ(x + ε·g/‖g‖), where g is the gradient at x that the first pass gives anyway. Two passes per weight step.
Made for embeddings (`--wrt`) in the ℓ2 norm, which is taken over the whole embedded text, padding left out (`--padding`).",
    parameters: &[],
    reference: "\
Miyato, Dai and Goodfellow: Adversarial Training Methods for Semi-Supervised Text Classification. ICLR 2017, <https://arxiv.org/abs/1605.07725>.",
    build: |table| Ok(Arc::new(SPEC.read::<Fgm>(table)?)),
};

/// Training on the samples and on points one step away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fgm {}

impl Method for Fgm {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn needs(&self, _: &Setting, _: &Trainable) -> Result<Needs, Error> {
        let clean = PassSpec {
            ascent: Some(Ascent {
                attack: Arc::new(FgmAttack::default()),
                carried: false,
            }),
            weights: Weights::Summed(1.0),
            ..PassSpec::step()
        };
        let moved = PassSpec {
            weights: Weights::Stepped {
                share: 1.0,
                summed: true,
            },
            ..PassSpec::step()
        };
        Ok(Needs {
            noise: Noise::None,
            passes: vec![clean, moved],
        })
    }

    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error> {
        let size = column(batch.rows, engine.epsilon())?;
        let feed = Feed {
            point: batch.start.as_ref(),
            step_size: Some(&size),
            ..Feed::default()
        };
        let clean = engine.run(0, batch, feed)?;
        let feed = Feed {
            point: clean.point.as_ref(),
            ..Feed::default()
        };
        let moved = engine.run(1, batch, feed)?;
        Ok(Stats {
            loss: total_loss(&clean)? + total_loss(&moved)?,
            clean: Some(right(&clean, batch)?),
            robust: Some(right(&moved, batch)?),
        })
    }
}
