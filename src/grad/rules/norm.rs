//! Normalisations, and dropout.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attributes, Dim, Dims, Expr, Operand};
use crate::tensor::DType;

pub(super) const RULES: &[Rule] = &[
    // y = γ (x − μ) / √(σ² + ε) + β with given μ and σ², per channel
    Rule::new("BatchNormalization", batch_normalization),
];
