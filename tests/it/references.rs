//! Gradients of exported classifiers against PyTorch's, in double precision (`tests/references/make.py` makes the files).

use mohs::graph::passes::lower_precision;
use mohs::loss::Loss;
use mohs::model::{Batch, GradientGraph, GradientOptions, Model, ModelOptions};
use mohs::onnx::encode;
use mohs::runtime::{Session, SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use ndarray::{ArrayD, Axis, Ix1};
use ndarray_npy::NpzReader;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The relative error that single precision may make against double, over the gradient as a whole.
const TOLERANCE: f64 = 2e-5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references")
}

/// One reference: a model with samples, and what PyTorch computes on them.
struct Reference {
    name: String,
    path: PathBuf,
    file: NpzReader<File>,
}

impl Reference {
    fn all() -> Vec<Reference> {
        let mut manifest = csv::Reader::from_path(folder().join("manifest.csv")).unwrap();
        let names: Vec<String> = manifest
            .records()
            .map(|row| row.unwrap()[0].to_owned())
            .collect();
        assert!(names.len() > 40, "the references are not all there");
        names
            .into_iter()
            .map(|name| Reference::open(&name))
            .collect()
    }

    fn open(name: &str) -> Reference {
        let path = folder().join(format!("{name}.onnx"));
        let file = NpzReader::new(File::open(path.with_extension("npz")).unwrap()).unwrap();
        Reference {
            name: name.to_owned(),
            path,
            file,
        }
    }

    fn doubles(&mut self, key: &str) -> Option<ArrayD<f64>> {
        let name = format!("{key}.npy");
        if !self
            .file
            .names()
            .unwrap()
            .iter()
            .any(|found| *found == name || found == key)
        {
            return None;
        }
        let doubles: Result<ArrayD<f64>, _> = self.file.by_name(&name);
        Some(doubles.unwrap_or_else(|_| {
            let singles: ArrayD<f32> = self.file.by_name(&name).unwrap();
            singles.mapv(f64::from)
        }))
    }

    fn samples(&mut self) -> ArrayD<f32> {
        self.file.by_name("x.npy").unwrap()
    }

    fn labels(&mut self) -> Vec<i64> {
        let labels: ndarray::Array<i64, Ix1> = self.file.by_name("labels.npy").unwrap();
        labels.to_vec()
    }
}

/// ‖found − expected‖ / ‖expected‖.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|value| value * value).sum::<f64>().sqrt()
    };
    let error = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    error / square(&mut expected.iter().copied()).max(1e-30)
}

/// Runs the gradient graph sample block by sample block, as its batch allows; outputs by name, joined.
fn run(
    model: &Model,
    loss: Loss,
    keep_softmax: bool,
    x: &ArrayD<f32>,
    labels: &[i64],
) -> Result<Vec<(String, Vec<f64>)>, mohs::model::Error> {
    let options = GradientOptions {
        loss,
        keep_softmax,
        ..GradientOptions::default()
    };
    let gradient = model.gradient(&options)?;
    Ok(outputs_of(&gradient, model, x, labels))
}

/// The outputs of a gradient graph by name, as [`run`] gives them.
fn outputs_of(
    gradient: &GradientGraph,
    model: &Model,
    x: &ArrayD<f32>,
    labels: &[i64],
) -> Vec<(String, Vec<f64>)> {
    let mut session =
        Session::from_bytes(&encode(&gradient.graph.to_model()), &single_thread()).unwrap();
    let size = match model.batch() {
        Batch::Dynamic => labels.len(),
        Batch::Fixed(size) => size,
    };
    let names: Vec<String> = session
        .outputs()
        .iter()
        .map(|port| port.name.clone())
        .collect();
    let mut joined: Vec<(String, Vec<f64>)> = names
        .iter()
        .map(|name| (name.clone(), Vec::new()))
        .collect();
    for (start, labels) in labels
        .chunks(size)
        .enumerate()
        .map(|(block, labels)| (block * size, labels))
    {
        let part = x
            .slice_axis(Axis(0), (start..start + labels.len()).into())
            .to_owned()
            .into_dyn();
        let x = Value::from_tensor(Tensor::F32(part)).unwrap();
        let labels =
            Value::from_tensor(Tensor::new(&[labels.len()], labels.to_vec()).unwrap()).unwrap();
        let outputs = session
            .run(&[(model.input(), &x), ("labels", &labels)])
            .unwrap();
        for ((_, all), output) in joined.iter_mut().zip(&outputs) {
            all.extend(output.to_tensor().unwrap().to_f64());
        }
    }
    joined
}

