//! The engine: the sessions of a method's passes, and the weights that go from run to run.
//!
//! Parameters, optimizer state and running statistics are values of ONNX Runtime: what one run gives the next one takes, without a copy.
//! A method asks for runs by the position of its passes ([`Engine::run`]); the engine knows no method.

use super::loader::Prepared;
use super::optim::Optimizer;
use super::pass::{Built, Given, PassSpec, Taken, Weights, build};
use super::schedule::{Moment, Schedule};
use super::{Error, Setting};
use crate::model::training::{Mask, Trainable};
use crate::model::{self, Model, typed};
use crate::rng::{Key, Purpose, stream};
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::{DType, Tensor};
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the learning rate of a step depends on.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub(super) optimizer: Arc<dyn Optimizer>,
    pub(super) schedule: Arc<dyn Schedule>,
    /// The weight steps of the whole training.
    pub(super) steps: u64,
    /// The epochs that were asked for.
    pub(super) epochs: f64,
}

impl Course {
    /// The learning rate of a step, counted from 0.
    pub(super) fn learning_rate(&self, step: u64) -> f64 {
        let moment = Moment {
            step,
            steps: self.steps,
            epochs: self.epochs,
        };
        self.optimizer.learning_rate() * self.schedule.factor(moment)
    }
}

/// Everything that training changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) parameters: Vec<Value>,
    pub(super) statistics: Vec<Value>,
    /// What the optimizer keeps of each parameter.
    pub(super) optimizer: Vec<Vec<Value>>,
    /// The perturbation that goes from batch to batch, one row for each place in a batch.
    pub(super) carried: Option<Value>,
    /// The weight steps done.
    pub(super) step: u64,
    /// The passes forward and backward done.
    pub(super) passes: u64,
}

/// A batch as the sessions take it.
#[derive(Debug)]
pub struct Batch {
    pub(super) rows: usize,
    /// The rows that count; others fill a batch of fixed size.
    pub(super) counted: usize,
    pub(super) indices: Vec<u64>,
    clean: Value,
    labels: Value,
    /// The first points, where the method asks for any.
    pub(super) start: Option<Value>,
    real: Option<Value>,
    epsilon: Value,
    dropout: BTreeMap<String, Value>,
}

/// What a run is given beside the batch and the weights.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Feed<'a> {
    /// The points, or the perturbations where an inner tensor is perturbed.
    pub(super) point: Option<&'a Value>,
    pub(super) step_size: Option<&'a Value>,
    pub(super) reference: Option<&'a Value>,
    pub(super) adversarial: Option<&'a Value>,
    pub(super) cotangent: Option<&'a Value>,
}

/// What a run has shown.
#[derive(Debug, Default)]
pub(super) struct Ran {
    losses: Option<Value>,
    predictions: Option<Value>,
    pub(super) scores: Option<Value>,
    pub(super) point: Option<Value>,
    pub(super) cotangent: Option<Value>,
}

impl Ran {
    /// The loss of each sample.
    pub(super) fn losses(&self) -> Result<&[f32], Error> {
        let losses = self.losses.as_ref();
        let losses = losses.ok_or_else(|| Error::internal("a run gave no loss"))?;
        Ok(losses.as_slice()?)
    }

    /// The class that the model gives to each point.
    pub(super) fn predictions(&self) -> Result<&[i64], Error> {
        let predictions = self.predictions.as_ref();
        let predictions =
            predictions.ok_or_else(|| Error::internal("a run gave no predictions"))?;
        Ok(predictions.as_slice()?)
    }
}

/// A pass, loaded.
#[derive(Debug)]
struct Loaded {
    session: Session,
    taken: Vec<(String, Taken)>,
    given: Vec<Given>,
    masks: Vec<Mask>,
    softmax_removed: bool,
    passes: u64,
    weights: Weights,
}

/// The sessions and the weights of a training.
#[derive(Debug)]
pub struct Engine {
    passes: Vec<Loaded>,
    pub(super) state: State,
    pub(super) course: Course,
    setting: Setting,
    dtype: DType,
    seed: u64,
    rates: Vec<Value>,
    /// Gradients that wait for a weight step.
    sums: Vec<Option<Value>>,
    /// Zeros in the shapes of the parameters, made where sums begin.
    zeros: Vec<Value>,
}

impl Engine {
    /// Builds and loads every pass.
    pub(super) fn new(
        model: &Model,
        trainable: &Trainable,
        setting: &Setting,
        specs: &[PassSpec],
        course: Course,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut passes = Vec::new();
        for (position, spec) in specs.iter().enumerate() {
            let built = build(trainable, setting, spec, course.optimizer.as_ref())?;
            passes.push(load(model, built, spec.weights, position)?);
        }
        let state = State::first(trainable, course.optimizer.as_ref())?;
        Ok(Engine {
            sums: state.parameters.iter().map(|_| None).collect(),
            passes,
            state,
            course,
            setting: setting.clone(),
            dtype: model.input_dtype(),
            seed,
            rates: Vec::new(),
            zeros: Vec::new(),
        })
    }

