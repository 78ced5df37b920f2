//! What an evaluation noticed about itself: how far its numbers can be trusted.

use super::{Norm, SummaryRow, WORST_CASE};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a [`Diagnostic`] is about. Its [id](DiagnosticKind::id) is a contract with whoever reads reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// Gradients are zero in every element, so that no step is made.
    ZeroGradients,
    /// Gradients are NaN or infinite.
    NonFiniteGradients,
    /// More samples stay robust in a larger ball than in a smaller one.
    RisesWithEpsilon,
    /// An attack of one step breaks more samples than one of many.
    SingleStepStronger,
    /// An attack without gradients breaks more samples than those that follow gradients.
    BlackBoxStronger,
    /// An attack along another model's gradients breaks more samples than those that follow the model's own.
    TransferStronger,
    /// More steps or restarts still break more samples.
    NotConverged,
    /// Samples stay robust where the ball holds every valid input.
    LargeEpsilonSurvivors,
    /// The loss at the end of an attack is not above the loss of the clean sample.
    FlatLoss,
    /// The model ends in probabilities.
    SoftmaxHead,
    /// The same sample gets another answer when the model is asked again.
    UnstableOutput,
    /// The confidence interval holds the threshold.
    TooFewSamples,
    /// All steps of an attack together do not cross the ball.
    ShortSteps,
    /// The model is right no more often than chance.
    NoBetterThanChance,
}

impl DiagnosticKind {
    /// Every kind.
    pub const ALL: [DiagnosticKind; 14] = [
        DiagnosticKind::ZeroGradients,
        DiagnosticKind::NonFiniteGradients,
        DiagnosticKind::RisesWithEpsilon,
        DiagnosticKind::SingleStepStronger,
        DiagnosticKind::BlackBoxStronger,
        DiagnosticKind::TransferStronger,
        DiagnosticKind::NotConverged,
        DiagnosticKind::LargeEpsilonSurvivors,
        DiagnosticKind::FlatLoss,
        DiagnosticKind::SoftmaxHead,
        DiagnosticKind::UnstableOutput,
        DiagnosticKind::TooFewSamples,
        DiagnosticKind::ShortSteps,
        DiagnosticKind::NoBetterThanChance,
    ];

    /// The stable name: lower case, words joined by hyphens.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            DiagnosticKind::ZeroGradients => "zero-gradients",
            DiagnosticKind::NonFiniteGradients => "non-finite-gradients",
            DiagnosticKind::RisesWithEpsilon => "rises-with-epsilon",
            DiagnosticKind::SingleStepStronger => "single-step-stronger",
            DiagnosticKind::BlackBoxStronger => "black-box-stronger",
            DiagnosticKind::TransferStronger => "transfer-stronger",
            DiagnosticKind::NotConverged => "not-converged",
            DiagnosticKind::LargeEpsilonSurvivors => "large-epsilon-survivors",
            DiagnosticKind::FlatLoss => "flat-loss",
            DiagnosticKind::SoftmaxHead => "softmax-head",
            DiagnosticKind::UnstableOutput => "unstable-output",
            DiagnosticKind::TooFewSamples => "too-few-samples",
            DiagnosticKind::ShortSteps => "short-steps",
            DiagnosticKind::NoBetterThanChance => "no-better-than-chance",
        }
    }

    /// A heading for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            DiagnosticKind::ZeroGradients => "Zero gradients",
            DiagnosticKind::NonFiniteGradients => "Gradients that are no numbers",
            DiagnosticKind::RisesWithEpsilon => "Robust accuracy rises with ε",
            DiagnosticKind::SingleStepStronger => "One step does better than many",
            DiagnosticKind::BlackBoxStronger => "Queries do better than gradients",
            DiagnosticKind::TransferStronger => "Another model's gradients do better",
            DiagnosticKind::NotConverged => "More steps still break more samples",
            DiagnosticKind::LargeEpsilonSurvivors => "Samples survive any perturbation",
            DiagnosticKind::FlatLoss => "The loss does not rise",
            DiagnosticKind::SoftmaxHead => "The model ends in Softmax",
            DiagnosticKind::UnstableOutput => "The model changes its answers",
            DiagnosticKind::TooFewSamples => "Too few samples for the threshold",
            DiagnosticKind::ShortSteps => "Steps too short to cross the ball",
            DiagnosticKind::NoBetterThanChance => "No better than guessing",
        }
    }
}

impl fmt::Display for DiagnosticKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// One thing that bears on how far the numbers of an evaluation can be trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// What it is about.
    pub kind: DiagnosticKind,
    /// The attack that it concerns, as in [`SummaryRow::attack`]; none where it concerns all of them.
    pub attack: Option<String>,
    /// The norm that it concerns; none where it concerns all of them.
    pub norm: Option<Norm>,
    /// The radii that it concerns, ascending; empty where it concerns all of them.
    pub epsilons: Vec<f64>,
    /// The figure that says how bad it is; `finding` says of what.
    pub figure: f64,
    /// What was seen, with the figure: a sentence without its full stop.
    pub finding: String,
    /// What to do about it: a sentence without its full stop.
    pub advice: String,
    /// Whether the numbers that it concerns cannot be trusted.
    pub untrustworthy: bool,
}

