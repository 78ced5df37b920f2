//! `Loop` and `Scan`, step by step.

use super::inline::Body;
use super::plan::{sequences, wrap};
use super::{add, names};
use crate::graph::{Attribute, Attributes, Graph, Node, ValueId};
use crate::onnx::proto::{GraphProto, NodeProto, ValueInfoProto};
use crate::tensor::Tensor;

/// Gives every `Loop` of the graph one more result, its last: a list with an entry for each iteration.
///
/// Tracing then shows how often it runs.
pub fn count_iterations(graph: &mut Graph) {
    let mut nodes = std::mem::take(&mut graph.nodes);
    for node in nodes.iter_mut().filter(|node| node.is("Loop")) {
        let name = graph.fresh_name(&format!("{COUNTER}/entry"));
        let identity = graph.fresh_name(&format!("{COUNTER}/Identity"));
        let mut attributes = node.proto.attribute.iter_mut();
        let Some(body) = attributes.find_map(|attribute| attribute.g.as_mut()) else {
            continue;
        };
        let Some(iteration) = body.input.first().cloned() else {
            continue;
        };
        let results = body.output.len().saturating_sub(1);
        if names(&body.output)
            .last()
            .is_some_and(|name| name.starts_with(COUNTER))
        {
            continue;
        }
        body.node.push(NodeProto {
            op_type: Some("Identity".into()),
            name: Some(identity),
            input: iteration.name.iter().cloned().collect(),
            output: vec![name.clone()],
            ..NodeProto::default()
        });
        body.output.push(ValueInfoProto {
            name: Some(name),
            ..iteration
        });
        node.outputs.resize(results, None);
        node.outputs.push(Some(graph.fresh(COUNTER)));
    }
    graph.nodes = nodes;
}

/// The name of what is added to loops.
const COUNTER: &str = "mohs/iterations";

/// The body of a loop as often as it runs.
pub(super) fn unroll_loop(
    graph: &mut Graph,
    nodes: &mut Vec<Node>,
    node: &Node,
    body: &GraphProto,
    iterations: usize,
    label: &str,
) {
    let copies = Body::new(graph, body, label);
    let carried = body.input.len().saturating_sub(2);
    let going_on = Tensor::Bool(ndarray::arr0(true).into_dyn());
    let going_on = graph.add_initializer(&format!("{label}/condition"), &going_on);
    let mut state: Vec<ValueId> = (2..carried + 2).filter_map(|at| node.input(at)).collect();
    let mut stacks: Vec<Vec<ValueId>> = Vec::new();
    for iteration in 0..iterations {
        let number = i64::try_from(iteration).unwrap_or(i64::MAX);
        let number = Tensor::I64(ndarray::arr0(number).into_dyn());
        let number = graph.add_initializer(&format!("{label}/iteration"), &number);
        let mut inputs = vec![number, going_on];
        inputs.append(&mut state);
        let step = format!("{label}/{iteration}");
        let mut results = copies
            .copy(graph, nodes, &inputs, &step)
            .into_iter()
            .skip(1);
        state = results.by_ref().take(carried).collect();
        stacks.push(results.collect());
    }
    for (position, output) in node.outputs.iter().enumerate() {
        let Some(output) = *output else { continue };
        match state.get(position) {
            Some(last) => add(
                graph,
                nodes,
                label,
                ("Identity", Vec::new()),
                &[*last],
                output,
            ),
            None => {
                let entries = stacks
                    .iter()
                    .filter_map(|entries| entries.get(position - carried));
                let entries: Vec<ValueId> = entries.copied().collect();
                stack(graph, nodes, label, &entries, 0, output);
            }
        }
    }
}

