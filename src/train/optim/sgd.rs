//! Stochastic gradient descent, with momentum.

use super::{
    CLIP, DECAY_ALL, Optimizer, OptimizerSpec, Slot, Updated, check_common, learning_rate,
};
use crate::attack::Parameter;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const SPEC: OptimizerSpec = OptimizerSpec {
    kind: "optimizer",
    name: "sgd",
    summary: "Stochastic gradient descent with momentum and weight decay",
    what_it_does: "\
b ← μ·b + (g + λ·w), w ← w − η·b; with `nesterov` w ← w − η·(g + λ·w + μ·b).",
    parameters: &[
        learning_rate("0.01"),
        Parameter {
            name: "momentum",
            default: "0",
            accepts: "a number from 0 up to 1, 1 excluded",
            help: "μ, the share of the last step that goes on.",
        },
        Parameter {
            name: "nesterov",
            default: "false",
            accepts: "true or false",
            help: "Nesterov's form of momentum.",
        },
        Parameter {
            name: "weight_decay",
            default: "0",
            accepts: "a number from 0",
            help: "λ; biases and normalisation are spared.",
        },
        DECAY_ALL,
        CLIP,
    ],
    reference: "",
    build: |table| {
        let sgd: Sgd = SPEC.read(table)?;
        check_common(&SPEC, sgd.learning_rate, sgd.weight_decay, sgd.clip)?;
        let momentum = (0.0..1.0).contains(&sgd.momentum);
        SPEC.require(momentum, "momentum", sgd.momentum)?;
        if sgd.nesterov && sgd.momentum == 0.0 {
            return Err(SPEC.refuse("nesterov=true needs a momentum above 0"));
        }
        Ok(Arc::new(sgd))
    },
};

/// Stochastic gradient descent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// The learning rate.
    pub learning_rate: f64,
    /// The share of the last step that goes on.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// The factor of the weights that is added to their gradients.
    pub weight_decay: f64,
    /// Whether biases and normalisation decay too.
    pub decay_all: bool,
    /// The largest length of all gradients together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd {
            learning_rate: 0.01,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            decay_all: false,
            clip: None,
        }
    }
}

impl Optimizer for Sgd {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn clip(&self) -> Option<f64> {
        self.clip
    }

    fn decays_all(&self) -> bool {
        self.decay_all
    }

    fn state(&self) -> &'static [&'static str] {
        if self.momentum > 0.0 {
            &["momentum"]
        } else {
            &[]
        }
    }

    fn rates(&self) -> &'static [&'static str] {
        &["learning_rate"]
    }

    fn rates_at(&self, _: u64, learning_rate: f64) -> Vec<f64> {
        vec![learning_rate]
    }

    fn update<'g>(&self, slot: &Slot<'g>) -> Updated<'g> {
        let mut gradient = slot.gradient;
        if slot.decays && self.weight_decay > 0.0 {
            gradient = gradient + slot.parameter * self.weight_decay;
        }
        let mut state = Vec::new();
        if let [buffer] = slot.state[..] {
            // PyTorch begins with b = g, which is what a buffer of zeros gives.
            let buffer = buffer * self.momentum + gradient;
            state.push(buffer);
            gradient = if self.nesterov {
                gradient + buffer * self.momentum
            } else {
                buffer
            };
        }
        Updated {
            parameter: slot.parameter - gradient * slot.rates[0].cast_like(gradient),
            state,
        }
    }
}
