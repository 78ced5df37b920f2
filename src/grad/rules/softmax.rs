//! Softmax over one axis, and what belongs to it.

use crate::grad::rule::{Rule, Vjp};
use crate::graph::Attributes;

pub(super) const RULES: &[Rule] = &[
    // yᵢ = e^xᵢ/Σⱼ e^xⱼ ⇒ x̄ = (ȳ − Σⱼ ȳⱼyⱼ)·y
    Rule::new("Softmax", |n| {
        let (axis, dy, y) = (axis(n)?, n.dy(), n.y(0));
        n.only((dy - (dy * y).sum(&[axis])) * y)
    }),
    // y = x − ln Σⱼ e^xⱼ ⇒ x̄ = ȳ − e^y·Σⱼ ȳⱼ
    Rule::new("LogSoftmax", |n| {
        let (axis, dy, y) = (axis(n)?, n.dy(), n.y(0));
        n.only(dy - y.unary("Exp") * dy.sum(&[axis]))
    }),
    Rule::zero("Hardmax", "its result jumps between 0 and 1"),
];

/// The axis of opset 13 and later: the last one by default.
fn axis(n: &Vjp<'_>) -> Result<usize, String> {
    n.axis(n.int("axis").unwrap_or(-1), n.shape().len())
}
