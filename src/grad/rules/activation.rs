//! Activation and elementary functions, element by element.
//!
//! Where ONNX Runtime fuses an activation into the convolution before it, the rule is written in terms of y, so that x need not be kept.
//! A branch that could overflow is evaluated at a harmless point or left to `Where`, which never lets 0 · ∞ through; `Relu` is the one exception.

use super::arithmetic::share;
use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attribute, Attributes, Expr, Fact};
use crate::tensor::DType;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

pub(super) const RULES: &[Rule] = &[
    // y = max(x, 0) ⇒ x̄ = ȳ·[x > 0]; 0 at the kink, as PyTorch.
    Rule::new("Relu", |n| n.only(relu(n.dy(), n.y(0)))),
    // y = x or αx ⇒ x̄ = ȳ·(1 where x > 0, else α); α at the kink, as PyTorch. For α ≥ 0 the signs of x and y agree.
    Rule::new("LeakyRelu", |n| {
        let alpha = real(n, "alpha", 0.01);
        let signed = if alpha >= 0.0 { n.y(0) } else { n.x(0) };
        let dy = n.dy();
        n.only(signed.gt(0.0).select(dy, dy * alpha, dy))
    }),
    // y = x or sx ⇒ x̄ = ȳ·(1 where x > 0, else s), s̄ = ȳ·x·[x ≤ 0]; x̄ = ȳs at the kink, as PyTorch.
    Rule::new("PRelu", |n| {
        let (x, slope, dy) = (n.x(0), n.x(1), n.dy());
        let positive = x.gt(0.0);
        n.each(&[&|| positive.select(dy, dy * slope, dy), &|| {
            positive.select(0.0, dy * x, dy)
        }])
    }),
    // y = x or α(eˣ − 1) ⇒ x̄ = ȳ·(1 where x > 0, else αeˣ); α at the kink, as PyTorch.
    Rule::new("Elu", |n| exponential_unit(n, real(n, "alpha", 1.0), 1.0)),
    // y = γx or γα(eˣ − 1) ⇒ x̄ = ȳ·γ·(1 where x > 0, else αeˣ); γα at the kink, as PyTorch.
    Rule::new("Selu", |n| {
        let alpha = real(n, "alpha", 1.673_263_2);
        exponential_unit(n, alpha, real(n, "gamma", 1.050_701))
    }),
    // y = max(x, 0) + min(0, α(e^(x/α) − 1)) ⇒ x̄ = ȳ·e^(min(x, 0)/α); smooth.
    Rule::new("Celu", |n| {
        let scale = 1.0 / real(n, "alpha", 1.0);
        n.only(n.dy() * (n.x(0).min(0.0) * scale).unary("Exp"))
    }),
    // y = σ(x) ⇒ x̄ = ȳ (1 − y) y
    Rule::new("Sigmoid", |n| n.only(n.dy() * (1.0 - n.y(0)) * n.y(0))),
    // y = min(max(αx + β, 0), 1) ⇒ x̄ = ȳα·[0 < y < 1]; 0 at both kinks, as PyTorch.
    Rule::new("HardSigmoid", |n| {
        let (y, alpha) = (n.y(0), real(n, "alpha", 0.2));
        n.only((n.dy() * alpha).where_(y.gt(0.0).and(y.lt(1.0))))
    }),
    // y = x·min(max(x/6 + ½, 0), 1) ⇒ x̄ = ȳ·(0 where x ≤ −3, 1 where x ≥ 3, else x/3 + ½); so at the kinks too, as PyTorch.
    Rule::new("HardSwish", |n| {
        let (x, dy) = (n.x(0), n.dy());
        let between = (dy * (x * (1.0 / 3.0) + 0.5)).where_(x.gt(-3.0));
        n.only(x.ge(3.0).select(dy, between, dy))
    }),
    // y = tanh x ⇒ x̄ = ȳ (1 − y²)
    Rule::new("Tanh", |n| n.only(n.dy() * (1.0 - n.y(0) * n.y(0)))),
    // y = ln(1 + eˣ) ⇒ x̄ = ȳ σ(x)
    Rule::new("Softplus", |n| n.only(n.dy() * n.x(0).unary("Sigmoid"))),
    // y = x/(1 + |x|) ⇒ x̄ = ȳ/(1 + |x|)²; divided twice, since the square overflows sooner.
    Rule::new("Softsign", |n| {
        let scale = 1.0 + n.x(0).unary("Abs");
        n.only(n.dy() / scale / scale)
    }),
    Rule::new("Gelu", gelu),
    // y = x·t, t = tanh(softplus x) ⇒ x̄ = ȳ·(t + x σ(x)(1 − t²))
    Rule::new("Mish", |n| {
        let x = n.x(0);
        let t = x.unary("Softplus").unary("Tanh");
        n.only(n.dy() * (t + x * x.unary("Sigmoid") * (1.0 - t * t)))
    }),
    // y = x·s, s = σ(αx) ⇒ x̄ = ȳ·(s + αy(1 − s))
    Rule::new("Swish", |n| {
        let alpha = real(n, "alpha", 1.0);
        let s = (n.x(0) * alpha).unary("Sigmoid");
        n.only(n.dy() * (s + n.y(0) * alpha * (1.0 - s)))
    }),
    // y = x·[x > α] ⇒ x̄ = ȳ·[x > α]; 0 at the jump, as PyTorch's `threshold`.
    Rule::new("ThresholdedRelu", |n| {
        n.only(n.dy().where_(n.x(0).gt(real(n, "alpha", 1.0))))
    }),
    // y = x + b below −λ, x − b above λ, else 0 ⇒ x̄ = ȳ·[x < −λ or x > λ]; 0 at both kinks, as PyTorch's `softshrink`.
    Rule::new("Shrink", |n| {
        let (x, lambda) = (n.x(0), real(n, "lambd", 0.5));
        n.only(n.dy().where_(x.lt(-lambda).or(x.gt(lambda))))
    }),
    Rule::new("Clip", clip),
    // y = erf x ⇒ x̄ = ȳ·2/√π·e^(−x²)
    Rule::new("Erf", |n| {
        let x = n.x(0);
        n.only(n.dy() * ((-(x * x)).unary("Exp") * FRAC_2_SQRT_PI))
    }),
    // y = eˣ ⇒ x̄ = ȳy
    Rule::new("Exp", |n| n.only(n.dy() * n.y(0))),
    // y = ln x ⇒ x̄ = ȳ/x
    Rule::new("Log", |n| n.only(n.dy() / n.x(0))),
    // y = √x ⇒ x̄ = ȳ/(2y); 0 at x = 0, where PyTorch has ∞: an infinite gradient has no direction to step in, and ∞·0 further down is NaN.
    Rule::new("Sqrt", |n| {
        let (y, dy) = (n.y(0), n.dy());
        n.only(y.equal(0.0).select(0.0, dy / (y * 2.0), dy))
    }),
    // y = 1/x ⇒ x̄ = −ȳy²
    Rule::new("Reciprocal", |n| n.only(-(n.dy() * n.y(0) * n.y(0)))),
    // y = |x| ⇒ x̄ = ȳ sign x; 0 at the kink, as PyTorch.
    Rule::new("Abs", |n| n.only(n.dy() * n.x(0).unary("Sign"))),
    // y = −x ⇒ x̄ = −ȳ
    Rule::new("Neg", |n| n.only(-n.dy())),
    // y = sin x ⇒ x̄ = ȳ cos x
    Rule::new("Sin", |n| n.only(n.dy() * n.x(0).unary("Cos"))),
    // y = cos x ⇒ x̄ = −ȳ sin x
    Rule::new("Cos", |n| n.only(-(n.dy() * n.x(0).unary("Sin")))),
    // y = tan x ⇒ x̄ = ȳ (1 + y²)
    Rule::new("Tan", |n| n.only(n.dy() * (1.0 + n.y(0) * n.y(0)))),
    // y = arcsin x ⇒ x̄ = ȳ/√(1 − x²)
    Rule::new("Asin", |n| n.only(n.dy() / beside_one(n).unary("Sqrt"))),
    // y = arccos x ⇒ x̄ = −ȳ/√(1 − x²)
    Rule::new("Acos", |n| n.only(-(n.dy() / beside_one(n).unary("Sqrt")))),
    // y = arctan x ⇒ x̄ = ȳ/(1 + x²)
    Rule::new("Atan", |n| n.only(n.dy() / (1.0 + n.x(0) * n.x(0)))),
    // y = sinh x ⇒ x̄ = ȳ cosh x
    Rule::new("Sinh", |n| n.only(n.dy() * n.x(0).unary("Cosh"))),
    // y = cosh x ⇒ x̄ = ȳ sinh x
    Rule::new("Cosh", |n| n.only(n.dy() * n.x(0).unary("Sinh"))),
    // y = arsinh x ⇒ x̄ = ȳ/√(1 + x²)
    Rule::new("Asinh", |n| {
        n.only(n.dy() / (1.0 + n.x(0) * n.x(0)).unary("Sqrt"))
    }),
    // y = arcosh x ⇒ x̄ = ȳ/√(x² − 1)
    Rule::new("Acosh", |n| n.only(n.dy() / (-beside_one(n)).unary("Sqrt"))),
    // y = artanh x ⇒ x̄ = ȳ/(1 − x²)
    Rule::new("Atanh", |n| n.only(n.dy() / beside_one(n))),
];

