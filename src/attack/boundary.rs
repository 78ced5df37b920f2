//! The boundary attack: a walk along the border between right and wrong, by labels alone (ℓ2).

use super::crossing::{Bisection, Opening};
use super::query::{Answer, QueryAttack, Scene, Search};
use super::{AttackSpec, Error, Goal, Parameter, Planned};
use crate::rng::Stream;
use crate::threat::{Bounds, Norm};
use rand::Rng;
use rand_distr::StandardNormal;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "boundary",
    summary: "A random walk along the border between right and wrong, by labels alone (ℓ2)",
    what_it_does: "\
Looks for the wrong point nearest to the clean sample, and asks the model for nothing but the predicted class.
Starts at a random point within the bounds that the model gets wrong (where 100 of them do not help, at a sample that the model takes for another class), goes to the border by bisection, and then again and again takes a random step along the sphere around the clean sample and a small step inward.
Both steps grow where more than half of the steps along the sphere (a quarter of the steps inward) stay wrong, and shrink where fewer than a fifth (a tenth) do.
A sample is broken at every ε from the distance found on.",
    when_to_use: "\
For models that give labels without scores, in ℓ2, where there is time: the walk is slow, and ends near the nearest wrong point.",
    when_not: "\
With few queries: `hopskipjump` is nearer after some thousands. With scores, `square` is better; with gradients, anything that follows them.",
    parameters: &[Parameter {
        name: "queries",
        default: "25000",
        accepts: "a whole number from 1 to 4294967295",
        help: "How many points the model is asked about, the search for a start included.",
    }],
    reference: "\
Brendel, Rauber and Bethge: Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box Machine Learning Models. ICLR 2018, <https://arxiv.org/abs/1712.04248>.",
    build: |table| Ok(Planned::Query(Arc::new(SPEC.read::<Boundary>(table)?))),
};

/// The boundary attack.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Boundary {
    /// Points that the model is asked about, the search for the first wrong one included.
    pub queries: NonZeroU32,
}

impl Default for Boundary {
    fn default() -> Self {
        Boundary {
            queries: const { NonZeroU32::new(25_000).unwrap() },
        }
    }
}

impl QueryAttack for Boundary {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        SPEC.only_norms(norm, &[Norm::L2], "use hopskipjump for linf")
    }

    fn queries(&self) -> u32 {
        self.queries.get()
    }

    fn goal(&self) -> Goal {
        Goal::MinimumNorm
    }

    fn needs_scores(&self) -> bool {
        false
    }

    fn wants_others(&self) -> bool {
        true
    }

    fn begin(&self, scene: Scene<'_>) -> Box<dyn Search> {
        Box::new(Walk::new(scene))
    }
}

/// The first step along the sphere, as a share of the distance, and the first step inward.
const FIRST_STEP: f64 = 0.01;
/// Steps grow and shrink by this factor.
const ADAPTATION: f64 = 1.5;
/// Every so many steps, the step along the sphere is asked about by itself, and both are counted.
const COUNTED: u32 = 10;
/// Where steps inward are shorter than this share of the distance, the walk is over.
const CONVERGED: f64 = 1e-7;
/// The bisection to the border stops at this share of the way.
const GAP: f64 = 1e-3;

/// One run on one sample.
#[derive(Debug)]
struct Walk {
    clean: Vec<f32>,
    bounds: Bounds,
    stream: Stream,
    phase: Phase,
    /// The nearest wrong point, once there is one; the clean sample until then.
    best: Vec<f32>,
    found: bool,
    /// The step along the sphere, as a share of the distance.
    around: f64,
    /// The step inward, as a share of the distance.
    inward: f64,
    steps: u32,
    around_succeeded: Record,
    inward_succeeded: Record,
}

#[derive(Debug)]
enum Phase {
    Opening(Opening),
    Bisection(Bisection),
    /// Asked about a step; with the point on the sphere that is asked about next, where steps are counted.
    Step(Option<Vec<f32>>),
    /// Asked about a point on the sphere.
    Sphere,
}

/// The last answers of one kind.
#[derive(Debug)]
struct Record {
    answers: VecDeque<bool>,
    length: usize,
}

impl Record {
    fn new(length: usize) -> Self {
        Record {
            answers: VecDeque::with_capacity(length),
            length,
        }
    }

    fn note(&mut self, answer: bool) {
        if self.answers.len() == self.length {
            self.answers.pop_front();
        }
        self.answers.push_back(answer);
    }

    /// Whether to take longer (`true`) or shorter steps, when there are enough answers to tell; they are forgotten then.
    fn verdict(&mut self, too_few: f64, too_many: f64) -> Option<bool> {
        if self.answers.len() < self.length {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most a hundred answers")]
        let share = self.answers.iter().filter(|yes| **yes).count() as f64 / self.length as f64;
        let verdict = match share {
            share if share > too_many => true,
            share if share < too_few => false,
            _ => return None,
        };
        self.answers.clear();
        Some(verdict)
    }
}

impl Walk {
    fn new(scene: Scene<'_>) -> Self {
        Walk {
            clean: scene.clean.to_vec(),
            bounds: scene.bounds,
            stream: scene.stream,
            phase: Phase::Opening(Opening::new(scene.clean, scene.others)),
            best: scene.clean.to_vec(),
            found: false,
            around: FIRST_STEP,
            inward: FIRST_STEP,
            steps: 0,
            around_succeeded: Record::new(100),
            inward_succeeded: Record::new(30),
        }
    }

