//! Convolutions: one linear relation between a larger and a smaller grid, seen from three sides.
//!
//! `Conv` gathers from the large grid into the small one, `ConvTranspose` scatters from the small one into the large one, and each is the other's
//! adjoint in the input; the adjoint in the weights correlates the two grids ([`weights`]).

mod weights;

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::grad::window::{Axis, Window, per_axis, refit};
use crate::graph::{Attribute, Attributes, Dim, Dims, Expr, Fact};
use crate::tensor::Tensor;
use crate::with_array;
use ndarray::{ArrayD, Axis as ArrayAxis};

pub(super) const RULES: &[Rule] = &[
    // y_p = Σ_t w_t x_{s·p + d·t − before} + b ⇒ x̄_{s·p + d·t − before} += w_tᵀ ȳ_p, w̄_t = Σ_p ȳ_p x_{s·p + d·t − before}ᵀ, b̄ = Σ_p ȳ_p
    Rule::new("Conv", conv),
    // y_{s·p + d·t − before} += w_tᵀ x_p, + b ⇒ x̄_p = Σ_t w_t ȳ_{s·p + d·t − before}, w̄_t = Σ_p x_p ȳ_{s·p + d·t − before}ᵀ, b̄ = Σ ȳ
    Rule::new("ConvTranspose", conv_transpose),
];

fn conv<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, w, dy) = (n.x(0), n.x(1), n.dy());
    let window = Window::new(n, &kernel(n, w)?, &x.shape(), &n.y(0).shape())?;
    let window = match n.string("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" => window.with_pads(n)?,
        "VALID" => window,
        side => {
            // Of an odd total, the larger half is behind (SAME_UPPER) or in front (SAME_LOWER).
            let total = |axis: &Axis| axis.reach() - axis.input;
            if window.0.iter().any(|axis| total(axis) < -1) {
                return Err(format!(
                    "auto_pad {side} with a kernel that is smaller than its stride; export it with explicit pads"
                ));
            }
            window.with_total(side == "SAME_LOWER", total)
        }
    };
    let grids = Grids::new(n, window)?;
    n.each(&[
        &|| grids.scatter(n, dy, &x.shape()),
        &|| grids.correlate(x, dy).cast_like(w),
        &|| bias(dy),
    ])
}

fn conv_transpose<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, w, dy) = (n.x(0), n.x(1), n.dy());
    let window = Window::new(n, &kernel(n, w)?, &n.y(0).shape(), &x.shape())?;
    let side = n.string("auto_pad").unwrap_or("NOTSET");
    let given = n
        .ints("output_shape")
        .is_some_and(|shape| !shape.is_empty());
    let window = match (side, given) {
        ("NOTSET", false) => window.with_pads(n)?,
        ("VALID", false) => window,
        _ => {
            // The padding is what the shape leaves over; ONNX Runtime puts the larger half in front, except for SAME_UPPER.
            let mut extra = per_axis(n, "output_padding", window.0.len(), 0)?.into_iter();
            window.with_total(side != "SAME_UPPER", |axis| {
                axis.reach() + extra.next().unwrap_or(0) - axis.input
            })
        }
    };
    let grids = Grids::new(n, window)?;
    n.each(&[
        &|| grids.gather(dy, w, &x.shape()),
        &|| grids.correlate(dy, x).cast_like(w),
        &|| bias(dy),
    ])
}

/// The spatial extents of the weights.
fn kernel(n: &Vjp<'_>, w: Expr<'_>) -> Result<Vec<i64>, String> {
    let shape = w.shape();
    shape.iter().skip(2).map(|&dim| n.fixed(dim)).collect()
}

