//! Arithmetic with broadcasting, and choices between operands.
//!
//! The driver sums each cotangent to the shape of its operand, so a rule is written as if no operand were stretched.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attribute, Expr, Fact, Graph};

/// The positions of x and of σ(x), where a product is of these two and both are only steps on the way.
fn gated_by_itself(n: &Vjp<'_>) -> Option<(usize, usize)> {
    [(0, 1), (1, 0)].into_iter().find(|&(x, gate)| {
        let (Some(of), Some(made)) = (n.node().input(x), n.node().input(gate)) else {
            return false;
        };
        let sigmoid = |graph: &Graph| {
            let mut nodes = graph.nodes.iter();
            nodes.any(|node| {
                node.is("Sigmoid") && node.input(0) == Some(of) && node.output(0) == Some(made)
            })
        };
        n.wants(x) && n.passes_through(gate) && n.builder().with_graph(sigmoid)
    })
}

pub(super) const RULES: &[Rule] = &[
    // y = a + b ⇒ ā = ȳ, b̄ = ȳ
    Rule::new("Add", |n| n.each(&[&|| n.dy(), &|| n.dy()])),
    // y = a − b ⇒ ā = ȳ, b̄ = −ȳ
    Rule::new("Sub", |n| n.each(&[&|| n.dy(), &|| -n.dy()])),
    // y = ab ⇒ ā = ȳb, b̄ = ȳa
    Rule::new("Mul", |n| {
        if let Some((x, gate)) = gated_by_itself(n) {
            // y = x·σ(x), as SiLU is exported ⇒ x̄ = ȳ(σ + y(1 − σ)): a third less work than by way of σ̄.
            let slope = n.x(gate) + n.y(0) * (1.0 - n.x(gate));
            return Ok(vec![(x, n.dy() * slope)]);
        }
        n.each(&[&|| n.dy() * n.x(1), &|| n.dy() * n.x(0)])
    }),
    // y = a/b ⇒ ā = ȳ/b, b̄ = −(ȳ/b)·y
    Rule::new("Div", |n| {
        n.each(&[&|| n.dy() / n.x(1), &|| -(n.dy() / n.x(1) * n.y(0))])
    }),
    Rule::new("Pow", power),
    // y = a − b·t, t the quotient a/b without its fraction ⇒ ā = ȳ, b̄ = −ȳt, t = (a − y)/b; the jumps have no derivative.
    Rule::new("Mod", |n| {
        n.each(&[&|| n.dy(), &|| -(n.dy() * ((n.x(0) - n.y(0)) / n.x(1)))])
    }),
    // y = max(x₀, x₁, …): ȳ goes to the largest; those that are equal share it in equal parts, two of them as PyTorch's `maximum`.
    Rule::new("Max", |n| extremum(n, Expr::gt)),
    // y = min(x₀, x₁, …): ȳ goes to the smallest; those that are equal share it in equal parts, two of them as PyTorch's `minimum`.
    Rule::new("Min", |n| extremum(n, Expr::lt)),
    // y = Σᵢ xᵢ ⇒ x̄ᵢ = ȳ
    Rule::new("Sum", |n| to_all(n, n.dy())),
    // y = Σᵢ xᵢ/n ⇒ x̄ᵢ = ȳ/n
    Rule::new("Mean", |n| {
        #[expect(clippy::cast_precision_loss, reason = "nodes have few operands")]
        let operands = n.arity() as f64;
        to_all(n, n.dy() / operands)
    }),
    // y = a where c, else b ⇒ ā = ȳ·[c], b̄ = ȳ·[not c]
    Rule::new("Where", |n| {
        let (chosen, dy) = (n.x(0), n.dy());
        wanted(
            n,
            [
                (1, &|| dy.where_(chosen)),
                (2, &|| chosen.select(0.0, dy, dy)),
            ],
        )
    }),
    Rule::new("OneHot", one_hot),
    // yᵢ = s + i·d ⇒ s̄ = Σᵢ ȳᵢ, d̄ = Σᵢ i·ȳᵢ; the limit only counts.
    Rule::new("Range", |n| {
        let dy = n.dy();
        let counted = || {
            let ones = n.builder().full(dy.dtype(), &dy.shape(), 1.0);
            let exclusive = [("exclusive", Attribute::Int(1))];
            let operands = [ones, n.builder().ints(&[0]).reshape(&[])];
            dy * n.builder().node("CumSum", &operands, &exclusive, dy.fact())
        };
        wanted(
            n,
            [
                (0, &|| dy.sum(&[0]).reshape(&[])),
                (2, &|| counted().sum(&[0]).reshape(&[])),
            ],
        )
    }),
];

/// The part of ȳ that an operand of a maximum or minimum of two gets: all where it wins, half where both are equal, as PyTorch.
pub(super) fn share<'g>(dy: Expr<'g>, tied: Expr<'g>, wins: Expr<'g>) -> Expr<'g> {
    tied.select(dy * 0.5, dy.where_(wins), dy)
}

