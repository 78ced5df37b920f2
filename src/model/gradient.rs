//! The gradient graph: a model extended by its loss and the gradient of that loss.

use super::Error;
use crate::grad;
use crate::graph::{Attributes, Builder, Dim, Dims, Expr, Fact, Graph, ValueId, passes};
use crate::loss::Loss;
use crate::onnx::proto::{
    Dimension, DimensionValue, StringStringEntryProto, TensorShapeProto, TensorType, TypeProto,
    TypeValue, ValueInfoProto,
};
use crate::tensor::DType;

/// The version of the contract that gradient graphs follow (metadata key `mohs.contract`).
pub const CONTRACT: &str = "1";

/// What is asked of a gradient graph.
#[derive(Debug, Clone, Default)]
pub struct GradientOptions {
    /// The loss.
    pub loss: Loss,
    /// The values to differentiate by; the attacked input where there are none.
    pub wrt: Vec<String>,
    /// Whether a final `Softmax` is differentiated through, instead of from the logits below it.
    pub keep_softmax: bool,
    /// Whether the loss is that against one class of each sample, given as the input `targets`, instead of all others.
    pub targeted: bool,
    /// Whether the gradient is brought to size 1 on its way, sample by sample, and back at its end: where it is computed in float16, that of a
    /// confident sample would vanish.
    pub scale_seed: bool,
}

/// A graph that gives, beside the model's own outputs, the loss of each sample and its gradient.
#[derive(Debug, Clone)]
pub struct GradientGraph {
    /// The graph: the model's inputs and `labels` (int64 `[N]`); the model's outputs, `loss` (float `[N]`) and `grad`.
    pub graph: Graph,
    /// The labels.
    pub labels: ValueId,
    /// The classes that the loss goes toward, where it is targeted.
    pub targets: Option<ValueId>,
    /// The model's output with a number for each class.
    pub output: ValueId,
    /// The loss of each sample.
    pub loss: ValueId,
    /// Each differentiated value with d(sum of losses)/d(value).
    pub gradients: Vec<(ValueId, ValueId)>,
    /// Whether the gradient was taken from the logits below a final softmax.
    pub softmax_removed: bool,
    /// Whether the output has probabilities that come out of no softmax, so that the loss is that of their logarithms.
    pub of_probabilities: bool,
}

impl GradientGraph {
    /// Refuses a loss that the graph was not made for.
    ///
    /// # Errors
    /// Where the graph says that it has another loss.
    pub fn check_loss(&self, loss: Loss) -> Result<(), Error> {
        match self.metadata("mohs.loss") {
            Some(made) if made != loss.name() => Err(Error::Unsuitable(format!(
                "the gradient graph was made for the {made} loss, and the attack asks for {loss}; give the attack loss={made}"
            ))),
            _ => Ok(()),
        }
    }

    /// What the graph says of itself under a key such as `mohs.loss`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let mut entries = self.graph.model.metadata_props.iter();
        let entry = entries.find(|entry| entry.key.as_deref() == Some(key))?;
        entry.value.as_deref()
    }
}

/// What else is known of the model.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Whether gradients pass straight through rounding and quantisation.
    pub straight_through: bool,
    /// Whether the output has probabilities.
    pub probabilities: bool,
    /// The file's SHA-256.
    pub sha256: &'a str,
}

