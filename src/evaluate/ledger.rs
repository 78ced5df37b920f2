//! What is handed on: outcomes in the order of the data, whatever the order in which samples are done.

use super::chain::{Cell, Chain};
use super::crew::Broken;
use super::diagnose::Tally;
use super::minimal::Found;
use super::{Adversarial, Clean, Config, Error, Observer, Progress};
use crate::outcome::{Accumulator, SampleOutcome};
use std::collections::BTreeMap;

/// Brings the outcomes into the order of the data and hands them on.
pub(super) struct Ledger<'a, 'o> {
    pub(super) config: &'a Config,
    pub(super) label: &'o str,
    pub(super) accumulator: &'o mut Accumulator,
    pub(super) progress: &'o mut Progress,
    pub(super) observer: &'o mut dyn Observer,
    /// Samples that are done while an earlier one is not.
    pub(super) waiting: BTreeMap<u64, Vec<SampleOutcome>>,
    /// The first sample that was not handed on yet.
    pub(super) next: Option<u64>,
    /// What diagnostics are made from, one for each ε.
    pub(super) tallies: Vec<Tally>,
    /// Whether the smallest radius of each sample is looked for, instead of an outcome at each that is given.
    pub(super) searches: bool,
    /// Whether the attack looks for the nearest point, wherever it is.
    pub(super) nearest: bool,
    /// How many steps a sample may take at one ε, where it is done as soon as it is broken; else 0.
    pub(super) budget: u64,
    /// How many restarts a sample may take at one ε, where each is the same attack again; else 0.
    pub(super) restarts: u32,
    /// The smallest radii, where they are looked for, in the order in which samples are done.
    pub(super) found: Vec<Found>,
    /// Whether the attack is part of an ensemble, which hands outcomes on by itself.
    pub(super) ensemble: bool,
    /// What the samples of an ensemble came to, in the order in which they are done.
    pub(super) results: Vec<(u64, Vec<Cell>)>,
}

impl<'a, 'o> Ledger<'a, 'o> {
    /// Nothing handed on yet, of an attack at given radii that is no part of an ensemble.
    pub(super) fn new(
        config: &'a Config,
        label: &'o str,
        accumulator: &'o mut Accumulator,
        progress: &'o mut Progress,
        observer: &'o mut dyn Observer,
    ) -> Self {
        Ledger {
            config,
            label,
            accumulator,
            progress,
            observer,
            waiting: BTreeMap::new(),
            next: None,
            tallies: vec![Tally::default(); config.epsilons.len()],
            searches: false,
            nearest: false,
            budget: 0,
            restarts: 0,
            found: Vec::new(),
            ensemble: false,
            results: Vec::new(),
        }
    }
}

impl Ledger<'_, '_> {
    /// A sample that the model gets wrong as it is: never attacked, never robust.
    pub(super) fn wrong_clean(
        &mut self,
        index: u64,
        label: u32,
        clean: Clean,
    ) -> Result<(), Error> {
        if self.searches {
            return self.found(index, label, (0.0, 0.0));
        }
        let cells = vec![Cell::wrong(clean); self.config.epsilons.len()];
        let outcomes = self.outcomes(index, label, clean, &cells);
        self.hand_on(index, outcomes)
    }

    /// A sample whose chain is done.
    pub(super) fn finished(&mut self, chain: &Chain) -> Result<(), Error> {
        if self.ensemble {
            let broken = chain.cells.iter().any(|cell| !cell.robust);
            let at_every = chain.cells.first().is_some_and(|cell| !cell.robust);
            let is_first = chain.open == self.config.epsilons.len();
            self.progress.broken += u64::from(broken && is_first);
            self.progress.done += u64::from(at_every);
            self.results.push((chain.index, chain.cells.clone()));
            self.observer.progress(*self.progress);
            return Ok(());
        }
        if let Some(bracket) = &chain.bracket {
            let (withstood, minimal) = bracket.found();
            self.progress.broken += u64::from(minimal.is_finite());
            return self.found(chain.index, chain.label, (withstood, minimal));
        }
        self.progress.broken += u64::from(chain.cells.iter().any(|cell| !cell.robust));
        self.count(chain.verdict, &chain.cells);
        let outcomes = self.outcomes(chain.index, chain.label, chain.verdict, &chain.cells);
        self.hand_on(chain.index, outcomes)
    }

