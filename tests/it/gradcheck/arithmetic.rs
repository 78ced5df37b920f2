//! Arithmetic with broadcasting, and choices between operands. Values at ties and zeros are PyTorch 2.15's, where it has any.

use super::{Case, Input, N, array, assert_close, between, varied};
use mohs::tensor::Tensor;
use ndarray::ArrayD;

/// Pairs of shapes: equal, stretched on either side and on both, scalars.
const PAIRS: [(&[usize], &[usize]); 7] = [
    (&[N, 3], &[N, 3]),
    (&[N, 2, 3], &[3]),
    (&[3], &[N, 2, 3]),
    (&[1, 3], &[4, 1]),
    (&[N, 1, 3], &[5, 1]),
    (&[], &[2, 3]),
    (&[2, 3], &[]),
];

/// The cotangents of these operands, where that of the result is 1 everywhere.
fn slopes(case: Case, operands: &[ArrayD<f64>]) -> Vec<ArrayD<f64>> {
    let shape = operands
        .iter()
        .map(ArrayD::shape)
        .max_by_key(|shape| shape.len());
    let ones = ArrayD::ones(shape.unwrap_or_default());
    let fixed = operands.iter().cloned().map(Input::Fixed);
    let inputs = fixed.chain(case.inputs.iter().cloned()).collect();
    Case { inputs, ..case }.gradients(&[ones], 1).cotangents
}

fn numbers(values: &[f64]) -> ArrayD<f64> {
    array(&[values.len()], values)
}

fn constant(values: &[f64]) -> Input {
    Input::Constant(Tensor::new(&[values.len()], values.to_vec()).unwrap())
}

#[test]
fn operators_on_pairs_meet_the_identity_in_both_operands() {
    for (seed, (a, b)) in PAIRS.into_iter().enumerate() {
        for op_type in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum"] {
            let inputs = vec![varied(a), between(b, 0.4, 1.5)];
            Case::new(op_type, inputs).seed(seed as u64).check();
        }
        let inputs = vec![between(a, 0.4, 2.0), between(b, -1.5, 2.5)];
        Case::new("Pow", inputs).seed(seed as u64).check();
        Case::new("Mean", vec![varied(a), varied(b)])
            .single()
            .check();
        for (low, high) in [(5.2, 5.6), (-5.6, -5.2)] {
            let inputs = vec![between(a, low, high), between(b, 2.0, 2.4)];
            Case::new("Mod", inputs).int("fmod", 1).check();
        }
    }
}

#[test]
fn operators_on_many_operands_meet_the_identity_in_each() {
    for op_type in ["Max", "Min", "Sum"] {
        Case::new(op_type, vec![varied(&[N, 3])]).check();
        let three = || vec![varied(&[N, 2, 3]), varied(&[3]), varied(&[2, 1])];
        Case::new(op_type, three()).check();
        Case::new(
            op_type,
            [three(), vec![constant(&[0.1, -0.2, 0.3])]].concat(),
        )
        .check();
    }
    Case::new("Mean", vec![varied(&[N, 3])]).single().check();
    Case::new(
        "Mean",
        vec![varied(&[N, 2, 3]), varied(&[3]), varied(&[2, 1])],
    )
    .single()
    .check();
}

#[test]
fn a_tie_of_two_is_halved() {
    for (op_type, first) in [("Max", [0.0, 0.5, 1.0]), ("Min", [1.0, 0.5, 0.0])] {
        let operands = [numbers(&[1.0, 2.0, 3.0]), numbers(&[2.0, 2.0, 2.0])];
        let found = slopes(Case::new(op_type, vec![]), &operands);
        assert_close(&found[0], &first, 0.0);
        assert_close(&found[1], &first.map(|share| 1.0 - share), 0.0);
    }
}

#[test]
fn a_tie_of_many_is_shared_in_equal_parts() {
    let operands = [
        numbers(&[2.0, 2.0]),
        numbers(&[2.0, 1.0]),
        numbers(&[2.0, 2.0]),
        numbers(&[1.0, 0.0]),
    ];
    let found = slopes(Case::new("Max", vec![]), &operands);
    let third = 1.0 / 3.0;
    for (found, expected) in
        found
            .iter()
            .zip([[third, 0.5], [third, 0.0], [third, 0.5], [0.0, 0.0]])
    {
        assert_close(found, &expected, 1e-15);
    }
}

#[test]
fn powers_with_a_constant_exponent_meet_the_identity() {
    for exponent in [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -1.0, -2.0, -3.0] {
        for (low, high) in [(-2.0, -0.5), (0.5, 2.0)] {
            let exponent = Input::Constant(Tensor::new(&[], vec![exponent]).unwrap());
            Case::new("Pow", vec![between(&[N, 3], low, high), exponent]).check();
        }
    }
    for exponent in [0.5, 1.5, 0.3, 2.2, -0.5, -1.5] {
        Case::new(
            "Pow",
            vec![between(&[N, 3], 0.3, 2.0), constant(&[exponent])],
        )
        .check();
    }
}

