//! The program: gradient graph and attack step in one graph, run batch by batch.
//!
//! One run takes every slot from its current point to the next: the model's prediction, loss and gradient at the point, and the attack's step.

use super::gradient::{GradientGraph, add_input, add_output};
use super::{Batch, Error};
use crate::attack::array::{Array, ArrayId, Arrays, Binary, Reduce, Unary};
use crate::attack::{Attack, Context, Extent, Pass};
use crate::graph::{Builder, Dim, Expr, passes};
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::{DType, Tensor};
use crate::threat::{Bounds, Norm};
use std::cell::RefCell;

/// The graph form of [`Arrays`]: every array is a value of the graph, `[n, d]` or `[n, 1]`.
struct GraphArrays<'g> {
    builder: &'g Builder,
    values: RefCell<Vec<Expr<'g>>>,
    width: usize,
    dtype: DType,
}

impl<'g> GraphArrays<'g> {
    fn push(&self, value: Expr<'g>) -> ArrayId {
        let mut values = self.values.borrow_mut();
        values.push(value);
        ArrayId(values.len() - 1)
    }

    fn get(&self, id: ArrayId) -> Expr<'g> {
        self.values.borrow()[id.0]
    }

    /// Masks are kept as booleans, and become numbers only where arithmetic is done with them.
    fn number(&self, id: ArrayId) -> Expr<'g> {
        self.get(id).cast(self.dtype)
    }
}

impl Arrays for GraphArrays<'_> {
    fn constant(&self, value: f64) -> ArrayId {
        self.push(self.builder.scalar(self.dtype, value))
    }

    fn unary(&self, operation: Unary, a: ArrayId) -> ArrayId {
        let a = self.number(a);
        self.push(a.unary(match operation {
            Unary::Neg => "Neg",
            Unary::Abs => "Abs",
            Unary::Sign => "Sign",
            Unary::Sqrt => "Sqrt",
        }))
    }

    fn binary(&self, operation: Binary, a: ArrayId, b: ArrayId) -> ArrayId {
        let (a, b) = (self.number(a), self.number(b));
        self.push(match operation {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            Binary::Greater => a.gt(b),
        })
    }

    fn select(&self, mask: ArrayId, a: ArrayId, b: ArrayId) -> ArrayId {
        let mask = self.get(mask);
        let mask = if mask.dtype() == DType::Bool {
            mask
        } else {
            !mask.equal(0.0)
        };
        let (a, b) = (self.number(a), self.number(b));
        self.push(mask.select(a, b, a))
    }

    fn reduce(&self, operation: Reduce, a: ArrayId) -> ArrayId {
        let a = self.number(a);
        self.push(match operation {
            Reduce::Sum => a.sum(&[1]),
            Reduce::Max | Reduce::KthLargest(1) => a.reduce("ReduceMax", &[1], true),
            Reduce::KthLargest(k) => {
                let k = i64::try_from(k).unwrap_or(i64::MAX);
                a.top_k(k, 1).0.slice(1, k - 1, Dim::fixed(k))
            }
        })
    }

    fn one_hot_largest(&self, a: ArrayId) -> ArrayId {
        let a = self.number(a);
        let shape = a.shape();
        let depth = i64::try_from(self.width).unwrap_or(i64::MAX);
        self.push(a.arg_max(1).one_hot(depth, self.dtype).reshape(&shape))
    }

    fn width(&self) -> usize {
        self.width
    }
}

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
    /// The first point.
    pub point: &'a [f32],
    /// The attack's first state, one array per state name.
    pub state: &'a [Vec<f32>],
    /// The label.
    pub label: u32,
    /// The radius.
    pub epsilon: f64,
    /// The length of a step.
    pub step_size: f64,
}

/// A session with the buffers of its slots.
#[derive(Debug)]
pub struct Program {
    session: Session,
    sample_shape: Vec<usize>,
    state: Vec<(String, usize)>,
    batch: Batch,
    slots: usize,
    point: Value,
    clean: Value,
    labels: Value,
    epsilon: Value,
    step_size: Value,
    states: Vec<Value>,
    input: String,
}

