//! Unrolling, by the look of the graph; `tests/references` shows that it computes the same.

use super::*;
use crate::graph::{Attribute, Dim, Fact};
use crate::onnx::from_tensor;
use crate::onnx::proto::{AttributeType, ModelProto};
use crate::tensor::{DType, Tensor};

fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.into()),
        name: Some(format!("{op_type} of {output}")),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.into()),
        ..ValueInfoProto::default()
    }
}

fn body(name: &str, inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> AttributeProto {
    let values = |names: &[&str]| names.iter().map(|&name| value(name)).collect();
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(GraphProto {
            node: nodes,
            input: values(inputs),
            output: values(outputs),
            ..GraphProto::default()
        }),
        ..AttributeProto::default()
    }
}

/// A graph on `x`, a float `[N, 3]`, with initializers.
fn graph(nodes: Vec<NodeProto>, initializers: &[(&str, Tensor)]) -> Graph {
    let mut graph = Graph::from_model(ModelProto {
        graph: Some(GraphProto {
            node: nodes,
            input: vec![value("x")],
            output: vec![value("y")],
            initializer: initializers
                .iter()
                .map(|(name, tensor)| from_tensor(name, tensor))
                .collect(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    });
    set_shape(&mut graph, "x", &[Dim::BATCH, Dim::fixed(3)]);
    graph
}

fn set_shape(graph: &mut Graph, name: &str, shape: &[Dim]) {
    let id = graph.find(name).unwrap();
    graph.value_mut(id).fact = Some(Fact::new(DType::F32, shape.to_vec()));
}

fn operators(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(Node::op_type).collect()
}

fn scalar<T: crate::tensor::Element>(number: T) -> Tensor {
    Tensor::new(&[], vec![number]).unwrap()
}

/// An `If` with a branch that has another `If` inside, which takes what the branch computes.
fn nested() -> NodeProto {
    let mut inner = node("If", &["unknown"], "else");
    inner.attribute = vec![
        body(
            "then_branch",
            &[],
            vec![node("Neg", &["h"], "deep")],
            &["deep"],
        ),
        // Here `h` is a value of the innermost branch itself.
        body(
            "else_branch",
            &[],
            vec![node("Abs", &["x"], "h"), node("Neg", &["h"], "deep")],
            &["deep"],
        ),
    ];
    let mut choice = node("If", &["c"], "y");
    choice.attribute = vec![
        body(
            "then_branch",
            &[],
            vec![node("Relu", &["x"], "then")],
            &["then"],
        ),
        body(
            "else_branch",
            &[],
            vec![node("Tanh", &["x"], "h"), inner],
            &["else"],
        ),
    ];
    choice
}

#[test]
fn an_if_with_a_known_condition_gives_way_to_its_branch() {
    let mut graph = graph(vec![nested()], &[("c", scalar(true))]);
    assert!(unroll(&mut graph));
    assert_eq!(operators(&graph), ["Relu", "Identity"]);
    assert_eq!(graph.name(graph.nodes[1].output(0).unwrap()), "y");
    assert!(!unroll(&mut graph));
}

#[test]
fn what_is_inside_a_copied_node_takes_the_copied_values() {
    let mut graph = graph(vec![nested()], &[("c", scalar(false))]);
    unroll(&mut graph);
    assert_eq!(operators(&graph), ["Tanh", "If", "Identity"]);
    let h = graph.name(graph.nodes[0].output(0).unwrap()).to_owned();
    let inner: Vec<&GraphProto> = inner(&graph.nodes[1].proto).collect();
    assert_eq!(inner[0].node[0].input, [h]);
    // A name of its own hides what is outside.
    assert_eq!(inner[1].node[1].input, ["h"]);
}

#[test]
fn an_if_that_the_data_decide_is_left() {
    let mut choice = nested();
    choice.input = vec!["condition".into()];
    let mut graph = graph(vec![node("Greater", &["x", "x"], "condition"), choice], &[]);
    assert!(!unroll(&mut graph));
    assert!(decides_by_data(&graph).unwrap().contains("If of y"));
    assert!(obstacle(&graph, &graph.nodes[1]).contains("depends on the data"));
}

#[test]
fn an_if_that_the_batch_size_decides_is_left() {
    let mut choice = nested();
    choice.input = vec!["condition".into()];
    let nodes = vec![
        node("Shape", &["x"], "shape"),
        node("Gather", &["shape", "axis"], "extent"),
        node("Greater", &["extent", "four"], "condition"),
        choice,
    ];
    for (axis, decides) in [(0i64, true), (1, false)] {
        let initializers = [("axis", scalar(axis)), ("four", scalar(4i64))];
        let mut graph = graph(nodes.clone(), &initializers);
        // As tracing at two small sizes shows it: the condition is the same at both, the extent only where it is not the batch.
        let mut known = |name: &str, tensor: Option<Tensor>| {
            let id = graph.find(name).unwrap();
            let mut fact = Fact::new(DType::I64, Vec::new());
            fact.known = tensor;
            graph.value_mut(id).fact = Some(fact);
        };
        known("extent", (!decides).then(|| scalar(3i64)));
        known("condition", Some(scalar(false)));
        assert_eq!(decides_by_data(&graph).is_some(), decides);
        assert_eq!(unroll(&mut graph), !decides);
    }
}

/// A loop that adds `x` to its state and goes on as `condition` says; `number` is carried along.
fn repetition(condition: NodeProto) -> NodeProto {
    let nodes = vec![
        node("Add", &["state", "x"], "next"),
        node("Mul", &["number", "number"], "next number"),
        condition,
    ];
    let mut repetition = node("Loop", &["times", "", "x", "one"], "y");
    repetition.attribute = vec![body(
        "body",
        &["step", "going on", "state", "number"],
        nodes,
        &["condition", "next", "next number"],
    )];
    repetition
}

fn counted(condition: NodeProto, iterations: Dim) -> Graph {
    let initializers = [("times", scalar(9i64)), ("one", scalar(1i64))];
    let mut graph = graph(vec![repetition(condition)], &initializers);
    count_iterations(&mut graph);
    count_iterations(&mut graph);
    let counter = *graph.nodes[0].outputs.last().unwrap();
    graph.value_mut(counter.unwrap()).fact = Some(Fact::new(DType::I64, vec![iterations]));
    graph
}

#[test]
fn a_loop_becomes_as_many_copies_as_it_was_seen_to_run() {
    let mut graph = counted(
        node("Less", &["next number", "times"], "condition"),
        Dim::fixed(2),
    );
    assert_eq!(graph.nodes[0].outputs.len(), 3, "counted once");
    assert!(unroll(&mut graph));
    let adds: Vec<&Node> = graph.nodes.iter().filter(|node| node.is("Add")).collect();
    assert_eq!(adds.len(), 2);
    assert_eq!(adds[0].output(0), adds[1].input(0));
    let names: std::collections::HashSet<_> =
        graph.nodes.iter().map(|node| &node.proto.name).collect();
    assert_eq!(
        names.len(),
        graph.nodes.len(),
        "every node has a name of its own"
    );
}

#[test]
fn a_loop_that_the_data_end_is_left() {
    // The state, and with it the data, reach the condition by way of the iteration before.
    let condition = node("Equal", &["state", "next"], "condition");
    let mut graph = counted(condition, Dim::fixed(2));
    assert!(!unroll(&mut graph));
    assert!(obstacle(&graph, &graph.nodes[0]).contains("iterations depends on the data"));
    assert!(decides_by_data(&graph).is_some());
}

#[test]
fn a_loop_that_follows_the_batch_is_left() {
    let condition = node("Identity", &["going on"], "condition");
    let mut graph = counted(condition, Dim::BATCH);
    assert!(!unroll(&mut graph));
    assert!(obstacle(&graph, &graph.nodes[0]).contains("follows the batch"));
    assert!(decides_by_data(&graph).is_none());
}

#[test]
fn a_loop_of_too_many_nodes_is_left() {
    let condition = node("Identity", &["going on"], "condition");
    let mut graph = counted(condition, Dim::fixed(1_000_000));
    assert!(!unroll(&mut graph));
    assert!(obstacle(&graph, &graph.nodes[0]).contains("too many"));
}

#[test]
fn a_scan_takes_its_entries_in_its_direction() {
    let mut scan = node("Scan", &["x"], "y");
    scan.attribute = vec![
        body(
            "body",
            &["entry"],
            vec![node("Neg", &["entry"], "negative")],
            &["negative"],
        ),
        Attribute::Int(1).to_proto("num_scan_inputs"),
        Attribute::Ints(vec![-1]).to_proto("scan_input_axes"),
        Attribute::Ints(vec![1]).to_proto("scan_input_directions"),
        Attribute::Ints(vec![1]).to_proto("scan_output_axes"),
    ];
    let mut graph = graph(vec![scan], &[]);
    assert!(unroll(&mut graph));
    let split = graph.nodes.iter().find(|node| node.is("Split")).unwrap();
    let first = graph.nodes.iter().find(|node| node.is("Neg")).unwrap();
    let squeezed = graph
        .nodes
        .iter()
        .find(|node| node.output(0) == first.input(0))
        .unwrap();
    assert_eq!(
        squeezed.input(0),
        split.output(2),
        "the last entry comes first"
    );
    let stacked = graph.nodes.last().unwrap();
    assert!(stacked.is("Concat") && stacked.inputs.len() == 3);
}
