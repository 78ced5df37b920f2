//! Pools.

use super::*;
use proptest::prelude::*;

/// With a kernel, strides and paddings.
fn pool(op_type: &'static str, input: &[usize], kernel: &[i64], strides: &[i64]) -> Case {
    let shape: Vec<usize> = [N, 2].iter().chain(input).copied().collect();
    let case = Case::new(op_type, vec![varied(&shape)]);
    case.ints("kernel_shape", kernel).ints("strides", strides)
}

/// Steps so small that they do not change which element is the largest.
fn in_place(case: Case) -> Case {
    Case { step: 1e-7, ..case }
}

fn max_pool(input: &[usize], kernel: &[i64], strides: &[i64]) -> Case {
    in_place(pool("MaxPool", input, kernel, strides))
}

fn average_pool(input: &[usize], kernel: &[i64], strides: &[i64]) -> Case {
    linear(pool("AveragePool", input, kernel, strides).single())
}

#[test]
fn max_pool_over_windows_of_all_kinds() {
    for case in [
        max_pool(&[8], &[2], &[2]),
        max_pool(&[8], &[3], &[1]).ints("pads", &[1, 1]),
        max_pool(&[6, 6], &[2, 2], &[2, 2]),
        max_pool(&[7, 7], &[2, 2], &[2, 2]),
        max_pool(&[7, 6], &[3, 3], &[2, 2]).ints("pads", &[1, 1, 1, 1]),
        max_pool(&[7, 6], &[3, 2], &[2, 1]).ints("pads", &[0, 1, 2, 0]),
        max_pool(&[6, 6], &[3, 3], &[1, 1]).ints("pads", &[1, 1, 1, 1]),
        max_pool(&[8, 9], &[3, 2], &[2, 3]).ints("dilations", &[2, 3]),
        max_pool(&[7, 8], &[1, 2], &[3, 3]),
        max_pool(&[5, 4, 6], &[2, 2, 3], &[2, 1, 2]).ints("pads", &[1, 0, 1, 0, 1, 1]),
        max_pool(&[4, 4], &[4, 4], &[4, 4]),
    ] {
        case.check();
        case.outputs(2).check();
    }
}

#[test]
fn average_pool_with_a_window_larger_than_its_input() {
    for case in [
        // Pooling over everything, as some exports write it.
        average_pool(&[2, 3], &[64, 64], &[64, 64]).int("ceil_mode", 1),
        average_pool(&[5, 5], &[7, 3], &[1, 1]).ints("pads", &[3, 1, 3, 1]),
        average_pool(&[3], &[7], &[2]).ints("pads", &[6, 6]),
    ] {
        case.check();
    }
}

#[test]
fn max_pool_with_a_last_window_that_is_not_full() {
    for case in [
        max_pool(&[6], &[3], &[2]),
        max_pool(&[7, 8], &[3, 3], &[2, 3]),
        max_pool(&[6, 5], &[2, 3], &[2, 2]).ints("pads", &[1, 1, 1, 1]),
        max_pool(&[6, 6, 5], &[3, 2, 2], &[2, 3, 2]),
    ] {
        case.int("ceil_mode", 1).check();
    }
}

#[test]
fn max_pool_with_automatic_padding() {
    for side in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
        max_pool(&[8, 7], &[3, 2], &[2, 2])
            .string("auto_pad", side)
            .check();
        max_pool(&[9], &[3], &[1])
            .ints("dilations", &[2])
            .string("auto_pad", side)
            .check();
    }
}

#[test]
fn max_pool_whose_indices_are_column_major() {
    let case = max_pool(&[5, 7], &[2, 3], &[2, 2]).int("storage_order", 1);
    case.check();
    case.outputs(2).check();
}

#[test]
fn max_pool_of_a_fixed_batch() {
    let case = max_pool(&[6], &[3], &[2]);
    Case {
        inputs: vec![varied(&[3, 2, 6])],
        ..case
    }
    .check();
}

#[test]
fn max_pool_gives_ties_to_the_first_in_row_major_order() {
    let input = array(
        &[1, 1, 3, 3],
        &[1.0, 1.0, 0.0, 1.0, 1.0, 2.0, 0.0, 2.0, 2.0],
    );
    let case = Case::new("MaxPool", vec![Input::Fixed(input)]).ints("kernel_shape", &[2, 2]);
    let cotangent = array(&[1, 1, 2, 2], &[1.0, 10.0, 100.0, 1000.0]);
    // The windows: {1 1 / 1 1}, {1 0 / 1 2}, {1 1 / 0 2}, {1 2 / 2 2}.
    let expected = [1.0, 0.0, 0.0, 0.0, 0.0, 1010.0, 0.0, 100.0, 0.0];
    for case in [
        case.clone(),
        case.clone().outputs(2),
        case.int("storage_order", 1),
    ] {
        let found = case.gradients(std::slice::from_ref(&cotangent), 1);
        assert_close(&found.cotangents[0], &expected, 0.0);
    }
}

