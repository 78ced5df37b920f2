//! The losses that attacks maximise, by name; `grad::loss` builds them as graphs.

use std::fmt;
use std::str::FromStr;

/// A loss per sample, on logits z with label y; attacks maximise it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// `−log softmax(z)_y`.
    #[default]
    CrossEntropy,
    /// `max over i ≠ y of z_i, minus z_y` (Carlini and Wagner 2017, f6).
    Margin,
    /// `−(z_y − max over i ≠ y of z_i) / (z_π1 − z_π3 + 10⁻¹²)`, π the order of descending logits (Croce and Hein 2020, eq. 6).
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
