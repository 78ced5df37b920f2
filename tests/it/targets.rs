//! Attacks that go toward one class after the other, on a linear model whose nearest boundaries are known.

use crate::attacks::{Collector, config, digits, digits_data};
use crate::cli::Sandbox;
use crate::cli::fixtures::{Tiny, npz, samples};
use mohs::data::{Dataset, Source};
use mohs::evaluate::{Config, evaluate};
use mohs::model::{Model, ModelOptions};
use mohs::threat::{Bounds, Norm};

/// The weights of [`Tiny::linear`], class by class.
const WEIGHTS: [[f64; 4]; 3] = [
    [2.0, -1.0, -1.0, 0.5],
    [-1.0, 2.0, -1.0, 0.25],
    [-1.0, -1.0, 2.0, -0.5],
];
const BIAS: [f64; 3] = [0.0, 0.1, -0.1];

/// The distance of each sample to the nearest boundary, in a norm, without bounds.
fn radii(norm: Norm) -> Vec<f64> {
    let (x, y) = samples();
    let dual = |way: [f64; 4]| match norm {
        Norm::Linf => way.iter().map(|w| w.abs()).sum::<f64>(),
        Norm::L2 => way.iter().map(|w| w * w).sum::<f64>().sqrt(),
        Norm::L1 | Norm::L0 => way.iter().fold(0.0, |most: f64, w| most.max(w.abs())),
    };
    let radius = |(row, &label): (ndarray::ArrayView1<'_, f32>, &i64)| {
        let own = label as usize;
        let to = (0..3).filter(|&other| other != own).map(|other| {
            let way: [f64; 4] = std::array::from_fn(|i| WEIGHTS[own][i] - WEIGHTS[other][i]);
            let rows = way.iter().zip(row);
            let margin: f64 = rows.map(|(w, &x)| w * f64::from(x)).sum();
            (margin + BIAS[own] - BIAS[other]) / dual(way)
        });
        to.fold(f64::INFINITY, f64::min)
    };
    x.rows().into_iter().zip(&y).map(radius).collect()
}

struct Linear {
    model: Model,
    data: Dataset,
    _sandbox: Sandbox,
}

impl Linear {
    fn new() -> Self {
        crate::runtime_ready();
        let sandbox = Sandbox::new();
        Tiny::linear().write(&sandbox, "model.onnx");
        let (x, y) = samples();
        npz(&sandbox, "data.npz", &x.into_dyn(), &y);
        Linear {
            model: Model::open(&sandbox.path("model.onnx"), &ModelOptions::default()).unwrap(),
            data: Dataset::open(&Source::new(sandbox.path("data.npz"))).unwrap(),
            _sandbox: sandbox,
        }
    }

    fn run(&self, attack: &str, norm: Norm, epsilons: &[f64]) -> Collector {
        let config = Config {
            bounds: Bounds::NONE,
            ..config(attack, norm, epsilons)
        };
        let mut collector = Collector::default();
        evaluate(&self.model, &self.data, &config, None, &mut collector).unwrap();
        collector
    }
}

/// Toward every class in turn, a step along the margin is the shortest way: no sample is missed, and none is broken that cannot be.
#[test]
fn toward_every_class_a_step_finds_exactly_what_there_is() {
    let linear = Linear::new();
    for (attack, norms) in [
        ("fgsm:loss=margin,targets=2", &[Norm::Linf][..]),
        ("fgm:loss=margin,targets=2", &Norm::CONVEX),
        (
            "pgd:loss=margin,targets=2,random_start=false",
            &[Norm::Linf, Norm::L2],
        ),
        ("mi_fgsm:loss=margin,targets=2", &[Norm::Linf, Norm::L2]),
        (
            "apgd:loss=margin,targets=2,random_start=false",
            &[Norm::Linf, Norm::L2],
        ),
    ] {
        for &norm in norms {
            let radii = radii(norm);
            for (sample, radius) in radii.iter().enumerate() {
                let found = linear.run(attack, norm, &[0.99 * radius, 1.01 * radius]);
                let own = &found.outcomes[2 * sample..][..2];
                assert_eq!(own[0].index, sample as u64);
                let robust = (own[0].robust, own[1].robust);
                assert_eq!(
                    robust,
                    (true, false),
                    "{attack} {norm}, sample {sample} at {radius}"
                );
            }
        }
    }
}

#[test]
fn toward_every_class_the_nearest_point_is_that_of_the_nearest_boundary() {
    let linear = Linear::new();
    for (attack, norm) in [
        ("fmn:targets=2", Norm::Linf),
        ("fmn:targets=2", Norm::L2),
        ("ddn:targets=2", Norm::L2),
        ("cw:targets=2,steps=500,step_size=0.005", Norm::L2),
    ] {
        let found = linear.run(attack, norm, &[50.0]);
        for (outcome, radius) in found.outcomes.iter().zip(radii(norm)) {
            let distance = match norm {
                Norm::Linf => outcome.linf,
                _ => outcome.l2,
            };
            let share = distance / radius;
            assert!((0.9999..1.03).contains(&share), "{attack} {norm}: {share}");
        }
    }
}

#[test]
fn on_a_network_runs_toward_classes_find_at_least_what_one_run_finds() {
    let model = digits("adversarial");
    let data = digits_data(&model, 100);
    let run = |attack: &str| {
        let mut collector = Collector::default();
        let config = config(attack, Norm::Linf, &[0.2]);
        let report = evaluate(&model, &data, &config, None, &mut collector).unwrap();
        (report.summary[0].clone(), collector)
    };
    let (one, _) = run("pgd:steps=10,loss=margin");
    let (many, collector) = run("pgd:steps=10,loss=margin,targets=9");
    assert_eq!((many.steps, many.restarts), (10, 9));
    assert!(
        many.robust_accuracy <= one.robust_accuracy,
        "{many:?} {one:?}"
    );
    // The first class is the nearest for most, and the others are gone to as well.
    let broken = collector
        .outcomes
        .iter()
        .filter(|o| !o.robust && o.steps > 0);
    assert!(broken.clone().any(|o| o.restart == 0));
    assert!(broken.clone().any(|o| o.restart > 0));
    assert!(broken.clone().all(|o| o.restart < 9));
}

#[test]
fn the_mean_of_several_gradients_is_paid_for_and_changes_nothing_for_a_model_without_randomness() {
    let model = digits("adversarial");
    let data = digits_data(&model, 30);
    for name in ["pgd:steps=5", "mi_fgsm:steps=5"] {
        let run = |attack: &str| {
            let mut collector = Collector::default();
            let config = config(attack, Norm::L2, &[1.0]);
            let report = evaluate(&model, &data, &config, None, &mut collector).unwrap();
            (report.summary[0].clone(), collector.outcomes)
        };
        let (one, plain) = run(name);
        let (four, averaged) = run(&format!("{name},eot=4"));
        assert_eq!((one.steps, four.steps), (5, 20), "{name}");
        assert!(
            four.gradient_evaluations > 3 * one.gradient_evaluations,
            "{name}"
        );
        for (a, b) in plain.iter().zip(&averaged) {
            assert_eq!((a.index, a.robust), (b.index, b.robust), "{name}");
            assert!((a.l2 - b.l2).abs() < 1e-4, "{name}");
        }
    }
}
