//! Resizing: every mode, rounding and way to count coordinates; scales, sizes and axes; one to three axes.

use super::{Case, Input, N, ints, linear, varied};
use mohs::tensor::Tensor;

const COORDINATES: [&str; 6] = [
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "tf_half_pixel_for_nn",
];

fn floats(values: &[f32]) -> Input {
    Input::Constant(Tensor::new(&[values.len()], values.to_vec()).unwrap())
}

/// A case with scales.
fn scaled(shape: &[usize], scales: &[f32]) -> Case {
    let inputs = vec![varied(shape), Input::Absent, floats(scales)];
    linear(Case::new("Resize", inputs).opset(19).single())
}

/// A case with sizes.
fn sized(shape: &[usize], sizes: &[i64]) -> Case {
    let inputs = vec![varied(shape), Input::Absent, Input::Absent, ints(sizes)];
    linear(Case::new("Resize", inputs).opset(19).single())
}

#[test]
fn nearest_in_every_rounding_and_coordinate_mode() {
    for coordinates in COORDINATES {
        for rounding in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
            let modes = |case: Case| {
                case.string("coordinate_transformation_mode", coordinates)
                    .string("nearest_mode", rounding)
            };
            modes(scaled(&[N, 2, 3, 4], &[1.0, 1.0, 2.0, 3.0])).check();
            modes(scaled(&[N, 2, 5, 4], &[1.0, 1.0, 0.6, 1.7])).check();
            modes(sized(&[2, 2, 3, 4], &[2, 2, 5, 2])).check();
        }
    }
}

#[test]
fn linear_in_every_coordinate_mode_up_and_down() {
    for coordinates in COORDINATES {
        for antialias in [0, 1] {
            let modes = |case: Case| {
                case.string("coordinate_transformation_mode", coordinates)
                    .string("mode", "linear")
                    .int("antialias", antialias)
            };
            modes(scaled(&[N, 2, 3, 4], &[1.0, 1.0, 2.0, 3.0])).check();
            modes(scaled(&[N, 2, 5, 4], &[1.0, 1.0, 0.6, 1.7])).check();
            modes(sized(&[2, 2, 3, 4], &[2, 2, 7, 3])).check();
        }
    }
}

#[test]
fn cubic_in_every_coordinate_mode_with_its_coefficient_and_outside() {
    for coordinates in COORDINATES {
        for (antialias, exclude_outside, coefficient) in
            [(0, 0, -0.75), (0, 1, -0.5), (1, 0, -0.5), (1, 1, -0.75)]
        {
            let modes = |case: Case| {
                case.string("coordinate_transformation_mode", coordinates)
                    .string("mode", "cubic")
                    .int("antialias", antialias)
                    .int("exclude_outside", exclude_outside)
                    .float("cubic_coeff_a", coefficient)
            };
            modes(scaled(&[N, 2, 4, 3], &[1.0, 1.0, 2.0, 1.5])).check();
            modes(sized(&[2, 1, 6, 5], &[2, 1, 4, 9])).check();
        }
    }
}

#[test]
fn one_and_three_axes() {
    for (mode, rounding) in [("nearest", "floor"), ("linear", "round_prefer_floor")] {
        let modes = |case: Case| case.string("mode", mode).string("nearest_mode", rounding);
        modes(scaled(&[N, 2, 4], &[1.0, 1.0, 2.5])).check();
        modes(scaled(&[N, 2, 3, 2, 4], &[1.0, 1.0, 2.0, 1.5, 0.5])).check();
        modes(sized(&[2, 2, 3, 2, 2], &[2, 2, 4, 3, 5])).check();
        modes(sized(&[3, 5], &[4, 7])).check();
    }
    scaled(&[4], &[2.0]).check();
    scaled(&[N, 4, 3, 2], &[1.0, 2.0, 3.0, 1.0]).check();
}

