//! Convolutions whose taps are moved, each by its own offset.

use super::image_extents;
use super::taps::{AxisTaps, Mode, Outside, Taps};
use crate::grad::rule::{Cotangents, Vjp};
use crate::grad::rules::shape::as_i64;
use crate::graph::{Attributes, Dim, Expr};
use crate::tensor::Tensor;

/// The numbers that describe a deformable convolution.
struct Deformable {
    groups: i64,
    offset_groups: i64,
    kernel: [i64; 2],
    strides: [i64; 2],
    dilations: [i64; 2],
    before: [i64; 2],
    output: [i64; 2],
}

impl Deformable {
    fn of(n: &Vjp<'_>) -> Result<Self, String> {
        let pair = |name: &str, default: i64| match n.ints(name) {
            Some([a, b, ..]) => [*a, *b],
            _ => [default, default],
        };
        let weight = n.x(1).shape();
        let (out, weight) = (n.y(0).shape(), weight.as_slice());
        let ([_, _, height, width], [_, _, rows, columns]) = (out.as_slice(), weight) else {
            return Err("it does not work on images with two axes".into());
        };
        Ok(Deformable {
            groups: n.int("group").unwrap_or(1),
            offset_groups: n.int("offset_group").unwrap_or(1).max(1),
            kernel: [n.fixed(*rows)?, n.fixed(*columns)?],
            strides: pair("strides", 1),
            dilations: pair("dilations", 1),
            before: pair("pads", 0),
            output: [n.fixed(*height)?, n.fixed(*width)?],
        })
    }

    /// Where the taps of the kernel stand along an axis when nothing is deformed, `[1, 1, taps · places, 1]`.
    fn regular(&self, axis: usize) -> Option<Tensor> {
        let mut places = Vec::new();
        for row in 0..self.kernel[0] {
            for column in 0..self.kernel[1] {
                for high in 0..self.output[0] {
                    for wide in 0..self.output[1] {
                        let (tap, place) = if axis == 0 {
                            (row, high)
                        } else {
                            (column, wide)
                        };
                        let at = place * self.strides[axis] - self.before[axis]
                            + tap * self.dilations[axis];
                        #[expect(
                            clippy::cast_precision_loss,
                            reason = "images are smaller than 2⁵³ pixels"
                        )]
                        places.push(at as f64);
                    }
                }
            }
        }
        Tensor::new(&[1, 1, places.len(), 1], places)
    }

    /// The taps of every spot, moved by its offset; `component` is the shape of one component of the offsets.
    fn taps<'g>(
        &self,
        n: &Vjp<'g>,
        extents: &[i64],
        component: &[Dim; 5],
    ) -> Result<Taps<'g>, String> {
        let offset = n.x(2);
        let [batch, parts, kernel, _, places] = *component;
        let moved = offset.reshape(&[batch, parts, kernel, Dim::fixed(2), places]);
        let spots = places.times(self.kernel.iter().product());
        let mut axes = Vec::new();
        for (axis, &extent) in extents.iter().enumerate().take(2) {
            let regular = self.regular(axis).ok_or("its kernel is empty")?;
            let regular = n.builder().constant(&regular).cast_like(offset);
            let along = as_i64(axis);
            let moved = moved.slice(3, along, Dim::fixed(along + 1));
            let position = moved.reshape(&[batch, parts, spots, Dim::ONE]) + regular;
            axes.push(AxisTaps::new(
                position,
                extent,
                Mode::Linear,
                Outside::Zeros,
            ));
        }
        Taps::new(axes, extents)
    }
}

pub(super) fn deformable_convolution<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let columns = Columns::of(n)?;
    let dy = n.dy();
    let mut cotangents = Vec::new();
    if n.wants(0) {
        let dx = columns
            .taps
            .put_back(columns.masked(columns.cotangent), columns.image);
        let dx = dx.ok_or("its kernel is empty")?;
        cotangents.push((0, dx.reshape(&n.shape())));
    }
    if n.wants(1) {
        let read = columns.masked(columns.pixels()).reshape(&columns.by_groups);
        let dw = columns.by_filters.matmul(read.transpose_last());
        let dw = dw.reduce("ReduceSum", &[0], false);
        cotangents.push((1, dw.reshape(&n.x(1).shape())));
    }
    if n.wants(2) {
        cotangents.push((2, columns.moved(n.x(2))?));
    }
    if n.wants(3) {
        cotangents.push((3, dy.reduce("ReduceSum", &[0, 2, 3], false)));
    }
    if let Some(mask) = n.optional_x(4).filter(|_| n.wants(4)) {
        let dm = (columns.cotangent * columns.pixels()).reduce("ReduceSum", &[2], false);
        cotangents.push((4, dm.reshape(&mask.shape())));
    }
    Ok(cotangents)
}

