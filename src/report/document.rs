//! All that a report is made from, and the words that every form of it uses.

use super::number::percent;
use super::table::symbol;
use crate::outcome::{
    Comparison, ComparisonRow, Diagnostic, Norm, Provenance, Summary, SummaryRow, Verdict,
    WORST_CASE,
};

/// An evaluation that is done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// The rows, and ε as the user wrote it.
    pub summary: Summary,
    /// What bears on how far the numbers can be trusted.
    pub diagnostics: Vec<Diagnostic>,
    /// What was decided without being asked, in sentences without their full stop.
    pub notes: Vec<String>,
    /// What the gate says, where there is one.
    pub verdict: Option<Verdict>,
    /// The baseline (first) against the model (second), where there is one.
    pub comparison: Option<Comparison>,
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// Adversarial examples of images, the smallest ε first; empty where samples are no images.
    pub examples: Vec<Example>,
    /// Wall-clock seconds of the evaluation.
    pub seconds: f64,
}

/// An adversarial example beside the image that it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The sample's position in the data set.
    pub index: u64,
    /// Its label, which is also what the model says of the clean image.
    pub label: u32,
    /// What the model says of the adversarial image.
    pub prediction: u32,
    /// The attack that found it.
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius at which it was found.
    pub epsilon: f64,
    /// How the values below are an image.
    pub layout: ImageLayout,
    /// The clean image's values.
    pub clean: Vec<f32>,
    /// The adversarial image's values.
    pub adversarial: Vec<f32>,
    /// The smallest and the largest valid value, where there are bounds.
    pub bounds: Option<(f32, f32)>,
}

/// How the values of a sample are an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLayout {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Whether each channel is a plane of its own, `[c, h, w]`, rather than `[h, w, c]`.
    pub planar: bool,
}

impl ImageLayout {
    /// The least height and width: what is smaller is no picture that one could look at.
    const LEAST: usize = 4;

    /// The image that a sample of that shape is: `[h, w]`, `[c, h, w]` or `[h, w, c]` with 1 or 3 channels; none for other shapes.
    #[must_use]
    pub fn of(shape: &[usize]) -> Option<Self> {
        let (height, width, channels, planar) = match *shape {
            [height, width] => (height, width, 1, true),
            [channels @ (1 | 3), height, width] => (height, width, channels, true),
            [height, width, channels @ (1 | 3)] => (height, width, channels, false),
            _ => return None,
        };
        (height >= Self::LEAST && width >= Self::LEAST).then_some(ImageLayout {
            height,
            width,
            channels,
            planar,
        })
    }

    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether there are no values; never so for one that [`ImageLayout::of`] gave.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a pixel's channel lies among the values.
    pub(super) fn position(&self, row: usize, column: usize, channel: usize) -> usize {
        if self.planar {
            (channel * self.height + row) * self.width + column
        } else {
            (row * self.width + column) * self.channels + channel
        }
    }
}

impl Document {
    /// The model's file name.
    #[must_use]
    pub fn model(&self) -> &str {
        let first = self.summary.rows.first();
        first.map_or("", |row| row.model.as_str())
    }

