//! ℓ2: the Euclidean length.

use crate::rng::Stream;
use rand::Rng;
use rand_distr::StandardNormal;

/// The root of the sum of squares.
pub(super) fn length(differences: impl Iterator<Item = f64>) -> f64 {
    differences
        .map(|difference| difference * difference)
        .sum::<f64>()
        .sqrt()
}

/// Uniform in the ball of radius 1: a Gaussian direction, and a radius of U^(1/width) as the volume grows with the power `width`.
pub(super) fn draw(width: usize, stream: &mut Stream) -> Vec<f32> {
    let direction: Vec<f64> = (0..width).map(|_| stream.sample(StandardNormal)).collect();
    let radius = stream.random::<f64>().powf(1.0 / width as f64);
    // A length of 0 needs every Gaussian to be 0; the draw is then 0, not NaN.
    let scale = radius / length(direction.iter().copied()).max(f64::MIN_POSITIVE);
    direction
        .into_iter()
        .map(|value| (value * scale) as f32)
        .collect()
}
