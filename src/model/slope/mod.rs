//! Does a gradient agree with the model? The gradient graph against differences of the model's own loss, on samples.
//!
//! The loss is that of the model as shipped, in double precision from its scores; it is differenced along the gradient and along random
//! directions, at ever smaller steps.
//! Straight through steps a gradient is not that of the model's loss, which is flat or jumps: there the model is differenced with each step
//! replaced by what passes through it, moved to where the step is at the sample ([`crate::grad::anchored`]).
//! For a standard normal direction v, the mean of ((g − ĝ)·v)² is ‖g − ĝ‖², so a few directions tell the error of the whole gradient.
//! Start at [`compare`].

mod difference;
mod probe;
mod scores;

use super::{Error, GradientGraph, Model};
use crate::threat::Precision;
use difference::Steps;
use probe::Probe;

/// Random directions per sample.
const DIRECTIONS: usize = 6;

/// Samples at a kink are looked at again this far beside it, in units of the size of an input element.
const BESIDE: f64 = 1e-2;

/// The samples that a gradient is compared at.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// What is perturbed, one sample behind the other.
    pub points: &'a [f32],
    /// The data that they come from, where an inner tensor is perturbed.
    pub data: &'a [f32],
    /// Their labels.
    pub labels: &'a [u32],
}

/// What was found of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The gradient is that of the loss, as far as differences tell.
    Agrees,
    /// It is not.
    Disagrees,
    /// The loss is too rough, or moves too little, for differences to tell.
    Undecided,
}

/// How the gradient of one sample agrees with the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleAgreement {
    /// The Euclidean length of the gradient.
    pub length: f64,
    /// The slope of the loss along the gradient; it should be the gradient's length.
    pub slope: f64,
    /// The length of the gradient's error, relative to the gradient, as the differences estimate it.
    pub error: f64,
    /// How far off that estimate may be.
    pub uncertainty: f64,
    /// Whether the loss has a kink at the sample, so that it was looked at beside it.
    pub at_kink: bool,
    /// What follows.
    pub finding: Finding,
}

/// What was found of all samples together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The gradient is that of the loss.
    Agrees,
    /// It is not, for this many samples of those that could be told.
    Disagrees {
        /// The samples whose gradient is not that of the loss.
        wrong: usize,
        /// The samples of which it could be told.
        told: usize,
    },
    /// No sample could be told.
    Undecided,
}

/// How a gradient agrees with the model's loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Sample by sample.
    pub samples: Vec<SampleAgreement>,
    /// Whether gradients pass straight through steps, so that they were compared with what passes through instead of the model's own loss.
    pub straight_through: bool,
}

impl Agreement {
    /// The slope along the gradient over its length, all samples together.
    #[must_use]
    pub fn slope_ratio(&self) -> f64 {
        let sum = |of: fn(&SampleAgreement) -> f64| self.samples.iter().map(of).sum::<f64>();
        sum(|sample| sample.slope) / sum(|sample| sample.length)
    }

    /// The samples whose gradient is zero.
    #[must_use]
    pub fn dead(&self) -> usize {
        self.count(|sample| sample.length == 0.0)
    }

    /// The samples at a kink.
    #[must_use]
    pub fn at_kink(&self) -> usize {
        self.count(|sample| sample.at_kink)
    }

    /// The samples with that finding.
    #[must_use]
    pub fn found(&self, finding: Finding) -> usize {
        self.count(|sample| sample.finding == finding)
    }

    fn count(&self, of: impl Fn(&SampleAgreement) -> bool) -> usize {
        self.samples.iter().filter(|sample| of(sample)).count()
    }

    /// What follows from all samples.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let wrong = self.found(Finding::Disagrees);
        let told = wrong + self.found(Finding::Agrees);
        match (wrong, told) {
            (_, 0) => Verdict::Undecided,
            (0, _) => Verdict::Agrees,
            _ => Verdict::Disagrees { wrong, told },
        }
    }
}

/// How steps and tolerances go with the precision that a model computes in.
#[derive(Debug, Clone, Copy)]
struct Scale {
    steps: Steps,
    /// The relative error that counts as agreement.
    tolerance: f64,
    /// The spacing of numbers around 1.
    epsilon: f64,
    /// The smallest number that is told from 0.
    least: f64,
}

impl Scale {
    fn of(model: &Model) -> Self {
        let large = Steps {
            first: 0.4,
            ratio: 2.0,
            count: 5,
        };
        match model.coarsest() {
            Precision::Single => Scale {
                steps: Steps {
                    first: 0.1,
                    ratio: 4.0,
                    count: 7,
                },
                tolerance: 0.02,
                epsilon: f64::from(f32::EPSILON),
                least: f64::from(f32::MIN_POSITIVE),
            },
            Precision::Half => Scale {
                steps: large,
                tolerance: 0.1,
                epsilon: 2f64.powi(-10),
                least: 2f64.powi(-24),
            },
            Precision::Brain => Scale {
                steps: large,
                tolerance: 0.25,
                epsilon: 2f64.powi(-7),
                least: f64::from(f32::MIN_POSITIVE),
            },
        }
    }
}

