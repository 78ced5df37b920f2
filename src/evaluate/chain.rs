//! What one slot works on: one sample under one attack, through every ε and every restart.

use super::minimal::Bracket;
use super::source::Item;
use super::{Clean, Keep};
use crate::attack::Goal;
use crate::model::Verdict;
use crate::threat::{Distances, Norm, distances};

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

impl Cell {
    /// What a sample comes to that is wrong as it is.
    pub(super) fn wrong(clean: Clean) -> Self {
        Cell {
            prediction: clean.prediction,
            loss: clean.loss,
            robust: false,
            distances: Distances::default(),
            steps: 0,
            restart: 0,
            dead: false,
            not_finite: false,
        }
    }
}

/// The nearest misclassified point that was judged.
#[derive(Debug, Clone)]
pub(super) struct Nearest {
    pub(super) cell: Cell,
    pub(super) point: Vec<f32>,
    /// In the norm of the threat model.
    pub(super) distance: f64,
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
    /// How many ε are asked about, from the smallest; no more than there are.
    pub(super) open: usize,
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
    /// The classes that restarts may go toward, in their order.
    rivals: Vec<u32>,
    /// Where the attack looks for the nearest point: what it has found.
    pub(super) nearest: Option<Nearest>,
    /// Where the smallest radius is looked for: what is left of its range.
    pub(super) bracket: Option<Bracket>,
}

