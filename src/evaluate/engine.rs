//! The engine: a batch of slots, each working its way through one sample; a slot that is done is given the next one.
//!
//! The attack proposes and the judge decides: a point counts only after it has been brought inside the ball and the bounds to the last bit, and
//! the model as shipped misclassifies it.
//! What a sample gets depends on its own chain alone, so batch size and order change nothing.

use super::chain::{Cell, Chain, Pace, Turn};
use super::crew::{self, News, Report, Worker};
use super::diagnose::Tally;
use super::ledger::Ledger;
use super::minimal::Found;
use super::{CleanVerdicts, Config, Error, Keep, Observer, Progress, located};
use crate::attack::host::HostArrays;
use crate::attack::{Attack, Context, Goal};
use crate::data::Dataset;
use crate::model::program::{Luggage, Program, Start};
use crate::model::{Batch, GradientGraph, Judge, Model};
use crate::outcome::Accumulator;
use crate::rng::{Key, Purpose, stream};
use crate::threat::confine_to;
use ndarray::Array2;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use std::collections::BTreeMap;
use std::time::Instant;

/// One attack on one data set.
pub(super) struct Job<'a, A: ?Sized = dyn Attack> {
    pub(super) model: &'a Model,
    pub(super) data: &'a Dataset,
    pub(super) config: &'a Config,
    pub(super) attack: &'a A,
    pub(super) clean: &'a CleanVerdicts,
    pub(super) slots: usize,
    /// At most so many samples are attacked, from the first.
    pub(super) most: u64,
    /// The range in which the smallest radius of each sample is looked for, instead of attacking at the radii that are given.
    pub(super) search: Option<(f64, f64)>,
    /// The ensemble that the attack is run for.
    pub(super) ensemble: Option<Ensemble<'a>>,
    /// The other model whose gradients are followed, where they are not those of the model that judges.
    pub(super) foreign: Option<Foreign<'a>>,
}

/// Who decides, and who is told.
pub(super) struct Bench<'o> {
    pub(super) judge: &'o mut Judge,
    pub(super) accumulator: &'o mut Accumulator,
    pub(super) progress: &'o mut Progress,
    pub(super) observer: &'o mut dyn Observer,
}

/// Whose gradients an attack follows, where they are not those of the model under test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foreign<'a> {
    /// The other model.
    pub(super) model: &'a Model,
    /// The name of the attack in reports.
    pub(super) label: &'a str,
}

/// What an attack has to know of the ensemble that it is part of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ensemble<'a> {
    /// The name in reports.
    pub(super) label: &'a str,
    /// By sample, how many ε are left to attack at, from the smallest; none of a sample that is not there.
    pub(super) open: &'a BTreeMap<u64, usize>,
}

impl<A: ?Sized> Clone for Job<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: ?Sized> Copy for Job<'_, A> {}

impl<'a, A: ?Sized> Job<'a, A> {
    /// An attack by itself, at the radii that are given, on all samples and along the model's own gradients.
    pub(super) fn new(
        model: &'a Model,
        data: &'a Dataset,
        config: &'a Config,
        attack: &'a A,
        clean: &'a CleanVerdicts,
        slots: usize,
    ) -> Self {
        Job {
            model,
            data,
            config,
            attack,
            clean,
            slots,
            most: u64::MAX,
            search: None,
            ensemble: None,
            foreign: None,
        }
    }

    /// The same with another attack.
    pub(super) fn of<B: ?Sized>(&self, attack: &'a B) -> Job<'a, B> {
        Job {
            model: self.model,
            data: self.data,
            config: self.config,
            attack,
            clean: self.clean,
            slots: self.slots,
            most: self.most,
            search: self.search,
            ensemble: self.ensemble,
            foreign: self.foreign,
        }
    }

    /// The model whose gradients are followed.
    fn followed(&self) -> &'a Model {
        self.foreign.map_or(self.model, |foreign| foreign.model)
    }

    /// How many ε a sample is attacked at, from the smallest; `None` where it is left alone.
    pub(super) fn open(&self, index: u64) -> Option<usize> {
        match self.ensemble {
            Some(ensemble) => ensemble.open.get(&index).copied(),
            None => Some(self.config.epsilons.len()),
        }
    }

    /// How many samples are attacked, at most.
    pub(super) fn samples(&self) -> usize {
        let all = usize::try_from(self.data.len()).unwrap_or(usize::MAX);
        self.ensemble.map_or(all, |ensemble| ensemble.open.len())
    }

