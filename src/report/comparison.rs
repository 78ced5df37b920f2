//! Two evaluations side by side on the terminal: at most 80 columns wide.

use super::Style;
use super::number::percent;
use super::style::Role;
use super::table::{WIDTH, broken, shortened, symbol};
use super::verdict::signed_percent;
use crate::outcome::{Comparison, Norm, Pairing, Side, Summary, p_value_text};

/// The columns after the attack's name.
const COLUMNS: usize = 7;

/// The names of those columns.
const HEADERS: [&str; COLUMNS] = ["norm", "ε", "A", "B", "B − A (95 % CI)", "p", "more robust"];

/// The comparison as a table with a sentence on what it says.
#[must_use]
pub fn render(comparison: &Comparison, style: Style) -> String {
    let samples = comparison
        .pairings
        .first()
        .map_or(0, |pairing| pairing.counts.samples);
    let mut text = String::new();
    for (letter, name) in [("A", &comparison.first), ("B", &comparison.second)] {
        let name = shortened(name, WIDTH - 3);
        text.push_str(&format!("{}: {name}\n", style.paint(Role::Heading, letter)));
    }
    let plural = if samples == 1 { "" } else { "s" };
    text.push_str(&format!("{samples} sample{plural}, paired\n\n"));
    text.push_str(&table(comparison, style));
    text.push('\n');
    for line in [
        "In %: robust accuracy of A and B, difference with its 95 % confidence interval",
        "(Tango's score interval). p: McNemar's exact test on the samples that differ;",
        "each row is tested by itself, and one side is named where p is below 0.05.",
    ] {
        text.push_str(&style.paint(Role::Quiet, line));
        text.push('\n');
    }
    text.push_str(&format!(
        "\n{}\n",
        style.paint(Role::Heading, &moral(comparison))
    ));
    text
}

/// The most samples that are named one by one.
const NAMED: usize = 10;

/// The samples that are robust in A and broken in B, in the worst case of each norm and radius; empty where there are none.
#[must_use]
pub fn render_broken(comparison: &Comparison, summary: &Summary) -> String {
    let mut text = String::new();
    let mut places: Vec<(Norm, u64)> = Vec::new();
    for pairing in &comparison.pairings {
        let place = (pairing.norm, pairing.epsilon.to_bits());
        if places.contains(&place) {
            continue;
        }
        places.push(place);
        let Some(worst) = comparison.worst_case(pairing.norm, pairing.epsilon) else {
            continue;
        };
        if worst.broken.is_empty() {
            continue;
        }
        let named = worst.broken.iter().take(NAMED).map(u64::to_string);
        let mut named = named.collect::<Vec<_>>().join(", ");
        let more = worst.broken.len().saturating_sub(NAMED);
        if more > 0 {
            named.push_str(&format!(" and {more} more"));
        }
        text.push_str(&format!(
            "Breakable now, {} ε {}: {named}\n",
            symbol(pairing.norm),
            super::table::epsilon(summary, pairing.epsilon)
        ));
    }
    text
}

fn table(comparison: &Comparison, style: Style) -> String {
    let lines: Vec<(&Pairing, [String; COLUMNS])> = comparison
        .pairings
        .iter()
        .map(|pairing| (pairing, fields(pairing)))
        .collect();
    let mut widths = HEADERS.map(|header| header.chars().count());
    for (_, fields) in &lines {
        for (width, text) in widths.iter_mut().zip(fields) {
            *width = (*width).max(text.chars().count());
        }
    }
    let room = WIDTH.saturating_sub(widths.iter().sum::<usize>() + COLUMNS);
    let names = lines
        .iter()
        .map(|(pairing, _)| pairing.attack.chars().count());
    let name_width = names
        .filter(|length| *length <= room)
        .max()
        .unwrap_or(0)
        .max("attack".len());
    let row = |name: &str, fields: [&str; COLUMNS]| {
        let mut line = format!("{name:<name_width$}");
        for (position, (field, width)) in fields.into_iter().zip(widths).enumerate() {
            line.push(' ');
            // Numbers stand at the right.
            line.push_str(&match position {
                2 | 3 | 5 => format!("{field:>width$}"),
                _ => format!("{field:<width$}"),
            });
        }
        line.trim_end().to_owned()
    };
    let header = row("attack", HEADERS);
    let rule = "─".repeat(header.chars().count());
    let mut text = format!(
        "{}\n{}\n",
        style.paint(Role::Heading, &header),
        style.paint(Role::Quiet, &rule)
    );
    let mut previous = None;
    for (pairing, fields) in &lines {
        let mut shown = "";
        if previous != Some(&pairing.attack) {
            previous = Some(&pairing.attack);
            if pairing.attack.chars().count() <= name_width {
                shown = &pairing.attack;
            } else {
                for part in broken(&pairing.attack) {
                    text.push_str(&part);
                    text.push('\n');
                }
            }
        }
        text.push_str(&row(shown, fields.each_ref().map(String::as_str)));
        text.push('\n');
    }
    text
}

fn fields(pairing: &Pairing) -> [String; COLUMNS] {
    let interval = pairing.counts.interval();
    let sign = |share: f64| {
        if share > 0.0 {
            format!("+{}", percent(share))
        } else {
            signed_percent(share)
        }
    };
    [
        symbol(pairing.norm).to_owned(),
        super::table::epsilon(&Summary::default(), pairing.epsilon),
        percent(pairing.first_accuracy),
        percent(pairing.second_accuracy),
        format!(
            "{} ({} to {})",
            sign(pairing.counts.difference()),
            sign(interval.low),
            sign(interval.high)
        ),
        p_value_text(pairing.counts.p_value()),
        match pairing.more_robust() {
            Some(Side::First) => "A".to_owned(),
            Some(Side::Second) => "B".to_owned(),
            None => "cannot tell".to_owned(),
        },
    ]
}

