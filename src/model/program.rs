//! The program: gradient graph and attack step in one graph, run batch by batch.
//!
//! One run takes every slot from its current point to the next: the model's prediction, loss and gradient at the point, and the attack's step.

use super::buffer::Buffer;
use super::fuse::{attacked, fuse, state_input};
use super::gradient::GradientGraph;
use super::runner::Feed;
use super::{Batch, Error, Model};
use crate::attack::{Attack, Extent};
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::DType;
use crate::threat::{Bounds, Norm};

/// What the program shows of the point that each slot was at.
#[derive(Debug)]
pub struct Observed {
    predictions: Value,
    losses: Value,
    magnitudes: Value,
}

impl Observed {
    /// The class that the model gives to each slot's point.
    ///
    /// # Errors
    /// Where ONNX Runtime gave something else.
    pub fn predictions(&self) -> Result<&[i64], Error> {
        Ok(self.predictions.as_slice()?)
    }

    /// The loss of each slot's point.
    ///
    /// # Errors
    /// Where ONNX Runtime gave something else.
    pub fn losses(&self) -> Result<&[f32], Error> {
        Ok(self.losses.as_slice()?)
    }

    /// Σ |g| of each slot: 0 where the gradient is dead, not finite where it is no gradient.
    ///
    /// # Errors
    /// Where ONNX Runtime gave something else.
    pub fn magnitudes(&self) -> Result<&[f32], Error> {
        Ok(self.magnitudes.as_slice()?)
    }
}

/// What a slot starts from.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The clean sample.
    pub clean: &'a [f32],
    /// The data that it comes from, where an inner tensor is perturbed and the rest of the model reads them too.
    pub data: &'a [f32],
    /// The first point.
    pub point: &'a [f32],
    /// The attack's first state, one array per state name.
    pub state: &'a [Vec<f32>],
    /// The label.
    pub label: u32,
    /// The class to go toward; looked at only where the gradient graph is that of a targeted loss.
    pub target: u32,
    /// The radius.
    pub epsilon: f64,
    /// The length of a step.
    pub step_size: f64,
}

/// A session with the buffers of its slots.
#[derive(Debug)]
pub struct Program {
    session: Session,
    batch: Batch,
    slots: usize,
    width: usize,
    point: Buffer,
    clean: Buffer,
    data: Option<Buffer>,
    labels: Buffer,
    targets: Option<Buffer>,
    epsilon: Buffer,
    step_size: Buffer,
    states: Vec<Buffer>,
}

impl Program {
    /// Fuses the step into the gradient graph and loads it, with room for that many slots (a fixed batch has its own number).
    ///
    /// # Errors
    /// Where the attacked value has no fixed sample shape, or ONNX Runtime cannot load the graph.
    pub fn new(
        model: &Model,
        gradient: &GradientGraph,
        attack: &dyn Attack,
        norm: Norm,
        bounds: Bounds,
        slots: usize,
    ) -> Result<Self, Error> {
        let graph = fuse(gradient, attack, norm, bounds)?;
        let (input, _) = attacked(gradient)?;
        let fact = graph
            .fact(input)
            .ok_or_else(|| Error::Internal("the input has no shape".into()))?;
        let extents = fact.shape.iter().skip(1).filter_map(|dim| dim.extent());
        let sample_shape: Vec<usize> = extents
            .filter_map(|extent| extent.try_into().ok())
            .collect();
        let width: usize = sample_shape.iter().product();
        let batch = model.batch();
        let slots = match batch {
            Batch::Dynamic => slots.max(1),
            Batch::Fixed(size) => size,
        };
        let buffer = |name: &str, dtype: DType, shape: &[usize]| {
            let feed = Feed {
                name: name.to_owned(),
                dtype,
                sample_shape: shape.to_vec(),
            };
            Buffer::new(feed, slots)
        };
        let states = attack.state().iter().map(|spec| {
            let width = match spec.extent {
                Extent::Element => width,
                Extent::Sample => 1,
            };
            buffer(&state_input(spec.name), DType::F32, &[width])
        });
        let options = SessionOptions {
            name: Some(format!("the {} step", attack.name())),
            arithmetic: model.search_precision(),
            ..model.session_options().clone()
        };
        let data = model.carried().cloned();
        let targets = gradient.targets.map(|_| buffer("targets", DType::I64, &[]));
        Ok(Program {
            session: super::load(&graph.to_model(), &options)?,
            batch,
            slots,
            width,
            point: buffer(graph.name(input), fact.dtype, &sample_shape)?,
            clean: buffer("mohs.clean", fact.dtype, &sample_shape)?,
            data: data.map(|feed| Buffer::new(feed, slots)).transpose()?,
            labels: buffer("labels", DType::I64, &[])?,
            targets: targets.transpose()?,
            epsilon: buffer("mohs.epsilon", DType::F32, &[1])?,
            step_size: buffer("mohs.step_size", DType::F32, &[1])?,
            states: states.collect::<Result<_, _>>()?,
        })
    }

