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
