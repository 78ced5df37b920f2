//! Arrays in host memory: the reference form of the operations that attack steps are written in.
//!
//! Slow and plain on purpose: the graph form is tested against it, element by element.
//! Elements are float32, sums are taken in float64 and rounded once.
//! Every operation works row by row, so that what a sample gets never depends on the samples beside it.
//! Start at [`HostArrays::input`] and [`HostArrays::value`].

use super::array::{Array, ArrayId, Arrays, Binary, Reduce, Unary};
use ndarray::{ArcArray2, Array1, Array2, ArrayView1, Axis, Zip};
use std::cell::RefCell;

/// An arena of host arrays that belong to one step of one batch.
#[derive(Debug)]
pub struct HostArrays {
    width: usize,
    /// Shared, so that reading one copies nothing.
    values: RefCell<Vec<ArcArray2<f32>>>,
}

impl HostArrays {
    /// An empty arena for samples of `width` elements.
    #[must_use]
    pub fn new(width: usize) -> Self {
        HostArrays {
            width,
            values: RefCell::default(),
        }
    }

    /// Brings `value` into the arena: `[n, width]`, `[n, 1]`, or `[1, 1]` for what stretches over everything.
    ///
    /// # Panics
    /// Where `value` has neither 1 nor `width` columns.
    pub fn input(&self, value: Array2<f32>) -> Array<'_> {
        assert!(
            value.ncols() == 1 || value.ncols() == self.width,
            "{} columns in an arena of width {}",
            value.ncols(),
            self.width
        );
        Array::new(self, self.push(value))
    }

    /// The numbers that `array` stands for.
    ///
    /// # Panics
    /// Where `array` belongs to another arena.
    #[must_use]
    pub fn value(&self, array: Array<'_>) -> Array2<f32> {
        self.get(array.id()).to_owned()
    }

    fn push(&self, value: Array2<f32>) -> ArrayId {
        let mut values = self.values.borrow_mut();
        values.push(value.into_shared());
        ArrayId(values.len() - 1)
    }

    fn get(&self, id: ArrayId) -> ArcArray2<f32> {
        self.values.borrow()[id.0].clone()
    }

    /// `function` of each pair of elements.
    fn pairwise(&self, a: ArrayId, b: ArrayId, function: impl Fn(f32, f32) -> f32) -> ArrayId {
        let (a, b) = (self.get(a), self.get(b));
        let shape = common_shape(&[&a, &b]);
        let result = Zip::from(stretch(&a, shape))
            .and(stretch(&b, shape))
            .map_collect(|&a, &b| function(a, b));
        self.push(result)
    }
}

impl Arrays for HostArrays {
    fn constant(&self, value: f64) -> ArrayId {
        self.push(Array2::from_elem((1, 1), value as f32))
    }

    fn unary(&self, operation: Unary, a: ArrayId) -> ArrayId {
        let function: fn(f32) -> f32 = match operation {
            Unary::Neg => |a| -a,
            Unary::Abs => f32::abs,
            Unary::Sign => sign,
            Unary::Sqrt => f32::sqrt,
            Unary::Cos => f32::cos,
            Unary::Floor => f32::floor,
            Unary::Log => f32::ln,
            Unary::Tanh => f32::tanh,
        };
        self.push(self.get(a).mapv(function))
    }

    fn binary(&self, operation: Binary, a: ArrayId, b: ArrayId) -> ArrayId {
        match operation {
            Binary::Add => self.pairwise(a, b, |a, b| a + b),
            Binary::Sub => self.pairwise(a, b, |a, b| a - b),
            Binary::Mul => self.pairwise(a, b, |a, b| a * b),
            Binary::Div => self.pairwise(a, b, |a, b| a / b),
            Binary::Min => self.pairwise(a, b, min),
            Binary::Max => self.pairwise(a, b, max),
            Binary::Greater => self.pairwise(a, b, |a, b| f32::from(u8::from(a > b))),
        }
    }

    fn select(&self, mask: ArrayId, a: ArrayId, b: ArrayId) -> ArrayId {
        let (mask, a, b) = (self.get(mask), self.get(a), self.get(b));
        let shape = common_shape(&[&mask, &a, &b]);
        let result = Zip::from(stretch(&mask, shape))
            .and(stretch(&a, shape))
            .and(stretch(&b, shape))
            .map_collect(|&mask, &a, &b| if mask == 0.0 { b } else { a });
        self.push(result)
    }

