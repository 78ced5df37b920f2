//! Normalisations and dropout.

use super::*;
use proptest::prelude::*;

#[test]
fn batch_normalization_at_every_operand() {
    for shape in [
        &[N, 3][..],
        &[N, 3, 4],
        &[N, 3, 4, 2],
        &[N, 3, 2, 1, 2],
        &[2, 3, 4],
    ] {
        let parameters = || varied(&[3]);
        let variance = between(&[3], 0.5, 2.0);
        let inputs = vec![
            varied(shape),
            parameters(),
            parameters(),
            parameters(),
            variance,
        ];
        let case = Case::new("BatchNormalization", inputs);
        case.clone().check();
        case.float("epsilon", 0.1).check();
    }
}

#[test]
fn batch_normalization_in_training_is_refused() {
    let inputs = vec![
        varied(&[N, 3, 4]),
        varied(&[3]),
        varied(&[3]),
        varied(&[3]),
        between(&[3], 0.5, 2.0),
    ];
    let case = Case::new("BatchNormalization", inputs)
        .int("training_mode", 1)
        .outputs(3);
    let reason = case.refusal();
    assert!(reason.contains("training mode"), "{reason}");
}

#[test]
fn instance_normalization_at_every_operand() {
    for shape in [&[N, 3, 5][..], &[N, 3, 4, 2], &[2, 3, 2, 3, 2]] {
        let inputs = vec![varied(shape), varied(&[3]), varied(&[3])];
        let case = Case::new("InstanceNormalization", inputs).single();
        Case {
            tolerance: 5e-3,
            ..case.float("epsilon", 0.05)
        }
        .check();
    }
}

#[test]
fn layer_normalization_over_the_last_axes() {
    let cases: [(&[usize], &[usize], i64); 6] = [
        (&[N, 5], &[5], -1),
        (&[N, 3, 5], &[5], -1),
        (&[N, 3, 5], &[3, 5], -2),
        (&[N, 3, 5], &[3, 5], 1),
        (&[2, 3, 2, 4], &[3, 2, 4], 1),
        (&[N, 3, 5], &[1, 5], 1),
    ];
    for (shape, scale, axis) in cases {
        for epsilon in [1e-5, 0.1] {
            let inputs = vec![varied(shape), varied(scale), varied(scale)];
            let case = Case::new("LayerNormalization", inputs);
            case.int("axis", axis).float("epsilon", epsilon).check();
        }
        let inputs = vec![varied(shape), varied(scale)];
        Case::new("LayerNormalization", inputs)
            .int("axis", axis)
            .check();
    }
}

#[test]
fn layer_normalization_whose_statistics_are_used() {
    for axis in [-1, 1] {
        let scale: &[usize] = if axis == 1 { &[3, 6] } else { &[6] };
        let inputs = vec![varied(&[N, 3, 6]), varied(scale), varied(scale)];
        let case = Case::new("LayerNormalization", inputs).single().outputs(3);
        Case {
            tolerance: 5e-3,
            ..case.int("axis", axis).float("epsilon", 0.05)
        }
        .check();
    }
}

#[test]
fn layer_normalization_of_equal_numbers_stays_finite() {
    let equal = Input::Fixed(array(&[1, 4], &[2.0; 4]));
    let case = Case::new(
        "LayerNormalization",
        vec![equal, varied(&[4]), varied(&[4])],
    );
    let found = case.gradients(&[array(&[1, 4], &[1.0, -1.0, 2.0, 0.5])], 1);
    assert!(found.cotangents[0].iter().all(|value| value.is_finite()));
    assert_close(&found.cotangents[1], &[0.0; 4], 1e-12);
}

#[test]
fn group_normalization_with_a_number_per_channel() {
    for shape in [&[N, 4, 3][..], &[N, 4, 3, 2], &[2, 4, 2, 2, 2]] {
        for groups in [1, 2, 4] {
            let inputs = vec![varied(shape), varied(&[4]), varied(&[4])];
            let case = Case::new("GroupNormalization", inputs).single().opset(21);
            let case = case.int("num_groups", groups).float("epsilon", 0.05);
            Case {
                tolerance: 5e-3,
                ..case
            }
            .check();
        }
    }
}

#[test]
fn group_normalization_with_a_number_per_group() {
    let inputs = vec![varied(&[N, 6, 3]), varied(&[2]), varied(&[2])];
    let case = Case::new("GroupNormalization", inputs).single().opset(18);
    let case = case.int("num_groups", 2).float("epsilon", 0.05);
    Case {
        tolerance: 5e-3,
        ..case
    }
    .check();
}

#[test]
fn local_response_normalization_with_windows_of_all_sizes() {
    for size in [1, 3, 5, 9] {
        let case = Case::new("LRN", vec![varied(&[N, 6, 3, 2])]).single();
        let case = case.int("size", size).float("alpha", 0.5);
        case.clone().check();
        case.float("beta", 1.5).float("bias", 2.0).check();
    }
}

fn switch(on: bool) -> Input {
    Input::Constant(Tensor::new(&[], vec![on]).unwrap())
}

