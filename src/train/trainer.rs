//! The loop: epoch by epoch, batch by batch, with a look at the model, a checkpoint and a row after each epoch.

use super::checkpoint::{Folder, Kept, Position};
use super::engine::{Course, Engine};
use super::given::Given;
use super::loader::{Arrangement, Loader, Prepared};
use super::methods::{Needs, Stats};
use super::pass::PassSpec;
use super::start::{Noise, Space, Start};
use super::validate::{Accuracy, Looks, measure};
use super::weights::{Snapshot, check_types, reinitialize};
use super::{Config, Epoch, Error, Observer, Progress, Setting, Trained};
use crate::attack::{Attack, Pgd};
use crate::data::Dataset;
use crate::model::training::{Trainable, TrainableOptions};
use crate::model::{Answers, Batch, Model};
use crate::onnx::proto::ModelProto;
use crate::tensor::DType;
use crate::threat::{Bounds, Norm};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a training runs at most until it writes a checkpoint within an epoch.
const CHECKPOINT_EVERY: Duration = Duration::from_mins(5);

/// How many samples of the training data are looked at for a collapse, where there are no validation data: with fewer, chance alone looks like one.
const GUARDED_SAMPLES: usize = 256;

/// Trains a model on data whose samples have the model's shape.
///
/// `original` is the file's model, into which the new weights are put.
/// With `validation`, the result are the weights with the best robust accuracy on it (clean accuracy, where no radius is given).
///
/// # Errors
/// Where data, model, method and options do not fit each other (before the first step), where the loss becomes no number, or where ONNX Runtime or the
/// observer fails.
pub fn train(
    model: &Model,
    original: &ModelProto,
    data: &Dataset,
    validation: Option<&Dataset>,
    config: &Config,
    observer: &mut dyn Observer,
) -> Result<Trained, Error> {
    check(model, data, validation, config)?;
    let tensor = config
        .tensor
        .clone()
        .unwrap_or_else(|| model.input().to_owned());
    let mut keep = config.method.tensors();
    keep.extend(config.tensor.clone());
    let options = TrainableOptions {
        freeze: config.freeze.clone(),
        keep,
    };
    let mut trainable = model.trainable(&options)?;
    check_types(&trainable)?;
    for note in &trainable.notes {
        observer.note(note);
    }
    if let Some(seed) = config.reinitialize {
        reinitialize(&mut trainable, seed)?;
    }
    let mut setting = setting(model, &trainable, config, &tensor)?;
    if let Some(path) = &config.training_graph {
        setting.given = Some(Arc::new(Given::open(path, model, &trainable)?));
    }
    let Needs { noise, mut passes } = config.method.needs(&setting, &trainable)?;
    let looks = add_looks(&mut passes, config);
    let samples = data.resident()?;
    let held_out = validation.map(Dataset::resident).transpose()?;
    let start = start(&setting, config, noise);
    let look_start = self::start(&setting, config, Noise::Attack(Arc::new(attack(config))));
    let sources = Sources {
        training: Loader::new(
            &samples,
            &setting.sample_shape,
            arrangement(model, config),
            &start,
        ),
        looks: Loader::new(
            held_out.as_ref().unwrap_or(&samples),
            &setting.sample_shape,
            arrangement(model, config),
            &look_start,
        ),
        held_out: held_out.is_some(),
    };
    let batches = sources.training.batches();
    if batches == 0 {
        return Err(Error::Config(format!(
            "the model runs only with batches of {}, and the data set has {} samples",
            config.batch_size,
            samples.len()
        )));
    }
    let replays = config.method.replays();
    let epochs = u64::from(config.epochs.get().div_ceil(replays));
    let course = Course {
        optimizer: Arc::clone(&config.optimizer),
        schedule: Arc::clone(&config.schedule),
        steps: epochs * batches as u64 * u64::from(replays),
        epochs: epochs as f64 * f64::from(replays),
    };
    let engine = Engine::new(model, &trainable, &setting, &passes, course, config.seed)?;
    if model.answers()
        != (Answers::Logits {
            classes: model.classes().unwrap_or_default(),
        })
    {
        probabilities(&engine, observer)?;
    }
    let folder = match &config.checkpoint {
        Some(path) => {
            let asked = asked(model, data, validation, config)?;
            Some(Folder::open(path, asked, config.resume)?)
        }
        None => None,
    };
    let mut trainer = Trainer {
        config,
        trainable: &trainable,
        engine,
        looks,
        folder,
        epochs,
        position: Position::default(),
        rows: Vec::new(),
        kept: None,
        observer,
        begun: Instant::now(),
        written: Instant::now(),
        seconds_before: 0.0,
        looked: 0.0,
        samples: 0,
        right: [None; 2],
    };
    if config.resume {
        trainer.resume()?;
    }
    trainer.run(&sources)?.finish(original)
}

