//! Products of matrices.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attribute, Attributes, Dim, Dims, Expr, Fact};
use crate::tensor::Tensor;

pub(super) const RULES: &[Rule] = &[
    // y = α A′B′ + β C, the prime for the transposition that transA and transB ask for ⇒ A̅′ = α ȳ B′ᵀ, B̅′ = α A′ᵀ ȳ, C̅ = β ȳ
    Rule::new("Gemm", gemm),
    // y = A B, as NumPy's matmul ⇒ A̅ = ȳ Bᵀ, B̅ = Aᵀ ȳ
    Rule::new("MatMul", matmul),
    // y = det x ⇒ x̄ = ȳ · cofactors of x, themselves determinants: no division, so a singular x has its gradient too
    Rule::new("Det", determinant),
];

fn determinant<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, dy) = (n.x(0), n.dy());
    let (rank, shape) = (x.rank(), x.shape());
    let size = n.fixed(shape[rank - 1])?;
    let dy = dy.unsqueeze(&[rank - 2, rank - 1]);
    if size == 1 {
        return n.only(dy);
    }
    // Entry (i, j) of the cofactors: the determinant without row i and column j, with the sign of a chessboard.
    let others = |own: i64| (0..size).filter(move |&other| other != own);
    let list: Vec<i64> = (0..size).flat_map(others).collect();
    let list = n
        .builder()
        .ints(&list)
        .reshape(&[Dim::fixed(size), Dim::fixed(size - 1)]);
    let minors = x.gather(list, rank - 1).gather(list, rank - 2);
    // Now […, i, rows, j, columns].
    let mut order: Vec<usize> = (0..rank + 2).collect();
    order.swap(rank - 1, rank);
    let fact = Fact::new(x.dtype(), shape);
    let minors = n
        .builder()
        .node("Det", &[minors.transpose(&order)], &[], fact);
    let signs = (0..size * size).map(|at| {
        if (at / size + at % size) % 2 == 0 {
            1.0
        } else {
            -1.0
        }
    });
    let extent = usize::try_from(size).unwrap_or_default();
    let signs = Tensor::new(&[extent, extent], signs.collect::<Vec<f64>>());
    let signs = n
        .builder()
        .constant(&signs.ok_or("its matrices are not square")?);
    n.only(minors * signs.cast_like(x) * dy)
}

fn gemm<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (a, b, dy) = (n.x(0), n.x(1), n.dy());
    let alpha = n.float("alpha").unwrap_or(1.0);
    let beta = n.float("beta").unwrap_or(1.0);
    let flipped = |name| n.int(name).unwrap_or(0) != 0;
    let (flip_a, flip_b) = (flipped("transA"), flipped("transB"));
    n.each(&[
        &|| match flip_a {
            false => product(alpha, (dy, false), (b, !flip_b)),
            true => product(alpha, (b, flip_b), (dy, true)),
        },
        &|| match flip_b {
            false => product(alpha, (a, !flip_a), (dy, false)),
            true => product(alpha, (dy, true), (a, flip_a)),
        },
        &|| {
            if beta == 1.0 {
                dy
            } else {
                dy * f64::from(beta)
            }
        },
    ])
}

/// α·A·B of two matrices, each transposed first if its flag says so.
pub(super) fn product<'g>(alpha: f32, a: (Expr<'g>, bool), b: (Expr<'g>, bool)) -> Expr<'g> {
    let extent = |(matrix, flip): (Expr<'g>, bool), axis: usize| {
        matrix.shape()[if flip { 1 - axis } else { axis }]
    };
    let fact = Fact::new(a.0.dtype(), vec![extent(a, 0), extent(b, 1)]);
    let attributes = [
        ("alpha", Attribute::Float(alpha)),
        ("transA", Attribute::Int(a.1.into())),
        ("transB", Attribute::Int(b.1.into())),
    ];
    a.0.builder().node("Gemm", &[a.0, b.0], &attributes, fact)
}

fn matmul<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (a, b, dy) = (n.x(0), n.x(1), n.dy());
    if b.rank() == 2
        && a.rank() > 1
        && let Some(rows) = rows(&a.shape())
    {
        // One matrix for the whole batch: all rows at once, without transposed copies, and without a weight gradient per sample.
        let flat = |value: Expr<'g>| {
            let shape = value.shape();
            value.reshape(&[rows, shape[shape.len() - 1]])
        };
        return n.each(&[
            &|| product(1.0, (flat(dy), false), (b, true)).reshape_like(a),
            &|| product(1.0, (flat(a), true), (flat(dy), false)),
        ]);
    }
    // A vector on the left is a row, one on the right a column; the axis that it lacks is missing from y too.
    let (row, column) = (a.rank() == 1, b.rank() == 1);
    let mut shape = dy.shape();
    if column {
        shape.push(Dim::ONE);
    }
    if row {
        shape.insert(shape.len() - 1, Dim::ONE);
    }
    let dy = dy.reshape(&shape);
    let a = if row { a.unsqueeze(&[0]) } else { a };
    let b = if column { b.unsqueeze(&[1]) } else { b };
    n.each(&[&|| dy.matmul(b.transpose_last()), &|| {
        let product = a.transpose_last().matmul(dy);
        if column {
            product.squeeze(&[product.rank() - 1])
        } else {
            product
        }
    }])
}

/// The number of rows when all axes but the last are laid into one; `None` where that is no multiple of the batch size.
fn rows(shape: &Dims) -> Option<Dim> {
    let mut rows = Dim::ONE;
    for &dim in shape.iter().rev().skip(1) {
        rows = match (rows.extent(), dim.extent()) {
            (Some(factor), _) => dim.times(factor),
            (None, Some(factor)) => rows.times(factor),
            (None, None) => return None,
        };
    }
    Some(rows)
}