/// The largest or smallest of n operands; those that are equal share ȳ in equal parts.
///
/// For two operands that is what PyTorch's `maximum` and `minimum` do.
/// A tie among more is defined so here (PyTorch has no such operator, and a chain of `maximum` would depend on its order).
fn extremum<'g>(
    n: &Vjp<'g>,
    wins: impl Fn(Expr<'g>, Expr<'g>) -> Expr<'g>,
) -> Result<Cotangents<'g>, String> {
    let dy = n.dy();
    match n.arity() {
        1 => n.only(dy),
        2 => {
            let (a, b) = (n.x(0), n.x(1));
            let tied = a.equal(b);
            n.each(&[&|| share(dy, tied, wins(a, b)), &|| {
                share(dy, tied, wins(b, a))
            }])
        }
        arity => {
            let tied: Vec<_> = (0..arity).map(|i| n.x(i).equal(n.y(0))).collect();
            let counts: Vec<_> = tied.iter().map(|tied| tied.cast_like(dy)).collect();
            let part = dy / n.builder().node("Sum", &counts, &[], dy.fact());
            let wanted = tied.iter().enumerate().filter(|(i, _)| n.wants(*i));
            Ok(wanted.map(|(i, tied)| (i, part.where_(*tied))).collect())
        }
    }
}

/// y = xᵉ ⇒ x̄ = ȳ·e·xᵉ⁻¹, ē = ȳ·y·ln x where x > 0, else 0 (PyTorch has NaN for x < 0, where the power has no derivative by e).
///
/// The exponent may have another type than the base, integers too.
/// For a constant exponent nothing depends on the sign of x; where 0 < e < 1, x̄ = 0 at x = 0, as for `Sqrt` (PyTorch has ∞).
fn power<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, y, dy) = (n.x(0), n.y(0), n.dy());
    let mut cotangents = Vec::new();
    if n.wants(0) {
        match uniform_exponent(n) {
            Some(exponent) => {
                let cotangent = constant_power(dy, x, y, exponent);
                cotangents.extend(cotangent.map(|cotangent| (0, cotangent)));
            }
            None => cotangents.push((0, general_power(dy, x, n.x(1).cast_like(x)))),
        }
    }
    if n.wants(1) {
        cotangents.push((1, (dy * y * x.unary("Log")).where_(x.gt(0.0))));
    }
    Ok(cotangents)
}

/// The exponent, where it is constant and the same for every element.
fn uniform_exponent(n: &Vjp<'_>) -> Option<f64> {
    let exponents = n.constant(1)?.to_f64();
    let first = *exponents.first()?;
    exponents
        .iter()
        .all(|&other| other == first)
        .then_some(first)
}

/// ȳ·c·xᶜ⁻¹ without a logarithm; `None` for c = 0.
fn constant_power<'g>(dy: Expr<'g>, x: Expr<'g>, y: Expr<'g>, c: f64) -> Option<Expr<'g>> {
    Some(match c {
        0.0 => return None,
        1.0 => dy,
        2.0 => dy * (x * 2.0),
        3.0 => dy * (x * x * 3.0),
        c if c > 1.0 => {
            let below = x.builder().scalar(x.dtype(), c - 1.0);
            dy * (x.binary("Pow", below) * c)
        }
        // xᶜ⁻¹ = y/x spares a second power; for c < 1 neither overflows before the derivative does.
        c if c > 0.0 => x.equal(0.0).select(0.0, dy * (y / x * c), dy),
        c => dy * (y / x * c),
    })
}

/// ȳ·e·xᵉ⁻¹ element by element: 0 where e = 0, and at x = 0 where 0 < e < 1.
fn general_power<'g>(dy: Expr<'g>, x: Expr<'g>, exponent: Expr<'g>) -> Expr<'g> {
    let root = exponent.gt(0.0).and(exponent.lt(1.0));
    let flat = exponent.equal(0.0).or(x.equal(0.0).and(root));
    let slope = exponent * x.binary("Pow", exponent - 1.0);
    flat.select(0.0, dy * slope, dy)
}

/// y = `on` at the index, else `off` ⇒ on‾ = Σ ȳ·[hot], off‾ = Σ ȳ·[not hot]; the indices only choose.
fn one_hot<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    if !n.wants(2) {
        return Ok(Vec::new());
    }
    let dy = n.dy();
    let values = [0.0, 1.0].map(|value| n.builder().scalar(dy.dtype(), value).unsqueeze(&[0]));
    let operands = [Some(n.x(0)), Some(n.x(1)), Some(Expr::concat(&values, 0))];
    let hot = n
        .builder()
        .repeat(n.node(), &operands, vec![Fact::new(dy.dtype(), dy.shape())])[0];
    let axes: Vec<usize> = (0..dy.rank()).collect();
    let total = |value: Expr<'g>| value.reduce("ReduceSum", &axes, false).unsqueeze(&[0]);
    let on = total(dy * hot);
    Ok(vec![(2, Expr::concat(&[total(dy) - on, on], 0))])
}

/// The same cotangent for every operand.
#[expect(clippy::unnecessary_wraps, reason = "what every rule returns")]
fn to_all<'g>(n: &Vjp<'g>, cotangent: Expr<'g>) -> Result<Cotangents<'g>, String> {
    let wanted = (0..n.arity()).filter(|&position| n.wants(position));
    Ok(wanted.map(|position| (position, cotangent)).collect())
}

/// Cotangents by position, each computed only where it is asked for.
#[expect(clippy::unnecessary_wraps, reason = "what every rule returns")]
fn wanted<'g, const N: usize>(
    n: &Vjp<'g>,
    cotangents: [(usize, &dyn Fn() -> Expr<'g>); N],
) -> Result<Cotangents<'g>, String> {
    let wanted = cotangents
        .into_iter()
        .filter(|(position, _)| n.wants(*position));
    Ok(wanted
        .map(|(position, cotangent)| (position, cotangent()))
        .collect())
}
