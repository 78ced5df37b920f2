//! Gradients by parameters against PyTorch's, in double precision (`tests/references/parameters/make.py` makes the files).

use mohs::model::training::{
    BatchNorm, Dropout, Trainable, TrainableOptions, TrainingGraph, TrainingOptions,
};
use mohs::model::{Model, ModelOptions};
use mohs::onnx::encode;
use mohs::runtime::{Session, SessionOptions, Value};
use mohs::tensor::Tensor;
use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The relative error that single precision may make against double, over each gradient as a whole.
const TOLERANCE: f64 = 1e-5;

const NAMES: [&str; 11] = [
    "convolutional-legacy9",
    "convolutional-legacy13-fresh",
    "convolutional-legacy17",
    "dropping-legacy13",
    "perceptron-dynamo18",
    "perceptron-legacy13",
    "recurrent-legacy13",
    "recurrent-legacy14-folded",
    "transformer-dynamo18",
    "transformer-legacy13",
    "transformer-legacy17",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/parameters")
}

/// One model with samples, and what PyTorch computes on them.
struct Reference {
    name: &'static str,
    arrays: BTreeMap<String, ArrayD<f64>>,
    feeds: Vec<(String, Tensor)>,
}

impl Reference {
    fn open(name: &'static str) -> Reference {
        let path = folder().join(format!("{name}.npz"));
        let mut file = NpzReader::new(File::open(path).unwrap()).unwrap();
        let (mut arrays, mut feeds) = (BTreeMap::new(), Vec::new());
        for key in file.names().unwrap() {
            let key = key.trim_end_matches(".npy").to_owned();
            let entry = format!("{key}.npy");
            if let Ok(array) = file.by_name::<ndarray::OwnedRepr<f64>, ndarray::IxDyn>(&entry) {
                arrays.insert(key, array);
            } else if let Ok(array) =
                file.by_name::<ndarray::OwnedRepr<f32>, ndarray::IxDyn>(&entry)
            {
                feeds.push((key, Tensor::F32(array)));
            } else if let Ok(array) =
                file.by_name::<ndarray::OwnedRepr<bool>, ndarray::IxDyn>(&entry)
            {
                feeds.push((key, Tensor::Bool(array)));
            } else {
                let array = file
                    .by_name::<ndarray::OwnedRepr<i64>, ndarray::IxDyn>(&entry)
                    .unwrap();
                feeds.push((key, Tensor::I64(array)));
            }
        }
        Reference {
            name,
            arrays,
            feeds,
        }
    }

    fn feed(&self, key: &str) -> Tensor {
        let found = self.feeds.iter().find(|(name, _)| name == key);
        found
            .unwrap_or_else(|| panic!("{}: no {key}", self.name))
            .1
            .clone()
    }

    fn model(&self) -> Model {
        let options = ModelOptions {
            // The transformer's input are token ids; what is differentiated is inside.
            keep: if self.feed("x").dtype().is_float() {
                Vec::new()
            } else {
                vec!["logits".into()]
            },
            session: single_thread(),
            ..ModelOptions::default()
        };
        Model::open(&folder().join(format!("{}.onnx", self.name)), &options).unwrap()
    }
}

fn single_thread() -> SessionOptions {
    SessionOptions {
        threads: Some(1),
        ..SessionOptions::default()
    }
}

/// ‖found − expected‖ / ‖expected‖.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|value| value * value).sum::<f64>().sqrt()
    };
    let error = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    error / square(&mut expected.iter().copied()).max(1e-30)
}

/// Runs a training graph with the model's own weights and further inputs.
fn run(graph: &TrainingGraph, further: &[(&str, Tensor)]) -> BTreeMap<String, Vec<f64>> {
    let mut session =
        Session::from_bytes(&encode(&graph.graph.to_model()), &single_thread()).unwrap();
    let mut feeds: Vec<(String, Value)> = Vec::new();
    let mut feed = |name: &str, tensor: &Tensor| {
        feeds.push((name.to_owned(), Value::from_tensor(tensor.clone()).unwrap()));
    };
    for parameter in &graph.parameters {
        feed(&parameter.name, &parameter.initial);
    }
    for statistic in &graph.statistics {
        feed(&statistic.name, &statistic.initial);
    }
    for (name, tensor) in further {
        feed(name, tensor);
    }
    let inputs: Vec<(&str, &Value)> = feeds
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let names: Vec<String> = session
        .outputs()
        .iter()
        .map(|port| port.name.clone())
        .collect();
    let values = session.run(&inputs).unwrap();
    let doubles = values
        .iter()
        .map(|value| value.to_tensor().unwrap().to_f64());
    names.into_iter().zip(doubles).collect()
}

fn trainable(model: &Model) -> Trainable {
    model.trainable(&TrainableOptions::default()).unwrap()
}

/// Compares every gradient that the reference has under a prefix, and that it has all.
fn compare(reference: &Reference, found: &BTreeMap<String, Vec<f64>>, prefix: &str) {
    let mut compared = 0;
    for (name, values) in found {
        if name == "logits" {
            continue;
        }
        let key = if name.starts_with("next.") {
            name.clone()
        } else {
            format!("{prefix}{name}")
        };
        let expected = reference.arrays.get(&key);
        let expected = expected
            .unwrap_or_else(|| panic!("{}: {key} is no parameter in PyTorch", reference.name));
        let expected: Vec<f64> = expected.iter().copied().collect();
        let error = relative(values, &expected);
        let is_zero = expected.iter().all(|value| value.abs() < 1e-12)
            && values.iter().all(|value| value.abs() < 1e-6);
        assert!(
            error <= TOLERANCE || is_zero,
            "{}: {key} is off by {error:e}",
            reference.name
        );
        compared += 1;
    }
    let all = reference.arrays.keys().filter(|key| match prefix {
        "" => !["train.", "masked.", "next."]
            .iter()
            .any(|other| key.starts_with(other)),
        prefix => key.starts_with(prefix) || (prefix == "train." && key.starts_with("next.")),
    });
    assert_eq!(
        compared,
        all.count(),
        "{}: {prefix} {:?}",
        reference.name,
        found.keys()
    );
}

#[test]
fn every_parameter_has_pytorchs_gradient() {
    for name in NAMES {
        let reference = Reference::open(name);
        let model = reference.model();
        let base = trainable(&model);
        let x = reference.feed("x");
        let options = TrainingOptions {
            batch_norm: BatchNorm::Running,
            dropout: Dropout::Off,
            wrt: x
                .dtype()
                .is_float()
                .then(|| model.input().to_owned())
                .into_iter()
                .collect(),
            ..TrainingOptions::default()
        };
        let graph = base.derive(&options).unwrap();
        let found = run(
            &graph,
            &[("input", x), ("labels", reference.feed("labels"))],
        );
        compare(&reference, &found, "");
    }
}

#[test]
fn batch_statistics_have_pytorchs_gradient_and_update() {
    for name in [
        "convolutional-legacy9",
        "convolutional-legacy13-fresh",
        "convolutional-legacy17",
    ] {
        let reference = Reference::open(name);
        let model = reference.model();
        let options = TrainingOptions {
            wrt: vec!["input".into()],
            ..TrainingOptions::default()
        };
        let graph = trainable(&model).derive(&options).unwrap();
        assert_eq!(graph.statistics.len(), 6, "{name}");
        let found = run(
            &graph,
            &[
                ("input", reference.feed("x")),
                ("labels", reference.feed("labels")),
            ],
        );
        compare(&reference, &found, "train.");
    }
}
