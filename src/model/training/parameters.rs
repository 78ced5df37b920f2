//! Which tensors of a model are its weights.
//!
//! A weight is told by its place: the kernel of a convolution, the scale of a normalisation, the table that is gathered from.
//! It may get there through nodes that only carry it, such as a transposition.
//! Numbers that the model was written with (masks, bounds, the normalisation of its input) are none.

use super::{Parameter, ParameterKind};
use crate::graph::{Attributes, Dim, Graph, Node, ValueId};
use crate::onnx::to_tensor;
use std::collections::HashMap;

/// What an operand is to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Weight,
    Bias,
    Scale,
    Shift,
    Embedding,
    /// The running mean of a batch normalisation.
    Mean,
    /// The running variance of a batch normalisation.
    Variance,
}

/// What the operand at a position is to a node by its operator alone; for `Add` and `Mul` it also depends on what else they take.
pub(super) fn slot(node: &Node, position: usize) -> Option<Slot> {
    if !node.domain().is_empty() {
        return None;
    }
    let slot = match (node.op_type(), position) {
        ("Conv" | "ConvTranspose" | "DeformConv" | "LSTM" | "GRU" | "RNN", 1)
        | ("LSTM" | "GRU" | "RNN", 2)
        | ("LSTM", 7)
        | ("Gemm" | "MatMul", 0 | 1)
        | ("Einsum", _) => Slot::Weight,
        ("Conv" | "ConvTranspose" | "Gemm", 2)
        | ("DeformConv" | "LSTM" | "GRU" | "RNN", 3)
        | ("Add", 0 | 1) => Slot::Bias,
        (
            "BatchNormalization"
            | "LayerNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "RMSNormalization"
            | "PRelu",
            1,
        )
        | ("Mul", 0 | 1) => Slot::Scale,
        (
            "BatchNormalization"
            | "LayerNormalization"
            | "InstanceNormalization"
            | "GroupNormalization",
            2,
        ) => Slot::Shift,
        ("BatchNormalization", 3) => Slot::Mean,
        ("BatchNormalization", 4) => Slot::Variance,
        ("Gather", 0) | ("Concat", _) => Slot::Embedding,
        _ => return None,
    };
    Some(slot)
}

/// Operators that hand their first operand on, in another form.
const CARRIERS: [&str; 14] = [
    "Identity",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Cast",
    "Expand",
    "Tile",
    "Slice",
    "Split",
    "QuantizeLinear",
    "DequantizeLinear",
    "Neg",
];

/// A tensor that was found to be a weight or a statistic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) id: ValueId,
    pub(super) slot: Slot,
    pub(super) fan_in: usize,
}

/// Finds the weights and statistics among the initializers that are inputs as well, in the order in which the graph uses them.
///
/// The graph has been run: shapes are known.
pub(super) fn find(graph: &Graph, output: ValueId) -> Vec<Found> {
    let mut search = Search {
        graph,
        origins: vec![Vec::new(); graph.value_count()],
        weighted: vec![false; graph.value_count()],
        data: graph.depends_on_data(),
        found: Vec::new(),
        places: HashMap::new(),
    };
    let useful = reaching(graph, output);
    for (id, _) in &graph.inputs {
        if graph.value(*id).initializer.is_some() {
            search.origins[id.index()] = vec![*id];
        }
    }
    for node in &graph.nodes {
        let outputs = node.outputs.iter().flatten();
        if outputs.clone().any(|id| useful[id.index()]) {
            search.visit(node);
        }
    }
    search.found
}

/// Whether each value has a part in the output.
fn reaching(graph: &Graph, output: ValueId) -> Vec<bool> {
    let mut useful = vec![false; graph.value_count()];
    useful[output.index()] = true;
    for node in graph.nodes.iter().rev() {
        let mut outputs = node.outputs.iter().flatten();
        if outputs.any(|id| useful[id.index()]) {
            for read in graph.reads(node) {
                useful[read.index()] = true;
            }
        }
    }
    useful
}

struct Search<'a> {
    graph: &'a Graph,
    /// The initializers that each value is nothing but another form of.
    origins: Vec<Vec<ValueId>>,
    /// Whether weights have had a part in each value.
    weighted: Vec<bool>,
    data: Vec<bool>,
    found: Vec<Found>,
    /// Where each of `found` is.
    places: HashMap<ValueId, usize>,
}

