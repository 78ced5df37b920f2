//! Central differences at ever smaller steps, and what they come to (Ridders 1982).

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

/// The differences along one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Ladder {
    /// The last row of the table of extrapolations.
    row: Vec<f64>,
    best: Option<Estimate>,
}

/// A slope, and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) slope: f64,
    pub(super) uncertainty: f64,
}

impl Ladder {
    /// Takes in the difference at the next step, which the rounding of the losses makes uncertain by `noise`.
    ///
    /// The error of a central difference goes with the square of the step: two of them together cancel it, three the next term, and so on.
    /// What is believed is the entry of the table that differs least from those it was made of.
    pub(super) fn push(&mut self, slope: f64, noise: f64, ratio: f64) {
        let mut row = vec![slope];
        let mut weight = ratio * ratio;
        for (column, above) in self.row.iter().enumerate() {
            let left = row[column];
            let entry = (weight * left - above) / (weight - 1.0);
            weight *= ratio * ratio;
            let uncertainty = (entry - left).abs().max((entry - above).abs()).max(noise);
            if self.best.is_none_or(|best| uncertainty < best.uncertainty) {
                self.best = Some(Estimate {
                    slope: entry,
                    uncertainty,
                });
            }
            row.push(entry);
        }
        self.row = row;
    }

    /// The best so far; none before the second step.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn climb(count: usize, noise: f64, difference: impl Fn(f64) -> f64) -> Estimate {
        let mut ladder = Ladder::default();
        let mut step = 0.5;
        for _ in 0..count {
            ladder.push(difference(step), noise / step, 4.0);
            step /= 4.0;
        }
        ladder.estimate().unwrap()
    }

    #[test]
    fn smooth_functions_come_out_to_many_digits() {
        let difference = |h: f64| ((1.0 + h).exp() - (1.0 - h).exp()) / (2.0 * h);
        let found = climb(4, 0.0, difference);
        assert!((found.slope - 1f64.exp()).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_kink_nearby_shows_in_the_uncertainty_or_goes_away() {
        // max(x, 0) near 0.01: the slope is 1.
        let difference = |h: f64| ((0.01 + h).max(0.0) - (0.01 - h).max(0.0)) / (2.0 * h);
        let few = climb(2, 0.0, difference);
        assert!((few.slope - 1.0).abs() <= few.uncertainty, "{few:?}");
        let many = climb(6, 0.0, difference);
        assert!((many.slope - 1.0).abs() < 1e-12, "{many:?}");
    }

    #[test]
    fn noise_is_never_believed_away() {
        let found = climb(6, 1e-3, |_| 2.0);
        assert!(
            (found.uncertainty - 1e-3 / 0.125).abs() < 1e-12,
            "{found:?}"
        );
    }
}
