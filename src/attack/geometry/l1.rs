//! ℓ1: sparse directions, and the exact projection onto the part of a ball that lies within bounds.

use super::super::{Array, Context, Pass};

/// How often the threshold is improved.
///
/// Over samples of 2 to 50,000 elements, with and without bounds, 1e-6 of ε took at most 5 for sparse steps of ε/16 (what `pgd` does by
/// default), 7 for sparse steps up to 2.5 ε and 10 for dense steps up to 2.5 ε.
/// Of 40,000 cases made hard on purpose (heavy tails, bounds far nearer than ε) 3 took more, all with 2 or 3 elements.
/// What is left then is a perturbation in the ball that is a little shorter, or distributed a little differently, than the nearest one.
const ITERATIONS: usize = 10;

/// Of how many coordinates one moves in a step of an iterated attack.
const SPARSITY: usize = 100;

/// What no float32 sum but 0 is below: a divisor for what may be 0.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// The sign of the first largest |g|, in its place; 0 elsewhere, and everywhere where g is all zero.
pub(super) fn steepest(gradient: Array<'_>) -> Array<'_> {
    gradient.abs().one_hot_largest() * gradient.sign()
}

/// Equal parts on the coordinates with the largest |g| among those that are not yet at the bound to which g points.
///
/// Where several coordinates tie for the last place, all of them move: the parts still add up to 1.
pub(super) fn sparse<'a>(context: &Context<'a>, pass: &Pass<'a>) -> Array<'a> {
    let gradient = pass.gradient;
    let has_room = gradient
        .gt(0.0)
        .select(pass.point.lt(context.high), pass.point.gt(context.low));
    let movable = has_room.select(gradient, 0.0);
    let strength = movable.abs();
    let moved = gradient.width().div_ceil(SPARSITY).max(1);
    let chosen = strength
        .lt(strength.kth_largest(moved))
        .select(0.0, movable.sign());
    chosen / chosen.abs().sum().max(1.0)
}

/// `point` itself where clipping to the bounds is enough; else the soft threshold that brings the length to ε.
///
/// With z = point − clean and each |δᵢ| at most its room rᵢ, the nearest point has δᵢ = sign(zᵢ)·min(max(|zᵢ| − λ, 0), rᵢ) for one λ ≥ 0.
/// The length falls with λ along straight pieces whose slope counts the elements that are neither 0 nor at a bound, and is neither
/// convex nor concave: Newton's iteration is kept between the largest λ known to be too small and the smallest known to be enough.
/// Where it would leave them, the straight line through the two is followed, a quarter drawn toward their middle, as either alone can crawl.
/// What little the last λ leaves too long is scaled off, so that the result lies in the ball.
pub(super) fn project<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    let epsilon = context.epsilon;
    let perturbation = point - context.clean;
    let size = perturbation.abs();
    let room = super::room(context, perturbation);

    let excess_at_zero = size.min(room).sum() - epsilon;
    let (mut too_small, mut excess_there) = (epsilon.constant(0.0), excess_at_zero);
    let (mut enough, mut lack_there) = (size.largest(), epsilon);
    let mut threshold = too_small;
    for _ in 0..ITERATIONS {
        let beyond = size - threshold;
        let excess = beyond.clamp(0.0, room).sum() - epsilon;
        let free = (beyond.gt(0.0) * room.gt(beyond)).sum();
        let too_long = excess.gt(0.0);
        too_small = too_long.select(threshold, too_small);
        excess_there = too_long.select(excess, excess_there);
        enough = too_long.select(enough, threshold);
        lack_there = too_long.select(lack_there, -excess);
        let newton = threshold + excess / free.max(1.0);
        // From either side, Newton's value must stay short of the other side; where nothing is free it says nothing.
        let short_of_other = too_long.select(newton.lt(enough), newton.gt(too_small));
        let line = excess_there / (excess_there + lack_there).max(SMALLEST);
        let between = too_small + (enough - too_small) * (0.75 * line + 0.125);
        threshold = free
            .gt(0.0)
            .select(short_of_other.select(newton, between), between);
    }

    let shrunk = (size - threshold).clamp(0.0, room);
    let fit = (epsilon / shrunk.sum().max(SMALLEST)).min(1.0);
    let moved = context.clean + perturbation.sign() * shrunk * fit;
    super::within_bounds(context, excess_at_zero.gt(0.0).select(moved, point))
}
