//! The family `shape`: linear operators, so the identity holds at any step, to rounding.

use super::{Case, Input, N, array, assert_close, ints, varied};
use mohs::graph::Attribute;
use mohs::tensor::{DType, Tensor};

/// A linear operator: any step serves, and a large one has no rounding to speak of.
fn linear(op_type: &'static str, inputs: Vec<Input>) -> Case {
    Case {
        step: 0.5,
        tolerance: 1e-12,
        ..Case::new(op_type, inputs)
    }
}

/// A single number of 64 bits.
fn int(value: i64) -> Input {
    Input::Constant(Tensor::new(&[], vec![value]).unwrap())
}

#[test]
fn reshape_goes_back_from_any_target() {
    for (shape, target) in [
        (vec![2, 3, 4], vec![6, 4]),
        (vec![2, 3, 4], vec![-1]),
        (vec![2, 3, 4], vec![0, -1]),
        (vec![2, 3, 4], vec![4, 0, 2]),
        (vec![N, 3, 4], vec![-1, 12]),
        (vec![N, 3, 4], vec![0, 4, 3]),
        (vec![N, 3, 4], vec![0, 0, 2, 2]),
        // The batch and another axis become one.
        (vec![N, 3, 4], vec![-1, 4]),
        (vec![N, 3, 4], vec![-1]),
        (vec![N, 3, 4], vec![-1, 1, 6]),
    ] {
        linear("Reshape", vec![varied(&shape), ints(&target)]).check();
    }
    linear("Reshape", vec![varied(&[2, 0]), ints(&[0, 5])])
        .int("allowzero", 1)
        .check_is_empty();
}

impl Case {
    /// A case without elements: its cotangent has the operand's shape (which [`Case::gradients`] asserts).
    fn check_is_empty(&self) {
        let found = self.gradients(&[array(&[0, 5], &[])], 2);
        assert!(found.cotangents[0].is_empty());
    }
}

#[test]
fn flatten_goes_back_from_any_axis() {
    for axis in [-2, 0, 1, 2, 3] {
        linear("Flatten", vec![varied(&[2, 3, 4])])
            .int("axis", axis)
            .check();
        linear("Flatten", vec![varied(&[N, 3, 4])])
            .int("axis", axis)
            .check();
    }
    linear("Flatten", vec![varied(&[N, 3, 4])]).check();
}

#[test]
fn squeeze_and_unsqueeze_undo_each_other() {
    linear("Squeeze", vec![varied(&[N, 1, 3, 1]), ints(&[1, -1])]).check();
    linear("Squeeze", vec![varied(&[N, 1, 3, 1])]).check();
    linear("Squeeze", vec![varied(&[1, 3, 1]), ints(&[0])]).check();
    linear("Unsqueeze", vec![varied(&[N, 3]), ints(&[0, -1, 2])]).check();
    linear("Unsqueeze", vec![varied(&[]), ints(&[0])]).check();
}

#[test]
fn transpose_takes_the_inverse_order() {
    for order in [[0, 2, 3, 1], [3, 2, 1, 0], [1, 0, 2, 3], [2, 0, 3, 1]] {
        linear("Transpose", vec![varied(&[N, 3, 4, 5])])
            .ints("perm", &order)
            .check();
    }
    linear("Transpose", vec![varied(&[N, 3, 4])]).check();
    linear("Transpose", vec![varied(&[2, 3])]).check();
}

#[test]
fn identity_and_casts_between_floats_pass_the_cotangent_on() {
    linear("Identity", vec![varied(&[N, 3])]).check();
    // To the same type: the way through another one is checked against PyTorch, in the references `cast`.
    linear("Cast", vec![varied(&[N, 3])])
        .int("to", DType::F64.to_onnx().into())
        .check();
    let like = Input::Constant(Tensor::new(&[1], vec![0f64]).unwrap());
    linear("CastLike", vec![varied(&[N, 3]), like]).check();
}

#[test]
fn expand_and_tile_sum_over_the_copies() {
    linear("Expand", vec![varied(&[3, 1]), ints(&[2, 3, 4])]).check();
    linear("Expand", vec![varied(&[N, 1, 3]), ints(&[1, 4, 1])]).check();
    linear("Expand", vec![varied(&[N, 1, 3]), ints(&[5, 1, 1, 3])]).check();
    linear("Tile", vec![varied(&[2, 3]), ints(&[3, 2])]).check();
    linear("Tile", vec![varied(&[N, 3, 1]), ints(&[1, 2, 4])]).check();
    linear("Tile", vec![varied(&[N, 3]), ints(&[3, 1])]).check();
    linear("Tile", vec![varied(&[2, 3]), ints(&[1, 1])]).check();
}

