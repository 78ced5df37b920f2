//! Activation and elementary functions. Values at kinks and extremes are PyTorch 2.15's.

use super::{Case, Input, N, array, assert_close, between, varied};
use mohs::tensor::Tensor;
use ndarray::ArrayD;

/// The identity on a batch, without one, and on a scalar, with elements from `low` to `high`.
fn check(of: impl Fn(Vec<Input>) -> Case, low: f64, high: f64) {
    for (seed, shape) in [&[N, 3][..], &[2, 1, 5], &[]].into_iter().enumerate() {
        of(vec![between(shape, low, high)])
            .seed(seed as u64)
            .check();
    }
}

/// The derivative of a function of one operand at these points.
fn slopes(case: Case, points: &[f64]) -> ArrayD<f64> {
    let inputs = [Input::Fixed(array(&[points.len()], points))].into_iter();
    let inputs = inputs.chain(case.inputs.iter().cloned()).collect();
    let ones = ArrayD::ones(ndarray::IxDyn(&[points.len()]));
    Case { inputs, ..case }
        .gradients(&[ones], 1)
        .cotangents
        .remove(0)
}

fn scalar(value: f64) -> Input {
    Input::Constant(Tensor::new(&[], vec![value]).unwrap())
}

#[test]
fn smooth_functions_meet_the_identity() {
    for (op_type, low, high) in [
        ("Sigmoid", -3.0, 3.0),
        ("Tanh", -2.0, 2.0),
        ("Softplus", -3.0, 3.0),
        ("Softsign", -3.0, 3.0),
        ("Mish", -3.0, 3.0),
        ("Exp", -2.0, 2.0),
        ("Log", 0.3, 3.0),
        ("Sqrt", 0.3, 3.0),
        ("Reciprocal", 0.4, 2.0),
        ("Reciprocal", -2.0, -0.4),
        ("Neg", -1.0, 1.0),
        ("Sin", -3.0, 3.0),
        ("Cos", -3.0, 3.0),
    ] {
        check(|inputs| Case::new(op_type, inputs), low, high);
    }
}

#[test]
fn functions_without_a_double_kernel_meet_the_identity_in_single_precision() {
    for (op_type, low, high) in [
        ("Erf", -2.0, 2.0),
        ("Tan", -1.0, 1.0),
        ("Asin", -0.8, 0.8),
        ("Acos", -0.8, 0.8),
        ("Atan", -3.0, 3.0),
        ("Sinh", -2.0, 2.0),
        ("Cosh", -2.0, 2.0),
        ("Asinh", -3.0, 3.0),
        ("Acosh", 1.4, 4.0),
        ("Atanh", -0.7, 0.7),
    ] {
        check(|inputs| Case::new(op_type, inputs).single(), low, high);
    }
}

#[test]
fn piecewise_functions_meet_the_identity_between_kinks() {
    for op_type in [
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "HardSigmoid",
        "HardSwish",
        "ThresholdedRelu",
        "Abs",
    ] {
        check(|inputs| Case::new(op_type, inputs), -4.0, 4.0);
    }
    check(|inputs| Case::new("Celu", inputs).single(), 0.1, 2.0);
    check(|inputs| Case::new("Celu", inputs).single(), -2.0, -0.1);
    // ONNX Runtime computes it in single precision whatever the type.
    for (low, high) in [(-2.0, -0.6), (-0.4, 0.4), (0.6, 2.0)] {
        check(|inputs| Case::new("Shrink", inputs).single(), low, high);
    }
}

#[test]
fn attributes_are_taken_into_account() {
    let of = |inputs, op_type| Case::new(op_type, inputs);
    check(|x| of(x, "LeakyRelu").float("alpha", 0.3), -2.0, 2.0);
    check(|x| of(x, "LeakyRelu").float("alpha", -0.3), -2.0, 2.0);
    check(|x| of(x, "Elu").float("alpha", 1.7), -2.0, 2.0);
    check(
        |x| of(x, "Selu").float("alpha", 0.7).float("gamma", 2.5),
        -2.0,
        2.0,
    );
    check(|x| of(x, "Celu").float("alpha", 0.4).single(), -2.0, -0.1);
    check(
        |x| of(x, "HardSigmoid").float("alpha", 0.4).float("beta", 0.3),
        -4.0,
        4.0,
    );
    check(|x| of(x, "HardSigmoid").float("alpha", -0.4), -4.0, 4.0);
    check(|x| of(x, "ThresholdedRelu").float("alpha", -0.5), -2.0, 2.0);
    for (low, high) in [(-3.0, -1.3), (-1.1, 1.1), (1.3, 3.0)] {
        let shrink = |x| of(x, "Shrink").float("lambd", 1.2).float("bias", 0.8);
        check(|x| shrink(x).single(), low, high);
    }
    check(|x| of(x, "Swish").opset(24), -3.0, 3.0);
    check(|x| of(x, "Swish").opset(24).float("alpha", 1.5), -3.0, 3.0);
    check(|x| of(x, "Gelu").opset(20).single(), -3.0, 3.0);
    check(
        |x| {
            of(x, "Gelu")
                .opset(20)
                .string("approximate", "tanh")
                .single()
        },
        -3.0,
        3.0,
    );
}

