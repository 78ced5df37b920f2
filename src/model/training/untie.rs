//! Tensors that exporters share between nodes only because they once held the same numbers.
//!
//! A fresh model has many scales of ones, shifts and means of zeros, and variances of ones.
//! Exporters write each such tensor once: other uses go through an `Identity` that has the parameter's own name, or take the one tensor itself.
//! Trained as it stands, one tensor would take the place of many.
//! What shares a tensor whose numbers are not all the same is tied in the model, and stays so.

use super::parameters::{Slot, slot};
use crate::graph::{Graph, Node, ValueId};
use crate::onnx::to_tensor;
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};

/// Gives each use its own tensor; returns the new names, each with that of the tensor that it was a use of.
pub(super) fn untie(graph: &mut Graph) -> Vec<(String, String)> {
    let mut untied = untie_identities(graph);
    untied.extend(untie_constants(graph));
    untied
}

/// Initializers in the place of `Identity` nodes of initializers.
fn untie_identities(graph: &mut Graph) -> Vec<(String, String)> {
    let outside: HashSet<ValueId> = graph.outputs.iter().map(|(id, _)| *id).collect();
    let mut untied = Vec::new();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in std::mem::take(&mut graph.nodes) {
        let copy = node
            .input(0)
            .zip(node.output(0))
            .filter(|(from, to)| {
                node.is("Identity") && is_float(graph, *from) && !outside.contains(to)
            })
            .and_then(|(from, to)| Some((to, from, graph.value(from).initializer.clone()?)));
        let Some((to, from, mut tensor)) = copy else {
            kept.push(node);
            continue;
        };
        untied.push((graph.name(to).to_owned(), graph.name(from).to_owned()));
        tensor.name = Some(graph.name(to).to_owned());
        graph.value_mut(to).initializer = Some(tensor);
        graph.initializers.push(to);
    }
    graph.nodes = kept;
    untied
}

/// A tensor of its own for each node that takes one whose elements are all the same, where a normalisation or a bias takes it.
fn untie_constants(graph: &mut Graph) -> Vec<(String, String)> {
    let mut uses: HashMap<ValueId, usize> = HashMap::new();
    for node in &graph.nodes {
        for read in graph.reads(node) {
            *uses.entry(read).or_default() += 1;
        }
    }
    let shared: HashSet<ValueId> = uses
        .into_iter()
        .filter(|(id, count)| *count > 1 && is_float(graph, *id) && is_constant(graph, *id))
        .map(|(id, _)| id)
        .collect();
    let mut first_use: HashSet<ValueId> = HashSet::new();
    let mut untied = Vec::new();
    let mut nodes = std::mem::take(&mut graph.nodes);
    for node in &mut nodes {
        let places: Vec<(usize, ValueId)> = separable(node)
            .filter(|(_, id)| shared.contains(id))
            .collect();
        for (position, id) in places {
            if first_use.insert(id) {
                continue;
            }
            let Some(mut tensor) = graph.value(id).initializer.clone() else {
                continue;
            };
            let result = node.output(0).map(|output| graph.name(output).to_owned());
            let name = format!("{}.{}", graph.name(id), result.unwrap_or_default());
            let own = graph.fresh(&name);
            untied.push((graph.name(own).to_owned(), graph.name(id).to_owned()));
            tensor.name = Some(graph.name(own).to_owned());
            graph.value_mut(own).initializer = Some(tensor);
            graph.initializers.push(own);
            node.inputs[position] = Some(own);
        }
    }
    graph.nodes = nodes;
    untied
}

/// The operands of a node that are biases, or belong to a normalisation.
fn separable(node: &Node) -> impl Iterator<Item = (usize, ValueId)> + '_ {
    node.inputs
        .iter()
        .enumerate()
        .filter(|(position, _)| {
            matches!(
                slot(node, *position),
                Some(Slot::Bias | Slot::Scale | Slot::Shift | Slot::Mean | Slot::Variance)
            )
        })
        .filter_map(|(position, id)| Some((position, (*id)?)))
}

/// Whether a value is an initializer of a float type.
pub(super) fn is_float(graph: &Graph, id: ValueId) -> bool {
    let tensor = graph.value(id).initializer.as_ref();
    let dtype = tensor.and_then(|tensor| DType::from_onnx(tensor.data_type?));
    dtype.is_some_and(DType::is_float)
}

/// Whether an initializer has several elements, all the same.
fn is_constant(graph: &Graph, id: ValueId) -> bool {
    let tensor = graph.value(id).initializer.as_ref();
    let values = tensor.and_then(|tensor| to_tensor(tensor).ok());
    values.is_some_and(|values| {
        let values = values.to_f64();
        values.len() > 1 && values.windows(2).all(|pair| pair[0] == pair[1])
    })
}
