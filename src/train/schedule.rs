//! Schedules: what the learning rate is multiplied by, from the first step to the last.
//!
//! A schedule knows no optimizer: it gives a factor on the learning rate that was asked for.
//! Epochs are those that were asked for; where a method goes through the data less often and makes more steps of each batch, the schedule is
//! stretched over the steps.
//! Start at [`schedule`].

use super::choice::{Choice, Error, numbers, parse};
use crate::attack::Parameter;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

/// An entry of [`SCHEDULES`].
pub type ScheduleSpec = Choice<Arc<dyn Schedule>>;

/// Every schedule, in the order in which they are listed.
pub const SCHEDULES: &[ScheduleSpec] = &[CONSTANT, COSINE, PIECEWISE, ONE_CYCLE];

/// How the learning rate changes.
pub trait Schedule: fmt::Debug + Send + Sync {
    /// The name with every parameter that differs from its default, as [`schedule`] reads it.
    fn label(&self) -> String;

    /// The factor on the learning rate at a moment of the training.
    fn factor(&self, moment: Moment) -> f64;
}

/// A step among all steps of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// The step, from 0.
    pub step: u64,
    /// The number of steps.
    pub steps: u64,
    /// The number of epochs that they are.
    pub epochs: f64,
}

impl Moment {
    /// The epochs done, as a fraction.
    fn epoch(self) -> f64 {
        self.epochs * self.step as f64 / self.steps.max(1) as f64
    }

    /// The part of a warm-up of so many epochs that is done with this step, up to 1.
    fn warmed(self, warm_up: f64) -> f64 {
        let steps = (warm_up / self.epochs * self.steps as f64).round();
        if steps < 1.0 {
            1.0
        } else {
            ((self.step + 1) as f64 / steps).min(1.0)
        }
    }
}

/// Reads a schedule such as `piecewise:milestones=30,34`.
///
/// # Errors
/// Where the name, a parameter or a value is not known.
pub fn schedule(text: &str) -> Result<Arc<dyn Schedule>, Error> {
    parse(SCHEDULES, text)
}

const WARM_UP: Parameter = Parameter {
    name: "warm_up",
    default: "0",
    accepts: "a number of epochs from 0",
    help: "In so many epochs the learning rate rises from 0 in equal steps.",
};

const CONSTANT: ScheduleSpec = ScheduleSpec {
    kind: "schedule",
    name: "constant",
    summary: "The same learning rate throughout",
    what_it_does: "η",
    parameters: &[WARM_UP],
    reference: "",
    build: |table| {
        let schedule: Constant = CONSTANT.read(table)?;
        check_warm_up(&CONSTANT, schedule.warm_up)?;
        Ok(Arc::new(schedule))
    },
};

const COSINE: ScheduleSpec = ScheduleSpec {
    kind: "schedule",
    name: "cosine",
    summary: "Falls along half a cosine to 0",
    what_it_does: "η·(1 + cos(π·t/T))/2 at step t of T",
    parameters: &[WARM_UP],
    reference: "Loshchilov and Hutter: SGDR. ICLR 2017, <https://arxiv.org/abs/1608.03983>.",
    build: |table| {
        let schedule: Cosine = COSINE.read(table)?;
        check_warm_up(&COSINE, schedule.warm_up)?;
        Ok(Arc::new(schedule))
    },
};

const PIECEWISE: ScheduleSpec = ScheduleSpec {
    kind: "schedule",
    name: "piecewise",
    summary: "Falls by a factor at given epochs",
    what_it_does: "η times `factor` for each milestone that is past",
    parameters: &[
        Parameter {
            name: "milestones",
            default: "at half and three quarters of the epochs",
            accepts: "epochs in ascending order, as in milestones=30,34",
            help: "After which epochs the learning rate falls.",
        },
        Parameter {
            name: "factor",
            default: "0.1",
            accepts: "a number above 0, and at most 1",
            help: "What it is multiplied by each time.",
        },
        WARM_UP,
    ],
    reference: "",
    build: |table| {
        let schedule: Piecewise = PIECEWISE.read(table)?;
        check_warm_up(&PIECEWISE, schedule.warm_up)?;
        let factor = schedule.factor > 0.0 && schedule.factor <= 1.0;
        PIECEWISE.require(factor, "factor", schedule.factor)?;
        let ascending = schedule.milestones.windows(2).all(|two| two[0] < two[1]);
        if !ascending
            || schedule
                .milestones
                .iter()
                .any(|&epoch| epoch.is_nan() || epoch <= 0.0)
        {
            return Err(PIECEWISE.refuse("`milestones` have to be epochs in ascending order"));
        }
        Ok(Arc::new(schedule))
    },
};