/// Extends a traced graph by the loss on `output` and its gradient.
///
/// # Errors
/// Where the output has no class scores, where a name of `wrt` is no float value, or where an operator on the path has no rule.
pub fn derive(
    mut graph: Graph,
    input: ValueId,
    output: ValueId,
    options: &GradientOptions,
    source: &Source<'_>,
) -> Result<GradientGraph, Error> {
    let Source {
        straight_through,
        probabilities,
        sha256,
    } = *source;
    let wrt = wanted_values(&graph, input, &options.wrt)?;
    let scores = Scores::find(&graph, output, options.keep_softmax)?;
    // The targeted form of dlr looks at the fourth score too.
    let least =
        options.loss.least_classes() + i64::from(options.targeted && options.loss == Loss::Dlr);
    if scores.classes < least {
        return Err(Error::Unsuitable(format!(
            "output `{}` has {} classes, and the {} loss needs at least {least}; choose another loss",
            graph.name(output),
            scores.classes,
            options.loss
        )));
    }
    let names = if wrt.len() == 1 {
        vec!["grad".to_owned()]
    } else {
        wrt.iter()
            .map(|id| format!("grad.{}", graph.name(*id)))
            .collect()
    };
    for name in names
        .iter()
        .map(String::as_str)
        .chain(["labels", "targets", "loss"])
    {
        make_room(&mut graph, name)?;
    }
    let labels = add_input(&mut graph, "labels", DType::I64, &[scores.batch]);
    let targets = options
        .targeted
        .then(|| add_input(&mut graph, "targets", DType::I64, &[scores.batch]));
    let builder = Builder::new(graph);
    builder.set_scope("loss");
    let logits = builder
        .expr(scores.logits)
        .ok_or_else(|| Error::Unsuitable("the output has no fixed shape".into()))?;
    let logits = logits.reshape(&[scores.batch, Dim::fixed(scores.classes)]);
    let of_probabilities = probabilities && !scores.softmax_removed && !options.keep_softmax;
    let logits = if of_probabilities {
        logits_of(logits)
    } else {
        logits
    };
    let labels_expr = builder
        .expr(labels)
        .ok_or_else(|| Error::Unsuitable("the labels have no shape".into()))?;
    let built = match targets.and_then(|id| builder.expr(id)) {
        None => grad::loss::build(options.loss, logits, labels_expr, scores.classes),
        Some(targets) => {
            grad::loss::targeted(options.loss, logits, labels_expr, targets, scores.classes)
                .ok_or_else(|| {
                    Error::Unsuitable(format!("the {} loss has no targeted form", options.loss))
                })?
        }
    };
    let (seed, size) = if options.scale_seed {
        let (seed, size) = grad::loss::scaled(built.seed);
        (seed, Some(size))
    } else {
        (built.seed, None)
    };
    let found = if straight_through {
        grad::vjp_straight_through(&builder, &[seed], &wrt)?
    } else {
        grad::vjp(&builder, &[seed], &wrt)?
    };
    let loss = built.loss;
    builder.set_scope("mohs");
    let mut gradients = Vec::new();
    for (id, gradient) in wrt.iter().zip(found) {
        let gradient = gradient.ok_or_else(|| {
            let name = builder.with_graph(|graph| graph.name(*id).to_owned());
            grad::Error::Unreachable {
                name,
                reason: builder.with_graph(|graph| zeros_behind(graph, *id)),
            }
        })?;
        let gradient = match size {
            Some(size) => grad::loss::rescaled(gradient, size),
            None => gradient,
        };
        gradients.push((*id, gradient.id()));
    }
    let loss = loss.id();
    let mut graph = builder.into_graph();
    let loss = add_output(&mut graph, "loss", loss);
    let gradients: Vec<_> = gradients
        .into_iter()
        .zip(&names)
        .map(|((id, gradient), name)| (id, add_output(&mut graph, name, gradient)))
        .collect();
    passes::prune(&mut graph);
    passes::declare_shapes(&mut graph);
    let wrt_names: Vec<_> = wrt.iter().map(|id| graph.name(*id).to_owned()).collect();
    let output_name = graph.name(output).to_owned();
    note(
        &mut graph,
        [
            ("mohs.contract", CONTRACT.to_owned()),
            ("mohs.loss", options.loss.name().to_owned()),
            ("mohs.wrt", wrt_names.join(",")),
            ("mohs.output", output_name),
            ("mohs.sha256", sha256.to_owned()),
            ("mohs.straight-through", straight_through.to_string()),
        ],
    );
    Ok(GradientGraph {
        graph,
        labels,
        targets,
        output,
        loss,
        gradients,
        softmax_removed: scores.softmax_removed,
        of_probabilities,
    })
}

/// The logits of a distribution: its logarithms, but for a constant.
fn logits_of(probabilities: Expr<'_>) -> Expr<'_> {
    let wide = if probabilities.dtype() == DType::F64 {
        probabilities
    } else {
        probabilities.cast(DType::F32)
    };
    wide.max(f64::from(f32::MIN_POSITIVE)).unary("Log")
}

/// Writes entries into the metadata of the file, in the place of others of the same keys.
fn note<const N: usize>(graph: &mut Graph, entries: [(&str, String); N]) {
    let props = &mut graph.model.metadata_props;
    for (key, value) in entries {
        props.retain(|entry| entry.key.as_deref() != Some(key));
        props.push(StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value),
        });
    }
}

/// The class scores that the loss is computed from.
pub(super) struct Scores {
    pub(super) logits: ValueId,
    pub(super) batch: Dim,
    pub(super) classes: i64,
    pub(super) softmax_removed: bool,
}

