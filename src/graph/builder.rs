//! Extends a graph, node by node.

use super::{Attribute, Dim, Dims, Expr, Fact, Graph, Node, ValueId};
use crate::onnx::{self, proto::NodeProto};
use crate::tensor::{DType, Tensor};
use half::{bf16, f16};
use std::cell::RefCell;
use std::collections::HashMap;

/// Adds nodes to a graph through [`Expr`] handles.
///
/// Nodes that compute the same from the same operands are made once.
#[derive(Debug)]
pub struct Builder {
    state: RefCell<State>,
}

/// Operator, operands and attributes.
type Computation = (String, Vec<Option<ValueId>>, Vec<u8>);

#[derive(Debug)]
struct State {
    graph: Graph,
    scope: String,
    /// The results of the nodes made so far.
    made: HashMap<Computation, Vec<ValueId>>,
    constants: HashMap<(DType, Vec<usize>, Vec<u64>), ValueId>,
    /// What was stretched, by the result.
    stretched: HashMap<ValueId, ValueId>,
}

impl Builder {
    /// Starts from a graph whose values carry facts.
    #[must_use]
    pub fn new(graph: Graph) -> Self {
        let (made, constants, stretched) = (HashMap::new(), HashMap::new(), HashMap::new());
        Builder {
            state: RefCell::new(State {
                graph,
                scope: "mohs".into(),
                made,
                constants,
                stretched,
            }),
        }
    }

    /// The graph with everything that was added.
    #[must_use]
    pub fn into_graph(self) -> Graph {
        self.state.into_inner().graph
    }

    /// Looks at the graph as it is now.
    pub fn with_graph<T>(&self, look: impl FnOnce(&Graph) -> T) -> T {
        look(&self.state.borrow().graph)
    }

    /// Changes the graph by other means than adding nodes.
    pub fn with_graph_mut<T>(&self, change: impl FnOnce(&mut Graph) -> T) -> T {
        change(&mut self.state.borrow_mut().graph)
    }

    /// Sets the prefix of the names of nodes that follow.
    pub fn set_scope(&self, scope: impl Into<String>) {
        self.state.borrow_mut().scope = scope.into();
    }

    /// Notes that `wide` is `narrow` stretched by `Expand`.
    pub(super) fn note_stretched(&self, wide: Expr<'_>, narrow: Expr<'_>) {
        let mut state = self.state.borrow_mut();
        state.stretched.insert(wide.id(), narrow.id());
    }

    /// What an operand of an operator that broadcasts was stretched from; it need not be read at its full size where the others give the shape.
    pub(super) fn before_stretching(&self, wide: Expr<'_>) -> Option<Expr<'_>> {
        let narrow = self.state.borrow().stretched.get(&wide.id()).copied();
        self.expr(narrow?)
    }

    /// The handle for a value, if it has a fact.
    pub fn expr(&self, id: ValueId) -> Option<Expr<'_>> {
        self.with_graph(|graph| graph.fact(id).is_some())
            .then(|| Expr::new(self, id))
    }

    /// What is known of a value that has an [`Expr`].
    #[must_use]
    pub(super) fn fact(&self, id: ValueId) -> Fact {
        self.with_graph(|graph| graph.fact(id).cloned())
            .expect("values with handles have facts")
    }

    /// Adds a node with one result.
    pub fn node(
        &self,
        op_type: &str,
        inputs: &[Expr<'_>],
        attributes: &[(&str, Attribute)],
        fact: Fact,
    ) -> Expr<'_> {
        let inputs: Vec<_> = inputs.iter().map(|input| Some(*input)).collect();
        self.node_with(op_type, &inputs, attributes, vec![fact])[0]
    }

    /// Adds a node with several results, or with optional operands left out.
    pub fn node_with(
        &self,
        op_type: &str,
        inputs: &[Option<Expr<'_>>],
        attributes: &[(&str, Attribute)],
        facts: Vec<Fact>,
    ) -> Vec<Expr<'_>> {
        let inputs: Vec<Option<ValueId>> = inputs.iter().map(|input| input.map(Expr::id)).collect();
        let proto = NodeProto {
            op_type: Some(op_type.into()),
            attribute: attributes
                .iter()
                .map(|(name, attribute)| attribute.to_proto(name))
                .collect(),
            ..NodeProto::default()
        };
        self.add(proto, inputs, facts)
            .into_iter()
            .map(|id| Expr::new(self, id))
            .collect()
    }

    /// Adds a copy of a node with other operands.
    pub fn repeat(
        &self,
        node: &Node,
        inputs: &[Option<Expr<'_>>],
        facts: Vec<Fact>,
    ) -> Vec<Expr<'_>> {
        let inputs = inputs.iter().map(|input| input.map(Expr::id)).collect();
        let proto = NodeProto {
            name: None,
            ..node.proto.clone()
        };
        self.add(proto, inputs, facts)
            .into_iter()
            .map(|id| Expr::new(self, id))
            .collect()
    }

