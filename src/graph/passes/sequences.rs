//! Takes tensors past the lists that they are kept in: what a scripted loop appends to a list and stacks in the end.

use super::unroll::{add, wrap};
use crate::graph::{Attribute, Attributes, Graph, Node, ValueId};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// Replaces what takes a tensor out of a list by the tensor itself, where the list's entries are the same ones in every run; returns whether
/// that was anything.
///
/// The graph has to be traced before, and again afterwards: an index that was computed from another is known then.
pub fn resolve_sequences(graph: &mut Graph) -> bool {
    let mut lists: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
    let nodes = std::mem::take(&mut graph.nodes);
    let mut done = Vec::with_capacity(nodes.len());
    let mut changed = false;
    for node in nodes {
        if node.is("SplitToSequence") && split_up(graph, &node, &mut done).is_some() {
            let construct = done.last();
            let list = construct.map(|node| node.inputs.iter().flatten().copied().collect());
            lists.extend(node.output(0).zip(list));
            changed = true;
            continue;
        }
        if let (Some(list), Some(output)) = (made(graph, &lists, &node), node.output(0)) {
            lists.insert(output, list);
        } else if taken_out(graph, &lists, &node, &mut done).is_some() {
            changed = true;
            continue;
        }
        done.push(node);
    }
    graph.nodes = done;
    changed
}

/// The entries of the list that a node makes.
fn made(
    graph: &Graph,
    lists: &HashMap<ValueId, Vec<ValueId>>,
    node: &Node,
) -> Option<Vec<ValueId>> {
    if !node.domain().is_empty() {
        return None;
    }
    let list = || lists.get(&node.input(0)?).cloned();
    match node.op_type() {
        "SequenceEmpty" => Some(Vec::new()),
        "SequenceConstruct" => node.inputs.iter().copied().collect(),
        "Identity" => list(),
        "SequenceInsert" => {
            let mut list = list()?;
            let position = position(graph, node, 2, list.len(), list.len())?;
            list.insert(position, node.input(1)?);
            Some(list)
        }
        "SequenceErase" => {
            let mut list = list()?;
            let last = list.len().checked_sub(1)?;
            list.remove(position(graph, node, 1, list.len(), last)?);
            Some(list)
        }
        _ => None,
    }
}

/// The position that an operand gives, counted from the back where it is negative; `default` where it is left out, and `None` where it is
/// outside the list, or depends on the data.
fn position(
    graph: &Graph,
    node: &Node,
    operand: usize,
    length: usize,
    default: usize,
) -> Option<usize> {
    let Some(id) = node.input(operand) else {
        return Some(default);
    };
    let given = graph.constant(id)?.to_i64()?.first().copied()?;
    wrap(given, length).filter(|&position| position <= default)
}

/// Adds the nodes that make the tensor that a node takes out of a list; a list's length becomes a constant.
fn taken_out(
    graph: &mut Graph,
    lists: &HashMap<ValueId, Vec<ValueId>>,
    node: &Node,
    nodes: &mut Vec<Node>,
) -> Option<()> {
    let list = lists.get(&node.input(0)?)?;
    let output = node.output(0)?;
    let label = node.proto.name.clone().unwrap_or_default();
    if node.is("SequenceLength") {
        let length = i64::try_from(list.len()).ok()?;
        graph.set_initializer(output, &Tensor::I64(ndarray::arr0(length).into_dyn()));
        return Some(());
    }
    if node.is("SequenceAt") {
        let last = list.len().checked_sub(1)?;
        let position = position(graph, node, 1, list.len(), last)?;
        let entry = *list.get(position)?;
        add(
            graph,
            nodes,
            &label,
            ("Identity", Vec::new()),
            &[entry],
            output,
        );
        return Some(());
    }
    if !node.is("ConcatFromSequence") || list.is_empty() {
        return None;
    }
    let axis = node.int("axis")?;
    let mut parts = list.clone();
    if node.int("new_axis").unwrap_or_default() != 0 {
        let axes = Tensor::I64(ndarray::arr1(&[axis]).into_dyn());
        let axes = graph.add_initializer(&format!("{label}/axes"), &axes);
        for part in &mut parts {
            let entry = std::mem::replace(part, graph.fresh(&format!("{label}/part")));
            add(
                graph,
                nodes,
                &label,
                ("Unsqueeze", Vec::new()),
                &[entry, axes],
                *part,
            );
        }
    }
    let attribute = vec![Attribute::Int(axis).to_proto("axis")];
    add(graph, nodes, &label, ("Concat", attribute), &parts, output);
    Some(())
}

