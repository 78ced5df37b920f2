//! Quantised operators of ONNX Runtime's own that are more than a float operator between two grids.

use super::quantized::{Grid, along, axis_or};
use super::{Fused, fixed};
use crate::graph::{Attributes, Dim, Expr, Fact};
use crate::tensor::DType;

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// The operands, each with its own scale and zero point, one behind the other, quantised; the result's grid comes first.
pub(super) fn concat<'g>(n: &Fused<'g>) -> Results<'g> {
    let mut parts = Vec::new();
    for position in (2..n.node.inputs.len()).step_by(3) {
        parts.push(Grid::at(n, position + 1, 0)?.dequantize(n.x(position)?)?);
    }
    let rank = parts.first().ok_or("it has no operands")?.rank();
    let joined = Expr::concat(&parts, axis_or(n, 1, rank)?);
    Ok(vec![Some(Grid::at(n, 0, 0)?.quantize_like_zero(joined)?)])
}

/// The softmax of the dequantised operand, quantised; before opset 13 over all axes from the one named.
pub(super) fn softmax<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = Grid::at(n, 1, 0)?.dequantize(n.x(0)?)?;
    let (shape, rank) = (x.shape(), x.rank());
    let flattens = n.int("opset").is_some_and(|opset| opset < 13);
    let axis = axis_or(n, if flattens { 1 } else { -1 }, rank)?;
    let y = if flattens && axis + 1 < rank {
        let mut inner = 1;
        for dim in &shape[axis..] {
            inner *= fixed(*dim)?;
        }
        let mut flat = shape[..axis].to_vec();
        flat.push(Dim::fixed(inner));
        x.reshape(&flat).softmax(axis).reshape(&shape)
    } else {
        x.softmax(axis)
    };
    Ok(vec![Some(Grid::at(n, 3, 0)?.quantize_like_zero(y)?)])
}

/// One of two dequantised operands, quantised.
pub(super) fn choose<'g>(n: &Fused<'g>) -> Results<'g> {
    let yes = Grid::at(n, 2, 0)?.dequantize(n.x(1)?)?;
    let no = Grid::at(n, 5, 0)?.dequantize(n.x(4)?)?;
    let y = n.x(0)?.select(yes, no, yes);
    Ok(vec![Some(Grid::at(n, 7, 0)?.quantize_like_zero(y)?)])
}

/// The product of an operand that is quantised as it comes with dequantised weights, plus a bias.
pub(super) fn dynamic_matmul<'g>(n: &Fused<'g>) -> Results<'g> {
    let a = n.x(0)?;
    let scalar = |dtype| Fact::new(dtype, Vec::new());
    let facts = vec![
        Fact::new(DType::U8, a.shape()),
        scalar(DType::F32),
        scalar(DType::U8),
    ];
    let found = n
        .builder
        .node_with("DynamicQuantizeLinear", &[Some(a)], &[], facts);
    // Its scale is taken as it is.
    let grid = Grid {
        scale: found[1],
        zero: Some(found[2]),
        axis: 0,
        block: None,
    };
    let a = grid.dequantize(grid.quantize_like_zero(a)?)?;
    let b = weights(n, 1, 2, 3)?;
    Ok(vec![Some(plus_bias(n, a.matmul(b), 4))])
}

/// The product of two dequantised operands, plus a bias.
pub(super) fn matmul_to_float<'g>(n: &Fused<'g>) -> Results<'g> {
    let a = n.x(0)?;
    let row = a.rank().saturating_sub(2);
    let scale = along(n.x(2)?, row, a.rank())?;
    let a = match n.optional(4) {
        Some(zero) => a.cast(DType::F32) - along(zero, row, a.rank())?,
        None => a.cast(DType::F32),
    };
    let b = weights(n, 1, 3, 5)?;
    Ok(vec![Some(plus_bias(n, (a * scale).matmul(b), 6))])
}

/// A dequantised matrix with a scale and a zero point for all of it or for each column.
fn weights<'g>(n: &Fused<'g>, at: usize, scale: usize, zero: usize) -> Result<Expr<'g>, String> {
    let b = n.x(at)?;
    let column = b.rank().saturating_sub(1);
    let grid = Grid {
        scale: n.x(scale)?,
        zero: n.optional(zero),
        axis: column,
        block: None,
    };
    grid.dequantize(b)
}

fn plus_bias<'g>(n: &Fused<'g>, y: Expr<'g>, at: usize) -> Expr<'g> {
    match n.optional(at) {
        Some(bias) => y + bias.cast(DType::F32),
        None => y,
    }
}
