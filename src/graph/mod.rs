//! The computation graph of a model: nodes over values, with what running the model has shown of each value.
//!
//! [`Graph::from_model`] and [`Graph::to_model`] convert without loss; [`Builder`] and [`Expr`] extend a graph; [`passes`] rewrite it.
//! Operators that mohs does not know are nodes like any other.
//! Nothing here runs a graph.

pub mod attribute;
mod builder;
mod expr;
pub mod passes;
mod shape;
mod sweep;

pub use attribute::{Attribute, Attributes};
pub use builder::Builder;
pub use expr::{Expr, Operand};
pub use shape::{Dim, Dims, Fact, broadcast};
pub use sweep::{Entries, Sweep, Swept};

use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::onnx::{from_tensor, to_tensor};
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// Names a value within its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    /// The value's position in tables that have a place for each value.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tensor that flows through the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The name in the file.
    pub name: String,
    /// What running the model has shown.
    pub fact: Option<Fact>,
    /// The elements, where the value is an initializer.
    pub initializer: Option<TensorProto>,
}

/// An application of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Operator, name and attributes; its own `input` and `output` lists are empty.
    pub proto: NodeProto,
    /// The operands; `None` for an optional one that is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// The results; `None` for an optional one that is left out.
    pub outputs: Vec<Option<ValueId>>,
}

impl Node {
    /// The operator.
    #[must_use]
    pub fn op_type(&self) -> &str {
        self.proto.op_type.as_deref().unwrap_or_default()
    }

    /// The operator's domain; empty for the standard one, however the file spells it.
    #[must_use]
    pub fn domain(&self) -> &str {
        match self.proto.domain.as_deref().unwrap_or_default() {
            "ai.onnx" => "",
            domain => domain,
        }
    }

    /// Whether this is the standard operator of that name.
    #[must_use]
    pub fn is(&self, op_type: &str) -> bool {
        self.op_type() == op_type && self.domain().is_empty()
    }

    /// The operand at a position, where there is one.
    #[must_use]
    pub fn input(&self, position: usize) -> Option<ValueId> {
        self.inputs.get(position).copied().flatten()
    }

    /// The result at a position, where there is one.
    #[must_use]
    pub fn output(&self, position: usize) -> Option<ValueId> {
        self.outputs.get(position).copied().flatten()
    }
}

impl Attributes for Node {
    fn attribute(&self, name: &str) -> Option<&crate::onnx::proto::AttributeProto> {
        self.proto.attribute(name)
    }
}

/// A model's graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The model without its nodes, initializers, inputs and outputs.
    pub model: ModelProto,
    /// The nodes, each after those whose results it takes.
    pub nodes: Vec<Node>,
    /// The declared inputs.
    pub inputs: Vec<(ValueId, ValueInfoProto)>,
    /// The declared outputs.
    pub outputs: Vec<(ValueId, ValueInfoProto)>,
    /// The initializers, in the file's order.
    pub initializers: Vec<ValueId>,
    /// The branches of `If` nodes, by the node's first result, as graphs of their own whose inputs are what they take from outside; tracing
    /// puts them here.
    pub branches: HashMap<ValueId, Vec<Graph>>,
    values: Vec<Value>,
    by_name: HashMap<String, ValueId>,
    /// Names that are used inside subgraphs, and the names of nodes: new names keep clear of them.
    reserved: HashSet<String>,
}

impl Graph {
    /// The graph of a model.
    #[must_use]
    pub fn from_model(mut model: ModelProto) -> Self {
        let proto = model.graph.take().unwrap_or_default();
        let mut graph = Graph {
            nodes: Vec::with_capacity(proto.node.len()),
            inputs: Vec::new(),
            outputs: Vec::new(),
            initializers: Vec::new(),
            branches: HashMap::new(),
            values: Vec::new(),
            by_name: HashMap::new(),
            reserved: HashSet::new(),
            model,
        };
        for info in proto.input {
            let id = graph.value_named(info.name.as_deref().unwrap_or_default());
            graph.inputs.push((id, info));
        }
        for tensor in proto.initializer {
            let id = graph.value_named(tensor.name.as_deref().unwrap_or_default());
            graph.values[id.index()].initializer = Some(tensor);
            graph.initializers.push(id);
        }
        for mut node in proto.node {
            let inputs = std::mem::take(&mut node.input);
            let outputs = std::mem::take(&mut node.output);
            graph.reserved.extend(node.name.clone());
            reserve_inner_names(&node, &mut graph.reserved);
            let inputs = inputs
                .iter()
                .map(|name| graph.optional_value(name))
                .collect();
            let outputs = outputs
                .iter()
                .map(|name| graph.optional_value(name))
                .collect();
            graph.nodes.push(Node {
                proto: node,
                inputs,
                outputs,
            });
        }
        for info in proto.output {
            let id = graph.value_named(info.name.as_deref().unwrap_or_default());
            graph.outputs.push((id, info));
        }
        graph.model.graph = Some(GraphProto {
            node: Vec::new(),
            initializer: Vec::new(),
            input: Vec::new(),
            output: Vec::new(),
            ..proto
        });
        graph
    }

