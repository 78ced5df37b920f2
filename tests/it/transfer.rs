//! Attacks on one model, judged by another.

use crate::attacks::{Collector, config, digits, digits_data, root};
use crate::cli::Sandbox;
use crate::cli::fixtures::{N, Tiny, constant, evaluate as arguments, npz, ready};
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::evaluate::{Config, Error, Keep, Report, evaluate, minimal_epsilon};
use mohs::model::{Model, ModelOptions};
use mohs::outcome::SampleOutcome;
use mohs::tensor::DType;
use mohs::threat::Norm;
use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::NpzReader;
use std::fs::File;

fn open(path: &str, output: Option<&str>) -> Model {
    crate::runtime_ready();
    let options = ModelOptions {
        output: output.map(str::to_owned),
        ..ModelOptions::default()
    };
    Model::open(&root().join(path), &options).unwrap()
}

/// `transfer` from one of the digits networks, with further parameters.
fn from(source: &str, more: &str) -> String {
    let path = root().join(format!("models/digits-{source}.onnx"));
    format!("transfer:source={}{more}", path.display())
}

fn run(model: &Model, limit: u64, config: &Config) -> (Collector, Report) {
    let data = digits_data(model, limit);
    let mut collector = Collector::default();
    let report = evaluate(model, &data, config, None, &mut collector).unwrap();
    (collector, report)
}

/// Peers' way to measure transfer, by hand: PyTorch makes the examples on the source (`tests/references/make_attacks.py`), the target is
/// asked about them.
#[test]
fn verdicts_are_those_of_the_target_on_the_examples_that_pytorch_made_on_the_source() {
    let mut file =
        NpzReader::new(File::open(root().join("tests/references/attacks.npz")).unwrap()).unwrap();
    let index: Array1<i64> = file.by_name("index").unwrap();
    let labels: Array1<i64> = file.by_name("y").unwrap();
    let labels: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
    let last = *index.iter().max().unwrap() as u64;
    let mut broken = 0;
    for (source, target) in [("standard", "adversarial"), ("adversarial", "standard")] {
        let model = digits(target);
        let mut judge = model.judge().unwrap();
        for (name, norm, attack, epsilon) in [
            ("fgsm", Norm::Linf, "attack=fgsm", 0.1),
            ("fgm_l2", Norm::L2, "attack=fgm", 1.0),
            ("pgd_linf", Norm::Linf, "steps=10,random_start=false", 0.1),
            ("pgd_l2", Norm::L2, "steps=10,random_start=false", 1.0),
        ] {
            let examples: ArrayD<f32> = file
                .by_name(&format!("adversarial_{name}_{source}"))
                .unwrap();
            let examples: Vec<f32> = examples.iter().copied().collect();
            let verdicts = judge.judge(&examples, &[], &labels).unwrap();
            let config = Config {
                keep: Keep::Last,
                batch_size: Some(13),
                ..config(&from(source, &format!(",{attack}")), norm, &[epsilon])
            };
            let (collector, _) = run(&model, last + 1, &config);
            for ((verdict, &label), &sample) in verdicts.iter().zip(&labels).zip(&index) {
                let outcome = &collector.outcomes[sample as usize];
                assert_eq!(outcome.index, sample as u64);
                let found = (outcome.adversarial_prediction, outcome.robust);
                let expected = (verdict.prediction, verdict.prediction == label);
                assert_eq!(
                    found, expected,
                    "{name}, {source} to {target}, sample {sample}"
                );
                let off = (outcome.loss - verdict.loss).abs();
                assert!(
                    off < 1e-3 * verdict.loss.abs().max(1.0),
                    "{name}, sample {sample}: {off}"
                );
                broken += usize::from(!outcome.robust);
            }
        }
    }
    assert!(broken > 10, "some examples have to carry over: {broken}");
}

#[test]
fn what_is_found_on_the_model_itself_is_what_the_attack_finds_there() {
    let model = digits("adversarial");
    for keep in [Keep::Any, Keep::Last] {
        let of = |attack: &str| {
            let config = Config {
                keep,
                ..config(attack, Norm::Linf, &[0.1, 0.2])
            };
            run(&model, 40, &config)
        };
        let (own, _) = of("apgd:steps=20,loss=margin,targets=3");
        let (carried, report) = of(&from(
            "adversarial",
            ",attack=apgd,steps=20,loss=margin,targets=3",
        ));
        assert_eq!(own.outcomes.len(), carried.outcomes.len());
        for (own, carried) in own.outcomes.iter().zip(&carried.outcomes) {
            let kept = |o: &SampleOutcome| {
                (
                    o.index,
                    o.robust,
                    o.adversarial_prediction,
                    o.steps,
                    o.restart,
                )
            };
            assert_eq!(kept(own), kept(carried));
        }
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.contains("nothing is carried over"))
        );
    }
}