    /// The number of elements of a sample.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    fn buffers(&mut self) -> impl Iterator<Item = &mut Buffer> {
        let single = [
            &mut self.point,
            &mut self.clean,
            &mut self.labels,
            &mut self.epsilon,
            &mut self.step_size,
        ];
        let several = self.targets.iter_mut().chain(&mut self.data);
        single.into_iter().chain(several).chain(&mut self.states)
    }

    /// Keeps only the first slots; the batch shrinks where it can.
    ///
    /// # Errors
    /// Where ONNX Runtime cannot make the buffers.
    pub fn shrink(&mut self, slots: usize) -> Result<(), Error> {
        if matches!(self.batch, Batch::Fixed(_)) || slots >= self.slots || slots == 0 {
            return Ok(());
        }
        self.slots = slots;
        self.buffers().try_for_each(|buffer| buffer.shrink(slots))
    }

    /// Gives a slot new work.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn place(&mut self, slot: usize, start: &Start<'_>) -> Result<(), Error> {
        self.point.put(slot, start.point)?;
        self.clean.put(slot, start.clean)?;
        if let Some(data) = &mut self.data {
            data.put(slot, start.data)?;
        }
        self.labels.put_integer(slot, start.label.into())?;
        if let Some(targets) = &mut self.targets {
            targets.put_integer(slot, start.target.into())?;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the graph computes in single precision"
        )]
        let (epsilon, step_size) = (start.epsilon as f32, start.step_size as f32);
        self.epsilon.put(slot, &[epsilon])?;
        self.step_size.put(slot, &[step_size])?;
        let mut states = self.states.iter_mut().zip(start.state);
        states.try_for_each(|(buffer, row)| buffer.put(slot, row))
    }

    /// Lets a slot go toward another class; without effect where the loss has no target.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn aim(&mut self, slot: usize, target: u32) -> Result<(), Error> {
        let targets = self.targets.as_mut();
        targets.map_or(Ok(()), |targets| targets.put_integer(slot, target.into()))
    }

    /// Moves the work of one slot to another.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn relocate(&mut self, from: usize, to: usize) -> Result<(), Error> {
        self.buffers()
            .try_for_each(|buffer| buffer.relocate(from, to))
    }

    /// The point that a slot is at.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn point(&self, slot: usize) -> Result<Vec<f32>, Error> {
        self.point.row(slot)
    }

    /// Evaluates every slot's point and computes the next; [`Program::advance`] goes there.
    ///
    /// # Errors
    /// Where ONNX Runtime fails.
    pub fn run(&mut self) -> Result<(Observed, Advance), Error> {
        let single = [
            &self.point,
            &self.clean,
            &self.labels,
            &self.epsilon,
            &self.step_size,
        ];
        let several = self.targets.iter().chain(&self.data).chain(&self.states);
        let buffers = single.into_iter().chain(several);
        let inputs: Vec<(&str, &Value)> = buffers
            .map(|buffer| (buffer.feed.name.as_str(), &buffer.value))
            .collect();
        let mut outputs = self.session.run(&inputs)?.into_iter();
        let mut next = || {
            outputs
                .next()
                .ok_or_else(|| Error::Internal("the program gave too few outputs".into()))
        };
        let observed = Observed {
            predictions: next()?,
            losses: next()?,
            magnitudes: next()?,
        };
        let point = Buffer {
            feed: self.point.feed.clone(),
            value: next()?,
        };
        let states = outputs.collect();
        Ok((observed, Advance { point, states }))
    }

    /// Goes on to the next points.
    pub fn advance(&mut self, advance: Advance) {
        self.point = advance.point;
        for (buffer, value) in self.states.iter_mut().zip(advance.states) {
            buffer.value = value;
        }
    }
}

/// The next points and states.
#[derive(Debug)]
pub struct Advance {
    point: Buffer,
    states: Vec<Value>,
}

impl Advance {
    /// The point that a slot goes to.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn point(&self, slot: usize) -> Result<Vec<f32>, Error> {
        self.point.row(slot)
    }
}
