//! Activation functions, element by element.

use crate::grad::rule::Rule;

pub(super) const RULES: &[Rule] = &[
    // y = tanh x ⇒ x̄ = ȳ (1 − y²)
    Rule::new("Tanh", |n| n.only(n.dy() * (1.0 - n.y(0) * n.y(0)))),
    // y = max(x, 0) ⇒ x̄ = ȳ·[x > 0]; 0 at the kink, as PyTorch.
    Rule::new("Relu", |n| n.only(n.dy().where_(n.y(0).gt(0.0)))),
];
