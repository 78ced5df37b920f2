//! The function that a gradient straight through steps is the gradient of, so that it can be compared with differences.
//!
//! A step s(u) becomes p(u) + (s(u₀) − p(u₀)), where p is what its gradient is taken of (u itself, or u clipped to [−1, 1]) and u₀ is what the step gets
//! at an anchor, a second input.
//! Where input and anchor are the same, every value is the model's own, and the derivatives there are those of the estimator, exactly.
//! What is rounded ties often, and is often exactly 0: which value of a window is the largest, and whether a unit is on, is decided at the anchor
//! too, so that the function has no kink there.

use super::straight_through;
use crate::graph::{Attributes, Builder, Expr, Fact, Graph, Node, ValueId, passes};
use crate::onnx::proto::ValueInfoProto;
use crate::tensor::DType;
use std::collections::HashMap;

/// The graph with an input `anchor` beside `input`, of its type and shape, and every step on the way from `input` anchored.
///
/// Needs the fact of every value on that way.
///
/// # Errors
/// Where something on the way has a subgraph, inside of which a step might be, or is without a known shape.
pub fn anchored(mut graph: Graph, input: ValueId, anchor: &str) -> Result<Graph, String> {
    let at = graph
        .add_named(anchor)
        .ok_or_else(|| format!("the model has a value called `{anchor}`"))?;
    graph.value_mut(at).fact = graph.fact(input).cloned();
    let declared = graph.inputs.iter().find(|(id, _)| *id == input);
    let info = declared.map(|(_, info)| info.clone()).unwrap_or_default();
    let info = ValueInfoProto {
        name: Some(anchor.to_owned()),
        ..info
    };
    graph.inputs.push((at, info));
    let nodes = std::mem::take(&mut graph.nodes);
    let builder = Builder::new(graph);
    builder.set_scope("anchored");
    let mut twins = HashMap::from([(input, at)]);
    for node in nodes {
        let reads = builder.with_graph(|graph| graph.reads(&node));
        if !reads.iter().any(|id| twins.contains_key(id)) {
            builder.with_graph_mut(|graph| graph.nodes.push(node));
            continue;
        }
        if reads.len() > node.inputs.iter().flatten().count() || has_subgraph(&node) {
            return Err(format!(
                "{} (node `{}`) works on the data inside of a subgraph, whose steps are not looked into",
                node.op_type(),
                node.proto.name.as_deref().unwrap_or_default()
            ));
        }
        add_twin(&builder, &node, &mut twins);
        add_anchored(&builder, node, &twins)?;
    }
    let mut graph = builder.into_graph();
    passes::prune(&mut graph);
    Ok(graph)
}

/// Whether a node takes the largest value of each window, and can say which.
fn decides_by_index(node: &Node) -> bool {
    node.is("MaxPool") && node.output(1).is_none() && node.int("storage_order").unwrap_or(0) == 0
}

fn has_subgraph(node: &Node) -> bool {
    let mut attributes = node.proto.attribute.iter();
    attributes.any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
}

/// Adds a node's counterpart on the anchor's side.
fn add_twin(builder: &Builder, node: &Node, twins: &mut HashMap<ValueId, ValueId>) {
    builder.with_graph_mut(|graph| {
        let mut twin = node.clone();
        twin.proto.name = Some(graph.fresh_name("anchored/at"));
        for operand in twin.inputs.iter_mut().flatten() {
            *operand = twins.get(operand).copied().unwrap_or(*operand);
        }
        for result in twin.outputs.iter_mut().flatten() {
            let id = graph.fresh("anchored/value");
            graph.value_mut(id).fact = graph.fact(*result).cloned();
            twins.insert(*result, id);
            *result = id;
        }
        if decides_by_index(node) && twin.output(1).is_none() {
            let shape = node.output(0).and_then(|id| graph.fact(id));
            let shape = shape.map(|fact| fact.shape.clone()).unwrap_or_default();
            let places = graph.fresh("anchored/places");
            graph.value_mut(places).fact = Some(Fact::new(DType::I64, shape));
            twin.outputs.truncate(1);
            twin.outputs.push(Some(places));
        }
        graph.nodes.push(twin);
    });
}

/// Adds a node itself, or what takes its place.
fn add_anchored(
    builder: &Builder,
    node: Node,
    twins: &HashMap<ValueId, ValueId>,
) -> Result<(), String> {
    let unknown = || format!("the shape of a value of {} is not known", node.op_type());
    let expr = |id: Option<ValueId>| id.and_then(|id| builder.expr(id)).ok_or_else(unknown);
    let twin = |id: ValueId| twins.get(&id).copied().unwrap_or(id);
    let results: Vec<(ValueId, Expr<'_>)> = if let Some(pass) = straight_through::pass(&node) {
        let (u, y) = (node.input(0), node.output(0).ok_or_else(unknown)?);
        let (u, at) = (expr(u)?, expr(u.map(twin))?);
        let step = expr(Some(twin(y)))?;
        vec![(y, pass(u) + (step - pass(at)))]
    } else if node.is("Relu") {
        let (u, y) = (node.input(0), node.output(0).ok_or_else(unknown)?);
        let (u, at) = (expr(u)?, expr(u.map(twin))?);
        vec![(y, u.where_(at.gt(0.0)))]
    } else if decides_by_index(&node) {
        let (u, y) = (expr(node.input(0))?, node.output(0).ok_or_else(unknown)?);
        let places = expr(places_of(builder, twin(y)))?;
        let shape = u.shape();
        let (batch, rest) = shape.split_first().ok_or_else(unknown)?;
        let width = rest.iter().map(|dim| dim.extent()).product::<Option<i64>>();
        let whole = batch.times(width.ok_or_else(unknown)?);
        vec![(y, u.reshape(&[whole]).gather(places, 0))]
    } else if node.is("DynamicQuantizeLinear") {
        // Its scale is taken as it is.
        let outputs = node.outputs.iter().flatten();
        let still = outputs.map(|id| Ok((*id, expr(Some(twin(*id)))?)));
        still.collect::<Result<_, String>>()?
    } else {
        builder.with_graph_mut(|graph| graph.nodes.push(node));
        return Ok(());
    };
    for (output, result) in results {
        builder.with_graph_mut(|graph| {
            let name = Some(graph.fresh_name("anchored/Identity"));
            graph.nodes.push(Node {
                proto: crate::onnx::proto::NodeProto {
                    name,
                    op_type: Some("Identity".into()),
                    ..Default::default()
                },
                inputs: vec![Some(result.id())],
                outputs: vec![Some(output)],
            });
        });
    }
    Ok(())
}

/// The second result of the node that makes a value.
fn places_of(builder: &Builder, first: ValueId) -> Option<ValueId> {
    builder.with_graph(|graph| {
        let mut nodes = graph.nodes.iter().rev();
        nodes.find(|node| node.output(0) == Some(first))?.output(1)
    })
}
