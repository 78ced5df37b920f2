//! `report.sarif`: findings as SARIF 2.1.0 (OASIS), which code scanning services read.
//!
//! A check that failed is an error, a diagnostic that makes a number untrustworthy a warning, any other a note.

use super::Format;
use super::document::Document;
use super::markdown::capital;
use super::verdict::{measured, subject, threshold};
use crate::outcome::{CheckKind, DiagnosticKind, Verdict};
use serde_json::{Value, json};
use std::io;

/// `report.sarif`
#[derive(Debug)]
pub(super) struct Sarif;

impl Format for Sarif {
    fn name(&self) -> &'static str {
        "sarif"
    }

    fn file_name(&self) -> &'static str {
        "report.sarif"
    }

    fn about(&self) -> &'static str {
        "Failed checks and diagnostics as SARIF 2.1.0, for code scanning"
    }

    fn render(&self, document: &Document) -> io::Result<Vec<u8>> {
        let results: Vec<Value> = check_results(document)
            .chain(diagnostic_results(document))
            .collect();
        let log = json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "mohs",
                    "semanticVersion": document.provenance.mohs,
                    "rules": rules(),
                }},
                "invocations": [{
                    "executionSuccessful": true,
                    "commandLine": document.provenance.command_line(),
                    "endTimeUtc": document.provenance.date,
                }],
                "columnKind": "unicodeCodePoints",
                "results": results,
            }],
        });
        let mut bytes = serde_json::to_vec_pretty(&log)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The checks, with what it says of a model to miss one.
const CHECKS: [(CheckKind, &str); 5] = [
    (
        CheckKind::CleanAccuracy,
        "The clean accuracy misses its threshold",
    ),
    (
        CheckKind::RobustAccuracy,
        "The robust accuracy misses its threshold",
    ),
    (
        CheckKind::Drop,
        "The robust accuracy drops too far below the baseline's",
    ),
    (CheckKind::Seconds, "The evaluation takes too long"),
    (CheckKind::Trust, "Numbers are not to be trusted"),
];

fn rules() -> Vec<Value> {
    let checks = CHECKS.iter().map(|(kind, title)| rule(kind.id(), title));
    let diagnostics = DiagnosticKind::ALL
        .iter()
        .map(|kind| rule(kind.id(), kind.title()));
    checks.chain(diagnostics).collect()
}

fn rule(id: &str, title: &str) -> Value {
    json!({ "id": id, "shortDescription": { "text": title } })
}

fn check_results(document: &Document) -> impl Iterator<Item = Value> {
    let failures = document.verdict.iter().flat_map(Verdict::failures);
    failures.map(|check| {
        let about = subject(check, &document.summary);
        let (is, should) = (measured(check), threshold(check));
        let mut text = format!("{}: {is}, and has to be {should}.", capital(&about));
        if !check.note.is_empty() {
            text.push_str(&format!(" {}.", capital(&check.note)));
        }
        // The same check of the same model stays the same finding, whatever is measured.
        result(document, check.kind.id(), "error", &text, &about)
    })
}

fn diagnostic_results(document: &Document) -> impl Iterator<Item = Value> {
    document.sorted_diagnostics().into_iter().map(|found| {
        let level = if found.untrustworthy {
            "warning"
        } else {
            "note"
        };
        let about = found.attack.clone().unwrap_or_default();
        let before = found.attack.as_ref();
        let before = before.map_or(String::new(), |attack| format!("{attack}: "));
        let (finding, advice) = (&found.finding, capital(&found.advice));
        let text = format!("{before}{finding}. {advice}.");
        result(document, found.kind.id(), level, &text, &about)
    })
}

fn result(document: &Document, rule: &str, level: &str, text: &str, about: &str) -> Value {
    let path = document.provenance.models.first();
    let path = path.map_or(document.model(), |file| file.path.as_str());
    json!({
        "ruleId": rule,
        "level": level,
        "message": { "text": text },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(path) },
            "region": { "startLine": 1 },
        }}],
        "partialFingerprints": { "mohs/v1": format!("{rule}/{about}") },
    })
}

/// A path as a URI reference: relative where the path is.
fn uri(path: &str) -> String {
    let path = path.replace('\\', "/");
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    if path.starts_with('/') {
        format!("file://{uri}")
    } else {
        uri
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::fixtures::gated;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn failed_checks_and_diagnostics_are_results_of_known_rules() {
        let log: Value = serde_json::from_slice(&Sarif.render(&gated()).unwrap()).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        let rules: BTreeSet<&str> = run["tool"]["driver"]["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["id"].as_str().unwrap())
            .collect();
        let results = run["results"].as_array().unwrap();
        let seen: Vec<(&str, &str)> = results
            .iter()
            .map(|result| {
                (
                    result["ruleId"].as_str().unwrap(),
                    result["level"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("robust-accuracy", "error"),
                ("flat-loss", "warning"),
                ("softmax-head", "note")
            ]
        );
        for result in results {
            assert!(rules.contains(result["ruleId"].as_str().unwrap()));
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], "my%20digits.onnx");
        }
        assert_eq!(
            results[0]["message"]["text"],
            "Robust accuracy, ℓ∞ ε 8/255: 42.2 % (38.2 to 46.2), and has to be ≥ 50.0 %."
        );
    }

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("models/ü.onnx"), "models/%C3%BC.onnx");
        assert_eq!(uri("/data/a#1.onnx"), "file:///data/a%231.onnx");
        assert_eq!(uri(r"models\a.onnx"), "models/a.onnx");
    }
}
