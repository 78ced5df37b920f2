//! Runs the gradient graph at samples, and the model around them.

use super::difference::{Differences, Estimate, bend};
use super::scores::{self, HostLoss};
use super::{DIRECTIONS, Samples, Scale, norm, size};
use crate::grad;
use crate::loss::Loss;
use crate::model::fuse::attacked;
use crate::model::runner::{Feed, Runner};
use crate::model::{Batch, Error, GradientGraph, Judge, Model, load};
use crate::runtime::{Session, Value};
use crate::tensor::Tensor;
use crate::threat::Precision;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Elements that are run at once: enough to keep a device busy, and no matter for its memory.
const ELEMENTS: usize = 1 << 20;

/// Bends count as kinks from this step on.
const FINE: usize = 2;

/// The gradient graph and the model, loaded.
pub(super) struct Probe<'a> {
    model: &'a Model,
    gradient: Session,
    scores: Scores,
    feed: Feed,
    loss: Loss,
    probabilities: bool,
}

/// What gives the scores that losses are computed from.
enum Scores {
    /// The model as shipped.
    Shipped(Judge),
    /// Where gradients pass straight through steps: the function that they are the gradient of, which takes the sample as an anchor.
    Anchored(Runner),
}

impl Scores {
    fn of(model: &Model, feed: &Feed) -> Result<Self, Error> {
        if !model.straight_through() {
            return Ok(Scores::Shipped(model.judge()?));
        }
        let graph = model.graph().clone();
        let input = graph.find(&feed.name);
        let input = input.ok_or_else(|| Error::Internal("the input was lost".into()))?;
        let graph = grad::anchored(graph, input, ANCHOR).map_err(|reason| {
            Error::Unsuitable(format!(
                "a gradient straight through steps cannot be compared here: {reason}"
            ))
        })?;
        let anchor = Feed {
            name: ANCHOR.into(),
            ..feed.clone()
        };
        let feeds = [feed.clone(), anchor];
        let feeds = feeds.into_iter().chain(model.carried().cloned());
        Ok(Scores::Anchored(Runner::new(
            &graph,
            feeds.collect(),
            model.output(),
            model.batch(),
            model.session_options(),
        )?))
    }
}

/// The second input of an anchored graph.
const ANCHOR: &str = "mohs/anchor";

/// What differences say of one direction.
pub(super) struct Slope {
    /// The slope less what the gradient says it is.
    pub(super) residual: Estimate,
    /// What the gradient says.
    pub(super) said: f64,
    /// How much the slopes to both sides differ at fine steps.
    pub(super) bend: f64,
}

impl Slope {
    pub(super) fn total(&self) -> f64 {
        self.said + self.residual.slope
    }
}

/// A direction of a sample on its way down the steps.
struct Walk {
    sample: usize,
    place: usize,
    differences: Differences,
    said: f64,
    bend: f64,
    open: bool,
}

impl<'a> Probe<'a> {
    pub(super) fn new(model: &'a Model, graph: &GradientGraph) -> Result<Self, Error> {
        let (input, _) = attacked(graph)?;
        let feed = Feed {
            name: graph.graph.name(input).to_owned(),
            dtype: model.input_dtype(),
            sample_shape: model.sample_shape().to_vec(),
        };
        Ok(Probe {
            model,
            gradient: load(&graph.graph.to_model(), model.session_options())?,
            scores: Scores::of(model, &feed)?,
            feed,
            loss: graph
                .metadata("mohs.loss")
                .and_then(|name| name.parse().ok())
                .unwrap_or_default(),
            probabilities: graph.softmax_removed || graph.of_probabilities,
        })
    }

    /// Samples that are run at once.
    fn rows(&self) -> usize {
        match self.model.batch() {
            Batch::Dynamic => (ELEMENTS / self.feed.width().max(1)).clamp(4, 256),
            Batch::Fixed(size) => size,
        }
    }

