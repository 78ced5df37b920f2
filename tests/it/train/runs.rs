//! Whole runs of `mohs train`: killed, stopped, resumed, and refused.

use super::TRAIN;
use crate::cli::fixtures::{Tiny, npz, ready, samples};
use crate::cli::{Sandbox, shipped, texts};
use crate::lift::joined;
use mohs::graph::Attribute;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A training on digits whose every kind of state goes into its checkpoints.
const TRAINING: &[&str] = &[
    "--method",
    "free:replays=2",
    "--epsilon",
    "0.1",
    "--epochs",
    "12",
    "--batch-size",
    "48",
    "--optimizer",
    "adamw:learning_rate=0.002,clip=1",
    "--schedule",
    "one-cycle",
    "--limit",
    "300",
    "--validation-limit",
    "60",
    "--validation-steps",
    "2",
    "--crop",
    "1",
    "--reinitialize",
    "3",
    "--threads",
    "1",
];

fn arguments(out: &str, more: &[&str]) -> Vec<String> {
    let data = shipped("digits-test.npz");
    let model = shipped("digits-standard.onnx");
    let fixed = [
        "train",
        &model,
        "--data",
        &data,
        "--validation",
        &data,
        "-o",
        out,
    ];
    let all = fixed.iter().chain(TRAINING).chain(more);
    all.map(|&word| word.to_owned()).collect()
}

fn run(sandbox: &Sandbox, out: &str, more: &[&str]) {
    let arguments = arguments(out, more);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    sandbox.run(&words);
}

/// Starts a run that somebody else ends.
fn start(sandbox: &Sandbox, out: &str, more: &[&str]) -> Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mohs"));
    command.current_dir(sandbox.path("."));
    command.args(arguments(out, more));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until the checkpoint is another than `before`, or the run is over; whether it is still running.
