//! The program: gradient graph and attack step in one graph, run batch by batch.
//!
//! One run takes every slot from its current point to the next: the model's prediction, loss and gradient at the point, and the attack's step.

use super::buffer::Buffer;
use super::fuse::{attacked, fuse, state_input};
use super::gradient::GradientGraph;
use super::lane::{self, Lane, Plan};
use super::runner::Feed;
use super::{Batch, Error, Model};
use crate::attack::{Attack, Extent};
use crate::runtime::{SessionOptions, Value};
use crate::tensor::DType;
use crate::threat::{Bounds, Norm};

/// What the program shows of the point that each slot was at.
#[derive(Debug)]
pub struct Observed {
    predictions: Vec<i64>,
    losses: Vec<f32>,
    magnitudes: Vec<f32>,
}

impl Observed {
    /// The class that the model gives to each slot's point.
    #[must_use]
    pub fn predictions(&self) -> &[i64] {
        &self.predictions
    }

    /// The loss of each slot's point.
    #[must_use]
    pub fn losses(&self) -> &[f32] {
        &self.losses
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

/// How slots are spread over lanes.
#[derive(Debug, Clone, Copy)]
struct Layout {
    batch: Batch,
    lanes: usize,
}

impl Layout {
    /// The lane and the row in it.
    fn seat(self, slot: usize) -> (usize, usize) {
        match self.batch {
            // In turn, so that the lanes stay equally long while the batch shrinks.
            Batch::Dynamic => (slot % self.lanes, slot / self.lanes),
            // A lane runs its whole batch whether it is used or not: one after the other.
            Batch::Fixed(size) => (slot / size, slot % size),
        }
    }

    /// How many rows a lane has of that many slots.
    fn rows(self, lane: usize, slots: usize) -> usize {
        match self.batch {
            Batch::Dynamic => slots.saturating_sub(lane).div_ceil(self.lanes),
            Batch::Fixed(size) => size,
        }
    }

    /// What each lane has of its rows, in the order of the slots.
    fn gather<T: Copy>(self, slots: usize, rows: &[&[T]]) -> Vec<T> {
        let seats = (0..slots).map(|slot| self.seat(slot));
        seats
            .filter_map(|(lane, row)| rows.get(lane)?.get(row).copied())
            .collect()
    }
}

/// The step of an attack with the slots that it moves.
#[derive(Debug)]
pub struct Program {
    lanes: Vec<Lane>,
    batch: Batch,
    slots: usize,
    width: usize,
}

impl Program {
    /// Fuses the step into the gradient graph and loads it, with room for that many slots (a fixed batch has its own number, once for each lane).
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
        let (name, dtype) = (graph.name(input).to_owned(), fact.dtype);
        let (batch, message) = (model.batch(), graph.to_model());
        let wanted = match batch {
            Batch::Dynamic => slots.max(1),
            Batch::Fixed(size) => slots.div_ceil(size).max(1),
        };
        let plan = Plan::new(model.session_options(), &message, wanted)?;
        let layout = Layout {
            batch,
            lanes: plan.lanes,
        };
        let slots = match batch {
            Batch::Dynamic => wanted,
            Batch::Fixed(size) => size * plan.lanes,
        };
        let options = SessionOptions {
            name: Some(format!("the {} step", attack.name())),
            arithmetic: model.search_precision(),
            threads: plan.threads,
            takes_turns: true,
            ..model.session_options().clone()
        };
        let lane = |lane: usize| {
            let rows = layout.rows(lane, slots);
            let buffer = |name: &str, dtype: DType, shape: &[usize]| {
                let feed = Feed {
                    name: name.to_owned(),
                    dtype,
                    sample_shape: shape.to_vec(),
                };
                Buffer::new(feed, rows)
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
            Ok(Lane {
                session: super::load(&message, &options)?,
                point: buffer(&name, dtype, &sample_shape)?,
                clean: buffer("mohs.clean", dtype, &sample_shape)?,
                data: data.map(|feed| Buffer::new(feed, rows)).transpose()?,
                labels: buffer("labels", DType::I64, &[])?,
                targets: targets.transpose()?,
                epsilon: buffer("mohs.epsilon", DType::F32, &[1])?,
                step_size: buffer("mohs.step_size", DType::F32, &[1])?,
                states: states.collect::<Result<_, _>>()?,
            })
        };
        Ok(Program {
            lanes: (0..plan.lanes).map(lane).collect::<Result<_, Error>>()?,
            batch,
            slots,
            width,
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

    fn layout(&self) -> Layout {
        Layout {
            batch: self.batch,
            lanes: self.lanes.len(),
        }
    }

    /// Keeps only the first slots; the batch shrinks where it can, and lanes without slots go.
    ///
    /// # Errors
    /// Where ONNX Runtime cannot make the buffers.
    pub fn shrink(&mut self, slots: usize) -> Result<(), Error> {
        if slots >= self.slots || slots == 0 {
            return Ok(());
        }
        if let Batch::Fixed(size) = self.batch {
            self.lanes.truncate(slots.div_ceil(size));
            self.slots = self.lanes.len() * size;
            return Ok(());
        }
        let layout = self.layout();
        self.slots = slots;
        self.lanes.truncate(slots);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let rows = layout.rows(index, slots);
            lane.buffers().try_for_each(|buffer| buffer.shrink(rows))?;
        }
        Ok(())
    }

    /// Gives a slot new work.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn place(&mut self, slot: usize, start: &Start<'_>) -> Result<(), Error> {
        let (lane, row) = self.layout().seat(slot);
        let lane = &mut self.lanes[lane];
        lane.point.put(row, start.point)?;
        lane.clean.put(row, start.clean)?;
        if let Some(data) = &mut lane.data {
            data.put(row, start.data)?;
        }
        lane.labels.put_integer(row, start.label.into())?;
        if let Some(targets) = &mut lane.targets {
            targets.put_integer(row, start.target.into())?;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the graph computes in single precision"
        )]
        let (epsilon, step_size) = (start.epsilon as f32, start.step_size as f32);
        lane.epsilon.put(row, &[epsilon])?;
        lane.step_size.put(row, &[step_size])?;
        let mut states = lane.states.iter_mut().zip(start.state);
        states.try_for_each(|(buffer, values)| buffer.put(row, values))
    }

    /// Lets a slot go toward another class; without effect where the loss has no target.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn aim(&mut self, slot: usize, target: u32) -> Result<(), Error> {
        let (lane, row) = self.layout().seat(slot);
        let targets = self.lanes[lane].targets.as_mut();
        targets.map_or(Ok(()), |targets| targets.put_integer(row, target.into()))
    }

    /// Moves the work of one slot to another.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn relocate(&mut self, from: usize, to: usize) -> Result<(), Error> {
        let layout = self.layout();
        let ((source, from), (target, to)) = (layout.seat(from), layout.seat(to));
        if source == target {
            let mut buffers = self.lanes[source].buffers();
            return buffers.try_for_each(|buffer| buffer.relocate(from, to));
        }
        let lanes = self.lanes.get_disjoint_mut([source, target]);
        let [source, target] =
            lanes.map_err(|_| Error::Internal("a slot lies in no lane".into()))?;
        let mut pairs = source.buffers().zip(target.buffers());
        pairs.try_for_each(|(source, target)| target.copy_row(to, source, from))
    }

