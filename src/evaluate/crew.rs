//! The crew: workers on threads of their own, which get their samples from one desk and bring there what becomes of them.
//!
//! A kernel may round a sample's last bit in another way where other samples stand beside it, so that who works on what must not hang on who
//! was faster: the same run is to give the same file, byte for byte.
//! Work is therefore dealt out once in [`ROUNDS`] rounds, by what every worker had in hand when the last ones began: all of them have long told
//! that when it is asked for, and none waits for another unless it is so many rounds ahead.
//! What they found is handed on at the same time, in their order.
//! When the samples have run out, those that are still worked on are dealt out anew in the same way, so that all are done at the same time.

use super::Error;
use super::chain::Chain;
use super::engine::Job;
use super::ledger::Ledger;
use super::minimal::Bracket;
use super::source::Source;
use crate::attack::Goal;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many rounds a worker goes between two deals: a few milliseconds of work for a small network.
const ROUNDS: usize = 4;

/// Works on several samples at once.
pub(super) trait Worker: Send {
    /// A sample that is being worked on, on its way from one worker to another.
    type Load: Send;

    /// How many samples it works on.
    fn busy(&self) -> usize;

    /// How many it can work on at the same time.
    fn capacity(&self) -> usize;

    /// Begins with samples, and goes on with those that others gave away.
    fn take(&mut self, fresh: Vec<Chain>, given: Vec<Self::Load>) -> Result<(), Error>;

    /// Gives so many of its samples away.
    fn give(&mut self, count: usize) -> Result<Vec<Self::Load>, Error>;

    /// Goes a step further with every sample; there is at least one.
    fn round(&mut self) -> Result<(), Error>;

    /// What came of it since the last time that this was asked.
    fn report(&mut self) -> Report;
}

/// What a worker brings to the desk.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Gradient evaluations.
    pub(super) gradients: u64,
    /// In the order in which it came.
    pub(super) news: Vec<News>,
}

/// What came of a sample.
#[derive(Debug)]
pub(super) enum News {
    /// A point that breaks it.
    Broken(Broken),
    /// All that there is to know.
    Finished(Box<Chain>),
}

/// A point that breaks a sample, judged.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) index: u64,
    pub(super) label: u32,
    pub(super) prediction: u32,
    /// The radius at which it was found.
    pub(super) epsilon: f64,
    pub(super) point: Vec<f32>,
}

impl Report {
    /// Notes a point that breaks the sample of a chain.
    pub(super) fn broken(&mut self, chain: &Chain, prediction: u32, epsilon: f64, point: Vec<f32>) {
        self.news.push(News::Broken(Broken {
            index: chain.index,
            label: chain.label,
            prediction,
            epsilon,
            point,
        }));
    }
}

/// Where samples come from, and where results go.
struct Desk<'a, 'o, Load> {
    job: Job<'a, ()>,
    goal: Goal,
    source: Source,
    ledger: Ledger<'a, 'o>,
    /// One for each worker.
    trays: Vec<Tray<Load>>,
    /// How many times work was dealt out.
    dealt: u64,
    /// Whether nothing is left to do.
    done: bool,
    /// Whether a worker has failed.
    failed: bool,
}

/// What lies on the desk for one worker.
struct Tray<Load> {
    /// How many samples it can work on.
    capacity: usize,
    /// How many times it has told what it has.
    told: u64,
    /// What it had in hand the last time.
    busy: usize,
    /// What it has brought.
    report: Report,
    /// What it has to begin with.
    fresh: Vec<Chain>,
    /// What it has to give away, and to whom.
    gifts: Vec<(usize, usize)>,
    /// What others gave, with the number of the deal that told them so.
    given: Vec<(u64, Load)>,
}

