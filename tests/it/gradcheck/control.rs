//! Operators with bodies: what cannot be differentiated is refused, and never differentiated in part.
//!
//! What can be is compared with PyTorch (`references`: the cases `if_…`, `loop…`, `scan` and `scripted_…`).

use super::{Case, Input, N, array, assert_close, varied};
use mohs::graph::Attribute;
use mohs::onnx::proto::{AttributeProto, AttributeType, GraphProto, NodeProto, ValueInfoProto};
use mohs::tensor::{DType, Tensor};

fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        op_type: Some(op_type.into()),
        name: Some(format!("inner {}", outputs[0])),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

fn value(name: &str, dtype: DType, shape: &[Option<usize>]) -> ValueInfoProto {
    super::info(name, dtype, shape)
}

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(GraphProto {
            name: Some(name.into()),
            ..graph
        }),
        ..AttributeProto::default()
    }
}

fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.into()),
        ..ValueInfoProto::default()
    }
}

/// A body without inputs.
fn branch(name: &str, nodes: Vec<NodeProto>, output: &str) -> AttributeProto {
    body(
        name,
        GraphProto {
            node: nodes,
            output: vec![named(output)],
            ..GraphProto::default()
        },
    )
}

fn yes(holds: bool) -> Input {
    Input::Fed(Tensor::new(&[], vec![holds]).unwrap())
}

/// `If` on a condition that is fed: one branch has the square of x1, the other what `other` has.
///
/// The operands behind the condition are not operands of the node: its branches take them from outside.
fn choice(holds: bool, other: Vec<NodeProto>, output: &str) -> Case {
    let mut case = Case::new("If", vec![yes(holds), varied(&[N, 3]), varied(&[3])]);
    case.attributes = vec![
        branch(
            "then_branch",
            vec![node("Mul", &["x1", "x1"], &["then"])],
            "then",
        ),
        branch("else_branch", other, output),
    ];
    case.outside = 2;
    case
}

#[test]
fn the_branch_that_is_taken_has_the_gradient() {
    let other = vec![
        node("Sin", &["x1"], &["sine"]),
        node("Mul", &["sine", "x2"], &["else"]),
    ];
    for holds in [true, false] {
        choice(holds, other.clone(), "else").check();
    }
}

#[test]
fn a_value_that_the_taken_branch_does_not_see_has_zero() {
    let other = vec![node("Mul", &["x1", "x2"], &["else"])];
    let case = choice(true, other, "else");
    let found = case.gradients(&[array(&[2, 3], &[1.0; 6])], 2);
    assert_close(&found.cotangents[1], &[0.0; 3], 0.0);
}

#[test]
fn a_branch_may_hand_a_value_through() {
    let other = vec![node("Identity", &["x1"], &["else"])];
    choice(false, other, "else").check();
}

#[test]
fn what_cannot_be_differentiated_inside_a_branch_is_named() {
    let mut sum = node("ReduceSum", &["x1"], &["sum"]);
    sum.attribute = vec![Attribute::Int(0).to_proto("keepdims")];
    let mut count = node("Cast", &["sum"], &["count"]);
    count.attribute = vec![Attribute::Int(DType::I64.to_onnx().into()).to_proto("to")];
    let mut inner = node("Loop", &["count", "", "x1"], &["else"]);
    inner.name = Some("far inside".into());
    inner.attribute = repetition("Loop").attributes;
    if let Some(body) = &mut inner.attribute[0].g {
        body.node[0].input[1] = "x2".into();
    }
    let message = choice(false, vec![sum, count, inner], "else").refusal();
    assert!(
        message.contains("If (node `node`)") && message.contains("Loop (node `far inside`)"),
        "{message}"
    );
}

/// A loop that multiplies its state by a value from outside.
fn repetition(op_type: &'static str) -> Case {
    let product = node("Mul", &["state", "x3"], &["next"]);
    let going_on = node("Identity", &["condition"], &["going on"]);
    let graph = GraphProto {
        node: vec![product, going_on],
        input: vec![
            value("step", DType::I64, &[]),
            value("condition", DType::Bool, &[]),
            named("state"),
        ],
        output: vec![named("going on"), named("next")],
        ..GraphProto::default()
    };
    let times = Input::Fed(Tensor::new(&[], vec![3i64]).unwrap());
    let mut case = Case::new(
        op_type,
        vec![times, Input::Absent, varied(&[2]), varied(&[2])],
    );
    case.attributes = vec![body("body", graph)];
    case.outside = 1;
    case
}

#[test]
fn a_loop_that_is_counted_by_the_data_is_refused() {
    let message = repetition("Loop").refusal();
    assert!(
        message.contains("Loop (node `node`)") && message.contains("iterations"),
        "{message}"
    );
}

#[test]
fn a_value_that_only_a_body_sees_is_not_forgotten() {
    // The gradient by what the body takes from outside alone: no operand of the loop is differentiated.
    let mut case = repetition("Loop");
    case.inputs[2] = Input::Fed(Tensor::new(&[2], vec![1.0f64, 2.0]).unwrap());
    assert!(case.refusal().contains("Loop (node `node`)"));
}

#[test]
fn a_scan_whose_steps_follow_the_batch_is_refused() {
    let graph = GraphProto {
        node: vec![
            node("Add", &["state", "entry"], &["next"]),
            node("Identity", &["next"], &["shown"]),
        ],
        input: vec![named("state"), named("entry")],
        output: vec![named("next"), named("shown")],
        ..GraphProto::default()
    };
    let mut case = Case::new("Scan", vec![varied(&[3]), varied(&[N, 3])]).outputs(2);
    case.attributes = vec![
        body("body", graph),
        Attribute::Int(1).to_proto("num_scan_inputs"),
    ];
    let message = case.refusal();
    assert!(
        message.contains("Scan (node `node`)") && message.contains("follows the batch"),
        "{message}"
    );
}
