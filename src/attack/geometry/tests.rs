//! Projections compared with float64 references that sort or bisect, directions with their definitions.

use super::*;
use crate::attack::host::HostArrays;
use crate::threat::Bounds;
use ndarray::{Array2, array};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

/// A sample at 0 with bounds of its own for each element, so that float32 rounding of clean + δ plays no part.
#[derive(Debug, Clone)]
struct Case {
    epsilon: f32,
    /// How far each element may go down and up.
    room: Vec<(f32, f32)>,
    /// What is to be projected.
    point: Vec<f32>,
}

impl Case {
    fn project(&self, norm: Norm) -> Vec<f32> {
        let row = |values: Vec<f32>| Array2::from_shape_vec((1, values.len()), values).unwrap();
        let arrays = HostArrays::new(self.point.len());
        let context = Context {
            norm,
            clean: arrays.input(row(vec![0.0; self.point.len()])),
            low: arrays.input(row(self.room.iter().map(|room| -room.0).collect())),
            high: arrays.input(row(self.room.iter().map(|room| room.1).collect())),
            epsilon: arrays.input(array![[self.epsilon]]),
            step_size: arrays.input(array![[1.0]]),
        };
        let point = arrays.input(row(self.point.clone()));
        arrays
            .value(project(&context, point))
            .into_raw_vec_and_offset()
            .0
    }

    /// |zᵢ| and the room on that side, in float64.
    fn moves(&self) -> Vec<(f64, f64)> {
        let pairs = self.point.iter().zip(&self.room);
        pairs
            .map(|(&z, &(down, up))| {
                let room = if z > 0.0 { up } else { down };
                (f64::from(z).abs(), f64::from(room))
            })
            .collect()
    }

    /// The size of each element of the nearest point, in float64.
    fn reference(&self, norm: Norm) -> Vec<f64> {
        let moves = self.moves();
        let epsilon = f64::from(self.epsilon);
        match norm {
            Norm::Linf => moves
                .iter()
                .map(|(z, room)| z.min(*room).min(epsilon))
                .collect(),
            Norm::L2 => nearest_l2(epsilon, &moves),
            Norm::L1 => nearest_l1(epsilon, &moves),
            Norm::L0 => nearest_l0(epsilon, &moves),
        }
    }

    fn assert_allowed(&self, norm: Norm, projected: &[f32]) {
        for (&value, &(down, up)) in projected.iter().zip(&self.room) {
            assert!(-down <= value && value <= up);
        }
        let length = norm.distance(&vec![0.0; projected.len()], projected);
        let epsilon = f64::from(self.epsilon);
        assert!(
            length <= epsilon * (1.0 + 1e-6),
            "{norm}: {length} for {epsilon}"
        );
    }

    /// The distance between the projection and the reference, in the norm and in units of ε.
    fn error(&self, norm: Norm) -> f64 {
        let projected = self.project(norm);
        self.assert_allowed(norm, &projected);
        let differences = projected
            .iter()
            .zip(self.reference(norm))
            .map(|(&value, size)| f64::from(value).abs() - size);
        let length = match norm {
            Norm::Linf => differences.fold(0.0, |largest: f64, d| largest.max(d.abs())),
            Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
            Norm::L1 | Norm::L0 => differences.map(f64::abs).sum(),
        };
        length / f64::from(self.epsilon)
    }

    /// What float32 alone makes of |zᵢ| − λ, in units of ε: as many roundings as there are elements left, each as large as those of the largest.
    fn rounding(&self, norm: Norm) -> f64 {
        match norm {
            Norm::Linf | Norm::L2 | Norm::L0 => 0.0,
            Norm::L1 => {
                let left = self
                    .reference(norm)
                    .iter()
                    .filter(|size| **size > 0.0)
                    .count();
                let largest = self.moves().iter().fold(0.0, |a: f64, m| a.max(m.0));
                2.0 * f64::from(f32::EPSILON) * left as f64 * largest / f64::from(self.epsilon)
            }
        }
    }
}

/// As many of the largest moves, cut off at their room, as ε allows.
fn nearest_l0(epsilon: f64, moves: &[(f64, f64)]) -> Vec<f64> {
    let mut nearest: Vec<f64> = moves.iter().map(|(z, room)| z.min(*room)).collect();
    let mut sorted = nearest.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let left_out = sorted.iter().enumerate();
    let mut left_out = left_out.skip_while(|(place, _)| (place + 1) as f64 <= epsilon);
    if let Some((_, &largest)) = left_out.next() {
        for size in nearest.iter_mut().filter(|size| **size <= largest) {
            *size = 0.0;
        }
    }
    nearest
}

