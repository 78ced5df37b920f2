//! The sections of the page but the gallery.

use super::super::document::{Document, Ladder};
use super::super::markdown::capital;
use super::super::number::{count, duration, magnitude, percent};
use super::super::table::{epsilon, symbol};
use super::super::verdict::{measured, signed_percent, subject, threshold};
use super::chart::{NARROW, WIDE, curves as curves_of, marker, svg};
use super::{Section, escape};
use crate::outcome::{Norm, SummaryRow, Verdict, WORST_CASE, p_value_text};
use std::fmt::Write;

/// What marks a number that is not to be trusted.
const DOUBT: &str =
    "<abbr class=\"doubt\" title=\"not to be trusted, see the diagnostics\">⚠</abbr>";

/// The head of the page: the model, the outcome, and the figures that one remembers.
pub(super) fn header(document: &Document) -> String {
    let (class, word) = match &document.verdict {
        Some(verdict) if verdict.passed() => ("good", "✓ pass"),
        Some(_) => ("bad", "✗ fail"),
        None if document.is_untrustworthy() => ("bad", "⚠ doubtful"),
        None => ("plain", "measured"),
    };
    let doubt = if document.is_untrustworthy() {
        "<p class=\"warning\"><b>⚠ Some numbers are not to be trusted.</b> They are marked ⚠; <a href=\"#diagnostics\">the diagnostics</a> say why.</p>\n"
    } else {
        ""
    };
    let provenance = &document.provenance;
    let day = provenance.date.split('T').next().unwrap_or_default();
    format!(
        "<header class=\"{class}\"><div class=\"page\">\n<p class=\"model\">{} <span>· {} samples · {} · {}</span></p>\n\
         <h1><span class=\"badge\">{word}</span> {}</h1>\n{doubt}{}</div></header>\n",
        escape(document.model()),
        document.samples(),
        duration(document.seconds),
        escape(day),
        escape(&document.headline()),
        tiles(document)
    )
}

/// The clean accuracy and the worst case at up to five radii of each norm.
fn tiles(document: &Document) -> String {
    const MOST: usize = 5;
    let Some(first) = document.summary.rows.first() else {
        return String::new();
    };
    let mut tiles = format!(
        "<div class=\"tile\"><dt>clean</dt><dd>{} <small>%</small></dd></div>\n",
        percent(first.clean_accuracy)
    );
    for norm in document.norms() {
        let rows = document.worst(norm);
        // Evenly among them, the first and the last included.
        let shown = rows.len().min(MOST);
        for position in 0..shown {
            let row = rows[position * (rows.len() - 1) / (shown - 1).max(1)];
            let doubt = if row.untrustworthy.is_empty() {
                ""
            } else {
                DOUBT
            };
            let _ = writeln!(
                tiles,
                "<div class=\"tile\"><dt>{} ε {}</dt><dd>{} <small>%</small>{doubt}</dd><dd class=\"ci\">{} – {}</dd></div>",
                symbol(norm),
                escape(&epsilon(&document.summary, row.epsilon)),
                percent(row.robust_accuracy),
                percent(row.robust_accuracy_low),
                percent(row.robust_accuracy_high)
            );
        }
    }
    format!("<dl class=\"tiles\">\n{tiles}</dl>\n")
}

/// The gate's checks.
pub(super) fn verdict(document: &Document) -> Option<Section> {
    let verdict: &Verdict = document.verdict.as_ref()?;
    let rows: String = verdict
        .checks
        .iter()
        .map(|check| {
            let (class, word) = if check.passed {
                ("good", "✓ pass")
            } else {
                ("bad", "✗ fail")
            };
            let note = if check.note.is_empty() {
                String::new()
            } else {
                format!("<br><small>{}</small>", escape(&capital(&check.note)))
            };
            format!(
                "<tr><td class=\"{class}\"><b>{word}</b></td><th scope=\"row\">{}{note}</th><td>{}</td><td>{}</td></tr>\n",
                escape(&capital(&subject(check, &document.summary))),
                escape(&measured(check)),
                escape(&threshold(check))
            )
        })
        .collect();
    let heads = ["", "Check", "Measured", "Threshold"];
    Some(Section {
        id: "checks",
        title: "Checks",
        lead: String::new(),
        body: scrolling("Checks", &heads, &rows, "checks"),
    })
}