    /// The next point to ask about; `None` where the walk is over.
    fn propose(&mut self) -> Option<Vec<f32>> {
        match &mut self.phase {
            Phase::Opening(opening) => opening.next(&self.clean, self.bounds, &mut self.stream),
            Phase::Bisection(bisection) => match bisection.next(&self.clean) {
                Some(point) => Some(point),
                None => {
                    self.phase = Phase::Step(None);
                    self.step()
                }
            },
            Phase::Step(sphere) => match sphere.take() {
                Some(point) => {
                    self.phase = Phase::Sphere;
                    Some(point)
                }
                None => self.step(),
            },
            Phase::Sphere => self.step(),
        }
    }

    fn adapt(&mut self) {
        if let Some(longer) = self.around_succeeded.verdict(0.2, 0.5) {
            let factor = if longer { ADAPTATION } else { 1.0 / ADAPTATION };
            self.around *= factor;
            self.inward *= factor;
        }
        if let Some(longer) = self.inward_succeeded.verdict(0.1, 0.25) {
            self.inward *= if longer { ADAPTATION } else { 1.0 / ADAPTATION };
        }
    }

    /// A step along the sphere around the clean sample, and from there inward.
    fn step(&mut self) -> Option<Vec<f32>> {
        if self.inward < CONVERGED {
            return None;
        }
        self.steps += 1;
        let outward: Vec<f64> = difference(&self.best, &self.clean);
        let distance = length(&outward);
        if distance == 0.0 {
            return None;
        }
        let mut along: Vec<f64> = outward
            .iter()
            .map(|_| self.stream.sample(StandardNormal))
            .collect();
        let radial = dot(&along, &outward) / (distance * distance);
        for (along, outward) in along.iter_mut().zip(&outward) {
            *along -= radial * outward;
        }
        let scale = self.around * distance / length(&along).max(f64::MIN_POSITIVE);
        let shrink = 1.0 / (self.around * self.around + 1.0).sqrt();
        let on_sphere = outward
            .iter()
            .zip(&along)
            .map(|(outward, along)| shrink * (outward + scale * along));
        let sphere = self.point(on_sphere);
        let outward = difference(&sphere, &self.clean);
        let reached = length(&outward);
        let inward = (self.inward * distance + reached - distance).max(0.0);
        let keep = 1.0 - inward / reached.max(f64::MIN_POSITIVE);
        let point = self.point(outward.iter().map(|outward| keep * outward));
        self.phase = Phase::Step((self.steps.is_multiple_of(COUNTED)).then_some(sphere));
        Some(point)
    }

    /// clean + δ within the bounds.
    fn point(&self, delta: impl Iterator<Item = f64>) -> Vec<f32> {
        let Bounds { low, high } = self.bounds;
        let values = self.clean.iter().zip(delta);
        values
            .map(|(&clean, delta)| ((f64::from(clean) + delta) as f32).max(low).min(high))
            .collect()
    }
}

impl Search for Walk {
    fn next(&mut self, point: &mut [f32]) -> bool {
        self.propose().is_some_and(|next| {
            point.copy_from_slice(&next);
            true
        })
    }

    fn answered(&mut self, point: &[f32], answer: &Answer<'_>) {
        let wrong = answer.wrong;
        let closer = !self.found
            || Norm::L2.distance(&self.clean, point) < Norm::L2.distance(&self.clean, &self.best);
        if wrong && closer && !matches!(self.phase, Phase::Sphere) {
            self.best.copy_from_slice(point);
            self.found = true;
        }
        match &mut self.phase {
            Phase::Opening(_) if wrong => {
                let far = point.to_vec();
                self.phase = Phase::Bisection(Bisection::new(Norm::L2, &self.clean, far, GAP));
            }
            Phase::Opening(_) => {}
            Phase::Bisection(bisection) => bisection.answered(point, wrong),
            Phase::Step(sphere) => {
                if sphere.is_some() {
                    self.inward_succeeded.note(wrong);
                }
            }
            Phase::Sphere => {
                self.around_succeeded.note(wrong);
                self.adapt();
            }
        }
    }

    fn best(&self) -> &[f32] {
        &self.best
    }
}

fn difference(to: &[f32], from: &[f32]) -> Vec<f64> {
    let pairs = to.iter().zip(from);
    pairs
        .map(|(&to, &from)| f64::from(to) - f64::from(from))
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::query::linear::Model;
    use super::*;

    #[test]
    fn it_finds_the_nearest_wrong_point_of_a_linear_model() {
        for width in [2, 20, 60] {
            let slope = Model::new(&[width], 0.0).slope(Norm::L2);
            let model = Model::new(&[width], 0.2 * slope);
            let mut search = Boundary::default().begin(model.scene(Norm::L2, 1.0, 0));
            let outcome = model.run(search.as_mut(), Norm::L2, 25_000);
            let excess = outcome.nearest / 0.2;
            assert!((1.0 - 1e-5..1.01).contains(&excess), "{width}: {excess}");
        }
    }

    #[test]
    fn without_a_wrong_point_it_comes_to_an_end() {
        let model = Model::new(&[8], 1e9);
        let mut search = Boundary::default().begin(model.scene(Norm::L2, 1.0, 0));
        let outcome = model.run(search.as_mut(), Norm::L2, 25_000);
        assert_eq!(outcome.asked.len(), 100);
        assert_eq!(search.best(), model.clean);
    }

    #[test]
    fn steps_grow_and_shrink_with_their_success() {
        let mut record = Record::new(10);
        let notes = |record: &mut Record, wrong: usize| {
            (0..10).for_each(|place| record.note(place < wrong));
            record.verdict(0.2, 0.5)
        };
        assert_eq!(record.verdict(0.2, 0.5), None);
        assert_eq!(notes(&mut record, 6), Some(true));
        assert_eq!(notes(&mut record, 5), None);
        assert_eq!(notes(&mut record, 1), Some(false));
    }
}