#[test]
fn in_l0_the_largest_moves_stay_and_the_others_go_back() {
    // The second goes furthest, but a bound cuts it off.
    let case = |epsilon: f32| Case {
        epsilon,
        point: vec![0.4, -9.0, 0.05, 0.2, 0.0],
        room: vec![(1.0, 1.0), (0.3, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)],
    };
    for (epsilon, expected) in [
        (0.5, [0.0, 0.0, 0.0, 0.0, 0.0]),
        (1.0, [0.4, 0.0, 0.0, 0.0, 0.0]),
        (2.9, [0.4, -0.3, 0.0, 0.0, 0.0]),
        (3.0, [0.4, -0.3, 0.0, 0.2, 0.0]),
        (7.0, [0.4, -0.3, 0.05, 0.2, 0.0]),
    ] {
        let projected = case(epsilon).project(Norm::L0);
        assert_eq!(projected, expected, "{epsilon}");
        let sizes: Vec<f64> = projected.iter().map(|&p| f64::from(p.abs())).collect();
        assert_eq!(sizes, case(epsilon).reference(Norm::L0), "{epsilon}");
    }
}

/// Bisection for the scale t in min(t·|zᵢ|, roomᵢ), to the last bit.
fn nearest_l2(epsilon: f64, moves: &[(f64, f64)]) -> Vec<f64> {
    let at = |scale: f64| moves.iter().map(move |(z, room)| (scale * z).min(*room));
    let length = |scale| at(scale).map(|m| m * m).sum::<f64>().sqrt();
    let (mut low, mut high) = (0.0, 1.0);
    if length(high) <= epsilon {
        return at(high).collect();
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if length(middle) > epsilon {
            high = middle;
        } else {
            low = middle;
        }
    }
    at(low).collect()
}

/// The threshold λ in min(max(|zᵢ| − λ, 0), roomᵢ), from the sorted places where the length's slope changes.
fn nearest_l1(epsilon: f64, moves: &[(f64, f64)]) -> Vec<f64> {
    let at = |threshold: f64| {
        moves
            .iter()
            .map(move |(z, room)| (z - threshold).clamp(0.0, *room))
    };
    let length = |threshold| at(threshold).sum::<f64>();
    if length(0.0) <= epsilon {
        return at(0.0).collect();
    }
    let mut places: Vec<f64> = moves
        .iter()
        .flat_map(|(z, room)| [*z, (z - room).max(0.0)])
        .chain([0.0])
        .collect();
    places.sort_by(f64::total_cmp);
    let after = places.partition_point(|&place| length(place) > epsilon);
    let (left, right) = (places[after - 1], places[after]);
    let (longer, shorter) = (length(left), length(right));
    at(left + (right - left) * (longer - epsilon) / (longer - shorter)).collect()
}

/// A point of the ball and the bounds, and one step of `reach`·ε from it: what an iterated attack projects.
fn step(norm: Norm, reach: impl Strategy<Value = f64>) -> impl Strategy<Value = Case> {
    let width = prop_oneof![1..8_usize, 50..400_usize];
    let epsilon = prop_oneof![Just(2.0 / 255.0), 1e-9..1e-7_f64, 0.01..30.0_f64];
    let bounded = prop_oneof![Just(f64::INFINITY), Just(1.0), Just(0.01), Just(1e-4)];
    (width, epsilon, bounded, reach).prop_flat_map(move |(width, epsilon, bounded, reach)| {
        let element = (
            // Rooms from none to plenty, in units of ε.
            (0.0..1.0_f64, 0.0..1.0_f64, 0..8_u8),
            // Heavy tails: three decades.
            (-1.0..1.0_f64, 0.0..3.0_f64),
            (-1.0..1.0_f64, 0.0..3.0_f64),
            prop::bool::weighted(0.3),
        );
        prop::collection::vec(element, width)
            .prop_map(move |elements| step_case(norm, [epsilon, bounded, reach], &elements))
    })
}

fn any_step(reach: std::ops::Range<f64>) -> impl Strategy<Value = (Norm, Case)> {
    prop::sample::select(Norm::CONVEX.to_vec())
        .prop_flat_map(move |norm| (Just(norm), step(norm, reach.clone())))
}

