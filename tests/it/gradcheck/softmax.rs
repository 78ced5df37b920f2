//! Softmax over one axis, and the declared zeros.

use super::{Case, Input, N, array, assert_close, between, varied};

#[test]
fn softmax_meets_the_identity_over_any_axis() {
    for op_type in ["Softmax", "LogSoftmax"] {
        for axis in [0, 1, 2, -1, -2, -3] {
            let case = Case::new(op_type, vec![between(&[N, 3, 4], -2.0, 2.0)]);
            case.int("axis", axis).check();
        }
        Case::new(op_type, vec![between(&[N, 5], -2.0, 2.0)]).check();
        Case::new(op_type, vec![between(&[4], -2.0, 2.0)]).check();
    }
}

#[test]
fn masked_and_extreme_logits_stay_finite() {
    let logits = [1.0, 1.0, f64::NEG_INFINITY, 100.0, -100.0, -100.0];
    let case = |op_type| Case::new(op_type, vec![Input::Fixed(array(&[2, 3], &logits))]);
    let cotangent = array(&[2, 3], &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    let found = case("Softmax").gradients(std::slice::from_ref(&cotangent), 1);
    assert_close(
        &found.cotangents[0],
        &[0.25, -0.25, 0.0, 0.0, 0.0, 0.0],
        1e-15,
    );
    let found = case("LogSoftmax").gradients(&[cotangent], 1);
    assert_close(
        &found.cotangents[0],
        &[0.5, -0.5, 0.0, 0.0, 0.0, 0.0],
        1e-15,
    );
}

#[test]
fn steps_and_draws_have_no_gradient() {
    for op_type in ["Round", "Sign", "Floor", "Ceil"] {
        let found =
            Case::new(op_type, vec![varied(&[N, 3])]).gradients(&[array(&[2, 3], &[1.0; 6])], 2);
        assert_close(&found.cotangents[0], &[0.0; 6], 0.0);
    }
    let found = Case::new("Hardmax", vec![varied(&[N, 3])])
        .single()
        .gradients(&[array(&[2, 3], &[1.0; 6])], 2);
    assert_close(&found.cotangents[0], &[0.0; 6], 0.0);
}
