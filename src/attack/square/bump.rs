//! The ℓ2 and ℓ1 moves of the square attack: bumps of two signs, paid for with what other windows give up.

use super::super::grid::{Grid, Window};
use crate::rng::Stream;
use crate::threat::Norm;
use rand::Rng;

/// Guards divisions by a length, as the reference implementation does.
const GUARD: f64 = 1e-12;

/// Two neighbouring pyramids of opposite sign on a rectangle, row by row, of length 1.
///
/// They lie above one another, or beside one another where `beside` says so or there is a single row.
pub(super) fn bump(norm: Norm, rows: usize, columns: usize, beside: bool) -> Vec<f64> {
    let mut values = if rows == 1 || (beside && columns > 1) {
        let turned = halves(norm, columns, rows);
        (0..rows * columns)
            .map(|place| turned[place % columns * rows + place / columns])
            .collect()
    } else {
        halves(norm, rows, columns)
    };
    let length = length(norm, &values).max(GUARD);
    for value in &mut values {
        *value /= length;
    }
    values
}

/// A pyramid on the first half of the rows, and one turned over on the others; a single row has a single pyramid.
fn halves(norm: Norm, rows: usize, columns: usize) -> Vec<f64> {
    let upper = rows / 2;
    let lower = pyramid(norm, rows - upper, columns).into_iter();
    let mut values = pyramid(norm, upper, columns);
    values.extend(lower.map(|value| if upper == 0 { value } else { -value }));
    values
}

/// Σ over the nested rectangles around the middle of 1/(k + 1)², k from 0 at the innermost; of length 1.
fn pyramid(norm: Norm, rows: usize, columns: usize) -> Vec<f64> {
    let mut values = vec![0.0; rows * columns];
    let (middle_row, middle_column) = (rows / 2, columns / 2);
    for ring in 0..=middle_row.max(middle_column) {
        #[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
        let height = 1.0 / ((ring + 1) as f64).powi(2);
        let rows = middle_row.saturating_sub(ring)..(middle_row + ring + 1).min(rows);
        for row in rows {
            let from = middle_column.saturating_sub(ring);
            let to = (middle_column + ring + 1).min(columns);
            for value in &mut values[row * columns + from..row * columns + to] {
                *value += height;
            }
        }
    }
    let length = length(norm, &values).max(GUARD);
    for value in &mut values {
        *value /= length;
    }
    values
}

/// What an element adds to the sum whose root is the length.
fn share(norm: Norm, value: f64) -> f64 {
    match norm {
        Norm::L1 => value.abs(),
        Norm::L2 | Norm::Linf | Norm::L0 => value * value,
    }
}

/// The length of which such shares are the sum.
fn root(norm: Norm, sum: f64) -> f64 {
    match norm {
        Norm::L1 => sum,
        Norm::L2 | Norm::Linf | Norm::L0 => sum.sqrt(),
    }
}

fn length(norm: Norm, values: &[f64]) -> f64 {
    let shares = values.iter().map(|&value| share(norm, value));
    root(norm, shares.sum())
}

/// The first perturbation, of length 1: bumps of random sign side by side all over the picture, five along each axis where there is room.
pub(super) fn tiles(norm: Norm, grid: Grid, stream: &mut Stream) -> Vec<f64> {
    let mut delta = vec![0.0; grid.channels * grid.area()];
    let (tall, wide) = ((grid.rows / 5).max(1), (grid.columns / 5).max(1));
    let (down, across) = (grid.rows / tall, grid.columns / wide);
    let top = (grid.rows - down * tall) / 2;
    let left = (grid.columns - across * wide) / 2;
    for tile in 0..down * across {
        let (row, column) = (top + tile / across * tall, left + tile % across * wide);
        let window = Window {
            rows: row..row + tall,
            columns: column..column + wide,
        };
        let bump = bump(norm, tall, wide, stream.random());
        for channel in 0..grid.channels {
            let sign = sign(stream);
            for (position, value) in grid.positions(channel, &window).zip(&bump) {
                delta[position] = sign * value;
            }
        }
    }
    normalize(norm, &mut delta, 1.0);
    delta
}

