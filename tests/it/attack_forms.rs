//! The graph form of each attack's step, which runs, against the host form, which is plain to read.

use crate::attacks::{TOLERANCE, attack, largest_difference};
use crate::cli::fixtures::{N, Tiny, constant};
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::attack::host::HostArrays;
use mohs::attack::{Attack, Context, Pass};
use mohs::graph::passes::lift;
use mohs::graph::{Attribute, Graph};
use mohs::model::program::{Program, Start};
use mohs::model::trace::{BATCHES, trace};
use mohs::model::{GradientGraph, Model, ModelOptions};
use mohs::onnx::encode;
use mohs::runtime::{SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use mohs::threat::{Bounds, Norm, confine};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;

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
        // Half of the loss that the gradient belongs to: a loss of its own would tie at points that an attack goes to and fro between.
        let mut loss = joined("ReduceMean", &["products"], &["loss"]);
        loss.attribute = vec![
            Attribute::Ints(vec![1]).to_proto("axes"),
            Attribute::Int(0).to_proto("keepdims"),
        ];
        tiny.nodes.extend([
            joined("Mul", &["x", "slope"], &["grad"]),
            joined("Mul", &["grad", "x"], &["products"]),
            loss,
        ]);
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
            targets: None,
            output: find("logits"),
            loss: find("loss"),
            gradients: vec![(find("x"), find("grad"))],
            softmax_removed: false,
            of_probabilities: false,
            graph: graph.clone(),
        };
        MadeUp {
            model,
            gradient,
            slope,
        }
    }

    /// The attack's first state, on the host.
    fn first_state(attack: &dyn Attack, norm: Norm, bounds: Bounds, slot: &Slot) -> Vec<Vec<f32>> {
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
        let state = attack.init(&context, None).state;
        let values = |array| arrays.value(array).iter().copied().collect();
        state.into_iter().map(values).collect()
    }

    fn loss(&self, point: &[f32]) -> f32 {
        let products = point
            .iter()
            .zip(&self.slope)
            .map(|(x, slope)| x * slope * x);
        products.sum::<f32>() / WIDTH as f32
    }

    /// Whether a loss that the attack remembers is that of the point, but for rounding: which of the two is larger then says nothing.
    fn hangs_on_rounding(&self, slot: &Slot) -> bool {
        let loss = self.loss(&slot.point);
        let near = |number: f32| number != loss && (number - loss).abs() < 1e-5 * loss.abs();
        let numbers = slot.state.iter().filter(|state| state.len() == 1);
        numbers.flatten().any(|&number| near(number))
    }

    /// The step of the host form from a point, whose gradient is known; also the next state.
    fn host(
        &self,
        attack: &dyn Attack,
        norm: Norm,
        bounds: Bounds,
        slot: &Slot,
    ) -> (Vec<f32>, Vec<Vec<f32>>) {
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
            loss: row(&[self.loss(&slot.point)]),
            adversarial: row(&[0.0]),
        };
        let state: Vec<_> = slot.state.iter().map(|state| row(state)).collect();
        let next = attack.step(&context, &pass, &state);
        let values = |array| arrays.value(array).iter().copied().collect();
        (
            values(next.point),
            next.state.into_iter().map(values).collect(),
        )
    }
}

/// Where one sample is.
struct Slot {
    clean: Vec<f32>,
    point: Vec<f32>,
    epsilon: f64,
    /// The attack's own, as the host form has it.
    state: Vec<Vec<f32>>,
    /// Whether the two forms may have parted: a decision hung on the rounding of a loss.
    parted: bool,
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
            state: Vec::new(),
            parted: false,
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
        (Norm::Linf, "apgd:steps=12"),
        (Norm::L2, "apgd:steps=12"),
        (Norm::L1, "apgd:steps=12"),
        (Norm::Linf, "apgd:steps=6,eot=2"),
        (Norm::L2, "pgd:steps=3,eot=2"),
        (Norm::Linf, "mi_fgsm:steps=3,eot=2"),
        (Norm::Linf, "mi_fgsm:steps=4"),
        (Norm::L2, "mi_fgsm:steps=4"),
        (Norm::L1, "mi_fgsm:steps=4"),
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
    for (position, slot) in slots.iter_mut().enumerate() {
        slot.state = MadeUp::first_state(attack, norm, bounds, slot);
        let start = Start {
            clean: &slot.clean,
            data: &[],
            point: &slot.point,
            state: &slot.state,
            label: 0,
            target: 0,
            epsilon: slot.epsilon,
            step_size: attack.step_size(slot.epsilon),
        };
        program.place(position, &start).unwrap();
    }
    let mut compared = 0;
    for step in 0..attack.steps() {
        let (_, advance) = program.run().unwrap();
        for (position, slot) in slots.iter_mut().enumerate() {
            slot.parted |= made_up.hangs_on_rounding(slot);
            if slot.parted {
                continue;
            }
            compared += 1;
            let found = advance.point(position).unwrap();
            let (expected, state) = made_up.host(attack, norm, bounds, slot);
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
            slot.state = state;
        }
        program.advance(advance);
    }
    let all = attack.steps() as usize * slots.len();
    assert!(
        compared * 3 > all,
        "only {compared} of {all} steps could be compared"
    );
    assert_eq!(
        slots[0].point, slots[0].clean,
        "a dead gradient moves nothing"
    );
}
