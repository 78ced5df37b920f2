//! Threat models: which perturbations count, in which norm, how large, within which bounds.
//!
//! Everything here is exact, on the host, in float64, one sample at a time: it is what verdicts rest on.
//! The forms that run inside a graph are the attacks' own; this module knows of no attack.
//! Start at [`Norm`] and [`confine`]; each norm has a file of its own.

mod confine;
mod epsilon;
mod l0;
mod l1;
mod l2;
mod linf;
mod precision;

pub use confine::{confine, confine_to};
pub use epsilon::{Epsilon, EpsilonError, NumberError, parse_number};
pub use precision::Precision;

use crate::rng::Stream;
use std::{fmt, str::FromStr};

/// The norm in which a perturbation is measured, per sample, over all of the sample's elements.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest absolute change of any element.
    Linf,
    /// The Euclidean length.
    L2,
    /// The sum of absolute changes.
    L1,
    /// How many elements are changed, by however much.
    L0,
}

impl Norm {
    /// Every norm, in the order in which they are listed.
    pub const ALL: [Norm; 4] = [Norm::Linf, Norm::L2, Norm::L1, Norm::L0];

    /// Those that are norms in the strict sense, whose balls are convex.
    pub const CONVEX: [Norm; 3] = [Norm::Linf, Norm::L2, Norm::L1];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Norm::Linf => "linf",
            Norm::L2 => "l2",
            Norm::L1 => "l1",
            Norm::L0 => "l0",
        }
    }

    /// ‖adversarial − clean‖ in float64; both have one element for each of the sample's.
    ///
    /// # Panics
    /// Where the two differ in length.
    #[must_use]
    pub fn distance(self, clean: &[f32], adversarial: &[f32]) -> f64 {
        let differences = differences(clean, adversarial);
        match self {
            Norm::Linf => linf::length(differences),
            Norm::L2 => l2::length(differences),
            Norm::L1 => l1::length(differences),
            Norm::L0 => l0::length(differences),
        }
    }

    /// A perturbation of `width` elements, drawn uniformly from the ball of radius 1 (up to float32 rounding).
    ///
    /// The ball of ℓ0 has no uniform distribution: one element, any, is drawn from [−1, 1].
    #[must_use]
    pub fn draw(self, width: usize, stream: &mut Stream) -> Vec<f32> {
        match self {
            Norm::Linf => linf::draw(width, stream),
            Norm::L2 => l2::draw(width, stream),
            Norm::L1 => l1::draw(width, stream),
            Norm::L0 => l0::draw(width, stream),
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Norm {
    type Err = UnknownNorm;

    fn from_str(text: &str) -> Result<Self, UnknownNorm> {
        Norm::ALL
            .into_iter()
            .find(|norm| norm.name() == text)
            .ok_or_else(|| UnknownNorm(text.to_owned()))
    }
}

/// A text that names no norm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no norm `{0}`; the norms are linf, l2, l1 and l0")]
pub struct UnknownNorm(String);

/// The range of valid inputs, in the units of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The smallest valid value; `-∞` where there is none.
    pub low: f32,
    /// The largest valid value; `+∞` where there is none.
    pub high: f32,
}

impl Bounds {
    /// Every finite input is valid.
    pub const NONE: Bounds = Bounds {
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    };
    /// Images scaled to [0, 1].
    pub const UNIT: Bounds = Bounds {
        low: 0.0,
        high: 1.0,
    };

    /// Whether `value` is a number within the bounds.
    #[must_use]
    pub fn contain(self, value: f32) -> bool {
        self.low <= value && value <= self.high
    }
}

/// The length of one perturbation in every norm.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Distances {
    /// The largest absolute change of any element.
    pub linf: f64,
    /// The Euclidean length.
    pub l2: f64,
    /// The sum of absolute changes.
    pub l1: f64,
    /// How many elements are changed.
    pub l0: f64,
}

/// The distances between a clean sample and an adversarial one, in float64, as the values are stored.
///
/// # Panics
/// Where the two differ in length.
#[must_use]
pub fn distances(clean: &[f32], adversarial: &[f32]) -> Distances {
    Distances {
        linf: Norm::Linf.distance(clean, adversarial),
        l2: Norm::L2.distance(clean, adversarial),
        l1: Norm::L1.distance(clean, adversarial),
        l0: Norm::L0.distance(clean, adversarial),
    }
}

