//! The records that an evaluation produces: what `samples.csv` and `summary.csv` hold.
//!
//! Plain data, and the arithmetic that turns [`SampleOutcome`]s into [`SummaryRow`]s: start at [`Accumulator`].
//! Knows nothing of models, tensors or files.
//!
//! The fields are a contract with whoever reads the files: in a minor version of mohs one may be added at the end; one that is
//! renamed, removed or given another meaning needs a major version.

mod accumulator;
mod comparison;
mod diagnostic;
mod error;
mod minimal;
mod paired;
mod provenance;
mod sample_set;
mod statistics;
mod verdict;

pub use crate::threat::{Epsilon, Norm};
pub use accumulator::{Accumulator, Run, WORST_CASE};
pub use comparison::{ChangeRow, Comparison, ComparisonError, ComparisonRow, Pairing, Sheet, Side};
pub use diagnostic::{Diagnostic, DiagnosticKind, mark_untrustworthy};
pub use error::SummaryError;
pub use minimal::{MinimalRow, quantile};
pub use paired::Discordance;
pub use provenance::{AttackRecord, FileRecord, Provenance, timestamp};
use serde::{Deserialize, Serialize};
pub use statistics::{Interval, clopper_pearson, p_value_text};
pub use verdict::{Check, CheckKind, Estimate, Sense, Verdict};

/// One row of `samples.csv`: what one attack at one ε did to one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleOutcome {
    /// The sample's position in the data set, from 0.
    pub index: u64,
    /// The class that the data set gives.
    pub label: u32,
    /// The class that the original model gives to the clean sample.
    pub clean_prediction: u32,
    /// The attack's name with its parameters, as in the summary.
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius of the ball, in the units of the data.
    pub epsilon: f64,
    /// The class that the original model gives to the reported point (the clean sample where nothing was attacked).
    pub adversarial_prediction: u32,
    /// Whether the sample is right clean and no point that the attack found is misclassified.
    pub robust: bool,
    /// The cross-entropy of the clean sample.
    pub clean_loss: f64,
    /// The cross-entropy of the reported point.
    pub loss: f64,
    /// The ℓ∞ norm of the reported perturbation.
    pub linf: f64,
    /// Its ℓ2 norm.
    pub l2: f64,
    /// Its ℓ1 norm.
    pub l1: f64,
    /// How many elements it changes.
    pub l0: f64,
    /// Gradient evaluations spent on this row (points that the model was asked about, for an attack without gradients): 0 where the sample was wrong clean, or already broken at a smaller ε.
    pub steps: u64,
    /// The restart, from 0, that found the reported point.
    pub restart: u32,
}

/// One row of `summary.csv`: one attack at one ε over all samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// The model's file name.
    pub model: String,
    /// The attack's name with its parameters; `worst-case` for the row over all attacks.
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius of the ball, in the units of the data.
    pub epsilon: f64,
    /// Steps per restart; in a `worst-case` row, added up over the attacks.
    pub steps: u32,
    /// Restarts per sample; in a `worst-case` row, added up over the attacks.
    pub restarts: u32,
    /// The number of samples.
    pub samples: u64,
    /// The share of samples that the model gets right clean; NaN (an empty field) where there are no samples.
    pub clean_accuracy: f64,
    /// The share of samples that are right clean and that no attack broke.
    pub robust_accuracy: f64,
    /// Lower end of the 95 % Clopper-Pearson interval of the robust accuracy.
    pub robust_accuracy_low: f64,
    /// Upper end of that interval.
    pub robust_accuracy_high: f64,
    /// Broken samples as a share of those right clean; NaN (an empty field) where none is right.
    pub attack_success_rate: f64,
    /// Mean ℓ∞ norm of the perturbations of the broken samples; NaN (an empty field) where none is broken.
    pub mean_linf: f64,
    /// Mean ℓ2 norm of them.
    pub mean_l2: f64,
    /// Gradient evaluations, one per sample and step.
    pub gradient_evaluations: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The [ids](DiagnosticKind::id) of what makes the row's robust accuracy untrustworthy, separated by spaces; empty where it can be
    /// trusted.
    #[serde(default)]
    pub untrustworthy: String,
}

impl SummaryRow {
    /// A row of nothing, to fill in.
    #[cfg(test)]
    pub(crate) fn blank() -> Self {
        SummaryRow {
            model: String::new(),
            attack: String::new(),
            norm: Norm::Linf,
            epsilon: 0.1,
            steps: 1,
            restarts: 1,
            samples: 0,
            clean_accuracy: f64::NAN,
            robust_accuracy: f64::NAN,
            robust_accuracy_low: f64::NAN,
            robust_accuracy_high: f64::NAN,
            attack_success_rate: f64::NAN,
            mean_linf: f64::NAN,
            mean_l2: f64::NAN,
            gradient_evaluations: 0,
            seconds: 0.0,
            untrustworthy: String::new(),
        }
    }
}

/// The rows of `summary.csv`, and ε as the user wrote it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// One row per attack × ε, then the `worst-case` rows.
    pub rows: Vec<SummaryRow>,
    /// The radii as they were asked for; may be empty, as it is for rows that were read from a file.
    pub epsilons: Vec<Epsilon>,
}

impl Summary {
    /// A short spelling of a row's ε: the user's own where it is known.
    #[must_use]
    pub fn epsilon_text(&self, value: f64) -> String {
        #[expect(
            clippy::float_cmp,
            reason = "a row carries the very number that was parsed"
        )]
        let asked = self
            .epsilons
            .iter()
            .find(|epsilon| epsilon.value() == value);
        match asked {
            Some(epsilon) => epsilon.text().to_owned(),
            None => Epsilon::try_from(value)
                .map_or_else(|_| value.to_string(), |epsilon| epsilon.text().to_owned()),
        }
    }
}
