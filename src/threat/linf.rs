//! ℓ∞: the largest absolute change of any element.

use crate::rng::Stream;
use rand::Rng;

/// The largest of the absolute values; NaN where one is NaN.
pub(super) fn length(differences: impl Iterator<Item = f64>) -> f64 {
    differences.fold(0.0, |largest: f64, difference| {
        if difference.is_nan() || largest.is_nan() {
            f64::NAN
        } else {
            largest.max(difference.abs())
        }
    })
}

/// Uniform in the cube [−1, 1]^width.
pub(super) fn draw(width: usize, stream: &mut Stream) -> Vec<f32> {
    (0..width)
        .map(|_| (2.0 * stream.random::<f64>() - 1.0) as f32)
        .collect()
}