// ȳ·[y > 0] of y ≥ 0. In single precision the step function is HardSigmoid(y) = max(0, min(1, αy)) with α so large that it is 1 for every
// normal y > 0: on the CPU that and a product take two thirds of the time of a comparison and a selection, and ReLUs are everywhere.
// A β just below 0 keeps 0 at 0 without being 0 itself: OpenVINO takes 0.5, the default, for an attribute that is 0.
// An infinite ȳ gives NaN at y = 0 then, where a selection would give 0; an evaluation stops at either.
fn relu<'g>(dy: Expr<'g>, y: Expr<'g>) -> Expr<'g> {
    if y.dtype() != DType::F32 {
        return dy.where_(y.gt(0.0));
    }
    let slope = [
        ("alpha", Attribute::Float(3.0e38)),
        ("beta", Attribute::Float(-1.0e-30)),
    ];
    let fact = Fact::new(DType::F32, y.shape());
    dy * y.builder().node("HardSigmoid", &[y], &slope, fact)
}

/// A float attribute, or its default.
fn real(n: &Vjp<'_>, name: &str, default: f32) -> f64 {
    n.float(name).unwrap_or(default).into()
}

/// 1 − x² as a product, which keeps all digits near |x| = 1.
fn beside_one<'g>(n: &Vjp<'g>) -> Expr<'g> {
    (1.0 - n.x(0)) * (1.0 + n.x(0))
}