    /// The point that a slot is at.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn point(&self, slot: usize) -> Result<Vec<f32>, Error> {
        let (lane, row) = self.layout().seat(slot);
        self.lanes[lane].point.row(row)
    }

    /// Evaluates every slot's point and computes the next; [`Program::advance`] goes there.
    ///
    /// # Errors
    /// Where ONNX Runtime fails.
    pub fn run(&mut self) -> Result<(Observed, Advance), Error> {
        let layout = self.layout();
        let ran = lane::abreast(&mut self.lanes, |_, lane| lane.run())?;
        let rows = |value: fn(&lane::Ran) -> &Value| ran.iter().map(value);
        let floats = |value: fn(&lane::Ran) -> &Value| {
            let rows: Vec<&[f32]> = rows(value).map(Value::as_slice).collect::<Result<_, _>>()?;
            Ok::<_, Error>(layout.gather(self.slots, &rows))
        };
        let predictions: Vec<&[i64]> = rows(|ran| &ran.predictions)
            .map(Value::as_slice)
            .collect::<Result<_, _>>()?;
        let observed = Observed {
            predictions: layout.gather(self.slots, &predictions),
            losses: floats(|ran| &ran.losses)?,
            magnitudes: floats(|ran| &ran.magnitudes)?,
        };
        let next = ran.into_iter().map(|ran| ran.next).collect();
        Ok((observed, Advance { next, layout }))
    }

    /// Goes on to the next points.
    pub fn advance(&mut self, advance: Advance) {
        for (lane, next) in self.lanes.iter_mut().zip(advance.next) {
            lane.advance(next);
        }
    }
}

/// The next points and states.
#[derive(Debug)]
pub struct Advance {
    next: Vec<lane::Next>,
    layout: Layout,
}

impl Advance {
    /// The point that a slot goes to.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn point(&self, slot: usize) -> Result<Vec<f32>, Error> {
        let (lane, row) = self.layout.seat(slot);
        self.next[lane].point.row(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_seat_of_its_own() {
        for (batch, lanes, slots) in [
            (Batch::Dynamic, 3, 8),
            (Batch::Dynamic, 1, 5),
            (Batch::Fixed(4), 2, 8),
        ] {
            let layout = Layout { batch, lanes };
            let mut seats: Vec<_> = (0..slots).map(|slot| layout.seat(slot)).collect();
            seats.sort_unstable();
            let all = (0..lanes)
                .flat_map(|lane| (0..layout.rows(lane, slots)).map(move |row| (lane, row)));
            assert_eq!(seats, all.collect::<Vec<_>>());
        }
    }

    #[test]
    fn rows_come_back_in_the_order_of_the_slots() {
        let layout = Layout {
            batch: Batch::Dynamic,
            lanes: 2,
        };
        assert_eq!(
            layout.gather(5, &[&[0, 2, 4][..], &[1, 3]]),
            [0, 1, 2, 3, 4]
        );
    }

    #[test]
    fn fewer_slots_than_lanes_keep_their_seats() {
        let layout = |lanes| Layout {
            batch: Batch::Dynamic,
            lanes,
        };
        assert!((0..2).all(|slot| layout(4).seat(slot) == layout(2).seat(slot)));
    }
}
