//! Reading images between their pixels.

use super::{Case, Input, N, array, assert_close, between, linear, varied};
use mohs::tensor::Tensor;

fn constant(shape: &[usize], values: Vec<f64>, single: bool) -> Input {
    Input::Constant(if single {
        Tensor::new(shape, values.iter().map(|&value| value as f32).collect()).unwrap()
    } else {
        Tensor::new(shape, values).unwrap()
    })
}

fn indices(values: &[i64]) -> Input {
    Input::Constant(Tensor::new(&[values.len()], values.to_vec()).unwrap())
}

#[test]
fn grids_in_every_mode_with_everything_that_lies_outside() {
    for padding in ["zeros", "border", "reflection"] {
        for centres in [0, 1] {
            for mode in ["linear", "nearest", "cubic"] {
                for seed in 0..3 {
                    // Far enough outside to be mirrored twice.
                    let inputs = vec![varied(&[N, 2, 4, 3]), between(&[N, 3, 2, 2], -2.6, 2.6)];
                    Case::new("GridSample", inputs)
                        .opset(20)
                        .string("mode", mode)
                        .string("padding_mode", padding)
                        .int("align_corners", centres)
                        .seed(seed)
                        .check();
                }
            }
            for mode in ["linear", "nearest"] {
                let inputs = vec![
                    varied(&[N, 2, 3, 2, 4]),
                    between(&[N, 2, 1, 3, 3], -2.6, 2.6),
                ];
                Case::new("GridSample", inputs)
                    .opset(20)
                    .string("mode", mode)
                    .string("padding_mode", padding)
                    .int("align_corners", centres)
                    .check();
            }
        }
    }
}

#[test]
fn grids_before_opset_20() {
    for mode in ["bilinear", "nearest", "bicubic"] {
        let inputs = vec![varied(&[N, 2, 4, 3]), between(&[N, 3, 2, 2], -0.9, 0.9)];
        Case {
            step: 1e-3,
            ..Case::new("GridSample", inputs).single()
        }
        .string("mode", mode)
        .check();
    }
}

#[test]
fn at_the_border_itself_a_grid_has_no_gradient() {
    // PyTorch's choice: 0 at and beyond the centre of the last pixel.
    let x = Input::Fixed(array(&[1, 1, 1, 3], &[1.0, 3.0, 7.0]));
    let grid = array(&[1, 1, 4, 2], &[-1.0, 0.0, 1.0, 0.0, 0.5, 0.0, 1.5, 0.0]);
    let case = Case::new("GridSample", vec![x, Input::Fixed(grid)]).opset(20);
    let case = case
        .string("padding_mode", "border")
        .int("align_corners", 1);
    let found = case.gradients(&[array(&[1, 1, 1, 4], &[1.0; 4])], 1);
    let expected = [0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0];
    assert_close(&found.cotangents[1], &expected, 1e-12);
}

#[test]
fn affine_grids_on_the_plane_and_in_space() {
    for centres in [0, 1] {
        for (theta, size) in [
            (&[2, 2, 3][..], &[2, 1, 3, 4][..]),
            (&[1, 2, 3], &[1, 2, 1, 5]),
            (&[2, 3, 4], &[2, 1, 2, 3, 2]),
        ] {
            let inputs = vec![varied(theta), indices(size)];
            linear(Case::new("AffineGrid", inputs).opset(20))
                .int("align_corners", centres)
                .check();
        }
    }
}

#[test]
fn regions_are_averaged_with_fixed_and_adaptive_sampling() {
    let regions = vec![
        0.5, 1.0, 4.2, 3.7, 2.0, 0.0, 7.0, 6.5, -1.0, -2.0, 3.0, 9.0, 1.0, 1.0, 1.2, 1.1,
    ];
    for form in [None, Some("half_pixel"), Some("output_half_pixel")] {
        for ratio in [0, 1, 2] {
            let inputs = vec![
                varied(&[2, 3, 5, 4]),
                constant(&[4, 4], regions.clone(), false),
                indices(&[0, 1, 1, 0]),
            ];
            let case = linear(Case::new("RoiAlign", inputs))
                .int("output_height", 2)
                .int("output_width", 3)
                .int("sampling_ratio", ratio)
                .float("spatial_scale", 0.7);
            match form {
                Some(form) => case.string("coordinate_transformation_mode", form).check(),
                None => case.check(),
            }
        }
    }
}