impl Diagnostic {
    /// Whether a row of the summary is among what the diagnostic concerns; of a row over all attacks, see [`mark_untrustworthy`].
    #[must_use]
    pub fn concerns(&self, row: &SummaryRow) -> bool {
        let attack = self.attack.as_ref();
        // A radius comes from one parsed ε wherever it stands, so the same number is the same bits.
        let at = |epsilon: &f64| epsilon.to_bits() == row.epsilon.to_bits();
        attack.is_none_or(|attack| *attack == row.attack)
            && self.norm.is_none_or(|norm| norm == row.norm)
            && (self.epsilons.is_empty() || self.epsilons.iter().any(at))
    }
}

impl fmt::Display for Diagnostic {
    /// `pgd: 12.5 % of … [zero-gradients]: try …`, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(attack) = &self.attack {
            write!(f, "{attack}: ")?;
        }
        write!(f, "{}; {} [{}]", self.finding, self.advice, self.kind)
    }
}

/// Writes into each row what makes its number untrustworthy.
///
/// A robust accuracy is an upper bound of the true one, and the row over all attacks is as good as the best of them: it is marked where
/// every attack of its norm and radius is, with what is wrong with any of them, or where a diagnostic concerns all attacks.
pub fn mark_untrustworthy(rows: &mut [SummaryRow], diagnostics: &[Diagnostic]) {
    let grave = || diagnostics.iter().filter(|found| found.untrustworthy);
    let attacks: Vec<(Norm, u64, Vec<&'static str>)> = rows
        .iter()
        .filter(|row| row.attack != WORST_CASE)
        .map(|row| {
            let kinds = grave().filter(|found| found.concerns(row));
            let ids = kinds.map(|found| found.kind.id()).collect();
            (row.norm, row.epsilon.to_bits(), ids)
        })
        .collect();
    for row in rows {
        let mut ids: Vec<&str> = grave()
            .filter(|found| found.concerns(row))
            .map(|found| found.kind.id())
            .collect();
        if row.attack == WORST_CASE {
            let same = || {
                attacks.iter().filter(|(norm, epsilon, _)| {
                    (*norm, *epsilon) == (row.norm, row.epsilon.to_bits())
                })
            };
            if same().all(|(_, _, ids)| !ids.is_empty()) {
                ids.extend(same().flat_map(|(_, _, ids)| ids));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        row.untrustworthy = ids.join(" ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(attack: &str, epsilon: f64) -> SummaryRow {
        SummaryRow {
            attack: attack.to_owned(),
            epsilon,
            ..SummaryRow::blank()
        }
    }

    fn found(kind: DiagnosticKind, attack: Option<&str>, epsilons: &[f64]) -> Diagnostic {
        Diagnostic {
            kind,
            attack: attack.map(str::to_owned),
            norm: None,
            epsilons: epsilons.to_vec(),
            figure: 0.5,
            finding: "half of it is wrong".to_owned(),
            advice: "mend it".to_owned(),
            untrustworthy: true,
        }
    }

    fn marks(diagnostics: &[Diagnostic]) -> Vec<String> {
        let mut rows = vec![
            row("fgsm", 0.1),
            row("pgd", 0.1),
            row("pgd", 0.2),
            row(WORST_CASE, 0.1),
            row(WORST_CASE, 0.2),
        ];
        mark_untrustworthy(&mut rows, diagnostics);
        rows.into_iter().map(|row| row.untrustworthy).collect()
    }

    #[test]
    fn ids_are_unique_and_what_serde_writes() {
        for (position, kind) in DiagnosticKind::ALL.into_iter().enumerate() {
            let earlier = &DiagnosticKind::ALL[..position];
            assert!(earlier.iter().all(|other| other.id() != kind.id()));
            let value = toml::Value::try_from(kind).unwrap();
            assert_eq!(value.as_str(), Some(kind.id()));
        }
    }

    #[test]
    fn a_row_is_marked_by_what_concerns_it_alone() {
        let pgd = found(DiagnosticKind::ZeroGradients, Some("pgd"), &[0.2]);
        assert_eq!(
            marks(std::slice::from_ref(&pgd)),
            ["", "", "zero-gradients", "", "zero-gradients"]
        );
        let harmless = Diagnostic {
            untrustworthy: false,
            ..pgd
        };
        assert_eq!(marks(&[harmless]), ["", "", "", "", ""]);
    }

    #[test]
    fn the_worst_case_is_as_good_as_the_best_attack() {
        let pgd = found(DiagnosticKind::ShortSteps, Some("pgd"), &[]);
        let fgsm = found(DiagnosticKind::FlatLoss, Some("fgsm"), &[]);
        assert_eq!(
            marks(&[pgd.clone(), fgsm])[3],
            "flat-loss short-steps",
            "both are wrong"
        );
        assert_eq!(marks(&[pgd])[3], "", "fgsm is fine");
        let all = found(DiagnosticKind::UnstableOutput, None, &[]);
        assert_eq!(marks(&[all]), ["unstable-output"; 5]);
    }

    #[test]
    fn a_diagnostic_reads_as_one_line() {
        let pgd = found(DiagnosticKind::ZeroGradients, Some("pgd"), &[]);
        assert_eq!(
            pgd.to_string(),
            "pgd: half of it is wrong; mend it [zero-gradients]"
        );
    }
}
