//! Every method's weights after two steps against PyTorch's, in double precision (`tests/references/train/make_methods.py`).

use mohs::data::{Dataset, Options, Source};
use mohs::model::training::{BatchNorm, TrainableOptions, TrainingOptions};
use mohs::model::{Model, ModelOptions};
use mohs::onnx::to_tensor;
use mohs::rng::{Key, Purpose, stream};
use mohs::threat::{Bounds, Norm};
use mohs::train::methods::{METHODS, method};
use mohs::train::optim::optimizer;
use mohs::train::schedule::schedule;
use mohs::train::{Augmentation, Config, Error, Trained, train};
use ndarray::{Array3, ArrayD, Axis};
use ndarray_npy::{NpzReader, NpzWriter};
use rand_distr::{Distribution, StandardNormal};
use std::fs::File;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

/// The relative error that a parameter may have, over the parameter as a whole.
const TOLERANCE: f64 = 1e-4;

/// Methods as they are compared, with the norm and the radius.
const CASES: &[(&str, &str, Norm, f64)] = &[
    ("standard", "standard", Norm::Linf, 0.1),
    ("fgsm", "fgsm:random_start=false,guard=1", Norm::Linf, 0.1),
    ("fgm", "fgm", Norm::L2, 0.3),
    (
        "pgd",
        "pgd:steps=3,step_size=0.06,random_start=false",
        Norm::Linf,
        0.1,
    ),
    ("free", "free:replays=2", Norm::Linf, 0.1),
    (
        "yopo",
        "yopo:m=2,n=2,step_size=0.04,random_start=false",
        Norm::Linf,
        0.1,
    ),
    (
        "freelb",
        "freelb:steps=3,step_size=0.2,random_start=false",
        Norm::L2,
        0.3,
    ),
    ("trades", "trades:steps=3,step_size=0.04", Norm::Linf, 0.1),
];

const MODELS: &[&str] = &["mlp", "cnn", "transformer", "tokens"];

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/train")
}

fn open(name: &str) -> NpzReader<File> {
    NpzReader::new(File::open(folder().join(name)).unwrap()).unwrap()
}

pub(super) fn config(text: &str, norm: Norm, epsilon: f64) -> Config {
    Config {
        method: method(text).unwrap(),
        optimizer: optimizer("sgd:learning_rate=0.1,momentum=0.9,weight_decay=0.01").unwrap(),
        schedule: schedule("constant").unwrap(),
        norm,
        epsilon: Some(epsilon),
        bounds: Bounds::UNIT,
        epochs: NonZeroU32::new(2).unwrap(),
        batch_size: NonZeroUsize::new(64).unwrap(),
        seed: 0,
        augmentation: Augmentation::default(),
        batch_norm: BatchNorm::Train,
        freeze: Vec::new(),
        tensor: None,
        padding: None,
        training_graph: None,
        reinitialize: None,
        validation_steps: NonZeroU32::MIN,
        checkpoint: None,
        resume: false,
    }
}

pub(super) fn run(name: &str, config: &Config, limit: Option<u64>) -> Trained {
    attempt(name, config, limit)
        .unwrap_or_else(|error| panic!("{name} {}: {error}", config.method.label()))
}

pub(super) fn attempt(name: &str, config: &Config, limit: Option<u64>) -> Result<Trained, Error> {
    attempt_with(name, config, limit, false)
}

/// A training, with the same samples as validation data where asked for.
pub(super) fn attempt_with(
    name: &str,
    config: &Config,
    limit: Option<u64>,
    validated: bool,
) -> Result<Trained, Error> {
    crate::runtime_ready();
    let path = folder().join(format!("{name}.onnx"));
    let options = ModelOptions {
        keep: config.tensor.iter().cloned().collect(),
        ..ModelOptions::default()
    };
    let model = Model::open(&path, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
    let source = Source {
        limit,
        ..Source::new(folder().join(format!("{name}-data.npz")))
    };
    let prepared = Options {
        bounds: (config.bounds.low, config.bounds.high),
        input_shape: Some(model.sample_shape().to_vec()),
        ..Options::default()
    };
    let data = Dataset::open(&source).unwrap().prepared(&prepared).unwrap();
    let original = mohs::onnx::read(&path).unwrap();
    let validation = validated.then_some(&data);
    train(&model, &original, &data, validation, config, &mut ())
}

/// Compares every tensor of the trained model with the reference of that name.
fn assert_agrees(trained: &Trained, prefix: &str) {
    let mut reference = open("methods.npz");
    let names = reference.names().unwrap().into_iter();
    let names: Vec<String> = names
        .map(|name| name.trim_end_matches(".npy").to_owned())
        .collect();
    let graph = trained.model.graph.as_ref().unwrap();
    let mut compared = 0;
    for tensor in &graph.initializer {
        let name = tensor.name.clone().unwrap_or_default();
        let key = format!("{prefix}.{name}");
        if !names.contains(&key) {
            continue;
        }
        let expected: ArrayD<f64> = reference.by_name(&format!("{key}.npy")).unwrap();
        let found = to_tensor(tensor).unwrap().to_f64();
        let difference: f64 = found
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (found - expected).powi(2))
            .sum();
        let size: f64 = expected.iter().map(|value| value * value).sum();
        let error = (difference / size).sqrt();
        assert!(error < TOLERANCE, "{key}: relative error {error:.1e}");
        compared += 1;
    }
    let wanted = names
        .iter()
        .filter(|name| name.starts_with(&format!("{prefix}.")));
    assert_eq!(compared, wanted.count(), "{prefix}");
    assert!(compared > 0, "{prefix}");
}