#[test]
fn the_largest_weighted_pixel_of_each_bin_has_the_cotangent() {
    let regions = vec![
        0.5, 1.0, 4.2, 3.7, 2.0, 0.0, 7.0, 6.5, -1.0, -2.0, 3.0, 9.0, 1.0, 1.0, 1.2, 1.1,
    ];
    for form in ["half_pixel", "output_half_pixel"] {
        for samples in [1, 2] {
            let inputs = vec![
                varied(&[2, 3, 5, 4]),
                constant(&[4, 4], regions.clone(), false),
                indices(&[0, 1, 1, 0]),
            ];
            Case::new("RoiAlign", inputs)
                .string("mode", "max")
                .string("coordinate_transformation_mode", form)
                .int("output_height", 2)
                .int("output_width", 3)
                .int("sampling_ratio", samples)
                .float("spatial_scale", 0.7)
                .check();
        }
    }
}

#[test]
fn the_largest_of_adaptive_samples_and_regions_that_move_are_refused() {
    let x = varied(&[1, 1, 4, 4]);
    let regions = constant(&[1, 4], vec![0.0, 0.0, 3.0, 3.0], false);
    let case = Case::new("RoiAlign", vec![x.clone(), regions, indices(&[0])]);
    assert!(case.string("mode", "max").refusal().contains("`max`"));
    let case = Case::new("RoiAlign", vec![x, varied(&[1, 4]), indices(&[0])]);
    assert!(case.refusal().contains("regions"));
}

#[test]
fn the_largest_of_each_bin_of_a_region_has_the_cotangent() {
    let regions = vec![
        0.0, 0.0, 0.0, 3.0, 4.0, 1.0, 1.0, 2.0, 5.0, 5.0, 1.0, 4.0, 1.0, 9.0, 9.0, 0.0, 3.0, 3.0,
        3.0, 3.0, 1.0, 8.0, 8.0, 9.0, 9.0,
    ];
    for (pooled, scale) in [([2, 3], 1.0), ([1, 1], 0.6), ([4, 2], 0.5)] {
        for seed in 0..3 {
            let inputs = vec![
                varied(&[2, 3, 5, 6]),
                constant(&[5, 5], regions.clone(), true),
            ];
            let case = Case {
                step: 1e-3,
                ..Case::new("MaxRoiPool", inputs).single()
            };
            case.ints("pooled_shape", &pooled)
                .float("spatial_scale", scale)
                .seed(seed)
                .check();
        }
    }
}

#[test]
fn among_equal_entries_of_a_region_the_first_has_the_cotangent() {
    let x = Input::Fixed(array(&[1, 1, 2, 2], &[1.0, 5.0, 5.0, 5.0]));
    let region = constant(&[1, 5], vec![0.0, 0.0, 0.0, 1.0, 1.0], true);
    let case = Case::new("MaxRoiPool", vec![x, region])
        .single()
        .ints("pooled_shape", &[1, 1]);
    let found = case.gradients(&[array(&[1, 1, 1, 1], &[2.0])], 1);
    assert_close(&found.cotangents[0], &[0.0, 2.0, 0.0, 0.0], 0.0);
}

#[test]
fn deformable_convolutions_at_every_operand() {
    for (groups, parts, masked) in [(1, 1, true), (2, 1, false), (1, 2, true), (2, 2, true)] {
        let mut inputs = vec![
            varied(&[N, 4, 4, 5]),
            varied(&[2, 4 / groups, 3, 2]),
            between(&[N, parts * 12, 2, 3], -1.4, 1.4),
            varied(&[2]),
        ];
        if masked {
            inputs.push(varied(&[N, parts * 6, 2, 3]));
        }
        Case::new("DeformConv", inputs)
            .opset(19)
            .int("group", groups as i64)
            .int("offset_group", parts as i64)
            .ints("strides", &[2, 2])
            .ints("pads", &[1, 1, 0, 0])
            .check();
    }
    let inputs = vec![
        varied(&[N, 2, 5, 5]),
        varied(&[3, 2, 2, 2]),
        between(&[N, 8, 3, 3], -1.4, 1.4),
    ];
    Case::new("DeformConv", inputs)
        .opset(19)
        .ints("dilations", &[2, 2])
        .check();
}