    /// Whether losses are taken on the logits below a final softmax.
    pub(super) fn softmax_removed(&self) -> bool {
        self.passes.iter().any(|pass| pass.softmax_removed)
    }

    /// Makes a batch ready for the sessions.
    pub(super) fn batch(&self, prepared: Prepared, epoch: u64) -> Result<Batch, Error> {
        let rows = prepared.labels.len();
        let shape = |sample: &[usize]| -> Vec<usize> {
            std::iter::once(rows)
                .chain(sample.iter().copied())
                .collect()
        };
        let floats = |sample: &[usize], values: Vec<f32>| -> Result<Option<Value>, Error> {
            if values.is_empty() {
                return Ok(None);
            }
            Ok(Some(Value::from_tensor(typed(
                DType::F32,
                &shape(sample),
                values,
            )?)?))
        };
        let Setting {
            sample_shape,
            point_shape,
            ..
        } = &self.setting;
        let start = match prepared.start.is_empty() {
            true => None,
            false => {
                let tensor = typed(
                    self.setting.point_dtype,
                    &shape(point_shape),
                    prepared.start,
                )?;
                Some(Value::from_tensor(tensor)?)
            }
        };
        let labels = Tensor::new(&[rows], prepared.labels);
        let labels = labels.ok_or_else(|| Error::internal("a batch has too few labels"))?;
        let clean = typed(self.dtype, &shape(sample_shape), prepared.samples)?;
        Ok(Batch {
            rows,
            counted: prepared.counted,
            dropout: self.masks(&prepared.indices, epoch)?,
            indices: prepared.indices,
            clean: Value::from_tensor(clean)?,
            labels: Value::from_tensor(labels)?,
            start,
            real: floats(sample_shape, prepared.real)?,
            epsilon: column(rows, self.setting.epsilon)?,
        })
    }

    /// Runs a pass; weights and statistics change as it says.
    pub(super) fn run(&mut self, pass: usize, batch: &Batch, feed: Feed<'_>) -> Result<Ran, Error> {
        self.prepare(pass)?;
        let loaded = self.passes.get_mut(pass);
        let loaded = loaded.ok_or_else(|| Error::internal("a method has no such pass"))?;
        let mut inputs: Vec<(&str, &Value)> = Vec::with_capacity(loaded.taken.len());
        let mut nothing = Vec::new();
        for (_, role) in &loaded.taken {
            if let Taken::Nothing(dims) = role {
                let shape: Vec<usize> = dims
                    .iter()
                    .map(|dim| usize::try_from(dim.at(batch.rows as i64)).unwrap_or_default())
                    .collect();
                let zeros = vec![0.0; shape.iter().product()];
                nothing.push(Value::from_tensor(typed(DType::F32, &shape, zeros)?)?);
            }
        }
        let mut nothing = nothing.iter();
        for (name, role) in &loaded.taken {
            let value = match role {
                Taken::Data if self.setting.inner => Some(&batch.clean),
                Taken::Data => feed.point.or(Some(&batch.clean)),
                Taken::Clean => Some(&batch.clean),
                Taken::Perturbation => feed.point.or(batch.start.as_ref()),
                Taken::Nothing(_) => nothing.next(),
                Taken::Labels => Some(&batch.labels),
                Taken::Epsilon => Some(&batch.epsilon),
                Taken::StepSize => feed.step_size,
                Taken::Real => batch.real.as_ref(),
                Taken::Reference => feed.reference,
                Taken::Adversarial => feed.adversarial,
                Taken::Cotangent => feed.cotangent,
                Taken::Rate(place) => self.rates.get(*place),
                Taken::Parameter(place) => self.state.parameters.get(*place),
                Taken::Statistic(place) => self.state.statistics.get(*place),
                Taken::State(parameter, place) => {
                    let states = self.state.optimizer.get(*parameter);
                    states.and_then(|states| states.get(*place))
                }
                Taken::Sum(place) => {
                    let sum = self.sums.get(*place).and_then(Option::as_ref);
                    sum.or_else(|| self.zeros.get(*place))
                }
                Taken::Dropout(place) => {
                    let mask = loaded.masks.get(*place);
                    mask.and_then(|mask| batch.dropout.get(&mask.name))
                }
            };
            let value = value.ok_or_else(|| Error::internal("a pass lacks an input"))?;
            inputs.push((name, value));
        }
        let outputs = loaded.session.run(&inputs)?;
        self.state.passes += loaded.passes;
        let (given, weights) = (loaded.given.clone(), loaded.weights);
        self.take(&given, outputs, weights, batch)
    }

