//! Gradients by parameters against PyTorch's, in double precision (`tests/references/parameters/make.py` makes the files).

use mohs::model::training::{
    BatchNorm, Dropout, Objective, ParameterKind, Trainable, TrainableOptions, TrainingGraph,
    TrainingOptions, export,
};
use mohs::model::{Model, ModelOptions};
use mohs::onnx::{ModelProto, encode, to_tensor};
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
fn run(
    base: &Trainable,
    graph: &TrainingGraph,
    further: &[(&str, Tensor)],
) -> BTreeMap<String, Vec<f64>> {
    let mut session =
        Session::from_bytes(&encode(&graph.graph.to_model()), &single_thread()).unwrap();
    let mut feeds: Vec<(String, Value)> = Vec::new();
    let mut feed = |name: &str, tensor: &Tensor| {
        feeds.push((name.to_owned(), Value::from_tensor(tensor.clone()).unwrap()));
    };
    let parameters = base.parameters.iter().map(|one| (&one.name, &one.initial));
    let statistics = base.statistics.iter().map(|one| (&one.name, &one.initial));
    for (name, tensor) in parameters.chain(statistics) {
        if session.inputs().iter().any(|port| port.name == *name) {
            feed(name, tensor);
        }
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
        let error = match name.as_str() {
            // A small loss is the difference of larger numbers: single precision is relative to these.
            "loss" => relative(values, &expected) * expected.iter().sum::<f64>().min(1.0),
            _ => relative(values, &expected),
        };
        // A bias in front of a normalisation has no effect: what is left of its gradient is rounding.
        let is_zero = expected.iter().all(|value| value.abs() < 1e-12)
            && values.iter().all(|value| value.abs() < 1e-5);
        assert!(
            error <= TOLERANCE || is_zero,
            "{}: {key} is off by {error:e}",
            reference.name
        );
        compared += 1;
    }
    let all = reference.arrays.keys().filter(|key| match prefix {
        "" => key.starts_with("grad") || *key == "loss",
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
            &base,
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
        let base = trainable(&model);
        let graph = base.derive(&options).unwrap();
        assert_eq!(graph.statistics.len(), 6, "{name}");
        let found = run(
            &base,
            &graph,
            &[
                ("input", reference.feed("x")),
                ("labels", reference.feed("labels")),
            ],
        );
        compare(&reference, &found, "train.");
    }
}

#[test]
fn dropout_keeps_what_the_masks_say() {
    let reference = Reference::open("dropping-legacy13");
    let model = reference.model();
    let options = TrainingOptions {
        wrt: vec!["input".into()],
        ..TrainingOptions::default()
    };
    let base = trainable(&model);
    let graph = base.derive(&options).unwrap();
    let ratios: Vec<f64> = graph.masks.iter().map(|mask| mask.ratio).collect();
    assert_eq!(ratios, [0.25, 0.5]);
    assert_eq!(graph.masks[0].sample_shape, [9]);
    let found = run(
        &base,
        &graph,
        &[
            ("input", reference.feed("x")),
            ("labels", reference.feed("labels")),
            (&graph.masks[0].name, reference.feed("mask.1")),
            (&graph.masks[1].name, reference.feed("mask.2")),
        ],
    );
    compare(&reference, &found, "masked.");
}

#[test]
fn trades_has_the_gradient_through_both_passes() {
    let reference = Reference::open("perceptron-legacy13");
    let model = reference.model();
    let base = trainable(&model);
    let options = TrainingOptions {
        objective: Objective::Trades { beta: 6.0 },
        ..TrainingOptions::default()
    };
    let found = run(
        &base,
        &base.derive(&options).unwrap(),
        &[
            ("input", reference.feed("x")),
            ("adversarial", reference.feed("adversarial")),
            ("labels", reference.feed("labels")),
        ],
    );
    compare(&reference, &found, "trades.");
    let options = TrainingOptions {
        objective: Objective::Divergence,
        parameters: false,
        wrt: vec!["input".into()],
        ..TrainingOptions::default()
    };
    let found = run(
        &base,
        &base.derive(&options).unwrap(),
        &[
            ("input", reference.feed("adversarial")),
            ("reference", reference.feed("reference")),
        ],
    );
    compare(&reference, &found, "divergence.");
}

#[test]
fn an_inner_tensor_is_perturbed_and_parameters_are_differentiated_in_one_run() {
    let reference = Reference::open("transformer-legacy17");
    let model = reference.model();
    let inner = "/embedding/Gather_output_0";
    let options = TrainableOptions {
        keep: vec![inner.into()],
        ..TrainableOptions::default()
    };
    let base = model.trainable(&options).unwrap();
    let options = TrainingOptions {
        wrt: vec![inner.into()],
        perturbed: true,
        ..TrainingOptions::default()
    };
    let graph = base.derive(&options).unwrap();
    assert_eq!(graph.gradients, [(inner.to_owned(), "grad".to_owned())]);
    let found = run(
        &base,
        &graph,
        &[
            ("input", reference.feed("x")),
            ("labels", reference.feed("labels")),
            (
                &format!("perturbation.{inner}"),
                reference.feed("perturbation"),
            ),
        ],
    );
    compare(&reference, &found, "perturbed.");
}

#[test]
fn the_first_layer_alone_has_the_gradients_of_its_pairing() {
    let reference = Reference::open("convolutional-legacy17");
    let model = reference.model();
    let base = trainable(&model);
    let first = base.first_layer("input").unwrap().to_owned();
    assert_eq!(first, "/conv1/Conv_output_0");
    let options = TrainingOptions {
        objective: Objective::Pairing { tensor: first },
        wrt: vec!["input".into()],
        ..TrainingOptions::default()
    };
    let graph = base.derive(&options).unwrap();
    assert!(graph.statistics.is_empty() && graph.parameters.len() == 1);
    let found = run(
        &base,
        &graph,
        &[
            ("input", reference.feed("x")),
            ("cotangent", reference.feed("cotangent")),
        ],
    );
    compare(&reference, &found, "pairing.");
}

#[test]
fn the_first_layer_of_a_transformer_is_its_whole_first_block() {
    let reference = Reference::open("transformer-legacy17");
    let base = trainable(&reference.model());
    // The residual path goes around every matrix of the block: the sum behind the attention is the first place that everything passes.
    let graph = base.graph();
    let first = graph
        .find(base.first_layer("/embedding/Gather_output_0").unwrap())
        .unwrap();
    let made = graph
        .nodes
        .iter()
        .find(|node| node.output(0) == Some(first))
        .unwrap();
    assert_eq!(made.op_type(), "Add");
}

#[test]
fn frozen_parameters_have_no_gradient_and_a_pattern_has_to_match() {
    let model = Reference::open("convolutional-legacy17").model();
    let freeze = |pattern: &str| {
        model.trainable(&TrainableOptions {
            freeze: vec![pattern.into()],
            ..TrainableOptions::default()
        })
    };
    let base = freeze("bn*").unwrap();
    assert_eq!(base.frozen.len(), 6);
    assert!(
        base.parameters
            .iter()
            .all(|one| !one.name.starts_with("bn"))
    );
    let graph = base.derive(&TrainingOptions::default()).unwrap();
    let names = graph
        .graph
        .inputs
        .iter()
        .map(|(id, _)| graph.graph.name(*id));
    assert!(names.into_iter().all(|name| name != "bn1.weight"));
    let message = freeze("layer*").unwrap_err().to_string();
    assert!(
        message.contains("layer*") && message.contains("conv1.weight"),
        "{message}"
    );
    let message = freeze("*").unwrap_err().to_string();
    assert!(message.contains("every parameter is frozen"), "{message}");
}

#[test]
fn kinds_and_fans_tell_weights_from_biases_and_normalisation() {
    use ParameterKind::{Bias, Embedding, Scale, Shift, Weight};
    let base = trainable(&Reference::open("transformer-legacy17").model());
    let kind = |name: &str| {
        let found = base.parameters.iter().find(|one| one.name == name).unwrap();
        (found.kind, found.fan_in)
    };
    assert_eq!(kind("embedding.weight"), (Embedding, 1));
    assert_eq!(kind("position"), (Embedding, 1));
    assert_eq!(kind("norm1.weight"), (Scale, 1));
    assert_eq!(kind("norm1.bias"), (Shift, 1));
    assert_eq!(kind("down.weight"), (Weight, 16));
    assert_eq!(kind("down.bias"), (Bias, 1));
    assert!(!Scale.decays() && !Bias.decays() && Embedding.decays());
}

/// A file, and the same with other weights.
fn exported(
    name: &'static str,
    change: impl Fn(&str, Tensor) -> Tensor,
) -> (ModelProto, ModelProto) {
    let reference = Reference::open(name);
    let model = reference.model();
    let base = trainable(&model);
    let parameters = base.parameters.iter().map(|one| (&one.name, &one.initial));
    let statistics = base.statistics.iter().map(|one| (&one.name, &one.initial));
    let tensors: Vec<(String, Tensor)> = parameters
        .chain(statistics)
        .map(|(name, tensor)| (name.clone(), change(name, tensor.clone())))
        .collect();
    let original = mohs::onnx::read(model.path()).unwrap();
    let new = export(&original, &tensors).unwrap();
    (original, new)
}

fn doubled(tensor: Tensor) -> Tensor {
    match tensor {
        Tensor::F32(array) => Tensor::F32(array * 2.0),
        other => other,
    }
}

/// The model without the elements of its tensors.
fn emptied(mut model: ModelProto) -> ModelProto {
    let graph = model.graph.as_mut().unwrap();
    let constants = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let tensors = constants.filter_map(|attribute| attribute.t.as_mut());
    for tensor in tensors.chain(&mut graph.initializer) {
        tensor.raw_data = None;
        tensor.float_data.clear();
    }
    model
}

#[test]
fn an_exported_model_differs_in_the_elements_of_its_weights_alone() {
    for name in NAMES {
        let (original, same) = exported(name, |_, tensor| tensor);
        assert_eq!(encode(&original), encode(&same), "{name}");
    }
    for name in NAMES.into_iter().filter(|name| !name.ends_with("-fresh")) {
        let (original, new) = exported(name, |_, tensor| doubled(tensor));
        assert_ne!(encode(&original), encode(&new), "{name}");
        assert_eq!(emptied(original), emptied(new), "{name}");
    }
}

#[test]
fn tensors_that_were_shared_for_their_numbers_become_their_own_when_these_differ() {
    let (original, new) = exported("convolutional-legacy13-fresh", |name, tensor| match name {
        "bn2.running_mean" => doubled(Tensor::F32(ndarray::ArrayD::ones(tensor.shape()))),
        _ => tensor,
    });
    let stored = |model: &ModelProto, name: &str| {
        let mut tensors = model.graph.as_ref().unwrap().initializer.iter();
        let found = tensors.find(|tensor| tensor.name.as_deref() == Some(name));
        found.map(|tensor| to_tensor(tensor).unwrap().to_f64())
    };
    assert_eq!(stored(&original, "bn2.running_mean"), None);
    assert_eq!(stored(&new, "bn2.running_mean"), Some(vec![2.0; 8]));
    assert_eq!(stored(&new, "bn1.running_mean"), Some(vec![0.0; 8]));
    let unfit = Tensor::new(&[2], vec![1.0f32, 2.0]).unwrap();
    let message = export(&original, &[("fc.bias".into(), unfit.clone())]).unwrap_err();
    assert!(message.to_string().contains("fc.bias"), "{message}");
    let message = export(&original, &[("nowhere".into(), unfit)]).unwrap_err();
    assert!(message.to_string().contains("nowhere"), "{message}");
}
