//! APGD: projected gradient descent that finds its step size by itself.
//!
//! Start at [`Apgd`]; the step for ℓ∞ and ℓ2 is in `dense`, the one for ℓ1 in `sparse`.

mod dense;
mod sparse;

use super::array::Array;
use super::expectation;
use super::targeted::{self, EOT, TARGETS};
use super::{
    Attack, AttackSpec, Context, Error, Extent, Loss, Next, Parameter, Pass, Planned, Start,
    StateArray,
};
use crate::threat::Norm;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, sync::Arc};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "apgd",
    summary: "Projected gradient descent with momentum that halves its step size where the loss does not rise",
    what_it_does: "\
Starts at a random point on the surface of the ball and takes steps z = P(x + η·direction(g)), x⁺ = P(x + ¾(z − x) + ¼(x − x⁻)), the first with z alone, from η = 2ε on.
At checkpoints (after 22 % of the steps, then 3 % of them sooner each time, but 6 % apart at least) η is halved, and the attack goes back to the point with the largest loss, where the loss has risen in at most ¾ of the steps since the last checkpoint, or where η was not halved then and the largest loss is what it was.
The first checkpoint counts from the loss at the start; the authors' code compares with 0 there, which counts one rise too many.
P is the exact projection onto the part of the ball that lies within the bounds.
In ℓ1 a step goes along the signs of the largest elements of g that can still move, at first those that the start has moved or a fifth of them, later two thirds of those that the best point has moved; η starts at ε, is divided by 1.5 at each checkpoint (4 % of the steps apart), and is ε again where the best point has moved 5 % fewer elements than before.
It looks in balls of radius 3ε, 2ε and ε for 30, 30 and 40 % of the gradients, each time from the best point of the ball before.
With `targets=n` each restart raises the loss against one class: the n classes with the largest scores of the clean sample beside the label, one after the other.",
    when_to_use: "\
As the first measure of robustness: no step size has to be chosen, and more steps only help. `loss=dlr,targets=9` finds what cross-entropy misses.",
    when_not: "\
Alone, where gradients say nothing: `autoattack` has an attack without gradients beside it.",
    parameters: &[
        Parameter {
            name: "steps",
            default: "100",
            accepts: "a whole number from 1 to 4294967295",
            help: "How many steps each restart takes.",
        },
        Parameter {
            name: "restarts",
            default: "1",
            accepts: "a whole number from 1 to 4294967295",
            help: "How often to run from a new random point (toward each of the targets) on a sample that is not broken yet.",
        },
        Parameter {
            name: "random_start",
            default: "true",
            accepts: "true or false",
            help: "`false` starts at the clean sample.",
        },
        Parameter {
            name: "loss",
            default: "cross-entropy",
            accepts: "cross-entropy, margin or dlr",
            help: "The loss that the attack raises. A model of 2 classes has no dlr: the margin takes its place.",
        },
        TARGETS,
        EOT,
    ],
    reference: "\
Croce and Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks. ICML 2020, <https://arxiv.org/abs/2003.01690>.
The ℓ1 form: Croce and Hein: Mind the box: l1-APGD for sparse adversarial attacks on image classifiers. ICML 2021, <https://arxiv.org/abs/2103.01208>.",
    build: |table| {
        let apgd: Apgd = SPEC.read(table)?;
        apgd.check()?;
        Ok(Planned::Gradient(Arc::new(apgd)))
    },
};

/// How many state arrays belong to the averaging of gradients, at the end of [`STATE`].
const AVERAGING: usize = 3;

/// What is kept between steps.
const STATE: [StateArray; 15] = [
    element("previous"),
    element("best_point"),
    element("best_gradient"),
    sample("best_loss"),
    sample("last_loss"),
    sample("checked"),
    sample("settled"),
    sample("rises"),
    sample("scale"),
    sample("window"),
    sample("left"),
    sample("step"),
    expectation::STATE[0],
    expectation::STATE[1],
    expectation::STATE[2],
];

const fn element(name: &'static str) -> StateArray {
    StateArray {
        name,
        extent: Extent::Element,
    }
}

const fn sample(name: &'static str) -> StateArray {
    StateArray {
        name,
        extent: Extent::Sample,
    }
}

/// [`STATE`] by name.
#[derive(Debug, Clone, Copy)]
struct State<'a> {
    /// The point that the current one was reached from.
    previous: Array<'a>,
    /// The point with the largest loss.
    best_point: Array<'a>,
    /// The gradient there.
    best_gradient: Array<'a>,
    /// The loss there.
    best_loss: Array<'a>,
    /// The loss at the point before.
    last_loss: Array<'a>,
    /// At the last checkpoint: the largest loss (in ℓ1 the number of elements that the best point had moved).
    checked: Array<'a>,
    /// Whether the step size was halved at the last checkpoint (in ℓ1 the share of elements that a step moves).
    settled: Array<'a>,
    /// In how many steps since the last checkpoint the loss has risen.
    rises: Array<'a>,
    /// The step size, in units of the radius.
    scale: Array<'a>,
    /// The number of steps between the last checkpoint and the next.
    window: Array<'a>,
    /// The number of steps until the next checkpoint.
    left: Array<'a>,
    /// The number of points seen.
    step: Array<'a>,
}

