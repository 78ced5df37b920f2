//! Why outcomes do not add up.

use super::{Norm, Run, WORST_CASE};

/// Why outcomes do not add up to a summary.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SummaryError {
    /// An attack has the name of the row over all attacks.
    #[error("an attack cannot be named `{WORST_CASE}`: that is the row over all attacks")]
    ReservedName,
    /// The same attack, norm and ε twice.
    #[error("attack `{}` with norm {} and epsilon {} is asked for twice; give it once", .0.attack, .0.norm, .0.epsilon)]
    RepeatedRun(Box<Run>),
    /// An outcome of a run that was not announced.
    #[error(
        "an outcome of attack `{attack}` with norm {norm} and epsilon {epsilon} belongs to no run of this evaluation"
    )]
    UnknownRun {
        /// The outcome's attack.
        attack: String,
        /// Its norm.
        norm: Norm,
        /// Its radius.
        epsilon: f64,
    },
    /// A sample that is wrong clean cannot be robust.
    #[error(
        "sample {index} is called robust under attack `{attack}`, yet its clean prediction is wrong"
    )]
    RobustButWrong {
        /// The sample's position in the data set.
        index: u64,
        /// The attack.
        attack: String,
    },
    /// Two attacks that did not see the same samples.
    #[error(
        "attacks `{first}` and `{second}` at epsilon {epsilon} did not see the same samples, so they have no common worst case"
    )]
    UnequalRuns {
        /// The first attack.
        first: String,
        /// The attack that differs from it.
        second: String,
        /// The radius.
        epsilon: f64,
    },
}
