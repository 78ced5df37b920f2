//! The operators of `ai.onnx.ml` that have a gradient: linear classifiers and what scales their features.
//!
//! They compute in single precision whatever they are given, as ONNX Runtime does.

use super::{Fused, fixed};
use crate::graph::{Attributes, Dim, Expr, Fact, Node, ValueId};
use crate::tensor::{DType, Tensor};

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// The features of each sample, `[n, features]`, in single precision, and how many there are.
fn features<'g>(n: &Fused<'g>) -> Result<(Expr<'g>, i64), String> {
    let x = n.x(0)?.cast(DType::F32);
    let x = if x.rank() == 1 { x.unsqueeze(&[0]) } else { x };
    match x.shape().as_slice() {
        [_, features] => Ok((x, fixed(*features)?)),
        _ => Err("its features are no matrix".into()),
    }
}

/// A list of numbers that has one entry, or one for each of so many.
fn list<'g>(n: &Fused<'g>, name: &str, count: i64) -> Result<Option<Expr<'g>>, String> {
    let Some(values) = n.floats(name).filter(|values| !values.is_empty()) else {
        return Ok(None);
    };
    if values.len() != 1 && i64::try_from(values.len()).ok() != Some(count) {
        return Err(format!(
            "its attribute {name} has {} numbers for {count}",
            values.len()
        ));
    }
    row(n, &[values.len()], values.to_vec()).map(Some)
}

fn row<'g>(n: &Fused<'g>, shape: &[usize], values: Vec<f32>) -> Result<Expr<'g>, String> {
    let tensor = Tensor::new(shape, values).ok_or("its coefficients do not fill a matrix")?;
    Ok(n.builder.constant(&tensor))
}

/// y = (x − offset) · scale.
pub(super) fn scaler<'g>(n: &Fused<'g>) -> Results<'g> {
    let (x, count) = features(n)?;
    let x = list(n, "offset", count)?.map_or(x, |offset| x - offset);
    let x = list(n, "scale", count)?.map_or(x, |scale| x * scale);
    Ok(vec![Some(x)])
}

/// y = x over its largest, the sum of its magnitudes, or its length; where that is 0, x.
pub(super) fn normalizer<'g>(n: &Fused<'g>) -> Results<'g> {
    let (x, _) = features(n)?;
    let magnitudes = x.unary("Abs");
    let size = match n.string("norm").unwrap_or("MAX") {
        "MAX" => x.reduce("ReduceMax", &[1], true),
        // A softmax has sum 1 already, and stays in sight as what the scores come from.
        "L1" if comes_from_softmax(n) => return Ok(vec![Some(x)]),
        "L1" => magnitudes.sum(&[1]),
        "L2" => (x * x).sum(&[1]).unary("Sqrt"),
        other => return Err(format!("its norm {other} is not covered")),
    };
    let none = size.equal(0.0);
    Ok(vec![Some(x / none.select(1.0, size, size))])
}

/// Whether the first operand is a softmax, but for its name.
fn comes_from_softmax(n: &Fused<'_>) -> bool {
    n.builder.with_graph(|graph| {
        let producers = graph.producers();
        let made_by = |id: ValueId| -> Option<&Node> {
            producers[id.index()].map(|position| &graph.nodes[position])
        };
        let mut node = n.node.input(0).and_then(made_by);
        while let Some(found) = node.filter(|node| node.is("Identity") || node.is("Cast")) {
            node = found.input(0).and_then(made_by);
        }
        node.is_some_and(|node| node.is("Softmax"))
    })
}

/// y = x, and a constant where x is missing.
pub(super) fn imputer<'g>(n: &Fused<'g>) -> Results<'g> {
    let (x, count) = features(n)?;
    if n.attribute("imputed_value_int64s").is_some() {
        return Err("it fills in integers".into());
    }
    let filling = list(n, "imputed_value_floats", count)?.ok_or("it has nothing to fill in")?;
    let replaced = n.float("replaced_value_float").unwrap_or(0.0);
    let missing = if replaced.is_nan() {
        let fact = Fact::new(DType::Bool, x.shape());
        n.builder.node("IsNaN", &[x], &[], fact)
    } else {
        x.equal(f64::from(replaced))
    };
    Ok(vec![Some(missing.select(filling, x, x))])
}

/// y = the columns of x at the indices; a vector counts as one row.
pub(super) fn feature_extractor<'g>(n: &Fused<'g>) -> Results<'g> {
    let (x, indices) = (n.x(0)?, n.x(1)?);
    let x = if x.rank() == 1 { x.unsqueeze(&[0]) } else { x };
    let mut wide = indices.shape().into_iter().filter(|dim| *dim != Dim::ONE);
    let count = wide.next().unwrap_or(Dim::ONE);
    if wide.next().is_some() {
        return Err("its indices are no vector".into());
    }
    Ok(vec![Some(
        x.gather(indices.reshape(&[count]), x.rank() - 1),
    )])
}

/// The label with the largest score, and the scores x Wᵀ + b, as they are or brought to probabilities.
///
/// For two classes with scores −z and z, the logistic functions of both are a softmax of their halves: written so, the logits are in sight.
pub(super) fn linear_classifier<'g>(n: &Fused<'g>) -> Results<'g> {
    let (x, count) = features(n)?;
    let labels = n
        .ints("classlabels_ints")
        .filter(|labels| !labels.is_empty());
    let coefficients = n.floats("coefficients").unwrap_or_default().to_vec();
    let width = usize::try_from(count).unwrap_or_default().max(1);
    let classes = coefficients.len() / width;
    if classes < 2 {
        return Err("it has one score for two classes".into());
    }
    let mirrored = classes == 2 && is_mirrored(&coefficients, n.floats("intercepts"));
    let weights = row(n, &[classes, width], coefficients)?;
    let classes = i64::try_from(classes).unwrap_or_default();
    let scores = x.matmul(weights.transpose(&[1, 0]));
    let scores = list(n, "intercepts", classes)?.map_or(scores, |intercepts| scores + intercepts);
    let given = match n.string("post_transform").unwrap_or("NONE") {
        "NONE" => scores,
        "SOFTMAX" => scores.softmax(1),
        "LOGISTIC" if mirrored => (scores * 0.5).softmax(1),
        "LOGISTIC" => scores.unary("Sigmoid"),
        other => return Err(format!("its transformation {other} is not covered")),
    };
    let label = if n.gives(0) {
        let labels = labels.ok_or("its labels are text")?;
        let place = scores.arg_max(1);
        let batch = scores.shape().first().copied().unwrap_or(Dim::BATCH);
        Some(n.builder.ints(labels).gather(place.reshape(&[batch]), 0))
    } else {
        None
    };
    Ok(vec![label, Some(given)])
}

/// Whether the second of two classes has the first's score with the other sign.
fn is_mirrored(coefficients: &[f32], intercepts: Option<&[f32]>) -> bool {
    let opposite = |values: &[f32]| {
        let (first, second) = values.split_at(values.len() / 2);
        first.iter().zip(second).all(|(a, b)| *a == -b)
    };
    opposite(coefficients) && intercepts.is_none_or(opposite)
}
