//! ℓ∞: a ball and the bounds meet in a box, so that each element is projected by itself.

use super::super::{Array, Context};

/// Clamps to the ball, then to the bounds: the nearest point of the box where both meet.
pub(super) fn project<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    let (clean, epsilon) = (context.clean, context.epsilon);
    let in_ball = point.clamp(clean - epsilon, clean + epsilon);
    super::within_bounds(context, in_ball)
}