impl Program {
    /// Fuses the step into the gradient graph and loads it.
    ///
    /// # Errors
    /// Where the attacked value has no fixed sample shape, or ONNX Runtime cannot load the graph.
    pub fn new(
        gradient: &GradientGraph,
        attack: &dyn Attack,
        norm: Norm,
        bounds: Bounds,
        batch: Batch,
        slots: usize,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let graph = fuse(gradient, attack, norm, bounds)?;
        let (input, _) = attacked(gradient)?;
        let shape = &graph
            .fact(input)
            .ok_or_else(|| Error::Internal("the input has no shape".into()))?
            .shape;
        let sample_shape: Vec<usize> = shape
            .iter()
            .skip(1)
            .filter_map(|dim| dim.extent().and_then(|extent| usize::try_from(extent).ok()))
            .collect();
        let width: usize = sample_shape.iter().product();
        let state = attack
            .state()
            .iter()
            .map(|spec| {
                (
                    spec.name.to_owned(),
                    match spec.extent {
                        Extent::Element => width,
                        Extent::Sample => 1,
                    },
                )
            })
            .collect();
        let input = graph.name(input).to_owned();
        let options = SessionOptions {
            name: Some(format!("the {} step", attack.name())),
            ..options.clone()
        };
        let session = super::load(&graph.to_model(), &options)?;
        let none = || Value::from_tensor(Tensor::F32(ndarray::arr0(0.0).into_dyn()));
        let mut program = Program {
            session,
            sample_shape,
            state,
            batch,
            slots: 0,
            point: none()?,
            clean: none()?,
            labels: none()?,
            epsilon: none()?,
            step_size: none()?,
            states: Vec::new(),
            input,
        };
        program.reserve(slots)?;
        Ok(program)
    }

    /// The number of elements of a sample.
    #[must_use]
    pub fn width(&self) -> usize {
        self.sample_shape.iter().product()
    }

    /// The number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Makes room for that many slots (a fixed batch keeps its own number); what the slots held is gone.
    fn reserve(&mut self, slots: usize) -> Result<(), Error> {
        let slots = match self.batch {
            Batch::Dynamic => slots.max(1),
            Batch::Fixed(size) => size,
        };
        let wrong = || Error::Internal("a buffer has the wrong size".into());
        let floats = |shape: &[usize], fill: f32| -> Result<Value, Error> {
            Ok(Value::from_tensor(
                Tensor::new(shape, vec![fill; shape.iter().product()]).ok_or_else(wrong)?,
            )?)
        };
        let points: Vec<usize> = std::iter::once(slots)
            .chain(self.sample_shape.iter().copied())
            .collect();
        self.point = floats(&points, 0.0)?;
        self.clean = floats(&points, 0.0)?;
        self.labels =
            Value::from_tensor(Tensor::new(&[slots], vec![0i64; slots]).ok_or_else(wrong)?)?;
        self.epsilon = floats(&[slots, 1], 0.0)?;
        self.step_size = floats(&[slots, 1], 0.0)?;
        self.states = self
            .state
            .iter()
            .map(|(_, width)| floats(&[slots, *width], 0.0))
            .collect::<Result<_, _>>()?;
        self.slots = slots;
        Ok(())
    }

    /// Keeps only the first slots; the batch shrinks where it can.
    ///
    /// # Errors
    /// Where ONNX Runtime cannot make the buffers.
    pub fn shrink(&mut self, slots: usize) -> Result<(), Error> {
        if matches!(self.batch, Batch::Fixed(_)) || slots >= self.slots || slots == 0 {
            return Ok(());
        }
        let old = [&self.point, &self.clean, &self.epsilon, &self.step_size]
            .map(|value| value.as_slice::<f32>().map(<[f32]>::to_vec));
        let [point, clean, epsilon, step_size] = old;
        let labels = self.labels.as_slice::<i64>()?.to_vec();
        let states: Vec<Vec<f32>> = self
            .states
            .iter()
            .map(|state| state.as_slice::<f32>().map(<[f32]>::to_vec))
            .collect::<Result<_, _>>()?;
        self.reserve(slots)?;
        let copy = |target: &mut Value, source: &[f32]| -> Result<(), Error> {
            let target = target.as_mut_slice::<f32>()?;
            target.copy_from_slice(&source[..target.len()]);
            Ok(())
        };
        copy(&mut self.point, &point?)?;
        copy(&mut self.clean, &clean?)?;
        copy(&mut self.epsilon, &epsilon?)?;
        copy(&mut self.step_size, &step_size?)?;
        for (target, source) in self.states.iter_mut().zip(&states) {
            copy(target, source)?;
        }
        self.labels
            .as_mut_slice::<i64>()?
            .copy_from_slice(&labels[..slots]);
        Ok(())
    }

