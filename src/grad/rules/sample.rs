//! Operators that read an image between its pixels, at positions that are computed.
//!
//! A position reads a few pixels along each axis, its taps, with weights that depend on where it lies between them:
//! y = Σ over taps of Π over axes of weight · pixel.
//! The pixels' cotangents are ȳ · weights, added at the taps; the position's cotangent is ȳ · pixels, with the slope of the weight along its own axis.

use super::index::product;
use super::shape::as_i64;
use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attributes, Dim, Dims, Expr, Fact};
use crate::tensor::{DType, Tensor};

pub(super) const RULES: &[Rule] = &[
    // y = the pixels around each position of the grid, weighted ⇒ see `Taps`
    Rule::new("GridSample", grid_sample),
    // y = base θᵀ, where base are the places of the pixels, with a one behind ⇒ θ̄ = ȳᵀ base
    Rule::new("AffineGrid", affine_grid),
    Rule::new("DeformConv", deformable_convolution),
    Rule::new("RoiAlign", roi_align),
];

/// How the value between pixels is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside the image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    Zeros,
    Border,
    /// The image mirrored, at the centres of the border pixels or at their edges.
    Reflection {
        at_centres: bool,
    },
}

/// The taps along one axis, for positions of shape `[lead…, positions, 1]`.
struct AxisTaps<'g> {
    /// Which pixel: `[lead…, positions, taps]`, as floats inside the image.
    index: Expr<'g>,
    /// How much of it; 0 outside, where zeros lie.
    weight: Expr<'g>,
    /// The derivative of the weight by the position.
    slope: Option<Expr<'g>>,
}

impl<'g> AxisTaps<'g> {
    fn new(position: Expr<'g>, extent: i64, mode: Mode, outside: Outside) -> Self {
        let (position, factor) = inside(position, extent, mode, outside);
        let first = match mode {
            Mode::Nearest => position.unary("Round"),
            Mode::Linear | Mode::Cubic => position.unary("Floor"),
        };
        let fraction = position - first;
        let (offsets, weights) = match mode {
            Mode::Nearest => (0..1, None),
            Mode::Linear => (0..2, Some((vec![1.0 - fraction, fraction], None))),
            Mode::Cubic => (-1..3, Some(cubic(fraction))),
        };
        let offsets: Vec<f64> = offsets.map(f64::from).collect();
        let last = position.rank() - 1;
        let taps: Vec<_> = offsets.iter().map(|&offset| first + offset).collect();
        let unclamped = Expr::concat(&taps, last);
        let (mut weight, mut slope) = match weights {
            None => (
                unclamped
                    .builder()
                    .full(unclamped.dtype(), &unclamped.shape(), 1.0),
                None,
            ),
            Some((weights, slopes)) => {
                let slopes = slopes.unwrap_or_else(|| {
                    let one = fraction
                        .builder()
                        .full(fraction.dtype(), &fraction.shape(), 1.0);
                    vec![-one, one]
                });
                (
                    Expr::concat(&weights, last),
                    Some(Expr::concat(&slopes, last)),
                )
            }
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "images are smaller than 2⁵³ pixels"
        )]
        let end = (extent - 1) as f64;
        let index = match outside {
            Outside::Reflection { at_centres } => reflect(unclamped, extent, at_centres).0,
            Outside::Border | Outside::Zeros => unclamped,
        };
        if outside == Outside::Zeros {
            let present = unclamped.ge(0.0).and(unclamped.le(end));
            weight = weight.where_(present);
            slope = slope.map(|slope| slope.where_(present));
        }
        if let Some(factor) = factor {
            slope = slope.map(|slope| slope * factor);
        }
        AxisTaps {
            index: index.max(0.0).min(end),
            weight,
            slope,
        }
    }
}