/// Every kind of model that has no gradients of its own, or none that lead anywhere; the source takes images and the trees take rows.
#[test]
fn models_without_gradients_are_attacked_through_another() {
    for (model, accuracy) in [
        (open("tests/trees/forest.onnx", Some("probabilities")), 0.75),
        (open("tests/trees/forest.onnx", Some("label")), 0.75),
        (open("tests/quantized/qoperator.onnx", None), 0.9),
    ] {
        let attacks = from("standard", ",attack=apgd,steps=20,loss=margin,targets=2");
        let (collector, report) = run(&model, 60, &config(&attacks, Norm::Linf, &[0.05, 0.15]));
        let [small, large, ..] = &report.summary[..] else {
            panic!("{:?}", report.summary);
        };
        assert!(small.clean_accuracy > accuracy, "{small:?}");
        assert!(
            large.robust_accuracy < small.robust_accuracy,
            "{small:?} {large:?}"
        );
        assert!(
            small.robust_accuracy < small.clean_accuracy - 0.05,
            "{small:?}"
        );
        assert!(small.gradient_evaluations > 0);
        assert_eq!(
            small.attack,
            "transfer:source=digits-standard.onnx,attack=apgd,steps=20,loss=margin,targets=2"
        );
        let data = digits_data(&model, 60);
        let mut judge = model.judge().unwrap();
        let mut clean = Vec::new();
        let mut samples = data.samples().unwrap();
        let mut sample = vec![0.0; data.sample_len()];
        while let Some(entry) = samples.read_into(&mut sample).unwrap() {
            clean.push((entry.label, sample.clone()));
        }
        assert!(!collector.points.is_empty());
        for (index, point) in &collector.points {
            let (label, sample) = &clean[*index as usize];
            assert_ne!(
                judge.judge(point, &[], &[*label]).unwrap()[0].prediction,
                *label
            );
            assert!(Norm::Linf.distance(sample, point) <= 0.15 * (1.0 + 1e-6));
            assert!(point.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}

#[test]
fn the_batch_size_changes_no_outcome() {
    for model in [
        digits("adversarial"),
        open("tests/trees/forest.onnx", Some("label")),
    ] {
        let attacks = from("standard", ",attack=pgd,steps=5,restarts=2");
        let of_size = |size| {
            let config = Config {
                batch_size: Some(size),
                ..config(&attacks, Norm::L2, &[0.5, 1.0])
            };
            run(&model, 40, &config).0.outcomes
        };
        let one = of_size(1);
        assert_eq!(one.len(), 80);
        for size in [7, 64] {
            for (a, b) in one.iter().zip(of_size(size)) {
                let verdict = |o: &SampleOutcome| {
                    (
                        o.index,
                        o.adversarial_prediction,
                        o.robust,
                        o.steps,
                        o.restart,
                    )
                };
                assert_eq!(verdict(a), verdict(&b), "batches of {size}");
                assert!((a.l2 - b.l2).abs() < 1e-5, "batches of {size}");
            }
        }
    }
}

/// A sample is done with the first point that breaks it, and is not attacked at larger radii.
#[test]
fn only_survivors_are_attacked_on() {
    let model = digits("standard");
    let attacks = from("adversarial", ",attack=pgd,steps=10,restarts=3");
    let (collector, report) = run(&model, 40, &config(&attacks, Norm::Linf, &[0.1, 0.2]));
    for pair in collector.outcomes.chunks(2) {
        let [small, large] = pair else {
            unreachable!("two radii")
        };
        assert!(small.robust || !large.robust);
        assert!(small.robust || large.steps == 0);
        assert!(small.steps <= 30 && (!small.robust || small.steps == 30));
    }
    let steps: u64 = collector.outcomes.iter().map(|outcome| outcome.steps).sum();
    assert_eq!(
        steps,
        report
            .summary
            .iter()
            .take(2)
            .map(|row| row.gradient_evaluations)
            .sum::<u64>()
    );
}

#[test]
fn the_smallest_radius_is_found_through_another_model_too() {
    let model = digits("adversarial");
    let data = digits_data(&model, 12);
    let minimal = |attack: &str| {
        let config = config(attack, Norm::Linf, &[0.1]);
        minimal_epsilon(&model, &data, &config, (0.0, 0.5), None, &mut ()).unwrap()
    };
    let own = minimal("pgd");
    let carried = minimal(&from("standard", ""));
    assert_eq!(own.len(), carried.len());
    let sum = |rows: &[mohs::outcome::MinimalRow]| -> f64 {
        rows.iter().map(|row| row.minimal_epsilon.min(0.5)).sum()
    };
    assert!(
        sum(&own) < sum(&carried),
        "the model's own gradients know more"
    );
    assert!(sum(&carried) < 0.5 * 12.0, "{carried:?}");
}

/// A network behind a staircase that leans the wrong way: its gradient leads astray, and another network's does not.
#[test]
fn another_model_s_gradients_that_do_better_than_the_model_s_own_are_told() {
    let sandbox = ready();
    Tiny::stairs().write(&sandbox, "stairs.onnx");
    let attack = "pgd:random_start=false,transfer:source=model.onnx,attack=pgd";
    let (stdout, _) = sandbox.run(&arguments(
        "stairs.onnx",
        "data.npz",
        &["--attack", attack, "--epsilon", "0.3", "--format", "json"],
    ));
    assert!(stdout.contains("transfer-stronger"), "{stdout}");
    let json = sandbox.read("report/report.json");
    assert!(json.contains("\"transfer-stronger\""));
    let (stdout, _) = sandbox.run(&arguments(
        "model.onnx",
        "data.npz",
        &[
            "--attack",
            "pgd,transfer:source=stairs.onnx,attack=pgd",
            "--epsilon",
            "0.3",
        ],
    ));
    assert!(!stdout.contains("transfer-stronger"), "{stdout}");
}

#[test]
fn the_report_names_the_source_by_its_content() {
    let sandbox = ready();
    Tiny::linear().write(&sandbox, "other.onnx");
    let mut bytes = std::fs::read(sandbox.path("other.onnx")).unwrap();
    // A producer's name (field 2) makes it another file with the same network.
    bytes.extend([0x12, 1, b'm']);
    std::fs::write(sandbox.path("other.onnx"), &bytes).unwrap();
    let (stdout, _) = sandbox.run(&arguments(
        "model.onnx",
        "data.npz",
        &[
            "--attack",
            "transfer:source=./other.onnx,attack=mi_fgsm",
            "--format",
            "json",
        ],
    ));
    assert!(
        stdout.contains("transfer:source=other.onnx,attack=mi_fgsm"),
        "{stdout}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.read("report/report.json")).unwrap();
    let models = json["provenance"]["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!(models[1]["path"], "./other.onnx");
    let digest = mohs::data::sha256(&sandbox.path("other.onnx")).unwrap();
    assert_eq!(models[1]["sha256"], digest);
    let parameters = &json["provenance"]["attacks"][1]["parameters"];
    assert_eq!(
        (&parameters["attack"], &parameters["decay"]),
        (&"mi_fgsm".into(), &"1".into())
    );
}

#[test]
fn sources_that_do_not_go_with_the_model_are_refused() {
    let sandbox = ready();
    let refused = |source: &str, more: &[&str], words: &[&str]| {
        let attack = format!("transfer:source={source}");
        let mut line = vec![
            "evaluate",
            "model.onnx",
            "--data",
            "data.npz",
            "--epsilon",
            "0.1",
        ];
        line.extend(["--attack", &attack]);
        line.extend(more);
        sandbox.refused(&line, words);
    };
    refused("nowhere.onnx", &[], &["nowhere.onnx"]);
    std::fs::write(sandbox.path("torn.onnx"), b"no model").unwrap();
    refused("torn.onnx", &[], &["the source torn.onnx"]);
    let mut wide = Tiny::linear();
    wide.inputs = vec![info("x", DType::F32, &[N, Some(5)])];
    wide.initializers[0] = constant("weights", &[5, 3], &[0.5; 15]);
    wide.write(&sandbox, "wide.onnx");
    refused(
        "wide.onnx",
        &[],
        &["samples of shape [5] and the model [4]"],
    );
    let mut two = Tiny::linear();
    two.outputs = vec![info("logits", DType::F32, &[N, Some(2)])];
    two.initializers = vec![
        constant("weights", &[4, 2], &[0.5; 8]),
        constant("bias", &[2], &[0.0, 0.1]),
    ];
    two.write(&sandbox, "two.onnx");
    refused("two.onnx", &[], &["tells 2 classes apart and the model 3"]);
    let mut labels = Tiny::before(vec![joined("ArgMax", &["scores"], &["logits"])]);
    labels.nodes[1]
        .attribute
        .push(mohs::onnx::proto::AttributeProto {
            name: Some("axis".into()),
            i: Some(1),
            r#type: Some(2),
            ..Default::default()
        });
    labels.outputs = vec![info("logits", DType::I64, &[N, Some(1)])];
    labels.write(&sandbox, "labels.onnx");
    refused(
        "labels.onnx",
        &[],
        &["gives labels alone", "give a source with scores"],
    );
    let trees = root().join("tests/trees/forest.onnx");
    std::fs::copy(trees, sandbox.path("forest.onnx")).unwrap();
    refused("forest.onnx", &[], &["the source forest.onnx"]);
    Tiny::linear().write(&sandbox, "same.onnx");
    refused("same.onnx", &["--wrt", "logits"], &["--wrt"]);
}

/// The source of a label-only model has to know every label of the data.
#[test]
fn labels_that_the_source_does_not_know_are_refused() {
    let sandbox = Sandbox::new();
    let model = open("tests/trees/forest.onnx", Some("label"));
    assert!(model.classes().is_none());
    let mut digits: Array2<f32> = Array2::zeros((2, 64));
    digits[[1, 3]] = 1.0;
    npz(
        &sandbox,
        "many.npz",
        &digits.into_dyn(),
        &ndarray::array![3, 17],
    );
    let data =
        mohs::data::Dataset::open(&mohs::data::Source::new(sandbox.path("many.npz"))).unwrap();
    let config = config(&from("standard", ""), Norm::Linf, &[0.1]);
    let error = evaluate(&model, &data, &config, None, &mut ()).unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    assert!(error.to_string().contains("17"), "{error}");
}
