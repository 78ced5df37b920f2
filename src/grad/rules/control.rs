//! Operators with bodies.
//!
//! Where what they do is the same in every run they are gone by now (`passes::unroll`); what is left is refused, with the reason.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::passes;

pub(super) const RULES: &[Rule] = &[
    Rule::new("If", refused),
    Rule::new("Loop", refused),
    Rule::new("Scan", refused),
];

fn refused<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let reason = n
        .builder()
        .with_graph(|graph| passes::obstacle(graph, n.node()));
    Err(reason)
}