    /// The number of samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.summary.rows.first().map_or(0, |row| row.samples)
    }

    /// The norms, in the order in which they come.
    #[must_use]
    pub fn norms(&self) -> Vec<Norm> {
        let mut norms = Vec::new();
        for row in &self.summary.rows {
            if !norms.contains(&row.norm) {
                norms.push(row.norm);
            }
        }
        norms
    }

    /// The rows over all attacks, in a norm, ε ascending.
    #[must_use]
    pub fn worst(&self, norm: Norm) -> Vec<&SummaryRow> {
        let rows = self.summary.rows.iter();
        let mut rows: Vec<&SummaryRow> = rows
            .filter(|row| row.attack == WORST_CASE && row.norm == norm)
            .collect();
        rows.sort_by(|left, right| left.epsilon.total_cmp(&right.epsilon));
        rows
    }

    /// The diagnostics, those first that make a number untrustworthy.
    pub(super) fn sorted_diagnostics(&self) -> Vec<&Diagnostic> {
        let (grave, other): (Vec<_>, Vec<_>) = self
            .diagnostics
            .iter()
            .partition(|found| found.untrustworthy);
        grave.into_iter().chain(other).collect()
    }

    /// The rows of the comparison with the baseline.
    pub(super) fn comparison_rows(&self) -> Vec<ComparisonRow> {
        self.comparison.iter().flat_map(Comparison::rows).collect()
    }

    /// The outcome in a sentence.
    #[must_use]
    pub fn headline(&self) -> String {
        if let Some(verdict) = &self.verdict {
            let (all, failures) = (verdict.checks.len(), verdict.failures().count());
            let plural = if all == 1 { "" } else { "s" };
            return if failures == 0 {
                format!("The gate passed: {all} check{plural}")
            } else {
                format!("The gate failed: {failures} of {all} check{plural}")
            };
        }
        let norms = self.norms().into_iter();
        let last: Vec<String> = norms
            .filter_map(|norm| self.worst(norm).last().copied())
            .map(|row| {
                format!(
                    "{} % at {} ε = {}",
                    percent(row.robust_accuracy),
                    symbol(row.norm),
                    self.summary.epsilon_text(row.epsilon)
                )
            })
            .collect();
        match self.summary.rows.first() {
            Some(first) => format!(
                "{} % right as they are, {} under attack",
                percent(first.clean_accuracy),
                last.join(", ")
            ),
            None => "Nothing was evaluated".to_owned(),
        }
    }

    /// Whether some number is not to be trusted.
    #[must_use]
    pub fn is_untrustworthy(&self) -> bool {
        let mut rows = self.summary.rows.iter();
        rows.any(|row| !row.untrustworthy.is_empty())
    }
}

/// How many samples are broken first at each radius.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ladder {
    /// Samples that are wrong as they are.
    pub(super) wrong: u64,
    /// For each row over all attacks: the samples that it breaks and no smaller radius does.
    pub(super) broken: Vec<u64>,
    /// Samples that held to the end.
    pub(super) held: u64,
}

impl Ladder {
    /// From rows over all attacks, ε ascending: a sample that is broken in a ball is broken in every larger one.
    pub(super) fn new(rows: &[&SummaryRow]) -> Self {
        let count = |share: f64, samples: u64| {
            #[expect(
                clippy::cast_sign_loss,
                reason = "a share of a count, and no share is negative"
            )]
            let count = (share * samples as f64).round() as u64;
            count
        };
        let Some(first) = rows.first() else {
            return Ladder {
                wrong: 0,
                broken: Vec::new(),
                held: 0,
            };
        };
        let right = count(first.clean_accuracy, first.samples);
        let mut left = right;
        let broken = rows
            .iter()
            .map(|row| {
                let now = count(row.robust_accuracy, row.samples).min(left);
                let broken = left - now;
                left = now;
                broken
            })
            .collect();
        Ladder {
            wrong: first.samples.saturating_sub(right),
            broken,
            held: left,
        }
    }
}

/// Documents for the tests of every format.
#[cfg(test)]
pub(super) mod fixtures {
    use super::super::table::fixtures::{row, summary};
    use super::*;
    use crate::outcome::{
        AttackRecord, Check, CheckKind, DiagnosticKind, Estimate, FileRecord, Sense,
    };

    pub(crate) fn document() -> Document {
        let mut rows = vec![
            row("fgsm", Norm::Linf, 2.0 / 255.0, 431),
            row("fgsm", Norm::Linf, 8.0 / 255.0, 317),
            row("pgd:steps=20", Norm::Linf, 2.0 / 255.0, 401),
            row("pgd:steps=20", Norm::Linf, 8.0 / 255.0, 190),
            row(WORST_CASE, Norm::Linf, 2.0 / 255.0, 400),
            row(WORST_CASE, Norm::Linf, 8.0 / 255.0, 190),
        ];
        rows[1].untrustworthy = "flat-loss".to_owned();
        Document {
            summary: summary(rows),
            diagnostics: vec![
                diagnostic(DiagnosticKind::SoftmaxHead, None, false),
                diagnostic(DiagnosticKind::FlatLoss, Some("fgsm"), true),
            ],
            notes: vec!["values are divided by 255".to_owned()],
            verdict: None,
            comparison: None,
            provenance: provenance(),
            examples: Vec::new(),
            seconds: 12.5,
        }
    }

