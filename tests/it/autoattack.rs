//! The ensemble, end to end.

use crate::attacks::{Collector, config, digits, digits_data};
use crate::cli::fixtures::{N, Tiny, constant};
use crate::gradcheck::info;
use mohs::attack::AttackPlan;
use mohs::data::{Dataset, Source};
use mohs::evaluate::{Config, Error, Keep, Report, evaluate, minimal_epsilon};
use mohs::model::{Model, ModelOptions};
use mohs::onnx::encode;
use mohs::outcome::SampleOutcome;
use mohs::tensor::DType;
use mohs::threat::Norm;
use ndarray::{Array1, Array2};
use ndarray_npy::NpzWriter;
use std::fs::File;
use std::path::Path;

/// The norms with two radii each, between which the plain digits model has samples that break and samples that hold.
const BALLS: [(Norm, [f64; 2]); 3] = [
    (Norm::Linf, [0.04, 0.08]),
    (Norm::L2, [0.2, 0.5]),
    (Norm::L1, [1.0, 2.5]),
];

fn run(model: &Model, data: &Dataset, config: &Config) -> (Vec<SampleOutcome>, Report) {
    let mut collector = Collector::default();
    let report = evaluate(model, data, config, None, &mut collector).unwrap();
    (collector.outcomes, report)
}

#[test]
fn a_sample_is_broken_exactly_where_one_of_the_attacks_breaks_it() {
    let model = digits("standard");
    let data = digits_data(&model, 12);
    for (norm, radii) in BALLS {
        let parts = match norm {
            Norm::L1 => "apgd:restarts=5,apgd:loss=dlr,targets=5,fab,square",
            Norm::Linf | Norm::L2 | Norm::L0 => "apgd,apgd:loss=dlr,targets=9,fab,square",
        };
        let (together, report) = run(&model, &data, &config("autoattack", norm, &radii));
        let (apart, _) = run(&model, &data, &config(parts, norm, &radii));
        assert_eq!(together.len(), 12 * 2, "{norm}");
        for outcome in &together {
            let same = |other: &&SampleOutcome| {
                other.index == outcome.index && other.epsilon == outcome.epsilon
            };
            let robust = apart.iter().filter(same).all(|other| other.robust);
            assert_eq!(outcome.robust, robust, "{norm}: {outcome:?}");
            assert_eq!(outcome.attack, "autoattack");
        }
        let robust = together.iter().filter(|outcome| outcome.robust).count();
        assert!(robust > 0 && robust < together.len(), "{norm}: {robust}");
        // What broke how many is said, for each radius.
        let counts = report.notes.iter().filter(|n| n.contains("by apgd-ce"));
        assert_eq!(counts.count(), 2, "{:?}", report.notes);
        assert!(!report.notes.iter().any(|note| note.contains("not defined")));
        let row = &report.summary[0];
        assert_eq!((row.steps, row.restarts), (5300, 20));
        let steps: u64 = together
            .iter()
            .filter(|outcome| outcome.epsilon == radii[0])
            .map(|outcome| outcome.steps)
            .sum();
        assert_eq!(row.gradient_evaluations, steps, "no query is a gradient");
    }
}

#[test]
fn the_batch_size_changes_no_verdict() {
    let model = digits("standard");
    let data = digits_data(&model, 6);
    for (norm, [_, radius]) in BALLS {
        let verdicts = |size| {
            let config = Config {
                batch_size: Some(size),
                ..config("autoattack", norm, &[radius])
            };
            let outcomes = run(&model, &data, &config).0.into_iter();
            outcomes
                .map(|o| {
                    (
                        o.index,
                        o.epsilon.to_bits(),
                        o.adversarial_prediction,
                        o.robust,
                        o.restart,
                    )
                })
                .collect::<Vec<_>>()
        };
        let one = verdicts(1);
        for size in [7, 64] {
            let other = verdicts(size);
            assert_eq!(one, other, "{norm}, batches of {size}");
        }
    }
}

#[test]
fn every_point_counts_whatever_is_kept() {
    let model = digits("standard");
    let data = digits_data(&model, 8);
    let any = config("autoattack", Norm::Linf, &[0.06]);
    let last = Config {
        keep: Keep::Last,
        ..any.clone()
    };
    assert_eq!(run(&model, &data, &any).0, run(&model, &data, &last).0);
}

