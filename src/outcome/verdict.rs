//! What a gate says: one check per threshold.

use super::Norm;
use serde::{Deserialize, Serialize};

/// Which side of a threshold is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sense {
    /// The measured value has to be at least the threshold.
    AtLeast,
    /// The measured value has to be at most the threshold.
    AtMost,
}

impl Sense {
    /// Whether a value is on the good side; NaN never is.
    #[must_use]
    pub fn holds(self, measured: f64, threshold: f64) -> bool {
        match self {
            Sense::AtLeast => measured >= threshold,
            Sense::AtMost => measured <= threshold,
        }
    }

    /// `≥` or `≤`.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Sense::AtLeast => "≥",
            Sense::AtMost => "≤",
        }
    }
}

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckKind {
    /// The share of samples that are right clean.
    CleanAccuracy,
    /// The share of samples that no attack broke, in the worst case over the attacks.
    RobustAccuracy,
    /// By how much the robust accuracy is below the baseline's.
    Drop,
    /// Wall-clock seconds of the evaluation.
    Seconds,
    /// The number of diagnostics that make a number untrustworthy.
    Trust,
}

impl CheckKind {
    /// The stable name: lower case, words joined by hyphens.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            CheckKind::CleanAccuracy => "clean-accuracy",
            CheckKind::RobustAccuracy => "robust-accuracy",
            CheckKind::Drop => "drop",
            CheckKind::Seconds => "seconds",
            CheckKind::Trust => "trust",
        }
    }
}

/// Which number of an estimate is held against a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// The share that was measured.
    #[default]
    Point,
    /// The cautious end of its 95 % confidence interval: the lower one of an accuracy, the upper one of a drop.
    Bound,
}

/// One threshold, and what was measured against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What it looks at.
    pub kind: CheckKind,
    /// The norm, where it looks at one.
    pub norm: Option<Norm>,
    /// The radius, where it looks at one.
    pub epsilon: Option<f64>,
    /// Which number of the estimate was held against the threshold.
    pub estimate: Estimate,
    /// The number that was held against the threshold: a share from 0 to 1, seconds, or a count.
    pub measured: f64,
    /// The lower end of its 95 % confidence interval, where it has one.
    pub low: Option<f64>,
    /// The upper end of that interval.
    pub high: Option<f64>,
    /// Which side of the threshold is good.
    pub sense: Sense,
    /// The threshold.
    pub threshold: f64,
    /// Whether the measured number is on the good side.
    pub passed: bool,
    /// What else there is to say, such as why a number is not to be trusted; a sentence without its full stop, or empty.
    pub note: String,
}

/// What a gate says of a model: every check, in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The checks; at least one.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Whether every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// The checks that did not.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_none_passes_no_threshold() {
        assert!(Sense::AtLeast.holds(0.5, 0.5) && Sense::AtMost.holds(0.5, 0.5));
        assert!(!Sense::AtLeast.holds(0.4, 0.5) && !Sense::AtMost.holds(0.6, 0.5));
        assert!(!Sense::AtLeast.holds(f64::NAN, 0.0) && !Sense::AtMost.holds(f64::NAN, 1.0));
    }
}
