//! The losses that attacks maximise, as graphs over logits `[n, classes]`.

use crate::graph::{Dim, Expr, ValueId};
use crate::loss::Loss;
use crate::tensor::DType;

/// A logit that no other falls below: finite, since an infinite one would turn 0 · ∞ into NaN.
const LOWEST: f64 = -3.0e38;

/// A loss in the graph.
#[derive(Debug, Clone)]
pub struct LossExpr<'g> {
    /// The loss of each sample: float32 `[n]` (float64 where the logits are).
    pub loss: Expr<'g>,
    /// What [`super::vjp`] starts from: a value with d(sum of losses)/d(value).
    pub seed: (ValueId, Expr<'g>),
}

/// Adds a loss to the graph, from logits `[n, classes]` and labels int64 `[n]`.
///
/// Half-precision logits are brought to float32 first.
#[must_use]
pub fn build<'g>(loss: Loss, logits: Expr<'g>, labels: Expr<'g>, classes: i64) -> LossExpr<'g> {
    let logits = if logits.dtype() == DType::F64 {
        logits
    } else {
        logits.cast(DType::F32)
    };
    let hot = labels.one_hot(classes, DType::F32).cast_like(logits);
    let batch = [logits.shape().first().copied().unwrap_or(Dim::BATCH)];
    let per_sample = |value: Expr<'g>| value.reshape(&batch);
    let own = (logits * hot).sum(&[1]);
    let others = hot.gt(0.0).select(LOWEST, logits, logits);
    let best_other = others.reduce("ReduceMax", &[1], true);
    match loss {
        Loss::CrossEntropy => {
            let weights = (others - best_other).unary("Exp");
            let total = weights.sum(&[1]);
            let excess = best_other + total.unary("Log") - own;
            let (value, doubt) = softplus(excess);
            LossExpr {
                loss: per_sample(value),
                seed: (logits.id(), doubt * (weights / total - hot)),
            }
        }
        Loss::Margin => from_value(per_sample(best_other - own)),
        Loss::Dlr => {
            let (top, _) = logits.top_k(3, 1);
            let at = |place: i64| top.slice(1, place, Dim::fixed(place + 1));
            from_value(per_sample((best_other - own) / (at(0) - at(2) + 1e-12)))
        }
    }
}

/// How far apart the distributions of two models are, for each sample.
#[derive(Debug, Clone)]
pub struct DivergenceExpr<'g> {
    /// KL(p ‖ q): float32 `[n]` (float64 where the logits are).
    pub loss: Expr<'g>,
    /// The logits of p, with d(sum of losses)/d(logits).
    pub from: (ValueId, Expr<'g>),
    /// The logits of q, with d(sum of losses)/d(logits).
    pub to: (ValueId, Expr<'g>),
}

/// Adds KL(p ‖ q) = Σ p (log p − log q) to the graph, p and q the softmax of logits `[n, classes]`.
///
/// d KL/d(logits of q) = q − p, and d KL/d(logits of p) = p (log p − log q − KL).
/// Half-precision logits are brought to float32 first.
#[must_use]
pub fn divergence<'g>(from: Expr<'g>, to: Expr<'g>) -> DivergenceExpr<'g> {
    let single = |logits: Expr<'g>| match logits.dtype() {
        DType::F64 => logits,
        _ => logits.cast(DType::F32),
    };
    let (from, to) = (single(from), single(to));
    let batch = [from.shape().first().copied().unwrap_or(Dim::BATCH)];
    let (log_p, log_q) = (from.log_softmax(1), to.log_softmax(1));
    let (p, q) = (log_p.unary("Exp"), log_q.unary("Exp"));
    let ratio = log_p - log_q;
    let value = (p * ratio).sum(&[1]);
    DivergenceExpr {
        loss: value.reshape(&batch),
        from: (from.id(), p * (ratio - value)),
        to: (to.id(), q - p),
    }
}

