//! Smallest radii on the terminal: the median and quantiles over all samples, a row per attack.

use super::Style;
use super::number::magnitude;
use super::style::Role;
use super::table::{WIDTH, shortened, symbol};
use crate::outcome::{MinimalRow, Norm, quantile};

/// The shares whose quantiles are shown, and what they are called.
const SHARES: [(f64, &str); 5] = [
    (0.1, "10 %"),
    (0.25, "25 %"),
    (0.5, "median"),
    (0.75, "75 %"),
    (0.9, "90 %"),
];

/// The width of a number's column.
const NUMBER: usize = 9;

/// A table of quantiles; empty for no rows.
#[must_use]
pub fn render(rows: &[MinimalRow], style: Style) -> String {
    let mut groups: Vec<(&str, Norm, Vec<f64>)> = Vec::new();
    for row in rows {
        let same = |group: &&mut (&str, Norm, Vec<f64>)| {
            (group.0, group.1) == (row.attack.as_str(), row.norm)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.2.push(row.minimal_epsilon),
            None => groups.push((&row.attack, row.norm, vec![row.minimal_epsilon])),
        }
    }
    if groups.is_empty() {
        return String::new();
    }
    let width = WIDTH - SHARES.len() * NUMBER;
    let mut header = format!("{:<width$}", "smallest ε that breaks a sample");
    for (_, name) in SHARES {
        header.push_str(&format!("{name:>NUMBER$}"));
    }
    let mut text = format!(
        "{}\n{}\n",
        style.paint(Role::Heading, &header),
        style.paint(Role::Quiet, &"─".repeat(WIDTH))
    );
    for (attack, norm, values) in &groups {
        let name = format!("{} {}", shortened(attack, width - 4), symbol(*norm));
        text.push_str(&format!("{name:<width$}"));
        for (share, _) in SHARES {
            text.push_str(&format!("{:>NUMBER$}", radius(quantile(values, share))));
        }
        text.push('\n');
    }
    let note = "Of all samples, those that are wrong clean at 0; ∞: not broken within the range.";
    text.push_str(&format!("\n{}\n", style.paint(Role::Quiet, note)));
    text
}

fn radius(value: f64) -> String {
    if value.is_infinite() {
        "∞".to_owned()
    } else {
        magnitude(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_fit_the_width() {
        let row = |attack: &str, index: u64, minimal_epsilon| MinimalRow {
            index,
            label: 0,
            attack: attack.to_owned(),
            norm: Norm::Linf,
            minimal_epsilon,
            withstood: 0.0,
        };
        let long = "pgd:steps=1000,step_size=0.0078431372549,restarts=100,loss=margin";
        let mut rows = Vec::new();
        for index in 0..20 {
            let value = index as f64 / 50.0;
            rows.push(row(
                "fgsm",
                index,
                if index > 16 { f64::INFINITY } else { value },
            ));
            rows.push(row(long, index, 0.5 * value));
        }
        let text = render(&rows, Style::Plain);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        insta::assert_snapshot!(text, @"
        smallest ε that breaks a sample         10 %     25 %   median     75 %     90 %
        ────────────────────────────────────────────────────────────────────────────────
        fgsm ℓ∞                               0.0200   0.0800    0.180    0.280        ∞
        …72549,restarts=100,loss=margin ℓ∞    0.0100   0.0400   0.0900    0.140    0.170

        Of all samples, those that are wrong clean at 0; ∞: not broken within the range.
        ");
        assert_eq!(render(&[], Style::Plain), "");
    }
}
