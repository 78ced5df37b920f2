//! The worker for attacks that need no gradient: every slot asks about one point, the model as shipped answers them all at once.
//!
//! Each point is brought inside the ball and the bounds before it is asked about, so that every answer is a verdict of the judge.
//! What a sample gets depends on its own search alone, so batch size and order change nothing.

use super::chain::{Chain, Pace, Turn};
use super::crew::{self, News, Report, Worker};
use super::engine::{Bench, Clock, Job, Ran};
use super::ledger::Ledger;
use super::source::Source;
use super::{Config, Error, Keep, located};
use crate::attack::{Answer, Goal, QueryAttack, Scene, Search};
use crate::model::{Answers, Judge, Verdict};
use crate::rng::{Key, Purpose, stream};
use crate::threat::confine_to;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use std::sync::Arc;
use std::time::Instant;

/// Samples of so many predicted classes are kept for searches to start from.
const STARTS: usize = 16;

/// Runs one attack over all samples.
pub(super) fn run(job: &Job<'_, dyn QueryAttack>, bench: &mut Bench<'_>) -> Result<Ran, Error> {
    let before = Instant::now();
    let starts = if job.attack.wants_others() {
        starts(job)?
    } else {
        Vec::new()
    };
    let setup_seconds = before.elapsed().as_secs_f64();
    let label = job.attack.label();
    let label = job.ensemble.map_or(label.as_str(), |e| e.label);
    let goal = job.attack.goal();
    let ledger = Ledger {
        searches: job.search.is_some(),
        nearest: goal == Goal::MinimumNorm,
        ensemble: job.ensemble.is_some(),
        ..Ledger::new(
            job.config,
            label,
            bench.accumulator,
            bench.progress,
            bench.observer,
        )
    };
    let wanted = job.slots.min(job.samples()).max(1);
    bench.judge.apart(wanted, |judges| {
        let workers = judges.len();
        let mut engines: Vec<Engine> = judges
            .iter_mut()
            .enumerate()
            .map(|(position, judge)| Engine {
                job,
                judge,
                slots: Vec::new(),
                capacity: (wanted - position).div_ceil(workers),
                report: Report::default(),
                starts: &starts,
                clock: Clock::new(job.config),
                lost: 0,
            })
            .collect();
        let ledger = crew::run(job.of(&()), goal, ledger, &mut engines)?;
        let lost: u64 = engines.iter().map(|engine| engine.lost).sum();
        let clocks = engines.into_iter().map(|engine| engine.clock);
        let notes = (lost > 0).then(|| {
            format!(
                "{label}: for {lost} samples no point was found that the model gets wrong, however far away: they count as robust without having been attacked"
            )
        });
        Ok(Ran {
            notes: notes.into_iter().collect(),
            ..Ran::new(setup_seconds, clocks.collect(), ledger)?
        })
    })
}

/// A predicted class, and a sample of it.
type Beginning = (u32, Arc<[f32]>);

/// The first sample of each class that the model predicts, for a number of classes.
fn starts(job: &Job<'_, dyn QueryAttack>) -> Result<Vec<Beginning>, Error> {
    let mut starts: Vec<Beginning> = Vec::new();
    let mut source = Source::new(job.model, job.data, job.config.bounds)?;
    while starts.len() < STARTS
        && let Some(item) = source.next()?
    {
        let Some((clean, _)) = job.clean.get(item.position) else {
            break;
        };
        if starts.iter().all(|(class, _)| *class != clean.prediction) {
            starts.push((clean.prediction, item.clean.into()));
        }
    }
    Ok(starts)
}

/// A sample with its search.
struct Slot {
    chain: Chain,
    search: Box<dyn Search>,
    /// The point that is asked about.
    point: Vec<f32>,
    /// Whether the search has a next point.
    asks: bool,
}

struct Engine<'a, 'j> {
    job: &'a Job<'a, dyn QueryAttack>,
    judge: &'j mut Judge,
    slots: Vec<Slot>,
    capacity: usize,
    starts: &'a [Beginning],
    report: Report,
    clock: Clock,
    /// Samples for which no wrong point was found at all.
    lost: u64,
}

impl Worker for Engine<'_, '_> {
    type Load = Slot;