#[test]
fn max_pool_without_overlap_gives_ties_to_the_first() {
    let input = array(&[2, 1, 4], &[0.0; 8]);
    let case = Case::new("MaxPool", vec![Input::Fixed(input)]);
    let case = case.ints("kernel_shape", &[2]).ints("strides", &[2]);
    let found = case.gradients(&[array(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0])], 1);
    let expected = [1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0];
    assert_close(&found.cotangents[0], &expected, 0.0);
}

#[test]
fn max_pool_with_a_window_wholly_in_the_padding_is_refused() {
    let case = max_pool(&[1], &[2], &[1])
        .ints("dilations", &[2])
        .ints("pads", &[1, 1]);
    let reason = case.refusal();
    assert!(reason.contains("wholly in its padding"), "{reason}");
}

#[test]
fn average_pool_over_windows_of_all_kinds() {
    for include in [0, 1] {
        for ceil in [0, 1] {
            for case in [
                average_pool(&[8], &[2], &[2]),
                average_pool(&[8], &[3], &[1]).ints("pads", &[1, 1]),
                average_pool(&[6, 6], &[2, 2], &[2, 2]),
                average_pool(&[7, 7], &[2, 2], &[2, 2]),
                average_pool(&[7, 7], &[3, 3], &[1, 1]).ints("pads", &[1, 1, 1, 1]),
                average_pool(&[7, 6], &[3, 3], &[2, 2]).ints("pads", &[1, 1, 1, 1]),
                average_pool(&[7, 6], &[3, 4], &[2, 3]).ints("pads", &[0, 1, 2, 3]),
                average_pool(&[8, 8], &[1, 2], &[3, 3]),
                average_pool(&[9, 8], &[5, 3], &[2, 3]).ints("pads", &[2, 1, 2, 1]),
                average_pool(&[5, 4, 6], &[2, 2, 3], &[2, 1, 2]).ints("pads", &[1, 0, 1, 0, 1, 1]),
            ] {
                let case = case
                    .int("count_include_pad", include)
                    .int("ceil_mode", ceil);
                case.check();
                case.opset(19).check();
            }
        }
    }
}

#[test]
fn average_pool_with_dilation() {
    for include in [0, 1] {
        for ceil in [0, 1] {
            for case in [
                average_pool(&[9, 8], &[3, 2], &[1, 1]).ints("dilations", &[2, 3]),
                average_pool(&[9, 8], &[3, 2], &[2, 3])
                    .ints("dilations", &[2, 3])
                    .ints("pads", &[2, 1, 1, 1]),
            ] {
                let case = case
                    .int("count_include_pad", include)
                    .int("ceil_mode", ceil);
                case.opset(19).check();
            }
        }
    }
}

#[test]
fn average_pool_with_automatic_padding() {
    for side in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
        for include in [0, 1] {
            average_pool(&[8, 7], &[3, 2], &[2, 2])
                .int("count_include_pad", include)
                .string("auto_pad", side)
                .check();
        }
    }
}

#[test]
fn lp_pool_of_several_exponents() {
    for exponent in [1, 2, 3] {
        let shape = [N, 2, 6, 5];
        let input = between(&shape, 0.5, 2.0);
        let case = Case::new("LpPool", vec![input.clone()]).single();
        let case = case.int("p", exponent).ints("kernel_shape", &[3, 2]);
        case.clone().check();
        case.ints("strides", &[2, 2])
            .ints("pads", &[1, 0, 1, 1])
            .check();
        Case::new("GlobalLpPool", vec![input])
            .single()
            .int("p", exponent)
            .check();
    }
    let signs = Case::new("LpPool", vec![varied(&[N, 2, 6])]).single();
    Case {
        tolerance: 1e-2,
        ..signs.ints("kernel_shape", &[3])
    }
    .check();
}

#[test]
fn lp_pools_have_no_slope_at_zero() {
    for exponent in [2, 3] {
        let zeros = || vec![Input::Fixed(array(&[1, 1, 4], &[0.0; 4]))];
        let local = Case::new("LpPool", zeros())
            .single()
            .ints("kernel_shape", &[2]);
        let found = local
            .int("p", exponent)
            .gradients(&[array(&[1, 1, 3], &[1.0; 3])], 1);
        assert_close(&found.cotangents[0], &[0.0; 4], 0.0);
        let global = Case::new("GlobalLpPool", zeros())
            .single()
            .int("p", exponent);
        let found = global.gradients(&[array(&[1, 1, 1], &[1.0])], 1);
        assert_close(&found.cotangents[0], &[0.0; 4], 0.0);
    }
}

