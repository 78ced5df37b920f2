//! From a model whose weights are inputs to a graph with a loss and its gradients.

use super::batch_norm::running;
use super::objective::Head;
use super::{BatchNorm, Dropped, Mask, Objective, Trainable, TrainingGraph, TrainingOptions};
use crate::grad;
use crate::graph::{Builder, Dim, Expr, Graph, Node, ValueId, passes};
use crate::model::Error;
use crate::model::gradient::{self, CONTRACT, Scores, add_input, add_output, make_room};
use crate::onnx::proto::StringStringEntryProto;
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};

/// The model's own nodes, in the form that is asked for, and what is put behind them.
pub(super) struct Forward<'g> {
    pub(super) builder: &'g Builder,
    pub(super) options: &'g TrainingOptions,
    pub(super) dropped: &'g [Dropped],
    /// What stands in the place of a value of the model.
    pub(super) substitute: HashMap<ValueId, ValueId>,
    /// Each running statistic, and what it is after the nodes so far.
    pub(super) statistics: Vec<(ValueId, ValueId)>,
    pub(super) masks: Vec<Mask>,
}

pub(super) fn derive(base: &Trainable, options: &TrainingOptions) -> Result<TrainingGraph, Error> {
    let mut graph = base.graph.clone();
    let scores = match options.objective {
        Objective::Pairing { .. } => None,
        _ => Some(Scores::find(&graph, base.output, options.keep_softmax)?),
    };
    let wrt: Vec<ValueId> = options
        .wrt
        .iter()
        .map(|name| gradient::wanted_value(&graph, name))
        .collect::<Result<_, _>>()?;
    let names = Names::of(base, options);
    for name in names.all() {
        make_room(&mut graph, name)?;
    }
    let parameters: Vec<ValueId> = base
        .parameters
        .iter()
        .filter_map(|parameter| graph.find(&parameter.name))
        .collect();
    let statistics = base
        .statistics
        .iter()
        .filter_map(|statistic| graph.find(&statistic.name));
    let statistics = statistics.map(|id| (id, id)).collect();
    if let Objective::Pairing { tensor } = &options.objective {
        // What lies behind the tensor is left out.
        let end = gradient::wanted_value(&graph, tensor)?;
        let info = gradient::declare(tensor, DType::F32, &[]);
        graph.outputs = vec![(end, info)];
        passes::prune(&mut graph);
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let builder = Builder::new(graph);
    let mut forward = Forward {
        builder: &builder,
        options,
        dropped: &base.dropped,
        substitute: HashMap::new(),
        statistics,
        masks: Vec::new(),
    };
    forward.perturb_inputs(&wrt)?;
    for node in &nodes {
        forward.apply(node, &wrt)?;
    }
    let twin = match (&options.objective, &scores) {
        (Objective::Trades { .. }, Some(scores)) => {
            let logits = forward.apply_again(&nodes, base.input, scores.logits)?;
            Some(logits)
        }
        _ => None,
    };
    let head = forward.head(scores.as_ref(), twin)?;
    let wrt: Vec<ValueId> = wrt
        .iter()
        .map(|id| forward.substitute.get(id).copied().unwrap_or(*id))
        .collect();
    let wanted = Wanted {
        parameters: if options.parameters {
            parameters
        } else {
            Vec::new()
        },
        wrt,
    };
    let gradients = differentiate(&builder, &head, &wanted, options, base.straight_through)?;
    let (statistics, masks) = (forward.statistics, forward.masks);
    let outputs = Outputs {
        loss: head.loss.id(),
        gradients,
        statistics,
        masks,
    };
    Ok(outputs.finish(builder.into_graph(), base, options, &names, scores.as_ref()))
}

/// The names that the contract gives.
struct Names {
    wrt: Vec<String>,
    others: Vec<String>,
}

impl Names {
    fn of(base: &Trainable, options: &TrainingOptions) -> Self {
        let wrt = match options.wrt.as_slice() {
            [_] => vec!["grad".to_owned()],
            several => several.iter().map(|name| format!("grad.{name}")).collect(),
        };
        let mut others: Vec<String> = match options.objective {
            Objective::Labels(_) => vec!["labels".into()],
            Objective::Divergence => vec!["reference".into()],
            Objective::Trades { .. } => vec!["labels".into(), "adversarial".into()],
            Objective::Pairing { .. } => vec!["cotangent".into()],
        };
        others.push("loss".into());
        others.extend(base.parameters.iter().map(super::Parameter::gradient));
        others.extend(base.statistics.iter().map(super::Statistic::next));
        Names { wrt, others }
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.wrt.iter().chain(&self.others).map(String::as_str)
    }
}

/// What is differentiated by.
struct Wanted {
    parameters: Vec<ValueId>,
    wrt: Vec<ValueId>,
}

/// The gradients that were found: of parameters by their own values, and of the tensors of `wrt` in order.
struct Gradients {
    parameters: Vec<(ValueId, ValueId)>,
    wrt: Vec<ValueId>,
}

fn differentiate(
    builder: &Builder,
    head: &Head<'_>,
    wanted: &Wanted,
    options: &TrainingOptions,
    straight_through: bool,
) -> Result<Gradients, Error> {
    let batch = head.loss.shape().first().copied().unwrap_or(Dim::BATCH);
    let samples = || {
        let extents = builder.extents(&[batch]).reshape(&[]);
        extents.cast(head.loss.dtype())
    };
    let by_parameters = !wanted.parameters.is_empty();
    // Parameters get the gradient of the mean; the small tensor that everything starts from is where that costs nothing.
    let seeds: Vec<_> = head
        .seeds
        .iter()
        .map(|(id, seed)| match by_parameters {
            true => (*id, *seed / samples().cast_like(*seed)),
            false => (*id, *seed),
        })
        .collect();
    let all: Vec<ValueId> = wanted
        .parameters
        .iter()
        .chain(&wanted.wrt)
        .copied()
        .collect();
    let mut found = if straight_through {
        grad::vjp_straight_through(builder, &seeds, &all)?
    } else {
        grad::vjp(builder, &seeds, &all)?
    };
    builder.set_scope("mohs");
    let of_wrt = found.split_off(wanted.parameters.len());
    let mut wrt = Vec::new();
    for ((id, gradient), name) in wanted.wrt.iter().zip(of_wrt).zip(&options.wrt) {
        let gradient = gradient.ok_or_else(|| grad::Error::Unreachable {
            name: name.clone(),
            reason: builder.with_graph(|graph| gradient::zeros_behind(graph, *id)),
        })?;
        let sum = match by_parameters {
            true => gradient * samples().cast_like(gradient),
            false => gradient,
        };
        wrt.push(sum.id());
    }
    let parameters: Vec<_> = wanted
        .parameters
        .iter()
        .zip(found)
        .filter_map(|(id, gradient)| Some((*id, gradient?.id())))
        .collect();
    if by_parameters && parameters.is_empty() {
        return Err(Error::Unsuitable(
            "no parameter reaches the loss through operators that have a gradient".into(),
        ));
    }
    Ok(Gradients { parameters, wrt })
}

impl<'g> Forward<'g> {
    pub(super) fn expr(&self, id: ValueId) -> Result<Expr<'g>, Error> {
        self.builder.expr(id).ok_or_else(|| {
            let name = self.builder.with_graph(|graph| graph.name(id).to_owned());
            Error::Unsuitable(format!("the shape of `{name}` depends on the data"))
        })
    }

    /// An input of exactly this name.
    pub(super) fn input(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[Dim],
    ) -> Result<Expr<'g>, Error> {
        let id = self
            .builder
            .with_graph_mut(|graph| add_input(graph, name, dtype, shape));
        self.expr(id)
    }

    pub(super) fn add(&self, mut node: Node) {
        self.builder.with_graph_mut(|graph| {
            if node.proto.name.as_deref().unwrap_or_default().is_empty() {
                let op_type = node.op_type().to_owned();
                node.proto.name = Some(graph.fresh_name(&format!("forward/{op_type}")));
            }
            graph.nodes.push(node);
        });
    }

    /// Adds the perturbations of tensors that no node makes.
    fn perturb_inputs(&mut self, wrt: &[ValueId]) -> Result<(), Error> {
        if !self.options.perturbed {
            return Ok(());
        }
        let inputs: Vec<ValueId> = self
            .builder
            .with_graph(|graph| graph.inputs.iter().map(|(id, _)| *id).collect());
        for id in wrt.iter().filter(|id| inputs.contains(id)) {
            self.perturb(*id)?;
        }
        Ok(())
    }

    /// Puts tensor + perturbation in the place of a tensor.
    fn perturb(&mut self, id: ValueId) -> Result<(), Error> {
        self.builder.set_scope("perturbed");
        let value = self.expr(id)?;
        let name = self.builder.with_graph(|graph| graph.name(id).to_owned());
        let perturbation = self.input(
            &format!("perturbation.{name}"),
            value.dtype(),
            &value.shape(),
        )?;
        self.substitute.insert(id, (value + perturbation).id());
        Ok(())
    }

    /// Adds a node of the model.
    fn apply(&mut self, node: &Node, wrt: &[ValueId]) -> Result<(), Error> {
        self.refuse_inside(node, &self.substitute)?;
        let mut node = node.clone();
        for operand in node.inputs.iter_mut().flatten() {
            *operand = self.substitute.get(operand).copied().unwrap_or(*operand);
        }
        let outputs: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        self.put(node)?;
        if self.options.perturbed {
            for id in outputs.iter().filter(|id| wrt.contains(id)) {
                self.perturb(*id)?;
            }
        }
        Ok(())
    }

    /// Adds a node in the form that is asked for.
    fn put(&mut self, node: Node) -> Result<(), Error> {
        let name = node.proto.name.clone().unwrap_or_default();
        self.builder.set_scope(format!("forward/{name}"));
        if node.is("BatchNormalization") {
            match self.options.batch_norm {
                BatchNorm::Train => return self.train_batch_norm(node),
                BatchNorm::Running => self.add(running(node)),
            }
        } else if let Some(dropped) = self.dropped_by(&node) {
            return self.drop_out(&node, &dropped);
        } else {
            self.add(node);
        }
        Ok(())
    }

    /// Applies the model a second time, to the input `adversarial`; returns the counterpart of `logits`.
    fn apply_again(
        &mut self,
        nodes: &[Node],
        input: ValueId,
        logits: ValueId,
    ) -> Result<ValueId, Error> {
        let clean = self.expr(input)?;
        let second = self.input("adversarial", clean.dtype(), &clean.shape())?;
        let mut twin = HashMap::from([(input, second.id())]);
        for node in nodes {
            self.refuse_inside(node, &twin)?;
            if !node.inputs.iter().flatten().any(|id| twin.contains_key(id)) {
                continue;
            }
            let mut copy = node.clone();
            for operand in copy.inputs.iter_mut().flatten() {
                *operand = twin.get(operand).copied().unwrap_or(*operand);
            }
            self.builder.with_graph_mut(|graph| {
                let name = node.proto.name.as_deref().unwrap_or_default();
                copy.proto.name = Some(graph.fresh_name(&format!("adversarial/{name}")));
                for output in copy.outputs.iter_mut().flatten() {
                    let own = graph.fresh(&format!("adversarial/{}", graph.name(*output)));
                    graph.value_mut(own).fact = graph.fact(*output).cloned();
                    twin.insert(*output, own);
                    *output = own;
                }
            });
            self.put(copy)?;
        }
        let found = twin.get(&logits).copied();
        found.ok_or_else(|| Error::Unsuitable("the scores do not depend on the input".into()))
    }

    /// Subgraphs take values from outside by name, so that nothing else can stand in their place.
    fn refuse_inside(
        &self,
        node: &Node,
        replaced: &HashMap<ValueId, ValueId>,
    ) -> Result<(), Error> {
        let captured = self.builder.with_graph(|graph| {
            let captured = graph.captured(node).into_iter();
            captured
                .filter(|id| replaced.contains_key(id) && !node.inputs.contains(&Some(*id)))
                .map(|id| graph.name(id).to_owned())
                .next()
        });
        match captured {
            Some(name) => Err(Error::Unsuitable(format!(
                "{} node `{}` has a body that reads `{name}` from outside, so this objective cannot be built for the model",
                node.op_type(),
                node.proto.name.as_deref().unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }
}

/// What comes out of the graph.
struct Outputs {
    loss: ValueId,
    gradients: Gradients,
    statistics: Vec<(ValueId, ValueId)>,
    masks: Vec<Mask>,
}

impl Outputs {
    fn finish(
        self,
        mut graph: Graph,
        base: &Trainable,
        options: &TrainingOptions,
        names: &Names,
        scores: Option<&Scores>,
    ) -> TrainingGraph {
        if scores.is_none() {
            graph.outputs.clear();
        }
        let loss = add_output(&mut graph, "loss", self.loss);
        for (name, id) in names.wrt.iter().zip(&self.gradients.wrt) {
            add_output(&mut graph, name, *id);
        }
        let mut parameters = Vec::new();
        for parameter in &base.parameters {
            let own = graph.find(&parameter.name);
            let mut found = self.gradients.parameters.iter();
            if let Some((_, gradient)) = found.find(|(id, _)| Some(*id) == own) {
                add_output(&mut graph, &parameter.gradient(), *gradient);
                parameters.push(parameter.clone());
            }
        }
        for (own, next) in &self.statistics {
            if own != next {
                let name = format!("next.{}", graph.name(*own));
                add_output(&mut graph, &name, *next);
            }
        }
        passes::prune(&mut graph);
        let read = require_inputs(&mut graph, base);
        passes::declare_shapes(&mut graph);
        describe(&mut graph, base, options, scores);
        let used = |name: &str| graph.find(name).is_some_and(|id| read.contains(&id));
        let masks = self.masks.into_iter().filter(|mask| used(&mask.name));
        let statistics = base.statistics.iter().filter(|one| used(&one.name));
        let gradients = options.wrt.iter().cloned().zip(names.wrt.iter().cloned());
        TrainingGraph {
            masks: masks.collect(),
            statistics: statistics.cloned().collect(),
            gradients: gradients.collect(),
            parameters,
            output: scores.map(|_| base.output),
            loss,
            softmax_removed: scores.is_some_and(|scores| scores.softmax_removed),
            graph,
        }
    }
}

/// Makes parameters and statistics inputs that have to be given, and drops inputs that nothing reads; returns what is read.
fn require_inputs(graph: &mut Graph, base: &Trainable) -> HashSet<ValueId> {
    let read: HashSet<ValueId> = graph
        .nodes
        .iter()
        .flat_map(|node| graph.reads(node))
        .collect();
    let own = (base.parameters.iter().map(|parameter| &parameter.name))
        .chain(base.statistics.iter().map(|statistic| &statistic.name))
        .chain(base.dropped.iter().map(|dropped| &dropped.factor));
    let own: HashSet<ValueId> = own.filter_map(|name| graph.find(name)).collect();
    graph.inputs.retain(|(id, _)| read.contains(id));
    let all = std::mem::take(&mut graph.initializers);
    let (open, fixed): (Vec<ValueId>, Vec<ValueId>) =
        all.into_iter().partition(|id| own.contains(id));
    graph.initializers = fixed;
    for id in open {
        graph.value_mut(id).initializer = None;
    }
    read
}

/// Writes what the graph is into its metadata.
fn describe(
    graph: &mut Graph,
    base: &Trainable,
    options: &TrainingOptions,
    scores: Option<&Scores>,
) {
    let loss = match &options.objective {
        Objective::Labels(loss) => loss.name().to_owned(),
        Objective::Divergence => "divergence".to_owned(),
        Objective::Trades { beta } => format!("trades:beta={beta}"),
        Objective::Pairing { tensor } => format!("pairing:{tensor}"),
    };
    let batch_norm = match options.batch_norm {
        BatchNorm::Train => "train",
        BatchNorm::Running => "frozen",
    };
    let output = scores.map(|_| graph.name(base.output).to_owned());
    for (key, value) in [
        ("mohs.contract", CONTRACT.to_owned()),
        ("mohs.graph", "training".to_owned()),
        ("mohs.loss", loss),
        ("mohs.wrt", options.wrt.join(",")),
        ("mohs.output", output.unwrap_or_default()),
        ("mohs.batch-norm", batch_norm.to_owned()),
        ("mohs.sha256", base.sha256.clone()),
        ("mohs.straight-through", base.straight_through.to_string()),
    ] {
        let entries = &mut graph.model.metadata_props;
        entries.retain(|entry| entry.key.as_deref() != Some(key));
        entries.push(StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value),
        });
    }
}
