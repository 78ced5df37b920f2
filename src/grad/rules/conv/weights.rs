//! The adjoint of a convolution in its weights: for each tap and pair of channels, the sum over samples and places.
//!
//! The same numbers can be had in several ways, and which is fast on a CPU depends on the shape; measured on ONNX Runtime 1.31, milliseconds of
//! one core (PyTorch 2.15; batch, channels in → out, image, stride, kernel):
//!
//! | | 128, 16→32, 13², 2, 4 | 128, 32→32, 28², 2, 3 | 32, 64→64, 32², 1, 3 | 32, 256→256, 8², 1, 3 | 128, 1→32, 28², 1, 3 | 32, 256→64, 16², 1, 1 |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | PyTorch | 1.1 | 7.0 | 27 | 22 | 2.9 | 4.4 |
//! | a convolution with axes exchanged | 2.2 | 21 | 77 | 58 | 4.3 | |
//! | identity kernels | 2.2 | 17 | 42 | 35 | 2.3 | 5.3 |
//! | gathered rows | 0.9 | 11 | 35 | 28 | 4.8 | 5.1 |
//! | the product alone | | | | | | 3.7 |

use super::Grids;
use crate::grad::window::{Axis, refit};
use crate::graph::{Attribute, Dim, Expr, Fact};
use crate::tensor::{DType, Tensor};
use ndarray::{Array2, ArrayD, IxDyn};

/// Up to this many channels of the large grid, identity kernels are faster.
const FEW_CHANNELS: i64 = 4;

impl Grids {
    /// The adjoint of `gather` in the weights.
    pub(super) fn correlate<'g>(&self, large: Expr<'g>, small: Expr<'g>) -> Expr<'g> {
        let has_products = matches!(large.dtype(), DType::F32 | DType::F64);
        let is_pointwise = self.window.0.iter().all(|axis| axis.kernel == 1);
        if !has_products || (self.groups != 1 && !is_pointwise) {
            self.by_convolution(large, small)
        } else if is_pointwise {
            self.by_product(large, small)
        } else if self.weights[1].fixed <= FEW_CHANNELS {
            self.by_identity_kernels(large, small)
        } else {
            self.by_rows(large, small)
        }
    }

    /// The number of places.
    fn places(&self) -> i64 {
        self.window.0.iter().map(|axis| axis.output).product()
    }

    /// Without taps there is nothing to lay out: of each sample, the product of the small grid and the large one.
    fn by_product<'g>(&self, large: Expr<'g>, small: Expr<'g>) -> Expr<'g> {
        let (batch, places) = (large.shape()[0], Dim::fixed(self.places()));
        let at = self.seen_by_first_tap(large);
        let groups = Dim::fixed(self.groups);
        let own = Dim::fixed(self.weights[0].fixed / self.groups);
        let small = small.reshape(&[batch, groups, own, places]);
        let large = at.reshape(&[batch, groups, self.weights[1], places]);
        let products = small.matmul(large.transpose_last());
        let sum = products.reduce("ReduceSum", &[0], false);
        sum.reshape(&self.weights)
    }

