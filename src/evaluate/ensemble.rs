//! An ensemble: attacks one after the other, each on what those before it left, reported as one.
//!
//! Each attack is run at every ε at which a sample still stands, the smallest first; what is broken at one ε is so at every larger one.

use super::chain::Cell;
use super::engine::{self, Bench, Job, Ran};
use super::ledger::Ledger;
use super::source::Source;
use super::{Clean, Config, Error, Gradients, Keep, queries};
use crate::attack::{AutoAttack, Planned, Stage};
use std::collections::BTreeMap;

/// Runs the attacks over all samples.
pub(super) fn run(
    job: &Job<'_, AutoAttack>,
    gradients: &mut Gradients<'_>,
    bench: &mut Bench<'_>,
) -> Result<Ran, Error> {
    let config = Config {
        keep: Keep::Any,
        ..job.config.clone()
    };
    let label = job.attack.label();
    let mut samples = samples(job)?;
    let done = bench.progress.done;
    bench.progress.done += samples.values().filter(|sample| sample.open == 0).count() as u64;
    let mut ran = Ran::default();
    let mut restarts = 0;
    let stages = job.attack.stages(config.norm);
    for (position, stage) in stages.iter().enumerate() {
        let standing = samples.iter().filter(|(_, sample)| sample.open > 0);
        let open: BTreeMap<u64, usize> = standing.map(|(&i, sample)| (i, sample.open)).collect();
        if open.is_empty() && position > 0 {
            break;
        }
        let job = Job {
            config: &config,
            ensemble: Some(engine::Ensemble {
                label: &label,
                open: &open,
            }),
            ..*job
        };
        let came = match &stage.attack {
            Planned::Gradient(attack) => engine::run(
                &job.of(attack.as_ref()),
                gradients.get(attack.as_ref())?,
                bench,
            )?,
            Planned::Query(attack) => queries::run(&job.of(attack.as_ref()), bench)?,
            // None has another in it, or goes by another model.
            Planned::Ensemble(_) | Planned::Transfer(_) => continue,
        };
        ran.setup_seconds += came.setup_seconds;
        ran.runtime_seconds += came.runtime_seconds;
        ran.notes.extend(came.notes);
        for (index, cells) in came.results {
            if let Some(sample) = samples.get_mut(&index) {
                sample.merge(position, stage, restarts, &cells);
            }
        }
        restarts += stage.attack.restarts(config.norm);
    }
    ran.notes.extend(notes(job, &stages, &samples));
    let mut ledger = Ledger::new(
        &config,
        &label,
        bench.accumulator,
        bench.progress,
        bench.observer,
    );
    for (&index, sample) in &samples {
        if sample.is_right() {
            ledger.count(sample.clean, &sample.cells);
        }
        let outcomes = ledger.outcomes(index, sample.label, sample.clean, &sample.cells);
        ledger.deliver(&outcomes)?;
    }
    ran.tallies = ledger.tallies;
    bench.progress.done = done + samples.len() as u64;
    bench.observer.progress(*bench.progress);
    Ok(ran)
}

/// What is known of one sample.
#[derive(Debug)]
struct Sample {
    label: u32,
    clean: Clean,
    /// One for each ε, after the first attack.
    cells: Vec<Cell>,
    /// At how many ε it still stands, from the smallest.
    open: usize,
    /// The position of the attack that broke it, by ε.
    broken_by: Vec<Option<usize>>,
}

/// Every sample in the order of the data; those that are wrong clean are done.
fn samples(job: &Job<'_, AutoAttack>) -> Result<BTreeMap<u64, Sample>, Error> {
    let count = job.config.epsilons.len();
    let mut source = Source::new(job.model, job.data, job.config.bounds)?.first(job.most);
    let mut samples = BTreeMap::new();
    while let Some(item) = source.next()? {
        let Some((clean, _)) = job.clean.get(item.position) else {
            return Err(Error::Config(
                "the data set has grown while it was evaluated".into(),
            ));
        };
        let mut sample = Sample {
            label: item.label,
            clean,
            cells: Vec::new(),
            open: count,
            broken_by: vec![None; count],
        };
        if !sample.is_right() {
            sample.open = 0;
            sample.cells = vec![Cell::wrong(clean); count];
        }
        samples.insert(item.index, sample);
    }
    Ok(samples)
}

impl Sample {
    /// Whether the model gets it right as it is.
    fn is_right(&self) -> bool {
        self.clean.prediction == self.label
    }