    /// The gradient of each sample.
    pub(super) fn gradients(&mut self, samples: &Samples<'_>) -> Result<Vec<Vec<f64>>, Error> {
        let width = self.feed.width();
        let data_width = samples.data.len() / samples.labels.len().max(1);
        let carried = self.model.carried().cloned();
        let fixed = matches!(self.model.batch(), Batch::Fixed(_));
        let mut gradients = Vec::new();
        for (turn, labels) in samples.labels.chunks(self.rows()).enumerate() {
            let start = turn * self.rows();
            // A fixed batch is filled up with the last sample.
            let rows = if fixed { self.rows() } else { labels.len() };
            let at = |row: usize| start + row.min(labels.len() - 1);
            let take = |from: &[f32], width: usize| -> Vec<f32> {
                let rows = (0..rows).map(|row| &from[at(row) * width..(at(row) + 1) * width]);
                rows.flatten().copied().collect()
            };
            let mut feeds = vec![(
                self.feed.name.clone(),
                self.feed.value(rows, take(samples.points, width))?,
            )];
            if let Some(carried) = &carried {
                let value = carried.value(rows, take(samples.data, data_width))?;
                feeds.push((carried.name.clone(), value));
            }
            let classes = (0..rows).map(|row| i64::from(samples.labels[at(row)]));
            let classes = Tensor::new(&[rows], classes.collect())
                .ok_or_else(|| Error::Internal("labels have the wrong size".into()))?;
            feeds.push(("labels".into(), Value::from_tensor(classes)?));
            let inputs: Vec<(&str, &Value)> = feeds
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .collect();
            let found = self.gradient.run_for(&["grad"], &inputs)?;
            let found = found.first().map(Value::to_tensor).transpose()?;
            let found = found.map(|tensor| tensor.to_f64()).unwrap_or_default();
            gradients.extend(found.chunks(width).take(labels.len()).map(<[f64]>::to_vec));
        }
        for (sample, gradient) in gradients.iter().enumerate() {
            if let Some(element) = gradient.iter().position(|g| !g.is_finite()) {
                return Err(Error::Unsuitable(format!(
                    "the gradient is {} in element {element} of sample {sample} of those that it is compared at",
                    gradient[element]
                )));
            }
        }
        Ok(gradients)
    }

    /// For each sample the slope along its gradient, and along random directions.
    pub(super) fn slopes(
        &mut self,
        samples: &Samples<'_>,
        gradients: &[Vec<f64>],
        scale: &Scale,
        turn: u64,
    ) -> Result<Vec<Slope>, Error> {
        let width = self.feed.width();
        let center = self.losses(samples.points, samples.points, samples.data, samples.labels)?;
        let mut walks: Vec<Walk> = (0..gradients.len() * (DIRECTIONS + 1))
            .map(|number| Walk {
                sample: number / (DIRECTIONS + 1),
                place: number % (DIRECTIONS + 1),
                differences: Differences::NONE,
                said: 0.0,
                bend: 0.0,
                open: true,
            })
            .collect();
        let mut step = scale.steps.first;
        for turn_of_step in 0..scale.steps.count {
            let rows = (self.rows() / 2).max(1);
            let open: Vec<usize> = (0..walks.len()).filter(|&at| walks[at].open).collect();
            for part in open.chunks(rows) {
                let mut around = Around::default();
                for &at in part {
                    let walk = &walks[at];
                    let point = &samples.points[walk.sample * width..(walk.sample + 1) * width];
                    let direction = direction(walk, gradients, turn);
                    let step = step * size(point);
                    for sign in [1.0, -1.0] {
                        let precision = self.model.precision();
                        let moved = shifted(point, &direction, sign * step, precision);
                        around.add(&moved, samples, walk.sample);
                    }
                    walks[at].said = dot(&gradients[walk.sample], &direction);
                }
                let losses = self.losses(
                    &around.points,
                    &around.anchors,
                    &around.data,
                    &around.labels,
                )?;
                for (pair, &at) in part.iter().enumerate() {
                    let walk = &mut walks[at];
                    let point = &samples.points[walk.sample * width..(walk.sample + 1) * width];
                    let step = step * size(point);
                    let [up, down] = [2 * pair, 2 * pair + 1].map(|row| {
                        let moved = &around.points[row * width..(row + 1) * width];
                        (losses[row], moved)
                    });
                    let rounding = scale.epsilon * up.0.scale.max(down.0.scale).max(1e-3);
                    let sensitivity = up.0.sensitivity.max(down.0.sensitivity);
                    let noise = rounding * sensitivity / (2.0 * step);
                    // By how much the points differ in truth: they are rounded to what the input holds.
                    let expected = along(&gradients[walk.sample], up.1, down.1);
                    let middle = center[walk.sample].value;
                    let (up, down) = (up.0.value - expected / 2.0, down.0.value + expected / 2.0);
                    walk.differences.push(up, middle, down, step, noise);
                    if turn_of_step >= FINE {
                        walk.bend = walk.bend.max(bend(up, middle, down, step));
                    }
                    let length = norm(&gradients[walk.sample]);
                    walk.open = walk.differences.best.uncertainty > 0.2 * scale.tolerance * length;
                }
            }
            step /= scale.steps.ratio;
        }
        Ok(walks
            .into_iter()
            .map(|walk| Slope {
                residual: walk.differences.best,
                said: walk.said,
                bend: walk.bend,
            })
            .collect())
    }

