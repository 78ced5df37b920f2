//! `report.md`: what a pull request shows. Also annotations, which GitHub shows beside it.

use super::Format;
use super::document::Document;
use super::number::{count, duration, percent};
use super::table::symbol;
use super::verdict::{measured, signed_percent, subject, threshold};
use crate::outcome::{Norm, SummaryRow, Verdict, p_value_text};
use std::io;

/// `report.md`
#[derive(Debug)]
pub(super) struct Markdown;

impl Format for Markdown {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn file_name(&self) -> &'static str {
        "report.md"
    }

    fn about(&self) -> &'static str {
        "A page for pull requests and wikis"
    }

    fn render(&self, document: &Document) -> io::Result<Vec<u8>> {
        Ok(render(document).into_bytes())
    }
}

/// The report as GitHub's Markdown.
#[must_use]
pub fn render(document: &Document) -> String {
    let mut text = format!(
        "## {}{}\n\n`{}` on {} samples",
        mark(document),
        document.headline(),
        document.model().replace('`', "'"),
        document.samples()
    );
    if document.is_untrustworthy() {
        text.push_str("; **numbers marked ⚠ are not to be trusted** (see the diagnostics)");
    }
    text.push_str(".\n");
    if let Some(verdict) = &document.verdict {
        text.push_str(&checks(document, verdict));
    }
    for norm in document.norms() {
        text.push_str(&table(document, norm));
    }
    text.push_str(&comparison(document));
    text.push_str(&diagnostics(document));
    text.push_str(&provenance(document));
    text
}

fn mark(document: &Document) -> &'static str {
    match &document.verdict {
        Some(verdict) if verdict.passed() => "✅ ",
        Some(_) => "❌ ",
        None => "",
    }
}

fn checks(document: &Document, verdict: &Verdict) -> String {
    let mut text =
        String::from("\n| | check | measured | threshold |\n| --- | --- | --- | --- |\n");
    for check in &verdict.checks {
        let word = if check.passed {
            "✅ pass"
        } else {
            "❌ **fail**"
        };
        let mut subject = cell(&subject(check, &document.summary));
        if !check.note.is_empty() {
            subject.push_str(&format!("<br>{}", cell(&check.note)));
        }
        text.push_str(&format!(
            "| {word} | {subject} | {} | {} |\n",
            cell(&measured(check)),
            cell(&threshold(check))
        ));
    }
    text
}

fn table(document: &Document, norm: Norm) -> String {
    let mut text = format!(
        "\n### Accuracy under attack in {}, in %\n\n\
         | attack | ε | clean | robust | 95 % CI | success | gradients | time |\n\
         | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |\n",
        symbol(norm)
    );
    let rows = document.summary.rows.iter().filter(|row| row.norm == norm);
    for row in rows {
        text.push_str(&line(document, row));
    }
    text
}

fn line(document: &Document, row: &SummaryRow) -> String {
    let doubt = if row.untrustworthy.is_empty() {
        ""
    } else {
        " ⚠"
    };
    format!(
        "| {} | {} | {} | **{}**{doubt} | {} – {} | {} | {} | {} |\n",
        cell(&row.attack),
        document.summary.epsilon_text(row.epsilon),
        percent(row.clean_accuracy),
        percent(row.robust_accuracy),
        percent(row.robust_accuracy_low),
        percent(row.robust_accuracy_high),
        percent(row.attack_success_rate),
        count(row.gradient_evaluations),
        duration(row.seconds)
    )
}

fn comparison(document: &Document) -> String {
    let Some(compared) = &document.comparison else {
        return String::new();
    };
    let mut text = format!(
        "\n### Against the baseline `{}`, in %\n\n\
         | attack | norm | ε | baseline | now | difference | 95 % CI | p | more robust |\n\
         | --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- |\n",
        compared.first.replace('`', "'")
    );
    for row in document.comparison_rows() {
        let more_robust = match row.more_robust.as_str() {
            "first" => "the baseline",
            "second" => "the model",
            other => other,
        };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} – {} | {} | {more_robust} |\n",
            cell(&row.attack),
            symbol(row.norm),
            document.summary.epsilon_text(row.epsilon),
            percent(row.first_robust_accuracy),
            percent(row.second_robust_accuracy),
            signed_percent(row.difference),
            signed_percent(row.difference_low),
            signed_percent(row.difference_high),
            p_value_text(row.p_value)
        ));
    }
    text
}

fn diagnostics(document: &Document) -> String {
    let found = document.sorted_diagnostics();
    if found.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n### Diagnostics\n\n");
    for one in found {
        let mark = if one.untrustworthy { "⚠ " } else { "" };
        let about = one.attack.as_ref();
        let about = about.map_or(String::new(), |attack| format!(" ({attack})"));
        text.push_str(&format!(
            "- {mark}**{}**{}: {}. {}. `{}`\n",
            one.kind.title(),
            cell(&about),
            cell(&one.finding),
            cell(&capital(&one.advice)),
            one.kind.id()
        ));
    }
    text
}

