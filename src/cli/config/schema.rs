//! What `mohs.toml` may hold, for editors and for people: made from the definitions of the command line.

use super::values::{is_path, takes_list, takes_table};
use super::{FILE, keys, takes_value};
use clap::Arg;
use serde_json::{Map, Value, json};

/// Values that show what is meant, for keys that have no default.
const EXAMPLES: &[(&str, &str)] = &[
    ("model", "\"model.onnx\""),
    ("data", "\"test.npz\""),
    ("epsilon", "[\"2/255\", \"8/255\"]"),
    ("min_clean_accuracy", "0.95"),
    (
        "min_robust_accuracy",
        "{ \"2/255\" = 0.8, \"8/255\" = 0.4 }",
    ),
    ("baseline", "\"reports/main/samples.csv\""),
    ("max_drop", "0.02"),
    ("max_seconds", "600"),
    ("minimal_epsilon", "[0, 0.3]"),
    ("out", "\"reports/gate\""),
    ("save_adversarial", "\"adversarial.npz\""),
    ("input", "\"pixels\""),
    ("output", "\"logits\""),
    ("wrt", "\"embeddings\""),
    ("input_shape", "[3, 224, 224]"),
    ("x_key", "\"x\""),
    ("y_key", "\"y\""),
    ("label_column", "\"label\""),
    ("scale", "1.0"),
    ("layout", "\"nchw\""),
    ("limit", "1000"),
    ("mean", "[0.485, 0.456, 0.406]"),
    ("std", "[0.229, 0.224, 0.225]"),
    ("gradient", "\"gradient.onnx\""),
    ("threads", "4"),
    ("onnxruntime", "\"/opt/onnxruntime/lib/libonnxruntime.so\""),
];

/// What a fresh file sets; everything else is there as a comment.
const SET: &[&str] = &["model", "data", "epsilon", "min_robust_accuracy"];

