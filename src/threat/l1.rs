//! ℓ1: the sum of absolute changes.

use crate::rng::Stream;
use rand::Rng;
use rand_distr::Exp1;

/// The sum of the absolute values.
pub(super) fn length(differences: impl Iterator<Item = f64>) -> f64 {
    differences.map(f64::abs).sum()
}

/// Uniform in the ball of radius 1.
///
/// `width + 1` exponentials divided by their sum are uniform on the simplex; dropping the last one makes them uniform in the
/// part of the ball where all are positive, and random signs spread them over the whole of it.
pub(super) fn draw(width: usize, stream: &mut Stream) -> Vec<f32> {
    let exponentials: Vec<f64> = (0..=width).map(|_| stream.sample(Exp1)).collect();
    let total = exponentials.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    exponentials
        .into_iter()
        .take(width)
        .map(|value| {
            let sign = if stream.random::<bool>() { 1.0 } else { -1.0 };
            (sign * value / total) as f32
        })
        .collect()
}
