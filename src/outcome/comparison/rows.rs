//! A comparison as rows of files.

use super::{Comparison, Side};
use crate::threat::Norm;
use serde::{Deserialize, Serialize};

/// One row of `comparison.csv`: a [`Pairing`](super::Pairing) with its statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparisonRow {
    /// What the first evaluation is called.
    pub first: String,
    /// What the second evaluation is called.
    pub second: String,
    /// The attack's name with its parameters, or `worst-case`.
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius of the ball.
    pub epsilon: f64,
    /// The number of samples.
    pub samples: u64,
    /// The share of samples that is robust in the first.
    pub first_robust_accuracy: f64,
    /// The share of samples that is robust in the second.
    pub second_robust_accuracy: f64,
    /// The second share less the first.
    pub difference: f64,
    /// Lower end of its 95 % confidence interval (Tango's score interval).
    pub difference_low: f64,
    /// Upper end of that interval.
    pub difference_high: f64,
    /// Samples that are robust in the first alone.
    pub first_only: u64,
    /// Samples that are robust in the second alone.
    pub second_only: u64,
    /// The p-value of McNemar's exact test.
    pub p_value: f64,
    /// `first`, `second`, or `unclear` where the test at 5 % cannot tell.
    pub more_robust: String,
}

/// One row of `changes.csv`: a sample that is robust on one side alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The sample's position in the data set.
    pub index: u64,
    /// The attack's name with its parameters, or `worst-case`.
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius of the ball.
    pub epsilon: f64,
    /// `broken` where it is robust in the first alone, `mended` where it is so in the second alone.
    pub change: String,
}

impl Comparison {
    /// The rows of `comparison.csv`.
    pub fn rows(&self) -> impl Iterator<Item = ComparisonRow> {
        self.pairings.iter().map(|pairing| {
            let interval = pairing.counts.interval();
            ComparisonRow {
                first: self.first.clone(),
                second: self.second.clone(),
                attack: pairing.attack.clone(),
                norm: pairing.norm,
                epsilon: pairing.epsilon,
                samples: pairing.counts.samples,
                first_robust_accuracy: pairing.first_accuracy,
                second_robust_accuracy: pairing.second_accuracy,
                difference: pairing.counts.difference(),
                difference_low: interval.low,
                difference_high: interval.high,
                first_only: pairing.counts.first_only,
                second_only: pairing.counts.second_only,
                p_value: pairing.counts.p_value(),
                more_robust: match pairing.more_robust() {
                    Some(Side::First) => "first",
                    Some(Side::Second) => "second",
                    None => "unclear",
                }
                .to_owned(),
            }
        })
    }

    /// The rows of `changes.csv`, pairing by pairing, those that broke first.
    pub fn changes(&self) -> impl Iterator<Item = ChangeRow> {
        self.pairings.iter().flat_map(|pairing| {
            let broken = pairing.broken.iter().map(|index| (index, "broken"));
            let mended = pairing.mended.iter().map(|index| (index, "mended"));
            broken.chain(mended).map(|(&index, change)| ChangeRow {
                index,
                attack: pairing.attack.clone(),
                norm: pairing.norm,
                epsilon: pairing.epsilon,
                change: change.to_owned(),
            })
        })
    }
}
