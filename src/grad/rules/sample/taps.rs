//! Positions between pixels: which pixels they read, and with what weights.

use crate::graph::{Dim, Dims, Expr};
use crate::tensor::DType;

/// How the value between pixels is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside the image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    Zeros,
    Border,
    /// The image mirrored, at the centres of the border pixels or at their edges.
    Reflection {
        at_centres: bool,
    },
}

/// The taps along one axis, for positions of shape `[lead…, positions, 1]`.
pub(super) struct AxisTaps<'g> {
    /// Which pixel: `[lead…, positions, taps]`, as floats inside the image.
    index: Expr<'g>,
    /// How much of it; 0 outside, where zeros lie.
    weight: Expr<'g>,
    /// The derivative of the weight by the position.
    slope: Option<Expr<'g>>,
}

impl<'g> AxisTaps<'g> {
    pub(super) fn new(position: Expr<'g>, extent: i64, mode: Mode, outside: Outside) -> Self {
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
pub(super) struct Taps<'g> {
    axes: Vec<AxisTaps<'g>>,
    /// Which pixel of the flattened image, int64 `[lead…, 1, positions · taps]`.
    pub(super) flat: Expr<'g>,
    /// The extents in front of the positions, and the number of positions.
    lead: Dims,
    positions: Dim,
    /// The number of taps of a position, over all axes.
    count: i64,
}

impl<'g> Taps<'g> {
    pub(super) fn new(axes: Vec<AxisTaps<'g>>, extents: &[i64]) -> Result<Self, String> {
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
    pub(super) fn weights(&self, sloped: Option<usize>) -> Option<Expr<'g>> {
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
    pub(super) fn indices(&self, channels: Dim) -> Expr<'g> {
        let mut shape = self.lead.clone();
        shape.extend([channels, self.positions.times(self.count)]);
        self.flat.expand(&shape)
    }

    /// The pixels that the positions read, of an image `[lead…, channels, pixels]`.
    pub(super) fn read(&self, image: Expr<'g>) -> Expr<'g> {
        let channels = image.shape()[self.lead.len()];
        image
            .gather_elements(self.indices(channels), self.lead.len() + 1)
            .reshape(&self.shape(channels))
    }

    /// Cotangents `[lead…, channels, positions]` weighted and added at the taps, onto zeros like `image`.
    pub(super) fn put_back(&self, dy: Expr<'g>, image: Expr<'g>) -> Option<Expr<'g>> {
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
    pub(super) fn moved(&self, products: Expr<'g>, axis: usize) -> Option<Expr<'g>> {
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