#[test]
fn global_pools_of_all_ranks() {
    for shape in [
        &[N, 2, 5][..],
        &[N, 2, 4, 3],
        &[N, 2, 3, 2, 2],
        &[2, 3, 4],
        &[N, 3, 1, 1],
    ] {
        linear(Case::new("GlobalAveragePool", vec![varied(shape)]).single()).check();
        // It has no double-precision kernel.
        let case = Case::new("GlobalMaxPool", vec![varied(shape)]).single();
        Case { step: 1e-3, ..case }.check();
    }
}

#[test]
fn global_max_pool_gives_ties_to_the_first() {
    let input = array(&[1, 2, 2, 2], &[0.0, 3.0, 3.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
    let case = Case::new("GlobalMaxPool", vec![Input::Fixed(input)]).single();
    let found = case.gradients(&[array(&[1, 2, 1, 1], &[1.0, 2.0])], 1);
    let expected = [0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0];
    assert_close(&found.cotangents[0], &expected, 0.0);
}

/// One axis: input, kernel, stride, dilation, padding in front and behind.
type AxisDraw = (usize, i64, i64, i64, i64, i64);

fn axes() -> impl Strategy<Value = Vec<AxisDraw>> {
    let axis = (1_usize..9, 1_i64..5, 1_i64..5, 1_i64..3, 0_i64..4, 0_i64..4);
    let axis = axis.prop_map(|(input, kernel, stride, dilation, before, after)| {
        // Padding smaller than the kernel, as the operators require, and room for a window.
        let input = input.max((dilation * (kernel - 1) + 1) as usize);
        let pad = |count: i64| count.min(kernel - 1);
        (input, kernel, stride, dilation, pad(before), pad(after))
    });
    proptest::collection::vec(axis, 1..4)
}

fn drawn(case: Case, axes: &[AxisDraw], dilated: bool) -> Case {
    let pick = |of: fn(&AxisDraw) -> i64| axes.iter().map(of).collect::<Vec<_>>();
    let shape: Vec<usize> = [N, 2]
        .into_iter()
        .chain(axes.iter().map(|axis| axis.0))
        .collect();
    let case = Case {
        inputs: vec![varied(&shape)],
        ..case
    }
    .ints("kernel_shape", &pick(|axis| axis.1))
    .ints("strides", &pick(|axis| axis.2))
    .ints("pads", &[pick(|axis| axis.4), pick(|axis| axis.5)].concat());
    if dilated {
        case.ints("dilations", &pick(|axis| axis.3))
    } else {
        case
    }
}

proptest! {
    #![proptest_config(proptest_config(64))]

    #[test]
    fn max_pool_of_any_geometry(axes in axes(), ceil in 0_i64..2, outputs in 1_usize..3, seed: u64) {
        let case = in_place(Case::new("MaxPool", vec![])).outputs(outputs).seed(seed);
        drawn(case, &axes, true).int("ceil_mode", ceil).check();
    }

    #[test]
    fn average_pool_of_any_geometry(
        axes in axes(),
        ceil in 0_i64..2,
        include in 0_i64..2,
        dilated: bool,
        seed: u64,
    ) {
        let case = linear(Case::new("AveragePool", vec![]).single()).seed(seed);
        let case = case.opset(if dilated { 19 } else { 18 });
        let case = drawn(case, &axes, dilated);
        case.int("ceil_mode", ceil).int("count_include_pad", include).check();
    }
}

#[test]
fn max_unpool_puts_the_cotangent_back_from_its_places() {
    let indices = |shape: &[usize], values: Vec<i64>| {
        Input::Constant(mohs::tensor::Tensor::new(shape, values).unwrap())
    };
    let places = indices(&[1, 2, 2, 2], vec![0, 3, 9, 10, 20, 22, 24, 31]);
    let inputs = vec![varied(&[1, 2, 2, 2]), places];
    let case = linear(Case::new("MaxUnpool", inputs).single());
    let case = case.ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]);
    case.check();
    let places = indices(&[1, 1, 2], vec![5, 1]);
    let inputs = vec![varied(&[1, 1, 2]), places, ints(&[1, 1, 6])];
    linear(Case::new("MaxUnpool", inputs).single())
        .ints("kernel_shape", &[2])
        .ints("strides", &[2])
        .check();
}

#[test]
fn where_entries_go_to_one_place_the_one_that_stands_there_has_the_cotangent() {
    let places = mohs::tensor::Tensor::new(&[1, 1, 3], vec![2i64, 2, 0]).unwrap();
    let inputs = vec![
        Input::Fixed(array(&[1, 1, 3], &[4.0, 5.0, 6.0])),
        Input::Constant(places),
    ];
    let case = Case::new("MaxUnpool", inputs).single();
    let case = case.ints("kernel_shape", &[2]).ints("strides", &[1]);
    let found = case.gradients(&[array(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0])], 1);
    // The result is 6, 0, 5, 0.
    assert_close(&found.cotangents[0], &[0.0, 3.0, 1.0], 0.0);
}
