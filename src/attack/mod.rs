//! Attacks, as pure functions over arrays.
//!
//! An attack is two functions, `init` and `step` ([`Attack`]): it sees no model, no session, no batch and no loop.
//! The engine (`evaluate`) owns the loop; `model::program` fuses the step with the gradient graph.
//! One file per attack; [`ATTACKS`] is the table that the command line, the documentation and the reports read.

pub mod array;

use crate::threat::Norm;
use array::Array;

/// What a step may look at beside the attack's own state. All arrays are per slot.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The norm of the threat model.
    pub norm: Norm,
    /// The clean sample, `[n, d]`.
    pub clean: Array<'a>,
    /// The smallest valid value (−∞ where there is none).
    pub low: Array<'a>,
    /// The largest valid value (+∞ where there is none).
    pub high: Array<'a>,
    /// The radius of the ball, `[n, 1]`.
    pub epsilon: Array<'a>,
    /// The length of a step, `[n, 1]`.
    pub step_size: Array<'a>,
}

/// What one pass of the model at the current point has shown.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// The point at which the model was evaluated, `[n, d]`.
    pub point: Array<'a>,
    /// The gradient of the sample's loss there, `[n, d]`.
    pub gradient: Array<'a>,
    /// The sample's loss there, `[n, 1]`.
    pub loss: Array<'a>,
}
