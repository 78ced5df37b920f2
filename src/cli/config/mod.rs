//! `mohs.toml`: the settings of `mohs gate` in a file.
//!
//! A key is a flag of `mohs gate` with underscores for hyphens, and its value what the flag takes: the command line's own definitions are
//! all that there is, and [`schema`] and [`template`] are made from them.
//! The file is turned into arguments that stand before those of the command line, without those that the command line gives itself.

mod error;
mod schema;
mod values;

pub use error::ConfigError;
pub use schema::{schema, template};

use super::arguments::Arguments;
use super::missing::distance;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, CommandFactory};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// What the file is called where it is not named.
pub const FILE: &str = "mohs.toml";

/// The command that has settings.
const COMMAND: &str = "gate";

/// Flags that are about the file itself, or about how the program speaks: not for the file.
const NOT_KEYS: &[&str] = &["config", "no_config", "init", "help", "quiet", "verbose"];

/// The arguments of the process with those of the settings put before those of `mohs gate`; as they are for every other command.
///
/// # Errors
/// Where the file cannot be read, or holds what `mohs gate` does not take.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>, ConfigError> {
    let Some(position) = arguments.iter().skip(1).position(|word| word == COMMAND) else {
        return Ok(arguments);
    };
    let position = position + 1;
    // Only flags may stand before a command.
    let before = arguments.get(1..position).unwrap_or_default();
    if before.iter().any(|word| !is_flag(word)) {
        return Ok(arguments);
    }
    let keys = keys();
    let given = Given::new(&keys, arguments.get(position + 1..).unwrap_or_default());
    if given.has("init") || given.has("no_config") || given.has("help") {
        return Ok(arguments);
    }
    let Some(file) = given.config.map_or_else(find, |path| Ok(Some(path)))? else {
        return Ok(arguments);
    };
    let settings = read(&file, &keys, &given.ids)?;
    let (head, tail) = arguments.split_at(position + 1);
    Ok([head, &settings, tail].concat())
}

/// The nearest file of that name, from the working directory upwards.
fn find() -> Result<Option<PathBuf>, ConfigError> {
    let here = std::env::current_dir().map_err(ConfigError::NoFolder)?;
    let mut places = here.ancestors().map(|folder| folder.join(FILE));
    Ok(places.find(|place| place.is_file()))
}

/// The arguments of `mohs gate`, each a key.
fn keys() -> Vec<Arg> {
    let mut command = Arguments::command();
    command.build();
    let gate = command.find_subcommand(COMMAND);
    let arguments = gate.into_iter().flat_map(|gate| gate.get_arguments());
    arguments
        .filter(|argument| !NOT_KEYS.contains(&argument.get_id().as_str()))
        .cloned()
        .collect()
}

fn is_flag(word: &OsString) -> bool {
    word.to_string_lossy().starts_with('-')
}

/// What the command line gives itself.
struct Given {
    ids: HashSet<String>,
    /// The file of settings, where it is named.
    config: Option<PathBuf>,
}

impl Given {
    /// Looks for flags alone: what is wrong with their values, clap will say.
    fn new(keys: &[Arg], words: &[OsString]) -> Self {
        let mut given = Given {
            ids: HashSet::new(),
            config: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            let Some(flag) = text.strip_prefix("--") else {
                if !is_flag(word) {
                    // Whatever is neither a flag nor the value of one is the model.
                    given.ids.insert("model".into());
                }
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (flag, None),
            };
            let id = name.replace('-', "_");
            let known = keys.iter().find(|key| key.get_id().as_str() == id);
            let takes = id == "config" || known.is_some_and(takes_value);
            let value = match value {
                None if takes => words.next().cloned(),
                value => value,
            };
            if id == "config" {
                given.config = value.map(PathBuf::from);
            }
            given.ids.insert(id);
        }
        given
    }

    fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }
}