/// Where the samples come from.
struct Sources<'a> {
    training: Loader<'a>,
    /// The validation data, or the training data where there are none.
    looks: Loader<'a>,
    held_out: bool,
}

/// Everything that can be refused before the model is made ready.
fn check(
    model: &Model,
    data: &Dataset,
    validation: Option<&Dataset>,
    config: &Config,
) -> Result<(), Error> {
    match config.epsilon {
        None if config.method.perturbs() => {
            return Err(Error::Config(format!(
                "method {} perturbs the samples: give the radius with --epsilon",
                config.method.label()
            )));
        }
        Some(epsilon) if !(epsilon > 0.0 && epsilon.is_finite()) => {
            return Err(Error::Config("ε has to be positive and finite".into()));
        }
        _ => {}
    }
    if config.norm == Norm::L0 {
        return Err(Error::Config(
            "no method of training is made for the norm l0; use linf, l2 or l1".into(),
        ));
    }
    if config.resume && config.checkpoint.is_none() {
        return Err(Error::Config(
            "--resume goes on from a checkpoint: say where with --checkpoint".into(),
        ));
    }
    if let Some(others) = model.other_inputs() {
        return Err(Error::Config(format!(
            "the model has further inputs ({others}), and the data set has nothing for them"
        )));
    }
    let Some(classes) = model.classes() else {
        return Err(Error::Config(
            "the model gives the label of a class alone, and training needs a score for each class; choose another output with --output".into(),
        ));
    };
    let classes = u32::try_from(classes).unwrap_or(u32::MAX);
    let bounds = (config.bounds.low, config.bounds.high);
    for data in std::iter::once(data).chain(validation) {
        if data.sample_shape() != model.sample_shape() {
            return Err(Error::Config(format!(
                "the samples have shape {:?} and the model takes {:?}",
                data.sample_shape(),
                model.sample_shape()
            )));
        }
        data.validate(Some(classes), bounds)?;
    }
    let varies = config.augmentation != super::Augmentation::default();
    if varies && model.sample_shape().len() < 2 {
        return Err(Error::Config(format!(
            "--crop and --flip are for images, and a sample has shape {:?}",
            model.sample_shape()
        )));
    }
    Ok(())
}

fn setting(
    model: &Model,
    trainable: &Trainable,
    config: &Config,
    tensor: &str,
) -> Result<Setting, Error> {
    let graph = trainable.graph();
    let missing = || {
        Error::Config(format!(
            "the model has no tensor `{tensor}` of a known shape; `mohs inspect --tensors` lists them"
        ))
    };
    let fact = graph
        .find(tensor)
        .and_then(|id| graph.fact(id))
        .ok_or_else(missing)?;
    let inner = tensor != model.input();
    let extents = fact.shape.iter().skip(1).map(|dim| dim.extent());
    let point_shape: Option<Vec<usize>> = extents
        .map(|extent| extent.and_then(|extent| usize::try_from(extent).ok()))
        .collect();
    let point_shape = point_shape.ok_or_else(missing)?;
    let wants_float = config.method.perturbs() || config.epsilon.is_some();
    if wants_float && !fact.dtype.is_float() {
        return Err(Error::Config(format!(
            "`{tensor}` is {}, and only floats can be perturbed; perturb an inner tensor, such as the embedding's output, with --wrt",
            fact.dtype
        )));
    }
    let padded = config.padding.is_some();
    if padded && !point_shape.starts_with(model.sample_shape()) {
        return Err(Error::Config(format!(
            "--padding looks at the samples, of shape {:?}, and `{tensor}` has {point_shape:?}: which of its positions are padding cannot be told",
            model.sample_shape()
        )));
    }
    Ok(Setting {
        input: model.input().to_owned(),
        output: model.output().to_owned(),
        given: None,
        tensor: tensor.to_owned(),
        inner,
        sample_shape: model.sample_shape().to_vec(),
        point_dtype: if fact.dtype.is_float() {
            fact.dtype
        } else {
            DType::F32
        },
        point_shape,
        norm: config.norm,
        epsilon: config.epsilon.unwrap_or_default(),
        bounds: if inner { Bounds::NONE } else { config.bounds },
        padded,
        batch_norm: config.batch_norm,
    })
}

/// The attack that robust accuracy is measured with between epochs.
fn attack(config: &Config) -> Pgd {
    Pgd {
        steps: config.validation_steps,
        ..Pgd::default()
    }
}