impl<Load> Desk<'_, '_, Load> {
    /// The next sample to work on; those that are wrong clean are done without that.
    fn draw(&mut self) -> Result<Option<Chain>, Error> {
        while let Some(item) = self.source.next()? {
            let Some(open) = self.job.open(item.index) else {
                continue;
            };
            self.ledger.next.get_or_insert(item.index);
            let clean = self.job.clean.get(item.position);
            let (clean, rivals) = clean.ok_or_else(|| {
                Error::Config("the data set has grown while it was evaluated".into())
            })?;
            if clean.prediction != item.label {
                self.ledger.wrong_clean(item.index, item.label, clean)?;
                continue;
            }
            let mut chain = Chain::new(&item, clean).toward(rivals);
            chain.open = open;
            let norm = self.job.config.norm;
            chain.bracket = self.job.search.map(|range| Bracket::new(norm, range));
            if self.goal == Goal::MinimumNorm {
                // One run for all radii.
                chain.epsilon = open.saturating_sub(1);
            }
            return Ok(Some(chain));
        }
        Ok(None)
    }

    /// Hands on what the workers have brought, one worker after the other.
    fn hand_on(&mut self) -> Result<(), Error> {
        for tray in &mut self.trays {
            let Report { gradients, news } = std::mem::take(&mut tray.report);
            self.ledger.progress.gradients += gradients;
            for news in news {
                match news {
                    News::Broken(broken) => self.ledger.adversarial(&broken)?,
                    News::Finished(chain) => self.ledger.finished(&chain)?,
                }
            }
        }
        Ok(())
    }

    /// Deals out samples, the next always to the worker that has the fewest; when there are none left, what others have in hand.
    fn deal(&mut self) -> Result<(), Error> {
        // What was given because of the last deal is there by now, and not taken yet.
        let in_hand = |tray: &Tray<Load>| tray.busy + tray.given.len();
        let mut loads: Vec<usize> = self.trays.iter().map(in_hand).collect();
        self.dealt += 1;
        loop {
            let free = (0..loads.len()).filter(|&w| loads[w] < self.trays[w].capacity);
            let Some(next) = free.min_by_key(|&w| loads[w]) else {
                return Ok(());
            };
            let Some(chain) = self.draw()? else {
                break;
            };
            self.trays[next].fresh.push(chain);
            loads[next] += 1;
        }
        self.done = loads.iter().all(|&load| load == 0);
        self.level(&mut loads);
        Ok(())
    }

    /// Has those that have more than others give to those that have less, as far as they have room.
    fn level(&mut self, loads: &mut [usize]) {
        loop {
            let all = 0..loads.len();
            let most = all
                .clone()
                .max_by_key(|&w| (loads[w], std::cmp::Reverse(w)));
            let free = all.filter(|&w| loads[w] < self.trays[w].capacity);
            let (Some(most), Some(least)) = (most, free.min_by_key(|&w| loads[w])) else {
                return;
            };
            let room = self.trays[least].capacity - loads[least];
            let count = (loads[most].saturating_sub(loads[least]) / 2).min(room);
            if count == 0 {
                return;
            }
            self.trays[most].gifts.push((least, count));
            loads[most] -= count;
            loads[least] += count;
        }
    }
}

/// What the workers share.
struct Crew<'a, 'o, Load> {
    desk: Mutex<Desk<'a, 'o, Load>>,
    /// Every worker has told what it has, or one has failed.
    news: Condvar,
}

/// Has the workers do a job; what they brought to the desk.
///
/// # Errors
/// The error of the first worker that failed; the others stop at the next deal.
pub(super) fn run<'a, 'o, W: Worker>(
    job: Job<'a, ()>,
    goal: Goal,
    ledger: Ledger<'a, 'o>,
    workers: &mut [W],
) -> Result<Ledger<'a, 'o>, Error> {
    let trays = workers.iter().map(|worker| Tray {
        capacity: worker.capacity(),
        told: 0,
        busy: 0,
        report: Report::default(),
        fresh: Vec::new(),
        gifts: Vec::new(),
        given: Vec::new(),
    });
    let crew = Crew {
        news: Condvar::new(),
        desk: Mutex::new(Desk {
            source: Source::new(job.model, job.data, job.config.bounds)?.first(job.most),
            job,
            goal,
            ledger,
            trays: trays.collect(),
            dealt: 0,
            done: false,
            failed: false,
        }),
    };
    let ended: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        let mut workers = workers.iter_mut().enumerate();
        let Some((_, first)) = workers.next() else {
            return Vec::new();
        };
        let crew = &crew;
        let others: Vec<_> = workers
            .map(|(number, worker)| scope.spawn(move || crew.employ(number, worker)))
            .collect();
        let first = crew.employ(0, first);
        let others = others.into_iter().map(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        std::iter::once(first).chain(others).collect()
    });
    ended.into_iter().collect::<Result<(), Error>>()?;
    let desk = crew.desk.into_inner();
    Ok(desk.unwrap_or_else(PoisonError::into_inner).ledger)
}

