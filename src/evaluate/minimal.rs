//! The smallest radius at which each sample breaks: a number that compares models without choosing ε first.
//!
//! Every slot bisects for its own sample: it attacks at the upper end of what is asked for, then in the middle of what is left, and takes
//! the distance of a point that breaks the sample as the new upper end, since that is never more than the radius.
//! Attacks that look for the nearest point by themselves are run once.

use super::engine::{self, Bench, Job};
use super::transfer::{self, Sources};
use super::{
    Config, Error, Gradients, Keep, Observer, Progress, batch, check, judge_clean, rival_count,
    run_of,
};
use crate::attack::Planned;
use crate::data::Dataset;
use crate::model::{GradientGraph, Model};
use crate::outcome::{Accumulator, MinimalRow, WORST_CASE};
use crate::threat::{Distances, Norm};

/// A bracket is narrow where its width is this share of its upper end.
const RELATIVE: f64 = 0.01;

/// Or this share of the whole range: near 0 the relative width would never be reached.
const ABSOLUTE: f64 = 1.0 / 4096.0;

/// What is left of the range in which a sample's smallest radius lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bracket {
    norm: Norm,
    /// The largest radius at which the sample withstood, or the lower end of the range.
    low: f64,
    /// The smallest radius that holds a point that breaks it; infinite before there is one.
    high: f64,
    /// The radius that is tried.
    radius: f64,
    /// A width that needs no narrowing.
    enough: f64,
}

impl Bracket {
    /// The whole range, its upper end tried first.
    pub(super) fn new(norm: Norm, (low, high): (f64, f64)) -> Self {
        Bracket {
            norm,
            low,
            high: f64::INFINITY,
            radius: high,
            enough: (high - low) * ABSOLUTE,
        }
    }

    /// The radius that is tried.
    pub(super) fn radius(&self) -> f64 {
        self.radius
    }

    /// Takes in what became of the sample at the radius, with the distance of the point that broke it; `true` where nothing is left to do.
    pub(super) fn narrow(&mut self, broken_at: Option<Distances>) -> bool {
        match broken_at {
            Some(distances) => {
                let distance = match self.norm {
                    Norm::Linf => distances.linf,
                    Norm::L2 => distances.l2,
                    Norm::L1 => distances.l1,
                    Norm::L0 => distances.l0,
                };
                self.high = distance.min(self.radius);
            }
            None => self.low = self.radius,
        }
        // Below the lower end nothing was asked.
        let width = self.high - self.low;
        if self.high.is_infinite() || width <= self.enough.max(RELATIVE * self.high) {
            return true;
        }
        self.radius = self.low + 0.5 * width;
        false
    }

    /// What was found: the radius withstood, and the smallest that breaks.
    pub(super) fn found(&self) -> (f64, f64) {
        (self.low.min(self.high), self.high)
    }
}

/// What was found for one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub(super) index: u64,
    pub(super) label: u32,
    pub(super) withstood: f64,
    pub(super) minimal: f64,
}