    /// Counts what diagnostics are made from.
    pub(super) fn count(&mut self, clean: Clean, cells: &[Cell]) {
        for (tally, cell) in self.tallies.iter_mut().zip(cells) {
            tally.dead += u64::from(cell.dead && cell.robust);
            tally.not_finite += u64::from(cell.not_finite && cell.robust);
            // A search for the nearest point reports the clean sample where it finds none.
            let rises = self.nearest || cell.loss > clean.loss;
            tally.flat += u64::from(cell.robust && !rises);
            tally.late += u64::from(!cell.robust && is_late(cell.steps, self.budget));
            // Without steps of its own it was broken at a smaller radius.
            let attacked = !cell.robust && cell.steps > 0;
            tally.last += u64::from(attacked && is_last(cell.restart, self.restarts));
        }
    }

    /// What is reported of a sample.
    pub(super) fn outcomes(
        &self,
        index: u64,
        label: u32,
        clean: Clean,
        cells: &[Cell],
    ) -> Vec<SampleOutcome> {
        let cells = self.config.epsilons.iter().zip(cells);
        cells
            .map(|(&epsilon, cell)| self.outcome(index, label, clean, epsilon, cell))
            .collect()
    }

    /// The seconds that each ε took.
    pub(super) fn add_seconds(&mut self, seconds: &[f64]) -> Result<(), Error> {
        for (&epsilon, &spent) in self.config.epsilons.iter().zip(seconds) {
            self.accumulator
                .add_seconds(self.label, self.config.norm, epsilon, spent)?;
        }
        Ok(())
    }

    /// A sample whose smallest radius is known.
    fn found(
        &mut self,
        index: u64,
        label: u32,
        (withstood, minimal): (f64, f64),
    ) -> Result<(), Error> {
        self.found.push(Found {
            index,
            label,
            withstood,
            minimal,
        });
        self.hand_on(index, Vec::new())
    }

    fn outcome(
        &self,
        index: u64,
        label: u32,
        clean: Clean,
        epsilon: f64,
        cell: &Cell,
    ) -> SampleOutcome {
        SampleOutcome {
            index,
            label,
            clean_prediction: clean.prediction,
            attack: self.label.to_owned(),
            norm: self.config.norm,
            epsilon,
            adversarial_prediction: cell.prediction,
            robust: cell.robust,
            clean_loss: clean.loss,
            loss: cell.loss,
            linf: cell.distances.linf,
            l2: cell.distances.l2,
            l1: cell.distances.l1,
            l0: cell.distances.l0,
            steps: cell.steps,
            restart: cell.restart,
        }
    }

    /// A point that breaks a sample.
    pub(super) fn adversarial(&mut self, broken: &Broken) -> Result<(), Error> {
        let found = Adversarial {
            index: broken.index,
            label: broken.label,
            prediction: broken.prediction,
            attack: self.label,
            norm: self.config.norm,
            epsilon: broken.epsilon,
            point: &broken.point,
        };
        self.observer.adversarial(&found).map_err(Error::Observer)
    }

    /// Hands on every sample that is done and has none before it that is not.
    fn hand_on(&mut self, index: u64, outcomes: Vec<SampleOutcome>) -> Result<(), Error> {
        self.waiting.insert(index, outcomes);
        self.progress.done += 1;
        while let Some(ready) = self.next.and_then(|next| self.waiting.remove(&next)) {
            self.deliver(&ready)?;
            self.next = self.next.map(|next| next + 1);
        }
        self.observer.progress(*self.progress);
        Ok(())
    }

    /// Adds up and tells.
    pub(super) fn deliver(&mut self, outcomes: &[SampleOutcome]) -> Result<(), Error> {
        for outcome in outcomes {
            self.accumulator.add(outcome)?;
            self.observer.outcome(outcome).map_err(Error::Observer)?;
        }
        Ok(())
    }
}

/// Whether so many steps are in the last tenth of the budget; of fewer than ten steps there is none.
fn is_late(steps: u64, budget: u64) -> bool {
    budget >= 10 && steps > budget - budget / 10
}

/// Whether a restart, counted from 0, is the last of several.
fn is_last(restart: u32, restarts: u32) -> bool {
    restarts >= 2 && restart + 1 >= restarts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_restart_is_not_the_last_of_several() {
        let last = |restarts| (0..restarts).filter(|&r| is_last(r, restarts)).count();
        assert_eq!([0, 1, 2, 5].map(last), [0, 0, 1, 1]);
        assert!(is_last(4, 5) && !is_last(3, 5));
    }

    #[test]
    fn the_last_tenth_of_a_budget_is_late() {
        let late = |budget| (0..=budget).filter(|&steps| is_late(steps, budget)).count();
        assert_eq!((late(0), late(9), late(10), late(40)), (0, 0, 1, 4));
        assert!(is_late(37, 40) && !is_late(36, 40));
    }
}
