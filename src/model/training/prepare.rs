//! From the file to a graph whose weights are inputs.
//!
//! ONNX Runtime simplifies the graph as it does for attacks, but weights and statistics are inputs then, so nothing of them is folded: what the
//! gradient is taken by is what the file holds.

use super::parameters::{self, Found, Slot};
use super::untie::{is_float, untie};
use super::{Dropped, Parameter, Statistic, Trainable, TrainableOptions, pattern};
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::model::{Error, Model, ModelOptions, gradient, open};
use crate::onnx::proto::NodeProto;
use crate::onnx::to_tensor;
use crate::tensor::{DType, Tensor};
use std::collections::HashSet;

pub(super) fn trainable(model: &Model, options: &TrainableOptions) -> Result<Trainable, Error> {
    if model.is_cut() {
        return Err(Error::Internal(
            "a model that is cut at an inner tensor was to be trained".into(),
        ));
    }
    let mut base = model.shipped.clone();
    let untied = untie(&mut base);
    hoist_constants(&mut base);
    let in_file: HashSet<String> = base
        .initializers
        .iter()
        .map(|id| base.name(*id).to_owned())
        .filter(|name| !name.starts_with("mohs/"))
        .collect();
    let mut notes = Vec::new();
    // Everything that could be a weight is an input at first; with the functions inlined, its place tells what it is.
    let (graph, output, _) = work_out(model, &base, options, &in_file, &mut notes)?;
    let found = parameters::find(&graph, output);
    let (found, frozen) = freeze(&graph, found, &options.freeze)?;
    let order: Vec<String> = base
        .initializers
        .iter()
        .map(|id| base.name(*id).to_owned())
        .collect();
    let (parameters, statistics) = describe(&graph, &found, &order)?;
    if parameters.is_empty() {
        return Err(nothing_to_train(&graph, &frozen));
    }
    let kept: HashSet<String> = parameters
        .iter()
        .map(|parameter| parameter.name.clone())
        .chain(statistics.iter().map(|statistic| statistic.name.clone()))
        .collect();
    notes.clear();
    let (graph, output, dropped) = work_out(model, &base, options, &kept, &mut notes)?;
    notes.extend(remarks(&graph, untied.len()));
    let input = graph
        .find(model.input())
        .ok_or_else(|| Error::Internal("the input was lost".into()))?;
    Ok(Trainable {
        parameters,
        frozen,
        statistics,
        notes,
        dropped,
        graph,
        input,
        output,
        sha256: model.sha256.clone(),
        straight_through: model.straight_through,
    })
}

/// Lifts, simplifies and runs the graph with the named initializers as inputs.
fn work_out(
    model: &Model,
    base: &Graph,
    options: &TrainableOptions,
    inputs: &HashSet<String>,
    notes: &mut Vec<String>,
) -> Result<(Graph, ValueId, Vec<Dropped>), Error> {
    let settings = ModelOptions {
        keep: options.keep.clone(),
        ..model.options.clone()
    };
    let mut dropped = Vec::new();
    let prepare = |graph: &mut Graph| {
        let version = graph.model.ir_version.unwrap_or_default();
        // From version 4 on, an initializer that is an input as well is no constant.
        graph.model.ir_version = Some(version.max(4));
        promote(graph, inputs);
        let dtype = Some(model.input_dtype()).filter(|dtype| dtype.is_float());
        keep_dropout(graph, dtype.unwrap_or(DType::F32), &mut dropped)
    };
    let (graph, _) = open::work_out(
        base.clone(),
        model.batch,
        &model.ports,
        &settings,
        notes,
        prepare,
    )?;
    let output = graph
        .find(model.output())
        .ok_or_else(|| Error::Internal("the output was lost".into()))?;
    Ok((graph, output, dropped))
}

/// Makes initializers inputs as well; all others are constants.
fn promote(graph: &mut Graph, names: &HashSet<String>) {
    let overridable: HashSet<ValueId> = graph.initializers.iter().copied().collect();
    graph.inputs.retain(|(id, _)| !overridable.contains(id));
    let chosen: Vec<ValueId> = graph
        .initializers
        .iter()
        .copied()
        .filter(|id| names.contains(graph.name(*id)) && is_float(graph, *id))
        .collect();
    for id in chosen {
        let Some(tensor) = graph.value(id).initializer.as_ref() else {
            continue;
        };
        let dtype = tensor.data_type.and_then(DType::from_onnx);
        let shape: Vec<_> = tensor
            .dims
            .iter()
            .map(|&extent| crate::graph::Dim::fixed(extent))
            .collect();
        let info = gradient::declare(graph.name(id), dtype.unwrap_or(DType::F32), &shape);
        graph.inputs.push((id, info));
    }
}