    /// The loss at each point, with the sample that it is near.
    fn losses(
        &mut self,
        points: &[f32],
        anchors: &[f32],
        data: &[f32],
        labels: &[u32],
    ) -> Result<Vec<HostLoss>, Error> {
        let width = self.feed.width();
        let data_width = data.len() / labels.len().max(1);
        let classes = self.model.answers().width();
        let mut losses = Vec::with_capacity(labels.len());
        for (turn, labels) in labels.chunks(self.rows()).enumerate() {
            let rows = turn * self.rows()..turn * self.rows() + labels.len();
            let [points, anchors] =
                [points, anchors].map(|of| &of[rows.start * width..rows.end * width]);
            let data = &data[rows.start * data_width..rows.end * data_width];
            let found = match &mut self.scores {
                Scores::Shipped(judge) => judge.scores(points, data)?,
                Scores::Anchored(runner) => runner.run(&[points, anchors, data])?,
            };
            for (row, (scores, &label)) in found.chunks(classes).zip(labels).enumerate() {
                if let Some(class) = scores.iter().position(|score| score.is_nan()) {
                    return Err(Error::NotANumber { row, class });
                }
                losses.push(scores::loss(self.loss, scores, label, self.probabilities));
            }
        }
        Ok(losses)
    }
}

/// Points around samples.
#[derive(Default)]
struct Around {
    points: Vec<f32>,
    anchors: Vec<f32>,
    data: Vec<f32>,
    labels: Vec<u32>,
}

impl Around {
    fn add(&mut self, point: &[f32], samples: &Samples<'_>, sample: usize) {
        let data_width = samples.data.len() / samples.labels.len().max(1);
        self.points.extend(point);
        let anchor = sample * point.len()..(sample + 1) * point.len();
        self.anchors.extend(&samples.points[anchor]);
        let data = sample * data_width..(sample + 1) * data_width;
        self.data.extend(&samples.data[data]);
        self.labels.push(samples.labels[sample]);
    }
}

/// The gradient's own direction first, then random ones; the same in every call.
fn direction(walk: &Walk, gradients: &[Vec<f64>], turn: u64) -> Vec<f64> {
    let gradient = &gradients[walk.sample];
    if walk.place > 0 {
        return random_direction(walk.sample, walk.place - 1, turn, gradient.len());
    }
    let length = norm(gradient).max(f64::MIN_POSITIVE);
    gradient.iter().map(|g| g / length).collect()
}

/// A standard normal direction.
pub(super) fn random_direction(sample: usize, place: usize, turn: u64, width: usize) -> Vec<f64> {
    let number = (sample * (DIRECTIONS + 1) + place) as u64;
    let mut rng = ChaCha8Rng::seed_from_u64(number ^ (turn << 48));
    let normal = StandardNormal;
    (0..width).map(|_| normal.sample(&mut rng)).collect()
}

/// A point moved along a direction, as the model's input holds it.
pub(super) fn shifted(
    point: &[f32],
    direction: &[f64],
    step: f64,
    precision: Precision,
) -> Vec<f32> {
    let moved = point.iter().zip(direction);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "inputs are single precision at most"
    )]
    moved
        .map(|(&x, v)| precision.nearest((f64::from(x) + step * v) as f32))
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What a gradient says of the way from one point to another.
fn along(gradient: &[f64], up: &[f32], down: &[f32]) -> f64 {
    let ways = up
        .iter()
        .zip(down)
        .map(|(&a, &b)| f64::from(a) - f64::from(b));
    gradient.iter().zip(ways).map(|(g, way)| g * way).sum()
}
