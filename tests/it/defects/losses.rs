//! Losses, their gradients, and what is made of them.

use super::Case;
use crate::attacks::{config, digits};
use crate::cli::fixtures::{N, Tiny, constant, samples};
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::loss::Loss;
use mohs::model::{GradientOptions, Model};
use mohs::onnx::encode;
use mohs::runtime::{Session, SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use mohs::threat::Norm;
use ndarray::{Array1, Array2};

/// Loss and gradient of samples one behind the other.
fn differentiated(model: &Model, loss: Loss, x: &[f32], labels: &[i64]) -> (Vec<f64>, Vec<f64>) {
    let options = GradientOptions {
        loss,
        ..GradientOptions::default()
    };
    let graph = model.gradient(&options).unwrap().graph;
    let bytes = encode(&graph.to_model());
    let mut session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
    let mut shape = vec![labels.len()];
    shape.extend(model.sample_shape());
    let points = Value::from_tensor(Tensor::new(&shape, x.to_vec()).unwrap()).unwrap();
    let labels = Tensor::I64(Array1::from_vec(labels.to_vec()).into_dyn());
    let labels = Value::from_tensor(labels).unwrap();
    let feeds = [(model.input(), &points), ("labels", &labels)];
    let found = session.run_for(&["loss", "grad"], &feeds).unwrap();
    let numbers = |value: &Value| value.to_tensor().unwrap().to_f64();
    (numbers(&found[0]), numbers(&found[1]))
}

#[test]
fn the_gradient_of_a_sample_does_not_depend_on_the_batch() {
    let model = digits("standard");
    let width: usize = model.sample_shape().iter().product();
    let sample =
        |number: usize| (0..width).map(move |i| ((7 * i + 13 * number) % 17) as f32 / 16.0);
    let all: Vec<f32> = (0..64).flat_map(sample).collect();
    let labels: Vec<i64> = (0..64).map(|number| number % 10).collect();
    for loss in Loss::ALL {
        let (_, together) = differentiated(&model, loss, &all, &labels);
        for number in [0, 1, 31, 63] {
            let alone: Vec<f32> = sample(number).collect();
            let (_, alone) = differentiated(&model, loss, &alone, &labels[number..=number]);
            let size = alone.iter().map(|g| g.abs()).fold(0.0, f64::max);
            assert!(size > 0.0, "{loss}");
            for (a, b) in alone.iter().zip(&together[number * width..]) {
                assert!(
                    (a - b).abs() <= 1e-4 * size,
                    "{loss}, sample {number}: {a} and {b}"
                );
            }
        }
    }
}

/// x · diag(1, 1, 1): the logits are the input.
fn logits() -> Tiny {
    Tiny {
        inputs: vec![info("x", DType::F32, &[N, Some(3)])],
        nodes: vec![joined("MatMul", &["x", "weights"], &["logits"])],
        initializers: vec![constant(
            "weights",
            &[3, 3],
            &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        )],
        ..Tiny::linear()
    }
}

#[test]
fn the_margin_takes_negative_logits_as_they_are() {
    let case = Case::new(&logits(), Array2::zeros((1, 3)), &ndarray::array![0]);
    let x = [-2.0, -5.0, -3.0, 3.0, -5.0, -3.0, -1.0, -4.0, 2.0];
    let (losses, gradients) = differentiated(&case.model, Loss::Margin, &x, &[0, 0, 0]);
    assert_eq!(losses, [-1.0, -6.0, 3.0]);
    let upwards = [-1.0, 0.0, 1.0];
    assert_eq!(gradients, [upwards, upwards, upwards].concat());
}

/// Softmax minus one is 0 in float32 from a margin of 17 on, and a constant added to a norm swallows such a gradient; here the margins go up to 75.
#[test]
fn a_confident_sample_is_attacked_like_any_other() {
    for factor in [1.0, 10.0, 25.0] {
        let mut tiny = Tiny::linear();
        let weights = [
            2.0, -1.0, -1.0, -1.0, 2.0, -1.0, -1.0, -1.0, 2.0, 0.5, 0.25, -0.5,
        ];
        tiny.initializers[0] = constant("weights", &[4, 3], &weights.map(|w| factor * w));
        let (x, y) = samples();
        let case = Case::new(&tiny, x, &y);
        let pgd = "pgd:random_start=false";
        for (attack, norm, epsilon) in [
            ("fgm", Norm::Linf, 0.5),
            (pgd, Norm::Linf, 0.5),
            ("fgm", Norm::L2, 1.0),
            (pgd, Norm::L2, 1.0),
            ("apgd:random_start=false", Norm::L2, 1.0),
            (pgd, Norm::L1, 1.6),
        ] {
            let (_, report) = case.run(&config(attack, norm, &[epsilon]));
            let row = &report.summary[0];
            let found = (row.clean_accuracy, row.robust_accuracy);
            assert_eq!(found, (1.0, 0.0), "{attack} {norm}, times {factor}");
        }
    }
}

#[test]
fn a_softmax_at_the_end_weakens_no_attack() {
    let (x, y) = samples();
    let logits = Case::new(&Tiny::linear(), x.clone(), &y);
    let softmax = Tiny::before(vec![joined("Softmax", &["scores"], &["logits"])]);
    let softmax = Case::new(&softmax, x, &y);
    for attack in [
        "pgd:loss=margin,random_start=false",
        "pgd:random_start=false",
        "cw:steps=100,searches=4,weight=1,step_size=0.05",
        "ddn",
        "fmn",
    ] {
        let config = config(attack, Norm::L2, &[0.1, 0.25, 5.0]);
        let [bare, behind] = [&logits, &softmax].map(|case| case.run(&config).0.outcomes);
        assert!(bare.iter().any(|outcome| !outcome.robust), "{attack}");
        for (bare, behind) in bare.iter().zip(&behind) {
            assert_eq!(
                bare.robust, behind.robust,
                "{attack}, sample {}",
                bare.index
            );
            assert!(
                (bare.l2 - behind.l2).abs() < 1e-4,
                "{attack}: {} and {}",
                bare.l2,
                behind.l2
            );
        }
    }
}

#[test]
fn black_and_white_pictures_are_broken() {
    let mut tiny = Tiny::linear();
    tiny.initializers[1] = constant("bias", &[3], &[0.5, 0.0, 0.0]);
    // Class 0 by the bias alone where all is black, and by all together where all is white.
    let case = Case::new(
        &tiny,
        Array2::from_shape_vec((2, 4), vec![0., 0., 0., 0., 1., 1., 1., 1.]).unwrap(),
        &ndarray::array![0, 0],
    );
    // From black, the shortest way is along (1, −1) of the classes' difference, of which the bounds leave the upward part: 0.5 = 3 δ.
    for attack in [
        "cw:steps=200,searches=5,step_size=0.05",
        "ddn",
        "fmn",
        "fab",
        "deepfool",
    ] {
        let (_, report) = case.run(&config(attack, Norm::L2, &[0.3, 2.0]));
        let row = &report.summary[1];
        assert_eq!(
            (row.clean_accuracy, row.robust_accuracy),
            (1.0, 0.0),
            "{attack}"
        );
    }
}