/// What the kernel sees: the pixels at its taps, for every place of the result.
///
/// Channels are in parts that share offsets, and a spot is a tap of the kernel at a place: `[n, parts, channels, spots]`.
struct Columns<'g> {
    taps: Taps<'g>,
    /// x as `[n, parts, channels, pixels]`.
    image: Expr<'g>,
    /// The mask as `[n, parts, 1, spots]`.
    mask: Option<Expr<'g>>,
    /// ȳ as `[n, groups, filters, places]`.
    by_filters: Expr<'g>,
    /// The shape of columns where filters are applied to them: `[n, groups, channels · taps, places]`.
    by_groups: [Dim; 4],
    /// Wᵀ ȳ: the cotangent of the masked columns.
    cotangent: Expr<'g>,
    /// The shape of an offset's component: `[n, parts, taps, 1, places]`.
    component: [Dim; 5],
}

impl<'g> Columns<'g> {
    fn of(n: &Vjp<'g>) -> Result<Self, String> {
        let form = Deformable::of(n)?;
        let (x, weight) = (n.x(0), n.x(1));
        let (batch, channels) = (x.shape()[0], n.fixed(x.shape()[1])?);
        let (groups, parts) = (Dim::fixed(form.groups), Dim::fixed(form.offset_groups));
        let kernel = form.kernel.iter().product::<i64>();
        let places = Dim::fixed(form.output.iter().product());
        let spots = places.times(kernel);
        let extents = image_extents(n)?;
        let pixels = Dim::fixed(extents.iter().product());
        let component = [batch, parts, Dim::fixed(kernel), Dim::ONE, places];
        let taps = form.taps(n, &extents, &component)?;
        let filters = Dim::fixed(n.fixed(weight.shape()[0])? / form.groups);
        let rows = Dim::fixed(channels / form.groups * kernel);
        let by_filters = n.dy().reshape(&[batch, groups, filters, places]);
        let flat_weight = weight.reshape(&[groups, filters, rows]);
        let cotangent = flat_weight.transpose_last().matmul(by_filters);
        let part_channels = Dim::fixed(channels / form.offset_groups);
        let mask = n.optional_x(4);
        Ok(Columns {
            taps,
            image: x.reshape(&[batch, parts, part_channels, pixels]),
            mask: mask.map(|mask| mask.reshape(&[batch, parts, Dim::ONE, spots])),
            by_filters,
            by_groups: [batch, groups, rows, places],
            cotangent: cotangent.reshape(&[batch, parts, part_channels, spots]),
            component,
        })
    }

    fn masked(&self, columns: Expr<'g>) -> Expr<'g> {
        self.mask.map_or(columns, |mask| columns * mask)
    }

    /// The columns before the mask.
    fn pixels(&self) -> Expr<'g> {
        let read = self.taps.read(self.image);
        let weights = self.taps.weights(None);
        let weighted = weights.map_or(read, |weights| read * weights.unsqueeze(&[2]));
        weighted.reduce("ReduceSum", &[4], false)
    }

    /// The cotangent of the offsets.
    fn moved(&self, offset: Expr<'g>) -> Result<Expr<'g>, String> {
        let dy = self.masked(self.cotangent).unsqueeze(&[4]);
        let products = (self.taps.read(self.image) * dy).reduce("ReduceSum", &[2], false);
        let along = |axis: usize| {
            let moved = self.taps.moved(products, axis)?;
            Some(moved.reshape(&self.component))
        };
        let [Some(down), Some(across)] = [along(0), along(1)] else {
            return Err("its kernel is empty".into());
        };
        Ok(Expr::concat(&[down, across], 3).reshape(&offset.shape()))
    }
}
