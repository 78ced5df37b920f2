//! What an evaluation writes.

use super::fixtures::{Tiny, constant, evaluate, ready};
use super::{Sandbox, shipped};
use crate::lift::joined;
use mohs::data::{Batch, Dataset, Options, Source};
use mohs::model::{Model, ModelOptions};
use mohs::threat::distances;
use ndarray::{Array1, ArrayD};
use ndarray_npy::NpzReader;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

const SAMPLES: &str = "index,label,clean_prediction,attack,norm,epsilon,adversarial_prediction,robust,clean_loss,loss,linf,l2,l1,l0,steps,restart";
const SUMMARY: &str = "model,attack,norm,epsilon,steps,restarts,samples,clean_accuracy,robust_accuracy,robust_accuracy_low,robust_accuracy_high,attack_success_rate,mean_linf,mean_l2,gradient_evaluations,seconds,untrustworthy";

/// A row of a CSV file by its column names.
type Row = BTreeMap<String, String>;

fn rows(text: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().map(Result::unwrap).collect()
}

fn number(row: &Row, column: &str) -> f64 {
    let text = &row[column];
    text.parse().unwrap_or_else(|_| panic!("{column}: {text}"))
}

/// NaN for an empty field.
fn number_or_nan(row: &Row, column: &str) -> f64 {
    if row[column].is_empty() {
        f64::NAN
    } else {
        number(row, column)
    }
}

/// Evaluates the digits; the arguments behind win.
fn digits(sandbox: &Sandbox, more: &[&str]) -> (String, String) {
    let (model, data) = (shipped("digits-standard.onnx"), shipped("digits-test.npz"));
    let mut arguments = vec!["evaluate", &model, "--data", &data];
    arguments.extend(more);
    sandbox.run(&arguments)
}

/// Asserts that two `samples.csv` say the same, floats to 1e-5.
pub(crate) fn assert_same(a: &str, b: &str) {
    let (a, b) = (rows(a), rows(b));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        for (column, text) in a {
            let same = if column.contains("loss") || column.starts_with('l') && column != "label" {
                let (a, b) = (number(a, column), number(b, column));
                (a - b).abs() <= 1e-5 * a.abs().max(1.0)
            } else {
                *text == b[column]
            };
            assert!(same, "{column}: {a:?}\n{b:?}");
        }
    }
}

#[test]
fn the_summary_is_what_the_samples_add_up_to() {
    let sandbox = Sandbox::new();
    let (stdout, _) = digits(
        &sandbox,
        &[
            "--attack",
            "fgsm,pgd:steps=5,restarts=2",
            "--epsilon",
            "0.2,0.05",
            "--limit",
            "40",
            "--out",
            "report",
        ],
    );
    assert_eq!(
        sandbox.names(),
        [
            "report",
            "report/report.html",
            "report/report.json",
            "report/samples.csv",
            "report/summary.csv"
        ]
    );
    let (samples, summary) = (
        sandbox.read("report/samples.csv"),
        sandbox.read("report/summary.csv"),
    );
    assert_eq!(samples.lines().next(), Some(SAMPLES));
    assert_eq!(summary.lines().next(), Some(SUMMARY));
    let (samples, summary) = (rows(&samples), rows(&summary));
    assert_eq!(samples.len(), 40 * 2 * 2);
    assert_eq!(summary.len(), 2 * 2 + 2);
    for row in &summary {
        let of = |sample: &&Row| sample["epsilon"] == row["epsilon"];
        let attack = row["attack"].as_str();
        let mine: Vec<&Row> = samples
            .iter()
            .filter(of)
            .filter(|sample| attack == "worst-case" || sample["attack"] == attack)
            .collect();
        let indices = |keep: &dyn Fn(&Row) -> bool| -> std::collections::BTreeSet<&str> {
            let kept = mine.iter().filter(|sample| keep(sample));
            kept.map(|sample| sample["index"].as_str()).collect()
        };
        let right = indices(&|sample| sample["label"] == sample["clean_prediction"]);
        let fallen = indices(&|sample| sample["robust"] == "false");
        let robust: Vec<&&str> = right.difference(&fallen).collect();
        assert_eq!(number(row, "samples"), 40.0);
        let share = |count: usize| count as f64 / 40.0;
        assert_eq!(number(row, "clean_accuracy"), share(right.len()));
        assert_eq!(number(row, "robust_accuracy"), share(robust.len()));
        let broken = right.len() - robust.len();
        assert_eq!(
            number(row, "attack_success_rate"),
            broken as f64 / right.len() as f64
        );
        let (low, high) = (
            number(row, "robust_accuracy_low"),
            number(row, "robust_accuracy_high"),
        );
        assert!(low <= share(robust.len()) && share(robust.len()) <= high && low < high);
        let steps: f64 = mine.iter().map(|sample| number(sample, "steps")).sum();
        assert_eq!(number(row, "gradient_evaluations"), steps);
        if attack != "worst-case" {
            let broken: Vec<&&Row> = mine
                .iter()
                .filter(|s| s["robust"] == "false" && right.contains(s["index"].as_str()))
                .collect();
            for (column, of) in [("mean_linf", "linf"), ("mean_l2", "l2")] {
                let sum: f64 = broken.iter().map(|sample| number(sample, of)).sum();
                let mean = sum / broken.len() as f64;
                let found = number_or_nan(row, column);
                assert!((found - mean).abs() < 1e-9, "{column}: {found}, not {mean}");
            }
        }
    }
    for sample in &samples {
        let epsilon = number(sample, "epsilon");
        assert!(number(sample, "linf") <= epsilon * (1.0 + 1e-6));
        let right = sample["adversarial_prediction"] == sample["label"];
        assert_eq!(sample["robust"] == "true", right, "{sample:?}");
    }
    // The table has a row for each of them.
    for name in [
        "fgsm",
        "pgd:steps=5,restarts=2",
        "worst-case",
        "0.05",
        "0.2",
    ] {
        assert!(stdout.contains(name), "{stdout}");
    }
    assert!(stdout.lines().all(|line| line.chars().count() <= 80));
    assert!(stdout.ends_with('\n') && !stdout.contains('\u{1b}'));
}

