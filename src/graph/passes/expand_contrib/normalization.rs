//! Normalisations over the last axis, with what is added before them.

use super::{Fused, fixed};
use crate::graph::{Attribute, Attributes, Expr};
use crate::tensor::DType;

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// What these operators add to the variance where they do not say.
fn epsilon(n: &Fused<'_>, default: f32) -> f32 {
    n.float("epsilon").unwrap_or(default)
}

fn axis(n: &Fused<'_>, rank: usize) -> Result<usize, String> {
    let axis = n.int("axis").unwrap_or(-1);
    let wrapped = if axis < 0 {
        usize::try_from(-axis)
            .ok()
            .and_then(|back| rank.checked_sub(back))
    } else {
        usize::try_from(axis).ok()
    };
    wrapped
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("axis {axis} is outside its rank {rank}"))
}

/// Layer normalisation over the last axis.
fn over_last<'g>(x: Expr<'g>, scale: Expr<'g>, bias: Option<Expr<'g>>, epsilon: f32) -> Expr<'g> {
    let attributes = [
        ("axis", Attribute::Int(-1)),
        ("epsilon", Attribute::Float(epsilon)),
    ];
    let operands: Vec<_> = [x, scale].into_iter().chain(bias).collect();
    x.builder()
        .node("LayerNormalization", &operands, &attributes, x.fact())
}

/// y = γ x / √(mean x² + ε) over the axes from `first` on, and the factor.
fn root_mean_square<'g>(
    x: Expr<'g>,
    scale: Expr<'g>,
    first: usize,
    epsilon: f32,
) -> (Expr<'g>, Expr<'g>) {
    let wide = match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(DType::F32),
        _ => x,
    };
    let axes: Vec<usize> = (first..x.rank()).collect();
    let square = (wide * wide).reduce("ReduceMean", &axes, true) + f64::from(epsilon);
    let factor = square.unary("Sqrt").unary("Reciprocal");
    ((wide * factor).cast_like(x) * scale, factor)
}

/// The standard operator under another domain.
pub(super) fn layer<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = n.x(0)?;
    if axis(n, x.rank())? + 1 != x.rank() || n.gives(1) || n.gives(2) {
        return Err("it normalises over several axes, or its statistics are used".into());
    }
    Ok(vec![Some(over_last(
        x,
        n.x(1)?,
        n.optional(2),
        epsilon(n, 1e-5),
    ))])
}

pub(super) fn simplified<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = n.x(0)?;
    let first = axis(n, x.rank())?;
    let (y, factor) = root_mean_square(x, n.x(1)?, first, epsilon(n, 1e-5));
    Ok(vec![Some(y), Some(factor)])
}

/// y = normalised sum of the input, the skip connection and a bias; the sum is a result as well.
pub(super) fn skip<'g>(n: &Fused<'g>) -> Results<'g> {
    let sum = sum(n, 4)?;
    let y = over_last(sum, n.x(2)?, n.optional(3), epsilon(n, 1e-12));
    Ok(vec![Some(y), None, None, Some(sum)])
}

pub(super) fn skip_simplified<'g>(n: &Fused<'g>) -> Results<'g> {
    let sum = sum(n, 3)?;
    let (y, _) = root_mean_square(sum, n.x(2)?, sum.rank() - 1, epsilon(n, 1e-12));
    Ok(vec![Some(y), None, None, Some(sum)])
}

fn sum<'g>(n: &Fused<'g>, bias: usize) -> Result<Expr<'g>, String> {
    let sum = n.x(0)? + n.x(1)?;
    if sum.rank() == 0 {
        return Err("it has no axis to normalise over".into());
    }
    Ok(n.optional(bias).map_or(sum, |bias| sum + bias))
}

/// y = normalised sum of the embeddings of words, positions and segments; the number of words of each sample, and the sum, are results as well.
pub(super) fn embeddings<'g>(n: &Fused<'g>) -> Results<'g> {
    let ids = n.x(0)?;
    let [batch, length] = ids.shape()[..] else {
        return Err("its token ids are no matrix".into());
    };
    let positions = match n.optional(8) {
        Some(positions) => n.x(3)?.gather(positions, 0),
        None => {
            let places: Vec<i64> = (0..fixed(length)?).collect();
            n.x(3)?.gather(n.builder.ints(&places), 0).unsqueeze(&[0])
        }
    };
    let mut sum = n.x(2)?.gather(ids, 0) + positions;
    if let (Some(segments), Some(table)) = (n.optional(1), n.optional(4)) {
        sum = sum + table.gather(segments, 0);
    }
    let y = over_last(sum, n.x(5)?, n.optional(6), epsilon(n, 1e-12));
    let words = match n.optional(7) {
        Some(mask) => {
            let one = n.builder.scalar(mask.dtype(), 1.0);
            mask.equal(one)
                .cast(DType::I32)
                .reduce("ReduceSum", &[1], false)
        }
        None => n.builder.full(DType::I32, &[batch], 0.0),
    };
    Ok(vec![Some(y), Some(words), Some(sum)])
}
