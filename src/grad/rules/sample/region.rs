//! Pooling over regions of an image.

use super::image_extents;
use super::taps::{AxisTaps, Mode, Outside, Taps};
use crate::grad::rule::{Cotangents, Vjp};
use crate::grad::rules::index::scatter_nd_add;
use crate::graph::{Attribute, Attributes, Dim, Expr, Fact, Node};
use crate::tensor::{DType, Tensor};

// As with resizing, the operator makes U and V itself: it is applied to an identity matrix one pixel wide, or high.
pub(super) fn roi_align<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    if n.wants(1) {
        return Err("its regions depend on the differentiated value, and have to be given".into());
    }
    if n.string("mode") == Some("max") {
        return largest_sample(n);
    }
    let (x, rois, dy) = (n.x(0), n.x(1), n.dy());
    let extents = image_extents(n)?;
    let [height, width] = extents[..] else {
        return Err("it does not work on images with two axes".into());
    };
    let scale = f64::from(n.float("spatial_scale").unwrap_or(1.0));
    if scale == 0.0 {
        return Err("its spatial scale is 0".into());
    }
    let regions = rois.shape()[0];
    let column = |position: i64| rois.slice(1, position, Dim::fixed(position + 1));
    // Across, each region reaches from the first pixel to its edge: all of its samples are inside.
    let zero = column(0).zeros_like();
    let one = zero + 1.0 / scale;
    let across = [
        [zero, column(1), one, column(3)],
        [column(0), zero, column(2), one],
    ];
    let mut factors = Vec::new();
    for (axis, extent) in [height, width].into_iter().enumerate() {
        let square = [Dim::fixed(extent), Dim::fixed(extent)];
        let zeros = n.builder().full(DType::F32, &square, 0.0);
        let fact = Fact::new(DType::F32, square.to_vec());
        let identity = n.builder().node("EyeLike", &[zeros], &[], fact);
        let mut image = vec![Dim::ONE, Dim::fixed(extent), Dim::ONE, Dim::ONE];
        image[2 + axis] = Dim::fixed(extent);
        let out = dy.shape()[2 + axis];
        let mut shape = vec![regions, Dim::fixed(extent), Dim::ONE, Dim::ONE];
        shape[2 + axis] = out;
        let node = one_row(n, axis);
        let indices = n.x(2).zeros_like();
        let operands = [
            identity.reshape(&image).cast_like(rois),
            Expr::concat(&across[axis], 1),
            indices,
        ];
        let operands = operands.map(Some);
        let made = n
            .builder()
            .repeat(&node, &operands, vec![Fact::new(rois.dtype(), shape)])[0];
        factors.push(
            made.reshape(&[regions, Dim::ONE, Dim::fixed(extent), out])
                .cast_like(dy),
        );
    }
    let regional = factors[0].matmul(dy).matmul(factors[1].transpose_last());
    let indices = n.x(2).reshape(&[regions, Dim::ONE]);
    n.only(scatter_nd_add(x.zeros_like(), indices, regional))
}

/// The node itself, with a single place across the axis.
fn one_row(n: &Vjp<'_>, axis: usize) -> Node {
    let mut node = n.node().clone();
    let across = if axis == 0 {
        "output_width"
    } else {
        "output_height"
    };
    node.proto
        .attribute
        .retain(|attribute| attribute.name.as_deref() != Some(across));
    node.proto
        .attribute
        .push(Attribute::Int(1).to_proto(across));
    node
}

