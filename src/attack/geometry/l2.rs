//! ℓ2: the gradient's direction, and the exact projection onto the part of a ball that lies within bounds.

use super::super::{Array, Context};

/// How often the scale is improved; the first value counts.
///
/// Over samples of 2 to 50,000 elements, with and without bounds, sparse, dense and heavy-tailed steps, 1e-6 of ε took
/// at most 3 for steps of ε/16 (the default of `pgd`), 6 for steps up to 2.5 ε and 8 for steps of 100 ε.
const ITERATIONS: usize = 8;

/// g/‖g‖₂, or 0 where g is all zero.
///
/// Divided by the largest |g| first: the squares of the tiny gradients of a confident model would underflow in float32, and any
/// constant that guards the division would decide how far such samples move.
pub(super) fn unit(gradient: Array<'_>) -> Array<'_> {
    let scaled = gradient / nonzero(gradient.abs().largest());
    // The norm of a scaled gradient is at least 1 unless it is all zero.
    scaled / (scaled * scaled).sum().sqrt().max(1.0)
}

/// ‖δ‖₂; scaled first, as in [`unit`], so that the squares of short perturbations do not underflow.
pub(super) fn length(perturbation: Array<'_>) -> Array<'_> {
    let largest = perturbation.abs().largest();
    let scaled = perturbation / nonzero(largest);
    largest * (scaled * scaled).sum().sqrt()
}

/// `point` itself where clipping to the bounds is enough; else clean + t·z, clipped, with the t that makes its length ε.
///
/// With z = point − clean and each |δᵢ| at most its room rᵢ, the nearest point has δᵢ = sign(zᵢ)·min(t·|zᵢ|, rᵢ) for one t in [0, 1].
/// In s = t², the squared length N(s) = Σ min(s·zᵢ², rᵢ²) is increasing, concave and made of straight pieces, whose slope is the sum of
/// zᵢ² over the elements that have room left.
/// Newton's iteration s ← s + (ε² − N(s))/slope therefore rises toward the solution and never passes it: every iterate lies in the ball.
pub(super) fn project<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    let perturbation = point - context.clean;
    // In units of the largest element, so that no square overflows or underflows where it matters.
    let unit = nonzero(perturbation.abs().largest());
    let scaled = perturbation / unit;
    let room = super::room(context, perturbation) / unit;
    let radius = context.epsilon / unit;

    let squares = scaled * scaled;
    let room_squares = room * room;
    let limit = radius * radius;

    let mut scale_squared = (limit / nonzero(squares.sum())).min(1.0);
    for _ in 1..ITERATIONS {
        let reached = scale_squared * squares;
        let length_squared = reached.min(room_squares).sum();
        let slope = reached.lt(room_squares).select(squares, 0.0).sum();
        let missing = (limit - length_squared).max(0.0);
        scale_squared = (scale_squared + missing / nonzero(slope)).min(1.0);
    }

    let outside = squares.min(room_squares).sum().gt(limit);
    let scaled_back = context.clean + scale_squared.sqrt() * perturbation;
    super::within_bounds(context, outside.select(scaled_back, point))
}

/// `lengths` (none negative) with 1 in place of 0, to divide by.
fn nonzero(lengths: Array<'_>) -> Array<'_> {
    lengths.gt(0.0).select(lengths, 1.0)
}
