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

/// Where a value has the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The axis.
    pub(super) axis: usize,
    /// How many entries of that axis are in front of each sample's: more than 1 where another axis was merged into it from the left.
    pub(super) outer: i64,
}

impl Place {
    /// An axis that begins with the batch.
    pub(super) fn on(axis: usize) -> Self {
        Place { axis, outer: 1 }
    }

    /// The same on another axis.
    fn at(self, axis: usize) -> Self {
        Place { axis, ..self }
    }

    /// The same when some axes are gone.
    fn without(self, axes: &[usize]) -> Option<Self> {
        let removed = axes.iter().filter(|&&axis| axis < self.axis).count();
        (!axes.contains(&self.axis)).then(|| self.at(self.axis - removed))
    }
}

/// What is known when a node is reached.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    pub(super) constants: &'a Constants,
    /// The place of the batch in each value, by [`ValueId::index`].
    pub(super) places: &'a [Option<Place>],
    pub(super) pinned: i64,
}

impl View<'_> {
    /// Where a value has the batch.
    fn of(&self, id: Option<ValueId>) -> Option<Place> {
        self.places.get(id?.index()).copied().flatten()
    }

    /// Where the result of a node at a position has the batch, if it has it.
    pub(super) fn place_of(&self, node: &Node, output: usize) -> Option<Place> {
        let first = || self.of(node.input(0));
        if !node.domain().is_empty() {
            return self.same_axis(node, output);
        }
        match node.op_type() {
            "Shape" | "Size" | "NonZero" | "ConstantOfShape" | "Range" => None,
            "Transpose" => self.transposed(node, first()?),
            "Reshape" | "Flatten" => self.reshaped(node, first()?),
            "Squeeze" => first()?.without(&self.axes(node, 0)?),
            "Unsqueeze" => {
                let place = first()?;
                let mut axes = self.axes(node, self.list(node)?.len())?;
                axes.sort_unstable();
                let moved = axes
                    .iter()
                    .fold(place.axis, |at, &axis| at + usize::from(axis <= at));
                Some(place.at(moved))
            }
            "Gather" => self.gathered(node),
            operator if operator.starts_with("Reduce") || operator.starts_with("Arg") => {
                let place = first()?;
                let axes = self.axes(node, 0)?;
                if node.int("keepdims") == Some(0) {
                    place.without(&axes)
                } else {
                    (!axes.contains(&place.axis)).then_some(place)
                }
            }
            // [length, n, …] → [length, directions, n, …], and [directions, n, …].
            "RNN" | "GRU" | "LSTM" => Some(first()?.at(if output == 0 { 2 } else { 1 })),
            "Einsum" => self.einsum(node),
            _ => self.same_axis(node, output),
        }
    }

    /// The axes that a node names, as a list or a single one.
    fn list(&self, node: &Node) -> Option<Vec<i64>> {
        match node.int("axis") {
            Some(axis) => Some(vec![axis]),
            None if node.op_type().starts_with("Arg") => Some(vec![0]),
            None => self.constants.integers(self.graph, node, 1, "axes"),
        }
    }

    /// These axes, counted from the front of an operand that is given `more` axes.
    fn axes(&self, node: &Node, more: usize) -> Option<Vec<usize>> {
        let rank = rank(self.graph, node.input(0)?).map(|rank| rank + more);
        self.list(node)?
            .into_iter()
            .map(|axis| from_front(axis, rank))
            .collect()
    }

    fn transposed(&self, node: &Node, place: Place) -> Option<Place> {
        let axis = match node.ints("perm") {
            Some(order) => order
                .iter()
                .position(|&from| usize::try_from(from) == Ok(place.axis)),
            None => rank(self.graph, node.input(0)?)?.checked_sub(place.axis + 1),
        };
        axis.map(|axis| place.at(axis))
    }

    /// The axis of the operand that has the batch, counted from the last one, as broadcasting does.
    fn same_axis(&self, node: &Node, output: usize) -> Option<Place> {
        let mut operands = node.inputs.iter().copied();
        let (operand, place) = operands.find_map(|id| Some((id?, self.of(id)?)))?;
        let result = node.output(output);
        let ranks = rank(self.graph, operand).zip(result.and_then(|id| rank(self.graph, id)));
        let Some((before, after)) = ranks else {
            return Some(place);
        };
        let axis = (place.axis + after).checked_sub(before)?;
        (axis < after).then(|| place.at(axis))
    }

    /// The place after the elements were laid out anew: behind as many elements as before.
    fn reshaped(&self, node: &Node, place: Place) -> Option<Place> {
        let before = extents(self.graph, node.input(0)?);
        let after = extents(self.graph, node.output(0)?);
        let (Some(before), Some(after)) = (before, after) else {
            return (place == Place::on(0)).then_some(place);
        };
        let outer = before.get(..place.axis)?.iter().product::<i64>() * place.outer;
        let in_front = |axis: usize| after[..axis].iter().product::<i64>();
        let begins = (0..after.len()).find(|&axis| in_front(axis) == outer);
        match begins {
            // Between two axes that were both there before, the batch may belong to either. The last one holds the features, whose number is
            // that of some weights, so there it belongs to the other.
            Some(axis) if axis > 0 && axis + 1 == after.len() && after[axis] != self.pinned => {
                Some(Place {
                    axis: axis - 1,
                    outer: after[axis - 1],
                })
            }
            Some(axis) => Some(Place::on(axis)),
            None => {
                let axis = (0..after.len()).rfind(|&axis| in_front(axis) < outer)?;
                let outer = outer.checked_div(in_front(axis))?;
                Some(Place { axis, outer })
            }
        }
    }

    fn gathered(&self, node: &Node) -> Option<Place> {
        let axis = node.int("axis").unwrap_or_default();
        let axis = from_front(axis, rank(self.graph, node.input(0)?))?;
        match (self.of(node.input(0)), self.of(node.input(1))) {
            (Some(place), _) if place.axis == axis => None,
            (Some(place), _) if place.axis < axis => Some(place),
            (Some(place), _) => {
                let rank = rank(self.graph, node.input(1)?)?;
                Some(place.at((place.axis + rank).checked_sub(1)?))
            }
            (None, Some(place)) => Some(place.at(place.axis.checked_add(axis)?)),
            (None, None) => None,
        }
    }

    /// Where the letter of the batch stands behind the arrow.
    fn einsum(&self, node: &Node) -> Option<Place> {
        let letters = node
            .string("equation")?
            .chars()
            .filter(|letter| !letter.is_whitespace());
        let equation: String = letters.collect();
        let (terms, result) = equation.split_once("->")?;
        let mut operands = terms.split(',').zip(node.inputs.iter().copied());
        let (letter, place) = operands.find_map(|(term, id)| {
            let place = self.of(id)?;
            Some((term.chars().nth(place.axis)?, place))
        })?;
        let axis = result.chars().position(|other| other == letter)?;
        Some(place.at(axis))
    }
}

/// An axis counted from the front; one counted from the back of an unknown rank is taken to be behind all others.
fn from_front(axis: i64, rank: Option<usize>) -> Option<usize> {
    match (usize::try_from(axis), rank) {
        (Ok(axis), _) => Some(axis),
        (Err(_), Some(rank)) => rank.checked_sub(usize::try_from(axis.unsigned_abs()).ok()?),
        (Err(_), None) => Some(usize::MAX),
    }
}
