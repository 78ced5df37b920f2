//! ℓ0: how many elements are changed. No norm in the strict sense: twice a perturbation is as long as the perturbation.

use crate::rng::Stream;
use rand::Rng;

/// The number of differences that are not 0; NaN where one is NaN.
pub(super) fn length(differences: impl Iterator<Item = f64>) -> f64 {
    differences
        .map(|difference| match difference {
            difference if difference.is_nan() => f64::NAN,
            0.0 => 0.0,
            _ => 1.0,
        })
        .sum()
}

/// One element of [−1, 1] at a place of its own, 0 elsewhere.
pub(super) fn draw(width: usize, stream: &mut Stream) -> Vec<f32> {
    let mut drawn = vec![0.0; width];
    if width > 0 {
        let place = stream.random_range(0..width);
        drawn[place] = stream.random_range(-1.0..=1.0);
    }
    drawn
}
