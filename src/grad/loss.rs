//! The losses that attacks maximise, per sample, on logits `[n, classes]`.

use crate::graph::{Dim, Expr};
use crate::tensor::DType;
use std::fmt;
use std::str::FromStr;

/// A loss per sample; attacks maximise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Loss {
    /// −log softmax(z)_y.
    #[default]
    CrossEntropy,
    /// max over i ≠ y of z_i, minus z_y (Carlini and Wagner 2017, f6).
    Margin,
    /// −(z_y − max over i ≠ y of z_i) / (z_π1 − z_π3 + 10⁻¹²), π the order of descending logits (Croce and Hein 2020, eq. 6).
    Dlr,
}

impl Loss {
    /// Every loss.
    pub const ALL: [Loss; 3] = [Loss::CrossEntropy, Loss::Margin, Loss::Dlr];

    /// The name on the command line and in metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Loss::CrossEntropy => "cross-entropy",
            Loss::Margin => "margin",
            Loss::Dlr => "dlr",
        }
    }

    /// The least number of classes for which the loss is defined.
    #[must_use]
    pub fn least_classes(self) -> i64 {
        match self {
            Loss::CrossEntropy | Loss::Margin => 2,
            Loss::Dlr => 3,
        }
    }

    /// Adds the loss to the graph: float32 `[n]`, from logits `[n, classes]` and labels int64 `[n]`.
    ///
    /// Half-precision logits are brought to float32 first.
    #[must_use]
    pub fn build<'g>(self, logits: Expr<'g>, labels: Expr<'g>, classes: i64) -> Expr<'g> {
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
        match self {
            Loss::CrossEntropy => -own(logits.log_softmax(1)),
            Loss::Margin => margin(),
            Loss::Dlr => {
                let (top, _) = logits.top_k(3, 1);
                let at = |place: i64| per_sample(top.slice(1, place, Dim::fixed(place + 1)));
                margin() / (at(0) - at(2) + 1e-12)
            }
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Loss::ALL
            .into_iter()
            .find(|loss| loss.name() == text)
            .ok_or_else(|| {
                let names: Vec<_> = Loss::ALL.iter().map(|loss| loss.name()).collect();
                format!("`{text}` is no loss; the losses are {}", names.join(", "))
            })
    }
}
