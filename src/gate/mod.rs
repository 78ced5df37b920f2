//! The gate: thresholds over what an evaluation measured.
//!
//! Pure arithmetic: it runs nothing, reads nothing and prints nothing.
//! Start at [`Thresholds::check`], which refuses what cannot be held before anything runs, and [`Thresholds::judge`].

mod judge;
mod unclear;

use crate::outcome::{Comparison, Epsilon, Estimate, Norm, SummaryRow};

/// The least robust accuracy, everywhere or at one norm and radius.
#[derive(Debug, Clone, PartialEq)]
pub struct RobustThreshold {
    /// The norm; none for any.
    pub norm: Option<Norm>,
    /// The radius; none for any.
    pub epsilon: Option<Epsilon>,
    /// The share of samples that have to be robust.
    pub accuracy: f64,
}

/// What a model has to hold to pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Thresholds {
    /// The least share of samples that are right clean.
    pub min_clean_accuracy: Option<f64>,
    /// The least robust accuracy; of several that speak of one norm and radius, the most particular one counts.
    pub min_robust_accuracy: Vec<RobustThreshold>,
    /// The largest drop of the robust accuracy against the baseline, at any norm and radius.
    pub max_drop: Option<f64>,
    /// The longest time that the evaluation may take, in seconds.
    pub max_seconds: Option<f64>,
    /// Which number of an estimate is held against its threshold.
    pub estimate: Estimate,
    /// Whether numbers that cannot be trusted may pass.
    pub allow_untrusted: bool,
}

/// What an evaluation measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// Its rows, marked where they cannot be trusted.
    pub rows: &'a [SummaryRow],
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The baseline (first) against it (second), where there is one.
    pub comparison: Option<&'a Comparison>,
}

/// Why thresholds cannot be held, whatever is measured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// Nothing is asked.
    #[error(
        "a gate needs a threshold: give --min-robust-accuracy, --min-clean-accuracy, --max-drop or --max-seconds"
    )]
    NoThreshold,
    /// A share beyond 0 and 1.
    #[error("{name} is {value}, and a share lies between 0 and 1; write 0.95 or 95% for 95 %")]
    NotAShare {
        /// The flag.
        name: &'static str,
        /// The number.
        value: f64,
    },
    /// A time that is none.
    #[error("--max-seconds is {0}; give a number of seconds above 0")]
    NotATime(f64),
    /// A drop from what?
    #[error(
        "--max-drop needs something to drop from: give --baseline with a samples.csv, a report folder or a model"
    )]
    NoBaseline,
    /// A norm or radius that is not evaluated.
    #[error(
        "--min-robust-accuracy speaks of {threshold}, and the evaluation is in {evaluated}; \
         give that radius to --epsilon and its norm to --norm, or take the threshold out"
    )]
    NotEvaluated {
        /// What the threshold speaks of.
        threshold: String,
        /// The norms of the evaluation with their radii.
        evaluated: String,
    },
    /// Two thresholds for the same numbers.
    #[error("--min-robust-accuracy has two thresholds for {0}; give one")]
    Repeated(String),
}

impl RobustThreshold {
    fn speaks_of(&self, norm: Norm, epsilon: f64) -> bool {
        self.norm.is_none_or(|own| own == norm)
            && self
                .epsilon
                .as_ref()
                .is_none_or(|own| own.value().to_bits() == epsilon.to_bits())
    }

    /// How much it says of where it counts.
    fn particularity(&self) -> u8 {
        2 * u8::from(self.epsilon.is_some()) + u8::from(self.norm.is_some())
    }

    /// `linf:8/255`, as it is written.
    fn place(&self) -> String {
        match (self.norm, &self.epsilon) {
            (None, None) => "every radius".to_owned(),
            (Some(norm), None) => norm.to_string(),
            (None, Some(epsilon)) => epsilon.to_string(),
            (Some(norm), Some(epsilon)) => format!("{norm}:{epsilon}"),
        }
    }
}

