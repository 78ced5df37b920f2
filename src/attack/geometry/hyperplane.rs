//! The shortest way onto a hyperplane that stays within the bounds, in each norm.
//!
//! With the hyperplane `normal · δ = gap` and each element's room on the side to which it has to move, the solution depends on one number λ:
//! ℓ∞ moves element i by min(λ, roomᵢ), ℓ2 by min(λ·|normalᵢ|, roomᵢ), and ℓ1 fills the room of the elements with |normalᵢ| > λ.
//! Sorting the places where an element meets its bound finds λ at once, but a sort of whole samples takes ONNX Runtime longer than many passes
//! over them (a hundred times as long as one iteration below), so λ is found by iterating.

use super::super::{Array, Context};
use super::FAR;
use crate::threat::Norm;

/// How often λ is improved in ℓ∞; the first value counts.
///
/// Of 1,500 cases made hard on purpose (heavy tails, no room, 1 to 400 elements) none took more than 6 for 1e-6.
const EVEN: usize = 6;

/// How often λ is improved in ℓ2; the first value counts.
///
/// Of the same cases, 8 took more than 8 for 1e-6 and none more than 12.
const BY_WEIGHT: usize = 12;

/// How often the bracket around λ is narrowed in ℓ1.
///
/// Of the same cases, 8 took more than 12 for 1e-6 and one, by a little, more than 16.
const BRACKET: usize = 16;

/// `normal · δ = gap`, for perturbations δ of a point; `normal` `[n, d]`, `gap` `[n, 1]`.
#[derive(Debug, Clone, Copy)]
pub struct Hyperplane<'a> {
    /// The normal vector.
    pub normal: Array<'a>,
    /// How far the point is from it, in units of the normal vector.
    pub gap: Array<'a>,
}

/// The perturbation of `point`, shortest in the context's norm, that brings it onto the hyperplane and keeps it within the bounds.
///
/// Where the bounds do not reach the hyperplane, every element goes to its bound on that side.
/// A normal vector of 0 gives no perturbation; elements whose part of it is 0 never move.
/// The perturbation never goes beyond the hyperplane, and falls short of it, or is longer than the shortest, by 1e-5 of its length at most.
#[must_use]
pub fn onto_hyperplane<'a>(
    context: &Context<'a>,
    point: Array<'a>,
    hyperplane: Hyperplane<'a>,
) -> Array<'a> {
    let Hyperplane { normal, gap } = hyperplane;
    let size = normal.abs();
    // In units of the largest weight: the squares of tiny gradients would underflow.
    let unit = nonzero(size.largest());
    let (weight, gap_size) = (size / unit, gap.abs() / unit);
    let direction = normal.sign() * gap.sign();
    let room = direction
        .gt(0.0)
        .select(context.high - point, point - context.low)
        .clamp(0.0, FAR);
    let walk = Walk {
        weight,
        room,
        gap: gap_size,
    };
    let moved = match context.norm {
        Norm::Linf => walk.evenly(),
        Norm::L2 => walk.by_weight(),
        // No attack that takes hyperplanes is made for ℓ0.
        Norm::L1 | Norm::L0 => walk.heaviest_first(),
    };
    let reachable = (weight * room).sum().gt(gap_size);
    // Beyond FAR the gradient says nothing about where the hyperplane is.
    let known = direction * gap_size.lt(FAR);
    known * reachable.select(moved, room)
}

/// How far to go, with all signs taken off: weights of at most 1, room, and what Σ weight · move has to be.
#[derive(Clone, Copy)]
struct Walk<'a> {
    weight: Array<'a>,
    room: Array<'a>,
    gap: Array<'a>,
}