fn takes_value(key: &Arg) -> bool {
    matches!(key.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The arguments that a file stands for, without those that are `given` already.
fn read(path: &Path, keys: &[Arg], given: &HashSet<String>) -> Result<Vec<OsString>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.into() },
        _ => ConfigError::Unreadable {
            path: path.into(),
            source,
        },
    })?;
    let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: error.span().map_or(1, |span| line(&text, span.start)),
        message: error.message().to_owned(),
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut words = Vec::new();
    for (name, value) in table.get_ref() {
        let place = || Place {
            path: path.into(),
            line: line(&text, name.span().start),
            key: name.get_ref().to_string(),
        };
        let id = name.get_ref().as_ref();
        let Some(key) = keys.iter().find(|key| key.get_id().as_str() == id) else {
            return Err(unknown(place(), keys));
        };
        let word =
            values::word(key, value.get_ref(), folder).map_err(|expected| ConfigError::Type {
                found: kind(value.get_ref()),
                expected,
                place: Box::new(place()),
            })?;
        let Some(word) = word else {
            continue;
        };
        if let Some(reason) = refusal(&word) {
            return Err(ConfigError::Value {
                place: Box::new(place()),
                reason,
            });
        }
        if !given.contains(id) {
            words.push(word);
        }
    }
    Ok(words)
}

/// Where in the file something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    line: usize,
    key: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Place { path, line, key } = self;
        write!(f, "{}, line {line}, key `{key}`", path.display())
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.get(..at).unwrap_or_default().matches('\n').count()
}

fn unknown(place: Place, keys: &[Arg]) -> ConfigError {
    let names = || keys.iter().map(|key| key.get_id().as_str());
    // The slip that everyone makes: the flag's hyphens.
    let written = place.key.replace('-', "_");
    let nearest = names().map(|name| (distance(&written, name), name)).min();
    let hint = match nearest {
        Some((slips, name)) if slips <= 3 && slips < name.len() => {
            format!("did you mean `{name}`?")
        }
        _ => format!("the keys are {}", names().collect::<Vec<_>>().join(", ")),
    };
    ConfigError::UnknownKey {
        place: Box::new(place),
        hint,
    }
}

/// What clap says against one argument alone; that others are missing is no fault of it.
fn refusal(word: &OsString) -> Option<String> {
    let words = ["mohs".into(), COMMAND.into(), word.clone()];
    let error = Arguments::command().try_get_matches_from(words).err()?;
    if !matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    ) {
        return None;
    }
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.clone(),
        _ => String::new(),
    };
    let allowed = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => values.join(", "),
        _ => String::new(),
    };
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    let reason = reason.unwrap_or_else(|| format!("it takes one of {allowed}"));
    Some(format!("`{value}` cannot be taken: {reason}"))
}