#[test]
fn the_slopes_of_prelu_are_differentiated_too() {
    for (x, slope) in [
        (&[N, 3, 2][..], &[3, 1][..]),
        (&[2, 4], &[4]),
        (&[2, 4], &[]),
        (&[3], &[3]),
    ] {
        let inputs = vec![between(x, -2.0, 2.0), varied(slope)];
        Case::new("PRelu", inputs).check();
    }
}

#[test]
fn clip_meets_the_identity_with_each_bound_there_or_not() {
    for low in [scalar(-0.5), Input::Absent] {
        for high in [scalar(0.6), Input::Absent] {
            check(
                |x| Case::new("Clip", [x, vec![low.clone(), high.clone()]].concat()),
                -2.0,
                2.0,
            );
        }
    }
    check(|x| Case::new("Clip", x), -2.0, 2.0);
}

#[test]
fn the_bounds_of_clip_are_differentiated_too() {
    let (x, low, high) = (
        || between(&[N, 7], -2.0, 2.0),
        || between(&[], -1.0, -0.5),
        || between(&[], 0.5, 1.0),
    );
    Case::new("Clip", vec![x(), low(), high()]).check();
    Case::new("Clip", vec![x(), low()]).check();
    Case::new("Clip", vec![x(), Input::Absent, high()]).check();
    Case::new("Clip", vec![x(), low(), scalar(0.4)]).check();
}

#[test]
fn kinks_are_as_in_pytorch() {
    let kinked = |op_type| Case::new(op_type, vec![]);
    for (case, points, expected) in [
        (kinked("Relu"), &[-1.0, 0.0, 1.0][..], &[0.0, 0.0, 1.0][..]),
        (
            kinked("LeakyRelu").float("alpha", 0.25),
            &[-1.0, 0.0, 1.0],
            &[0.25, 0.25, 1.0],
        ),
        (
            kinked("LeakyRelu").float("alpha", -0.25),
            &[-1.0, 0.0, 1.0],
            &[-0.25, -0.25, 1.0],
        ),
        (
            kinked("Elu").float("alpha", 1.75),
            &[-1.0, 0.0, 1.0],
            &[0.643_789_022_050_018_7, 1.75, 1.0],
        ),
        (
            kinked("Selu"),
            &[-1.0, 0.0, 1.0],
            &[
                0.646_768_603_034_814,
                1.758_099_340_847_376_6,
                1.050_700_987_355_480_5,
            ],
        ),
        (
            kinked("Celu").float("alpha", 0.5).single(),
            &[-1.0, 0.0, 1.0],
            &[0.135_335_283_236_612_7, 1.0, 1.0],
        ),
        (
            kinked("HardSigmoid").float("alpha", 1.0 / 6.0),
            &[-4.0, -3.0, 0.0, 3.0, 4.0],
            &[0.0, 0.0, 1.0 / 6.0, 0.0, 0.0],
        ),
        (
            kinked("HardSwish"),
            &[-4.0, -3.0, -2.0, 0.0, 3.0, 4.0],
            &[0.0, 0.0, -1.0 / 6.0, 0.5, 1.0, 1.0],
        ),
        (kinked("Softsign"), &[-1.0, 0.0, 1.0], &[0.25, 1.0, 0.25]),
        (
            kinked("ThresholdedRelu"),
            &[0.0, 1.0, 2.0],
            &[0.0, 0.0, 1.0],
        ),
        (
            kinked("Shrink"),
            &[-1.0, -0.5, 0.0, 0.5, 1.0],
            &[1.0, 0.0, 0.0, 0.0, 1.0],
        ),
        (kinked("Abs"), &[-1.0, 0.0, 1.0], &[-1.0, 0.0, 1.0]),
    ] {
        // The defaults of `Selu` and the like are single-precision numbers.
        assert_close(&slopes(case, points), expected, 1e-7);
    }
}

#[test]
fn clip_lets_nothing_through_at_its_bounds() {
    let points = [-2.0, -1.0, 0.0, 1.0, 2.0];
    let clip = |low, high| Case::new("Clip", vec![low, high]);
    let both = clip(scalar(-1.0), scalar(1.0));
    assert_close(&slopes(both, &points), &[0.0, 0.0, 1.0, 0.0, 0.0], 0.0);
    let low = clip(scalar(-1.0), Input::Absent);
    assert_close(&slopes(low, &points), &[0.0, 0.0, 1.0, 1.0, 1.0], 0.0);
    let high = clip(Input::Absent, scalar(1.0));
    assert_close(&slopes(high, &points), &[1.0, 1.0, 1.0, 0.0, 0.0], 0.0);
    let crossed = clip(scalar(1.0), scalar(-1.0));
    assert_close(&slopes(crossed, &points), &[0.0; 5], 0.0);
}

