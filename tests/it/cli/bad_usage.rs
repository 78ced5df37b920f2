//! Command lines that make no sense, and results that cannot be written.

use super::Sandbox;
use super::fixtures::{evaluate, ready};

/// Evaluates with further arguments.
fn refused(sandbox: &Sandbox, more: &[&str], words: &[&str]) -> String {
    sandbox.refused(&evaluate("model.onnx", "data.npz", more), words)
}

#[test]
fn radii_that_are_none_are_refused() {
    let sandbox = ready();
    for (radius, word) in [
        ("-0.1", "-0.1"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("0", "0"),
        ("", "--epsilon"),
        ("1/0", "1/0"),
        ("0.1,", "--epsilon"),
        ("8/255,x", "x"),
    ] {
        refused(&sandbox, &["--epsilon", radius], &["--epsilon", word]);
    }
    refused(
        &sandbox,
        &["--epsilon", "0.5,1/2"],
        &["`0.5`", "`1/2`", "once"],
    );
    sandbox.refused(
        &["evaluate", "model.onnx", "--data", "data.npz"],
        &["--epsilon"],
    );
}

#[test]
fn attacks_that_are_not_known_are_refused_with_those_that_are() {
    let sandbox = ready();
    let attack = |text, words: &[&str]| refused(&sandbox, &["--attack", text], words);
    attack("fgms", &["fgms", "fgsm", "fgm", "pgd"]);
    attack("pgd:step=3", &["step", "steps", "restarts", "random_start"]);
    attack("pgd:steps=0", &["steps", "0"]);
    attack("pgd:steps=many", &["steps", "many"]);
    attack(
        "pgd:loss=hinge",
        &["hinge", "cross-entropy", "margin", "dlr"],
    );
    attack("", &["attack"]);
}

#[test]
fn an_attack_that_is_not_made_for_the_norm_is_refused() {
    let sandbox = ready();
    let arguments = [
        "evaluate",
        "model.onnx",
        "--data",
        "data.npz",
        "--attack",
        "fgsm",
        "--norm",
        "l2",
        "--epsilon",
        "0.5",
    ];
    sandbox.refused(&arguments, &["fgsm", "l2", "fgm"]);
}

#[test]
fn unknown_flags_commands_and_values_are_refused() {
    let sandbox = ready();
    refused(&sandbox, &["--epsilons", "0.1"], &["--epsilons"]);
    refused(&sandbox, &["--norm", "l3"], &["l3", "linf", "l2", "l1"]);
    refused(&sandbox, &["--device", "gpu"], &["gpu", "cuda", "cpu"]);
    refused(&sandbox, &["--batch-size", "0"], &["--batch-size", "auto"]);
    refused(&sandbox, &["--bounds", "1,0"], &["--bounds", "below"]);
    refused(&sandbox, &["--mean", "0.5"], &["--std"]);
    refused(
        &sandbox,
        &["--mean", "0.5,0.5", "--std", "1"],
        &["--mean", "--std"],
    );
    sandbox.refused(&["evalute"], &["evalute", "evaluate"]);
    sandbox.refused(&["list", "models"], &["models", "attacks", "operators"]);
}

#[test]
fn every_usage_error_points_to_the_help_of_its_command() {
    let sandbox = ready();
    for (arguments, help) in [
        (&["evaluate", "--nonsense"][..], "mohs evaluate --help"),
        (&["gradient"], "mohs gradient --help"),
        (&["evalute"], "mohs --help"),
    ] {
        sandbox.refused(arguments, &[help]);
    }
}

#[test]
fn results_that_cannot_be_written_are_refused_before_anything_runs() {
    let sandbox = ready();
    let out = |path, words: &[&str]| {
        sandbox.refused(
            &[
                "evaluate",
                "model.onnx",
                "--data",
                "data.npz",
                "--epsilon",
                "0.1",
                "--out",
                path,
            ],
            words,
        )
    };
    out("data.npz", &["data.npz", "not a folder"]);
    out("none/report", &["none", "does not exist"]);
    refused(
        &sandbox,
        &["--save-adversarial", "."],
        &["is a folder", "file"],
    );
    sandbox.refused(
        &["gradient", "model.onnx", "-o", "none/gradient.onnx"],
        &["none", "does not exist"],
    );
}

#[test]
fn what_is_read_is_not_replaced_by_results() {
    let sandbox = ready();
    let (model, data) = (
        std::fs::read(sandbox.path("model.onnx")).unwrap(),
        std::fs::read(sandbox.path("data.npz")).unwrap(),
    );
    sandbox.refused(
        &["gradient", "model.onnx", "-o", "./model.onnx"],
        &["model.onnx", "is read by this run"],
    );
    for file in ["data.npz", "model.onnx"] {
        refused(
            &sandbox,
            &["--save-adversarial", file],
            &[file, "is read by this run"],
        );
    }
    assert_eq!(std::fs::read(sandbox.path("model.onnx")).unwrap(), model);
    assert_eq!(std::fs::read(sandbox.path("data.npz")).unwrap(), data);
}

#[test]
fn results_that_share_a_folder_all_go_where_a_run_fails() {
    let sandbox = ready();
    let twice = ["--save-adversarial", "report/../report/samples.csv"];
    refused(&sandbox, &twice, &["samples.csv", "two results"]);
    std::fs::write(sandbox.path("bad.onnx"), "no model").unwrap();
    let arguments = evaluate(
        "bad.onnx",
        "data.npz",
        &["--save-adversarial", "report/x.npz"],
    );
    sandbox.refused(&arguments, &["bad.onnx"]);
}

#[cfg(unix)]
#[test]
fn arguments_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let sandbox = ready();
    let odd = std::ffi::OsStr::from_bytes(b"\xff.npz");
    let mut command = sandbox.mohs(&["evaluate", "model.onnx", "--epsilon", "0.1", "--data"]);
    command.arg(odd);
    sandbox.fails(command, 2, &["UTF-8", "mohs evaluate --help"]);
    let mut command = sandbox.mohs(&[]);
    command.arg(odd);
    sandbox.fails(command, 2, &["unrecognized", "mohs --help"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_takes_no_files_is_refused() {
    // Not even the superuser can make a file in there.
    let sandbox = ready();
    for arguments in [
        &[
            "evaluate",
            "model.onnx",
            "--data",
            "data.npz",
            "--epsilon",
            "0.1",
            "--out",
            "/proc/self",
        ][..],
        &["gradient", "model.onnx", "-o", "/proc/gradient.onnx"],
        &["demo", "--out", "/proc/demo"],
    ] {
        sandbox.refused(arguments, &["/proc", "cannot be written"]);
    }
}

#[test]
fn an_earlier_report_survives_a_run_that_fails() {
    let sandbox = ready();
    sandbox.run(&evaluate("model.onnx", "data.npz", &[]));
    let before = sandbox.read("report/samples.csv");
    refused(&sandbox, &["--attack", "nonsense"], &["nonsense"]);
    std::fs::write(sandbox.path("bad.onnx"), "no model").unwrap();
    sandbox.refused(&evaluate("bad.onnx", "data.npz", &[]), &["bad.onnx"]);
    assert_eq!(sandbox.read("report/samples.csv"), before);
}