#[test]
fn the_axes_may_be_named() {
    scaled(&[N, 3, 4, 2], &[3.0, 2.0])
        .ints("axes", &[2, 1])
        .check();
    let linear = |case: Case| case.string("mode", "linear");
    linear(sized(&[2, 2, 3, 4], &[5, 7]))
        .ints("axes", &[2, 3])
        .check();
    linear(scaled(&[N, 2, 3, 4], &[1.5, 0.5]))
        .ints("axes", &[-1, -2])
        .check();
}

#[test]
fn the_scales_and_sizes_may_come_from_outside() {
    let scales = Tensor::new(&[4], vec![1.0f32, 1.0, 1.5, 2.0]).unwrap();
    for mode in ["nearest", "linear"] {
        let inputs = vec![
            varied(&[N, 2, 4, 3]),
            Input::Absent,
            Input::Fed(scales.clone()),
        ];
        let case = linear(Case::new("Resize", inputs).single());
        case.string("mode", mode).check();
        let sizes = Input::Fed(Tensor::new(&[2], vec![7i64, 5]).unwrap());
        let inputs = vec![varied(&[N, 2, 4, 3]), Input::Absent, Input::Absent, sizes];
        let case = linear(Case::new("Resize", inputs).single());
        case.string("mode", mode).ints("axes", &[2, 3]).check();
    }
}

#[test]
fn a_policy_keeps_the_ratio_of_the_sides() {
    for policy in ["not_larger", "not_smaller", "stretch"] {
        for (mode, shape, sizes) in [
            ("nearest", [2, 1, 4, 6], [7, 8]),
            ("nearest", [2, 1, 5, 3], [8, 9]),
            ("linear", [2, 1, 4, 6], [7, 8]),
            ("linear", [1, 2, 7, 5], [4, 4]),
            ("cubic", [1, 2, 7, 5], [4, 4]),
        ] {
            sized(&shape, &sizes)
                .string("mode", mode)
                .string("keep_aspect_ratio_policy", policy)
                .ints("axes", &[2, 3])
                .check();
        }
    }
}

#[test]
fn a_crop_takes_its_region_and_nothing_outside() {
    let roi = floats(&[0.0, 0.0, 0.2, -0.3, 1.0, 1.0, 0.9, 1.2]);
    for mode in ["nearest", "linear", "cubic"] {
        for (sizes, extrapolation) in [
            ([2, 2, 3, 7], 0.0),
            ([2, 2, 5, 5], 3.0),
            ([2, 2, 1, 4], 0.0),
        ] {
            let inputs = vec![
                varied(&[2, 2, 5, 4]),
                roi.clone(),
                Input::Absent,
                ints(&sizes),
            ];
            linear(Case::new("Resize", inputs).single())
                .string("mode", mode)
                .string("coordinate_transformation_mode", "tf_crop_and_resize")
                .float("extrapolation_value", extrapolation)
                .check();
        }
    }
    let inputs = vec![
        varied(&[2, 2, 5, 4]),
        floats(&[0.1, 0.2, 0.6, 0.7]),
        floats(&[1.0, 2.0]),
    ];
    linear(Case::new("Resize", inputs).single())
        .string("mode", "linear")
        .ints("axes", &[2, 3])
        .string("coordinate_transformation_mode", "tf_crop_and_resize")
        .check();
}

#[test]
fn repeating_entries_needs_no_matrix() {
    for (coordinates, rounding, blocks) in [
        ("asymmetric", "floor", true),
        ("half_pixel", "round_prefer_floor", true),
        ("half_pixel", "floor", false),
        ("align_corners", "round_prefer_floor", false),
    ] {
        let case = scaled(&[N, 2, 3, 4], &[1.0, 1.0, 2.0, 2.0])
            .string("coordinate_transformation_mode", coordinates)
            .string("nearest_mode", rounding);
        assert_eq!(
            case.gradient_operators().contains(&"MatMul".into()),
            !blocks,
            "{coordinates} {rounding}"
        );
    }
}
