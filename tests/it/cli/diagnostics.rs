//! Diagnostics: a model that shows each, and models that show none.

use super::fixtures::{Tiny, constant, evaluate, npz, ready, samples};
use super::{Sandbox, shipped};
use crate::lift::joined;
use mohs::onnx::proto::{AttributeProto, NodeProto};

/// The ids that stand in a text, each with whether it is called untrustworthy.
fn found(stdout: &str) -> Vec<(String, bool)> {
    stdout
        .lines()
        .filter_map(|line| {
            let grave = line.starts_with("! not to be trusted [");
            let id = line.split_once('[')?.1.split_once(']')?.0;
            (grave || line.starts_with("· note [")).then(|| (id.to_owned(), grave))
        })
        .collect()
}

fn shows(sandbox: &Sandbox, model: &str, more: &[&str], id: &str, grave: bool) {
    let (stdout, _) = sandbox.run(&evaluate(model, "data.npz", more));
    assert!(found(&stdout).contains(&(id.to_owned(), grave)), "{stdout}");
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 80),
        "{stdout}"
    );
    // A number that is not to be trusted is marked in the table, and in the file for scripts.
    let summary = sandbox.read("report/summary.csv");
    let marked = summary.lines().skip(1).any(|row| row.contains(id));
    assert_eq!(marked, grave, "{summary}");
    assert_eq!(
        stdout.contains("! This number is not to be trusted"),
        summary.lines().skip(1).any(|row| !row.ends_with(',')),
        "{stdout}"
    );
}

fn shows_none(sandbox: &Sandbox, model: &str, more: &[&str]) {
    let (stdout, _) = sandbox.run(&evaluate(model, "data.npz", more));
    assert_eq!(found(&stdout), [], "{stdout}");
}

/// Steps have no slope.
fn flat(sandbox: &Sandbox) {
    let mut flat = Tiny::behind(vec![
        joined("Mul", &["x", "many"], &["large"]),
        joined("Clip", &["large", "low", "high"], &["inner"]),
    ]);
    flat.initializers.extend([
        constant("many", &[], &[1000.0]),
        constant("low", &[], &[0.0]),
        constant("high", &[], &[1.0]),
    ]);
    flat.write(sandbox, "flat.onnx");
}

#[test]
fn a_plain_model_shows_none() {
    let sandbox = ready();
    for attack in ["fgsm", "fgsm,pgd", "pgd:restarts=3,loss=margin"] {
        shows_none(
            &sandbox,
            "model.onnx",
            &["--attack", attack, "--epsilon", "0.05,0.1,0.3"],
        );
    }
    for norm in ["l2", "l1"] {
        shows_none(
            &sandbox,
            "model.onnx",
            &["--norm", norm, "--attack", "pgd,fgm"],
        );
    }
    shows_none(&sandbox, "model.onnx", &["--bounds", "none"]);
}

#[test]
fn the_demo_models_show_none() {
    let sandbox = Sandbox::new();
    std::fs::copy(shipped("digits-test.npz"), sandbox.path("data.npz")).unwrap();
    for name in ["digits-standard.onnx", "digits-adversarial.onnx"] {
        let radii = [
            "--attack",
            "fgsm,pgd",
            "--epsilon",
            "8/255,0.1,0.3",
            "--limit",
            "100",
        ];
        shows_none(&sandbox, &shipped(name), &radii);
        let radii = [
            "--norm",
            "l2",
            "--attack",
            "fgm,pgd",
            "--epsilon",
            "0.25,1",
            "--limit",
            "100",
        ];
        shows_none(&sandbox, &shipped(name), &radii);
    }
}

#[test]
fn gradients_that_are_zero_are_found() {
    let sandbox = ready();
    flat(&sandbox);
    let bounds = ["--bounds", "0,2"];
    shows(&sandbox, "flat.onnx", &bounds, "zero-gradients", true);
    shows(
        &sandbox,
        "flat.onnx",
        &bounds,
        "large-epsilon-survivors",
        true,
    );
    let still = ["--bounds", "0,2", "--attack", "pgd:random_start=false"];
    shows(&sandbox, "flat.onnx", &still, "flat-loss", true);
}

#[test]
fn gradients_that_are_no_numbers_are_found() {
    let sandbox = ready();
    // The arc sine is vertical at 1, where some of these samples are.
    Tiny::behind(vec![joined("Asin", &["x"], &["inner"])]).write(&sandbox, "steep.onnx");
    let (mut x, y) = samples();
    x[[0, 0]] = 1.0;
    x[[3, 1]] = 1.0;
    npz(&sandbox, "data.npz", &x.into_dyn(), &y);
    let still = ["--attack", "pgd:random_start=false", "--epsilon", "0.01"];
    shows(&sandbox, "steep.onnx", &still, "non-finite-gradients", true);
}

#[test]
fn a_model_that_ignores_its_input_survives_everything() {
    let sandbox = ready();
    let mut stubborn = Tiny::linear();
    stubborn.initializers[0] = constant("weights", &[4, 3], &[1e-3; 12]);
    stubborn.initializers[1] = constant("bias", &[3], &[9.0, 0.0, 0.0]);
    stubborn.write(&sandbox, "stubborn.onnx");
    shows(
        &sandbox,
        "stubborn.onnx",
        &[],
        "large-epsilon-survivors",
        true,
    );
}

