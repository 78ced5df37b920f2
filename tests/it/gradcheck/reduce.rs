//! Reductions, and the running sum. Values at ties and zeros are PyTorch 2.15's, where it has any.

use super::{Case, Input, N, array, assert_close, between, ints};
use mohs::tensor::Tensor;
use ndarray::ArrayD;

/// The reductions, with a range of elements in which they are smooth.
const REDUCTIONS: [(&str, f64, f64); 10] = [
    ("ReduceSum", -1.0, 1.0),
    ("ReduceMean", -1.0, 1.0),
    ("ReduceMax", -1.0, 1.0),
    ("ReduceMin", -1.0, 1.0),
    ("ReduceL1", -1.0, 1.0),
    ("ReduceL2", -1.0, 1.0),
    ("ReduceSumSquare", -1.0, 1.0),
    ("ReduceLogSum", 0.3, 1.0),
    ("ReduceLogSumExp", -2.0, 2.0),
    ("ReduceProd", -1.5, 1.5),
];

#[test]
fn reductions_meet_the_identity_over_any_axes() {
    for (op_type, low, high) in REDUCTIONS {
        for keep in [0, 1] {
            for axes in [&[1][..], &[0], &[-1], &[1, 2], &[0, -1], &[-3, 1, 2]] {
                let inputs = vec![between(&[N, 3, 4], low, high), ints(axes)];
                Case::new(op_type, inputs).int("keepdims", keep).check();
            }
            let all = vec![between(&[N, 2, 2], low, high)];
            Case::new(op_type, all).int("keepdims", keep).check();
            let fixed = vec![between(&[2, 3], low, high), ints(&[])];
            Case::new(op_type, fixed).int("keepdims", keep).check();
        }
    }
}

#[test]
fn without_axes_each_element_is_reduced_by_itself_if_so_asked() {
    for (op_type, low, high) in REDUCTIONS {
        let low = if op_type == "ReduceLogSum" {
            low
        } else {
            -high
        };
        for axes in [vec![], vec![ints(&[])]] {
            let inputs = [vec![between(&[N, 3], low, high)], axes].concat();
            Case::new(op_type, inputs)
                .int("noop_with_empty_axes", 1)
                .check();
        }
    }
}

#[test]
fn axes_may_be_an_attribute() {
    // Lifted graphs have none; the nodes that these two rules add need a newer opset than the attribute form itself.
    let old = REDUCTIONS.into_iter();
    for (op_type, low, high) in
        old.filter(|(op_type, ..)| !matches!(*op_type, "ReduceSum" | "ReduceProd"))
    {
        let case = Case::new(op_type, vec![between(&[N, 3, 2], low, high)]).opset(17);
        case.clone().ints("axes", &[-2]).int("keepdims", 0).check();
        case.ints("axes", &[0, 2]).check();
    }
}

#[test]
fn axes_that_are_computed_from_the_data_are_refused() {
    let axes = Input::Fed(Tensor::new(&[1], vec![1_i64]).unwrap());
    let refusal = Case::new("ReduceSum", vec![between(&[2, 3], -1.0, 1.0), axes]).refusal();
    assert!(refusal.contains("input 1"), "{refusal}");
}

/// The cotangent of rows that are reduced one by one, where that of the result is 1 everywhere.
fn rows(op_type: &'static str, rows: &[&[f64]]) -> ArrayD<f64> {
    let shape = [rows.len(), rows[0].len()];
    let inputs = vec![Input::Fixed(array(&shape, &rows.concat())), ints(&[1])];
    let case = Case::new(op_type, inputs).int("keepdims", 0);
    let ones = ArrayD::ones(ndarray::IxDyn(&[rows.len()]));
    case.gradients(&[ones], 1).cotangents.remove(0)
}

#[test]
fn ties_share_evenly() {
    let third = 1.0 / 3.0;
    let found = rows(
        "ReduceMax",
        &[&[1.0, 3.0, 3.0], &[3.0, 3.0, 3.0], &[1.0, 2.0, 0.0]],
    );
    assert_close(
        &found,
        &[0.0, 0.5, 0.5, third, third, third, 0.0, 1.0, 0.0],
        1e-15,
    );
    let found = rows("ReduceMin", &[&[1.0, 3.0, 1.0], &[3.0, 3.0, 3.0]]);
    assert_close(&found, &[0.5, 0.0, 0.5, third, third, third], 1e-15);
}

#[test]
fn ties_across_axes_share_evenly() {
    let case = Case::new(
        "ReduceMin",
        vec![Input::Fixed(array(
            &[2, 3],
            &[1.0, 3.0, 1.0, 3.0, 1.0, 3.0],
        ))],
    );
    let found = case.int("keepdims", 0).gradients(&[array(&[], &[1.0])], 1);
    let third = 1.0 / 3.0;
    assert_close(
        &found.cotangents[0],
        &[third, 0.0, third, 0.0, third, 0.0],
        1e-15,
    );
}

#[test]
fn norms_have_slope_zero_at_zero() {
    let found = rows("ReduceL1", &[&[1.0, 0.0, -3.0]]);
    assert_close(&found, &[1.0, 0.0, -1.0], 0.0);
    let found = rows("ReduceL2", &[&[3.0, 0.0, -4.0], &[0.0, 0.0, 0.0]]);
    assert_close(&found, &[0.6, 0.0, -0.8, 0.0, 0.0, 0.0], 1e-15);
}

#[test]
fn products_with_zeros_are_exact() {
    let found = rows(
        "ReduceProd",
        &[
            &[1.0, 2.0, 3.0],
            &[0.0, 2.0, 3.0],
            &[0.0, 2.0, 0.0],
            &[0.0; 3],
        ],
    );
    assert_close(
        &found,
        &[6.0, 3.0, 2.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        1e-15,
    );
}

#[test]
fn log_sum_exp_stays_finite_at_extremes() {
    let infinity = f64::INFINITY;
    let found = rows(
        "ReduceLogSumExp",
        &[
            &[1.0, -infinity],
            &[-infinity, -infinity],
            &[100.0, -100.0],
            &[1000.0, 1000.0],
        ],
    );
    // PyTorch has NaN for the second row.
    assert_close(&found, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.5], 1e-12);
}

#[test]
fn running_sums_meet_the_identity_in_every_mode() {
    for axis in [0_i64, 1, -1] {
        for exclusive in [0, 1] {
            for reverse in [0, 1] {
                let axis = Input::Constant(Tensor::new(&[], vec![axis]).unwrap());
                Case::new("CumSum", vec![between(&[N, 3, 2], -1.0, 1.0), axis])
                    .int("exclusive", exclusive)
                    .int("reverse", reverse)
                    .check();
            }
        }
    }
}
