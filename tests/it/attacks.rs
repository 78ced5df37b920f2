//! Attacks as they run, against PyTorch's adversarial examples.

use mohs::attack::{Attack, AttackPlan};
use mohs::data::{Dataset, Options, Source};
use mohs::evaluate::{Adversarial, Config, Keep, Observer, ObserverError, evaluate};
use mohs::model::program::{Program, Start};
use mohs::model::{GradientOptions, Model, ModelOptions};
use mohs::outcome::SampleOutcome;
use mohs::threat::{Bounds, Norm};
use ndarray::{Array1, ArrayD};
use ndarray_npy::NpzReader;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

pub(crate) const TOLERANCE: f32 = 1e-5;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn attack(text: &str) -> Arc<dyn Attack> {
    Arc::clone(
        AttackPlan::parse(text).unwrap().attacks()[0]
            .gradient()
            .unwrap(),
    )
}

pub(crate) fn digits(name: &str) -> Model {
    crate::runtime_ready();
    let path = root().join(format!("models/digits-{name}.onnx"));
    Model::open(&path, &ModelOptions::default()).unwrap()
}

/// An attack of `attacks.npz`: its name there, its norm, its text and ε.
const REFERENCES: [(&str, Norm, &str, f64); 6] = [
    ("fgsm", Norm::Linf, "fgsm", 0.1),
    ("fgm_l2", Norm::L2, "fgm", 1.0),
    ("fgm_l1", Norm::L1, "fgm", 3.0),
    (
        "pgd_linf",
        Norm::Linf,
        "pgd:steps=10,random_start=false",
        0.1,
    ),
    ("pgd_l2", Norm::L2, "pgd:steps=10,random_start=false", 1.0),
    ("pgd_l1", Norm::L1, "pgd:steps=10,random_start=false", 4.0),
];

/// Where float64 and float32 part: an attack, a model and a sample.
///
/// After five steps the four pixels that have moved add up to ε and 1.5e-8 beyond, which float32 does not see.
/// In float64 the projection then moves one of them off its bound by 4e-9, so that it may be moved again, and another one is not.
const KNIFE_EDGE: (&str, &str, i64) = ("pgd_l1", "standard", 64);

/// The samples of `attacks.npz` and what PyTorch made of them.
struct References {
    file: NpzReader<File>,
}

impl References {
    fn open() -> Self {
        let path = root().join("tests/references/attacks.npz");
        References {
            file: NpzReader::new(File::open(path).unwrap()).unwrap(),
        }
    }

    fn floats(&mut self, name: &str) -> Vec<f32> {
        let array: ArrayD<f32> = self.file.by_name(name).unwrap();
        array.iter().copied().collect()
    }

    fn integers(&mut self, name: &str) -> Vec<i64> {
        let array: Array1<i64> = self.file.by_name(name).unwrap();
        array.to_vec()
    }

    /// The arrays with adversarial examples.
    fn names(&mut self) -> Vec<String> {
        let names = self.file.names().unwrap();
        let names = names.into_iter();
        names
            .map(|name| name.trim_end_matches(".npy").to_owned())
            .filter(|name| name.starts_with("adversarial_"))
            .collect()
    }
}

/// The largest difference of two elements, and where it is.
pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> (f32, usize) {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences
        .enumerate()
        .map(|(position, difference)| (difference, position))
        .fold((0.0, 0), |most, one| {
            if one.0 > most.0 || one.0.is_nan() {
                one
            } else {
                most
            }
        })
}

