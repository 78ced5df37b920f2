//! Attacks that need no gradient: they ask the model about one point after the other, and look at what it says.
//!
//! Like every attack they see no model, no batch and no loop: a [`Search`] belongs to one sample, and its random numbers come from a stream of
//! its own, so that the samples beside it change nothing.
//! Start at [`QueryAttack`].

use super::{Error, Goal};
use crate::rng::Stream;
use crate::threat::{Bounds, Norm, Precision};
use std::{fmt, sync::Arc};

/// An attack without gradients, with its parameters set.
pub trait QueryAttack: fmt::Debug + Send + Sync {
    /// The name on the command line and in reports.
    fn name(&self) -> &'static str;

    /// The name with every parameter that differs from its default, as [`AttackPlan::parse`](super::AttackPlan::parse) reads it.
    fn label(&self) -> String;

    /// Refuses parameters that make no sense, alone or together.
    ///
    /// # Errors
    /// [`Error::Value`], which says what would be right.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Refuses norms that the attack is not made for.
    ///
    /// # Errors
    /// [`Error::Norm`], which says what to use instead.
    fn check_norm(&self, norm: Norm) -> Result<(), Error>;

    /// How many points the model is asked about per restart; at least 1.
    fn queries(&self) -> u32;

    /// How often the attack is run on a sample that it has not broken yet; at least 1.
    fn restarts(&self) -> u32 {
        1
    }

    /// What it is after.
    fn goal(&self) -> Goal;

    /// Whether it looks at scores, and not only at which class is predicted.
    fn needs_scores(&self) -> bool;

    /// Whether it wants samples of other classes to start from ([`Scene::others`]).
    fn wants_others(&self) -> bool {
        false
    }

    /// Starts on a sample.
    fn begin(&self, scene: Scene<'_>) -> Box<dyn Search>;
}

/// A sample and the threat to it.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius of the ball; without meaning for attacks that look for the nearest point.
    pub epsilon: f64,
    /// The valid inputs.
    pub bounds: Bounds,
    /// The precision of the model's input.
    pub precision: Precision,
    /// The shape of the sample, without the batch.
    pub shape: &'a [usize],
    /// The clean sample.
    pub clean: &'a [f32],
    /// Its label, which the model predicts.
    pub label: u32,
    /// Samples for which the model predicts another class than the label; may be empty.
    pub others: Vec<Arc<[f32]>>,
    /// The random numbers of this sample and restart.
    pub stream: Stream,
}

/// What the model says of a point.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Whether the predicted class is another one than the label.
    pub wrong: bool,
    /// A score for each class; empty where the model gives nothing but a label.
    pub scores: &'a [f32],
    /// Whether the scores are probabilities rather than logits.
    pub probabilities: bool,
}

/// An attack on one sample: points and answers, in turn.
pub trait Search: fmt::Debug + Send {
    /// Writes the next point to ask about into `point`, which holds one number for each of the sample's; `false` where there is none.
    fn next(&mut self, point: &mut [f32]) -> bool;

    /// Takes note of what the model says of `point`, which is the one that [`Search::next`] wrote last.
    fn answered(&mut self, point: &[f32], answer: &Answer<'_>);

    /// The point to report where none breaks the sample.
    fn best(&self) -> &[f32];
}

#[cfg(test)]
pub(super) mod linear {
    //! Searches against a linear model of two classes, whose nearest wrong point and largest gain are known in closed form.

    use super::*;
    use crate::rng::{Key, Purpose, stream};

    /// Says that x is right as long as weights·(x − clean) ≤ margin.
    #[derive(Debug)]
    pub(in super::super) struct Model {
        pub(in super::super) shape: Vec<usize>,
        pub(in super::super) clean: Vec<f32>,
        pub(in super::super) weights: Vec<f32>,
        pub(in super::super) margin: f64,
    }

    /// What a search has come to.
    #[derive(Debug)]
    pub(in super::super) struct Outcome {
        pub(in super::super) asked: Vec<Vec<f32>>,
        /// The largest weights·(x − clean).
        pub(in super::super) gain: f64,
        /// The distance of the nearest wrong point, ∞ where there is none.
        pub(in super::super) nearest: f64,
    }

    impl Model {
        /// Weights from −1 to 1, none of them 0, and a clean sample in the middle of the bounds.
        pub(in super::super) fn new(shape: &[usize], margin: f64) -> Self {
            let width = shape.iter().product();
            let weight = |j: usize| ((j * j * 7 + j * 3) % 23) as f32 / 11.0 - 1.03;
            Model {
                shape: shape.to_vec(),
                clean: vec![0.5; width],
                weights: (0..width).map(weight).collect(),
                margin,
            }
        }

        pub(in super::super) fn scene(&self, norm: Norm, epsilon: f64, sample: u64) -> Scene<'_> {
            Scene {
                norm,
                epsilon,
                bounds: Bounds::UNIT,
                precision: Precision::Single,
                shape: &self.shape,
                clean: &self.clean,
                label: 0,
                others: Vec::new(),
                stream: stream(Key {
                    seed: 0,
                    sample,
                    restart: 0,
                    purpose: Purpose::Queries,
                }),
            }
        }

        pub(in super::super) fn gain(&self, point: &[f32]) -> f64 {
            let moves = point.iter().zip(&self.clean).zip(&self.weights);
            moves
                .map(|((&to, &from), &weight)| {
                    (f64::from(to) - f64::from(from)) * f64::from(weight)
                })
                .sum()
        }

        /// The dual norm of the weights: gain per length of the best direction.
        pub(in super::super) fn slope(&self, norm: Norm) -> f64 {
            let weights = self.weights.iter().map(|&weight| f64::from(weight));
            match norm {
                Norm::Linf => weights.map(f64::abs).sum(),
                Norm::L2 => weights.map(|w| w * w).sum::<f64>().sqrt(),
                Norm::L1 | Norm::L0 => weights.map(f64::abs).fold(0.0, f64::max),
            }
        }

        pub(in super::super) fn run(
            &self,
            search: &mut dyn Search,
            norm: Norm,
            queries: u32,
        ) -> Outcome {
            let mut outcome = Outcome {
                asked: Vec::new(),
                gain: f64::NEG_INFINITY,
                nearest: f64::INFINITY,
            };
            for _ in 0..queries {
                let mut point = self.clean.clone();
                if !search.next(&mut point) {
                    break;
                }
                let gain = self.gain(&point);
                let wrong = gain > self.margin;
                outcome.gain = outcome.gain.max(gain);
                if wrong {
                    let distance = norm.distance(&self.clean, &point);
                    outcome.nearest = outcome.nearest.min(distance);
                }
                let answer = Answer {
                    wrong,
                    scores: &[0.0, (gain - self.margin) as f32],
                    probabilities: false,
                };
                search.answered(&point, &answer);
                outcome.asked.push(point);
            }
            outcome
        }
    }
}
