//! Operators that move elements about by their position: shapes, slices, joins and borders.
//!
//! All of them are linear, and their gradients are exact.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attribute, Attributes, Dim, Dims, Expr, Fact};

pub(super) const RULES: &[Rule] = &[
    // The elements stay in order, whatever the target says: x̄ = ȳ in the shape of x.
    Rule::new("Reshape", back_in_shape),
    Rule::new("Flatten", back_in_shape),
    Rule::new("Squeeze", back_in_shape),
    Rule::new("Unsqueeze", back_in_shape),
    // y = x ⇒ x̄ = ȳ
    Rule::new("Identity", |n| n.only(n.dy())),
    // Between float types; the driver casts back. A cast to integers ends the path by itself.
    Rule::new("Cast", |n| n.only(n.dy())),
    Rule::new("CastLike", |n| n.only(n.dy())),
    // The driver sums what was stretched.
    Rule::new("Expand", |n| n.only(n.dy())),
    Rule::new("Transpose", transpose),
    Rule::new("Tile", tile),
    Rule::new("Concat", concat),
    Rule::new("Split", split),
    Rule::new("Slice", slice),
    Rule::new("Pad", pad),
    // The mask is applied to ȳ: x̄ = Trilu(ȳ).
    Rule::new("Trilu", same_again),
    // Reversing twice is the identity: x̄ = ReverseSequence(ȳ).
    Rule::new("ReverseSequence", same_again),
    Rule::new("DepthToSpace", depth_to_space),
    Rule::new("SpaceToDepth", space_to_depth),
];

fn back_in_shape<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    n.only(n.dy().reshape(&n.shape()))
}

/// The node itself, with ȳ in the place of x.
fn same_again<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let mut inputs: Vec<_> = (0..n.arity())
        .map(|position| n.optional_x(position))
        .collect();
    inputs[0] = Some(n.dy());
    let found = n.builder().repeat(n.node(), &inputs, vec![n.dy().fact()]);
    n.only(found[0])
}

// y = x with axes in the order p ⇒ x̄ = ȳ with axes in the order p⁻¹.
fn transpose<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let rank = n.shape().len();
    let mut inverse: Vec<usize> = (0..rank).rev().collect();
    for (axis, &from) in n.ints("perm").unwrap_or_default().iter().enumerate() {
        inverse[n.axis(from, rank)?] = axis;
    }
    n.only(n.dy().transpose(&inverse))
}

// Each axis of y is an axis of repetitions and one of x: x̄ = Σ over the repetitions.
fn tile<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (mut shape, mut repetitions) = (Dims::new(), Vec::new());
    for (x, y) in n.shape().into_iter().zip(n.y(0).shape()) {
        if x != y {
            repetitions.push(shape.len());
            shape.push(quotient(y, x).ok_or_else(|| {
                format!(
                    "the extent {y} of its result is no multiple of the extent {x} of its operand"
                )
            })?);
        }
        shape.push(x);
    }
    let sum = n.dy().reshape(&shape).sum(&repetitions);
    n.only(sum.reshape(&n.shape()))
}

/// How often an extent fits into another, at every batch size.
fn quotient(whole: Dim, part: Dim) -> Option<Dim> {
    let divide = |a: i64, b: i64| (b != 0 && a % b == 0).then(|| a / b);
    match part.extent() {
        Some(extent) => Some(Dim {
            per_sample: divide(whole.per_sample, extent)?,
            fixed: divide(whole.fixed, extent)?,
        }),
        None => {
            let times = divide(whole.per_sample, part.per_sample)?;
            (part.times(times) == whole).then(|| Dim::fixed(times))
        }
    }
}

