//! The job: how robust is this model on these samples?
//!
//! [`evaluate`] checks the data, judges every sample clean, and lets the engine run each attack; what it finds goes to an [`Observer`], sample by
//! sample, and into the rows of a summary.
//! It writes no file and draws no bar.

mod chain;
mod engine;
mod ledger;
mod queries;
mod source;

use crate::attack::{self, Attack, AttackPlan, Planned, QueryAttack};
use crate::data::{self, Dataset};
use crate::model::{self, GradientGraph, Model};
use crate::outcome::{Accumulator, Run, SampleOutcome, SummaryError, SummaryRow};
use crate::threat::{Bounds, Norm, Precision};
use source::Source;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Why an evaluation could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model is at fault, or ONNX Runtime.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The data are at fault.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The attacks do not fit what was asked.
    #[error(transparent)]
    Attack(#[from] attack::Error),
    /// What was asked makes no sense together.
    #[error("{0}")]
    Config(String),
    /// An attack follows gradients, and the model has none.
    #[error("{source}\n`{attack}` follows gradients; attack this model with {remedy}")]
    NoGradient {
        /// The attack.
        attack: &'static str,
        /// Attacks that work.
        remedy: &'static str,
        /// Why there are no gradients.
        #[source]
        source: model::Error,
    },
    /// The gradient of a sample is not a number.
    #[error(
        "the gradient of sample {index} is not finite after {steps} steps of {attack}: robustness measured with it would be no robustness; \
         look for a logarithm, a root or a division at 0 in the model"
    )]
    NotFinite {
        /// The sample.
        index: u64,
        /// The attack.
        attack: String,
        /// The steps done before.
        steps: u32,
    },
    /// A score of a sample is not a number.
    #[error(
        "the model gives NaN for class {class} of sample {index}{}: a model that gives no number has no robustness there; \
         look for a logarithm, a root or a division at 0 in it, and for data out of its range",
        .attack.as_ref().map(|attack| format!(" under {attack}")).unwrap_or_default()
    )]
    ScoreNotANumber {
        /// The sample.
        index: u64,
        /// The class.
        class: usize,
        /// The attack; none where the sample is as it was.
        attack: Option<String>,
    },
    /// The summary could not be added up.
    #[error(transparent)]
    Summary(#[from] SummaryError),
    /// The observer failed.
    #[error("{0}")]
    Observer(#[source] ObserverError),
}

/// What an [`Observer`] may fail with.
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

/// Which points of an attack are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Every point: a sample is broken as soon as any point in the ball is misclassified.
    #[default]
    Any,
    /// The last point of each restart, as torchattacks and Foolbox do.
    Last,
}

/// What is asked of an evaluation.
#[derive(Debug, Clone)]
pub struct Config {
    /// The attacks.
    pub attacks: AttackPlan,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radii, in the units of the data: positive, in ascending order, none twice.
    pub epsilons: Vec<f64>,
    /// The valid inputs.
    pub bounds: Bounds,
    /// Which points are judged.
    pub keep: Keep,
    /// The seed of everything random.
    pub seed: u64,
    /// Samples that are attacked at once; by the size of a sample where it is not given.
    pub batch_size: Option<usize>,
    /// Whether a final softmax is differentiated through.
    pub keep_softmax: bool,
}

impl Config {
    /// These attacks at these radii (in ascending order), and otherwise what the command line does unasked: ℓ∞, values in [0, 1], every
    /// point counts, seed 0.
    #[must_use]
    pub fn new(attacks: AttackPlan, epsilons: Vec<f64>) -> Self {
        Config {
            attacks,
            norm: Norm::Linf,
            epsilons,
            bounds: Bounds::UNIT,
            keep: Keep::Any,
            seed: 0,
            batch_size: None,
            keep_softmax: false,
        }
    }
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Samples that an attack is done with, over all attacks.
    pub done: u64,
    /// Samples times attacks.
    pub total: u64,
    /// Samples that an attack has broken, over all attacks.
    pub broken: u64,
    /// Gradient evaluations so far.
    pub gradients: u64,
}

