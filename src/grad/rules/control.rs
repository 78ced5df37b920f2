//! Operators with bodies.
//!
//! Where what they do is the same in every run they are gone by now (`passes::unroll`). An `If` whose condition depends on the data is
//! differentiated branch by branch; a `Loop` or `Scan` that is left is refused, with the reason.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::grad::{vjp, vjp_straight_through};
use crate::graph::{Attribute, Builder, Dim, Expr, Fact, Graph, Node, ValueId, passes};
use crate::onnx::from_tensor;
use crate::onnx::proto::{AttributeProto, AttributeType, GraphProto, NodeProto, ValueInfoProto};
use crate::tensor::{DType, Tensor};
use std::collections::HashSet;

pub(super) const RULES: &[Rule] = &[
    Rule::new("If", choice),
    // Through the copies of its body that it is unrolled to, where the number of iterations is the same in every run; refused where it is not.
    Rule::new("Loop", refused),
    // Through the copies of its body that it is unrolled to; refused where its steps follow the batch.
    Rule::new("Scan", refused),
];

// Taken apart beforehand where every run does the same; what is left is refused, with the reason.
fn refused<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let reason = n
        .builder()
        .with_graph(|graph| passes::obstacle(graph, n.node()));
    Err(reason)
}

// y = then(x) or else(x) ⇒ x̄ = the cotangent through the branch that is taken: another If, on the same condition, whose branches compute
// the branch again and differentiate it.
fn choice<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let first = n.node().outputs.iter().flatten().next();
    let branches = n
        .builder()
        .with_graph(|graph| graph.branches.get(first?).cloned());
    let branches = branches.ok_or(
        "its condition depends on the data or the batch size, and a branch that was not taken does not run on the same values",
    )?;
    let operands = n.node().inputs.len();
    let wanted: Vec<usize> = (operands..n.arity())
        .filter(|&position| n.wants(position))
        .collect();
    let outside: Vec<Expr<'g>> = wanted.iter().map(|&position| n.x(position)).collect();
    let mut bodies = Vec::with_capacity(2);
    for (branch, role) in branches.into_iter().zip(["then_branch", "else_branch"]) {
        let body =
            differentiate(n, branch, &outside).map_err(|reason| format!("its {role}: {reason}"))?;
        bodies.push(AttributeProto {
            name: Some(role.into()),
            r#type: Some(AttributeType::Graph as i32),
            g: Some(body),
            ..AttributeProto::default()
        });
    }
    let node = Node {
        proto: NodeProto {
            op_type: Some("If".into()),
            attribute: bodies,
            ..NodeProto::default()
        },
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    let facts = outside
        .iter()
        .map(|value| Fact::new(value.dtype(), value.shape()))
        .collect();
    let found = n.builder().repeat(&node, &[Some(n.x(0))], facts);
    Ok(wanted.into_iter().zip(found).collect())
}

/// The body that computes the cotangents of values from outside through one branch.
fn differentiate<'g>(
    n: &Vjp<'g>,
    mut branch: Graph,
    outside: &[Expr<'g>],
) -> Result<GraphProto, String> {
    if n.straight_through() && passes::has_quantized(&branch) {
        branch = passes::dequantize(branch).0;
    }
    let mut taken: HashSet<String> = HashSet::new();
    let own = branch
        .real_inputs()
        .map(|(id, _)| branch.name(*id).to_owned());
    taken.extend(own);
    // What is the same in every run came along as initializers; in the body it is taken from outside again.
    let constants = branch
        .initializers
        .iter()
        .map(|id| branch.name(*id).to_owned());
    let constants: Vec<String> = constants.collect();
    taken.extend(n.builder().with_graph(|graph| {
        let known = |name: &String| graph.find(name).is_some();
        constants.into_iter().filter(known).collect::<Vec<_>>()
    }));
    let mut take = |branch: &mut Graph, value: Expr<'g>| {
        let name = n
            .builder()
            .with_graph(|graph| graph.name(value.id()).to_owned());
        let id = branch.find(&name).or_else(|| branch.add_named(&name));
        let id = id.expect("a name is in the graph or can be added");
        if branch.fact(id).is_none() {
            branch.value_mut(id).fact = Some(value.fact());
            branch.inputs.push((id, ValueInfoProto::default()));
        }
        taken.insert(name);
        id
    };
    let wrt: Vec<ValueId> = outside
        .iter()
        .map(|value| take(&mut branch, *value))
        .collect();
    if let Some(sized) = with_batch(n) {
        // The size of the batch is read off an input of the graph.
        take(&mut branch, sized);
    }
    let results: Vec<ValueId> = branch.outputs.iter().map(|(id, _)| *id).collect();
    let incoming: Vec<(ValueId, ValueId)> = (0..n.results())
        .filter_map(|position| {
            let cotangent = n.optional_dy(position)?;
            Some((*results.get(position)?, take(&mut branch, cotangent)))
        })
        .collect();
    let builder = Builder::new(branch);
    let seeds: Option<Vec<_>> = incoming
        .iter()
        .map(|(result, cotangent)| Some((*result, builder.expr(*cotangent)?)))
        .collect();
    let seeds = seeds.ok_or("a cotangent has no shape")?;
    let differentiate = if n.straight_through() {
        vjp_straight_through
    } else {
        vjp
    };
    let found = differentiate(&builder, &seeds, &wrt).map_err(|error| error.to_string())?;
    let cotangents = wrt.iter().zip(found).map(|(id, found)| {
        let value = builder
            .expr(*id)
            .ok_or("a value from outside has no shape")?;
        // A name of its own for each, also where a cotangent is handed through.
        Ok(found.unwrap_or_else(|| zeros_like(value)).id())
    });
    let cotangents: Vec<ValueId> = cotangents.collect::<Result<_, String>>()?;
    drop(seeds);
    let mut body = finish(builder.into_graph(), &cotangents, &taken);
    let prefix = n
        .builder()
        .with_graph_mut(|graph| graph.fresh_name("grad/branch"));
    set_apart(&mut body, &taken, &prefix);
    Ok(body)
}

