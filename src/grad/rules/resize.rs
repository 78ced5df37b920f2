//! Resampling along axes.
//!
//! Resizing is linear, and works on each axis for itself: y = x · W₁ · W₂ · …, one matrix per axis.
//! The matrices are not computed here: the operator itself makes them, applied to an identity matrix, so that every mode, rounding and
//! boundary is ONNX Runtime's own.
//! They depend on no data, and are folded into constants when the graph is loaded.

use super::index::product;
use super::shape::as_i64;
use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attributes, Dim, Expr, Fact, Node};
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::tensor::DType;

pub(super) const RULES: &[Rule] = &[
    // y = x W along each axis in turn ⇒ x̄ = ȳ Wᵀ along each axis, the last one first
    Rule::new("Resize", resize),
];

fn resize<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let rank = n.shape().len();
    let axes = match n.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|&axis| n.axis(axis, rank))
            .collect::<Result<_, _>>()?,
        None => (0..rank).collect::<Vec<_>>(),
    };
    let mut dx = n.dy();
    // The axis that shrinks most on the way back comes first: less is left to do for the others.
    let growth = |axis: usize| {
        let extents = (n.y(0).shape()[axis].extent(), n.shape()[axis].extent());
        match extents {
            (Some(out), Some(own)) if own > 0 => out * 1024 / own,
            _ => 0,
        }
    };
    let mut order: Vec<(usize, usize)> = axes.iter().copied().enumerate().collect();
    order.sort_by_key(|&(_, axis)| -growth(axis));
    for (position, axis) in order {
        dx = adjoint_along(
            n,
            dx,
            axis,
            Place {
                position,
                count: axes.len(),
            },
        )?;
    }
    n.only(dx)
}

/// Where an axis stands among those that the operands `scales`, `sizes` and `roi` speak of.
#[derive(Clone, Copy)]
struct Place {
    position: usize,
    count: usize,
}

impl Place {
    /// An operand's entry for the axis, as a list of one; `half` 1 is the second half of `roi`.
    fn entry(self, list: Expr<'_>, half: usize) -> Expr<'_> {
        let start = as_i64(self.position + half * self.count);
        list.slice(0, start, Dim::fixed(start + 1))
    }
}

/// Undoes the resizing of one axis.
fn adjoint_along<'g>(
    n: &Vjp<'g>,
    dy: Expr<'g>,
    axis: usize,
    place: Place,
) -> Result<Expr<'g>, String> {
    let (own, out) = (n.shape()[axis], n.y(0).shape()[axis]);
    let cropped = coordinates(n) == "tf_crop_and_resize";
    let scale = constant_scale(n, place);
    if own == out && !cropped && (own.extent().is_none() || scale.is_none_or(|scale| scale == 1.0))
    {
        return Ok(dy);
    }
    let (own, out) = (n.fixed(own)?, n.fixed(out)?);
    if let Some(factor) = repeats(n, scale, own, out) {
        return Ok(sum_blocks(dy, axis, own, factor));
    }
    let matrix = matrix(n, (own, out), place)?.cast_like(dy);
    along(dy, matrix, axis)
}

fn coordinates<'a>(n: &'a Vjp<'_>) -> &'a str {
    n.string("coordinate_transformation_mode")
        .unwrap_or("half_pixel")
}

/// The scale of an axis, where it does not depend on the data.
fn constant_scale(n: &Vjp<'_>, place: Place) -> Option<f64> {
    let scales = operand(n, 2)?;
    let id = scales.id();
    let scales = n.builder().with_graph(|graph| graph.constant(id))?;
    scales.to_f64().get(place.position).copied()
}

/// An optional operand; exporters also write an empty one for one that is left out.
fn operand<'g>(n: &Vjp<'g>, position: usize) -> Option<Expr<'g>> {
    let operand = n.optional_x(position)?;
    (operand.shape().first().copied() != Some(Dim::fixed(0))).then_some(operand)
}

