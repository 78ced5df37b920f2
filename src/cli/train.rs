//! `mohs train`: trains a model and writes it with new weights.

use super::arguments::{BatchNormArgument, DataPaths, ReadingArguments, TrainArguments, Verbosity};
use super::dataset;
use super::exit::{Blame, Failure};
use super::live::{Live, catch_interrupts};
use super::output::{OutputFile, distinct};
use super::{missing, session};
use crate::data::Dataset;
use crate::model::Model;
use crate::model::training::BatchNorm;
use crate::onnx;
use crate::threat::Bounds;
use crate::train::methods::method;
use crate::train::optim::optimizer;
use crate::train::schedule::schedule;
use crate::train::{self, Augmentation, Config};

/// Runs the command.
pub(super) fn run(arguments: &TrainArguments, verbosity: Verbosity) -> Result<(), Failure> {
    let mut config = config(arguments)?;
    for paths in std::iter::once(&arguments.data).chain(&arguments.validation) {
        dataset::require(paths)?;
    }
    if let Some(path) = &arguments.training_graph {
        missing::require(path, &[".onnx"])?;
    }
    open_outputs(arguments)?;
    let reading = arguments.reading();
    let normalization = dataset::normalization(&reading)?;
    let perturbs = config.method.perturbs() || config.epsilon.is_some();
    let open_model = match perturbs {
        true => session::open,
        false => session::open_for_weights,
    };
    let model = open_model(&arguments.model, normalization, &arguments.runtime)?;
    if !model.session_options().others.is_empty() {
        return Err(Failure::bad_input(anyhow::anyhow!(
            "training runs on one device: give --device one of them"
        )));
    }
    if !model.input_dtype().is_float() {
        // The bounds of what is perturbed are none of token ids.
        config.bounds = Bounds::NONE;
    }
    let original = onnx::read(&arguments.model.model).or_bad_input()?;
    let open = |paths: &DataPaths, reading: &ReadingArguments| {
        fitted(paths, reading, config.bounds, &model)
    };
    let samples = open(&arguments.data, &reading)?;
    let validation = arguments.validation.as_ref().map(|paths| {
        let reading = ReadingArguments {
            offset: 0,
            limit: arguments.validation_limit,
            ..reading.clone()
        };
        open(paths, &reading)
    });
    let validation = validation.transpose()?;
    let mut live = Live::new(verbosity, arguments.log(), catch_interrupts());
    let trained = train::train(
        &model,
        &original,
        &samples,
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
    arguments.reading().normalization().or_bad_input()?;
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
        training_graph: arguments.training_graph.clone(),
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
fn fitted(
    paths: &DataPaths,
    reading: &ReadingArguments,
    bounds: Bounds,
    model: &Model,
) -> Result<Dataset, Failure> {
    let options = dataset::preparation(reading, bounds, model);
    let fitted = Dataset::open(&dataset::source(paths, reading))
        .and_then(|dataset| dataset.prepared(&options))
        .or_bad_input()?;
    for note in fitted.notes() {
        tracing::info!("{}: {note}", paths.samples.display());
    }
    Ok(fitted)
}

/// Whose fault an error of the training is.
fn blame(error: train::Error) -> Failure {
    if error.is_runtime() {
        Failure::runtime(error)
    } else {
        Failure::bad_input(error)
    }
}
