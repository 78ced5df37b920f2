//! Operators that read an image between its pixels, at positions that are computed.
//!
//! A position reads a few pixels along each axis, its taps, with weights that depend on where it lies between them:
//! y = Σ over taps of Π over axes of weight · pixel.
//! The pixels' cotangents are ȳ · weights, added at the taps; the position's cotangent is ȳ · pixels, with the slope of the weight along its own axis.

mod deform;
mod grid;
mod region;
mod taps;

use crate::grad::rule::{Rule, Vjp};
use crate::graph::Expr;
use crate::tensor::DType;

pub(super) const RULES: &[Rule] = &[
    // y = the pixels around each position of the grid, weighted ⇒ see `Taps`
    Rule::new("GridSample", grid::grid_sample),
    // y = base θᵀ, where base are the places of the pixels, with a one behind ⇒ θ̄ = ȳᵀ base
    Rule::new("AffineGrid", grid::affine_grid),
    // y = W · columns + b, columns = mask · (x at the taps of the kernel, each moved by its offset)
    // ⇒ with c̄ = Wᵀ ȳ · mask: x̄ and the offsets' cotangents as of `Taps`, mask̄ = Wᵀ ȳ · x at the taps, W̄ = ȳ columnsᵀ, b̄ = Σ ȳ
    Rule::new("DeformConv", deform::deformable_convolution),
    // y = Uᵀ x V per region, where U weights rows and V columns ⇒ x̄ = Σ over the regions of an image of U ȳ Vᵀ
    Rule::new("RoiAlign", region::roi_align),
    // y = the largest entry of each bin of a region ⇒ x̄ = ȳ at the first one in row-major order, 0 where a bin is empty
    Rule::new("MaxRoiPool", region::max_roi_pool),
];

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