/// A table that scrolls sideways by itself where the window is narrow.
fn scrolling(name: &str, heads: &[&str], rows: &str, class: &str) -> String {
    let heads: String = heads
        .iter()
        .map(|head| format!("<th scope=\"col\">{head}</th>"))
        .collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{name}\" tabindex=\"0\"><table class=\"{class}\">\n\
         <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// A chart per norm.
pub(super) fn curves(document: &Document) -> Option<Section> {
    let mut body = String::new();
    for norm in document.norms() {
        let curves = curves_of(document, norm);
        let name = symbol(norm);
        let legend: String = curves
            .iter()
            .map(|curve| {
                let look = curve.look;
                let (broad, marker) = if curve.attack == WORST_CASE {
                    (" broad", String::new())
                } else {
                    ("", marker(look, 17.0, 7.0))
                };
                format!(
                    "<li><svg class=\"key\" viewBox=\"0 0 34 14\" aria-hidden=\"true\"><path class=\"line look{look}{broad}\" d=\"M1 7H33\"/>{marker}</svg>{}</li>\n",
                    escape(curve.attack)
                )
            })
            .collect();
        let charts = [WIDE, NARROW].map(|size| svg(document, &curves, name, size));
        let _ = write!(
            body,
            "<h3>{name}</h3>\n<ul class=\"legend\">\n{legend}</ul>\n{}",
            charts.concat()
        );
    }
    (!body.is_empty()).then(|| Section {
        id: "curves",
        title: "Robustness curves",
        lead: "The share of all samples that the model gets right, over the radius of the ball. Bands are 95\u{a0}% confidence intervals: they \
               cover the choice of samples, not the strength of the attack."
            .to_owned(),
        body,
    })
}

/// A table per norm.
pub(super) fn table(document: &Document) -> Option<Section> {
    let mut body = String::new();
    for norm in document.norms() {
        let name = symbol(norm);
        let mean = match norm {
            Norm::Linf => "Mean ℓ∞",
            // The summary has no ℓ1 norms; ℓ2 is the nearest that it has.
            Norm::L2 | Norm::L1 | Norm::L0 => "Mean ℓ2",
        };
        let heads = [
            "Attack",
            "ε",
            "Robust",
            "95 % CI",
            "Success",
            mean,
            "Gradients",
            "Time",
        ];
        let mut previous = "";
        let mut rows = String::new();
        for row in document.summary.rows.iter().filter(|row| row.norm == norm) {
            rows.push_str(&line(document, row, previous));
            previous = &row.attack;
        }
        let caption = format!("Accuracy in {name}");
        let _ = write!(
            body,
            "<h3>{name}</h3>\n{}",
            scrolling(&caption, &heads, &rows, "numbers")
        );
    }
    (!body.is_empty()).then(|| Section {
        id: "table",
        title: "Figures",
        lead: format!(
            "Robust: of all samples those that are right and that no attack broke, an upper bound of the true share. Success: of those \
             that are right ({}\u{a0}% of all), the share that was broken. Mean: size of the perturbations that broke them. \
             <b>{WORST_CASE}</b> is over all attacks.",
            document
                .summary
                .rows
                .first()
                .map_or_else(String::new, |row| percent(row.clean_accuracy))
        ),
        body,
    })
}

fn line(document: &Document, row: &SummaryRow, previous: &str) -> String {
    let mean = match row.norm {
        Norm::Linf => row.mean_linf,
        Norm::L2 | Norm::L1 | Norm::L0 => row.mean_l2,
    };
    let begins = row.attack != previous;
    let name = escape(&row.attack);
    let (class, head) = if begins {
        (
            " class=\"begins\"",
            format!("<th scope=\"row\">{name}</th>"),
        )
    } else {
        // Told to those who cannot see the row above.
        (
            "",
            format!("<th scope=\"row\"><span class=\"unseen\">{name}</span></th>"),
        )
    };
    let doubt = if row.untrustworthy.is_empty() {
        String::new()
    } else {
        let ids = escape(&row.untrustworthy);
        format!(" <abbr class=\"doubt\" title=\"not to be trusted: {ids}\">⚠</abbr>")
    };
    format!(
        "<tr{class}>{head}<td>{}</td><td><b>{}</b>{doubt}</td><td>{} – {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escape(&epsilon(&document.summary, row.epsilon)),
        percent(row.robust_accuracy),
        percent(row.robust_accuracy_low),
        percent(row.robust_accuracy_high),
        percent(row.attack_success_rate),
        magnitude(mean),
        count(row.gradient_evaluations),
        duration(row.seconds)
    )
}

/// The model beside its baseline.
pub(super) fn comparison(document: &Document) -> Option<Section> {
    let compared = document.comparison.as_ref()?;
    let rows: String = document
        .comparison_rows()
        .iter()
        .map(|row| {
            let (class, word) = match row.more_robust.as_str() {
                "first" => ("bad", "baseline"),
                "second" => ("good", "this model"),
                _ => ("", "cannot tell"),
            };
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><b>{}</b></td><td>{} – {}</td><td>{}</td>\
                 <td class=\"{class}\">{word}</td></tr>\n",
                escape(&row.attack),
                symbol(row.norm),
                escape(&epsilon(&document.summary, row.epsilon)),
                percent(row.first_robust_accuracy),
                percent(row.second_robust_accuracy),
                signed_percent(row.difference),
                signed_percent(row.difference_low),
                signed_percent(row.difference_high),
                escape(&p_value_text(row.p_value))
            )
        })
        .collect();
    let heads = [
        "Attack",
        "Norm",
        "ε",
        "Baseline",
        "Now",
        "Difference",
        "95 % CI",
        "p",
        "More robust",
    ];
    Some(Section {
        id: "comparison",
        title: "Against the baseline",
        lead: format!(
            "The same samples under the baseline {}, pair by pair: robust accuracy in %, Tango's interval of the difference, McNemar's exact test.",
            escape(&compared.first)
        ),
        body: scrolling("Against the baseline", &heads, &rows, "numbers"),
    })
}

