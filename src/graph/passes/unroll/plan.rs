//! What can be done with a node that has bodies.

use super::{inner, names, size};
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::onnx::proto::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// How a node gives way to the nodes inside it.
pub(super) enum Plan<'n> {
    /// By the branch that is taken.
    Branch(&'n GraphProto),
    /// By its body, so many times.
    Loop {
        body: &'n GraphProto,
        iterations: usize,
    },
    /// By its body, once per entry of its sequences.
    Scan { body: &'n GraphProto, steps: usize },
}

impl Plan<'_> {
    /// The number of nodes that come in, about.
    pub(super) fn nodes(&self) -> usize {
        match self {
            Plan::Branch(body) => size(body),
            Plan::Loop { body, iterations } => (size(body) + body.output.len()) * iterations,
            Plan::Scan { body, steps } => {
                (size(body) + body.output.len() + body.input.len()) * steps
            }
        }
    }
}

/// Operators whose results, where they are whole numbers that were the same at two batch sizes, are so at all: they select and add extents, which
/// grow evenly with the batch.
const EVEN: &[&str] = &[
    "Add",
    "Cast",
    "Concat",
    "Gather",
    "Identity",
    "Reshape",
    "Shape",
    "Size",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];

/// Whether each value may differ from run to run, by [`ValueId::index`]: with the data, or with the batch size.
///
/// A comparison with the batch size differs even if it was seen to be the same at the sizes that the graph was traced at.
pub(super) fn differing(graph: &Graph) -> Vec<bool> {
    let mut differs = vec![false; graph.value_count()];
    for (id, _) in graph.real_inputs() {
        differs[id.index()] = true;
    }
    for node in &graph.nodes {
        let random = crate::graph::draws(node.op_type());
        if !random && !graph.reads(node).iter().any(|id| differs[id.index()]) {
            continue;
        }
        // What is selected by must not differ; sums and lists may be made of anything even.
        let joins = ["Add", "Sub", "Concat"].contains(&node.op_type());
        let by = node.inputs.iter().skip(1).flatten();
        let even = !random
            && EVEN.contains(&node.op_type())
            && (joins || !by.into_iter().any(|id| differs[id.index()]));
        for output in node.outputs.iter().flatten() {
            let known = graph.constant(*output);
            let same = known.is_some_and(|tensor| tensor.dtype() != crate::tensor::DType::Bool);
            differs[output.index()] = !(even && same);
        }
    }
    differs
}

/// Why a node's bodies are not in the graph itself; for messages.
#[must_use]
pub fn obstacle(graph: &Graph, node: &Node) -> String {
    match plan(graph, &differing(graph), node) {
        Ok(plan) => format!(
            "it comes to {} nodes when it is unrolled, which is too many",
            plan.nodes()
        ),
        Err(reason) => reason,
    }
}

/// The name of a node that decides by the data or the batch size, for the whole batch at once, which branch to take or how often to run its body.
#[must_use]
pub fn decides_by_data(graph: &Graph) -> Option<String> {
    let differs = differing(graph);
    let decides = |node: &&Node| match (node.op_type(), node.graph("body")) {
        ("If", _) => node.input(0).is_some_and(|id| differs[id.index()]),
        ("Loop", Some(body)) => counts_by_data(graph, &differs, node, body),
        _ => false,
    };
    let node = graph.nodes.iter().find(decides)?;
    let name = node.proto.name.clone().unwrap_or_default();
    Some(format!("{} (node `{name}`)", node.op_type()))
}

/// What can be done with a node, else the reason why nothing can.
///
/// `differs` says of each value whether it may differ from run to run (see [`differing`]).
pub(super) fn plan<'n>(
    graph: &Graph,
    differs: &[bool],
    node: &'n Node,
) -> Result<Plan<'n>, String> {
    let body = |name: &str| {
        let body = node
            .graph(name)
            .ok_or_else(|| format!("it has no `{name}`"))?;
        if body.sparse_initializer.is_empty() {
            Ok(body)
        } else {
            Err("its body has sparse initializers".to_owned())
        }
    };
    match node.op_type() {
        "If" => {
            let condition = node.input(0).filter(|id| !differs[id.index()]);
            let condition = condition.and_then(|id| graph.constant(id));
            let condition = condition.and_then(|tensor| tensor.to_i64()?.first().copied());
            match condition {
                Some(0) => Ok(Plan::Branch(body("else_branch")?)),
                Some(_) => Ok(Plan::Branch(body("then_branch")?)),
                None => Err("its condition depends on the data or the batch size".into()),
            }
        }
        "Loop" => {
            let body = body("body")?;
            let iterations = iterations(graph, differs, node, body)?;
            Ok(Plan::Loop { body, iterations })
        }
        "Scan" => {
            let body = body("body")?;
            let steps = steps(graph, node)?;
            if steps == 0 {
                return Err("its sequences are empty".into());
            }
            Ok(Plan::Scan { body, steps })
        }
        other => Err(format!("{other} has no body")),
    }
}

