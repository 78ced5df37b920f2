//! `mohs compare`: two reports, sample by sample.

use super::{Sandbox, shipped};

/// Reports of the two demo models on a hundred samples.
fn reports() -> Sandbox {
    let sandbox = Sandbox::new();
    for (name, out) in [
        ("digits-standard.onnx", "standard"),
        ("digits-adversarial.onnx", "adversarial"),
    ] {
        evaluated(&sandbox, name, out, "100");
    }
    sandbox
}

fn evaluated(sandbox: &Sandbox, model: &str, out: &str, limit: &str) {
    let (model, data) = (shipped(model), shipped("digits-test.npz"));
    sandbox.run(&[
        "evaluate",
        &model,
        "--data",
        &data,
        "--limit",
        limit,
        "--attack",
        "fgsm,pgd:steps=10",
        "--epsilon",
        "0.01,0.15",
        "--out",
        out,
    ]);
}

#[test]
fn the_more_robust_model_is_named_where_the_data_can_tell() {
    let sandbox = reports();
    let (stdout, _) = sandbox.run(&[
        "compare",
        "standard",
        "adversarial/samples.csv",
        "--out",
        "compared",
    ]);
    assert!(stdout.contains("100 samples, paired"), "{stdout}");
    assert!(
        stdout.contains("B is more robust at 1 of 2 radii."),
        "{stdout}"
    );
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 80),
        "{stdout}"
    );
    let rows = sandbox.read("compared/comparison.csv");
    // Two attacks and the worst case, at two radii.
    assert_eq!(rows.lines().count(), 7, "{rows}");
    let named = |name: &str| rows.lines().filter(|row| row.ends_with(name)).count();
    assert_eq!(
        (named(",second"), named(",unclear"), named(",first")),
        (3, 3, 0),
        "{rows}"
    );
    let changes = sandbox.read("compared/changes.csv");
    assert!(
        changes.lines().any(|row| row.ends_with(",0.15,mended")),
        "{changes}"
    );
    let (stdout, _) = sandbox.run(&["compare", "standard", "standard"]);
    assert!(stdout.contains("The data cannot tell"), "{stdout}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let sandbox = reports();
    evaluated(&sandbox, "digits-standard.onnx", "fewer", "90");
    sandbox.refused(
        &["compare", "standard", "fewer"],
        &["sample 90 is only in standard"],
    );
    sandbox.refused(&["compare", "standard", "none"], &["none: no such file"]);
    sandbox.refused(
        &["compare", "standard/summary.csv", "fewer"],
        &["is a summary"],
    );
    std::fs::write(sandbox.path("file"), "").unwrap();
    sandbox.refused(
        &["compare", "standard", "fewer", "--out", "file"],
        &["is not a folder"],
    );
}
