//! The summary on the terminal: one table per norm, at most 80 columns wide.

use super::Style;
use super::number::{count, duration, magnitude, percent};
use super::style::Role;
use crate::outcome::{Norm, Summary, SummaryRow};

/// The width that every text for the terminal keeps to.
pub(super) const WIDTH: usize = 80;

/// An attack's name that is longer than this stands on a line of its own above its rows.
const LONGEST_NAME: usize = 10;

/// The summary as a table, with a closing line break; empty for a summary without rows.
///
/// A table per norm, the rows in the summary's order, an attack's name once. Accuracies are percentages, never rounded to 0 or 100
/// where they are not just that.
#[must_use]
pub fn render(summary: &Summary, style: Style) -> String {
    let mut norms: Vec<Norm> = Vec::new();
    for row in &summary.rows {
        if !norms.contains(&row.norm) {
            norms.push(row.norm);
        }
    }
    let mut text = String::new();
    for norm in norms {
        let rows: Vec<&SummaryRow> = summary.rows.iter().filter(|row| row.norm == norm).collect();
        if text.is_empty() {
            text.push_str(&heading(&rows, style));
        }
        text.push('\n');
        text.push_str(&Table::new(summary, &rows, norm).render(style));
    }
    if !text.is_empty() {
        let note = "In %: clean, robust with its 95 % confidence interval (CI), success.";
        text.push('\n');
        text.push_str(&style.paint(Role::Quiet, note));
        text.push('\n');
        if summary.rows.iter().any(|row| !row.untrustworthy.is_empty()) {
            let note = "! This number is not to be trusted; the diagnostics say why.";
            text.push_str(&style.paint(Role::Bad, note));
            text.push('\n');
        }
    }
    text
}

fn heading(rows: &[&SummaryRow], style: Style) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let plural = if first.samples == 1 { "" } else { "s" };
    let samples = format!("{} sample{plural}", first.samples);
    let name = shortened(&first.model, WIDTH - 2 - samples.chars().count());
    format!("{}: {samples}\n", style.paint(Role::Heading, &name))
}

/// The columns after the attack's name.
const COLUMNS: usize = 8;
const NORM: usize = 0;
const EPSILON: usize = 1;
const ROBUST: usize = 3;

struct Table {
    headers: [String; COLUMNS],
    /// The attack's name and the other fields.
    lines: Vec<(String, [String; COLUMNS])>,
    widths: [usize; COLUMNS],
}

impl Table {
    fn new(summary: &Summary, rows: &[&SummaryRow], norm: Norm) -> Self {
        let mean = match norm {
            Norm::Linf => "mean ℓ∞",
            // The summary has no ℓ1 norms; ℓ2 is the nearest that it has.
            Norm::L2 | Norm::L1 | Norm::L0 => "mean ℓ2",
        };
        let headers = [
            "norm",
            "ε",
            "clean",
            "robust (95 % CI)",
            "success",
            mean,
            "gradients",
            "time",
        ]
        .map(str::to_owned);
        let lines: Vec<(String, [String; COLUMNS])> = rows
            .iter()
            .map(|row| (row.attack.clone(), fields(summary, row)))
            .collect();
        let mut widths = [0; COLUMNS];
        for texts in std::iter::once(&headers).chain(lines.iter().map(|(_, fields)| fields)) {
            for (width, text) in widths.iter_mut().zip(texts) {
                *width = (*width).max(text.chars().count());
            }
        }
        Table {
            headers,
            lines,
            widths,
        }
    }