fn runs_until_checkpoint(child: &mut Child, sandbox: &Sandbox, before: &str) -> bool {
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let now = std::fs::read_to_string(sandbox.path("run/checkpoint.toml"));
        if now.is_ok_and(|now| now != before) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_weights() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    run(&sandbox, "whole.onnx", &["--log", "whole.csv"]);
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut before = String::new();
    let mut kills = 0;
    for attempt in 0..3 {
        let resume: &[&str] = match attempt {
            0 => &["--checkpoint", "run"],
            _ => &["--checkpoint", "run", "--resume"],
        };
        let mut child = start(&sandbox, "parts.onnx", resume);
        if runs_until_checkpoint(&mut child, &sandbox, &before) {
            std::thread::sleep(Duration::from_millis(random.random_range(0..150)));
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        before = sandbox.read("run/checkpoint.toml");
    }
    assert!(kills > 0, "the run was over before it could be killed");
    run(&sandbox, "parts.onnx", &["--checkpoint", "run", "--resume"]);
    let bytes = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(bytes("whole.onnx") == bytes("parts.onnx"));
    // The table is that of the whole run, but for the seconds.
    let rows = |name: &str| -> Vec<String> {
        let table = sandbox.read(name);
        let rows = table
            .lines()
            .map(|row| row.rsplit_once(',').unwrap().0.to_owned());
        rows.collect()
    };
    assert_eq!(rows("whole.csv"), rows("training.csv"));
    assert_eq!(rows("whole.csv").len(), 1 + 6);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_ends_with_130_and_goes_on_to_the_same_weights() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    run(&sandbox, "whole.onnx", &["--log", "whole.csv"]);
    let mut child = start(&sandbox, "parts.onnx", &["--checkpoint", "run"]);
    assert!(runs_until_checkpoint(&mut child, &sandbox, ""));
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let (code, _, stderr) = texts(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("--resume goes on from there"), "{stderr}");
    assert!(!sandbox.path("parts.onnx").exists());
    run(&sandbox, "parts.onnx", &["--checkpoint", "run", "--resume"]);
    let bytes = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(bytes("whole.onnx") == bytes("parts.onnx"));
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let sandbox = trainable();
    let train = |more: &[&str]| {
        let mut words = TRAIN.to_vec();
        words.extend([
            "--method",
            "standard",
            "--epochs",
            "2",
            "--checkpoint",
            "run",
        ]);
        words.extend(more);
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let words = train(&[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    sandbox.run(&words);
    let refused = |more: &[&str], expected: &[&str]| {
        let words = train(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        sandbox.refused(&words, expected);
    };
    refused(&[], &["run/checkpoint.toml", "--resume"]);
    refused(
        &["--resume", "--seed", "1"],
        &["another training", "its seed is 0, and asked for is 1"],
    );
    let mut other = Tiny::linear();
    other.initializers[1] = crate::cli::fixtures::constant("bias", &[3], &[0.0, 0.2, -0.1]);
    other.write(&sandbox, "model.onnx");
    refused(&["--resume"], &["another training", "its model is"]);
}

/// A folder with the linear model and its samples.
fn trainable() -> Sandbox {
    ready()
}

fn refused(sandbox: &Sandbox, more: &[&str], expected: &[&str]) {
    let mut words = TRAIN.to_vec();
    words.extend(more);
    sandbox.refused(&words, expected);
}

#[test]
fn what_cannot_be_trained_is_refused_before_the_first_step() {
    let sandbox = trainable();
    for (more, expected) in [
        (&[][..], &["pgd", "--epsilon"][..]),
        (
            &["--method", "pdg", "--epsilon", "0.1"],
            &["there is no method `pdg`", "pgd"],
        ),
        (
            &["--method", "standard", "--freeze", "conv*"],
            &["--freeze conv*", "matches no parameter", "weights"],
        ),
        (
            &["--method", "standard", "--freeze", "*"],
            &["every parameter is frozen"],
        ),
        (
            &["--method", "standard", "--resume", "--checkpoint", "none"],
            &["no checkpoint to resume from"],
        ),
        (
            &["--method", "standard", "--crop", "2"],
            &["--crop and --flip are for images"],
        ),
        (
            &["--method", "standard", "--keep-softmax"],
            &["--keep-softmax"],
        ),
        (
            &["--epsilon", "0.1", "--wrt", "nothing"],
            &["no tensor `nothing`"],
        ),
    ] {
        refused(&sandbox, more, expected);
    }
    let (x, mut y) = samples();
    y[1] = 7;
    npz(&sandbox, "data.npz", &x.into_dyn(), &y);
    refused(&sandbox, &["--method", "standard"], &["1", "label 7"]);
}

#[test]
fn probabilities_without_a_softmax_are_refused() {
    let sandbox = trainable();
    let mut total = joined("ReduceSum", &["powers", "last"], &["total"]);
    total.attribute = vec![Attribute::Int(1).to_proto("keepdims")];
    let mut tiny = Tiny::before(vec![
        joined("Exp", &["scores"], &["powers"]),
        total,
        joined("Div", &["powers", "total"], &["logits"]),
    ]);
    let last = mohs::tensor::Tensor::new(&[1], vec![1_i64]).unwrap();
    tiny.initializers
        .push(mohs::onnx::from_tensor("last", &last));
    tiny.write(&sandbox, "model.onnx");
    refused(
        &sandbox,
        &["--method", "standard"],
        &["probabilities", "logits"],
    );
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_batch_and_keeps_the_checkpoint() {
    let sandbox = trainable();
    let mut words = TRAIN.to_vec();
    words.extend(["--method", "standard", "--batch-size", "1", "--epochs", "2"]);
    words.extend(["--optimizer", "sgd:learning_rate=1e39"]);
    let stderr = sandbox.refused(
        &words,
        &["not finite", "epoch 1, batch 2", "samples", "learning rate"],
    );
    assert!(stderr.contains("no checkpoint was written yet"), "{stderr}");
}

#[test]
fn the_guard_of_fgsm_gives_back_the_weights_before_the_collapse() {
    let sandbox = Sandbox::new();
    crate::runtime_ready();
    let folder = format!("{}/tests/references/train", env!("CARGO_MANIFEST_DIR"));
    let train = |epochs: &str, out: &str| {
        sandbox.run(&[
            "train",
            &format!("{folder}/cnn.onnx"),
            "--data",
            &format!("{folder}/cnn-data.npz"),
            "--method",
            "fgsm:random_start=false",
            "--epsilon",
            "0.1",
            "--optimizer",
            "sgd:learning_rate=0.1,momentum=0.9",
            "--epochs",
            epochs,
            "-o",
            out,
        ])
    };
    train("1", "one.onnx");
    let (_, stderr) = train("9", "nine.onnx");
    assert!(
        stderr.contains("robust accuracy has collapsed in epoch 2"),
        "{stderr}"
    );
    let bytes = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(bytes("one.onnx") == bytes("nine.onnx"));
    assert_eq!(sandbox.read("training.csv").lines().count(), 1 + 2);
}

#[test]
fn token_ids_are_trained_on_without_an_inner_tensor_where_nothing_is_perturbed() {
    let sandbox = Sandbox::new();
    crate::runtime_ready();
    let folder = format!("{}/tests/references/train", env!("CARGO_MANIFEST_DIR"));
    let (model, data) = (
        format!("{folder}/tokens.onnx"),
        format!("{folder}/tokens-data.npz"),
    );
    let base = [
        "train", &model, "--data", &data, "--epochs", "2", "-o", "out.onnx",
    ];
    let train = |more: &[&str]| {
        sandbox.run(&[&base[..], more].concat());
        std::fs::read(sandbox.path("out.onnx")).unwrap()
    };
    let own = train(&["--method", "standard"]);
    assert!(own != std::fs::read(&model).unwrap());
    sandbox.run(&["gradient", &model, "--parameters", "-o", "training.onnx"]);
    let given = ["--method", "standard", "--training-graph", "training.onnx"];
    assert!(own == train(&given));
    let perturbed = [&base[..], &["--epsilon", "0.1"]].concat();
    sandbox.refused(&perturbed, &["no float input", "--wrt"]);
}