    /// The distance at which a search for the nearest point ends: in an ensemble that of the smallest ε, which decides all others.
    pub(super) fn near_enough(&self) -> Option<f64> {
        let smallest = self.config.epsilons.first().copied();
        self.ensemble.and(smallest)
    }
}

/// How far beyond the radius a point may be to be judged, brought back into the ball: more than any rounding, less than anything else.
const NEAR: f64 = 1.01;

/// One slot in so many may be without work.
const SPARE: usize = 16;

/// What running a job has shown besides the outcomes.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) setup_seconds: f64,
    pub(super) runtime_seconds: f64,
    /// What diagnostics are made from, one for each ε.
    pub(super) tallies: Vec<Tally>,
    /// The smallest radii, in the order of the data, where they were looked for.
    pub(super) found: Vec<Found>,
    /// What the samples of an ensemble came to under the attack.
    pub(super) results: Vec<(u64, Vec<Cell>)>,
    /// What else is to be said, in sentences.
    pub(super) notes: Vec<String>,
}

/// Runs one attack over all samples.
pub(super) fn run(
    job: &Job<'_>,
    gradient: std::sync::Arc<GradientGraph>,
    bench: &mut Bench<'_>,
) -> Result<Ran, Error> {
    let Config { norm, bounds, .. } = *job.config;
    let own = job.attack.label();
    let label = match (job.ensemble, job.foreign) {
        (Some(ensemble), _) => ensemble.label,
        (None, Some(foreign)) => foreign.label,
        (None, None) => &own,
    };
    let classes = job.followed().classes();
    let fitted = classes.and_then(|c| job.attack.for_classes(c));
    let job = &match &fitted {
        Some(attack) => job.of(attack.as_ref()),
        None => *job,
    };
    let slots = job.slots.min(job.samples()).max(1);
    let before = Instant::now();
    let (attack, threat) = (job.attack, (norm, bounds));
    let (model, most) = (job.followed(), bench.judge.lanes());
    let programs = Program::abreast(model, &gradient, attack, threat, slots, most)?;
    let setup_seconds = before.elapsed().as_secs_f64();
    drop(gradient);
    let ledger = Ledger {
        searches: job.search.is_some(),
        nearest: attack.goal() == Goal::MinimumNorm,
        budget: budget(job),
        restarts: repeated(attack),
        ensemble: job.ensemble.is_some(),
        ..Ledger::new(
            job.config,
            label,
            bench.accumulator,
            bench.progress,
            bench.observer,
        )
    };
    bench.judge.apart(programs.len(), |judges| {
        let engines = programs.into_iter().zip(judges);
        let mut engines: Vec<Engine> = engines
            .map(|(program, judge)| Engine {
                job,
                label,
                capacity: program.slots(),
                program,
                judge,
                chains: Vec::new(),
                fitting: usize::MAX,
                parked: Vec::new(),
                report: Report::default(),
                clock: Clock::new(job.config),
            })
            .collect();
        let ledger = crew::run(job.of(&()), attack.goal(), ledger, &mut engines)?;
        let clocks = engines.into_iter().map(|engine| engine.clock);
        Ran::new(setup_seconds, clocks.collect(), ledger)
    })
}

impl Ran {
    /// What the ledger has, and the time of each worker.
    pub(super) fn new(
        setup_seconds: f64,
        clocks: Vec<Clock>,
        mut ledger: Ledger<'_, '_>,
    ) -> Result<Self, Error> {
        #[expect(clippy::cast_precision_loss, reason = "a handful of workers")]
        let workers = clocks.len().max(1) as f64;
        let mut clock = Clock::new(ledger.config);
        for other in clocks {
            clock.runtime += other.runtime / workers;
            let shares = clock.shares.iter_mut().zip(other.shares);
            shares.for_each(|(sum, share)| *sum += share / workers);
        }
        ledger.add_seconds(&clock.shares)?;
        let mut found = ledger.found;
        found.sort_by_key(|found| found.index);
        Ok(Ran {
            setup_seconds,
            runtime_seconds: clock.runtime,
            tallies: ledger.tallies,
            found,
            results: ledger.results,
            notes: Vec::new(),
        })
    }
}

/// Where the time of one worker went, in seconds.
#[derive(Debug)]
pub(super) struct Clock {
    /// Of each ε.
    pub(super) shares: Vec<f64>,
    /// In the runs of ONNX Runtime's sessions.
    pub(super) runtime: f64,
}

