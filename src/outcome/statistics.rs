//! Confidence intervals of shares.

use statrs::distribution::{Beta, ContinuousCDF};

/// The share of the distribution that lies outside the interval at each end: 95 % lie within.
const TAIL: f64 = 0.025;

/// A confidence interval of a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end, from 0 to 1.
    pub low: f64,
    /// The upper end, from 0 to 1.
    pub high: f64,
}

/// The 95 % Clopper-Pearson interval of a share, of which `successes` out of `trials` independent trials are an estimate.
///
/// The interval is exact, hence conservative: it holds the true share in at least 95 % of all experiments (Clopper and Pearson,
/// Biometrika 26, 1934). Both ends are NaN where there are no trials.
#[must_use]
pub fn clopper_pearson(successes: u64, trials: u64) -> Interval {
    if trials == 0 || successes > trials {
        return Interval {
            low: f64::NAN,
            high: f64::NAN,
        };
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of samples stay below 2^53"
    )]
    let (successes, failures) = (successes as f64, (trials - successes) as f64);
    Interval {
        low: if successes == 0.0 {
            0.0
        } else {
            beta_quantile(successes, failures + 1.0, TAIL)
        },
        high: if failures == 0.0 {
            1.0
        } else {
            beta_quantile(successes + 1.0, failures, 1.0 - TAIL)
        },
    }
}

/// A p-value as every report has it, in at most six characters.
#[must_use]
pub fn p_value_text(p: f64) -> String {
    match p {
        _ if p >= 0.1 => format!("{p:.2}"),
        _ if p >= 0.001 => format!("{p:.3}"),
        _ if p.is_nan() => "–".to_owned(),
        _ => "<0.001".to_owned(),
    }
}

fn beta_quantile(a: f64, b: f64, probability: f64) -> f64 {
    Beta::new(a, b).map_or(f64::NAN, |beta| beta.inverse_cdf(probability))
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use statrs::function::beta::beta_reg;

    #[test]
    fn a_p_value_is_never_shown_as_zero() {
        let texts = [1.0, 0.1, 0.0625, 0.001, 0.000_999, 0.0, f64::NAN].map(p_value_text);
        assert_eq!(
            texts,
            ["1.00", "0.10", "0.062", "0.001", "<0.001", "<0.001", "–"]
        );
    }

    /// Computed from the binomial distribution in 60-digit arithmetic.
    #[test]
    fn known_intervals() {
        for (successes, trials, low, high) in [
            (8, 10, 0.443_904_537_692_358_4, 0.974_789_273_673_166_6),
            (1, 4, 0.006_309_463_209_709_865, 0.805_879_550_316_756_6),
            (412, 450, 0.885_935_298_651_87, 0.939_550_234_133_319_5),
            (1, 1000, 2.531_748_749_129_404e-5, 0.005_558_924_279_826_673),
        ] {
            let interval = clopper_pearson(successes, trials);
            assert_relative_eq!(interval.low, low, max_relative = 1e-9);
            assert_relative_eq!(interval.high, high, max_relative = 1e-9);
        }
    }

    #[test]
    fn the_ends_are_closed_where_all_or_none_succeed() {
        // With no success in n trials the upper end p solves (1 − p)ⁿ = 0.025.
        let none = clopper_pearson(0, 20);
        assert_eq!(none.low, 0.0);
        assert_relative_eq!(none.high, 1.0 - 0.025_f64.powf(1.0 / 20.0), epsilon = 1e-12);
        let all = clopper_pearson(20, 20);
        assert_relative_eq!(all.low, 0.025_f64.powf(1.0 / 20.0), epsilon = 1e-12);
        assert_eq!(all.high, 1.0);
    }

    #[test]
    fn no_trials_give_no_interval() {
        let interval = clopper_pearson(0, 0);
        assert!(interval.low.is_nan() && interval.high.is_nan());
    }

    #[test]
    fn each_end_leaves_one_fortieth_in_the_tail() {
        for trials in [1_u64, 7, 100, 1000, 50_000, 1_000_000] {
            for successes in [1, trials / 3, trials / 2, trials - trials / 50, trials - 1] {
                if successes == 0 || successes >= trials {
                    continue;
                }
                let interval = clopper_pearson(successes, trials);
                let (k, n) = (successes as f64, trials as f64);
                // P(X ≥ k | p) = I_p(k, n − k + 1)
                let above = beta_reg(k, n - k + 1.0, interval.low);
                let below = 1.0 - beta_reg(k + 1.0, n - k, interval.high);
                assert_relative_eq!(above, TAIL, max_relative = 1e-5);
                assert_relative_eq!(below, TAIL, max_relative = 1e-5);
                assert!(interval.low < k / n && k / n < interval.high);
            }
        }
    }
}
