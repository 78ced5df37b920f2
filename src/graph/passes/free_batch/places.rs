//! Follows the batch axis through a graph, of any opset.

use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::onnx::proto::TensorProto;
use crate::onnx::to_tensor;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// The constants of a graph that was not lifted: initializers, and the results of `Constant` nodes.
pub(super) struct Constants {
    /// In a file of IR version 3 every initializer is also an input, without being meant as one.
    inputs_are_constant: bool,
    nodes: HashMap<ValueId, TensorProto>,
}

impl Constants {
    pub(super) fn of(graph: &Graph) -> Self {
        let nodes = graph.nodes.iter().filter(|node| node.is("Constant"));
        let nodes = nodes.filter_map(|node| {
            Some((
                node.output(0)?,
                super::super::lift::constant_tensor(&node.proto)?,
            ))
        });
        Constants {
            inputs_are_constant: graph.model.ir_version.unwrap_or_default() < 4,
            nodes: nodes.collect(),
        }
    }

    /// The elements of a value, where it is constant.
    pub(super) fn tensor(&self, graph: &Graph, id: ValueId) -> Option<Tensor> {
        let found = match &graph.value(id).initializer {
            Some(tensor) if self.inputs_are_constant => Some(tensor),
            Some(_) => None,
            None => self.nodes.get(&id),
        };
        found
            .and_then(|tensor| to_tensor(tensor).ok())
            .or_else(|| graph.constant(id))
    }

    /// A list of integers: an operand, or an attribute where the opset has it there.
    pub(super) fn integers(
        &self,
        graph: &Graph,
        node: &Node,
        position: usize,
        attribute: &str,
    ) -> Option<Vec<i64>> {
        if let Some(list) = node.ints(attribute) {
            return Some(list.to_vec());
        }
        self.tensor(graph, node.input(position)?)?.to_i64()
    }
}

/// Whether each value depends on the inputs.
pub(super) fn followers(graph: &Graph, inputs: &[ValueId]) -> Vec<bool> {
    let mut follows = vec![false; graph.value_count()];
    for input in inputs {
        follows[input.index()] = true;
    }
    for node in &graph.nodes {
        if graph.reads(node).iter().any(|read| follows[read.index()]) {
            for output in node.outputs.iter().flatten() {
                follows[output.index()] = true;
            }
        }
    }
    follows
}

/// The extents of a value when the graph was last run, all of them numbers then.
pub(super) fn extents(graph: &Graph, id: ValueId) -> Option<Vec<i64>> {
    let shape = &graph.fact(id)?.shape;
    shape.iter().map(|dim| dim.extent()).collect()
}

fn rank(graph: &Graph, id: ValueId) -> Option<usize> {
    graph.fact(id).map(|fact| fact.shape.len())
}

/// The axis on which a result has the batch, if it has it; `places` are those of the operands.
///
/// `output` is the position among the results.
pub(super) fn place_of(
    graph: &Graph,
    constants: &Constants,
    node: &Node,
    places: &[Option<usize>],
    output: usize,
) -> Option<usize> {
    let of = |position: usize| {
        node.input(position)
            .and_then(|id| places.get(id.index()).copied().flatten())
    };
    if !node.domain().is_empty() {
        return same_axis(graph, node, places, output);
    }
    let axes = || constants.integers(graph, node, 1, "axes");
    match node.op_type() {
        "Shape" | "Size" | "NonZero" | "ConstantOfShape" | "Range" => None,
        "Transpose" => {
            let place = of(0)?;
            match node.ints("perm") {
                Some(order) => order
                    .iter()
                    .position(|&from| usize::try_from(from) == Ok(place)),
                None => rank(graph, node.input(0)?)?.checked_sub(place + 1),
            }
        }
        "Reshape" | "Flatten" => reshaped(graph, node, of(0)?),
        "Squeeze" => {
            let place = of(0)?;
            let axes = wrapped(axes()?, rank(graph, node.input(0)?))?;
            let removed = axes.iter().filter(|&&axis| axis < place).count();
            (!axes.contains(&place)).then(|| place - removed)
        }
        "Unsqueeze" => {
            let mut place = of(0)?;
            let axes = axes()?;
            let rank = rank(graph, node.input(0)?).map(|rank| rank + axes.len());
            let mut axes = wrapped(axes, rank)?;
            axes.sort_unstable();
            for axis in axes {
                place += usize::from(axis <= place);
            }
            Some(place)
        }
        "Gather" => gathered(graph, node, of(0), of(1)),
        operator if operator.starts_with("Reduce") || operator.starts_with("Arg") => {
            reduced(graph, node, of(0)?, axes())
        }
        // [length, n, …] → [length, directions, n, …], and [directions, n, …].
        "RNN" | "GRU" | "LSTM" => of(0).map(|_| if output == 0 { 2 } else { 1 }),
        "Einsum" => einsum(node, places),
        _ => same_axis(graph, node, places, output),
    }
}

