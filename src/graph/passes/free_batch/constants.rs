//! Replaces constants that hold the pinned batch size.

use super::places::{Constants, Place, View, extents};
use crate::graph::{Attribute, Attributes, Graph, Node, ValueId};
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::tensor::Tensor;

/// Frees the constants that the nodes on the way of the batch take; returns the names of these nodes.
pub(super) fn free(
    graph: &mut Graph,
    inputs: &[ValueId],
    follows: &[bool],
    pinned: i64,
) -> Vec<String> {
    let constants = Constants::of(graph);
    let mut places = vec![None; graph.value_count()];
    for input in inputs {
        places[input.index()] = Some(Place::on(0));
    }
    let mut freed = Vec::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        let mut operands = node.inputs.iter().flatten();
        if operands.any(|id| follows.get(id.index()) == Some(&true)) {
            for (position, output) in node.outputs.iter().enumerate() {
                let view = View {
                    graph,
                    constants: &constants,
                    places: &places,
                    pinned,
                };
                let place = view.place_of(&node, position);
                if let Some(output) = output {
                    places[output.index()] = place;
                }
            }
            let mut site = Site {
                graph,
                constants: &constants,
                places: &places,
                sample: inputs.first().copied(),
                pinned,
            };
            if site.free(&mut node).is_some() {
                freed.push(label(graph, &node));
            }
        }
        graph.nodes.push(node);
    }
    freed
}

/// A node's name, or that of its first result where it has none.
fn label(graph: &Graph, node: &Node) -> String {
    let name = node.proto.name.clone().filter(|name| !name.is_empty());
    let result = || node.output(0).map(|id| graph.name(id).to_owned());
    name.or_else(result).unwrap_or_default()
}

/// A node on the way of the batch, and what is known around it.
struct Site<'a> {
    graph: &'a mut Graph,
    constants: &'a Constants,
    places: &'a [Option<Place>],
    /// An input whose first axis is the batch.
    sample: Option<ValueId>,
    pinned: i64,
}

