//! Parts of attention that are operators of their own.

use super::{Case, Input, N, linear, varied};
use mohs::tensor::Tensor;

fn angles(shape: &[usize], shift: f32) -> Input {
    let count = shape.iter().product::<usize>();
    let values = (0..count)
        .map(|at| (at as f32 * 0.7 + shift).sin())
        .collect();
    Input::Constant(Tensor::new(shape, values).unwrap())
}

#[test]
fn rotary_embedding_whole_and_partial_with_and_without_positions() {
    let case = |inputs| linear(Case::new("RotaryEmbedding", inputs).opset(23).single());
    let positions = Input::Constant(Tensor::new(&[2, 3], vec![0i64, 1, 4, 2, 3, 4]).unwrap());
    for interleaved in [0, 1] {
        for (dimension, half) in [(0, 2), (2, 1)] {
            let caches = [angles(&[5, half], 0.0), angles(&[5, half], 1.5)];
            let inputs = [
                vec![varied(&[2, 2, 3, 4])],
                caches.to_vec(),
                vec![positions.clone()],
            ];
            case(inputs.concat())
                .int("interleaved", interleaved)
                .int("rotary_embedding_dim", dimension)
                .int("num_heads", 2)
                .check();
        }
        let caches = [angles(&[2, 3, 2], 0.0), angles(&[2, 3, 2], 1.5)];
        let inputs = [vec![varied(&[2, 3, 8])], caches.to_vec()].concat();
        case(inputs)
            .int("interleaved", interleaved)
            .int("num_heads", 2)
            .check();
    }
}

#[test]
fn tensor_scatter_into_a_cache() {
    let case = |inputs| linear(Case::new("TensorScatter", inputs).opset(24));
    let first = Input::Constant(Tensor::new(&[2], vec![1i64, 3]).unwrap());
    for mode in ["linear", "circular"] {
        let inputs = vec![varied(&[2, 2, 5, 3]), varied(&[2, 2, 2, 3]), first.clone()];
        case(inputs).string("mode", mode).check();
    }
    let wrapping = Input::Constant(Tensor::new(&[2], vec![4i64, 0]).unwrap());
    let inputs = vec![varied(&[2, 5, 3]), varied(&[2, 2, 3]), wrapping];
    case(inputs)
        .string("mode", "circular")
        .int("axis", 1)
        .check();
    case(vec![varied(&[N, 5, 3]), varied(&[N, 2, 3])]).check();
}
