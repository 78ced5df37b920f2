//! Weights of a few bits, several in a byte, in floats.

use super::{Fused, fixed};
use crate::graph::{Attributes, Dim, Expr};
use crate::tensor::DType;

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// The numbers in bytes of shape `[rows, bytes]` as whole floats `[rows, bytes · 8 / bits]`, the lowest bits of each byte first.
fn unpacked(bytes: Expr<'_>, bits: i64) -> Result<Expr<'_>, String> {
    let [rows, columns] = bytes.shape()[..] else {
        return Err("its packed operand is no matrix".into());
    };
    let columns = fixed(columns)?;
    let bytes = bytes
        .cast(DType::F32)
        .reshape(&[rows, Dim::fixed(columns), Dim::ONE]);
    let per_byte = 8 / bits;
    #[expect(clippy::cast_precision_loss, reason = "at most 256")]
    let power = |bits: i64| (1i64 << bits) as f64;
    let parts: Vec<_> = (0..per_byte)
        .map(|part| {
            let shifted = (bytes / power(bits * part)).unary("Floor");
            shifted - (shifted / power(bits)).unary("Floor") * power(bits)
        })
        .collect();
    Ok(Expr::concat(&parts, 2).reshape(&[rows, Dim::fixed(columns * per_byte)]))
}

/// A Bᵀ + bias, where each block of a row of B has its own scale and zero point: B is [N, blocks, bytes].
///
/// Only the weights are rounded, so that what it computes is differentiable as it is.
pub(super) fn matmul_nbits<'g>(n: &Fused<'g>) -> Results<'g> {
    n.without(&[(4, "g_idx")])?;
    let (rows, width) = (n.count("N")?, n.count("K")?);
    let block = n.count("block_size")?;
    let bits = n.int("bits").unwrap_or(4);
    if ![1, 2, 4, 8].contains(&bits) {
        return Err(format!(
            "its weights have {bits} bits, which is not covered"
        ));
    }
    let a = n.x(0)?;
    let blocks = width / block + i64::from(width % block != 0);
    let by_block = [Dim::fixed(rows), Dim::fixed(blocks), Dim::ONE];
    let flat =
        |value: Expr<'g>, columns: i64| value.reshape(&[Dim::fixed(rows), Dim::fixed(columns)]);
    let bytes = block * bits / 8;
    let packed = n.x(1)?;
    if packed.shape() != [Dim::fixed(rows), Dim::fixed(blocks), Dim::fixed(bytes)] {
        return Err("its weights are not packed as [N, blocks, bytes]".into());
    }
    let numbers = unpacked(flat(packed, blocks * bytes), bits)?;
    let numbers = numbers.reshape(&[by_block[0], by_block[1], Dim::fixed(block)]);
    let zero = match n.optional(3) {
        // In the middle.
        None => n.builder.scalar(DType::F32, (1i64 << (bits - 1)) as f64),
        Some(zero) if zero.dtype().is_float() => zero.cast(DType::F32).reshape(&by_block),
        Some(zero) => {
            let bytes = (blocks * bits + 7) / 8;
            unpacked(flat(zero, bytes), bits)?
                .slice(1, 0, Dim::fixed(blocks))
                .reshape(&by_block)
        }
    };
    let scale = n.x(2)?.cast(DType::F32).reshape(&by_block);
    let weights = flat((numbers - zero) * scale, blocks * block)
        .slice(1, 0, Dim::fixed(width))
        .transpose_last()
        .cast(a.dtype());
    let y = a.matmul(weights);
    Ok(vec![Some(match n.optional(5) {
        Some(bias) => y + bias,
        None => y,
    })])
}