// ONNX Runtime takes the largest of all weighted pixels of all samples of a bin, not the largest sample ⇒ x̄ = weight · ȳ at that pixel.
fn largest_sample<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let samples = n.int("sampling_ratio").unwrap_or(0);
    if samples <= 0 {
        return Err("its mode `max` has a rule only with a fixed sampling ratio".into());
    }
    let (x, dy) = (n.x(0), n.dy());
    let extents = image_extents(n)?;
    let shape = dy.shape();
    let (regions, channels) = (shape[0], shape[1]);
    let counts = [n.fixed(shape[2])?, n.fixed(shape[3])?];
    let (mut axes, mut present) = (Vec::new(), None);
    for (axis, &extent) in extents.iter().enumerate().take(2) {
        let position = sample_positions(n, axis, counts, samples).ok_or("it has no samples")?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "images are smaller than 2⁵³ pixels"
        )]
        let inside = position.ge(-1.0).and(position.le(extent as f64));
        present = Some(present.map_or(inside, |present: Expr<'g>| present.and(inside)));
        axes.push(AxisTaps::new(
            position,
            extent,
            Mode::Linear,
            Outside::Border,
        ));
    }
    let taps = Taps::new(axes, &extents)?;
    let (weights, present) = taps.weights(None).zip(present).ok_or("it has no samples")?;
    let weights = weights.where_(present).unsqueeze(&[1]);
    let pixels = Dim::fixed(extents.iter().product());
    let images = n.x(2);
    let own = x.gather(images, 0).reshape(&[regions, channels, pixels]);
    let bins = Dim::fixed(counts[0] * counts[1]);
    let in_bins = [regions, channels, bins, Dim::fixed(samples * samples * 4)];
    let products = (taps.read(own) * weights.cast_like(x)).reshape(&in_bins);
    let first = products.arg_max(3);
    let chosen = |each: Expr<'g>| each.gather_elements(first, 3).reshape(&in_bins[..3]);
    let place = chosen(taps.indices(channels).reshape(&in_bins));
    let all = [
        in_bins[0],
        in_bins[1],
        weights.shape()[2],
        weights.shape()[3],
    ];
    let weight = chosen(weights.expand(&all).reshape(&in_bins));
    let updates = dy.reshape(&in_bins[..3]) * weight.cast_like(dy);
    let zeros = n
        .builder()
        .full(dy.dtype(), &[regions, channels, pixels], 0.0);
    let mut image = n.shape();
    image[0] = regions;
    let regional = zeros.scatter_add(place, updates, 2).reshape(&image);
    let images = images.reshape(&[regions, Dim::ONE]);
    n.only(scatter_nd_add(x.zeros_like(), images, regional))
}

/// Where the samples of every bin lie along an axis: `[regions, bins · samples, 1]`, rows of bins first, then the samples of a bin, row by row.
fn sample_positions<'g>(
    n: &Vjp<'g>,
    axis: usize,
    counts: [i64; 2],
    samples: i64,
) -> Option<Expr<'g>> {
    let rois = n.x(1);
    let scale = f64::from(n.float("spatial_scale").unwrap_or(1.0));
    let half = n
        .string("coordinate_transformation_mode")
        .unwrap_or("half_pixel")
        == "half_pixel";
    let column = if axis == 0 { 1 } else { 0 };
    let edge = |column: i64| {
        let scaled = rois.slice(1, column, Dim::fixed(column + 1)) * scale;
        if half { scaled - 0.5 } else { scaled }
    };
    let start = edge(column);
    let mut size = edge(column + 2) - start;
    if !half {
        size = size.max(1.0);
    }
    // In parts of the region's size.
    let mut parts = Vec::new();
    for bin in 0..counts[0] * counts[1] {
        for sample in 0..samples * samples {
            let (bin, sample) = if axis == 0 {
                (bin / counts[1], sample / samples)
            } else {
                (bin % counts[1], sample % samples)
            };
            #[expect(clippy::cast_precision_loss, reason = "there are few samples")]
            parts.push((bin as f64 + (sample as f64 + 0.5) / samples as f64) / counts[axis] as f64);
        }
    }
    let parts = Tensor::new(&[1, parts.len()], parts)?;
    let parts = n.builder().constant(&parts).cast_like(rois);
    Some((size * parts + start).unsqueeze(&[2]))
}

/// The bins of every region along one axis.
struct Bins<'g> {
    /// Which entries of the axis lie in which bin: booleans `[regions, bins, extent]`.
    covers: Expr<'g>,
}