    /// The model of this graph; the one it came from, where nothing was changed.
    #[must_use]
    pub fn to_model(&self) -> ModelProto {
        let name =
            |id: &Option<ValueId>| id.map_or_else(String::new, |id| self.name(id).to_owned());
        let node = |node: &Node| NodeProto {
            input: node.inputs.iter().map(name).collect(),
            output: node.outputs.iter().map(name).collect(),
            ..node.proto.clone()
        };
        let initializer = |id: &ValueId| self.value(*id).initializer.clone();
        let shell = self.model.graph.clone().unwrap_or_default();
        ModelProto {
            graph: Some(GraphProto {
                node: self.nodes.iter().map(node).collect(),
                initializer: self.initializers.iter().filter_map(initializer).collect(),
                input: self.inputs.iter().map(|(_, info)| info.clone()).collect(),
                output: self.outputs.iter().map(|(_, info)| info.clone()).collect(),
                ..shell
            }),
            ..self.model.clone()
        }
    }

    /// The version of the standard operator set that the model asks for.
    #[must_use]
    pub fn opset(&self) -> i64 {
        let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let mut imports = self.model.opset_import.iter();
        let import = imports.find(|import| standard(import.domain.as_deref().unwrap_or_default()));
        import.and_then(|import| import.version).unwrap_or(1)
    }

    /// A value.
    #[must_use]
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// A value, to be changed.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    /// The number of values.
    #[must_use]
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Every value.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        #[expect(clippy::cast_possible_truncation, reason = "ids are made from u32")]
        (0..self.values.len() as u32).map(ValueId)
    }

    /// A value's name.
    #[must_use]
    pub fn name(&self, id: ValueId) -> &str {
        &self.value(id).name
    }

    /// What is known of a value.
    #[must_use]
    pub fn fact(&self, id: ValueId) -> Option<&Fact> {
        self.value(id).fact.as_ref()
    }

    /// The value of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.by_name.get(name).copied()
    }

    /// The elements of a value that is the same in every run: an initializer that no input overrides, or known by running the model.
    #[must_use]
    pub fn constant(&self, id: ValueId) -> Option<Tensor> {
        let value = self.value(id);
        match &value.initializer {
            Some(_) if self.inputs.iter().any(|(input, _)| *input == id) => None,
            Some(tensor) => to_tensor(tensor).ok(),
            None => value.fact.as_ref()?.known.clone(),
        }
    }

    /// Makes a value with a name that nothing has yet: `base`, or `base` with a number.
    pub fn fresh(&mut self, base: &str) -> ValueId {
        let name = self.fresh_name(base);
        self.add_value(name)
    }

    /// Makes a value with exactly this name; `None` where there is one.
    pub fn add_named(&mut self, name: &str) -> Option<ValueId> {
        self.find(name).is_none().then(|| {
            self.reserved.insert(name.to_owned());
            self.add_value(name.to_owned())
        })
    }

    /// A name that no value, node or subgraph has yet; it counts as used from then on.
    pub fn fresh_name(&mut self, base: &str) -> String {
        let taken = |name: &str| self.by_name.contains_key(name) || self.reserved.contains(name);
        let name = if base.is_empty() || taken(base) {
            let mut numbered = (1u32..).map(|number| format!("{base}_{number}"));
            numbered.find(|name| !taken(name)).unwrap_or_default()
        } else {
            base.to_owned()
        };
        self.reserved.insert(name.clone());
        name
    }

    /// Adds an initializer with a fresh name.
    pub fn add_initializer(&mut self, base: &str, tensor: &Tensor) -> ValueId {
        let id = self.fresh(base);
        self.set_initializer(id, tensor);
        id
    }

    /// Makes a value an initializer with these elements.
    pub fn set_initializer(&mut self, id: ValueId, tensor: &Tensor) {
        let proto = from_tensor(self.name(id), tensor);
        if self.value(id).initializer.is_none() {
            self.initializers.push(id);
        }
        #[expect(
            clippy::cast_possible_wrap,
            reason = "no tensor in memory has 2⁶³ elements"
        )]
        let shape = tensor
            .shape()
            .iter()
            .map(|&extent| Dim::fixed(extent as i64))
            .collect();
        let value = self.value_mut(id);
        value.initializer = Some(proto);
        value.fact = Some(Fact::new(tensor.dtype(), shape));
    }

    /// Gives an inner value another name; `false` where a subgraph uses the old one.
    pub fn rename(&mut self, id: ValueId, base: &str) -> bool {
        let old = self.name(id).to_owned();
        if self.reserved.contains(&old) && self.nodes.iter().any(|node| captures(node, &old)) {
            return false;
        }
        let name = self.fresh_name(base);
        self.by_name.remove(&old);
        self.reserved.remove(&old);
        self.by_name.insert(name.clone(), id);
        if let Some(tensor) = &mut self.value_mut(id).initializer {
            tensor.name = Some(name.clone());
        }
        self.value_mut(id).name = name;
        true
    }

    /// The position of the node that makes each value, by [`ValueId::index`].
    #[must_use]
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = vec![None; self.values.len()];
        for (position, node) in self.nodes.iter().enumerate() {
            for output in node.outputs.iter().flatten() {
                producers[output.index()] = Some(position);
            }
        }
        producers
    }

    /// The values that a node reads: its operands, and what its subgraphs take from outside.
    #[must_use]
    pub fn reads(&self, node: &Node) -> Vec<ValueId> {
        let mut reads: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        reads.extend(self.captured(node));
        reads
    }

    /// The values that a node's subgraphs take from outside.
    #[must_use]
    pub fn captured(&self, node: &Node) -> Vec<ValueId> {
        let mut names = HashSet::new();
        reserve_inner_names(&node.proto, &mut names);
        let mut captured: Vec<ValueId> = names.iter().filter_map(|name| self.find(name)).collect();
        captured.sort_unstable();
        captured
    }

    /// Whether each value depends on the elements of an input, not merely on its shape, by [`ValueId::index`].
    #[must_use]
    pub fn depends_on_data(&self) -> Vec<bool> {
        let mut depends = vec![false; self.values.len()];
        for (id, _) in self.real_inputs() {
            depends[id.index()] = true;
        }
        for node in &self.nodes {
            let shape_only = node.is("Shape") || node.is("Size");
            let reads = || self.reads(node).iter().any(|id| depends[id.index()]);
            if draws(node.op_type()) || (!shape_only && reads()) {
                for output in node.outputs.iter().flatten() {
                    depends[output.index()] = true;
                }
            }
        }
        depends
    }

    /// The inputs that are no initializers: what a run has to be given.
    pub fn real_inputs(&self) -> impl Iterator<Item = &(ValueId, ValueInfoProto)> {
        self.inputs
            .iter()
            .filter(|(id, _)| self.value(*id).initializer.is_none())
    }

    fn optional_value(&mut self, name: &str) -> Option<ValueId> {
        (!name.is_empty()).then(|| self.value_named(name))
    }

    fn value_named(&mut self, name: &str) -> ValueId {
        self.find(name)
            .unwrap_or_else(|| self.add_value(name.to_owned()))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a graph of 2³² values does not fit into memory"
    )]
    fn add_value(&mut self, name: String) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.by_name.insert(name.clone(), id);
        self.values.push(Value {
            name,
            fact: None,
            initializer: None,
        });
        id
    }
}