type Element = ((f64, f64, u8), (f64, f64), (f64, f64), bool);

fn step_case(norm: Norm, [epsilon, bounded, reach]: [f64; 3], elements: &[Element]) -> Case {
    let sparse = elements[0].3;
    let heavy = |(value, decades): (f64, f64)| value * 10.0_f64.powf(-decades);
    let before: Vec<f64> = elements.iter().map(|element| heavy(element.1)).collect();
    let change: Vec<f64> = elements
        .iter()
        .map(|element| {
            if sparse && !element.3 {
                0.0
            } else {
                heavy(element.2)
            }
        })
        .collect();
    let length = |values: &[f64]| {
        let sizes = values.iter().map(|value| value.abs());
        let length = match norm {
            Norm::Linf => sizes.fold(0.0, f64::max),
            Norm::L2 => sizes.map(|size| size * size).sum::<f64>().sqrt(),
            Norm::L1 => sizes.sum(),
            Norm::L0 => sizes.filter(|size| *size > 0.0).count() as f64,
        };
        length.max(1e-9)
    };
    let (length_before, length_change) = (length(&before), length(&change));
    let room: Vec<(f32, f32)> = elements
        .iter()
        .map(|&((down, up, kind), ..)| match kind {
            0 => (0.0, (bounded * epsilon) as f32),
            _ => (
                (bounded * epsilon * down) as f32,
                (bounded * epsilon * up) as f32,
            ),
        })
        .collect();
    let point = before
        .iter()
        .zip(&change)
        .zip(&room)
        .map(|((before, change), &(down, up))| {
            let inside = (epsilon * before / length_before).clamp(f64::from(-down), f64::from(up));
            (inside + reach * epsilon * change / length_change) as f32
        })
        .collect();
    Case {
        epsilon: epsilon as f32,
        room,
        point,
    }
}

