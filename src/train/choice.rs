//! Choices by name with parameters (`sgd:momentum=0.9`): what methods, optimizers and schedules have in common.
//!
//! A [`Choice`] is an entry of a table: what a user reads of it, and how it is made from its parameters.
//! Start at [`parse`].

use crate::attack::{Parameter, did_you_mean, list, plain, read_value};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// What is wrong with a choice that a user made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is in no table.
    #[error("there is no {kind} `{name}`{hint}; there are {known}")]
    Unknown {
        /// What was to be chosen.
        kind: &'static str,
        /// The name as written.
        name: String,
        /// Empty, or a question after the name that was probably meant.
        hint: String,
        /// Every name.
        known: String,
    },
    /// A parameter that the choice does not have.
    #[error("{kind} `{choice}` has no parameter `{parameter}`{hint}; it has {known}")]
    UnknownParameter {
        /// What was chosen.
        kind: &'static str,
        /// The choice's name.
        choice: &'static str,
        /// The parameter as written.
        parameter: String,
        /// Empty, or a question after the parameter that was probably meant.
        hint: String,
        /// The choice's parameters.
        known: String,
    },
    /// Something after the colon that is no `key=value`.
    #[error(
        "{kind} `{choice}`: `{item}` is no parameter; write key=value after a colon, as in sgd:momentum=0.9"
    )]
    Malformed {
        /// What was chosen.
        kind: &'static str,
        /// The choice as written.
        choice: String,
        /// The item as written.
        item: String,
    },
    /// One parameter given twice.
    #[error("{kind} `{choice}`: `{parameter}` is given twice")]
    Repeated {
        /// What was chosen.
        kind: &'static str,
        /// The choice as written.
        choice: String,
        /// The parameter's name.
        parameter: String,
    },
    /// A value that a parameter cannot have.
    #[error("{kind} `{choice}`: {reason}")]
    Value {
        /// What was chosen.
        kind: &'static str,
        /// The choice's name.
        choice: &'static str,
        /// Which parameter, what is wrong, and what would be right.
        reason: String,
    },
}

/// An entry of a table of choices. The texts are Markdown.
#[derive(Debug)]
pub struct Choice<T: 'static> {
    /// What is chosen: a method, an optimizer, a schedule.
    pub kind: &'static str,
    /// The name on the command line.
    pub name: &'static str,
    /// One line, without a full stop.
    pub summary: &'static str,
    /// What it does, with its formula.
    pub what_it_does: &'static str,
    /// Every parameter.
    pub parameters: &'static [Parameter],
    /// Where it comes from; empty where that is common knowledge.
    pub reference: &'static str,
    /// Makes it from parameters, of which any may be left out.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`] and [`Error::Value`].
    pub build: fn(Table) -> Result<T, Error>,
}

/// Reads `NAME` or `NAME:key=value,…` and makes the entry of that name.
///
/// An item without `=` goes on with the list of the key before it: `betas=0.9,0.99`.
///
/// # Errors
/// Where a name, a parameter or a value is not known or not allowed; each message lists what is.
pub fn parse<T>(choices: &'static [Choice<T>], text: &str) -> Result<T, Error> {
    let (name, items) = match text.split_once(':') {
        Some((name, items)) => (name.trim(), Some(items)),
        None => (text.trim(), None),
    };
    let kind = choices.first().map_or("choice", |choice| choice.kind);
    let names = || choices.iter().map(|choice| choice.name);
    let choice = choices.iter().find(|choice| choice.name == name);
    let choice = choice.ok_or_else(|| Error::Unknown {
        kind,
        name: name.to_owned(),
        hint: did_you_mean(name, names()),
        known: list(names()),
    })?;
    let mut table = Table::new();
    let mut last: Option<String> = None;
    for item in items.into_iter().flat_map(|items| items.split(',')) {
        let item = item.trim();
        let malformed = || Error::Malformed {
            kind,
            choice: name.to_owned(),
            item: item.to_owned(),
        };
        let Some((key, value)) = item.split_once('=') else {
            let before = last.as_ref().and_then(|key| table.get_mut(key));
            let before = before.filter(|_| !item.is_empty()).ok_or_else(malformed)?;
            extend(before, read_value(item));
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(malformed());
        }
        if table.insert(key.to_owned(), read_value(value)).is_some() {
            return Err(Error::Repeated {
                kind,
                choice: name.to_owned(),
                parameter: key.to_owned(),
            });
        }
        last = Some(key.to_owned());
    }
    (choice.build)(table)
}

/// Makes a list of a value, or a longer one.
fn extend(before: &mut Value, next: Value) {
    match before {
        Value::Array(values) => values.push(next),
        single => *single = Value::Array(vec![single.clone(), next]),
    }
}

