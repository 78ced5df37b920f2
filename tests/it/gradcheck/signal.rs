//! Fourier transforms and overlapping blocks.

use super::{Case, Input, N, ints, linear, varied};
use mohs::tensor::Tensor;

fn scalar(value: i64) -> Input {
    Input::Constant(Tensor::new(&[], vec![value]).unwrap())
}

#[test]
fn transforms_of_real_and_complex_signals_both_ways() {
    for length in [1, 5, 8] {
        for components in [1, 2] {
            for inverse in [0, 1] {
                let inputs = vec![varied(&[N, length, components])];
                linear(Case::new("DFT", inputs))
                    .int("inverse", inverse)
                    .check();
                let inputs = vec![varied(&[2, length, components]), Input::Absent, scalar(1)];
                linear(Case::new("DFT", inputs).opset(20))
                    .int("inverse", inverse)
                    .check();
            }
        }
        linear(Case::new("DFT", vec![varied(&[N, length, 1])]))
            .int("onesided", 1)
            .check();
        let inputs = vec![varied(&[N, length, 1]), Input::Absent, scalar(-2)];
        linear(Case::new("DFT", inputs).opset(20))
            .int("onesided", 1)
            .check();
    }
}

#[test]
fn transforms_along_other_axes_and_of_other_lengths() {
    for axis in [1, 2, -2] {
        linear(Case::new("DFT", vec![varied(&[N, 3, 4, 2])]))
            .int("axis", axis)
            .check();
        let inputs = vec![varied(&[N, 3, 4, 2]), Input::Absent, scalar(axis)];
        linear(Case::new("DFT", inputs).opset(20)).check();
    }
    for (length, onesided) in [(3, 0), (9, 0), (3, 1), (8, 1)] {
        for inverse in [0, 1 - onesided] {
            let inputs = vec![varied(&[N, 6, 1]), scalar(length)];
            linear(Case::new("DFT", inputs))
                .int("onesided", onesided)
                .int("inverse", inverse)
                .check();
        }
    }
}

#[test]
fn real_signals_from_half_of_their_spectrum() {
    for (entries, length) in [(4, None), (5, Some(8)), (5, Some(9)), (3, Some(9))] {
        let length = length.map_or(Input::Absent, scalar);
        for opset in [18, 20] {
            let mut inputs = vec![varied(&[N, entries, 2]), length.clone()];
            if opset == 20 {
                inputs.push(scalar(1));
            }
            linear(Case::new("DFT", inputs).opset(opset))
                .int("inverse", 1)
                .int("onesided", 1)
                .check();
        }
    }
}

#[test]
fn more_of_a_spectrum_than_half_is_refused() {
    let inputs = vec![varied(&[N, 5, 2]), scalar(4)];
    let case = Case::new("DFT", inputs)
        .int("inverse", 1)
        .int("onesided", 1);
    assert!(case.refusal().contains("more of the spectrum"));
}

#[test]
fn short_time_transforms_with_windows_that_overlap_or_do_not() {
    for (step, length) in [(2, 4), (4, 4), (3, 5), (5, 3)] {
        for onesided in [0, 1] {
            let inputs = vec![varied(&[N, 12, 1]), scalar(step), varied(&[length])];
            linear(Case::new("STFT", inputs))
                .int("onesided", onesided)
                .check();
            let inputs = vec![
                varied(&[2, 12, 1]),
                scalar(step),
                Input::Absent,
                scalar(length as i64),
            ];
            linear(Case::new("STFT", inputs))
                .int("onesided", onesided)
                .check();
        }
    }
    let inputs = vec![varied(&[2, 9, 2]), scalar(2), varied(&[4])];
    linear(Case::new("STFT", inputs)).int("onesided", 0).check();
    let inputs = vec![varied(&[2, 12, 1]), scalar(2), varied(&[4]), scalar(4)];
    linear(Case::new("STFT", inputs)).check();
}

#[test]
fn blocks_that_overlap_are_taken_apart_again() {
    let case = |shape: &[usize], image: &[i64], block: &[i64]| {
        let inputs = vec![varied(shape), ints(image), ints(block)];
        linear(Case::new("Col2Im", inputs).single())
    };
    case(&[N, 8, 6], &[4, 3], &[2, 2]).check();
    case(&[N, 8, 4], &[4, 4], &[2, 2])
        .ints("strides", &[2, 2])
        .check();
    case(&[N, 4, 16], &[4, 3], &[2, 2])
        .ints("pads", &[1, 1, 0, 1])
        .check();
    case(&[N, 12, 9], &[5, 5], &[2, 2])
        .ints("dilations", &[2, 2])
        .check();
    case(&[N, 6, 4], &[6], &[3]).check();
    case(&[2, 8, 8], &[3, 3, 3], &[2, 2, 2]).check();
}
