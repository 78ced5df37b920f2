//! Why two evaluations cannot be compared.

use crate::threat::Norm;

/// Why two evaluations cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ComparisonError {
    /// One has no rows.
    #[error("{name} has no rows, so there is nothing to compare")]
    Empty {
        /// The evaluation.
        name: String,
    },
    /// Nothing in common.
    #[error(
        "{first} and {second} have no attack at the same norm and epsilon in common: the first has {first_cells}, the second {second_cells}; \
         evaluate both with the same --attack, --norm and --epsilon"
    )]
    NothingInCommon {
        /// The first evaluation.
        first: String,
        /// The second evaluation.
        second: String,
        /// What the first has.
        first_cells: String,
        /// What the second has.
        second_cells: String,
    },
    /// The baseline lacks an attack of the evaluation.
    #[error(
        "the baseline {name} has no {cell}, so there is nothing to compare it with; it has {cells}: evaluate with the same --attack, \
         --norm and --epsilon, or make the baseline anew"
    )]
    Missing {
        /// The baseline.
        name: String,
        /// The attack with its norm and radius.
        cell: String,
        /// What the baseline has.
        cells: String,
    },
    /// The baseline is about other samples.
    #[error(
        "the baseline {name} is about {count} samples from {first} to {last}, and this evaluation about {expected} from {expected_first} to \
         {expected_last}: evaluate with the same --data, --offset and --limit, or make the baseline anew"
    )]
    OtherRange {
        /// The baseline.
        name: String,
        /// How many samples it has.
        count: u64,
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
        /// How many samples the evaluation has.
        expected: u64,
        /// The first of them.
        expected_first: u64,
        /// The last of them.
        expected_last: u64,
    },
    /// A sample that only one of them has.
    #[error(
        "{first} and {second} are not about the same samples: sample {index} is only in {only} ({attack}, {norm}, epsilon {epsilon}); \
         evaluate both with the same --data, --offset and --limit"
    )]
    OtherSamples {
        /// The first evaluation.
        first: String,
        /// The second evaluation.
        second: String,
        /// The sample.
        index: u64,
        /// The evaluation that has it.
        only: String,
        /// The attack under which it is missing in the other.
        attack: String,
        /// The norm.
        norm: Norm,
        /// The radius.
        epsilon: f64,
    },
    /// A sample with two labels.
    #[error(
        "{first} and {second} are not about the same data: sample {index} has label {first_label} in the first and {second_label} in the \
         second"
    )]
    OtherLabels {
        /// The first evaluation.
        first: String,
        /// The second evaluation.
        second: String,
        /// The sample.
        index: u64,
        /// Its label in the first.
        first_label: u32,
        /// Its label in the second.
        second_label: u32,
    },
    /// A sample that is there twice.
    #[error("{name} has sample {index} twice under {attack}, norm {norm}, epsilon {epsilon}")]
    Repeated {
        /// The evaluation.
        name: String,
        /// The sample.
        index: u64,
        /// The attack.
        attack: String,
        /// The norm.
        norm: Norm,
        /// The radius.
        epsilon: f64,
    },
}
