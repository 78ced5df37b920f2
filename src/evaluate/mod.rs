//! The job: how robust is this model on these samples?
//!
//! [`evaluate`] checks the data, judges every sample clean, and lets the engine run each attack; what it finds goes to an [`Observer`], sample by
//! sample, and into the rows of a summary.
//! It writes no file and draws no bar.

mod batch;
mod chain;
mod crew;
mod diagnose;
mod engine;
mod ensemble;
mod ledger;
mod minimal;
mod queries;
mod source;
mod transfer;

use crate::attack::{self, Attack, AttackPlan, Planned, QueryAttack};
use crate::data::{self, Dataset};
use crate::model::{self, GradientGraph, Model};
use crate::outcome::{
    Accumulator, Diagnostic, FileRecord, Run, SampleOutcome, SummaryError, SummaryRow,
    mark_untrustworthy,
};
use crate::threat::{Bounds, Norm, Precision};
use diagnose::{Kinds, Tally, Trial};
use engine::{Bench, Job};
pub use minimal::minimal_epsilon;
use source::Source;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use transfer::Sources;

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
    /// The model whose gradients `transfer` follows is at fault.
    #[error("the source {}: {source}", .path.display())]
    Source {
        /// Its file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<Error>,
    },
    /// The model whose gradients `transfer` follows has none.
    #[error(
        "the source {}: {source}\n`transfer` follows the gradients of its source; give one that can be differentiated",
        .path.display()
    )]
    NoSourceGradient {
        /// Its file.
        path: PathBuf,
        /// Why there are no gradients.
        #[source]
        source: model::Error,
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
    /// Samples that are attacked at once; where it is not given, by the size of a sample on the CPU, and measured on other devices.
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
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius at which it was found.
    pub epsilon: f64,
    /// The point, in the units of the data.
    pub point: &'a [f32],
}