/// The JSON schema of `mohs.toml`, for editors.
#[must_use]
pub fn schema() -> String {
    let properties: Map<String, Value> = keys()
        .iter()
        .map(|key| (key.get_id().to_string(), property(key)))
        .collect();
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of `mohs gate`",
        "description": "Each key is the flag of the same name, and a flag on the command line takes its place. Paths count from the file's folder.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    format!("{schema:#}\n")
}

fn property(key: &Arg) -> Value {
    let mut property = json!({ "description": help(key) });
    let scalar = json!(["string", "number"]);
    let possible: Vec<String> = key
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    if !takes_value(key) {
        property["type"] = json!("boolean");
    } else if !possible.is_empty() && takes_list(key) {
        let one = json!({ "enum": possible });
        property["anyOf"] = json!([one.clone(), { "type": "array", "items": one }]);
    } else if !possible.is_empty() {
        property["enum"] = json!(possible);
    } else if is_path(key) && !takes_list(key) {
        property["type"] = json!("string");
    } else {
        let mut types = vec!["string", "number"];
        if takes_list(key) {
            types.push("array");
            property["items"] = json!({ "type": scalar });
        }
        if takes_table(key) {
            types.push("object");
            property["additionalProperties"] = json!({ "type": scalar });
        }
        property["type"] = json!(types);
    }
    if let Some(default) = default(key) {
        property["default"] = json!(default);
    }
    property
}

/// A commented file for the current folder: what a gate needs is set, everything else stands there with its default or an example.
#[must_use]
pub fn template() -> String {
    let mut text = format!(
        "# {FILE}: the settings of `mohs gate`, for this folder and those below it.\n\
         # Each key is the flag of the same name, and a flag on the command line takes its place; `mohs gate --help` says more.\n\
         # Paths count from this file's folder.\n"
    );
    let keys = keys();
    let heading = |key: &Arg| key.get_help_heading().unwrap_or("Model").to_owned();
    let mut headings: Vec<String> = Vec::new();
    for key in &keys {
        let heading = heading(key);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for title in headings {
        text.push_str(&format!("\n# ── {title} ──\n"));
        for key in keys.iter().filter(|key| heading(key) == title) {
            let id = key.get_id().as_str();
            let mark = if SET.contains(&id) { "" } else { "# " };
            text.push_str(&format!(
                "\n# {}\n{mark}{id} = {}\n",
                help(key),
                example(key)
            ));
        }
    }
    text
}

fn help(key: &Arg) -> String {
    let help = key.get_long_help().or(key.get_help());
    help.map(ToString::to_string).unwrap_or_default()
}

/// The default, as the flag would take it.
fn default(key: &Arg) -> Option<String> {
    if !takes_value(key) {
        return None;
    }
    let default = key.get_default_values().first()?;
    Some(default.to_string_lossy().into_owned())
}

/// A value in TOML.
fn example(key: &Arg) -> String {
    let known = EXAMPLES.iter().find(|(id, _)| *id == key.get_id().as_str());
    match (known, default(key)) {
        (Some((_, example)), _) => (*example).to_owned(),
        (None, Some(default)) if default.parse::<f64>().is_ok() => default,
        (None, Some(default)) => format!("\"{default}\""),
        (None, None) => "true".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{kind, read, refusal, values};
    use super::*;
    use std::collections::HashSet;
    use std::path::Path;
    use toml::de::DeTable;

    #[test]
    fn every_key_without_a_default_has_an_example() {
        for key in keys() {
            let known = EXAMPLES.iter().any(|(id, _)| *id == key.get_id().as_str());
            assert!(
                known || default(&key).is_some() || !takes_value(&key),
                "{} has neither",
                key.get_id()
            );
        }
        let keys = keys();
        for (id, _) in EXAMPLES {
            assert!(
                keys.iter().any(|key| key.get_id().as_str() == *id),
                "there is no {id}"
            );
        }
    }

    #[test]
    fn a_fresh_file_can_be_read_as_it_is_and_with_every_key_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, template()).unwrap();
        let words = read(&path, &keys(), &HashSet::new()).unwrap();
        assert_eq!(words.len(), SET.len());
        let all: String = template()
            .lines()
            .map(|line| {
                let code = line.strip_prefix("# ").filter(|code| {
                    let id = code.split(" = ").next().unwrap_or_default();
                    code.contains(" = ") && keys().iter().any(|key| key.get_id().as_str() == id)
                });
                format!("{}\n", code.unwrap_or(line))
            })
            .collect();
        let table = DeTable::parse(&all).unwrap();
        let table = table.get_ref();
        assert_eq!(table.len(), keys().len());
        for (name, value) in table {
            let keys = keys();
            let key = keys
                .iter()
                .find(|key| key.get_id().as_str() == name.get_ref().as_ref())
                .unwrap();
            let word = values::word(key, value.get_ref(), Path::new("")).unwrap();
            let refused = word.as_ref().and_then(refusal);
            assert_eq!(
                refused,
                None,
                "{}: {}",
                name.get_ref(),
                kind(value.get_ref())
            );
        }
    }

    #[test]
    fn the_schema_knows_every_key_and_no_other() {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), keys().len());
        assert_eq!(schema["additionalProperties"], json!(false));
        let norms = json!(["linf", "l2", "l1", "l0"]);
        let one_or_several = &properties["norm"]["anyOf"];
        assert_eq!(one_or_several[0]["enum"], norms);
        assert_eq!(one_or_several[1]["items"]["enum"], norms);
        assert_eq!(properties["keep"]["enum"], json!(["any", "last"]));
        assert_eq!(properties["keep_softmax"]["type"], json!("boolean"));
        assert_eq!(properties["seed"]["default"], json!("0"));
        assert!(
            properties["epsilon"]["type"]
                .as_array()
                .unwrap()
                .contains(&json!("array"))
        );
        assert!(
            properties["min_robust_accuracy"]["type"]
                .as_array()
                .unwrap()
                .contains(&json!("object"))
        );
    }
}