/// How an attack goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace<'a> {
    pub(super) goal: Goal,
    pub(super) keep: Keep,
    pub(super) epsilons: &'a [f64],
    pub(super) restarts: u32,
    pub(super) steps: u32,
    /// The classes that restarts go toward, 0 for none in particular.
    pub(super) targets: u32,
    /// The distance at which a search for the nearest point ends.
    pub(super) near_enough: Option<f64>,
    /// Whether a sample is done with its first misclassified point.
    pub(super) ends_when_found: bool,
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
            open: usize::MAX,
            epsilon: 0,
            restart: 0,
            step: 0,
            steps: 0,
            dead: false,
            not_finite: false,
            best: None,
            cells: Vec::new(),
            data: item.data.to_vec(),
            rivals: Vec::new(),
            nearest: None,
            bracket: None,
        }
    }

    /// The radius that is attacked at.
    pub(super) fn radius(&self, epsilons: &[f64]) -> f64 {
        match &self.bracket {
            Some(bracket) => bracket.radius(),
            None => epsilons[self.epsilon],
        }
    }

    /// The same with the classes that restarts may go toward.
    pub(super) fn toward(self, rivals: &[u32]) -> Self {
        Chain {
            rivals: rivals.to_vec(),
            ..self
        }
    }

    /// The class that an attack goes toward, of so many: one in each restart, or one in each step where they take turns.
    ///
    /// The label where it goes toward none.
    pub(super) fn target(&self, targets: u32, in_turn: bool) -> u32 {
        let count = if in_turn { self.step } else { self.restart };
        let place = count.checked_rem(targets);
        let target = place.and_then(|place| self.rivals.get(place as usize));
        target.copied().unwrap_or(self.label)
    }

    /// The next restart whose target the model has.
    fn next_restart(&self, pace: &Pace) -> Option<u32> {
        let has_target = |restart: &u32| match restart.checked_rem(pace.targets) {
            Some(place) => (place as usize) < self.rivals.len(),
            None => true,
        };
        (self.restart + 1..pace.restarts).find(has_target)
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

    /// Whether a point could be nearer than the nearest so far.
    pub(super) fn is_nearer(&self, norm: Norm, point: &[f32]) -> bool {
        let distance = norm.distance(&self.clean, point);
        let nearest = self.nearest.as_ref();
        nearest.is_none_or(|nearest| distance < nearest.distance)
    }

    /// Notes a judged point of an attack that looks for the nearest one.
    pub(super) fn judged_nearest(&mut self, norm: Norm, point: Vec<f32>, verdict: Verdict) {
        if verdict.prediction == self.label || !self.is_nearer(norm, &point) {
            return;
        }
        self.nearest = Some(Nearest {
            cell: Cell {
                prediction: verdict.prediction,
                loss: verdict.loss,
                robust: false,
                distances: distances(&self.clean, &point),
                steps: 0,
                restart: self.restart,
                dead: false,
                not_finite: false,
            },
            distance: norm.distance(&self.clean, &point),
            point,
        });
    }

    /// Whether a judged point at this ε breaks the sample.
    pub(super) fn is_broken(&self) -> bool {
        self.best.is_some_and(|best| !best.robust)
    }

    /// Decides what comes next.
    pub(super) fn turn(&mut self, pace: &Pace) -> Turn {
        let epsilons = pace.epsilons.get(..self.open).unwrap_or(pace.epsilons);
        let (keep, count) = (pace.keep, epsilons.len());
        let broken = self.is_broken();
        let nearest = self.nearest.as_ref().zip(pace.near_enough);
        let is_near = nearest.is_some_and(|(nearest, enough)| nearest.distance <= enough);
        let found = is_near || (pace.ends_when_found && self.nearest.is_some());
        let over = self.step == pace.steps || found || (broken && keep == Keep::Any);
        if !over {
            return Turn::Continue;
        }
        self.step = 0;
        if !broken
            && !found
            && let Some(restart) = self.next_restart(pace)
        {
            self.restart = restart;
            return Turn::Begin;
        }
        if pace.goal == Goal::MinimumNorm {
            self.close_nearest(epsilons);
            if let (Some(bracket), Some(cell)) = (&mut self.bracket, self.cells.last()) {
                // One search tells all that there is; what it did not find, it did not withstand.
                let _ = bracket.narrow((!cell.robust).then_some(cell.distances));
            }
            return Turn::Finished;
        }
        self.close_cell();
        if let Some(bracket) = &mut self.bracket {
            self.restart = 0;
            let cell = self.cells.pop();
            let broken = cell.filter(|cell| !cell.robust);
            return if bracket.narrow(broken.map(|cell| cell.distances)) {
                Turn::Finished
            } else {
                Turn::Begin
            };
        }
        if broken && keep == Keep::Any {
            // A point in this ball is in every larger one.
            if let Some(last) = self.cells.last().copied() {
                self.cells.resize(count, Cell { steps: 0, ..last });
            }
        }
        self.restart = 0;
        self.epsilon = self.cells.len();
        if self.epsilon < count {
            Turn::Begin
        } else {
            Turn::Finished
        }
    }

    /// A radius is broken where it reaches the nearest point; at a smaller one, the sample stands as it is.
    fn close_nearest(&mut self, epsilons: &[f64]) {
        let standing = Cell {
            prediction: self.verdict.prediction,
            loss: self.verdict.loss,
            robust: true,
            distances: Distances::default(),
            steps: 0,
            restart: 0,
            dead: self.dead,
            not_finite: self.not_finite,
        };
        let nearest = self.nearest.as_ref();
        let cells = epsilons.iter().map(|&epsilon| {
            let found = nearest.filter(|nearest| nearest.distance <= epsilon);
            found.map_or(standing, |nearest| nearest.cell)
        });
        self.cells = cells.collect();
        // The steps were taken once, for all radii.
        if let Some(last) = self.cells.last_mut() {
            last.steps = self.steps;
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

    const RADII: [f64; 3] = [0.1, 0.2, 0.4];

    fn pace(keep: Keep, epsilons: usize, restarts: u32, steps: u32) -> Pace<'static> {
        Pace {
            goal: Goal::Radius,
            keep,
            epsilons: &RADII[..epsilons],
            restarts,
            steps,
            targets: 0,
            near_enough: None,
            ends_when_found: false,
        }
    }

    #[test]
    fn the_nearest_point_breaks_every_radius_that_reaches_it_and_no_other() {
        let mut chain = chain();
        let pace = Pace {
            goal: Goal::MinimumNorm,
            ..pace(Keep::Any, 3, 1, 2)
        };
        chain.count();
        chain.judged_nearest(Norm::Linf, vec![0.3], WRONG);
        assert_eq!(chain.turn(&pace), Turn::Continue);
        chain.count();
        chain.judged_nearest(Norm::Linf, vec![0.15], WRONG);
        chain.judged_nearest(Norm::Linf, vec![0.05], RIGHT);
        chain.judged_nearest(Norm::Linf, vec![0.35], WRONG);
        assert_eq!(chain.turn(&pace), Turn::Finished);
        let found: Vec<_> = chain
            .cells
            .iter()
            .map(|cell| (cell.robust, cell.distances.linf, cell.steps))
            .collect();
        let distance = f64::from(0.15_f32);
        assert_eq!(
            found,
            [(true, 0.0, 0), (false, distance, 0), (false, distance, 2)]
        );
    }

    #[test]
    fn in_an_ensemble_a_search_ends_with_a_point_in_the_smallest_radius() {
        let mut chain = chain();
        chain.open = 2;
        let pace = Pace {
            goal: Goal::MinimumNorm,
            near_enough: Some(RADII[0]),
            ..pace(Keep::Any, 3, 4, 5)
        };
        chain.count();
        chain.judged_nearest(Norm::Linf, vec![0.15], WRONG);
        assert_eq!(chain.turn(&pace), Turn::Continue, "0.1 may break yet");
        chain.count();
        chain.judged_nearest(Norm::Linf, vec![0.1], WRONG);
        // 0.1 in float32 is a little more than in float64.
        assert_eq!(chain.turn(&pace), Turn::Continue);
        chain.count();
        chain.judged_nearest(Norm::Linf, vec![0.09], WRONG);
        assert_eq!(chain.turn(&pace), Turn::Finished);
        let found: Vec<bool> = chain.cells.iter().map(|cell| cell.robust).collect();
        assert_eq!(found, [false, false], "the third was broken before");
    }

    #[test]
    fn restarts_go_toward_the_classes_in_order_and_leave_out_those_that_are_not_there() {
        let mut chain = chain().toward(&[7, 4]);
        let pace = Pace {
            targets: 3,
            ..pace(Keep::Any, 1, 6, 1)
        };
        let mut targets = vec![chain.target(3, false)];
        loop {
            chain.count();
            chain.judged(&[0.5], RIGHT);
            if chain.turn(&pace) == Turn::Finished {
                break;
            }
            targets.push(chain.target(3, false));
        }
        assert_eq!(targets, [7, 4, 7, 4]);
    }

    #[test]
    fn targets_that_take_turns_change_with_each_step() {
        let mut chain = chain().toward(&[7, 4]);
        let mut targets = Vec::new();
        for _ in 0..4 {
            targets.push(chain.target(2, true));
            chain.count();
        }
        assert_eq!(targets, [7, 4, 7, 4]);
    }

    #[test]
    fn an_attack_that_ends_when_it_has_found_something_does_not_go_on() {
        let mut chain = chain();
        let pace = Pace {
            goal: Goal::MinimumNorm,
            ends_when_found: true,
            ..pace(Keep::Any, 1, 3, 9)
        };
        chain.count();
        assert_eq!(chain.turn(&pace), Turn::Continue);
        chain.count();
        chain.judged_nearest(Norm::Linf, vec![0.05], WRONG);
        assert_eq!(chain.turn(&pace), Turn::Finished);
        assert_eq!((chain.cells[0].robust, chain.cells[0].steps), (false, 2));
    }

    #[test]
    fn a_sample_broken_at_one_radius_is_broken_at_every_larger_one() {
        let mut chain = chain();
        chain.count();
        assert!(chain.judged(&[0.5], WRONG));
        assert_eq!(chain.turn(&pace(Keep::Any, 3, 1, 10)), Turn::Finished);
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
        assert_eq!(chain.turn(&pace(Keep::Any, 3, 1, 1)), Turn::Begin);
        chain.count();
        chain.give_up(5);
        chain.judged(&[0.2], RIGHT);
        assert_eq!(
            chain.turn(&pace(Keep::Any, 3, 1, 5)),
            Turn::Begin,
            "the restart is over"
        );
        chain.count();
        chain.judged(&[0.3], RIGHT);
        assert_eq!(chain.turn(&pace(Keep::Any, 3, 1, 1)), Turn::Finished);
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
        assert_eq!(chain.turn(&pace(Keep::Last, 2, 1, 1)), Turn::Begin);
        assert_eq!(chain.epsilon, 1);
    }

    #[test]
    fn restarts_follow_only_where_the_sample_still_stands() {
        let mut chain = chain();
        chain.count();
        assert!(!chain.judged(&[0.5], RIGHT));
        assert_eq!(chain.turn(&pace(Keep::Any, 1, 2, 1)), Turn::Begin);
        assert_eq!((chain.epsilon, chain.restart), (0, 1));
        chain.count();
        chain.judged(&[0.25], RIGHT);
        assert_eq!(chain.turn(&pace(Keep::Any, 1, 2, 1)), Turn::Finished);
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
