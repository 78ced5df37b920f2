//! What one slot works on: one sample under one attack, through every ε and every restart.

use super::source::Item;
use super::{Clean, Keep};
use crate::model::Verdict;
use crate::threat::{Distances, distances};

/// What one ε came to for one sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) prediction: u32,
    pub(super) loss: f64,
    pub(super) robust: bool,
    pub(super) distances: Distances,
    pub(super) steps: u64,
    pub(super) restart: u32,
    /// Whether a gradient was zero in every element.
    pub(super) dead: bool,
    /// Whether a gradient was NaN or infinite.
    pub(super) not_finite: bool,
}

/// A sample's way through the radii and restarts of one attack.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) index: u64,
    pub(super) label: u32,
    /// What the model says of the sample as it is.
    pub(super) verdict: Clean,
    pub(super) clean: Vec<f32>,
    /// The data that it comes from, where an inner tensor is perturbed; empty elsewhere.
    pub(super) data: Vec<f32>,
    /// The position of the current ε.
    pub(super) epsilon: usize,
    pub(super) restart: u32,
    /// Gradient steps done in this restart.
    pub(super) step: u32,
    /// Gradient steps done at this ε.
    steps: u64,
    /// Whether a gradient at this ε was zero in every element.
    dead: bool,
    /// Whether a gradient at this ε was NaN or infinite.
    not_finite: bool,
    /// The reported point at this ε, so far: the one with the largest loss of those that were judged.
    best: Option<Cell>,
    /// The ε that are done.
    pub(super) cells: Vec<Cell>,
}

/// What a slot does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Goes on from the next point.
    Continue,
    /// Starts again: another restart or another ε.
    Begin,
    /// Everything about the sample is known.
    Finished,
}

impl Chain {
    /// A sample that nothing is known of yet.
    pub(super) fn new(item: &Item<'_>, verdict: Clean) -> Self {
        Chain {
            index: item.index,
            label: item.label,
            verdict,
            clean: item.clean.to_vec(),
            epsilon: 0,
            restart: 0,
            step: 0,
            steps: 0,
            dead: false,
            not_finite: false,
            best: None,
            cells: Vec::new(),
            data: item.data.to_vec(),
        }
    }

    /// Counts a gradient evaluation.
    pub(super) fn count(&mut self) {
        self.step += 1;
        self.steps += 1;
    }

    /// Notes that the gradient was zero in every element.
    pub(super) fn stall(&mut self) {
        self.dead = true;
    }

    /// Gives this restart of so many steps up: the gradient is none, and so is every step along it.
    pub(super) fn give_up(&mut self, steps: u32) {
        self.not_finite = true;
        self.step = steps;
    }

    /// Notes a judged point; `true` where it breaks the sample.
    pub(super) fn judged(&mut self, point: &[f32], verdict: Verdict) -> bool {
        let broken = verdict.prediction != self.label;
        let better = self.best.is_none_or(|best| {
            if best.robust == broken {
                broken
            } else {
                verdict.loss > best.loss
            }
        });
        if better {
            self.best = Some(Cell {
                prediction: verdict.prediction,
                loss: verdict.loss,
                robust: !broken,
                distances: distances(&self.clean, point),
                steps: 0,
                restart: self.restart,
                dead: false,
                not_finite: false,
            });
        }
        broken
    }

    /// Whether a judged point at this ε breaks the sample.
    pub(super) fn is_broken(&self) -> bool {
        self.best.is_some_and(|best| !best.robust)
    }

    /// Decides what comes next, of `epsilons` radii, `restarts` restarts and `steps` steps each.
    pub(super) fn turn(&mut self, keep: Keep, epsilons: usize, restarts: u32, steps: u32) -> Turn {
        let broken = self.is_broken();
        let over = self.step == steps || (broken && keep == Keep::Any);
        if !over {
            return Turn::Continue;
        }
        self.step = 0;
        if !broken && self.restart + 1 < restarts {
            self.restart += 1;
            return Turn::Begin;
        }
        self.close_cell();
        if broken && keep == Keep::Any {
            // A point in this ball is in every larger one.
            if let Some(last) = self.cells.last().copied() {
                self.cells.resize(epsilons, Cell { steps: 0, ..last });
            }
        }
        self.restart = 0;
        self.epsilon = self.cells.len();
        if self.epsilon < epsilons {
            Turn::Begin
        } else {
            Turn::Finished
        }
    }