/// Adds the passes that look at the model.
fn add_looks(passes: &mut Vec<PassSpec>, config: &Config) -> Looks {
    let ascent = PassSpec::ascent(Arc::new(attack(config)));
    passes.push(PassSpec {
        ascent: None,
        ..ascent.clone()
    });
    let forward = passes.len() - 1;
    let ascent = config.epsilon.map(|_| {
        passes.push(ascent);
        passes.len() - 1
    });
    Looks { forward, ascent }
}

fn start(setting: &Setting, config: &Config, noise: Noise) -> Start {
    Start {
        wanted: setting.inner || !matches!(noise, Noise::None),
        noise,
        space: match setting.inner {
            true => Space::Inner(setting.point_shape.clone()),
            false => Space::Input,
        },
        sample_shape: setting.sample_shape.clone(),
        norm: setting.norm,
        epsilon: setting.epsilon,
        bounds: setting.bounds,
        padding: config.padding,
    }
}

fn arrangement(model: &Model, config: &Config) -> Arrangement {
    let fixed = match model.batch() {
        Batch::Dynamic => None,
        Batch::Fixed(size) => std::num::NonZeroUsize::new(size),
    };
    let border = match config.bounds {
        Bounds { low, high } if low > 0.0 || high < 0.0 => low,
        _ => 0.0,
    };
    Arrangement {
        seed: config.seed,
        batch_size: fixed.unwrap_or(config.batch_size),
        whole_batches: fixed.is_some(),
        augmentation: config.augmentation,
        border,
    }
}

/// A model whose scores are probabilities is trained on the logits below them, or not at all.
fn probabilities(engine: &Engine, observer: &mut dyn Observer) -> Result<(), Error> {
    if !engine.softmax_removed() {
        return Err(Error::Config(
            "the model's output are probabilities without a Softmax node to go below: cross-entropy needs logits; export the model without its last \
             activation, or name the logits with --output"
                .into(),
        ));
    }
    observer.note("the model ends in Softmax: the loss is taken on the logits below it, and the trained model ends in Softmax again");
    Ok(())
}

/// What has to be the same where a training goes on.
fn asked(
    model: &Model,
    data: &Dataset,
    validation: Option<&Dataset>,
    config: &Config,
) -> Result<BTreeMap<String, String>, Error> {
    let digests = |data: &Dataset| -> Result<String, Error> {
        let digests = data.digests()?.into_iter().map(|(_, digest)| digest);
        let digests: Vec<String> = digests.collect();
        Ok(format!(
            "{} samples of {}",
            data.len(),
            digests.join(" and ")
        ))
    };
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let entries = [
        ("model", model.sha256().to_owned()),
        ("data", digests(data)?),
        (
            "validation data",
            text(validation.map(digests).transpose()?),
        ),
        ("method", config.method.label()),
        ("optimizer", config.optimizer.label()),
        ("schedule", config.schedule.label()),
        ("norm", config.norm.to_string()),
        (
            "epsilon",
            text(config.epsilon.map(|epsilon| epsilon.to_string())),
        ),
        (
            "bounds",
            format!("{},{}", config.bounds.low, config.bounds.high),
        ),
        ("epochs", config.epochs.to_string()),
        ("batch size", config.batch_size.to_string()),
        ("seed", config.seed.to_string()),
        ("crop", config.augmentation.crop.to_string()),
        ("flip", config.augmentation.flip.to_string()),
        (
            "batch normalisation",
            format!("{:?}", config.batch_norm).to_lowercase(),
        ),
        ("frozen parameters", config.freeze.join(" ")),
        ("perturbed tensor", text(config.tensor.clone())),
        (
            "padding",
            text(config.padding.map(|padding| padding.to_string())),
        ),
        (
            "training graph",
            text(
                config
                    .training_graph
                    .as_ref()
                    .map(|path| path.display().to_string()),
            ),
        ),
        (
            "new weights",
            text(config.reinitialize.map(|seed| seed.to_string())),
        ),
        ("validation steps", config.validation_steps.to_string()),
    ];
    let entries = entries.into_iter();
    Ok(entries
        .map(|(what, value)| (what.to_owned(), value))
        .collect())
}

/// A training on its way.
struct Trainer<'a> {
    config: &'a Config,
    trainable: &'a Trainable,
    engine: Engine,
    looks: Looks,
    folder: Option<Folder>,
    epochs: u64,
    position: Position,
    rows: Vec<Epoch>,
    kept: Option<Kept>,
    observer: &'a mut dyn Observer,
    begun: Instant,
    /// When the last checkpoint was written.
    written: Instant,
    /// Seconds of training before a resumption.
    seconds_before: f64,
    /// Seconds since then that went into looks at the model.
    looked: f64,
    /// Samples trained on since then.
    samples: u64,
    /// How many of this epoch's samples were right as they are, and perturbed.
    right: [Option<u64>; 2],
}