fn provenance(document: &Document) -> String {
    let provenance = &document.provenance;
    let mut text = format!(
        "\n<details><summary>Provenance</summary>\n\n```sh\n{}\n```\n\n| | |\n| --- | --- |\n",
        provenance.command_line().replace("```", "'''")
    );
    let mut row = |name: &str, value: &str| {
        text.push_str(&format!("| {} | {} |\n", cell(name), cell(value)));
    };
    row("date", &provenance.date);
    row("mohs", &provenance.mohs);
    row("ONNX Runtime", &provenance.onnxruntime);
    row("device", &provenance.device);
    row("platform", &provenance.platform);
    row("seed", &provenance.seed.to_string());
    for file in provenance.models.iter().chain(&provenance.data) {
        row(&file.path, &format!("SHA-256 {}", file.sha256));
    }
    for attack in &provenance.attacks {
        row(&attack.label, &pairs(attack.parameters.iter()));
    }
    for (name, value) in &provenance.parameters {
        row(name, value);
    }
    text.push_str("\n</details>\n");
    text
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let texts: Vec<String> = pairs
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    texts.join(", ")
}

/// Text that can stand in a table's cell, and is nothing but text there.
fn cell(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' => escaped.extend(['\\', c]),
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The text with its first letter in upper case.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// What GitHub shows beside a run, a workflow command per line: an error per check that failed, a warning per diagnostic that makes a
/// number untrustworthy.
#[must_use]
pub fn annotations(document: &Document) -> String {
    let mut text = String::new();
    let mut command = |kind: &str, title: &str, message: &str| {
        let (title, message) = (property(title), data(message));
        text.push_str(&format!("::{kind} title={title}::{message}\n"));
    };
    for check in document.verdict.iter().flat_map(Verdict::failures) {
        let mut message = format!(
            "{}: {}, and has to be {}",
            subject(check, &document.summary),
            measured(check),
            threshold(check)
        );
        if !check.note.is_empty() {
            message.push_str(&format!("; {}", check.note));
        }
        command("error", &format!("mohs: {}", document.model()), &message);
    }
    for found in document.sorted_diagnostics() {
        if found.untrustworthy {
            let title = format!("mohs: {}", found.kind.title());
            command("warning", &title, &found.to_string());
        }
    }
    text
}

/// What a workflow command's message must not hold as it is.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The same for a property of it.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::document::fixtures::gated;
    use super::*;

    #[test]
    fn a_failed_gate() {
        insta::assert_snapshot!(render(&gated()), @r"
        ## ❌ The gate failed: 1 of 2 checks

        `digits.onnx` on 450 samples; **numbers marked ⚠ are not to be trusted** (see the diagnostics).

        | | check | measured | threshold |
        | --- | --- | --- | --- |
        | ✅ pass | clean accuracy | 98.2 % (94.2 to 102.2) | ≥ 95.0 % |
        | ❌ **fail** | robust accuracy, ℓ∞ ε 8/255 | 42.2 % (38.2 to 46.2) | ≥ 50.0 % |

        ### Accuracy under attack in ℓ∞, in %

        | attack | ε | clean | robust | 95 % CI | success | gradients | time |
        | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |
        | fgsm | 2/255 | 98.2 | **95.8** | 93.5 – 97.4 | 2.5 | 17.3k | 4.8s |
        | fgsm | 8/255 | 98.2 | **70.4** ⚠ | 66.0 – 74.6 | 28.3 | 13.6k | 3.5s |
        | pgd:steps=20 | 2/255 | 98.2 | **89.1** | 85.9 – 91.8 | 9.3 | 16.3k | 4.5s |
        | pgd:steps=20 | 8/255 | 98.2 | **42.2** | 37.6 – 46.9 | 57.0 | 9364 | 2.1s |
        | worst-case | 2/255 | 98.2 | **88.9** | 85.6 – 91.6 | 9.5 | 16.3k | 4.4s |
        | worst-case | 8/255 | 98.2 | **42.2** | 37.6 – 46.9 | 57.0 | 9364 | 2.1s |

        ### Diagnostics

        - ⚠ **The loss does not rise** (fgsm): 25.0 % of the &lt;samples> are so. Look at them &amp; think. `flat-loss`
        - **The model ends in Softmax**: 25.0 % of the &lt;samples> are so. Look at them &amp; think. `softmax-head`

        <details><summary>Provenance</summary>

        ```sh
        mohs evaluate 'my digits.onnx'
        ```

        | | |
        | --- | --- |
        | date | 2026-03-01T12:00:00Z |
        | mohs | 0.1.0 |
        | ONNX Runtime | 1.31.1 |
        | device | cpu |
        | platform | linux x86\_64 |
        | seed | 7 |
        | my digits.onnx | SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad |
        | test.npz | SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad |
        | pgd:steps=20 | restarts = 1, steps = 20 |
        | bounds | 0,1 |
        | norm | linf |

        </details>
        ");
    }

    #[test]
    fn failures_are_errors_and_doubts_are_warnings() {
        let mut document = gated();
        document.diagnostics[1].finding = "100 %\nof it".to_owned();
        insta::assert_snapshot!(annotations(&document), @"
        ::error title=mohs%3A digits.onnx::robust accuracy, ℓ∞ ε 8/255: 42.2 %25 (38.2 to 46.2), and has to be ≥ 50.0 %25
        ::warning title=mohs%3A The loss does not rise::fgsm: 100 %25%0Aof it; look at them & think [flat-loss]
        ");
        document.verdict = None;
        document.diagnostics.clear();
        assert_eq!(annotations(&document), "");
    }
}
