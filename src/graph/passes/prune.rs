//! Removes what no output needs.

use crate::graph::{Graph, Node, ValueId};
use std::collections::HashSet;

/// Drops the nodes and initializers that no output depends on, and what the file declares of values that go with them.
///
/// What a subgraph takes from outside counts as needed.
/// Declared inputs stay, and so do initializers that are inputs as well.
pub fn prune(graph: &mut Graph) {
    let mut needed = vec![false; graph.value_count()];
    for (output, _) in &graph.outputs {
        needed[output.index()] = true;
    }
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in std::mem::take(&mut graph.nodes).into_iter().rev() {
        if !node
            .outputs
            .iter()
            .flatten()
            .any(|output| needed[output.index()])
        {
            continue;
        }
        for read in graph.reads(&node) {
            needed[read.index()] = true;
        }
        kept.push(node);
    }
    kept.reverse();
    graph.nodes = kept;
    for (input, _) in &graph.inputs {
        needed[input.index()] = true;
    }
    let gone = |id: &ValueId| !needed[id.index()];
    let removed: Vec<ValueId> = graph.initializers.iter().copied().filter(gone).collect();
    graph.initializers.retain(|id| needed[id.index()]);
    for id in removed {
        graph.value_mut(id).initializer = None;
    }
    forget_declarations(graph);
}

/// Drops what the file declares of values that nothing makes.
fn forget_declarations(graph: &mut Graph) {
    let made = graph
        .nodes
        .iter()
        .flat_map(|node: &Node| node.outputs.iter().flatten());
    let present = made.copied().chain(graph.initializers.iter().copied());
    let present: HashSet<String> = present.map(|id| graph.name(id).to_owned()).collect();
    let Some(shell) = &mut graph.model.graph else {
        return;
    };
    let is_present = |name: Option<&str>| name.is_some_and(|name| present.contains(name));
    shell
        .value_info
        .retain(|info| is_present(info.name.as_deref()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attribute;
    use crate::onnx::from_tensor;
    use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
    use crate::tensor::Tensor;

    fn node(name: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            name: Some(name.into()),
            op_type: Some("Relu".into()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    fn graph(nodes: Vec<NodeProto>) -> Graph {
        let value = |name: &str| ValueInfoProto {
            name: Some(name.into()),
            ..ValueInfoProto::default()
        };
        let one = Tensor::new(&[1], vec![1.0f32]).unwrap();
        Graph::from_model(ModelProto {
            graph: Some(GraphProto {
                node: nodes,
                input: vec![value("x"), value("unused")],
                output: vec![value("y")],
                initializer: vec![from_tensor("w", &one), from_tensor("v", &one)],
                value_info: vec![value("h"), value("d")],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        })
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph
            .nodes
            .iter()
            .filter_map(|node| node.proto.name.as_deref())
            .collect()
    }

    #[test]
    fn what_no_output_needs_goes() {
        let mut graph = graph(vec![
            node("a", &["x", "w"], "h"),
            node("dead", &["h", "v"], "d"),
            node("b", &["h"], "y"),
        ]);
        prune(&mut graph);
        assert_eq!(names(&graph), ["a", "b"]);
        assert_eq!(graph.inputs.len(), 2);
        let model = graph.to_model().graph.unwrap();
        assert_eq!(model.initializer.len(), 1);
        assert_eq!(model.value_info.len(), 1);
    }

    #[test]
    fn what_a_branch_takes_from_outside_stays() {
        let branch = GraphProto {
            node: vec![node("inner", &["h", "w"], "inner_y")],
            ..GraphProto::default()
        };
        let mut choice = node("if", &["x"], "y");
        choice.attribute = vec![AttributeProto {
            g: Some(branch),
            ..Attribute::Int(0).to_proto("then_branch")
        }];
        let mut graph = graph(vec![node("a", &["x"], "h"), choice]);
        prune(&mut graph);
        assert_eq!(names(&graph), ["a", "if"]);
        assert_eq!(graph.initializers.len(), 1);
    }

    #[test]
    fn a_graph_without_dead_parts_is_kept_as_it_is() {
        let mut graph = graph(vec![
            node("a", &["x", "w"], "h"),
            node("b", &["h", "v"], "y"),
        ]);
        let before = graph.clone();
        prune(&mut graph);
        assert_eq!(names(&graph), names(&before));
        assert_eq!(graph.initializers, before.initializers);
    }
}
