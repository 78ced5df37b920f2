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

/// Adds the nodes that make the tensor that a node takes out of a list.
fn taken_out(
    graph: &mut Graph,
    lists: &HashMap<ValueId, Vec<ValueId>>,
    node: &Node,
    nodes: &mut Vec<Node>,
) -> Option<()> {
    let list = lists.get(&node.input(0)?)?;
    let output = node.output(0)?;
    let label = node.proto.name.clone().unwrap_or_default();
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