impl Thresholds {
    /// Refuses thresholds that no evaluation in those norms, each at its radii, could be held against.
    ///
    /// # Errors
    /// Where there is none, one is out of range, speaks of what is not evaluated, or two speak of the same.
    pub fn check(
        &self,
        evaluated: &[(Norm, Vec<Epsilon>)],
        has_baseline: bool,
    ) -> Result<(), GateError> {
        if self.min_clean_accuracy.is_none()
            && self.min_robust_accuracy.is_empty()
            && self.max_drop.is_none()
            && self.max_seconds.is_none()
        {
            return Err(GateError::NoThreshold);
        }
        let shares = [
            ("--min-clean-accuracy", self.min_clean_accuracy),
            ("--max-drop", self.max_drop),
        ];
        let robust = self.min_robust_accuracy.iter();
        let robust = robust.map(|one| ("--min-robust-accuracy", Some(one.accuracy)));
        for (name, value) in shares.into_iter().chain(robust) {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                return Err(GateError::NotAShare { name, value });
            }
        }
        if let Some(seconds) = self
            .max_seconds
            .filter(|&seconds| !(seconds > 0.0 && seconds.is_finite()))
        {
            return Err(GateError::NotATime(seconds));
        }
        if self.max_drop.is_some() && !has_baseline {
            return Err(GateError::NoBaseline);
        }
        for (position, one) in self.min_robust_accuracy.iter().enumerate() {
            let counts = |(norm, radii): &(Norm, Vec<Epsilon>)| {
                let mut radii = radii.iter();
                radii.any(|radius| one.speaks_of(*norm, radius.value()))
            };
            if !evaluated.iter().any(counts) {
                return Err(GateError::NotEvaluated {
                    threshold: one.place(),
                    evaluated: places(evaluated),
                });
            }
            let radius = |one: &RobustThreshold| one.epsilon.as_ref().map(Epsilon::value);
            let mut earlier = self.min_robust_accuracy.iter().take(position);
            if earlier.any(|other| (other.norm, radius(other)) == (one.norm, radius(one))) {
                return Err(GateError::Repeated(one.place()));
            }
        }
        Ok(())
    }
}

/// `linf at epsilon 2/255, 8/255 and l2 at epsilon 0.5`
fn places(evaluated: &[(Norm, Vec<Epsilon>)]) -> String {
    let place = |(norm, radii): &(Norm, Vec<Epsilon>)| {
        let radii: Vec<&str> = radii.iter().map(Epsilon::text).collect();
        format!("{norm} at epsilon {}", radii.join(", "))
    };
    let places: Vec<String> = evaluated.iter().map(place).collect();
    places.join(" and ")
}

/// What the tests of every part begin with.
#[cfg(test)]
mod fixtures {
    use super::RobustThreshold;
    use crate::outcome::{Epsilon, SummaryRow, WORST_CASE, clopper_pearson};

    pub(super) fn epsilon(text: &str) -> Epsilon {
        text.parse().unwrap()
    }

    /// The worst case of 100 samples, 90 of them right clean.
    pub(super) fn row(epsilon: f64, robust: u64) -> SummaryRow {
        let interval = clopper_pearson(robust, 100);
        SummaryRow {
            attack: WORST_CASE.to_owned(),
            epsilon,
            samples: 100,
            clean_accuracy: 0.9,
            robust_accuracy: robust as f64 / 100.0,
            robust_accuracy_low: interval.low,
            robust_accuracy_high: interval.high,
            ..SummaryRow::blank()
        }
    }

    pub(super) fn at(place: Option<&str>, accuracy: f64) -> RobustThreshold {
        RobustThreshold {
            norm: None,
            epsilon: place.map(epsilon),
            accuracy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{at, epsilon};
    use super::*;

    #[test]
    fn thresholds_that_cannot_be_held_are_refused() {
        let refusal = |thresholds: Thresholds| {
            let radii = vec![epsilon("2/255"), epsilon("0.1")];
            let evaluated = [(Norm::Linf, radii), (Norm::L1, vec![epsilon("5")])];
            thresholds.check(&evaluated, false).unwrap_err().to_string()
        };
        let robust = |one| Thresholds {
            min_robust_accuracy: one,
            ..Thresholds::default()
        };
        assert!(refusal(Thresholds::default()).starts_with("a gate needs a threshold"));
        assert!(refusal(robust(vec![at(None, 95.0)])).contains("is 95, and a share lies"));
        assert!(refusal(robust(vec![at(None, f64::NAN)])).contains("is NaN"));
        assert_eq!(
            refusal(robust(vec![at(Some("8/255"), 0.4)])),
            "--min-robust-accuracy speaks of 8/255, and the evaluation is in linf at epsilon 2/255, 0.1 and l1 at epsilon 5; give that radius to --epsilon \
             and its norm to --norm, or take the threshold out"
        );
        let in_l2 = RobustThreshold {
            norm: Some(Norm::L2),
            ..at(Some("0.1"), 0.4)
        };
        assert!(refusal(robust(vec![in_l2])).contains("speaks of l2:0.1"));
        let twice = vec![at(Some("0.1"), 0.4), at(Some("0.10"), 0.5)];
        assert!(refusal(robust(twice)).contains("two thresholds for 0.10"));
        let drop = Thresholds {
            max_drop: Some(0.1),
            ..Thresholds::default()
        };
        assert!(refusal(drop).contains("--baseline"));
        for seconds in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            let time = Thresholds {
                max_seconds: Some(seconds),
                ..Thresholds::default()
            };
            assert!(refusal(time).starts_with("--max-seconds is"));
        }
    }
}
