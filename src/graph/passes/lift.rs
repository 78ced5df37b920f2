//! Brings models of opset 7 to 17 to opset 18, so that there is one form of each operator.
//!
//! [`lift`] walks the model's graph, its subgraphs and its functions; [`forms`] says what becomes of each operator whose definition changed
//! in between; [`known`] keeps what the file declares of types and shapes, since nothing has been run yet.
//! Operators of other domains pass through.

mod forms;
mod known;
mod names;
mod resampling;

use crate::graph::{Attribute, Attributes, Graph};
use crate::onnx::from_tensor;
use crate::onnx::proto::{
    AttributeProto, AttributeType, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use crate::tensor::{DType, Tensor};
pub(super) use forms::constant_tensor;
use half::{bf16, f16};
use known::Known;
use names::Names;
use ndarray::{ArrayD, arr0};
use std::collections::HashSet;

/// The oldest opset that is lifted.
pub const OLDEST_OPSET: i64 = 7;
/// The opset that older models are brought to.
pub const LIFTED_OPSET: i64 = 18;
/// The IR version that goes with [`LIFTED_OPSET`]; from 4 on, initializers need not be inputs.
const LIFTED_IR_VERSION: i64 = 8;

/// Why a model cannot be lifted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiftError {
    /// The model is too old.
    #[error(
        "{what} is of opset {opset}, and mohs reads opset {OLDEST_OPSET} and later; export the model again with opset 13 or later"
    )]
    TooOld {
        /// The model or one of its functions.
        what: String,
        /// Its opset.
        opset: i64,
    },
    /// An operator is used in a way that has no counterpart in opset 18.
    #[error(
        "{op_type} (node `{node}`) of opset {opset}: {reason}; export the model again with opset 13 or later"
    )]
    Form {
        /// The operator.
        op_type: String,
        /// The node's name.
        node: String,
        /// The opset that the node is of.
        opset: i64,
        /// What has no counterpart.
        reason: String,
    },
}

/// Brings a model of opset 7 to 17 to opset 18; a later one keeps its opset.
///
/// The model computes the same afterwards, and keeps the names of its inputs, outputs and intermediate values.
/// `Constant` nodes become initializers, whatever the opset.
/// In a file of IR version 3 every initializer is also an input, without being meant as one; those inputs go.
/// Handles from before are void afterwards, and facts are gone.
///
/// # Errors
/// Where the model or a function in it is older than opset 7, or uses an operator in a way that opset 18 does not have; the graph is
/// unchanged then.
pub fn lift(graph: &mut Graph) -> Result<(), LiftError> {
    let mut model = graph.to_model();
    lift_model(&mut model)?;
    *graph = Graph::from_model(model);
    Ok(())
}

fn lift_model(model: &mut ModelProto) -> Result<(), LiftError> {
    let opset = raise_opset(&mut model.opset_import, || "the model".into())?;
    let mut names = Names::of(model);
    for function in &mut model.functions {
        lift_function(function, &mut names)?;
    }
    let training = model.training_info.iter_mut();
    let training =
        training.flat_map(|info| info.initialization.iter_mut().chain(&mut info.algorithm));
    for graph in model.graph.iter_mut().chain(training) {
        lift_graph(graph, opset, &Known::default(), &mut names)?;
    }
    if model.ir_version.unwrap_or_default() < 4
        && let Some(graph) = &mut model.graph
    {
        let initializers = graph
            .initializer
            .iter()
            .filter_map(|tensor| tensor.name.as_deref());
        let initializers: HashSet<&str> = initializers.collect();
        let is_real = |info: &ValueInfoProto| !initializers.contains(name_of(info));
        graph.input.retain(is_real);
    }
    model.ir_version = model.ir_version.max(Some(LIFTED_IR_VERSION));
    Ok(())
}

fn name_of(info: &ValueInfoProto) -> &str {
    info.name.as_deref().unwrap_or_default()
}