#[test]
fn dropout_that_is_off_is_the_identity() {
    let ratio = |value: f64| Input::Constant(Tensor::new(&[], vec![value]).unwrap());
    let x = || varied(&[N, 3]);
    Case::new("Dropout", vec![x()]).check();
    Case::new("Dropout", vec![x(), ratio(0.3)]).check();
    Case::new("Dropout", vec![x(), ratio(0.3), switch(false)]).check();
    Case::new("Dropout", vec![x(), Input::Absent, switch(false)])
        .outputs(2)
        .check();
    Case::new("Dropout", vec![x(), ratio(0.0), switch(true)]).check();
}

#[test]
fn dropout_in_training_is_refused() {
    let case = Case::new(
        "Dropout",
        vec![varied(&[N, 3]), Input::Absent, switch(true)],
    );
    let reason = case.refusal();
    assert!(reason.contains("training mode"), "{reason}");
}

#[test]
fn dropout_with_a_switch_from_outside_is_refused() {
    let fed = Input::Fed(Tensor::new(&[], vec![false]).unwrap());
    let reason = Case::new("Dropout", vec![varied(&[N, 3]), Input::Absent, fed]).refusal();
    assert!(reason.contains("computed from the data"), "{reason}");
}

proptest! {
    #![proptest_config(proptest_config(32))]

    #[test]
    fn layer_normalization_of_any_shape(
        shape in proptest::collection::vec(1_usize..5, 1..4),
        from_back in 1_usize..4,
        seed: u64,
    ) {
        let from_back = from_back.min(shape.len());
        let scale = shape[shape.len() - from_back..].to_vec();
        let shape: Vec<usize> = [N].into_iter().chain(shape).collect();
        let inputs = vec![varied(&shape), varied(&scale), varied(&scale)];
        let case = Case::new("LayerNormalization", inputs).int("axis", -(from_back as i64));
        case.float("epsilon", 1e-2).seed(seed).check();
    }

    #[test]
    fn batch_normalization_of_any_shape(
        channels in 1_usize..4,
        spatial in proptest::collection::vec(1_usize..4, 0..4),
        seed: u64,
    ) {
        let shape: Vec<usize> = [N, channels].into_iter().chain(spatial).collect();
        let mut inputs = vec![varied(&shape)];
        inputs.extend((0..3).map(|_| varied(&[channels])));
        inputs.push(between(&[channels], 0.5, 2.0));
        Case::new("BatchNormalization", inputs).seed(seed).check();
    }
}

#[test]
fn rms_normalization_over_any_trailing_axes() {
    for (shape, scale, axis) in [
        (&[N, 3, 4][..], &[4][..], -1),
        (&[N, 3, 4], &[3, 4], 1),
        (&[N, 5], &[5], 1),
        (&[2, 3], &[2, 3], 0),
        (&[N, 2, 3, 2], &[3, 2], -2),
        (&[N, 3, 4], &[1], -1),
    ] {
        let inputs = vec![varied(shape), varied(scale)];
        let case = Case::new("RMSNormalization", inputs).opset(23);
        case.clone().int("axis", axis).check();
        case.int("axis", axis).float("epsilon", 0.1).check();
    }
}

#[test]
fn lp_normalization_of_both_orders() {
    for p in [1, 2] {
        for axis in [-1, 0, 1, 2] {
            let case = Case::new("LpNormalization", vec![varied(&[N, 3, 4])]);
            case.int("p", p).int("axis", axis).check();
        }
        Case::new("LpNormalization", vec![varied(&[5])])
            .int("p", p)
            .check();
    }
    Case::new("LpNormalization", vec![varied(&[N, 3])]).check();
}

#[test]
fn a_norm_of_zero_has_no_gradient() {
    for p in [1, 2] {
        let x = Input::Fixed(array(&[2, 2], &[0.0, 0.0, 3.0, 4.0]));
        let case = Case::new("LpNormalization", vec![x]).int("p", p);
        let found = case.gradients(&[array(&[2, 2], &[1.0, -2.0, 1.0, 0.0])], 1);
        let row: &[f64] = if p == 1 {
            &[4.0 / 49.0, -3.0 / 49.0]
        } else {
            &[16.0 / 125.0, -12.0 / 125.0]
        };
        assert_close(&found.cotangents[0], &[&[0.0, 0.0], row].concat(), 1e-12);
    }
}

#[test]
fn mean_variance_normalization_over_any_axes() {
    let case =
        |shape: &[usize]| Case::new("MeanVarianceNormalization", vec![varied(shape)]).single();
    case(&[2, 3, 4, 2]).check();
    case(&[N, 3, 4, 2]).ints("axes", &[2, 3]).check();
    case(&[N, 3, 4]).ints("axes", &[-1]).check();
    case(&[N, 3, 4]).ints("axes", &[1, 2]).check();
    case(&[2, 6]).ints("axes", &[0]).check();
}

#[test]
fn without_variance_there_is_no_gradient() {
    let x = Input::Fixed(array(&[2, 2], &[5.0, 5.0, 1.0, 3.0]));
    let case = Case::new("MeanVarianceNormalization", vec![x])
        .single()
        .ints("axes", &[1]);
    let found = case.gradients(&[array(&[2, 2], &[1.0, -2.0, 1.0, 0.0])], 1);
    assert_close(&found.cotangents[0], &[0.0, 0.0, 0.0, 0.0], 1e-6);
}
