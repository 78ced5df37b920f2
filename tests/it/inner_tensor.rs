//! Perturbing an inner tensor: token ids in, an embedding attacked, with the exact radius known in closed form.

use mohs::attack::AttackPlan;
use mohs::data::{Dataset, Options, Source};
use mohs::evaluate::{Config, Keep, Observer, ObserverError, evaluate};
use mohs::graph::Attribute;
use mohs::model::{Model, ModelOptions};
use mohs::onnx::proto::{
    Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use mohs::onnx::{from_tensor, write};
use mohs::outcome::SampleOutcome;
use mohs::tensor::Tensor;
use mohs::threat::{Bounds, Norm};
use ndarray::{Array1, Array2, array};
use ndarray_npy::NpzWriter;
use std::fs::File;
use std::path::Path;

const LENGTH: usize = 4;
const WIDTH: usize = 3;

/// The embedding of each token.
fn table() -> Array2<f32> {
    array![
        [0.0, 0.0, 0.0],
        [0.9, -0.2, 0.1],
        [-0.4, 0.5, 0.3],
        [0.2, 0.8, -0.7],
        [1.0, 0.1, 0.6]
    ]
}

/// The difference of the two classes' weights.
const WEIGHTS: [f32; WIDTH] = [1.0, -2.0, 0.5];

fn tokens() -> Array2<i64> {
    array![
        [1, 4, 0, 0],
        [2, 3, 3, 0],
        [1, 1, 4, 4],
        [3, 2, 2, 2],
        [4, 1, 2, 1]
    ]
}

fn info(name: &str, element: i32, dims: &[Option<i64>]) -> ValueInfoProto {
    let dim = |extent: &Option<i64>| Dimension {
        value: Some(match extent {
            Some(extent) => DimensionValue::DimValue(*extent),
            None => DimensionValue::DimParam("batch".into()),
        }),
        denotation: None,
    };
    let shape = TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
    };
    let tensor = TensorType {
        elem_type: Some(element),
        shape: Some(shape),
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            value: Some(TypeValue::TensorType(tensor)),
            denotation: None,
        }),
        ..ValueInfoProto::default()
    }
}

fn node(
    op_type: &str,
    inputs: &[&str],
    output: &str,
    attributes: &[(&str, Attribute)],
) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.into()),
        name: Some(format!("make_{output}")),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        attribute: attributes
            .iter()
            .map(|(name, value)| value.to_proto(name))
            .collect(),
        ..NodeProto::default()
    }
}

/// Mean over the embeddings (of tokens other than 0, where `masked`), then one linear layer with two classes.
fn classifier(path: &Path, masked: bool) {
    let mut nodes = vec![node("Gather", &["table", "ids"], "embedded", &[])];
    let kept = if masked {
        nodes.push(node("Equal", &["ids", "padding"], "is_padding", &[]));
        nodes.push(node("Not", &["is_padding"], "is_token", &[]));
        nodes.push(node(
            "Cast",
            &["is_token"],
            "mask",
            &[("to", Attribute::Int(1))],
        ));
        nodes.push(node("Unsqueeze", &["mask", "last"], "mask_column", &[]));
        nodes.push(node("Mul", &["embedded", "mask_column"], "kept", &[]));
        "kept"
    } else {
        "embedded"
    };
    let keep = ("keepdims", Attribute::Int(0));
    nodes.push(node(
        "ReduceMean",
        &[kept],
        "mean",
        &[("axes", Attribute::Ints(vec![1])), keep],
    ));
    nodes.push(node("MatMul", &["mean", "weights"], "logits", &[]));
    let weights: Vec<f32> = WEIGHTS
        .iter()
        .flat_map(|&weight| [weight / 2.0, -weight / 2.0])
        .collect();
    let initializer = vec![
        from_tensor("table", &Tensor::F32(table().into_dyn())),
        from_tensor("weights", &Tensor::new(&[WIDTH, 2], weights).unwrap()),
        from_tensor("padding", &Tensor::new(&[], vec![0i64]).unwrap()),
        from_tensor("last", &Tensor::new(&[1], vec![-1i64]).unwrap()),
    ];
    let graph = GraphProto {
        name: Some("text".into()),
        node: nodes,
        initializer,
        input: vec![info("ids", 7, &[None, Some(LENGTH as i64)])],
        output: vec![info("logits", 1, &[None, Some(2)])],
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto {
        domain: None,
        version: Some(13),
    }];
    let model = ModelProto {
        ir_version: Some(8),
        opset_import,
        graph: Some(graph),
        ..ModelProto::default()
    };
    write(&model, path).unwrap();
}

/// The margin of each sample between its label and the other class, and the length of the margin's gradient.
fn radii(masked: bool) -> Vec<(u32, f64)> {
    let length = LENGTH as f64;
    let weights: Vec<f64> = WEIGHTS.iter().map(|&weight| weight.into()).collect();
    let norm = weights
        .iter()
        .map(|weight| weight * weight)
        .sum::<f64>()
        .sqrt();
    let row = |ids: ndarray::ArrayView1<'_, i64>| {
        let rows = ids.iter().map(|&id| table().row(id as usize).to_owned());
        let score: f64 = rows
            .map(|row| {
                row.iter()
                    .zip(&weights)
                    .map(|(&value, weight)| f64::from(value) * weight)
                    .sum::<f64>()
            })
            .sum::<f64>()
            / length;
        let counted = ids.iter().filter(|&&id| !masked || id != 0).count() as f64;
        (
            u32::from(score < 0.0),
            score.abs() / (norm * counted.sqrt() / length),
        )
    };
    tokens().outer_iter().map(row).collect()
}

