//! A sample as channels of a picture: what attacks that move whole patches need to know of its shape.

use crate::rng::Stream;
use rand::Rng;
use std::ops::Range;

/// Where the elements of a sample are, as channels × rows × columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) channels: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// How far apart two neighbours are along each of the three.
    strides: [usize; 3],
}

impl Grid {
    /// The grid of a sample of that shape, without the batch.
    ///
    /// Axes of length 1 are left out; of the others, the last two are the picture and all before them its channels.
    /// Where the last of three has at most 4 elements and the first more, the channels come last.
    /// A vector is one row.
    pub(super) fn new(shape: &[usize]) -> Self {
        let extents: Vec<usize> = shape.iter().copied().filter(|&extent| extent > 1).collect();
        match *extents.as_slice() {
            [] => Grid::planes(1, 1, 1),
            [columns] => Grid::planes(1, 1, columns),
            [rows, columns, channels] if channels <= 4 && rows > 4 => Grid {
                channels,
                rows,
                columns,
                strides: [1, columns * channels, channels],
            },
            [ref channels @ .., rows, columns] => {
                Grid::planes(channels.iter().product(), rows, columns)
            }
        }
    }

    /// Channel by channel, each row by row.
    fn planes(channels: usize, rows: usize, columns: usize) -> Self {
        Grid {
            channels,
            rows,
            columns,
            strides: [rows * columns, columns, 1],
        }
    }

    /// The elements of a picture.
    pub(super) fn area(&self) -> usize {
        self.rows * self.columns
    }

    /// The position of an element among all of the sample's.
    pub(super) fn at(&self, channel: usize, row: usize, column: usize) -> usize {
        channel * self.strides[0] + row * self.strides[1] + column * self.strides[2]
    }

    /// The positions of a window's elements in one channel, row by row.
    pub(super) fn positions(
        self,
        channel: usize,
        window: &Window,
    ) -> impl Iterator<Item = usize> + use<> {
        let columns = window.columns.clone();
        window
            .rows
            .clone()
            .flat_map(move |row| columns.clone().map(move |column| (row, column)))
            .map(move |(row, column)| self.at(channel, row, column))
    }

    /// A square window of `area` elements, as nearly as whole numbers allow; where the picture is too narrow for it, as long as it has to be.
    ///
    /// The extents are `(rows, columns)`; `fit` may still change a whole number of elements.
    pub(super) fn extents(&self, area: f64, fit: impl Fn(usize) -> usize) -> (usize, usize) {
        let side = area.sqrt();
        #[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
        let (rows, columns) = (self.rows as f64, self.columns as f64);
        let (tall, wide) = if side > rows {
            (rows, area / rows)
        } else if side > columns {
            (area / columns, columns)
        } else {
            (side, side)
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "lengths within a picture"
        )]
        let whole = |length: f64, most| fit(length.round_ties_even() as usize).clamp(1, most);
        (whole(tall, self.rows), whole(wide, self.columns))
    }

    /// A window of these extents at a random place, each place as likely as any other.
    pub(super) fn place(&self, (rows, columns): (usize, usize), stream: &mut Stream) -> Window {
        let top = stream.random_range(0..=self.rows.saturating_sub(rows));
        let left = stream.random_range(0..=self.columns.saturating_sub(columns));
        Window {
            rows: top..top + rows,
            columns: left..left + columns,
        }
    }

    /// A window of these extents at a random place, those at the two ends of an axis half as likely as the others.
    pub(super) fn place_inward(
        &self,
        (rows, columns): (usize, usize),
        stream: &mut Stream,
    ) -> Window {
        let mut along = |length: usize, extent: usize| match length.saturating_sub(extent) {
            0 => 0,
            places => stream.random_range(0..places) + usize::from(stream.random::<bool>()),
        };
        let top = along(self.rows, rows);
        let left = along(self.columns, columns);
        Window {
            rows: top..top + rows,
            columns: left..left + columns,
        }
    }
}

/// A rectangle within a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Key, Purpose, stream};

    fn seeded() -> Stream {
        stream(Key {
            seed: 0,
            sample: 0,
            restart: 0,
            purpose: Purpose::Queries,
        })
    }

    fn extents(shape: &[usize]) -> (usize, usize, usize) {
        let Grid {
            channels,
            rows,
            columns,
            ..
        } = Grid::new(shape);
        (channels, rows, columns)
    }

    #[test]
    fn every_shape_is_a_picture_of_some_kind() {
        for (shape, expected) in [
            (&[][..], (1, 1, 1)),
            (&[7], (1, 1, 7)),
            (&[1, 7], (1, 1, 7)),
            (&[7, 1, 1], (1, 1, 7)),
            (&[28, 28], (1, 28, 28)),
            (&[1, 28, 28], (1, 28, 28)),
            (&[28, 28, 1], (1, 28, 28)),
            (&[3, 32, 24], (3, 32, 24)),
            (&[32, 24, 3], (3, 32, 24)),
            (&[2, 3, 32, 24], (6, 32, 24)),
        ] {
            assert_eq!(extents(shape), expected, "{shape:?}");
        }
    }

    #[test]
    fn positions_cover_every_element_once() {
        for shape in [&[3, 5, 6][..], &[5, 6, 3], &[7], &[2, 2, 3, 4]] {
            let grid = Grid::new(shape);
            let all = Window {
                rows: 0..grid.rows,
                columns: 0..grid.columns,
            };
            let positions = (0..grid.channels).flat_map(|channel| grid.positions(channel, &all));
            let mut positions: Vec<usize> = positions.collect();
            positions.sort_unstable();
            let elements: usize = shape.iter().product();
            assert_eq!(positions, (0..elements).collect::<Vec<_>>(), "{shape:?}");
        }
    }

    #[test]
    fn windows_keep_their_area_in_narrow_pictures() {
        let round = |length| length;
        assert_eq!(Grid::new(&[20, 20]).extents(100.0, round), (10, 10));
        assert_eq!(Grid::new(&[4, 100]).extents(100.0, round), (4, 25));
        assert_eq!(Grid::new(&[100]).extents(80.0, round), (1, 80));
        assert_eq!(Grid::new(&[100]).extents(0.1, round), (1, 1));
    }

    /// A peer's `randint(0, h − s)` leaves out the last place, so that the last row and column are never tried alone.
    #[test]
    fn the_last_place_is_drawn_as_often_as_the_first() {
        let grid = Grid::new(&[4, 4]);
        let mut stream = seeded();
        let mut counts = [0; 16];
        for _ in 0..16_000 {
            let window = grid.place((1, 1), &mut stream);
            counts[grid.at(0, window.rows.start, window.columns.start)] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn inward_the_places_at_the_ends_are_drawn_half_as_often() {
        let grid = Grid::new(&[3, 4]);
        let mut stream = seeded();
        let mut counts = [0; 3];
        for _ in 0..16_000 {
            let window = grid.place_inward((3, 2), &mut stream);
            assert_eq!(window.rows, 0..3);
            counts[window.columns.start] += 1;
        }
        let [first, middle, last] = counts;
        assert!((7700..8300).contains(&middle), "{counts:?}");
        assert!((3750..4250).contains(&first) && (3750..4250).contains(&last));
    }
}