#[test]
fn saved_examples_are_in_ball_and_bounds_and_fool_the_model() {
    crate::runtime_ready();
    for (norm, attacks, radii) in [
        ("linf", "fgsm,pgd:steps=5", "0.1,0.3"),
        ("l2", "fgm,pgd:steps=5", "0.5,1.5"),
        ("l1", "fgm,pgd:steps=5", "3,9"),
    ] {
        let sandbox = Sandbox::new();
        digits(
            &sandbox,
            &[
                "--attack",
                attacks,
                "--norm",
                norm,
                "--epsilon",
                radii,
                "--limit",
                "30",
                "--out",
                "report",
                "--save-adversarial",
                "found.npz",
            ],
        );
        let mut file = NpzReader::new(File::open(sandbox.path("found.npz")).unwrap()).unwrap();
        let points: ArrayD<f32> = file.by_name("x").unwrap();
        let mut list = |name: &str| -> Vec<i64> {
            let list: Array1<i64> = file.by_name(name).unwrap();
            list.to_vec()
        };
        let (index, label, prediction) = (list("index"), list("label"), list("prediction"));
        let attack = list("attack");
        let epsilon: Array1<f64> = file.by_name("epsilon").unwrap();
        let names: Array1<u8> = file.by_name("attacks").unwrap();
        let names = String::from_utf8(names.to_vec()).unwrap();
        let names: Vec<&str> = names.lines().collect();

        let model = Model::open(
            Path::new(&shipped("digits-standard.onnx")),
            &ModelOptions::default(),
        )
        .unwrap();
        let clean = clean_digits(&model, 30);
        let points: Vec<f32> = points.iter().copied().collect();
        let labels: Vec<u32> = label.iter().map(|&label| label as u32).collect();
        let verdicts = model.judge().unwrap().judge(&points, &[], &labels).unwrap();
        let mut found = Vec::new();
        for (row, point) in points.chunks(64).enumerate() {
            let sample = index[row] as usize;
            assert!(point.iter().all(|value| (0.0..=1.0).contains(value)));
            let distances = distances(&clean.pixels[sample * 64..][..64], point);
            let distance = match norm {
                "linf" => distances.linf,
                "l2" => distances.l2,
                _ => distances.l1,
            };
            assert!(
                distance <= epsilon[row] * (1.0 + 1e-6),
                "{norm}: {distance} at {}",
                epsilon[row]
            );
            assert_eq!(labels[row], clean.labels[sample]);
            assert_ne!(verdicts[row].prediction, labels[row]);
            assert_eq!(i64::from(verdicts[row].prediction), prediction[row]);
            found.push((
                names[attack[row] as usize],
                sample,
                epsilon[row].to_string(),
            ));
        }
        // One for each sample that fell to an attack, at the smallest ε where it did.
        let mut expected = Vec::new();
        for row in rows(&sandbox.read("report/samples.csv")) {
            let sample: usize = row["index"].parse().unwrap();
            let fell = row["robust"] == "false" && row["label"] == row["clean_prediction"];
            let first = row["steps"] != "0";
            if fell && first {
                expected.push((row["attack"].clone(), sample, row["epsilon"].clone()));
            }
        }
        found.sort();
        expected.sort();
        assert!(!found.is_empty());
        let expected: Vec<(&str, usize, String)> = expected
            .iter()
            .map(|(attack, sample, epsilon)| (attack.as_str(), *sample, epsilon.clone()))
            .collect();
        assert_eq!(found, expected);
    }
}