impl<'a> Walk<'a> {
    /// min(λ, room).
    ///
    /// Σ weight · min(λ, room) is concave in λ and made of straight pieces, so that Newton's iteration rises to the solution without passing it.
    fn evenly(self) -> Array<'a> {
        let Walk { weight, room, gap } = self;
        let mut level = gap / nonzero(weight.sum());
        for _ in 1..EVEN {
            let reached = (weight * room.min(level)).sum();
            let slope = room.gt(level).select(weight, 0.0).sum();
            level = level + (gap - reached).max(0.0) / nonzero(slope);
        }
        room.min(level)
    }

    /// min(λ · weight, room); as [`Walk::evenly`].
    fn by_weight(self) -> Array<'a> {
        let Walk { weight, room, gap } = self;
        let square = weight * weight;
        let weighted_room = weight * room;
        let mut level = gap / nonzero(square.sum());
        for _ in 1..BY_WEIGHT {
            let wanted = square * level;
            let reached = wanted.min(weighted_room).sum();
            let slope = weighted_room.gt(wanted).select(square, 0.0).sum();
            level = level + (gap - reached).max(0.0) / nonzero(slope);
        }
        room.min(weight * level)
    }

    /// All of the room where the weight is above λ, and the same share of it in each element whose weight the bracket around λ still contains.
    fn heaviest_first(self) -> Array<'a> {
        let Walk { weight, room, gap } = self;
        // No element needs to go further than it would have to alone.
        let reach = room.min(gap / nonzero(weight));
        let share = weight * reach;
        let zero = gap.constant(0.0);
        let (mut low, mut at_low) = (zero, share.sum());
        let (mut high, mut at_high) = (weight.largest(), zero);
        for round in 0..BRACKET {
            let middle = 0.5 * (low + high);
            let pivot = if round % 2 == 0 {
                middle
            } else {
                // Where the straight line through both ends meets the gap.
                let part = (at_low - gap) / nonzero(at_low - at_high);
                low + (high - low) * (0.9 * part + 0.05)
            };
            let at_pivot = weight.gt(pivot).select(share, 0.0).sum();
            let enough = at_pivot.lt(gap);
            (low, at_low) = (enough.select(low, pivot), enough.select(at_low, at_pivot));
            (high, at_high) = (enough.select(pivot, high), enough.select(at_pivot, at_high));
        }
        let part = ((gap - at_high) / nonzero(at_low - at_high)).clamp(0.0, 1.0);
        let fill = weight
            .gt(high)
            .select(1.0, weight.gt(low).select(part, 0.0));
        fill * reach
    }
}

