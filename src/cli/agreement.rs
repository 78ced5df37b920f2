//! `mohs gradient --check`: compares a gradient with the model's loss, and shows how well they agree.

use super::arguments::{GradientArguments, Verbosity};
use super::dataset;
use super::exit::{Blame, Failure};
use super::gradient;
use super::session;
use super::terminal::print;
use crate::data::{self, Dataset};
use crate::model::slope::{self, Agreement, Finding, SampleAgreement, Samples, Verdict};
use crate::model::{GradientGraph, Model};
use crate::threat::Bounds;
use anyhow::anyhow;
use std::fmt::Write;

/// The samples that are compared at where no limit is given.
const COMPARED: usize = 32;

/// Compares, prints what was found, and fails where the gradient is not that of the model; gives the model back as it was compared.
pub(super) fn check(
    arguments: &GradientArguments,
    model: Model,
    samples: Dataset,
    verbosity: Verbosity,
) -> Result<Model, Failure> {
    if let Some(others) = model.other_inputs() {
        return Err(Failure::bad_input(anyhow!(
            "the model has further inputs ({others}), and the data set has nothing for them"
        )));
    }
    let (model, bounds) = match &arguments.model.wrt {
        Some(tensor) => {
            let cut = model.perturbing(tensor).map_err(session::blame)?;
            (cut, Bounds::NONE)
        }
        None => (model, arguments.bounds),
    };
    let options = dataset::preparation(&arguments.reading, bounds, &model);
    let samples = samples.prepared(&options).or_bad_input()?;
    for note in samples.notes() {
        tracing::info!("{note}");
    }
    let classes = model.classes();
    let classes = classes.map(|classes| u32::try_from(classes).unwrap_or(u32::MAX));
    samples
        .validate(classes, (bounds.low, bounds.high))
        .or_bad_input()?;
    let limit = arguments.reading.limit.map_or(COMPARED, |limit| {
        usize::try_from(limit.get()).unwrap_or(usize::MAX)
    });
    let mut batch = data::Batch::default();
    let rows = samples.samples();
    rows.and_then(|mut rows| rows.read_batch(limit, &mut batch))
        .or_bad_input()?;
    let inner = model.front().map_err(session::blame)?;
    let inner = inner.map(|mut front| front.points(&batch.pixels));
    let inner = inner.transpose().map_err(session::blame)?;
    let at = Samples {
        points: inner.as_deref().unwrap_or(&batch.pixels),
        data: if inner.is_some() { &batch.pixels } else { &[] },
        labels: &batch.labels,
    };
    let gradient = match &arguments.gradient {
        Some(path) => GradientGraph::read(path, &model, &at).map_err(session::blame)?,
        None => gradient::derive(arguments, &model, Vec::new())?,
    };
    let found = slope::compare(&model, &gradient, &at).map_err(session::blame)?;
    print(&render(&found, &batch.indices, verbosity)).or_bad_input()?;
    conclude(&found)?;
    Ok(model)
}

/// A gradient that is not that of the model, or of which nothing could be told, fails as a gate does.
fn conclude(found: &Agreement) -> Result<(), Failure> {
    match found.verdict() {
        Verdict::Agrees => Ok(()),
        Verdict::Disagrees { wrong, told } => {
            let hint = (!found.straight_through).then_some(
                "; where the model rounds or quantises, --straight-through passes gradients through",
            );
            Err(Failure::gate(anyhow!(
                "the gradient is not that of the model's loss for {wrong} of {told} samples{}",
                hint.unwrap_or_default()
            )))
        }
        Verdict::Undecided => Err(Failure::gate(anyhow!(
            "the loss is too rough or too flat at these samples to check the gradient by; take others"
        ))),
    }
}

/// What was found, as a short table; every sample's own line where more is asked for.
fn render(found: &Agreement, indices: &[u64], verbosity: Verbosity) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    let [agree, disagree, untold] = [Finding::Agrees, Finding::Disagrees, Finding::Undecided]
        .map(|finding| found.found(finding));
    line(
        "samples",
        format!(
            "{}: {agree} agree, {disagree} disagree, {untold} cannot be told",
            found.samples.len()
        ),
    );
    let alive = || found.samples.iter().filter(|sample| sample.length > 0.0);
    let ratios = sorted(alive().map(|sample| sample.slope / sample.length));
    if let [lowest, .., highest] = ratios.as_slice() {
        line(
            "slope",
            format!(
                "along the gradient {:.4} of its length over all samples, {lowest:.4} to {highest:.4} for one",
                found.slope_ratio()
            ),
        );
    }
    let errors = sorted(found.samples.iter().map(|sample| sample.error));
    if let (Some(median), Some(worst)) = (errors.get(errors.len() / 2), errors.last()) {
        let worst_at = found
            .samples
            .iter()
            .position(|sample| sample.error == *worst);
        let index = worst_at.and_then(|at| indices.get(at)).copied();
        line(
            "error",
            format!(
                "{median:.1e} of the gradient for the median sample, {worst:.1e} for the worst (sample {})",
                index.unwrap_or_default()
            ),
        );
    }
    line(
        "kinks",
        format!("{} samples at one, compared beside it", found.at_kink()),
    );
    line("zero", format!("{} samples with no gradient", found.dead()));
    if found.straight_through {
        line(
            "note",
            "slopes are those of the model with each step as its gradient takes it, through the step's own value at the sample".into(),
        );
    }
    if verbosity >= Verbosity::Verbose {
        for (sample, index) in found.samples.iter().zip(indices) {
            let _ = writeln!(text, "{}", describe(sample, *index));
        }
    }
    text
}

fn describe(sample: &SampleAgreement, index: u64) -> String {
    let finding = match sample.finding {
        Finding::Agrees => "agrees",
        Finding::Disagrees => "disagrees",
        Finding::Undecided => "cannot be told",
    };
    let kink = if sample.at_kink { ", at a kink" } else { "" };
    format!(
        "sample {index}: {finding}{kink}; length {:.3e}, slope {:.3e}, error {:.1e} ± {:.1e}",
        sample.length, sample.slope, sample.error, sample.uncertainty
    )
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
