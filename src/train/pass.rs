//! One kind of pass of a method, as a graph: the training graph with an attack's step, a sum of gradients or an optimizer's step behind it.
//!
//! A method says what its passes are ([`PassSpec`]); [`build`] makes a graph for each, with everything that a run takes and gives by role.

use super::optim::{self, Optimizer, Slot};
use super::{Error, Setting};
use crate::attack::array::Array;
use crate::attack::{Attack, Context, Pass};
use crate::graph::{Builder, Dim, Dims, Expr, Graph, ValueId, passes};
use crate::model::GraphArrays;
use crate::model::gradient::{add_input, add_output, class_axis, declare};
use crate::model::training::{
    BatchNorm, Dropout, Mask, Objective, Trainable, TrainingGraph, TrainingOptions,
};
use crate::tensor::DType;
use std::sync::Arc;

/// What one kind of pass is to do.
#[derive(Debug, Clone)]
pub(super) struct PassSpec {
    /// The loss.
    pub(super) objective: Objective,
    /// Whether the model is in training form: batch statistics, dropout.
    pub(super) training: bool,
    /// The attack that goes on from the point that the model was evaluated at.
    pub(super) ascent: Option<Ascent>,
    /// What becomes of the gradients of the parameters.
    pub(super) weights: Weights,
    /// A tensor whose gradient is to come out.
    pub(super) gradient_of: Option<String>,
    /// Whether the scores are to come out.
    pub(super) scores: bool,
}

/// An attack within a pass.
#[derive(Debug, Clone)]
pub(super) struct Ascent {
    /// The attack; its step is what is done.
    pub(super) attack: Arc<dyn Attack>,
    /// Whether points are perturbations that go from batch to batch, added to the samples within the bounds.
    pub(super) carried: bool,
}

/// What becomes of the gradients of the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Weights {
    /// There are none.
    Unchanged,
    /// They are added to the sums, times this share.
    Summed(f64),
    /// The optimizer makes a step.
    Stepped {
        /// The share of this pass.
        share: f64,
        /// Whether the sums are added.
        summed: bool,
    },
}

impl PassSpec {
    /// A pass in training form that makes a weight step on the mean cross-entropy.
    pub(super) fn step() -> Self {
        PassSpec {
            objective: Objective::default(),
            training: true,
            ascent: None,
            weights: Weights::Stepped {
                share: 1.0,
                summed: false,
            },
            gradient_of: None,
            scores: false,
        }
    }

    /// A pass that makes one step of an attack, in evaluation form.
    pub(super) fn ascent(attack: Arc<dyn Attack>) -> Self {
        PassSpec {
            objective: Objective::Labels(attack.loss()),
            training: false,
            ascent: Some(Ascent {
                attack,
                carried: false,
            }),
            weights: Weights::Unchanged,
            gradient_of: None,
            scores: false,
        }
    }
}

/// What a run takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// The samples, or the points where the input is perturbed.
    Data,
    /// The samples beside the points.
    Clean,
    /// The perturbation of an inner tensor, or one that is carried from batch to batch.
    Perturbation,
    /// A perturbation of 0.
    Nothing(Dims),
    Labels,
    Epsilon,
    StepSize,
    /// Which positions are real.
    Real,
    Reference,
    Adversarial,
    Cotangent,
    Rate(usize),
    Parameter(usize),
    Statistic(usize),
    State(usize, usize),
    Sum(usize),
    Dropout(usize),
}

/// What a run gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Loss,
    Prediction,
    Scores,
    Point,
    Gradient,
    Parameter(usize),
    Statistic(usize),
    State(usize, usize),
    Sum(usize),
}

/// A graph with the roles of its inputs and outputs.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) graph: Graph,
    pub(super) taken: Vec<(String, Taken)>,
    pub(super) given: Vec<Given>,
    pub(super) masks: Vec<Mask>,
    /// Whether the loss is taken on the logits below a final softmax.
    pub(super) softmax_removed: bool,
    /// How many passes forward and backward through the model it is.
    pub(super) passes: u64,
}

/// Makes the graph of a pass.
pub(super) fn build(
    trainable: &Trainable,
    setting: &Setting,
    spec: &PassSpec,
    optimizer: &dyn Optimizer,
) -> Result<Built, Error> {
    let training = derive(trainable, setting, spec)?;
    let mut making = Making::new(trainable, setting, spec, optimizer, training)?;
    if spec.ascent.is_some() {
        making.ascend()?;
    }
    if spec.weights != Weights::Unchanged {
        making.descend()?;
    }
    making.look()?;
    Ok(making.finish())
}