    /// No perturbation, where perturbations are added to an inner tensor; the samples themselves are the points elsewhere.
    pub(super) fn nothing(&self, rows: usize) -> Result<Option<Value>, Error> {
        self.setting.inner.then(|| self.rows(&[], rows)).transpose()
    }

    /// The radius of the ball.
    pub(super) fn epsilon(&self) -> f64 {
        self.setting.epsilon
    }

    /// The perturbation that goes from batch to batch, for a batch of so many samples; 0 at first.
    pub(super) fn carried(&mut self, rows: usize) -> Result<Value, Error> {
        let rows_in = |value: &Value| value.shape().first().copied().unwrap_or_default();
        match self.state.carried.take() {
            Some(carried) if rows_in(&carried) == rows => Ok(carried),
            Some(carried) => {
                let part = self.rows(&floats(&carried)?, rows)?;
                self.state.carried = Some(carried);
                Ok(part)
            }
            None => self.rows(&[], rows),
        }
    }

    /// Keeps the perturbation for the next batch; that of a small batch takes the first places.
    pub(super) fn carry(&mut self, perturbation: Value) -> Result<(), Error> {
        let Some(before) = self.state.carried.take() else {
            self.state.carried = Some(perturbation);
            return Ok(());
        };
        let (mut all, first) = (floats(&before)?, floats(&perturbation)?);
        all.iter_mut().zip(first).for_each(|(old, new)| *old = new);
        let rows = before.shape().first().copied().unwrap_or_default();
        self.state.carried = Some(self.rows(&all, rows)?);
        Ok(())
    }

    /// So many perturbations: the first of `known`, and 0 where there are no more.
    fn rows(&self, known: &[f32], rows: usize) -> Result<Value, Error> {
        let shape: Vec<usize> = std::iter::once(rows)
            .chain(self.setting.point_shape.iter().copied())
            .collect();
        let mut values = known.to_vec();
        values.resize(shape.iter().product(), 0.0);
        Ok(Value::from_tensor(typed(
            self.setting.point_dtype,
            &shape,
            values,
        )?)?)
    }

    /// Scores alone, of a pass that gives them.
    pub(super) fn scores(
        &mut self,
        pass: usize,
        batch: &Batch,
        feed: Feed<'_>,
    ) -> Result<Value, Error> {
        let ran = self.run(pass, batch, feed)?;
        ran.scores
            .ok_or_else(|| Error::internal("a run gave no scores"))
    }

