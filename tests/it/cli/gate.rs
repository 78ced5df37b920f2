//! `mohs gate`: thresholds, settings, baselines, and what it refuses.

use super::fixtures::{Tiny, constant, npz, ready, samples};
use super::{Sandbox, texts};
use crate::lift::joined;

/// At the small radius every sample stays right, at the large one none.
const GATE: &[&str] = &[
    "gate",
    "model.onnx",
    "--data",
    "data.npz",
    "--epsilon",
    "0.01,0.9",
    "--attack",
    "pgd:steps=3",
];

fn gate<'a>(more: &[&'a str]) -> Vec<&'a str> {
    GATE.iter().copied().chain(more.iter().copied()).collect()
}

/// Runs mohs; its exit code, stdout and stderr.
fn ends(sandbox: &Sandbox, arguments: &[&str]) -> (i32, String, String) {
    let (code, stdout, stderr) = texts(&sandbox.mohs(arguments).output().unwrap());
    (code.unwrap(), stdout, stderr)
}

#[test]
fn a_model_passes_or_fails_each_threshold() {
    let sandbox = ready();
    let passing = [
        "--min-clean-accuracy",
        "1",
        "--min-robust-accuracy",
        "0.01=100%,0.9=0",
    ];
    let (code, stdout, stderr) = ends(&sandbox, &gate(&passing));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.ends_with("The gate passed: 4 checks.\n"), "{stdout}");
    let failing = [
        "--min-robust-accuracy",
        "0.5",
        "--max-seconds",
        "600",
        "--out",
        "report",
    ];
    let (code, stdout, stderr) = ends(&sandbox, &gate(&failing));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(
        stdout.contains("FAIL  robust accuracy, ℓ∞ ε 0.9 "),
        "{stdout}"
    );
    assert!(
        stdout.contains("pass  robust accuracy, ℓ∞ ε 0.01"),
        "{stdout}"
    );
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 80),
        "{stdout}"
    );
    assert_eq!(
        stderr.lines().last(),
        Some("mohs: error: the gate failed: robust accuracy, ℓ∞ ε 0.9"),
    );
    // What failed has to be looked at.
    assert!(sandbox.names().contains(&"report/samples.csv".to_owned()));
}

#[test]
fn the_lower_bound_asks_for_more() {
    let sandbox = ready();
    let threshold = ["--min-robust-accuracy", "0.01=0.9"];
    assert_eq!(ends(&sandbox, &gate(&threshold)).0, 0);
    let (code, stdout, _) = ends(
        &sandbox,
        &gate(&[&threshold[..], &["--estimate", "bound"]].concat()),
    );
    assert_eq!(code, 1, "six samples bound it by 54 %: {stdout}");
}

#[test]
fn too_few_samples_for_a_threshold_are_said_to_be() {
    let sandbox = ready();
    let (_, stdout, _) = ends(&sandbox, &gate(&["--min-robust-accuracy", "0.01=0.9"]));
    assert!(stdout.contains("· note [too-few-samples]"), "{stdout}");
    let (_, stdout, _) = ends(&sandbox, &gate(&["--min-robust-accuracy", "0.01=0.3"]));
    assert!(!stdout.contains("too-few-samples"), "{stdout}");
}

