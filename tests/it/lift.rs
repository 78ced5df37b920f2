//! Models of old opsets compute the same after they are lifted.

use super::gradcheck::{info, run};
use mohs::graph::{Graph, passes};
use mohs::onnx::proto::{
    AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, ValueInfoProto,
};
use mohs::onnx::{from_tensor, to_tensor};
use mohs::tensor::{DType, Tensor};
use ndarray::{ArrayD, IxDyn};

/// A model of an old opset, with the input `x` [2, 3, 4, 5].
struct Old {
    opset: i64,
    shape: Vec<usize>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    outputs: Vec<&'static str>,
}

/// One node, from `x` to `y`.
fn node(op_type: &str) -> NodeProto {
    joined(op_type, &["x"], &["y"])
}

pub(crate) fn joined(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        op_type: Some(op_type.into()),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

/// Attributes, each of which sets its own field.
pub(crate) trait With: Sized {
    fn with(self, name: &str, kind: AttributeType, set: impl FnOnce(&mut AttributeProto)) -> Self;

    fn int(self, name: &str, value: i64) -> Self {
        self.with(name, AttributeType::Int, |attribute| {
            attribute.i = Some(value)
        })
    }

    fn ints(self, name: &str, values: &[i64]) -> Self {
        self.with(name, AttributeType::Ints, |attribute| {
            attribute.ints = values.to_vec()
        })
    }

    fn float(self, name: &str, value: f32) -> Self {
        self.with(name, AttributeType::Float, |attribute| {
            attribute.f = Some(value)
        })
    }

    fn floats(self, name: &str, values: &[f32]) -> Self {
        self.with(name, AttributeType::Floats, |attribute| {
            attribute.floats = values.to_vec()
        })
    }

    fn string(self, name: &str, value: &'static str) -> Self {
        self.with(name, AttributeType::String, |attribute| {
            attribute.s = Some(value.into())
        })
    }

    fn graph(self, name: &str, graph: GraphProto) -> Self {
        self.with(name, AttributeType::Graph, |attribute| {
            attribute.g = Some(graph)
        })
    }
}

impl With for NodeProto {
    fn with(
        mut self,
        name: &str,
        kind: AttributeType,
        set: impl FnOnce(&mut AttributeProto),
    ) -> Self {
        let mut attribute = AttributeProto {
            name: Some(name.into()),
            r#type: Some(kind as i32),
            ..AttributeProto::default()
        };
        set(&mut attribute);
        self.attribute.push(attribute);
        self
    }
}

/// Numbers that look random and have no ties.
pub(crate) fn numbers(shape: &[usize]) -> Tensor {
    let mut seed = 0.37f32;
    let array = ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        seed = (seed * 997.0 + 0.123).fract();
        2.0 * seed - 0.9
    });
    array.into()
}

impl Old {
    fn new(opset: i64, nodes: Vec<NodeProto>) -> Self {
        Old {
            opset,
            shape: vec![2, 3, 4, 5],
            nodes,
            initializers: Vec::new(),
            outputs: vec!["y"],
        }
    }

    fn constant(mut self, name: &str, tensor: &Tensor) -> Self {
        self.initializers.push(from_tensor(name, tensor));
        self
    }

    fn list(self, name: &str, values: &[f32]) -> Self {
        self.constant(
            name,
            &Tensor::new(&[values.len()], values.to_vec()).unwrap(),
        )
    }

