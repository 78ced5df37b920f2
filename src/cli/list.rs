//! `mohs list`: names with what they are, in two columns.

use super::arguments::Listed;
use crate::attack::{ATTACKS, AttackSpec};
use crate::grad::{Kind, rules::FAMILIES};
use crate::train::choice::Choice;
use crate::train::methods::METHODS;
use crate::train::optim::OPTIMIZERS;
use crate::train::schedule::SCHEDULES;

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What a user writes.
    pub name: String,
    /// What it is, in a sentence or a few words.
    pub description: String,
}

const WIDTH: usize = 80;
/// A longer name stands on a line of its own.
const LONGEST_NAME: usize = 24;

/// The entries in the order given, descriptions wrapped to 80 columns.
#[must_use]
pub fn render(entries: &[Entry]) -> String {
    let lengths = entries.iter().map(|entry| entry.name.chars().count());
    let column = lengths
        .filter(|&length| length <= LONGEST_NAME)
        .max()
        .unwrap_or(0);
    let indent = column + 2;
    let mut text = String::new();
    for Entry { name, description } in entries {
        let mut lines = wrapped(description, WIDTH - indent).into_iter();
        if name.chars().count() > column {
            text.push_str(&format!("{name}\n"));
        } else {
            let first = lines.next().unwrap_or_default();
            text.push_str(format!("{name:<indent$}{first}").trim_end());
            text.push('\n');
        }
        for line in lines {
            text.push_str(&format!("{:indent$}{line}\n", ""));
        }
    }
    text
}

/// Lines of whole words; a word that is too long for any line has one to itself.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What `mohs list` shows.
#[must_use]
pub fn of(what: Listed) -> String {
    match what {
        Listed::Attacks => ATTACKS.iter().map(attack).collect::<Vec<_>>().join("\n"),
        Listed::Methods => methods(),
        Listed::Operators => operators(),
    }
}

fn attack(spec: &AttackSpec) -> String {
    let parameters = spec.parameters.iter().map(|parameter| Entry {
        name: format!("  {}={}", parameter.name, parameter.default),
        description: parameter.help.replace('`', ""),
    });
    let head = Entry {
        name: spec.name.into(),
        description: spec.summary.into(),
    };
    format!(
        "{}{}",
        render(&[head]),
        render(&parameters.collect::<Vec<_>>())
    )
}

/// The methods of training, the optimizers and the schedules.
fn methods() -> String {
    let entries = |specs: Vec<String>| specs.join("\n");
    let section = |title: &str, specs: Vec<String>| format!("{title}:\n\n{}", entries(specs));
    [
        section("Methods", METHODS.iter().map(choice).collect()),
        section("Optimizers", OPTIMIZERS.iter().map(choice).collect()),
        section("Schedules", SCHEDULES.iter().map(choice).collect()),
    ]
    .join("\n")
}

fn choice<T>(choice: &Choice<T>) -> String {
    let parameters = choice.parameters.iter().map(|parameter| Entry {
        name: format!("  {}={}", parameter.name, parameter.default),
        description: parameter.help.replace('`', ""),
    });
    let head = Entry {
        name: choice.name.into(),
        description: choice.summary.into(),
    };
    format!(
        "{}{}",
        render(&[head]),
        render(&parameters.collect::<Vec<_>>())
    )
}

fn operators() -> String {
    let section = |title: &str, wanted: fn(&Kind) -> bool| {
        let families = FAMILIES.iter().filter_map(|(family, rules)| {
            let rules = rules.iter().filter(|rule| wanted(&rule.kind));
            let mut names: Vec<_> = rules.map(|rule| rule.op_type).collect();
            names.sort_unstable();
            (!names.is_empty()).then(|| Entry {
                name: (*family).into(),
                description: names.join(" "),
            })
        });
        format!("{title}:\n{}", render(&families.collect::<Vec<_>>()))
    };
    [
        section("Differentiated", |kind| matches!(kind, Kind::Vjp(_))),
        section("Gradient zero, by declaration", |kind| {
            matches!(kind, Kind::Zero(_))
        }),
        section("Refused, with a reason and a way out", |kind| {
            matches!(kind, Kind::Refused(_))
        }),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_wrapped_beside_their_names() {
        let entry = |name: &str, description: &str| Entry {
            name: name.to_owned(),
            description: description.to_owned(),
        };
        let text = render(&[
            entry(
                "fgsm",
                "One step of length ε along the sign of the gradient.",
            ),
            entry(
                "pgd",
                "Many small steps, each projected back onto the ball around the clean sample, from a random point of it.",
            ),
            entry(
                "a-name-that-is-longer-than-a-column",
                "Shown below its name.",
            ),
            entry("bare", ""),
        ]);
        insta::assert_snapshot!(text, @"
        fgsm  One step of length ε along the sign of the gradient.
        pgd   Many small steps, each projected back onto the ball around the clean
              sample, from a random point of it.
        a-name-that-is-longer-than-a-column
              Shown below its name.
        bare
        ");
    }
}
