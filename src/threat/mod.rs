//! Threat models: which perturbations count, in which norm, how large, within which bounds.
//!
//! Start at [`Threat`]; each norm has a file of its own.

mod epsilon;

pub use epsilon::{Epsilon, EpsilonError, NumberError, parse_number};
use std::fmt;

/// The norm in which a perturbation is measured, per sample, over all of the sample's elements.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest absolute change of any element.
    Linf,
    /// The Euclidean length.
    L2,
    /// The sum of absolute changes.
    L1,
}

impl Norm {
    /// Every norm, in the order in which they are listed.
    pub const ALL: [Norm; 3] = [Norm::Linf, Norm::L2, Norm::L1];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Norm::Linf => "linf",
            Norm::L2 => "l2",
            Norm::L1 => "l1",
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The range of valid inputs, in the units of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The smallest valid value; `-∞` where there is none.
    pub low: f32,
    /// The largest valid value; `+∞` where there is none.
    pub high: f32,
}

impl Bounds {
    /// Every finite input is valid.
    pub const NONE: Bounds = Bounds {
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    };
    /// Images scaled to [0, 1].
    pub const UNIT: Bounds = Bounds {
        low: 0.0,
        high: 1.0,
    };
}