fn single_thread() -> SessionOptions {
    SessionOptions {
        threads: Some(1),
        ..SessionOptions::default()
    }
}

fn find<'a>(outputs: &'a [(String, Vec<f64>)], name: &str) -> &'a [f64] {
    &outputs
        .iter()
        .find(|(found, _)| found == name)
        .unwrap_or_else(|| panic!("no output {name}"))
        .1
}

#[test]
fn gradients_of_exported_classifiers_are_those_of_pytorch() {
    crate::runtime_ready();
    let mut wrong = Vec::new();
    for mut reference in Reference::all() {
        let model = match Model::open(
            &reference.path,
            &ModelOptions {
                session: single_thread(),
                ..ModelOptions::default()
            },
        ) {
            Ok(model) => model,
            Err(error) => {
                wrong.push(format!("{}: {error}", reference.name));
                continue;
            }
        };
        let (x, labels) = (reference.samples(), reference.labels());
        // Where a model ends in softmax there are references through it and from the logits below it.
        let heads: &[(&str, bool)] = match reference.doubles("grad_from_logits") {
            Some(_) => &[("", true), ("_from_logits", false)],
            None => &[("", false)],
        };
        for (head, keep_softmax) in heads {
            for (loss, kind) in [
                (Loss::CrossEntropy, ""),
                (Loss::Margin, "_margin"),
                (Loss::Dlr, "_dlr"),
            ] {
                let Some(expected) = reference.doubles(&format!("grad{kind}{head}")) else {
                    continue;
                };
                let outputs = match run(&model, loss, *keep_softmax, &x, &labels) {
                    Ok(outputs) => outputs,
                    Err(error) => {
                        wrong.push(format!("{}: {error}", reference.name));
                        continue;
                    }
                };
                let losses = reference.doubles(&format!("loss{kind}{head}")).unwrap();
                for (output, expected) in [("grad", expected), ("loss", losses)] {
                    let error = relative(find(&outputs, output), expected.as_slice().unwrap());
                    if error.is_nan() || error > TOLERANCE {
                        wrong.push(format!(
                            "{}: {output}{kind}{head} is off by {error:.1e}",
                            reference.name
                        ));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The search in float16, as it is written for NVIDIA GPUs: the same loss and direction up to its 11 bits, and no gradient that vanishes.
#[test]
fn gradients_in_half_precision_point_where_those_in_single_precision_do() {
    crate::runtime_ready();
    let (mut wrong, mut lowered) = (Vec::new(), 0);
    for mut reference in Reference::all() {
        let options = ModelOptions {
            session: single_thread(),
            ..ModelOptions::default()
        };
        let Ok(model) = Model::open(&reference.path, &options) else {
            continue;
        };
        let options = GradientOptions {
            scale_seed: true,
            ..GradientOptions::default()
        };
        let Ok(mut half) = model.gradient(&options) else {
            continue;
        };
        if model.input_dtype() != DType::F32 || lower_precision(&mut half.graph, DType::F16) == 0 {
            continue;
        }
        lowered += 1;
        let (x, labels) = (reference.samples(), reference.labels());
        let outputs = outputs_of(&half, &model, &x, &labels);
        let single = run(&model, Loss::CrossEntropy, false, &x, &labels).unwrap();
        let (found, expected) = (find(&outputs, "grad"), find(&single, "grad"));
        let width = found.len() / labels.len();
        for (sample, (found, expected)) in
            found.chunks(width).zip(expected.chunks(width)).enumerate()
        {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let size = (dot(found, found) * dot(expected, expected)).sqrt();
            let cosine = if size == 0.0 {
                1.0
            } else {
                dot(found, expected) / size
            };
            let vanished = dot(found, found) == 0.0 && dot(expected, expected) > 0.0;
            if cosine < 0.98 || vanished {
                wrong.push(format!(
                    "{} sample {sample}: cosine {cosine}",
                    reference.name
                ));
            }
        }
    }
    assert!(lowered > 100, "only {lowered} models have heavy operators");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
