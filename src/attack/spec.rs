//! What is written about an attack once, and read by the command line, the documentation and the reports.

use super::{ATTACKS, Error, Planned};
use crate::threat::Norm;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Write as _;
use toml::{Table, Value};

/// An attack's entry in [`ATTACKS`]. The texts are Markdown.
#[derive(Debug, Clone, Copy)]
pub struct AttackSpec {
    /// The name on the command line and in reports.
    pub name: &'static str,
    /// One line, without a full stop.
    pub summary: &'static str,
    /// What it does, with its formula.
    pub what_it_does: &'static str,
    /// When it is the right attack.
    pub when_to_use: &'static str,
    /// When it is not.
    pub when_not: &'static str,
    /// Every parameter.
    pub parameters: &'static [Parameter],
    /// Where it comes from.
    pub reference: &'static str,
    /// Makes the attack from parameters, of which any may be left out.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`] and [`Error::Value`].
    pub build: fn(Table) -> Result<Planned, Error>,
}

/// A parameter of an attack.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// The name on the command line and in configuration files.
    pub name: &'static str,
    /// The default, as a user would write it, or a description of it where it depends on something else.
    pub default: &'static str,
    /// The values that it can have, as the object of "give …".
    pub accepts: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// The default of a parameter that has none.
pub(super) const REQUIRED: &str = "has to be given";

/// The parameter `loss`, which every attack that follows a gradient has.
pub(super) const LOSS: Parameter = Parameter {
    name: "loss",
    default: "cross-entropy",
    accepts: "cross-entropy, margin or dlr",
    help: "The loss that the attack raises.",
};

/// The documentation of every attack, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("# Attacks\n");
    for spec in ATTACKS {
        text.push('\n');
        text.push_str(&spec.markdown());
    }
    text
}

impl AttackSpec {
    /// The attack's documentation, as a Markdown section.
    #[must_use]
    pub fn markdown(&self) -> String {
        let AttackSpec { name, summary, .. } = self;
        let mut text = format!("## `{name}`\n\n{summary}.\n");
        let mut section = |title: &str, body: &str| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n### {title}\n\n{}\n", body.trim());
        };
        section("What it does", self.what_it_does);
        section("When to use", self.when_to_use);
        section("When not", self.when_not);
        section("Parameters", &self.parameter_table());
        section("Reference", self.reference);
        text
    }

    fn parameter_table(&self) -> String {
        let mut table =
            String::from("| name | values | default | meaning |\n| --- | --- | --- | --- |\n");
        for Parameter {
            name,
            default,
            accepts,
            help,
        } in self.parameters
        {
            let _ = writeln!(table, "| `{name}` | {accepts} | {default} | {help} |");
        }
        table
    }

    /// Reads `table` into the attack's parameters.
    pub(super) fn read<P: DeserializeOwned>(&self, table: Table) -> Result<P, Error> {
        let names = || self.parameters.iter().map(|parameter| parameter.name);
        if let Some(parameter) = table.keys().find(|key| !names().any(|name| name == *key)) {
            return Err(Error::UnknownParameter {
                attack: self.name,
                parameter: parameter.clone(),
                hint: did_you_mean(parameter, names()),
                known: list(names()),
            });
        }
        let read = |table: Table| table.try_into::<P>();
        read(table.clone()).map_err(|error| {
            // Every parameter may be left out, so that the one at fault is the one that cannot be read alone.
            let fault = self.parameters.iter().find_map(|parameter| {
                let (name, value) = table.get_key_value(parameter.name)?;
                let alone = Table::from_iter([(name.clone(), value.clone())]);
                read(alone).err().map(|_| (parameter, value))
            });
            self.refuse(match fault {
                Some((Parameter { name, accepts, .. }, value)) => {
                    format!("`{name}` cannot be {}; give {accepts}", plain(value))
                }
                None => error.message().to_owned(),
            })
        })
    }

    /// The error for a value that `reason` explains.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Value {
            attack: self.name,
            reason: reason.into(),
        }
    }

    /// Refuses every norm but these; `remedy` says what to do instead.
    pub(super) fn only_norms(
        &self,
        norm: Norm,
        norms: &[Norm],
        remedy: &'static str,
    ) -> Result<(), Error> {
        if norms.contains(&norm) {
            return Ok(());
        }
        Err(Error::Norm {
            attack: self.name,
            norm,
            remedy,
        })
    }

    /// The name with every parameter that differs from its default, in the table's order.
    pub(super) fn label<P: Serialize + Default>(&self, parameters: &P) -> String {
        let (given, default) = (values(parameters), values(&P::default()));
        let mut label = self.name.to_owned();
        let mut separator = ':';
        for Parameter { name, .. } in self.parameters {
            if let Some(value) = given.get(*name)
                && default.get(*name) != Some(value)
            {
                let _ = write!(label, "{separator}{name}={}", plain(value));
                separator = ',';
            }
        }
        label
    }
}

fn values<P: Serialize>(parameters: &P) -> Table {
    Table::try_from(parameters).expect("parameters are numbers, words and booleans by name")
}

/// A value as it is written on the command line.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

/// `a, b and c`.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// A question after the known name nearest to `written`, if one is near, to stand behind it in a message.
pub(crate) fn did_you_mean<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|name| (edits(written, name), name))
        .min()
        .filter(|&(edits, name)| edits <= 2 && edits < name.len())
        .map(|(_, name)| format!(" (did you mean `{name}`?)"))
        .unwrap_or_default()
}

/// How many characters must be put in, taken out, replaced or swapped with the next to get from one to the other (Damerau and Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = row[j] + usize::from(a != b);
            let mut least = replaced.min(next[j] + 1).min(row[j + 1] + 1);
            if i > 0 && j > 0 && from[i - 1] == *b && to[j - 1] == *a {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackPlan;

    #[test]
    fn the_documentation_has_every_section_of_every_attack() {
        let text = markdown();
        for spec in ATTACKS {
            assert!(text.contains(&format!("## `{}`\n", spec.name)));
            for parameter in spec.parameters {
                assert!(text.contains(&format!("| `{}` | ", parameter.name)));
            }
        }
        for section in [
            "What it does",
            "When to use",
            "When not",
            "Parameters",
            "Reference",
        ] {
            let heading = format!("\n### {section}\n");
            assert_eq!(text.matches(&heading).count(), ATTACKS.len(), "{section}");
        }
        assert!(!text.contains("\n\n\n"));
    }

    #[test]
    fn defaults_are_those_that_are_written() {
        for spec in ATTACKS {
            for Parameter { name, default, .. } in spec.parameters {
                // A default that depends on ε is no number.
                if !default.contains('ε') && *default != REQUIRED {
                    let required = spec.parameters.iter().filter(|p| p.default == REQUIRED);
                    let required: Vec<String> =
                        required.map(|p| format!(",{}=given", p.name)).collect();
                    let given = required.concat();
                    let text = format!("{}:{name}={default}{given}", spec.name);
                    let plan = AttackPlan::parse(&text).unwrap();
                    let label = format!("{}{}", spec.name, given.replacen(',', ":", 1));
                    assert_eq!(plan.attacks()[0].label(), label, "{text}");
                }
            }
        }
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in [
            ("pgd", "pgd", 0),
            ("pdg", "pgd", 1),
            ("step", "steps", 1),
            ("", "ab", 2),
        ] {
            assert_eq!(edits(from, to), count, "{from} {to}");
        }
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(list(["a", "b", "c"].into_iter()), "a, b and c");
        assert_eq!(list(["a"].into_iter()), "a");
    }
}
