//! Attacks, as pure functions over arrays.
//!
//! An attack is two functions, `init` and `step` ([`Attack`]): it sees no model, no session, no batch and no loop.
//! The engine (`evaluate`) owns the loop; `model::program` fuses the step with the gradient graph.
//! An attack that needs no gradient is a search that asks about one point after the other ([`QueryAttack`]).
//! One file per attack; [`ATTACKS`] is the table that the command line, the documentation and the reports read.
//! What attacks have in common (directions, projections) is in [`geometry`].
//! Start at [`AttackPlan::parse`] for the attacks that a user asked for, at [`Attack`] to write one.

mod apgd;
pub mod array;
mod autoattack;
mod boundary;
mod crossing;
mod cw;
mod ddn;
mod deepfool;
mod error;
mod expectation;
mod fab;
mod fgm;
mod fgsm;
mod fmn;
pub mod geometry;
mod grid;
mod hopskipjump;
pub mod host;
#[cfg(test)]
mod linear;
mod mi_fgsm;
mod pgd;
mod plan;
#[cfg(test)]
mod plane;
mod query;
mod schedule;
mod spec;
mod square;
mod targeted;
mod transfer;

pub use crate::loss::Loss;
pub use apgd::Apgd;
pub use autoattack::{AutoAttack, Stage, Version};
pub use boundary::Boundary;
pub use cw::Cw;
pub use ddn::Ddn;
pub use deepfool::DeepFool;
pub use error::Error;
pub use fab::Fab;
pub use fgm::Fgm;
pub use fgsm::Fgsm;
pub use fmn::Fmn;
pub use hopskipjump::HopSkipJump;
pub use mi_fgsm::MiFgsm;
pub use pgd::Pgd;
pub(crate) use plan::read_value;
pub use plan::{AttackPlan, Planned};
pub use query::{Answer, QueryAttack, Scene, Search};
pub use spec::{AttackSpec, Parameter, markdown};
pub(crate) use spec::{did_you_mean, list, plain};
pub use square::Square;
pub use transfer::Transfer;
pub(crate) use transfer::with_sources_in;

use crate::threat::Norm;
use array::Array;
use std::{fmt, num::NonZeroU32, sync::Arc};

/// Every attack, in the order in which they are listed.
pub const ATTACKS: &[AttackSpec] = &[
    fgsm::SPEC,
    fgm::SPEC,
    pgd::SPEC,
    mi_fgsm::SPEC,
    apgd::SPEC,
    fab::SPEC,
    fmn::SPEC,
    ddn::SPEC,
    cw::SPEC,
    deepfool::SPEC,
    square::SPEC,
    hopskipjump::SPEC,
    boundary::SPEC,
    transfer::SPEC,
    autoattack::SPEC,
];

/// An attack with its parameters set: where to start, and how to get from one point to the next.
///
/// Both functions are pure, and treat every sample by itself: nothing that one sample gets may depend on another.
/// They only describe the computation on [`Array`] handles; what runs it, and on what, is not their concern.
pub trait Attack: fmt::Debug + Send + Sync {
    /// The name on the command line and in reports.
    fn name(&self) -> &'static str;

    /// The name with every parameter that differs from its default, as [`AttackPlan::parse`] reads it: `pgd:steps=20`.
    fn label(&self) -> String;

    /// Refuses parameters that make no sense, alone or together; attacks that [`AttackSpec::build`] made have passed.
    ///
    /// # Errors
    /// [`Error::Value`], which says what would be right.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// How many steps, each with one gradient evaluation, one restart takes; at least 1.
    fn steps(&self) -> u32;

    /// How many of the steps of a restart move the point: fewer where several gradients make one step.
    fn moves(&self) -> u32 {
        self.steps()
    }

    /// How often the attack is run on a sample that it has not broken yet; at least 1: once toward each target, unless they take turns.
    fn restarts(&self) -> u32 {
        if self.targets_in_turn() {
            1
        } else {
            targeted::runs(NonZeroU32::MIN, self.targets())
        }
    }

    /// Whether `init` is to be given noise.
    fn random_start(&self) -> bool {
        false
    }

    /// Whether `init` is to be given noise in this restart, counted from 0.
    fn starts_at_random(&self, _restart: u32) -> bool {
        self.random_start()
    }

    /// What the attack is after.
    fn goal(&self) -> Goal {
        Goal::Radius
    }

    /// How many classes the attack goes toward, in one restart after the other and then again from the first; 0 where it goes toward no class
    /// in particular.
    ///
    /// Target number i (counted from 0) is the class with the i-th largest score of the clean sample among all but the label's.
    /// Restarts toward a class that the model does not have are left out.
    fn targets(&self) -> u32 {
        0
    }

    /// Whether the target changes from one step to the next, instead of from one restart to the next.
    fn targets_in_turn(&self) -> bool {
        false
    }

    /// Whether a sample is done with its first misclassified point, in an attack that looks for the nearest one.
    fn ends_when_found(&self) -> bool {
        false
    }