/// `lengths` (none negative) with 1 in place of 0, to divide by.
fn nonzero(lengths: Array<'_>) -> Array<'_> {
    lengths.gt(0.0).select(lengths, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::host::HostArrays;
    use crate::attack::plane::shortest;
    use ndarray::{Array2, array};
    use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

    /// A point at 0 with bounds of its own for each element.
    #[derive(Debug, Clone)]
    struct Case {
        normal: Vec<f32>,
        gap: f32,
        /// How far each element may go down and up.
        room: Vec<(f32, f32)>,
    }

    impl Case {
        fn solve(&self, norm: Norm) -> Vec<f32> {
            let row = |values: Vec<f32>| Array2::from_shape_vec((1, values.len()), values).unwrap();
            let arrays = HostArrays::new(self.normal.len());
            let point = arrays.input(row(vec![0.0; self.normal.len()]));
            let context = Context {
                norm,
                clean: point,
                low: arrays.input(row(self.room.iter().map(|room| -room.0).collect())),
                high: arrays.input(row(self.room.iter().map(|room| room.1).collect())),
                epsilon: point.constant(1.0),
                step_size: point.constant(1.0),
            };
            let hyperplane = Hyperplane {
                normal: arrays.input(row(self.normal.clone())),
                gap: arrays.input(array![[self.gap]]),
            };
            let solved = onto_hyperplane(&context, point, hyperplane);
            arrays.value(solved).into_raw_vec_and_offset().0
        }

        /// |normalᵢ| and the room on the side to which element i goes, in float64.
        fn walk(&self) -> Vec<(f64, f64)> {
            let pairs = self.normal.iter().zip(&self.room);
            pairs
                .map(|(&w, &(down, up))| {
                    let room = if (w > 0.0) == (self.gap > 0.0) {
                        up
                    } else {
                        down
                    };
                    let weight = f64::from(w).abs();
                    (weight, if weight > 0.0 { room.into() } else { 0.0 })
                })
                .collect()
        }

        /// How much of the gap is left, and how much longer than the shortest the perturbation is, relative to each.
        fn errors(&self, norm: Norm) -> (f64, f64) {
            let solved = self.solve(norm);
            let reference = shortest(norm, &self.walk(), f64::from(self.gap).abs());
            let signed: Vec<f32> = reference.iter().map(|&m| m as f32).collect();
            let zero = vec![0.0; solved.len()];
            for (&m, &(down, up)) in solved.iter().zip(&self.room) {
                assert!(-down <= m && m <= up, "{norm}: {m} of {down} {up}");
            }
            let product = |moves: &mut dyn Iterator<Item = f64>| -> f64 {
                let pairs = self.normal.iter().zip(moves);
                pairs
                    .map(|(&w, m)| if m == 0.0 { 0.0 } else { f64::from(w) * m })
                    .sum()
            };
            let reached = product(&mut solved.iter().map(|&m| m.into())).abs();
            let wanted: f64 = {
                let pairs = self.normal.iter().zip(&reference);
                pairs
                    .map(|(&w, &m)| {
                        if m == 0.0 {
                            0.0
                        } else {
                            f64::from(w).abs() * m
                        }
                    })
                    .sum()
            };
            let (length, shortest) = (norm.distance(&zero, &solved), norm.distance(&zero, &signed));
            if shortest == 0.0 {
                assert_eq!(length, 0.0);
                return (0.0, 0.0);
            }
            ((reached - wanted).abs() / wanted, length / shortest - 1.0)
        }
    }

    /// Weights of heavy tails, rooms from none to plenty, gaps from near to hardly reachable.
    fn case() -> impl Strategy<Value = Case> {
        let width = prop_oneof![1..8_usize, 50..400_usize];
        (
            width,
            0.0..1.1_f64,
            any::<bool>(),
            prop::bool::weighted(0.2),
        )
            .prop_flat_map(|(width, part, up, unbounded)| {
                let element = (
                    (-1.0..1.0_f32, 0.0..3.0_f32),
                    (0.0..1.0_f32, 0.0..1.0_f32, 0..8_u8),
                );
                prop::collection::vec(element, width).prop_map(move |elements| {
                    let normal: Vec<f32> = elements
                        .iter()
                        .map(|((value, decades), _)| value * 10.0_f32.powf(-decades))
                        .collect();
                    let room: Vec<(f32, f32)> = elements
                        .iter()
                        .map(|&(_, (down, up, kind))| match kind {
                            _ if unbounded => (f32::INFINITY, f32::INFINITY),
                            0 => (0.0, 1.0),
                            1 => (1.0, 0.0),
                            _ => (down, up),
                        })
                        .collect();
                    let all: f64 = normal.iter().map(|w| f64::from(w.abs())).sum();
                    let gap = (0.5 * part.powi(3) * all) as f32;
                    Case {
                        normal,
                        gap: if up { gap } else { -gap },
                        room,
                    }
                })
            })
    }

    /// The same cases in every run: the iterations are counted, so that cases exist which ask for more.
    #[test]
    fn the_perturbation_is_the_shortest_onto_the_hyperplane() {
        let mut runner = TestRunner::deterministic();
        for norm in Norm::CONVEX {
            let (mut worst_gap, mut worst_length) = (0.0_f64, 0.0_f64);
            for _ in 0..1500 {
                let case = case().new_tree(&mut runner).unwrap().current();
                let (gap, length) = case.errors(norm);
                worst_gap = worst_gap.max(gap);
                worst_length = worst_length.max(length);
            }
            assert!(
                worst_gap < 1e-5 && worst_length < 1e-5,
                "{norm}: {worst_gap:e} {worst_length:e}"
            );
        }
    }

    #[test]
    fn out_of_reach_every_element_goes_to_its_bound() {
        let case = Case {
            normal: vec![2.0, -1.0, 0.0, 0.5],
            gap: -10.0,
            room: vec![(0.5, 1.0), (0.25, 0.75), (1.0, 1.0), (0.0, 1.0)],
        };
        for norm in Norm::CONVEX {
            assert_eq!(case.solve(norm), [-0.5, 0.75, 0.0, 0.0], "{norm}");
        }
    }

    #[test]
    fn a_dead_gradient_moves_nothing() {
        for norm in Norm::CONVEX {
            let case = Case {
                normal: vec![0.0, -0.0],
                gap: -1.0,
                room: vec![(1.0, 1.0), (f32::INFINITY, f32::INFINITY)],
            };
            assert_eq!(case.solve(norm), [0.0, 0.0], "{norm}");
        }
    }

    /// The scale of the normal vector and the gap says nothing about where the hyperplane is.
    #[test]
    fn tiny_and_huge_gradients_give_the_same_way() {
        for norm in Norm::CONVEX {
            let solve = |scale: f32| {
                let case = Case {
                    normal: vec![3.0 * scale, -4.0 * scale, 0.5 * scale],
                    gap: 2.5 * scale,
                    room: vec![(1.0, 0.125), (0.5, 1.0), (1.0, 1.0)],
                };
                case.solve(norm)
            };
            let usual = solve(1.0);
            for exponent in [-110, -40, 40, 100] {
                assert_eq!(solve(2.0_f32.powi(exponent)), usual, "{norm} {exponent}");
            }
        }
    }
}
