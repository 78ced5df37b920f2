//! Sampling at a grid of positions, and the grids of affine maps.

use super::taps::{AxisTaps, Mode, Outside, Taps};
use super::{image_extents, single};
use crate::grad::rule::{Cotangents, Vjp};
use crate::grad::rules::index::product;
use crate::grad::rules::shape::as_i64;
use crate::graph::{Attributes, Dim, Expr, Fact};
use crate::tensor::Tensor;

/// How a grid is read.
struct Reading {
    at_centres: bool,
    mode: Mode,
    outside: Outside,
}

impl Reading {
    fn of(n: &Vjp<'_>) -> Result<Self, String> {
        let at_centres = n.int("align_corners").unwrap_or(0) != 0;
        let mode = match n.string("mode").unwrap_or("linear") {
            "linear" | "bilinear" => Mode::Linear,
            "nearest" => Mode::Nearest,
            "cubic" | "bicubic" => Mode::Cubic,
            other => return Err(format!("its mode `{other}` is not known")),
        };
        let outside = match n.string("padding_mode").unwrap_or("zeros") {
            "zeros" => Outside::Zeros,
            "border" => Outside::Border,
            "reflection" => Outside::Reflection { at_centres },
            other => return Err(format!("its padding mode `{other}` is not known")),
        };
        Ok(Reading {
            at_centres,
            mode,
            outside,
        })
    }

    /// A component of the grid as a position among the pixels, and the derivative of that: −1 and 1 are the image's borders, at the centres
    /// of the outer pixels or at their edges.
    fn position<'g>(&self, place: Expr<'g>, extent: i64) -> (Expr<'g>, f64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "images are smaller than 2⁵³ pixels"
        )]
        let extent = extent as f64;
        if self.at_centres {
            let unit = (extent - 1.0) / 2.0;
            ((place + 1.0) * unit, unit)
        } else {
            (((place + 1.0) * extent - 1.0) / 2.0, extent / 2.0)
        }
    }
}

pub(super) fn grid_sample<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, grid) = (n.x(0), single(n.x(1)));
    let extents = image_extents(n)?;
    let reading = Reading::of(n)?;
    let spatial = extents.len();
    let shape = grid.shape();
    let positions = product(&shape[1..=spatial])?;
    let (batch, channels) = (x.shape()[0], x.shape()[1]);
    let list = grid.reshape(&[batch, positions, Dim::fixed(as_i64(spatial))]);
    // The last axis of the image comes first in the grid.
    let mut per_unit = Vec::new();
    let mut axes = Vec::new();
    for (axis, &extent) in extents.iter().enumerate() {
        let component = as_i64(spatial - 1 - axis);
        let place = list.slice(2, component, Dim::fixed(component + 1));
        let (place, unit) = reading.position(place, extent);
        per_unit.push(unit);
        axes.push(AxisTaps::new(place, extent, reading.mode, reading.outside));
    }
    let taps = Taps::new(axes, &extents)?;
    let dy = n.dy().reshape(&[batch, channels, positions]);
    let image = x.reshape(&[batch, channels, Dim::fixed(extents.iter().product())]);
    let mut cotangents = Vec::new();
    if n.wants(0) {
        let dx = taps.put_back(dy, image).ok_or("it has no axes to sample")?;
        cotangents.push((0, dx.reshape(&n.shape())));
    }
    if n.wants(1) && reading.mode != Mode::Nearest {
        let products =
            single(taps.read(image) * dy.unsqueeze(&[3])).reduce("ReduceSum", &[1], false);
        let moved = (0..spatial).rev().map(|axis| {
            let moved = taps.moved(products, axis)? * per_unit[axis];
            Some(moved.unsqueeze(&[2]))
        });
        let moved: Vec<_> = moved.collect::<Option<_>>().ok_or("it has no slopes")?;
        cotangents.push((1, Expr::concat(&moved, 2).reshape(&shape)));
    }
    Ok(cotangents)
}

pub(super) fn affine_grid<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (theta, dy) = (n.x(0), n.dy());
    let shape = dy.shape();
    let spatial = shape.len() - 2;
    let builder = n.builder();
    let mut unit = vec![0.0; spatial * (spatial + 1)];
    for axis in 0..spatial {
        unit[axis * (spatial + 1) + axis] = 1.0;
    }
    let unit = Tensor::new(&[1, spatial, spatial + 1], unit).ok_or("it has no axes")?;
    let unit = builder.constant(&unit).cast_like(theta);
    let mut size = vec![1, 1];
    for &dim in &shape[1..=spatial] {
        size.push(n.fixed(dim)?);
    }
    let count = Dim::fixed(size.iter().product());
    let components = Dim::fixed(as_i64(spatial));
    let mut one = shape.clone();
    one[0] = Dim::ONE;
    let places = builder.repeat(
        n.node(),
        &[Some(unit), Some(builder.ints(&size))],
        vec![Fact::new(theta.dtype(), one)],
    )[0];
    let ones = builder.full(theta.dtype(), &[count, Dim::ONE], 1.0);
    let base = Expr::concat(&[places.reshape(&[count, components]), ones], 1);
    let dy = dy.reshape(&[shape[0], count, components]);
    n.only(dy.transpose_last().matmul(base))
}