    /// One check that passed and one that did not.
    pub(crate) fn gated() -> Document {
        let check = |kind, epsilon, measured, threshold: f64| Check {
            kind,
            norm: Some(Norm::Linf),
            epsilon,
            estimate: Estimate::Point,
            measured,
            low: Some(measured - 0.04),
            high: Some(measured + 0.04),
            sense: Sense::AtLeast,
            threshold,
            passed: measured >= threshold,
            note: String::new(),
        };
        let epsilon = Some(8.0 / 255.0);
        Document {
            verdict: Some(Verdict {
                checks: vec![
                    check(CheckKind::CleanAccuracy, None, 442.0 / 450.0, 0.95),
                    check(CheckKind::RobustAccuracy, epsilon, 190.0 / 450.0, 0.5),
                ],
            }),
            ..document()
        }
    }

    fn diagnostic(kind: DiagnosticKind, attack: Option<&str>, untrustworthy: bool) -> Diagnostic {
        Diagnostic {
            kind,
            attack: attack.map(str::to_owned),
            norm: None,
            epsilons: Vec::new(),
            figure: 0.25,
            finding: "25.0 % of the <samples> are so".to_owned(),
            advice: "look at them & think".to_owned(),
            untrustworthy,
        }
    }

    fn provenance() -> Provenance {
        let file = |path: &str| FileRecord {
            path: path.to_owned(),
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned(),
        };
        let pairs = |pairs: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        Provenance {
            mohs: "0.1.0".to_owned(),
            onnxruntime: "1.31.1".to_owned(),
            device: "cpu".to_owned(),
            platform: "linux x86_64".to_owned(),
            date: "2026-03-01T12:00:00Z".to_owned(),
            command: ["mohs", "evaluate", "my digits.onnx"]
                .map(str::to_owned)
                .to_vec(),
            models: vec![file("my digits.onnx")],
            data: vec![file("test.npz")],
            seed: 7,
            attacks: vec![AttackRecord {
                label: "pgd:steps=20".to_owned(),
                parameters: pairs(&[("steps", "20"), ("restarts", "1")]),
            }],
            parameters: pairs(&[("norm", "linf"), ("bounds", "0,1")]),
        }
    }

    /// A grey image of 4 × 4 pixels, and one that differs from it.
    pub(crate) fn example() -> Example {
        let clean: Vec<f32> = (0u8..16).map(|value| f32::from(value) / 15.0).collect();
        let mut adversarial = clean.clone();
        adversarial[5] += 0.1;
        adversarial[6] -= 0.05;
        Example {
            index: 17,
            label: 3,
            prediction: 5,
            attack: "pgd:steps=20".to_owned(),
            norm: Norm::Linf,
            epsilon: 8.0 / 255.0,
            layout: ImageLayout::of(&[1, 4, 4]).unwrap(),
            clean,
            adversarial,
            bounds: Some((0.0, 1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{document, gated};
    use super::*;

    #[test]
    fn the_headline_says_the_outcome() {
        assert_eq!(
            document().headline(),
            "98.2 % right as they are, 42.2 % at ℓ∞ ε = 8/255 under attack"
        );
        assert_eq!(gated().headline(), "The gate failed: 1 of 2 checks");
        assert_eq!(Document::default().headline(), "Nothing was evaluated");
        assert!(document().is_untrustworthy());
    }

    #[test]
    fn every_sample_is_on_the_ladder_once() {
        let document = document();
        let rows = document.worst(Norm::Linf);
        let ladder = Ladder::new(&rows);
        // 450 samples, 442 right clean, 400 hold at the first radius and 190 at the second.
        let expected = Ladder {
            wrong: 8,
            broken: vec![42, 210],
            held: 190,
        };
        assert_eq!(ladder, expected);
        assert_eq!(Ladder::new(&[]).held, 0);
    }

    #[test]
    fn images_are_told_from_other_samples_by_their_shape() {
        let layout = |shape: &[usize]| {
            ImageLayout::of(shape).map(|l| (l.height, l.width, l.channels, l.planar))
        };
        assert_eq!(layout(&[28, 30]), Some((28, 30, 1, true)));
        assert_eq!(layout(&[3, 32, 31]), Some((32, 31, 3, true)));
        assert_eq!(layout(&[32, 31, 3]), Some((32, 31, 3, false)));
        for shape in [
            &[64][..],
            &[2, 8, 8],
            &[1, 1, 40],
            &[3, 2, 2],
            &[1, 3, 8, 8],
        ] {
            assert_eq!(layout(shape), None, "{shape:?}");
        }
    }
}