impl<'a> State<'a> {
    fn new(state: &[Array<'a>]) -> Self {
        let &[
            previous,
            best_point,
            best_gradient,
            best_loss,
            last_loss,
            checked,
            settled,
            rises,
            scale,
            window,
            left,
            step,
        ] = state
        else {
            unreachable!("one array for each of `STATE`");
        };
        State {
            previous,
            best_point,
            best_gradient,
            best_loss,
            last_loss,
            checked,
            settled,
            rises,
            scale,
            window,
            left,
            step,
        }
    }

    fn arrays(self) -> Vec<Array<'a>> {
        vec![
            self.previous,
            self.best_point,
            self.best_gradient,
            self.best_loss,
            self.last_loss,
            self.checked,
            self.settled,
            self.rises,
            self.scale,
            self.window,
            self.left,
            self.step,
        ]
    }

    /// Takes note of a point: the best so far, and whether its loss is above that of the point before.
    fn see(self, pass: &Pass<'a>) -> Self {
        let better = pass.loss.gt(self.best_loss);
        State {
            best_point: better.select(pass.point, self.best_point),
            best_gradient: better.select(pass.gradient, self.best_gradient),
            best_loss: pass.loss.max(self.best_loss),
            last_loss: pass.loss,
            rises: self.rises + pass.loss.gt(self.last_loss),
            ..self
        }
    }
}

/// Auto-PGD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apgd {
    /// Steps per restart.
    pub steps: NonZeroU32,
    /// Rounds, each from a random point of its own.
    pub restarts: NonZeroU32,
    /// Whether to start at a random point of the ball instead of the clean sample.
    pub random_start: bool,
    /// The loss to raise.
    pub loss: Loss,
    /// Classes to go toward, one in each run; 0 for none in particular.
    pub targets: u32,
    /// Gradients that a step takes the mean of.
    pub eot: NonZeroU32,
}

impl Default for Apgd {
    fn default() -> Self {
        Apgd {
            steps: const { NonZeroU32::new(100).unwrap() },
            restarts: NonZeroU32::MIN,
            random_start: true,
            loss: Loss::default(),
            targets: 0,
            eot: NonZeroU32::MIN,
        }
    }
}

impl Attack for Apgd {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check(&self) -> Result<(), Error> {
        targeted::check(&SPEC, self.targets, self.loss)?;
        targeted::check_restarts(&SPEC, self.restarts, self.random_start)?;
        targeted::check_passes(&SPEC, self.steps, self.eot)
    }

    fn steps(&self) -> u32 {
        self.steps.saturating_mul(self.eot).get()
    }

    fn moves(&self) -> u32 {
        self.steps.get()
    }

    fn restarts(&self) -> u32 {
        targeted::runs(self.restarts, self.targets)
    }

    fn random_start(&self) -> bool {
        self.random_start
    }

    fn targets(&self) -> u32 {
        self.targets
    }

    fn loss(&self) -> Loss {
        self.loss
    }

    fn loss_for(&self, classes: usize) -> Loss {
        match self.loss {
            Loss::Dlr if classes < 3 => Loss::Margin,
            loss => targeted::loss_for(loss, self.targets, classes),
        }
    }

    fn step_size(&self, epsilon: f64) -> f64 {
        2.0 * epsilon
    }

    fn state(&self) -> &'static [StateArray] {
        if self.eot > NonZeroU32::MIN {
            &STATE
        } else {
            const { STATE.split_at(STATE.len() - AVERAGING).0 }
        }
    }

    fn init<'a>(&self, context: &Context<'a>, noise: Option<Array<'a>>) -> Start<'a> {
        let start = match context.norm {
            Norm::Linf | Norm::L2 => dense::init(self.steps.get(), context, noise),
            Norm::L1 | Norm::L0 => sparse::init(self.steps.get(), context, noise),
        };
        expectation::init(self.eot, start)
    }

    fn step<'a>(&self, context: &Context<'a>, pass: &Pass<'a>, state: &[Array<'a>]) -> Next<'a> {
        let step = |pass: &Pass<'a>, state: &[Array<'a>]| match context.norm {
            Norm::Linf | Norm::L2 => {
                dense::step(self.steps.get(), context, pass, &State::new(state))
            }
            Norm::L1 | Norm::L0 => {
                sparse::step(self.steps.get(), context, pass, &State::new(state))
            }
        };
        expectation::step(self.eot, pass, state, step)
    }
}

#[cfg(test)]
mod tests;
