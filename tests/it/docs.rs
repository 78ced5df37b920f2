//! The documents made from the tables, against the tables. `MOHS_WRITE_DOCS=1 cargo test docs` writes them anew.

use crate::sources::{Source, root, rust_files};
use mohs::grad::{Kind, Rule, rules::FAMILIES};
use std::fmt::Write as _;

/// The variable that has the documents written instead of compared.
const WRITE: &str = "MOHS_WRITE_DOCS";

fn check(name: &str, text: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/{name} is not what the tables say; write it anew with {WRITE}=1 cargo test docs"
    );
}

#[test]
fn the_document_on_attacks_is_up_to_date() {
    let text = mohs::attack::markdown();
    let note =
        "\n\n<!-- Made from the table of attacks: MOHS_WRITE_DOCS=1 cargo test docs -->\n\n## ";
    check("attacks.md", &text.replacen("\n\n## ", note, 1));
}

/// The methods are described below a text that is written by hand.
#[test]
fn the_document_on_training_is_up_to_date() {
    const NOTE: &str =
        "<!-- Made from the tables below this line: MOHS_WRITE_DOCS=1 cargo test docs -->\n\n";
    let written = std::fs::read_to_string(root().join("docs/training.md")).unwrap_or_default();
    let by_hand = written.split(NOTE).next().unwrap_or_default();
    let tables = mohs::train::methods::markdown();
    check("training.md", &format!("{by_hand}{NOTE}{tables}"));
}

#[test]
fn the_schema_of_the_settings_is_up_to_date() {
    check("mohs.schema.json", &mohs::cli::config::schema());
}

#[test]
fn the_document_on_gradients_is_up_to_date() {
    let sources = rust_files("src/grad/rules");
    let mut text = String::from(
        "# Gradients\n
<!-- Made from the table of rules and the formulas above them: MOHS_WRITE_DOCS=1 cargo test docs -->

How each operator is differentiated, by family; `mohs list operators` shows the same names.
x are the operands, y the results, and a bar marks a cotangent: x̄ is d(sum of losses)/dx.
[…] is 1 where the condition holds, else 0.
Broadcasting is not in the formulas: where an operand was stretched, its cotangent is summed over what it was stretched to.
At kinks and ties the gradient is the one that PyTorch gives, unless it says otherwise.
Every attribute of an operator is covered, unless an error says that it is not, and names the node.
An operator that is not listed here is an error where it stands between the input and the loss, and none where it does not.
",
    );
    for (family, rules) in FAMILIES {
        let source = sources.iter().find(|source| source.name() == *family);
        let source = source.unwrap_or_else(|| panic!("no file for {family}"));
        let _ = writeln!(
            text,
            "\n## {family}\n\n| operator | gradient |\n| --- | --- |"
        );
        for rule in *rules {
            let name = match rule.domain {
                "" => rule.op_type.to_owned(),
                domain => format!("{domain}.{}", rule.op_type),
            };
            let how = match rule.kind {
                Kind::Zero(reason) => format!("0: {reason}"),
                Kind::Refused(reason) => format!("refused: {reason}"),
                Kind::Vjp(_) => formula(source, rule),
            };
            let _ = writeln!(text, "| {name} | {} |", how.replace('|', "\\|"));
        }
    }
    check("gradients.md", &text);
}

/// The comment above a rule, or above the function that it names, or above the rules before it that name the same function.
fn formula(source: &Source, rule: &Rule) -> String {
    let quoted = format!("\"{}\"", rule.op_type);
    let missing = format!("{}: {quoted} has no formula above it", source.path);
    let entry = source.text.match_indices(&quoted).find(|(at, _)| {
        let before = source.text[..*at].trim_end();
        before.ends_with("Rule::new(") || before.ends_with("op_type:")
    });
    let (entry, _) = entry.expect(&missing);
    let start = source.text[..entry].rfind("Rule").unwrap_or(entry);
    let above = comment_before(&source.text[..start]);
    if !above.is_empty() {
        return above;
    }
    let apply = source.text[entry + quoted.len()..].trim_start_matches([',', ' ', '\n']);
    let name: String = apply
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    let function = ["(", "<"].iter().find_map(|after| {
        let at = source.text.find(&format!("fn {name}{after}"))?;
        source.text[..at].rfind('\n')
    });
    let above = function.map(|at| comment_before(&source.text[..=at]));
    above
        .filter(|above| !above.is_empty())
        .or_else(|| shared_comment(&source.text[..start], apply.lines().next()?))
        .expect(&missing)
}

/// The comment above the entries, of a line each and the same but for the name, that stand directly before.
fn shared_comment(text: &str, apply: &str) -> Option<String> {
    let mut before = text;
    while let Some(end) = before.rfind('\n') {
        let line = before[..end].rfind('\n').map_or(0, |at| at + 1);
        let entry = before[line..end].trim();
        if !entry.starts_with("Rule::new(") || !entry.ends_with(apply) {
            break;
        }
        before = &before[..line];
    }
    Some(comment_before(before)).filter(|comment| !comment.is_empty())
}

/// The comment that a text ends with, in one line.
fn comment_before(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    // What follows the last line break is the indentation of the line below.
    let ended = text.rfind('\n').map_or("", |at| &text[..at]);
    for line in ended.lines().rev() {
        let line = line.trim();
        if line.starts_with("#[") {
            continue;
        }
        match line.strip_prefix("//") {
            Some(words) => lines.push(words.trim_start_matches('/').trim()),
            None => break,
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.reverse();
    lines.join(" ")
}