/// How often each entry is repeated, where that is all that happens to the axis.
///
/// Entry i of the result is entry ⌊i / k⌋, or what is nearest to (i + ½) / k − ½, for an integer k.
fn repeats(n: &Vjp<'_>, scale: Option<f64>, own: i64, out: i64) -> Option<i64> {
    if n.string("mode").unwrap_or("nearest") != "nearest" || own == 0 || out % own != 0 {
        return None;
    }
    let factor = out / own;
    #[expect(clippy::cast_precision_loss, reason = "factors are small")]
    let exact = scale.is_none_or(|scale| scale == factor as f64);
    let sizes_as_given = n.string("keep_aspect_ratio_policy").unwrap_or("stretch") == "stretch";
    let rounding = n.string("nearest_mode").unwrap_or("round_prefer_floor");
    let in_blocks = match coordinates(n) {
        "asymmetric" | "tf_half_pixel_for_nn" => rounding == "floor",
        "half_pixel" | "half_pixel_symmetric" => rounding.starts_with("round"),
        "pytorch_half_pixel" => rounding.starts_with("round") && out > 1,
        _ => false,
    };
    (exact && sizes_as_given && in_blocks && (1..1000).contains(&factor)).then_some(factor)
}

/// The sums of blocks of `factor` entries along an axis.
fn sum_blocks(dy: Expr<'_>, axis: usize, own: i64, factor: i64) -> Expr<'_> {
    let mut apart = dy.shape();
    apart.splice(axis..=axis, [Dim::fixed(own), Dim::fixed(factor)]);
    dy.reshape(&apart).reduce("ReduceSum", &[axis + 1], false)
}

/// The matrix W, float `[own, out]`: the resized identity matrix.
fn matrix<'g>(n: &Vjp<'g>, (own, out): (i64, i64), place: Place) -> Result<Expr<'g>, String> {
    let builder = n.builder();
    let policy = n.string("keep_aspect_ratio_policy").unwrap_or("stretch");
    let square = [Dim::fixed(own), Dim::fixed(own)];
    let zeros = builder.full(DType::F32, &square, 0.0);
    let identity = builder.node(
        "EyeLike",
        &[zeros],
        &[],
        Fact::new(DType::F32, square.to_vec()),
    );
    let (scales, sizes) = (operand(n, 2), operand(n, 3));
    // Beside the axis stands the one that a policy takes the scale from; it is resized with it, and one entry of it is looked at.
    let beside = match (sizes, policy) {
        (Some(_), "not_larger" | "not_smaller") => Some(leading(n, place, policy)?),
        _ => None,
    };
    let (beside_in, beside_out, asked) =
        beside.map_or((1, 1, out), |beside| (beside.own, beside.out, beside.asked));
    let image = [Dim::ONE, square[0], Dim::fixed(beside_in), square[1]];
    let identity = identity
        .reshape(&[Dim::ONE, square[0], Dim::ONE, square[1]])
        .expand(&image);
    let (scales, sizes) = match (sizes, scales) {
        (Some(_), _) => {
            let sizes = match beside {
                Some(_) => builder.ints(&[beside_out, asked]),
                None => builder.ints(&[1, own, 1, out]),
            };
            (None, Some(sizes))
        }
        (None, Some(scales)) => {
            let one = builder.scalar(scales.dtype(), 1.0).unsqueeze(&[0]);
            let entry = place.entry(scales, 0);
            (Some(Expr::concat(&[one, one, one, entry], 0)), None)
        }
        (None, None) => return Err("it has neither scales nor sizes".into()),
    };
    let roi = region(n, place, beside.is_some())?;
    let node = on_identity(n, beside.is_some());
    let resized = vec![Dim::ONE, square[0], Dim::fixed(beside_out), Dim::fixed(out)];
    let inputs = [Some(identity), roi, scales, sizes];
    let inputs = if sizes.is_some() {
        &inputs[..]
    } else {
        &inputs[..3]
    };
    let resized = builder.repeat(&node, inputs, vec![Fact::new(DType::F32, resized)])[0];
    Ok(resized
        .slice(2, 0, Dim::ONE)
        .reshape(&[Dim::fixed(own), Dim::fixed(out)]))
}