// Each operand gets its piece of ȳ.
fn concat<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let axis = n.axis(n.int("axis").unwrap_or_default(), n.y(0).rank())?;
    let extents: Dims = (0..n.arity())
        .map(|position| n.x(position).shape()[axis])
        .collect();
    let wanted: Vec<usize> = (0..n.arity())
        .filter(|&position| n.wants(position))
        .collect();
    if let [position] = wanted.as_slice() {
        let start = total(&extents[..*position]);
        if let Some(first) = start.extent() {
            let piece = n.dy().slice(axis, first, start.plus(extents[*position]));
            return Ok(vec![(*position, piece)]);
        }
    }
    let facts = (0..n.arity()).map(|position| Fact::new(n.dy().dtype(), n.x(position).shape()));
    let operands = [Some(n.dy()), Some(n.builder().extents(&extents))];
    let attributes = [("axis", Attribute::Int(as_i64(axis)))];
    let pieces = n
        .builder()
        .node_with("Split", &operands, &attributes, facts.collect());
    Ok(wanted
        .into_iter()
        .map(|position| (position, pieces[position]))
        .collect())
}

fn total(extents: &[Dim]) -> Dim {
    extents
        .iter()
        .fold(Dim::fixed(0), |sum, &extent| sum.plus(extent))
}

#[expect(clippy::cast_possible_wrap, reason = "axes are small")]
pub(super) fn as_i64(axis: usize) -> i64 {
    axis as i64
}

// x̄ = the ȳ of all parts side by side, with zeros for those that nothing depends on.
fn split<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let rank = n.shape().len();
    let axis = n.axis(n.int("axis").unwrap_or_default(), rank)?;
    let nameless = || "one of its results has no name, so that its extent is not known".to_owned();
    let part = |position| {
        n.node()
            .output(position)
            .map(|_| n.y(position))
            .ok_or_else(nameless)
    };
    let parts = (0..n.results())
        .map(part)
        .collect::<Result<Vec<Expr<'g>>, _>>()?;
    let extents: Dims = parts.iter().map(|part| part.shape()[axis]).collect();
    let given: Vec<usize> = (0..n.results())
        .filter(|&position| n.optional_dy(position).is_some())
        .collect();
    if let ([position], Some(dy)) = (
        given.as_slice(),
        given.first().and_then(|&first| n.optional_dy(first)),
    ) {
        let before = total(&extents[..*position]).extent();
        let after = total(&extents[position + 1..]).extent();
        if let (Some(before), Some(after)) = (before, after) {
            return n.only(dy.pad(&along(rank, axis, before), &along(rank, axis, after)));
        }
    }
    let part = |(position, part): (usize, &Expr<'g>)| {
        n.optional_dy(position).unwrap_or_else(|| part.zeros_like())
    };
    let parts: Vec<Expr<'g>> = parts.iter().enumerate().map(part).collect();
    n.only(Expr::concat(&parts, axis))
}

/// A number for one axis, and 0 for the others.
fn along(rank: usize, axis: usize, value: i64) -> Vec<i64> {
    (0..rank)
        .map(|other| if other == axis { value } else { 0 })
        .collect()
}

// ȳ goes back to where it was taken from, with zeros everywhere else.
fn slice<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, y) = (n.shape(), n.y(0).shape());
    let starts = n.constant_ints(1)?.unwrap_or_default();
    let axes = match n.constant_ints(3)? {
        Some(axes) => axes,
        None => (0..starts.len()).map(as_i64).collect(),
    };
    let steps = n.constant_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let mut dx = n.dy();
    let (mut before, mut after) = (vec![0; x.len()], vec![0; x.len()]);
    for ((&start, axis), &step) in starts.iter().zip(axes).zip(&steps) {
        let axis = n.axis(axis, x.len())?;
        let (whole, part) = (x[axis], y[axis]);
        // A step does not matter where one entry is taken; elsewhere it is smaller than the extent.
        let step = if part.extent().is_some_and(|part| part <= 1) {
            step.signum()
        } else {
            step
        };
        if step < 0 {
            dx = dx.reverse(&[axis]);
        }
        if whole == part && step.abs() == 1 {
            continue;
        }
        if step == 1 && start >= 0 && 0 < part.per_sample && part.per_sample < whole.per_sample {
            // Of several entries for each sample the first so many: frames that lie one behind the other.
            let taken = part.plus(Dim::fixed(start));
            let mut rest = dx.shape();
            rest[axis] = whole.plus(taken.times(-1));
            let rest = dx.builder().full(dx.dtype(), &rest, 0.0);
            dx = Expr::concat(&[dx, rest], axis);
            before[axis] = start;
            continue;
        }
        let first = first_taken(whole, part, start, step)?;
        if step.abs() > 1 {
            dx = stuff(dx, axis, step.abs(), n.fixed(part)?);
        }
        before[axis] = first;
        after[axis] = n.fixed(whole.plus(dx.shape()[axis].times(-1)))? - first;
    }
    n.only(dx.pad(&before, &after))
}

