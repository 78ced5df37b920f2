//! `mohs inspect`: what a model is, and whether it can be differentiated.

use super::arguments::InspectArguments;
use super::exit::{Blame, Failure};
use super::missing;
use super::terminal::print;
use crate::model::{Inspection, OperatorUse, Support};
use std::fmt::Write;

/// Runs the command.
pub(super) fn run(arguments: &InspectArguments) -> Result<(), Failure> {
    missing::require(&arguments.model, &[".onnx"])?;
    let inspection = Inspection::of(&arguments.model).or_bad_input()?;
    let text = if arguments.tensors {
        inspection.tensors.join("\n") + "\n"
    } else {
        render(&inspection)
    };
    print(&text).or_bad_input()
}

fn render(inspection: &Inspection) -> String {
    let mut text = String::new();
    let opsets: Vec<String> = inspection
        .opsets
        .iter()
        .map(|(domain, version)| format!("{domain} {version}"))
        .collect();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    line(
        "producer",
        if inspection.producer.is_empty() {
            "unknown"
        } else {
            &inspection.producer
        },
    );
    line("ir version", &inspection.ir_version.to_string());
    line("opset", &opsets.join(", "));
    for (name, ports) in [
        ("input", &inspection.inputs),
        ("output", &inspection.outputs),
    ] {
        for port in ports {
            line(name, port);
        }
    }
    line("parameters", &grouped(inspection.parameters));
    line("nodes", &inspection.nodes.to_string());
    let width = inspection
        .operators
        .iter()
        .map(|operator| operator.op_type.chars().count())
        .max()
        .unwrap_or(0)
        .max(8);
    let _ = writeln!(text, "\n{:<width$}  {:>6}  gradient", "operator", "nodes");
    for operator in &inspection.operators {
        let _ = writeln!(
            text,
            "{:<width$}  {:>6}  {}",
            operator.op_type,
            operator.count,
            support(&operator.support)
        );
    }
    let missing: Vec<&OperatorUse> = inspection
        .operators
        .iter()
        .filter(|operator| operator.support == Support::None)
        .collect();
    let verdict = if missing.is_empty() {
        "every operator can be differentiated, or is declared to have gradient zero".to_owned()
    } else {
        let names: Vec<&str> = missing
            .iter()
            .map(|operator| operator.op_type.as_str())
            .collect();
        format!(
            "no rule for {}: a gradient that has to pass through cannot be taken",
            names.join(", ")
        )
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

fn support(support: &Support) -> String {
    match support {
        Support::Differentiated => "yes".into(),
        Support::Zero(reason) => format!("zero: {reason}"),
        Support::StraightThrough => "zero, or passed on by --straight-through".into(),
        Support::None => "no rule".into(),
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0, 999, 1000, 25_557_032].map(grouped),
            ["0", "999", "1,000", "25,557,032"]
        );
    }
}
