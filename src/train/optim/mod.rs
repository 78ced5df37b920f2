//! Optimizers, as nodes behind the gradients: parameters, gradients and state in, new parameters and new state out.
//!
//! One file per rule; [`OPTIMIZERS`] is the table that the command line and the documentation read.
//! What an optimizer does to one parameter is [`Optimizer::update`]; [`apply`] does it to all, with the gradients clipped together.
//! The rules are PyTorch's, to the order of the operations.

mod adam;
mod sgd;

use super::choice::{Choice, Error, parse};
use crate::attack::Parameter;
use crate::graph::{Builder, Expr};
use crate::tensor::DType;
use std::fmt;
use std::sync::Arc;

pub use adam::{Adam, AdamW};
pub use sgd::Sgd;

/// An entry of [`OPTIMIZERS`].
pub type OptimizerSpec = Choice<Arc<dyn Optimizer>>;

/// Every optimizer, in the order in which they are listed.
pub const OPTIMIZERS: &[OptimizerSpec] = &[sgd::SPEC, adam::ADAM, adam::ADAMW];

/// A rule by which gradients change parameters.
pub trait Optimizer: fmt::Debug + Send + Sync {
    /// The name with every parameter that differs from its default, as [`optimizer`] reads it.
    fn label(&self) -> String;

    /// The learning rate that schedules start from.
    fn learning_rate(&self) -> f64;

    /// The largest length of all gradients together, if they are clipped.
    fn clip(&self) -> Option<f64>;

    /// Whether biases and normalisation decay as well.
    fn decays_all(&self) -> bool;

    /// What is kept of every parameter between steps; each in the parameter's shape, and 0 at first.
    fn state(&self) -> &'static [&'static str];

    /// The names of the numbers that change from step to step.
    fn rates(&self) -> &'static [&'static str];

    /// Those numbers at step `step` (from 1) with this learning rate, in the order of [`Optimizer::rates`].
    fn rates_at(&self, step: u64, learning_rate: f64) -> Vec<f64>;

    /// One parameter's way through one step.
    fn update<'g>(&self, slot: &Slot<'g>) -> Updated<'g>;
}

/// One parameter before a step.
#[derive(Debug, Clone)]
pub struct Slot<'g> {
    /// The parameter.
    pub parameter: Expr<'g>,
    /// The loss's gradient by it, in its shape.
    pub gradient: Expr<'g>,
    /// Its state, in the order of [`Optimizer::state`].
    pub state: Vec<Expr<'g>>,
    /// The numbers of this step, in the order of [`Optimizer::rates`].
    pub rates: Vec<Expr<'g>>,
    /// Whether its weights decay.
    pub decays: bool,
}

/// One parameter after a step.
#[derive(Debug, Clone)]
pub struct Updated<'g> {
    /// The new parameter.
    pub parameter: Expr<'g>,
    /// The new state.
    pub state: Vec<Expr<'g>>,
}

/// Reads an optimizer such as `sgd:learning_rate=0.1,momentum=0.9`.
///
/// # Errors
/// Where the name, a parameter or a value is not known.
pub fn optimizer(text: &str) -> Result<Arc<dyn Optimizer>, Error> {
    parse(OPTIMIZERS, text)
}

/// Adds one step of the optimizer for all parameters to the graph.
pub fn apply<'g>(
    builder: &'g Builder,
    optimizer: &dyn Optimizer,
    mut slots: Vec<Slot<'g>>,
) -> Vec<Updated<'g>> {
    builder.set_scope("optimizer");
    if let Some(clip) = optimizer.clip() {
        let gradients: Vec<_> = slots.iter().map(|slot| slot.gradient).collect();
        if let Some(factor) = clipping(&gradients, clip) {
            for slot in &mut slots {
                slot.gradient = slot.gradient * factor.cast_like(slot.gradient);
            }
        }
    }
    slots.iter().map(|slot| optimizer.update(slot)).collect()
}

/// min(1, limit / (‖g‖ + 10⁻⁶)) over all gradients together, as `torch.nn.utils.clip_grad_norm_` has it.
fn clipping<'g>(gradients: &[Expr<'g>], limit: f64) -> Option<Expr<'g>> {
    let squares = gradients.iter().map(|gradient| {
        let all: Vec<usize> = (0..gradient.rank()).collect();
        let gradient = match gradient.dtype() {
            DType::F64 => *gradient,
            _ => gradient.cast(DType::F32),
        };
        gradient.reduce("ReduceSumSquare", &all, false)
    });
    let total = squares.reduce(|sum, square| sum + square)?;
    Some((limit / (total.unary("Sqrt") + 1e-6)).min(1.0))
}

/// The parameters that every optimizer has.
const fn learning_rate(default: &'static str) -> Parameter {
    Parameter {
        name: "learning_rate",
        default,
        accepts: "a number above 0",
        help: "The learning rate that the schedule starts from.",
    }
}

const DECAY_ALL: Parameter = Parameter {
    name: "decay_all",
    default: "false",
    accepts: "true or false",
    help: "Whether biases and normalisation decay as well as weights.",
};

const CLIP: Parameter = Parameter {
    name: "clip",
    default: "none",
    accepts: "a number above 0",
    help: "The largest ℓ2 norm of all gradients together; longer ones are scaled down.",
};

/// Refuses numbers that no optimizer can have.
fn check_common<T>(
    spec: &Choice<T>,
    learning_rate: f64,
    weight_decay: f64,
    clip: Option<f64>,
) -> Result<(), Error> {
    let positive = |value: f64| value > 0.0 && value.is_finite();
    spec.require(positive(learning_rate), "learning_rate", learning_rate)?;
    let decays = weight_decay >= 0.0 && weight_decay.is_finite();
    spec.require(decays, "weight_decay", weight_decay)?;
    match clip {
        Some(clip) => spec.require(positive(clip), "clip", clip),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