    fn close_cell(&mut self) {
        if let Some(best) = self.best.take() {
            self.cells.push(Cell {
                steps: self.steps,
                dead: self.dead,
                not_finite: self.not_finite,
                ..best
            });
        }
        self.steps = 0;
        (self.dead, self.not_finite) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Verdict = Verdict {
        prediction: 1,
        loss: 0.1,
    };
    const WRONG: Verdict = Verdict {
        prediction: 2,
        loss: 3.0,
    };

    fn chain() -> Chain {
        let verdict = Clean {
            prediction: 1,
            loss: 0.1,
        };
        let item = Item {
            index: 0,
            position: 0,
            label: 1,
            clean: &[0.0],
            data: &[],
        };
        Chain::new(&item, verdict)
    }

    #[test]
    fn a_sample_broken_at_one_radius_is_broken_at_every_larger_one() {
        let mut chain = chain();
        chain.count();
        assert!(chain.judged(&[0.5], WRONG));
        assert_eq!(chain.turn(Keep::Any, 3, 1, 10), Turn::Finished);
        assert_eq!(
            chain
                .cells
                .iter()
                .map(|cell| (cell.robust, cell.steps))
                .collect::<Vec<_>>(),
            [(false, 1), (false, 0), (false, 0)]
        );
    }

    #[test]
    fn what_is_wrong_with_gradients_is_noted_at_its_radius_alone() {
        let mut chain = chain();
        chain.count();
        chain.stall();
        chain.judged(&[0.1], RIGHT);
        assert_eq!(chain.turn(Keep::Any, 3, 1, 1), Turn::Begin);
        chain.count();
        chain.give_up(5);
        chain.judged(&[0.2], RIGHT);
        assert_eq!(chain.turn(Keep::Any, 3, 1, 5), Turn::Begin, "the restart is over");
        chain.count();
        chain.judged(&[0.3], RIGHT);
        assert_eq!(chain.turn(Keep::Any, 3, 1, 1), Turn::Finished);
        let notes: Vec<(bool, bool)> = chain
            .cells
            .iter()
            .map(|cell| (cell.dead, cell.not_finite))
            .collect();
        assert_eq!(notes, [(true, false), (false, true), (false, false)]);
    }

    #[test]
    fn judging_last_points_alone_spares_no_radius() {
        let mut chain = chain();
        chain.count();
        chain.judged(&[0.5], WRONG);
        assert_eq!(chain.turn(Keep::Last, 2, 1, 1), Turn::Begin);
        assert_eq!(chain.epsilon, 1);
    }

    #[test]
    fn restarts_follow_only_where_the_sample_still_stands() {
        let mut chain = chain();
        chain.count();
        assert!(!chain.judged(&[0.5], RIGHT));
        assert_eq!(chain.turn(Keep::Any, 1, 2, 1), Turn::Begin);
        assert_eq!((chain.epsilon, chain.restart), (0, 1));
        chain.count();
        chain.judged(&[0.25], RIGHT);
        assert_eq!(chain.turn(Keep::Any, 1, 2, 1), Turn::Finished);
        assert_eq!(chain.cells[0].steps, 2);
    }

    #[test]
    fn the_reported_point_has_the_largest_loss_and_a_broken_one_goes_first() {
        let mut chain = chain();
        chain.judged(
            &[0.1],
            Verdict {
                prediction: 1,
                loss: 5.0,
            },
        );
        chain.judged(
            &[0.2],
            Verdict {
                prediction: 1,
                loss: 1.0,
            },
        );
        assert!((chain.best.unwrap().loss - 5.0).abs() < 1e-12);
        chain.judged(
            &[0.3],
            Verdict {
                prediction: 0,
                loss: 0.5,
            },
        );
        assert!(!chain.best.unwrap().robust);
        chain.judged(
            &[0.4],
            Verdict {
                prediction: 1,
                loss: 9.0,
            },
        );
        assert!(!chain.best.unwrap().robust);
    }
}