/// The smallest index that a slice takes.
fn first_taken(whole: Dim, part: Dim, start: i64, step: i64) -> Result<i64, String> {
    match (whole.extent(), part.extent()) {
        (Some(whole), Some(part)) => {
            let start = if start < 0 {
                start.saturating_add(whole)
            } else {
                start
            };
            let start = if step < 0 {
                start.clamp(-1, whole - 1)
            } else {
                start.clamp(0, whole)
            };
            Ok(if step < 0 {
                start + (part - 1).max(0) * step
            } else {
                start
            }
            .clamp(0, whole))
        }
        // From a fixed start to a fixed distance from the end, whatever the batch size.
        _ if whole.per_sample == part.per_sample && step == 1 => Ok(start.max(0)),
        _ => Err(format!(
            "it takes {part} of the {whole} entries of an axis that follows the batch: the samples would depend on each other"
        )),
    }
}

/// `step` − 1 zeros behind every entry of an axis.
fn stuff(dy: Expr<'_>, axis: usize, step: i64, extent: i64) -> Expr<'_> {
    let rank = dy.rank() + 1;
    let apart = dy.unsqueeze(&[axis + 1]);
    let apart = apart.pad(&vec![0; rank], &along(rank, axis + 1, step - 1));
    let mut shape = dy.shape();
    shape[axis] = Dim::fixed(extent * step);
    apart.reshape(&shape)
}

// constant: x̄ = ȳ without the border. reflect, edge, wrap: the border is folded back onto the entries it repeats.
fn pad<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (before, after) = borders(n)?;
    let negated = |counts: &[i64]| counts.iter().map(|count| -count).collect::<Vec<_>>();
    let mode = n.string("mode").unwrap_or("constant");
    if mode == "constant" {
        return n.each(&[
            &|| n.dy().pad(&negated(&before), &negated(&after)),
            &|| n.dy(),
            &|| pad_value(n, &before, &after),
        ]);
    }
    // Negative counts cut off first; what is left is then repeated.
    let positive = |counts: &[i64]| counts.iter().map(|&count| count.max(0)).collect::<Vec<_>>();
    let cut = |counts: &[i64]| {
        counts
            .iter()
            .map(|&count| -count.min(0))
            .collect::<Vec<_>>()
    };
    let mut dx = n.dy();
    for (axis, (&front, &back)) in positive(&before).iter().zip(&positive(&after)).enumerate() {
        if front > 0 || back > 0 {
            let extent = n.fixed(dx.shape()[axis])? - front - back;
            dx = fold(dx, axis, (front, extent, back), mode)?;
        }
    }
    n.only(dx.pad(&cut(&before), &cut(&after)))
}

/// The counts of every axis, in front and behind.
fn borders(n: &Vjp<'_>) -> Result<(Vec<i64>, Vec<i64>), String> {
    let rank = n.shape().len();
    let pads = n.constant_ints(1)?.unwrap_or_default();
    let axes = match n.constant_ints(3)? {
        Some(axes) => axes,
        None => (0..rank).map(as_i64).collect(),
    };
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (position, &axis) in axes.iter().enumerate() {
        let axis = n.axis(axis, rank)?;
        let count = |position: usize| {
            pads.get(position)
                .copied()
                .ok_or("it has fewer pads than axes")
        };
        before[axis] = count(position)?;
        after[axis] = count(position + axes.len())?;
    }
    Ok((before, after))
}