const ONE_CYCLE: ScheduleSpec = ScheduleSpec {
    kind: "schedule",
    name: "one-cycle",
    summary: "Rises to the learning rate and falls to all but 0, once",
    what_it_does: "from η/25 up to η at the share `peak` of the steps, then down to η/250000, each along half a cosine or a line",
    parameters: &[
        Parameter {
            name: "peak",
            default: "0.3",
            accepts: "a number between 0 and 1",
            help: "The share of the steps after which the learning rate is reached.",
        },
        Parameter {
            name: "shape",
            default: "cosine",
            accepts: "cosine or linear",
            help: "How it rises and falls.",
        },
    ],
    reference: "Smith and Topin: Super-Convergence. 2019, <https://arxiv.org/abs/1708.07120>.",
    build: |table| {
        let schedule: OneCycle = ONE_CYCLE.read(table)?;
        let peak = schedule.peak > 0.0 && schedule.peak < 1.0;
        ONE_CYCLE.require(peak, "peak", schedule.peak)?;
        Ok(Arc::new(schedule))
    },
};

fn check_warm_up(spec: &ScheduleSpec, warm_up: f64) -> Result<(), Error> {
    let possible = warm_up >= 0.0 && warm_up.is_finite();
    spec.require(possible, "warm_up", warm_up)
}

/// The same learning rate throughout.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {
    /// The epochs in which it rises.
    pub warm_up: f64,
}

impl Schedule for Constant {
    fn label(&self) -> String {
        CONSTANT.label(self)
    }

    fn factor(&self, moment: Moment) -> f64 {
        moment.warmed(self.warm_up)
    }
}

/// Half a cosine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cosine {
    /// The epochs in which it rises.
    pub warm_up: f64,
}

impl Schedule for Cosine {
    fn label(&self) -> String {
        COSINE.label(self)
    }

    fn factor(&self, moment: Moment) -> f64 {
        let done = moment.step as f64 / moment.steps.max(1) as f64;
        moment.warmed(self.warm_up) * (1.0 + (PI * done).cos()) / 2.0
    }
}

/// A factor at given epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Piecewise {
    /// The epochs after which it falls; none stands for half and three quarters of all.
    #[serde(deserialize_with = "numbers")]
    pub milestones: Vec<f64>,
    /// What it is multiplied by.
    pub factor: f64,
    /// The epochs in which it rises.
    pub warm_up: f64,
}

impl Default for Piecewise {
    fn default() -> Self {
        Piecewise {
            milestones: Vec::new(),
            factor: 0.1,
            warm_up: 0.0,
        }
    }
}

impl Schedule for Piecewise {
    fn label(&self) -> String {
        PIECEWISE.label(self)
    }

    fn factor(&self, moment: Moment) -> f64 {
        let halves = [moment.epochs * 0.5, moment.epochs * 0.75];
        let milestones = match self.milestones.as_slice() {
            [] => &halves,
            given => given,
        };
        let epoch = moment.epoch();
        let past = milestones.iter().filter(|&&milestone| milestone <= epoch);
        moment.warmed(self.warm_up) * past.fold(1.0, |factor, _| factor * self.factor)
    }
}

/// Up and down, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycle {
    /// The share of the steps after which the peak is reached.
    pub peak: f64,
    /// How it rises and falls.
    pub shape: Shape,
}

/// How a learning rate goes from one value to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Along half a cosine.
    #[default]
    Cosine,
    /// Along a line.
    Linear,
}

impl Default for OneCycle {
    fn default() -> Self {
        OneCycle {
            peak: 0.3,
            shape: Shape::Cosine,
        }
    }
}

impl Schedule for OneCycle {
    fn label(&self) -> String {
        ONE_CYCLE.label(self)
    }

