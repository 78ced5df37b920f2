//! From a value in a file to the word that the command line would have.

use super::super::arguments::DataPaths;
use super::takes_value;
use crate::attack::with_sources_in;
use clap::Arg;
use std::any::TypeId;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// The key whose texts may have paths in them.
const ATTACKS: &str = "attack";

/// The argument that a key with a value stands for, none where a switch is off; paths count from `folder`.
///
/// On failure, what the key takes.
pub(super) fn word(
    key: &Arg,
    value: &DeValue<'_>,
    folder: &Path,
) -> Result<Option<OsString>, &'static str> {
    let name = key.get_long();
    if !takes_value(key) {
        let on = value.as_bool().ok_or("true or false")?;
        return Ok(on.then(|| flag(name, None)));
    }
    let many = takes_list(key);
    let text = match value {
        DeValue::Array(items) if many => {
            let items: Option<Vec<String>> =
                items.iter().map(|item| scalar(item.get_ref())).collect();
            items.ok_or("a list of texts or numbers")?
        }
        DeValue::Table(table) if takes_table(key) => {
            let pairs = table.iter().map(|(name, value)| {
                Some(format!("{}={}", name.get_ref(), scalar(value.get_ref())?))
            });
            let pairs: Option<Vec<String>> = pairs.collect();
            pairs.ok_or("a table of numbers")?
        }
        value => vec![scalar(value).ok_or(expected(key))?],
    };
    let text = if is_path(key) {
        // A text may hold two paths, as on the command line.
        let paths = text.iter().flat_map(|text| text.split(','));
        let absolute: Vec<OsString> = paths
            .map(|path| folder.join(path.trim()).into_os_string())
            .collect();
        absolute.join(",".as_ref())
    } else if key.get_id() == ATTACKS {
        with_sources_in(folder, &text.join(",")).into()
    } else {
        text.join(",").into()
    };
    Ok(Some(match name {
        Some(_) => flag(name, Some(text)),
        None => text,
    }))
}

/// `--name=value`; the sign of equality keeps values that begin with a hyphen together with their flag.
fn flag(name: Option<&str>, value: Option<OsString>) -> OsString {
    let mut word = OsString::from("--");
    word.push(name.unwrap_or_default());
    if let Some(value) = value {
        word.push("=");
        word.push(value);
    }
    word
}

/// The text of a single value, as it is spelled.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn has_type<T: 'static>(key: &Arg) -> bool {
    key.get_value_parser().type_id() == TypeId::of::<T>()
}

/// Whether the values are paths.
pub(super) fn is_path(key: &Arg) -> bool {
    has_type::<PathBuf>(key) || has_type::<DataPaths>(key)
}

/// Whether a list may be given: the flag takes several values, or one that is written with commas.
pub(super) fn takes_list(key: &Arg) -> bool {
    let names = key.get_value_names().unwrap_or_default();
    key.get_value_delimiter().is_some()
        || key
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1)
        || matches!(key.get_action(), clap::ArgAction::Append)
        || names
            .iter()
            .any(|name| name.contains(',') || name.as_str() == "SHAPE")
}

/// Whether a table may be given: the flag takes pairs with a sign of equality.
pub(super) fn takes_table(key: &Arg) -> bool {
    let names = key.get_value_names().unwrap_or_default();
    names.iter().any(|name| name.contains('='))
}

fn expected(key: &Arg) -> &'static str {
    match (takes_list(key), takes_table(key)) {
        (_, true) => "a number, a list, or a table of numbers by radius",
        (true, false) => "a text, a number, or a list of them",
        (false, false) => "a text or a number",
    }
}
