//! Classifiers of scikit-learn and Keras as their users get them (`tests/frameworks/export.py`), against float64 references.

use crate::cli::Sandbox;
use mohs::attack::AttackPlan;
use mohs::data::{Dataset, Options, Source};
use mohs::evaluate::{Config, evaluate};
use mohs::model::{GradientOptions, Model, ModelOptions};
use mohs::onnx::encode;
use mohs::runtime::{Session, SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use mohs::threat::{Bounds, Norm};
use ndarray::{Array1, Array2, ArrayD, Axis};
use ndarray_npy::NpzReader;
use std::fs::File;
use std::path::PathBuf;

const CLASSIFIERS: [&str; 13] = [
    "columns",
    "components",
    "keras-binary",
    "keras-cnn",
    "keras-logistic",
    "keras-mlp",
    "linear-svc",
    "linear-svc-binary",
    "logistic",
    "logistic-binary",
    "mlp-normalized",
    "scaled-double",
    "sgd-log",
];

fn path(name: &str) -> PathBuf {
    crate::sources::root().join("tests/frameworks").join(name)
}

fn open(name: &str) -> Model {
    crate::runtime_ready();
    Model::open(&path(&format!("{name}.onnx")), &ModelOptions::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn npz(name: &str) -> NpzReader<File> {
    NpzReader::new(File::open(path(&format!("{name}.npz"))).unwrap()).unwrap()
}

/// The samples in double precision.
fn samples(name: &str) -> ArrayD<f64> {
    let mut file = npz(name);
    match file.by_name::<ndarray::OwnedRepr<f64>, ndarray::IxDyn>("x") {
        Ok(samples) => samples,
        Err(_) => {
            let samples: ArrayD<f32> = npz(name).by_name("x").unwrap();
            samples.mapv(f64::from)
        }
    }
}

/// ‖found − expected‖ / ‖expected‖.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let pairs = found.iter().zip(expected);
    let apart = square(&mut pairs.map(|(f, e)| f - e));
    (apart / square(&mut expected.iter().copied())).sqrt()
}

#[test]
fn scores_and_gradients_are_those_of_the_framework() {
    for name in CLASSIFIERS {
        let model = open(name);
        let graph = model.gradient(&GradientOptions::default()).unwrap().graph;
        let standard = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
        let mut nodes = graph.nodes.iter();
        let foreign = nodes.find(|node| !standard(node.proto.domain.as_deref()));
        assert!(foreign.is_none(), "{name}: {foreign:?}");
        let bytes = encode(&graph.to_model());
        let mut session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
        let x = samples(name);
        let y: Array1<i64> = npz(name).by_name("y").unwrap();
        let points = match model.input_dtype() {
            DType::F64 => Tensor::F64(x),
            _ => Tensor::F32(x.mapv(|value| value as f32)),
        };
        let feeds = [
            (model.input(), Value::from_tensor(points).unwrap()),
            (
                "labels",
                Value::from_tensor(Tensor::I64(y.into_dyn())).unwrap(),
            ),
        ];
        let feeds: Vec<(&str, &Value)> = feeds.iter().map(|(name, value)| (*name, value)).collect();
        let found = session.run_for(&[model.output(), "grad"], &feeds).unwrap();
        let found: Vec<Vec<f64>> = found
            .iter()
            .map(|value| value.to_tensor().unwrap().to_f64())
            .collect();
        let scores: Array2<f64> = npz(name).by_name("scores").unwrap();
        let expected: ArrayD<f64> = npz(name).by_name("grad").unwrap();
        let scores: Vec<f64> = scores.iter().copied().collect();
        let error = distance(&found[0], &scores);
        assert!(error < 1e-5, "{name}: scores {error}");
        // Sample by sample: a confident one counts as much as another. Where a pixel hardly varies, scaling it to variance 1 costs digits.
        let mut errors = Vec::new();
        let width = expected.len() / expected.len_of(Axis(0));
        for (sample, expected) in expected.outer_iter().enumerate() {
            let expected: Vec<f64> = expected.iter().copied().collect();
            let error = distance(&found[1][sample * width..(sample + 1) * width], &expected);
            errors.push((error, sample));
        }
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(errors[errors.len() - 1].0 < 1e-2, "{name}: {errors:?}");
        assert!(errors[errors.len() * 9 / 10].0 < 1e-3, "{name}: {errors:?}");
    }
}

#[test]
fn every_classifier_is_evaluated_without_a_word_on_its_ports() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    for name in CLASSIFIERS {
        let [model, data] = ["onnx", "npz"].map(|end| path(&format!("{name}.{end}")));
        let (model, data) = (model.display().to_string(), data.display().to_string());
        let arguments = [
            "evaluate",
            &model,
            "--data",
            &data,
            "--epsilon",
            "0.4",
            "--attack",
            "fgsm,pgd:steps=10",
            "--out",
            name,
        ];
        sandbox.run(&arguments);
        let summary = sandbox.read(&format!("{name}/summary.csv"));
        let rows: Vec<Vec<&str>> = summary
            .lines()
            .map(|row| row.split(',').collect())
            .collect();
        let column = |wanted: &str| rows[0].iter().position(|name| *name == wanted).unwrap();
        let number = |row: &[&str], wanted: &str| row[column(wanted)].parse::<f64>().unwrap();
        for row in &rows[1..] {
            assert!(number(row, "clean_accuracy") >= 0.85, "{name}: {row:?}");
            let robust = number(row, "robust_accuracy");
            assert!(robust < number(row, "clean_accuracy"), "{name}: {row:?}");
        }
    }
}

/// The distance of each sample to the nearest decision boundary of a linear model; negative where it is misclassified.
fn radii(name: &str, norm: Norm) -> Vec<f64> {
    let (mut file, x) = (npz(name), samples(name));
    let y: Array1<i64> = file.by_name("y").unwrap();
    let w: Array2<f64> = file.by_name("w").unwrap();
    let b: Array1<f64> = file.by_name("b").unwrap();
    let dual = |row: &Array1<f64>| match norm {
        Norm::Linf => row.mapv(f64::abs).sum(),
        Norm::L2 => row.mapv(|v| v * v).sum().sqrt(),
        Norm::L1 | Norm::L0 => row.fold(0.0, |most: f64, v| most.max(v.abs())),
    };
    let radius = |(sample, &label): (ndarray::ArrayViewD<'_, f64>, &i64)| {
        let sample = Array1::from_iter(sample.iter().copied());
        let own = label as usize;
        let others = (0..b.len()).filter(|other| *other != own);
        let to = others.map(|other| {
            let way = &w.row(own) - &w.row(other);
            (way.dot(&sample) + b[own] - b[other]) / dual(&way.to_owned())
        });
        to.fold(f64::INFINITY, f64::min)
    };
    x.outer_iter().zip(&y).map(radius).collect()
}

#[test]
fn robust_accuracy_of_linear_models_is_the_closed_form_for_two_classes_and_near_it_for_more() {
    for (name, attack) in [
        ("logistic-binary", "fgm"),
        ("logistic-binary", "pgd:steps=20"),
        ("linear-svc-binary", "fgm"),
        ("logistic", "pgd:steps=100,loss=margin,random_start=false"),
        ("linear-svc", "pgd:steps=100,loss=margin,random_start=false"),
    ] {
        let model = open(name);
        let dataset = Dataset::open(&Source::new(path(&format!("{name}.npz")))).unwrap();
        let options = Options {
            input_shape: Some(model.sample_shape().to_vec()),
            bounds: (f32::NEG_INFINITY, f32::INFINITY),
            ..Options::default()
        };
        let dataset = dataset.prepared(&options).unwrap();
        for norm in [Norm::Linf, Norm::L2] {
            let mut radii = radii(name, norm);
            radii.sort_by(f64::total_cmp);
            // Between two samples' radii each, where rounding decides nothing.
            let quantile = |part: usize| {
                let right: Vec<f64> = radii
                    .iter()
                    .copied()
                    .filter(|radius| *radius > 0.0)
                    .collect();
                let at = right.len() * part / 4;
                f64::midpoint(right[at - 1], right[at])
            };
            let epsilons: Vec<f64> = (1..4).map(quantile).collect();
            let config = Config {
                norm,
                bounds: Bounds::NONE,
                ..Config::new(AttackPlan::parse(attack).unwrap(), epsilons.clone())
            };
            let report = evaluate(&model, &dataset, &config, None, &mut ()).unwrap();
            for (row, epsilon) in report.summary.iter().zip(epsilons) {
                let robust = radii.iter().filter(|radius| **radius > epsilon).count();
                let expected = robust as f64 / radii.len() as f64;
                // With more classes than two, the steepest way need not lead to the nearest boundary; but none is nearer than it.
                let missed = if radii.len() < 20 { 0.0 } else { 0.05 };
                let excess = row.robust_accuracy - expected;
                assert!(
                    (-1e-12..=missed + 1e-12).contains(&excess),
                    "{name} {attack} {norm} {epsilon}: {} instead of {expected}",
                    row.robust_accuracy
                );
            }
        }
    }
}

#[test]
fn trees_are_refused_with_what_works_instead() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    let [model, data] = ["forest.onnx", "forest.npz"].map(|name| path(name).display().to_string());
    let arguments = ["evaluate", &model, "--data", &data, "--epsilon", "0.1"];
    sandbox.refused(&arguments, &["TreeEnsembleClassifier", "mohs list attacks"]);
}
