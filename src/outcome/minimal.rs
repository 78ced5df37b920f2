//! The smallest radii at which samples break, and their quantiles.

use super::Norm;
use serde::{Deserialize, Serialize};

/// One row of `minimal_epsilon.csv`: the smallest radius at which an attack breaks a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MinimalRow {
    /// The sample's position in the data set, from 0.
    pub index: u64,
    /// The class that the data set gives.
    pub label: u32,
    /// The attack's name with its parameters, or `worst-case`.
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The smallest radius that holds a point that breaks the sample: 0 where it is wrong clean, infinite where none was found.
    pub minimal_epsilon: f64,
    /// The largest radius at which the attack failed, or the lower end of the range that was searched.
    pub withstood: f64,
}

/// The value that a share of the values is at most: the smallest one for which that holds, so that infinite ones need no arithmetic.
///
/// NaN where there are none.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among the values"
    )]
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    let last = sorted.last().copied().unwrap_or(f64::NAN);
    sorted.get(rank - 1).copied().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values = [0.3, f64::INFINITY, 0.0, 0.1, 0.2];
        assert_eq!(quantile(&values, 0.5), 0.2);
        assert_eq!(quantile(&values, 0.2), 0.0);
        assert_eq!(quantile(&values, 0.25), 0.1);
        assert_eq!(quantile(&values, 0.9), f64::INFINITY);
        assert_eq!(quantile(&values, 0.0), 0.0);
        assert_eq!(
            quantile(&values[..4], 0.5),
            0.1,
            "the lower of the middle two"
        );
        assert!(quantile(&[], 0.5).is_nan());
    }
}