/// Puts a multiplication by an input in the place of each dropout, which would be simplified away; the input is 1 until masks are made of it.
fn keep_dropout(graph: &mut Graph, dtype: DType, kept: &mut Vec<Dropped>) -> Result<(), Error> {
    let one = match dtype {
        DType::F64 => Tensor::F64(ndarray::arr0(1.0).into_dyn()),
        DType::F16 => Tensor::F16(ndarray::arr0(half::f16::ONE).into_dyn()),
        DType::BF16 => Tensor::BF16(ndarray::arr0(half::bf16::ONE).into_dyn()),
        _ => Tensor::F32(ndarray::arr0(1.0).into_dyn()),
    };
    let mut read: HashSet<ValueId> = graph
        .nodes
        .iter()
        .flat_map(|node| graph.reads(node))
        .collect();
    read.extend(graph.outputs.iter().map(|(id, _)| *id));
    let places: Vec<usize> = (0..graph.nodes.len())
        .filter(|place| graph.nodes[*place].is("Dropout"))
        .collect();
    for place in places {
        let node = graph.nodes[place].clone();
        if node.output(1).is_some_and(|mask| read.contains(&mask)) {
            return Err(Error::Unsuitable(format!(
                "the mask of dropout node `{}` is used in the model; export it in evaluation mode",
                node.proto.name.as_deref().unwrap_or_default()
            )));
        }
        let name = node.proto.name.clone().unwrap_or_default();
        let factor = graph.add_initializer(&format!("mohs.dropout.{name}"), &one);
        let input = graph.name(factor).to_owned();
        graph
            .inputs
            .push((factor, gradient::declare(&input, dtype, &[])));
        kept.push(Dropped {
            factor: input,
            ratio: ratio(graph, &node)?,
            node: name,
        });
        graph.nodes[place] = Node {
            proto: NodeProto {
                op_type: Some("Mul".into()),
                name: node.proto.name.clone(),
                ..NodeProto::default()
            },
            inputs: vec![node.input(0), Some(factor)],
            outputs: vec![node.output(0)],
        };
    }
    Ok(())
}

/// The part that a dropout node drops: 0.5 where it does not say.
fn ratio(graph: &Graph, node: &Node) -> Result<f64, Error> {
    let Some(id) = node.input(1) else {
        return Ok(0.5);
    };
    let made = graph
        .nodes
        .iter()
        .find(|node| node.output(0) == Some(id) && node.is("Constant"));
    let held = made.and_then(|node| to_tensor(node.attribute("value")?.t.as_ref()?).ok());
    // An initializer counts, even while every one of them is an input, to find the weights.
    let own = || to_tensor(graph.value(id).initializer.as_ref()?).ok();
    let tensor = held.or_else(own).or_else(|| graph.constant(id));
    let ratio = tensor.and_then(|tensor| tensor.to_f64().first().copied());
    ratio
        .filter(|ratio| (0.0..1.0).contains(ratio))
        .ok_or_else(|| {
            Error::Unsuitable(format!(
                "dropout node `{}` has no constant ratio in [0, 1), so it cannot be trained with",
                node.proto.name.as_deref().unwrap_or_default()
            ))
        })
}

/// Turns the float tensors that `Constant` nodes hold into initializers.
pub(super) fn hoist_constants(graph: &mut Graph) {
    let outside: HashSet<ValueId> = graph.outputs.iter().map(|(id, _)| *id).collect();
    for node in std::mem::take(&mut graph.nodes) {
        let tensor = node
            .attribute("value")
            .filter(|_| node.is("Constant"))
            .and_then(|attribute| attribute.t.clone());
        let is_float = |tensor: &crate::onnx::proto::TensorProto| {
            let dtype = tensor.data_type.and_then(DType::from_onnx);
            dtype.is_some_and(DType::is_float) && tensor.dims.iter().product::<i64>() > 1
        };
        match node.output(0).zip(tensor) {
            Some((id, tensor)) if is_float(&tensor) && !outside.contains(&id) => {
                let name = Some(graph.name(id).to_owned());
                let value = graph.value_mut(id);
                value.initializer = Some(crate::onnx::proto::TensorProto { name, ..tensor });
                graph.initializers.push(id);
            }
            _ => graph.nodes.push(node),
        }
    }
}

/// Takes away the parameters that a pattern matches; their names come second.
fn freeze(
    graph: &Graph,
    found: Vec<Found>,
    patterns: &[String],
) -> Result<(Vec<Found>, Vec<String>), Error> {
    let name = |found: &Found| graph.name(found.id).to_owned();
    let is_parameter = |found: &Found| found.slot.kind().is_some();
    for text in patterns {
        let mut names = found.iter().filter(|found| is_parameter(found)).map(name);
        if !names.any(|name| pattern::matches(text, &name)) {
            let all: Vec<String> = found
                .iter()
                .filter(|found| is_parameter(found))
                .map(name)
                .collect();
            let shown = all.iter().take(20).map(|name| format!("\n  {name}"));
            let more = all.len().checked_sub(20).filter(|more| *more > 0);
            let more = more.map_or_else(String::new, |more| format!("\n  and {more} more"));
            return Err(Error::Unsuitable(format!(
                "--freeze {text} matches no parameter; `*` stands for any characters, and the parameters are{}{more}",
                shown.collect::<String>()
            )));
        }
    }
    let is_frozen = |found: &Found| {
        is_parameter(found)
            && patterns
                .iter()
                .any(|text| pattern::matches(text, &name(found)))
    };
    let (frozen, left): (Vec<Found>, Vec<Found>) = found.into_iter().partition(is_frozen);
    Ok((left, frozen.iter().map(name).collect()))
}