#[test]
fn concat_gives_every_operand_its_piece() {
    for axis in [1, -2] {
        let operands = vec![varied(&[N, 2, 3]), varied(&[N, 1, 3]), varied(&[N, 4, 3])];
        linear("Concat", operands).int("axis", axis).check();
    }
    let constant = Input::Constant(Tensor::new(&[1, 2], vec![1.0, 2.0]).unwrap());
    linear("Concat", vec![constant.clone(), varied(&[3, 2]), constant])
        .int("axis", 0)
        .check();
    linear("Concat", vec![varied(&[2, 3])])
        .int("axis", 0)
        .check();
}

#[test]
fn concat_works_along_the_batch() {
    linear("Concat", vec![varied(&[N, 2]), varied(&[N, 2])])
        .int("axis", 0)
        .check();
    let constant = Input::Constant(Tensor::new(&[1, 2], vec![1.0, 2.0]).unwrap());
    linear("Concat", vec![constant.clone(), varied(&[N, 2])])
        .int("axis", 0)
        .check();
    linear("Concat", vec![varied(&[N, 2]), constant, varied(&[3, 2])])
        .int("axis", 0)
        .check();
}

#[test]
fn split_puts_the_parts_side_by_side() {
    linear("Split", vec![varied(&[N, 6])])
        .int("axis", 1)
        .int("num_outputs", 3)
        .outputs(3)
        .check();
    linear("Split", vec![varied(&[N, 7])])
        .int("axis", -1)
        .int("num_outputs", 3)
        .outputs(3)
        .check();
    linear("Split", vec![varied(&[7, 2]), ints(&[1, 4, 2])])
        .outputs(3)
        .check();
    linear("Split", vec![varied(&[N, 5, 2]), ints(&[2, 3])])
        .int("axis", 1)
        .outputs(2)
        .check();
    linear("Split", vec![varied(&[N, 4]), ints(&[2, 2])])
        .int("axis", 1)
        .outputs(2)
        .opset(13)
        .check();
}

