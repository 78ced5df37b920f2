//! What a model is, as its file says, without running it.

use super::gradient;
use super::ports::describe;
use crate::grad::{Kind, rules};
use crate::graph::{Graph, passes};
use crate::onnx::{self, ModelProto};
use std::collections::BTreeMap;
use std::path::Path;

/// What can be done with an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// It has a rule.
    Differentiated,
    /// Its gradient is zero, for the reason given.
    Zero(&'static str),
    /// It rounds or quantises: no gradient passes, but by `--straight-through`.
    StraightThrough,
    /// It has no rule: a gradient that has to pass through it cannot be taken.
    None,
}

/// How an operator occurs in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorUse {
    /// The operator, with its domain where that is not the standard one.
    pub op_type: String,
    /// How many nodes apply it.
    pub count: usize,
    /// What can be done with it.
    pub support: Support,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The program that wrote the file.
    pub producer: String,
    /// The version of the file format.
    pub ir_version: i64,
    /// The operator sets, by domain.
    pub opsets: Vec<(String, i64)>,
    /// The inputs that a run has to be given: name, type and shape.
    pub inputs: Vec<String>,
    /// The outputs.
    pub outputs: Vec<String>,
    /// The number of parameters: elements of float initializers.
    pub parameters: u64,
    /// The number of nodes.
    pub nodes: usize,
    /// The operators, most frequent first.
    pub operators: Vec<OperatorUse>,
    /// The tensors inside, in the order in which they are computed.
    pub tensors: Vec<String>,
}

impl Inspection {
    /// Reads a model and looks at it.
    ///
    /// # Errors
    /// Where the file is no model.
    pub fn of(path: &Path) -> Result<Self, onnx::Error> {
        Ok(Inspection::of_model(onnx::read(path)?))
    }

    /// Looks at a model.
    #[must_use]
    pub fn of_model(model: ModelProto) -> Self {
        let graph = Graph::from_model(model);
        let mut uses: BTreeMap<(String, String), usize> = BTreeMap::new();
        for node in &graph.nodes {
            *uses
                .entry((node.domain().to_owned(), node.op_type().to_owned()))
                .or_default() += 1;
        }
        let mut operators: Vec<OperatorUse> = uses
            .into_iter()
            .map(|((domain, op_type), count)| used(&domain, &op_type, count))
            .collect();
        operators.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| a.op_type.cmp(&b.op_type))
        });
        let producer = [&graph.model.producer_name, &graph.model.producer_version]
            .map(|text| text.as_deref().unwrap_or_default());
        let outputs = graph
            .nodes
            .iter()
            .flat_map(|node| node.outputs.iter().flatten());
        Inspection {
            producer: producer.join(" ").trim().to_owned(),
            ir_version: graph.model.ir_version.unwrap_or_default(),
            opsets: graph.model.opset_import.iter().map(opset).collect(),
            inputs: graph
                .real_inputs()
                .map(|(_, info)| describe(info))
                .collect(),
            outputs: graph
                .outputs
                .iter()
                .map(|(_, info)| describe(info))
                .collect(),
            parameters: graph
                .initializers
                .iter()
                .map(|id| elements(&graph, *id))
                .sum(),
            nodes: graph.nodes.len(),
            operators,
            tensors: outputs.map(|id| graph.name(*id).to_owned()).collect(),
        }
    }
}

fn used(domain: &str, op_type: &str, count: usize) -> OperatorUse {
    let support = match rules::find(domain, op_type).map(|rule| rule.kind) {
        Some(Kind::Vjp(_)) => Support::Differentiated,
        _ if gradient::is_step(domain, op_type) => Support::StraightThrough,
        Some(Kind::Zero(reason)) => Support::Zero(reason),
        // Constants are made initializers before a model is differentiated.
        None if op_type == "Constant" && domain.is_empty() => Support::Zero("a constant"),
        None if passes::is_fused(domain, op_type) => Support::Differentiated,
        Some(Kind::Refused(_)) | None => Support::None,
    };
    let op_type = if domain.is_empty() {
        op_type.to_owned()
    } else {
        format!("{domain}::{op_type}")
    };
    OperatorUse {
        op_type,
        count,
        support,
    }
}

fn opset(import: &onnx::proto::OperatorSetIdProto) -> (String, i64) {
    let domain = match import.domain.as_deref() {
        None | Some("") => "ai.onnx",
        Some(domain) => domain,
    };
    (domain.to_owned(), import.version.unwrap_or_default())
}

fn elements(graph: &Graph, id: crate::graph::ValueId) -> u64 {
    let Some(tensor) = &graph.value(id).initializer else {
        return 0;
    };
    let float = tensor
        .data_type
        .and_then(crate::tensor::DType::from_onnx)
        .is_some_and(crate::tensor::DType::is_float);
    if float {
        tensor
            .dims
            .iter()
            .map(|extent| extent.unsigned_abs())
            .product()
    } else {
        0
    }
}