/// As [`build`], against one class of each sample (`targets`, int64 `[n]`) instead of all others; `None` where the loss has no such form.
#[must_use]
pub fn targeted<'g>(
    loss: Loss,
    logits: Expr<'g>,
    labels: Expr<'g>,
    targets: Expr<'g>,
    classes: i64,
) -> Option<LossExpr<'g>> {
    let logits = if logits.dtype() == DType::F64 {
        logits
    } else {
        logits.cast(DType::F32)
    };
    let batch = [logits.shape().first().copied().unwrap_or(Dim::BATCH)];
    let hot = |indices: Expr<'g>| indices.one_hot(classes, DType::F32).cast_like(logits);
    match loss {
        Loss::Margin => {
            let difference = hot(targets) - hot(labels);
            let margin = (logits * difference).sum(&[1]).reshape(&batch);
            Some(from_value(margin))
        }
        Loss::Dlr => {
            let difference = hot(targets) - hot(labels);
            let margin = (logits * difference).sum(&[1]);
            let (top, _) = logits.top_k(4, 1);
            let at = |place: i64| top.slice(1, place, Dim::fixed(place + 1));
            let spread = at(0) - (at(2) + at(3)) * 0.5 + 1e-12;
            Some(from_value((margin / spread).reshape(&batch)))
        }
        Loss::CrossEntropy => None,
    }
}

/// A loss that is differentiated by the rules of its own nodes.
fn from_value(loss: Expr<'_>) -> LossExpr<'_> {
    let ones = loss.builder().full(loss.dtype(), &loss.shape(), 1.0);
    LossExpr {
        loss,
        seed: (loss.id(), ones),
    }
}

/// A seed whose largest element is 1 in each sample, and what it was divided by: `[n]`.
///
/// In float16, what is below 6·10⁻⁸ is 0, and the gradient of a confident sample with it. A sample whose seed is 0 keeps it.
#[must_use]
pub fn scaled((value, seed): (ValueId, Expr<'_>)) -> ((ValueId, Expr<'_>), Expr<'_>) {
    let shape = seed.shape();
    let batch = [shape.first().copied().unwrap_or(Dim::BATCH)];
    let inner: Vec<usize> = (1..).take(shape.len().saturating_sub(1)).collect();
    let magnitude = seed.unary("Abs");
    let largest = if inner.is_empty() {
        magnitude
    } else {
        magnitude.reduce("ReduceMax", &inner, true)
    };
    let size = largest.equal(0.0).select(1.0, largest, largest);
    ((value, seed / size), size.reshape(&batch))
}

/// A gradient `[n, …]` brought back to the size that its seed had.
#[must_use]
pub fn rescaled<'g>(gradient: Expr<'g>, size: Expr<'g>) -> Expr<'g> {
    let mut rows = vec![Dim::ONE; gradient.shape().len()];
    if let (Some(first), Some(batch)) = (rows.first_mut(), size.shape().first()) {
        *first = *batch;
    }
    gradient * size.reshape(&rows).cast_like(gradient)
}

/// log(1 + eˣ) and its derivative σ(x) = 1 / (1 + e⁻ˣ), both to full precision where they are tiny.
///
/// The cross-entropy is log(1 + eˣ) of `x = log Σ over i ≠ y of e^{z_i}, minus z_y`, and its derivative by `z_y` is −σ(x).
/// Written as softmax minus one, as PyTorch does, both lose their digits where the model is confident: at a probability of 1 − 10⁻⁶ the float32
/// gradient is off by 1 %, and at 1 − 10⁻⁸ it is 0, though the model can be attacked there like anywhere.
/// ONNX Runtime's own `Sigmoid` and `Softplus` have absolute, not relative precision, and lose the same digits.
fn softplus(x: Expr<'_>) -> (Expr<'_>, Expr<'_>) {
    let tail = (-x.unary("Abs")).unary("Exp");
    // log(1 + u) as log(w) · u/(w − 1) with w = 1 + u: the rounding of w cancels (Kahan).
    let rounded = tail + 1.0;
    let is_one = rounded.equal(1.0);
    let corrected = rounded.unary("Log") * tail / is_one.select(1.0, rounded - 1.0, rounded);
    let value = x.max(0.0) + is_one.select(tail, corrected, tail);
    let derivative = x.gt(0.0).select(1.0, tail, tail) / rounded;
    (value, derivative)
}
