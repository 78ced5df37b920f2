//! The step in ℓ1: a few elements at a time, in balls that shrink.

use super::super::array::Array;
use super::super::{Context, Next, Pass, Start, geometry};
use super::State;

/// The share of elements that the first step moves where it starts at the clean sample.
const FIRST_SHARE: f64 = 0.2;

/// What the step size and the number of moved elements are divided by at a checkpoint.
const LESS: f64 = 1.5;

/// The smallest step size, in units of the radius.
const LEAST: f64 = 0.1;

/// What part of the moved elements has to be left for a best point not to count as sparser.
const SAME: f64 = 0.95;

/// The balls that are looked in: each with its radius in units of ε, and the number of points that are seen before it comes.
fn phases(steps: u32) -> [(f64, u32); 3] {
    let at = |tenths: u64| u32::try_from(u64::from(steps) * tenths / 10).unwrap_or(u32::MAX);
    [(3.0, 0), (2.0, at(3)), (1.0, at(6))]
}

/// The radius in units of ε at a number of points seen.
fn radius(steps: u32, seen: Array<'_>) -> Array<'_> {
    let [(first, _), (second, from_second), (third, from_third)] = phases(steps);
    let after = |from: u32| seen.gt(f64::from(from) - 0.5);
    after(from_third).select(
        third,
        after(from_second).select(second, seen.constant(first)),
    )
}

/// 4 % of the points that a ball sees.
fn window(steps: u32) -> f64 {
    let [_, (_, second), _] = phases(steps);
    (f64::from(second) / 25.0).floor().max(1.0)
}

pub(super) fn init<'a>(steps: u32, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
    let zero = context.epsilon * 0.0;
    let ball = Context {
        epsilon: context.epsilon * radius(steps, zero),
        ..*context
    };
    let (point, checked, share) = match noise {
        // A point of the ball of radius d has elements about as large as the clean sample's; few of them are left by the projection.
        Some(noise) => {
            let width = noise.width() as f64;
            let point = geometry::project(&ball, context.clean + width * noise);
            let moved = moved(context, point);
            (point, moved, share(moved))
        }
        None => {
            let all = zero + context.clean.width() as f64;
            (context.clean, all, zero + FIRST_SHARE)
        }
    };
    let state = State {
        previous: point,
        best_point: point,
        best_gradient: context.clean * 0.0,
        best_loss: zero - f64::INFINITY,
        last_loss: zero + f64::INFINITY,
        checked,
        settled: share,
        rises: zero,
        scale: zero + 1.0,
        window: zero + window(steps),
        left: zero + window(steps),
        step: zero,
    };
    Start {
        point,
        state: state.arrays(),
    }
}

pub(super) fn step<'a>(
    steps: u32,
    context: &Context<'a>,
    pass: &Pass<'a>,
    state: &State<'a>,
) -> Next<'a> {
    let seen = state.see(pass);
    let [_, (_, second), (_, third)] = phases(steps);
    let starts = |at: Array<'a>| {
        let is = |number: u32| (at - f64::from(number)).abs().lt(0.5);
        at.lt(0.5).max(is(second)).max(is(third))
    };
    let left = starts(state.step).select(state.left, state.left - 1.0);
    let at_checkpoint = left.lt(0.5);
    let now_moved = moved(context, seen.best_point);
    let is_sparser = now_moved.lt(SAME * state.checked);
    let back = at_checkpoint * is_sparser;

    let smaller = (state.scale / LESS).max(LEAST);
    let scale = at_checkpoint.select(is_sparser.select(1.0, smaller), state.scale);
    let share_now = at_checkpoint.select(share(now_moved), state.settled);
    let checked = at_checkpoint.select(now_moved, state.checked);
    let left = at_checkpoint.select(state.window, left);
    let point = back.select(seen.best_point, pass.point);
    let gradient = back.select(seen.best_gradient, pass.gradient);

    // The ball of the next point.
    let next_step = state.step + 1.0;
    let ball = Context {
        epsilon: context.epsilon * radius(steps, next_step),
        ..*context
    };
    let shrinks = starts(next_step);
    let stepped = point + scale * ball.epsilon * direction(context, point, gradient, share_now);
    let next = geometry::project(&ball, shrinks.select(seen.best_point, stepped));
    let carried = moved(context, next);
    let fresh = |then: Array<'a>, value: Array<'a>| shrinks.select(value, then);
    let state = State {
        previous: point,
        best_loss: fresh(seen.best_loss, next_step * 0.0 - f64::INFINITY),
        checked: fresh(checked, carried),
        settled: fresh(share_now, share(carried)),
        scale: fresh(scale, next_step * 0.0 + 1.0),
        left: fresh(left, state.window),
        step: next_step,
        ..seen
    };
    Next {
        point: next,
        state: state.arrays(),
    }
}

/// The number of elements that differ from the clean sample's.
fn moved<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    (point - context.clean).sign().abs().sum()
}

/// The share of elements that a step moves where the best point has moved so many.
fn share(moved: Array<'_>) -> Array<'_> {
    moved / (LESS * moved.width() as f64)
}

/// Equal parts, 1 together, on that share of the elements with the largest |g| among those not yet at the bound to which g points (at least one).
///
/// The authors' code looks at all elements: where the largest have met their bounds it stands still.
fn direction<'a>(
    context: &Context<'a>,
    point: Array<'a>,
    gradient: Array<'a>,
    share: Array<'a>,
) -> Array<'a> {
    let has_room = gradient
        .gt(0.0)
        .select(point.lt(context.high), point.gt(context.low));
    let gradient = has_room.select(gradient, 0.0);
    let strength = gradient.abs();
    let count = share * gradient.width() as f64;
    // The authors' code rounds the count up: a best point that has moved two elements would then never be left for one of them.
    let least = strength.at_rank(count - 1.0);
    let chosen = strength.lt(least).select(0.0, gradient.sign());
    chosen / chosen.abs().sum().max(1.0)
}
