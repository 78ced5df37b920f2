//! Two shares of the same samples: is one larger, and by how much?

use super::Interval;
use statrs::function::beta::beta_reg;

/// The 97.5 % quantile of the normal distribution: 95 % lie within it on both sides.
const QUANTILE: f64 = 1.959_963_984_540_054;

/// What became of the same samples in two trials, as far as the trials differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Discordance {
    /// The number of samples.
    pub samples: u64,
    /// Those that hold in the first trial alone.
    pub first_only: u64,
    /// Those that hold in the second trial alone.
    pub second_only: u64,
}

impl Discordance {
    /// The share in the second trial less the share in the first; NaN where there are no samples.
    #[must_use]
    pub fn difference(&self) -> f64 {
        (self.second_only as f64 - self.first_only as f64) / self.samples as f64
    }

    /// The exact two-sided p-value of McNemar's test (Psychometrika 12, 1947): how likely a difference as large as this one, either way,
    /// would be if neither trial were better.
    ///
    /// Only samples that differ tell anything: each is then the toss of a coin, and p is twice the smaller tail of the binomial
    /// distribution, at most 1.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        let tosses = self.first_only + self.second_only;
        let fewer = self.first_only.min(self.second_only);
        if 2 * fewer == tosses {
            return 1.0;
        }
        // P(X ≤ k) = I_½(n − k, k + 1), the regularised incomplete beta function.
        let tail = beta_reg((tosses - fewer) as f64, fewer as f64 + 1.0, 0.5);
        (2.0 * tail).min(1.0)
    }

    /// The 95 % confidence interval of [`Discordance::difference`], by Tango's score method (Statistics in Medicine 17, 1998).
    ///
    /// It holds every difference that the score test does not refuse, so it has a width even where nothing differs, stays within −1 and
    /// 1, and agrees with McNemar's test, of which the exact one is a little more cautious. NaN where there are no samples.
    #[must_use]
    pub fn interval(&self) -> Interval {
        if self.samples == 0 || self.first_only + self.second_only > self.samples {
            return Interval {
                low: f64::NAN,
                high: f64::NAN,
            };
        }
        let estimate = self.difference();
        Interval {
            low: self.crossing(-1.0, estimate, QUANTILE),
            high: self.crossing(estimate, 1.0, -QUANTILE),
        }
    }

    /// The difference between `low` and `high` at which the score is `target`; the score falls as the difference grows.
    fn crossing(&self, mut low: f64, mut high: f64, target: f64) -> f64 {
        // More halvings than a float has digits.
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            if self.score(middle) > target {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }

    /// How many standard deviations the counts lie above those of a true difference `delta` (Tango, equation 8).
    fn score(&self, delta: f64) -> f64 {
        let n = self.samples as f64;
        let (more, fewer) = (self.second_only as f64, self.first_only as f64);
        // The most likely share of `first_only` if the difference is `delta`: the larger root of a·q² + b·q + c.
        let a = 2.0 * n;
        let b = -more - fewer + (2.0 * n - more + fewer) * delta;
        let c = -fewer * delta * (1.0 - delta);
        let share = ((b * b - 4.0 * a * c).max(0.0).sqrt() - b) / (2.0 * a);
        let variance = n * (2.0 * share + delta * (1.0 - delta));
        let above = more - fewer - n * delta;
        if variance > 0.0 {
            above / variance.sqrt()
        } else {
            // No chance is left: the counts are as they have to be, or infinitely far off.
            above * f64::INFINITY
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    fn counts(samples: u64, second_only: u64, first_only: u64) -> Discordance {
        Discordance {
            samples,
            first_only,
            second_only,
        }
    }

    /// `tests/statistics/paired.py`: scipy's binomial test, statsmodels' McNemar test, and the score interval by numerical likelihood.
    #[test]
    fn known_tests_and_intervals() {
        for (samples, second, first, p, low, high) in [
            (
                450,
                12,
                67,
                2.048_841_172_810_755e-10,
                -0.161_171_2,
                -0.086_341_9,
            ),
            (450, 3, 1, 0.625, -0.006_417_8, 0.017_448_1),
            (50, 0, 5, 0.0625, -0.213_602_3, -0.021_517_6),
            (30, 0, 0, 1.0, -0.113_513_4, 0.113_513_4),
            (
                1000,
                40,
                22,
                0.030_015_864_349_067_285,
                0.002_645_6,
                0.034_206_7,
            ),
            (20, 10, 10, 1.0, -0.401_404_0, 0.401_404_0),
            (
                44,
                43,
                0,
                2.273_736_754_432_320_6e-13,
                0.818_506_4,
                0.995_976_7,
            ),
            (
                10_000,
                251,
                190,
                0.004_222_595_308_884_979,
                0.001_992_6,
                0.010_253_1,
            ),
        ] {
            let counts = counts(samples, second, first);
            assert_relative_eq!(counts.p_value(), p, max_relative = 1e-9);
            let interval = counts.interval();
            assert_relative_eq!(interval.low, low, epsilon = 2e-7);
            assert_relative_eq!(interval.high, high, epsilon = 2e-7);
        }
    }

    #[test]
    fn changing_sides_changes_the_sign_alone() {
        for (samples, second, first) in [(100, 7, 3), (9, 0, 9), (1, 1, 0), (5, 0, 0)] {
            let (here, there) = (
                counts(samples, second, first),
                counts(samples, first, second),
            );
            assert_eq!(here.p_value(), there.p_value());
            assert_eq!(here.difference(), -there.difference());
            let (here, there) = (here.interval(), there.interval());
            assert_relative_eq!(here.low, -there.high, epsilon = 1e-12);
            assert_relative_eq!(here.high, -there.low, epsilon = 1e-12);
            assert!(-1.0 <= here.low && here.low <= here.high && here.high <= 1.0);
        }
    }

    #[test]
    fn an_exact_test_of_few_samples_is_a_sum_of_powers_of_two() {
        // Of five tosses, none: 2 · ½⁵.
        assert_relative_eq!(counts(9, 0, 5).p_value(), 2.0 / 32.0, max_relative = 1e-12);
        // Of six, at most one: 2 · (1 + 6) · ½⁶.
        assert_relative_eq!(counts(9, 5, 1).p_value(), 14.0 / 64.0, max_relative = 1e-12);
        assert_eq!(counts(9, 0, 0).p_value(), 1.0);
    }

    #[test]
    fn no_samples_give_no_interval() {
        let none = counts(0, 0, 0);
        assert!(none.difference().is_nan() && none.interval().low.is_nan());
    }
}
