//! The update rules against PyTorch's in double precision (`tests/references/train/make_optimizers.py`).

use super::*;
use crate::graph::{Dim, Graph, ValueId};
use crate::model::gradient::{add_input, add_output};
use crate::onnx::encode;
use crate::onnx::proto::{ModelProto, OperatorSetIdProto};
use crate::runtime::{LibraryOptions, Session, SessionOptions, Value, initialize};
use crate::tensor::Tensor;
use ndarray::{ArrayD, Axis};
use ndarray_npy::NpzReader;
use std::fs::File;

/// The optimizers as a user writes them, by the name of their case.
const CASES: &[(&str, &str)] = &[
    ("sgd", "sgd"),
    ("sgd_decay", "sgd:weight_decay=0.01"),
    ("sgd_momentum", "sgd:momentum=0.9,weight_decay=0.01"),
    (
        "sgd_nesterov",
        "sgd:momentum=0.9,nesterov=true,weight_decay=0.01",
    ),
    (
        "sgd_decay_all",
        "sgd:momentum=0.5,weight_decay=0.01,decay_all=true",
    ),
    ("sgd_clip", "sgd:momentum=0.9,clip=1.5"),
    ("adam", "adam"),
    ("adam_decay", "adam:betas=0.8,0.99,weight_decay=0.01"),
    ("adamw", "adamw:weight_decay=0.05"),
    (
        "adamw_clip",
        "adamw:weight_decay=0.05,betas=0.5,0.9,clip=0.7",
    ),
];

const SHAPES: [(&str, &[i64]); 2] = [("weight", &[3, 4]), ("bias", &[4])];

struct Reference(NpzReader<File>);

impl Reference {
    fn open() -> Self {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("tests/references/train/optimizers.npz");
        Reference(NpzReader::new(File::open(path).unwrap()).unwrap())
    }

    fn get(&mut self, name: &str) -> ArrayD<f64> {
        self.0.by_name(&format!("{name}.npy")).unwrap()
    }
}

/// A graph with one step for the weight and the bias, in double precision.
fn step_graph(optimizer: &dyn Optimizer) -> Graph {
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(18),
        }],
        ..ModelProto::default()
    };
    let mut graph = Graph::from_model(model);
    let rates: Vec<ValueId> = optimizer
        .rates()
        .iter()
        .map(|name| add_input(&mut graph, name, DType::F64, &[]))
        .collect();
    let mut ids = Vec::new();
    for (name, shape) in SHAPES {
        let dims: Vec<_> = shape.iter().map(|&extent| Dim::fixed(extent)).collect();
        let mut input =
            |prefix: &str| add_input(&mut graph, &format!("{prefix}.{name}"), DType::F64, &dims);
        let state: Vec<_> = optimizer.state().iter().map(|state| input(state)).collect();
        ids.push((name, input("parameter"), input("gradient"), state));
    }
    let builder = Builder::new(graph);
    let expr = |id: &ValueId| builder.expr(*id).unwrap();
    let slots = ids.iter().map(|(name, parameter, gradient, state)| Slot {
        parameter: expr(parameter),
        gradient: expr(gradient),
        state: state.iter().map(expr).collect(),
        rates: rates.iter().map(expr).collect(),
        decays: *name == "weight" || optimizer.decays_all(),
    });
    let updated = apply(&builder, optimizer, slots.collect());
    let mut outputs = Vec::new();
    for ((name, ..), updated) in ids.iter().zip(updated) {
        outputs.push((format!("next.parameter.{name}"), updated.parameter.id()));
        for (state, value) in optimizer.state().iter().zip(updated.state) {
            outputs.push((format!("next.{state}.{name}"), value.id()));
        }
    }
    let mut graph = builder.into_graph();
    for (name, id) in outputs {
        add_output(&mut graph, &name, id);
    }
    graph
}

