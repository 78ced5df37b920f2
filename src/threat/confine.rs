//! The last word on the threat model: moves a stored point into the ball and the bounds, exactly.

use super::{Bounds, Norm, Precision};

/// Beyond this relative excess a point is scaled back as a whole before single elements are moved.
///
/// Rounding clean + δ to float32 can lengthen δ by as much as 4e-6 of an ε of 2/255; scaling would then round every element anew for nothing.
const ROUNDING_EXCESS: f64 = 1e-5;

/// Moves `point` into the ball of radius `epsilon` around `clean` and into `bounds`, as little as rounding allows.
///
/// Afterwards, with the float32 values as they are stored, [`Norm::distance`] is at most `epsilon` exactly and every value is within the bounds.
/// A point that already satisfies both is not changed in any bit.
/// Elements that are not finite become those of `clean`.
/// `clean` must be finite and within the bounds, as moving toward it is what brings a point inside; `epsilon` must not be negative.
///
/// Only rounding errors are removed here with care (element by element, by single steps between neighbouring float32 numbers);
/// a point far outside of an ℓ2 or ℓ1 ball is scaled toward `clean`, which is no Euclidean projection in ℓ1.
///
/// # Panics
/// Where `clean` and `point` differ in length.
pub fn confine(norm: Norm, epsilon: f64, bounds: Bounds, clean: &[f32], point: &mut [f32]) {
    assert_eq!(
        clean.len(),
        point.len(),
        "the two points belong to one sample"
    );
    for (value, &clean) in point.iter_mut().zip(clean) {
        if !value.is_finite() {
            *value = clean;
        } else if !bounds.contain(*value) {
            *value = value.max(bounds.low).min(bounds.high);
        }
    }
    match norm {
        Norm::Linf => confine_each(epsilon, clean, point),
        Norm::L2 => confine_sum(norm, epsilon, |d| d * d, epsilon * epsilon, clean, point),
        Norm::L1 => confine_sum(norm, epsilon, f64::abs, epsilon, clean, point),
        Norm::L0 => confine_count(epsilon, clean, point),
    }
}

/// As [`confine`], to a point whose elements are all numbers of a precision; those of `clean` must be such numbers.
///
/// What is none after rounding is moved on toward `clean`, which shortens the perturbation in every norm.
///
/// # Panics
/// Where `clean` and `point` differ in length.
pub fn confine_to(
    precision: Precision,
    norm: Norm,
    epsilon: f64,
    bounds: Bounds,
    clean: &[f32],
    point: &mut [f32],
) {
    confine(norm, epsilon, bounds, clean, point);
    if precision == Precision::Single {
        return;
    }
    for (value, &clean) in point.iter_mut().zip(clean) {
        *value = precision.toward(*value, clean);
    }
}

/// ℓ∞: each element by itself.
fn confine_each(epsilon: f64, clean: &[f32], point: &mut [f32]) {
    for (value, &clean) in point.iter_mut().zip(clean) {
        let difference = f64::from(*value) - f64::from(clean);
        if difference.abs() > epsilon {
            *value = (f64::from(clean) + epsilon.copysign(difference)) as f32;
        }
        while (f64::from(*value) - f64::from(clean)).abs() > epsilon {
            *value = step_toward(*value, clean);
        }
    }
}

/// ℓ0: the largest changes stay, the first ones where several are equally large; the others are undone.
fn confine_count(epsilon: f64, clean: &[f32], point: &mut [f32]) {
    let mut changed: Vec<(usize, f64)> = super::differences(clean, point)
        .map(f64::abs)
        .enumerate()
        .filter(|(_, size)| *size > 0.0)
        .collect();
    if changed.len() as f64 <= epsilon {
        return;
    }
    // Sorting keeps the order of equals.
    changed.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (position, (place, _)) in changed.into_iter().enumerate() {
        if (position + 1) as f64 > epsilon {
            point[place] = clean[place];
        }
    }
}

/// ℓ2 and ℓ1, whose length is at most `epsilon` where the sum of `cost` over the differences is at most `limit`.
fn confine_sum(
    norm: Norm,
    epsilon: f64,
    cost: fn(f64) -> f64,
    limit: f64,
    clean: &[f32],
    point: &mut [f32],
) {
    let mut distance = norm.distance(clean, point);
    if distance > epsilon * (1.0 + ROUNDING_EXCESS) {
        let scale = epsilon / distance;
        for (value, &clean) in point.iter_mut().zip(clean) {
            *value = scale_toward(*value, clean, scale);
        }
        distance = norm.distance(clean, point);
    }
    // Each sweep moves elements by one float32 step, of the value or of the difference, until the running sum says that it is enough.
    // The running sum drifts by rounding, so that the distance is measured anew, and now and then a further sweep is due.
    // A whole sweep takes at least 2⁻²⁴ off every difference, so that there are never many.
    while distance > epsilon {
        let mut total: f64 = super::differences(clean, point).map(cost).sum();
        for (value, &clean) in point.iter_mut().zip(clean) {
            let difference = f64::from(*value) - f64::from(clean);
            if difference == 0.0 {
                continue;
            }
            *value = shorten(*value, clean);
            total += cost(f64::from(*value) - f64::from(clean)) - cost(difference);
            if total <= limit {
                break;
            }
        }
        distance = norm.distance(clean, point);
    }
}

