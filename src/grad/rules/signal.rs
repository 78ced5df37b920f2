//! Fourier transforms, overlapping blocks, and other linear maps of signals.

use super::shape::as_i64;
use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attribute, Attributes, Dim, Expr};
use crate::tensor::Tensor;

pub(super) const RULES: &[Rule] = &[
    // y = F x, or F⁻¹ x = F* x / n ⇒ x̄ = F* ȳ = n F⁻¹ ȳ, or F ȳ / n; the real part where x is real
    Rule::new("DFT", fourier),
    // y = F (window · blocks of the signal) ⇒ the blocks' cotangents are window · F* ȳ, added where they overlap
    Rule::new("STFT", short_time_fourier),
    // y = blocks of x, added where they overlap ⇒ x̄ = the blocks of ȳ
    Rule::new("Col2Im", blocks_to_image),
];

/// A transform of `dy`, with a last axis of real and imaginary part, along another axis: F* ȳ, or without the conjugate F ȳ.
fn transform(dy: Expr<'_>, axis: usize, conjugate: bool) -> Result<Expr<'_>, String> {
    let builder = dy.builder();
    let extent = dy.shape()[axis].extent();
    let extent = extent.ok_or("the axis that it transforms follows the batch")?;
    let by_attribute = builder.with_graph(|graph| graph.opset()) < 20;
    let inverse = ("inverse", Attribute::Int(conjugate.into()));
    // A real operand has a complex result.
    let mut fact = dy.fact();
    if let Some(components) = fact.shape.last_mut() {
        *components = Dim::fixed(2);
    }
    let transformed = if by_attribute {
        let attributes = [inverse, ("axis", Attribute::Int(as_i64(axis)))];
        builder.node("DFT", &[dy], &attributes, fact)
    } else {
        let axis = builder.ints(&[as_i64(axis)]).squeeze(&[0]);
        builder.node_with("DFT", &[Some(dy), None, Some(axis)], &[inverse], vec![fact])[0]
    };
    // The operator divides by n on the way back.
    #[expect(clippy::cast_precision_loss, reason = "signals are shorter than 2⁵³")]
    let extent = extent as f64;
    Ok(if conjugate {
        transformed * extent
    } else {
        transformed
    })
}

/// Zeros behind an axis, or entries cut off, so that it has this extent.
fn to_extent(value: Expr<'_>, axis: usize, extent: i64) -> Result<Expr<'_>, String> {
    let own = value.shape()[axis].extent();
    let own = own.ok_or("the axis that it transforms follows the batch")?;
    let mut after = vec![0; value.rank()];
    after[axis] = extent - own;
    Ok(if extent < own {
        value.slice(axis, 0, Dim::fixed(extent))
    } else {
        value.pad(&vec![0; value.rank()], &after)
    })
}

/// The real part alone where the primal is real.
fn to_components(value: Expr<'_>, components: Dim) -> Expr<'_> {
    value.slice(value.rank() - 1, 0, components)
}

fn fourier<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let shape = n.shape();
    let rank = shape.len();
    let by_attribute = n.builder().with_graph(|graph| graph.opset()) < 20;
    let axis = if by_attribute {
        n.int("axis").unwrap_or(1)
    } else {
        n.constant_ints(2)?
            .and_then(|axis| axis.first().copied())
            .unwrap_or(-2)
    };
    let axis = n.axis(axis, rank)?;
    let is_set = |name| n.int(name).unwrap_or(0) != 0;
    let (inverse, onesided) = (is_set("inverse"), is_set("onesided"));
    let own = n.fixed(shape[axis])?;
    let length = n
        .constant_ints(1)?
        .and_then(|length| length.first().copied());
    if inverse && onesided {
        let halves = half_spectrum(n, axis)?;
        if halves.shape()[axis].extent().is_some_and(|half| half < own) {
            return Err("it reads more of the spectrum than half; cut that off before".into());
        }
        return n.only(to_extent(halves, axis, own)?);
    }
    let length = length.unwrap_or(own);
    let dy = to_extent(n.dy(), axis, length)?;
    let mut dx = transform(dy, axis, !inverse)?;
    if inverse {
        #[expect(clippy::cast_precision_loss, reason = "signals are shorter than 2⁵³")]
        let length = length as f64;
        dx = dx / length;
    }
    let dx = to_extent(dx, axis, own)?;
    n.only(to_components(dx, shape[rank - 1]))
}

// y is real, of n entries, from its half spectrum x: y = Σ c_k Re(x_k e^{2πikt/n}) / n, where c_k is 2 for the entries that the other half
// mirrors and 1 for the first one and the middle ⇒ x̄_k = c_k (F ȳ)_k / n.
fn half_spectrum<'g>(n: &Vjp<'g>, axis: usize) -> Result<Expr<'g>, String> {
    let dy = n.dy();
    let length = n.fixed(dy.shape()[axis])?;
    let half = length / 2 + 1;
    let spectrum = transform(dy, axis, false)?.slice(axis, 0, Dim::fixed(half));
    #[expect(clippy::cast_precision_loss, reason = "signals are shorter than 2⁵³")]
    let share = |entry: i64| if entry == 0 || 2 * entry == length { 1.0 } else { 2.0 } / length as f64;
    let shares: Vec<f64> = (0..half).map(share).collect();
    let mut along = vec![1; dy.rank()];
    along[axis] = shares.len();
    let shares = Tensor::new(&along, shares).ok_or("its signal is empty")?;
    Ok(spectrum * n.builder().constant(&shares).cast_like(dy))
}

