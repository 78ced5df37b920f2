//! Two evaluations of the same samples, side by side.
//!
//! Start at [`Comparison::new`]; each side is a [`Sheet`] of what became of every sample.

mod error;
mod rows;
mod sheet;

use super::Norm;
use super::paired::Discordance;
pub use error::ComparisonError;
pub use rows::{ChangeRow, ComparisonRow};
use sheet::Column;
pub use sheet::Sheet;
use std::collections::BTreeSet;

/// A test refuses chance where its p-value is below this.
const SIGNIFICANCE: f64 = 0.05;

/// Which of two evaluations is the more robust one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    First,
    /// The second.
    Second,
}

/// The two evaluations under one attack at one ε; `worst-case` where it is over all attacks that both have.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairing {
    /// The attack's name with its parameters, or [`WORST_CASE`](super::WORST_CASE).
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius of the ball.
    pub epsilon: f64,
    /// The share of samples that is robust in the first.
    pub first_accuracy: f64,
    /// The share of samples that is robust in the second.
    pub second_accuracy: f64,
    /// The counts behind it.
    pub counts: Discordance,
    /// The samples that are robust in the first and not in the second, ascending.
    pub broken: Vec<u64>,
    /// The samples that are robust in the second and not in the first, ascending.
    pub mended: Vec<u64>,
}

impl Pairing {
    /// The more robust side; none where McNemar's exact test at 5 % cannot tell.
    #[must_use]
    pub fn more_robust(&self) -> Option<Side> {
        if self.counts.p_value() >= SIGNIFICANCE {
            None
        } else if self.counts.first_only > self.counts.second_only {
            Some(Side::First)
        } else {
            Some(Side::Second)
        }
    }
}

/// Two evaluations, sample by sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What the first evaluation is called.
    pub first: String,
    /// What the second evaluation is called.
    pub second: String,
    /// One for each attack × norm × ε that both have, in the order of the first; then one over all of them for each norm × ε that has more
    /// than one.
    pub pairings: Vec<Pairing>,
    /// Attacks that only one of the two has at a norm and ε that both have, each as `pgd linf 0.1`.
    pub unpaired: Vec<String>,
}

impl Comparison {
    /// Compares two evaluations, each with its name.
    ///
    /// # Errors
    /// Where they have nothing in common, or where what they have in common is not about the same samples with the same labels.
    pub fn new(
        (first, mut a): (&str, Sheet),
        (second, mut b): (&str, Sheet),
    ) -> Result<Self, ComparisonError> {
        for (name, sheet) in [(first, &mut a), (second, &mut b)] {
            if sheet.is_empty() {
                return Err(ComparisonError::Empty {
                    name: name.to_owned(),
                });
            }
            sheet.sort();
            once(name, sheet)?;
        }
        let position = |sheet: &Sheet, one: &Column| {
            let mut columns = sheet.columns.iter();
            columns.position(|other| other.is(&one.attack, one.norm, one.epsilon))
        };
        let common: Vec<(usize, usize)> = a
            .columns
            .iter()
            .enumerate()
            .filter_map(|(here, column)| Some((here, position(&b, column)?)))
            .collect();
        if common.is_empty() {
            return Err(ComparisonError::NothingInCommon {
                first: first.to_owned(),
                second: second.to_owned(),
                first_cells: a.cells(),
                second_cells: b.cells(),
            });
        }
        let mut pairings = Vec::with_capacity(common.len());
        for &(here, there) in &common {
            let pair = (&a.columns[here], &b.columns[there]);
            pairings.push(pairing((first, pair.0), (second, pair.1))?);
        }
        let mut seen = BTreeSet::new();
        for &(here, _) in &common {
            let (norm, epsilon) = (a.columns[here].norm, a.columns[here].epsilon);
            if !seen.insert((norm.name(), epsilon.to_bits())) {
                continue;
            }
            let same = common.iter().filter(|(here, _)| {
                let column = &a.columns[*here];
                column.norm == norm && column.epsilon.to_bits() == epsilon.to_bits()
            });
            let (left, right): (Vec<usize>, Vec<usize>) = same.copied().unzip();
            if left.len() > 1
                && let (Some(left), Some(right)) = (a.worst(&left), b.worst(&right))
            {
                pairings.push(pairing((first, &left), (second, &right))?);
            }
        }
        let alone = |sheet: &Sheet, other: &Sheet| -> Vec<String> {
            let columns = sheet.columns.iter();
            columns
                .filter(|column| position(other, column).is_none())
                .map(|column| format!("{} {} {}", column.attack, column.norm, column.epsilon))
                .collect()
        };
        let mut unpaired = alone(&a, &b);
        unpaired.extend(alone(&b, &a));
        Ok(Comparison {
            first: first.to_owned(),
            second: second.to_owned(),
            pairings,
            unpaired,
        })
    }

