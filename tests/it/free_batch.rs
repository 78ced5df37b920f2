//! Models with a pinned batch give the same for each sample after the batch was made dynamic.

use super::gradcheck::{info, run};
use super::lift::{With, joined, numbers};
use mohs::graph::passes::{Freed, free_batch};
use mohs::graph::{Graph, ValueId};
use mohs::model::trace::trace;
use mohs::onnx::from_tensor;
use mohs::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use mohs::runtime::{SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use ndarray::{Axis, concatenate};

/// A model with the input `x`, whose batch is pinned to the first extent of its shape, and the output `y`.
struct Pinned {
    opset: i64,
    ir_version: i64,
    shape: Vec<usize>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Pinned {
    fn new(shape: &[usize], nodes: Vec<NodeProto>) -> Self {
        Pinned {
            opset: 13,
            ir_version: 7,
            shape: shape.to_vec(),
            nodes,
            initializers: Vec::new(),
        }
    }

    fn list(mut self, name: &str, values: &[i64]) -> Self {
        let tensor = Tensor::new(&[values.len()], values.to_vec()).unwrap();
        self.initializers.push(from_tensor(name, &tensor));
        self
    }

    fn weight(mut self, name: &str, shape: &[usize]) -> Self {
        self.initializers.push(from_tensor(name, &numbers(shape)));
        self
    }

    fn model(&self) -> ModelProto {
        let shape: Vec<Option<usize>> = self.shape.iter().copied().map(Some).collect();
        let mut input = vec![info("x", DType::F32, &shape)];
        if self.ir_version < 4 {
            input.extend(self.initializers.iter().map(|tensor| {
                let shape: Vec<Option<usize>> = tensor
                    .dims
                    .iter()
                    .map(|&extent| Some(extent as usize))
                    .collect();
                let dtype = DType::from_onnx(tensor.data_type.unwrap()).unwrap();
                info(tensor.name.as_deref().unwrap(), dtype, &shape)
            }));
        }
        ModelProto {
            ir_version: Some(self.ir_version),
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(self.opset),
            }],
            graph: Some(GraphProto {
                name: Some("pinned".into()),
                node: self.nodes.clone(),
                input,
                output: vec![ValueInfoProto {
                    name: Some("y".into()),
                    ..ValueInfoProto::default()
                }],
                initializer: self.initializers.clone(),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    /// Frees the batch, with the shapes known or not.
    fn free(&self, traced: bool) -> (ModelProto, Freed) {
        super::runtime_ready();
        let mut graph = Graph::from_model(self.model());
        if traced {
            let feed = |_| {
                let value = Value::from_tensor(numbers(&self.shape)).unwrap();
                Ok(vec![("x".to_owned(), value)])
            };
            trace(
                &mut graph,
                &feed,
                &[self.shape[0]],
                &SessionOptions::default(),
            )
            .unwrap();
        }
        let inputs: Vec<ValueId> = vec![graph.find("x").unwrap()];
        let freed = free_batch(&mut graph, &inputs).unwrap();
        (graph.to_model(), freed)
    }

    /// Compares a batch of three pinned ones with the three of them one by one.
    fn check(&self, traced: bool) -> Freed {
        let (model, freed) = self.free(traced);
        let mut shape = self.shape.clone();
        shape[0] *= 3;
        let all = numbers(&shape);
        let all = all.view::<f32>().unwrap();
        let feed = |array: ndarray::ArrayViewD<'_, f32>| {
            let tensor: Tensor = array.to_owned().into();
            vec![("x".to_owned(), tensor)]
        };
        let single = |start: usize| {
            let part = all.slice_axis(Axis(0), (start..start + self.shape[0]).into());
            run(&self.model(), &feed(part)).remove(0).1
        };
        let singles: Vec<Tensor> = (0..3).map(|part| single(part * self.shape[0])).collect();
        let views: Vec<_> = singles
            .iter()
            .map(|part| part.view::<f32>().unwrap())
            .collect();
        let expected = concatenate(Axis(0), &views).unwrap();
        let found = run(&model, &feed(all.view())).remove(0).1;
        assert_eq!(found.shape(), expected.shape(), "{:?}", self.nodes);
        for (found, expected) in found.to_f64().iter().zip(expected) {
            assert!(
                (found - f64::from(expected)).abs() < 1e-5,
                "{:?}",
                self.nodes
            );
        }
        freed
    }
}

#[test]
fn a_target_that_begins_with_the_batch_is_freed() {
    for target in [vec![1, 12], vec![1, -1], vec![1, 2, 6], vec![1, 2, -1]] {
        let reshape = || vec![joined("Reshape", &["x", "t"], &["y"])];
        for traced in [true, false] {
            let freed = Pinned::new(&[1, 3, 4], reshape())
                .list("t", &target)
                .check(traced);
            assert_eq!(freed.nodes, ["y"]);
            assert_eq!(freed.inputs, ["x"]);
        }
        // Two samples at a time, as an exporter with an example batch of two pins them.
        let mut target = target;
        target[0] = 2;
        Pinned::new(&[2, 3, 4], reshape())
            .list("t", &target)
            .check(true);
    }
}

#[test]
fn targets_are_found_in_files_of_every_age() {
    let target = joined("Constant", &[], &["t"]).ints("value_ints", &[1, 12]);
    let reshape = joined("Reshape", &["x", "t"], &["y"]);
    Pinned::new(&[1, 3, 4], vec![target, reshape.clone()]).check(false);
    let old = Pinned {
        opset: 8,
        ir_version: 3,
        ..Pinned::new(&[1, 3, 4], vec![reshape])
    };
    old.list("t", &[1, 12]).check(false);
}

#[test]
fn targets_that_fit_any_batch_are_kept() {
    for target in [vec![-1, 12], vec![0, 12], vec![0, -1], vec![-1, 2, 6]] {
        let reshape = vec![joined("Reshape", &["x", "t"], &["y"])];
        let freed = Pinned::new(&[1, 3, 4], reshape)
            .list("t", &target)
            .check(true);
        assert!(freed.nodes.is_empty());
    }
}

#[test]
fn the_shapes_of_weights_are_kept() {
    let nodes = vec![
        joined("Reshape", &["w", "t"], &["v"]),
        joined("Mul", &["x", "v"], &["y"]),
    ];
    let pinned = Pinned::new(&[1, 3, 4], nodes)
        .weight("w", &[12])
        .list("t", &[1, 3, 4]);
    assert!(pinned.check(true).nodes.is_empty());
}

/// Attention with the heads folded into the batch, as PyTorch exports it with an example batch of one.
#[test]
fn heads_that_were_folded_into_the_batch_are_found() {
    let nodes = vec![
        joined("Reshape", &["x", "split"], &["h"]),
        joined("Transpose", &["h"], &["p"]).ints("perm", &[0, 2, 1, 3]),
        joined("Reshape", &["p", "fold"], &["q"]),
        joined("Transpose", &["q"], &["r"]).ints("perm", &[0, 2, 1]),
        joined("MatMul", &["q", "r"], &["s"]),
        joined("MatMul", &["s", "q"], &["o"]),
        joined("Reshape", &["o", "unfold"], &["u"]),
        joined("Transpose", &["u"], &["v"]).ints("perm", &[0, 2, 1, 3]),
        joined("Reshape", &["v", "flat"], &["y"]),
    ];
    let pinned = Pinned::new(&[1, 5, 6], nodes)
        .list("split", &[1, 5, 2, 3])
        .list("fold", &[2, 5, 3])
        .list("unfold", &[1, 2, 5, 3])
        .list("flat", &[1, 5, 6]);
    assert_eq!(pinned.check(true).nodes, ["h", "q", "u", "y"]);
}

/// The same with the sequence first, where the batch is the second axis.
#[test]
fn a_batch_on_the_second_axis_is_found() {
    let nodes = vec![
        joined("Transpose", &["x"], &["t"]).ints("perm", &[1, 0, 2]),
        joined("Reshape", &["t", "fold"], &["q"]),
        joined("Transpose", &["q"], &["r"]).ints("perm", &[1, 0, 2]),
        joined("Softmax", &["r"], &["s"]).int("axis", -1),
        joined("Transpose", &["s"], &["u"]).ints("perm", &[1, 0, 2]),
        joined("Reshape", &["u", "unfold"], &["v"]),
        joined("Transpose", &["v"], &["y"]).ints("perm", &[1, 0, 2]),
    ];
    let pinned = Pinned::new(&[1, 5, 6], nodes)
        .list("fold", &[5, 2, 3])
        .list("unfold", &[5, 1, 6]);
    assert_eq!(pinned.check(true).nodes, ["q", "v"]);
}

#[test]
fn a_class_token_is_repeated_for_each_sample() {
    let nodes = vec![joined("Concat", &["token", "x"], &["y"]).int("axis", 1)];
    for traced in [true, false] {
        let freed = Pinned::new(&[1, 3, 4], nodes.clone())
            .weight("token", &[1, 1, 4])
            .check(traced);
        assert_eq!(freed.nodes, ["y"]);
    }
}

#[test]
fn initial_states_are_repeated_for_each_sample() {
    let nodes = vec![
        joined("Transpose", &["x"], &["t"]).ints("perm", &[1, 0, 2]),
        joined("LSTM", &["t", "w", "r", "", "", "h", "h"], &["s"]).int("hidden_size", 2),
        joined("Squeeze", &["s", "one"], &["u"]),
        joined("Transpose", &["u"], &["y"]).ints("perm", &[1, 0, 2]),
    ];
    let pinned = Pinned::new(&[1, 5, 3], nodes)
        .weight("w", &[1, 8, 3])
        .weight("r", &[1, 8, 2]);
    pinned.weight("h", &[1, 1, 2]).list("one", &[1]).check(true);
}

#[test]
fn sizes_of_images_leave_the_batch_alone() {
    let nodes = vec![joined("Resize", &["x", "", "", "sizes"], &["y"]).string("mode", "linear")];
    for traced in [true, false] {
        let freed = Pinned::new(&[1, 2, 3, 4], nodes.clone())
            .list("sizes", &[1, 2, 6, 5])
            .check(traced);
        assert_eq!(freed.nodes, ["y"]);
    }
}

#[test]
fn axes_that_move_the_batch_are_followed() {
    let nodes = vec![
        joined("Unsqueeze", &["x", "front"], &["a"]),
        joined("ReduceMax", &["a"], &["b"])
            .ints("axes", &[3])
            .int("keepdims", 0),
        joined("Reshape", &["b", "t"], &["c"]),
        joined("Gather", &["c", "i"], &["d"]).int("axis", 0),
        joined("Einsum", &["d", "w"], &["e"]).string("equation", "ntk,kc->ntc"),
        joined("Reshape", &["e", "f"], &["y"]),
    ];
    let mut pinned = Pinned::new(&[1, 6, 4], nodes)
        .list("front", &[0])
        .list("t", &[1, 1, 2, 3])
        .list("f", &[1, 4])
        .weight("w", &[3, 2]);
    let zero = Tensor::new(&[], vec![0i64]).unwrap();
    pinned.initializers.push(from_tensor("i", &zero));
    // The first of two axes with extent 1 cannot be told from the second: here the target means the second one.
    pinned.nodes[2] = joined("Squeeze", &["b", "front"], &["c0"]);
    pinned
        .nodes
        .insert(3, joined("Reshape", &["c0", "t3"], &["c1"]));
    pinned
        .nodes
        .insert(4, joined("Unsqueeze", &["c1", "front"], &["c"]));
    pinned.list("t3", &[1, 2, 3]).check(true);
}

/// Positions and samples merged in front of a matrix product, as PyTorch's attention does with the sequence first.
#[test]
fn a_batch_that_was_merged_behind_another_axis_is_found() {
    let nodes = vec![
        joined("Transpose", &["x"], &["t"]).ints("perm", &[1, 0, 2]),
        joined("Reshape", &["t", "merge"], &["m"]),
        joined("Gemm", &["m", "w"], &["g"]),
        joined("Reshape", &["g", "apart"], &["a"]),
        joined("Transpose", &["a"], &["y"]).ints("perm", &[1, 0, 2]),
    ];
    let pinned = Pinned::new(&[1, 5, 6], nodes)
        .list("merge", &[5, 6])
        .list("apart", &[5, 1, 3])
        .weight("w", &[6, 3]);
    assert_eq!(pinned.check(true).nodes, ["m", "a"]);
}