    fn render(&self, style: Style) -> String {
        let total: usize = self.widths.iter().sum::<usize>() + COLUMNS;
        // Names get a column of their own where that leaves room for the numbers.
        let room = WIDTH.saturating_sub(total);
        let longest = self.lines.iter().map(|(name, _)| name.chars().count());
        let name_width = longest
            .filter(|&length| length <= LONGEST_NAME)
            .max()
            .unwrap_or(0)
            .max("attack".len())
            .min(room);
        let mut spare = room.saturating_sub(name_width);
        // What is left widens the gaps, those between numbers first.
        let mut gaps = [1; COLUMNS];
        for position in [7, 6, 5, 4, 2, 3, 0, 1] {
            if spare > 0 {
                gaps[position] += 1;
                spare -= 1;
            }
        }
        let line = |name: &str, fields: &[String; COLUMNS]| {
            let mut line = format!("{name:<name_width$}");
            for (position, field) in fields.iter().enumerate() {
                line.push_str(&" ".repeat(gaps[position]));
                let width = self.widths[position];
                // Numbers stand at the right; the robust accuracy does so within its field.
                if matches!(position, NORM | EPSILON | ROBUST) {
                    line.push_str(&format!("{field:<width$}"));
                } else {
                    line.push_str(&format!("{field:>width$}"));
                }
            }
            line.trim_end().to_owned()
        };
        let header = line("attack", &self.headers);
        let rule = "─".repeat(header.chars().count());
        let mut text = format!(
            "{}\n{}\n",
            style.paint(Role::Heading, &header),
            style.paint(Role::Quiet, &rule)
        );
        let mut previous = None;
        for (name, fields) in &self.lines {
            let mut shown = "";
            if previous != Some(name) {
                previous = Some(name);
                if name.chars().count() <= name_width {
                    shown = name;
                } else {
                    for part in broken(name) {
                        text.push_str(&part);
                        text.push('\n');
                    }
                }
            }
            text.push_str(&line(shown, fields));
            text.push('\n');
        }
        text
    }
}

fn fields(summary: &Summary, row: &SummaryRow) -> [String; COLUMNS] {
    let mean = match row.norm {
        Norm::Linf => row.mean_linf,
        Norm::L2 | Norm::L1 | Norm::L0 => row.mean_l2,
    };
    let mut robust = format!("{:>5}", percent(row.robust_accuracy));
    if !row.untrustworthy.is_empty() {
        robust.push('!');
    }
    if !row.robust_accuracy_low.is_nan() {
        let (low, high) = (row.robust_accuracy_low, row.robust_accuracy_high);
        robust.push_str(&format!(" ({}–{})", percent(low), percent(high)));
    }
    [
        symbol(row.norm).to_owned(),
        epsilon(summary, row.epsilon),
        percent(row.clean_accuracy),
        robust,
        percent(row.attack_success_rate),
        magnitude(mean),
        count(row.gradient_evaluations),
        duration(row.seconds),
    ]
}

pub(super) fn symbol(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "ℓ∞",
        Norm::L2 => "ℓ2",
        Norm::L1 => "ℓ1",
        Norm::L0 => "ℓ0",
    }
}

/// The user's own spelling, or a rounded one where that is long.
pub(super) fn epsilon(summary: &Summary, value: f64) -> String {
    let text = summary.epsilon_text(value);
    if text.chars().count() <= 8 {
        text
    } else {
        magnitude(value)
    }
}

/// The text in at most `width` characters, an ellipsis for what is left out at the start: the end of a file name tells more.
pub(super) fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let tail: String = text.chars().skip(length + 1 - width).collect();
    format!("…{tail}")
}

/// A long name in lines of at most 80 characters, broken after commas where there are any.
pub(super) fn broken(name: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for part in name.split_inclusive(',') {
        if !line.is_empty() && line.chars().count() + part.chars().count() > WIDTH {
            lines.push(std::mem::take(&mut line));
            line.push_str("    ");
        }
        line.push_str(part);
        while line.chars().count() > WIDTH {
            let rest = line.chars().skip(WIDTH).collect();
            lines.push(line.chars().take(WIDTH).collect());
            line = rest;
        }
    }
    lines.push(line);
    lines
}

/// Rows for tests of this module and of the chart.
#[cfg(test)]
pub(super) mod fixtures {
    use super::*;
    use crate::outcome::clopper_pearson;

