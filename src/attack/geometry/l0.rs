//! ℓ0: some elements stay where they are, the others go back.

use super::super::{Array, Context};

/// The ⌊ε⌋ elements that have moved furthest stay where they are, brought within the bounds; where several tie for the last place, all stay.
///
/// What a bound cuts off does not count: elements are brought within the bounds first.
pub(super) fn project<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    let allowed = super::within_bounds(context, point);
    keep(context, allowed, (allowed - context.clean).abs())
}

/// The ⌊ε⌋ elements of `point` with the largest worth stay, the others are those of the clean sample.
pub(in super::super) fn keep<'a>(
    context: &Context<'a>,
    point: Array<'a>,
    worth: Array<'a>,
) -> Array<'a> {
    let count = context.epsilon.floor();
    let least = worth.at_rank(count - 1.0);
    let kept = worth.lt(least).select(context.clean, point);
    count.lt(1.0).select(context.clean, kept)
}
