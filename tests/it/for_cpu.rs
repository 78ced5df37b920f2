//! The forms that are faster on a CPU compute the same.

use super::gradcheck::{info, run};
use super::lift::{With, joined, numbers};
use mohs::graph::{Dim, Fact, Graph, passes};
use mohs::onnx::from_tensor;
use mohs::onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use mohs::tensor::{DType, Tensor};

/// A graph of one node from `x` to `y`, with weights `w`.
fn graph(node: NodeProto, opset: i64, x: &[usize], w: &Tensor, y: &[usize]) -> Graph {
    let shape: Vec<Option<usize>> = x.iter().copied().map(Some).collect();
    let mut graph = Graph::from_model(ModelProto {
        ir_version: Some(9),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(opset),
        }],
        graph: Some(GraphProto {
            name: Some("one".into()),
            node: vec![node],
            input: vec![info("x", DType::F32, &shape)],
            initializer: vec![from_tensor("w", w)],
            output: vec![ValueInfoProto {
                name: Some("y".into()),
                ..ValueInfoProto::default()
            }],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    });
    for (name, shape) in [("x", x), ("y", y)] {
        let id = graph.find(name).unwrap();
        let shape = shape.iter().map(|&extent| Dim::fixed(extent as i64));
        graph.value_mut(id).fact = Some(Fact::new(DType::F32, shape.collect()));
    }
    graph
}

fn output(graph: &Graph, x: &Tensor) -> Vec<f32> {
    crate::runtime_ready();
    let found = run(&graph.to_model(), &[("x".to_owned(), x.clone())]);
    found[0].1.as_slice::<f32>().unwrap().to_vec()
}

/// A transposed convolution: channels, kernel, stride, pads and rows left over.
#[derive(Debug, Clone, Copy)]
struct Case {
    from: usize,
    to: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    left: usize,
}

impl Case {
    fn graph(self, opset: i64) -> (Graph, Tensor) {
        let Case {
            from,
            to,
            kernel,
            stride,
            pad,
            left,
        } = self;
        let places = [5, 7];
        let extent = |places: usize| (places - 1) * stride + kernel + left - 2 * pad;
        let (k, s, p, l) = (kernel as i64, stride as i64, pad as i64, left as i64);
        let node = joined("ConvTranspose", &["x", "w"], &["y"])
            .ints("kernel_shape", &[k, k])
            .ints("strides", &[s, s])
            .ints("pads", &[p, p, p, p])
            .ints("output_padding", &[l, l]);
        let x = [3, from, places[0], places[1]];
        let y = [3, to, extent(places[0]), extent(places[1])];
        let weights = numbers(&[from, to, kernel, kernel]);
        (graph(node, opset, &x, &weights, &y), numbers(&x))
    }
}

const CASE: Case = Case {
    from: 16,
    to: 4,
    kernel: 4,
    stride: 2,
    pad: 0,
    left: 0,
};

#[test]
fn a_transposed_convolution_becomes_a_convolution_with_the_same_result() {
    for case in [
        CASE,
        Case { pad: 1, ..CASE },
        Case {
            pad: 1,
            left: 1,
            ..CASE
        },
        Case { pad: 3, ..CASE },
        Case {
            kernel: 6,
            left: 1,
            ..CASE
        },
        Case {
            kernel: 8,
            stride: 4,
            to: 1,
            pad: 2,
            left: 3,
            ..CASE
        },
        Case {
            from: 32,
            to: 8,
            ..CASE
        },
    ] {
        let (mut graph, x) = case.graph(18);
        let before = output(&graph, &x);
        assert_eq!(passes::for_cpu(&mut graph), 1, "{case:?}");
        assert!(graph.nodes.iter().all(|node| !node.is("ConvTranspose")));
        let after = output(&graph, &x);
        assert_eq!(before.len(), after.len(), "{case:?}");
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() < 1e-4, "{a} and {b}: {case:?}");
        }
    }
}

#[test]
fn others_stay_as_they_are() {
    for (case, opset) in [
        (Case { kernel: 3, ..CASE }, 18),
        (Case { kernel: 2, ..CASE }, 18),
        (Case { from: 12, ..CASE }, 18),
        (Case { to: 3, ..CASE }, 18),
        (CASE, 17),
    ] {
        let (mut graph, _) = case.graph(opset);
        let before = graph.clone();
        assert_eq!(passes::for_cpu(&mut graph), 0, "{case:?}");
        assert_eq!(graph, before);
    }
}

#[test]
fn the_sign_is_that_of_the_smallest_number_too() {
    let least = f32::from_bits(1);
    let x = [
        0.0,
        -0.0,
        least,
        -least,
        1e-30,
        -3.5,
        7e37,
        f32::MIN,
        f32::INFINITY,
    ];
    let x = Tensor::new(&[x.len()], x.to_vec()).unwrap();
    let w = Tensor::new(&[1], vec![0.0_f32]).unwrap();
    let mut graph = graph(joined("Sign", &["x"], &["y"]), 18, x.shape(), &w, x.shape());
    let before = output(&graph, &x);
    assert_eq!(passes::for_cpu(&mut graph), 1);
    assert_eq!(output(&graph, &x), before);
    assert_eq!(before, [0.0, 0.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0]);
}
