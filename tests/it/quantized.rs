//! Half-precision and quantised classifiers, as exporters and quantisers write them, against PyTorch (`tests/quantized/make.py`).

use half::f16;
use mohs::attack::AttackPlan;
use mohs::data::{Dataset, Options, Source};
use mohs::evaluate::{Adversarial, Config, Observer, ObserverError, Report, evaluate};
use mohs::model::{Batch, GradientOptions, Model, ModelOptions};
use mohs::onnx::encode;
use mohs::outcome::SampleOutcome;
use mohs::runtime::{Session, SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use mohs::threat::Norm;
use ndarray::{Array1, Array4};
use ndarray_npy::NpzReader;
use std::fs::File;
use std::path::PathBuf;

const HALVES: [&str; 3] = ["half-legacy", "half-dynamo", "half-converted"];

/// With rounding, in one form or another; all but the last are the same network.
const ROUNDED: [&str; 5] = ["qdq", "qdq-per-channel", "qoperator", "dynamic", "rounding"];

/// The attacks that every model goes through.
const ATTACKS: &str = "fgsm,pgd:steps=5";

fn path(name: &str) -> PathBuf {
    crate::sources::root().join("tests/quantized").join(name)
}

fn open(name: &str, options: &ModelOptions) -> Model {
    crate::runtime_ready();
    Model::open(&path(&format!("{name}.onnx")), options)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The samples, their labels and PyTorch's gradients.
fn reference(name: &str) -> (Array4<f32>, Array1<i64>, Array4<f32>) {
    let mut file = NpzReader::new(File::open(path(&format!("{name}.npz"))).unwrap()).unwrap();
    (
        file.by_name("x").unwrap(),
        file.by_name("y").unwrap(),
        file.by_name("grad").unwrap(),
    )
}

/// The relative ℓ2 error of each sample in ascending order, and the types of `grad` and `loss`.
fn gradient_errors(name: &str, model: &Model) -> (Vec<f64>, [DType; 2]) {
    let (samples, labels, expected) = reference(name);
    let graph = model
        .gradient(&GradientOptions::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .graph;
    let bytes = encode(&graph.to_model());
    let mut session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
    let size = match model.batch() {
        Batch::Dynamic => labels.len(),
        Batch::Fixed(size) => size,
    };
    let mut errors = Vec::new();
    let mut dtypes = [DType::F32; 2];
    for start in (0..labels.len()).step_by(size) {
        let rows = ndarray::s![start..start + size, .., .., ..];
        let points = samples.slice(rows).to_owned().into_dyn();
        let points = match model.input_dtype() {
            DType::F16 => Tensor::F16(points.mapv(f16::from_f32)),
            _ => Tensor::F32(points),
        };
        let labels = labels.slice(ndarray::s![start..start + size]).to_owned();
        let feeds = [
            (model.input(), Value::from_tensor(points).unwrap()),
            (
                "labels",
                Value::from_tensor(Tensor::I64(labels.into_dyn())).unwrap(),
            ),
        ];
        let feeds: Vec<(&str, &Value)> = feeds.iter().map(|(name, value)| (*name, value)).collect();
        let found = session.run_for(&["grad", "loss"], &feeds).unwrap();
        dtypes = [0, 1].map(|position| found[position].dtype().unwrap());
        let found = found[0].to_tensor().unwrap().to_f64();
        let expected = expected.slice(rows);
        let width = found.len() / size;
        for (found, expected) in found.chunks(width).zip(expected.outer_iter()) {
            let square = |value: f64| value * value;
            let length: f64 = expected.iter().map(|&e| square(e.into())).sum();
            let pairs = found.iter().zip(&expected);
            let distance: f64 = pairs.map(|(f, &e)| square(f - f64::from(e))).sum();
            errors.push((distance / length).sqrt());
        }
    }
    errors.sort_by(f64::total_cmp);
    (errors, dtypes)
}

/// Keeps what was found.
#[derive(Default)]
struct Found {
    points: Vec<(u64, f64, Vec<f32>)>,
}

impl Observer for Found {
    fn outcome(&mut self, _: &SampleOutcome) -> Result<(), ObserverError> {
        Ok(())
    }

    fn adversarial(&mut self, adversarial: &Adversarial<'_>) -> Result<(), ObserverError> {
        let Adversarial {
            index,
            epsilon,
            point,
            ..
        } = *adversarial;
        self.points.push((index, epsilon, point.to_vec()));
        Ok(())
    }
}

fn evaluated(name: &str, model: &Model, config: &Config) -> (Report, Found) {
    let dataset = Dataset::open(&Source::new(path(&format!("{name}.npz")))).unwrap();
    let options = Options {
        input_shape: Some(model.sample_shape().to_vec()),
        ..Options::default()
    };
    let dataset = dataset.prepared(&options).unwrap();
    let mut found = Found::default();
    let report = evaluate(model, &dataset, config, None, &mut found)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    (report, found)
}

#[test]
fn gradients_of_half_precision_are_those_of_the_same_weights_in_single_precision() {
    for name in HALVES {
        let model = open(name, &ModelOptions::default());
        let (errors, dtypes) = gradient_errors(name, &model);
        assert!(errors[7] <= 1e-2, "{name}: {errors:?}");
        assert_eq!(dtypes, [DType::F16, DType::F32], "{name}");
    }
}

#[test]
fn points_of_half_precision_are_in_the_ball_as_the_model_gets_them() {
    for norm in Norm::CONVEX {
        let config = Config {
            norm,
            ..Config::new(
                AttackPlan::parse("fgm,pgd:steps=5").unwrap(),
                vec![0.1, 1.5],
            )
        };
        let model = open("half-legacy", &ModelOptions::default());
        let (samples, ..) = reference("half-legacy");
        let (_, found) = evaluated("half-legacy", &model, &config);
        assert!(!found.points.is_empty(), "{norm}");
        for (index, epsilon, point) in found.points {
            let clean = samples.index_axis(ndarray::Axis(0), index as usize);
            // Sixteenths, which half precision holds.
            let clean: Vec<f32> = clean.iter().copied().collect();
            assert!(norm.distance(&clean, &point) <= epsilon, "{norm}");
            let held = |value: &f32| f16::from_f32(*value).to_f32() == *value;
            assert!(point.iter().all(held), "{norm}");
            assert!(point.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}

#[test]
fn half_precision_is_as_robust_however_it_was_made() {
    let config = Config::new(AttackPlan::parse(ATTACKS).unwrap(), vec![0.05, 0.2]);
    let robust = HALVES.map(|name| {
        let model = open(name, &ModelOptions::default());
        let (report, _) = evaluated(name, &model, &config);
        let rows = report.summary.iter();
        rows.map(|row| row.robust_accuracy).collect::<Vec<_>>()
    });
    assert_eq!(robust[0], robust[1]);
    assert_eq!(robust[0], robust[2]);
    assert!(robust[0][0] > 0.5);
    assert!(robust[0][1] < 0.5);
}

fn straight_through() -> ModelOptions {
    ModelOptions {
        straight_through: true,
        ..ModelOptions::default()
    }
}

#[test]
fn gradients_straight_through_are_those_of_the_dequantised_model() {
    for name in ROUNDED {
        let model = open(name, &straight_through());
        let (errors, dtypes) = gradient_errors(name, &model);
        // No value of these samples is near a half that is rounded, so no sample may be off by a step.
        assert!(errors[7] <= 1e-4, "{name}: {errors:?}");
        assert_eq!(dtypes, [DType::F32, DType::F32], "{name}");
    }
}

/// Other forms, by what they round (`tests/quantized/forms.py`): activations too.
const ROUNDED_FORMS: [&str; 8] = [
    "form-attention",
    "form-block-activations",
    "form-branches",
    "form-dynamic-matmul",
    "form-integer-to-float",
    "form-operators",
    "form-softmax-old",
    "form-where",
];

/// Weights alone.
const WEIGHT_FORMS: [&str; 5] = [
    "form-block-int8",
    "form-block-uint4",
    "form-nbits2",
    "form-nbits4",
    "form-nbits8",
];

#[test]
fn every_form_that_rounds_activations_has_the_gradient_of_the_dequantised_model() {
    for name in ROUNDED_FORMS {
        let (errors, dtypes) = gradient_errors(name, &open(name, &straight_through()));
        assert!(errors[7] <= 1e-4, "{name}: {errors:?}");
        assert_eq!(dtypes, [DType::F32, DType::F32], "{name}");
    }
}

#[test]
fn an_operator_on_quantised_numbers_without_a_form_in_floats_is_named_though_there_is_another_way()
{
    let model = open("form-uncovered", &straight_through());
    let error = model.gradient(&GradientOptions::default()).unwrap_err();
    assert!(error.to_string().contains("NhwcMaxPool"), "{error}");
    // What is flat is flat: without the estimator there is nothing to pass on, and the other way is the gradient.
    let model = open("form-uncovered", &ModelOptions::default());
    model.gradient(&GradientOptions::default()).unwrap();
}

#[test]
fn forms_that_round_weights_alone_need_no_straight_through() {
    for name in WEIGHT_FORMS {
        for options in [ModelOptions::default(), straight_through()] {
            let (errors, _) = gradient_errors(name, &open(name, &options));
            assert!(errors[7] <= 1e-5, "{name}: {errors:?}");
        }
    }
}

#[test]
fn gradients_in_bfloat16_are_those_of_the_same_weights_in_single_precision() {
    let (errors, _) = gradient_errors(
        "form-bfloat16",
        &open("form-bfloat16", &ModelOptions::default()),
    );
    assert!(errors[7] <= 1e-2, "{errors:?}");
}

#[test]
fn the_gradient_graph_says_that_it_goes_straight_through() {
    let said = |options: &ModelOptions, name: &str| {
        let graph = open(name, options)
            .gradient(&GradientOptions::default())
            .unwrap()
            .graph;
        let mut entries = graph.model.metadata_props.into_iter();
        let entry = entries.find(|entry| entry.key.as_deref() == Some("mohs.straight-through"));
        entry.unwrap().value.unwrap()
    };
    assert_eq!(said(&straight_through(), "qdq"), "true");
    assert_eq!(said(&ModelOptions::default(), "half-legacy"), "false");
}

#[test]
fn without_straight_through_the_error_proposes_it() {
    for name in ROUNDED {
        let model = open(name, &ModelOptions::default());
        let error = model.gradient(&GradientOptions::default()).unwrap_err();
        assert!(error.to_string().contains("--straight-through"), "{error}");
    }
}

#[test]
fn attacks_straight_through_break_what_is_quantised() {
    for name in ROUNDED {
        let config = Config::new(AttackPlan::parse(ATTACKS).unwrap(), vec![0.2]);
        let model = open(name, &straight_through());
        let (samples, ..) = reference(name);
        let (report, found) = evaluated(name, &model, &config);
        let row = report.summary.last().unwrap();
        assert!(row.robust_accuracy <= 0.25, "{name}: {row:?}");
        let judge = &mut open(name, &ModelOptions::default()).judge().unwrap();
        let (_, labels, _) = reference(name);
        for (index, epsilon, point) in found.points {
            // The verdict is that of the file as it is.
            let label = labels[index as usize] as u32;
            let verdict = judge.judge(&point, &[], &[label]).unwrap();
            assert_ne!(verdict[0].prediction, label, "{name}");
            let clean = samples.index_axis(ndarray::Axis(0), index as usize);
            let clean: Vec<f32> = clean.iter().copied().collect();
            assert!(Norm::Linf.distance(&clean, &point) <= epsilon, "{name}");
        }
    }
}

#[test]
fn what_stops_gradients_is_said_where_they_find_another_way() {
    for name in ROUNDED {
        let notes = open(name, &ModelOptions::default()).notes().join("\n");
        assert!(notes.contains("--straight-through"), "{name}: {notes}");
        let notes = open(name, &straight_through()).notes().join("\n");
        assert!(!notes.contains("--straight-through"), "{name}: {notes}");
    }
    let notes = open("half-legacy", &ModelOptions::default())
        .notes()
        .join("\n");
    assert!(!notes.contains("--straight-through"), "{notes}");
}

#[test]
fn inspecting_says_what_straight_through_would_pass_on() {
    let sandbox = crate::cli::Sandbox::new();
    let model = path("qoperator.onnx").display().to_string();
    let (stdout, _) = sandbox.run(&["inspect", &model]);
    let row = |operator: &str| stdout.lines().find(|row| row.starts_with(operator));
    for operator in ["QuantizeLinear", "QLinearConv", "com.microsoft::QGemm"] {
        let row = row(operator).unwrap();
        assert!(row.ends_with("passed on by --straight-through"), "{row}");
    }
    assert!(!stdout.contains("no rule"), "{stdout}");
}
