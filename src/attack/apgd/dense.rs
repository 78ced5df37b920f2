//! The step in ℓ∞ and ℓ2.

use super::super::array::Array;
use super::super::{Context, Next, Pass, Start, geometry};
use super::State;
use crate::threat::Norm;

/// How much of the way to z a step goes; the rest is momentum.
const TOWARD: f64 = 0.75;

/// In what share of the steps the loss has to rise for the step size to stay.
const RISING: f64 = 0.75;

/// The numbers of steps between checkpoints: the first, how much less each following, and the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) first: u32,
    pub(super) less: u32,
    pub(super) least: u32,
}

impl Windows {
    /// 22 %, 3 % and 6 % of the steps, rounded down, but at least 1.
    pub(super) fn of(steps: u32) -> Self {
        let percent = |share: u64| {
            let part = u64::from(steps) * share / 100;
            u32::try_from(part.max(1)).unwrap_or(u32::MAX)
        };
        Windows {
            first: percent(22),
            less: percent(3),
            least: percent(6),
        }
    }
}

/// On the surface of the ball where there is noise: in ℓ∞ at least one element ε away, in ℓ2 all of them together; then clipped to the bounds.
pub(super) fn init<'a>(steps: u32, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
    let on_surface = noise.map(|noise| {
        let length = geometry::length(context.norm, noise);
        noise / length.gt(0.0).select(length, 1.0)
    });
    let point = geometry::start(context, on_surface);
    let zeros = context.clean * 0.0;
    let zero = context.epsilon * 0.0;
    let window = zero + f64::from(Windows::of(steps).first);
    let state = State {
        previous: point,
        best_point: point,
        best_gradient: zeros,
        best_loss: zero - f64::INFINITY,
        last_loss: zero + f64::INFINITY,
        checked: zero,
        settled: zero + 1.0,
        rises: zero,
        scale: zero + 2.0,
        window,
        left: window,
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
    let first = state.step.lt(0.5);
    let seen = state.see(pass);
    let checked = first.select(pass.loss, state.checked);
    let left = first.select(state.left, state.left - 1.0);

    let at_checkpoint = left.lt(0.5);
    let rose_often = seen.rises.gt(RISING * state.window);
    let is_better = seen.best_loss.gt(checked);
    let stands = rose_often * is_better.max(state.settled);
    let halved = at_checkpoint * (1.0 - stands);

    let scale = halved.select(0.5 * state.scale, state.scale);
    let point = halved.select(seen.best_point, pass.point);
    let gradient = halved.select(seen.best_gradient, pass.gradient);
    let windows = Windows::of(steps);
    let next_window = (state.window - f64::from(windows.less)).max(f64::from(windows.least));
    let window = at_checkpoint.select(next_window, state.window);

    let toward = point + scale * context.epsilon * geometry::steepest(context.norm, gradient);
    let toward = match context.norm {
        Norm::Linf => geometry::project(context, toward),
        // Only where the step ends is the exact projection worth its time.
        Norm::L2 | Norm::L1 | Norm::L0 => {
            geometry::within_bounds(context, rescaled(context, toward))
        }
    };
    let with_momentum =
        point + TOWARD * (toward - point) + (1.0 - TOWARD) * (point - state.previous);
    let moved = first.select(toward, with_momentum);
    let state = State {
        previous: point,
        checked: at_checkpoint.select(seen.best_loss, checked),
        settled: at_checkpoint.select(halved, state.settled),
        rises: at_checkpoint.select(0.0, seen.rises),
        scale,
        window,
        left: at_checkpoint.select(next_window, left),
        step: state.step + 1.0,
        ..seen
    };
    Next {
        point: geometry::project(context, moved),
        state: state.arrays(),
    }
}

/// The point on the straight way to the clean sample that is in the ball.
fn rescaled<'a>(context: &Context<'a>, point: Array<'a>) -> Array<'a> {
    let perturbation = point - context.clean;
    let length = geometry::length(context.norm, perturbation);
    let fit = context.epsilon / length.max(context.epsilon);
    context.clean + fit * perturbation
}
