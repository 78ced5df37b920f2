//! Puts the bodies of `If`, `Loop` and `Scan` into the graph itself, where what they do is the same in every run.
//!
//! An `If` with a condition that is known gives way to the branch that is taken, a `Loop` or `Scan` whose number of iterations is known to
//! that many copies of its body. What is left then are ordinary nodes, which can be differentiated.
//! [`plan`] says what can be done with a node, [`inline`] copies bodies, [`steps`] has the two loops.
//!
//! How often a `Loop` runs is seen by running it: [`count_iterations`] makes it tell.

mod inline;
mod plan;
mod steps;

use crate::graph::{Graph, Node, ValueId};
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
use inline::Body;
pub(super) use plan::wrap;
use plan::{Plan, differing, plan};
pub use plan::{decides_by_data, obstacle};
pub use steps::count_iterations;

/// No unrolled graph has more nodes than this: a model that would is refused where it is differentiated.
const MOST_NODES: usize = 100_000;

/// Unrolls what can be unrolled, and depends on the data; returns whether that was anything.
///
/// The graph has to be traced before; afterwards the values that are new have no facts, so it has to be traced again.
/// What was inside a body may then be known, and can be unrolled in turn.
pub fn unroll(graph: &mut Graph) -> bool {
    let (depends, differs) = (graph.depends_on_data(), differing(graph));
    let nodes = std::mem::take(&mut graph.nodes);
    let mut count = nodes.len();
    let mut done = Vec::with_capacity(nodes.len());
    let mut changed = false;
    for node in nodes {
        let varies = || graph.reads(&node).iter().any(|id| depends[id.index()]);
        let plan = match node.op_type() {
            "If" | "Loop" | "Scan" if varies() => plan(graph, &differs, &node).ok(),
            _ => None,
        };
        let fits = plan.as_ref().is_some_and(|plan| {
            count += plan.nodes();
            count <= MOST_NODES
        });
        match plan.filter(|_| fits) {
            Some(plan) => {
                carry_out(graph, &mut done, &node, &plan);
                changed = true;
            }
            None => done.push(node),
        }
    }
    graph.nodes = done;
    changed
}

/// Puts the nodes of a body in the place of the node that has it.
fn carry_out(graph: &mut Graph, nodes: &mut Vec<Node>, node: &Node, plan: &Plan<'_>) {
    let label = match node.proto.name.as_deref() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => node.op_type().to_owned(),
    };
    match plan {
        Plan::Branch(branch) => {
            let body = Body::new(graph, branch, &label);
            let results = body.copy(graph, nodes, &[], &label);
            for (output, result) in node.outputs.iter().zip(results) {
                if let Some(output) = output {
                    add(
                        graph,
                        nodes,
                        &label,
                        ("Identity", Vec::new()),
                        &[result],
                        *output,
                    );
                }
            }
        }
        Plan::Loop { body, iterations } => {
            steps::unroll_loop(graph, nodes, node, body, *iterations, &label);
        }
        Plan::Scan { body, steps } => {
            steps::unroll_scan(graph, nodes, node, body, *steps, &label);
        }
    }
}

/// Adds a node that makes an existing value.
pub(super) fn add(
    graph: &mut Graph,
    nodes: &mut Vec<Node>,
    label: &str,
    (op_type, attribute): (&str, Vec<AttributeProto>),
    inputs: &[ValueId],
    output: ValueId,
) {
    let proto = NodeProto {
        op_type: Some(op_type.into()),
        name: Some(graph.fresh_name(&format!("{label}/{op_type}"))),
        attribute,
        ..NodeProto::default()
    };
    nodes.push(Node {
        proto,
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![Some(output)],
    });
}

/// The names of a graph's inputs or outputs.
fn names(infos: &[ValueInfoProto]) -> Vec<&str> {
    infos
        .iter()
        .map(|info| info.name.as_deref().unwrap_or_default())
        .collect()
}

/// The number of nodes of a body, those inside it included.
fn size(body: &GraphProto) -> usize {
    body.node
        .iter()
        .map(|node| 1 + inner(node).map(size).sum::<usize>())
        .sum()
}

/// The subgraphs of a node.
fn inner(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    let attributes = node.attribute.iter();
    attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

#[cfg(test)]
mod tests;