/// Looks for the smallest radius at which each attack breaks each sample, between the two ends of `range`.
///
/// The radii and [`Keep`] of `config` do not count.
/// The rows come attack by attack, in the order of the data, then those of the worst case over the attacks where there are several.
/// `observer` is told of progress alone.
///
/// # Errors
/// As [`evaluate`](super::evaluate), and where the range is none.
pub fn minimal_epsilon(
    model: &Model,
    data: &Dataset,
    config: &Config,
    range: (f64, f64),
    gradient: Option<&GradientGraph>,
    observer: &mut dyn Observer,
) -> Result<Vec<MinimalRow>, Error> {
    let (low, high) = range;
    if !(low >= 0.0 && low < high && high.is_finite()) {
        return Err(Error::Config(
            "the range of radii has to begin at 0 or above, and to end above that".into(),
        ));
    }
    let config = Config {
        epsilons: vec![high],
        keep: Keep::Any,
        ..config.clone()
    };
    check(model, data, &config)?;
    let sources = Sources::open(model, data, &config.attacks)?;
    let mut followed = sources.differentiate(&config)?;
    let mut gradients = Gradients::new(model, gradient, &config);
    let mut judge = model.judge()?;
    let (slots, _) = batch::size(model, &config, &mut gradients, data.len())?;
    let targets = rival_count(&config);
    let (clean, _) = judge_clean(&mut judge, model, data, config.bounds, targets)?;
    let attacks = config.attacks.attacks();
    let mut progress = Progress {
        total: data.len() * attacks.len() as u64,
        ..Progress::default()
    };
    let mut rows: Vec<MinimalRow> = Vec::new();
    let mut worst: Vec<Found> = Vec::new();
    for planned in attacks {
        if let Planned::Ensemble(_) = planned {
            return Err(Error::Config(format!(
                "{} is made for radii that are given, and the search for the smallest one is made with a single attack; use apgd or fab, or \
                 give a ladder of radii with --epsilon",
                planned.label()
            )));
        }
        let Some(attack) = planned.stepping() else {
            return Err(Error::Config(format!(
                "{} needs no gradients, and the search for the smallest radius is made with attacks that follow them; for trees and the like \
                 give a ladder of radii with --epsilon",
                planned.label()
            )));
        };
        let job = Job {
            search: Some(range),
            ..Job::new(model, data, &config, attack.as_ref(), &clean, slots)
        };
        let run = run_of(planned, config.norm, high);
        let mut accumulator = Accumulator::new(String::new(), vec![run])?;
        let bench = &mut Bench {
            judge: &mut judge,
            accumulator: &mut accumulator,
            progress: &mut progress,
            observer: &mut Told(observer),
        };
        let ran = match planned.transfer() {
            Some(transfer) => {
                let job = job.of(transfer.as_ref());
                transfer::find(&mut followed, transfer)?.run(&job, bench)?
            }
            None => engine::run(&job, gradients.get(attack.as_ref())?, bench)?,
        };
        rows.extend(
            ran.found
                .iter()
                .map(|found| row(found, planned.label(), config.norm)),
        );
        worst = match worst.is_empty() {
            true => ran.found,
            false => worst
                .iter()
                .zip(&ran.found)
                .map(|(a, b)| weaker(a, b))
                .collect(),
        };
    }
    if attacks.len() > 1 {
        let all = worst.iter();
        rows.extend(all.map(|found| row(found, WORST_CASE.to_owned(), config.norm)));
    }
    Ok(rows)
}

fn row(found: &Found, attack: String, norm: Norm) -> MinimalRow {
    MinimalRow {
        index: found.index,
        label: found.label,
        attack,
        norm,
        minimal_epsilon: found.minimal,
        withstood: found.withstood,
    }
}

/// The same sample under two attacks: it withstands what it withstands under both.
fn weaker(a: &Found, b: &Found) -> Found {
    Found {
        minimal: a.minimal.min(b.minimal),
        withstood: a.withstood.min(b.withstood),
        ..*a
    }
}

/// Passes progress on, and nothing else: there are no rows of outcomes here.
struct Told<'o>(&'o mut dyn Observer);

impl Observer for Told<'_> {
    fn outcome(&mut self, _: &crate::outcome::SampleOutcome) -> Result<(), super::ObserverError> {
        Ok(())
    }

    fn progress(&mut self, progress: Progress) {
        self.0.progress(progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(linf: f64) -> Option<Distances> {
        Some(Distances {
            linf,
            ..Distances::default()
        })
    }

    #[test]
    fn a_bracket_closes_around_the_true_radius() {
        for truth in [0.003, 0.0999, 0.1, 0.25, 0.2999] {
            let mut bracket = Bracket::new(Norm::Linf, (0.0, 0.3));
            let mut tries = 1;
            while !bracket.narrow(
                (bracket.radius() >= truth)
                    .then(|| at(bracket.radius()))
                    .flatten(),
            ) {
                tries += 1;
            }
            let (low, high) = bracket.found();
            assert!(low <= truth && truth <= high, "{truth}: {bracket:?}");
            assert!(high - low <= (0.01 * high).max(0.3 / 4096.0));
            assert!(tries <= 14, "{tries}");
        }
    }

    #[test]
    fn a_sample_that_withstands_the_upper_end_is_done_at_once() {
        let mut bracket = Bracket::new(Norm::Linf, (0.1, 0.3));
        assert!(bracket.narrow(None));
        assert_eq!(bracket.found(), (0.3, f64::INFINITY));
    }

    #[test]
    fn the_distance_of_a_point_tells_more_than_the_radius() {
        let mut bracket = Bracket::new(Norm::Linf, (0.1, 0.3));
        assert!(!bracket.narrow(at(0.2)));
        assert!((bracket.radius() - 0.15).abs() < 1e-12);
        assert!(
            bracket.narrow(at(0.05)),
            "below the lower end nothing was asked"
        );
        assert_eq!(bracket.found(), (0.05, 0.05));
    }
}