impl<T> Choice<T> {
    /// Reads `table` into the choice's parameters.
    pub(super) fn read<P: DeserializeOwned>(&self, table: Table) -> Result<P, Error> {
        let names = || self.parameters.iter().map(|parameter| parameter.name);
        if let Some(parameter) = table.keys().find(|key| !names().any(|name| name == *key)) {
            let known = match self.parameters {
                [] => "none".to_owned(),
                _ => list(names()),
            };
            return Err(Error::UnknownParameter {
                kind: self.kind,
                choice: self.name,
                parameter: parameter.clone(),
                hint: did_you_mean(parameter, names()),
                known,
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
                    format!("`{name}` cannot be {}; give {accepts}", written(value))
                }
                None => error.message().to_owned(),
            })
        })
    }

    /// Refuses a parameter's value, saying what would be right.
    pub(super) fn require(&self, holds: bool, name: &str, value: f64) -> Result<(), Error> {
        if holds {
            return Ok(());
        }
        let known = self.parameters.iter().find(|known| known.name == name);
        let accepts = known.map_or("another", |parameter| parameter.accepts);
        Err(self.refuse(format!("`{name}` cannot be {value}; give {accepts}")))
    }

    /// The error for a value that `reason` explains.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Value {
            kind: self.kind,
            choice: self.name,
            reason: reason.into(),
        }
    }

    /// The name with every parameter that differs from its default, in the table's order, as [`parse`] reads it.
    pub(super) fn label<P: Serialize + Default>(&self, parameters: &P) -> String {
        let values = |parameters: &P| {
            Table::try_from(parameters).expect("parameters are numbers, words and lists by name")
        };
        let (given, default) = (values(parameters), values(&P::default()));
        let mut label = self.name.to_owned();
        let mut separator = ':';
        for Parameter { name, .. } in self.parameters {
            if let Some(value) = given.get(*name)
                && default.get(*name) != Some(value)
            {
                label.push_str(&format!("{separator}{name}={}", written(value)));
                separator = ',';
            }
        }
        label
    }
}

/// A value as it is written on the command line.
fn written(value: &Value) -> String {
    match value {
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        single => plain(single),
    }
}

/// A list of numbers, or a single one.
pub(super) fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Numbers {
        One(f64),
        Many(Vec<f64>),
    }
    Ok(match Numbers::deserialize(deserializer)? {
        Numbers::One(number) => vec![number],
        Numbers::Many(numbers) => numbers,
    })
}

/// The table of a choice's parameters, as Markdown.
pub(super) fn parameter_table(parameters: &[Parameter]) -> String {
    if parameters.is_empty() {
        return "None.\n".to_owned();
    }
    let mut table =
        String::from("| name | values | default | meaning |\n| --- | --- | --- | --- |\n");
    for Parameter {
        name,
        default,
        accepts,
        help,
    } in parameters
    {
        table.push_str(&format!("| `{name}` | {accepts} | {default} | {help} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::optim::OPTIMIZERS;

    fn message(text: &str) -> String {
        parse(OPTIMIZERS, text)
            .map(|optimizer| optimizer.label())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_list_of_what_is() {
        assert_eq!(
            message("adma"),
            "there is no optimizer `adma` (did you mean `adam`?); there are sgd, adam and adamw"
        );
        assert_eq!(
            message("sgd:momentun=0.9"),
            "optimizer `sgd` has no parameter `momentun` (did you mean `momentum`?); it has learning_rate, momentum, nesterov, weight_decay, decay_all and clip"
        );
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for (text, expected) in [
            (
                "sgd:0.9",
                "optimizer `sgd`: `0.9` is no parameter; write key=value after a colon, as in sgd:momentum=0.9",
            ),
            (
                "sgd:momentum=",
                "optimizer `sgd`: `momentum=` is no parameter; write key=value after a colon, as in sgd:momentum=0.9",
            ),
            (
                "sgd:momentum=0.9,momentum=0.8",
                "optimizer `sgd`: `momentum` is given twice",
            ),
            (
                "sgd:momentum=much",
                "optimizer `sgd`: `momentum` cannot be much; give a number from 0 up to 1, 1 excluded",
            ),
            (
                "sgd:momentum=1",
                "optimizer `sgd`: `momentum` cannot be 1; give a number from 0 up to 1, 1 excluded",
            ),
        ] {
            assert_eq!(message(text), expected);
        }
    }

    #[test]
    fn labels_read_back_and_leave_defaults_out() {
        for (text, label) in [
            ("sgd:momentum=0.9", "sgd:momentum=0.9"),
            ("adam:betas=0.8,0.99,clip=1", "adam:betas=0.8,0.99,clip=1"),
            ("adamw:betas=0.9,0.999", "adamw"),
        ] {
            let read = |text: &str| parse(OPTIMIZERS, text).unwrap().label();
            assert_eq!(read(text), label);
            assert_eq!(read(label), label);
        }
    }
}
