//! Data that cannot be used.

use super::Sandbox;
use super::fixtures::{evaluate, npz, ready, samples};
use ndarray::{Array1, Array2, ArrayD, IxDyn};

/// Evaluates the linear model on samples and labels that are not as they should be.
fn refused(x: Array2<f32>, y: Array1<i64>, more: &[&str], words: &[&str]) -> String {
    let sandbox = ready();
    npz(&sandbox, "bad.npz", &x.into_dyn(), &y);
    sandbox.refused(&evaluate("model.onnx", "bad.npz", more), words)
}

#[test]
fn nan_and_infinities_are_refused_with_their_row() {
    for (bad, word) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "inf"),
    ] {
        let (mut x, y) = samples();
        x[[3, 2]] = bad;
        refused(x, y, &[], &["bad.npz", "3", word]);
    }
}

#[test]
fn samples_outside_the_bounds_are_refused_with_the_way_out() {
    let (mut x, y) = samples();
    x[[4, 0]] = 1.5;
    refused(
        x.clone(),
        y.clone(),
        &[],
        &["bad.npz", "4", "1.5", "--bounds"],
    );
    x[[4, 0]] = -0.25;
    refused(x, y, &["--bounds", "0,2"], &["4", "-0.25", "--bounds"]);
}

#[test]
fn labels_outside_the_classes_are_refused_with_their_row() {
    let (x, mut y) = samples();
    y[1] = 3;
    refused(
        x.clone(),
        y.clone(),
        &[],
        &["bad.npz", "1", "classes 0 to 2"],
    );
    y[1] = -1;
    refused(x, y, &[], &["bad.npz", "1", "-1"]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let sandbox = ready();
    let (_, y) = samples();
    let five = ArrayD::<f32>::zeros(IxDyn(&[6, 5]));
    npz(&sandbox, "bad.npz", &five, &y);
    sandbox.refused(
        &evaluate("model.onnx", "bad.npz", &[]),
        &["bad.npz", "[5]", "[4]"],
    );
    let seven = ArrayD::<f32>::zeros(IxDyn(&[7, 4]));
    npz(&sandbox, "bad.npz", &seven, &y);
    sandbox.refused(
        &evaluate("model.onnx", "bad.npz", &[]),
        &["bad.npz", "7", "6"],
    );
}

#[test]
fn files_that_are_no_data_are_refused() {
    let sandbox = ready();
    let whole = std::fs::read(sandbox.path("data.npz")).unwrap();
    let evaluated = |name: &str, words: &[&str]| {
        sandbox.refused(&evaluate("model.onnx", name, &[]), words);
    };
    std::fs::write(sandbox.path("empty.npz"), "").unwrap();
    evaluated("empty.npz", &["empty.npz"]);
    std::fs::write(sandbox.path("half.npz"), &whole[..whole.len() / 2]).unwrap();
    evaluated("half.npz", &["half.npz"]);
    std::fs::write(sandbox.path("data.parquet"), "PAR1").unwrap();
    evaluated(
        "data.parquet",
        if cfg!(feature = "parquet") {
            &["data.parquet", "not a Parquet file", "too small"]
        } else {
            &["data.parquet", "features parquet", ".npz"]
        },
    );
    let message = sandbox.refused(
        &evaluate("model.onnx", "dta.npz", &[]),
        &["dta.npz", "no such file"],
    );
    assert!(message.contains("data.npz"), "no suggestion in {message}");
}

#[test]
fn an_archive_without_the_arrays_says_what_is_in_it() {
    let sandbox = ready();
    let arguments = evaluate("model.onnx", "data.npz", &["--x-key", "images"]);
    sandbox.refused(&arguments, &["data.npz", "`images`", "`x`, `y`", "--x-key"]);
}

#[test]
fn an_empty_selection_is_refused() {
    let (x, y) = samples();
    refused(x, y, &["--offset", "6"], &["bad.npz", "--offset", "6"]);
    let sandbox = ready();
    let none = ArrayD::<f32>::zeros(IxDyn(&[0, 4]));
    npz(&sandbox, "none.npz", &none, &Array1::zeros(0));
    sandbox.refused(&evaluate("model.onnx", "none.npz", &[]), &["none.npz"]);
}

#[test]
fn csv_cells_that_are_no_numbers_are_refused_with_line_and_column() {
    let sandbox = Sandbox::new();
    super::fixtures::Tiny::linear().write(&sandbox, "model.onnx");
    let header = "label,a,b,c,d\n";
    for (row, words) in [
        ("1,0.1,0.2,x,0.4\n", &["bad.csv", "row 1"][..]),
        ("1,0.1,0.2,0.4\n", &["bad.csv", "line 3"][..]),
        ("1.5,0.1,0.2,0.3,0.4\n", &["bad.csv", "1.5"][..]),
    ] {
        let text = format!("{header}0,0.9,0.2,0.1,0.5\n{row}");
        std::fs::write(sandbox.path("bad.csv"), text).unwrap();
        sandbox.refused(&evaluate("model.onnx", "bad.csv", &[]), words);
    }
    std::fs::write(sandbox.path("bad.csv"), "a,b,c,d\n0.1,0.2,0.3,0.4\n").unwrap();
    sandbox.refused(
        &evaluate("model.onnx", "bad.csv", &[]),
        &["bad.csv", "--label-column"],
    );
}