/// Compares a gradient graph with differences of the model's loss.
///
/// # Errors
/// Where ONNX Runtime fails, a score is NaN, or an element of the gradient is not finite.
pub fn compare(
    model: &Model,
    graph: &GradientGraph,
    samples: &Samples<'_>,
) -> Result<Agreement, Error> {
    let width = model.sample_shape().iter().product::<usize>().max(1);
    let scale = Scale::of(model);
    let mut probe = Probe::new(model, graph)?;
    let mut found = look(&mut probe, samples, &scale, 0)?;
    let suspects: Vec<usize> = (0..found.len())
        .filter(|&sample| found[sample].bent)
        .collect();
    if !suspects.is_empty() {
        let row = |from: &[f32], width: usize| -> Vec<f32> {
            let rows = suspects
                .iter()
                .map(|at| &from[at * width..(at + 1) * width]);
            rows.flatten().copied().collect()
        };
        let data_width = samples.data.len() / samples.labels.len().max(1);
        let points = beside(&row(samples.points, width), width, model.precision());
        let data = row(samples.data, data_width);
        let labels: Vec<u32> = suspects.iter().map(|&at| samples.labels[at]).collect();
        let samples = Samples {
            points: &points,
            data: &data,
            labels: &labels,
        };
        let again = look(&mut probe, &samples, &scale, 1)?;
        for (at, mut again) in suspects.into_iter().zip(again) {
            // What is wrong beside the kink too was no matter of the kink.
            if again.agreement.finding == Finding::Agrees {
                again.agreement.at_kink = true;
                again.agreement.length = found[at].agreement.length;
                found[at] = again;
            }
        }
    }
    Ok(Agreement {
        samples: found.into_iter().map(|found| found.agreement).collect(),
        straight_through: model.straight_through(),
    })
}

/// What differences show of one sample.
struct Look {
    agreement: SampleAgreement,
    /// Whether the slopes to both sides differ by enough to explain a disagreement.
    bent: bool,
}

/// Compares at the samples just as they are.
fn look(
    probe: &mut Probe<'_>,
    samples: &Samples<'_>,
    scale: &Scale,
    turn: u64,
) -> Result<Vec<Look>, Error> {
    let gradients = probe.gradients(samples)?;
    let slopes = probe.slopes(samples, &gradients, scale, turn)?;
    let per_sample = DIRECTIONS + 1;
    let looks = gradients.iter().zip(slopes.chunks(per_sample));
    Ok(looks
        .map(|(gradient, slopes)| {
            let length = norm(gradient);
            let (along, random) = slopes.split_at(1);
            let mean = |of: &dyn Fn(&probe::Slope) -> f64| {
                (random.iter().map(of).sum::<f64>() / DIRECTIONS as f64).sqrt()
            };
            // Residuals are differences less what the gradient says of them.
            let residual = mean(&|slope| slope.residual.slope.powi(2));
            let uncertainty = mean(&|slope| slope.residual.uncertainty.powi(2));
            let measured = mean(&|slope| slope.total().powi(2));
            let bend = mean(&|slope| slope.bend.powi(2));
            let size = length.max(measured).max(f64::MIN_POSITIVE);
            let along_error = along
                .first()
                .map_or(0.0, |slope| slope.residual.slope.abs());
            let along_uncertainty = along
                .first()
                .map_or(0.0, |slope| slope.residual.uncertainty);
            let error = residual.max(along_error) / size;
            let uncertainty = uncertainty.max(along_uncertainty) / size;
            // A slope that is smaller than the numbers of the graph tells nothing of it.
            let finding = if length == 0.0 && measured < scale.least {
                Finding::Undecided
            } else {
                judge(error, uncertainty, scale.tolerance)
            };
            Look {
                agreement: SampleAgreement {
                    length,
                    slope: along.first().map_or(0.0, probe::Slope::total),
                    error,
                    uncertainty,
                    at_kink: false,
                    finding,
                },
                bent: finding != Finding::Agrees && bend >= residual.max(along_error),
            }
        })
        .collect())
}

/// What an error and its uncertainty say.
fn judge(error: f64, uncertainty: f64, tolerance: f64) -> Finding {
    if error > tolerance + 3.0 * uncertainty {
        Finding::Disagrees
    } else if error <= tolerance + uncertainty && uncertainty <= 0.3 {
        Finding::Agrees
    } else {
        Finding::Undecided
    }
}

/// The points moved a little at random, each by the size of its own elements.
fn beside(points: &[f32], width: usize, precision: Precision) -> Vec<f32> {
    let mut moved = Vec::with_capacity(points.len());
    for (sample, point) in points.chunks(width).enumerate() {
        let direction = probe::random_direction(sample, DIRECTIONS, 0, width);
        let step = BESIDE * size(point);
        moved.extend(probe::shifted(point, &direction, step, precision));
    }
    moved
}

/// The size of a sample's elements: their root mean square, or 1 where all are 0.
fn size(point: &[f32]) -> f64 {
    let squares: f64 = point.iter().map(|&x| f64::from(x).powi(2)).sum();
    #[expect(clippy::cast_precision_loss, reason = "a number of elements")]
    let mean = squares / point.len().max(1) as f64;
    if mean == 0.0 { 1.0 } else { mean.sqrt() }
}

fn norm(gradient: &[f64]) -> f64 {
    gradient.iter().map(|g| g * g).sum::<f64>().sqrt()
}
