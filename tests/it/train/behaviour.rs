//! What the options of a training do.

use super::TRAIN;
use super::methods::{attempt, config, folder, run};
use crate::cli::fixtures::{Tiny, constant, npz};
use crate::cli::{Sandbox, texts};
use crate::lift::joined;
use mohs::model::training::BatchNorm;
use mohs::onnx::to_tensor;
use mohs::threat::Norm;
use mohs::train::methods::method;
use mohs::train::optim::optimizer;
use mohs::train::{Config, Trained};
use ndarray::{Array1, Array2};
use std::num::NonZeroU32;

/// All weights, one after the other.
fn weights(trained: &Trained) -> Vec<f64> {
    let graph = trained.model.graph.as_ref().unwrap();
    let tensors = graph.initializer.iter();
    tensors
        .flat_map(|tensor| to_tensor(tensor).unwrap().to_f64())
        .collect()
}

fn trained(name: &str, text: &str, change: impl FnOnce(&mut Config)) -> Vec<f64> {
    let mut config = config(text, Norm::Linf, 0.1);
    change(&mut config);
    weights(&run(name, &config, None))
}

#[test]
fn attack_mode_changes_the_points_where_batch_statistics_differ_from_running_ones() {
    const EVAL: &str = "fgsm:random_start=false,guard=1";
    const TRAIN: &str = "fgsm:random_start=false,guard=1,attack_mode=train";
    assert_ne!(trained("cnn", EVAL, |_| {}), trained("cnn", TRAIN, |_| {}));
    // Without batch statistics the two forms are one.
    assert_eq!(trained("mlp", EVAL, |_| {}), trained("mlp", TRAIN, |_| {}));
    let frozen = |config: &mut Config| config.batch_norm = BatchNorm::Running;
    assert_eq!(trained("cnn", EVAL, frozen), trained("cnn", TRAIN, frozen));
}

#[test]
fn yopo_cuts_where_it_is_told() {
    const YOPO: &str = "yopo:m=2,n=2,random_start=false";
    let model = mohs::onnx::read(&folder().join("mlp.onnx")).unwrap();
    let nodes = model.graph.unwrap().node;
    let gemms = nodes
        .iter()
        .filter(|node| node.op_type.as_deref() == Some("Gemm"));
    let outputs: Vec<String> = gemms.map(|node| node.output[0].clone()).collect();
    let at = |tensor: &str| trained("mlp", &format!("{YOPO},split={tensor}"), |_| {});
    // The first layer is what is found unasked; a later cut moves the perturbation by other gradients.
    assert_eq!(trained("mlp", YOPO, |_| {}), at(&outputs[0]));
    assert_ne!(at(&outputs[0]), at(&outputs[1]));
    let config = config(&format!("{YOPO},split=nowhere"), Norm::Linf, 0.1);
    let error = attempt("mlp", &config, None).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn the_weights_of_the_best_epoch_on_the_validation_data_are_kept() {
    let config = |epochs: u32| Config {
        method: method("standard").unwrap(),
        optimizer: optimizer("sgd:learning_rate=2,momentum=0.9").unwrap(),
        epochs: NonZeroU32::new(epochs).unwrap(),
        ..config("standard", Norm::Linf, 0.1)
    };
    let whole = super::methods::attempt_with("mlp", &config(8), None, true).unwrap();
    let robust: Vec<f64> = whole
        .epochs
        .iter()
        .map(|row| row.robust_accuracy.unwrap())
        .collect();
    let best = robust.iter().copied().fold(0.0, f64::max);
    let first = robust
        .iter()
        .position(|&accuracy| accuracy == best)
        .unwrap()
        + 1;
    assert!(first < 8, "{robust:?}");
    assert_eq!(whole.kept, Some(first as u64));
    let short = run("mlp", &config(first as u32), None);
    assert_eq!(weights(&whole), weights(&short));
}

/// A linear model whose input loses half of its elements while it is trained.
fn dropping(sandbox: &Sandbox, ratio: f32) {
    let mut tiny = Tiny::behind(vec![joined("Dropout", &["x", "ratio"], &["inner"])]);
    tiny.initializers.push(constant("ratio", &[], &[ratio]));
    tiny.write(sandbox, "model.onnx");
    let samples = Array2::from_shape_fn((24, 4), |(row, column)| {
        ((row * 7 + column * 5) % 11) as f32 / 11.0
    });
    let labels = Array1::from_shape_fn(24, |row| (row % 3) as i64);
    npz(sandbox, "data.npz", &samples.into_dyn(), &labels);
}

#[test]
fn one_dropout_mask_serves_all_passes_of_freelb() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    let train = |ratio: f32, method: &[&str]| {
        dropping(&sandbox, ratio);
        let few = ["--epochs", "3", "--batch-size", "8"];
        sandbox.run(&[&TRAIN[..], &few, method].concat());
        let model = mohs::onnx::read(&sandbox.path("out.onnx")).unwrap();
        let tensors = model.graph.unwrap().initializer;
        let weights = tensors
            .iter()
            .find(|one| one.name.as_deref() == Some("weights"));
        to_tensor(weights.unwrap()).unwrap().to_f64()
    };
    let apart = |one: &[f64], other: &[f64]| {
        let pairs = one.iter().zip(other);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let plain = [
        "--method",
        "standard",
        "--optimizer",
        "sgd:learning_rate=0.5",
    ];
    // With all but no perturbation, the mean over passes of one mask is the gradient of one pass.
    let passes = [
        "--method",
        "freelb:steps=4,initial=0",
        "--norm",
        "l2",
        "--epsilon",
        "1e-6",
        "--optimizer",
        "sgd:learning_rate=0.5",
    ];
    let dropped = train(0.5, &plain);
    assert!(apart(&dropped, &train(0.5, &passes)) < 1e-5);
    assert!(apart(&dropped, &train(0.0, &plain)) > 1e-2);
}

#[test]
fn a_file_that_drops_at_random_is_refused_with_the_node() {
    let sandbox = crate::cli::fixtures::ready();
    let mut tiny = Tiny::behind(vec![joined(
        "Dropout",
        &["x", "ratio", "training"],
        &["inner"],
    )]);
    tiny.initializers.push(constant("ratio", &[], &[0.5]));
    let training = mohs::tensor::Tensor::new(&[], vec![true]).unwrap();
    tiny.initializers
        .push(mohs::onnx::from_tensor("training", &training));
    tiny.write(&sandbox, "model.onnx");
    let words = [&TRAIN[..], &["--method", "standard"]].concat();
    let (code, _, stderr) = texts(&sandbox.mohs(&words).output().unwrap());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("Dropout") && stderr.contains("evaluation mode"),
        "{stderr}"
    );
}