/// What was found, with its elements; parameters in the file's order.
fn describe(
    graph: &Graph,
    found: &[Found],
    order: &[String],
) -> Result<(Vec<Parameter>, Vec<Statistic>), Error> {
    let (mut parameters, mut statistics) = (Vec::new(), Vec::new());
    for &Found { id, slot, fan_in } in found {
        let name = graph.name(id).to_owned();
        let tensor = graph.value(id).initializer.as_ref();
        let tensor = tensor.ok_or_else(|| Error::Internal(format!("`{name}` has no elements")))?;
        let initial = to_tensor(tensor)?;
        let (dtype, shape) = (initial.dtype(), initial.shape().to_vec());
        match slot.kind() {
            Some(kind) => parameters.push(Parameter {
                name,
                kind,
                dtype,
                shape,
                fan_in,
                initial,
            }),
            None => statistics.push(Statistic {
                name,
                channels: shape.iter().product(),
                dtype,
                initial,
                is_variance: slot == Slot::Variance,
            }),
        }
    }
    let place = |name: &str| order.iter().position(|other| other == name);
    parameters.sort_by_key(|parameter: &Parameter| place(&parameter.name));
    Ok((parameters, statistics))
}

fn nothing_to_train(graph: &Graph, frozen: &[String]) -> Error {
    let quantized = quantized_weights(graph);
    Error::Unsuitable(if !frozen.is_empty() {
        format!(
            "every parameter is frozen ({} of them): leave one to train",
            frozen.len()
        )
    } else if quantized > 0 {
        format!(
            "the model has no trainable parameters: {quantized} weights are stored as integers; train the float model, and quantise it again"
        )
    } else {
        "the model has no trainable parameters: no float tensor in it is the weight of a layer between the input and the scores"
            .into()
    })
}

/// How many integer tensors are dequantised in the graph, or multiplied as they are.
fn quantized_weights(graph: &Graph) -> usize {
    let reads = graph.nodes.iter().filter(|node| {
        crate::graph::passes::is_quantized(node.domain(), node.op_type())
            && !node.is("QuantizeLinear")
    });
    let stored = |id: &ValueId| {
        let tensor = graph.value(*id).initializer.as_ref();
        tensor.is_some_and(|tensor| {
            let dtype = tensor.data_type.and_then(DType::from_onnx);
            dtype.is_some_and(|dtype| !dtype.is_float()) && tensor.dims.iter().product::<i64>() > 1
        })
    };
    let weights: HashSet<ValueId> = reads
        .flat_map(|node| node.inputs.iter().flatten().copied())
        .filter(stored)
        .collect();
    weights.len()
}

/// What a user should know of how the model is trained.
fn remarks(graph: &Graph, untied: usize) -> Vec<String> {
    let has = |op_type: &str| graph.nodes.iter().any(|node| node.is(op_type));
    let mut remarks = Vec::new();
    if has("Conv")
        && !graph
            .nodes
            .iter()
            .any(|node| node.op_type().ends_with("Normalization"))
    {
        remarks.push(
            "the model has no normalisation nodes: where the exporter folded BatchNormalization into the convolutions, its scales and shifts are trained as part of these"
                .into(),
        );
    }
    match untied {
        0 => {}
        1 => {
            remarks.push("1 tensor that shares the numbers of another is trained on its own".into())
        }
        count => remarks.push(format!(
            "{count} tensors that share the numbers of others are trained on their own"
        )),
    }
    match quantized_weights(graph) {
        0 => {}
        count => remarks.push(format!(
            "{count} weights are stored as integers, and are not trained"
        )),
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::from_tensor;
    use crate::onnx::proto::ModelProto;

    #[test]
    fn constants_of_several_floats_become_initializers() {
        let mut graph = Graph::from_model(ModelProto::default());
        for (name, elements) in [("w", vec![1.0f32, 2.0]), ("epsilon", vec![1e-5])] {
            let tensor = Tensor::new(&[elements.len()], elements).unwrap();
            let attribute = crate::graph::Attribute::Tensor(Box::new(from_tensor("", &tensor)));
            let id = graph.fresh(name);
            graph.nodes.push(Node {
                proto: NodeProto {
                    op_type: Some("Constant".into()),
                    attribute: vec![attribute.to_proto("value")],
                    ..NodeProto::default()
                },
                inputs: Vec::new(),
                outputs: vec![Some(id)],
            });
        }
        hoist_constants(&mut graph);
        let names: Vec<&str> = graph
            .initializers
            .iter()
            .map(|id| graph.name(*id))
            .collect();
        assert_eq!(names, ["w"]);
        assert_eq!(graph.nodes.len(), 1);
        let stored = graph.value(graph.find("w").unwrap()).initializer.as_ref();
        assert_eq!(stored.unwrap().name.as_deref(), Some("w"));
    }
}