fn value(array: ArrayD<f64>) -> Value {
    Value::from_tensor(Tensor::F64(array)).unwrap()
}

#[test]
fn every_rule_is_that_of_pytorch() {
    initialize(&LibraryOptions::default()).unwrap();
    let mut reference = Reference::open();
    let rates = reference.get("rates");
    for (case, text) in CASES {
        let optimizer = optimizer(text).unwrap();
        let graph = step_graph(optimizer.as_ref());
        let mut session =
            Session::from_bytes(&encode(&graph.to_model()), &SessionOptions::default()).unwrap();
        let mut values: Vec<(String, Value)> = Vec::new();
        let mut expected = Vec::new();
        for (name, shape) in SHAPES {
            let history = reference.get(&format!("{case}.{name}"));
            let first = history.index_axis(Axis(0), 0).to_owned();
            values.push((format!("parameter.{name}"), value(first.clone())));
            for state in optimizer.state() {
                values.push((
                    format!("{state}.{name}"),
                    value(ArrayD::zeros(first.raw_dim())),
                ));
            }
            let gradients = reference.get(&format!("gradients.{name}"));
            assert_eq!(shape.len() + 1, gradients.ndim());
            expected.push((history, gradients));
        }
        for (step, &rate) in rates.iter().enumerate() {
            let numbers = optimizer.rates_at(step as u64 + 1, rate);
            let mut feeds: Vec<(String, Value)> = Vec::new();
            for (name, number) in optimizer.rates().iter().zip(numbers) {
                feeds.push(((*name).to_owned(), value(ndarray::arr0(number).into_dyn())));
            }
            for ((name, _), (_, gradients)) in SHAPES.iter().zip(&expected) {
                let gradient = gradients.index_axis(Axis(0), step).to_owned();
                feeds.push((format!("gradient.{name}"), value(gradient)));
            }
            let inputs: Vec<(&str, &Value)> = feeds
                .iter()
                .chain(&values)
                .map(|(name, value)| (name.as_str(), value))
                .collect();
            let outputs = session.run(&inputs).unwrap();
            for (slot, output) in values.iter_mut().zip(outputs) {
                slot.1 = output;
            }
            for ((name, _), (history, _)) in SHAPES.iter().zip(&expected) {
                let wanted = format!("parameter.{name}");
                let (_, found) = values.iter().find(|(name, _)| *name == wanted).unwrap();
                let expected = history.index_axis(Axis(0), step + 1);
                for (found, expected) in found.as_slice::<f64>().unwrap().iter().zip(&expected) {
                    let error = (found - expected).abs() / expected.abs().max(1e-3);
                    assert!(
                        error < 1e-12,
                        "{case} {name} step {step}: {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_optimizer_is_tested_and_its_defaults_are_those_that_are_written() {
    for spec in OPTIMIZERS {
        assert!(CASES.iter().any(|(case, _)| *case == spec.name));
        for Parameter { name, default, .. } in spec.parameters {
            if *default != "none" {
                let text = format!("{}:{name}={default}", spec.name);
                assert_eq!(optimizer(&text).unwrap().label(), spec.name, "{text}");
            }
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (text, expected) in [
        (
            "sgd:learning_rate=0",
            "optimizer `sgd`: `learning_rate` cannot be 0; give a number above 0",
        ),
        (
            "sgd:nesterov=true",
            "optimizer `sgd`: nesterov=true needs a momentum above 0",
        ),
        (
            "adam:betas=0.9",
            "optimizer `adam`: `betas` has to be two numbers from 0 up to 1, 1 excluded",
        ),
        (
            "adamw:clip=-1",
            "optimizer `adamw`: `clip` cannot be -1; give a number above 0",
        ),
        (
            "adamw:weight_decay=inf",
            "optimizer `adamw`: `weight_decay` cannot be inf; give a number from 0",
        ),
    ] {
        assert_eq!(optimizer(text).unwrap_err().to_string(), expected);
    }
}
