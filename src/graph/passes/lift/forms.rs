//! What becomes of each operator whose definition changed between opset 7 and 18.

use super::{LiftError, Scope, op_type, resampling};
use crate::graph::{Attribute, Attributes};
use crate::onnx::from_tensor;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use crate::tensor::{DType, Tensor};
use ndarray::{Array1, arr0};

/// Adds the node in the form of opset 18.
pub(super) fn lift_form(scope: &mut Scope<'_>, node: NodeProto) -> Result<(), LiftError> {
    let opset = scope.opset;
    match op_type(&node) {
        "Constant" => constant(scope, node),
        "Softmax" | "LogSoftmax" | "Hardmax" if opset < 13 => softmax(scope, node),
        "Squeeze" | "Unsqueeze" | "ReduceSum" if opset < 13 => {
            attributes_to_inputs(scope, node, &["axes"])
        }
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSumSquare"
            if opset < 18 =>
        {
            attributes_to_inputs(scope, node, &["axes"]);
        }
        "Slice" if opset < 10 => attributes_to_inputs(scope, node, &["starts", "ends", "axes"]),
        "Split" if opset < 18 => split(scope, node),
        "Clip" if opset < 11 => clip(scope, node),
        "Pad" if opset < 11 => pad(scope, node),
        "TopK" if opset < 10 => return top_k(scope, node),
        "Upsample" if opset < 10 => return resampling::upsample(scope, node),
        "Resize" if opset < 11 => resampling::resize_10(scope, node),
        "Resize" if opset < 18 => resampling::resize_11(scope, node),
        "Dropout" if opset < 12 => dropout(scope, node),
        "BatchNormalization" if opset < 14 => return batch_normalization(scope, node),
        "Scatter" if opset < 11 => renamed(scope, node, "ScatterElements"),
        "RoiAlign" if opset < 16 => roi_align(scope, node),
        "Affine" if opset < 10 => affine(scope, node),
        "ImageScaler" if opset < 10 => image_scaler(scope, node),
        "Scan" if opset < 9 => {
            return Err(scope.refuse(
                &node,
                "it scans with a batch axis, which later versions do not have",
            ));
        }
        "MeanVarianceNormalization" if opset < 9 => {
            return Err(scope.refuse(
                &node,
                "it was experimental then, and is defined otherwise since",
            ));
        }
        _ => scope.nodes.push(node),
    }
    Ok(())
}

/// A node's attribute of that name, which it has no longer.
pub(super) fn take(node: &mut NodeProto, name: &str) -> Option<AttributeProto> {
    let position = node
        .attribute
        .iter()
        .position(|attribute| attribute.name.as_deref() == Some(name))?;
    Some(node.attribute.remove(position))
}

/// Constants of numbers become initializers, except in a function, which has none, and where they are results of the graph.
fn constant(scope: &mut Scope<'_>, mut node: NodeProto) {
    let name = node.output.first().cloned().unwrap_or_default();
    let tensor = constant_tensor(&node);
    if let Some(tensor) = &tensor {
        scope.known.add_tensor(&name, tensor);
    }
    match tensor {
        Some(mut tensor) if !scope.in_function && !scope.outputs.contains(&name) => {
            tensor.name = Some(name);
            scope.initializers.push(tensor);
        }
        _ => {
            node.domain = None;
            scope.nodes.push(node);
        }
    }
}

/// The tensor of a `Constant`; `None` for strings, sparse tensors and parameters of a function.
pub(in crate::graph::passes) fn constant_tensor(node: &NodeProto) -> Option<TensorProto> {
    let attribute = node.attribute.first()?;
    if attribute.ref_attr_name.is_some() {
        return None;
    }
    let tensor = match attribute.name.as_deref()? {
        "value" => {
            return attribute
                .t
                .clone()
                .filter(|tensor| tensor.data_type.and_then(DType::from_onnx).is_some());
        }
        "value_int" => Tensor::I64(arr0(attribute.i?).into_dyn()),
        "value_ints" => Tensor::I64(Array1::from(attribute.ints.clone()).into_dyn()),
        "value_float" => Tensor::F32(arr0(attribute.f?).into_dyn()),
        "value_floats" => Tensor::F32(Array1::from(attribute.floats.clone()).into_dyn()),
        _ => return None,
    };
    Some(from_tensor("", &tensor))
}

fn renamed(scope: &mut Scope<'_>, mut node: NodeProto, op_type: &str) {
    node.op_type = Some(op_type.into());
    scope.nodes.push(node);
}

