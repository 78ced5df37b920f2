//! The rules, by family; [`FAMILIES`] is the table that everything else reads.
//!
//! A rule has its formula above it, and its choice at kinks and ties, which follows PyTorch.

mod activation;
mod arithmetic;
mod attention;
mod control;
mod conv;
mod einsum;
mod index;
mod matmul;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod refused;
mod resize;
mod sample;
mod shape;
mod signal;
mod softmax;
mod zero;

use super::rule::Rule;

/// Every family of rules, by name.
pub const FAMILIES: &[(&str, &[Rule])] = &[
    ("activation", activation::RULES),
    ("arithmetic", arithmetic::RULES),
    ("attention", attention::RULES),
    ("control", control::RULES),
    ("conv", conv::RULES),
    ("einsum", einsum::RULES),
    ("index", index::RULES),
    ("matmul", matmul::RULES),
    ("norm", norm::RULES),
    ("pool", pool::RULES),
    ("recurrent", recurrent::RULES),
    ("reduce", reduce::RULES),
    ("refused", refused::RULES),
    ("resize", resize::RULES),
    ("sample", sample::RULES),
    ("shape", shape::RULES),
    ("signal", signal::RULES),
    ("softmax", softmax::RULES),
    ("zero", zero::RULES),
];

/// The rule for an operator.
#[must_use]
pub fn find(domain: &str, op_type: &str) -> Option<&'static Rule> {
    let mut rules = FAMILIES.iter().flat_map(|(_, rules)| rules.iter());
    rules.find(|rule| rule.op_type == op_type && rule.domain == domain)
}

/// What a user is told of an operator without a rule.
pub(super) fn why_missing(domain: &str) -> &'static str {
    match domain {
        "com.microsoft.nchwc" => {
            "the file was saved with optimisations for the layout of one machine; save it at a lower optimisation level (extended or basic)"
        }
        _ => "there is no rule for this operator",
    }
}
