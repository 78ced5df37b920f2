//! The straight-through estimator: what the gradients of steps are taken for where `--straight-through` asks for it (Bengio et al. 2013).

use super::rule::{Cotangents, Rule, Vjp};
use super::rules;

const RULES: &[Rule] = &[
    Rule::zero("DynamicQuantizeLinear", "its scale is taken as it is"),
    Rule::new("Round", identity),
    Rule::new("Floor", identity),
    Rule::new("Ceil", identity),
    Rule::new("Sign", window),
];

/// The rule for an operator where gradients pass straight through steps.
#[must_use]
pub fn find(domain: &str, op_type: &str) -> Option<&'static Rule> {
    let mut rules = RULES.iter();
    let found = rules.find(|rule| rule.op_type == op_type && rule.domain == domain);
    found.or_else(|| rules::find(domain, op_type))
}

/// dx = dy, as if the step were not there.
fn identity<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    n.only(n.dy())
}

/// dx = dy where |x| ≤ 1, else 0: the hard hyperbolic tangent (Courbariaux et al. 2016).
fn window<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    n.only(n.dy().where_(n.x(0).unary("Abs").le(1.0)))
}