/// adversarial − clean, element by element, each rounded once, to float64.
fn differences(clean: &[f32], adversarial: &[f32]) -> impl Iterator<Item = f64> {
    assert_eq!(
        clean.len(),
        adversarial.len(),
        "the two points belong to one sample"
    );
    clean
        .iter()
        .zip(adversarial)
        .map(|(&clean, &adversarial)| f64::from(adversarial) - f64::from(clean))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Key, Purpose, stream};

    fn seeded(sample: u64) -> Stream {
        stream(Key {
            seed: 1,
            sample,
            restart: 0,
            purpose: Purpose::RandomStart,
        })
    }

    #[test]
    fn distances_are_those_of_the_stored_values() {
        let distances = distances(&[0.5, 0.25, -1.0], &[0.75, 0.25, -1.5]);
        assert_eq!(distances.linf, 0.5);
        assert_eq!(distances.l1, 0.75);
        assert_eq!(distances.l0, 2.0);
        assert_eq!(distances.l2, 0.3125_f64.sqrt());
    }

    #[test]
    fn a_distance_to_nan_is_never_within_a_ball() {
        for norm in Norm::ALL {
            let distance = norm.distance(&[0.0, 0.0], &[f32::NAN, 0.0]);
            assert!(distance.is_nan(), "{norm}: {distance}");
        }
    }

    #[test]
    fn draws_stay_in_the_unit_ball_and_fill_it() {
        for norm in Norm::CONVEX {
            for width in [1, 2, 7, 300] {
                let zero = vec![0.0; width];
                let mut lengths: Vec<f64> = (0..400)
                    .map(|sample| norm.distance(&zero, &norm.draw(width, &mut seeded(sample))))
                    .collect();
                lengths.sort_by(f64::total_cmp);
                assert!(lengths[399] <= 1.0 + 1e-6, "{norm} {width}");
                // Uniform in the ball: P(length ≤ r) = r^width, so the median is 2^(−1/width).
                let median = 0.5_f64.powf(1.0 / width as f64);
                let median_drawn = lengths[200];
                assert!(
                    (median - median_drawn).abs() < 0.08,
                    "{norm} {width}: {median_drawn} for {median}"
                );
            }
        }
    }

    #[test]
    fn draws_have_no_preferred_side() {
        for norm in Norm::CONVEX {
            let mut sums = [0.0; 5];
            for sample in 0..2000 {
                for (sum, value) in sums.iter_mut().zip(norm.draw(5, &mut seeded(sample))) {
                    *sum += f64::from(value) / 2000.0;
                }
            }
            assert!(sums.iter().all(|mean| mean.abs() < 0.05), "{norm} {sums:?}");
        }
    }

    #[test]
    fn draws_never_change_between_versions() {
        let drawn = Norm::CONVEX.map(|norm| norm.draw(3, &mut seeded(5)));
        assert_eq!(drawn, GOLDEN.map(Vec::from));
    }

    const GOLDEN: [[f32; 3]; 3] = [
        [-0.756_775_3, -0.398_249_7, -0.998_951],
        [-0.371_007_32, -0.647_754_5, 0.391_441_3],
        [0.019_632_643, 0.364_654_93, -0.000_745_889_15],
    ];

    #[test]
    fn a_draw_in_l0_changes_one_element_and_any() {
        let drawn: Vec<Vec<f32>> = (0..200)
            .map(|sample| Norm::L0.draw(5, &mut seeded(sample)))
            .collect();
        for values in &drawn {
            assert!(Norm::L0.distance(&[0.0; 5], values) <= 1.0);
            assert!(values.iter().all(|value| value.abs() <= 1.0));
        }
        for place in 0..5 {
            assert!(drawn.iter().any(|values| values[place] != 0.0), "{place}");
        }
    }

    #[test]
    fn an_unknown_norm_is_refused_with_the_list() {
        assert_eq!("l2".parse(), Ok(Norm::L2));
        let message = "l3".parse::<Norm>().unwrap_err().to_string();
        assert_eq!(
            message,
            "there is no norm `l3`; the norms are linf, l2, l1 and l0"
        );
    }
}