/// Lists of integers that were attributes become operands behind the first one, in this order; an empty list counts as none.
fn attributes_to_inputs(scope: &mut Scope<'_>, mut node: NodeProto, attributes: &[&str]) {
    node.input.truncate(1);
    for attribute in attributes {
        let given = node.attribute(attribute);
        let given =
            given.is_some_and(|proto| proto.ref_attr_name.is_some() || !proto.ints.is_empty());
        let value = if given {
            scope.ints_of(&node, attribute)
        } else {
            None
        };
        take(&mut node, attribute);
        node.input.push(value.unwrap_or_default());
    }
    while node.input.last().is_some_and(String::is_empty) {
        node.input.pop();
    }
    scope.nodes.push(node);
}

/// Before opset 13 the axes from `axis` (1 where it is not given) on were one, and those in front of it another.
fn softmax(scope: &mut Scope<'_>, mut node: NodeProto) {
    let axis = take(&mut node, "axis").unwrap_or_else(|| Attribute::Int(1).to_proto("axis"));
    let (Some(x), Some(y)) = (node.input.first().cloned(), node.output.first().cloned()) else {
        scope.nodes.push(node);
        return;
    };
    // The result has the shape of the operand: whichever is declared.
    let shape = scope.known.shape(&x).or_else(|| scope.known.shape(&y));
    let one_axis = axis.ref_attr_name.is_none()
        && match (axis.i.unwrap_or_default(), shape) {
            (-1, _) => true,
            (axis, Some(shape)) => {
                let front = i64::try_from(shape.len())
                    .map_or(axis, |rank| if axis < 0 { axis + rank } else { axis });
                let behind = usize::try_from(front)
                    .ok()
                    .and_then(|front| shape.get(front + 1..));
                behind.is_some_and(|behind| behind.iter().all(|&extent| extent == Some(1)))
            }
            _ => false,
        };
    if one_axis {
        node.attribute.push(axis);
        scope.nodes.push(node);
        return;
    }
    let flat = scope.add(&node, "Flatten", &[&x], vec![axis]);
    let soft = scope
        .names
        .fresh(&format!("lift/{}:0", super::label(&node)));
    let extents = scope.add(&node, "Shape", &[&x], Vec::new());
    let allow_zero = Attribute::Int(1).to_proto("allowzero");
    let last = Attribute::Int(-1).to_proto("axis");
    let inner = NodeProto {
        input: vec![flat],
        output: vec![soft.clone()],
        attribute: vec![last],
        ..node.clone()
    };
    scope.nodes.push(inner);
    scope.add_to(&node, "Reshape", &[&soft, &extents], vec![allow_zero], &y);
}

/// The sizes are an operand since opset 13; where there are none, opset 18 asks for the number of parts.
fn split(scope: &mut Scope<'_>, mut node: NodeProto) {
    if scope.opset < 13 {
        let given = node.attribute("split").is_some();
        let sizes = if given {
            scope.ints_of(&node, "split")
        } else {
            None
        };
        take(&mut node, "split");
        node.input.truncate(1);
        node.input.extend(sizes);
    }
    if node.input.get(1).is_none_or(String::is_empty) {
        let parts = i64::try_from(node.output.len()).unwrap_or(i64::MAX);
        node.attribute
            .push(Attribute::Int(parts).to_proto("num_outputs"));
    }
    scope.nodes.push(node);
}

/// The bounds are operands since opset 11. One that is not given was the largest finite number, and is none.
fn clip(scope: &mut Scope<'_>, mut node: NodeProto) {
    let bounds = ["min", "max"].map(|bound| scope.float_of(&node, bound).unwrap_or_default());
    for bound in ["min", "max"] {
        take(&mut node, bound);
    }
    node.input.truncate(1);
    node.input.extend(bounds);
    while node.input.last().is_some_and(String::is_empty) {
        node.input.pop();
    }
    scope.nodes.push(node);
}

fn pad(scope: &mut Scope<'_>, mut node: NodeProto) {
    let pads = scope.ints_of(&node, "pads").unwrap_or_default();
    let zero = node.float("value").is_some_and(|value| value == 0.0);
    let value = if zero {
        None
    } else {
        scope.float_of(&node, "value")
    };
    for attribute in ["pads", "value"] {
        take(&mut node, attribute);
    }
    node.input.truncate(1);
    node.input.push(pads);
    node.input.extend(value);
    scope.nodes.push(node);
}

fn top_k(scope: &mut Scope<'_>, mut node: NodeProto) -> Result<(), LiftError> {
    let Some(k) = take(&mut node, "k").and_then(|attribute| attribute.i) else {
        return Err(scope.refuse(&node, "its k is no number"));
    };
    let k = scope.ints(&node, "k", &[k]);
    node.input.truncate(1);
    node.input.push(k);
    scope.nodes.push(node);
    Ok(())
}