    /// What a step of the optimizer, or a first sum, needs beside the weights.
    fn prepare(&mut self, pass: usize) -> Result<(), Error> {
        let weights = self
            .passes
            .get(pass)
            .map_or(Weights::Unchanged, |pass| pass.weights);
        let (summed, stepped) = match weights {
            Weights::Unchanged => (false, false),
            Weights::Summed(_) => (true, false),
            Weights::Stepped { summed, .. } => (summed, true),
        };
        if summed && self.zeros.is_empty() {
            let zeros = self.state.parameters.iter().map(zeros_like);
            self.zeros = zeros.collect::<Result<_, _>>()?;
        }
        if stepped {
            let learning_rate = self.course.learning_rate(self.state.step);
            let rates = self
                .course
                .optimizer
                .rates_at(self.state.step + 1, learning_rate);
            self.rates = rates.into_iter().map(scalar).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// Puts what a run gave into its places; nothing where a loss is no number.
    fn take(
        &mut self,
        given: &[Given],
        outputs: Vec<Value>,
        weights: Weights,
        batch: &Batch,
    ) -> Result<Ran, Error> {
        let mut ran = Ran::default();
        let mut changes = Vec::new();
        for (role, value) in given.iter().zip(outputs) {
            match role {
                Given::Loss => ran.losses = Some(value),
                Given::Prediction => ran.predictions = Some(value),
                Given::Scores => ran.scores = Some(value),
                Given::Point => ran.point = Some(value),
                Given::Gradient => ran.cotangent = Some(value),
                other => changes.push((*other, value)),
            }
        }
        if weights != Weights::Unchanged {
            let losses = ran.losses()?.iter().zip(&batch.indices);
            let bad = losses.filter(|(loss, _)| !loss.is_finite());
            let samples: Vec<u64> = bad.map(|(_, &index)| index).collect();
            if !samples.is_empty() {
                return Err(Error::LossNotFinite { samples });
            }
        }
        for (role, value) in changes {
            let place = match role {
                Given::Parameter(place) => self.state.parameters.get_mut(place),
                Given::Statistic(place) => self.state.statistics.get_mut(place),
                Given::State(parameter, place) => {
                    let states = self.state.optimizer.get_mut(parameter);
                    states.and_then(|states| states.get_mut(place))
                }
                Given::Sum(place) => {
                    if let Some(sum) = self.sums.get_mut(place) {
                        *sum = Some(value);
                    }
                    continue;
                }
                _ => None,
            };
            if let Some(place) = place {
                *place = value;
            }
        }
        if let Weights::Stepped { .. } = weights {
            self.state.step += 1;
            self.sums.iter_mut().for_each(|sum| *sum = None);
        }
        Ok(ran)
    }

    /// The dropout masks of a batch: the same in all its passes.
    fn masks(&self, indices: &[u64], epoch: u64) -> Result<BTreeMap<String, Value>, Error> {
        let mut wanted: BTreeMap<&str, &Mask> = BTreeMap::new();
        for mask in self.passes.iter().flat_map(|pass| &pass.masks) {
            wanted.insert(&mask.name, mask);
        }
        let mut drawn: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        for &index in indices {
            let mut random = stream(Key {
                seed: self.seed,
                sample: index,
                restart: u32::try_from(epoch).unwrap_or(u32::MAX),
                purpose: Purpose::Dropout,
            });
            for (name, mask) in &wanted {
                let width: usize = mask.sample_shape.iter().product();
                let kept = (0..width).map(|_| random.random::<f64>() >= mask.ratio);
                drawn.entry((*name).to_owned()).or_default().extend(kept);
            }
        }
        let values = drawn.into_iter().map(|(name, kept)| {
            let sample = wanted
                .get(name.as_str())
                .map(|mask| mask.sample_shape.iter().copied());
            let shape: Vec<usize> = std::iter::once(indices.len())
                .chain(sample.into_iter().flatten())
                .collect();
            let tensor = Tensor::new(&shape, kept);
            let tensor = tensor.ok_or_else(|| Error::internal("a mask has the wrong size"))?;
            Ok((name, Value::from_tensor(tensor)?))
        });
        values.collect()
    }
}

impl State {
    /// The weights as the model has them, and an optimizer that has seen nothing.
    fn first(trainable: &Trainable, optimizer: &dyn Optimizer) -> Result<Self, Error> {
        let value = |tensor: &Tensor| Ok::<_, Error>(Value::from_tensor(tensor.clone())?);
        let parameters = trainable.parameters.iter();
        let parameters: Vec<Value> = parameters
            .map(|parameter| value(&parameter.initial))
            .collect::<Result<_, _>>()?;
        let statistics = trainable.statistics.iter();
        let states = |parameter: &Value| {
            let states = optimizer.state().iter().map(|_| zeros_like(parameter));
            states.collect::<Result<Vec<_>, Error>>()
        };
        Ok(State {
            optimizer: parameters.iter().map(states).collect::<Result<_, _>>()?,
            parameters,
            statistics: statistics
                .map(|statistic| value(&statistic.initial))
                .collect::<Result<_, _>>()?,
            carried: None,
            step: 0,
            passes: 0,
        })
    }
}

fn load(model: &Model, built: Built, weights: Weights, position: usize) -> Result<Loaded, Error> {
    let options = SessionOptions {
        name: Some(format!("pass {position} of the training")),
        ..model.session_options().clone()
    };
    Ok(Loaded {
        session: model::load(&built.graph.to_model(), &options)?,
        taken: built.taken,
        given: built.given,
        masks: built.masks,
        softmax_removed: built.softmax_removed,
        passes: built.passes,
        weights,
    })
}

impl Batch {
    /// The classes.
    pub(super) fn labels(&self) -> Result<&[i64], Error> {
        Ok(self.labels.as_slice()?)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "perturbations are single precision"
)]
fn floats(value: &Value) -> Result<Vec<f32>, Error> {
    Ok(value
        .to_tensor()?
        .to_f64()
        .into_iter()
        .map(|value| value as f32)
        .collect())
}

/// Zeros in the type and shape of a value.
fn zeros_like(value: &Value) -> Result<Value, Error> {
    let dtype = value.dtype().unwrap_or(DType::F32);
    let zeros = vec![0.0; value.shape().iter().product()];
    Ok(Value::from_tensor(typed(dtype, value.shape(), zeros)?)?)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rates are single precision"
)]
fn scalar(value: f64) -> Result<Value, Error> {
    let array = ndarray::arr0(value as f32).into_dyn();
    Ok(Value::from_tensor(Tensor::F32(array))?)
}

/// The same number for every sample, `[n, 1]`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "attacks compute in single precision"
)]
pub(super) fn column(rows: usize, value: f64) -> Result<Value, Error> {
    let tensor = typed(DType::F32, &[rows, 1], vec![value as f32; rows])?;
    Ok(Value::from_tensor(tensor)?)
}
