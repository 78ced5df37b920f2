//! Attacks as they run: against PyTorch's adversarial examples, and the graph form of each step against the host form.

use crate::cli::fixtures::{N, Tiny, constant};
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::attack::host::HostArrays;
use mohs::attack::{Attack, AttackPlan, Context, Pass};
use mohs::data::{Dataset, Options, Source};
use mohs::evaluate::{Adversarial, Config, Keep, Observer, ObserverError, evaluate};
use mohs::graph::passes::lift;
use mohs::graph::{Attribute, Graph};
use mohs::model::program::{Program, Start};
use mohs::model::trace::{BATCHES, trace};
use mohs::model::{GradientGraph, GradientOptions, Model, ModelOptions};
use mohs::onnx::encode;
use mohs::outcome::SampleOutcome;
use mohs::runtime::{SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use mohs::threat::{Bounds, Norm, confine};
use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::NpzReader;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TOLERANCE: f32 = 1e-5;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn attack(text: &str) -> Arc<dyn Attack> {
    Arc::clone(&AttackPlan::parse(text).unwrap().attacks()[0])
}

fn digits(name: &str) -> Model {
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
fn largest_difference(a: &[f32], b: &[f32]) -> (f32, usize) {
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
struct Collector {
    points: Vec<(u64, Vec<f32>)>,
    outcomes: Vec<SampleOutcome>,
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

fn digits_data(model: &Model, limit: u64) -> Dataset {
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

fn config(attacks: &str, norm: Norm, epsilons: &[f64]) -> Config {
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

/// The number of elements of a sample of the made-up model; no multiple of anything.
const WIDTH: usize = 23;

/// A model of `WIDTH` inputs with a gradient that is no gradient of it but known to the last bit: slope · x.
struct MadeUp {
    model: Model,
    gradient: GradientGraph,
    slope: Vec<f32>,
}

impl MadeUp {
    fn new(slope: Vec<f32>) -> Self {
        crate::runtime_ready();
        let weights: Vec<f32> = (0..WIDTH * 3).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut tiny = Tiny::linear();
        tiny.inputs = vec![info("x", DType::F32, &[N, Some(WIDTH)])];
        tiny.initializers = vec![
            constant("weights", &[WIDTH, 3], &weights),
            constant("bias", &[3], &[0.0; 3]),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("model.onnx");
        std::fs::write(&path, encode(&tiny.model())).unwrap();
        let model = Model::open(&path, &ModelOptions::default()).unwrap();

        tiny.inputs.push(info("labels", DType::I64, &[N]));
        tiny.outputs.extend([
            info("loss", DType::F32, &[N]),
            info("grad", DType::F32, &[N, Some(WIDTH)]),
        ]);
        tiny.initializers.push(constant("slope", &[WIDTH], &slope));
        let mut loss = joined("ReduceMean", &["x"], &["loss"]);
        loss.attribute = vec![
            Attribute::Ints(vec![1]).to_proto("axes"),
            Attribute::Int(0).to_proto("keepdims"),
        ];
        tiny.nodes
            .extend([loss, joined("Mul", &["x", "slope"], &["grad"])]);
        let mut graph = Graph::from_model(tiny.model());
        lift(&mut graph).unwrap();
        let feeds = |size| {
            let x = Tensor::new(&[size, WIDTH], vec![0.5f32; size * WIDTH]).unwrap();
            let labels = Tensor::new(&[size], vec![0i64; size]).unwrap();
            let value = |tensor| Value::from_tensor(tensor).unwrap();
            Ok(vec![
                ("x".to_owned(), value(x)),
                ("labels".to_owned(), value(labels)),
            ])
        };
        trace(&mut graph, &feeds, &BATCHES, &SessionOptions::default()).unwrap();
        let find = |name: &str| graph.find(name).unwrap();
        let gradient = GradientGraph {
            labels: find("labels"),
            output: find("logits"),
            loss: find("loss"),
            gradients: vec![(find("x"), find("grad"))],
            softmax_removed: false,
            graph: graph.clone(),
        };
        MadeUp {
            model,
            gradient,
            slope,
        }
    }

    /// The step of the host form from a point, whose gradient is known.
    fn host(&self, attack: &dyn Attack, norm: Norm, bounds: Bounds, slot: &Slot) -> Vec<f32> {
        let arrays = HostArrays::new(WIDTH);
        let row = |values: &[f32]| {
            let row = Array2::from_shape_vec((1, values.len()), values.to_vec());
            arrays.input(row.unwrap())
        };
        let context = Context {
            norm,
            clean: row(&slot.clean),
            low: row(&[bounds.low]),
            high: row(&[bounds.high]),
            epsilon: row(&[slot.epsilon as f32]),
            step_size: row(&[attack.step_size(slot.epsilon) as f32]),
        };
        let gradient: Vec<f32> = slot
            .point
            .iter()
            .zip(&self.slope)
            .map(|(x, slope)| x * slope)
            .collect();
        let pass = Pass {
            point: row(&slot.point),
            gradient: row(&gradient),
            loss: row(&[0.0]),
        };
        let next = attack.step(&context, &pass, &[]);
        arrays.value(next.point).iter().copied().collect()
    }
}

/// Where one sample is.
struct Slot {
    clean: Vec<f32>,
    point: Vec<f32>,
    epsilon: f64,
}

impl Slot {
    /// A sample within the bounds, some of its elements on them, and a point in the ball around it.
    fn random(rng: &mut ChaCha8Rng, norm: Norm, bounds: Bounds, epsilon: f64) -> Self {
        let (low, high) = if bounds == Bounds::NONE {
            (-2.0, 2.0)
        } else {
            (bounds.low, bounds.high)
        };
        let mut element = || match rng.random_range(0..6) {
            0 => low,
            1 => high,
            _ => rng.random_range(low..high),
        };
        let clean: Vec<f32> = (0..WIDTH).map(|_| element()).collect();
        let noise = norm.draw(WIDTH, rng);
        let mut point: Vec<f32> = clean
            .iter()
            .zip(noise)
            .map(|(x, noise)| x + epsilon as f32 * noise)
            .collect();
        confine(norm, epsilon, bounds, &clean, &mut point);
        Slot {
            clean,
            point,
            epsilon,
        }
    }
}

#[test]
fn the_graph_form_of_every_step_is_the_host_form() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let slope: Vec<f32> = (0..WIDTH)
        .map(|element| match element {
            // Two elements in which the loss is flat.
            3 | 17 => 0.0,
            _ => rng.random_range(-3.0..3.0),
        })
        .collect();
    let made_up = MadeUp::new(slope);
    let boxes = [
        Bounds::UNIT,
        Bounds {
            low: -0.5,
            high: 0.75,
        },
        Bounds::NONE,
    ];
    for (norm, text) in [
        (Norm::Linf, "fgsm"),
        (Norm::Linf, "fgm"),
        (Norm::L2, "fgm"),
        (Norm::L1, "fgm"),
        (Norm::Linf, "pgd:steps=4"),
        (Norm::L2, "pgd:steps=4"),
        (Norm::L1, "pgd:steps=4"),
    ] {
        let attack = attack(text);
        for bounds in boxes {
            let mut slots: Vec<Slot> = [0.01, 0.3, 1.0, 2.5, 10.0]
                .into_iter()
                .cycle()
                .take(40)
                .map(|epsilon| Slot::random(&mut rng, norm, bounds, epsilon))
                .collect();
            // One with no gradient at all, which has to stay where it is.
            slots[0].clean = vec![0.0; WIDTH];
            slots[0].point = vec![0.0; WIDTH];
            compare(&made_up, attack.as_ref(), norm, bounds, &mut slots);
        }
    }
}

/// Takes the steps of the graph form, and from each point one of the host form beside it.
fn compare(made_up: &MadeUp, attack: &dyn Attack, norm: Norm, bounds: Bounds, slots: &mut [Slot]) {
    let MadeUp {
        model, gradient, ..
    } = made_up;
    let mut program = Program::new(model, gradient, attack, norm, bounds, slots.len()).unwrap();
    for (position, slot) in slots.iter().enumerate() {
        let start = Start {
            clean: &slot.clean,
            data: &[],
            point: &slot.point,
            state: &[],
            label: 0,
            epsilon: slot.epsilon,
            step_size: attack.step_size(slot.epsilon),
        };
        program.place(position, &start).unwrap();
    }
    for step in 0..attack.steps() {
        let (_, advance) = program.run().unwrap();
        for (position, slot) in slots.iter_mut().enumerate() {
            let found = advance.point(position).unwrap();
            let expected = made_up.host(attack, norm, bounds, slot);
            let (difference, element) = largest_difference(&found, &expected);
            assert!(
                difference <= TOLERANCE,
                "{} in {norm} at ε {}, {bounds:?}, step {step}: {} instead of {} in element {element}",
                attack.label(),
                slot.epsilon,
                found[element],
                expected[element]
            );
            slot.point = found;
        }
        program.advance(advance);
    }
    assert_eq!(
        slots[0].point, slots[0].clean,
        "a dead gradient moves nothing"
    );
}
