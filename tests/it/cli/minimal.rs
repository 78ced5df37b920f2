//! `--minimal-epsilon`: against the closed form of a linear model.

use super::fixtures::{N, Tiny, constant, npz, ready, samples};
use super::{Sandbox, shipped};
use crate::gradcheck::info;
use mohs::tensor::DType;

const WEIGHTS: [[f32; 2]; 4] = [[2.0, -1.0], [-1.0, 0.5], [0.25, 1.0], [-0.5, 0.75]];
const BIAS: [f32; 2] = [-0.2, 0.1];

/// A linear model of two classes, and for each sample the margin by which it is right, below 0 where it is wrong.
fn linear(sandbox: &Sandbox) -> Vec<f64> {
    let mut linear = Tiny::linear();
    linear.outputs = vec![info("logits", DType::F32, &[N, Some(2)])];
    linear.initializers = vec![
        constant("weights", &[4, 2], &WEIGHTS.concat()),
        constant("bias", &[2], &BIAS),
    ];
    linear.write(sandbox, "linear.onnx");
    let (x, _) = samples();
    let y = ndarray::array![0, 0, 1, 1, 1, 0];
    npz(sandbox, "two.npz", &x.clone().into_dyn(), &y);
    let rows = x.rows().into_iter().zip(&y);
    rows.map(|(row, &label)| {
        let score = |class: usize| -> f64 {
            let products = row
                .iter()
                .zip(WEIGHTS)
                .map(|(x, w)| f64::from(*x) * f64::from(w[class]));
            products.sum::<f64>() + f64::from(BIAS[class])
        };
        let label = label as usize;
        score(label) - score(1 - label)
    })
    .collect()
}

/// The numbers in a column of a CSV file.
fn column(text: &str, name: &str) -> Vec<f64> {
    let mut lines = text.lines();
    let position = lines
        .next()
        .unwrap()
        .split(',')
        .position(|column| column == name);
    lines
        .map(|line| {
            line.split(',')
                .nth(position.unwrap())
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

#[test]
fn the_smallest_radius_of_a_linear_model_is_its_margin_over_the_dual_norm() {
    let sandbox = Sandbox::new();
    let margins = linear(&sandbox);
    let slopes: Vec<f64> = WEIGHTS
        .iter()
        .map(|w| f64::from(w[0] - w[1]).abs())
        .collect();
    let l1: f64 = slopes.iter().sum();
    let l2 = slopes.iter().map(|slope| slope * slope).sum::<f64>().sqrt();
    let largest = slopes.iter().copied().fold(0.0, f64::max);
    // A bracket is narrow at a hundredth; in ℓ2 twenty steps from a random point end a little beside the best one.
    for (norm, attack, dual, slack) in [
        ("linf", "fgsm", l1, 0.011),
        ("linf", "pgd:steps=20", l1, 0.011),
        ("l2", "fgm", l2, 0.011),
        ("l2", "pgd:steps=20", l2, 0.04),
        ("l1", "fgm", largest, 0.011),
    ] {
        let (stdout, _) = sandbox.run(&[
            "evaluate",
            "linear.onnx",
            "--data",
            "two.npz",
            "--minimal-epsilon",
            "0,4",
            "--norm",
            norm,
            "--attack",
            attack,
            "--bounds",
            "none",
            "--out",
            "report",
        ]);
        let text = sandbox.read("report/minimal_epsilon.csv");
        let (minimal, withstood) = (column(&text, "minimal_epsilon"), column(&text, "withstood"));
        for (index, margin) in margins.iter().enumerate() {
            let truth = margin.max(0.0) / dual;
            let (low, high) = (withstood[index], minimal[index]);
            // In float32 a point on the boundary may fall on either side.
            let rounding = 1e-5;
            assert!(
                high >= truth - rounding,
                "{attack} {norm}, sample {index}: {high} is below {truth}"
            );
            let near = (1.0 + slack) * truth + 4.0 / 4096.0 + rounding;
            assert!(
                high <= near,
                "{attack} {norm}, sample {index}: {high} is far above {truth}"
            );
            assert!(
                low <= (1.0 + slack) * truth + rounding,
                "{attack} {norm}, sample {index}: withstood {low}"
            );
        }
        assert!(stdout.contains("median"), "{stdout}");
        assert!(
            stdout.lines().all(|line| line.chars().count() <= 80),
            "{stdout}"
        );
        let names = sandbox.names();
        assert!(
            !names.contains(&"report/samples.csv".to_owned()),
            "{names:?}"
        );
    }
}

#[test]
fn batch_size_changes_nothing_and_the_worst_case_is_the_least() {
    let sandbox = Sandbox::new();
    linear(&sandbox);
    let search = |size: &str| {
        sandbox.run(&[
            "evaluate",
            "linear.onnx",
            "--data",
            "two.npz",
            "--minimal-epsilon",
            "0,1",
            "--attack",
            "fgsm,pgd:steps=5",
            "--batch-size",
            size,
            "--out",
            "report",
        ]);
        sandbox.read("report/minimal_epsilon.csv")
    };
    let text = search("4");
    assert_eq!(text, search("1"));
    let minimal = column(&text, "minimal_epsilon");
    for index in 0..6 {
        assert_eq!(minimal[12 + index], minimal[index].min(minimal[6 + index]));
    }
}

#[test]
fn it_agrees_with_the_evaluation_at_a_radius() {
    let sandbox = Sandbox::new();
    let (model, data) = (shipped("digits-standard.onnx"), shipped("digits-test.npz"));
    sandbox.run(&[
        "evaluate",
        &model,
        "--data",
        &data,
        "--limit",
        "60",
        "--attack",
        "fgsm",
        "--epsilon",
        "0.1",
        "--minimal-epsilon",
        "0,0.5",
        "--out",
        "report",
    ]);
    let broken = column(
        &sandbox.read("report/minimal_epsilon.csv"),
        "minimal_epsilon",
    );
    let broken = broken.iter().filter(|minimal| **minimal <= 0.1).count();
    let samples = sandbox.read("report/samples.csv");
    let robust = samples.lines().filter(|row| row.contains(",true,")).count();
    // A single step may overshoot at 0.1 what a shorter one breaks, never the other way.
    assert!(
        broken >= 60 - robust && broken <= 60 - robust + 3,
        "{broken} and {robust}"
    );
}

#[test]
fn ranges_that_are_none_are_refused() {
    let sandbox = ready();
    let refused = |range: &str, words: &[&str]| {
        let flag = format!("--minimal-epsilon={range}");
        sandbox.refused(
            &["evaluate", "model.onnx", "--data", "data.npz", &flag],
            words,
        );
    };
    refused("0.1", &["two numbers LOW,HIGH"]);
    refused("0.3,0.1", &["below the second"]);
    refused("-1,0.1", &["0 or above"]);
    refused("0,0", &["epsilon is zero"]);
    refused("0,inf", &["infinite"]);
    sandbox.refused(
        &["evaluate", "model.onnx", "--data", "data.npz"],
        &["--epsilon"],
    );
}