/// A point that breaks a sample.
#[derive(Debug, Clone, Copy)]
pub struct Adversarial<'a> {
    /// The sample's position in the data set.
    pub index: u64,
    /// Its label.
    pub label: u32,
    /// The class that the model gives to the point.
    pub prediction: u32,
    /// The attack that found it.
    pub attack: &'a str,
    /// The radius at which it was found.
    pub epsilon: f64,
    /// The point, in the units of the data.
    pub point: &'a [f32],
}

/// Follows an evaluation.
pub trait Observer {
    /// One sample is done under one attack at one ε; attack by attack, sample by sample in the order of the data, ε ascending.
    ///
    /// # Errors
    /// Ends the evaluation.
    fn outcome(&mut self, outcome: &SampleOutcome) -> Result<(), ObserverError>;

    /// An adversarial example was found and judged; in the order in which they are found.
    ///
    /// # Errors
    /// Ends the evaluation.
    fn adversarial(&mut self, adversarial: &Adversarial<'_>) -> Result<(), ObserverError> {
        let _ = adversarial;
        Ok(())
    }

    /// Something has moved.
    fn progress(&mut self, progress: Progress) {
        let _ = progress;
    }
}

/// An observer that looks away.
impl Observer for () {
    fn outcome(&mut self, _: &SampleOutcome) -> Result<(), ObserverError> {
        Ok(())
    }
}

/// What an evaluation found.
#[derive(Debug, Clone)]
pub struct Report {
    /// One row per attack and ε, and one over all attacks per ε.
    pub summary: Vec<SummaryRow>,
    /// What makes the numbers doubtful, in sentences.
    pub warnings: Vec<String>,
    /// What was decided, in sentences.
    pub notes: Vec<String>,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Wall-clock seconds before the first sample is judged and the first step done: the data checked, gradients derived, sessions loaded.
    pub setup_seconds: f64,
    /// Wall-clock seconds inside the runs of ONNX Runtime's sessions.
    pub runtime_seconds: f64,
}

/// The clean verdict of one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clean {
    prediction: u32,
    loss: f64,
}

/// Evaluates a model on a data set whose samples have the model's shape.
///
/// `gradient` is a gradient graph made elsewhere; without one, mohs derives it.
///
/// # Errors
/// Where data, model and attacks do not fit each other (before anything runs), or where ONNX Runtime or the observer fails.
pub fn evaluate(
    model: &Model,
    data: &Dataset,
    config: &Config,
    gradient: Option<&GradientGraph>,
    observer: &mut dyn Observer,
) -> Result<Report, Error> {
    let start = Instant::now();
    check(model, data, config)?;
    let mut gradients = Gradients::new(model, gradient, config);
    for attack in config.attacks.attacks() {
        match attack {
            Planned::Gradient(attack) => drop(gradients.get(attack.as_ref())?),
            Planned::Query(attack) => check_query(model, attack.as_ref())?,
        }
    }
    let device_notes = gradients.check_device(data, config.bounds)?;
    let mut judge = model.judge()?;
    let mut setup_seconds = start.elapsed().as_secs_f64();
    let batch_size = config
        .batch_size
        .unwrap_or_else(|| default_batch(data.sample_len()));
    let (clean, mut runtime_seconds) = judge_clean(&mut judge, model, data, config.bounds)?;
    let runs = config.attacks.attacks().iter().flat_map(|attack| {
        config
            .epsilons
            .iter()
            .map(|&epsilon| run_of(attack, config.norm, epsilon))
    });
    let name = model
        .path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut accumulator = Accumulator::new(name, runs.collect())?;
    let mut warnings = Vec::new();
    let mut progress = Progress {
        total: data.len() * config.attacks.attacks().len() as u64,
        ..Progress::default()
    };
    for attack in config.attacks.attacks() {
        let job = engine::Job {
            model,
            data,
            config,
            attack,
            clean: &clean,
            slots: batch_size,
        };
        let ran = match attack {
            Planned::Gradient(attack) => engine::run(
                &job.of(attack.as_ref()),
                gradients.get(attack.as_ref())?,
                &mut judge,
                &mut accumulator,
                &mut progress,
                observer,
            )?,
            Planned::Query(attack) => queries::run(
                &job.of(attack.as_ref()),
                &mut judge,
                &mut accumulator,
                &mut progress,
                observer,
            )?,
        };
        runtime_seconds += ran.runtime_seconds;
        setup_seconds += ran.setup_seconds;
        warnings.extend(ran.warnings);
    }
    let mut notes = gradients.notes();
    notes.extend(model.search_note());
    notes.extend(device_notes);
    if model.precision() != Precision::Single {
        notes.push(format!(
            "the model takes {}: samples are rounded to it, and distances count from there",
            model.input_dtype()
        ));
    }
    let summary = accumulator.finish()?;
    Ok(Report {
        summary,
        warnings,
        notes,
        seconds: start.elapsed().as_secs_f64(),
        setup_seconds,
        runtime_seconds,
    })
}