/// Sets the import of the standard operators to at least opset 18; returns what it was.
fn raise_opset(
    imports: &mut Vec<OperatorSetIdProto>,
    what: impl Fn() -> String,
) -> Result<i64, LiftError> {
    let standard = |import: &&mut OperatorSetIdProto| {
        matches!(import.domain.as_deref().unwrap_or_default(), "" | "ai.onnx")
    };
    let Some(import) = imports.iter_mut().find(standard) else {
        imports.push(OperatorSetIdProto {
            domain: None,
            version: Some(LIFTED_OPSET),
        });
        return Ok(LIFTED_OPSET);
    };
    let opset = import.version.unwrap_or(1);
    if opset < OLDEST_OPSET {
        return Err(LiftError::TooOld {
            what: what(),
            opset,
        });
    }
    import.version = Some(opset.max(LIFTED_OPSET));
    Ok(opset)
}

fn lift_graph(
    graph: &mut GraphProto,
    opset: i64,
    outer: &Known<'_>,
    names: &mut Names,
) -> Result<(), LiftError> {
    let mut scope = Scope {
        opset,
        known: Known::inside(outer, graph),
        names,
        outputs: graph
            .output
            .iter()
            .map(|info| name_of(info).to_owned())
            .collect(),
        in_function: false,
        nodes: Vec::with_capacity(graph.node.len()),
        initializers: Vec::new(),
    };
    for node in std::mem::take(&mut graph.node) {
        scope.lift_node(node)?;
    }
    graph.node = scope.nodes;
    graph.initializer.extend(scope.initializers);
    Ok(())
}

fn lift_function(function: &mut FunctionProto, names: &mut Names) -> Result<(), LiftError> {
    let name = function.name.clone().unwrap_or_default();
    let opset = raise_opset(&mut function.opset_import, || {
        format!("its function `{name}`")
    })?;
    let mut scope = Scope {
        opset,
        known: Known::default(),
        names,
        outputs: function.output.iter().cloned().collect(),
        in_function: true,
        nodes: Vec::with_capacity(function.node.len()),
        initializers: Vec::new(),
    };
    for node in std::mem::take(&mut function.node) {
        scope.lift_node(node)?;
    }
    function.node = scope.nodes;
    Ok(())
}

