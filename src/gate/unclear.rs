//! Thresholds that so few samples cannot tell from what was measured, and how many would.

use super::Thresholds;
use super::judge::share_interval;
use crate::outcome::{Check, CheckKind, Diagnostic, DiagnosticKind, Estimate, Verdict};

impl Thresholds {
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
    use super::super::Measured;
    use super::super::fixtures::{at, row};
    use super::*;

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
}