/// A position brought into the image, and the derivative of that by the position; `None` stands for 1.
fn inside<'g>(
    position: Expr<'g>,
    extent: i64,
    mode: Mode,
    outside: Outside,
) -> (Expr<'g>, Option<Expr<'g>>) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "images are smaller than 2⁵³ pixels"
    )]
    let end = (extent - 1) as f64;
    // At the border itself, where the value has a kink, the derivative is 0, as PyTorch's.
    let between = |position: Expr<'g>| position.gt(0.0).and(position.lt(end)).cast_like(position);
    match outside {
        // The taps of the cubic kernel are brought inside one by one, the position is not.
        _ if mode == Mode::Cubic => (position, None),
        Outside::Zeros => (position, None),
        Outside::Border => (position.max(0.0).min(end), Some(between(position))),
        Outside::Reflection { at_centres } => {
            let (reflected, sign) = reflect(position, extent, at_centres);
            let slope = sign * between(reflected);
            (reflected.max(0.0).min(end), Some(slope))
        }
    }
}

/// A position mirrored into the image as often as it takes, and the direction it runs in there: 1 or −1.
fn reflect(position: Expr<'_>, extent: i64, at_centres: bool) -> (Expr<'_>, Expr<'_>) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "images are smaller than 2⁵³ pixels"
    )]
    let (low, range) = if at_centres {
        (0.0, (extent - 1) as f64)
    } else {
        (-0.5, extent as f64)
    };
    if range == 0.0 {
        return (position.zeros_like(), position.zeros_like());
    }
    let from_low = position - low;
    let turns = (from_low / (2.0 * range)).unary("Floor");
    let phase = from_low - turns * (2.0 * range);
    let forward = phase.le(range);
    let mirrored = 2.0 * range - phase;
    let sign = position
        .builder()
        .full(position.dtype(), &position.shape(), 1.0);
    (
        forward.select(phase, mirrored, position) + low,
        forward.select(sign, -sign, position),
    )
}

/// The parameter of Keys' kernel, as PyTorch's and ONNX Runtime's.
const CUBIC_COEFFICIENT: f64 = -0.75;

/// The weights of four taps around a position, and their derivatives.
fn cubic<'g>(fraction: Expr<'g>) -> (Vec<Expr<'g>>, Option<Vec<Expr<'g>>>) {
    let a = CUBIC_COEFFICIENT;
    // For distances up to 1, and 1 to 2.
    let near = |t: Expr<'g>| (t * (a + 2.0) - (a + 3.0)) * t * t + 1.0;
    let near_slope = |t: Expr<'g>| (t * (3.0 * (a + 2.0)) - 2.0 * (a + 3.0)) * t;
    let far = |t: Expr<'g>| ((t * a - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
    let far_slope = |t: Expr<'g>| (t * (3.0 * a) - 10.0 * a) * t + 8.0 * a;
    let [first, second, third, fourth] = [fraction + 1.0, fraction, 1.0 - fraction, 2.0 - fraction];
    (
        vec![far(first), near(second), near(third), far(fourth)],
        Some(vec![
            far_slope(first),
            near_slope(second),
            -near_slope(third),
            -far_slope(fourth),
        ]),
    )
}

/// The taps of every position in an image with several axes.
struct Taps<'g> {
    axes: Vec<AxisTaps<'g>>,
    /// Which pixel of the flattened image, int64 `[lead…, 1, positions · taps]`.
    flat: Expr<'g>,
    /// The extents in front of the positions, and the number of positions.
    lead: Dims,
    positions: Dim,
    /// The number of taps of a position, over all axes.
    count: i64,
}