impl Clock {
    pub(super) fn new(config: &Config) -> Self {
        Clock {
            shares: vec![0.0; config.epsilons.len()],
            runtime: 0.0,
        }
    }
}

/// The steps that a sample takes at one ε unless it is broken before; 0 where it goes on after it is broken.
fn budget(job: &Job<'_>) -> u64 {
    if job.attack.goal() == Goal::Radius && job.config.keep == Keep::Any {
        u64::from(job.attack.steps()) * u64::from(job.attack.restarts())
    } else {
        0
    }
}

/// How often the same attack is run within a radius; 0 where restarts are different attacks, each toward a class of its own.
fn repeated(attack: &dyn Attack) -> u32 {
    if attack.goal() == Goal::Radius && attack.targets() == 0 {
        attack.restarts()
    } else {
        0
    }
}

struct Engine<'a, 'j> {
    job: &'a Job<'a>,
    /// What reports call the attack.
    label: &'a str,
    program: Program,
    judge: &'j mut Judge,
    /// One chain per occupied slot, at the slot's position.
    chains: Vec<Chain>,
    capacity: usize,
    /// How many slots fit into memory.
    fitting: usize,
    /// What waits for a slot, since fewer fit than there were to be.
    parked: Vec<(Chain, Luggage)>,
    report: Report,
    clock: Clock,
}

/// A point that goes to the judge.
struct Proposal {
    slot: usize,
    point: Vec<f32>,
}

impl Worker for Engine<'_, '_> {
    type Load = (Chain, Luggage);

    fn busy(&self) -> usize {
        self.chains.len() + self.parked.len()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn take(&mut self, fresh: Vec<Chain>, given: Vec<Self::Load>) -> Result<(), Error> {
        self.parked.extend(given);
        let busy = self.chains.len() + fresh.len();
        self.program.resize(busy)?;
        for chain in fresh {
            begin(self.job, &mut self.program, self.chains.len(), &chain)?;
            self.chains.push(chain);
        }
        let over = self.chains.len().saturating_sub(self.fitting);
        self.park(over)?;
        self.unpark()
    }

    fn give(&mut self, count: usize) -> Result<Vec<Self::Load>, Error> {
        self.park(count.saturating_sub(self.parked.len()))?;
        let kept = self.parked.len().saturating_sub(count);
        Ok(self.parked.split_off(kept))
    }

    fn report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    fn round(&mut self) -> Result<(), Error> {
        let proposals = match self.step() {
            Err(Error::Model(error)) if error.is_out_of_memory() && self.chains.len() > 1 => {
                return self.halve();
            }
            proposals => proposals?,
        };
        self.report.gradients += self.chains.len() as u64;
        self.judge(proposals)?;
        self.turn()?;
        // Slots without work cost as much as the others, and making room anew costs a little as well.
        let (busy, slots) = (self.chains.len(), self.program.slots());
        if slots - busy > slots / SPARE {
            self.program.resize(busy)?;
        }
        self.unpark()
    }
}

impl Engine<'_, '_> {
    /// Goes on with half as many samples at once.
    fn halve(&mut self) -> Result<(), Error> {
        if let Batch::Fixed(size) = self.job.followed().batch() {
            return Err(Error::Config(format!(
                "a batch of {size}, which the model has fixed, does not fit into memory; export it with a smaller one"
            )));
        }
        let before = self.chains.len();
        self.fitting = before / 2;
        tracing::warn!(
            "{before} samples at once do not fit into memory: going on with {} (--batch-size {} asks for no more from the start)",
            self.fitting,
            self.fitting
        );
        self.park(before - self.fitting)?;
        Ok(self.program.resize(self.chains.len())?)
    }

    /// Takes the last chains out of their slots.
    fn park(&mut self, count: usize) -> Result<(), Error> {
        let kept = self.chains.len().saturating_sub(count);
        let slots = kept..self.chains.len();
        let packed: Result<Vec<_>, _> = slots.map(|slot| self.program.pack(slot)).collect();
        self.parked.extend(self.chains.drain(kept..).zip(packed?));
        Ok(())
    }

    /// Gives what waits the slots that are free.
    fn unpark(&mut self) -> Result<(), Error> {
        let free = self.fitting.saturating_sub(self.chains.len());
        let count = self.parked.len().min(free);
        if count > 0 {
            self.program.resize(self.chains.len() + count)?;
        }
        for (chain, luggage) in self.parked.split_off(self.parked.len() - count) {
            self.program.unpack(self.chains.len(), &luggage)?;
            self.chains.push(chain);
        }
        Ok(())
    }