/// A value's type, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &str) -> Vec<OsString> {
        words.split_whitespace().map(OsString::from).collect()
    }

    /// What a file is expanded to behind a command line.
    fn expanded(text: &str, words: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, text).unwrap();
        let mut line = arguments(words);
        line.extend(["--config".into(), path.clone().into()]);
        let root = folder.path().to_str().unwrap();
        let plain = |text: &str| text.replace(root, "ROOT").replace('\\', "/");
        match expand(line) {
            Ok(words) => Ok(words
                .iter()
                .map(|word| plain(word.to_str().unwrap()))
                .filter(|word| word != "--config" && word != "ROOT/mohs.toml")
                .collect()),
            Err(error) => Err(plain(&error.to_string())),
        }
    }

    #[test]
    fn each_kind_of_value_becomes_what_its_flag_takes() {
        let text = r#"
            model = "model.onnx"
            data = ["x.npy", "y.npy"]
            epsilon = ["2/255", 0.10]
            bounds = [0, 1]
            seed = 7
            keep_softmax = true
            straight_through = false
            attack = "pgd:steps=20"
            min_clean_accuracy = 0.95
            [min_robust_accuracy]
            "2/255" = 0.5
            "linf:0.10" = "40%"
        "#;
        let mut words = expanded(text, "mohs -q gate").unwrap();
        words[3..].sort();
        assert_eq!(
            words,
            [
                "mohs",
                "-q",
                "gate",
                "--attack=pgd:steps=20",
                "--bounds=0,1",
                "--data=ROOT/x.npy,ROOT/y.npy",
                "--epsilon=2/255,0.10",
                "--keep-softmax",
                "--min-clean-accuracy=0.95",
                "--min-robust-accuracy=2/255=0.5,linf:0.10=40%",
                "--seed=7",
                "ROOT/model.onnx",
            ]
        );
    }

    #[test]
    fn a_flag_takes_the_place_of_a_key() {
        let text = "model = \"a.onnx\"\nepsilon = 0.1\nseed = 1\nthreads = 2\n";
        assert_eq!(
            expanded(text, "mohs gate b.onnx --epsilon 0.2 --seed=3").unwrap(),
            [
                "mohs",
                "gate",
                "--threads=2",
                "b.onnx",
                "--epsilon",
                "0.2",
                "--seed=3"
            ]
        );
    }

    #[test]
    fn other_commands_and_other_words_stay_as_they_are() {
        for line in [
            "mohs evaluate gate --epsilon 0.1",
            "mohs list attacks",
            "mohs",
        ] {
            assert_eq!(expand(arguments(line)).unwrap(), arguments(line));
        }
        let without = "mohs gate model.onnx --no-config";
        assert_eq!(expand(arguments(without)).unwrap(), arguments(without));
    }

    #[test]
    fn what_cannot_be_taken_is_refused_with_line_and_key() {
        let refusal = |text: &str| expanded(text, "mohs gate").unwrap_err();
        let messages = [
            refusal("seed = 1\nepsilonn = 0.1"),
            refusal("min-clean-accuracy = 0.9"),
            refusal("epsilon = [0.1, 0]"),
            refusal("norm = \"linfty\""),
            refusal("seed = \"many\""),
            refusal("keep_softmax = \"yes\""),
            refusal("seed = true"),
            refusal("seed = { a = 1 }"),
            refusal("min_clean_accuracy = 95"),
            refusal("epsilon = [0.1\nseed = 3"),
            refusal("seed = 1\nseed = 2"),
        ];
        insta::assert_snapshot!(messages.join("\n"), @"
        ROOT/mohs.toml, line 2, key `epsilonn`: there is no such key; did you mean `epsilon`?
        ROOT/mohs.toml, line 1, key `min-clean-accuracy`: there is no such key; did you mean `min_clean_accuracy`?
        ROOT/mohs.toml, line 1, key `epsilon`: `0` cannot be taken: epsilon is zero, which allows no perturbation; give a radius above 0, such as 8/255
        ROOT/mohs.toml, line 1, key `norm`: `linfty` cannot be taken: it takes one of linf, l2, l1, l0
        ROOT/mohs.toml, line 1, key `seed`: `many` cannot be taken: this must be a whole number, 0 or above
        ROOT/mohs.toml, line 1, key `keep_softmax`: it takes true or false, not a text
        ROOT/mohs.toml, line 1, key `seed`: it takes a text or a number, not true or false
        ROOT/mohs.toml, line 1, key `seed`: it takes a text or a number, not a table
        ROOT/mohs.toml, line 1, key `min_clean_accuracy`: `95` cannot be taken: a share lies between 0 and 1; write 0.95 or 95% for 95 %
        ROOT/mohs.toml, line 2: missing comma between array elements, expected `,`
        ROOT/mohs.toml, line 2: duplicate key
        ");
        assert!(refusal("config = \"other.toml\"").contains("the keys are model, "));
    }

    #[test]
    fn a_file_that_is_named_has_to_be_there() {
        let error = expand(arguments("mohs gate --config none/mohs.toml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none/mohs.toml: no such file; `mohs gate --init` writes one into the current folder"
        );
    }
}
