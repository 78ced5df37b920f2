//! Tiny models and data, made where they are needed.

use super::Sandbox;
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use mohs::onnx::{encode, from_tensor};
use mohs::tensor::{DType, Tensor};
use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::{NpzWriter, WritableElement};
use std::fs::File;

/// The batch axis in a declared shape.
pub(crate) const N: Option<usize> = None;

/// A model at opset 17.
pub(crate) struct Tiny {
    pub inputs: Vec<ValueInfoProto>,
    pub outputs: Vec<ValueInfoProto>,
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<TensorProto>,
    pub domains: Vec<&'static str>,
}

impl Tiny {
    /// `logits` = x · weights + bias for `x` [N, 4] and three classes.
    pub(crate) fn linear() -> Self {
        Tiny {
            inputs: vec![info("x", DType::F32, &[N, Some(4)])],
            outputs: vec![info("logits", DType::F32, &[N, Some(3)])],
            nodes: vec![joined("Gemm", &["x", "weights", "bias"], &["logits"])],
            initializers: vec![
                constant(
                    "weights",
                    &[4, 3],
                    &[
                        2.0, -1.0, -1.0, -1.0, 2.0, -1.0, -1.0, -1.0, 2.0, 0.5, 0.25, -0.5,
                    ],
                ),
                constant("bias", &[3], &[0.0, 0.1, -0.1]),
            ],
            domains: Vec::new(),
        }
    }

    /// The linear model with `nodes` between its input and its matrix product, from `x` to `inner`.
    pub(crate) fn behind(nodes: Vec<NodeProto>) -> Self {
        let mut tiny = Tiny::linear();
        tiny.nodes[0].input[0] = "inner".into();
        tiny.nodes.splice(0..0, nodes);
        tiny
    }

    /// The linear model behind a staircase that leans the wrong way: the gradient of what it gives leads astray.
    pub(crate) fn stairs() -> Self {
        let mut stairs = Tiny::behind(vec![
            joined("Mul", &["x", "many"], &["large"]),
            joined("Round", &["large"], &["steps"]),
            joined("Div", &["steps", "many"], &["even"]),
            joined("Mul", &["x", "lean"], &["slope"]),
            joined("Add", &["even", "slope"], &["inner"]),
        ]);
        stairs.initializers.extend([
            constant("many", &[], &[20.0]),
            constant("lean", &[], &[-1e-4]),
        ]);
        stairs
    }

    /// The linear model with `nodes` behind its matrix product, from `scores` to `logits`.
    pub(crate) fn before(nodes: Vec<NodeProto>) -> Self {
        let mut tiny = Tiny::linear();
        tiny.nodes[0].output[0] = "scores".into();
        tiny.nodes.extend(nodes);
        tiny
    }

    pub(crate) fn model(&self) -> ModelProto {
        let opset = |domain: Option<&str>, version| OperatorSetIdProto {
            domain: domain.map(str::to_owned),
            version: Some(version),
        };
        let mut opset_import = vec![opset(None, 17)];
        opset_import.extend(self.domains.iter().map(|domain| opset(Some(domain), 1)));
        ModelProto {
            ir_version: Some(8),
            opset_import,
            graph: Some(GraphProto {
                name: Some("tiny".into()),
                node: self.nodes.clone(),
                input: self.inputs.clone(),
                output: self.outputs.clone(),
                initializer: self.initializers.clone(),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    /// Writes the model into a sandbox.
    pub(crate) fn write(&self, sandbox: &Sandbox, name: &str) {
        std::fs::write(sandbox.path(name), encode(&self.model())).unwrap();
    }
}

pub(crate) fn constant(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    from_tensor(name, &Tensor::new(shape, values.to_vec()).unwrap())
}

/// A node with a name.
pub(crate) fn named(name: &str, mut node: NodeProto) -> NodeProto {
    node.name = Some(name.into());
    node
}

/// Six samples of the linear model, two of each class, all of them classified rightly.
pub(crate) fn samples() -> (Array2<f32>, Array1<i64>) {
    let x = ndarray::array![
        [0.9, 0.2, 0.1, 0.5],
        [0.6, 0.3, 0.2, 0.1],
        [0.2, 0.8, 0.1, 0.4],
        [0.3, 0.7, 0.4, 0.9],
        [0.1, 0.2, 0.9, 0.3],
        [0.2, 0.1, 0.6, 0.0]
    ];
    (x, ndarray::array![0, 0, 1, 1, 2, 2])
}

/// Writes `x` and `y` into an .npz file.
pub(crate) fn npz<T: WritableElement>(
    sandbox: &Sandbox,
    name: &str,
    x: &ArrayD<T>,
    y: &Array1<i64>,
) {
    let mut file = NpzWriter::new(File::create(sandbox.path(name)).unwrap());
    file.add_array("x", x).unwrap();
    file.add_array("y", y).unwrap();
    file.finish().unwrap();
}

/// A sandbox with the linear model in `model.onnx` and its samples in `data.npz`.
pub(crate) fn ready() -> Sandbox {
    let sandbox = Sandbox::new();
    Tiny::linear().write(&sandbox, "model.onnx");
    let (x, y) = samples();
    npz(&sandbox, "data.npz", &x.into_dyn(), &y);
    sandbox
}

/// The arguments of an evaluation, with further ones behind.
pub(crate) fn evaluate<'a>(model: &'a str, data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "evaluate",
        model,
        "--data",
        data,
        "--attack",
        "pgd:steps=3",
        "--out",
        "report",
    ];
    if !more.contains(&"--epsilon") {
        arguments.extend(["--epsilon", "0.1"]);
    }
    arguments.extend(more);
    arguments
}