/// Why a training ended.
struct Ended<'a> {
    trainer: Trainer<'a>,
    stopped: bool,
}

impl<'a> Trainer<'a> {
    fn resume(&mut self) -> Result<(), Error> {
        let Some(folder) = &mut self.folder else {
            return Ok(());
        };
        let mut checkpoint = folder.read(self.trainable)?;
        let names = self.config.optimizer.state();
        folder.restore(&checkpoint, self.trainable, names, &mut self.engine.state)?;
        self.kept = checkpoint.kept.take();
        self.position = checkpoint.position;
        self.rows = checkpoint.epochs;
        self.seconds_before = self.position.seconds;
        let Position { epoch, batch, .. } = self.position;
        let note = format!("going on after epoch {epoch}, batch {batch}");
        self.observer.note(&note);
        Ok(())
    }

    fn run(mut self, sources: &Sources<'_>) -> Result<Ended<'a>, Error> {
        while self.position.epoch < self.epochs {
            let (epoch, first) = (self.position.epoch, self.position.batch);
            let mut stopped = false;
            let batches = sources.training.batches();
            sources.training.run(epoch, first, |prepared| {
                self.batch(prepared, batches)?;
                stopped = self.observer.stops();
                if !stopped && self.written.elapsed() > CHECKPOINT_EVERY {
                    self.checkpoint()?;
                }
                Ok::<_, Error>(!stopped)
            })?;
            if stopped && self.position.batch < batches {
                self.checkpoint()?;
                return Ok(self.ended(true));
            }
            let collapsed = self.epoch_over(sources)?;
            if stopped || collapsed {
                return Ok(self.ended(stopped));
            }
        }
        Ok(self.ended(false))
    }

    fn ended(self, stopped: bool) -> Ended<'a> {
        Ended {
            trainer: self,
            stopped,
        }
    }