/// Of the first class; the second has them turned over.
const WEIGHTS: [f32; 4] = [2.0, -1.0, 0.5, -0.25];

/// A linear model of so many classes, all but the first two far away, and samples in the middle of the bounds.
fn linear(folder: &Path, classes: usize) -> (Model, Dataset) {
    crate::runtime_ready();
    let mut weights = Vec::new();
    for weight in WEIGHTS {
        weights.extend([weight, -weight]);
        weights.extend(vec![0.0; classes - 2]);
    }
    let mut bias = vec![0.0; 2];
    bias.extend(vec![-50.0; classes - 2]);
    let mut tiny = Tiny::linear();
    tiny.outputs = vec![info("logits", DType::F32, &[N, Some(classes)])];
    tiny.initializers = vec![
        constant("weights", &[4, classes], &weights),
        constant("bias", &[classes], &bias),
    ];
    let path = folder.join(format!("linear-{classes}.onnx"));
    std::fs::write(&path, encode(&tiny.model())).unwrap();
    let model = Model::open(&path, &ModelOptions::default()).unwrap();
    let samples = Array2::from_shape_fn((10, 4), |(sample, element)| {
        0.5 + WEIGHTS[element].signum() * 0.01 * (sample as f32 + 1.0)
    });
    let file = folder.join(format!("samples-{classes}.npz"));
    let mut npz = NpzWriter::new(File::create(&file).unwrap());
    npz.add_array("x", &samples).unwrap();
    npz.add_array("y", &Array1::<i64>::zeros(10)).unwrap();
    npz.finish().unwrap();
    (model, Dataset::open(&Source::new(&file)).unwrap())
}

/// The margin of sample i is 2·w·x = 2·(0.625 + 0.01·(i + 1)·Σ|w|), and the most that a ball takes off it is 2·ε·‖w‖ in the dual norm.
#[test]
fn models_of_few_classes_have_the_variant_that_is_defined_for_them() {
    let folder = tempfile::tempdir().unwrap();
    for classes in [2, 3, 4] {
        let (model, data) = linear(folder.path(), classes);
        for (norm, dual) in [
            (Norm::Linf, 3.75),
            (Norm::L2, (4.0 + 1.0 + 0.25 + 0.0625_f64).sqrt()),
            (Norm::L1, 2.0),
        ] {
            let margin = |sample: f64| 0.625 + 0.0375 * (sample + 1.0);
            // Halfway between what breaks the fifth sample and what breaks the sixth.
            let epsilon = 0.5 * (margin(4.0) + margin(5.0)) / dual;
            let (outcomes, report) = run(&model, &data, &config("autoattack", norm, &[epsilon]));
            let robust: Vec<bool> = outcomes.iter().map(|outcome| outcome.robust).collect();
            let expected: Vec<bool> = (0..10).map(|sample| sample > 4).collect();
            assert_eq!(robust, expected, "{classes} classes, {norm}");
            let variant = report.notes.iter().any(|note| {
                note.contains("apgd-t follows the targeted margin")
                    && note.contains(&format!("{classes} classes"))
            });
            assert_eq!(variant, classes < 4, "{:?}", report.notes);
        }
    }
}

#[test]
fn the_other_versions_break_no_more_than_there_is_to_break() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = linear(folder.path(), 3);
    for version in ["plus", "rand"] {
        let text = format!("autoattack:version={version}");
        let epsilon = (0.625 + 0.0375 * 5.5) / 3.75;
        let (outcomes, report) = run(&model, &data, &config(&text, Norm::Linf, &[epsilon]));
        assert!(outcomes.iter().all(|outcome| outcome.attack == text));
        let robust = outcomes.iter().filter(|outcome| outcome.robust).count();
        assert_eq!(robust, 5, "{version}");
        assert_eq!(report.summary[0].attack, text);
    }
}

#[test]
fn a_search_for_the_smallest_radius_is_refused_with_what_works() {
    let model = digits("standard");
    let data = digits_data(&model, 2);
    let config = Config {
        attacks: AttackPlan::parse("autoattack").unwrap(),
        ..config("fgsm", Norm::Linf, &[0.1])
    };
    let error = minimal_epsilon(&model, &data, &config, (0.0, 0.3), None, &mut ()).unwrap_err();
    assert!(matches!(error, Error::Config(_)));
    assert!(error.to_string().contains("use apgd or fab"), "{error}");
}