#[derive(Default)]
struct Outcomes(Vec<SampleOutcome>);

impl Observer for Outcomes {
    fn outcome(&mut self, outcome: &SampleOutcome) -> Result<(), ObserverError> {
        self.0.push(outcome.clone());
        Ok(())
    }
}

fn check(masked: bool) {
    crate::runtime_ready();
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (
        folder.path().join("text.onnx"),
        folder.path().join("text.npz"),
    );
    classifier(&model, masked);
    let radii = radii(masked);
    let labels: Array1<i64> = radii.iter().map(|(label, _)| i64::from(*label)).collect();
    let mut file = NpzWriter::new(File::create(&data).unwrap());
    file.add_array("x", &tokens()).unwrap();
    file.add_array("y", &labels).unwrap();
    file.finish().unwrap();

    let options = ModelOptions {
        keep: vec!["embedded".into()],
        ..ModelOptions::default()
    };
    let model = Model::open(&model, &options)
        .unwrap()
        .perturbing("embedded")
        .unwrap();
    assert_eq!(
        (model.sample_shape(), model.data_shape()),
        (&[LENGTH, WIDTH][..], &[LENGTH][..])
    );
    let none = (f32::NEG_INFINITY, f32::INFINITY);
    let preparation = Options {
        bounds: none,
        input_shape: Some(model.data_shape().to_vec()),
        ..Options::default()
    };
    let data = Dataset::open(&Source::new(&data))
        .unwrap()
        .prepared(&preparation)
        .unwrap();
    let epsilons = vec![0.1, 0.3, 0.5, 0.8, 1.2, 2.0];
    let config = Config {
        attacks: AttackPlan::parse("fgm,pgd:steps=5,restarts=2").unwrap(),
        norm: Norm::L2,
        epsilons: epsilons.clone(),
        bounds: Bounds::NONE,
        keep: Keep::Any,
        seed: 0,
        batch_size: Some(3),
        keep_softmax: false,
    };
    let mut outcomes = Outcomes::default();
    evaluate(&model, &data, &config, None, &mut outcomes).unwrap();
    let fgm: Vec<_> = outcomes
        .0
        .iter()
        .filter(|outcome| outcome.attack == "fgm")
        .collect();
    assert_eq!(fgm.len(), epsilons.len() * radii.len());
    for outcome in fgm {
        let (label, radius) = radii[outcome.index as usize];
        assert_eq!(outcome.clean_prediction, label);
        assert_eq!(
            outcome.robust,
            outcome.epsilon < radius,
            "{outcome:?}, radius {radius}"
        );
    }
}

#[test]
fn an_embedding_is_broken_from_its_closed_form_radius_on() {
    check(false);
}

#[test]
fn data_that_the_rest_of_the_model_reads_too_are_carried_along() {
    check(true);
}

/// The embeddings in a row under a linear layer, plus what the first sample of the batch gets; declared for batches of one.
fn leaking_classifier(path: &Path) {
    let nodes = vec![
        node("Gather", &["table", "ids"], "embedded", &[]),
        node("Flatten", &["embedded"], "row", &[]),
        node("MatMul", &["row", "weights"], "scores", &[]),
        node("Gather", &["scores", "first"], "of_the_first", &[]),
        node("Add", &["scores", "of_the_first"], "logits", &[]),
    ];
    // No two places weigh alike, so that no two samples score alike.
    let weights: Vec<f32> = (0..2 * 8 * WIDTH).map(|index| index as f32 - 7.5).collect();
    let graph = GraphProto {
        name: Some("leaking".into()),
        node: nodes,
        initializer: vec![
            from_tensor("table", &Tensor::F32(table().into_dyn())),
            from_tensor("weights", &Tensor::new(&[8 * WIDTH, 2], weights).unwrap()),
            from_tensor("first", &Tensor::new(&[1], vec![0i64]).unwrap()),
        ],
        input: vec![info("ids", 7, &[Some(1), Some(8)])],
        output: vec![info("logits", 1, &[Some(1), Some(2)])],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(13),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    write(&model, path).unwrap();
}

#[test]
fn a_batch_of_token_ids_stays_pinned_where_samples_would_leak_into_each_other() {
    crate::runtime_ready();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leaking.onnx");
    leaking_classifier(&path);
    let options = ModelOptions {
        keep: vec!["embedded".into()],
        ..ModelOptions::default()
    };
    let model = Model::open(&path, &options).unwrap();
    assert_eq!(model.batch(), mohs::model::Batch::Fixed(1));
}

/// A model declared for batches of one: in a larger one, every sample would get the scores of the first.
#[test]
fn a_batch_stays_pinned_where_every_sample_gets_the_scores_of_the_first() {
    crate::runtime_ready();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("first.onnx");
    let nodes = vec![
        node("Gather", &["x", "first"], "of_the_first", &[]),
        node("Mul", &["x", "zero"], "nothing", &[]),
        node("Add", &["of_the_first", "nothing"], "logits", &[]),
    ];
    let graph = GraphProto {
        name: Some("first".into()),
        node: nodes,
        initializer: vec![
            from_tensor("first", &Tensor::new(&[1], vec![0i64]).unwrap()),
            from_tensor("zero", &Tensor::new(&[1], vec![0f32]).unwrap()),
        ],
        input: vec![info("x", 1, &[Some(1), Some(3)])],
        output: vec![info("logits", 1, &[Some(1), Some(3)])],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(13),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    write(&model, &path).unwrap();
    let model = Model::open(&path, &ModelOptions::default()).unwrap();
    assert_eq!(model.batch(), mohs::model::Batch::Fixed(1));
}