/// v̄ = Σ ȳ over the border.
fn pad_value<'g>(n: &Vjp<'g>, before: &[i64], after: &[i64]) -> Expr<'g> {
    let dy = n.dy();
    let inside = n
        .builder()
        .full(dy.dtype(), &n.shape(), 1.0)
        .pad(before, after);
    let axes: Vec<usize> = (0..dy.rank()).collect();
    (dy * (1.0 - inside)).reduce("ReduceSum", &axes, false)
}

/// Adds the borders of an axis onto the entries that they repeat: `front` and `back` entries around `extent`.
fn fold<'g>(
    dy: Expr<'g>,
    axis: usize,
    (front, extent, back): (i64, i64, i64),
    mode: &str,
) -> Result<Expr<'g>, String> {
    let rank = dy.rank();
    let piece = |start: i64, end: i64| dy.slice(axis, start, Dim::fixed(end));
    let place = |piece: Expr<'g>, start: i64, length: i64| {
        piece.pad(
            &along(rank, axis, start),
            &along(rank, axis, extent - start - length),
        )
    };
    let (head, tail) = ((0, front), (front + extent, front + extent + back));
    let mut parts = vec![piece(front, front + extent)];
    let widest = match mode {
        "reflect" => extent - 1,
        "edge" => i64::MAX,
        "wrap" => extent,
        _ => return Err(format!("its mode `{mode}` is not supported")),
    };
    if front.max(back) > widest {
        return Err(format!(
            "its mode `{mode}` repeats an axis of {extent} entries more than once"
        ));
    }
    for ((start, end), count, is_head) in [(head, front, true), (tail, back, false)] {
        if count == 0 {
            continue;
        }
        let border = piece(start, end);
        parts.push(match (mode, is_head) {
            ("reflect", true) => place(border.reverse(&[axis]), 1, count),
            ("reflect", false) => place(border.reverse(&[axis]), extent - 1 - count, count),
            ("wrap", true) => place(border, extent - count, count),
            ("wrap", false) => place(border, 0, count),
            (_, true) => place(border.sum(&[axis]), 0, 1),
            (_, false) => place(border.sum(&[axis]), extent - 1, 1),
        });
    }
    let first = parts[0];
    Ok(n_ary_sum(first, &parts))
}

fn n_ary_sum<'g>(first: Expr<'g>, parts: &[Expr<'g>]) -> Expr<'g> {
    first.builder().node("Sum", parts, &[], first.fact())
}

// DCR is undone by SpaceToDepth; CRD has the block in front of the channels: x is [n, c, b, b, h, w], y is [n, c, h, b, w, b].
fn depth_to_space<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let block = n.int("blocksize").unwrap_or(1);
    let shape = n.shape();
    if n.string("mode") != Some("CRD") {
        let blocksize = [("blocksize", Attribute::Int(block))];
        let fact = Fact::new(n.dy().dtype(), shape);
        return n.only(
            n.builder()
                .node("SpaceToDepth", &[n.dy()], &blocksize, fact),
        );
    }
    let [batch, channels, height, width] = shape.as_slice() else {
        return Err(format!("its operand has {} axes instead of 4", shape.len()));
    };
    let channels = Dim::fixed(n.fixed(*channels)? / (block * block).max(1));
    let block = Dim::fixed(block);
    let apart = n
        .dy()
        .reshape(&[*batch, channels, *height, block, *width, block]);
    n.only(apart.transpose(&[0, 1, 3, 5, 2, 4]).reshape(&shape))
}

// y = SpaceToDepth(x) ⇒ x̄ = DepthToSpace(ȳ), in its form DCR.
fn space_to_depth<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let blocksize = [("blocksize", Attribute::Int(n.int("blocksize").unwrap_or(1)))];
    let fact = Fact::new(n.dy().dtype(), n.shape());
    n.only(
        n.builder()
            .node("DepthToSpace", &[n.dy()], &blocksize, fact),
    )
}