/// Everything that can be refused before anything runs.
fn check(model: &Model, data: &Dataset, config: &Config) -> Result<(), Error> {
    let ascending = config
        .epsilons
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a < b));
    let valid = config
        .epsilons
        .iter()
        .all(|epsilon| epsilon.is_finite() && *epsilon > 0.0);
    if config.epsilons.is_empty() || !ascending || !valid {
        return Err(Error::Config(
            "ε has to be positive and finite, in ascending order, none twice".into(),
        ));
    }
    config.attacks.check_norm(config.norm)?;
    if config.batch_size == Some(0) {
        return Err(Error::Config("--batch-size has to be at least 1".into()));
    }
    if data.sample_shape() != model.data_shape() {
        return Err(Error::Config(format!(
            "the samples have shape {:?} and the model takes {:?}",
            data.sample_shape(),
            model.data_shape()
        )));
    }
    if let Some(others) = model.other_inputs() {
        return Err(Error::Config(format!(
            "the model has further inputs ({others}), and the data set has nothing for them"
        )));
    }
    let classes = model
        .classes()
        .map(|classes| u32::try_from(classes).unwrap_or(u32::MAX));
    if model.is_cut() && config.bounds != Bounds::NONE {
        return Err(Error::Config(
            "an inner tensor has no bounds; perturb it with --bounds none".into(),
        ));
    }
    data.validate(classes, (config.bounds.low, config.bounds.high))?;
    Ok(())
}

/// A batch that keeps the device busy and fits its memory: large for small samples.
fn default_batch(width: usize) -> usize {
    (1_000_000 / width.max(1))
        .clamp(16, 256)
        .next_power_of_two()
        .min(256)
}

fn run_of(attack: &Planned, norm: Norm, epsilon: f64) -> Run {
    Run {
        attack: attack.label(),
        norm,
        epsilon,
        steps: attack.steps(),
        restarts: attack.restarts(),
        gradients: attack.gradient().is_some(),
    }
}

/// Refuses an attack that looks at scores where there are none.
fn check_query(model: &Model, attack: &dyn QueryAttack) -> Result<(), Error> {
    if attack.needs_scores() && model.classes().is_none() {
        return Err(Error::Config(format!(
            "`{}` goes by scores, and the model's output `{}` has labels alone; use hopskipjump, which needs no more than that",
            attack.name(),
            model.output()
        )));
    }
    Ok(())
}

