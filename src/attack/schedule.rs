//! Numbers that change from step to step.

use super::array::Array;
use std::f64::consts::PI;

/// Half a cosine, from 1 at the first step toward 0 after the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cosine<'a>(Array<'a>);

impl<'a> Cosine<'a> {
    /// Where the schedule of so many steps is at `step`, counted from 0, `[n, 1]`.
    pub(super) fn at(step: Array<'a>, steps: u32) -> Self {
        Cosine(((PI / f64::from(steps)) * step).cos() * 0.5 + 0.5)
    }

    /// What falls from `first` toward `last`.
    pub(super) fn between(self, first: f64, last: f64) -> Array<'a> {
        last + (first - last) * self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::host::HostArrays;
    use ndarray::array;

    #[test]
    fn half_a_cosine_leads_from_the_first_value_toward_the_last() {
        let arrays = HostArrays::new(3);
        let steps = arrays.input(array![[0.0], [25.0], [50.0], [100.0]]);
        let values = arrays.value(Cosine::at(steps, 100).between(1.0, 0.01));
        for (value, expected) in values.iter().zip([1.0, 0.855_017_86, 0.505, 0.01]) {
            assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        }
    }
}