    fn reduce(&self, operation: Reduce, a: ArrayId) -> ArrayId {
        let reduced = self.get(a).map_axis(Axis(1), |row| match operation {
            Reduce::Sum => row.iter().map(|&value| f64::from(value)).sum::<f64>() as f32,
            Reduce::Max => row.iter().copied().fold(f32::NEG_INFINITY, max),
            Reduce::KthLargest(k) => kth_largest(row, k),
        });
        self.push(reduced.insert_axis(Axis(1)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank brought into the row, its fraction dropped"
    )]
    fn at_rank(&self, a: ArrayId, rank: ArrayId) -> ArrayId {
        let (a, rank) = (self.get(a), self.get(rank));
        let rank = stretch(&rank, (a.nrows(), 1));
        let rows = a.rows().into_iter().zip(rank);
        let chosen = rows.map(|(row, &rank)| {
            let rank = (rank.max(0.0) as usize).min(row.len() - 1);
            kth_largest(row, rank + 1)
        });
        let chosen = Array1::from_iter(chosen).insert_axis(Axis(1));
        self.push(chosen)
    }

    fn one_hot_largest(&self, a: ArrayId) -> ArrayId {
        let mut result = self.get(a).to_owned();
        for mut row in result.rows_mut() {
            let mut first = 0;
            for (index, &value) in row.iter().enumerate() {
                if value > row[first] {
                    first = index;
                }
            }
            row.fill(0.0);
            if let Some(chosen) = row.get_mut(first) {
                *chosen = 1.0;
            }
        }
        self.push(result)
    }

    fn width(&self) -> usize {
        self.width
    }
}

/// −1, 0 or 1; 0 at ±0 and at NaN, as PyTorch's `sign`. (`f32::signum` gives ±1 at ±0.)
fn sign(a: f32) -> f32 {
    f32::from(i8::from(a > 0.0) - i8::from(a < 0.0))
}

/// The smaller one; NaN where one is NaN, as ONNX Runtime and NumPy. (`f32::min` drops the NaN.)
fn min(a: f32, b: f32) -> f32 {
    if a.is_nan() || a < b { a } else { b }
}

/// The larger one; NaN where one is NaN.
fn max(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// The k-th largest of the row, NaN counting as larger than every number.
fn kth_largest(row: ArrayView1<'_, f32>, k: usize) -> f32 {
    let mut values = row.to_vec();
    let (_, &mut value, _) = values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    value
}

/// The shape over which all of `arrays` stretch.
fn common_shape(arrays: &[&ArcArray2<f32>]) -> (usize, usize) {
    arrays.iter().fold((1, 1), |shape, array| {
        let (rows, columns) = array.dim();
        (
            if shape.0 == 1 { rows } else { shape.0 },
            if shape.1 == 1 { columns } else { shape.1 },
        )
    })
}

fn stretch(array: &ArcArray2<f32>, shape: (usize, usize)) -> ndarray::ArrayView2<'_, f32> {
    array
        .broadcast(shape)
        .expect("arrays of one arena have the rows and columns of one batch, or 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn sign_is_zero_at_both_zeros_and_at_nan() {
        let arrays = HostArrays::new(5);
        let a = arrays.input(array![[0.0, -0.0, f32::NAN, 1e-45, -1e-45]]);
        assert_eq!(arrays.value(a.sign()), array![[0.0, 0.0, 0.0, 1.0, -1.0]]);
    }

    #[test]
    fn samples_and_constants_stretch_over_rows() {
        let arrays = HostArrays::new(2);
        let a = arrays.input(array![[1.0, 2.0], [3.0, 4.0]]);
        let b = arrays.input(array![[10.0], [20.0]]);
        assert_eq!(arrays.value(a + b), array![[11.0, 12.0], [23.0, 24.0]]);
        assert_eq!(arrays.value(1.0 - b), array![[-9.0], [-19.0]]);
        assert_eq!(
            arrays.value(b.gt(15.0).select(a, 0.0)),
            array![[0.0, 0.0], [3.0, 4.0]]
        );
    }

    #[test]
    fn reductions_keep_one_number_per_sample() {
        let arrays = HostArrays::new(3);
        let a = arrays.input(array![[1.0, 5.0, 5.0], [-1.0, -2.0, -3.0]]);
        assert_eq!(arrays.value(a.sum()), array![[11.0], [-6.0]]);
        assert_eq!(arrays.value(a.largest()), array![[5.0], [-1.0]]);
        assert_eq!(arrays.value(a.kth_largest(1)), array![[5.0], [-1.0]]);
        assert_eq!(arrays.value(a.kth_largest(2)), array![[5.0], [-2.0]]);
        assert_eq!(arrays.value(a.kth_largest(3)), array![[1.0], [-3.0]]);
    }

    #[test]
    fn every_sample_has_a_rank_of_its_own() {
        let arrays = HostArrays::new(3);
        let a = arrays.input(array![[1.0, 5.0, 3.0], [-1.0, -2.0, -3.0], [0.0, 1.0, 2.0]]);
        let rank = arrays.input(array![[1.9], [-3.0], [7.0]]);
        assert_eq!(arrays.value(a.at_rank(rank)), array![[3.0], [-1.0], [0.0]]);
        let last = arrays.value(a.at_rank(a.constant(2.0)));
        assert_eq!(last, array![[1.0], [-3.0], [0.0]]);
    }

    #[test]
    fn the_first_of_equal_largest_is_the_one() {
        let arrays = HostArrays::new(3);
        let a = arrays.input(array![[1.0, 5.0, 5.0], [0.0, 0.0, 0.0]]);
        assert_eq!(
            arrays.value(a.one_hot_largest()),
            array![[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
        );
    }

    #[test]
    fn sums_do_not_lose_small_terms() {
        let arrays = HostArrays::new(100_001);
        let mut row = Array2::from_elem((1, 100_001), 1e-4_f32);
        row[[0, 0]] = 1e4;
        let sum = arrays.value(arrays.input(row).sum())[[0, 0]];
        assert_eq!(sum, 10_010.0);
    }

    #[test]
    fn what_is_not_selected_never_matters() {
        let arrays = HostArrays::new(2);
        let mask = arrays.input(array![[1.0, 0.0]]);
        let a = arrays.input(array![[2.0, f32::NAN]]);
        let b = arrays.input(array![[f32::INFINITY, 3.0]]);
        assert_eq!(arrays.value(mask.select(a, b)), array![[2.0, 3.0]]);
    }

    #[test]
    fn nan_passes_through_min_and_max() {
        let arrays = HostArrays::new(2);
        let a = arrays.input(array![[f32::NAN, 1.0]]);
        let b = arrays.input(array![[1.0, f32::NAN]]);
        for result in [a.min(b), a.max(b)] {
            assert!(arrays.value(result).iter().all(|value| value.is_nan()));
        }
    }
}
