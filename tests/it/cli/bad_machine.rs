//! Machines that lack what was asked for: exit code 3.

use super::Sandbox;
use super::fixtures::{evaluate, ready};
use assert_cmd::Command;
use std::path::PathBuf;

/// mohs where there is no Python, no cache and no library, and nothing may be downloaded.
fn bare(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let nothing = sandbox.path("nothing");
    std::fs::create_dir_all(&nothing).unwrap();
    let mut command = sandbox.mohs(arguments);
    command.env_clear();
    for variable in ["HOME", "PATH", "XDG_CACHE_HOME", "LOCALAPPDATA", "TMPDIR"] {
        command.env(variable, &nothing);
    }
    command.env("MOHS_OFFLINE", "1");
    command
}

#[test]
fn without_onnx_runtime_the_message_names_every_place_and_every_way_out() {
    let sandbox = ready();
    let words = [
        "ONNX Runtime",
        "--onnxruntime",
        "MOHS_ONNXRUNTIME",
        "ORT_DYLIB_PATH",
        "nothing",
        "Python on the PATH",
        "MOHS_OFFLINE",
        "pip",
    ];
    let evaluation = evaluate("model.onnx", "data.npz", &[]);
    sandbox.fails(bare(&sandbox, &evaluation), 3, &words);
    // A gate that could not run has neither passed nor failed.
    let gate = [
        &["gate"],
        evaluation.get(1..).unwrap(),
        &["--min-robust-accuracy", "0.5"],
    ]
    .concat();
    sandbox.fails(bare(&sandbox, &gate), 3, &words);
    let gradient = ["gradient", "model.onnx", "-o", "gradient.onnx"];
    sandbox.fails(bare(&sandbox, &gradient), 3, &words);
    sandbox.fails(bare(&sandbox, &["demo", "--out", "demo"]), 3, &words);
}

#[test]
fn what_needs_no_runtime_works_without_one() {
    let sandbox = ready();
    for arguments in [
        &["inspect", "model.onnx"][..],
        &["list", "attacks"],
        &["list", "operators"],
        &["--help"],
        &["--version"],
    ] {
        let output = bare(&sandbox, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
    }
    // Bad input is found before a runtime is looked for.
    let missing = evaluate("none.onnx", "data.npz", &[]);
    sandbox.fails(bare(&sandbox, &missing), 2, &["none.onnx"]);
}

#[test]
fn doctor_shows_where_it_looked_and_fails_without_a_runtime() {
    let sandbox = Sandbox::new();
    let output = bare(&sandbox, &["doctor"]).output().unwrap();
    let (code, stdout, stderr) = super::texts(&output);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stdout.contains("MOHS_ONNXRUNTIME: not set"), "{stdout}");
    assert_eq!(stderr.matches("mohs: error: ").count(), 1, "{stderr}");
}

#[test]
fn a_library_that_is_none_is_refused_without_looking_further() {
    let sandbox = ready();
    std::fs::write(sandbox.path("libonnxruntime.so"), "no library").unwrap();
    for (path, words) in [
        ("libonnxruntime.so", &["libonnxruntime.so"][..]),
        ("none.so", &["none.so", "--onnxruntime"][..]),
    ] {
        let arguments = evaluate("model.onnx", "data.npz", &["--onnxruntime", path]);
        sandbox.fails(sandbox.mohs(&arguments), 3, words);
    }
}

/// Whether this machine has a CUDA device, or might have one.
fn may_have_cuda() -> bool {
    ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"]
        .map(PathBuf::from)
        .iter()
        .any(|path| path.exists())
        || cfg!(windows)
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_never_the_cpu() {
    if may_have_cuda() {
        return;
    }
    let sandbox = ready();
    for device in ["cuda", "cuda:1", "tensorrt", "openvino"] {
        let arguments = evaluate("model.onnx", "data.npz", &["--device", device]);
        let kind = device.split(':').next().unwrap();
        sandbox.fails(
            sandbox.mohs(&arguments),
            3,
            &[kind, "cannot be had", "mohs doctor --install"],
        );
    }
    let output = sandbox.mohs(&["doctor", "--device", "cuda"]).output();
    assert_eq!(output.unwrap().status.code(), Some(3));
}
