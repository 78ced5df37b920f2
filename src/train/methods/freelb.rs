//! `FreeLB`: the gradients along an ascent, averaged into one weight step.

use super::{
    Method, MethodSpec, Needs, RANDOM_START, Stats, ascent, check_step_size, right, step_size,
    steps, total_loss,
};
use crate::attack::Parameter;
use crate::model::training::Trainable;
use crate::runtime::Value;
use crate::train::engine::{Batch, Engine, Feed, column};
use crate::train::pass::{Ascent, PassSpec, Weights};
use crate::train::start::Noise;
use crate::train::{Error, Setting};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: MethodSpec = MethodSpec {
    kind: "method",
    name: "freelb",
    summary: "The gradients at all points of an ascent, averaged into one descent step",
    what_it_does: "\
δ₀ is uniform between ±`initial`/√(L·d), where L·d are the elements of the perturbed tensor, padding left out (`--padding`).
Each of K passes adds 1/K of its parameter gradient and, but for the last, moves δ ← P(δ + α·g/‖g‖); then the weights descend once.
K passes per weight step. Dropout keeps the same elements in all of them.
Made for embeddings (`--wrt`) in the ℓ2 norm. What it is known to improve is accuracy on clean text; its papers claim no robustness.",
    parameters: &[
        steps("3"),
        step_size("ε/steps"),
        RANDOM_START,
        Parameter {
            name: "initial",
            default: "ε",
            accepts: "a number from 0",
            help: "How large the first perturbation is drawn.",
        },
    ],
    reference: "\
Zhu, Cheng, Gan, Sun, Goldstein and Liu: FreeLB: Enhanced Adversarial Training for Natural Language Understanding. ICLR 2020, <https://arxiv.org/abs/1909.11764>.",
    build: |table| {
        let freelb: FreeLb = SPEC.read(table)?;
        check_step_size(&SPEC, freelb.step_size)?;
        if let Some(initial) = freelb.initial {
            SPEC.require(initial >= 0.0 && initial.is_finite(), "initial", initial)?;
        }
        Ok(Arc::new(freelb))
    },
};

/// `FreeLB`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreeLb {
    /// Passes per weight step.
    pub steps: NonZeroU32,
    /// The length of an ascent step; ε/steps where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Whether the first perturbation is drawn.
    pub random_start: bool,
    /// How large it is drawn; ε where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<f64>,
}

impl Default for FreeLb {
    fn default() -> Self {
        FreeLb {
            steps: const { NonZeroU32::new(3).unwrap() },
            step_size: None,
            random_start: true,
            initial: None,
        }
    }
}

impl Method for FreeLb {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn needs(&self, setting: &Setting, _: &Trainable) -> Result<Needs, Error> {
        let share = 1.0 / f64::from(self.steps.get());
        let on_the_way = PassSpec {
            ascent: Some(Ascent {
                attack: ascent(self.steps, self.step_size, false),
                carried: false,
            }),
            weights: Weights::Summed(share),
            ..PassSpec::step()
        };
        let last = PassSpec {
            weights: Weights::Stepped {
                share,
                summed: self.steps.get() > 1,
            },
            ..PassSpec::step()
        };
        let initial = self.initial.unwrap_or(setting.epsilon);
        Ok(Needs {
            noise: match self.random_start {
                true => Noise::Uniform(initial),
                false => Noise::None,
            },
            passes: vec![last, on_the_way],
        })
    }

    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error> {
        let passes = self.steps.get();
        let default = engine.epsilon() / f64::from(passes);
        let size = column(batch.rows, self.step_size.unwrap_or(default))?;
        let mut point: Option<Value> = None;
        let mut loss = 0.0;
        for _ in 1..passes {
            let feed = Feed {
                point: point.as_ref().or(batch.start.as_ref()),
                step_size: Some(&size),
                ..Feed::default()
            };
            let ran = engine.run(1, batch, feed)?;
            loss += total_loss(&ran)?;
            point = ran.point;
        }
        let feed = Feed {
            point: point.as_ref().or(batch.start.as_ref()),
            ..Feed::default()
        };
        let ran = engine.run(0, batch, feed)?;
        Ok(Stats {
            loss: (loss + total_loss(&ran)?) / f64::from(passes),
            clean: None,
            robust: Some(right(&ran, batch)?),
        })
    }
}
