//! The methods, one file each: what is run for one batch, and what the weights step on.
//!
//! A method says once which passes it needs ([`Method::needs`]) and then runs them batch by batch ([`Method::step`]).
//! Its inner maximisation is an attack of [`crate::attack`], whose step is part of the pass.
//! [`METHODS`] is the table that the command line and the documentation read.

mod fgm;
mod fgsm;
mod free;
mod freelb;
mod pgd;
mod standard;
mod trades;
mod yopo;

pub use fgm::Fgm;
pub use fgsm::Fgsm;
pub use free::Free;
pub use freelb::FreeLb;
pub use pgd::Pgd;
pub use standard::Standard;
pub use trades::Trades;
pub use yopo::Yopo;

use super::choice::{self, Choice, parse};
use super::engine::{Batch, Engine, Feed, Ran, column};
use super::optim::OPTIMIZERS;
use super::pass::PassSpec;
use super::schedule::SCHEDULES;
use super::start::Noise;
use super::{Error, Setting};
use crate::attack::{Attack, Parameter, Pgd as PgdAttack};
use crate::loss::Loss;
use crate::model::training::Trainable;
use crate::runtime::Value;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

/// An entry of [`METHODS`].
pub type MethodSpec = Choice<Arc<dyn Method>>;

/// Every method, in the order in which they are listed.
pub const METHODS: &[MethodSpec] = &[
    standard::SPEC,
    fgsm::SPEC,
    fgm::SPEC,
    pgd::SPEC,
    free::SPEC,
    yopo::SPEC,
    freelb::SPEC,
    trades::SPEC,
];

/// A method with its parameters set.
pub trait Method: fmt::Debug + Send + Sync {
    /// The name with every parameter that differs from its default, as [`method`] reads it.
    fn label(&self) -> String;

    /// Whether anything is perturbed, so that a radius is needed.
    fn perturbs(&self) -> bool {
        true
    }

    /// How many weight steps each batch gives; there are so many fewer epochs.
    fn replays(&self) -> u32 {
        1
    }

    /// By how much robust accuracy may fall from one epoch to the next until training stops at the weights before.
    fn guard(&self) -> Option<f64> {
        None
    }

    /// The inner tensors that the passes need beside the perturbed one.
    fn tensors(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the passes are, and where perturbations start.
    ///
    /// # Errors
    /// Where the method does not fit what is perturbed.
    fn needs(&self, setting: &Setting, trainable: &Trainable) -> Result<Needs, Error>;

    /// Trains on one batch.
    ///
    /// # Errors
    /// Where ONNX Runtime fails, or a loss is no number.
    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error>;
}

/// What a method needs before it starts.
#[derive(Debug)]
pub struct Needs {
    pub(super) noise: Noise,
    pub(super) passes: Vec<PassSpec>,
}

/// What training on a batch has shown.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// The sum of the samples' losses.
    pub loss: f64,
    /// How many samples as they are the model got right, where it was asked.
    pub clean: Option<u64>,
    /// How many perturbed samples the model got right, where it was asked.
    pub robust: Option<u64>,
}

/// Reads a method such as `pgd:steps=7`.
///
/// # Errors
/// Where the name, a parameter or a value is not known.
pub fn method(text: &str) -> Result<Arc<dyn Method>, choice::Error> {
    parse(METHODS, text)
}

/// The documentation of every method, optimizer and schedule, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("## Methods\n");
    for spec in METHODS {
        section(spec, &mut text);
    }
    text.push_str("\n## Optimizers\n");
    for spec in OPTIMIZERS {
        section(spec, &mut text);
    }
    text.push_str("\n## Schedules\n");
    for spec in SCHEDULES {
        section(spec, &mut text);
    }
    text
}

/// One entry's documentation.
fn section<T>(spec: &Choice<T>, text: &mut String) {
    let Choice {
        name,
        summary,
        what_it_does,
        reference,
        ..
    } = spec;
    let table = choice::parameter_table(spec.parameters);
    text.push_str(&format!(
        "\n### `{name}`\n\n{summary}.\n\n{what_it_does}\n\n{table}"
    ));
    if !reference.is_empty() {
        text.push_str(&format!("\n{reference}\n"));
    }
}

/// Which form the model has while it is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttackMode {
    /// As it will be shipped: running statistics, no dropout.
    #[default]
    Eval,
    /// As in a weight step: batch statistics and dropout.
    Train,
}

const ATTACK_MODE: Parameter = Parameter {
    name: "attack_mode",
    default: "eval",
    accepts: "eval or train",
    help: "Whether the model is attacked as it will be shipped, or with batch statistics and dropout.",
};

const fn steps(default: &'static str) -> Parameter {
    Parameter {
        name: "steps",
        default,
        accepts: "a whole number from 1 to 4294967295",
        help: "How many ascent steps each batch gets.",
    }
}

const fn step_size(default: &'static str) -> Parameter {
    Parameter {
        name: "step_size",
        default,
        accepts: "a number above 0, as a decimal or a fraction such as 2/255",
        help: "The length of an ascent step in the chosen norm.",
    }
}

const RANDOM_START: Parameter = Parameter {
    name: "random_start",
    default: "true",
    accepts: "true or false",
    help: "`false` starts at the clean sample.",
};

/// Refuses a step size that is none.
fn check_step_size<T>(spec: &Choice<T>, size: Option<f64>) -> Result<(), choice::Error> {
    match size {
        Some(size) => spec.require(size > 0.0 && size.is_finite(), "step_size", size),
        None => Ok(()),
    }
}

/// Ascent on the cross-entropy by the attack `pgd`.
fn ascent(steps: NonZeroU32, step_size: Option<f64>, random_start: bool) -> Arc<dyn Attack> {
    Arc::new(PgdAttack {
        steps,
        step_size,
        random_start,
        loss: Loss::CrossEntropy,
        ..PgdAttack::default()
    })
}

/// Runs an ascent pass again and again from the batch's first points; the last points.
fn ascend(
    engine: &mut Engine,
    pass: usize,
    batch: &Batch,
    steps: u32,
    size: f64,
    reference: Option<&Value>,
) -> Result<Option<Value>, Error> {
    let size = column(batch.rows, size)?;
    let mut point: Option<Value> = None;
    for _ in 0..steps {
        let feed = Feed {
            point: point.as_ref().or(batch.start.as_ref()),
            step_size: Some(&size),
            reference,
            ..Feed::default()
        };
        let next = engine.run(pass, batch, feed)?.point;
        point = next;
    }
    Ok(point)
}

/// The sum of a run's losses.
fn total_loss(ran: &Ran) -> Result<f64, Error> {
    Ok(ran.losses()?.iter().map(|&loss| f64::from(loss)).sum())
}

/// How many predictions are right.
fn right(ran: &Ran, batch: &Batch) -> Result<u64, Error> {
    let predictions = ran.predictions()?.iter().zip(batch.labels()?);
    let right = predictions
        .take(batch.counted)
        .filter(|(prediction, label)| prediction == label);
    Ok(right.count() as u64)
}