impl Site<'_> {
    /// Where a value has the batch.
    fn of(&self, id: Option<ValueId>) -> Option<Place> {
        self.places.get(id?.index()).copied().flatten()
    }

    /// Changes a node so that it works with any batch; `None` where nothing has to be changed, or can be.
    fn free(&mut self, node: &mut Node) -> Option<()> {
        if !node.domain().is_empty() {
            return None;
        }
        match node.op_type() {
            "Reshape" => self.reshape(node),
            "Resize" => self.resize(node),
            "Expand" => self.expand(node),
            "Concat" => self.concat(node),
            "RNN" | "GRU" | "LSTM" => self.initial_states(node),
            _ => None,
        }
    }

    fn integers(&self, node: &Node, position: usize) -> Option<Vec<i64>> {
        self.constants
            .tensor(self.graph, node.input(position)?)?
            .to_i64()
    }

    /// A new list in the place of an operand.
    fn replace(&mut self, node: &mut Node, position: usize, values: Vec<i64>) -> Option<()> {
        let base = format!("{}/free", self.graph.name(node.input(position)?));
        node.inputs[position] = Some(self.ints(&base, values));
        Some(())
    }

    fn ints(&mut self, base: &str, values: Vec<i64>) -> ValueId {
        let values = ndarray::Array1::from(values).into_dyn();
        self.graph.add_initializer(base, &Tensor::I64(values))
    }

    /// Puts −1 where the target has the batch, and numbers where it had −1 before.
    fn reshape(&mut self, node: &mut Node) -> Option<()> {
        let from = self.of(node.input(0)).map(|place| place.axis);
        let to = self.of(node.output(0))?.axis;
        let mut wanted = self.integers(node, 1)?;
        let given = *wanted.get(to)?;
        let copies = node.int("allowzero") != Some(1);
        if given == -1 || (given == 0 && copies && from == Some(to)) {
            return None;
        }
        let shown = node
            .output(0)
            .and_then(|output| extents(self.graph, output));
        match shown {
            Some(shown) if shown.len() == wanted.len() => {
                for (axis, extent) in wanted.iter_mut().enumerate() {
                    // 0 stands for the operand's extent; on the axis of the batch that is no longer the same.
                    if *extent == -1 || (*extent == 0 && copies && from == Some(axis)) {
                        *extent = shown[axis];
                    }
                }
                wanted[to] = -1;
            }
            // No shapes are known: only what is plainly the batch is replaced.
            _ if given != self.pinned || from != Some(to) => return None,
            _ if !wanted.contains(&-1) => wanted[to] = -1,
            _ if copies => wanted[to] = 0,
            _ => return None,
        }
        self.replace(node, 1, wanted)
    }

    /// Sizes for all axes get that of the batch from the operand.
    fn resize(&mut self, node: &mut Node) -> Option<()> {
        let place = self.of(node.output(0))?.axis;
        let sizes = self.integers(node, 3)?;
        if node.ints("axes").is_some() || sizes.get(place) != Some(&self.pinned) {
            return None;
        }
        let base = self.graph.name(node.input(3)?).to_owned();
        let sizes = self.with_batch(&base, &sizes[..place], &sizes[place + 1..])?;
        node.inputs[3] = Some(sizes);
        Some(())
    }

    /// 1 stretches nothing: the operand has the batch already.
    fn expand(&mut self, node: &mut Node) -> Option<()> {
        let place = self.of(node.output(0))?.axis;
        self.of(node.input(0))?;
        let mut target = self.integers(node, 1)?;
        let length = target.len();
        let shown = node.output(0).and_then(|id| self.graph.fact(id));
        let rank = shown.map_or(length, |fact| fact.shape.len());
        let extent = target.get_mut((place + length).checked_sub(rank)?)?;
        if self.pinned == 1 || *extent != self.pinned {
            return None;
        }
        *extent = 1;
        self.replace(node, 1, target)
    }

    /// An operand that is the same for every sample (a class token) is repeated for each.
    fn concat(&mut self, node: &mut Node) -> Option<()> {
        let mut operands = node.inputs.iter().copied();
        let place = operands
            .find_map(|id| self.of(id))
            .filter(|place| place.outer == 1)?;
        let joined = node.int("axis")?;
        let mut changed = None;
        for position in 0..node.inputs.len() {
            let operand = node
                .input(position)
                .filter(|id| self.of(Some(*id)).is_none());
            if let Some(repeated) = operand.and_then(|id| self.repeat(id, place.axis, joined)) {
                node.inputs[position] = Some(repeated);
                changed = Some(());
            }
        }
        changed
    }

    /// The initial states, [directions, n, hidden], are repeated for each sample.
    fn initial_states(&mut self, node: &mut Node) -> Option<()> {
        self.of(node.input(0))?;
        let mut changed = None;
        for position in [5, 6] {
            let state = node.input(position);
            if let Some(repeated) = state.and_then(|id| self.repeat(id, 1, 0)) {
                node.inputs[position] = Some(repeated);
                changed = Some(());
            }
        }
        changed
    }

    /// Adds nodes that repeat a constant with extent 1 on `axis` for each sample; not along the axis `joined`.
    fn repeat(&mut self, constant: ValueId, axis: usize, joined: i64) -> Option<ValueId> {
        let tensor = self.constants.tensor(self.graph, constant)?;
        let rank = tensor.shape().len();
        let front = i64::try_from(axis).ok()?;
        let is_joined = joined == front || joined + i64::try_from(rank).ok()? == front;
        if self.pinned != 1 || is_joined || tensor.shape().get(axis) != Some(&1) {
            return None;
        }
        // Extents of 1 stretch nothing: only the axis of the batch matters.
        let base = self.graph.name(constant).to_owned();
        let target = self.with_batch(&base, &vec![1; axis], &vec![1; rank - axis - 1])?;
        Some(self.add(&base, "Expand", vec![constant, target], Vec::new()))
    }

    /// A list of extents with the batch size in between, which is taken from an input when the model runs.
    fn with_batch(&mut self, base: &str, front: &[i64], back: &[i64]) -> Option<ValueId> {
        let shape = self.add(base, "Shape", vec![self.sample?], Vec::new());
        let axis = self.ints(&format!("{base}/axis"), vec![0]);
        let zero = || vec![Attribute::Int(0).to_proto("axis")];
        let batch = self.add(base, "Gather", vec![shape, axis], zero());
        let mut parts = vec![batch];
        if !front.is_empty() {
            parts.insert(0, self.ints(&format!("{base}/front"), front.to_vec()));
        }
        if !back.is_empty() {
            parts.push(self.ints(&format!("{base}/back"), back.to_vec()));
        }
        Some(self.add(base, "Concat", parts, zero()))
    }

    fn add(
        &mut self,
        base: &str,
        op_type: &str,
        inputs: Vec<ValueId>,
        attribute: Vec<AttributeProto>,
    ) -> ValueId {
        let name = self.graph.fresh_name(&format!("{base}/{op_type}"));
        let output = self.graph.fresh(&format!("{name}:0"));
        let proto = NodeProto {
            op_type: Some(op_type.into()),
            name: Some(name),
            attribute,
            ..NodeProto::default()
        };
        self.graph.nodes.push(Node {
            proto,
            inputs: inputs.into_iter().map(Some).collect(),
            outputs: vec![Some(output)],
        });
        output
    }
}
