//! The norms as attacks need them: the way that raises the loss fastest, and the way back into the ball.
//!
//! Written once over [`Array`], so that the same code is the host reference and the nodes of a graph.
//! A graph has no early exit: every iteration below is a fixed number of nodes that each step pays for, in time proportional to the batch.
//! The exact float64 forms that verdicts rest on are in [`crate::threat`].
//! Start at [`direction`] and [`project`]; each norm has a file of its own.

mod hyperplane;
mod l1;
mod l2;
mod linf;

pub use hyperplane::{Hyperplane, onto_hyperplane};

use super::{Array, Context, Pass};
use crate::threat::Norm;

/// More than any length that counts, and small enough that sums over a sample do not overflow.
const FAR: f64 = 1e30;

/// What no float32 length but 0 is below.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// The perturbation of length 1 in `norm` that raises the loss most, to first order, without regard to bounds.
///
/// ℓ∞: sign(g). ℓ2: g/‖g‖₂. ℓ1: the sign of the first largest |g|, in its place alone.
/// A sample whose gradient is all zero gets 0, as there is no such direction, and never NaN.
#[must_use]
pub fn steepest(norm: Norm, gradient: Array<'_>) -> Array<'_> {
    match norm {
        Norm::Linf => gradient.sign(),
        Norm::L2 => l2::unit(gradient),
        Norm::L1 => l1::steepest(gradient),
    }
}

/// The direction, of length 1 in the norm, in which an iterated attack goes from the point that `pass` has looked at.
///
/// ℓ∞ and ℓ2: as [`steepest`].
/// ℓ1: spread evenly over the 1 % of coordinates (at least one) with the largest |g| among those that can still move, as
/// a single coordinate per step reaches a bound soon and leaves the rest untouched (Tramèr and Boneh 2019).
#[must_use]
pub fn direction<'a>(context: &Context<'a>, pass: &Pass<'a>) -> Array<'a> {
    match context.norm {
        Norm::Linf | Norm::L2 => steepest(context.norm, pass.gradient),
        Norm::L1 => l1::sparse(context, pass),
    }
}

/// The point nearest to `point` (in Euclidean distance) that lies both in the ball and within the bounds.
///
/// A point that lies in both stays as it is, bit for bit.
/// Relative to ε the result is exact to 1e-6 and what float32 leaves of `point − clean`; [`crate::threat::confine`] removes the rest.
#[must_use]
pub fn project<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    match context.norm {
        Norm::Linf => linf::project(context, point),
        Norm::L2 => l2::project(context, point),
        Norm::L1 => l1::project(context, point),
    }
}

/// g/‖g‖₁, or 0 where g is all zero: divided by the largest |g| first, so that no tiny gradient is lost.
#[must_use]
pub fn of_unit_sum(gradient: Array<'_>) -> Array<'_> {
    let largest = gradient.abs().largest();
    let scaled = gradient / largest.gt(0.0).select(largest, 1.0);
    // The sum of a scaled gradient is at least 1 unless it is all zero.
    scaled / scaled.abs().sum().max(1.0)
}

/// The length of each sample's perturbation, `[n, 1]`, as float32 has it; what is reported is measured by [`Norm::distance`].
#[must_use]
pub fn length(norm: Norm, perturbation: Array<'_>) -> Array<'_> {
    match norm {
        Norm::Linf => perturbation.abs().largest(),
        Norm::L2 => l2::length(perturbation),
        Norm::L1 => perturbation.abs().sum(),
    }
}

/// The length of a gradient in the norm that measures how fast the loss changes per unit of the threat's norm, `[n, 1]`, never 0.
#[must_use]
pub fn dual_length(norm: Norm, gradient: Array<'_>) -> Array<'_> {
    let dual = match norm {
        Norm::Linf => Norm::L1,
        Norm::L2 => Norm::L2,
        Norm::L1 => Norm::Linf,
    };
    length(dual, gradient).max(SMALLEST)
}

/// The distance from the clean sample of the farthest point within the bounds, `[n, 1]`; very large where there are none.
#[must_use]
pub fn longest<'a>(context: &Context<'a>) -> Array<'a> {
    let room = (context.clean - context.low).max(context.high - context.clean);
    length(context.norm, room.min(FAR))
}

/// The distance between the bounds; 1 where there are none.
#[must_use]
pub fn width_of_bounds<'a>(context: &Context<'a>) -> Array<'a> {
    let width = context.high - context.low;
    width.lt(FAR).select(width, 1.0)
}

/// Where an attack starts: at the clean sample, or ε·`noise` away from it and clipped to the bounds.
///
/// `noise` is a point of the ball of radius 1 ([`Norm::draw`]); clipping moves each element toward the clean sample, so that the ball holds.
#[must_use]
pub fn start<'a>(context: &Context<'a>, noise: Option<Array<'a>>) -> Array<'a> {
    match noise {
        None => context.clean,
        Some(noise) => within_bounds(context, context.clean + context.epsilon * noise),
    }
}

/// `point` clipped to the bounds.
#[must_use]
pub fn within_bounds<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    point.clamp(context.low, context.high)
}

/// How far each element may move from the clean sample in the direction of `perturbation` until it meets a bound; ∞ where there is none.
fn room<'a>(context: &Context<'a>, perturbation: Array<'a>) -> Array<'a> {
    perturbation
        .gt(0.0)
        .select(context.high - context.clean, context.clean - context.low)
}

#[cfg(test)]
mod tests;