/// Moves the length that two windows hold, and what ε leaves over, into a new bump at the first of them.
///
/// In each channel, the window becomes a bump of random sign plus its old content (each of length 1), brought to the length
/// √(max(ε² − ‖δ‖², 0)/channels + ‖δ on both windows‖²) (in ℓ1 without squares and root); the second window becomes 0. `delta` then has length ε.
pub(super) fn shift(
    norm: Norm,
    grid: Grid,
    delta: &mut [f64],
    epsilon: f64,
    extents: (usize, usize),
    stream: &mut Stream,
) {
    let (to, from) = (
        grid.place_inward(extents, stream),
        grid.place_inward(extents, stream),
    );
    let bump = bump(norm, extents.0, extents.1, stream.random());
    let total: f64 = delta.iter().map(|&value| share(norm, value)).sum();
    let left = (share(norm, epsilon) - total).max(0.0);
    let shares = |window: &Window, skip: Option<&Window>| {
        let mut sum = 0.0;
        for row in window.rows.clone() {
            for column in window.columns.clone() {
                let counted = skip
                    .is_some_and(|skip| skip.rows.contains(&row) && skip.columns.contains(&column));
                if !counted {
                    let values =
                        (0..grid.channels).map(|channel| delta[grid.at(channel, row, column)]);
                    sum += values.map(|value| share(norm, value)).sum::<f64>();
                }
            }
        }
        sum
    };
    let held = shares(&to, None) + shares(&from, Some(&to));
    #[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
    let target = root(norm, left / grid.channels as f64 + held);
    let mut contents = Vec::with_capacity(grid.channels);
    for channel in 0..grid.channels {
        let sign = sign(stream);
        let old: Vec<f64> = grid.positions(channel, &to).map(|at| delta[at]).collect();
        let scale = 1.0 / (GUARD + length(norm, &old));
        let mut new: Vec<f64> = old
            .iter()
            .zip(&bump)
            .map(|(old, bump)| sign * bump + scale * old)
            .collect();
        let scale = target / (GUARD + length(norm, &new));
        for value in &mut new {
            *value *= scale;
        }
        contents.push(new);
    }
    for (channel, new) in contents.into_iter().enumerate() {
        for position in grid.positions(channel, &from) {
            delta[position] = 0.0;
        }
        for (position, value) in grid.positions(channel, &to).zip(new) {
            delta[position] = value;
        }
    }
    normalize(norm, delta, epsilon);
}

/// Shares the length that two single elements hold, and what ε leaves over, among the two at random.
///
/// In ℓ2 at a random angle; in ℓ1 every other time all of it goes to the first of them.
pub(super) fn trade(norm: Norm, grid: Grid, delta: &mut [f64], epsilon: f64, stream: &mut Stream) {
    let mut draw = || {
        let window = grid.place((1, 1), stream);
        let channel = stream.random_range(0..grid.channels);
        grid.at(channel, window.rows.start, window.columns.start)
    };
    let (to, from) = (draw(), draw());
    if to == from {
        delta[to] = -delta[to];
        return;
    }
    let total: f64 = delta.iter().map(|&value| share(norm, value)).sum();
    let left = (share(norm, epsilon) - total).max(0.0);
    let length = root(
        norm,
        left + share(norm, delta[to]) + share(norm, delta[from]),
    );
    (delta[to], delta[from]) = if norm == Norm::L1 {
        let part = if stream.random() {
            1.0
        } else {
            stream.random()
        };
        let rest = (1.0 - part) * length;
        (sign(stream) * part * length, rest.copysign(delta[from]))
    } else {
        let angle = stream.random_range(0.0..std::f64::consts::TAU);
        (length * angle.cos(), length * angle.sin())
    };
    normalize(norm, delta, epsilon);
}

/// How often the scale is improved in [`fill`]; it is met to 1e-6 of ε sooner, but in rare cases.
const IMPROVEMENTS: usize = 12;

/// Brings `delta` to the length `to` with no element further than its room: min(t·|δ|, room), as far as there is room.
///
/// `delta` is at most as long. In the share that an element adds to the length (t in ℓ1, t² in ℓ2) the sum is concave and made of straight pieces, so that Newton's iteration rises
/// to the solution and never passes it.
pub(super) fn fill(norm: Norm, delta: &mut [f64], room: &[f64], to: f64) {
    let wanted = share(norm, to);
    let shares: Vec<(f64, f64)> = delta
        .iter()
        .zip(room)
        .map(|(&value, &room)| (share(norm, value), share(norm, room)))
        .filter(|&(value, _)| value > 0.0)
        .collect();
    let mut scale = 1.0;
    for _ in 0..IMPROVEMENTS {
        let (mut reached, mut slope) = (0.0, 0.0);
        for &(value, room) in &shares {
            if scale * value < room {
                reached += scale * value;
                slope += value;
            } else {
                reached += room;
            }
        }
        let missing = wanted - reached;
        if missing <= 1e-9 * wanted || slope <= 0.0 {
            break;
        }
        scale += missing / slope;
    }
    let scale = root(norm, scale);
    for (value, &room) in delta.iter_mut().zip(room) {
        *value = (scale * *value).clamp(-room, room);
    }
}

