//! The losses that attacks maximise, as graphs over logits `[n, classes]`.

use crate::graph::{Dim, Expr};
use crate::loss::Loss;
use crate::tensor::DType;

/// Adds the loss to the graph: float32 `[n]`, from logits `[n, classes]` and labels int64 `[n]`.
///
/// Half-precision logits are brought to float32 first.
#[must_use]
pub fn build<'g>(loss: Loss, logits: Expr<'g>, labels: Expr<'g>, classes: i64) -> Expr<'g> {
    let logits = if logits.dtype() == DType::F64 {
        logits
    } else {
        logits.cast(DType::F32)
    };
    let hot = labels.one_hot(classes, DType::F32).cast_like(logits);
    let batch = [logits.shape().first().copied().unwrap_or(Dim::BATCH)];
    let per_sample = |value: Expr<'g>| value.reshape(&batch);
    let own = |logits: Expr<'g>| per_sample((logits * hot).sum(&[1]));
    let margin = || {
        // The true class is pushed below every other by a finite number: an infinite one would turn 0 · ∞ into NaN in the gradient.
        let others = hot.gt(0.0).select(-3.0e38, logits, logits);
        per_sample(others.reduce("ReduceMax", &[1], true)) - own(logits)
    };
    match loss {
        Loss::CrossEntropy => -own(logits.log_softmax(1)),
        Loss::Margin => margin(),
        Loss::Dlr => {
            let (top, _) = logits.top_k(3, 1);
            let at = |place: i64| per_sample(top.slice(1, place, Dim::fixed(place + 1)));
            margin() / (at(0) - at(2) + 1e-12)
        }
    }
}