impl<'g> Taps<'g> {
    fn new(axes: Vec<AxisTaps<'g>>, extents: &[i64]) -> Result<Self, String> {
        let shape = axes[0].index.shape();
        let (lead, positions) = (shape[..shape.len() - 2].to_vec(), shape[shape.len() - 2]);
        let mut flat: Option<Expr<'g>> = None;
        let mut count = 1;
        for (axis, each) in axes.iter().enumerate() {
            count *= each.index.shape()[lead.len() + 1].extent().unwrap_or(1);
            let index = spread(each.index, axis, axes.len());
            #[expect(
                clippy::cast_precision_loss,
                reason = "images are smaller than 2⁵³ pixels"
            )]
            let extent = extents[axis] as f64;
            flat = Some(flat.map_or(index, |flat| flat * extent + index));
        }
        let flat = flat.ok_or("it has no axes to sample")?.cast(DType::I64);
        let mut row = lead.clone();
        row.extend([Dim::ONE, positions.times(count)]);
        Ok(Taps {
            axes,
            flat: flat.reshape(&row),
            lead,
            positions,
            count,
        })
    }

    /// Π over axes of the weights, with the slope in place of the weight for one axis: `[lead…, positions, taps]`.
    fn weights(&self, sloped: Option<usize>) -> Option<Expr<'g>> {
        let mut product: Option<Expr<'g>> = None;
        for (axis, each) in self.axes.iter().enumerate() {
            let factor = if sloped == Some(axis) {
                each.slope?
            } else {
                each.weight
            };
            let factor = spread(factor, axis, self.axes.len());
            product = Some(product.map_or(factor, |product| product * factor));
        }
        let mut shape = self.lead.clone();
        shape.extend([self.positions, Dim::fixed(self.count)]);
        product.map(|product| product.reshape(&shape))
    }

    /// `[lead…, channels, positions, taps]` with this many channels.
    fn shape(&self, channels: Dim) -> Dims {
        let mut shape = self.lead.clone();
        shape.extend([channels, self.positions, Dim::fixed(self.count)]);
        shape
    }

    /// The indices for every channel.
    fn indices(&self, channels: Dim) -> Expr<'g> {
        let mut shape = self.lead.clone();
        shape.extend([channels, self.positions.times(self.count)]);
        self.flat.expand(&shape)
    }

    /// The pixels that the positions read, of an image `[lead…, channels, pixels]`.
    fn read(&self, image: Expr<'g>) -> Expr<'g> {
        let channels = image.shape()[self.lead.len()];
        image
            .gather_elements(self.indices(channels), self.lead.len() + 1)
            .reshape(&self.shape(channels))
    }

    /// Cotangents `[lead…, channels, positions]` weighted and added at the taps, onto zeros like `image`.
    fn put_back(&self, dy: Expr<'g>, image: Expr<'g>) -> Option<Expr<'g>> {
        let channels = image.shape()[self.lead.len()];
        let weights = self.weights(None)?.unsqueeze(&[self.lead.len()]);
        let updates = dy.unsqueeze(&[self.lead.len() + 2]) * weights.cast_like(dy);
        let mut row = self.lead.clone();
        row.extend([channels, self.positions.times(self.count)]);
        let updates = updates.reshape(&row);
        Some(
            image
                .zeros_like()
                .scatter_add(self.indices(channels), updates, self.lead.len() + 1),
        )
    }

    /// The cotangent of the positions along one axis, `[lead…, positions]`, from Σ over channels of ȳ · pixels, `[lead…, positions, taps]`.
    fn moved(&self, products: Expr<'g>, axis: usize) -> Option<Expr<'g>> {
        let weights = self.weights(Some(axis))?;
        let last = self.lead.len() + 1;
        Some((products * weights).reduce("ReduceSum", &[last], false))
    }
}