/// The first samples of the digits, as the model takes them.
fn clean_digits(model: &Model, count: usize) -> Batch {
    let options = Options {
        input_shape: Some(model.sample_shape().to_vec()),
        ..Options::default()
    };
    let data = Dataset::open(&Source::new(shipped("digits-test.npz")))
        .and_then(|data| data.prepared(&options))
        .unwrap();
    let mut batch = Batch::default();
    data.samples()
        .unwrap()
        .read_batch(count, &mut batch)
        .unwrap();
    batch
}

#[test]
fn the_batch_size_changes_nothing() {
    let sandbox = Sandbox::new();
    let mut reports = Vec::new();
    for size in ["1", "7", "64"] {
        let out = format!("report-{size}");
        digits(
            &sandbox,
            &[
                "--attack",
                "fgsm,pgd:steps=4,restarts=2",
                "--epsilon",
                "0.05,0.15",
                "--limit",
                "40",
                "--batch-size",
                size,
                "--out",
                &out,
            ],
        );
        reports.push(sandbox.read(&format!("{out}/samples.csv")));
    }
    assert_same(&reports[0], &reports[1]);
    assert_same(&reports[0], &reports[2]);
}

#[test]
fn limit_and_offset_choose_samples_without_changing_them() {
    let sandbox = Sandbox::new();
    let run = |out: &str, more: &[&str]| {
        let mut arguments = vec!["--attack", "pgd:steps=3", "--epsilon", "0.1", "--out", out];
        arguments.extend(more);
        digits(&sandbox, &arguments);
        sandbox.read(&format!("{out}/samples.csv"))
    };
    let all = run("all", &["--limit", "12"]);
    let some = run("some", &["--offset", "5", "--limit", "4"]);
    let header = all.lines().take(1);
    let expected: Vec<&str> = header.chain(all.lines().skip(1 + 5).take(4)).collect();
    assert_same(&expected.join("\n"), &some);
}

#[test]
fn judging_last_points_alone_finds_no_more() {
    let sandbox = Sandbox::new();
    let run = |keep: &str| {
        let arguments = [
            "--attack",
            "pgd:steps=5,random_start=false",
            "--epsilon",
            "0.1,0.2",
            "--limit",
            "30",
            "--keep",
            keep,
            "--out",
            keep,
        ];
        digits(&sandbox, &arguments);
        rows(&sandbox.read(&format!("{keep}/samples.csv")))
    };
    let (any, last) = (run("any"), run("last"));
    for (any, last) in any.iter().zip(&last) {
        assert!(any["robust"] == "false" || last["robust"] == "true");
        if last["label"] == last["clean_prediction"] {
            // Every step is done, at every ε.
            assert_eq!(last["steps"], "5");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_and_another_another() {
    let sandbox = Sandbox::new();
    let run = |seed: &str, out: &str| {
        let arguments = [
            "--attack",
            "pgd:steps=1",
            "--epsilon",
            "0.1",
            "--limit",
            "10",
            "--seed",
            seed,
            "--out",
            out,
        ];
        digits(&sandbox, &arguments);
        sandbox.read(&format!("{out}/samples.csv"))
    };
    let first = run("1", "a");
    assert_eq!(first, run("1", "b"));
    assert_ne!(first, run("2", "c"));
}

#[test]
fn normalisation_in_front_is_the_same_as_inside_the_model() {
    let sandbox = ready();
    let mut inside = Tiny::behind(vec![
        joined("Sub", &["x", "mean"], &["centred"]),
        joined("Div", &["centred", "std"], &["inner"]),
    ]);
    inside.initializers.extend([
        constant("mean", &[4], &[0.5, 0.4, 0.3, 0.2]),
        constant("std", &[4], &[0.2, 0.5, 0.25, 1.0]),
    ]);
    inside.write(&sandbox, "inside.onnx");
    sandbox.run(&evaluate("inside.onnx", "data.npz", &[]));
    let expected = sandbox.read("report/samples.csv");
    let given = ["--mean", "0.5,0.4,0.3,0.2", "--std", "0.2,0.5,0.25,1"];
    sandbox.run(&evaluate("model.onnx", "data.npz", &given));
    assert_same(&expected, &sandbox.read("report/samples.csv"));
}

#[test]
fn a_run_says_where_its_files_are() {
    let sandbox = ready();
    let arguments = ["--save-adversarial", "found.npz"];
    let (_, stderr) = sandbox.run(&evaluate("model.onnx", "data.npz", &arguments));
    let files = "samples.csv, summary.csv, report.json, report.html are in report\n";
    assert!(stderr.contains(files), "{stderr}");
    assert!(stderr.contains("examples are in found.npz\n"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    let [model, data] = ["digits-standard.onnx", "digits-test.npz"].map(shipped);
    let arguments = [
        "evaluate",
        &model,
        "--data",
        &data,
        "--epsilon",
        "0.01",
        "--attack",
        "pgd:steps=100000,restarts=1000",
        "--out",
        "report",
        "--threads",
        "1",
    ];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mohs"));
    command.current_dir(sandbox.path("")).args(arguments);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    while sandbox.names().len() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(sandbox.names(), Vec::<String>::new());
}
