//! Recurrent layers: every direction, optional operand, activation and result.
//!
//! ONNX Runtime computes them in single precision only.

use super::{Case, Input, N, assert_close, varied};
use mohs::onnx::proto::{AttributeProto, AttributeType};
use mohs::tensor::{DType, Tensor};
use ndarray::{ArrayD, IxDyn};

/// Steps, width of the input, width of the state.
const EXTENTS: (usize, usize, usize) = (4, 3, 2);

/// The operator's gates.
fn gates(op_type: &str) -> usize {
    match op_type {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    }
}

/// A layer with every operand that it has (differentiated but for the lengths), for a direction.
fn layer(op_type: &'static str, direction: &'static str, batch: usize, lengths: Input) -> Case {
    let (steps, width, hidden) = EXTENTS;
    let (directions, gates) = (
        if direction == "bidirectional" { 2 } else { 1 },
        gates(op_type),
    );
    let state = || varied(&[directions, batch, hidden]);
    let mut inputs = vec![
        varied(&[steps, batch, width]),
        varied(&[directions, gates * hidden, width]),
        varied(&[directions, gates * hidden, hidden]),
        varied(&[directions, 2 * gates * hidden]),
        lengths,
        state(),
    ];
    if op_type == "LSTM" {
        inputs.extend([state(), varied(&[directions, 3 * hidden])]);
    }
    Case::new(op_type, inputs)
        .single()
        .int("hidden_size", hidden as i64)
        .string("direction", direction)
        .outputs(if op_type == "LSTM" { 3 } else { 2 })
}

fn without(mut case: Case, positions: &[usize]) -> Case {
    for &position in positions {
        case.inputs[position] = Input::Absent;
    }
    case
}

fn names(names: &[&str]) -> AttributeProto {
    AttributeProto {
        name: Some("activations".into()),
        r#type: Some(AttributeType::Strings as i32),
        strings: names
            .iter()
            .map(|name| name.as_bytes().to_vec().into())
            .collect(),
        ..AttributeProto::default()
    }
}

fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Floats as i32),
        floats: values.to_vec(),
        ..AttributeProto::default()
    }
}

fn lengths(lengths: &[i32]) -> Input {
    Input::Fed(Tensor::new(&[lengths.len()], lengths.to_vec()).unwrap())
}

const OPERATORS: [&str; 3] = ["LSTM", "GRU", "RNN"];
const DIRECTIONS: [&str; 3] = ["forward", "reverse", "bidirectional"];

#[test]
fn every_direction_and_every_operand() {
    for op_type in OPERATORS {
        for direction in DIRECTIONS {
            layer(op_type, direction, N, Input::Absent).check();
        }
    }
}

#[test]
fn optional_operands_may_be_left_out() {
    for op_type in OPERATORS {
        without(layer(op_type, "bidirectional", N, Input::Absent), &[3, 5]).check();
    }
    for left_out in [&[6][..], &[7], &[5, 6, 7], &[3, 5, 6, 7]] {
        without(layer("LSTM", "forward", N, Input::Absent), left_out).check();
    }
    let mut short = layer("LSTM", "forward", N, Input::Absent);
    short.inputs.truncate(3);
    short.check();
}

#[test]
fn samples_of_several_lengths() {
    let (steps, _, _) = EXTENTS;
    for op_type in OPERATORS {
        for direction in DIRECTIONS {
            for given in [[2, 4], [1, 3], [0, 4]] {
                layer(op_type, direction, 2, lengths(&given)).check();
            }
        }
        let full = lengths(&[steps as i32; 2]);
        without(layer(op_type, "reverse", 2, full), &[5]).check();
    }
    without(layer("LSTM", "bidirectional", 2, lengths(&[1, 3])), &[5, 6]).check();
    without(layer("LSTM", "bidirectional", 2, lengths(&[1, 3])), &[7]).check();
}

#[test]
fn the_reset_gate_before_and_after_the_product() {
    for direction in DIRECTIONS {
        layer("GRU", direction, N, Input::Absent)
            .int("linear_before_reset", 1)
            .check();
        layer("GRU", direction, 2, lengths(&[3, 1]))
            .int("linear_before_reset", 1)
            .check();
    }
    without(layer("GRU", "forward", N, Input::Absent), &[3, 5])
        .int("linear_before_reset", 1)
        .check();
}