fn derive(
    trainable: &Trainable,
    setting: &Setting,
    spec: &PassSpec,
) -> Result<TrainingGraph, Error> {
    if let Some(given) = &setting.given {
        return given.for_pass(trainable, setting, &setting.output, spec);
    }
    let mut wrt = Vec::new();
    if spec.ascent.is_some() || setting.inner {
        wrt.push(setting.tensor.clone());
    }
    wrt.extend(spec.gradient_of.clone());
    let statistics = spec.training && setting.batch_norm == BatchNorm::Train;
    let options = TrainingOptions {
        objective: spec.objective.clone(),
        parameters: spec.weights != Weights::Unchanged,
        wrt,
        perturbed: setting.inner,
        batch_norm: match statistics {
            true => BatchNorm::Train,
            false => BatchNorm::Running,
        },
        dropout: match spec.training {
            true => Dropout::Masks,
            false => Dropout::Off,
        },
        keep_softmax: false,
    };
    Ok(trainable.derive(&options)?)
}

/// A pass in the making.
struct Making<'a> {
    trainable: &'a Trainable,
    setting: &'a Setting,
    spec: &'a PassSpec,
    optimizer: &'a dyn Optimizer,
    training: TrainingGraph,
    builder: Builder,
    taken: Vec<(String, Taken)>,
    outputs: Vec<(String, ValueId, Given)>,
}

impl<'a> Making<'a> {
    fn new(
        trainable: &'a Trainable,
        setting: &'a Setting,
        spec: &'a PassSpec,
        optimizer: &'a dyn Optimizer,
        training: TrainingGraph,
    ) -> Result<Self, Error> {
        let graph = training.graph.clone();
        let taken = graph
            .inputs
            .iter()
            .map(|(id, _)| {
                let name = graph.name(*id);
                let role = role(trainable, setting, &training, &graph, name, *id)?;
                Ok((name.to_owned(), role))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Making {
            trainable,
            setting,
            spec,
            optimizer,
            training,
            builder: Builder::new(graph),
            taken,
            outputs: Vec::new(),
        })
    }

    fn expr(&self, id: ValueId) -> Result<Expr<'_>, Error> {
        self.builder
            .expr(id)
            .ok_or_else(|| Error::internal("a value of a pass has no shape"))
    }

