//! The loop for attacks that need no gradient: every slot asks about one point, the model as shipped answers them all at once.
//!
//! Each point is brought inside the ball and the bounds before it is asked about, so that every answer is a verdict of the judge.
//! What a sample gets depends on its own search alone, so batch size and order change nothing.

use super::chain::{Cell, Chain, Turn};
use super::engine::{Job, Ran};
use super::ledger::Ledger;
use super::source::Source;
use super::{Config, Error, Keep, Observer, Progress, located};
use crate::attack::{Answer, Goal, QueryAttack, Scene, Search};
use crate::model::{Answers, Judge, Verdict};
use crate::outcome::Accumulator;
use crate::rng::{Key, Purpose, stream};
use crate::threat::{Distances, Norm, confine_to, distances};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Samples of so many predicted classes are kept for searches to start from.
const STARTS: usize = 16;

/// Runs one attack over all samples.
pub(super) fn run(
    job: &Job<'_, dyn QueryAttack>,
    judge: &mut Judge,
    accumulator: &mut Accumulator,
    progress: &mut Progress,
    observer: &mut dyn Observer,
) -> Result<Ran, Error> {
    let before = Instant::now();
    let starts = if job.attack.wants_others() {
        starts(job)?
    } else {
        Vec::new()
    };
    let setup_seconds = before.elapsed().as_secs_f64();
    let label = job.attack.label();
    let mut engine = Engine {
        source: Source::new(job.model, job.data, job.config.bounds)?,
        capacity: job.slots.max(1),
        slots: Vec::new(),
        ledger: Ledger {
            config: job.config,
            label: &label,
            accumulator,
            progress,
            observer,
            waiting: BTreeMap::new(),
            next: None,
        },
        judge,
        job,
        starts,
        seconds: vec![0.0; job.config.epsilons.len()],
        runtime_seconds: 0.0,
        lost: 0,
    };
    engine.fill()?;
    while !engine.slots.is_empty() {
        engine.round()?;
        engine.fill()?;
    }
    let Engine {
        seconds,
        runtime_seconds,
        lost,
        ledger,
        ..
    } = engine;
    for (&epsilon, &spent) in job.config.epsilons.iter().zip(&seconds) {
        let norm = job.config.norm;
        ledger
            .accumulator
            .add_seconds(&label, norm, epsilon, spent)?;
    }
    let mut warnings = Vec::new();
    if lost > 0 {
        warnings.push(format!(
            "{label}: for {lost} samples no point was found that the model gets wrong, however far away: they count as robust without having been attacked"
        ));
    }
    Ok(Ran {
        setup_seconds,
        runtime_seconds,
        warnings,
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
        let Some(clean) = job.clean.get(item.position) else {
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
    /// The nearest wrong point so far, where that is what is looked for.
    nearest: Option<Nearest>,
}

struct Nearest {
    distance: f64,
    verdict: Verdict,
    point: Vec<f32>,
}

struct Engine<'a, 'o> {
    job: &'a Job<'a, dyn QueryAttack>,
    judge: &'o mut Judge,
    source: Source,
    slots: Vec<Slot>,
    capacity: usize,
    ledger: Ledger<'a, 'o>,
    starts: Vec<Beginning>,
    seconds: Vec<f64>,
    runtime_seconds: f64,
    /// Samples for which no wrong point was found at all.
    lost: u64,
}

impl Engine<'_, '_> {
    /// Gives every free slot a sample; those that are wrong clean are done without one.
    fn fill(&mut self) -> Result<(), Error> {
        while self.slots.len() < self.capacity {
            let Some(item) = self.source.next()? else {
                break;
            };
            self.ledger.next.get_or_insert(item.index);
            let clean = self.job.clean.get(item.position).copied();
            let clean = clean.ok_or_else(|| {
                Error::Config("the data set has grown while it was evaluated".into())
            })?;
            if clean.prediction == item.label {
                let chain = Chain::new(&item, clean);
                self.slots.push(Slot {
                    search: self.begin(&chain),
                    point: chain.clean.clone(),
                    chain,
                    asks: true,
                    nearest: None,
                });
            } else {
                self.ledger.wrong_clean(item.index, item.label, clean)?;
            }
        }
        Ok(())
    }

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
            self.seconds[slot.chain.epsilon] += share;
        }
        self.turn()
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
                Goal::Ball => epsilons[slot.chain.epsilon],
                Goal::Nearest => f64::INFINITY,
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
        self.runtime_seconds += before.elapsed().as_secs_f64();
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
                Goal::Ball => {
                    slot.chain.judged(&slot.point, verdict);
                    let epsilon = epsilons[slot.chain.epsilon];
                    let prediction = verdict.prediction;
                    self.ledger
                        .adversarial(&slot.chain, prediction, epsilon, &slot.point)?;
                }
                Goal::Nearest => slot.consider(*norm, verdict),
            }
        }
        Ok(())
    }

    /// Has the best points judged of searches in a ball that are over without having broken their sample: what is reported of it.
    fn judge_best(&mut self) -> Result<(), Error> {
        if self.job.attack.goal() == Goal::Nearest {
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
                self.ledger
                    .adversarial(&slot.chain, verdict.prediction, epsilon, &slot.point)?;
            }
        }
        Ok(())
    }

    /// Lets every chain take its turn; slots of finished chains are filled from the end.
    fn turn(&mut self) -> Result<(), Error> {
        let (queries, restarts) = (self.job.attack.queries(), self.job.attack.restarts());
        let epsilons = self.job.config.epsilons.len();
        let mut position = 0;
        while position < self.slots.len() {
            let slot = &mut self.slots[position];
            let over = slot.is_over(queries);
            let turn = match self.job.attack.goal() {
                Goal::Ball => {
                    if over {
                        slot.chain.step = queries;
                    }
                    slot.chain.turn(Keep::Any, epsilons, restarts, queries)
                }
                Goal::Nearest if over => Turn::Finished,
                Goal::Nearest => Turn::Continue,
            };
            match turn {
                Turn::Continue => position += 1,
                Turn::Begin => {
                    let search = self.begin(&self.slots[position].chain);
                    self.slots[position].search = search;
                    position += 1;
                }
                Turn::Finished => {
                    let slot = self.slots.swap_remove(position);
                    self.finish(slot)?;
                }
            }
        }
        Ok(())
    }

    /// Hands on what is known of a sample.
    fn finish(&mut self, slot: Slot) -> Result<(), Error> {
        let Slot {
            mut chain, nearest, ..
        } = slot;
        if self.job.attack.goal() == Goal::Nearest {
            let epsilons = &self.job.config.epsilons;
            chain.cells = cells(&chain, nearest.as_ref(), epsilons);
            self.lost += u64::from(nearest.is_none());
            let found = nearest.and_then(|nearest| {
                let epsilon = epsilons
                    .iter()
                    .find(|&&epsilon| nearest.distance <= epsilon);
                epsilon.map(|&epsilon| (epsilon, nearest))
            });
            if let Some((epsilon, Nearest { verdict, point, .. })) = found {
                self.ledger
                    .adversarial(&chain, verdict.prediction, epsilon, &point)?;
            }
        }
        self.ledger.finished(&chain)
    }
}