/// Whether an operator draws random numbers.
fn draws(op_type: &str) -> bool {
    op_type.starts_with("Random") || op_type == "Bernoulli" || op_type == "Multinomial"
}

/// The names that a subgraph takes from outside, at any depth, in the order in which they are met.
#[must_use]
pub fn names_from_outside(graph: &GraphProto) -> Vec<String> {
    let mut own: HashSet<&str> = graph
        .input
        .iter()
        .filter_map(|info| info.name.as_deref())
        .collect();
    own.extend(
        graph
            .initializer
            .iter()
            .filter_map(|tensor| tensor.name.as_deref()),
    );
    own.extend(
        graph
            .node
            .iter()
            .flat_map(|node| &node.output)
            .map(String::as_str),
    );
    let mut used: Vec<String> = Vec::new();
    for node in &graph.node {
        used.extend(node.input.iter().cloned());
        let attributes = node.attribute.iter();
        let inner = attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        used.extend(inner.flat_map(names_from_outside));
    }
    used.extend(graph.output.iter().filter_map(|info| info.name.clone()));
    let mut seen = HashSet::new();
    used.retain(|name| {
        !name.is_empty() && !own.contains(name.as_str()) && seen.insert(name.clone())
    });
    used
}

/// Whether a subgraph of the node uses a name.
fn captures(node: &Node, name: &str) -> bool {
    let mut names = HashSet::new();
    reserve_inner_names(&node.proto, &mut names);
    names.contains(name)
}

/// Collects every name that the subgraphs of a node use.
fn reserve_inner_names(node: &NodeProto, names: &mut HashSet<String>) {
    let attributes = node.attribute.iter();
    for graph in attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
        for inner in &graph.node {
            names.extend(
                inner
                    .input
                    .iter()
                    .chain(&inner.output)
                    .chain(&inner.name)
                    .cloned(),
            );
            reserve_inner_names(inner, names);
        }
        names.extend(
            graph
                .initializer
                .iter()
                .filter_map(|tensor| tensor.name.clone()),
        );
        names.extend(graph.output.iter().filter_map(|info| info.name.clone()));
    }
    names.remove("");
}