#[test]
fn settings_are_found_upwards_and_flags_take_their_place() {
    let sandbox = ready();
    let text = "model = 'model.onnx'\ndata = 'data.npz'\nepsilon = [0.01, 0.9]\nattack = 'pgd:steps=3'\n\
                [min_robust_accuracy]\n'0.01' = 1.0\n'0.9' = 0.5\n";
    std::fs::write(sandbox.path("mohs.toml"), text).unwrap();
    std::fs::create_dir_all(sandbox.path("deep/below")).unwrap();
    let within = |arguments: &[&str]| {
        let mut command = sandbox.mohs(arguments);
        command.current_dir(sandbox.path("deep/below"));
        texts(&command.output().unwrap())
    };
    let (code, stdout, stderr) = within(&["gate"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let (code, stdout, stderr) = within(&["gate", "--epsilon", "0.01", "--min-robust-accuracy=1"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let (code, _, stderr) = within(&["gate", "--no-config"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--data"), "{stderr}");
    std::fs::write(sandbox.path("mohs.toml"), "attakc = 'pgd'").unwrap();
    sandbox.refused(
        &["gate"],
        &["mohs.toml, line 1, key `attakc`", "did you mean `attack`?"],
    );
}

#[test]
fn a_fresh_file_of_settings_works_and_is_never_overwritten() {
    let sandbox = ready();
    sandbox.run(&["gate", "--init"]);
    let text = sandbox.read("mohs.toml");
    assert!(text.contains("\nmodel = \"model.onnx\"\n"), "{text}");
    sandbox.refused(&["gate", "--init"], &["mohs.toml: is there already"]);
    assert_eq!(sandbox.read("mohs.toml"), text);
    let (code, stdout, stderr) = ends(&sandbox, &["gate", "--data", "data.npz"]);
    assert!(code <= 1 && stdout.contains("The gate"), "{stdout}{stderr}");
}

#[test]
fn numbers_that_cannot_be_trusted_fail_unless_they_are_allowed() {
    let sandbox = ready();
    let mut flat = Tiny::behind(vec![
        joined("Mul", &["x", "many"], &["large"]),
        joined("Clip", &["large", "low", "high"], &["inner"]),
    ]);
    flat.initializers.extend([
        constant("many", &[], &[1000.0]),
        constant("low", &[], &[0.0]),
        constant("high", &[], &[1.0]),
    ]);
    flat.write(&sandbox, "model.onnx");
    let threshold = ["--min-robust-accuracy", "0", "--bounds", "0,2"];
    let (code, stdout, stderr) = ends(&sandbox, &gate(&threshold));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stdout.contains("FAIL  doubtful numbers"), "{stdout}");
    let (code, stdout, _) = ends(
        &sandbox,
        &gate(&[&threshold[..], &["--allow-untrusted"]].concat()),
    );
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("allowed by"), "{stdout}");
}

/// A report of the linear model in `old`, and in `soft.onnx` a model that breaks earlier.
fn with_baseline() -> Sandbox {
    let sandbox = ready();
    let (code, ..) = ends(
        &sandbox,
        &gate(&["--min-clean-accuracy", "0", "--out", "old"]),
    );
    assert_eq!(code, 0);
    let mut soft = Tiny::behind(vec![joined("Mul", &["x", "many"], &["inner"])]);
    soft.initializers[1] = constant("bias", &[3], &[0.0, 0.0, 0.0]);
    soft.initializers
        .push(constant("many", &[1, 4], &[0.1, 0.1, 0.1, 8.0]));
    soft.write(&sandbox, "soft.onnx");
    sandbox
}

#[test]
fn a_baseline_is_a_report_or_a_model() {
    let sandbox = with_baseline();
    for baseline in ["old", "old/samples.csv", "model.onnx"] {
        let same = ["--baseline", baseline, "--max-drop", "0"];
        let (code, stdout, stderr) = ends(&sandbox, &gate(&same));
        assert_eq!(code, 0, "{stdout}{stderr}");
        assert!(stdout.contains("The data cannot tell"), "{stdout}");
        let mut worse = gate(&["--baseline", baseline, "--max-drop", "0.1", "--out", "new"]);
        worse[1] = "soft.onnx";
        let (code, stdout, stderr) = ends(&sandbox, &worse);
        assert_eq!(code, 1, "{stdout}{stderr}");
        assert!(stdout.contains("FAIL  drop, ℓ∞ ε 0.01"), "{stdout}");
        assert!(stdout.contains("Breakable now, ℓ∞ ε 0.01: "), "{stdout}");
        let changes = sandbox.read("new/changes.csv");
        assert!(
            changes.lines().any(|row| row.ends_with(",0.01,broken")),
            "{changes}"
        );
        assert!(
            sandbox
                .read("new/comparison.csv")
                .starts_with("first,second,attack,norm,epsilon,")
        );
        std::fs::remove_dir_all(sandbox.path("new")).unwrap();
    }
}

#[test]
fn a_baseline_of_other_things_is_refused() {
    let sandbox = with_baseline();
    let drop = ["--baseline", "old", "--max-drop", "0.1"];
    let refused = |more: &[&str], words: &[&str]| {
        sandbox.refused(&gate(&[&drop[..], more].concat()), words);
    };
    refused(
        &["--limit", "3"],
        &["6 samples from 0 to 5", "about 3 from 0 to 2"],
    );
    refused(&["--offset", "1"], &["6 samples from 0 to 5"]);
    refused(&["--norm", "l2"], &["has no pgd:steps=3 l2 0.01"]);
    let mut radius = gate(&drop);
    radius[5] = "0.01,0.8";
    sandbox.refused(
        &radius,
        &[
            "has no pgd:steps=3 linf 0.8",
            "it has pgd:steps=3 linf 0.01",
        ],
    );
    let mut attack = gate(&drop);
    attack[7] = "fgsm";
    sandbox.refused(&attack, &["has no fgsm linf 0.01"]);
    let (x, mut y) = samples();
    y[3] = 0;
    npz(&sandbox, "relabelled.npz", &x.into_dyn(), &y);
    let mut labels = gate(&drop);
    labels[3] = "relabelled.npz";
    sandbox.refused(
        &labels,
        &["sample 3 has label 1 in the first and 0 in the second"],
    );
}

#[test]
fn a_baseline_that_is_no_report_of_this_version_is_refused() {
    let sandbox = with_baseline();
    let baseline = |name: &str, words: &[&str]| {
        sandbox.refused(&gate(&["--baseline", name, "--max-drop", "0.1"]), words);
    };
    baseline("old/summary.csv", &["is a summary", "samples.csv"]);
    baseline("none.csv", &["no such file"]);
    baseline("none.onnx", &["no such file"]);
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    baseline("empty", &["has no samples.csv"]);
    let older = sandbox.read("old/samples.csv").replace(",restart\n", "\n");
    let older: String = older
        .lines()
        .map(|row| row.trim_end_matches(",0").to_owned() + "\n")
        .collect();
    std::fs::write(sandbox.path("older.csv"), older).unwrap();
    baseline("older.csv", &["another version of mohs", "lacks `restart`"]);
}

#[test]
fn thresholds_that_make_no_sense_are_refused() {
    let sandbox = ready();
    let refused = |more: &[&str], words: &[&str]| {
        sandbox.refused(&gate(more), words);
    };
    refused(&[], &["a gate needs a threshold"]);
    refused(
        &["--min-robust-accuracy", "95"],
        &["between 0 and 1", "95%"],
    );
    refused(&["--min-robust-accuracy", "-0.1"], &["between 0 and 1"]);
    refused(&["--min-clean-accuracy", "nan"], &["between 0 and 1"]);
    refused(&["--min-robust-accuracy", "0.02=0.5"], &["speaks of 0.02"]);
    refused(
        &["--min-robust-accuracy", "l2:0.01=0.5"],
        &["speaks of l2:0.01"],
    );
    refused(&["--min-robust-accuracy", "l7:0.01=0.5"], &["no norm `l7`"]);
    refused(&["--min-robust-accuracy", "0.5,0.6"], &["two thresholds"]);
    refused(&["--max-drop", "0.1"], &["--baseline"]);
    refused(&["--max-seconds", "0"], &["above 0"]);
}

#[test]
fn results_that_cannot_be_written_are_refused_and_nothing_is_lost() {
    let sandbox = ready();
    let threshold = ["--min-clean-accuracy", "0"];
    let with_out = |out| gate(&[&threshold[..], &["--out", out]].concat());
    std::fs::write(sandbox.path("file"), "mine").unwrap();
    sandbox.refused(&with_out("file"), &["file: is not a folder"]);
    assert_eq!(sandbox.read("file"), "mine");
}

/// A process that may write no more than a little stands for a disk that is full.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_no_report() {
    let sandbox = ready();
    let radii = (1..60)
        .map(|step| format!("0.{step:02}"))
        .collect::<Vec<_>>()
        .join(",");
    let arguments = [
        "gate",
        "model.onnx",
        "--data",
        "data.npz",
        "--attack",
        "pgd:steps=1",
        "--min-clean-accuracy",
        "0",
        "--out",
        "report",
        "--epsilon",
        &radii,
    ];
    let (code, _, stderr) = ends(&sandbox, &arguments);
    assert_eq!(code, 0, "{stderr}");
    let before = sandbox.read("report/samples.csv");
    // The limit has to be an error to the program, and not its end by a signal.
    let script = "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\"";
    let mut command = assert_cmd::Command::new("bash");
    let found = command
        .current_dir(sandbox.path("."))
        .args(["-c", script, env!("CARGO_BIN_EXE_mohs")])
        .args(arguments);
    let (code, _, stderr) = texts(&found.output().unwrap());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("mohs: error: "), "{stderr}");
    assert_eq!(sandbox.read("report/samples.csv"), before);
    let names = sandbox.names();
    assert!(names.iter().all(|name| !name.contains(".tmp")), "{names:?}");
}

/// Another run holds its folder as this test does.
#[cfg(unix)]
#[test]
fn a_folder_belongs_to_one_run_at_a_time() {
    let sandbox = ready();
    std::fs::create_dir(sandbox.path("report")).unwrap();
    let other = std::fs::File::open(sandbox.path("report")).unwrap();
    other.lock().unwrap();
    let arguments = gate(&["--min-clean-accuracy", "0", "--out", "report"]);
    sandbox.refused(&arguments, &["report: another run of mohs is writing"]);
    drop(other);
    let (code, _, stderr) = ends(&sandbox, &arguments);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        sandbox
            .names()
            .iter()
            .filter(|name| name.starts_with("report/"))
            .count(),
        2
    );
}
