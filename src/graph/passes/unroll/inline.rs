//! Copies of bodies.

use crate::graph::{Graph, Node, ValueId};
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use std::collections::HashMap;

/// A body whose constants are in the graph already, so that all copies share them.
pub(super) struct Body<'b> {
    graph: &'b GraphProto,
    constants: HashMap<String, ValueId>,
}

impl<'b> Body<'b> {
    pub(super) fn new(graph: &mut Graph, body: &'b GraphProto, label: &str) -> Self {
        let mut constants = HashMap::new();
        for tensor in &body.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            let id = graph.fresh(&format!("{label}/{name}"));
            let tensor = TensorProto {
                name: Some(graph.name(id).to_owned()),
                ..tensor.clone()
            };
            graph.value_mut(id).initializer = Some(tensor);
            graph.initializers.push(id);
            constants.insert(name, id);
        }
        Body {
            graph: body,
            constants,
        }
    }

    /// Adds the body's nodes once, with these values for its inputs; returns its results.
    ///
    /// Values that the body takes from outside are taken from the graph.
    pub(super) fn copy(
        &self,
        graph: &mut Graph,
        nodes: &mut Vec<Node>,
        inputs: &[ValueId],
        label: &str,
    ) -> Vec<ValueId> {
        let mut known = self.constants.clone();
        for (info, id) in self.graph.input.iter().zip(inputs) {
            known.insert(info.name.clone().unwrap_or_default(), *id);
        }
        for proto in &self.graph.node {
            let inputs = proto.input.iter().map(|name| find(graph, &known, name));
            let inputs = inputs.collect();
            let mut copy = NodeProto {
                input: Vec::new(),
                output: Vec::new(),
                ..proto.clone()
            };
            let own = proto.name.as_deref().filter(|name| !name.is_empty());
            let own = own.or(proto.op_type.as_deref()).unwrap_or_default();
            let own = own.trim_start_matches('/');
            copy.name = Some(graph.fresh_name(&format!("{label}/{own}")));
            rename_inside(graph, &mut copy, &known);
            let outputs = proto.output.iter().map(|name| {
                (!name.is_empty()).then(|| {
                    let id = graph.fresh(&format!("{label}/{name}"));
                    known.insert(name.clone(), id);
                    id
                })
            });
            let outputs = outputs.collect();
            nodes.push(Node {
                proto: copy,
                inputs,
                outputs,
            });
        }
        let results = self.graph.output.iter();
        let results = results.filter_map(|info| find(graph, &known, info.name.as_deref()?));
        results.collect()
    }
}

/// The value that a body calls by a name: its own, else one from outside.
fn find(graph: &mut Graph, known: &HashMap<String, ValueId>, name: &str) -> Option<ValueId> {
    if name.is_empty() {
        return None;
    }
    known
        .get(name)
        .copied()
        .or_else(|| Some(graph.value_named(name)))
}

/// Gives the nodes inside a copied node names of their own, and has them take the copied values.
fn rename_inside(graph: &mut Graph, node: &mut NodeProto, known: &HashMap<String, ValueId>) {
    let names: HashMap<String, String> = known
        .iter()
        .map(|(name, id)| (name.clone(), graph.name(*id).to_owned()))
        .collect();
    for attribute in &mut node.attribute {
        for inside in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            rename(graph, inside, &names);
        }
    }
}

fn rename(graph: &mut Graph, inside: &mut GraphProto, outer: &HashMap<String, String>) {
    // What the subgraph names itself hides what is outside.
    let mut names = outer.clone();
    let inputs = inside.input.iter().filter_map(|info| info.name.as_ref());
    let constants = inside
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.as_ref());
    let made = inside.node.iter().flat_map(|node| &node.output);
    for own in inputs.chain(constants).chain(made) {
        names.remove(own);
    }
    for node in &mut inside.node {
        if let Some(name) = node.name.as_mut().filter(|name| !name.is_empty()) {
            *name = graph.fresh_name(name);
        }
        for input in &mut node.input {
            if let Some(name) = names.get(input) {
                input.clone_from(name);
            }
        }
        for attribute in &mut node.attribute {
            for inside in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                rename(graph, inside, &names);
            }
        }
    }
    for info in &mut inside.output {
        if let Some(name) = info.name.as_ref().and_then(|name| names.get(name)) {
            info.name = Some(name.clone());
        }
    }
}