/// Follows an evaluation; told by one thread at a time, not always the same.
pub trait Observer: Send {
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
    /// What bears on how far the numbers can be trusted.
    pub diagnostics: Vec<Diagnostic>,
    /// What was decided, in sentences.
    pub notes: Vec<String>,
    /// The other models whose gradients attacks followed.
    pub sources: Vec<FileRecord>,
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

/// The clean verdicts on all samples, in order.
struct CleanVerdicts {
    verdicts: Vec<Clean>,
    /// How many classes are kept of each sample.
    targets: usize,
    /// Of each sample, the classes with the largest scores but the label's, largest first.
    rivals: Vec<u32>,
}

impl CleanVerdicts {
    /// What the model says of the sample at this position, and which classes it would say next.
    fn get(&self, position: usize) -> Option<(Clean, &[u32])> {
        let rivals = position * self.targets..(position + 1) * self.targets;
        Some((*self.verdicts.get(position)?, self.rivals.get(rivals)?))
    }
}

/// The classes with the largest of `scores` but the label's, largest first, the first class first on ties.
fn rivals(scores: &[f32], label: u32, count: usize) -> Vec<u32> {
    let mut classes: Vec<u32> = (0..).take(scores.len()).filter(|&c| c != label).collect();
    let score = |class: u32| scores.get(class as usize).copied().unwrap_or(f32::NAN);
    classes.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    classes.truncate(count);
    classes
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
    let sources = Sources::open(model, data, &config.attacks)?;
    let mut followed = sources.differentiate(config)?;
    let mut gradients = Gradients::new(model, gradient, config);
    for attack in config.attacks.parts(config.norm) {
        match attack {
            Planned::Gradient(attack) => drop(gradients.get(attack.as_ref())?),
            Planned::Query(attack) => check_query(model, attack.as_ref())?,
            Planned::Ensemble(_) | Planned::Transfer(_) => {}
        }
    }
    let device_notes = gradients.check_device(data, config.bounds)?;
    let (batch_size, batch_note) = batch::size(model, config, &mut gradients, data.len())?;
    let mut judge = model.judge()?;
    let mut setup_seconds = start.elapsed().as_secs_f64();
    let targets = rival_count(config);
    let (clean, mut runtime_seconds) =
        judge_clean(&mut judge, model, data, config.bounds, targets)?;
    let runs = config.attacks.attacks().iter().flat_map(|attack| {
        config
            .epsilons
            .iter()
            .map(|&epsilon| run_of(attack, config.norm, epsilon))
    });
    let mut accumulator = Accumulator::new(file_name(model), runs.collect())?;
    let (mut diagnostics, mut notes) = (Vec::new(), sources.notes(model));
    let mut progress = Progress {
        total: data.len() * config.attacks.attacks().len() as u64,
        ..Progress::default()
    };
    let bench = &mut Bench {
        judge: &mut judge,
        accumulator: &mut accumulator,
        progress: &mut progress,
        observer,
    };
    for attack in config.attacks.attacks() {
        let job = Job::new(model, data, config, attack, &clean, batch_size);
        let ran = match attack {
            Planned::Gradient(attack) => {
                let gradient = gradients.get(attack.as_ref())?;
                engine::run(&job.of(attack.as_ref()), gradient, bench)?
            }
            Planned::Query(attack) => queries::run(&job.of(attack.as_ref()), bench)?,
            Planned::Ensemble(attack) => {
                ensemble::run(&job.of(attack.as_ref()), &mut gradients, bench)?
            }
            Planned::Transfer(attack) => {
                let job = job.of(attack.as_ref());
                transfer::find(&mut followed, attack)?.run(&job, bench)?
            }
        };
        runtime_seconds += ran.runtime_seconds;
        setup_seconds += ran.setup_seconds;
        notes.extend(ran.notes);
        diagnostics.extend(tried(attack, model, data, config, &ran.tallies));
    }
    let watched = Watched {
        model,
        data,
        config,
        clean: &clean,
        slots: batch_size,
    };
    diagnostics.extend(watched.diagnose(&mut gradients, &mut judge)?);
    notes.extend(model.search_note());
    notes.extend(device_notes);
    notes.extend(batch_note);
    if model.precision() != Precision::Single {
        notes.push(format!(
            "the model takes {}: samples are rounded to it, and distances count from there",
            model.input_dtype()
        ));
    }
    let mut summary = accumulator.finish()?;
    diagnostics.extend(diagnose::of_rows(&summary, &kinds(config), model.classes()));
    mark_untrustworthy(&mut summary, &diagnostics);
    Ok(Report {
        summary,
        diagnostics,
        notes,
        sources: sources.records(),
        seconds: start.elapsed().as_secs_f64(),
        setup_seconds,
        runtime_seconds,
    })
}

/// What the counts of an attack say of it, where it follows gradients.
fn tried(
    attack: &Planned,
    model: &Model,
    data: &Dataset,
    config: &Config,
    tallies: &[Tally],
) -> Vec<Diagnostic> {
    let parts = attack.parts(config.norm);
    let Some(stepping) = parts.iter().find_map(Planned::stepping) else {
        return Vec::new();
    };
    let trial = Trial {
        label: &attack.label(),
        attack: stepping.as_ref(),
        foreign: attack.transfer().is_some(),
        norm: config.norm,
        epsilons: &config.epsilons,
        tallies,
        samples: data.len(),
        straight_through: model.straight_through(),
    };
    trial.diagnose()
}

/// The name of the model's file.
fn file_name(model: &Model) -> String {
    model
        .path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// What kind the attacks are, as the rows call them.
fn kinds(config: &Config) -> Kinds {
    let labels = |is_one: fn(&Planned) -> bool| {
        let attacks = config.attacks.attacks().iter();
        let found = attacks.filter(|attack| is_one(attack));
        found.map(Planned::label).collect()
    };
    Kinds {
        ascents: labels(|attack| match attack {
            Planned::Gradient(attack) => attack.goal() == attack::Goal::Radius,
            Planned::Query(_) | Planned::Transfer(_) => false,
            Planned::Ensemble(_) => true,
        }),
        transfers: labels(|attack| attack.transfer().is_some()),
    }
}

/// How many classes the attacks go toward, at most.
fn rival_count(config: &Config) -> usize {
    let parts = config.attacks.parts(config.norm);
    let following = parts.iter().filter_map(Planned::gradient);
    let targets = following.map(|attack| attack.targets());
    usize::try_from(targets.max().unwrap_or(0)).unwrap_or(usize::MAX)
}

/// What is looked at once more after the attacks.
struct Watched<'a> {
    model: &'a Model,
    data: &'a Dataset,
    config: &'a Config,
    clean: &'a CleanVerdicts,
    slots: usize,
}

impl Watched<'_> {
    /// The two small runs that show what no attack shows of itself.
    fn diagnose(
        &self,
        gradients: &mut Gradients<'_>,
        judge: &mut model::Judge,
    ) -> Result<Vec<Diagnostic>, Error> {
        let through_softmax = gradients.pass_softmax();
        let mut found = diagnose::probe::run(
            judge,
            self.model,
            self.data,
            self.config.bounds,
            &self.clean.verdicts,
            through_softmax,
        )?;
        let parts = self.config.attacks.parts(self.config.norm);
        let mut following = parts.iter().filter_map(Planned::gradient);
        let Some(attack) = following.next() else {
            return Ok(found);
        };
        // The control goes away from the label, whatever the attack goes toward.
        let control = attack::Pgd {
            loss: gradients.loss(attack.as_ref()),
            ..attack::Pgd::default()
        };
        let gradient = gradients.get(&control)?;
        let (attack, clean) = (attack.as_ref(), self.clean);
        let job = Job::new(
            self.model,
            self.data,
            self.config,
            attack,
            clean,
            self.slots,
        );
        found.extend(diagnose::control::run(&job, control.loss, gradient, judge)?);
        Ok(found)
    }
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

fn run_of(attack: &Planned, norm: Norm, epsilon: f64) -> Run {
    Run {
        attack: attack.label(),
        norm,
        epsilon,
        steps: attack.steps(norm),
        restarts: attack.restarts(norm),
        gradients: !matches!(attack, Planned::Query(_)),
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
    targets: usize,
) -> Result<(CleanVerdicts, f64), Error> {
    let width = judge.answers().width();
    let targets = targets.min(width.saturating_sub(1));
    let mut clean = CleanVerdicts {
        verdicts: Vec::new(),
        targets,
        rivals: Vec::new(),
    };
    let mut seconds = 0.0;
    let mut source = Source::new(model, data, bounds)?;
    while let Some(block) = source.block()? {
        let before = Instant::now();
        let scores = judge.scores(block.points, block.data)?;
        seconds += before.elapsed().as_secs_f64();
        let verdicts = judge
            .verdicts(&scores, block.labels)
            .map_err(|error| located(error, None, |row| block.indices.get(row).copied()))?;
        clean
            .verdicts
            .extend(verdicts.into_iter().map(|verdict| Clean {
                prediction: verdict.prediction,
                loss: verdict.loss,
            }));
        if targets > 0 {
            for (scores, &label) in scores.chunks(width).zip(block.labels) {
                clean.rivals.extend(rivals(scores, label, targets));
            }
        }
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

/// The gradient graphs, one per loss and its targeted form, derived when first asked for.
struct Gradients<'a> {
    model: &'a Model,
    given: Option<&'a GradientGraph>,
    keep_softmax: bool,
    /// By loss, and whether it is targeted.
    derived: HashMap<(attack::Loss, bool), Arc<GradientGraph>>,
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

    /// The loss that the attack follows on this model.
    fn loss(&self, attack: &dyn Attack) -> attack::Loss {
        let classes = self.model.classes();
        classes.map_or(attack.loss(), |classes| attack.loss_for(classes))
    }

    fn get(&mut self, attack: &dyn Attack) -> Result<Arc<GradientGraph>, Error> {
        let targeted = attack.targets() > 0;
        let loss = self.loss(attack);
        if let Some(found) = self.derived.get(&(loss, targeted)) {
            return Ok(Arc::clone(found));
        }
        let graph = match self.given {
            Some(_) if targeted => {
                return Err(Error::Config(format!(
                    "{} goes toward one class after the other, and the gradient graph that was given has no input for it; leave --gradient out",
                    attack.label()
                )));
            }
            Some(given) => {
                given.check_loss(loss)?;
                self.model.lowered(given.clone())
            }
            None => self.derive(attack)?,
        };
        Ok(Arc::clone(
            self.derived
                .entry((loss, targeted))
                .or_insert(Arc::new(graph)),
        ))
    }

    /// Derives a graph; where there is none, says which attacks need none.
    fn derive(&self, attack: &dyn Attack) -> Result<GradientGraph, Error> {
        let derived = self.model.search_gradient(&model::GradientOptions {
            scale_seed: false,
            targeted: attack.targets() > 0,
            loss: self.loss(attack),
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
            if let Some(graph) = self.derived.get(&(loss, false)) {
                let found =
                    self.model
                        .check_device(graph, block.points, block.data, block.labels)?;
                notes.extend(found);
            }
        }
        Ok(notes)
    }

    /// Whether gradients pass through a Softmax at the model's end, if it has one.
    fn pass_softmax(&self) -> bool {
        !self.derived.values().any(|graph| graph.softmax_removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_are_ranked_by_score_without_the_label() {
        assert_eq!(rivals(&[0.5, 3.0, 0.5, -1.0], 1, 9), [0, 2, 3]);
        assert_eq!(rivals(&[0.5, 3.0, 0.5, -1.0], 3, 2), [1, 0]);
    }
}
