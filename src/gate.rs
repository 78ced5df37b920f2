//! The gate: thresholds over what an evaluation measured.
//!
//! Pure arithmetic: it runs nothing, reads nothing and prints nothing.
//! Start at [`Thresholds::check`], which refuses what cannot be held before anything runs, and [`Thresholds::judge`].

use crate::outcome::{
    Check, CheckKind, Comparison, Diagnostic, DiagnosticKind, Epsilon, Estimate, Interval, Norm,
    Sense, SummaryRow, Verdict, WORST_CASE, clopper_pearson,
};

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
        "--min-robust-accuracy speaks of {threshold}, and the evaluation is in {norm} at epsilon {epsilons}; \
         give that radius to --epsilon and its norm to --norm, or take the threshold out"
    )]
    NotEvaluated {
        /// What the threshold speaks of.
        threshold: String,
        /// The norm of the evaluation.
        norm: Norm,
        /// Its radii.
        epsilons: String,
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
    /// Refuses thresholds that no evaluation in that norm at those radii could be held against.
    ///
    /// # Errors
    /// Where there is none, one is out of range, speaks of what is not evaluated, or two speak of the same.
    pub fn check(
        &self,
        norm: Norm,
        epsilons: &[Epsilon],
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
            if !epsilons
                .iter()
                .any(|epsilon| one.speaks_of(norm, epsilon.value()))
            {
                let epsilons: Vec<&str> = epsilons.iter().map(Epsilon::text).collect();
                return Err(GateError::NotEvaluated {
                    threshold: one.place(),
                    norm,
                    epsilons: epsilons.join(", "),
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

    /// One check for each threshold and number, and one of whether the numbers can be trusted.
    #[must_use]
    pub fn judge(&self, measured: Measured<'_>) -> Verdict {
        let worst = || {
            let rows = measured.rows.iter();
            rows.filter(|row| row.attack == WORST_CASE)
        };
        let mut checks = Vec::new();
        if let Some(threshold) = self.min_clean_accuracy
            && let Some(row) = worst().next()
        {
            checks.push(self.clean(row, threshold));
        }
        let robust = worst().filter_map(|row| Some((row, self.least_at(row)?)));
        checks.extend(robust.map(|(row, threshold)| self.robust(row, threshold)));
        if let (Some(threshold), Some(comparison)) = (self.max_drop, measured.comparison) {
            checks.extend(worst().map(|row| self.drop(row, comparison, threshold)));
        }
        if let Some(threshold) = self.max_seconds {
            let check = Check {
                kind: CheckKind::Seconds,
                measured: measured.seconds,
                sense: Sense::AtMost,
                threshold,
                ..blank()
            };
            checks.push(decided(check));
        }
        // The clean accuracy and the time need no attack to be believed.
        let leaning = |row: &&SummaryRow| self.max_drop.is_some() || self.least_at(row).is_some();
        let leaning: Vec<&SummaryRow> = worst().filter(leaning).collect();
        if !leaning.is_empty() {
            checks.push(self.trust(&leaning));
        }
        Verdict { checks }
    }

    /// Notes every threshold that lies within the confidence interval of what was measured, with the number of samples that would do.
    #[must_use]
    pub fn diagnose(&self, verdict: &Verdict) -> Vec<Diagnostic> {
        if self.estimate == Estimate::Bound {
            // The interval itself is held against the threshold.
            return Vec::new();
        }
        let unclear = verdict.checks.iter().filter(|check| {
            let within = |low, high| low < check.threshold && check.threshold < high;
            matches!((check.low, check.high), (Some(low), Some(high)) if within(low, high))
        });
        unclear.map(too_few).collect()
    }

    /// The threshold for a row's robust accuracy, if there is one.
    fn least_at(&self, row: &SummaryRow) -> Option<f64> {
        let speaking = self.min_robust_accuracy.iter();
        speaking
            .filter(|one| one.speaks_of(row.norm, row.epsilon))
            .max_by_key(|one| one.particularity())
            .map(|one| one.accuracy)
    }

    /// The number of an accuracy that is held against its threshold.
    fn cautious(&self, point: f64, bound: f64) -> f64 {
        match self.estimate {
            Estimate::Point => point,
            Estimate::Bound => bound,
        }
    }

    fn clean(&self, row: &SummaryRow, threshold: f64) -> Check {
        let interval = share_interval(row.clean_accuracy, row.samples);
        decided(Check {
            kind: CheckKind::CleanAccuracy,
            estimate: self.estimate,
            measured: self.cautious(row.clean_accuracy, interval.low),
            low: Some(interval.low),
            high: Some(interval.high),
            threshold,
            ..blank()
        })
    }

    fn robust(&self, row: &SummaryRow, threshold: f64) -> Check {
        decided(Check {
            kind: CheckKind::RobustAccuracy,
            norm: Some(row.norm),
            epsilon: Some(row.epsilon),
            estimate: self.estimate,
            measured: self.cautious(row.robust_accuracy, row.robust_accuracy_low),
            low: Some(row.robust_accuracy_low),
            high: Some(row.robust_accuracy_high),
            threshold,
            note: untrusted(&row.untrustworthy),
            ..blank()
        })
    }

    fn drop(&self, row: &SummaryRow, comparison: &Comparison, threshold: f64) -> Check {
        let pairing = comparison.worst_case(row.norm, row.epsilon);
        // Without a counterpart nothing was measured, and NaN passes no threshold.
        let (drop, low, high, note) =
            pairing.map_or((f64::NAN, None, None, String::new()), |pairing| {
                let interval = pairing.counts.interval();
                let note = format!(
                    "{} became breakable, {} no longer are; p = {:.2}",
                    pairing.counts.first_only,
                    pairing.counts.second_only,
                    pairing.counts.p_value()
                );
                // A drop is a difference with its sign, and its interval, turned round; 0 stays 0, not −0.
                let drop = 0.0 - pairing.counts.difference();
                (
                    drop,
                    Some(0.0 - interval.high),
                    Some(0.0 - interval.low),
                    note,
                )
            });
        decided(Check {
            kind: CheckKind::Drop,
            norm: Some(row.norm),
            epsilon: Some(row.epsilon),
            estimate: self.estimate,
            measured: self.cautious(drop, high.unwrap_or(f64::NAN)),
            low,
            high,
            sense: Sense::AtMost,
            threshold,
            note,
            ..blank()
        })
    }

    fn trust(&self, rows: &[&SummaryRow]) -> Check {
        let doubtful = rows.iter().filter(|row| !row.untrustworthy.is_empty());
        let mut ids: Vec<&str> = doubtful
            .clone()
            .flat_map(|row| row.untrustworthy.split(' '))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let count = doubtful.count();
        let note = match (count, self.allow_untrusted) {
            (0, _) => String::new(),
            (_, true) => format!("{}; allowed by --allow-untrusted", ids.join(", ")),
            (_, false) => ids.join(", "),
        };
        Check {
            kind: CheckKind::Trust,
            measured: count as f64,
            sense: Sense::AtMost,
            passed: count == 0 || self.allow_untrusted,
            note,
            ..blank()
        }
    }
}

fn blank() -> Check {
    Check {
        kind: CheckKind::Trust,
        norm: None,
        epsilon: None,
        estimate: Estimate::Point,
        measured: f64::NAN,
        low: None,
        high: None,
        sense: Sense::AtLeast,
        threshold: 0.0,
        passed: false,
        note: String::new(),
    }
}

fn decided(check: Check) -> Check {
    Check {
        passed: check.sense.holds(check.measured, check.threshold),
        ..check
    }
}

fn untrusted(ids: &str) -> String {
    if ids.is_empty() {
        String::new()
    } else {
        format!("not to be trusted: {}", ids.replace(' ', ", "))
    }
}

/// The interval of a share that was measured on so many samples.
fn share_interval(share: f64, samples: u64) -> Interval {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count, rounded back to the count"
    )]
    let successes = (share * samples as f64).round() as u64;
    clopper_pearson(successes, samples)
}

/// The most samples that are proposed.
const MOST_SAMPLES: u64 = 10_000_000;

/// How many samples would separate a share from a threshold, if the share stayed as it is; none where not even many would.
fn enough(share: f64, threshold: f64) -> Option<u64> {
    let separated = |samples: u64| {
        let interval = share_interval(share, samples);
        interval.high <= threshold || threshold <= interval.low
    };
    let mut high = 16;
    while !separated(high) {
        high *= 2;
        if high > MOST_SAMPLES {
            return None;
        }
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if separated(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

fn too_few(check: &Check) -> Diagnostic {
    let (low, high) = (
        check.low.unwrap_or(f64::NAN),
        check.high.unwrap_or(f64::NAN),
    );
    let of = match check.kind {
        CheckKind::CleanAccuracy => "clean accuracy",
        CheckKind::Drop => "drop against the baseline",
        _ => "robust accuracy",
    };
    let needed = match check.kind {
        CheckKind::Drop => None,
        _ => enough(check.measured, check.threshold),
    };
    let advice = match needed {
        Some(samples) => format!(
            "about {samples} samples would tell; give more, move the threshold, or hold the cautious end of the interval against it \
             (--estimate bound)"
        ),
        None => "give more samples, move the threshold, or hold the cautious end of the interval against it (--estimate bound)"
            .to_owned(),
    };
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    Diagnostic {
        kind: DiagnosticKind::TooFewSamples,
        attack: None,
        norm: check.norm,
        epsilons: check.epsilon.into_iter().collect(),
        figure: high - low,
        finding: format!(
            "the threshold of {} % lies within the 95 % confidence interval of the {of}, {} to {} %: another draw of samples may end \
             otherwise",
            percent(check.threshold),
            percent(low),
            percent(high)
        ),
        advice,
        untrustworthy: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{SampleOutcome, Sheet};

    fn epsilon(text: &str) -> Epsilon {
        text.parse().unwrap()
    }

    /// The worst case of 100 samples, 90 of them right clean.
    fn row(epsilon: f64, robust: u64) -> SummaryRow {
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

    fn at(place: Option<&str>, accuracy: f64) -> RobustThreshold {
        RobustThreshold {
            norm: None,
            epsilon: place.map(epsilon),
            accuracy,
        }
    }

    fn passes(thresholds: &Thresholds, rows: &[SummaryRow]) -> Vec<(CheckKind, bool)> {
        let measured = Measured {
            rows,
            seconds: 5.0,
            comparison: None,
        };
        let checks = thresholds.judge(measured).checks;
        checks
            .iter()
            .map(|check| (check.kind, check.passed))
            .collect()
    }

    #[test]
    fn each_threshold_gets_its_check() {
        let thresholds = Thresholds {
            min_clean_accuracy: Some(0.9),
            min_robust_accuracy: vec![at(None, 0.5), at(Some("0.2"), 0.1)],
            max_seconds: Some(4.0),
            ..Thresholds::default()
        };
        assert_eq!(
            passes(&thresholds, &[row(0.1, 49), row(0.2, 11)]),
            [
                (CheckKind::CleanAccuracy, true),
                (CheckKind::RobustAccuracy, false),
                (CheckKind::RobustAccuracy, true),
                (CheckKind::Seconds, false),
                (CheckKind::Trust, true),
            ]
        );
    }

    #[test]
    fn the_bound_is_more_cautious_than_the_point() {
        let mut thresholds = Thresholds {
            min_clean_accuracy: Some(0.85),
            min_robust_accuracy: vec![at(None, 0.45)],
            ..Thresholds::default()
        };
        let rows = [row(0.1, 50)];
        assert!(passes(&thresholds, &rows).iter().all(|(_, passed)| *passed));
        thresholds.estimate = Estimate::Bound;
        let passed: Vec<bool> = passes(&thresholds, &rows)
            .into_iter()
            .map(|(_, p)| p)
            .collect();
        assert_eq!(passed, [false, false, true]);
    }

    #[test]
    fn a_number_that_cannot_be_trusted_fails_unless_it_is_allowed() {
        let mut doubtful = row(0.1, 80);
        doubtful.untrustworthy = "zero-gradients".to_owned();
        let mut thresholds = Thresholds {
            min_robust_accuracy: vec![at(None, 0.5)],
            ..Thresholds::default()
        };
        let rows = [doubtful];
        assert_eq!(passes(&thresholds, &rows)[1], (CheckKind::Trust, false));
        thresholds.allow_untrusted = true;
        assert_eq!(passes(&thresholds, &rows)[1], (CheckKind::Trust, true));
        // No threshold leans on the attacks.
        let clean = Thresholds {
            min_clean_accuracy: Some(0.5),
            ..Thresholds::default()
        };
        assert_eq!(passes(&clean, &rows), [(CheckKind::CleanAccuracy, true)]);
    }

    #[test]
    fn a_drop_is_paired_and_counts_downwards_alone() {
        let sheet = |robust: u64| {
            let mut sheet = Sheet::new();
            for index in 0..100 {
                sheet.add(&SampleOutcome {
                    index,
                    label: 0,
                    clean_prediction: 0,
                    attack: "pgd".to_owned(),
                    norm: Norm::Linf,
                    epsilon: 0.1,
                    adversarial_prediction: 0,
                    robust: index < robust,
                    clean_loss: 0.0,
                    loss: 0.0,
                    linf: 0.0,
                    l2: 0.0,
                    l1: 0.0,
                    l0: 0.0,
                    steps: 1,
                    restart: 0,
                });
            }
            sheet
        };
        let drop = |before, after, estimate| {
            let comparison =
                Comparison::new(("before", sheet(before)), ("after", sheet(after))).unwrap();
            let thresholds = Thresholds {
                max_drop: Some(0.05),
                estimate,
                ..Thresholds::default()
            };
            let measured = Measured {
                rows: &[row(0.1, after)],
                seconds: 1.0,
                comparison: Some(&comparison),
            };
            let verdict = thresholds.judge(measured);
            (
                verdict.checks[0].clone(),
                thresholds.diagnose(&verdict).len(),
            )
        };
        let (check, unclear) = drop(60, 55, Estimate::Point);
        assert!(check.passed && (check.measured - 0.05).abs() < 1e-12);
        assert_eq!(unclear, 1, "the interval holds 5 %");
        assert_eq!(check.note, "5 became breakable, 0 no longer are; p = 0.06");
        assert!(!drop(60, 54, Estimate::Point).0.passed);
        assert!(!drop(60, 56, Estimate::Bound).0.passed);
        assert!(drop(60, 70, Estimate::Bound).0.passed);
    }

    #[test]
    fn a_threshold_within_the_interval_asks_for_more_samples() {
        let thresholds = Thresholds {
            min_robust_accuracy: vec![at(None, 0.45)],
            ..Thresholds::default()
        };
        let diagnose = |robust| {
            let rows = [row(0.1, robust)];
            let verdict = thresholds.judge(Measured {
                rows: &rows,
                seconds: 1.0,
                comparison: None,
            });
            thresholds.diagnose(&verdict)
        };
        let found = diagnose(50);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, DiagnosticKind::TooFewSamples);
        assert!(!found[0].untrustworthy);
        assert!(diagnose(80).is_empty() && diagnose(20).is_empty());
    }

    #[test]
    fn the_number_of_samples_that_is_proposed_separates() {
        for (share, threshold) in [(0.5, 0.45), (0.98, 0.95), (0.0, 0.001), (0.3, 0.31)] {
            let samples = enough(share, threshold).unwrap();
            let interval = share_interval(share, samples);
            assert!(interval.high <= threshold || threshold <= interval.low);
        }
        assert_eq!(enough(0.5, 0.5), None);
    }

    #[test]
    fn thresholds_that_cannot_be_held_are_refused() {
        let refusal = |thresholds: Thresholds| {
            let radii = [epsilon("2/255"), epsilon("0.1")];
            thresholds
                .check(Norm::Linf, &radii, false)
                .unwrap_err()
                .to_string()
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
            "--min-robust-accuracy speaks of 8/255, and the evaluation is in linf at epsilon 2/255, 0.1; give that radius to --epsilon \
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