impl<'a, 'o, Load: Send> Crew<'a, 'o, Load> {
    /// The desk, for one worker alone until it is dropped.
    fn desk(&self) -> MutexGuard<'_, Desk<'a, 'o, Load>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a worker work until nothing is left to do, or until one has failed.
    fn employ<W: Worker<Load = Load>>(&self, number: usize, worker: &mut W) -> Result<(), Error> {
        // By an error or a panic, others would wait for ever for one that is no longer there.
        let leaving = Leaving(self);
        self.work(number, worker)?;
        std::mem::forget(leaving);
        Ok(())
    }

    fn work<W: Worker<Load = Load>>(&self, number: usize, worker: &mut W) -> Result<(), Error> {
        let alone = self.desk().trays.len() == 1;
        self.tell(number, worker);
        while self.collect(number, worker)? {
            // Where there are no others to be asked, what is free is dealt out at once.
            if !alone {
                self.tell(number, worker);
            }
            for _ in 0..if alone { 1 } else { ROUNDS } {
                if worker.busy() > 0 {
                    worker.round()?;
                }
            }
            if alone {
                self.tell(number, worker);
            }
        }
        Ok(())
    }

    /// Puts down what a worker brings, and tells what it has in hand.
    fn tell<W: Worker<Load = Load>>(&self, number: usize, worker: &mut W) {
        let report = worker.report();
        let mut desk = self.desk();
        let tray = &mut desk.trays[number];
        (tray.busy, tray.told, tray.report) = (worker.busy(), tray.told + 1, report);
        self.news.notify_all();
    }

    /// Gives a worker what was dealt out by what all had told, and takes from it what it has to give; `false` where nothing is left to do.
    fn collect<W: Worker<Load = Load>>(
        &self,
        number: usize,
        worker: &mut W,
    ) -> Result<bool, Error> {
        let mut desk = self.desk();
        let turn = desk.trays[number].told;
        while desk.dealt < turn {
            if desk.failed {
                return Ok(false);
            }
            if desk.trays.iter().all(|tray| tray.told == turn) {
                desk.hand_on()?;
                desk.deal()?;
                continue;
            }
            desk = self.news.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
        if desk.done || desk.failed {
            return Ok(false);
        }
        let tray = &mut desk.trays[number];
        let fresh = std::mem::take(&mut tray.fresh);
        let gifts = std::mem::take(&mut tray.gifts);
        // What others give because of this deal is for the next.
        let (given, later) = std::mem::take(&mut tray.given)
            .into_iter()
            .partition(|(deal, _)| *deal < turn);
        tray.given = later;
        drop(desk);
        for (receiver, count) in gifts {
            let loads = worker.give(count.min(worker.busy()))?;
            let loads = loads.into_iter().map(|load| (turn, load));
            self.desk().trays[receiver].given.extend(loads);
        }
        let given: Vec<(u64, Load)> = given;
        worker.take(fresh, given.into_iter().map(|(_, load)| load).collect())?;
        Ok(true)
    }
}

/// Tells the others, when it is dropped, that a worker has failed.
struct Leaving<'c, 'a, 'o, Load: Send>(&'c Crew<'a, 'o, Load>);

impl<Load: Send> Drop for Leaving<'_, '_, '_, Load> {
    fn drop(&mut self) {
        self.0.desk().failed = true;
        self.0.news.notify_all();
    }
}