/// Brings `delta` to a length.
pub(super) fn normalize(norm: Norm, delta: &mut [f64], to: f64) {
    let scale = to / (GUARD + length(norm, delta));
    for value in delta {
        *value *= scale;
    }
}

/// 1 or −1.
pub(super) fn sign(stream: &mut Stream) -> f64 {
    if stream.random() { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Key, Purpose, stream};

    fn seeded(sample: u64) -> Stream {
        stream(Key {
            seed: 0,
            sample,
            restart: 0,
            purpose: Purpose::Queries,
        })
    }

    /// The formula by hand: a 2 × 3 half has rings of 1 and 1/4 around its middle (row 1, column 1).
    #[test]
    fn a_pyramid_adds_up_its_rings() {
        let values = pyramid(Norm::L2, 2, 3);
        let expected = [0.25, 0.25, 0.25, 0.25, 1.25, 0.25];
        let length = expected.iter().map(|v: &f64| v * v).sum::<f64>().sqrt();
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected / length).abs() < 1e-12, "{values:?}");
        }
    }

    /// Elements at 0 go only upwards, and what they cannot take goes to the others.
    #[test]
    fn what_bounds_take_away_the_other_elements_get() {
        for norm in [Norm::L2, Norm::L1] {
            let mut delta = vec![-0.5, 0.4, 0.1, 0.0, -0.2];
            normalize(norm, &mut delta, 0.7);
            fill(norm, &mut delta, &[0.0, 0.3, 5.0, 1.0, 1.0], 0.7);
            assert!((length(norm, &delta) - 0.7).abs() < 1e-8, "{delta:?}");
            assert_eq!((delta[0], delta[1], delta[3]), (0.0, 0.3, 0.0));
            assert!((delta[4] / delta[2] + 2.0).abs() < 1e-9, "{delta:?}");
        }
        let mut delta = vec![0.3, -0.3];
        fill(Norm::L2, &mut delta, &[0.1, 0.2], 5.0);
        assert_eq!(delta, [0.1, -0.2], "no further than there is room");
    }

    #[test]
    fn a_bump_has_length_one_and_two_signs_either_way_round() {
        for (rows, columns) in [(3, 3), (5, 5), (1, 7), (7, 1), (4, 2), (23, 23)] {
            for (beside, norm) in [false, true].into_iter().zip([Norm::L2, Norm::L1]) {
                let bump = bump(norm, rows, columns, beside);
                assert!((length(norm, &bump) - 1.0).abs() < 1e-9);
                assert!(bump.iter().any(|v| *v > 0.0) && bump.iter().any(|v| *v < 0.0));
                if rows == columns {
                    let other = super::bump(norm, rows, columns, !beside);
                    for (place, value) in bump.iter().enumerate() {
                        let turned = other[place % columns * columns + place / columns];
                        assert!((value - turned).abs() < 1e-12);
                    }
                }
            }
        }
        assert_eq!(bump(Norm::L2, 1, 1, true), [1.0]);
    }

    #[test]
    fn a_move_keeps_the_length_and_touches_two_windows_only() {
        let shapes = [&[3, 11, 9][..], &[28, 28], &[40], &[2, 2]];
        let both = |shape| [(Norm::L2, shape), (Norm::L1, shape)];
        for (norm, shape) in shapes.into_iter().flat_map(both) {
            let grid = Grid::new(shape);
            let mut stream = seeded(3);
            let mut delta = tiles(norm, grid, &mut stream);
            assert!((length(norm, &delta) - 1.0).abs() < 1e-9, "{shape:?}");
            normalize(norm, &mut delta, 0.5);
            for _ in 0..50 {
                let before = delta.clone();
                let extents = (3.min(grid.rows), 3.min(grid.columns));
                shift(norm, grid, &mut delta, 0.5, extents, &mut stream);
                assert!((length(norm, &delta) - 0.5).abs() < 1e-9, "{shape:?}");
                // Everything else is at most scaled, by one factor.
                let mut factors: Vec<f64> = before
                    .iter()
                    .zip(&delta)
                    .filter(|(before, _)| **before != 0.0)
                    .map(|(before, after)| after / before)
                    .collect();
                factors.sort_by(f64::total_cmp);
                let changed = 2 * extents.0 * extents.1 * grid.channels;
                let mut run = 1;
                let mut longest = 1;
                for pair in factors.windows(2) {
                    run = if (pair[1] - pair[0]).abs() < 1e-9 {
                        run + 1
                    } else {
                        1
                    };
                    longest = longest.max(run);
                }
                assert!(longest + changed >= factors.len(), "{shape:?}");
            }
        }
    }
}
