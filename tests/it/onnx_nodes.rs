//! The backend node tests of the `onnx` package as cases for the gradient checks.
//!
//! `tests/onnx_nodes.tsv` has the cases (made by `tests/make_onnx_nodes.py`), `tests/it/onnx_nodes.txt` says what becomes of each.
//! With `MOHS_BLESS=1` the second file is written anew; look at the difference before it is committed.

use crate::gradcheck::{Case, Input, between};
use mohs::graph::Attribute;
use mohs::onnx::proto::{AttributeProto, AttributeType};
use mohs::tensor::{DType, Tensor};
use std::fmt::{Debug, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

/// The words of the manifest.
const MEETS: &str = "meets the identity";
const NO_KERNEL: &str = "does not run in ONNX Runtime";

fn list<T: FromStr<Err: Debug>>(text: &str) -> Vec<T> {
    let entries = text.split(',').filter(|entry| !entry.is_empty());
    entries.map(|entry| entry.parse().unwrap()).collect()
}

/// An operand: `-`, `shape:low..high`, or `shape:type=values`.
fn operand(text: &str, dtype: DType) -> Input {
    let Some((shape, rest)) = text.split_once(':') else {
        return Input::Absent;
    };
    let shape: Vec<usize> = list(shape);
    if let Some((low, high)) = rest.split_once("..") {
        return between(&shape, low.parse().unwrap(), high.parse().unwrap());
    }
    let (kind, values) = rest.split_once('=').unwrap();
    let tensor = match (kind, dtype) {
        ("int64", _) => Tensor::new(&shape, list::<i64>(values)),
        ("int32", _) => Tensor::new(&shape, list::<i32>(values)),
        ("uint8", _) => Tensor::new(&shape, list::<u8>(values)),
        ("bool", _) => {
            let values = list::<u8>(values).into_iter();
            Tensor::new(&shape, values.map(|value| value != 0).collect())
        }
        (_, DType::F64) => Tensor::new(&shape, list::<f64>(values)),
        _ => Tensor::new(&shape, list::<f32>(values)),
    };
    Input::Constant(tensor.unwrap())
}

/// An attribute: `name:kind=value`.
fn attribute(text: &str) -> AttributeProto {
    let (name, rest) = text.split_once(':').unwrap();
    let (kind, value) = rest.split_once('=').unwrap();
    match kind {
        "i" => Attribute::Int(value.parse().unwrap()).to_proto(name),
        "f" => Attribute::Float(value.parse().unwrap()).to_proto(name),
        "I" => Attribute::Ints(list(value)).to_proto(name),
        "s" => Attribute::String(value.to_owned().leak()).to_proto(name),
        _ => AttributeProto {
            name: Some(name.into()),
            floats: list(value),
            r#type: Some(AttributeType::Floats as i32),
            ..AttributeProto::default()
        },
    }
}

fn case(line: &str, dtype: DType, seed: u64) -> Case {
    let fields: Vec<&str> = line.split('\t').collect();
    let [_, op_type, opset, outputs, attributes, inputs] = fields[..] else {
        panic!("not six fields: {line}");
    };
    let inputs = inputs.split(' ').map(|input| operand(input, dtype));
    let case = Case::new(op_type.to_owned().leak(), inputs.collect());
    let case = if dtype == DType::F64 {
        case
    } else {
        case.single()
    };
    let attributes = attributes.split(' ').filter(|text| !text.is_empty());
    let left_out = outputs
        .chars()
        .enumerate()
        .filter(|(_, given)| *given == '0');
    Case {
        attributes: attributes.map(attribute).collect(),
        opset: opset.parse().unwrap(),
        outputs: outputs.len(),
        left_out: left_out.map(|(position, _)| position).collect(),
        seed,
        ..case
    }
}

/// What becomes of a case.
///
/// A step of a difference may reach across a kink, so a case has three draws; a wrong rule fails at all of them.
fn verdict(line: &str) -> String {
    let mut last = NO_KERNEL.to_owned();
    for dtype in [DType::F64, DType::F32] {
        for seed in 0..3 {
            let case = case(line, dtype, seed);
            let Err(payload) = catch_unwind(AssertUnwindSafe(|| case.check())) else {
                return MEETS.into();
            };
            let message = payload
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_default();
            if let Some((_, obstacle)) = message.split_once("cannot be differentiated:\n  ") {
                let (_, reason) = obstacle.split_once("): ").unwrap();
                return format!("is refused: {reason}");
            }
            if message.contains("Load {") || message.contains("Run {") {
                break;
            }
            last = format!("FAILS: {}", message.lines().last().unwrap_or_default());
        }
    }
    last
}

fn verdicts(cases: &[&str]) -> Vec<String> {
    cases.iter().map(|case| verdict(case)).collect()
}

#[test]
fn the_node_tests_of_onnx_fare_as_the_manifest_says() {
    crate::runtime_ready();
    let root = env!("CARGO_MANIFEST_DIR");
    let cases = std::fs::read_to_string(format!("{root}/tests/onnx_nodes.tsv")).unwrap();
    let cases: Vec<&str> = cases.lines().collect();
    assert!(cases.len() > 700, "the list is cut off");
    let half = cases.len() / 2;
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| verdicts(&cases[..half]));
        let second = verdicts(&cases[half..]);
        (first.join().unwrap(), second)
    });
    let mut found = String::new();
    for (case, verdict) in cases.iter().zip(first.into_iter().chain(second)) {
        let (name, _) = case.split_once('\t').unwrap();
        writeln!(found, "{name} {verdict}").unwrap();
    }
    let path = format!("{root}/tests/it/onnx_nodes.txt");
    if std::env::var_os("MOHS_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    let difference: Vec<(&str, &str)> = expected
        .lines()
        .zip(found.lines())
        .filter(|(expected, found)| expected != found)
        .collect();
    assert!(difference.is_empty(), "expected and found: {difference:#?}");
    assert_eq!(
        expected.lines().count(),
        cases.len(),
        "the manifest is of other cases"
    );
    assert!(
        !expected.contains("FAILS"),
        "the manifest says that a rule is wrong"
    );
}