    /// One run of the program; the points that may break their samples.
    fn step(&mut self) -> Result<Vec<Proposal>, Error> {
        let before = Instant::now();
        let (observed, advance) = self.program.run()?;
        let spent = before.elapsed().as_secs_f64();
        self.clock.runtime += spent;
        let (steps, goal) = (self.job.attack.steps(), self.job.attack.goal());
        let Config { norm, keep, .. } = *self.job.config;
        let foreign = self.job.foreign.is_some();
        let epsilons = &self.job.config.epsilons;
        let judged = |chain: &Chain, point: &[f32]| match goal {
            // Some attacks look in a larger ball first.
            Goal::Radius => norm.distance(&chain.clean, point) <= NEAR * epsilons[chain.epsilon],
            Goal::MinimumNorm => chain.is_nearer(norm, point),
        };
        let judged_last =
            |chain: &Chain, point: &[f32]| goal == Goal::Radius || chain.is_nearer(norm, point);
        let (predictions, magnitudes) = (observed.predictions(), observed.magnitudes());
        let mut proposals = Vec::new();
        #[expect(clippy::cast_precision_loss, reason = "a share of the time")]
        let share = spent / self.chains.len() as f64;
        for (slot, chain) in self.chains.iter_mut().enumerate() {
            self.clock.shares[chain.epsilon] += share;
            chain.count();
            if !magnitudes[slot].is_finite() {
                // There is no next point; the current one is what this restart came to.
                chain.give_up(steps);
                let point = self.program.point(slot)?;
                if judged_last(chain, &point) {
                    proposals.push(Proposal { slot, point });
                }
                continue;
            }
            if magnitudes[slot] == 0.0 {
                chain.stall();
            }
            let every = keep == Keep::Any || goal == Goal::MinimumNorm;
            // What another model says of a point is no reason to ask this one or not.
            let promises = foreign || predictions[slot] != i64::from(chain.label);
            if every && promises {
                let point = self.program.point(slot)?;
                if judged(chain, &point) {
                    proposals.push(Proposal { slot, point });
                }
            }
            if chain.step == steps {
                let point = advance.point(slot)?;
                if judged_last(chain, &point) {
                    proposals.push(Proposal { slot, point });
                }
            }
        }
        self.program.advance(advance);
        Ok(proposals)
    }

    /// Brings each proposal inside ball and bounds, and asks the judge.
    fn judge(&mut self, mut proposals: Vec<Proposal>) -> Result<(), Error> {
        if proposals.is_empty() {
            return Ok(());
        }
        let Config {
            norm,
            bounds,
            epsilons,
            ..
        } = self.job.config;
        let (precision, goal) = (self.job.model.precision(), self.job.attack.goal());
        let mut points = Vec::with_capacity(proposals.len() * self.program.width());
        let (mut data, mut labels) = (Vec::new(), Vec::with_capacity(proposals.len()));
        let chains = &self.chains;
        // A few small points are done before another thread has woken up.
        let least = (1 << 20) / self.program.width().max(1);
        let points_apart = proposals.par_iter_mut().with_min_len(least.max(1));
        points_apart.for_each(|proposal| {
            let chain = &chains[proposal.slot];
            let epsilon = match goal {
                Goal::Radius => chain.radius(epsilons),
                // The distance is measured, and any will do.
                Goal::MinimumNorm => f64::INFINITY,
            };
            confine_to(
                precision,
                *norm,
                epsilon,
                *bounds,
                &chain.clean,
                &mut proposal.point,
            );
        });
        for Proposal { slot, point } in &proposals {
            let chain = &self.chains[*slot];
            points.extend_from_slice(point);
            data.extend_from_slice(&chain.data);
            labels.push(chain.label);
        }
        let before = Instant::now();
        let verdicts = self.judge.judge(&points, &data, &labels);
        let verdicts = verdicts.map_err(|error| {
            located(error, Some(self.label.to_owned()), |row| {
                let slot = proposals.get(row)?.slot;
                self.chains.get(slot).map(|chain| chain.index)
            })
        })?;
        let spent = before.elapsed().as_secs_f64();
        self.clock.runtime += spent;
        #[expect(clippy::cast_precision_loss, reason = "a share of the time")]
        let share = spent / proposals.len() as f64;
        for (Proposal { slot, point }, verdict) in proposals.into_iter().zip(verdicts) {
            let chain = &mut self.chains[slot];
            if chain.is_broken() {
                continue;
            }
            self.clock.shares[chain.epsilon] += share;
            if goal == Goal::MinimumNorm {
                chain.judged_nearest(*norm, point, verdict);
                continue;
            }
            let epsilon = chain.radius(epsilons);
            if chain.judged(&point, verdict) {
                self.report
                    .broken(chain, verdict.prediction, epsilon, point);
            }
        }
        Ok(())
    }