/// A case of `Slice` on an axis or several.
fn slice(shape: &[usize], starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> Case {
    linear(
        "Slice",
        vec![
            varied(shape),
            ints(starts),
            ints(ends),
            ints(axes),
            ints(steps),
        ],
    )
}

#[test]
fn slice_goes_back_to_where_it_was_taken() {
    slice(&[N, 5, 6], &[1, 2], &[4, 6], &[1, 2], &[1, 1]).check();
    slice(&[N, 5, 6], &[-3], &[i64::from(i32::MAX)], &[1], &[1]).check();
    slice(&[N, 5, 6], &[-100], &[i64::MAX], &[-1], &[1]).check();
    slice(&[N, 5, 6], &[1], &[-1], &[-2], &[1]).check();
    slice(&[5, 6], &[0], &[2], &[0], &[1]).check();
    linear("Slice", vec![varied(&[5, 6]), ints(&[1, 2]), ints(&[3, 5])]).check();
    linear(
        "Slice",
        vec![varied(&[5, 6]), ints(&[1]), ints(&[3]), ints(&[1])],
    )
    .check();
}

#[test]
fn slice_takes_steps_of_any_size_and_sign() {
    for extent in [5, 6, 7] {
        for (start, end, step) in [
            (0, i64::MAX, 2),
            (1, i64::MAX, 2),
            (1, 4, 3),
            (-2, i64::MAX, 3),
            (-1, i64::MIN + 1, -1),
            (-1, i64::MIN + 1, -2),
            (i64::from(i32::MAX), i64::from(i32::MIN), -2),
            (-2, 0, -1),
            (4, 1, -2),
            (3, -100, -3),
            (0, 1, 5),
        ] {
            slice(&[N, extent, 2], &[start], &[end], &[1], &[step]).check();
        }
    }
    slice(
        &[6, 7],
        &[0, -1],
        &[i64::MAX, i64::MIN + 1],
        &[0, 1],
        &[2, -2],
    )
    .check();
}

#[test]
fn slice_of_the_whole_batch_is_supported_and_of_a_part_refused() {
    slice(&[N, 5], &[0], &[i64::MAX], &[0], &[1]).check();
    slice(&[N, 5], &[-1, 1], &[i64::MIN + 1, 3], &[0, 1], &[-1, 1]).check();
    slice(&[N, 5], &[1], &[i64::MAX], &[0], &[1]).check();
    slice(&[N, 5], &[0], &[-1], &[0], &[1]).check();
    let refusal = slice(&[N, 5], &[0], &[1], &[0], &[1]).refusal();
    assert!(refusal.contains("follows the batch"), "{refusal}");
}

#[test]
fn an_empty_slice_gives_zeros() {
    let case = slice(&[4, 2], &[3], &[1], &[0], &[1]);
    let found = case.gradients(&[array(&[0, 2], &[])], 2);
    assert_close(&found.cotangents[0], &[0.0; 8], 0.0);
}

#[test]
fn constant_padding_is_cut_off_and_its_value_gets_the_border() {
    linear("Pad", vec![varied(&[N, 3, 4]), ints(&[0, 1, 2, 0, 0, 3])]).check();
    linear("Pad", vec![varied(&[N, 3, 4]), ints(&[0, -1, 2, 0, 1, -2])]).check();
    linear(
        "Pad",
        vec![varied(&[3, 4]), ints(&[1, 0, 0, 2]), varied(&[])],
    )
    .check();
    linear(
        "Pad",
        vec![varied(&[N, 4]), ints(&[0, 2, 0, -1]), varied(&[1])],
    )
    .check();
    linear(
        "Pad",
        vec![varied(&[N, 4]), ints(&[1, 2, 2, 0]), Input::Absent],
    )
    .check();
    let axes = vec![
        varied(&[N, 3, 4]),
        ints(&[1, 0, 2, 1]),
        Input::Absent,
        ints(&[-1, 1]),
    ];
    linear("Pad", axes).check();
}

#[test]
fn borders_that_repeat_entries_are_folded_back() {
    for mode in ["reflect", "edge", "wrap"] {
        let opset = if mode == "wrap" { 19 } else { 18 };
        let pad = |inputs| linear("Pad", inputs).string("mode", mode).opset(opset);
        pad(vec![varied(&[N, 2, 4, 5]), ints(&[0, 0, 1, 2, 0, 0, 3, 4])]).check();
        pad(vec![varied(&[N, 4]), ints(&[0, 2, 0, 0])]).check();
        pad(vec![varied(&[3]), ints(&[0, 2])]).check();
    }
    linear("Pad", vec![varied(&[2, 3]), ints(&[0, 7, 0, 5])])
        .string("mode", "edge")
        .check();
}

#[test]
fn borders_of_the_batch_are_refused_where_they_repeat_samples() {
    let case = linear("Pad", vec![varied(&[N, 3]), ints(&[1, 0, 0, 0])]).string("mode", "edge");
    assert!(case.refusal().contains("follows the batch"));
}

#[test]
fn trilu_masks_the_cotangent() {
    for upper in [0, 1] {
        linear("Trilu", vec![varied(&[N, 3, 4])])
            .int("upper", upper)
            .check();
        linear("Trilu", vec![varied(&[4, 3]), int(1)])
            .int("upper", upper)
            .check();
        linear("Trilu", vec![varied(&[N, 3, 3]), int(-1)])
            .int("upper", upper)
            .check();
    }
}

#[test]
fn reverse_sequence_reverses_back() {
    let lengths = Input::Constant(Tensor::new(&[3], vec![4i64, 1, 2]).unwrap());
    linear("ReverseSequence", vec![varied(&[4, 3, 2]), lengths.clone()]).check();
    let across = linear("ReverseSequence", vec![varied(&[3, 4]), lengths]);
    across.int("batch_axis", 0).int("time_axis", 1).check();
}

#[test]
fn depth_and_space_go_back_in_either_order() {
    for mode in ["DCR", "CRD"] {
        let case = linear("DepthToSpace", vec![varied(&[N, 8, 2, 3])]).int("blocksize", 2);
        case.string("mode", mode).check();
        let case = linear("DepthToSpace", vec![varied(&[1, 9, 2, 1])]).int("blocksize", 3);
        case.string("mode", mode).check();
    }
    linear("DepthToSpace", vec![varied(&[N, 4, 2, 3])])
        .int("blocksize", 2)
        .check();
    linear("SpaceToDepth", vec![varied(&[N, 2, 4, 6])])
        .int("blocksize", 2)
        .check();
}

#[test]
fn a_result_that_nobody_uses_counts_as_zero() {
    // Only the second part of the split has a cotangent: the others are zeros in front of and behind it.
    let case = linear("Split", vec![varied(&[1, 5]), ints(&[2, 1, 2])])
        .with("axis", Attribute::Int(1))
        .outputs(3);
    let zero = array(&[1, 2], &[0.0; 2]);
    let found = case.gradients(&[zero.clone(), array(&[1, 1], &[7.0]), zero], 2);
    assert_close(&found.cotangents[0], &[0.0, 0.0, 7.0, 0.0, 0.0], 0.0);
}
