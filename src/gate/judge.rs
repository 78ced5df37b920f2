//! What was measured, held against the thresholds: a check for each.

use super::{Measured, Thresholds};
use crate::outcome::{
    Check, CheckKind, Comparison, Estimate, Interval, Sense, SummaryRow, Verdict, WORST_CASE,
    clopper_pearson, p_value_text,
};

impl Thresholds {
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
                    "{} became breakable, {} no longer are; McNemar's p {}",
                    pairing.counts.first_only,
                    pairing.counts.second_only,
                    p_value_text(pairing.counts.p_value())
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
pub(super) fn share_interval(share: f64, samples: u64) -> Interval {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count, rounded back to the count"
    )]
    let successes = (share * samples as f64).round() as u64;
    clopper_pearson(successes, samples)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, row};
    use super::*;
    use crate::gate::RobustThreshold;
    use crate::outcome::{Norm, SampleOutcome, Sheet};

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
        assert_eq!(
            check.note,
            "5 became breakable, 0 no longer are; McNemar's p 0.062"
        );
        assert!(!drop(60, 54, Estimate::Point).0.passed);
        assert!(!drop(60, 56, Estimate::Bound).0.passed);
        assert!(drop(60, 70, Estimate::Bound).0.passed);
    }

    #[test]
    fn each_norm_has_thresholds_of_its_own() {
        let of = |norm, accuracy| RobustThreshold {
            norm: Some(norm),
            ..at(None, accuracy)
        };
        let thresholds = Thresholds {
            min_robust_accuracy: vec![of(Norm::Linf, 0.5), of(Norm::L2, 0.3)],
            ..Thresholds::default()
        };
        let in_l2 = SummaryRow {
            norm: Norm::L2,
            ..row(0.5, 40)
        };
        let in_l1 = SummaryRow {
            norm: Norm::L1,
            ..row(5.0, 0)
        };
        let rows = [row(0.1, 40), in_l2, in_l1];
        assert_eq!(
            passes(&thresholds, &rows),
            [
                (CheckKind::RobustAccuracy, false),
                (CheckKind::RobustAccuracy, true),
                (CheckKind::Trust, true)
            ],
            "ℓ1 has none"
        );
    }
}