/// One graph or function body on its way.
struct Scope<'a> {
    /// The opset that the nodes come from.
    opset: i64,
    known: Known<'a>,
    names: &'a mut Names,
    outputs: HashSet<String>,
    /// A function has no initializers: its constants are nodes.
    in_function: bool,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Scope<'_> {
    /// Lifts what is inside a node, then the node.
    fn lift_node(&mut self, mut node: NodeProto) -> Result<(), LiftError> {
        for attribute in &mut node.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                lift_graph(graph, self.opset, &self.known, self.names)?;
            }
        }
        if !matches!(node.domain.as_deref().unwrap_or_default(), "" | "ai.onnx") {
            self.nodes.push(node);
            return Ok(());
        }
        self.known.infer(&node);
        forms::lift_form(self, node)
    }

    /// The error for a node that has no counterpart.
    fn refuse(&self, node: &NodeProto, reason: &str) -> LiftError {
        LiftError::Form {
            op_type: op_type(node).into(),
            node: label(node).into(),
            opset: self.opset,
            reason: reason.into(),
        }
    }

    /// Adds a node that has no counterpart in the file; returns the name of its result.
    fn add(
        &mut self,
        of: &NodeProto,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let base = format!("lift/{}/{op_type}", label(of));
        let output = self.names.fresh(&format!("{base}:0"));
        self.add_to(of, op_type, inputs, attributes, &output);
        output
    }

    /// Adds a node that makes a value of the file.
    fn add_to(
        &mut self,
        of: &NodeProto,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
        output: &str,
    ) {
        let name = self.names.fresh(&format!("lift/{}/{op_type}", label(of)));
        self.nodes.push(NodeProto {
            name: Some(name),
            op_type: Some(op_type.into()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    /// A constant, named after the node that takes it.
    fn constant(&mut self, of: &NodeProto, role: &str, tensor: &Tensor) -> String {
        let name = self.names.fresh(&format!("lift/{}/{role}", label(of)));
        let proto = from_tensor(&name, tensor);
        self.known.add_tensor(&name, &proto);
        if self.in_function {
            let value = Attribute::Tensor(Box::new(proto)).to_proto("value");
            self.add_to(of, "Constant", &[], vec![value], &name);
        } else {
            self.initializers.push(proto);
        }
        name
    }

    fn ints(&mut self, of: &NodeProto, role: &str, values: &[i64]) -> String {
        let values = ndarray::Array1::from(values.to_vec()).into_dyn();
        self.constant(of, role, &Tensor::I64(values))
    }

    /// A float of rank 0 in the type of the value `like`.
    fn float(&mut self, of: &NodeProto, role: &str, value: f32, like: &str) -> String {
        let tensor = match self.known.dtype(like) {
            Some(DType::F64) => Tensor::F64(scalar(f64::from(value))),
            Some(DType::F16) => Tensor::F16(scalar(f16::from_f32(value))),
            Some(DType::BF16) => Tensor::BF16(scalar(bf16::from_f32(value))),
            _ => Tensor::F32(scalar(value)),
        };
        let known = self.known.dtype(like).is_some();
        let name = self.constant(of, role, &tensor);
        if known {
            name
        } else {
            self.add(of, "CastLike", &[&name, like], Vec::new())
        }
    }

    /// A list of integers that was an attribute, as a value; `None` where there is none.
    fn ints_of(&mut self, node: &NodeProto, attribute: &str) -> Option<String> {
        let proto = node.attribute(attribute)?;
        if let Some(parameter) = &proto.ref_attr_name {
            return Some(self.parameter(node, "value_ints", AttributeType::Ints, parameter));
        }
        Some(self.ints(node, attribute, &proto.ints))
    }

    /// A float that was an attribute, as a value in the type of the node's first operand; `None` where there is none.
    fn float_of(&mut self, node: &NodeProto, attribute: &str) -> Option<String> {
        let proto = node.attribute(attribute)?;
        let like = node.input.first().cloned().unwrap_or_default();
        if let Some(parameter) = &proto.ref_attr_name {
            let value = self.parameter(node, "value_float", AttributeType::Float, parameter);
            return Some(self.add(node, "CastLike", &[&value, &like], Vec::new()));
        }
        Some(self.float(node, attribute, proto.f.unwrap_or_default(), &like))
    }

    /// A parameter of the function around, as a value.
    fn parameter(
        &mut self,
        of: &NodeProto,
        form: &str,
        kind: AttributeType,
        parameter: &str,
    ) -> String {
        let attribute = AttributeProto {
            name: Some(form.into()),
            r#type: Some(kind as i32),
            ref_attr_name: Some(parameter.into()),
            ..AttributeProto::default()
        };
        self.add(of, "Constant", &[], vec![attribute])
    }
}

fn scalar<T>(value: T) -> ArrayD<T> {
    arr0(value).into_dyn()
}

fn op_type(node: &NodeProto) -> &str {
    node.op_type.as_deref().unwrap_or_default()
}

/// A node's name, or that of its first result where it has none.
fn label(node: &NodeProto) -> &str {
    let name = node.name.as_deref().filter(|name| !name.is_empty());
    name.or(node.output.first().map(String::as_str))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(opset: i64, ir_version: i64, nodes: Vec<NodeProto>) -> ModelProto {
        let value = |name: &str| ValueInfoProto {
            name: Some(name.into()),
            ..ValueInfoProto::default()
        };
        let weight = Tensor::new(&[1], vec![2.0f32]).unwrap();
        ModelProto {
            ir_version: Some(ir_version),
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(opset),
            }],
            graph: Some(GraphProto {
                node: nodes,
                input: vec![value("x"), value("w")],
                output: vec![value("y")],
                initializer: vec![from_tensor("w", &weight)],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    fn node(op_type: &str, inputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: Some(op_type.into()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec!["y".into()],
            ..NodeProto::default()
        }
    }

    fn lifted(model: ModelProto) -> Graph {
        let mut graph = Graph::from_model(model);
        lift(&mut graph).unwrap();
        graph
    }

    #[test]
    fn older_opsets_than_7_are_refused_and_the_graph_is_kept() {
        let mut graph = Graph::from_model(model(6, 3, vec![node("Add", &["x", "w"])]));
        let before = graph.clone();
        let message = lift(&mut graph).unwrap_err().to_string();
        assert!(
            message.contains("opset 6") && message.contains("export"),
            "{message}"
        );
        assert_eq!(graph, before);
    }

    #[test]
    fn later_opsets_are_kept() {
        let graph = lifted(model(21, 10, vec![node("Add", &["x", "w"])]));
        assert_eq!(graph.opset(), 21);
        assert_eq!(graph.model.ir_version, Some(10));
    }

    #[test]
    fn initializers_are_inputs_only_where_the_file_could_leave_them_out() {
        let add = vec![node("Add", &["x", "w"])];
        let old = lifted(model(8, 3, add.clone()));
        assert_eq!(old.inputs.len(), 1);
        assert_eq!(old.model.ir_version, Some(8));
        assert_eq!(lifted(model(9, 4, add)).inputs.len(), 2);
    }

    #[test]
    fn operators_of_other_domains_pass_through() {
        let foreign = NodeProto {
            domain: Some("com.example".into()),
            attribute: vec![Attribute::Ints(vec![1]).to_proto("axes")],
            ..node("Squeeze", &["x"])
        };
        let graph = lifted(model(9, 4, vec![foreign.clone()]));
        let found = graph.to_model().graph.unwrap().node;
        assert_eq!(found, [foreign]);
    }

    #[test]
    fn what_has_no_counterpart_is_refused_by_name() {
        let scan = NodeProto {
            name: Some("loop".into()),
            ..node("Scan", &["x"])
        };
        let mut graph = Graph::from_model(model(8, 3, vec![scan]));
        let message = lift(&mut graph).unwrap_err().to_string();
        assert!(
            message.contains("Scan") && message.contains("`loop`"),
            "{message}"
        );
    }

    #[test]
    fn new_names_keep_clear_of_those_in_the_file() {
        let clip = NodeProto {
            name: Some("clip".into()),
            attribute: vec![Attribute::Float(0.0).to_proto("min")],
            ..node("Clip", &["lift/clip/min"])
        };
        let mut relu = node("Relu", &["x"]);
        relu.output = vec!["lift/clip/min".into()];
        let graph = lifted(model(9, 4, vec![relu, clip]));
        let clip = graph.nodes.last().unwrap();
        assert_ne!(clip.input(0), clip.input(1));
        assert_eq!(graph.name(clip.input(0).unwrap()), "lift/clip/min");
    }

    #[test]
    fn functions_get_their_constants_as_nodes_and_keep_their_parameters() {
        let parameter = AttributeProto {
            name: Some("axes".into()),
            r#type: Some(AttributeType::Ints as i32),
            ref_attr_name: Some("over".into()),
            ..AttributeProto::default()
        };
        let sum = NodeProto {
            attribute: vec![parameter],
            ..node("ReduceSum", &["a"])
        };
        let clip = NodeProto {
            attribute: vec![Attribute::Float(0.0).to_proto("min")],
            output: vec!["a".into()],
            ..node("Clip", &["x"])
        };
        let function = FunctionProto {
            name: Some("f".into()),
            input: vec!["x".into()],
            output: vec!["y".into()],
            attribute: vec!["over".into()],
            node: vec![clip, sum],
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(9),
            }],
            ..FunctionProto::default()
        };
        let mut model = model(9, 8, vec![node("Add", &["x", "w"])]);
        model.functions.push(function);
        let function = lifted(model).model.functions.remove(0);
        assert_eq!(function.opset_import[0].version, Some(18));
        let operators: Vec<&str> = function.node.iter().map(op_type).collect();
        assert_eq!(
            operators,
            ["Constant", "CastLike", "Clip", "Constant", "ReduceSum"]
        );
        let axes = &function.node[3].attribute[0];
        assert_eq!(axes.ref_attr_name.as_deref(), Some("over"));
        assert_eq!(
            function.node[4].input,
            ["a".to_owned(), function.node[3].output[0].clone()]
        );
    }
}
