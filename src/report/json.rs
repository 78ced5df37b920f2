//! `report.json`: everything, for programs. `docs/report.schema.json` describes it.

use super::Format;
use super::document::Document;
use crate::outcome::{SummaryRow, Verdict};
use serde_json::{Map, Value, json};
use std::io;

/// Which form `report.json` has. A member may be added under the same number; one that is renamed, removed or given another meaning
/// raises it.
pub const SCHEMA_VERSION: u32 = 1;

/// `report.json`
#[derive(Debug)]
pub(super) struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn file_name(&self) -> &'static str {
        "report.json"
    }

    fn about(&self) -> &'static str {
        "Everything but the single samples, for programs"
    }

    fn is_default(&self) -> bool {
        true
    }

    fn render(&self, document: &Document) -> io::Result<Vec<u8>> {
        let rows = document.summary.rows.iter();
        let rows = rows
            .map(|row| summary_row(document, row))
            .collect::<io::Result<Vec<_>>>()?;
        let verdict = document.verdict.as_ref().map(verdict).transpose()?;
        let comparison = document
            .comparison
            .is_some()
            .then(|| document.comparison_rows());
        let report = json!({
            "schema_version": SCHEMA_VERSION,
            "model": document.model(),
            "samples": document.samples(),
            "seconds": document.seconds,
            "trustworthy": !document.is_untrustworthy(),
            "verdict": verdict,
            "summary": rows,
            "comparison": comparison,
            "diagnostics": document.sorted_diagnostics(),
            "notes": document.notes,
            "provenance": document.provenance,
        });
        let mut bytes = serde_json::to_vec_pretty(&report)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// A row, with ε as it was asked for beside its value, and what is untrustworthy as a list.
fn summary_row(document: &Document, row: &SummaryRow) -> io::Result<Value> {
    let mut object = object(serde_json::to_value(row)?);
    let text = document.summary.epsilon_text(row.epsilon);
    object.insert("epsilon_text".to_owned(), Value::from(text));
    let ids: Vec<&str> = row.untrustworthy.split_whitespace().collect();
    object.insert("untrustworthy".to_owned(), Value::from(ids));
    Ok(Value::Object(object))
}

fn verdict(verdict: &Verdict) -> io::Result<Value> {
    let mut object = object(serde_json::to_value(verdict)?);
    object.insert("passed".to_owned(), Value::from(verdict.passed()));
    Ok(Value::Object(object))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::fixtures::gated;
    use super::*;

    #[test]
    fn numbers_are_whole_and_nan_is_null() {
        let mut document = gated();
        document.summary.rows[0].mean_linf = f64::NAN;
        let bytes = Json.render(&document).unwrap();
        let report: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(report["schema_version"], 1);
        assert_eq!(report["verdict"]["passed"], false);
        assert_eq!(report["summary"][0]["epsilon"].as_f64(), Some(2.0 / 255.0));
        assert_eq!(report["summary"][0]["epsilon_text"], "2/255");
        assert_eq!(report["summary"][0]["mean_linf"], Value::Null);
        assert_eq!(report["summary"][1]["untrustworthy"], json!(["flat-loss"]));
        assert_eq!(report["diagnostics"][0]["kind"], "flat-loss");
        assert_eq!(
            report["provenance"]["attacks"][0]["parameters"]["steps"],
            "20"
        );
        assert_eq!(report["comparison"], Value::Null);
    }
}
