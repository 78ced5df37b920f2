//! The straight-through estimator: what the gradients of steps are taken for where `--straight-through` asks for it (Bengio et al. 2013).

use super::rule::{Cotangents, Rule, Vjp};
use super::rules;
use crate::graph::{Expr, Node};

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

/// What the gradient of a step is taken of instead of the step itself.
pub(super) type Pass = for<'g> fn(Expr<'g>) -> Expr<'g>;

/// What takes a node's place where gradients pass straight through it; `None` for one that is no step.
pub(super) fn pass(node: &Node) -> Option<Pass> {
    if !node.domain().is_empty() {
        return None;
    }
    match node.op_type() {
        "Round" | "Floor" | "Ceil" => Some(|u| u),
        "Sign" => Some(|u| u.max(-1.0).min(1.0)),
        _ => None,
    }
}

/// dx = dy, as if the step were not there.
fn identity<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    n.only(n.dy())
}

/// dx = dy where |x| ≤ 1, else 0: the hard hyperbolic tangent (Courbariaux et al. 2016).
fn window<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    n.only(n.dy().where_(n.x(0).unary("Abs").le(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::NodeProto;

    #[test]
    fn every_step_with_a_rule_has_what_takes_its_place() {
        for rule in RULES {
            let node = Node {
                proto: NodeProto {
                    op_type: Some(rule.op_type.into()),
                    ..NodeProto::default()
                },
                inputs: Vec::new(),
                outputs: Vec::new(),
            };
            let differentiated = matches!(rule.kind, crate::grad::Kind::Vjp(_));
            assert_eq!(pass(&node).is_some(), differentiated, "{}", rule.op_type);
        }
    }
}
