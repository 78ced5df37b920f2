//! `mohs train`: trains a model and writes it with new weights.

use super::arguments::{BatchNormArgument, DataPaths, Layout, TrainArguments, Verbosity};
use super::exit::{Blame, Failure};
use super::live::{Live, catch_interrupts};
use super::output::{OutputFile, distinct};
use super::{missing, session};
use crate::data::{self, Dataset, Source};
use crate::graph::passes::Normalization;
use crate::model::Model;
use crate::model::training::BatchNorm;
use crate::onnx;
use crate::threat::Bounds;
use crate::train::methods::method;
use crate::train::optim::optimizer;
use crate::train::schedule::schedule;
use crate::train::{self, Augmentation, Config};

/// What data sets end in, for the hint where there is none.
const DATA: &[&str] = &[".npz", ".npy", ".csv", "ubyte", ".gz"];

/// Runs the command.
pub(super) fn run(arguments: &TrainArguments, verbosity: Verbosity) -> Result<(), Failure> {
    let config = config(arguments)?;
    let given = std::iter::once(&arguments.data).chain(&arguments.validation);
    for paths in given {
        for path in std::iter::once(&paths.samples).chain(&paths.labels) {
            missing::require(path, DATA)?;
        }
    }
    open_outputs(arguments)?;
    let normalization = arguments.normalization().map(|given| Normalization {
        mean: given.mean,
        std: given.std,
    });
    let model = session::open(&arguments.model, normalization, &arguments.runtime)?;
    let original = onnx::read(&arguments.model.model).or_bad_input()?;
    let limit = arguments.limit.map(std::num::NonZeroU64::get);
    let dataset = dataset(arguments, &arguments.data, arguments.offset, limit, &model)?;
    let validation = match &arguments.validation {
        Some(paths) => {
            let limit = arguments.validation_limit.map(std::num::NonZeroU64::get);
            Some(self::dataset(arguments, paths, 0, limit, &model)?)
        }
        None => None,
    };
    let mut live = Live::new(verbosity, arguments.log(), catch_interrupts());
    let trained = train::train(
        &model,
        &original,
        &dataset,
        validation.as_ref(),
        &config,
        &mut live,
    );
    drop(live);
    let trained = trained.map_err(blame)?;
    if trained.stopped {
        return Err(Failure::interrupted(anyhow::anyhow!(
            match &arguments.checkpoint {
                Some(folder) => format!(
                    "interrupted: the checkpoint is in {}; the same command with --resume goes on from there",
                    folder.display()
                ),
                None => "interrupted; without --checkpoint nothing is kept".to_owned(),
            }
        )));
    }
    onnx::write(&trained.model, &arguments.out).or_bad_input()?;
    if let Some(epoch) = trained.kept {
        tracing::info!(
            "the weights are those after epoch {epoch}, the best on the validation data"
        );
    }
    tracing::info!(
        "{} is written; the epochs are in {}",
        arguments.out.display(),
        arguments.log().display()
    );
    Ok(())
}

/// Makes sure that the results can be written before hours go by.
fn open_outputs(arguments: &TrainArguments) -> Result<(), Failure> {
    let out = OutputFile::create(&arguments.out).or_bad_input()?;
    let log = OutputFile::create(&arguments.log()).or_bad_input()?;
    out.spare(&arguments.model.model)?;
    let given = std::iter::once(&arguments.data).chain(&arguments.validation);
    for path in given.flat_map(|paths| std::iter::once(&paths.samples).chain(&paths.labels)) {
        out.spare(path)?;
        log.spare(path)?;
    }
    Ok(distinct([&out, &log].into_iter())?)
}

fn config(arguments: &TrainArguments) -> Result<Config, Failure> {
    if arguments.mean.len() != arguments.std.len() {
        return Err(Failure::bad_input(anyhow::anyhow!(
            "--mean has {} values and --std has {}; give one of each per channel",
            arguments.mean.len(),
            arguments.std.len()
        )));
    }
    if arguments.model.keep_softmax {
        return Err(Failure::bad_input(anyhow::anyhow!(
            "--keep-softmax is for attacks: training needs the logits below the softmax; leave it out"
        )));
    }
    Ok(Config {
        method: method(&arguments.method).or_bad_input()?,
        optimizer: optimizer(&arguments.optimizer).or_bad_input()?,
        schedule: schedule(&arguments.schedule).or_bad_input()?,
        norm: arguments.norm,
        epsilon: arguments
            .epsilon
            .as_ref()
            .map(crate::threat::Epsilon::value),
        bounds: bounds(arguments),
        epochs: arguments.epochs,
        batch_size: arguments.batch_size,
        seed: arguments.seed,
        augmentation: Augmentation {
            crop: arguments.crop,
            flip: arguments.flip,
        },
        batch_norm: match arguments.batch_norm {
            BatchNormArgument::Train => BatchNorm::Train,
            BatchNormArgument::Frozen => BatchNorm::Running,
        },
        freeze: arguments.freeze.clone(),
        tensor: arguments.model.wrt.clone(),
        padding: arguments.padding,
        reinitialize: arguments.reinitialize,
        validation_steps: arguments.validation_steps,
        checkpoint: arguments.checkpoint.clone(),
        resume: arguments.resume,
    })
}

/// The bounds of what is perturbed: those of the data say nothing of an inner tensor.
fn bounds(arguments: &TrainArguments) -> Bounds {
    match arguments.model.wrt {
        Some(_) => Bounds::NONE,
        None => arguments.bounds,
    }
}

/// Opens a data set and fits it to the model.
fn dataset(
    arguments: &TrainArguments,
    paths: &DataPaths,
    offset: u64,
    limit: Option<u64>,
    model: &Model,
) -> Result<Dataset, Failure> {
    let source = Source {
        path: paths.samples.clone(),
        labels: paths.labels.clone(),
        x_key: arguments.x_key.clone(),
        y_key: arguments.y_key.clone(),
        label_column: arguments.label_column.clone(),
        offset,
        limit,
    };
    let Bounds { low, high } = bounds(arguments);
    let options = data::Options {
        bounds: (low, high),
        scale: arguments
            .scale
            .map_or(data::Scale::Auto, |factor| data::Scale::By(factor.into())),
        layout: arguments.layout.map(|layout| match layout {
            Layout::Nchw => data::Layout::Nchw,
            Layout::Nhwc => data::Layout::Nhwc,
        }),
        input_shape: Some(model.sample_shape().to_vec()),
    };
    let dataset = Dataset::open(&source)
        .and_then(|dataset| dataset.prepared(&options))
        .or_bad_input()?;
    for note in dataset.notes() {
        tracing::info!("{}: {note}", paths.samples.display());
    }
    Ok(dataset)
}

/// Whose fault an error of the training is.
fn blame(error: train::Error) -> Failure {
    if error.is_runtime() {
        Failure::runtime(error)
    } else {
        Failure::bad_input(error)
    }
}
