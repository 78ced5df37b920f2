//! `mohs gradient`: derives the gradient graph of a model, and writes it or checks it.

use super::agreement;
use super::arguments::{BatchNormArgument, GradientArguments, Verbosity};
use super::dataset;
use super::exit::{Blame, Failure};
use super::missing;
use super::output::OutputFile;
use super::session;
use crate::data::Dataset;
use crate::model::training::{
    BatchNorm, Objective, TrainableOptions, TrainingGraph, TrainingOptions,
};
use crate::model::{GradientGraph, GradientOptions, Model};
use crate::onnx;
use anyhow::anyhow;

/// Runs the command.
pub(super) fn run(arguments: &GradientArguments, verbosity: Verbosity) -> Result<(), Failure> {
    if arguments.check.is_none() && arguments.reading.is_given() {
        return Err(Failure::bad_input(anyhow!(
            "arguments that say how data are read go with --check, which names the data"
        )));
    }
    // The file is made before the model is read, so that a path that cannot be written fails at once.
    if let Some(out) = &arguments.out {
        OutputFile::create(out)
            .and_then(|file| file.spare(&arguments.model.model))
            .or_bad_input()?;
    }
    if let Some(path) = &arguments.gradient {
        missing::require(path, &[".onnx"])?;
    }
    let samples = arguments.check.as_ref().map(|paths| {
        dataset::require(paths)?;
        Dataset::open(&dataset::source(paths, &arguments.reading)).or_bad_input()
    });
    let samples = samples.transpose()?;
    let normalization = dataset::normalization(&arguments.reading)?;
    if let (true, Some(out)) = (arguments.parameters, &arguments.out) {
        let graph = training(arguments)?;
        return onnx::write(&graph.graph.to_model(), out).or_bad_input();
    }
    let open = || session::open(&arguments.model, normalization.clone(), &arguments.runtime);
    let mut model = open()?;
    if let Some(samples) = samples {
        model = agreement::check(arguments, model, samples, verbosity)?;
    }
    let Some(out) = &arguments.out else {
        return Ok(());
    };
    if model.is_cut() {
        // The file takes the model's own inputs.
        model = open()?;
    }
    let wrt = arguments.model.wrt.iter().cloned().collect();
    let gradient = derive(arguments, &model, wrt)?;
    onnx::write(&gradient.graph.to_model(), out).or_bad_input()?;
    tracing::info!(
        "{}: {} nodes, {} of them the model's",
        out.display(),
        gradient.graph.nodes.len(),
        model.graph().nodes.len()
    );
    Ok(())
}

/// Derives the graph of a weight step.
fn training(arguments: &GradientArguments) -> Result<TrainingGraph, Failure> {
    let model = session::open_for_weights(&arguments.model, None, &arguments.runtime)?;
    let inner: Vec<String> = arguments.model.wrt.iter().cloned().collect();
    let base = model.trainable(&TrainableOptions {
        freeze: arguments.freeze.clone(),
        keep: inner.clone(),
    });
    let base = base.map_err(session::blame)?;
    for note in &base.notes {
        tracing::info!("{note}");
    }
    let perturbed = inner.iter().any(|name| name != model.input());
    let by_input = inner.is_empty() && model.input_dtype().is_float();
    let options = TrainingOptions {
        objective: Objective::Labels(arguments.loss),
        wrt: if by_input {
            vec![model.input().to_owned()]
        } else {
            inner
        },
        perturbed,
        batch_norm: match arguments.batch_norm {
            BatchNormArgument::Train => BatchNorm::Train,
            BatchNormArgument::Frozen => BatchNorm::Running,
        },
        keep_softmax: arguments.model.keep_softmax,
        ..TrainingOptions::default()
    };
    let graph = base.derive(&options).map_err(session::blame)?;
    let numbers: usize = graph.parameters.iter().map(|one| one.initial.len()).sum();
    tracing::info!(
        "{} tensors with {numbers} parameters are trained, {} are frozen; {} running statistics, {} dropout masks",
        graph.parameters.len(),
        base.frozen.len(),
        graph.statistics.len(),
        graph.masks.len()
    );
    Ok(graph)
}

/// Derives the gradient by the named values, or by what is attacked.
pub(super) fn derive(
    arguments: &GradientArguments,
    model: &Model,
    wrt: Vec<String>,
) -> Result<GradientGraph, Failure> {
    let options = GradientOptions {
        loss: arguments.loss,
        wrt,
        keep_softmax: arguments.model.keep_softmax,
        ..GradientOptions::default()
    };
    let gradient = model.gradient(&options).map_err(session::blame)?;
    if gradient.softmax_removed {
        tracing::info!(
            "the model ends in Softmax: the loss is taken on the logits below it (--keep-softmax keeps it)"
        );
    }
    Ok(gradient)
}
