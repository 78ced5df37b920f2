//! Reductions, and the running sum.
//!
//! Axes are an operand (opset 18) or, in graphs that were not lifted, an attribute.
//! As ONNX Runtime runs them: without axes everything is reduced, or with `noop_with_empty_axes` each element by itself (`ReduceL1` is |x| then).

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attribute, Attributes, Dim, Dims, Expr};
use crate::tensor::DType;

pub(super) const RULES: &[Rule] = &[
    // y = Σ x ⇒ x̄ = ȳ
    Rule::new("ReduceSum", |n| {
        let over = Over::of(n)?;
        n.only(over.kept(n.dy()).expand(&n.shape()))
    }),
    // y = Σ x/n ⇒ x̄ = ȳ/n
    Rule::new("ReduceMean", |n| {
        let over = Over::of(n)?;
        let dy = over.kept(n.dy());
        let part = wide(dy) / over.count(wide(dy));
        n.only(part.cast_like(dy).expand(&n.shape()))
    }),
    // y = max x ⇒ x̄ᵢ = ȳ·[xᵢ = y]/k, k the number of such i: ties share evenly, as PyTorch's `amax`.
    Rule::new("ReduceMax", extremum),
    // y = min x ⇒ x̄ᵢ = ȳ·[xᵢ = y]/k, k the number of such i: ties share evenly, as PyTorch's `amin`.
    Rule::new("ReduceMin", extremum),
    // y = Σ |x| ⇒ x̄ = ȳ sign x; 0 at x = 0, as PyTorch.
    Rule::new("ReduceL1", |n| {
        n.only(Over::of(n)?.kept(n.dy()) * n.x(0).unary("Sign"))
    }),
    // y = √(Σ x²) ⇒ x̄ = ȳx/y; 0 at the zero vector, as PyTorch.
    Rule::new("ReduceL2", |n| {
        let over = Over::of(n)?;
        let (dy, y) = (over.kept(n.dy()), over.kept(n.y(0)));
        n.only(y.equal(0.0).select(0.0, dy / y, dy) * n.x(0))
    }),
    // y = Σ x² ⇒ x̄ = 2ȳx
    Rule::new("ReduceSumSquare", |n| {
        n.only(Over::of(n)?.kept(n.dy()) * 2.0 * n.x(0))
    }),
    // y = ln Σ x ⇒ x̄ = ȳ/Σ x; the sum anew, since e^y has lost digits.
    Rule::new("ReduceLogSum", |n| {
        let over = Over::of(n)?;
        let sum = n.x(0).sum(&over.axes);
        n.only((over.kept(n.dy()) / sum).expand(&n.shape()))
    }),
    // y = ln Σ eˣ ⇒ x̄ = ȳe^(x − y); 0 where all x are −∞ (PyTorch has NaN).
    Rule::new("ReduceLogSumExp", |n| {
        let over = Over::of(n)?;
        let y = over.kept(n.y(0));
        let shift = y.equal(f64::NEG_INFINITY).select(0.0, y, y);
        n.only(over.kept(n.dy()) * (n.x(0) - shift).unary("Exp"))
    }),
    Rule::new("ReduceProd", product),
    // yᵢ = Σ xⱼ over j ≤ i (exclusive: j < i; reverse: from the end) ⇒ x̄ⱼ = Σ ȳᵢ over the same pairs, which is the sum from the other end.
    Rule::new("CumSum", |n| {
        let flag = |name| n.int(name).unwrap_or(0);
        let attributes = [
            ("exclusive", Attribute::Int(flag("exclusive"))),
            ("reverse", Attribute::Int(1 - flag("reverse").clamp(0, 1))),
        ];
        let operands = [n.dy(), n.x(1)];
        n.only(
            n.builder()
                .node("CumSum", &operands, &attributes, n.dy().fact()),
        )
    }),
];

/// What a reduction runs over.
struct Over {
    axes: Vec<usize>,
    /// The shape of the result with the reduced axes kept, so that it broadcasts with the operand.
    kept: Dims,
    /// The extents of the reduced axes.
    reduced: Dims,
}

impl Over {
    fn of(n: &Vjp<'_>) -> Result<Self, String> {
        let shape = n.shape();
        let given = match n.constant_ints(1)? {
            Some(axes) => axes,
            None => n.ints("axes").unwrap_or_default().to_vec(),
        };
        let axes = if !given.is_empty() {
            let axes = given.into_iter().map(|axis| n.axis(axis, shape.len()));
            axes.collect::<Result<Vec<_>, _>>()?
        } else if n.int("noop_with_empty_axes") == Some(1) {
            Vec::new()
        } else {
            (0..shape.len()).collect()
        };
        let dims = shape.into_iter().enumerate();
        let (kept, reduced): (Dims, Vec<Option<Dim>>) = dims
            .map(|(axis, dim)| match axes.contains(&axis) {
                true => (Dim::ONE, Some(dim)),
                false => (dim, None),
            })
            .unzip();
        Ok(Over {
            axes,
            kept,
            reduced: reduced.into_iter().flatten().collect(),
        })
    }

    /// A value of the result's shape, with the reduced axes kept.
    fn kept<'g>(&self, value: Expr<'g>) -> Expr<'g> {
        value.reshape(&self.kept)
    }

    /// The number of elements that go into each result, in the type of `typed`.
    fn count<'g>(&self, typed: Expr<'g>) -> Expr<'g> {
        let builder = typed.builder();
        let fixed: i64 = self.reduced.iter().filter_map(|dim| dim.extent()).product();
        #[expect(clippy::cast_precision_loss, reason = "no tensor has 2⁵³ elements")]
        let fixed = builder.scalar(typed.dtype(), fixed as f64);
        let following = self.reduced.iter().filter(|dim| dim.extent().is_none());
        following.fold(fixed, |count, dim| {
            count * builder.extents(&[*dim]).cast_like(typed)
        })
    }
}

/// Half precision as single precision: counts beyond 2048 need it.
fn wide(value: Expr<'_>) -> Expr<'_> {
    match value.dtype() {
        DType::F16 | DType::BF16 => value.cast(DType::F32),
        _ => value,
    }
}

/// x̄ᵢ = ȳ·[xᵢ = y]/k, k the number of such i.
fn extremum<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let over = Over::of(n)?;
    let dy = over.kept(n.dy());
    let tied = n.x(0).equal(over.kept(n.y(0)));
    let count = tied.cast_like(wide(dy)).sum(&over.axes);
    n.only((wide(dy) / count).cast_like(dy).where_(tied))
}

/// y = Π x ⇒ x̄ᵢ = ȳ·Π xⱼ over j ≠ i; exact with zeros among the x, as PyTorch.
///
/// With x′ = x but 1 in place of each zero, and p = Π x′: the product of the others is p/x′ᵢ where no other is zero, else 0.
fn product<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let over = Over::of(n)?;
    let x = n.x(0);
    let zero = x.equal(0.0);
    let zeros = zero.cast_like(wide(x));
    let nonzero = zero.select(1.0, x, x);
    let others = nonzero.reduce("ReduceProd", &over.axes, true) / nonzero;
    let other_zeros = zeros.sum(&over.axes) - zeros;
    n.only((over.kept(n.dy()) * others).where_(other_zeros.equal(0.0)))
}