#[test]
fn clip_shares_ties_with_a_bound_that_is_differentiated() {
    let clip = |points: &[f64], low: f64, high: f64| {
        let inputs = vec![
            array(&[points.len()], points),
            array(&[], &[low]),
            array(&[], &[high]),
        ];
        let ones = ArrayD::ones(ndarray::IxDyn(&[points.len()]));
        Case::new("Clip", inputs.into_iter().map(Input::Fixed).collect())
            .gradients(&[ones], 1)
            .cotangents
    };
    let found = clip(&[-2.0, -1.0, 0.0, 1.0, 2.0], -1.0, 1.0);
    assert_close(&found[0], &[0.0, 0.5, 1.0, 0.5, 0.0], 0.0);
    assert_close(&found[1], &[1.5], 0.0);
    assert_close(&found[2], &[1.5], 0.0);
    // Where the bounds are crossed the upper one is the result, whatever x is.
    let found = clip(&[-2.0, -1.0, 0.0, 1.0, 2.0], 1.0, -1.0);
    assert_close(&found[0], &[0.0; 5], 0.0);
    assert_close(&found[1], &[0.0], 0.0);
    assert_close(&found[2], &[5.0], 0.0);
}

#[test]
fn the_slope_of_prelu_gets_nothing_from_zero_and_above() {
    let inputs = vec![array(&[3], &[-1.0, 0.0, 1.0]), array(&[1], &[0.25])];
    let found = Case::new("PRelu", inputs.into_iter().map(Input::Fixed).collect())
        .gradients(&[array(&[3], &[1.0, 1.0, 1.0])], 1);
    assert_close(&found.cotangents[0], &[0.25, 0.25, 1.0], 0.0);
    assert_close(&found.cotangents[1], &[-1.0], 0.0);
}

#[test]
fn the_square_root_has_slope_zero_at_zero() {
    let found = slopes(Case::new("Sqrt", vec![]), &[0.0, 4.0]);
    assert_close(&found, &[0.0, 0.25], 0.0);
}

#[test]
fn extremes_stay_finite_and_exact() {
    // The smallest numbers here are denormal in single precision.
    let points = [-1e30, -100.0, -1e-40, 0.0, 1e-40, 100.0, 1e30];
    let of = |op_type| Case::new(op_type, vec![]).single();
    let gamma = 1.050_701;
    for (case, expected) in [
        // The rule's step function is steep, not vertical: it is 1 from 3.3e-39 on, and 1e-40 is denormal.
        (of("Relu"), [0.0, 0.0, 0.0, 0.0, 0.03, 1.0, 1.0]),
        (of("LeakyRelu"), [0.01, 0.01, 0.01, 0.01, 1.0, 1.0, 1.0]),
        (of("Elu"), [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (
            of("Selu"),
            [0.0, 0.0, 1.758_099_3, 1.758_099_3, gamma, gamma, gamma],
        ),
        (of("Celu"), [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (
            of("Celu").float("alpha", 0.01),
            [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        ),
        (of("Sigmoid"), [0.0, 0.0, 0.25, 0.25, 0.25, 0.0, 0.0]),
        (of("HardSwish"), [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0]),
        (of("Tanh"), [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
        (of("Softplus"), [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0]),
        (
            of("Softsign"),
            [0.0, 9.802_96e-5, 1.0, 1.0, 1.0, 9.802_96e-5, 0.0],
        ),
        (of("Gelu").opset(20), [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0]),
        (
            of("Gelu").opset(20).string("approximate", "tanh"),
            [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0],
        ),
        (of("Mish"), [0.0, 0.0, 0.6, 0.6, 0.6, 1.0, 1.0]),
        (of("Swish").opset(24), [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0]),
        (
            of("Erf"),
            [
                0.0,
                0.0,
                std::f64::consts::FRAC_2_SQRT_PI,
                std::f64::consts::FRAC_2_SQRT_PI,
                std::f64::consts::FRAC_2_SQRT_PI,
                0.0,
                0.0,
            ],
        ),
        (of("Abs"), [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0]),
        (of("Atan"), [0.0, 9.999e-5, 1.0, 1.0, 1.0, 9.999e-5, 0.0]),
        (
            of("Asinh"),
            [0.0, 0.009_999_5, 1.0, 1.0, 1.0, 0.009_999_5, 0.0],
        ),
    ] {
        assert_close(&slopes(case, &points), &expected, 1e-6);
    }
}

#[test]
fn exponential_units_keep_their_digits_far_below_zero() {
    // e⁻³⁰: y + α has long been rounded to 0 there.
    for op_type in ["Elu", "Celu"] {
        let found = slopes(Case::new(op_type, vec![]).single(), &[-30.0]);
        assert_close(&found, &[9.357_622_97e-14], 1e-19);
    }
}