/// clean + scale·(value − clean), rounded away from `clean`: what that makes too long is taken off in single steps afterwards,
/// so that the point ends on the surface and not somewhere below it.
fn scale_toward(value: f32, clean: f32, scale: f64) -> f32 {
    let origin = f64::from(clean);
    let difference = scale * (f64::from(value) - origin);
    let scaled = (origin + difference) as f32;
    if (f64::from(scaled) - origin).abs() >= difference.abs() {
        scaled
    } else if difference > 0.0 {
        scaled.next_up()
    } else {
        scaled.next_down()
    }
}

/// A step toward `clean` that can be seen in the difference, too: next to 0 the neighbouring number alone is far too near, and a billion
/// steps lie between 0 and 1e-8.
fn shorten(value: f32, clean: f32) -> f32 {
    const PART: f64 = 1.0 / (1 << 24) as f64;
    let shorter = (f64::from(value) + PART * (f64::from(clean) - f64::from(value))) as f32;
    if shorter == value {
        step_toward(value, clean)
    } else {
        shorter
    }
}

/// The float32 number next to `value` on the side of `clean`.
fn step_toward(value: f32, clean: f32) -> f32 {
    if value > clean {
        value.next_down()
    } else {
        value.next_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 0.8 in float32 is 1.2e-8 more than 0.8, and a billion float32 numbers lie between 0 and that.
    #[test]
    fn a_point_at_zero_is_brought_inside_at_once() {
        for norm in [Norm::L1, Norm::L2] {
            let mut point = [0.0, 0.3];
            confine(norm, 0.8, Bounds::UNIT, &[0.8, 0.3], &mut point);
            let distance = norm.distance(&[0.8, 0.3], &point);
            assert!(
                distance <= 0.8 && distance > 0.8 * (1.0 - 3e-7),
                "{distance}"
            );
        }
    }

    /// A clean sample within the bounds, a point near it, a norm, a radius and bounds.
    fn case() -> impl Strategy<Value = (Norm, f64, Bounds, Vec<f32>, Vec<f32>)> {
        let bounds = prop_oneof![Just(Bounds::UNIT), Just(Bounds::NONE)];
        let epsilon = prop_oneof![
            Just(2.0 / 255.0),
            Just(1e-9),
            Just(0.0),
            1e-4..3.0_f64,
            (-45.0..3.0_f64).prop_map(|power| 10.0_f64.powf(power)),
        ];
        let width = prop_oneof![1..6_usize, 100..600_usize];
        (
            prop::sample::select(Norm::ALL.to_vec()),
            epsilon,
            bounds,
            width,
        )
            .prop_flat_map(|(norm, epsilon, bounds, width)| {
                let clean = if bounds == Bounds::UNIT {
                    prop::collection::vec(prop_oneof![0.0..=1.0_f32, Just(0.0), Just(1.0)], width)
                        .boxed()
                } else {
                    prop::collection::vec(-300.0..300.0_f32, width).boxed()
                };
                let spread = prop_oneof![Just(1.0), Just(1.0 / width as f64), Just(30.0)];
                let noise = prop::collection::vec(-1.0..=1.0_f64, width);
                (Just((norm, epsilon, bounds)), clean, noise, spread)
            })
            .prop_map(|((norm, epsilon, bounds), clean, noise, spread)| {
                let point = clean
                    .iter()
                    .zip(&noise)
                    .map(|(&clean, noise)| (f64::from(clean) + epsilon * spread * noise) as f32)
                    .collect();
                (norm, epsilon, bounds, clean, point)
            })
    }

    proptest! {
        #[test]
        fn the_stored_point_is_inside_exactly((norm, epsilon, bounds, clean, mut point) in case()) {
            confine(norm, epsilon, bounds, &clean, &mut point);
            prop_assert!(norm.distance(&clean, &point) <= epsilon);
            prop_assert!(point.iter().all(|&value| bounds.contain(value)));
        }

        #[test]
        fn a_point_inside_is_not_changed((norm, epsilon, bounds, clean, mut point) in case()) {
            confine(norm, epsilon, bounds, &clean, &mut point);
            let before = point.clone();
            confine(norm, epsilon, bounds, &clean, &mut point);
            prop_assert_eq!(before, point);
        }
    }

    /// The excess that rounding leaves is removed by moving few elements by one float32 step each, not by scaling.
    #[test]
    fn rounding_costs_no_more_than_single_steps() {
        let epsilon = 2.0 / 255.0;
        for norm in Norm::CONVEX {
            let width = 10_000;
            let clean: Vec<f32> = (0..width).map(|i| 0.3 + 0.6 * i as f32 / 1e4).collect();
            let part = match norm {
                Norm::Linf => epsilon,
                Norm::L2 => epsilon / 100.0,
                Norm::L1 => epsilon / 1e4,
                Norm::L0 => unreachable!("it is not convex"),
            };
            let rounded: Vec<f32> = clean
                .iter()
                .map(|&clean| (f64::from(clean) + part).next_up() as f32)
                .map(|value| value.next_up())
                .collect();
            let mut point = rounded.clone();
            confine(norm, epsilon, Bounds::UNIT, &clean, &mut point);
            let distance = norm.distance(&clean, &point);
            assert!(distance <= epsilon, "{norm}");
            assert!(distance >= epsilon - 1e-7, "{norm}: {distance}");
        }
    }

    #[test]
    fn a_point_far_outside_comes_to_the_surface() {
        for norm in Norm::CONVEX {
            let clean = vec![0.5; 1000];
            let mut point: Vec<f32> = (0..1000).map(|i| (i % 7) as f32 / 6.0).collect();
            confine(norm, 0.1, Bounds::UNIT, &clean, &mut point);
            let distance = norm.distance(&clean, &point);
            assert!(
                distance <= 0.1 && distance > 0.1 - 1e-7,
                "{norm}: {distance}"
            );
        }
    }

    #[test]
    fn a_million_changes_far_below_the_radius_are_confined() {
        for norm in Norm::CONVEX {
            let clean = vec![0.7_f32; 1_000_000];
            let mut point = vec![0.7_f32.next_up(); 1_000_000];
            confine(norm, 1e-9, Bounds::UNIT, &clean, &mut point);
            assert!(norm.distance(&clean, &point) <= 1e-9, "{norm}");
        }
    }

    #[test]
    fn values_that_are_not_finite_become_clean() {
        for norm in Norm::ALL {
            let mut point = [f32::NAN, f32::INFINITY, 0.25];
            confine(norm, 1.0, Bounds::NONE, &[1.0, 2.0, 0.0], &mut point);
            assert_eq!(point, [1.0, 2.0, 0.25], "{norm}");
        }
    }

    #[test]
    fn in_l0_the_largest_changes_stay_as_they_are() {
        let clean = [0.5; 5];
        let changed = [0.6, 0.2, 0.5, 0.9, 0.7];
        for (epsilon, kept) in [
            (0.9, [0.5, 0.5, 0.5, 0.5, 0.5]),
            (1.0, [0.5, 0.5, 0.5, 0.9, 0.5]),
            (2.5, [0.5, 0.2, 0.5, 0.9, 0.5]),
            (4.0, changed),
            (f64::INFINITY, changed),
        ] {
            let mut point = changed;
            confine(Norm::L0, epsilon, Bounds::UNIT, &clean, &mut point);
            assert_eq!(point, kept, "{epsilon}");
        }
    }

    #[test]
    fn radius_zero_returns_the_clean_sample() {
        for norm in Norm::ALL {
            let mut point = [0.1, 0.9];
            confine(norm, 0.0, Bounds::UNIT, &[0.5, 0.5], &mut point);
            assert_eq!(point, [0.5, 0.5], "{norm}");
        }
    }
    #[test]
    fn a_confined_point_is_one_that_the_precision_holds() {
        for precision in [Precision::Half, Precision::Brain] {
            let clean: Vec<f32> = (0..=255_u8)
                .map(|value| precision.nearest(f32::from(value) / 255.0))
                .collect();
            for (norm, epsilon) in [(Norm::Linf, 8.0 / 255.0), (Norm::L2, 0.5), (Norm::L1, 2.0)] {
                let moves = [0.5, -0.1, 0.037, -0.031];
                let far = clean.iter().zip(moves.iter().cycle());
                let mut point: Vec<f32> = far.map(|(clean, by)| clean + by).collect();
                confine_to(precision, norm, epsilon, Bounds::UNIT, &clean, &mut point);
                assert!(norm.distance(&clean, &point) <= epsilon, "{norm}");
                assert!(norm.distance(&clean, &point) >= 0.8 * epsilon, "{norm}");
                for value in point {
                    assert!(Bounds::UNIT.contain(value));
                    assert_eq!(value, precision.nearest(value));
                }
            }
        }
    }
}