    /// The attack as it is run on a model of so many classes, where that is not as it stands here.
    fn for_classes(&self, _classes: usize) -> Option<Arc<dyn Attack>> {
        None
    }

    /// The loss whose gradient the attack follows, upwards; with a target class, that class takes the place of all others.
    fn loss(&self) -> Loss;

    /// The loss for a model of so many classes: another one than [`Attack::loss`] where that is not defined for so few.
    fn loss_for(&self, classes: usize) -> Loss {
        targeted::loss_for(self.loss(), self.targets(), classes)
    }

    /// The length of a step where the ball's radius is `epsilon`.
    fn step_size(&self, epsilon: f64) -> f64;

    /// Refuses norms that the attack is not made for: ℓ0 unless an attack says otherwise.
    ///
    /// # Errors
    /// [`Error::Norm`], which says what to use instead.
    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        match norm {
            Norm::Linf | Norm::L2 | Norm::L1 => Ok(()),
            Norm::L0 => Err(Error::Norm {
                attack: self.name(),
                norm,
                remedy: "use fmn",
            }),
        }
    }

    /// The arrays that the attack keeps between steps, in the order in which `init`, `step` and [`Next`] have them.
    fn state(&self) -> &'static [StateArray] {
        &[]
    }

    /// The first point and the first state.
    ///
    /// `noise` is a point of the ball of radius 1 for each sample ([`Norm::draw`]), and there where [`Attack::random_start`] says so.
    fn init<'a>(&self, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a>;

    /// The point and the state after the model was evaluated at `pass.point`.
    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a>;
}

/// What an attack is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Goal {
    /// A misclassified point within a radius: it is run for each radius, and ends with the first such point.
    #[default]
    Radius,
    /// The nearest misclassified point: it is run once for each sample, through every restart, and what it finds counts at each radius that
    /// is at least as large as the distance. [`Context::epsilon`] is the largest radius, or the smallest distance found so far.
    MinimumNorm,
}

/// What a step may look at beside the attack's own state. All arrays are per slot.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The norm of the threat model.
    pub norm: Norm,
    /// The clean sample, `[n, d]`, within the bounds.
    pub clean: Array<'a>,
    /// The smallest valid value (−∞ where there is none).
    pub low: Array<'a>,
    /// The largest valid value (+∞ where there is none).
    pub high: Array<'a>,
    /// The radius of the ball, `[n, 1]`.
    pub epsilon: Array<'a>,
    /// The length of a step, `[n, 1]`.
    pub step_size: Array<'a>,
}

/// What one pass of the model at the current point has shown.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// The point at which the model was evaluated, `[n, d]`.
    pub point: Array<'a>,
    /// The gradient of the sample's loss there, `[n, d]`.
    pub gradient: Array<'a>,
    /// The sample's loss there, `[n, 1]`.
    pub loss: Array<'a>,
    /// Not 0 where the model misclassifies the point, `[n, 1]`.
    pub adversarial: Array<'a>,
}

/// One array of an attack's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateArray {
    /// Its name, unique within the attack.
    pub name: &'static str,
    /// What it has a number for.
    pub extent: Extent,
}

/// What an array has a number for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Each element of each sample: `[n, d]`.
    Element,
    /// Each sample: `[n, 1]`.
    Sample,
}

/// Where an attack starts.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The first point, `[n, d]`, in the ball and the bounds.
    pub point: Array<'a>,
    /// The first state, one array for each of [`Attack::state`].
    pub state: Vec<Array<'a>>,
}

/// Where an attack goes next.
#[derive(Debug, Clone)]
pub struct Next<'a> {
    /// The next point, `[n, d]`, in the ball and the bounds.
    pub point: Array<'a>,
    /// The next state, one array for each of [`Attack::state`].
    pub state: Vec<Array<'a>>,
}

#[cfg(test)]
mod tests {
    use super::spec::REQUIRED;
    use super::*;

    /// An attack file that nobody lists is found by the compiler (dead code); one that is no module at all is found here.
    #[test]
    fn every_listed_name_is_unique_and_built_by_its_own_entry() {
        for (position, spec) in ATTACKS.iter().enumerate() {
            assert!(
                ATTACKS[..position]
                    .iter()
                    .all(|other| other.name != spec.name)
            );
            let required = spec.parameters.iter().filter(|p| p.default == REQUIRED);
            let given: toml::Table = required
                .map(|parameter| (parameter.name.to_owned(), "given".into()))
                .collect();
            let parameters: Vec<String> = given.keys().map(|key| format!("{key}=given")).collect();
            let attack = (spec.build)(given).unwrap();
            assert_eq!(attack.name(), spec.name);
            let separator = if parameters.is_empty() { "" } else { ":" };
            let label = format!("{}{separator}{}", spec.name, parameters.join(","));
            assert_eq!(attack.label(), label);
        }
    }

    #[test]
    fn loss_names_are_those_that_parameters_take() {
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dlr] {
            let value = toml::Value::try_from(loss).unwrap();
            assert_eq!(value.as_str(), Some(loss.name()));
        }
    }
}
