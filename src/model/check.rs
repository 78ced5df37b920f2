//! What mohs made of a model has to agree with the model: checked by running both.

use super::trace::Run;
use super::{Error, ModelOptions, Ports, load};
use crate::graph::{Graph, Node};
use crate::runtime::{Optimization, SessionOptions, Value};
use crate::tensor::DType;
use std::path::Path;

/// Scores may differ by this much, relative to the largest of them: rounding in another order of operations.
///
/// In half precision that comes to a few units in the last place of every layer.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-2,
        DType::BF16 => 1e-1,
        _ => 1e-3,
    }
}

/// Scores may differ by this much where quantised operators are computed in floats: what falls on the other side of a half is a whole step off.
const ROUNDED: f64 = 5e-2;

/// How much the scores of the file and of what was made of it may differ.
fn tolerance_under(options: &ModelOptions, dtype: DType) -> f64 {
    tolerance_of(options.straight_through, dtype)
}

/// How much scores of that type may differ, with quantised operators computed in floats or not.
pub(super) fn tolerance_of(straight_through: bool, dtype: DType) -> f64 {
    if straight_through {
        ROUNDED
    } else {
        tolerance(dtype)
    }
}

/// What quantises by the largest value of all samples together.
const SCALED_BY_THE_BATCH: [&str; 2] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul"];

/// Each output has to give the same for a sample in whichever batch it is; the runs have the same samples in front.
pub(super) fn independent_of_the_batch(graph: &Graph, runs: &[Run]) -> Result<(), String> {
    let [first, rest @ ..] = runs else {
        return Ok(());
    };
    // The dependence may be too small to be seen in a few samples.
    let on_data = graph.depends_on_data();
    let shared = graph.nodes.iter().find(|node| {
        SCALED_BY_THE_BATCH.contains(&node.op_type())
            && node.input(0).is_some_and(|id| on_data[id.index()])
    });
    if let (Some(node), false) = (shared, rest.is_empty()) {
        let operator = node.op_type();
        return Err(format!("{operator} takes one scale for the whole batch"));
    }
    for (id, _) in &graph.outputs {
        let name = graph.name(*id);
        for run in rest {
            let (Some(few), Some(many)) = (first.get(name), run.get(name)) else {
                continue;
            };
            let (few_rows, many_rows) = (few.shape().first(), many.shape().first());
            let follows = few_rows < many_rows && few.shape().get(1..) == many.shape().get(1..);
            // Fewer samples come first; as far as they go, both runs have to agree.
            if !follows || !close(&few.to_f64(), &many.to_f64(), tolerance(few.dtype())) {
                return Err(format!(
                    "output `{name}` of a sample depends on the batch it is in"
                ));
            }
        }
    }
    Ok(())
}

/// Where the file pins the batch, every sample of a larger one has to come out as the file has it in a batch of its own.
///
/// Samples that only ever stand in front would hide a file that takes the first of a batch for all.
pub(super) fn samples_agree(
    file: &Graph,
    runs: &[Run],
    ports: &Ports,
    options: &ModelOptions,
) -> Result<(), Error> {
    let (Some(run), Some(size)) = (runs.last(), ports.declared_batch) else {
        return Ok(());
    };
    let names = file.outputs.iter().map(|(id, _)| file.name(*id));
    let names: Vec<&str> = names.filter(|name| run.contains_key(*name)).collect();
    let rows = |name: &&str| run.get(*name).and_then(|tensor| tensor.shape().first());
    let samples = names.first().and_then(rows).copied().unwrap_or_default();
    let session = SessionOptions {
        optimization: Optimization::None,
        ..options.session.clone()
    };
    let mut session = load(&file.to_model(), &session)?;
    for first in (0..=samples.saturating_sub(size)).step_by(size) {
        let feeds = ports.feeds_from(first, size)?;
        let inputs: Vec<(&str, &Value)> = feeds
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        for (name, value) in names.iter().zip(session.run_for(&names, &inputs)?) {
            let tolerance = tolerance_under(options, run[*name].dtype());
            let (expected, found) = (value.to_tensor()?.to_f64(), run[*name].to_f64());
            let start = found.len() / samples.max(1) * first;
            if !close(&expected, &found[start..], tolerance) {
                return Err(Error::Unsuitable(format!(
                    "output `{name}` of a sample depends on its place in the batch"
                )));
            }
        }
    }
    Ok(())
}

/// What the file itself gives, for as many samples as it declares.
pub(super) fn run_file(file: &Graph, ports: &Ports, options: &ModelOptions) -> Result<Run, Error> {
    // One run: not worth an optimised session.
    let session = SessionOptions {
        optimization: Optimization::None,
        ..options.session.clone()
    };
    let mut session = load(&file.to_model(), &session)?;
    let feeds = ports.feeds(ports.declared_batch.unwrap_or(1))?;
    let inputs: Vec<(&str, &Value)> = feeds
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let tensors = session.outputs().iter().filter(|port| port.dtype.is_some());
    let names: Vec<String> = tensors.map(|port| port.name.clone()).collect();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let values = session.run_for(&asked, &inputs)?;
    let named = names.into_iter().zip(&values);
    named
        .map(|(name, value)| Ok((name, value.to_tensor()?)))
        .collect()
}

/// The graph that is differentiated has to give the same scores as the file, as far as the samples of both go.
pub(super) fn agrees(
    path: &Path,
    file: &Run,
    graph: &Graph,
    output: &str,
    runs: &[Run],
    options: &ModelOptions,
) -> Result<(), Error> {
    let missing = || Error::Internal("the model gave no output".into());
    let expected = file.get(output).ok_or_else(missing)?;
    let found = runs.first().and_then(|run| run.get(output));
    let found = found.ok_or_else(missing)?;
    let tolerance = tolerance_under(options, expected.dtype());
    let (expected, found) = (expected.to_f64(), found.to_f64());
    if close(&expected, &found, tolerance) {
        return Ok(());
    }
    if let Some(node) = graph.nodes.iter().find(|node| draws(node)) {
        return Err(Error::Unsuitable(format!(
            "{} draws at random whenever the model runs, so that its scores are never the same twice; export the model in evaluation mode",
            label(node)
        )));
    }
    Err(Error::Internal(format!(
        "the graph that mohs made of {} gives other scores than the file: {:?} instead of {:?}",
        path.display(),
        &found[..found.len().min(4)],
        &expected[..expected.len().min(4)]
    )))
}

/// The operator and the node's name.
fn label(node: &Node) -> String {
    match node.proto.name.as_deref().unwrap_or_default() {
        "" => format!("a node {}", node.op_type()),
        name => format!("the node {} `{name}`", node.op_type()),
    }
}

/// Whether a node may give something else in each run.
fn draws(node: &Node) -> bool {
    const RANDOM: &[&str] = &[
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ];
    let training = node.is("Dropout") && node.input(2).is_some();
    training || RANDOM.iter().any(|operator| node.is(operator))
}

/// Whether the numbers agree, as far as both go.
pub(super) fn close(expected: &[f64], found: &[f64], tolerance: f64) -> bool {
    let finite = expected.iter().copied().filter(|value| value.is_finite());
    let scale = finite.fold(1e-6, |most: f64, value| most.max(value.abs()));
    let mut pairs = expected.iter().zip(found);
    pairs.all(|(a, b)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * scale)
}

/// The first line of an error with its causes.
pub(super) fn first_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}
