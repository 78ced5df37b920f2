//! Adam, and Adam with decoupled weight decay.

use super::{
    CLIP, DECAY_ALL, Optimizer, OptimizerSpec, Slot, Updated, check_common, learning_rate,
};
use crate::attack::Parameter;
use crate::train::choice::{Choice, Error, numbers};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const ADAM: OptimizerSpec = OptimizerSpec {
    kind: "optimizer",
    name: "adam",
    summary: "Adam: steps scaled by running moments of the gradient",
    what_it_does: "\
m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w − η·m̂ / (√v̂ + 10⁻⁸), where g includes λ·w and m̂, v̂ are m, v divided by 1 − βᵗ.",
    parameters: &[
        learning_rate("0.001"),
        BETAS,
        weight_decay(
            "0",
            "λ, added to the gradient as λ·w; biases and normalisation are spared.",
        ),
        DECAY_ALL,
        CLIP,
    ],
    reference: "Kingma and Ba: Adam: A Method for Stochastic Optimization. ICLR 2015, <https://arxiv.org/abs/1412.6980>.",
    build: |table| {
        let adam: Adam = ADAM.read(table)?;
        check(&ADAM, &adam.betas)?;
        check_common(&ADAM, adam.learning_rate, adam.weight_decay, adam.clip)?;
        Ok(Arc::new(adam))
    },
};

pub(super) const ADAMW: OptimizerSpec = OptimizerSpec {
    kind: "optimizer",
    name: "adamw",
    summary: "Adam with weight decay apart from the gradient",
    what_it_does: "\
w ← (1 − η·λ)·w, then the step of `adam` without λ in the gradient.",
    parameters: &[
        learning_rate("0.001"),
        BETAS,
        weight_decay(
            "0.01",
            "λ, by which weights shrink in each step, times the learning rate; biases and normalisation are spared.",
        ),
        DECAY_ALL,
        CLIP,
    ],
    reference: "Loshchilov and Hutter: Decoupled Weight Decay Regularization. ICLR 2019, <https://arxiv.org/abs/1711.05101>.",
    build: |table| {
        let adam: AdamW = ADAMW.read(table)?;
        check(&ADAMW, &adam.betas)?;
        check_common(&ADAMW, adam.learning_rate, adam.weight_decay, adam.clip)?;
        Ok(Arc::new(adam))
    },
};

const BETAS: Parameter = Parameter {
    name: "betas",
    default: "0.9,0.999",
    accepts: "two numbers from 0 up to 1, 1 excluded",
    help: "β₁ and β₂, how slowly the moments of the gradient and of its square forget.",
};

const fn weight_decay(default: &'static str, help: &'static str) -> Parameter {
    Parameter {
        name: "weight_decay",
        default,
        accepts: "a number from 0",
        help,
    }
}

/// What PyTorch adds to the root of the second moment.
const GUARD: f64 = 1e-8;

macro_rules! adam {
    ($(#[$doc:meta])* $name:ident, $spec:ident, $weight_decay:literal, $decoupled:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// The learning rate.
            pub learning_rate: f64,
            /// How slowly the moments of the gradient and of its square forget.
            #[serde(deserialize_with = "numbers")]
            pub betas: Vec<f64>,
            /// How fast weights shrink.
            pub weight_decay: f64,
            /// Whether biases and normalisation decay too.
            pub decay_all: bool,
            /// The largest length of all gradients together.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub clip: Option<f64>,
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    learning_rate: 0.001,
                    betas: vec![0.9, 0.999],
                    weight_decay: $weight_decay,
                    decay_all: false,
                    clip: None,
                }
            }
        }

        impl Optimizer for $name {
            fn label(&self) -> String {
                $spec.label(self)
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
                &["first_moment", "second_moment"]
            }

            fn rates(&self) -> &'static [&'static str] {
                &["step_size", "second_correction", "shrinking"]
            }

            fn rates_at(&self, step: u64, learning_rate: f64) -> Vec<f64> {
                rates_at(&self.betas, step, learning_rate, self.weight_decay)
            }

            fn update<'g>(&self, slot: &Slot<'g>) -> Updated<'g> {
                update(slot, &self.betas, self.weight_decay, $decoupled)
            }
        }
    };
}

adam!(
    /// Adam, with weight decay inside of the gradient.
    Adam,
    ADAM,
    0.0,
    false
);
adam!(
    /// Adam, with weight decay apart from the gradient.
    AdamW,
    ADAMW,
    0.01,
    true
);

fn check<T>(spec: &Choice<T>, betas: &[f64]) -> Result<(), Error> {
    match betas {
        [first, second] if (0.0..1.0).contains(first) && (0.0..1.0).contains(second) => Ok(()),
        _ => Err(spec.refuse(format!("`betas` has to be {}", BETAS.accepts))),
    }
}

/// η / (1 − β₁ᵗ), √(1 − β₂ᵗ) and 1 − η·λ.
fn rates_at(betas: &[f64], step: u64, learning_rate: f64, weight_decay: f64) -> Vec<f64> {
    let power = |beta: f64| beta.powf(step as f64);
    let (first, second) = (power(betas[0]), power(betas[1]));
    vec![
        learning_rate / (1.0 - first),
        (1.0 - second).sqrt(),
        1.0 - learning_rate * weight_decay,
    ]
}

fn update<'g>(slot: &Slot<'g>, betas: &[f64], weight_decay: f64, decoupled: bool) -> Updated<'g> {
    let like = |index: usize| slot.rates[index].cast_like(slot.parameter);
    let (mut parameter, mut gradient) = (slot.parameter, slot.gradient);
    if slot.decays && weight_decay > 0.0 {
        if decoupled {
            parameter = parameter * like(2);
        } else {
            gradient = gradient + parameter * weight_decay;
        }
    }
    let (first, second) = (slot.state[0], slot.state[1]);
    let first = first * betas[0] + gradient * (1.0 - betas[0]);
    let second = second * betas[1] + gradient * gradient * (1.0 - betas[1]);
    let scale = second.unary("Sqrt") / like(1) + GUARD;
    Updated {
        parameter: parameter - first / scale * like(0),
        state: vec![first, second],
    }
}