impl<'g> Bins<'g> {
    /// A region reaches from the column `first` of the regions to the column two behind, both rounded and included, and is cut into `count`
    /// bins that may overlap.
    fn along(rois: Expr<'g>, first: i64, scale: f64, (count, extent): (i64, i64)) -> Option<Self> {
        let builder = rois.builder();
        let edge = |column: i64| {
            let scaled = rois.slice(1, column, Dim::fixed(column + 1)) * scale;
            scaled.unary("Sign") * (scaled.unary("Abs") + 0.5).unary("Floor")
        };
        let (start, end) = (edge(first), edge(first + 2));
        #[expect(
            clippy::cast_precision_loss,
            reason = "images are smaller than 2⁵³ pixels"
        )]
        let numbers = |count: i64| -> Vec<f64> { (0..count).map(|number| number as f64).collect() };
        let row = |numbers: Vec<f64>| {
            let tensor = Tensor::new(&[1, numbers.len()], numbers)?;
            Some(builder.constant(&tensor).cast_like(rois))
        };
        #[expect(clippy::cast_precision_loss, reason = "there are few bins")]
        let size = (end - start + 1.0).max(1.0) / count as f64;
        let bins = row(numbers(count))?;
        let from = ((bins * size).unary("Floor") + start).unsqueeze(&[2]);
        let to = (((bins + 1.0) * size).unary("Ceil") + start).unsqueeze(&[2]);
        let entries = row(numbers(extent))?;
        Some(Bins {
            covers: entries.ge(from).and(entries.lt(to)),
        })
    }

    /// The largest entry of each bin along the last axis of x `[regions, c, others, extent]`, and where the first one is:
    /// `[regions, c, bins, others]`.
    fn largest(&self, x: Expr<'g>) -> (Expr<'g>, Expr<'g>) {
        let covers = self.covers.unsqueeze(&[1, 3]);
        let spread = covers.select(x.unsqueeze(&[2]), f64::from(f32::MIN), x);
        let last = spread.rank() - 1;
        let first = spread.arg_max(last);
        (
            spread.reduce("ReduceMax", &[last], false),
            first.squeeze(&[last]),
        )
    }

    /// Whether each bin has an entry: `[regions, bins]`.
    fn filled(&self) -> Expr<'g> {
        let covered = self.covers.cast(DType::F32);
        covered.reduce("ReduceMax", &[2], false).gt(0.5)
    }
}

// The largest entry of a bin is found row by row, then among the rows: what is in between grows with regions · channels · columns of bins · pixels.
pub(super) fn max_roi_pool<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    if n.wants(1) {
        return Err("its regions depend on the differentiated value, and have to be given".into());
    }
    let (x, rois, dy) = (n.x(0), n.x(1), n.dy());
    let [height, width] = image_extents(n)?[..] else {
        return Err("it does not work on images with two axes".into());
    };
    let shape = dy.shape();
    let (regions, channels) = (shape[0], shape[1]);
    let counts = [n.fixed(shape[2])?, n.fixed(shape[3])?];
    let scale = n.float("spatial_scale").unwrap_or(1.0).into();
    let down = Bins::along(rois, 2, scale, (counts[0], height)).ok_or("it has no bins")?;
    let across = Bins::along(rois, 1, scale, (counts[1], width)).ok_or("it has no bins")?;
    let images = rois.slice(1, 0, Dim::ONE).cast(DType::I64);
    let images = images.reshape(&[regions, Dim::ONE]);
    let own = x.gather(images.squeeze(&[1]), 0);
    // [r, c, columns, h] and the column of each; then [r, c, rows, columns] and the row of each.
    let (rows, column) = across.largest(own);
    let (_, row) = down.largest(rows);
    let column = column
        .gather_elements(row.transpose_last(), 3)
        .transpose_last();
    let filled = down
        .filled()
        .unsqueeze(&[1, 3])
        .and(across.filled().unsqueeze(&[1, 2]));
    let places = row * n.builder().ints(&[width]) + column;
    let bins = Dim::fixed(counts[0] * counts[1]);
    let flat = [regions, channels, bins];
    let pixels = Dim::fixed(height * width);
    let zeros = n
        .builder()
        .full(dy.dtype(), &[regions, channels, pixels], 0.0);
    let regional = zeros.scatter_add(places.reshape(&flat), dy.where_(filled).reshape(&flat), 2);
    let mut image = n.shape();
    image[0] = regions;
    n.only(scatter_nd_add(
        x.zeros_like(),
        images,
        regional.reshape(&image),
    ))
}