    fn busy(&self) -> usize {
        self.slots.len()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn take(&mut self, fresh: Vec<Chain>, given: Vec<Slot>) -> Result<(), Error> {
        self.slots.extend(given);
        let fresh = fresh.into_iter().map(|chain| Slot {
            search: self.begin(&chain),
            point: chain.clean.clone(),
            chain,
            asks: true,
        });
        let fresh: Vec<Slot> = fresh.collect();
        self.slots.extend(fresh);
        Ok(())
    }

    fn give(&mut self, count: usize) -> Result<Vec<Slot>, Error> {
        let kept = self.slots.len().saturating_sub(count);
        Ok(self.slots.split_off(kept))
    }

    fn report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    /// One point of every slot, and what follows from it.
    fn round(&mut self) -> Result<(), Error> {
        let before = Instant::now();
        self.propose();
        let (verdicts, scores) = self.ask()?;
        self.answer(&verdicts, &scores)?;
        self.judge_best()?;
        #[expect(clippy::cast_precision_loss, reason = "a share of the time")]
        let share = before.elapsed().as_secs_f64() / self.slots.len() as f64;
        for slot in &self.slots {
            self.clock.shares[slot.chain.epsilon] += share;
        }
        self.turn()
    }
}

impl Engine<'_, '_> {
    /// A search at the beginning of the chain's restart.
    fn begin(&self, chain: &Chain) -> Box<dyn Search> {
        let Config {
            norm, bounds, seed, ..
        } = *self.job.config;
        let others = self.starts.iter();
        self.job.attack.begin(Scene {
            norm,
            epsilon: self.job.config.epsilons[chain.epsilon],
            bounds,
            precision: self.job.model.precision(),
            shape: self.job.model.sample_shape(),
            clean: &chain.clean,
            label: chain.label,
            others: others
                .filter(|(class, _)| *class != chain.label)
                .map(|(_, point)| Arc::clone(point))
                .collect(),
            stream: stream(Key {
                seed,
                sample: chain.index,
                restart: chain.restart,
                purpose: Purpose::Queries,
            }),
        })
    }

    /// Lets every search write its next point, and brings that inside.
    fn propose(&mut self) {
        let Config {
            norm,
            bounds,
            ref epsilons,
            ..
        } = *self.job.config;
        let precision = self.job.model.precision();
        let goal = self.job.attack.goal();
        let least = (1 << 16) / self.width();
        let slots = self.slots.par_iter_mut().with_min_len(least.max(1));
        slots.for_each(|slot| {
            slot.asks = slot.search.next(&mut slot.point);
            let epsilon = match goal {
                Goal::Radius => epsilons[slot.chain.epsilon],
                Goal::MinimumNorm => f64::INFINITY,
            };
            let clean = &slot.chain.clean;
            confine_to(precision, norm, epsilon, bounds, clean, &mut slot.point);
        });
    }

    fn width(&self) -> usize {
        let slot = self.slots.first();
        slot.map_or(1, |slot| slot.point.len().max(1))
    }

    /// What the judge says of the points of all slots that ask, in their order, and the scores that it goes by.
    fn ask(&mut self) -> Result<(Vec<Verdict>, Vec<f32>), Error> {
        let mut points = Vec::with_capacity(self.slots.len() * self.width());
        let (mut data, mut labels) = (Vec::new(), Vec::with_capacity(self.slots.len()));
        for slot in self.slots.iter().filter(|slot| slot.asks) {
            points.extend_from_slice(&slot.point);
            data.extend_from_slice(&slot.chain.data);
            labels.push(slot.chain.label);
        }
        if labels.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let before = Instant::now();
        let scores = self.judge.scores(&points, &data)?;
        self.clock.runtime += before.elapsed().as_secs_f64();
        let verdicts = self.judge.verdicts(&scores, &labels);
        let verdicts = verdicts.map_err(|error| {
            located(error, Some(self.job.attack.label()), |row| {
                let mut asking = self.slots.iter().filter(|slot| slot.asks);
                asking.nth(row).map(|slot| slot.chain.index)
            })
        })?;
        Ok((verdicts, scores))
    }