impl Scores {
    pub(super) fn find(graph: &Graph, output: ValueId, keep_softmax: bool) -> Result<Self, Error> {
        let name = graph.name(output);
        let fact = graph.fact(output).ok_or_else(|| {
            Error::Unsuitable(format!("the shape of output `{name}` depends on the data, or it is no tensor; choose another with --output"))
        })?;
        let (batch, classes) = class_axis(&fact.shape).filter(|_| fact.dtype.is_float()).ok_or_else(|| {
            let shape = show(&fact.shape);
            Error::Unsuitable(format!(
                "output `{name}` is {} {shape}, and class scores have to be float [N, classes] with at least 2 classes; choose another with --output",
                fact.dtype
            ))
        })?;
        let producers = graph.producers();
        let mut logits = output;
        let mut softmax_removed = false;
        while let Some(node) = producers[logits.index()].map(|position| &graph.nodes[position]) {
            let passes_on = node.is("Identity")
                || node.is("Flatten")
                || node.is("Reshape")
                || node.is("Squeeze");
            let softmax = node.is("Softmax") && !keep_softmax && softmax_over_classes(graph, node);
            let Some(below) = node.input(0).filter(|_| passes_on || softmax) else {
                break;
            };
            let same = graph
                .fact(below)
                .is_some_and(|fact| class_axis(&fact.shape) == Some((batch, classes)));
            if !same {
                break;
            }
            logits = below;
            if softmax {
                softmax_removed = true;
                break;
            }
        }
        if !softmax_removed {
            logits = output;
        }
        Ok(Scores {
            logits,
            batch,
            classes,
            softmax_removed,
        })
    }
}

fn softmax_over_classes(graph: &Graph, node: &crate::graph::Node) -> bool {
    let Some(shape) = node
        .input(0)
        .and_then(|id| graph.fact(id))
        .map(|fact| &fact.shape)
    else {
        return false;
    };
    let rank = i64::try_from(shape.len()).unwrap_or_default();
    let axis = node.int("axis").unwrap_or(-1);
    // The axis of the classes is the only one that is neither the batch nor of extent 1.
    let axis = if axis < 0 { axis + rank } else { axis };
    usize::try_from(axis)
        .ok()
        .and_then(|axis| shape.get(axis).filter(|_| axis > 0))
        .is_some_and(|dim| *dim != Dim::ONE)
}

/// Whether the scores of an output come out of a softmax, and so are probabilities.
#[must_use]
pub fn ends_in_softmax(graph: &Graph, output: ValueId) -> bool {
    Scores::find(graph, output, false).is_ok_and(|scores| scores.softmax_removed)
}

/// The batch and the number of classes of a shape [N, classes], possibly with further axes of extent 1.
#[must_use]
pub fn class_axis(shape: &Dims) -> Option<(Dim, i64)> {
    let (batch, rest) = shape.split_first()?;
    let mut wide = rest.iter().filter(|dim| **dim != Dim::ONE);
    let classes = wide.next()?.extent().filter(|&classes| classes >= 2)?;
    wide.next().is_none().then_some((*batch, classes))
}

/// A shape for a message.
#[must_use]
pub fn show(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(", "))
}

fn wanted_values(graph: &Graph, input: ValueId, names: &[String]) -> Result<Vec<ValueId>, Error> {
    if names.is_empty() {
        return Ok(vec![input]);
    }
    names.iter().map(|name| wanted_value(graph, name)).collect()
}

/// The float value of that name.
pub(super) fn wanted_value(graph: &Graph, name: &str) -> Result<ValueId, Error> {
    let id = graph.find(name).ok_or_else(|| {
        Error::Unsuitable(format!(
            "the model has no tensor `{name}`; `mohs inspect --tensors` lists them"
        ))
    })?;
    match graph.fact(id) {
        Some(fact) if fact.dtype.is_float() => Ok(id),
        Some(fact) => Err(Error::Unsuitable(format!(
            "tensor `{name}` is {}, and only floats have gradients",
            fact.dtype
        ))),
        None => Err(Error::Unsuitable(format!(
            "the shape of tensor `{name}` depends on the data"
        ))),
    }
}

const STRAIGHT_THROUGH_HINT: &str =
    "\n--straight-through passes gradients through rounding, signs and quantisation";

/// Whether `--straight-through` passes gradients through a node that has none otherwise.
pub(super) fn is_step(domain: &str, op_type: &str) -> bool {
    let found = grad::straight_through::find(domain, op_type).map(|rule| rule.kind);
    passes::is_quantized(domain, op_type)
        || (matches!(found, Some(grad::Kind::Vjp(_)))
            && matches!(
                grad::rules::find(domain, op_type).map(|rule| rule.kind),
                Some(grad::Kind::Zero(_))
            ))
}

/// Says which nodes that work on the data stop gradients, where `--straight-through` would pass them on.
pub(super) fn steps(graph: &Graph) -> Option<String> {
    let on_data = graph.depends_on_data();
    let is_on_data = |node: &&crate::graph::Node| {
        let mut inputs = node.inputs.iter().flatten();
        inputs.any(|id| on_data[id.index()])
    };
    // What is read back from integers was made integers by another node.
    let stops = |node: &&crate::graph::Node| {
        is_step(node.domain(), node.op_type()) && node.op_type() != "DequantizeLinear"
    };
    let mut nodes = graph
        .nodes
        .iter()
        .filter(is_on_data)
        .filter(stops)
        .peekable();
    let first = nodes.peek()?;
    let name = first.proto.name.as_deref().unwrap_or_default();
    let first = format!("{} (node `{name}`)", first.op_type());
    let which = match nodes.count() {
        1 => format!("{first} rounds or quantises"),
        several => format!("{several} nodes round or quantise, the first of them {first}"),
    };
    Some(format!(
        "{which}: gradients take no way through, but with --straight-through"
    ))
}