#[test]
fn every_method_makes_the_steps_that_pytorch_makes() {
    assert_eq!(
        METHODS.iter().map(|spec| spec.name).collect::<Vec<_>>(),
        CASES.iter().map(|case| case.0).collect::<Vec<_>>()
    );
    for name in MODELS {
        for (case, text, norm, epsilon) in CASES {
            let mut config = config(text, *norm, *epsilon);
            if *name == "tokens" {
                // Tokens cannot be perturbed, but what they are embedded as can.
                if !["standard", "fgm", "freelb"].contains(case) {
                    continue;
                }
                config.tensor = Some("embeddings".into());
                config.padding = Some(0.0);
                config.bounds = Bounds::NONE;
            }
            assert_agrees(&run(name, &config, None), &format!("{name}.{case}"));
        }
    }
}

#[test]
fn the_perturbation_of_free_goes_on_from_batch_to_batch() {
    let config = Config {
        epochs: NonZeroU32::new(4).unwrap(),
        ..config("free:replays=2", Norm::Linf, 0.1)
    };
    assert_agrees(&run("mlp", &config, Some(1)), "mlp.carried");
}

/// A graph that was written to a file takes the place of the one that mohs derives, and gives the same weights.
#[test]
fn a_training_graph_made_elsewhere_gives_the_same_weights() {
    crate::runtime_ready();
    let path = folder().join("cnn.onnx");
    let model = Model::open(&path, &ModelOptions::default()).unwrap();
    let trainable = model.trainable(&TrainableOptions::default()).unwrap();
    let options = TrainingOptions {
        wrt: vec![model.input().to_owned()],
        ..TrainingOptions::default()
    };
    let graph = trainable.derive(&options).unwrap().graph;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("training.onnx");
    mohs::onnx::write(&graph.to_model(), &file).unwrap();
    let config = Config {
        training_graph: Some(file),
        ..config("free:replays=2", Norm::Linf, 0.1)
    };
    assert_agrees(&run("cnn", &config, None), "cnn.free");
    let config = Config {
        method: method("trades").unwrap(),
        ..config
    };
    let error = attempt("cnn", &config, None).unwrap_err().to_string();
    assert!(error.contains("--training-graph serves"), "{error}");
    let config = Config {
        training_graph: Some(path),
        ..config
    };
    let error = attempt("cnn", &config, None).unwrap_err().to_string();
    assert!(error.contains("it has no input `labels`"), "{error}");
}

/// The points that TRADES starts from in two epochs; the reference reads them from `starts.npz`.
#[test]
fn trades_starts_where_the_reference_does() {
    const WRITE: &str = "MOHS_WRITE_STARTS";
    let path = folder().join("starts.npz");
    let mut starts = Vec::new();
    for name in ["mlp", "cnn", "transformer"] {
        let samples: ArrayD<f32> = open(&format!("{name}-data.npz")).by_name("x.npy").unwrap();
        let count = samples.len_of(Axis(0));
        let mut both = Array3::zeros((2, count, samples.len() / count));
        for (epoch, mut batch) in both.outer_iter_mut().enumerate() {
            for (index, mut row) in batch.outer_iter_mut().enumerate() {
                let mut random = stream(Key {
                    seed: 0,
                    sample: index as u64,
                    restart: epoch as u32,
                    purpose: Purpose::TrainingStart,
                });
                let sample = samples.index_axis(Axis(0), index);
                for (start, &clean) in row.iter_mut().zip(sample.iter()) {
                    let drawn: f64 = StandardNormal.sample(&mut random);
                    *start = (clean + (drawn * 0.001) as f32).clamp(0.0, 1.0);
                }
            }
        }
        starts.push((name, both));
    }
    if std::env::var_os(WRITE).is_some() {
        let mut writer = NpzWriter::new(File::create(&path).unwrap());
        for (name, start) in &starts {
            writer.add_array(*name, start).unwrap();
        }
        writer.finish().unwrap();
    }
    let mut file = open("starts.npz");
    for (name, start) in starts {
        let found: Array3<f32> = file.by_name(&format!("{name}.npy")).unwrap();
        assert_eq!(found, start, "{name}; write it anew with {WRITE}=1");
    }
}