    /// Tells every search that asked what the model says, and keeps the points that it gets wrong.
    fn answer(&mut self, verdicts: &[Verdict], scores: &[f32]) -> Result<(), Error> {
        let answers = self.judge.answers();
        let probabilities = matches!(answers, Answers::Probabilities { .. });
        let Config { norm, epsilons, .. } = self.job.config;
        let asked = self.slots.iter_mut().filter(|slot| slot.asks);
        let rows = scores.chunks(answers.width());
        for ((slot, row), &verdict) in asked.zip(rows).zip(verdicts) {
            let wrong = verdict.prediction != slot.chain.label;
            let answer = Answer {
                wrong,
                scores: answers.classes().map_or(&[], |_| row),
                probabilities,
            };
            slot.search.answered(&slot.point, &answer);
            slot.chain.count();
            match self.job.attack.goal() {
                _ if !wrong => {}
                Goal::Radius => {
                    slot.chain.judged(&slot.point, verdict);
                    let epsilon = epsilons[slot.chain.epsilon];
                    let prediction = verdict.prediction;
                    let point = slot.point.clone();
                    self.report.broken(&slot.chain, prediction, epsilon, point);
                }
                Goal::MinimumNorm => {
                    if slot.chain.is_nearer(*norm, &slot.point) {
                        slot.chain
                            .judged_nearest(*norm, slot.point.clone(), verdict);
                    }
                }
            }
        }
        Ok(())
    }

    /// Has the best points judged of searches in a ball that are over without having broken their sample: what is reported of it.
    fn judge_best(&mut self) -> Result<(), Error> {
        if self.job.attack.goal() == Goal::MinimumNorm {
            return Ok(());
        }
        let queries = self.job.attack.queries();
        let (mut over, mut points) = (Vec::new(), Vec::new());
        let (mut data, mut labels) = (Vec::new(), Vec::new());
        for (position, slot) in self.slots.iter_mut().enumerate() {
            if !slot.is_over(queries) || slot.chain.is_broken() {
                continue;
            }
            slot.point.copy_from_slice(slot.search.best());
            points.extend_from_slice(&slot.point);
            data.extend_from_slice(&slot.chain.data);
            labels.push(slot.chain.label);
            over.push(position);
        }
        if over.is_empty() {
            return Ok(());
        }
        let verdicts = self.judge.judge(&points, &data, &labels)?;
        for (position, verdict) in over.into_iter().zip(verdicts) {
            let slot = &mut self.slots[position];
            if slot.chain.judged(&slot.point, verdict) {
                let epsilon = self.job.config.epsilons[slot.chain.epsilon];
                let point = slot.point.clone();
                self.report
                    .broken(&slot.chain, verdict.prediction, epsilon, point);
            }
        }
        Ok(())
    }

    /// Lets every chain take its turn; slots of finished chains are filled from the end.
    fn turn(&mut self) -> Result<(), Error> {
        let (attack, config) = (self.job.attack, self.job.config);
        let pace = Pace {
            goal: attack.goal(),
            // A search in a ball ends with the first point that breaks its sample.
            keep: Keep::Any,
            epsilons: &config.epsilons,
            restarts: attack.restarts(),
            steps: attack.queries(),
            targets: 0,
            near_enough: self.job.near_enough(),
            ends_when_found: false,
        };
        let mut position = 0;
        while position < self.slots.len() {
            let slot = &mut self.slots[position];
            if slot.is_over(pace.steps) {
                slot.chain.step = pace.steps;
            }
            let turn = slot.chain.turn(&pace);
            match turn {
                Turn::Continue => position += 1,
                Turn::Begin => {
                    let search = self.begin(&self.slots[position].chain);
                    self.slots[position].search = search;
                    position += 1;
                }
                Turn::Finished => {
                    let slot = self.slots.swap_remove(position);
                    self.finish(slot.chain);
                }
            }
        }
        Ok(())
    }

    /// Reports what is known of a sample.
    fn finish(&mut self, chain: Chain) {
        if self.job.attack.goal() == Goal::MinimumNorm {
            self.lost += u64::from(chain.nearest.is_none());
            let within = chain.nearest.as_ref().and_then(|nearest| {
                let mut epsilons = self.job.config.epsilons.iter();
                let epsilon = epsilons.find(|&&epsilon| nearest.distance <= epsilon)?;
                Some((nearest, *epsilon))
            });
            if let Some((nearest, epsilon)) = within {
                let point = nearest.point.clone();
                self.report
                    .broken(&chain, nearest.cell.prediction, epsilon, point);
            }
        }
        self.report.news.push(News::Finished(Box::new(chain)));
    }
}

impl Slot {
    /// Whether this restart has come to its end.
    fn is_over(&self, queries: u32) -> bool {
        !self.asks || self.chain.step >= queries
    }
}