/// The same cases in every run: the iterations are counted, so that cases exist which ask for more.
#[test]
fn steps_are_projected_to_the_nearest_point() {
    let mut runner = TestRunner::deterministic();
    for norm in Norm::CONVEX {
        let cases = step(norm, 0.0..2.5_f64);
        let mut far = 0;
        for _ in 0..800 {
            let case = cases.new_tree(&mut runner).unwrap().current();
            let (error, rounding) = (case.error(norm), case.rounding(norm));
            assert!(error <= 0.05, "{norm}: {error:e} in {case:?}");
            far += usize::from(error > 1e-6 + rounding);
        }
        let allowed = if norm == Norm::L1 { 1 } else { 0 };
        assert!(far <= allowed, "{norm}: {far}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn far_points_come_into_the_ball_and_the_bounds(case in any_step(10.0..1e4_f64)) {
        let (norm, case) = case;
        case.assert_allowed(norm, &case.project(norm));
    }

    #[test]
    fn a_point_in_the_ball_and_the_bounds_is_not_changed(case in any_step(0.0..2.5_f64)) {
        let (norm, mut case) = case;
        let clean = vec![0.0; case.point.len()];
        case.point = case.project(norm);
        let epsilon = f64::from(case.epsilon) * 0.999_999;
        crate::threat::confine(norm, epsilon, Bounds::NONE, &clean, &mut case.point);
        prop_assert_eq!(case.project(norm), case.point, "{}", norm);
    }
}

#[test]
fn radius_zero_returns_the_clean_sample() {
    for norm in Norm::CONVEX {
        let case = Case {
            epsilon: 0.0,
            room: vec![(1.0, 1.0), (f32::INFINITY, f32::INFINITY)],
            point: vec![0.5, -3.0],
        };
        assert_eq!(case.project(norm), [0.0, 0.0], "{norm}");
    }
}

#[test]
fn the_clean_sample_is_projected_to_itself() {
    for norm in Norm::CONVEX {
        let case = Case {
            epsilon: 0.1,
            room: vec![(0.0, 0.0), (f32::INFINITY, 0.0)],
            point: vec![0.0, 0.0],
        };
        assert_eq!(case.project(norm), [0.0, 0.0], "{norm}");
    }
}

fn on_gradient(gradient: Array2<f32>, function: impl Fn(Array<'_>) -> Array<'_>) -> Array2<f32> {
    let arrays = HostArrays::new(gradient.ncols());
    let gradient = arrays.input(gradient);
    arrays.value(function(gradient))
}

/// Trap: `f32::signum` would move every dead pixel.
#[test]
fn elements_without_gradient_have_no_sign() {
    let direction = on_gradient(array![[0.0, -0.0, 3.0, -1e-30]], |g| {
        steepest(Norm::Linf, g)
    });
    assert_eq!(direction, array![[0.0, 0.0, 1.0, -1.0]]);
}

/// Trap: a constant added to ‖g‖ decides how far samples with tiny gradients move.
#[test]
fn tiny_and_huge_gradients_have_a_direction_of_length_one() {
    for scale in [1e-44, 1e-38, 1e-30, 1e-10, 1.0, 1e30, 1e37] {
        let direction = on_gradient(array![[3.0 * scale, -4.0 * scale]], |g| {
            steepest(Norm::L2, g)
        });
        let tolerance = if scale < 1e-38 { 0.2 } else { 1e-6 };
        assert!(
            (direction[[0, 0]] - 0.6).abs() < tolerance,
            "{scale:e} {direction}"
        );
        assert!(
            (direction[[0, 1]] + 0.8).abs() < tolerance,
            "{scale:e} {direction}"
        );
    }
}

#[test]
fn a_gradient_of_zero_gives_no_step_and_no_nan() {
    for norm in Norm::CONVEX {
        let direction = on_gradient(array![[0.0, -0.0], [0.0, 2.0]], |g| steepest(norm, g));
        assert_eq!(direction, array![[0.0, 0.0], [0.0, 1.0]], "{norm}");
    }
}

#[test]
fn the_l1_direction_is_the_first_largest_element() {
    let direction = on_gradient(array![[1.0, -5.0, 5.0]], |g| steepest(Norm::L1, g));
    assert_eq!(direction, array![[0.0, -1.0, 0.0]]);
}

/// The ℓ1 direction of an iterated attack at `point` within [0, 1].
fn sparse_direction(point: Array2<f32>, gradient: Array2<f32>) -> Array2<f32> {
    let arrays = HostArrays::new(point.ncols());
    let point = arrays.input(point);
    let context = Context {
        norm: Norm::L1,
        clean: point,
        low: point.constant(0.0),
        high: point.constant(1.0),
        epsilon: point.constant(1.0),
        step_size: point.constant(1.0),
    };
    let pass = Pass {
        point,
        gradient: arrays.input(gradient),
        loss: point.constant(0.0),
        adversarial: arrays.input(Array2::zeros((1, 1))),
    };
    arrays.value(direction(&context, &pass))
}

#[test]
fn l1_steps_go_where_there_is_room() {
    let direction = sparse_direction(
        array![
            [1.0, 0.0, 0.5, 0.5],
            [0.0, 1.0, 0.5, 0.5],
            [1.0, 0.0, 1.0, 0.0]
        ],
        array![
            [9.0, -8.0, 2.0, -3.0],
            [9.0, -8.0, 2.0, -3.0],
            [9.0, -8.0, 2.0, -3.0]
        ],
    );
    assert_eq!(
        direction,
        // The last sample is in the corner of the bounds: nothing can move.
        array![
            [0.0, 0.0, 0.0, -1.0],
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0]
        ]
    );
}

#[test]
fn l1_steps_move_one_coordinate_in_a_hundred_rounded_up() {
    for (width, moved) in [(1, 1), (100, 1), (101, 2), (1000, 10)] {
        let gradient = Array2::from_shape_fn((1, width), |(_, j)| (j as f32 + 1.0) * 1e-3);
        let direction = sparse_direction(Array2::from_elem((1, width), 0.5), gradient);
        assert_eq!(direction.iter().filter(|&&d| d > 0.0).count(), moved);
        assert!((direction.sum() - 1.0).abs() < 1e-6);
        assert!(direction[[0, width - 1]] > 0.0);
    }
}

#[test]
fn l1_steps_share_among_ties_and_ignore_dead_coordinates() {
    let point = || Array2::from_elem((1, 5), 0.5);
    let tied = sparse_direction(point(), array![[2.0, -2.0, 0.0, 2.0, -2.0]]);
    assert_eq!(tied, array![[0.25, -0.25, 0.0, 0.25, -0.25]]);
    let dead = sparse_direction(point(), Array2::zeros((1, 5)));
    assert_eq!(dead, Array2::<f32>::zeros((1, 5)));
}