/// Adds the nodes that split a tensor into the entries of a list, and, last, the one that makes the list of them.
fn split_up(graph: &mut Graph, node: &Node, nodes: &mut Vec<Node>) -> Option<()> {
    let (input, output) = (node.input(0)?, node.output(0)?);
    let label = node.proto.name.clone().unwrap_or_default();
    let shape = &graph.fact(input)?.shape;
    let axis = wrap(node.int("axis").unwrap_or_default(), shape.len())?;
    let extent = shape.get(axis)?.extent()?;
    let (mut by_size, keep) = (true, node.int("keepdims").unwrap_or(1) != 0);
    let sizes = match node.input(1) {
        None => vec![1; usize::try_from(extent).ok()?],
        Some(id) => {
            let given = graph.constant(id)?;
            let sizes = given.to_i64()?;
            match (given.shape(), sizes.as_slice()) {
                ([], &[size]) if size > 0 => {
                    let starts = (0..extent).step_by(usize::try_from(size).ok()?);
                    starts.map(|start| size.min(extent - start)).collect()
                }
                ([_], _) => {
                    by_size = false;
                    sizes
                }
                _ => return None,
            }
        }
    };
    let axis = i64::try_from(axis).ok()?;
    let ints = |graph: &mut Graph, role: &str, values: Vec<i64>| {
        let values = Tensor::I64(ndarray::Array1::from(values).into_dyn());
        graph.add_initializer(&format!("{label}/{role}"), &values)
    };
    let mut parts: Vec<ValueId> = (sizes.iter())
        .map(|_| graph.fresh(&format!("{label}/part")))
        .collect();
    let split = ints(graph, "split", sizes);
    let attribute = vec![Attribute::Int(axis).to_proto("axis")];
    let first = *parts.first()?;
    add(
        graph,
        nodes,
        &label,
        ("Split", attribute),
        &[input, split],
        first,
    );
    if let Some(split) = nodes.last_mut() {
        split.outputs = parts.iter().copied().map(Some).collect();
    }
    // As ONNX Runtime does it: also where the size is given, but not where a list of sizes is.
    if by_size && !keep {
        let axes = ints(graph, "axes", vec![axis]);
        for part in &mut parts {
            let whole = std::mem::replace(part, graph.fresh(&format!("{label}/entry")));
            add(
                graph,
                nodes,
                &label,
                ("Squeeze", Vec::new()),
                &[whole, axes],
                *part,
            );
        }
    }
    add(
        graph,
        nodes,
        &label,
        ("SequenceConstruct", Vec::new()),
        &parts,
        output,
    );
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, Fact};
    use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
    use crate::tensor::DType;

    fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: Some(op_type.into()),
            name: Some(output.into()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    /// A graph on `x`, a float `[N, 5]`, with the numbers 0 and 1 as `zero` and `one`.
    fn graph(nodes: Vec<NodeProto>) -> Graph {
        let mut graph = Graph::from_model(ModelProto {
            graph: Some(GraphProto {
                node: nodes,
                input: vec![ValueInfoProto {
                    name: Some("x".into()),
                    ..ValueInfoProto::default()
                }],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        });
        let x = graph.find("x").unwrap();
        graph.value_mut(x).fact = Some(Fact::new(DType::F32, vec![Dim::BATCH, Dim::fixed(5)]));
        for (name, number) in [("zero", 0i64), ("one", 1)] {
            if let Some(id) = graph.find(name) {
                graph.set_initializer(id, &Tensor::new(&[], vec![number]).unwrap());
            }
        }
        graph
    }

    fn operators(graph: &Graph) -> Vec<&str> {
        graph.nodes.iter().map(Node::op_type).collect()
    }

    #[test]
    fn an_entry_is_taken_past_the_list() {
        let mut insert = node("SequenceInsert", &["list", "b", "zero"], "longer");
        insert.name = None;
        let mut graph = graph(vec![
            node("Relu", &["x"], "a"),
            node("Tanh", &["x"], "b"),
            node("SequenceConstruct", &["a"], "list"),
            insert,
            node("SequenceAt", &["longer", "one"], "y"),
        ]);
        assert!(resolve_sequences(&mut graph));
        let last = graph.nodes.last().unwrap();
        assert!(last.is("Identity"));
        // What was inserted at the front has pushed `a` one place back.
        assert_eq!(graph.name(last.input(0).unwrap()), "a");
        assert!(!resolve_sequences(&mut graph));
    }

    #[test]
    fn a_list_that_is_stacked_becomes_a_concatenation() {
        let mut stack = node("ConcatFromSequence", &["list"], "y");
        stack.attribute = ["axis", "new_axis"]
            .map(|name| Attribute::Int(1).to_proto(name))
            .into();
        let mut graph = graph(vec![node("SequenceConstruct", &["x", "x"], "list"), stack]);
        assert!(resolve_sequences(&mut graph));
        assert_eq!(
            operators(&graph),
            ["SequenceConstruct", "Unsqueeze", "Unsqueeze", "Concat"]
        );
    }

    #[test]
    fn a_tensor_that_is_split_into_a_list_is_split() {
        let mut split = node("SplitToSequence", &["x", "two"], "list");
        split.attribute = vec![Attribute::Int(-1).to_proto("axis")];
        let mut graph = graph(vec![split, node("SequenceAt", &["list", "zero"], "y")]);
        let two = graph.find("two").unwrap();
        graph.set_initializer(two, &Tensor::new(&[], vec![2i64]).unwrap());
        assert!(resolve_sequences(&mut graph));
        assert_eq!(
            operators(&graph),
            ["Split", "SequenceConstruct", "Identity"]
        );
        let sizes = graph.constant(graph.nodes[0].input(1).unwrap()).unwrap();
        assert_eq!(sizes.to_i64().unwrap(), [2, 2, 1]);
        assert!(!resolve_sequences(&mut graph));
    }

    #[test]
    fn the_length_of_a_list_is_a_constant() {
        let mut graph = graph(vec![
            node("SequenceConstruct", &["x", "x"], "list"),
            node("SequenceLength", &["list"], "length"),
        ]);
        assert!(resolve_sequences(&mut graph));
        let length = graph.constant(graph.find("length").unwrap()).unwrap();
        assert_eq!(length.to_i64().unwrap(), [2]);
    }

    #[test]
    fn an_index_that_the_data_decide_is_left() {
        let mut graph = graph(vec![
            node("SequenceConstruct", &["x", "x"], "list"),
            node("SequenceAt", &["list", "x"], "y"),
        ]);
        assert!(!resolve_sequences(&mut graph));
        assert_eq!(operators(&graph), ["SequenceConstruct", "SequenceAt"]);
    }
}
