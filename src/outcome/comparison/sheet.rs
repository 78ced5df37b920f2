//! What became of every sample of one evaluation.

use super::super::{Norm, SampleOutcome, WORST_CASE};
use super::ComparisonError;
use std::ops::Range;

/// What became of each sample in one evaluation, without how.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    pub(super) columns: Vec<Column>,
    /// The column of the latest outcome, where the search for the next one starts.
    latest: usize,
}

/// One attack at one ε.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) attack: String,
    pub(super) norm: Norm,
    pub(super) epsilon: f64,
    /// In the order of the data once the sheet is [sorted](Sheet::sort).
    pub(super) marks: Vec<Mark>,
}

/// One sample under one attack at one ε.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) index: u64,
    pub(super) label: u32,
    pub(super) robust: bool,
}

impl Column {
    pub(super) fn is(&self, attack: &str, norm: Norm, epsilon: f64) -> bool {
        self.epsilon.to_bits() == epsilon.to_bits() && self.norm == norm && self.attack == attack
    }
}

impl Sheet {
    /// A sheet of the outcomes of one evaluation.
    #[must_use]
    pub fn new() -> Self {
        Sheet::default()
    }

    /// Notes one outcome; they may come in any order.
    pub fn add(&mut self, outcome: &SampleOutcome) {
        let SampleOutcome {
            attack,
            norm,
            epsilon,
            ..
        } = outcome;
        let is = |column: &Column| column.is(attack, *norm, *epsilon);
        if !self.columns.get(self.latest).is_some_and(is) {
            self.latest = self.columns.iter().position(is).unwrap_or_else(|| {
                self.columns.push(Column {
                    attack: attack.clone(),
                    norm: *norm,
                    epsilon: *epsilon,
                    marks: Vec::new(),
                });
                self.columns.len() - 1
            });
        }
        self.columns[self.latest].marks.push(Mark {
            index: outcome.index,
            label: outcome.label,
            robust: outcome.robust,
        });
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Refuses a sheet that an evaluation of these attacks on these samples could not be compared with, before it is run.
    ///
    /// # Errors
    /// Where one of the attacks, each with its norm and ε, is missing, or is not about just those samples.
    pub fn require(
        &self,
        name: &str,
        attacks: &[(String, Norm, f64)],
        samples: Range<u64>,
    ) -> Result<(), ComparisonError> {
        for (attack, norm, epsilon) in attacks {
            let mut columns = self.columns.iter();
            let Some(column) = columns.find(|column| column.is(attack, *norm, *epsilon)) else {
                return Err(ComparisonError::Missing {
                    name: name.to_owned(),
                    cell: format!("{attack} {norm} {epsilon}"),
                    cells: self.cells(),
                });
            };
            let low = column.marks.iter().map(|mark| mark.index).min();
            let high = column.marks.iter().map(|mark| mark.index).max();
            let count = column.marks.len() as u64;
            let (low, end) = (
                low.unwrap_or(0),
                high.map_or(0, |high| high.saturating_add(1)),
            );
            if (low..end, count) != (samples.clone(), samples.end - samples.start) {
                return Err(ComparisonError::OtherRange {
                    name: name.to_owned(),
                    count,
                    first: low,
                    last: end.saturating_sub(1),
                    expected: samples.end - samples.start,
                    expected_first: samples.start,
                    expected_last: samples.end.saturating_sub(1),
                });
            }
        }
        Ok(())
    }

    pub(super) fn sort(&mut self) {
        for column in &mut self.columns {
            column.marks.sort_unstable();
        }
    }

    /// The attacks and radii, as `pgd linf 0.1`.
    pub(super) fn cells(&self) -> String {
        let cells = self.columns.iter();
        let texts: Vec<String> = cells
            .map(|column| format!("{} {} {}", column.attack, column.norm, column.epsilon))
            .collect();
        texts.join(", ")
    }

    /// A column of what is robust under every one of the columns at those positions, which have the same samples.
    pub(super) fn worst(&self, positions: &[usize]) -> Option<Column> {
        let (first, rest) = positions.split_first()?;
        let mut column = self.columns.get(*first)?.clone();
        WORST_CASE.clone_into(&mut column.attack);
        for position in rest {
            let others = &self.columns.get(*position)?.marks;
            for (mark, other) in column.marks.iter_mut().zip(others) {
                mark.robust &= other.robust;
            }
        }
        Some(column)
    }
}