#[test]
fn a_robust_accuracy_that_rises_is_found() {
    let sandbox = ready();
    // A wave: a step twice as long ends where the model is right again.
    let mut wave = Tiny::behind(vec![
        joined("Mul", &["x", "many"], &["fast"]),
        joined("Cos", &["fast"], &["inner"]),
    ]);
    wave.initializers.push(constant("many", &[], &[62.831_853]));
    wave.write(&sandbox, "wave.onnx");
    let (mut x, y) = samples();
    // Ones where the class is, on the crests; zeros elsewhere, in the troughs.
    for (mut row, class) in x.rows_mut().into_iter().zip(&y) {
        for (column, value) in row.iter_mut().enumerate() {
            *value = if column as i64 == *class {
                0.502
            } else {
                0.452
            };
        }
    }
    npz(&sandbox, "data.npz", &x.into_dyn(), &y);
    let radii = [
        "--attack",
        "fgsm",
        "--keep",
        "last",
        "--epsilon",
        "0.05,0.1",
    ];
    shows(&sandbox, "wave.onnx", &radii, "rises-with-epsilon", true);
}

#[test]
fn one_step_that_does_better_than_many_and_steps_too_short_are_found() {
    let sandbox = ready();
    let more = [
        "--attack",
        "fgsm,pgd:steps=2,step_size=0.001,random_start=false",
        "--epsilon",
        "0.6",
    ];
    shows(&sandbox, "model.onnx", &more, "single-step-stronger", true);
    shows(&sandbox, "model.onnx", &more, "short-steps", true);
}

#[test]
fn a_model_that_changes_its_answers_is_found() {
    let sandbox = ready();
    let random = NodeProto {
        attribute: vec![
            AttributeProto {
                name: Some("shape".into()),
                ints: vec![1, 3],
                r#type: Some(7),
                ..AttributeProto::default()
            },
            AttributeProto {
                name: Some("high".into()),
                f: Some(2e-3),
                r#type: Some(1),
                ..AttributeProto::default()
            },
        ],
        ..joined("RandomUniform", &[], &["noise"])
    };
    let noisy = Tiny::before(vec![
        random,
        joined("Add", &["scores", "noise"], &["logits"]),
    ]);
    noisy.write(&sandbox, "noisy.onnx");
    shows(&sandbox, "noisy.onnx", &[], "unstable-output", true);
}

#[test]
fn probabilities_are_found_with_and_without_a_softmax() {
    let sandbox = ready();
    Tiny::before(vec![joined("Softmax", &["scores"], &["logits"])]).write(&sandbox, "soft.onnx");
    shows(&sandbox, "soft.onnx", &[], "softmax-head", false);
    shows(
        &sandbox,
        "soft.onnx",
        &["--keep-softmax"],
        "softmax-head",
        false,
    );
}

#[test]
fn a_model_that_guesses_is_found() {
    let sandbox = ready();
    let mut wrong = Tiny::linear();
    wrong.initializers[1] = constant("bias", &[3], &[-9.0, -9.0, 9.0]);
    wrong.write(&sandbox, "wrong.onnx");
    shows(&sandbox, "wrong.onnx", &[], "no-better-than-chance", false);
}

/// A staircase that leans the wrong way: the gradient leads astray, and who asks for scores does not go by it.
#[test]
fn queries_that_do_better_than_gradients_are_found() {
    let sandbox = ready();
    Tiny::stairs().write(&sandbox, "stairs.onnx");
    let more = [
        "--attack",
        "square:queries=200",
        "--epsilon",
        "0.5",
        "--seed",
        "3",
    ];
    shows(&sandbox, "stairs.onnx", &more, "black-box-stronger", true);
    shows_none(&sandbox, "model.onnx", &more);
}

#[test]
fn steps_that_still_break_samples_at_their_end_are_found() {
    let sandbox = ready();
    let (x, _) = samples();
    let x = ndarray::Array2::from_shape_fn((6, 4), |(_, column)| x[[0, column]]);
    npz(
        &sandbox,
        "data.npz",
        &x.into_dyn(),
        &ndarray::Array1::zeros(6),
    );
    // The boundary is 0.34 away: nine of ten steps do not reach it.
    let still = |size: &str| {
        let attack = format!("pgd:steps=10,random_start=false,step_size={size}");
        let (stdout, _) = sandbox.run(&[
            "evaluate",
            "model.onnx",
            "--data",
            "data.npz",
            "--epsilon",
            "0.36",
            "--attack",
            &attack,
        ]);
        found(&stdout)
    };
    assert_eq!(still("0.036"), [("not-converged".to_owned(), true)]);
    assert_eq!(still("0.05"), []);
}

#[test]
fn restarts_that_still_break_samples_are_found() {
    let sandbox = Sandbox::new();
    std::fs::copy(shipped("digits-test.npz"), sandbox.path("data.npz")).unwrap();
    let told = |restarts: u32| {
        let attack = format!("pgd:steps=4,restarts={restarts}");
        let (stdout, _) = sandbox.run(&[
            "evaluate",
            &shipped("digits-standard.onnx"),
            "--data",
            "data.npz",
            "--limit",
            "100",
            "--epsilon",
            "0.1",
            "--attack",
            &attack,
        ]);
        let told = found(&stdout);
        assert!(told.iter().all(|(id, _)| id == "not-converged"), "{stdout}");
        (told.len(), stdout)
    };
    let (count, stdout) = told(2);
    assert_eq!(count, 1, "{stdout}");
    assert!(stdout.contains("the last of 2 restarts broke"), "{stdout}");
    assert_eq!(told(1).0, 0, "a single one is no last one");
    assert_eq!(told(30).0, 0, "after many there is hardly anything left");
}