/// The taps of one axis where they broadcast with those of the others: `[lead…, positions, 1, taps, 1]`.
fn spread(taps: Expr<'_>, axis: usize, axes: usize) -> Expr<'_> {
    let before = taps.rank() - 1;
    let others: Vec<usize> = (0..axes)
        .filter(|&other| other != axis)
        .map(|other| before + other)
        .collect();
    if others.is_empty() {
        taps
    } else {
        taps.unsqueeze(&others)
    }
}

/// The extents of the axes of an image `[n, c, …]`.
fn image_extents(n: &Vjp<'_>) -> Result<Vec<i64>, String> {
    n.shape().iter().skip(2).map(|&dim| n.fixed(dim)).collect()
}

fn single(value: Expr<'_>) -> Expr<'_> {
    match value.dtype() {
        DType::F16 | DType::BF16 => value.cast(DType::F32),
        _ => value,
    }
}

fn grid_sample<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, grid) = (n.x(0), single(n.x(1)));
    let extents = image_extents(n)?;
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
    let spatial = extents.len();
    let shape = grid.shape();
    let positions = product(&shape[1..=spatial])?;
    let (batch, channels) = (x.shape()[0], x.shape()[1]);
    let list = grid.reshape(&[batch, positions, Dim::fixed(as_i64(spatial))]);
    // The last axis of the image comes first in the grid; −1 and 1 are its borders, at the centres of the outer pixels or at their edges.
    let mut per_unit = Vec::new();
    let mut axes = Vec::new();
    for (axis, &extent) in extents.iter().enumerate() {
        let component = as_i64(spatial - 1 - axis);
        let place = list.slice(2, component, Dim::fixed(component + 1));
        #[expect(
            clippy::cast_precision_loss,
            reason = "images are smaller than 2⁵³ pixels"
        )]
        let extent_f = extent as f64;
        let (place, unit) = if at_centres {
            (
                (place + 1.0) * ((extent_f - 1.0) / 2.0),
                (extent_f - 1.0) / 2.0,
            )
        } else {
            (((place + 1.0) * extent_f - 1.0) / 2.0, extent_f / 2.0)
        };
        per_unit.push(unit);
        axes.push(AxisTaps::new(place, extent, mode, outside));
    }
    let taps = Taps::new(axes, &extents)?;
    let dy = n.dy().reshape(&[batch, channels, positions]);
    let image = x.reshape(&[batch, channels, Dim::fixed(extents.iter().product())]);
    let mut cotangents = Vec::new();
    if n.wants(0) {
        let dx = taps.put_back(dy, image).ok_or("it has no axes to sample")?;
        cotangents.push((0, dx.reshape(&n.shape())));
    }
    if n.wants(1) && mode != Mode::Nearest {
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

fn affine_grid<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
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
}

