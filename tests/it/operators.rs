//! The table of rules against the list of all operators that the `onnx` package has: nothing is missed silently.

use mohs::grad::rules;

/// Operators without a rule of their own, and what becomes of them.
const WITHOUT_RULE: &[(&str, &str)] = &[
    ("Attention", "mohs takes it apart before differentiation"),
    ("CenterCropPad", "ONNX Runtime inlines it as a function"),
    (
        "DequantizeLinear",
        "its operand is of whole numbers; --straight-through takes it apart",
    ),
    (
        "NegativeLogLikelihoodLoss",
        "ONNX Runtime inlines it as a function",
    ),
    (
        "SoftmaxCrossEntropyLoss",
        "ONNX Runtime inlines it as a function",
    ),
];

/// Operators whose rules are on their way; an entry may be here and have a rule.
const PENDING: &[&str] = &["If", "Loop", "Scan"];

struct Operator {
    name: String,
    takes_floats: bool,
}

fn operators() -> Vec<Operator> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operators.txt");
    let list = std::fs::read_to_string(path).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            Operator {
                name: fields[0].to_owned(),
                takes_floats: fields[2] == "float",
            }
        })
        .collect()
}

#[test]
fn every_operator_that_takes_floats_is_accounted_for() {
    let accounted = |name: &str| {
        rules::find("", name).is_some()
            || PENDING.contains(&name)
            || WITHOUT_RULE.iter().any(|(other, _)| *other == name)
    };
    let mut missing: Vec<String> = operators()
        .into_iter()
        .filter(|operator| operator.takes_floats && !accounted(&operator.name))
        .map(|operator| operator.name)
        .collect();
    missing.extend(
        ["If", "Loop", "Scan"]
            .iter()
            .filter(|name| !accounted(name))
            .map(|&name| name.to_owned()),
    );
    assert!(
        missing.is_empty(),
        "neither a rule, a zero nor a reason: {missing:?}"
    );
}

#[test]
fn every_rule_is_for_an_operator_that_exists() {
    let operators = operators();
    assert!(operators.len() > 190, "the list is cut off");
    let rules = rules::FAMILIES.iter().flat_map(|(_, rules)| rules.iter());
    for rule in rules.filter(|rule| rule.domain.is_empty()) {
        let exists = operators
            .iter()
            .any(|operator| operator.name == rule.op_type);
        assert!(exists, "{} is no operator up to opset 24", rule.op_type);
    }
}

#[test]
fn no_operator_has_two_rules() {
    let rules = rules::FAMILIES.iter().flat_map(|(_, rules)| rules.iter());
    let mut names: Vec<_> = rules.map(|rule| (rule.domain, rule.op_type)).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "two rules");
    }
    for (name, _) in WITHOUT_RULE {
        assert!(
            rules::find("", name).is_none(),
            "{name} has a rule after all"
        );
    }
}
