//! Every attack on a linear model, whose nearest boundary is known in closed form: each breaks all samples at a radius of 1.01 of the distance, and none
//! at 0.99 of it.

use crate::attacks::{Collector, config};
use crate::cli::fixtures::{N, Tiny, constant};
use crate::gradcheck::info;
use mohs::attack::ATTACKS;
use mohs::data::{Dataset, Source};
use mohs::evaluate::evaluate;
use mohs::model::{Model, ModelOptions};
use mohs::onnx::encode;
use mohs::tensor::DType;
use mohs::threat::Norm;
use ndarray::{Array1, Array2};
use ndarray_npy::NpzWriter;
use std::fs::File;
use std::path::Path;

/// The weights of the first class; the second has them turned over.
const WEIGHTS: [f32; 12] = [
    0.7, -0.4, 0.1, 1.0, -0.9, 0.25, -0.05, 0.5, 0.3, -0.65, 0.2, -0.8,
];

const SAMPLES: usize = 6;

/// What w·x + b is for every sample; half of the difference of the scores.
const MARGIN: f32 = 0.25;

/// In ℓ0, where each element can go half of the way between the bounds: two elements take off (1.0 + 0.9)/2, a third 0.8/2 more.
const MARGIN_OF_THREE: f32 = 1.2;

/// Each attack with the norms that it is made for, and the parameters that it needs to come within 1 % where the defaults do not.
const ATTACKS_BY_NORM: [(&str, &[Norm]); 19] = [
    ("fgsm", &[Norm::Linf]),
    ("fgm", &Norm::CONVEX),
    ("pgd", &[Norm::Linf, Norm::L1]),
    // What a random start is off to the side, steps in ℓ2 only halve every eleven.
    ("pgd:random_start=false", &[Norm::L2]),
    ("mi_fgsm", &Norm::CONVEX),
    ("apgd", &Norm::CONVEX),
    ("fab", &Norm::CONVEX),
    ("fab:untargeted=true", &Norm::CONVEX),
    ("fmn", &Norm::CONVEX),
    // Elements that move go to their bounds at once.
    ("fmn:step_size=100", &[Norm::L0]),
    ("ddn", &[Norm::L2]),
    // The search for the balance of distance and margin ends sooner where it starts near it.
    ("cw:weight=0.1,step_size=0.05", &[Norm::L2]),
    // It stops beyond the boundary by the overshoot, which is 2 % in the paper.
    ("deepfool:overshoot=0.005", &[Norm::Linf, Norm::L2]),
    ("square", &[Norm::Linf]),
    // Windows of 3 × 3 and more do not have the weights' form.
    (
        "square:queries=20000,smallest=1,rescale_schedule=true",
        &[Norm::L2, Norm::L1],
    ),
    ("hopskipjump", &[Norm::Linf, Norm::L2]),
    ("boundary", &[Norm::L2]),
    ("autoattack", &Norm::CONVEX),
    ("autoattack:version=plus", &Norm::CONVEX),
];

/// The model and samples at that margin: with `spread`, each at another point.
fn linear(folder: &Path, margin: f32, spread: f32) -> (Model, Dataset) {
    crate::runtime_ready();
    let width = WEIGHTS.len();
    let squares: f32 = WEIGHTS.iter().map(|w| w * w).sum();
    let center: f32 = WEIGHTS.iter().map(|w| 0.5 * w).sum();
    let mut tiny = Tiny::linear();
    tiny.inputs = vec![info("x", DType::F32, &[N, Some(width)])];
    tiny.outputs = vec![info("logits", DType::F32, &[N, Some(2)])];
    let weights: Vec<f32> = WEIGHTS.iter().flat_map(|&w| [w, -w]).collect();
    tiny.initializers = vec![
        constant("weights", &[width, 2], &weights),
        constant("bias", &[2], &[margin - center, center - margin]),
    ];
    let path = folder.join(format!("linear-{margin}.onnx"));
    std::fs::write(&path, encode(&tiny.model())).unwrap();
    let model = Model::open(&path, &ModelOptions::default()).unwrap();
    // Around the middle of the bounds, and then back along the weights to the same margin.
    let mut samples = Array2::from_shape_fn((SAMPLES, width), |(sample, element)| {
        0.5 + spread * (((sample * 5 + element * 7) % 11) as f32 / 10.0 - 0.5)
    });
    for mut row in samples.rows_mut() {
        let off: f32 = row.iter().zip(WEIGHTS).map(|(x, w)| (x - 0.5) * w).sum();
        for (value, weight) in row.iter_mut().zip(WEIGHTS) {
            *value -= off * weight / squares;
        }
    }
    let file = folder.join(format!("samples-{margin}.npz"));
    let mut npz = NpzWriter::new(File::create(&file).unwrap());
    npz.add_array("x", &samples).unwrap();
    npz.add_array("y", &Array1::<i64>::zeros(SAMPLES)).unwrap();
    npz.finish().unwrap();
    (model, Dataset::open(&Source::new(&file)).unwrap())
}

/// The margin over the dual norm of the weights; no sample meets its bounds on the way.
fn distance(norm: Norm) -> f64 {
    let weights = WEIGHTS.iter().map(|&w| f64::from(w).abs());
    let dual = match norm {
        Norm::Linf => weights.sum(),
        Norm::L2 => weights.map(|w| w * w).sum::<f64>().sqrt(),
        Norm::L1 => weights.fold(0.0, f64::max),
        Norm::L0 => return 3.0,
    };
    f64::from(MARGIN) / dual
}

#[test]
fn every_attack_comes_within_one_percent_of_the_optimum() {
    let folder = tempfile::tempdir().unwrap();
    let convex = linear(folder.path(), MARGIN, 0.2);
    let whole = linear(folder.path(), MARGIN_OF_THREE, 0.0);
    let mut failures = Vec::new();
    for (attack, norms) in ATTACKS_BY_NORM {
        for &norm in norms {
            let (model, data) = if norm == Norm::L0 { &whole } else { &convex };
            let nearest = distance(norm);
            let radii = [0.99 * nearest, 1.01 * nearest];
            let mut collector = Collector::default();
            evaluate(
                model,
                data,
                &config(attack, norm, &radii),
                None,
                &mut collector,
            )
            .unwrap();
            assert_eq!(collector.outcomes.len(), 2 * SAMPLES, "{attack} {norm}");
            let off = collector
                .outcomes
                .iter()
                .find(|outcome| outcome.robust != (outcome.epsilon == radii[0]));
            if let Some(outcome) = off {
                failures.push(format!("{attack} {norm}: {outcome:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_attack_and_norm_has_a_closed_form_here() {
    // `transfer` does not look at the model: its points are another one's.
    for spec in ATTACKS.iter().filter(|spec| spec.name != "transfer") {
        let plan = mohs::attack::AttackPlan::parse(spec.name).unwrap();
        for norm in Norm::ALL {
            let listed = ATTACKS_BY_NORM.iter().any(|(text, norms)| {
                text.split(':').next() == Some(spec.name) && norms.contains(&norm)
            });
            assert_eq!(
                listed,
                plan.check_norm(norm).is_ok(),
                "{} in {norm}",
                spec.name
            );
        }
    }
}
