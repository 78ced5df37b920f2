//! New weights in the original file.

use super::untie::untie;
use crate::graph::Graph;
use crate::model::Error;
use crate::onnx::proto::{ModelProto, TensorProto};
use crate::onnx::{from_tensor, to_tensor};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// The model with other elements in the named tensors; nothing else changes: names, operators, declarations, operator sets and metadata stay.
///
/// A tensor is an initializer, the result of a `Constant` node, or one of those that the exporter had shared between nodes because their numbers were
/// the same ([`Parameter::name`](super::Parameter::name)).
/// Only where such numbers are the same no longer do they become initializers of their own.
///
/// # Errors
/// Where there is no such tensor, or the elements do not fit its type and shape.
pub fn export(model: &ModelProto, tensors: &[(String, Tensor)]) -> Result<ModelProto, Error> {
    let mut left: HashMap<&str, &Tensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut model = model.clone();
    replace(&mut model, &mut left)?;
    if left.is_empty() {
        return Ok(model);
    }
    // What the exporter had shared: as long as the numbers are still the same, it stays shared.
    let mut graph = Graph::from_model(model.clone());
    let shared: HashMap<String, String> = untie(&mut graph).into_iter().collect();
    let stored: HashMap<String, &TensorProto> = initializers(&model);
    let mut differs = false;
    for (name, tensor) in tensors
        .iter()
        .filter(|(name, _)| left.contains_key(name.as_str()))
    {
        let source = shared.get(name).and_then(|source| stored.get(source));
        let source = source.ok_or_else(|| {
            Error::Unsuitable(format!("the model has no tensor `{name}` to be replaced"))
        })?;
        differs |= to_tensor(source)? != *tensor;
    }
    if differs {
        model = graph.to_model();
        replace(&mut model, &mut left)?;
    }
    Ok(model)
}

fn initializers(model: &ModelProto) -> HashMap<String, &TensorProto> {
    let graph = model.graph.iter();
    graph
        .flat_map(|graph| &graph.initializer)
        .map(|tensor| (tensor.name.clone().unwrap_or_default(), tensor))
        .collect()
}

/// Puts the new elements into initializers and `Constant` nodes, and takes off the list what was found.
fn replace(model: &mut ModelProto, left: &mut HashMap<&str, &Tensor>) -> Result<(), Error> {
    let Some(graph) = &mut model.graph else {
        return Ok(());
    };
    for proto in &mut graph.initializer {
        let name = proto.name.clone().unwrap_or_default();
        if let Some(tensor) = left.remove(name.as_str()) {
            fill(proto, &name, tensor)?;
        }
    }
    for node in &mut graph.node {
        let is_constant = node.op_type.as_deref() == Some("Constant");
        let Some(name) = node.output.first().filter(|_| is_constant).cloned() else {
            continue;
        };
        let mut attributes = node.attribute.iter_mut();
        let value = attributes.find(|attribute| attribute.name.as_deref() == Some("value"));
        if let Some(proto) = value.and_then(|attribute| attribute.t.as_mut())
            && let Some(tensor) = left.remove(name.as_str())
        {
            fill(proto, &name, tensor)?;
        }
    }
    Ok(())
}

/// Replaces the elements alone.
fn fill(proto: &mut TensorProto, name: &str, tensor: &Tensor) -> Result<(), Error> {
    let new = from_tensor(name, tensor);
    if new.dims != proto.dims || new.data_type != proto.data_type {
        return Err(Error::Unsuitable(format!(
            "the new elements of `{name}` are {} {:?}, and the tensor is of another type or shape",
            tensor.dtype(),
            tensor.shape()
        )));
    }
    proto.raw_data = new.raw_data;
    proto.float_data.clear();
    proto.int32_data.clear();
    proto.double_data.clear();
    Ok(())
}