/// Axes counted from the front.
fn wrapped(axes: Vec<i64>, rank: Option<usize>) -> Option<Vec<usize>> {
    let wrap = |axis: i64| {
        if axis < 0 {
            rank?.checked_sub(usize::try_from(axis.unsigned_abs()).ok()?)
        } else {
            usize::try_from(axis).ok()
        }
    };
    axes.into_iter().map(wrap).collect()
}

/// The axis of the operands that have the batch, counted from the last one, as broadcasting does.
fn same_axis(graph: &Graph, node: &Node, places: &[Option<usize>], output: usize) -> Option<usize> {
    let mut followed = node
        .inputs
        .iter()
        .flatten()
        .filter_map(|id| Some((*id, places.get(id.index()).copied().flatten()?)));
    let (operand, place) = followed.next()?;
    let ranks = rank(graph, operand).zip(node.output(output).and_then(|id| rank(graph, id)));
    match ranks {
        Some((before, after)) => (place + after)
            .checked_sub(before)
            .filter(|&place| place < after),
        None => Some(place),
    }
}

/// The place of the batch after the elements were laid out anew: behind as many elements as before.
fn reshaped(graph: &Graph, node: &Node, place: usize) -> Option<usize> {
    let before = extents(graph, node.input(0)?);
    let after = extents(graph, node.output(0)?);
    match (before, after) {
        (Some(before), Some(after)) => {
            let outer: i64 = before.get(..place)?.iter().product();
            (0..after.len()).find(|&axis| after[..axis].iter().product::<i64>() == outer)
        }
        _ => (place == 0).then_some(0),
    }
}

fn gathered(
    graph: &Graph,
    node: &Node,
    data: Option<usize>,
    indices: Option<usize>,
) -> Option<usize> {
    let axis = wrapped(
        vec![node.int("axis").unwrap_or_default()],
        rank(graph, node.input(0)?),
    )?[0];
    match (data, indices) {
        (Some(place), _) if place == axis => None,
        (Some(place), _) if place < axis => Some(place),
        (Some(place), _) => (place + rank(graph, node.input(1)?)?).checked_sub(1),
        (None, Some(place)) => Some(axis + place),
        (None, None) => None,
    }
}

fn reduced(graph: &Graph, node: &Node, place: usize, axes: Option<Vec<i64>>) -> Option<usize> {
    let rank = rank(graph, node.input(0)?);
    let axes = match node.int("axis") {
        Some(axis) => vec![axis],
        None if node.op_type().starts_with("Arg") => vec![0],
        None => axes?,
    };
    let axes = wrapped(axes, rank)?;
    if axes.contains(&place) {
        return None;
    }
    let removed = axes.iter().filter(|&&axis| axis < place).count();
    Some(if node.int("keepdims") == Some(0) {
        place - removed
    } else {
        place
    })
}

/// Where the letter of the batch stands behind the arrow.
fn einsum(node: &Node, places: &[Option<usize>]) -> Option<usize> {
    let equation: String = node
        .string("equation")?
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .collect();
    let (terms, result) = equation.split_once("->")?;
    let mut followed = terms.split(',').zip(&node.inputs).filter_map(|(term, id)| {
        let place = places.get((*id)?.index()).copied().flatten()?;
        term.chars().nth(place)
    });
    let letter = followed.next()?;
    result.chars().position(|other| other == letter)
}