impl Search<'_> {
    fn visit(&mut self, node: &Node) {
        let reads = self.graph.reads(node);
        let mut weighted = reads.iter().any(|id| self.weighted[id.index()]);
        if let Some(carried) = self.carried(node) {
            for output in node.outputs.iter().flatten() {
                self.origins[output.index()].clone_from(&carried);
                self.weighted[output.index()] = weighted;
            }
            return;
        }
        for (position, operand) in node.inputs.iter().enumerate() {
            let Some(operand) = *operand else { continue };
            let Some(slot) = self.slot(node, position, operand) else {
                continue;
            };
            weighted |= matches!(slot, Slot::Weight | Slot::Embedding);
            let fan_in = self.fan_in(node, position, operand);
            for id in self.origins[operand.index()].clone() {
                self.note(Found { id, slot, fan_in });
            }
        }
        for output in node.outputs.iter().flatten() {
            self.weighted[output.index()] = weighted;
        }
    }

    /// The first place counts, but a weight that is also added somewhere is a weight.
    fn note(&mut self, found: Found) {
        match self.places.get(&found.id) {
            Some(&place) if found.slot == Slot::Weight => self.found[place].slot = Slot::Weight,
            Some(_) => {}
            None => {
                self.places.insert(found.id, self.found.len());
                self.found.push(found);
            }
        }
    }

    /// What a node's results are other forms of, where it computes with weights alone.
    fn carried(&self, node: &Node) -> Option<Vec<ValueId>> {
        let of = |position: usize| {
            let origins = node.input(position).map(|id| &self.origins[id.index()]);
            origins.filter(|origins| !origins.is_empty()).cloned()
        };
        if !node.domain().is_empty() {
            return None;
        }
        if CARRIERS.contains(&node.op_type()) {
            return of(0);
        }
        let on_data = node.inputs.iter().flatten().any(|id| self.data[id.index()]);
        match node.op_type() {
            "Mul" | "Add" | "Concat" if !on_data => {
                let all = (0..node.inputs.len()).filter_map(of).flatten();
                Some(all.collect::<Vec<_>>()).filter(|all| !all.is_empty())
            }
            "Div" | "Sub" | "ReduceL2" | "Pow" if !on_data => of(0),
            _ => None,
        }
    }

    /// What an operand that is a form of initializers is to this node.
    fn slot(&self, node: &Node, position: usize, operand: ValueId) -> Option<Slot> {
        let origins = &self.origins[operand.index()];
        if origins.is_empty() {
            return None;
        }
        let slot = slot(node, position)?;
        let others = || {
            let others = node.inputs.iter().enumerate();
            others
                .filter(|(place, _)| *place != position)
                .filter_map(|(_, id)| *id)
        };
        let after_weights = || others().any(|id| self.weighted[id.index()]);
        match node.op_type() {
            "Add" | "Mul" => {
                let plain = origins
                    .iter()
                    .all(|id| self.elements(*id) > 1 && !self.is_mask(*id));
                if !after_weights() || !plain {
                    return None;
                }
                let shape = self.graph.fact(operand).map(|fact| fact.shape.as_slice());
                let wide = shape.map(|shape| shape.iter().filter(|dim| **dim != Dim::ONE).count());
                match slot {
                    Slot::Bias if wide.is_some_and(|wide| wide > 1) => Some(Slot::Embedding),
                    slot => Some(slot),
                }
            }
            "Concat" => {
                let learned = |id: &ValueId| self.elements(*id) > 1 && !self.is_zero(*id);
                (after_weights() && origins.iter().all(learned)).then_some(slot)
            }
            "Gather" => {
                let shape = self.graph.fact(operand).map(|fact| fact.shape.len());
                shape.is_some_and(|rank| rank > 1).then_some(slot)
            }
            _ => Some(slot),
        }
    }

    fn elements(&self, id: ValueId) -> i64 {
        let tensor = self.graph.value(id).initializer.as_ref();
        tensor.map_or(0, |tensor| tensor.dims.iter().product())
    }

    fn values(&self, id: ValueId) -> Vec<f64> {
        let tensor = self.graph.value(id).initializer.as_ref();
        let values = tensor.and_then(|tensor| to_tensor(tensor).ok());
        values.map(|values| values.to_f64()).unwrap_or_default()
    }

    fn is_zero(&self, id: ValueId) -> bool {
        self.values(id).iter().all(|&value| value == 0.0)
    }

    /// Whether a tensor shuts places out: it has infinities, or nothing but zeros and one very negative number.
    fn is_mask(&self, id: ValueId) -> bool {
        let values = self.values(id);
        let lowest = values.iter().copied().fold(0.0, f64::min);
        values.iter().any(|value| !value.is_finite())
            || (lowest <= -100.0 && values.iter().all(|&value| value == 0.0 || value == lowest))
    }

    /// How many numbers one result is summed from.
    fn fan_in(&self, node: &Node, position: usize, operand: ValueId) -> usize {
        let fact = self.graph.fact(operand);
        let extents: Vec<usize> = fact
            .into_iter()
            .flat_map(|fact| &fact.shape)
            .map(|dim| usize::try_from(dim.fixed).unwrap_or(1))
            .collect();
        let last = extents.len().saturating_sub(1);
        let at = |axis: usize| extents.get(axis).copied().unwrap_or(1);
        match (node.op_type(), position) {
            ("Conv" | "ConvTranspose" | "DeformConv", 1) => extents.iter().skip(1).product(),
            ("Gemm", 0 | 1) => {
                let name = if position == 0 { "transA" } else { "transB" };
                let transposed = node.int(name).unwrap_or(0) != 0;
                at(usize::from(transposed == (position == 1)))
            }
            ("MatMul", 0) | ("LSTM" | "GRU" | "RNN", 1 | 2) => at(last),
            ("MatMul", 1) => at(last.saturating_sub(1)),
            _ => 1,
        }
    }
}

