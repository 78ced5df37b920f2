//! Makes a batch that was pinned at export dynamic.
//!
//! Exporters write the batch of their example input into the declared shapes and, worse, into constants: targets of `Reshape`, sizes of
//! `Resize`, class tokens and initial states.
//! [`places`] follows the batch axis through the graph, and [`constants`] replaces what it meets there.
//! Whether the result is right shows only by running it: the caller compares runs at two sizes with runs of the original.

mod constants;
mod places;

use crate::graph::{Graph, ValueId};
use crate::onnx::proto::{Dimension, DimensionValue, TensorShapeProto, TypeValue, ValueInfoProto};
use std::collections::HashSet;

/// Why the batch of a model cannot be made dynamic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreeBatchError {
    /// An input has no first axis.
    #[error("input `{0}` declares no shape, or one without axes, so that it has no batch axis")]
    NoAxis(String),
    /// Two inputs have batches of different sizes.
    #[error(
        "input `{first}` has a batch of {first_size} and input `{second}` one of {second_size}: they have no batch in common"
    )]
    Disagree {
        /// An input.
        first: String,
        /// The extent of its first axis.
        first_size: i64,
        /// Another input.
        second: String,
        /// The extent of its first axis.
        second_size: i64,
    },
}

/// What [`free_batch`] changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// The batch size that was pinned; `None` where the inputs declared none.
    pub pinned: Option<i64>,
    /// The inputs whose declared batch was a number.
    pub inputs: Vec<String>,
    /// The outputs whose declared batch was a number.
    pub outputs: Vec<String>,
    /// The nodes that had the batch size in a constant, by name.
    pub nodes: Vec<String>,
}

/// Makes the first axis of the given inputs, and of all that follows from them, dynamic.
///
/// Declared shapes get a named first extent (`N` where that name is free), and constants that hold the pinned size are replaced.
/// Facts, where the graph has them, must be from a run at the pinned size: with them the batch is found on whichever axis it is; without, it is
/// looked for on the first.
/// Where the inputs declare no number, the pinned size is taken to be 1.
/// Facts of values that follow the batch are dropped.
///
/// # Errors
/// Where an input has no first axis, or two have different batches; the graph is unchanged then.
pub fn free_batch(graph: &mut Graph, inputs: &[ValueId]) -> Result<Freed, FreeBatchError> {
    let mut freed = Freed {
        pinned: pinned_batch(graph, inputs)?,
        ..Freed::default()
    };
    let follows = places::followers(graph, inputs);
    let symbol = symbol(graph);
    for (id, info) in &mut graph.inputs {
        if inputs.contains(id) && name_batch(info, &symbol, freed.pinned) {
            freed.inputs.push(name_of(info));
        }
    }
    for (id, info) in &mut graph.outputs {
        if follows[id.index()] && name_batch(info, &symbol, freed.pinned) {
            freed.outputs.push(name_of(info));
        }
    }
    freed.nodes = constants::free(graph, inputs, &follows, freed.pinned.unwrap_or(1));
    forget(graph, &follows);
    if !freed.nodes.is_empty() {
        allow_initializers(graph);
    }
    Ok(freed)
}

fn name_of(info: &ValueInfoProto) -> String {
    info.name.clone().unwrap_or_default()
}

/// The first extent that all the inputs declare.
fn pinned_batch(graph: &Graph, inputs: &[ValueId]) -> Result<Option<i64>, FreeBatchError> {
    let mut pinned: Option<(String, i64)> = None;
    for (_, info) in graph.inputs.iter().filter(|(id, _)| inputs.contains(id)) {
        let name = name_of(info);
        let first = shape_of(info).and_then(|shape| shape.dim.first());
        let Some(first) = first else {
            return Err(FreeBatchError::NoAxis(name));
        };
        let Some(DimensionValue::DimValue(size)) = first.value else {
            continue;
        };
        match &pinned {
            Some((other, other_size)) if *other_size != size => {
                return Err(FreeBatchError::Disagree {
                    first: other.clone(),
                    first_size: *other_size,
                    second: name,
                    second_size: size,
                });
            }
            _ => pinned = Some((name, size)),
        }
    }
    Ok(pinned.map(|(_, size)| size))
}

fn shape_of(info: &ValueInfoProto) -> Option<&TensorShapeProto> {
    match info.r#type.as_ref()?.value.as_ref()? {
        TypeValue::TensorType(tensor) => tensor.shape.as_ref(),
        _ => None,
    }
}

fn shape_of_mut(info: &mut ValueInfoProto) -> Option<&mut TensorShapeProto> {
    match info.r#type.as_mut()?.value.as_mut()? {
        TypeValue::TensorType(tensor) => tensor.shape.as_mut(),
        _ => None,
    }
}

/// Puts a name in the place of a declared first extent that is a number; one that is not the batch size is left open.
fn name_batch(info: &mut ValueInfoProto, symbol: &str, pinned: Option<i64>) -> bool {
    let Some(first) = shape_of_mut(info).and_then(|shape| shape.dim.first_mut()) else {
        return false;
    };
    let Some(DimensionValue::DimValue(size)) = first.value else {
        return false;
    };
    let is_batch = pinned.is_none_or(|pinned| pinned == size);
    first.value = is_batch.then(|| DimensionValue::DimParam(symbol.to_owned()));
    true
}

/// A name for the batch that no declared extent has yet.
fn symbol(graph: &Graph) -> String {
    let infos = graph
        .inputs
        .iter()
        .chain(&graph.outputs)
        .map(|(_, info)| info);
    let extents = infos.filter_map(shape_of).flat_map(|shape| &shape.dim);
    let name = |dim: &Dimension| match &dim.value {
        Some(DimensionValue::DimParam(name)) => Some(name.clone()),
        _ => None,
    };
    let taken: HashSet<String> = extents.filter_map(name).collect();
    let numbered = (1u32..).map(|number| format!("N_{number}"));
    let mut candidates = std::iter::once("N".to_owned()).chain(numbered);
    candidates
        .find(|name| !taken.contains(name))
        .unwrap_or_default()
}

/// Drops what was declared or seen of values that follow the batch.
fn forget(graph: &mut Graph, follows: &[bool]) {
    let ids: Vec<ValueId> = graph.value_ids().collect();
    let stale: Vec<ValueId> = ids
        .into_iter()
        .filter(|id| follows.get(id.index()).is_some_and(|&follows| follows))
        .collect();
    let names: HashSet<String> = stale.iter().map(|&id| graph.name(id).to_owned()).collect();
    for id in stale {
        graph.value_mut(id).fact = None;
    }
    if let Some(shell) = &mut graph.model.graph {
        shell
            .value_info
            .retain(|info| !names.contains(info.name.as_deref().unwrap_or_default()));
    }
}

/// Before IR version 4 every initializer had to be an input, without being meant as one; new ones are not.
fn allow_initializers(graph: &mut Graph) {
    if graph.model.ir_version.unwrap_or_default() >= 4 {
        return;
    }
    graph.model.ir_version = Some(4);
    let initializers: HashSet<ValueId> = graph.initializers.iter().copied().collect();
    graph.inputs.retain(|(id, _)| !initializers.contains(id));
}