    /// The pairing of the worst case at a norm and ε: over all attacks, or the only one there is.
    #[must_use]
    pub fn worst_case(&self, norm: Norm, epsilon: f64) -> Option<&Pairing> {
        let at = |pairing: &&Pairing| {
            pairing.norm == norm && pairing.epsilon.to_bits() == epsilon.to_bits()
        };
        self.pairings.iter().rfind(at)
    }
}

/// Refuses a sample that a column has twice.
fn once(name: &str, sheet: &Sheet) -> Result<(), ComparisonError> {
    for column in &sheet.columns {
        let twice = column
            .marks
            .windows(2)
            .find(|pair| matches!(pair, [a, b] if a.index == b.index));
        if let Some([mark, ..]) = twice {
            return Err(ComparisonError::Repeated {
                name: name.to_owned(),
                index: mark.index,
                attack: column.attack.clone(),
                norm: column.norm,
                epsilon: column.epsilon,
            });
        }
    }
    Ok(())
}

/// Compares two columns of the same attack.
fn pairing(
    (first, a): (&str, &Column),
    (second, b): (&str, &Column),
) -> Result<Pairing, ComparisonError> {
    let missing = |index, only: &str| ComparisonError::OtherSamples {
        first: first.to_owned(),
        second: second.to_owned(),
        index,
        only: only.to_owned(),
        attack: a.attack.clone(),
        norm: a.norm,
        epsilon: a.epsilon,
    };
    let (mut broken, mut mended) = (Vec::new(), Vec::new());
    let (mut robust_first, mut robust_second) = (0_u64, 0_u64);
    for (mark, other) in a.marks.iter().zip(&b.marks) {
        if mark.index != other.index {
            let only = if mark.index < other.index {
                first
            } else {
                second
            };
            return Err(missing(mark.index.min(other.index), only));
        }
        if mark.label != other.label {
            return Err(ComparisonError::OtherLabels {
                first: first.to_owned(),
                second: second.to_owned(),
                index: mark.index,
                first_label: mark.label,
                second_label: other.label,
            });
        }
        robust_first += u64::from(mark.robust);
        robust_second += u64::from(other.robust);
        match (mark.robust, other.robust) {
            (true, false) => broken.push(mark.index),
            (false, true) => mended.push(mark.index),
            _ => {}
        }
    }
    let common = a.marks.len().min(b.marks.len());
    if let Some(mark) = a.marks.get(common) {
        return Err(missing(mark.index, first));
    }
    if let Some(mark) = b.marks.get(common) {
        return Err(missing(mark.index, second));
    }
    let share = |robust: u64| robust as f64 / common as f64;
    Ok(Pairing {
        attack: a.attack.clone(),
        norm: a.norm,
        epsilon: a.epsilon,
        first_accuracy: share(robust_first),
        second_accuracy: share(robust_second),
        counts: Discordance {
            samples: common as u64,
            first_only: broken.len() as u64,
            second_only: mended.len() as u64,
        },
        broken,
        mended,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{SampleOutcome, WORST_CASE};
    use super::*;

    fn outcome(attack: &str, epsilon: f64, index: u64, robust: bool) -> SampleOutcome {
        SampleOutcome {
            index,
            label: 1,
            clean_prediction: 1,
            attack: attack.to_owned(),
            norm: Norm::Linf,
            epsilon,
            adversarial_prediction: u32::from(robust),
            robust,
            clean_loss: 0.1,
            loss: 1.0,
            linf: epsilon,
            l2: epsilon,
            l1: epsilon,
            l0: 1.0,
            steps: 1,
            restart: 0,
        }
    }

    /// A sheet from texts such as `pgd 0.1 ++--`: robust or not, sample by sample from 0.
    fn sheet(columns: &[(&str, f64, &str)]) -> Sheet {
        let mut sheet = Sheet::new();
        for (attack, epsilon, marks) in columns {
            for (index, mark) in marks.chars().enumerate() {
                sheet.add(&outcome(attack, *epsilon, index as u64, mark == '+'));
            }
        }
        sheet
    }

    fn refusal(a: Sheet, b: Sheet) -> String {
        Comparison::new(("A", a), ("B", b)).unwrap_err().to_string()
    }

    #[test]
    fn samples_are_paired_whatever_their_order() {
        let a = sheet(&[("pgd", 0.1, "++++++-")]);
        let mut b = Sheet::new();
        for (index, robust) in [(6, true), (0, true), (5, false), (4, false), (3, false)] {
            b.add(&outcome("pgd", 0.1, index, robust));
        }
        b.add(&outcome("pgd", 0.1, 1, false));
        b.add(&outcome("pgd", 0.1, 2, false));
        let comparison = Comparison::new(("A", a), ("B", b)).unwrap();
        let [pairing] = &comparison.pairings[..] else {
            panic!("{comparison:?}");
        };
        assert_eq!(pairing.broken, [1, 2, 3, 4, 5]);
        assert_eq!(pairing.mended, [6]);
        assert_eq!(pairing.counts.samples, 7);
        assert_eq!(pairing.more_robust(), None, "p = 14/64");
    }

    #[test]
    fn the_more_robust_side_is_named_where_the_test_can_tell() {
        let (a, b) = (
            sheet(&[("pgd", 0.1, "++++++")]),
            sheet(&[("pgd", 0.1, "------")]),
        );
        let there = Comparison::new(("A", a.clone()), ("B", b.clone())).unwrap();
        assert_eq!(there.pairings[0].more_robust(), Some(Side::First));
        let back = Comparison::new(("B", b), ("A", a)).unwrap();
        assert_eq!(back.pairings[0].more_robust(), Some(Side::Second));
    }

    #[test]
    fn the_worst_case_is_over_the_attacks_that_both_have() {
        let a = sheet(&[
            ("fgsm", 0.1, "++-"),
            ("pgd", 0.1, "+-+"),
            ("fab", 0.1, "---"),
        ]);
        let b = sheet(&[
            ("pgd", 0.1, "+++"),
            ("fgsm", 0.1, "+++"),
            ("pgd", 0.2, "+++"),
        ]);
        let comparison = Comparison::new(("A", a), ("B", b)).unwrap();
        assert_eq!(comparison.unpaired, ["fab linf 0.1", "pgd linf 0.2"]);
        let worst = comparison.worst_case(Norm::Linf, 0.1).unwrap();
        assert_eq!(worst.attack, WORST_CASE);
        assert_eq!(worst.mended, [1, 2]);
        assert!(comparison.worst_case(Norm::L2, 0.1).is_none());
    }

    #[test]
    fn a_baseline_of_other_attacks_or_samples_is_refused_beforehand() {
        let baseline = sheet(&[("pgd", 0.1, "++-")]);
        let refusal = |epsilon, samples| {
            let attacks = [("pgd".to_owned(), Norm::Linf, epsilon)];
            baseline
                .require("old", &attacks, samples)
                .map_err(|error| error.to_string())
        };
        assert_eq!(refusal(0.1, 0..3), Ok(()));
        assert!(
            refusal(0.2, 0..3)
                .unwrap_err()
                .contains("has no pgd linf 0.2")
        );
        for samples in [0..4, 1..4, 0..2] {
            let message = refusal(0.1, samples).unwrap_err();
            assert!(
                message.contains("is about 3 samples from 0 to 2"),
                "{message}"
            );
        }
    }

    #[test]
    fn other_samples_labels_norms_and_radii_are_refused() {
        let a = || sheet(&[("pgd", 0.1, "+++")]);
        assert_eq!(
            refusal(a(), sheet(&[("pgd", 0.2, "+++")])),
            "A and B have no attack at the same norm and epsilon in common: the first has pgd linf 0.1, the second pgd linf 0.2; \
             evaluate both with the same --attack, --norm and --epsilon"
        );
        assert!(refusal(a(), sheet(&[("pgd", 0.1, "++")])).contains("sample 2 is only in A"));
        let mut later = Sheet::new();
        for index in 1..4 {
            later.add(&outcome("pgd", 0.1, index, true));
        }
        assert!(refusal(later, a()).contains("sample 0 is only in B"));
        let mut relabelled = Sheet::new();
        for index in 0..3 {
            relabelled.add(&SampleOutcome {
                label: index as u32,
                ..outcome("pgd", 0.1, index, true)
            });
        }
        assert!(refusal(a(), relabelled).contains("sample 0 has label 1 in the first and 0"));
        assert!(refusal(a(), Sheet::new()).starts_with("B has no rows"));
        let mut twice = a();
        twice.add(&outcome("pgd", 0.1, 1, true));
        assert!(refusal(twice, a()).starts_with("A has sample 1 twice under pgd, norm linf"));
    }
}