    /// Lets every chain take its turn; slots of finished chains are filled from the end.
    fn turn(&mut self) -> Result<(), Error> {
        let (attack, config) = (self.job.attack, self.job.config);
        let pace = Pace {
            goal: attack.goal(),
            keep: config.keep,
            epsilons: &config.epsilons,
            restarts: attack.restarts(),
            steps: attack.steps(),
            // Targets that take turns belong to every restart.
            targets: if attack.targets_in_turn() {
                0
            } else {
                attack.targets()
            },
            near_enough: self.job.near_enough(),
            ends_when_found: attack.ends_when_found(),
        };
        let mut slot = 0;
        while slot < self.chains.len() {
            match self.chains[slot].turn(&pace) {
                Turn::Continue => {
                    if attack.targets_in_turn() {
                        let target = self.chains[slot].target(attack.targets(), true);
                        self.program.aim(slot, target)?;
                    }
                    slot += 1;
                }
                Turn::Begin => {
                    begin(self.job, &mut self.program, slot, &self.chains[slot])?;
                    slot += 1;
                }
                Turn::Finished => {
                    let last = self.chains.len() - 1;
                    if slot != last {
                        self.program.relocate(last, slot)?;
                    }
                    let chain = self.chains.swap_remove(slot);
                    if let Some(nearest) = &chain.nearest {
                        let prediction = nearest.cell.prediction;
                        let reaching = config.epsilons.iter().find(|e| **e >= nearest.distance);
                        if let Some(&epsilon) = reaching {
                            let point = nearest.point.clone();
                            self.report.broken(&chain, prediction, epsilon, point);
                        }
                    }
                    self.report.news.push(News::Finished(Box::new(chain)));
                }
            }
        }
        Ok(())
    }
}

/// Puts a chain at the first point of its restart into a slot.
fn begin(job: &Job<'_>, program: &mut Program, slot: usize, chain: &Chain) -> Result<(), Error> {
    let epsilon = chain.radius(&job.config.epsilons);
    let nearest = chain.nearest.as_ref().map(|nearest| nearest.distance);
    let epsilon = nearest.map_or(epsilon, |distance| distance.min(epsilon));
    let step_size = job.attack.step_size(epsilon);
    let (point, state) = first_point(job, chain, epsilon, step_size);
    let start = Start {
        clean: &chain.clean,
        data: &chain.data,
        point: &point,
        state: &state,
        label: chain.label,
        target: chain.target(job.attack.targets(), job.attack.targets_in_turn()),
        epsilon,
        step_size,
    };
    Ok(program.place(slot, &start)?)
}

/// The attack's `init`, on the host.
#[expect(
    clippy::cast_possible_truncation,
    reason = "attacks compute in single precision"
)]
fn first_point(
    job: &Job<'_>,
    chain: &Chain,
    epsilon: f64,
    step_size: f64,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let Config {
        norm, bounds, seed, ..
    } = *job.config;
    let width = chain.clean.len();
    let arrays = HostArrays::new(width);
    let row = |values: Vec<f32>| {
        let columns = values.len();
        arrays.input(
            Array2::from_shape_vec((1, columns), values).expect("one row of as many elements"),
        )
    };
    let context = Context {
        norm,
        clean: row(chain.clean.clone()),
        low: row(vec![bounds.low]),
        high: row(vec![bounds.high]),
        epsilon: row(vec![epsilon as f32]),
        step_size: row(vec![step_size as f32]),
    };
    let noise = job.attack.starts_at_random(chain.restart).then(|| {
        let key = Key {
            seed,
            sample: chain.index,
            restart: chain.restart,
            purpose: Purpose::RandomStart,
        };
        row(norm.draw(width, &mut stream(key)))
    });
    let start = job.attack.init(&context, noise);
    let values = |array| arrays.value(array).into_raw_vec_and_offset().0;
    (
        values(start.point),
        start.state.into_iter().map(values).collect(),
    )
}
