//! Robustness curves side by side, in text: which model is robust, at a glance.

use super::Style;
use super::number::percent;
use super::style::Role;
use super::table::{WIDTH, epsilon, shortened, symbol};
use crate::outcome::{Norm, Summary, SummaryRow};

/// One model's curve.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// What the chart calls the model.
    pub name: &'a str,
    /// Its rows.
    pub summary: &'a Summary,
}

/// Between two models' columns.
const GAP: usize = 3;
/// `100.0`
const NUMBER: usize = 5;

/// A bar per attack, ε and model: the longer, the more samples stay right. At most 80 columns, for up to four models.
///
/// Attacks and radii are those of any of the models, in the order of the first that has them; a model without such a row has a dash
/// there. The first row of each group is the clean accuracy.
#[must_use]
pub fn render(series: &[Series<'_>], style: Style) -> String {
    let groups = groups(series);
    if groups.is_empty() {
        return String::new();
    }
    let label_width = groups
        .iter()
        .flat_map(|group| &group.epsilons)
        .map(|(_, label)| label.chars().count())
        .max()
        .unwrap_or(0)
        .max(CLEAN.len());
    let indent = 2 + label_width;
    let cell_width = ((WIDTH - indent) / series.len()).saturating_sub(GAP);
    let bar_width = cell_width.saturating_sub(NUMBER + 1).max(1);
    let cell_width = bar_width + 1 + NUMBER;

    let mut text = format!(
        "{}\n\n{:indent$}",
        style.paint(Role::Heading, "Accuracy in % under attack, by ε"),
        ""
    );
    for (position, one) in series.iter().enumerate() {
        let name = shortened(one.name, cell_width);
        let padding = cell_width - name.chars().count();
        text.push_str(&" ".repeat(GAP));
        text.push_str(&style.paint(Role::Series(position), &name));
        text.push_str(&" ".repeat(padding));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for group in &groups {
        let title = shortened(&group.attack, WIDTH - 4);
        let title = format!("{title}, {}", symbol(group.norm));
        text.push('\n');
        text.push_str(&style.paint(Role::Heading, &title));
        text.push('\n');
        let mut line = |label: &str, share: &dyn Fn(&Series<'_>) -> f64| {
            let mut line = format!("  {label:<label_width$}");
            for (position, one) in series.iter().enumerate() {
                let share = share(one);
                line.push_str(&" ".repeat(GAP));
                line.push_str(&style.paint(Role::Series(position), &bar(share, bar_width)));
                line.push_str(&format!(" {:>NUMBER$}", percent(share)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        };
        line(CLEAN, &|one| {
            group
                .row(one, None)
                .map_or(f64::NAN, |row| row.clean_accuracy)
        });
        for (epsilon, label) in &group.epsilons {
            line(label, &|one| {
                group
                    .row(one, Some(*epsilon))
                    .map_or(f64::NAN, |row| row.robust_accuracy)
            });
        }
    }
    text
}

const CLEAN: &str = "clean";

/// One attack in one norm.
struct Group {
    attack: String,
    norm: Norm,
    /// Each ε with its label, ascending.
    epsilons: Vec<(f64, String)>,
}

impl Group {
    /// A model's row of this group at that ε, or at any.
    fn row<'a>(&self, series: &Series<'a>, epsilon: Option<f64>) -> Option<&'a SummaryRow> {
        series.summary.rows.iter().find(|row| {
            row.attack == self.attack
                && row.norm == self.norm
                && epsilon.is_none_or(|epsilon| row.epsilon.to_bits() == epsilon.to_bits())
        })
    }
}

fn groups(series: &[Series<'_>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for one in series {
        for row in &one.summary.rows {
            let known = groups
                .iter()
                .position(|group| group.attack == row.attack && group.norm == row.norm);
            let position = known.unwrap_or_else(|| {
                groups.push(Group {
                    attack: row.attack.clone(),
                    norm: row.norm,
                    epsilons: Vec::new(),
                });
                groups.len() - 1
            });
            let epsilons = &mut groups[position].epsilons;
            if !epsilons
                .iter()
                .any(|(value, _)| value.to_bits() == row.epsilon.to_bits())
            {
                let label = format!("ε {}", epsilon(one.summary, row.epsilon));
                epsilons.push((row.epsilon, label));
            }
        }
    }
    for group in &mut groups {
        group
            .epsilons
            .sort_by(|(left, _), (right, _)| left.total_cmp(right));
    }
    groups
}

/// A bar in eighths of a character, padded to `width`; a share above 0 shows at least one eighth.
fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if share.is_nan() {
        0.0
    } else {
        share.clamp(0.0, 1.0)
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 8 times the width"
    )]
    let eighths = (share * (8 * width) as f64).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    format!("{bar:<width$}")
}

#[cfg(test)]
mod tests {
    use super::super::table::fixtures::{row, summary};
    use super::*;
    use crate::report::style::without_escapes;

    fn summaries() -> [Summary; 2] {
        let curve = |counts: [u64; 5]| {
            summary(vec![
                row("fgsm", Norm::Linf, 8.0 / 255.0, counts[1]),
                row("fgsm", Norm::Linf, 2.0 / 255.0, counts[0]),
                row(
                    "pgd:steps=20,restarts=5",
                    Norm::Linf,
                    2.0 / 255.0,
                    counts[2],
                ),
                row(
                    "pgd:steps=20,restarts=5",
                    Norm::Linf,
                    8.0 / 255.0,
                    counts[3],
                ),
                row("pgd", Norm::L2, 0.5, counts[4]),
            ])
        };
        let mut summaries = [
            curve([420, 317, 401, 1, 200]),
            curve([440, 431, 438, 402, 391]),
        ];
        // One model was not attacked in l2.
        summaries[1].rows.pop();
        summaries
    }

    fn chart(style: Style) -> String {
        let [left, right] = &summaries();
        let series = [
            Series {
                name: "normal training",
                summary: left,
            },
            Series {
                name: "models/digits-trained-adversarially-with-pgd.onnx",
                summary: right,
            },
        ];
        render(&series, style)
    }

    #[test]
    fn two_models_side_by_side() {
        let text = chart(Style::Plain);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        insta::assert_snapshot!(text, @"
        Accuracy in % under attack, by ε

                    normal training                    …ned-adversarially-with-pgd.onnx

        fgsm, ℓ∞
          clean     █████████████████████████▌  98.2   █████████████████████████▌  98.2
          ε 2/255   ████████████████████████▎   93.3   █████████████████████████▍  97.8
          ε 8/255   ██████████████████▍         70.4   ████████████████████████▉   95.8

        pgd:steps=20,restarts=5, ℓ∞
          clean     █████████████████████████▌  98.2   █████████████████████████▌  98.2
          ε 2/255   ███████████████████████▏    89.1   █████████████████████████▎  97.3
          ε 8/255   ▏                            0.2   ███████████████████████▎    89.3

        pgd, ℓ2
          clean     █████████████████████████▌  98.2                                  –
          ε 0.50    ███████████▌                44.4                                  –
        ");
    }

    #[test]
    fn escapes_change_nothing_but_the_looks() {
        let styled = chart(Style::Ansi);
        assert!(styled.contains('\x1b'));
        assert_eq!(without_escapes(&styled), chart(Style::Plain));
    }

    #[test]
    fn one_to_four_models_fit_the_width() {
        let [left, _] = &summaries();
        for count in 1..=4 {
            let series = vec![
                Series {
                    name: "a-model-with-a-long-name.onnx",
                    summary: left
                };
                count
            ];
            let text = render(&series, Style::Plain);
            assert!(
                text.lines().all(|line| line.chars().count() <= WIDTH),
                "{text}"
            );
        }
        assert_eq!(render(&[], Style::Plain), "");
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(0.0, 4), "    ");
        assert_eq!(bar(0.0001, 4), "▏   ");
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(0.53125, 4), "██▏ ");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(f64::NAN, 4), "    ");
    }
}