    /// The positions of the large grid that the first tap sees.
    fn seen_by_first_tap<'g>(&self, large: Expr<'g>) -> Expr<'g> {
        let ranges = self.window.0.iter();
        let ranges: Vec<_> = ranges.map(|axis| (-axis.before, axis.reach())).collect();
        let whole = refit(large, &ranges);
        let strided: Vec<(usize, &Axis)> = (2..)
            .zip(&self.window.0)
            .filter(|(_, axis)| axis.stride > 1)
            .collect();
        if strided.is_empty() {
            return whole;
        }
        let mut shape = whole.shape();
        for (place, axis) in &strided {
            shape[*place] = Dim::fixed(axis.output);
        }
        let of = |value: &dyn Fn(usize, &Axis) -> i64| {
            let values: Vec<i64> = strided
                .iter()
                .map(|(place, axis)| value(*place, axis))
                .collect();
            large.builder().ints(&values)
        };
        #[expect(clippy::cast_possible_wrap, reason = "axes are few")]
        let axes = of(&|place, _| place as i64);
        let operands = [
            whole,
            of(&|_, _| 0),
            of(&|_, axis| axis.reach()),
            axes,
            of(&|_, axis| axis.stride),
        ];
        large
            .builder()
            .node("Slice", &operands, &[], Fact::new(large.dtype(), shape))
    }

    /// The large grid is laid out by a convolution with kernels of a single 1, one for each tap.
    fn by_identity_kernels<'g>(&self, large: Expr<'g>, small: Expr<'g>) -> Expr<'g> {
        let (batch, places) = (large.shape()[0], Dim::fixed(self.places()));
        let channels = self.weights[1].fixed;
        let taps: Vec<usize> = self
            .window
            .0
            .iter()
            .map(|axis| usize::try_from(axis.kernel).unwrap_or(1))
            .collect();
        let count: usize = taps.iter().product();
        let repeats = usize::try_from(channels).unwrap_or(1);
        let mut kernels = Array2::<f32>::zeros((repeats * count, count));
        for (row, mut kernel) in kernels.rows_mut().into_iter().enumerate() {
            kernel[row % count] = 1.0;
        }
        let shape: Vec<usize> = [repeats * count, 1].into_iter().chain(taps).collect();
        let kernels = kernels.into_shape_with_order(IxDyn(&shape));
        let kernels = kernels.unwrap_or_else(|_| ArrayD::zeros(IxDyn(&shape)));
        let kernels = large.builder().constant(&Tensor::F32(kernels));
        let columns = self.weights[2..]
            .iter()
            .fold(channels, |product, dim| product * dim.fixed);
        let mut to = small.shape();
        to[1] = Dim::fixed(columns);
        let laid = self
            .convolve(large, kernels.cast_like(large), channels, &to)
            .reshape(&[batch, Dim::fixed(columns), places]);
        let small = small.reshape(&[batch, self.weights[0], places]);
        let products = small.matmul(laid.transpose_last());
        products
            .reduce("ReduceSum", &[0], false)
            .reshape(&self.weights)
    }

    /// With samples as the last axis, what a tap sees at a place is one run of memory, and one product sums over places and samples together.
    ///
    /// The taps that share their place on the first axis are laid out at once: all at once takes as many times more memory, and is not faster.
    fn by_rows<'g>(&self, large: Expr<'g>, small: Expr<'g>) -> Expr<'g> {
        let builder = large.builder();
        let (batch, places) = (large.shape()[0], self.places());
        let (own, channels) = (self.weights[0], self.weights[1]);
        let ranges: Vec<_> = self
            .window
            .0
            .iter()
            .map(|axis| (-axis.before, axis.reach()))
            .collect();
        let area: i64 = ranges.iter().map(|(_, extent)| extent).product();
        let order: Vec<usize> = (1..large.rank()).chain([0]).collect();
        let large =
            refit(large, &ranges)
                .transpose(&order)
                .reshape(&[channels, Dim::fixed(area), batch]);
        let small = small.transpose(&order).reshape(&[own, batch.times(places)]);
        let (seen, step) = self.first_row();
        let others = self.window.0.iter().skip(1);
        let taps = Dim::fixed(others.map(|axis| axis.kernel).product());
        let seen = builder.constant(&Tensor::I64(seen));
        let first = self.window.0.first().map_or(1, |axis| axis.kernel);
        let rows = (0..first).map(|row| {
            let seen = match row {
                0 => seen,
                row => seen + builder.ints(&[row * step]),
            };
            let laid = large.gather(seen, 1);
            let laid = laid.reshape(&[channels.times(taps.fixed), batch.times(places)]);
            let fact = Fact::new(laid.dtype(), vec![channels.times(taps.fixed), own]);
            let transposed = [("transB", Attribute::Int(1))];
            let row = builder.node("Gemm", &[laid, small], &transposed, fact);
            row.reshape(&[channels, Dim::ONE, taps, own])
        });
        let rows: Vec<_> = rows.collect();
        let sum = Expr::concat(&rows, 1).reshape(&[channels, taps.times(first), own]);
        sum.transpose(&[2, 0, 1]).reshape(&self.weights)
    }

    /// For each tap whose place on the first axis is 0, the positions that it sees at every place, counted through the padded grid; and how much
    /// further the next place on the first axis is.
    fn first_row(&self) -> (ArrayD<i64>, i64) {
        // From the last axis to the first: how far apart neighbours are, and the positions by tap and by place.
        let (mut apart, mut step) = (1, 0);
        let (mut taps, mut places) = (vec![0], vec![0]);
        for (index, axis) in self.window.0.iter().enumerate().rev() {
            let along = |count: i64, distance: i64, inner: &[i64]| -> Vec<i64> {
                let outer = (0..count).map(|at| at * distance * apart);
                outer
                    .flat_map(|outer| inner.iter().map(move |inner| outer + inner))
                    .collect()
            };
            places = along(axis.output, axis.stride, &places);
            if index == 0 {
                step = axis.dilation * apart;
            } else {
                taps = along(axis.kernel, axis.dilation, &taps);
            }
            apart *= axis.reach();
        }
        let seen = ArrayD::from_shape_fn(IxDyn(&[taps.len(), places.len()]), |at| {
            taps[at[0]] + places[at[1]]
        });
        (seen, step)
    }

    /// A convolution of the large grid by the small one, with samples in the role of channels, and stride and dilation exchanged.
    fn by_convolution<'g>(&self, large: Expr<'g>, small: Expr<'g>) -> Expr<'g> {
        let (groups, channels) = (Dim::fixed(self.groups), self.weights[1]);
        let (samples, spatial) = (large.shape()[0], self.window.input());
        let axes = spatial.len();
        let behind =
            |lead: [usize; 3]| -> Vec<usize> { lead.into_iter().chain(3..3 + axes).collect() };
        let swap: Vec<usize> = [1, 0].into_iter().chain(2..2 + axes).collect();
        let large = large
            .reshape(&[&[samples, groups, channels], &spatial[..]].concat())
            .transpose(&behind([2, 1, 0]))
            .reshape(&[&[channels, samples.times(self.groups)], &spatial[..]].concat());
        let small = small.transpose(&swap);
        // Positions that no window covers would count as further taps; they, too, are cut off.
        let taps = |axis: &Axis| axis.kernel + (-axis.after()).max(0) / axis.dilation;
        let window = self.window.0.iter();
        let before = window.clone().map(|axis| axis.before);
        let pads = before.chain(window.clone().map(|axis| axis.after().max(0)));
        let attributes = [
            ("group", Attribute::Int(self.groups)),
            ("strides", self.window.attribute(|axis| axis.dilation)),
            ("dilations", self.window.attribute(|axis| axis.stride)),
            ("pads", Attribute::Ints(pads.collect())),
        ];
        let mut shape = vec![channels, self.weights[0]];
        shape.extend(window.clone().map(|axis| Dim::fixed(taps(axis))));
        let fact = Fact::new(large.dtype(), shape);
        let all = large
            .builder()
            .node("Conv", &[large, small], &attributes, fact);
        let ranges: Vec<_> = window.map(|axis| (0, axis.kernel)).collect();
        refit(all, &ranges).transpose(&swap)
    }
}
