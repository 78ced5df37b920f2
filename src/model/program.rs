//! The program: gradient graph and attack step in one graph, run batch by batch.
//!
//! One run takes every slot from its current point to the next: the model's prediction, loss and gradient at the point, and the attack's step.

use super::buffer::Buffer;
use super::fuse::{attacked, fuse, state_input};
use super::gradient::GradientGraph;
use super::lane;
use super::runner::Feed;
use super::{Batch, Error, Model};
use crate::attack::{Attack, Extent};
use crate::graph::passes;
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::DType;
use crate::threat::{Bounds, Norm};

/// What the program shows of the point that each slot was at.
#[derive(Debug)]
pub struct Observed {
    predictions: Vec<i64>,
    magnitudes: Vec<f32>,
}

impl Observed {
    /// The class that the model gives to each slot's point.
    #[must_use]
    pub fn predictions(&self) -> &[i64] {
        &self.predictions
    }

    /// Σ |g| of each slot: 0 where the gradient is dead, not finite where it is no gradient.
    #[must_use]
    pub fn magnitudes(&self) -> &[f32] {
        &self.magnitudes
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

/// The step of an attack with the slots that it moves.
#[derive(Debug)]
pub struct Program {
    session: Session,
    point: Buffer,
    clean: Buffer,
    data: Option<Buffer>,
    labels: Buffer,
    targets: Option<Buffer>,
    epsilon: Buffer,
    step_size: Buffer,
    states: Vec<Buffer>,
    batch: Batch,
    slots: usize,
    width: usize,
}

/// The work of one slot, on its way from one program to another of the same graph.
#[derive(Debug)]
pub struct Luggage(Vec<Buffer>);

impl Program {
    /// A single program, as [`Program::abreast`] loads it.
    ///
    /// # Errors
    /// As there.
    pub fn new(
        model: &Model,
        gradient: &GradientGraph,
        attack: &dyn Attack,
        norm: Norm,
        bounds: Bounds,
        slots: usize,
    ) -> Result<Self, Error> {
        let mut programs = Self::abreast(model, gradient, attack, (norm, bounds), slots, 1)?;
        let program = programs.pop();
        program.ok_or_else(|| Error::Internal("no program was loaded".into()))
    }

    /// Fuses the step into the gradient graph and loads it with room for that many slots in all, once for each of at most `most` threads that
    /// work at the same time (a fixed batch has its own number of slots, once for each).
    ///
    /// # Errors
    /// Where the attacked value has no fixed sample shape, or ONNX Runtime cannot load the graph.
    pub fn abreast(
        model: &Model,
        gradient: &GradientGraph,
        attack: &dyn Attack,
        (norm, bounds): (Norm, Bounds),
        slots: usize,
        most: usize,
    ) -> Result<Vec<Self>, Error> {
        let mut graph = fuse(gradient, attack, norm, bounds)?;
        if model.is_on_cpu() {
            passes::for_cpu(&mut graph);
        }
        let (input, _) = attacked(gradient)?;
        let fact = graph
            .fact(input)
            .ok_or_else(|| Error::Internal("the input has no shape".into()))?;
        let extents = fact.shape.iter().skip(1).filter_map(|dim| dim.extent());
        let sample_shape: Vec<usize> = extents
            .filter_map(|extent| extent.try_into().ok())
            .collect();
        let width: usize = sample_shape.iter().product();
        let (name, dtype) = (graph.name(input).to_owned(), fact.dtype);
        let (batch, message) = (model.batch(), graph.to_model());
        drop(graph);
        let wanted = match batch {
            Batch::Dynamic => slots.max(1),
            Batch::Fixed(size) => slots.div_ceil(size).max(1),
        };
        let options = SessionOptions {
            name: Some(format!("the {} step", attack.name())),
            arithmetic: model.search_precision(),
            ..model.session_options().clone()
        };
        let plan = lane::plan(&options, &message, wanted.min(most))?;
        let sessions = lane::load(&message, &plan)?;
        let program = |(position, session): (usize, Session)| {
            let slots = match batch {
                Batch::Dynamic => (wanted - position).div_ceil(plan.len()),
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
            let data = model.carried().cloned();
            let targets = gradient.targets.map(|_| buffer("targets", DType::I64, &[]));
            Ok(Program {
                session,
                point: buffer(&name, dtype, &sample_shape)?,
                clean: buffer("mohs.clean", dtype, &sample_shape)?,
                data: data.map(|feed| Buffer::new(feed, slots)).transpose()?,
                labels: buffer("labels", DType::I64, &[])?,
                targets: targets.transpose()?,
                epsilon: buffer("mohs.epsilon", DType::F32, &[1])?,
                step_size: buffer("mohs.step_size", DType::F32, &[1])?,
                states: states.collect::<Result<_, _>>()?,
                batch,
                slots,
                width,
            })
        };
        sessions.into_iter().enumerate().map(program).collect()
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

    /// Every buffer, in an order that all programs of a graph share.
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

    /// Makes room for that many slots and no more, where the batch can change; the first ones keep their work.
    ///
    /// # Errors
    /// Where ONNX Runtime cannot make the buffers.
    pub fn resize(&mut self, slots: usize) -> Result<(), Error> {
        if self.batch == Batch::Dynamic && slots != self.slots && slots > 0 {
            self.slots = slots;
            self.buffers().try_for_each(|buffer| buffer.resize(slots))?;
        }
        Ok(())
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
        self.aim(slot, start.target)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the graph computes in single precision"
        )]
        let (epsilon, step_size) = (start.epsilon as f32, start.step_size as f32);
        self.epsilon.put(slot, &[epsilon])?;
        self.step_size.put(slot, &[step_size])?;
        let mut states = self.states.iter_mut().zip(start.state);
        states.try_for_each(|(buffer, values)| buffer.put(slot, values))
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

    /// The work of a slot, for another program of the same graph.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn pack(&mut self, slot: usize) -> Result<Luggage, Error> {
        let rows = self.buffers().map(|buffer| {
            let mut row = Buffer::new(buffer.feed.clone(), 1)?;
            row.copy_row(0, buffer, slot)?;
            Ok(row)
        });
        Ok(Luggage(rows.collect::<Result<_, Error>>()?))
    }

    /// Puts what another program of the same graph has packed into a slot.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn unpack(&mut self, slot: usize, luggage: &Luggage) -> Result<(), Error> {
        let mut rows = self.buffers().zip(&luggage.0);
        rows.try_for_each(|(buffer, row)| buffer.copy_row(slot, row, 0))
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
        let inputs: Vec<(&str, &Value)> = single
            .into_iter()
            .chain(several)
            .map(|buffer| (buffer.feed.name.as_str(), &buffer.value))
            .collect();
        let mut outputs = self.session.run(&inputs)?.into_iter();
        let mut next = || {
            outputs
                .next()
                .ok_or_else(|| Error::Internal("the program gave too few outputs".into()))
        };
        let predictions = next()?.as_slice::<i64>()?.to_vec();
        let observed = Observed {
            predictions,
            magnitudes: next()?.as_slice::<f32>()?.to_vec(),
        };
        let advance = Advance {
            point: Buffer {
                feed: self.point.feed.clone(),
                value: next()?,
            },
            states: outputs.collect(),
        };
        Ok((observed, advance))
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