    /// The phases end as in `torch.optim.lr_scheduler.OneCycleLR`: on the last step that belongs to them.
    fn factor(&self, moment: Moment) -> f64 {
        const START: f64 = 1.0 / 25.0;
        const END: f64 = START / 1e4;
        let (step, last) = (moment.step as f64, moment.steps.saturating_sub(1) as f64);
        let turn = self.peak * moment.steps as f64 - 1.0;
        let between = |from: f64, to: f64, done: f64| {
            let done = if done.is_finite() {
                done.clamp(0.0, 1.0)
            } else {
                1.0
            };
            match self.shape {
                Shape::Cosine => to + (from - to) * (1.0 + (PI * done).cos()) / 2.0,
                Shape::Linear => from + (to - from) * done,
            }
        };
        if step <= turn {
            between(START, 1.0, step / turn)
        } else {
            between(1.0, END, (step - turn) / (last - turn))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(text: &str, steps: u64, epochs: f64) -> Vec<f64> {
        let schedule = schedule(text).unwrap();
        let moment = |step| Moment {
            step,
            steps,
            epochs,
        };
        (0..steps)
            .map(|step| schedule.factor(moment(step)))
            .collect()
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// `torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=10)`, and with `anneal_strategy="linear", pct_start=0.5`.
    #[test]
    fn one_cycle_is_that_of_pytorch() {
        assert_near(&factors("one-cycle", 10, 2.0), &ONE_CYCLE_OF_PYTORCH);
        assert_near(
            &factors("one-cycle:peak=0.5,shape=linear", 10, 2.0),
            &LINEAR_ONE_CYCLE_OF_PYTORCH,
        );
    }

    #[test]
    fn cosine_is_that_of_pytorch() {
        // CosineAnnealingLR(T_max=4), stepped after every batch.
        let half = 0.5 + 0.125_f64.sqrt();
        assert_near(&factors("cosine", 4, 4.0), &[1.0, half, 0.5, 1.0 - half]);
    }

    #[test]
    fn milestones_count_epochs_whatever_the_number_of_steps() {
        let found = factors("piecewise:milestones=1,2,factor=0.5", 6, 3.0);
        assert_near(&found, &[1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
        let found = factors("piecewise", 4, 100.0);
        assert_near(&found, &[1.0, 1.0, 0.1, 0.01]);
    }

    #[test]
    fn a_warm_up_rises_in_equal_steps_and_ends_at_the_rate() {
        let found = factors("constant:warm_up=2", 6, 3.0);
        assert_near(&found, &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_single_step_has_a_finite_factor_in_every_schedule() {
        for spec in SCHEDULES {
            let found = factors(spec.name, 1, 1.0);
            assert!(found[0].is_finite() && found[0] > 0.0, "{}", spec.name);
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for (text, expected) in [
            (
                "piecewise:milestones=3,2",
                "schedule `piecewise`: `milestones` have to be epochs in ascending order",
            ),
            (
                "one-cycle:peak=1",
                "schedule `one-cycle`: `peak` cannot be 1; give a number between 0 and 1",
            ),
            (
                "one-cycle:shape=round",
                "schedule `one-cycle`: `shape` cannot be round; give cosine or linear",
            ),
            (
                "cosine:warm_up=-1",
                "schedule `cosine`: `warm_up` cannot be -1; give a number of epochs from 0",
            ),
        ] {
            assert_eq!(schedule(text).unwrap_err().to_string(), expected);
        }
    }

    const ONE_CYCLE_OF_PYTORCH: [f64; 10] = [
        0.040_000_000_000_000_036,
        0.52,
        1.0,
        0.950_484_632_013_473_7,
        0.811_745_653_949_763_1,
        0.611_262_021_936_289_3,
        0.388_741_978_063_710_75,
        0.188_258_346_050_236_97,
        0.049_519_367_986_526_286,
        4e-06,
    ];
    const LINEAR_ONE_CYCLE_OF_PYTORCH: [f64; 10] = [
        0.04, 0.28, 0.52, 0.76, 1.0, 0.800_000_8, 0.600_001_6, 0.400_002_4, 0.200_003_2, 4e-06,
    ];
}