#[test]
fn every_reference_is_compared() {
    let mut references = References::open();
    let mut found = references.names();
    let mut expected: Vec<String> = REFERENCES
        .iter()
        .flat_map(|(name, ..)| {
            ["standard", "adversarial"].map(|model| format!("adversarial_{name}_{model}"))
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn adversarial_examples_are_those_of_pytorch() {
    let mut references = References::open();
    let (x, y) = (references.floats("x"), references.integers("y"));
    let index = references.integers("index");
    for kind in ["standard", "adversarial"] {
        let model = digits(kind);
        let gradient = model.gradient(&GradientOptions::default()).unwrap();
        for (name, norm, text, epsilon) in REFERENCES {
            let attack = attack(text);
            let mut program = Program::new(
                &model,
                &gradient,
                attack.as_ref(),
                norm,
                Bounds::UNIT,
                y.len(),
            )
            .unwrap();
            for (slot, (sample, &label)) in x.chunks(program.width()).zip(&y).enumerate() {
                let start = Start {
                    clean: sample,
                    data: &[],
                    point: sample,
                    state: &[],
                    label: label as u32,
                    target: 0,
                    epsilon,
                    step_size: attack.step_size(epsilon),
                };
                program.place(slot, &start).unwrap();
            }
            for _ in 0..attack.steps() {
                let (_, advance) = program.run().unwrap();
                program.advance(advance);
            }
            let expected = references.floats(&format!("adversarial_{name}_{kind}"));
            for (slot, expected) in expected.chunks(program.width()).enumerate() {
                if (name, kind, index[slot]) == KNIFE_EDGE {
                    continue;
                }
                let (difference, element) =
                    largest_difference(&program.point(slot).unwrap(), expected);
                assert!(
                    difference <= TOLERANCE,
                    "{name} on the {kind} model, sample {}: off by {difference} in element {element}",
                    index[slot]
                );
            }
        }
    }
}

/// Keeps the points that break a sample.
#[derive(Default)]
pub(crate) struct Collector {
    pub(crate) points: Vec<(u64, Vec<f32>)>,
    pub(crate) outcomes: Vec<SampleOutcome>,
}

impl Observer for Collector {
    fn outcome(&mut self, outcome: &SampleOutcome) -> Result<(), ObserverError> {
        self.outcomes.push(outcome.clone());
        Ok(())
    }

    fn adversarial(&mut self, found: &Adversarial<'_>) -> Result<(), ObserverError> {
        self.points.push((found.index, found.point.to_vec()));
        Ok(())
    }
}

pub(crate) fn digits_data(model: &Model, limit: u64) -> Dataset {
    let source = Source {
        limit: Some(limit),
        ..Source::new(root().join("models/digits-test.npz"))
    };
    let options = Options {
        input_shape: Some(model.sample_shape().to_vec()),
        ..Options::default()
    };
    Dataset::open(&source)
        .and_then(|data| data.prepared(&options))
        .unwrap()
}

pub(crate) fn config(attacks: &str, norm: Norm, epsilons: &[f64]) -> Config {
    Config {
        attacks: AttackPlan::parse(attacks).unwrap(),
        norm,
        epsilons: epsilons.to_vec(),
        bounds: Bounds::UNIT,
        keep: Keep::Any,
        seed: 0,
        batch_size: None,
        keep_softmax: false,
    }
}

#[test]
fn the_engine_reports_the_points_of_pytorch_where_the_last_one_is_kept() {
    let mut references = References::open();
    let index = references.integers("index");
    for kind in ["standard", "adversarial"] {
        let model = digits(kind);
        let last = *index.iter().max().unwrap() as u64;
        let data = digits_data(&model, last + 1);
        for (name, norm, text, epsilon) in REFERENCES {
            let expected = references.floats(&format!("adversarial_{name}_{kind}"));
            let config = Config {
                keep: Keep::Last,
                batch_size: Some(13),
                ..config(text, norm, &[epsilon])
            };
            let mut collector = Collector::default();
            evaluate(&model, &data, &config, None, &mut collector).unwrap();
            let width = data.sample_len();
            let mut compared = 0;
            for (row, &sample) in index.iter().enumerate() {
                let points = &collector.points;
                let Some((_, point)) = points.iter().find(|(index, _)| *index == sample as u64)
                else {
                    continue;
                };
                compared += 1;
                if (name, kind, sample) == KNIFE_EDGE {
                    continue;
                }
                let (difference, _) = largest_difference(point, &expected[row * width..][..width]);
                assert!(difference <= TOLERANCE, "{name}, {kind}, sample {sample}");
            }
            let outcomes = collector.outcomes.iter();
            let broken = outcomes.filter(|outcome| {
                index.contains(&(outcome.index as i64))
                    && !outcome.robust
                    && outcome.clean_prediction == outcome.label
            });
            assert_eq!(compared, broken.count(), "{name}, {kind}");
        }
    }
}

#[test]
fn the_batch_size_changes_no_outcome() {
    let model = digits("standard");
    let data = digits_data(&model, 40);
    for (norm, radii) in [
        (Norm::Linf, [0.05, 0.15]),
        (Norm::L2, [0.25, 0.75]),
        (Norm::L1, [2.0, 6.0]),
    ] {
        let run = |size| {
            let config = Config {
                batch_size: Some(size),
                ..config("fgm,pgd:steps=4,restarts=2", norm, &radii)
            };
            let mut collector = Collector::default();
            evaluate(&model, &data, &config, None, &mut collector).unwrap();
            collector.outcomes
        };
        let one = run(1);
        for size in [7, 64] {
            for (a, b) in one.iter().zip(run(size)) {
                let verdict = |o: &SampleOutcome| {
                    (
                        (o.index, o.label, o.clean_prediction, o.attack.clone()),
                        (o.adversarial_prediction, o.robust, o.steps, o.restart),
                    )
                };
                assert_eq!(verdict(a), verdict(&b), "batches of {size}");
                let floats = |o: &SampleOutcome| [o.clean_loss, o.loss, o.linf, o.l2, o.l1];
                for (a, b) in floats(a).iter().zip(floats(&b)) {
                    assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} and {b}");
                }
            }
        }
    }
}
