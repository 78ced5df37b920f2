//! Expectation over transformation: several gradients at one point, and one step along their mean.
//!
//! For models with randomness, of which a single gradient says little (Athalye, Carlini and Wagner 2018).

use super::array::Array;
use super::{Extent, Next, Pass, Start, StateArray};
use std::num::NonZeroU32;

/// What is kept between passes, behind the attack's own state.
pub(super) const STATE: [StateArray; 3] = [
    StateArray {
        name: "gradients",
        extent: Extent::Element,
    },
    StateArray {
        name: "losses",
        extent: Extent::Sample,
    },
    StateArray {
        name: "passes",
        extent: Extent::Sample,
    },
];

/// The attack's start with nothing added up; as it is where a step takes one pass.
pub(super) fn init(passes: NonZeroU32, start: Start<'_>) -> Start<'_> {
    if passes == NonZeroU32::MIN {
        return start;
    }
    let Start { point, mut state } = start;
    let zeros = point * 0.0;
    state.extend([zeros, zeros.sum(), zeros.sum()]);
    Start { point, state }
}

/// The attack's step after the last of so many passes at a point, along their mean; until then it stays.
pub(super) fn step<'a>(
    passes: NonZeroU32,
    pass: &Pass<'a>,
    state: &[Array<'a>],
    step: impl FnOnce(&Pass<'a>, &[Array<'a>]) -> Next<'a>,
) -> Next<'a> {
    if passes == NonZeroU32::MIN {
        step(pass, state)
    } else {
        Averaged::new(passes, pass, state).step(step)
    }
}

/// What the passes at one point have come to.
#[derive(Debug)]
struct Averaged<'a, 's> {
    /// The last pass with the means so far.
    pass: Pass<'a>,
    sums: [Array<'a>; 3],
    /// Whether this is the last pass at the point.
    is_last: Array<'a>,
    own: &'s [Array<'a>],
}

impl<'a, 's> Averaged<'a, 's> {
    /// Adds a pass to what `state` holds.
    fn new(passes: NonZeroU32, pass: &Pass<'a>, state: &'s [Array<'a>]) -> Self {
        let Some((own, &[gradients, losses, count])) = state.split_last_chunk() else {
            unreachable!("one array for each of `STATE` at the end");
        };
        let sums = [gradients + pass.gradient, losses + pass.loss, count + 1.0];
        let passes = f64::from(passes.get());
        Averaged {
            pass: Pass {
                gradient: sums[0] / passes,
                loss: sums[1] / passes,
                ..*pass
            },
            is_last: sums[2].gt(passes - 0.5),
            sums,
            own,
        }
    }

    /// Takes the attack's step after the last pass, and stays until then.
    fn step(self, step: impl FnOnce(&Pass<'a>, &[Array<'a>]) -> Next<'a>) -> Next<'a> {
        let Averaged {
            pass,
            sums,
            is_last,
            own,
        } = self;
        let next = step(&pass, own);
        let changed = next.state.iter().zip(own);
        let mut state: Vec<Array<'a>> = changed
            .map(|(&next, &own)| is_last.select(next, own))
            .collect();
        state.extend(sums.map(|sum| is_last.select(0.0, sum)));
        Next {
            point: is_last.select(next.point, pass.point),
            state,
        }
    }
}