/// Summed over samples and positions: one number per channel.
fn bias(dy: Expr<'_>) -> Expr<'_> {
    let shape = dy.shape();
    let axes: Vec<usize> = (0..shape.len()).filter(|&axis| axis != 1).collect();
    dy.reduce("ReduceSum", &axes, false)
}

/// The two grids of a convolution, and the groups of channels that it connects.
struct Grids {
    window: Window,
    groups: i64,
    /// The weights' extents: channels of the small grid, channels of the large one in each group, taps.
    weights: Dims,
}

impl Grids {
    fn new(n: &Vjp<'_>, window: Window) -> Result<Self, String> {
        let weights = n.x(1).shape();
        for &dim in &weights {
            n.fixed(dim)?;
        }
        Ok(Grids {
            window,
            groups: n.int("group").unwrap_or(1).max(1),
            weights,
        })
    }

    /// The convolution of the large grid.
    fn gather<'g>(&self, large: Expr<'g>, weights: Expr<'g>, to: &[Dim]) -> Expr<'g> {
        self.convolve(large, weights, self.groups, to)
    }

    fn convolve<'g>(
        &self,
        large: Expr<'g>,
        weights: Expr<'g>,
        groups: i64,
        to: &[Dim],
    ) -> Expr<'g> {
        // Positions that are left over behind are cut off where they would make room for one place more.
        let cut = |axis: &Axis| {
            let spare = -axis.after();
            (0, axis.input - if spare >= axis.stride { spare } else { 0 })
        };
        let ranges: Vec<_> = self.window.0.iter().map(cut).collect();
        let axes = self.window.0.iter();
        let before = axes.clone().map(|axis| axis.before);
        let pads = before.chain(axes.map(|axis| axis.after().max(0))).collect();
        let attributes = [
            ("group", Attribute::Int(groups)),
            ("strides", self.window.attribute(|axis| axis.stride)),
            ("dilations", self.window.attribute(|axis| axis.dilation)),
            ("pads", Attribute::Ints(pads)),
        ];
        let fact = Fact::new(large.dtype(), to.to_vec());
        let operands = [refit(large, &ranges), weights];
        large.builder().node("Conv", &operands, &attributes, fact)
    }

    /// The adjoint of `gather`: every place of the small grid adds to the positions that its window covers.
    fn scatter<'g>(&self, n: &Vjp<'g>, small: Expr<'g>, to: &[Dim]) -> Expr<'g> {
        // Measured on CPUs: into a few channels, such as those of an image, the transposed convolution is 2 to 10 times faster.
        let few = self.groups == 1 && self.weights[1].fixed <= 8;
        if !few && self.window.0.iter().all(|axis| axis.stride == 1) {
            self.window
                .scatter_by_conv(small, self.mirrored(n), self.groups, to)
        } else {
            self.window.scatter(small, n.x(1), self.groups, to)
        }
    }

    /// The weights with every axis of taps reversed, and the channels of each group exchanged.
    fn mirrored<'g>(&self, n: &Vjp<'g>) -> Expr<'g> {
        if !n.wants(1)
            && let Some(tensor) = n.constant(1)
            && let Ok(groups) = usize::try_from(self.groups)
            && let Some(tensor) =
                with_array!(&tensor, array => mirror(array, groups).map(Tensor::from))
        {
            // Not by `Builder::constant`, which would keep a second copy of every number in order to find equal constants.
            let id = n.builder().with_graph_mut(|graph| {
                let name = format!("{}/mirrored", graph.name(n.x(1).id()));
                graph.add_initializer(&name, &tensor)
            });
            return n.builder().expr(id).expect("initializers have facts");
        }
        let (large, small) = (self.weights[1], self.weights[0].fixed / self.groups);
        let taps = &self.weights[2..];
        let order: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + taps.len()).collect();
        let grouped = [Dim::fixed(self.groups), Dim::fixed(small), large];
        let exchanged = n.x(1).reshape(&[&grouped, taps].concat()).transpose(&order);
        let result = [large.times(self.groups), Dim::fixed(small)];
        let exchanged = exchanged.reshape(&[&result, taps].concat());
        let several = (2..self.weights.len()).filter(|&axis| self.weights[axis] != Dim::ONE);
        let several: Vec<usize> = several.collect();
        if several.is_empty() {
            exchanged
        } else {
            exchanged.reverse(&several)
        }
    }
}

/// As [`Grids::mirrored`], on the host; `None` where the groups do not divide the channels.
fn mirror<T: Clone>(weights: &ArrayD<T>, groups: usize) -> Option<ArrayD<T>> {
    let (&[small, large], taps) = weights.shape().split_first_chunk()?;
    let grouped = [&[groups, small / groups, large], taps].concat();
    let grouped = weights.to_shape(grouped).ok()?;
    let mut view = grouped.view();
    view.swap_axes(1, 2);
    for axis in 3..view.ndim() {
        view.invert_axis(ArrayAxis(axis));
    }
    let result = [&[groups * large, small / groups], taps].concat();
    let mirrored = view.as_standard_layout().into_owned();
    mirrored.into_shape_with_order(result).ok()
}