    /// A row in which `robust` of 450 samples stay robust, 442 being right clean.
    pub(crate) fn row(attack: &str, norm: Norm, epsilon: f64, robust: u64) -> SummaryRow {
        let interval = clopper_pearson(robust, 450);
        let broken = 442 - robust;
        SummaryRow {
            model: "digits.onnx".to_owned(),
            attack: attack.to_owned(),
            norm,
            epsilon,
            steps: 40,
            restarts: 1,
            samples: 450,
            clean_accuracy: 442.0 / 450.0,
            robust_accuracy: robust as f64 / 450.0,
            robust_accuracy_low: interval.low,
            robust_accuracy_high: interval.high,
            attack_success_rate: broken as f64 / 442.0,
            mean_linf: if broken == 0 {
                f64::NAN
            } else {
                0.97 * epsilon
            },
            mean_l2: if broken == 0 { f64::NAN } else { 6.1 * epsilon },
            gradient_evaluations: 40 * robust + 7 * broken,
            seconds: robust as f64 / 90.0,
            untrustworthy: String::new(),
        }
    }

    pub(crate) fn summary(rows: Vec<SummaryRow>) -> Summary {
        let epsilons = ["2/255", "8/255", "0.50"];
        Summary {
            rows,
            epsilons: epsilons.map(|text| text.parse().unwrap()).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{row, summary};
    use super::*;
    use crate::report::style::without_escapes;

    fn widest(text: &str) -> usize {
        text.lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0)
    }

    fn usual() -> Summary {
        summary(vec![
            row("fgsm", Norm::Linf, 2.0 / 255.0, 442),
            row("fgsm", Norm::Linf, 8.0 / 255.0, 317),
            row("pgd", Norm::Linf, 2.0 / 255.0, 401),
            row("pgd", Norm::Linf, 8.0 / 255.0, 0),
            row("worst-case", Norm::Linf, 2.0 / 255.0, 400),
            row("worst-case", Norm::Linf, 8.0 / 255.0, 0),
        ])
    }

    #[test]
    fn a_usual_summary() {
        insta::assert_snapshot!(render(&usual(), Style::Plain), @"
        digits.onnx: 450 samples

        attack     norm ε     clean robust (95 % CI)   success  mean ℓ∞  gradients  time
        ────────────────────────────────────────────────────────────────────────────────
        fgsm       ℓ∞   2/255  98.2  98.2 (96.5–99.2)      0.0        –      17.7k  4.9s
                   ℓ∞   8/255  98.2  70.4 (66.0–74.6)     28.3   0.0304      13.6k  3.5s
        pgd        ℓ∞   2/255  98.2  89.1 (85.9–91.8)      9.3   0.0076      16.3k  4.5s
                   ℓ∞   8/255  98.2   0.0 (0.0–0.8)      100.0   0.0304       3094  0.0s
        worst-case ℓ∞   2/255  98.2  88.9 (85.6–91.6)      9.5   0.0076      16.3k  4.4s
                   ℓ∞   8/255  98.2   0.0 (0.0–0.8)      100.0   0.0304       3094  0.0s

        In %: clean, robust with its 95 % confidence interval (CI), success.
        ");
    }

    #[test]
    fn a_number_that_is_not_to_be_trusted_is_marked_where_it_stands() {
        let mut summary = usual();
        summary.rows[3].untrustworthy = "zero-gradients".to_owned();
        let text = render(&summary, Style::Plain);
        assert!(widest(&text) <= WIDTH);
        insta::assert_snapshot!(text, @"
        digits.onnx: 450 samples

        attack     norm ε     clean robust (95 % CI)   success  mean ℓ∞  gradients  time
        ────────────────────────────────────────────────────────────────────────────────
        fgsm       ℓ∞   2/255  98.2  98.2 (96.5–99.2)      0.0        –      17.7k  4.9s
                   ℓ∞   8/255  98.2  70.4 (66.0–74.6)     28.3   0.0304      13.6k  3.5s
        pgd        ℓ∞   2/255  98.2  89.1 (85.9–91.8)      9.3   0.0076      16.3k  4.5s
                   ℓ∞   8/255  98.2   0.0! (0.0–0.8)     100.0   0.0304       3094  0.0s
        worst-case ℓ∞   2/255  98.2  88.9 (85.6–91.6)      9.5   0.0076      16.3k  4.4s
                   ℓ∞   8/255  98.2   0.0 (0.0–0.8)      100.0   0.0304       3094  0.0s

        In %: clean, robust with its 95 % confidence interval (CI), success.
        ! This number is not to be trusted; the diagnostics say why.
        ");
    }

    #[test]
    fn long_names_have_lines_of_their_own_and_each_norm_a_table() {
        let long = "pgd:steps=1000,step_size=0.0078431372549,restarts=100,random_start=true,loss=cross-entropy,x=1";
        let mut rows = vec![
            row(long, Norm::L2, 0.5, 310),
            row(long, Norm::L2, 0.123_456_789, 410),
            row("pgd:steps=20,restarts=5", Norm::L1, 12.5, 300),
        ];
        for row in &mut rows {
            row.model = "/data/models/of/the/team/".repeat(4) + "resnet50.onnx";
            row.gradient_evaluations *= 1_000_000;
            row.seconds *= 20_000.0;
        }
        let text = render(&summary(rows), Style::Plain);
        assert!(widest(&text) <= WIDTH);
        insta::assert_snapshot!(text, @"
        …am//data/models/of/the/team//data/models/of/the/team/resnet50.onnx: 450 samples

        attack norm ε      clean  robust (95 % CI)   success  mean ℓ2  gradients    time
        ────────────────────────────────────────────────────────────────────────────────
        pgd:steps=1000,step_size=0.0078431372549,restarts=100,random_start=true,
            loss=cross-entropy,x=1
               ℓ2   0.50    98.2   68.9 (64.4–73.1)     29.9    3.050      13.3G  19h08m
               ℓ2   0.123   98.2   91.1 (88.1–93.6)      7.2    0.753      16.6G   1d01h

        attack  norm ε     clean  robust (95 % CI)   success  mean ℓ2  gradients    time
        ────────────────────────────────────────────────────────────────────────────────
        pgd:steps=20,restarts=5
                ℓ1   12.5   98.2   66.7 (62.1–71.0)     32.1     76.2      13.0G  18h31m

        In %: clean, robust with its 95 % confidence interval (CI), success.
        ");
    }

    #[test]
    fn escapes_change_nothing_but_the_looks() {
        let styled = render(&usual(), Style::Ansi);
        assert!(styled.contains('\x1b'));
        assert_eq!(without_escapes(&styled), render(&usual(), Style::Plain));
    }

    #[test]
    fn a_summary_without_samples_shows_dashes() {
        let nan = f64::NAN;
        let empty = SummaryRow {
            samples: 0,
            clean_accuracy: nan,
            robust_accuracy: nan,
            robust_accuracy_low: nan,
            robust_accuracy_high: nan,
            attack_success_rate: nan,
            mean_linf: nan,
            gradient_evaluations: 0,
            seconds: 0.0,
            ..row("fgsm", Norm::Linf, 0.5, 442)
        };
        insta::assert_snapshot!(render(&summary(vec![empty]), Style::Plain), @"
        digits.onnx: 0 samples

        attack  norm  ε     clean  robust (95 % CI)  success  mean ℓ∞  gradients  time
        ──────────────────────────────────────────────────────────────────────────────
        fgsm    ℓ∞    0.50      –      –                   –        –          0  0.0s

        In %: clean, robust with its 95 % confidence interval (CI), success.
        ");
        assert_eq!(render(&Summary::default(), Style::Plain), "");
    }
}