/// The number of steps of a `Scan`.
fn steps(graph: &Graph, node: &Node) -> Result<usize, String> {
    let sequences = sequences(node);
    let first = node.inputs.len().saturating_sub(sequences);
    let shape = node.input(first).and_then(|id| graph.fact(id));
    let shape = &shape
        .ok_or("the shape of its first sequence is not known")?
        .shape;
    let axis = node
        .ints("scan_input_axes")
        .and_then(|axes| axes.first().copied());
    let axis = wrap(axis.unwrap_or_default(), shape.len());
    let extent = axis
        .and_then(|axis| shape.get(axis))
        .map(|dim| dim.extent());
    match extent {
        Some(Some(extent)) => usize::try_from(extent).map_err(|error| error.to_string()),
        Some(None) => Err("its number of steps follows the batch".into()),
        None => Err("its axis is outside the rank of its first sequence".into()),
    }
}

/// The number of sequences that a `Scan` goes over; they are its last operands.
pub(super) fn sequences(node: &Node) -> usize {
    let count = node.int("num_scan_inputs").unwrap_or_default();
    usize::try_from(count)
        .unwrap_or_default()
        .min(node.inputs.len())
}

/// An axis as a position from the front.
pub(in crate::graph::passes) fn wrap(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()
}

/// The number of iterations of a `Loop`, which its last result tells (see [`super::count_iterations`]), if it is the same in every run.
fn iterations(
    graph: &Graph,
    differs: &[bool],
    node: &Node,
    body: &GraphProto,
) -> Result<usize, String> {
    if counts_by_data(graph, differs, node, body) {
        return Err("its number of iterations depends on the data or the batch size".into());
    }
    let results = body.output.len().saturating_sub(1);
    let counter = results.checked_sub(1).and_then(|last| node.output(last));
    let shape = counter
        .and_then(|id| graph.fact(id))
        .map(|fact| &fact.shape);
    let extent = shape.and_then(|shape| shape.first());
    let extent = extent.ok_or("its number of iterations is not known")?;
    let extent = extent
        .extent()
        .ok_or("its number of iterations follows the batch")?;
    let iterations = usize::try_from(extent).map_err(|error| error.to_string())?;
    let carried = body.input.len().saturating_sub(2);
    if iterations == 0 && results > carried + 1 {
        return Err("it does not run at all, and has results that are stacked".into());
    }
    Ok(iterations)
}

/// Whether the number of iterations of a `Loop` depends on the data or the batch size.
fn counts_by_data(graph: &Graph, differs: &[bool], node: &Node, body: &GraphProto) -> bool {
    let varies = |id: Option<ValueId>| id.is_some_and(|id| differs[id.index()]);
    let sources = Sources::of_condition(body);
    let mut inputs = sources.inputs.iter().chain([&0, &1]);
    sources.random
        || inputs.any(|position| varies(node.input(*position)))
        || sources.outside.iter().any(|name| varies(graph.find(name)))
}

/// What the condition of a loop body is computed from.
#[derive(Default)]
struct Sources {
    /// The positions of the body's inputs (those of the loop's operands), but for the iteration number.
    inputs: HashSet<usize>,
    /// The names of values from outside.
    outside: HashSet<String>,
    random: bool,
}

impl Sources {
    fn of_condition(body: &GraphProto) -> Self {
        let mut sources = Sources::default();
        let inputs = names(&body.input);
        let results = names(&body.output);
        let mut makers: HashMap<&str, &NodeProto> = HashMap::new();
        for node in &body.node {
            makers.extend(node.output.iter().map(|name| (name.as_str(), node)));
        }
        let constants = body.initializer.iter();
        let constants: HashSet<&str> = constants
            .filter_map(|tensor| tensor.name.as_deref())
            .collect();
        let mut seen: HashSet<String> = HashSet::new();
        let mut open: Vec<String> = results
            .first()
            .map(|&name| name.to_owned())
            .into_iter()
            .collect();
        while let Some(name) = open.pop() {
            if name.is_empty() || !seen.insert(name.clone()) {
                continue;
            }
            if let Some(node) = makers.get(name.as_str()) {
                let op_type = node.op_type.as_deref().unwrap_or_default();
                sources.random |= crate::graph::draws(op_type);
                if op_type != "Shape" && op_type != "Size" {
                    open.extend(node.input.iter().cloned());
                    open.extend(inner(node).flat_map(used));
                }
            } else if let Some(position) = inputs.iter().position(|&input| input == name) {
                if position > 0 {
                    sources.inputs.insert(position);
                    // What is carried: the value that the iteration before left.
                    let before = results.get(position.saturating_sub(1));
                    open.extend(before.map(|&name| name.to_owned()));
                }
            } else if !constants.contains(name.as_str()) {
                sources.outside.insert(name);
            }
        }
        sources
    }
}

/// The names that the nodes of a graph take, at any depth.
fn used(graph: &GraphProto) -> Vec<String> {
    let mut found: Vec<String> = graph
        .output
        .iter()
        .filter_map(|info| info.name.clone())
        .collect();
    for node in &graph.node {
        found.extend(node.input.iter().cloned());
        found.extend(inner(node).flat_map(used));
    }
    found
}