/// An input of the graph that has the batch for an axis.
fn with_batch<'g>(n: &Vjp<'g>) -> Option<Expr<'g>> {
    let id = n.builder().with_graph(|graph| {
        let batched = |id: ValueId| {
            graph
                .fact(id)
                .is_some_and(|fact| fact.shape.contains(&Dim::BATCH))
        };
        graph
            .inputs
            .iter()
            .map(|(id, _)| *id)
            .find(|id| batched(*id))
    });
    n.builder().expr(id?)
}

/// Zeros of a value's shape, whatever its axes follow.
fn zeros_like(value: Expr<'_>) -> Expr<'_> {
    let rank = i64::try_from(value.rank()).unwrap_or_default();
    let shape = Fact::new(DType::I64, vec![Dim::fixed(rank)]);
    let shape = value.builder().node("Shape", &[value], &[], shape);
    let zero = Tensor::F32(ndarray::arr1(&[0.0]).into_dyn());
    let zero = Attribute::Tensor(Box::new(from_tensor("", &zero)));
    let fact = Fact::new(DType::F32, value.shape());
    let zeros = value
        .builder()
        .node("ConstantOfShape", &[shape], &[("value", zero)], fact);
    zeros.cast_like(value)
}

/// The graph as a body: without inputs, and with the cotangents for outputs.
fn finish(mut graph: Graph, cotangents: &[ValueId], taken: &HashSet<String>) -> GraphProto {
    graph.outputs.clear();
    for cotangent in cotangents {
        let id = graph.fresh("cotangent");
        let name = graph.fresh_name("cotangent/Identity");
        graph.nodes.push(Node {
            proto: NodeProto {
                op_type: Some("Identity".into()),
                name: Some(name),
                ..NodeProto::default()
            },
            inputs: vec![Some(*cotangent)],
            outputs: vec![Some(id)],
        });
        let info = ValueInfoProto {
            name: Some(graph.name(id).to_owned()),
            ..ValueInfoProto::default()
        };
        graph.outputs.push((id, info));
    }
    graph.inputs.clear();
    passes::prune(&mut graph);
    let mut body = graph.to_model().graph.unwrap_or_default();
    body.initializer
        .retain(|tensor| !taken.contains(tensor.name.as_deref().unwrap_or_default()));
    body.value_info.clear();
    body
}

/// Gives everything in a body a name that nothing else has, at any depth, but for what it takes from outside.
fn set_apart(body: &mut GraphProto, taken: &HashSet<String>, prefix: &str) {
    let rename = |name: &mut String| {
        if !name.is_empty() && !taken.contains(name.as_str()) {
            name.insert_str(0, &format!("{prefix}/"));
        }
    };
    let infos = body.input.iter_mut().chain(&mut body.output);
    infos.filter_map(|info| info.name.as_mut()).for_each(rename);
    let constants = body.initializer.iter_mut();
    constants
        .filter_map(|tensor| tensor.name.as_mut())
        .for_each(rename);
    for node in &mut body.node {
        let names = node
            .input
            .iter_mut()
            .chain(&mut node.output)
            .chain(&mut node.name);
        names.for_each(rename);
        for attribute in &mut node.attribute {
            for inside in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                set_apart(inside, taken, prefix);
            }
        }
    }
}