    fn find(&self, name: &str) -> Result<Expr<'_>, Error> {
        let found = self.builder.with_graph(|graph| graph.find(name));
        self.expr(found.ok_or_else(|| Error::internal("a value of a pass is missing"))?)
    }

    /// An input of the graph, new or already there.
    fn input(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[Dim],
        role: Taken,
    ) -> Result<ValueId, Error> {
        if let Some(place) = self.taken.iter().position(|(taken, _)| taken == name) {
            let (name, _) = &self.taken[place];
            return Ok(self.find(name)?.id());
        }
        let id = self.builder.with_graph_mut(|graph| match graph.find(name) {
            // A value that nothing of this graph reads.
            Some(id) => {
                let info = declare(name, dtype, shape);
                graph.value_mut(id).fact = Some(crate::graph::Fact::new(dtype, shape.to_vec()));
                graph.inputs.push((id, info));
                id
            }
            None => add_input(graph, name, dtype, shape),
        });
        self.taken.push((name.to_owned(), role));
        Ok(id)
    }

    /// The attack's step from the point to the next.
    fn ascend(&mut self) -> Result<(), Error> {
        let Some(Ascent { attack, carried }) = self.spec.ascent.clone() else {
            return Ok(());
        };
        let as_perturbation = self.setting.inner || carried;
        let gradient = self
            .training
            .gradients
            .first()
            .map(|(_, name)| name.clone());
        let gradient = gradient.ok_or_else(|| Error::internal("a pass has no gradient"))?;
        let target = match self.setting.inner {
            true => format!("perturbation.{}", self.setting.tensor),
            false => self.setting.tensor.clone(),
        };
        let fact = self.find(&target)?.fact();
        let batch = fact.shape.first().copied().unwrap_or(Dim::BATCH);
        let extents = fact.shape.iter().skip(1).filter_map(|dim| dim.extent());
        let width: i64 = extents.product();
        let flat = [batch, Dim::fixed(width)];
        let clean = match as_perturbation {
            true => None,
            false => Some(self.input("mohs.clean", fact.dtype, &fact.shape, Taken::Clean)?),
        };
        let per_sample = [batch, Dim::ONE];
        let epsilon = self.input("mohs.epsilon", DType::F32, &per_sample, Taken::Epsilon)?;
        let step_size = self.input("mohs.step_size", DType::F32, &per_sample, Taken::StepSize)?;
        let real = self.real_positions(batch)?;
        let inside = match carried && !self.setting.inner {
            true => Some(self.carry(&target)?),
            false => None,
        };
        let bounds = self.setting.bounds;
        let next = {
            self.builder.set_scope(format!("attack/{}", attack.name()));
            let mut gradient = self.find(&gradient)?.cast(DType::F32);
            if let Some(real) = real {
                gradient = gradient * self.expr(real)?;
            }
            let point = match inside {
                Some((perturbation, _)) => self.expr(perturbation)?,
                None => self.find(&target)?,
            };
            if let Some((_, inside)) = inside {
                gradient = gradient.where_(self.expr(inside)?);
            }
            let width = usize::try_from(width).unwrap_or_default();
            let arrays = GraphArrays::new(&self.builder, width, DType::F32);
            let array = |value| Array::new(&arrays, arrays.push(value));
            let rows = |value: Expr<'_>| value.cast(DType::F32).reshape(&flat).id();
            let row = |id| self.expr(id).map(array);
            let scalar = |value: f64| array(self.builder.scalar(DType::F32, value));
            let (low, high) = match as_perturbation {
                true => (f64::NEG_INFINITY, f64::INFINITY),
                false => (f64::from(bounds.low), f64::from(bounds.high)),
            };
            let clean = match clean {
                Some(clean) => row(rows(self.expr(clean)?))?,
                None => scalar(0.0),
            };
            let context = Context {
                norm: self.setting.norm,
                clean,
                low: scalar(low),
                high: scalar(high),
                epsilon: row(epsilon)?,
                step_size: row(step_size)?,
            };
            let loss = self.expr(self.training.loss)?;
            let loss = loss.cast(DType::F32).reshape(&per_sample).id();
            let pass = Pass {
                point: row(rows(point))?,
                gradient: row(rows(gradient))?,
                loss: row(loss)?,
                // The maximisers of training raise the loss, whatever the prediction.
                adversarial: scalar(0.0),
            };
            let next = attack.step(&context, &pass, &[]);
            let next = arrays.number(next.point.id()).expand(&flat);
            next.reshape(&fact.shape).cast(fact.dtype).id()
        };
        self.outputs.push(("mohs.next".into(), next, Given::Point));
        Ok(())
    }

    /// 1 at real positions of the perturbed tensor, broadcast over the axes that the samples do not have.
    fn real_positions(&mut self, batch: Dim) -> Result<Option<ValueId>, Error> {
        if !self.setting.padded {
            return Ok(None);
        }
        let sample = self.setting.sample_shape.iter();
        let sample: Vec<Dim> = sample.map(|&extent| Dim::fixed(extent as i64)).collect();
        let shape: Vec<Dim> = std::iter::once(batch).chain(sample).collect();
        let real = self.input("mohs.real", DType::F32, &shape, Taken::Real)?;
        let missing = (self.setting.point_shape.len() + 1).saturating_sub(shape.len());
        let axes: Vec<usize> = (shape.len()..shape.len() + missing).collect();
        let real = self.expr(real)?;
        let real = match axes.as_slice() {
            [] => real,
            axes => real.unsqueeze(axes),
        };
        Ok(Some(real.id()))
    }

    /// Lets the model's input be clean + perturbation, clipped to the bounds; the perturbation, and where the sum is within the bounds.
    fn carry(&mut self, input: &str) -> Result<(ValueId, ValueId), Error> {
        let fact = self.find(input)?.fact();
        let target = self.find(input)?.id();
        self.builder
            .with_graph_mut(|graph| graph.inputs.retain(|(id, _)| *id != target));
        self.taken.retain(|(name, _)| name != input);
        let clean = self.input("mohs.clean", fact.dtype, &fact.shape, Taken::Clean)?;
        let perturbation = self.input(
            "mohs.perturbation",
            fact.dtype,
            &fact.shape,
            Taken::Perturbation,
        )?;
        let before = self.builder.with_graph(|graph| graph.nodes.len());
        self.builder.set_scope("carried");
        let bounds = self.setting.bounds;
        let (low, high) = (f64::from(bounds.low), f64::from(bounds.high));
        let sum = self.expr(clean)? + self.expr(perturbation)?;
        // As PyTorch's clamp: the bounds themselves are within.
        let inside = sum.ge(low).and(sum.le(high)).id();
        let clipped = sum.max(low).min(high).id();
        self.builder.with_graph_mut(|graph| {
            // The model reads its input where the new nodes write it, before everything else.
            for node in graph.nodes.iter_mut().skip(before) {
                for output in node.outputs.iter_mut().flatten() {
                    if *output == clipped {
                        *output = target;
                    }
                }
            }
            let added = graph.nodes.len() - before;
            graph.nodes.rotate_right(added);
        });
        Ok((perturbation, inside))
    }

    /// Sums the gradients of the parameters, or lets the optimizer make its step.
    fn descend(&mut self) -> Result<(), Error> {
        let (share, summed, step) = match self.spec.weights {
            Weights::Unchanged => return Ok(()),
            Weights::Summed(share) => (share, true, false),
            Weights::Stepped { share, summed } => (share, summed, true),
        };
        let trainable = self.trainable;
        let mut sums = Vec::new();
        for (position, parameter) in trainable.parameters.iter().enumerate() {
            let dims = fixed(&parameter.shape);
            let name = &parameter.name;
            let weight = self.input(name, parameter.dtype, &dims, Taken::Parameter(position))?;
            let mut inputs = vec![weight];
            if summed {
                let sum = format!("mohs.sum.{name}");
                inputs.push(self.input(&sum, parameter.dtype, &dims, Taken::Sum(position))?);
            }
            sums.push((position, inputs));
        }
        let total = |making: &Self, position: usize, sum: Option<ValueId>| {
            let parameter = &trainable.parameters[position];
            let own = making.training.parameters.iter();
            let has_own = own.into_iter().any(|own| own.name == parameter.name);
            let own = match has_own {
                true => Some(making.find(&parameter.gradient())?.id()),
                false => None,
            };
            making.builder.set_scope("gradient");
            let own = match own {
                Some(id) if share == 1.0 => Some(making.expr(id)?.id()),
                Some(id) => Some((making.expr(id)? * share).id()),
                None => None,
            };
            Ok::<_, Error>(match (own, sum) {
                (Some(own), Some(sum)) => (making.expr(own)? + making.expr(sum)?).id(),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => making
                    .expr(making.find(&parameter.name)?.id())?
                    .zeros_like()
                    .id(),
            })
        };
        let mut totals = Vec::new();
        for (position, inputs) in &sums {
            totals.push(total(self, *position, inputs.get(1).copied())?);
        }
        if !step {
            for ((position, _), total) in sums.iter().zip(totals) {
                let name = &trainable.parameters[*position].name;
                let output = format!("mohs.total.{name}");
                self.outputs.push((output, total, Given::Sum(*position)));
            }
            return Ok(());
        }
        self.step(&sums, &totals)
    }

    fn step(&mut self, weights: &[(usize, Vec<ValueId>)], totals: &[ValueId]) -> Result<(), Error> {
        let optimizer = self.optimizer;
        let mut rates = Vec::new();
        for (place, rate) in optimizer.rates().iter().enumerate() {
            let name = format!("mohs.rate.{rate}");
            rates.push(self.input(&name, DType::F32, &[], Taken::Rate(place))?);
        }
        let mut states = Vec::new();
        for (position, _) in weights {
            let parameter = &self.trainable.parameters[*position];
            let mut own = Vec::new();
            for (place, state) in optimizer.state().iter().enumerate() {
                let name = format!("mohs.{state}.{}", parameter.name);
                let role = Taken::State(*position, place);
                let dims = fixed(&parameter.shape);
                own.push(self.input(&name, parameter.dtype, &dims, role)?);
            }
            states.push(own);
        }
        let mut found = Vec::new();
        {
            let exprs = |ids: &[ValueId]| -> Result<Vec<Expr<'_>>, Error> {
                ids.iter().map(|id| self.expr(*id)).collect()
            };
            let mut slots = Vec::new();
            for (((position, ids), total), state) in weights.iter().zip(totals).zip(&states) {
                let kind = self.trainable.parameters[*position].kind;
                slots.push(Slot {
                    parameter: self.expr(ids[0])?,
                    gradient: self.expr(*total)?,
                    state: exprs(state)?,
                    rates: exprs(&rates)?,
                    decays: kind.decays() || optimizer.decays_all(),
                });
            }
            let updated = optim::apply(&self.builder, optimizer, slots);
            for ((position, _), updated) in weights.iter().zip(updated) {
                let name = &self.trainable.parameters[*position].name;
                let new = updated.parameter.id();
                found.push((
                    format!("mohs.next.{name}"),
                    new,
                    Given::Parameter(*position),
                ));
                let states = optimizer.state().iter().zip(updated.state);
                for (place, (state, value)) in states.enumerate() {
                    let output = format!("mohs.next.{state}.{name}");
                    found.push((output, value.id(), Given::State(*position, place)));
                }
            }
        }
        self.outputs.extend(found);
        Ok(())
    }

    /// What the host looks at, and the running statistics.
    fn look(&mut self) -> Result<(), Error> {
        let mut found = Vec::new();
        let loss = self.expr(self.training.loss)?.cast(DType::F32);
        found.push(("mohs.loss".to_owned(), loss.id(), Given::Loss));
        if let Some(output) = self.training.output {
            let output = self.expr(output)?;
            let (batch, classes) = class_axis(&output.shape())
                .ok_or_else(|| Error::internal("the output has no classes"))?;
            let scores = output
                .reshape(&[batch, Dim::fixed(classes)])
                .cast(DType::F32);
            let prediction = scores.arg_max(1).reshape(&[batch]);
            found.push((
                "mohs.prediction".to_owned(),
                prediction.id(),
                Given::Prediction,
            ));
            if self.spec.scores {
                found.push(("mohs.scores".to_owned(), scores.id(), Given::Scores));
            }
        }
        if self.spec.gradient_of.is_some() {
            let gradient = self.training.gradients.last().map(|(_, name)| name);
            let gradient = gradient.ok_or_else(|| Error::internal("a pass has no gradient"))?;
            found.push((
                "mohs.cotangent".to_owned(),
                self.find(gradient)?.id(),
                Given::Gradient,
            ));
        }
        // The first layer alone is looked at again and again; its statistics are those of the full passes.
        if !matches!(self.spec.objective, Objective::Pairing { .. }) {
            for (place, statistic) in self.trainable.statistics.iter().enumerate() {
                let next = self
                    .builder
                    .with_graph(|graph| graph.find(&statistic.next()));
                let is_output = self
                    .builder
                    .with_graph(|graph| graph.outputs.iter().any(|(id, _)| Some(*id) == next));
                if let Some(next) = next.filter(|_| is_output) {
                    let name = format!("mohs.{}", statistic.next());
                    found.push((name, next, Given::Statistic(place)));
                }
            }
        }
        self.outputs.extend(found);
        Ok(())
    }

    fn finish(self) -> Built {
        let mut graph = self.builder.into_graph();
        graph.outputs.clear();
        let mut given = Vec::new();
        for (name, value, role) in self.outputs {
            add_output(&mut graph, &name, value);
            given.push(role);
        }
        passes::prune(&mut graph);
        passes::declare_shapes(&mut graph);
        let declared: Vec<&str> = graph.inputs.iter().map(|(id, _)| graph.name(*id)).collect();
        let mut taken = self.taken;
        taken.retain(|(name, _)| declared.contains(&name.as_str()));
        Built {
            taken,
            given,
            masks: self.training.masks,
            softmax_removed: self.training.softmax_removed,
            passes: match self.spec.objective {
                Objective::Pairing { .. } => 0,
                Objective::Trades { .. } => 2,
                _ => 1,
            },
            graph,
        }
    }
}