    /// Takes in what it came to under an attack, before whose first restart the ensemble had so many.
    fn merge(&mut self, position: usize, stage: &Stage, restarts: u32, cells: &[Cell]) {
        let follows = stage.attack.gradient().is_some();
        for (place, cell) in cells.iter().enumerate() {
            let new = Cell {
                restart: cell.restart + restarts,
                steps: if follows { cell.steps } else { 0 },
                ..*cell
            };
            let Some(known) = self.cells.get_mut(place) else {
                self.cells.push(new);
                continue;
            };
            let better = !new.robust || new.loss > known.loss;
            *known = Cell {
                steps: known.steps + new.steps,
                // What one attack that follows gradients could use, was there.
                dead: known.dead && (new.dead || !follows),
                not_finite: known.not_finite && (new.not_finite || !follows),
                ..if better { new } else { *known }
            };
        }
        let broken = cells.iter().position(|cell| !cell.robust);
        if let Some(first) = broken {
            for by in self.broken_by.iter_mut().take(self.open).skip(first) {
                *by = Some(position);
            }
            self.open = first;
        }
    }
}

/// How many samples each attack broke, and what is another than usual.
fn notes(
    job: &Job<'_, AutoAttack>,
    stages: &[Stage],
    samples: &BTreeMap<u64, Sample>,
) -> Vec<String> {
    let Config {
        norm, ref epsilons, ..
    } = *job.config;
    let label = job.attack.label();
    let classes = job.model.classes();
    let variant = classes.and_then(|classes| job.attack.variant(norm, classes));
    let counts = epsilons.iter().enumerate().map(|(place, epsilon)| {
        let broke = stages.iter().enumerate().map(|(position, stage)| {
            let by = |sample: &&Sample| sample.broken_by.get(place) == Some(&Some(position));
            let count = samples.values().filter(by).count();
            format!("{count} by {}", stage.name)
        });
        let broke: Vec<String> = broke.collect();
        format!(
            "{label} at ε {epsilon}: samples broken, {}",
            broke.join(", ")
        )
    });
    variant.into_iter().chain(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Version;
    use crate::threat::{Distances, Norm};

    const CLEAN: Clean = Clean {
        prediction: 1,
        loss: 0.1,
    };

    fn cell(robust: bool, loss: f64, steps: u64, dead: bool) -> Cell {
        Cell {
            prediction: if robust { 1 } else { 2 },
            loss,
            robust,
            distances: Distances::default(),
            steps,
            restart: 0,
            dead,
            not_finite: false,
        }
    }

    fn sample(count: usize) -> Sample {
        Sample {
            label: 1,
            clean: CLEAN,
            cells: Vec::new(),
            open: count,
            broken_by: vec![None; count],
        }
    }

    fn stages() -> Vec<Stage> {
        AutoAttack {
            version: Version::Standard,
        }
        .stages(Norm::Linf)
    }

    #[test]
    fn a_sample_counts_as_broken_from_the_smallest_radius_on_and_by_the_first_attack() {
        let stages = stages();
        let mut sample = sample(3);
        let [stands, breaks] = [cell(true, 0.5, 100, false), cell(false, 2.0, 7, false)];
        sample.merge(0, &stages[0], 0, &[stands, stands, breaks]);
        assert_eq!(sample.open, 2);
        sample.merge(1, &stages[1], 1, &[stands, breaks]);
        assert_eq!(sample.open, 1);
        sample.merge(3, &stages[3], 19, &[breaks]);
        assert_eq!(sample.open, 0);
        assert_eq!(sample.broken_by, [Some(3), Some(1), Some(0)]);
        let restarts: Vec<u32> = sample.cells.iter().map(|cell| cell.restart).collect();
        assert_eq!(restarts, [19, 1, 0]);
        // The square attack's 7 queries are no gradients.
        let steps: Vec<u64> = sample.cells.iter().map(|cell| cell.steps).collect();
        assert_eq!(steps, [200, 107, 7]);
    }

    #[test]
    fn what_is_reported_of_a_robust_sample_is_the_largest_loss() {
        let stages = stages();
        let mut sample = sample(1);
        for (position, loss) in [0.2, 0.9, 0.1, 0.4].into_iter().enumerate() {
            let cells = [cell(true, loss, 1, false)];
            sample.merge(position, &stages[position], 0, &cells);
        }
        assert!((sample.cells[0].loss - 0.9).abs() < 1e-12);
        assert!(sample.cells[0].robust && sample.open == 1);
    }

    #[test]
    fn gradients_are_dead_where_they_are_so_under_every_attack_that_follows_them() {
        let stages = stages();
        for (second, dead) in [(true, true), (false, false)] {
            let mut sample = sample(1);
            sample.merge(0, &stages[0], 0, &[cell(true, 0.2, 1, true)]);
            sample.merge(1, &stages[1], 1, &[cell(true, 0.2, 1, second)]);
            sample.merge(2, &stages[2], 10, &[cell(true, 0.2, 1, true)]);
            sample.merge(3, &stages[3], 19, &[cell(true, 0.2, 1, false)]);
            assert_eq!(sample.cells[0].dead, dead);
        }
    }
}
