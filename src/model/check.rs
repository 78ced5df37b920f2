//! What mohs made of a model has to agree with the model: checked by running both.

use super::{Batch, Error, Model, ModelOptions, Ports, load};
use crate::graph::Graph;
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::Tensor;

/// Scores may differ by this much, relative to the largest of them: rounding in another order of operations.
const TOLERANCE: f64 = 1e-3;

/// The batch sizes that a freed batch is tried at; the first is compared with the others, sample by sample.
const SIZES: [usize; 3] = [1, 2, 3];

/// Runs a graph with its batch made dynamic at several sizes; each sample has to come out alike at all of them.
pub(super) fn runs_at_several_sizes(
    graph: &Graph,
    ports: &Ports,
    session: &SessionOptions,
) -> Result<(), String> {
    let mut session = load(&graph.to_model(), session).map_err(|error| first_line(&error))?;
    let all = outputs(&mut session, ports, SIZES[2]).map_err(|error| first_line(&error))?;
    for size in SIZES {
        let some = outputs(&mut session, ports, size).map_err(|error| first_line(&error))?;
        for (name, (all, some)) in names(&session).iter().zip(all.iter().zip(&some)) {
            let (whole, part) = (all.to_f64(), some.to_f64());
            if all.shape().first() != Some(&SIZES[2])
                || some.shape().first() != Some(&size)
                || !close(&whole, &part)
            {
                return Err(format!(
                    "output `{name}` of a sample depends on the batch it is in"
                ));
            }
        }
    }
    Ok(())
}

/// The graph that is differentiated has to give the same scores as the file.
pub(super) fn agrees(
    model: &Model,
    original: &Graph,
    ports: &Ports,
    options: &ModelOptions,
) -> Result<(), Error> {
    let size = match model.batch {
        Batch::Dynamic => ports.declared_batch.unwrap_or(2),
        Batch::Fixed(size) => size,
    };
    let mut ours = load(&model.graph.to_model(), &options.session)?;
    let name = model.output().to_owned();
    let feeds = ports.feeds(size)?;
    let found = single(&mut ours, &name, &feeds)?;
    let mut theirs = load(&original.to_model(), &options.session)?;
    let expected = if options.normalization.is_none() {
        single(&mut theirs, &name, &feeds)?
    } else {
        let mut shipped = load(&model.shipped.to_model(), &options.session)?;
        single(&mut shipped, &name, &feeds)?
    };
    if close(&expected, &found) {
        return Ok(());
    }
    Err(Error::Internal(format!(
        "the graph that mohs made of {} gives other scores than the file: {:?} instead of {:?}",
        model.path.display(),
        &found[..found.len().min(4)],
        &expected[..expected.len().min(4)]
    )))
}

fn single(session: &mut Session, name: &str, feeds: &[(String, Value)]) -> Result<Vec<f64>, Error> {
    let inputs: Vec<(&str, &Value)> = feeds
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let outputs = session.run_for(&[name], &inputs)?;
    let output = outputs
        .first()
        .ok_or_else(|| Error::Internal("the model gave no output".into()))?;
    Ok(output.to_tensor()?.to_f64())
}

/// The names of the outputs that are tensors.
fn names(session: &Session) -> Vec<String> {
    session
        .outputs()
        .iter()
        .filter(|port| port.dtype.is_some())
        .map(|port| port.name.clone())
        .collect()
}

fn outputs(session: &mut Session, ports: &Ports, size: usize) -> Result<Vec<Tensor>, Error> {
    let feeds = ports.feeds(size)?;
    let inputs: Vec<(&str, &Value)> = feeds
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let names = names(session);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let values = session.run_for(&names, &inputs)?;
    Ok(values
        .iter()
        .map(Value::to_tensor)
        .collect::<Result<_, _>>()?)
}

/// Whether the numbers agree, as far as both go.
fn close(expected: &[f64], found: &[f64]) -> bool {
    let scale = expected
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .fold(1e-6, |most: f64, value| most.max(value.abs()));
    let mut pairs = expected.iter().zip(found);
    pairs.all(|(a, b)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * scale)
}

fn first_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}