/// The operand `roi` for the identity matrix: the axis' own region, and all of the other axes.
fn region<'g>(n: &Vjp<'g>, place: Place, under_policy: bool) -> Result<Option<Expr<'g>>, String> {
    if coordinates(n) != "tf_crop_and_resize" {
        return Ok(None);
    }
    if under_policy {
        return Err("it crops under a policy for the ratio of the sides".into());
    }
    let roi = operand(n, 1).ok_or("it has no operand `roi`")?;
    let edge = |value: f64| n.builder().scalar(roi.dtype(), value).unsqueeze(&[0]);
    let (zero, one) = (edge(0.0), edge(1.0));
    let (from, to) = (place.entry(roi, 0), place.entry(roi, 1));
    let parts = [zero, zero, zero, from, one, one, one, to];
    Ok(Some(Expr::concat(&parts, 0)))
}

/// The node itself, for an operand of rank 4 of which the last axis is resized; under a policy the last two.
fn on_identity(n: &Vjp<'_>, under_policy: bool) -> Node {
    let mut proto: NodeProto = n.node().proto.clone();
    // A constant outside of the crop has no part in the gradient.
    let dropped = |attribute: &AttributeProto| {
        let name = attribute.name.as_deref().unwrap_or_default();
        matches!(name, "axes" | "extrapolation_value")
            || (name == "keep_aspect_ratio_policy" && !under_policy)
    };
    proto.attribute.retain(|attribute| !dropped(attribute));
    if under_policy {
        let axes = crate::graph::Attribute::Ints(vec![2, 3]);
        proto.attribute.push(axes.to_proto("axes"));
    }
    Node {
        proto,
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

/// The axis whose ratio all others take over, in lowest terms, and what is asked of the axis in question.
#[derive(Clone, Copy)]
struct Leading {
    own: i64,
    out: i64,
    asked: i64,
}

/// Under `not_larger` the smallest ratio of asked to own extent rules, under `not_smaller` the largest.
fn leading(n: &Vjp<'_>, place: Place, policy: &str) -> Result<Leading, String> {
    let asked = n.constant_ints(3)?.unwrap_or_default();
    let rank = n.shape().len();
    let axes = n.ints("axes").map(<[i64]>::to_vec);
    let axes = axes.unwrap_or_else(|| (0..rank).map(as_i64).collect());
    let mut pairs = Vec::new();
    for (&axis, &asked) in axes.iter().zip(&asked) {
        pairs.push((n.fixed(n.shape()[n.axis(axis, rank)?])?.max(1), asked));
    }
    let smaller = |a: (i64, i64), b: (i64, i64)| a.1 * b.0 < b.1 * a.0;
    let ruling = pairs.iter().copied().reduce(|a, b| {
        if smaller(b, a) == (policy == "not_larger") {
            b
        } else {
            a
        }
    });
    let (own, out) = ruling.ok_or("it has no sizes")?;
    let asked = asked
        .get(place.position)
        .copied()
        .ok_or("it has fewer sizes than axes")?;
    let divisor = greatest_common_divisor(own, out).max(1);
    Ok(Leading {
        own: own / divisor,
        out: out / divisor,
        asked,
    })
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// dy Wᵀ along an axis, for W of shape `[own, out]`.
fn along<'g>(dy: Expr<'g>, matrix: Expr<'g>, axis: usize) -> Result<Expr<'g>, String> {
    let shape = dy.shape();
    if axis + 1 == shape.len() {
        if shape.len() == 1 {
            let row = dy.unsqueeze(&[0]).matmul(matrix.transpose_last());
            return Ok(row.squeeze(&[0]));
        }
        return Ok(dy.matmul(matrix.transpose_last()));
    }
    if axis + 2 == shape.len() {
        return Ok(matrix.matmul(dy));
    }
    let mut merged = shape[..=axis].to_vec();
    merged.push(product(&shape[axis + 1..])?);
    let mut resized = shape.clone();
    resized[axis] = matrix.shape()[0];
    Ok(matrix.matmul(dy.reshape(&merged)).reshape(&resized))
}