#[test]
fn the_exponent_may_have_another_type_or_shape() {
    let two = Input::Constant(Tensor::new(&[], vec![2_i64]).unwrap());
    Case::new("Pow", vec![varied(&[N, 3]), two.clone()]).check();
    Case::new("Pow", vec![varied(&[N, 3]), two])
        .single()
        .check();
    Case::new("Pow", vec![varied(&[N, 3]), constant(&[2.0])])
        .single()
        .check();
    let each = Tensor::new(&[3], vec![0_i64, 1, 3]).unwrap();
    Case::new("Pow", vec![varied(&[N, 3]), Input::Constant(each.clone())]).check();
    Case::new("Pow", vec![varied(&[N, 3]), Input::Fed(each)]).check();
    let taller = Tensor::new(&[2, 3], vec![2.0; 6]).unwrap();
    Case::new("Pow", vec![varied(&[3]), Input::Constant(taller)]).check();
    Case::new("Pow", vec![constant(&[2.0, 3.0, 0.5]), varied(&[N, 3])]).check();
}

#[test]
fn powers_at_zero_and_below_are_as_in_pytorch() {
    let points = numbers(&[-2.0, 0.0, 2.0, 1e-310]);
    for (exponent, expected) in [
        (0.0, [0.0, 0.0, 0.0, 0.0]),
        (1.0, [1.0, 1.0, 1.0, 1.0]),
        (2.0, [-4.0, 0.0, 4.0, 2e-310]),
        (3.0, [12.0, 0.0, 12.0, 0.0]),
        (4.0, [-32.0, 0.0, 32.0, 0.0]),
    ] {
        let found = slopes(
            Case::new("Pow", vec![constant(&[exponent])]),
            std::slice::from_ref(&points),
        );
        assert_close(&found[0], &expected, 1e-320);
    }
    for (exponent, expected) in [
        (-1.0, [-0.25, -0.25]),
        (-2.0, [0.25, -0.25]),
        (-3.0, [-0.1875, -0.1875]),
    ] {
        let found = slopes(
            Case::new("Pow", vec![constant(&[exponent])]),
            &[numbers(&[-2.0, 2.0])],
        );
        assert_close(&found[0], &expected, 1e-15);
    }
}

#[test]
fn roots_have_slope_zero_at_zero() {
    for (exponent, at_two) in [
        (0.5, 0.353_553_390_593_273_73),
        (0.3, 0.184_671_662_001_737_4),
    ] {
        let found = slopes(
            Case::new("Pow", vec![constant(&[exponent])]),
            &[numbers(&[0.0, 2.0])],
        );
        assert_close(&found[0], &[0.0, at_two], 1e-15);
    }
}

#[test]
fn powers_whose_exponent_is_differentiated_stay_finite() {
    let operands = [
        numbers(&[-2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1e-310]),
        numbers(&[2.0, 0.0, 0.5, 1.0, 2.0, 3.0, 0.0]),
    ];
    let found = slopes(Case::new("Pow", vec![]), &operands);
    assert_close(&found[0], &[-4.0, 0.0, 0.0, 1.0, 0.0, 12.0, 0.0], 1e-15);
    let log = -713.801_378_828_154_2;
    assert_close(
        &found[1],
        &[0.0, 0.0, 0.0, 0.0, 0.0, 5.545_177_444_479_562, log],
        1e-9,
    );
}

#[test]
fn remainders_are_as_in_pytorch() {
    let operands = [numbers(&[-5.5, 5.5, 7.25]), numbers(&[2.0, -2.0, 3.5])];
    let found = slopes(Case::new("Mod", vec![]).int("fmod", 1), &operands);
    assert_close(&found[0], &[1.0, 1.0, 1.0], 0.0);
    assert_close(&found[1], &[2.0, 2.0, -2.0], 1e-15);
}

#[test]
fn where_meets_the_identity_in_both_branches() {
    let chosen =
        |shape: &[usize], values: &[bool]| Input::Fed(Tensor::new(shape, values.to_vec()).unwrap());
    let row = || chosen(&[3], &[true, false, true]);
    Case::new("Where", vec![row(), varied(&[N, 3]), varied(&[N, 3])]).check();
    Case::new("Where", vec![row(), varied(&[]), varied(&[N, 1])]).check();
    Case::new(
        "Where",
        vec![
            chosen(&[2, 1], &[true, false]),
            varied(&[3]),
            varied(&[N, 1, 3]),
        ],
    )
    .check();
    Case::new("Where", vec![row(), varied(&[N, 3]), constant(&[7.0])]).check();
}

#[test]
fn where_keeps_infinities_of_the_branch_not_taken_away() {
    let chosen = Input::Fed(Tensor::new(&[2], vec![true, false]).unwrap());
    let inputs = vec![
        chosen,
        Input::Fixed(numbers(&[1.0, 1.0])),
        Input::Fixed(numbers(&[2.0, 2.0])),
    ];
    let found = Case::new("Where", inputs).gradients(&[numbers(&[3.0, f64::INFINITY])], 1);
    assert_close(&found.cotangents[0], &[3.0, 0.0], 0.0);
}

#[test]
fn the_values_of_one_hot_are_differentiated() {
    let indices = || Input::Fed(Tensor::new(&[2, 3], vec![0_i64, 3, 1, -1, 2, 9]).unwrap());
    let depth = || Input::Constant(Tensor::new(&[], vec![4_i64]).unwrap());
    for axis in [-1, 0, 1] {
        let inputs = vec![indices(), depth(), varied(&[2])];
        Case::new("OneHot", inputs)
            .int("axis", axis)
            .single()
            .check();
    }
}

#[test]
fn the_start_and_step_of_range_are_differentiated() {
    let inputs = vec![
        between(&[], 0.0, 0.1),
        between(&[], 3.5, 3.6),
        between(&[], 0.9, 1.0),
    ];
    Case::new("Range", inputs).check();
}