// y = W · columns + b, columns = mask · (x at the taps of the kernel, each moved by its offset)
// ⇒ with c̄ = Wᵀ ȳ · mask: x̄ and the offsets' cotangents as of `Taps`, mask̄ = Wᵀ ȳ · x at the taps, W̄ = ȳ columnsᵀ, b̄ = Σ ȳ
fn deformable_convolution<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let form = Deformable::of(n)?;
    let (x, weight, offset, dy) = (n.x(0), n.x(1), n.x(2), n.dy());
    let extents = image_extents(n)?;
    let [batch, channels, filters] = [x.shape()[0], x.shape()[1], weight.shape()[0]];
    let (groups, parts) = (Dim::fixed(form.groups), Dim::fixed(form.offset_groups));
    let channels = n.fixed(channels)?;
    let taps_of_kernel = form.kernel.iter().product::<i64>();
    let places = form.output.iter().product::<i64>();
    let (spots, kernel) = (
        Dim::fixed(taps_of_kernel * places),
        Dim::fixed(taps_of_kernel),
    );
    let part_channels = Dim::fixed(channels / form.offset_groups);
    let moved = offset.reshape(&[batch, parts, kernel, Dim::fixed(2), Dim::fixed(places)]);
    let mut axes = Vec::new();
    for (axis, &extent) in extents.iter().enumerate().take(2) {
        let regular = form.regular(axis).ok_or("its kernel is empty")?;
        let regular = n.builder().constant(&regular).cast_like(offset);
        let component = as_i64(axis);
        let moved = moved.slice(3, component, Dim::fixed(component + 1));
        let position = moved.reshape(&[batch, parts, spots, Dim::ONE]) + regular;
        axes.push(AxisTaps::new(
            position,
            extent,
            Mode::Linear,
            Outside::Zeros,
        ));
    }
    let taps = Taps::new(axes, &extents)?;
    let image = x.reshape(&[
        batch,
        parts,
        part_channels,
        Dim::fixed(extents.iter().product()),
    ]);
    let mask = n
        .optional_x(4)
        .map(|mask| mask.reshape(&[batch, parts, Dim::ONE, spots]));
    // Wᵀ ȳ, group by group: [n, g, c/g · k, o/g] · [n, g, o/g, p].
    let group_filters = Dim::fixed(n.fixed(filters)? / form.groups);
    let rows = Dim::fixed(channels / form.groups * taps_of_kernel);
    let flat_weight = weight.reshape(&[groups, group_filters, rows]);
    let flat_dy = dy.reshape(&[batch, groups, group_filters, Dim::fixed(places)]);
    let columns = flat_weight.transpose_last().matmul(flat_dy);
    let columns = columns.reshape(&[batch, parts, part_channels, spots]);
    let masked = mask.map_or(columns, |mask| columns * mask);
    let pixels = || {
        let weights = taps.weights(None).map(|weights| weights.unsqueeze(&[2]));
        let read = taps.read(image);
        weights
            .map_or(read, |weights| read * weights)
            .reduce("ReduceSum", &[4], false)
    };
    let mut cotangents = Vec::new();
    if n.wants(0) {
        let dx = taps.put_back(masked, image).ok_or("its kernel is empty")?;
        cotangents.push((0, dx.reshape(&x.shape())));
    }
    if n.wants(1) {
        let read = mask.map_or_else(pixels, |mask| pixels() * mask);
        let read = read.reshape(&[batch, groups, rows, Dim::fixed(places)]);
        let dw = flat_dy.matmul(read.transpose_last());
        cotangents.push((
            1,
            dw.reduce("ReduceSum", &[0], false).reshape(&weight.shape()),
        ));
    }
    if n.wants(2) {
        let products = (taps.read(image) * masked.unsqueeze(&[4])).reduce("ReduceSum", &[2], false);
        let components = (0..2).map(|axis| {
            let moved = taps.moved(products, axis)?;
            Some(moved.reshape(&[batch, parts, kernel, Dim::ONE, Dim::fixed(places)]))
        });
        let components: Vec<_> = components
            .collect::<Option<_>>()
            .ok_or("it has no slopes")?;
        cotangents.push((2, Expr::concat(&components, 3).reshape(&offset.shape())));
    }
    if n.wants(3) {
        cotangents.push((3, dy.reduce("ReduceSum", &[0, 2, 3], false)));
    }
    if let Some(mask) = n.optional_x(4).filter(|_| n.wants(4)) {
        let dm = (columns * pixels()).reduce("ReduceSum", &[2], false);
        cotangents.push((4, dm.reshape(&mask.shape())));
    }
    Ok(cotangents)
}

// y = Uᵀ x V per region, where U weights rows and V columns ⇒ x̄ = Σ over the regions of an image of U ȳ Vᵀ.
//
// As with resizing, the operator makes U and V itself: it is applied to an identity matrix one pixel wide, or high.
fn roi_align<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    if n.string("mode").unwrap_or("avg") != "avg" {
        return Err("its mode `max` has no rule, only `avg`".into());
    }
    if n.wants(1) {
        return Err("its regions depend on the differentiated value, and have to be given".into());
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
    n.only(super::index::scatter_nd_add(
        x.zeros_like(),
        indices,
        regional,
    ))
}

/// The node itself, with a single place across the axis.
fn one_row(n: &Vjp<'_>, axis: usize) -> crate::graph::Node {
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
        .push(crate::graph::Attribute::Int(1).to_proto(across));
    node
}