/// y = γx where x > 0, else γα(eˣ − 1) ⇒ x̄ = ȳ·γ·(1 where x > 0, else αeˣ).
///
/// The exponential is taken of min(x, 0), which cannot overflow; αeˣ rather than y + α, which has no digits left from x = −16 on.
fn exponential_unit<'g>(n: &Vjp<'g>, alpha: f64, gamma: f64) -> Result<Cotangents<'g>, String> {
    let x = n.x(0);
    let below = x.min(0.0).unary("Exp") * (alpha * gamma);
    n.only(n.dy() * x.gt(0.0).select(gamma, below, x))
}

/// Exact: y = x Φ(x) ⇒ x̄ = ȳ·(Φ(x) + x φ(x)), Φ and φ the normal distribution and its density.
///
/// By tanh: y = ½x(1 + t), t = tanh(k(x + cx³)), k = √(2/π), c = 0.044715 ⇒ x̄ = ȳ·(½(1 + t) + ½x(1 − t²)·k(1 + 3cx²)).
fn gelu<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let x = n.x(0);
    match n.string("approximate").unwrap_or("none") {
        "none" => {
            let distribution = ((x * FRAC_1_SQRT_2).unary("Erf") + 1.0) * 0.5;
            let density = (x * x * -0.5).unary("Exp") * (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI);
            n.only(n.dy() * (distribution + x * density))
        }
        "tanh" => {
            let (scale, cubic) = (FRAC_1_SQRT_2 * FRAC_2_SQRT_PI, 0.044_715);
            // From |x| = 10 on t is ±1 in every type, and the slope 0 or 1; beyond, x² would overflow beside 1 − t² = 0.
            let x = x.max(-10.0).min(10.0);
            let square = x * x;
            let t = (x * (square * (scale * cubic) + scale)).unary("Tanh");
            let inner = square * (3.0 * scale * cubic) + scale;
            n.only(n.dy() * ((t + 1.0) * 0.5 + x * (1.0 - t * t) * inner * 0.5))
        }
        other => Err(format!(
            "its attribute `approximate` is `{other}`, neither `none` nor `tanh`"
        )),
    }
}

/// y = min(max(x, l), h) ⇒ x̄ = ȳ·[l < y < h]; 0 at both bounds, as PyTorch's `relu6`, `hardtanh` and (since 2.15) `clamp` by numbers.
///
/// Where a bound is differentiated too, the two steps split ties evenly, as PyTorch's `clamp` by tensors does.
fn clip<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, y, dy) = (n.x(0), n.y(0), n.dy());
    let (low, high) = (n.optional_x(1), n.optional_x(2));
    if !n.wants(1) && !n.wants(2) {
        let inside = match (low, high) {
            (Some(low), Some(high)) => y.gt(low).and(y.lt(high)),
            (Some(low), None) => y.gt(low),
            (None, Some(high)) => y.lt(high),
            (None, None) => return n.only(dy),
        };
        return n.only(dy.where_(inside));
    }
    let raised = low.map_or(x, |low| x.max(low));
    let (mut cotangents, mut rest) = (Vec::new(), dy);
    if let Some(high) = high {
        let tied = raised.equal(high);
        cotangents.push((2, share(rest, tied, raised.gt(high))));
        rest = share(rest, tied, raised.lt(high));
    }
    if let Some(low) = low {
        let tied = x.equal(low);
        cotangents.push((1, share(rest, tied, x.lt(low))));
        rest = share(rest, tied, x.gt(low));
    }
    cotangents.push((0, rest));
    Ok(cotangents)
}