/// Names the operators with a declared zero that a value feeds, for the message that it has no gradient.
pub(super) fn zeros_behind(graph: &Graph, id: ValueId) -> String {
    let mut reached = vec![false; graph.value_count()];
    reached[id.index()] = true;
    let mut zeros = Vec::new();
    let mut zeros_are_steps = false;
    for node in &graph.nodes {
        if !graph.reads(node).iter().any(|input| reached[input.index()]) {
            continue;
        }
        match grad::rules::find(node.domain(), node.op_type()).map(|rule| rule.kind) {
            Some(grad::Kind::Zero(reason)) if !node.is("Shape") => {
                zeros_are_steps |= is_step(node.domain(), node.op_type());
                zeros.push(format!(
                    "\n  {} (node `{}`): {reason}",
                    node.op_type(),
                    node.proto.name.as_deref().unwrap_or_default()
                ));
            }
            Some(grad::Kind::Zero(_)) => {}
            _ => node
                .outputs
                .iter()
                .flatten()
                .for_each(|output| reached[output.index()] = true),
        }
    }
    if zeros.is_empty() {
        String::new()
    } else {
        let steps = zeros_are_steps.then_some(STRAIGHT_THROUGH_HINT);
        format!(
            "; in the way:{}{}",
            zeros.concat(),
            steps.unwrap_or_default()
        )
    }
}

/// Frees a name that the contract needs, where an inner value has it.
pub(super) fn make_room(graph: &mut Graph, name: &str) -> Result<(), Error> {
    let Some(id) = graph.find(name) else {
        return Ok(());
    };
    let outside = graph
        .inputs
        .iter()
        .chain(&graph.outputs)
        .any(|(port, _)| *port == id);
    if outside || !graph.rename(id, &format!("{name}.inner")) {
        return Err(Error::Unsuitable(format!(
            "the model has an input, an output or an outer value of a subgraph called `{name}`, which is a name of the gradient graph; rename it"
        )));
    }
    Ok(())
}

/// Declares a new input with exactly this name.
pub(crate) fn add_input(graph: &mut Graph, name: &str, dtype: DType, shape: &[Dim]) -> ValueId {
    let id = graph.add_named(name).unwrap_or_else(|| graph.fresh(name));
    graph.value_mut(id).fact = Some(Fact::new(dtype, shape.to_vec()));
    let info = declare(graph.name(id), dtype, shape);
    graph.inputs.push((id, info));
    id
}

/// Makes a value an output with exactly this name, through an `Identity` where it is named otherwise.
pub(crate) fn add_output(graph: &mut Graph, name: &str, value: ValueId) -> ValueId {
    let fact = graph.fact(value).cloned();
    let id = graph.add_named(name).unwrap_or_else(|| graph.fresh(name));
    let proto = crate::onnx::proto::NodeProto {
        op_type: Some("Identity".into()),
        name: Some(graph.fresh_name(&format!("output/{name}"))),
        ..Default::default()
    };
    graph.nodes.push(crate::graph::Node {
        proto,
        inputs: vec![Some(value)],
        outputs: vec![Some(id)],
    });
    let (dtype, shape) = fact.as_ref().map_or((DType::F32, Vec::new()), |fact| {
        (fact.dtype, fact.shape.clone())
    });
    let info = declare(graph.name(id), dtype, &shape);
    graph.value_mut(id).fact = fact;
    graph.outputs.push((id, info));
    id
}

/// The declaration of a tensor; extents that follow the batch are named `N`, or left open where they are not N itself.
pub(crate) fn declare(name: &str, dtype: DType, shape: &[Dim]) -> ValueInfoProto {
    let dim = |dim: &Dim| Dimension {
        value: match dim.extent() {
            Some(extent) => Some(DimensionValue::DimValue(extent)),
            None if *dim == Dim::BATCH => Some(DimensionValue::DimParam("N".into())),
            None => None,
        },
        denotation: None,
    };
    let shape = TensorShapeProto {
        dim: shape.iter().map(dim).collect(),
    };
    let tensor = TensorType {
        elem_type: Some(dtype.to_onnx()),
        shape: Some(shape),
    };
    let r#type = TypeProto {
        value: Some(TypeValue::TensorType(tensor)),
        denotation: None,
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(r#type),
        ..ValueInfoProto::default()
    }
}