    /// Gives a slot new work.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn place(&mut self, slot: usize, start: &Start<'_>) -> Result<(), Error> {
        let width = self.width();
        self.labels.as_mut_slice::<i64>()?[slot] = start.label.into();
        write(&mut self.point, slot, width, start.point)?;
        write(&mut self.clean, slot, width, start.clean)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the graph computes in single precision"
        )]
        {
            self.epsilon.as_mut_slice::<f32>()?[slot] = start.epsilon as f32;
            self.step_size.as_mut_slice::<f32>()?[slot] = start.step_size as f32;
        }
        for ((state, (_, width)), source) in
            self.states.iter_mut().zip(&self.state).zip(start.state)
        {
            write(state, slot, *width, source)?;
        }
        Ok(())
    }

    /// Moves the work of one slot to another.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn relocate(&mut self, from: usize, to: usize) -> Result<(), Error> {
        let width = self.width();
        let labels = self.labels.as_mut_slice::<i64>()?;
        labels[to] = labels[from];
        for (value, width) in [
            (&mut self.point, width),
            (&mut self.clean, width),
            (&mut self.epsilon, 1),
            (&mut self.step_size, 1),
        ] {
            value
                .as_mut_slice::<f32>()?
                .copy_within(from * width..(from + 1) * width, to * width);
        }
        for (state, (_, width)) in self.states.iter_mut().zip(&self.state) {
            state
                .as_mut_slice::<f32>()?
                .copy_within(from * width..(from + 1) * width, to * width);
        }
        Ok(())
    }

    /// The points that the slots are at, one behind the other.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn points(&self) -> Result<&[f32], Error> {
        Ok(self.point.as_slice()?)
    }

    /// Evaluates every slot's point and computes the next; [`Advance::commit`] makes it the current one.
    ///
    /// # Errors
    /// Where ONNX Runtime fails.
    pub fn run(&mut self) -> Result<(Observed, Advance), Error> {
        let state_names: Vec<String> = self
            .state
            .iter()
            .map(|(name, _)| format!("mohs.state.{name}"))
            .collect();
        let mut inputs = vec![
            (self.input.as_str(), &self.point),
            ("mohs.clean", &self.clean),
            ("labels", &self.labels),
            ("mohs.epsilon", &self.epsilon),
            ("mohs.step_size", &self.step_size),
        ];
        inputs.extend(state_names.iter().map(String::as_str).zip(&self.states));
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
        Ok((
            observed,
            Advance {
                point: next()?,
                states: outputs.collect(),
            },
        ))
    }

    /// Goes on to the next points.
    pub fn advance(&mut self, advance: Advance) {
        self.point = advance.point;
        self.states = advance.states;
    }
}

/// The next points and states.
#[derive(Debug)]
pub struct Advance {
    point: Value,
    states: Vec<Value>,
}

impl Advance {
    /// The next points, one behind the other.
    ///
    /// # Errors
    /// Where the buffers are not in host memory.
    pub fn points(&self) -> Result<&[f32], Error> {
        Ok(self.point.as_slice()?)
    }
}

fn write(value: &mut Value, slot: usize, width: usize, source: &[f32]) -> Result<(), Error> {
    value.as_mut_slice::<f32>()?[slot * width..(slot + 1) * width].copy_from_slice(source);
    Ok(())
}

fn attacked(
    gradient: &GradientGraph,
) -> Result<(crate::graph::ValueId, crate::graph::ValueId), Error> {
    gradient
        .gradients
        .first()
        .copied()
        .ok_or_else(|| Error::Internal("the gradient graph has no gradient".into()))
}