/// At which radius each sample broke first.
pub(super) fn histogram(document: &Document) -> Option<Section> {
    let mut body = String::new();
    for norm in document.norms() {
        let rows = document.worst(norm);
        let ladder = Ladder::new(&rows);
        let samples = document.samples();
        if samples == 0 || rows.is_empty() {
            continue;
        }
        let most = ladder
            .broken
            .iter()
            .copied()
            .chain([ladder.wrong, ladder.held]);
        let most = most.max().unwrap_or(0).max(1);
        let mut bars = String::new();
        let mut bar = |label: &str, class: &str, number: u64| {
            let share = percent(number as f64 / samples as f64);
            let width = 100.0 * number as f64 / most as f64;
            let _ = writeln!(
                bars,
                "<tr><th scope=\"row\">{}</th><td class=\"bar\"><div class=\"{class}\" style=\"width:{width:.1}%\"></div></td><td>{number}</td><td>{share} %</td></tr>",
                escape(label)
            );
        };
        bar("wrong as it is", "wrong", ladder.wrong);
        let mut before = "0".to_owned();
        for (row, number) in rows.iter().zip(&ladder.broken) {
            let radius = epsilon(&document.summary, row.epsilon);
            bar(&format!("{before} < ε ≤ {radius}"), "broken", *number);
            before = radius;
        }
        bar(&format!("held up to {before}"), "held", ladder.held);
        let name = symbol(norm);
        let _ = write!(
            body,
            "<h3>{name}</h3>\n<table class=\"histogram\" aria-label=\"Smallest ε found, in {name}\">\n<tbody>\n{bars}</tbody></table>\n"
        );
    }
    (!body.is_empty()).then(|| Section {
        id: "minimal",
        title: "Smallest ε found",
        lead: "At which radius each sample was broken first, by any attack; a smaller perturbation may exist.".to_owned(),
        body,
    })
}

/// What was noticed and decided.
pub(super) fn diagnostics(document: &Document) -> Option<Section> {
    let mut items = String::new();
    for found in document.sorted_diagnostics() {
        let (class, mark) = if found.untrustworthy {
            (" class=\"grave\"", "⚠ ")
        } else {
            ("", "")
        };
        let mut places: Vec<String> = found.attack.iter().cloned().collect();
        places.extend(found.norm.map(|norm| symbol(norm).to_owned()));
        if !found.epsilons.is_empty() {
            let radii = found.epsilons.iter();
            let radii: Vec<String> = radii
                .map(|&radius| epsilon(&document.summary, radius))
                .collect();
            places.push(format!("ε {}", radii.join(", ")));
        }
        let _ = writeln!(
            items,
            "<li{class}><p><b>{mark}{}</b> <span class=\"where\">{}</span></p>\n<p>{}. {}.</p></li>",
            escape(found.kind.title()),
            escape(&places.join(" · ")),
            escape(&capital(&found.finding)),
            escape(&capital(&found.advice))
        );
    }
    let lead = if items.is_empty() {
        "Nothing speaks against the numbers."
    } else {
        ""
    };
    let mut body = if items.is_empty() {
        String::new()
    } else {
        format!("<ul class=\"diagnostics\">\n{items}</ul>\n")
    };
    if !document.notes.is_empty() {
        let notes: String = document
            .notes
            .iter()
            .map(|note| format!("<li>{}</li>\n", escape(&capital(note))))
            .collect();
        let _ = write!(body, "<h3>Decided unasked</h3>\n<ul>\n{notes}</ul>\n");
    }
    Some(Section {
        id: "diagnostics",
        title: "Diagnostics",
        lead: lead.to_owned(),
        body,
    })
}

/// What it takes to measure the numbers again.
pub(super) fn provenance(document: &Document) -> Option<Section> {
    let provenance = &document.provenance;
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(rows, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    };
    row("Date", &provenance.date);
    row("mohs", &provenance.mohs);
    row("ONNX Runtime", &provenance.onnxruntime);
    row("Device", &provenance.device);
    row("Platform", &provenance.platform);
    row("Seed", &provenance.seed.to_string());
    for file in provenance.models.iter().chain(&provenance.data) {
        row(&file.path, &format!("SHA-256 {}", file.sha256));
    }
    for attack in &provenance.attacks {
        let pairs = attack.parameters.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        row(&attack.label, &pairs.join(" · "));
    }
    for (name, value) in &provenance.parameters {
        row(name, value);
    }
    Some(Section {
        id: "provenance",
        title: "Provenance",
        lead: "What it takes to measure the numbers again.".to_owned(),
        body: format!(
            "<pre tabindex=\"0\" aria-label=\"Command line\"><code>{}</code></pre>\n<dl class=\"provenance\">\n{rows}</dl>\n",
            escape(&provenance.command_line())
        ),
    })
}