impl Slot {
    /// The kind of parameter; `None` for statistics.
    pub(super) fn kind(self) -> Option<ParameterKind> {
        match self {
            Slot::Weight => Some(ParameterKind::Weight),
            Slot::Bias => Some(ParameterKind::Bias),
            Slot::Scale => Some(ParameterKind::Scale),
            Slot::Shift => Some(ParameterKind::Shift),
            Slot::Embedding => Some(ParameterKind::Embedding),
            Slot::Mean | Slot::Variance => None,
        }
    }
}

/// The first value behind weights that everything from `from` to `output` passes through.
pub(super) fn first_layer(
    graph: &Graph,
    parameters: &[Parameter],
    from: ValueId,
    output: ValueId,
) -> Option<ValueId> {
    let weights: Vec<ValueId> = parameters
        .iter()
        .filter(|parameter| parameter.kind == ParameterKind::Weight)
        .filter_map(|parameter| graph.find(&parameter.name))
        .collect();
    let mut formed = vec![false; graph.value_count()];
    for id in weights {
        formed[id.index()] = true;
    }
    let useful = reaching(graph, output);
    let mut reached = vec![false; graph.value_count()];
    let mut weighted = vec![false; graph.value_count()];
    reached[from.index()] = true;
    let mut candidate = None;
    for (place, node) in graph.nodes.iter().enumerate() {
        if is_of_shape(node) {
            continue;
        }
        let reads = graph.reads(node);
        let any = |table: &[bool]| reads.iter().any(|id| table[id.index()]);
        let (on_path, with_weights) = (any(&reached), any(&formed));
        for result in node.outputs.iter().flatten() {
            reached[result.index()] |= on_path;
            formed[result.index()] = with_weights && !on_path;
            weighted[result.index()] = on_path && (with_weights || any(&weighted));
        }
        let result = node.output(0).filter(|id| useful[id.index()]);
        let Some(result) = result.filter(|id| weighted[id.index()]) else {
            continue;
        };
        if !is_reached_around(graph, from, result, output) {
            // A bias that is added by a node of its own belongs to the layer.
            let bias = graph.nodes[place + 1..]
                .iter()
                .find(|next| next.is("Add") && next.inputs.contains(&Some(result)));
            let bias = bias.filter(|next| {
                let others = next.inputs.iter().flatten().filter(|id| **id != result);
                node.is("MatMul") && others.into_iter().all(|id| !reached[id.index()])
            });
            candidate = bias.and_then(|next| next.output(0)).or(Some(result));
            break;
        }
    }
    candidate.filter(|id| *id != output)
}

/// Whether a node's result tells nothing of the elements of its operand.
fn is_of_shape(node: &Node) -> bool {
    node.is("Shape") || node.is("Size")
}

/// Whether `to` can be reached from `from` without passing through `cut`.
fn is_reached_around(graph: &Graph, from: ValueId, cut: ValueId, to: ValueId) -> bool {
    let mut reached = vec![false; graph.value_count()];
    reached[from.index()] = true;
    for node in &graph.nodes {
        if !is_of_shape(node) && graph.reads(node).iter().any(|id| reached[id.index()]) {
            for output in node.outputs.iter().flatten() {
                reached[output.index()] = *output != cut;
            }
        }
    }
    reached[to.index()]
}
