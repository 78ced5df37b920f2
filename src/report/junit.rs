//! `junit.xml`: what CI servers show as tests.

use super::Format;
use super::document::Document;
use super::number::percent;
use super::table::symbol;
use super::verdict::{measured, subject, threshold};
use crate::outcome::{Check, SummaryRow, WORST_CASE};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::io;
use std::time::Duration;

/// `junit.xml`
#[derive(Debug)]
pub(super) struct Junit;

impl Format for Junit {
    fn name(&self) -> &'static str {
        "junit"
    }

    fn file_name(&self) -> &'static str {
        "junit.xml"
    }

    fn about(&self) -> &'static str {
        "A test case per threshold (without thresholds, per attack and ε), for CI servers"
    }

    fn render(&self, document: &Document) -> io::Result<Vec<u8>> {
        let mut suite = TestSuite::new(format!("mohs: {}", document.model()));
        // A time that is no duration, such as NaN, is left out.
        if let Ok(time) = Duration::try_from_secs_f64(document.seconds) {
            suite.set_time(time);
        }
        match &document.verdict {
            Some(verdict) => {
                let checks = verdict.checks.iter();
                suite.add_test_cases(checks.map(|check| of_check(document, check)));
            }
            None => {
                let rows = document.summary.rows.iter();
                let attacks = rows.filter(|row| row.attack != WORST_CASE);
                suite.add_test_cases(attacks.map(|row| of_row(document, row)));
            }
        }
        let provenance = &document.provenance;
        for (name, value) in [
            ("mohs", &provenance.mohs),
            ("onnxruntime", &provenance.onnxruntime),
            ("device", &provenance.device),
            ("command", &provenance.command_line()),
        ] {
            suite.add_property((name, value.as_str()));
        }
        let diagnostics = document.sorted_diagnostics().into_iter();
        let said: Vec<String> = diagnostics.map(|found| format!("{found}\n")).collect();
        if !said.is_empty() {
            suite.set_system_out(said.concat());
        }
        let mut report = Report::new("mohs");
        report.add_test_suite(suite);
        let text = report.to_string().map_err(io::Error::other)?;
        Ok((text.trim_end().to_owned() + "\n").into_bytes())
    }
}

fn of_check(document: &Document, check: &Check) -> TestCase {
    let status = if check.passed {
        TestCaseStatus::success()
    } else {
        let message = format!("{}, and has to be {}", measured(check), threshold(check));
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(message.clone());
        status.set_type(check.kind.id());
        status.set_description(if check.note.is_empty() {
            message
        } else {
            format!("{message}\n{}", check.note)
        });
        status
    };
    let mut case = TestCase::new(subject(check, &document.summary), status);
    case.set_classname("mohs.gate");
    if check.passed {
        case.set_system_out(format!("{}, {}", measured(check), threshold(check)));
    }
    case
}

/// A measurement that nothing was asked of: it is there to be read, and passes.
fn of_row(document: &Document, row: &SummaryRow) -> TestCase {
    let name = format!(
        "{}, {} ε {}",
        row.attack,
        symbol(row.norm),
        document.summary.epsilon_text(row.epsilon)
    );
    let mut case = TestCase::new(name, TestCaseStatus::success());
    case.set_classname("mohs.evaluate");
    if let Ok(time) = Duration::try_from_secs_f64(row.seconds) {
        case.set_time(time);
    }
    let mut said = format!(
        "robust accuracy {} % (95 % CI {} to {})",
        percent(row.robust_accuracy),
        percent(row.robust_accuracy_low),
        percent(row.robust_accuracy_high)
    );
    if !row.untrustworthy.is_empty() {
        said.push_str(&format!("; not to be trusted: {}", row.untrustworthy));
    }
    case.set_system_out(said);
    case
}

#[cfg(test)]
mod tests {
    use super::super::document::fixtures::{document, gated};
    use super::*;

    fn text(document: &Document) -> String {
        String::from_utf8(Junit.render(document).unwrap()).unwrap()
    }

    #[test]
    fn a_threshold_is_a_test_case() {
        insta::assert_snapshot!(text(&gated()), @"");
    }

    #[test]
    fn without_thresholds_every_attack_and_radius_passes() {
        let text = text(&document());
        assert!(text.contains(r#"tests="4" failures="0""#), "{text}");
        assert!(text.contains("not to be trusted: flat-loss"), "{text}");
        assert!(!text.contains(WORST_CASE));
    }
}