/// The gradient graph with the attack's step behind it.
fn fuse(
    gradient: &GradientGraph,
    attack: &dyn Attack,
    norm: Norm,
    bounds: Bounds,
) -> Result<crate::graph::Graph, Error> {
    let (input, grad) = attacked(gradient)?;
    let mut graph = gradient.graph.clone();
    let fact = graph
        .fact(input)
        .cloned()
        .ok_or_else(|| Error::Internal("the input has no shape".into()))?;
    let batch = fact.shape.first().copied().unwrap_or(Dim::BATCH);
    let width: i64 = fact
        .shape
        .iter()
        .skip(1)
        .filter_map(|dim| dim.extent())
        .product();
    let clean = add_input(&mut graph, "mohs.clean", fact.dtype, &fact.shape);
    let epsilon = add_input(&mut graph, "mohs.epsilon", DType::F32, &[batch, Dim::ONE]);
    let step_size = add_input(&mut graph, "mohs.step_size", DType::F32, &[batch, Dim::ONE]);
    let specs = attack.state();
    let states: Vec<_> = specs
        .iter()
        .map(|spec| {
            let extent = match spec.extent {
                Extent::Element => Dim::fixed(width),
                Extent::Sample => Dim::ONE,
            };
            add_input(
                &mut graph,
                &format!("mohs.state.{}", spec.name),
                DType::F32,
                &[batch, extent],
            )
        })
        .collect();
    let builder = Builder::new(graph);
    builder.set_scope(format!("attack/{}", attack.name()));
    let expr = |id| {
        builder
            .expr(id)
            .ok_or_else(|| Error::Internal("a value of the program has no shape".into()))
    };
    let flat = [batch, Dim::fixed(width)];
    let arrays = GraphArrays {
        builder: &builder,
        values: RefCell::new(Vec::new()),
        width: usize::try_from(width).unwrap_or_default(),
        dtype: DType::F32,
    };
    let array = |value| Array::new(&arrays, arrays.push(value));
    let point = expr(input)?;
    let as_rows = |id| Ok::<_, Error>(array(expr(id)?.cast(DType::F32).reshape(&flat)));
    let context = Context {
        norm,
        clean: as_rows(clean)?,
        low: array(builder.scalar(DType::F32, bounds.low.into())),
        high: array(builder.scalar(DType::F32, bounds.high.into())),
        epsilon: array(expr(epsilon)?),
        step_size: array(expr(step_size)?),
    };
    let loss = expr(gradient.loss)?;
    let gradient_rows = expr(grad)?.cast(DType::F32).reshape(&flat);
    let pass = Pass {
        point: as_rows(input)?,
        gradient: array(gradient_rows),
        loss: array(loss.cast(DType::F32).reshape(&[batch, Dim::ONE])),
    };
    let states: Vec<_> = states
        .into_iter()
        .map(|id| expr(id).map(&array))
        .collect::<Result<_, _>>()?;
    let next = attack.step(&context, &pass, &states);
    let output = expr(gradient.output)?;
    let (_, classes) = super::gradient::class_axis(&output.shape())
        .ok_or_else(|| Error::Internal("the output has no classes".into()))?;
    let predictions = output
        .reshape(&[batch, Dim::fixed(classes)])
        .arg_max(1)
        .reshape(&[batch]);
    let magnitudes = gradient_rows.unary("Abs").sum(&[1]).reshape(&[batch]);
    let next_point = arrays
        .number(next.point.id())
        .expand(&flat)
        .reshape(&point.shape())
        .cast(point.dtype());
    let next_states: Vec<_> = next
        .state
        .iter()
        .zip(specs)
        .map(|(state, spec)| {
            let extent = match spec.extent {
                Extent::Element => Dim::fixed(width),
                Extent::Sample => Dim::ONE,
            };
            arrays.number(state.id()).expand(&[batch, extent]).id()
        })
        .collect();
    let outputs = [
        ("mohs.prediction", predictions.id()),
        ("mohs.loss", loss.cast(DType::F32).id()),
        ("mohs.magnitude", magnitudes.id()),
        ("mohs.next", next_point.id()),
    ];
    drop(arrays);
    let mut graph = builder.into_graph();
    graph.outputs.clear();
    for (name, value) in outputs {
        add_output(&mut graph, name, value);
    }
    for (spec, value) in specs.iter().zip(next_states) {
        add_output(&mut graph, &format!("mohs.next.{}", spec.name), value);
    }
    passes::prune(&mut graph);
    Ok(graph)
}