impl Slot {
    /// Whether this restart has come to its end.
    fn is_over(&self, queries: u32) -> bool {
        !self.asks || self.chain.step >= queries
    }

    /// Keeps the point that was asked about where it is nearer than the nearest wrong one.
    fn consider(&mut self, norm: Norm, verdict: Verdict) {
        let distance = norm.distance(&self.chain.clean, &self.point);
        if self
            .nearest
            .as_ref()
            .is_none_or(|nearest| distance < nearest.distance)
        {
            self.nearest = Some(Nearest {
                distance,
                verdict,
                point: self.point.clone(),
            });
        }
    }
}

/// What the nearest wrong point comes to at each radius: broken from its distance on; below that the clean sample is all there is to report.
fn cells(chain: &Chain, nearest: Option<&Nearest>, epsilons: &[f64]) -> Vec<Cell> {
    let cell = |(position, &epsilon): (usize, &f64)| {
        // The search was one and the same; its queries are counted once.
        let steps = if position == 0 { chain.step.into() } else { 0 };
        match nearest.filter(|nearest| nearest.distance <= epsilon) {
            Some(nearest) => Cell {
                prediction: nearest.verdict.prediction,
                loss: nearest.verdict.loss,
                robust: false,
                distances: distances(&chain.clean, &nearest.point),
                steps,
                restart: 0,
            },
            None => Cell {
                prediction: chain.verdict.prediction,
                loss: chain.verdict.loss,
                robust: true,
                distances: Distances::default(),
                steps,
                restart: 0,
            },
        }
    };
    epsilons.iter().enumerate().map(cell).collect()
}
