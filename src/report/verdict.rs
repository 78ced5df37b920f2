//! A gate's verdict on the terminal: a line per check, at most 80 columns wide.

use super::Style;
use super::number::{duration, percent};
use super::style::Role;
use super::table::{WIDTH, epsilon, symbol};
use crate::outcome::{Check, CheckKind, Diagnostic, Estimate, Summary, Verdict};

/// The verdict as a table of checks with a closing sentence; words say what colours do.
#[must_use]
pub fn render(verdict: &Verdict, summary: &Summary, style: Style) -> String {
    let lines: Vec<[String; 3]> = verdict
        .checks
        .iter()
        .map(|check| [subject(check, summary), measured(check), threshold(check)])
        .collect();
    let width = |column: usize| {
        let texts = lines.iter().map(|line| line[column].chars().count());
        texts.max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for (check, [subject, measured, threshold]) in verdict.checks.iter().zip(&lines) {
        let (role, word) = if check.passed {
            (Role::Good, "pass")
        } else {
            (Role::Bad, "FAIL")
        };
        let word = style.paint(role, word);
        let line = format!("{subject:<first$}  {measured:<second$}  {threshold}");
        text.push_str(&format!("{word}  {}\n", line.trim_end()));
        for line in wrapped(&check.note, WIDTH - 6) {
            text.push_str(&format!("      {}\n", style.paint(Role::Quiet, &line)));
        }
    }
    let failures = verdict.failures().count();
    let all = verdict.checks.len();
    let plural = if all == 1 { "" } else { "s" };
    let (role, sentence) = if failures == 0 {
        (Role::Good, format!("The gate passed: {all} check{plural}."))
    } else {
        let sentence = format!("The gate failed: {failures} of {all} check{plural}.");
        (Role::Bad, sentence)
    };
    text.push_str(&format!("\n{}\n", style.paint(role, &sentence)));
    text
}

/// What a check is about, in a few words: `robust accuracy, ℓ∞ ε 8/255`.
#[must_use]
pub fn subject(check: &Check, summary: &Summary) -> String {
    let name = match check.kind {
        CheckKind::CleanAccuracy => "clean accuracy",
        CheckKind::RobustAccuracy => "robust accuracy",
        CheckKind::Drop => "drop",
        CheckKind::Seconds => "time",
        CheckKind::Trust => "doubtful numbers",
    };
    match (check.norm, check.epsilon) {
        (Some(norm), Some(radius)) => {
            format!("{name}, {} ε {}", symbol(norm), epsilon(summary, radius))
        }
        _ => name.to_owned(),
    }
}

/// What was measured, with its interval.
pub(super) fn measured(check: &Check) -> String {
    let number = number(check.kind, check.measured);
    match (check.low, check.high) {
        (Some(low), Some(high)) if !low.is_nan() && check.estimate == Estimate::Point => {
            format!(
                "{number} ({} to {})",
                signed_percent(low),
                signed_percent(high)
            )
        }
        (Some(_), Some(_)) => format!("{number}, the cautious end"),
        _ => number,
    }
}

/// `≥ 40.0 %`
pub(super) fn threshold(check: &Check) -> String {
    format!(
        "{} {}",
        check.sense.symbol(),
        number(check.kind, check.threshold)
    )
}

fn number(kind: CheckKind, value: f64) -> String {
    match kind {
        CheckKind::Seconds => duration(value),
        CheckKind::Trust => format!("{value:.0}"),
        _ => format!("{} %", signed_percent(value)),
    }
}

/// A share in percent, that of a drop with its sign.
pub(super) fn signed_percent(share: f64) -> String {
    if share < 0.0 {
        format!("−{}", percent(-share))
    } else {
        percent(share)
    }
}

/// Diagnostics as paragraphs of at most 80 columns, the grave ones first; empty where there is none.
#[must_use]
pub fn render_diagnostics(diagnostics: &[Diagnostic], style: Style) -> String {
    let mut text = String::new();
    let (grave, other): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        diagnostics.iter().partition(|found| found.untrustworthy);
    for found in grave.into_iter().chain(other) {
        let (role, mark) = if found.untrustworthy {
            (Role::Bad, "! not to be trusted")
        } else {
            (Role::Heading, "· note")
        };
        text.push_str(&format!(
            "{} [{}]\n",
            style.paint(role, mark),
            found.kind.id()
        ));
        let about = found
            .attack
            .as_ref()
            .map_or(String::new(), |attack| format!("{attack}: "));
        let sentence = format!("{about}{}; {}.", found.finding, found.advice);
        for line in wrapped(&sentence, WIDTH - 2) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// A text in lines of at most that many characters, broken at spaces, and within words that are longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        words.extend(letters.chunks(width.max(1)).map(String::from_iter));
    }
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::style::without_escapes;
    use super::super::table::fixtures::summary;
    use super::*;
    use crate::outcome::{DiagnosticKind, Norm, Sense};

    fn check(kind: CheckKind, measured: f64, threshold: f64, sense: Sense) -> Check {
        Check {
            kind,
            norm: None,
            epsilon: None,
            estimate: Estimate::Point,
            measured,
            low: None,
            high: None,
            sense,
            threshold,
            passed: sense.holds(measured, threshold),
            note: String::new(),
        }
    }

    fn verdict() -> Verdict {
        let at = |kind, measured, threshold, sense| Check {
            norm: Some(Norm::Linf),
            epsilon: Some(8.0 / 255.0),
            low: Some(measured - 0.02),
            high: Some(measured + 0.02),
            ..check(kind, measured, threshold, sense)
        };
        Verdict {
            checks: vec![
                check(CheckKind::CleanAccuracy, 0.982, 0.95, Sense::AtLeast),
                at(CheckKind::RobustAccuracy, 0.125, 0.4, Sense::AtLeast),
                Check {
                    estimate: Estimate::Bound,
                    ..at(CheckKind::RobustAccuracy, 0.105, 0.1, Sense::AtLeast)
                },
                Check {
                    note: "12 became breakable, 30 no longer are; p = 0.01".to_owned(),
                    ..at(CheckKind::Drop, -0.018, 0.02, Sense::AtMost)
                },
                check(CheckKind::Seconds, 3.2, 600.0, Sense::AtMost),
                Check {
                    note: "flat-loss, large-epsilon-survivors, unstable-output, single-step-stronger, zero-gradients".to_owned(),
                    ..check(CheckKind::Trust, 1.0, 0.0, Sense::AtMost)
                },
            ],
        }
    }

    #[test]
    fn a_verdict_fits_the_width() {
        let text = render(&verdict(), &summary(Vec::new()), Style::Plain);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        insta::assert_snapshot!(text, @"
        pass  clean accuracy               98.2 %                    ≥ 95.0 %
        FAIL  robust accuracy, ℓ∞ ε 8/255  12.5 % (10.5 to 14.5)     ≥ 40.0 %
        pass  robust accuracy, ℓ∞ ε 8/255  10.5 %, the cautious end  ≥ 10.0 %
        pass  drop, ℓ∞ ε 8/255             −1.8 % (−3.8 to 0.2)      ≤ 2.0 %
              12 became breakable, 30 no longer are; p = 0.01
        pass  time                         3.2s                      ≤ 10m00s
        FAIL  doubtful numbers             1                         ≤ 0
              flat-loss, large-epsilon-survivors, unstable-output, single-step-stronger,
              zero-gradients

        The gate failed: 2 of 6 checks.
        ");
        let passed = Verdict {
            checks: verdict().checks[..1].to_vec(),
        };
        assert!(
            render(&passed, &summary(Vec::new()), Style::Plain)
                .ends_with("The gate passed: 1 check.\n")
        );
    }

    #[test]
    fn escapes_change_nothing_but_the_looks() {
        let styled = render(&verdict(), &summary(Vec::new()), Style::Ansi);
        assert!(styled.contains('\x1b'));
        assert_eq!(
            without_escapes(&styled),
            render(&verdict(), &summary(Vec::new()), Style::Plain)
        );
    }

    #[test]
    fn diagnostics_say_what_was_seen_and_what_to_do() {
        let found = |untrustworthy| Diagnostic {
            kind: DiagnosticKind::ZeroGradients,
            attack: Some("pgd:steps=20".to_owned()),
            norm: None,
            epsilons: Vec::new(),
            figure: 0.125,
            finding: "12.5 % of the samples count as robust although their gradient was zero"
                .to_owned(),
            advice: "try loss=margin".to_owned(),
            untrustworthy,
        };
        let text = render_diagnostics(&[found(false), found(true)], Style::Plain);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        insta::assert_snapshot!(text, @"
        ! not to be trusted [zero-gradients]
          pgd:steps=20: 12.5 % of the samples count as robust although their gradient
          was zero; try loss=margin.
        · note [zero-gradients]
          pgd:steps=20: 12.5 % of the samples count as robust although their gradient
          was zero; try loss=margin.
        ");
        assert_eq!(render_diagnostics(&[], Style::Plain), "");
    }
}