/// The ratio is an operand since opset 12. Before, a node never dropped anything; since, it does not unless `training_mode` says so.
fn dropout(scope: &mut Scope<'_>, mut node: NodeProto) {
    let ratio = take(&mut node, "ratio")
        .and_then(|ratio| ratio.f)
        .unwrap_or(0.5);
    let ratio = scope.constant(&node, "ratio", &Tensor::F32(arr0(ratio).into_dyn()));
    node.input.truncate(1);
    node.input.push(ratio);
    if node
        .output
        .get(1)
        .is_some_and(|mask| !scope.names.read.contains(mask))
    {
        node.output.truncate(1);
    }
    // The mask had the type of the data before opset 10.
    let mask = node.output.get(1).filter(|_| scope.opset < 10).cloned();
    let (Some(mask), Some(x)) = (mask, node.input.first().cloned()) else {
        scope.nodes.push(node);
        return;
    };
    let booleans = scope
        .names
        .fresh(&format!("lift/{}:1", super::label(&node)));
    node.output.truncate(1);
    node.output.push(booleans.clone());
    scope.nodes.push(node.clone());
    scope.add_to(&node, "CastLike", &[&booleans, &x], Vec::new(), &mask);
}

/// Until opset 13 the further results say that the node normalizes with the statistics of the batch; since, `training_mode` does.
/// With `spatial` = 0 (until opset 8) there is a mean and a variance for each position too.
fn batch_normalization(scope: &mut Scope<'_>, mut node: NodeProto) -> Result<(), LiftError> {
    let spatial = take(&mut node, "spatial").is_none_or(|spatial| spatial.i != Some(0));
    let further = node.output.iter().skip(1).any(|output| !output.is_empty());
    if spatial {
        if further {
            let mut saved = node.output.iter().skip(3);
            if saved.any(|output| scope.names.read.contains(output) && !output.is_empty()) {
                return Err(scope.refuse(
                    &node,
                    "later versions do not have its results saved_mean and saved_var",
                ));
            }
            node.output.truncate(3);
            node.attribute
                .push(Attribute::Int(1).to_proto("training_mode"));
        } else {
            node.output.truncate(1);
        }
        scope.nodes.push(node);
        return Ok(());
    }
    let [x, scale, bias, mean, variance] = node.input.as_slice() else {
        return Err(scope.refuse(&node, "it does not have five operands"));
    };
    if further {
        return Err(scope.refuse(
            &node,
            "it normalizes each position (spatial = 0) with the statistics of the batch",
        ));
    }
    let epsilon = scope.float(&node, "epsilon", node.float("epsilon").unwrap_or(1e-5), x);
    let centred = scope.add(&node, "Sub", &[x, mean], Vec::new());
    let variance = scope.add(&node, "Add", &[variance, &epsilon], Vec::new());
    let deviation = scope.add(&node, "Sqrt", &[&variance], Vec::new());
    let normal = scope.add(&node, "Div", &[&centred, &deviation], Vec::new());
    let scaled = scope.add(&node, "Mul", &[&normal, scale], Vec::new());
    let y = node.output.first().cloned().unwrap_or_default();
    scope.add_to(&node, "Add", &[&scaled, bias], Vec::new(), &y);
    Ok(())
}

/// The default of `coordinate_transformation_mode` is another one than what was done before there was that attribute.
fn roi_align(scope: &mut Scope<'_>, mut node: NodeProto) {
    let mode = Attribute::String("output_half_pixel").to_proto("coordinate_transformation_mode");
    node.attribute.push(mode);
    scope.nodes.push(node);
}

/// y = alpha·x + beta; experimental, and removed with opset 10.
fn affine(scope: &mut Scope<'_>, node: NodeProto) {
    let [x, y] =
        [&node.input, &node.output].map(|names| names.first().cloned().unwrap_or_default());
    let alpha = scope.float(&node, "alpha", node.float("alpha").unwrap_or(1.0), &x);
    let beta = scope.float(&node, "beta", node.float("beta").unwrap_or(0.0), &x);
    let scaled = scope.add(&node, "Mul", &[&x, &alpha], Vec::new());
    scope.add_to(&node, "Add", &[&scaled, &beta], Vec::new(), &y);
}

/// y = scale·x + bias of the channel, for images [n, c, h, w]; experimental, and removed with opset 10.
fn image_scaler(scope: &mut Scope<'_>, node: NodeProto) {
    let [x, y] =
        [&node.input, &node.output].map(|names| names.first().cloned().unwrap_or_default());
    let scale = scope.float(&node, "scale", node.float("scale").unwrap_or(1.0), &x);
    let bias = node.floats("bias").unwrap_or_default().to_vec();
    let channels = bias.len();
    let bias = Array1::from(bias)
        .into_shape_with_order(vec![channels, 1, 1])
        .unwrap_or_default();
    let bias = scope.constant(&node, "bias", &Tensor::F32(bias));
    let bias = scope.add(&node, "CastLike", &[&bias, &x], Vec::new());
    let scaled = scope.add(&node, "Mul", &[&x, &scale], Vec::new());
    scope.add_to(&node, "Add", &[&scaled, &bias], Vec::new(), &y);
}
