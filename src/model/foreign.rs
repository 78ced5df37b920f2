//! Operators of domains that ONNX Runtime does not have: all of them in one error, where it names only the first.

use super::Error;
use crate::graph::Graph;
use crate::onnx::proto::NodeProto;

/// The domains whose operators ONNX Runtime brings, at least in some builds.
const KNOWN: [&str; 10] = [
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "ai.onnx.training",
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
    "trt.plugins",
];

/// Why a model does not load: its nodes of unknown domains, where there are any, else the error as it is.
pub(super) fn explain(graph: &Graph, error: Error) -> Error {
    let functions = &graph.model.functions;
    let mut found = Vec::new();
    for node in graph.nodes.iter().map(|node| &node.proto) {
        collect(node, &mut found);
    }
    for node in functions.iter().flat_map(|function| &function.node) {
        collect(node, &mut found);
    }
    found.retain(|node| {
        let mut defined = functions.iter();
        let is_it = |name: &Option<String>, of: &Option<String>| {
            name.as_deref().unwrap_or_default() == of.as_deref().unwrap_or_default()
        };
        !defined.any(|function| {
            is_it(&function.domain, &node.domain) && is_it(&function.name, &node.op_type)
        })
    });
    if found.is_empty() {
        return error;
    }
    let count = match found.len() {
        1 => "1 node is of an operator".to_owned(),
        several => format!("{several} nodes are of operators"),
    };
    let list: String = found
        .iter()
        .map(|node| {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            let [domain, op_type, name] = [&node.domain, &node.op_type, &node.name].map(part);
            format!("\n  {domain}::{op_type} (node `{name}`)")
        })
        .collect();
    Error::Unsuitable(format!(
        "{count} that ONNX Runtime does not have:{list}\nexport the model in standard operators, or with functions in the file that say what these do"
    ))
}

/// Collects a node of an unknown domain, and those of its subgraphs.
fn collect<'a>(node: &'a NodeProto, found: &mut Vec<&'a NodeProto>) {
    if !KNOWN.contains(&node.domain.as_deref().unwrap_or_default()) {
        found.push(node);
    }
    let attributes = node.attribute.iter();
    let graphs = attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    for inner in graphs.flat_map(|graph| &graph.node) {
        collect(inner, found);
    }
}