    fn add(
        &self,
        mut proto: NodeProto,
        inputs: Vec<Option<ValueId>>,
        facts: Vec<Fact>,
    ) -> Vec<ValueId> {
        let mut state = self.state.borrow_mut();
        let State {
            graph, scope, made, ..
        } = &mut *state;
        let op_type = proto.op_type.clone().unwrap_or_default();
        let key = (op_type.clone(), inputs.clone(), onnx::encode_node(&proto));
        if let Some(outputs) = made
            .get(&key)
            .filter(|outputs| outputs.len() == facts.len())
        {
            return outputs.clone();
        }
        let name = graph.fresh_name(&format!("{scope}/{op_type}"));
        let mut outputs = Vec::with_capacity(facts.len());
        for (position, fact) in facts.into_iter().enumerate() {
            let id = graph.fresh(&format!("{name}:{position}"));
            graph.value_mut(id).fact = Some(fact);
            outputs.push(id);
        }
        proto.name = Some(name);
        graph.nodes.push(Node {
            proto,
            inputs,
            outputs: outputs.iter().copied().map(Some).collect(),
        });
        made.insert(key, outputs.clone());
        outputs
    }

    /// A constant tensor.
    #[must_use]
    pub fn constant(&self, tensor: &Tensor) -> Expr<'_> {
        let bits = if let Some(integers) = tensor.to_i64() {
            integers.into_iter().map(i64::cast_unsigned).collect()
        } else {
            tensor.to_f64().into_iter().map(f64::to_bits).collect()
        };
        let key = (tensor.dtype(), tensor.shape().to_vec(), bits);
        let mut state = self.state.borrow_mut();
        let State {
            graph,
            constants,
            scope,
            ..
        } = &mut *state;
        let id = *constants
            .entry(key)
            .or_insert_with(|| graph.add_initializer(&format!("{scope}/constant"), tensor));
        drop(state);
        Expr::new(self, id)
    }

    /// A scalar (of rank 0) of a type.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the caller asks for that type"
    )]
    pub fn scalar(&self, dtype: DType, value: f64) -> Expr<'_> {
        let array = |value| ndarray::arr0(value).into_dyn();
        self.constant(&match dtype {
            DType::F64 => Tensor::F64(array(value)),
            DType::F16 => Tensor::F16(ndarray::arr0(f16::from_f64(value)).into_dyn()),
            DType::BF16 => Tensor::BF16(ndarray::arr0(bf16::from_f64(value)).into_dyn()),
            DType::I64 => Tensor::I64(ndarray::arr0(value as i64).into_dyn()),
            DType::I32 => Tensor::I32(ndarray::arr0(value as i32).into_dyn()),
            DType::Bool => Tensor::Bool(ndarray::arr0(value != 0.0).into_dyn()),
            _ => Tensor::F32(ndarray::arr0(value as f32).into_dyn()),
        })
    }

    /// A list of 64-bit integers.
    #[must_use]
    pub fn ints(&self, values: &[i64]) -> Expr<'_> {
        self.constant(&Tensor::I64(
            ndarray::Array1::from(values.to_vec()).into_dyn(),
        ))
    }

    /// The extents as a tensor of 64-bit integers: a constant where none of them follows the batch, else computed from the batch size.
    #[must_use]
    pub fn extents(&self, shape: &[Dim]) -> Expr<'_> {
        if let Some(fixed) = shape
            .iter()
            .map(|dim| dim.extent())
            .collect::<Option<Vec<_>>>()
        {
            return self.ints(&fixed);
        }
        let batch = self.batch();
        let part = |dim: &Dim| match dim.extent() {
            Some(extent) => self.ints(&[extent]),
            None => batch.scaled(dim.per_sample, dim.fixed),
        };
        let parts: Vec<_> = shape.iter().map(part).collect();
        Expr::concat(&parts, 0)
    }

    /// The batch size N: int64 `[1]`.
    ///
    /// # Panics
    /// Where no input of the graph follows the batch; then no extent does either.
    #[must_use]
    pub fn batch(&self) -> Expr<'_> {
        let source = self.with_graph(|graph| {
            graph.inputs.iter().find_map(|(id, _)| {
                let shape = &graph.fact(*id)?.shape;
                shape
                    .iter()
                    .position(|dim| *dim == Dim::BATCH)
                    .map(|axis| (*id, axis))
            })
        });
        let (id, axis) = source.expect("an extent follows the batch only if an input does");
        #[expect(clippy::cast_possible_wrap, reason = "ranks are small")]
        let axis = axis as i64;
        let range = [
            ("start", Attribute::Int(axis)),
            ("end", Attribute::Int(axis + 1)),
        ];
        self.node(
            "Shape",
            &[Expr::new(self, id)],
            &range,
            Fact::new(DType::I64, vec![Dim::ONE]),
        )
    }

    /// A tensor with the same number everywhere.
    #[must_use]
    pub fn full(&self, dtype: DType, shape: &[Dim], value: f64) -> Expr<'_> {
        let shape: Dims = shape.to_vec();
        let extents = self.extents(&shape);
        self.node(
            "Expand",
            &[self.scalar(dtype, value), extents],
            &[],
            Fact::new(dtype, shape),
        )
    }
}