    /// Seconds of training, looks at the model left out.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.begun.elapsed().as_secs_f64() - self.looked
    }

    /// One batch, and what it shows.
    fn batch(&mut self, prepared: Prepared, batches: usize) -> Result<(), Error> {
        let batch = self.engine.batch(prepared, self.position.epoch)?;
        let step = self.engine.state.step;
        let stats = self.config.method.step(&mut self.engine, &batch);
        let Stats {
            loss,
            clean,
            robust,
        } = stats.map_err(|error| self.diverged(error, step))?;
        self.position.batch += 1;
        self.position.loss += loss;
        self.position.samples += batch.rows as u64;
        self.samples += batch.rows as u64;
        for (total, new) in self.right.iter_mut().zip([clean, robust]) {
            *total = new.map(|new| new + total.unwrap_or_default());
        }
        let samples = self.position.samples.max(1) as f64;
        let share = |right: Option<u64>| right.map(|right| right as f64 / samples);
        let progress = Progress {
            epoch: self.position.epoch + 1,
            epochs: self.epochs,
            batch: self.position.batch as u64,
            batches: batches as u64,
            samples: self.samples,
            seconds: self.begun.elapsed().as_secs_f64(),
            loss: self.position.loss / samples,
            clean_accuracy: share(self.right[0]),
            robust_accuracy: share(self.right[1]),
        };
        self.observer.progress(&progress);
        Ok(())
    }

    /// Says where a loss became no number.
    fn diverged(&self, error: Error, step: u64) -> Error {
        match error {
            Error::LossNotFinite { samples } => Error::Diverged {
                epoch: self.position.epoch + 1,
                batch: self.position.batch + 1,
                samples,
                learning_rate: self.engine.course.learning_rate(step),
                kept: self.left(),
            },
            error => error,
        }
    }

    /// Which weights are left after a failure.
    fn left(&self) -> String {
        match &self.config.checkpoint {
            Some(path) if !self.rows.is_empty() => {
                format!("the last good checkpoint is in {}", path.display())
            }
            _ => "no checkpoint was written yet".to_owned(),
        }
    }

    /// Looks at the model, and writes the row and the checkpoint; whether robust accuracy has collapsed.
    fn epoch_over(&mut self, sources: &Sources<'_>) -> Result<bool, Error> {
        let seconds = self.seconds();
        let weights = Snapshot::take(&self.engine.state)?;
        if let Some(parameter) = weights.not_finite(self.trainable) {
            return Err(Error::WeightsNotFinite {
                epoch: self.position.epoch + 1,
                parameter: parameter.to_owned(),
                kept: self.left(),
            });
        }
        let before = Instant::now();
        let accuracy = self.look(sources)?;
        self.looked += before.elapsed().as_secs_f64();
        let epoch = self.position.epoch + 1;
        let shown = accuracy.filter(|_| sources.held_out);
        self.rows.push(Epoch {
            epoch,
            steps: self.engine.state.step,
            learning_rate: self
                .engine
                .course
                .learning_rate(self.engine.state.step.saturating_sub(1)),
            loss: self.position.loss / self.position.samples.max(1) as f64,
            clean_accuracy: shown.map(|accuracy| accuracy.clean),
            robust_accuracy: shown.and_then(|accuracy| accuracy.robust),
            passes: self.engine.state.passes,
            seconds,
        });
        let robust = accuracy.and_then(|accuracy| accuracy.robust);
        let collapsed = match (
            self.config.method.guard(),
            robust,
            self.position.last_robust,
        ) {
            (Some(guard), Some(robust), Some(last)) if last - robust > guard => {
                let note = format!(
                    "robust accuracy has collapsed in epoch {epoch}, from {:.1} % to {:.1} %: the training stops, and the weights before are kept",
                    100.0 * last,
                    100.0 * robust
                );
                self.observer.note(&note);
                true
            }
            _ => false,
        };
        if !collapsed {
            self.keep(sources, accuracy, epoch, weights);
            self.position.last_robust = robust;
        }
        self.position = Position {
            epoch: if collapsed { self.epochs } else { epoch },
            batch: 0,
            loss: 0.0,
            samples: 0,
            collapsed,
            ..self.position.clone()
        };
        self.right = [None; 2];
        self.checkpoint()?;
        self.observer.epoch(&self.rows).map_err(Error::Observer)?;
        Ok(collapsed)
    }

    /// Accuracy on the validation data; without any, that of the first samples where a collapse has to be noticed.
    fn look(&mut self, sources: &Sources<'_>) -> Result<Option<Accuracy>, Error> {
        let batches = match (sources.held_out, self.config.method.guard()) {
            (true, _) => usize::MAX,
            (false, Some(_)) => GUARDED_SAMPLES.div_ceil(self.config.batch_size.get()),
            (false, None) => return Ok(None),
        };
        let attack = attack(self.config);
        let accuracy = measure(
            &mut self.engine,
            self.looks,
            &attack as &dyn Attack,
            &sources.looks,
            batches,
        )?;
        Ok(Some(accuracy))
    }

    /// Keeps the weights where they are the best so far; without validation data, for a collapse that may come.
    fn keep(
        &mut self,
        sources: &Sources<'_>,
        accuracy: Option<Accuracy>,
        epoch: u64,
        weights: Snapshot,
    ) {
        let Some(accuracy) = accuracy else {
            return;
        };
        let accuracy = accuracy.robust.unwrap_or(accuracy.clean);
        let better = self
            .kept
            .as_ref()
            .is_none_or(|kept| accuracy > kept.accuracy);
        if better || !sources.held_out {
            self.kept = Some(Kept {
                epoch,
                accuracy,
                weights,
            });
        }
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        self.written = Instant::now();
        self.position.seconds = self.seconds();
        self.position.step = self.engine.state.step;
        self.position.passes = self.engine.state.passes;
        let names = self.config.optimizer.state();
        match &mut self.folder {
            Some(folder) => folder.write(
                self.trainable,
                names,
                &self.engine.state,
                &self.position,
                &self.rows,
                self.kept.as_ref(),
            ),
            None => Ok(()),
        }
    }
}

impl Ended<'_> {
    /// The model with the weights that count.
    fn finish(self, original: &ModelProto) -> Result<Trained, Error> {
        let Ended { trainer, stopped } = self;
        let collapsed = trainer.position.collapsed;
        let validated = trainer
            .rows
            .last()
            .is_some_and(|row| row.clean_accuracy.is_some());
        let kept = trainer.kept.filter(|_| validated || collapsed);
        let last = trainer.rows.len() as u64;
        let (weights, epoch) = match kept {
            Some(kept) => (
                kept.weights,
                Some(kept.epoch).filter(|&epoch| epoch != last),
            ),
            None => (Snapshot::take(&trainer.engine.state)?, None),
        };
        Ok(Trained {
            model: weights.export(original, trainer.trainable)?,
            epochs: trainer.rows,
            kept: epoch,
            stopped,
        })
    }
}