fn fixed(shape: &[usize]) -> Dims {
    let extents = shape.iter();
    extents.map(|&extent| Dim::fixed(extent as i64)).collect()
}

/// What an input of a training graph is.
fn role(
    trainable: &Trainable,
    setting: &Setting,
    training: &TrainingGraph,
    graph: &Graph,
    name: &str,
    id: ValueId,
) -> Result<Taken, Error> {
    let mut parameters = trainable.parameters.iter();
    if let Some(position) = parameters.position(|known| known.name == name) {
        return Ok(Taken::Parameter(position));
    }
    let mut statistics = trainable.statistics.iter();
    if let Some(position) = statistics.position(|known| known.name == name) {
        return Ok(Taken::Statistic(position));
    }
    if let Some(position) = training.masks.iter().position(|mask| mask.name == name) {
        return Ok(Taken::Dropout(position));
    }
    if name == setting.input {
        return Ok(Taken::Data);
    }
    Ok(match name {
        "labels" => Taken::Labels,
        "reference" => Taken::Reference,
        "adversarial" => Taken::Adversarial,
        "cotangent" => Taken::Cotangent,
        _ => match name.strip_prefix("perturbation.") {
            Some(tensor) if tensor == setting.tensor => Taken::Perturbation,
            Some(_) => Taken::Nothing(
                graph
                    .fact(id)
                    .map(|fact| fact.shape.clone())
                    .unwrap_or_default(),
            ),
            None => {
                return Err(Error::Config(format!(
                    "the model has a further input `{name}`, and the data set has nothing for it"
                )));
            }
        },
    })
}