fn short_time_fourier<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (signal, dy) = (n.x(0), n.dy());
    let shape = signal.shape();
    let (batch, frames) = (shape[0], n.fixed(dy.shape()[1])?);
    let step = n.constant_ints(1)?.and_then(|step| step.first().copied());
    let step = step.ok_or("it has no frame step")?;
    let window = n.optional_x(2);
    let length = match (n.constant_ints(3)?, window) {
        (Some(length), _) => length.first().copied().ok_or("its frame length is empty")?,
        (None, Some(window)) => n.fixed(window.shape()[0])?,
        (None, None) => return Err("it has neither a window nor a frame length".into()),
    };
    let components = if shape.len() == 3 { shape[2] } else { Dim::ONE };
    let spectra = to_extent(dy, 2, length)?;
    let unwindowed = to_components(transform(spectra, 2, true)?, components);
    let places: Vec<i64> = (0..frames)
        .flat_map(|frame| (0..length).map(move |at| frame * step + at))
        .collect();
    let places = n.builder().ints(&places);
    let row = [batch, Dim::fixed(frames * length), components];
    let column = [Dim::fixed(length), Dim::ONE];
    let mut cotangents = Vec::new();
    if n.wants(0) {
        let blocks = window.map_or(unwindowed, |window| unwindowed * window.reshape(&column));
        let indices = places.reshape(&[Dim::ONE, row[1], Dim::ONE]).expand(&row);
        let zeros = n
            .builder()
            .full(dy.dtype(), &[batch, shape[1], components], 0.0);
        let dx = zeros.scatter_add(indices, blocks.reshape(&row), 1);
        cotangents.push((0, dx.reshape(&shape)));
    }
    if n.wants(2) {
        let signal = signal.reshape(&[batch, shape[1], components]);
        let blocks = signal.gather(places, 1).reshape(&unwindowed.shape());
        cotangents.push((
            2,
            (blocks * unwindowed).reduce("ReduceSum", &[0, 1, 3], false),
        ));
    }
    Ok(cotangents)
}

/// One axis of an image that is laid out in blocks.
#[derive(Clone, Copy)]
struct Blocked {
    extent: i64,
    block: i64,
    dilation: i64,
    stride: i64,
    before: i64,
    places: i64,
}

fn blocks_to_image<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let image = n.constant_ints(1)?.unwrap_or_default();
    let block = n.constant_ints(2)?.unwrap_or_default();
    let entry = |name: &str, axis: usize, default: i64| {
        let list = n.ints(name).unwrap_or_default();
        list.get(axis).copied().unwrap_or(default)
    };
    let axes: Vec<Blocked> = image
        .iter()
        .zip(&block)
        .enumerate()
        .map(|(axis, (&extent, &block))| {
            let (dilation, stride) = (
                entry("dilations", axis, 1),
                entry("strides", axis, 1).max(1),
            );
            let (before, after) = (entry("pads", axis, 0), entry("pads", axis + image.len(), 0));
            let span = dilation * (block - 1) + 1;
            let places = (extent + before + after - span) / stride + 1;
            Blocked {
                extent,
                block,
                dilation,
                stride,
                before,
                places,
            }
        })
        .collect();
    let pixels = image.iter().product::<i64>();
    // Which pixel each entry of each block is; the one behind the last stands for all outside.
    let mut indices = Vec::new();
    for tap in 0..axes.iter().map(|axis| axis.block).product() {
        for place in 0..axes.iter().map(|axis| axis.places).product() {
            indices.push(pixel(&axes, tap, place).unwrap_or(pixels));
        }
    }
    let (shape, dy) = (n.shape(), n.dy());
    let (batch, channels) = (dy.shape()[0], dy.shape()[1]);
    let flat = dy.reshape(&[batch, channels, Dim::fixed(pixels)]);
    let flat = flat.pad(&[0, 0, 0], &[0, 0, 1]);
    n.only(flat.gather(n.builder().ints(&indices), 2).reshape(&shape))
}

/// The pixel that a tap of the block at a place covers, both counted over all axes.
fn pixel(axes: &[Blocked], mut tap: i64, mut place: i64) -> Option<i64> {
    let (mut pixel, mut stride) = (0, 1);
    for axis in axes.iter().rev() {
        let at = place % axis.places * axis.stride - axis.before + tap % axis.block * axis.dilation;
        if !(0..axis.extent).contains(&at) {
            return None;
        }
        pixel += at * stride;
        stride *= axis.extent;
        (tap, place) = (tap / axis.block, place / axis.places);
    }
    Some(pixel)
}
