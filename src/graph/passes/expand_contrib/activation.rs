//! Forms of GELU.

use super::Fused;
use crate::graph::{Attributes, Expr};

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// y = ½ x (1 + erf(x / √2)).
fn exact(x: Expr<'_>) -> Expr<'_> {
    let erf = (x * std::f64::consts::FRAC_1_SQRT_2).unary("Erf");
    x * ((erf + 1.0) * 0.5)
}

/// y = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).
fn tanh_form(x: Expr<'_>) -> Expr<'_> {
    let inner = x * ((x * x * 0.044_715 + 1.0) * (2.0 / std::f64::consts::PI).sqrt());
    x * ((inner.unary("Tanh") + 1.0) * 0.5)
}

#[expect(clippy::unnecessary_wraps, reason = "what every expansion returns")]
pub(super) fn gelu<'g>(n: &Fused<'g>) -> Results<'g> {
    Ok(vec![n.optional(0).map(exact)])
}

pub(super) fn bias_gelu<'g>(n: &Fused<'g>) -> Results<'g> {
    Ok(vec![Some(exact(n.x(0)? + n.x(1)?))])
}

pub(super) fn fast_gelu<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = n.x(0)?;
    let x = n.optional(1).map_or(x, |bias| x + bias);
    Ok(vec![Some(tanh_form(x))])
}

/// y = x · sigmoid(α x).
pub(super) fn quick_gelu<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = n.x(0)?;
    let alpha = f64::from(n.float("alpha").unwrap_or(1.702));
    Ok(vec![Some(x * (x * alpha).unary("Sigmoid"))])
}
