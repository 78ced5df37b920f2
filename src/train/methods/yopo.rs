//! YOPO: full passes are few, and most steps of the perturbation go through the first layer alone.

use super::{
    Method, MethodSpec, Needs, RANDOM_START, Stats, ascent, check_step_size, right, step_size,
    total_loss,
};
use crate::attack::{Attack, Parameter};
use crate::model::training::{Objective, Trainable};
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
    name: "yopo",
    summary: "Few full passes, and many steps of the perturbation through the first layer alone",
    what_it_does: "\
From a random point of the ball, m times: a full pass at x + η gives the gradient of the weights and p, the gradient by the first layer's output;
then n times η ← P(η + σ·sign ∇⟨p, f₁(x + η)⟩) with p as it is, through the first layer f₁ alone, whose weights get the gradient of ⟨p, f₁(x + η)⟩ as well.
One descent step on the sum of all these gradients: m full passes and m·n passes through the first layer per weight step.
The sum is m times as long as a gradient of the mean loss: give the optimizer a smaller learning rate than `pgd` has.",
    parameters: &[
        Parameter {
            name: "m",
            default: "5",
            accepts: "a whole number from 1 to 4294967295",
            help: "Full passes per batch.",
        },
        Parameter {
            name: "n",
            default: "3",
            accepts: "a whole number from 1 to 4294967295",
            help: "Steps of the perturbation after each full pass.",
        },
        step_size("2.5·ε/(m·n)"),
        RANDOM_START,
        Parameter {
            name: "split",
            default: "found",
            accepts: "the name of a tensor",
            help: "Where the first layer ends; by default at the first tensor behind weights that everything passes through.",
        },
    ],
    reference: "\
Zhang, Zhang, Lu, Zhu and Dong: You Only Propagate Once: Accelerating Adversarial Training via Maximal Principle. NeurIPS 2019, <https://arxiv.org/abs/1905.00877>.",
    build: |table| {
        let yopo: Yopo = SPEC.read(table)?;
        check_step_size(&SPEC, yopo.step_size)?;
        Ok(Arc::new(yopo))
    },
};

/// How far all steps together reach, in units of ε, where no step size is given.
const REACH: f64 = 2.5;

/// YOPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Yopo {
    /// Full passes per batch.
    pub m: NonZeroU32,
    /// Steps of the perturbation after each.
    pub n: NonZeroU32,
    /// The length of a step; 2.5·ε/(m·n) where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Whether to start at a random point of the ball.
    pub random_start: bool,
    /// Where the first layer ends; found where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

impl Default for Yopo {
    fn default() -> Self {
        Yopo {
            m: const { NonZeroU32::new(5).unwrap() },
            n: const { NonZeroU32::new(3).unwrap() },
            step_size: None,
            random_start: true,
            split: None,
        }
    }
}

impl Yopo {
    fn attack(&self) -> Arc<dyn Attack> {
        ascent(self.n, self.step_size, self.random_start)
    }
}

impl Method for Yopo {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn tensors(&self) -> Vec<String> {
        self.split.iter().cloned().collect()
    }

    fn needs(&self, setting: &Setting, trainable: &Trainable) -> Result<Needs, Error> {
        let split = match &self.split {
            Some(split) => split.clone(),
            None => trainable
                .first_layer(&setting.tensor)
                .ok_or_else(|| Error::Config(format!(
                    "yopo finds no first layer: nothing behind weights has everything from `{}` pass through it; give one with split=TENSOR",
                    setting.tensor
                )))?
                .to_owned(),
        };
        let full = PassSpec {
            gradient_of: Some(split.clone()),
            weights: Weights::Summed(1.0),
            ..PassSpec::step()
        };
        let first_layer = PassSpec {
            objective: Objective::Pairing { tensor: split },
            ..PassSpec::step()
        };
        let inner = PassSpec {
            ascent: Some(Ascent {
                attack: self.attack(),
                carried: false,
            }),
            weights: Weights::Unchanged,
            ..first_layer.clone()
        };
        let sum = PassSpec {
            weights: Weights::Summed(1.0),
            ..first_layer.clone()
        };
        let step = PassSpec {
            weights: Weights::Stepped {
                share: 1.0,
                summed: true,
            },
            ..first_layer
        };
        Ok(Needs {
            noise: Noise::Attack(self.attack()),
            passes: vec![full, inner, sum, step],
        })
    }

    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error> {
        let (full_passes, inner) = (self.m.get(), self.n.get());
        let default = REACH * engine.epsilon() / (f64::from(full_passes) * f64::from(inner));
        let size = column(batch.rows, self.step_size.unwrap_or(default))?;
        let mut point: Option<Value> = None;
        let mut stats = Stats::default();
        for round in 1..=full_passes {
            let feed = Feed {
                point: point.as_ref().or(batch.start.as_ref()),
                ..Feed::default()
            };
            let full = engine.run(0, batch, feed)?;
            stats.loss += total_loss(&full)? / f64::from(full_passes);
            stats.robust = Some(right(&full, batch)?);
            for _ in 0..inner {
                let feed = Feed {
                    point: point.as_ref().or(batch.start.as_ref()),
                    step_size: Some(&size),
                    cotangent: full.cotangent.as_ref(),
                    ..Feed::default()
                };
                let next = engine.run(1, batch, feed)?.point;
                point = next;
            }
            let feed = Feed {
                point: point.as_ref(),
                cotangent: full.cotangent.as_ref(),
                ..Feed::default()
            };
            let last = round == full_passes;
            engine.run(if last { 3 } else { 2 }, batch, feed)?;
        }
        Ok(stats)
    }
}