#[test]
fn coupled_input_and_forget_gates() {
    for direction in DIRECTIONS {
        layer("LSTM", direction, N, Input::Absent)
            .int("input_forget", 1)
            .check();
        without(layer("LSTM", direction, N, Input::Absent), &[7])
            .int("input_forget", 1)
            .check();
    }
}

#[test]
fn clipped_gates() {
    // Operands of this size put about half of the gates beyond the bound, and the seed none within a step of it.
    for op_type in OPERATORS {
        for seed in 0..3 {
            let mut case = layer(op_type, "bidirectional", N, Input::Absent)
                .float("clip", 0.7)
                .seed(seed);
            case.step = 1e-3;
            case.tolerance = 1e-2;
            case.check();
        }
    }
}

#[test]
fn every_activation() {
    // The weights are small enough that no layer grows from step to step, and large enough to reach both sides of the kinks.
    let parameters: [(&str, &[f32], &[f32]); 11] = [
        ("Affine", &[0.7], &[0.2]),
        ("Elu", &[0.6], &[]),
        ("HardSigmoid", &[0.3], &[0.4]),
        ("LeakyRelu", &[0.2], &[]),
        ("Relu", &[], &[]),
        ("ScaledTanh", &[0.8], &[0.6]),
        ("Sigmoid", &[], &[]),
        ("Softplus", &[], &[]),
        ("Softsign", &[], &[]),
        ("Tanh", &[], &[]),
        ("ThresholdedRelu", &[0.1], &[]),
    ];
    for op_type in OPERATORS {
        let places = match op_type {
            "LSTM" => 3,
            "GRU" => 2,
            _ => 1,
        };
        for (name, alpha, beta) in parameters {
            let mut case = layer(op_type, "forward", N, Input::Absent);
            case.attributes.push(names(&vec![name; places]));
            case.attributes
                .push(floats("activation_alpha", &alpha.repeat(places)));
            case.attributes
                .push(floats("activation_beta", &beta.repeat(places)));
            case.step = 1e-3;
            case.tolerance = 1e-2;
            case.check();
        }
    }
}

#[test]
fn each_direction_has_activations_of_its_own_with_default_parameters() {
    let mut case = layer("LSTM", "bidirectional", N, Input::Absent);
    case.attributes.push(names(&[
        "hardsigmoid",
        "Elu",
        "TANH",
        "Sigmoid",
        "LeakyRelu",
        "Softsign",
    ]));
    case.step = 1e-3;
    case.tolerance = 1e-2;
    case.check();
}

#[test]
fn results_that_are_not_handed_out_are_not_needed() {
    // Y_h alone, as classifiers use it.
    for op_type in OPERATORS {
        for direction in DIRECTIONS {
            let mut case = layer(op_type, direction, N, Input::Absent);
            case.left_out = vec![0];
            case.check();
        }
    }
    let mut cells = layer("LSTM", "forward", N, Input::Absent);
    cells.left_out = vec![0, 1];
    cells.check();
}

#[test]
fn lengths_that_are_the_same_in_every_run() {
    let (steps, _, _) = EXTENTS;
    let constant =
        |lengths: [i32; 2]| Input::Constant(Tensor::new(&[2], lengths.to_vec()).unwrap());
    for op_type in OPERATORS {
        layer(op_type, "bidirectional", 2, constant([steps as i32; 2])).check();
        layer(op_type, "bidirectional", 2, constant([2, steps as i32])).check();
    }
}

#[test]
fn half_precision_agrees_with_single_precision() {
    for op_type in OPERATORS {
        let case = layer(op_type, "bidirectional", 2, Input::Absent);
        let (steps, _, hidden) = EXTENTS;
        let results = [&[steps, 2, 2, hidden][..], &[2, 2, hidden], &[2, 2, hidden]];
        let ones: Vec<_> = (results.iter().take(case.outputs))
            .map(|shape| ArrayD::ones(IxDyn(shape)))
            .collect();
        let mut half = case.clone();
        half.dtype = DType::F16;
        let [half, single] = [half, case].map(|case| case.gradients(&ones, 2).cotangents);
        for (half, single) in half.iter().zip(&single) {
            let size = single
                .iter()
                .fold(1.0, |most: f64, value| most.max(value.abs()));
            let expected: Vec<f64> = single.iter().copied().collect();
            assert_close(half, &expected, 0.02 * size);
        }
    }
}