    fn outputs(self, outputs: &[&'static str]) -> Self {
        Old {
            outputs: outputs.to_vec(),
            ..self
        }
    }

    fn model(&self, declared: bool) -> ModelProto {
        let shape: Vec<Option<usize>> = self.shape.iter().copied().map(Some).collect();
        let mut x = info("x", DType::F32, &shape);
        if !declared {
            let value = x.r#type.as_mut().and_then(|r#type| r#type.value.as_mut());
            if let Some(mohs::onnx::proto::TypeValue::TensorType(tensor)) = value {
                tensor.shape = None;
            }
        }
        let output = |name: &&str| ValueInfoProto {
            name: Some((*name).into()),
            ..ValueInfoProto::default()
        };
        ModelProto {
            ir_version: Some(6),
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(self.opset),
            }],
            graph: Some(GraphProto {
                name: Some("old".into()),
                node: self.nodes.clone(),
                input: vec![x],
                output: self.outputs.iter().map(output).collect(),
                initializer: self.initializers.clone(),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    /// Compares the results before and after, bit by bit, with the shape of the input declared and not.
    fn check(&self) {
        for declared in [true, false] {
            self.compare(&self.model(declared));
        }
    }

    fn compare(&self, model: &ModelProto) -> ModelProto {
        super::runtime_ready();
        let mut graph = Graph::from_model(model.clone());
        passes::lift(&mut graph).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(graph.opset(), 18);
        let lifted = graph.to_model();
        let feeds = [("x".to_owned(), numbers(&self.shape))];
        let (before, after) = (run(model, &feeds), run(&lifted, &feeds));
        assert_eq!(before, after, "{:?}", self.nodes);
        lifted
    }
}

fn operators(model: &ModelProto) -> Vec<String> {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    nodes.map(|node| node.op_type.clone().unwrap()).collect()
}

#[test]
fn coerced_softmax_keeps_its_meaning_on_every_axis() {
    for op_type in ["Softmax", "LogSoftmax", "Hardmax"] {
        for axis in 0..4 {
            Old::new(7, vec![node(op_type).int("axis", axis)]).check();
        }
        Old::new(7, vec![node(op_type)]).check();
        Old::new(11, vec![node(op_type).int("axis", -2)]).check();
        Old::new(12, vec![node(op_type).int("axis", -1)]).check();
    }
}

#[test]
fn softmax_over_classes_stays_one_node() {
    let old = Old {
        shape: vec![2, 6],
        ..Old::new(
            9,
            vec![
                joined("Relu", &["x"], &["h"]),
                joined("Softmax", &["h"], &["y"]),
            ],
        )
    };
    assert_eq!(
        operators(&old.compare(&old.model(true))),
        ["Relu", "Softmax"]
    );
    let old = Old {
        shape: vec![2, 6, 1, 1],
        ..Old::new(9, vec![node("Softmax")])
    };
    assert_eq!(operators(&old.compare(&old.model(true))), ["Softmax"]);
}

#[test]
fn reductions_keep_their_axes() {
    for op_type in [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ] {
        for opset in [7, 11, 12] {
            Old::new(opset, vec![node(op_type)]).check();
            Old::new(
                opset,
                vec![node(op_type).ints("axes", &[1, 3]).int("keepdims", 0)],
            )
            .check();
        }
    }
    Old::new(17, vec![node("ReduceMean").ints("axes", &[-1, -2])]).check();
}

#[test]
fn axes_become_operands() {
    let there = joined("Unsqueeze", &["x"], &["h"]).ints("axes", &[0, 3]);
    let back = joined("Squeeze", &["h"], &["y"]).ints("axes", &[0]);
    Old::new(9, vec![there.clone(), back]).check();
    Old::new(9, vec![there, joined("Squeeze", &["h"], &["y"])]).check();
    let slice = node("Slice")
        .ints("starts", &[1, -3])
        .ints("ends", &[3, i64::from(i32::MAX)]);
    Old::new(9, vec![slice.clone().ints("axes", &[1, 2])]).check();
    Old::new(7, vec![slice]).check();
}

#[test]
fn bounds_and_borders_become_operands() {
    Old::new(7, vec![node("Clip").float("min", -0.5).float("max", 0.5)]).check();
    Old::new(7, vec![node("Clip").float("min", 0.0)]).check();
    Old::new(10, vec![node("Clip").float("max", 0.25)]).check();
    Old::new(7, vec![node("Clip")]).check();
    let pads = [0, 0, 1, 2, 0, 0, 2, -1];
    Old::new(7, vec![node("Pad").ints("pads", &pads).float("value", 1.5)]).check();
    Old::new(9, vec![node("Pad").ints("pads", &pads)]).check();
    let pads = [0, 0, 1, 2, 0, 0, 2, 1];
    for mode in ["reflect", "edge"] {
        Old::new(
            9,
            vec![node("Pad").ints("pads", &pads).string("mode", mode)],
        )
        .check();
    }
}

#[test]
fn constants_take_the_type_of_what_they_stand_beside() {
    let double = joined("Cast", &["x"], &["d"]).int("to", 11);
    let back = joined("Cast", &["p"], &["y"]).int("to", 1);
    let pad = |input: &str| {
        joined("Pad", &[input], &["p"])
            .ints("pads", &[0, 1, 0, 0, 0, 0, 0, 1])
            .float("value", 3.0)
    };
    let old = Old::new(9, vec![double.clone(), pad("d"), back.clone()]);
    assert_eq!(
        operators(&old.compare(&old.model(true))),
        ["Cast", "Pad", "Cast"]
    );
    // Nothing shows the type of what `Where` gives: the constant is cast when the model runs.
    let choice = joined("Where", &["c", "d", "d"], &["w"]);
    let old = Old::new(9, vec![double, choice, pad("w"), back]);
    old.constant("c", &Tensor::new(&[], vec![true]).unwrap())
        .check();
}

#[test]
fn split_says_how_many_parts_there_are() {
    for opset in [7, 11, 13, 17] {
        let split = joined("Split", &["x"], &["a", "y", "b"]).int("axis", 1);
        Old::new(opset, vec![split])
            .outputs(&["a", "y", "b"])
            .check();
    }
    let split = joined("Split", &["x"], &["a", "y"])
        .int("axis", -1)
        .ints("split", &[1, 4]);
    Old::new(11, vec![split]).outputs(&["a", "y"]).check();
    let split = joined("Split", &["x", "s"], &["a", "y"]).int("axis", 3);
    let old = Old::new(13, vec![split]).outputs(&["a", "y"]);
    old.constant("s", &Tensor::new(&[2], vec![1i64, 4]).unwrap())
        .check();
}

#[test]
fn upsample_becomes_resize() {
    for mode in ["nearest", "linear"] {
        let scales = [1.0, 1.0, 2.0, 1.6];
        Old::new(
            7,
            vec![
                node("Upsample")
                    .string("mode", mode)
                    .floats("scales", &scales),
            ],
        )
        .check();
        let upsample = joined("Upsample", &["x", "s"], &["y"]).string("mode", mode);
        Old::new(9, vec![upsample])
            .list("s", &[1.0, 1.0, 3.0, 2.0])
            .check();
    }
}

#[test]
fn resize_keeps_its_rounding_in_both_directions() {
    for scales in [
        [2.0, 2.0],
        [0.5, 0.5],
        [0.6, 0.9],
        [2.0, 0.6],
        [0.3, 1.7],
        [0.9, 0.75],
    ] {
        let scales = [1.0, 1.0, scales[0], scales[1]];
        for mode in ["nearest", "linear"] {
            let resize =
                |scales: &str| joined("Resize", &["x", scales], &["y"]).string("mode", mode);
            Old::new(10, vec![resize("s")]).list("s", &scales).check();
            // Scales that are computed.
            let old = Old::new(10, vec![joined("Identity", &["s"], &["t"]), resize("t")]);
            old.list("s", &scales).check();
        }
    }
}

#[test]
fn resize_leaves_out_operands_that_were_empty() {
    let resize = joined("Resize", &["x", "e", "e", "z"], &["y"]).string("mode", "cubic");
    let old = Old::new(11, vec![resize]).list("e", &[]);
    let old = old.constant("z", &Tensor::new(&[4], vec![2i64, 3, 7, 9]).unwrap());
    let lifted = old.compare(&old.model(true));
    assert_eq!(lifted.graph.unwrap().node[0].input, ["x", "", "", "z"]);
    let resize = joined("Resize", &["x", "e", "s"], &["y"]).string("mode", "linear");
    Old::new(12, vec![resize])
        .list("e", &[])
        .list("s", &[1.0, 1.0, 2.0, 1.5])
        .check();
}

#[test]
fn normalisation_keeps_its_statistics() {
    let operands = ["x", "s", "b", "m", "v"];
    let with = |old: Old, shape: &[usize]| {
        let tensor = numbers(shape);
        let old = ["s", "b", "m"]
            .iter()
            .fold(old, |old, name| old.constant(name, &tensor));
        let variance = tensor
            .to_f64()
            .iter()
            .map(|value| value.abs() as f32 + 0.1)
            .collect();
        old.constant("v", &Tensor::new::<f32>(shape, variance).unwrap())
    };
    for opset in [7, 9] {
        let node = joined("BatchNormalization", &operands, &["y"]).float("epsilon", 1e-3);
        with(Old::new(opset, vec![node]), &[3]).check();
    }
    let training = joined(
        "BatchNormalization",
        &operands,
        &["y", "rm", "rv", "sm", "sv"],
    );
    with(Old::new(9, vec![training]), &[3]).check();
}

#[test]
fn normalisation_of_each_position_is_written_out() {
    let operands = ["x", "s", "s", "s", "s"];
    let node = joined("BatchNormalization", &operands, &["y"]).int("spatial", 0);
    let statistics = Tensor::new(&[3, 4, 5], vec![0.5f32; 60]).unwrap();
    let old = Old::new(7, vec![node]).constant("s", &statistics);
    let model = old.model(true);
    let mut graph = Graph::from_model(model.clone());
    passes::lift(&mut graph).unwrap();
    super::runtime_ready();
    let feeds = [("x".to_owned(), numbers(&old.shape))];
    let (before, after) = (run(&model, &feeds), run(&graph.to_model(), &feeds));
    for (before, after) in before[0].1.to_f64().iter().zip(after[0].1.to_f64()) {
        assert!((before - after).abs() < 1e-6);
    }
}

#[test]
fn the_remaining_operators_keep_their_meaning() {
    for opset in [7, 10] {
        Old::new(opset, vec![node("Dropout").float("ratio", 0.3)]).check();
        Old::new(opset, vec![joined("Dropout", &["x"], &["y", "unused"])]).check();
    }
    let top = joined("TopK", &["x"], &["y", "i"])
        .int("axis", 1)
        .int("k", 2);
    Old::new(9, vec![top]).outputs(&["y", "i"]).check();
    let scatter = joined("Scatter", &["x", "i", "u"], &["y"]).int("axis", 1);
    let old = Old::new(9, vec![scatter])
        .constant("u", &Tensor::new(&[1, 1, 1, 2], vec![5f32, 6.0]).unwrap());
    old.constant("i", &Tensor::new(&[1, 1, 1, 2], vec![2i64, 0]).unwrap())
        .check();
    let roi = joined("RoiAlign", &["x", "r", "b"], &["y"])
        .int("output_height", 2)
        .int("output_width", 2);
    let old = Old::new(10, vec![roi]).constant("b", &Tensor::new(&[1], vec![1i64]).unwrap());
    old.constant(
        "r",
        &Tensor::new(&[1, 4], vec![0f32, 0.5, 3.0, 3.0]).unwrap(),
    )
    .check();
    Old::new(
        8,
        vec![
            node("ImageScaler")
                .float("scale", 0.5)
                .floats("bias", &[1.0, 2.0, 3.0]),
        ],
    )
    .check();
    Old::new(
        8,
        vec![node("Affine").float("alpha", 0.5).float("beta", 2.0)],
    )
    .check();
}

#[test]
fn constants_of_every_form_become_initializers() {
    let constant = |name| joined("Constant", &[], &[name]);
    let old = Old::new(
        12,
        vec![
            constant("a").floats("value_floats", &[1.0, 2.0, 3.0, 4.0, 5.0]),
            constant("b").float("value_float", 2.0),
            constant("c").ints("value_ints", &[6, -1]),
            constant("d").int("value_int", 1),
            joined("Mul", &["x", "a"], &["p"]),
            joined("Add", &["p", "b"], &["q"]),
            joined("Reshape", &["q", "c"], &["r"]),
            joined("Gather", &["r", "d"], &["y"]).int("axis", 1),
        ],
    );
    let lifted = old.compare(&old.model(true));
    assert_eq!(operators(&lifted), ["Mul", "Add", "Reshape", "Gather"]);
}

#[test]
fn branches_are_lifted_too() {
    let branch = |nodes: Vec<NodeProto>, output: &str| GraphProto {
        name: Some(output.into()),
        node: nodes,
        output: vec![ValueInfoProto {
            name: Some(output.into()),
            ..ValueInfoProto::default()
        }],
        ..GraphProto::default()
    };
    let then = vec![
        joined("Clip", &["x"], &["h"]).float("min", 0.0),
        joined("Softmax", &["h"], &["s"]).int("axis", 1),
    ];
    let other = vec![joined("ReduceSum", &["x"], &["t"]).ints("axes", &[2])];
    let choose = |value: bool| {
        let node = joined("If", &["c"], &["y"]).graph("then_branch", branch(then.clone(), "s"));
        let node = node.graph("else_branch", branch(other.clone(), "t"));
        Old::new(9, vec![node]).constant("c", &Tensor::new(&[], vec![value]).unwrap())
    };
    for value in [true, false] {
        let old = choose(value);
        let lifted = old.compare(&old.model(false));
        let branch = lifted.graph.unwrap().node[0].attribute[0]
            .g
            .clone()
            .unwrap();
        assert!(
            !branch.initializer.is_empty(),
            "the bound is inside the branch"
        );
        assert!(
            branch
                .initializer
                .iter()
                .all(|tensor| to_tensor(tensor).is_ok())
        );
    }
}
