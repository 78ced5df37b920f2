//! A central difference, and how far off it may be.

/// How far apart the points of the differences are, from the first step to the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Steps {
    /// The first step, in units of the size of an input element.
    pub(super) first: f64,
    /// What each step is divided by for the next.
    pub(super) ratio: f64,
    /// How many steps there are at most.
    pub(super) count: usize,
}

/// A slope, and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) slope: f64,
    pub(super) uncertainty: f64,
}

impl Estimate {
    /// Nothing known.
    pub(super) const NONE: Self = Estimate {
        slope: 0.0,
        uncertainty: f64::INFINITY,
    };

    /// The less uncertain of two.
    pub(super) fn better(self, other: Self) -> Self {
        if other.uncertainty < self.uncertainty {
            other
        } else {
            self
        }
    }
}

/// The differences along one direction, step by step.
#[derive(Debug, Clone)]
pub(super) struct Differences {
    /// The slope at the step before.
    before: Option<f64>,
    /// The least uncertain so far; nothing before the second step.
    pub(super) best: Estimate,
}

impl Differences {
    pub(super) const NONE: Self = Differences {
        before: None,
        best: Estimate::NONE,
    };

    /// Takes in the values to both sides and between them, where rounding makes the slope uncertain by `noise`.
    ///
    /// Half of what the slopes to both sides differ by bounds what a bend between them can do: a kink to one side leaves the other slope as it
    /// is, and a smooth bend does less. Kinks to both sides may cancel in that, but not at two steps.
    pub(super) fn push(&mut self, up: f64, center: f64, down: f64, step: f64, noise: f64) {
        let slope = (up - down) / (2.0 * step);
        if let Some(before) = self.before {
            let bent = (bend(up, center, down, step) / 2.0).max((slope - before).abs());
            self.best = self.best.better(Estimate {
                slope,
                uncertainty: bent + noise,
            });
        }
        self.before = Some(slope);
    }
}

/// How much the slopes to both sides differ.
pub(super) fn bend(up: f64, center: f64, down: f64, step: f64) -> f64 {
    (up + down - 2.0 * center).abs() / step
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The best of several steps.
    fn best(function: impl Fn(f64) -> f64, noise: f64) -> Estimate {
        let mut differences = Differences::NONE;
        for step in (0..7).map(|turn| 0.5 / 4f64.powi(turn)) {
            let (up, down) = (function(step), function(-step));
            differences.push(up, function(0.0), down, step, noise / step);
        }
        differences.best
    }

    #[test]
    fn smooth_functions_come_out_within_what_is_said() {
        let found = best(|x| (1.0 + x).exp(), 1e-6);
        let error = (found.slope - 1f64.exp()).abs();
        assert!(error <= found.uncertainty, "{found:?}");
        assert!(found.uncertainty < 1e-2, "{found:?}");
    }

    #[test]
    fn a_kink_beside_the_point_goes_away_with_the_step() {
        let found = best(|x| (0.01 + x).max(0.0), 1e-6);
        let error = (found.slope - 1.0).abs();
        assert!(error <= found.uncertainty, "{found:?}");
        assert!(found.uncertainty < 1e-2, "{found:?}");
    }

    #[test]
    fn kinks_to_both_sides_do_not_hide_each_other() {
        // The slope is 1, and 3 beyond 0.01 to either side.
        let found = best(
            |x| x + 2.0 * (x - 0.01).max(0.0) + 2.0 * (x + 0.01).min(0.0),
            1e-6,
        );
        let error = (found.slope - 1.0).abs();
        assert!(error <= found.uncertainty, "{found:?}");
        assert!(found.uncertainty < 1e-2, "{found:?}");
    }

    #[test]
    fn a_kink_at_the_point_stays_uncertain() {
        let found = best(|x| x.max(0.0), 1e-9);
        assert!((found.slope - 0.5).abs() < 1e-9);
        assert!((0.5..0.51).contains(&found.uncertainty), "{found:?}");
    }

    #[test]
    fn noise_is_never_believed_away() {
        let found = best(|x| 2.0 * x, 1e-3);
        assert!((found.uncertainty - 8e-3).abs() < 1e-12, "{found:?}");
    }
}
