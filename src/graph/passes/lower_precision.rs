//! Heavy operators in half precision, what is delicate in single: what a GPU's matrix units are made for.

use super::declare_shapes;
use crate::graph::{Attribute, Fact, Graph, Node, ValueId};
use crate::onnx::proto::NodeProto;
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};

/// Operators that are computed in low precision: where the arithmetic is, and whose sums are accumulated in single precision.
const HEAVY: &[&str] = &["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// Operators that are computed in low precision where an operand is in low precision already: they move numbers, compare them, or do one
/// operation with each, so that a cast to single precision and back would cost more than it saves.
const LIGHT: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GlobalAveragePool",
    "Identity",
    "LeakyRelu",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Pad",
    "PRelu",
    "Relu",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Sub",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Computes the heavy part of a traced graph of float32 in `low`, float16 or bfloat16.
///
/// Inputs, outputs, losses, reductions, normalisations and exponentials stay float32; a value is cast where it passes from one side to the other,
/// once. Weights are cast too, which ONNX Runtime does once, when it loads the graph. Nodes with subgraphs stay as they are.
/// Declared types follow. Returns how many nodes changed.
pub fn lower_precision(graph: &mut Graph, low: DType) -> usize {
    let outputs = graph.outputs.iter().map(|(id, _)| *id);
    let captured = graph.nodes.iter().flat_map(|node| graph.captured(node));
    let kept = outputs.chain(captured).collect();
    let mut pass = Pass {
        low,
        kept,
        casts: HashMap::new(),
        nodes: Vec::with_capacity(graph.nodes.len()),
    };
    let mut lowered = 0;
    for mut node in std::mem::take(&mut graph.nodes) {
        if pass.lowers(graph, &node) {
            lowered += 1;
            pass.bring(graph, &mut node, DType::F32, low);
            for output in node.outputs.iter().flatten() {
                if let Some(fact) = &mut graph.value_mut(*output).fact
                    && fact.dtype == DType::F32
                {
                    fact.dtype = low;
                }
            }
        } else {
            pass.bring(graph, &mut node, low, DType::F32);
        }
        pass.nodes.push(node);
    }
    graph.nodes = pass.nodes;
    declare_shapes(graph);
    lowered
}

struct Pass {
    low: DType,
    /// What is an output, or is read by a subgraph under its name: these keep their types.
    kept: HashSet<ValueId>,
    /// The cast that was made of a value to a type.
    casts: HashMap<(ValueId, DType), ValueId>,
    nodes: Vec<Node>,
}

impl Pass {
    /// Whether a node is to be computed in low precision.
    fn lowers(&self, graph: &Graph, node: &Node) -> bool {
        let is = |list: &[&str]| list.iter().any(|op_type| node.is(op_type));
        let heavy = is(HEAVY);
        if !(heavy || is(LIGHT))
            || node
                .outputs
                .iter()
                .flatten()
                .any(|id| self.kept.contains(id))
        {
            return false;
        }
        let dtypes = |ids: &[Option<ValueId>]| -> Option<Vec<DType>> {
            let known = ids.iter().flatten().map(|id| Some(graph.fact(*id)?.dtype));
            known.collect()
        };
        let (Some(reads), Some(makes)) = (dtypes(&node.inputs), dtypes(&node.outputs)) else {
            return false;
        };
        let fits = |dtype: &DType| !dtype.is_float() || [DType::F32, self.low].contains(dtype);
        reads.iter().chain(&makes).all(fits)
            && makes.contains(&DType::F32)
            && (heavy || reads.contains(&self.low))
    }

    /// Casts the operands of `node` that are of type `from`.
    fn bring(&mut self, graph: &mut Graph, node: &mut Node, from: DType, to: DType) {
        for operand in node.inputs.iter_mut().flatten() {
            if graph.fact(*operand).is_some_and(|fact| fact.dtype == from) {
                *operand = self.cast(graph, *operand, to);
            }
        }
    }

    fn cast(&mut self, graph: &mut Graph, value: ValueId, to: DType) -> ValueId {
        if let Some(found) = self.casts.get(&(value, to)) {
            return *found;
        }
        let shape = graph
            .fact(value)
            .map(|fact| fact.shape.clone())
            .unwrap_or_default();
        let base = format!("{}/{to}", graph.name(value));
        let cast = graph.fresh(&base);
        graph.value_mut(cast).fact = Some(Fact::new(to, shape));
        let node = cast_node(graph, value, cast, to);
        self.nodes.push(node);
        self.casts.insert((value, to), cast);
        cast
    }
}

fn cast_node(graph: &mut Graph, from: ValueId, to: ValueId, dtype: DType) -> Node {
    let proto = NodeProto {
        op_type: Some("Cast".into()),
        name: Some(graph.fresh_name(&format!("precision/{}", graph.name(to)))),
        attribute: vec![Attribute::Int(dtype.to_onnx().into()).to_proto("to")],
        ..NodeProto::default()
    };
    Node {
        proto,
        inputs: vec![Some(from)],
        outputs: vec![Some(to)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, Dim};
    use crate::onnx::proto::{GraphProto, ModelProto, ValueInfoProto};
    use crate::tensor::Tensor;

    /// y = softmax(relu(x·W)·W), over [N, 2].
    fn layers() -> Graph {
        let mut graph = Graph::from_model(ModelProto {
            graph: Some(GraphProto::default()),
            ..ModelProto::default()
        });
        let x = graph.add_named("x").unwrap();
        let shape = vec![Dim::BATCH, Dim::fixed(2)];
        graph.value_mut(x).fact = Some(Fact::new(DType::F32, shape));
        graph.inputs.push((x, ValueInfoProto::default()));
        let builder = Builder::new(graph);
        let weights = Tensor::new(&[2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap();
        let weights = builder.constant(&weights);
        let x = builder.expr(x).unwrap();
        let hidden = x.matmul(weights).unary("Relu");
        let y = hidden.matmul(weights).unary("Exp").id();
        let mut graph = builder.into_graph();
        graph.outputs.push((y, ValueInfoProto::default()));
        graph
    }

    fn operators(graph: &Graph) -> Vec<(&str, DType)> {
        let made = |node: &Node| graph.fact(node.output(0).unwrap()).unwrap().dtype;
        let nodes = graph.nodes.iter();
        nodes.map(|node| (node.op_type(), made(node))).collect()
    }

    #[test]
    fn products_and_what_lies_between_them_are_lowered_and_each_value_is_cast_once() {
        let mut graph = layers();
        assert_eq!(lower_precision(&mut graph, DType::F16), 3);
        let low = DType::F16;
        assert_eq!(
            operators(&graph),
            [
                ("Cast", low),
                ("Cast", low),
                ("MatMul", low),
                ("Relu", low),
                ("MatMul", low),
                ("Cast", DType::F32),
                ("Exp", DType::F32),
            ]
        );
    }

    #[test]
    fn an_output_keeps_its_type() {
        let mut graph = layers();
        let product = graph.nodes[2].output(0).unwrap();
        graph.outputs.push((product, ValueInfoProto::default()));
        assert_eq!(lower_precision(&mut graph, DType::BF16), 2);
        assert_eq!(graph.fact(product).unwrap().dtype, DType::F32);
    }

    #[test]
    fn other_types_are_left_alone() {
        let mut graph = layers();
        for id in graph.value_ids().collect::<Vec<_>>() {
            if let Some(fact) = &mut graph.value_mut(id).fact {
                fact.dtype = DType::F64;
            }
        }
        let before = graph.nodes.len();
        assert_eq!(lower_precision(&mut graph, DType::F16), 0);
        assert_eq!(graph.nodes.len(), before);
    }
}