/// The body of a scan once per entry of its sequences.
pub(super) fn unroll_scan(
    graph: &mut Graph,
    nodes: &mut Vec<Node>,
    node: &Node,
    body: &GraphProto,
    steps: usize,
    label: &str,
) {
    let copies = Body::new(graph, body, label);
    let count = sequences(node);
    let carried = node.inputs.len() - count;
    let at = |name: &str, position: usize| {
        let list = node.ints(name).unwrap_or_default();
        list.get(position).copied().unwrap_or_default()
    };
    let turned = |backward: i64, mut entries: Vec<ValueId>| {
        if backward != 0 {
            entries.reverse();
        }
        entries
    };
    let mut entries: Vec<std::vec::IntoIter<ValueId>> = Vec::new();
    for position in 0..count {
        let Some(sequence) = node.input(carried + position) else {
            continue;
        };
        let axis = at("scan_input_axes", position);
        let parts = entries_of(graph, nodes, label, sequence, axis, steps);
        entries.push(turned(at("scan_input_directions", position), parts).into_iter());
    }
    let mut state: Vec<ValueId> = (0..carried).filter_map(|at| node.input(at)).collect();
    let mut stacks: Vec<Vec<ValueId>> = Vec::new();
    for step in 0..steps {
        let mut inputs = state;
        inputs.extend(entries.iter_mut().filter_map(Iterator::next));
        let step = format!("{label}/{step}");
        let mut results = copies.copy(graph, nodes, &inputs, &step).into_iter();
        state = results.by_ref().take(carried).collect();
        stacks.push(results.collect());
    }
    for (position, output) in node.outputs.iter().enumerate() {
        let Some(output) = *output else { continue };
        if let Some(last) = state.get(position) {
            add(
                graph,
                nodes,
                label,
                ("Identity", Vec::new()),
                &[*last],
                output,
            );
            continue;
        }
        let position = position - carried;
        let entries = stacks.iter().filter_map(|entries| entries.get(position));
        let entries = turned(
            at("scan_output_directions", position),
            entries.copied().collect(),
        );
        stack(
            graph,
            nodes,
            label,
            &entries,
            at("scan_output_axes", position),
            output,
        );
    }
}

/// The entries of a sequence along an axis, which they lack.
fn entries_of(
    graph: &mut Graph,
    nodes: &mut Vec<Node>,
    label: &str,
    sequence: ValueId,
    axis: i64,
    steps: usize,
) -> Vec<ValueId> {
    let rank = graph.fact(sequence).map_or(0, |fact| fact.shape.len());
    let axis = wrap(axis, rank)
        .and_then(|axis| i64::try_from(axis).ok())
        .unwrap_or_default();
    let ints = |graph: &mut Graph, role: &str, values: Vec<i64>| {
        let values = Tensor::I64(ndarray::Array1::from(values).into_dyn());
        graph.add_initializer(&format!("{label}/{role}"), &values)
    };
    let axes = ints(graph, "axes", vec![axis]);
    let parts: Vec<ValueId> = if steps == 1 {
        vec![sequence]
    } else {
        let extents = ints(graph, "split", vec![1; steps]);
        let parts: Vec<ValueId> = (0..steps)
            .map(|_| graph.fresh(&format!("{label}/entry")))
            .collect();
        let proto = NodeProto {
            op_type: Some("Split".into()),
            name: Some(graph.fresh_name(&format!("{label}/Split"))),
            attribute: vec![Attribute::Int(axis).to_proto("axis")],
            ..NodeProto::default()
        };
        nodes.push(Node {
            proto,
            inputs: vec![Some(sequence), Some(extents)],
            outputs: parts.iter().copied().map(Some).collect(),
        });
        parts
    };
    let squeezed = parts.into_iter().map(|part| {
        let entry = graph.fresh(&format!("{label}/entry"));
        add(
            graph,
            nodes,
            label,
            ("Squeeze", Vec::new()),
            &[part, axes],
            entry,
        );
        entry
    });
    squeezed.collect()
}

/// A result that has the entries of all steps along a new axis.
fn stack(
    graph: &mut Graph,
    nodes: &mut Vec<Node>,
    label: &str,
    entries: &[ValueId],
    axis: i64,
    output: ValueId,
) {
    let axes = Tensor::I64(ndarray::arr1(&[axis]).into_dyn());
    let axes = graph.add_initializer(&format!("{label}/axes"), &axes);
    let parts: Vec<ValueId> = entries
        .iter()
        .map(|entry| {
            let part = graph.fresh(&format!("{label}/part"));
            add(
                graph,
                nodes,
                label,
                ("Unsqueeze", Vec::new()),
                &[*entry, axes],
                part,
            );
            part
        })
        .collect();
    let attribute = vec![Attribute::Int(axis).to_proto("axis")];
    add(graph, nodes, label, ("Concat", attribute), &parts, output);
}