/// Judges every sample as it is; also the seconds that ONNX Runtime took.
fn judge_clean(
    judge: &mut model::Judge,
    model: &Model,
    data: &Dataset,
    bounds: Bounds,
) -> Result<(Vec<Clean>, f64), Error> {
    let mut clean = Vec::new();
    let mut seconds = 0.0;
    let mut source = Source::new(model, data, bounds)?;
    while let Some(block) = source.block()? {
        let before = Instant::now();
        let verdicts = judge
            .judge(block.points, block.data, block.labels)
            .map_err(|error| located(error, None, |row| block.indices.get(row).copied()))?;
        seconds += before.elapsed().as_secs_f64();
        clean.extend(verdicts.into_iter().map(|verdict| Clean {
            prediction: verdict.prediction,
            loss: verdict.loss,
        }));
    }
    Ok((clean, seconds))
}

/// The sample in the place of its row among those that were judged together.
fn located(
    error: model::Error,
    attack: Option<String>,
    index: impl Fn(usize) -> Option<u64>,
) -> Error {
    match error {
        model::Error::NotANumber { row, class } => match index(row) {
            Some(index) => Error::ScoreNotANumber {
                index,
                class,
                attack,
            },
            None => Error::Model(error),
        },
        error => Error::Model(error),
    }
}

/// The gradient graphs, one per loss, derived when first asked for.
struct Gradients<'a> {
    model: &'a Model,
    given: Option<&'a GradientGraph>,
    keep_softmax: bool,
    derived: HashMap<attack::Loss, Arc<GradientGraph>>,
}

impl<'a> Gradients<'a> {
    fn new(model: &'a Model, given: Option<&'a GradientGraph>, config: &Config) -> Self {
        Gradients {
            model,
            given,
            keep_softmax: config.keep_softmax,
            derived: HashMap::new(),
        }
    }

    fn get(&mut self, attack: &dyn Attack) -> Result<Arc<GradientGraph>, Error> {
        let loss = attack.loss();
        if let Some(found) = self.derived.get(&loss) {
            return Ok(Arc::clone(found));
        }
        let graph = match self.given {
            Some(given) => {
                given.check_loss(loss)?;
                self.model.lowered(given.clone())
            }
            None => self.derive(attack)?,
        };
        Ok(Arc::clone(
            self.derived.entry(loss).or_insert(Arc::new(graph)),
        ))
    }

    /// Derives a graph; where there is none, says which attacks need none.
    fn derive(&self, attack: &dyn Attack) -> Result<GradientGraph, Error> {
        let derived = self.model.search_gradient(&model::GradientOptions {
            scale_seed: false,
            loss: attack.loss(),
            wrt: Vec::new(),
            keep_softmax: self.keep_softmax,
        });
        let scores = self.model.classes().is_some();
        derived.map_err(|source| match source {
            model::Error::Gradient(_) if scores => Error::NoGradient {
                attack: attack.name(),
                remedy: "square, which goes by the scores alone, or hopskipjump, which goes by the labels",
                source,
            },
            _ if !scores => Error::NoGradient {
                attack: attack.name(),
                remedy: "hopskipjump, which goes by the labels alone",
                source,
            },
            source => Error::Model(source),
        })
    }

    /// Holds the device to the CPU's gradients of the first samples; what was found.
    fn check_device(&self, data: &Dataset, bounds: Bounds) -> Result<Vec<String>, Error> {
        let mut source = Source::new(self.model, data, bounds)?;
        let Some(block) = source.block()? else {
            return Ok(Vec::new());
        };
        let mut notes = Vec::new();
        for loss in attack::Loss::ALL {
            if let Some(graph) = self.derived.get(&loss) {
                let found =
                    self.model
                        .check_device(graph, block.points, block.data, block.labels)?;
                notes.extend(found);
            }
        }
        Ok(notes)
    }

    fn notes(&self) -> Vec<String> {
        let removed = self.derived.values().any(|graph| graph.softmax_removed);
        let note = "the model ends in Softmax: gradients are taken from the logits below it (--keep-softmax keeps it)";
        if removed {
            vec![note.to_owned()]
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_come_in_large_batches() {
        assert_eq!(default_batch(64), 256);
        assert_eq!(default_batch(3 * 224 * 224), 16);
    }
}