/// What the table says in one sentence.
fn moral(comparison: &Comparison) -> String {
    let (mut first, mut second, mut unclear) = (0_usize, 0_usize, 0_usize);
    let mut places: Vec<(Norm, u64)> = Vec::new();
    for pairing in &comparison.pairings {
        let place = (pairing.norm, pairing.epsilon.to_bits());
        if places.contains(&place) {
            continue;
        }
        places.push(place);
        // Of each norm and radius the worst case counts.
        let worst = comparison.worst_case(pairing.norm, pairing.epsilon);
        match worst.and_then(Pairing::more_robust) {
            Some(Side::First) => first += 1,
            Some(Side::Second) => second += 1,
            None => unclear += 1,
        }
    }
    let of = |count: usize| {
        let plural = if places.len() == 1 { "radius" } else { "radii" };
        format!("at {count} of {} {plural}", places.len())
    };
    match (first, second, unclear) {
        (0, 0, _) => "The data cannot tell which is more robust.".to_owned(),
        (first, 0, _) => format!("A is more robust {}.", of(first)),
        (0, second, _) => format!("B is more robust {}.", of(second)),
        (first, second, _) => format!("A is more robust {}, B {}.", of(first), of(second)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Discordance;

    fn pairing(attack: &str, epsilon: f64, first: u64, second: u64) -> Pairing {
        Pairing {
            attack: attack.to_owned(),
            norm: Norm::Linf,
            epsilon,
            first_accuracy: 0.5,
            second_accuracy: 0.5 + (second as f64 - first as f64) / 450.0,
            counts: Discordance {
                samples: 450,
                first_only: first,
                second_only: second,
            },
            broken: (0..first).collect(),
            mended: (first..first + second).collect(),
        }
    }

    fn comparison(pairings: Vec<Pairing>) -> Comparison {
        Comparison {
            first: "reports/".repeat(12) + "standard",
            second: "reports/adversarial".to_owned(),
            pairings,
            unpaired: Vec::new(),
        }
    }

    #[test]
    fn a_comparison_fits_the_width() {
        let long =
            "pgd:steps=1000,step_size=0.0078431372549,restarts=100,random_start=true,loss=margin";
        let text = render(
            &comparison(vec![
                pairing("fgsm", 2.0 / 255.0, 3, 4),
                pairing("fgsm", 8.0 / 255.0, 12, 67),
                pairing(long, 2.0 / 255.0, 0, 0),
                pairing(long, 8.0 / 255.0, 0, 225),
                pairing("worst-case", 2.0 / 255.0, 3, 9),
                pairing("worst-case", 8.0 / 255.0, 0, 225),
            ]),
            Style::Plain,
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        insta::assert_snapshot!(text, @"
        A: …rts/reports/reports/reports/reports/reports/reports/reports/reports/standard
        B: reports/adversarial
        450 samples, paired

        attack     norm ε        A     B B − A (95 % CI)             p more robust
        ──────────────────────────────────────────────────────────────────────────
        fgsm       ℓ∞   2/255 50.0  50.2 +0.2 (−1.2 to +1.7)      1.00 cannot tell
                   ℓ∞   8/255 50.0  62.2 +12.2 (+8.6 to +16.1)  <0.001 B
        pgd:steps=1000,step_size=0.0078431372549,restarts=100,random_start=true,
            loss=margin
                   ℓ∞   2/255 50.0  50.0 0.0 (−0.8 to +0.8)       1.00 cannot tell
                   ℓ∞   8/255 50.0 100.0 +50.0 (+45.4 to +54.6) <0.001 B
        worst-case ℓ∞   2/255 50.0  51.3 +1.3 (−0.2 to +3.2)      0.15 cannot tell
                   ℓ∞   8/255 50.0 100.0 +50.0 (+45.4 to +54.6) <0.001 B

        In %: robust accuracy of A and B, difference with its 95 % confidence interval
        (Tango's score interval). p: McNemar's exact test on the samples that differ;
        each row is tested by itself, and one side is named where p is below 0.05.

        B is more robust at 1 of 2 radii.
        ");
    }

    #[test]
    fn samples_that_broke_are_named_as_far_as_they_are_few() {
        let text = render_broken(
            &comparison(vec![
                pairing("pgd", 0.1, 2, 3),
                pairing("pgd", 0.2, 12, 0),
                pairing("pgd", 0.3, 0, 5),
            ]),
            &Summary::default(),
        );
        assert_eq!(
            text,
            "Breakable now, ℓ∞ ε 0.1: 0, 1\n\
             Breakable now, ℓ∞ ε 0.2: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more\n"
        );
    }

    #[test]
    fn the_sentence_says_which_is_more_robust_or_that_the_data_cannot_tell() {
        let moral = |first: (u64, u64), second: (u64, u64)| {
            moral(&comparison(vec![
                pairing("pgd", 0.1, first.0, first.1),
                pairing("pgd", 0.2, second.0, second.1),
            ]))
        };
        assert_eq!(
            moral((5, 4), (3, 3)),
            "The data cannot tell which is more robust."
        );
        assert_eq!(moral((50, 4), (3, 3)), "A is more robust at 1 of 2 radii.");
        assert_eq!(moral((0, 40), (3, 30)), "B is more robust at 2 of 2 radii.");
        assert_eq!(
            moral((50, 4), (3, 30)),
            "A is more robust at 1 of 2 radii, B at 1 of 2 radii."
        );
    }
}
