//! bfloat16 as single precision, for devices that have no kernels of it.

use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, TypeValue,
    ValueInfoProto,
};
use crate::onnx::{self, Error};
use crate::tensor::{DType, Tensor};

/// The attributes that hold an element type.
const TYPE_ATTRIBUTES: &[&str] = &[
    "dtype",
    "output_dtype",
    "softmax_precision",
    "stash_type",
    "to",
];

/// Computes in single precision what the model computes in bfloat16; `false` where it computes nothing in it.
///
/// Weights keep their values, as every bfloat16 number is a float32 number; results are not rounded any more, so that they differ from those of a
/// device with bfloat16 in the third digit. Inputs keep their type, and are converted where they are read.
///
/// # Errors
/// Where the elements of a tensor cannot be read.
pub fn widen(model: &mut ModelProto) -> Result<bool, Error> {
    let mut found = false;
    for function in &mut model.functions {
        widen_nodes(&mut function.node, &mut found)?;
    }
    let Some(graph) = &mut model.graph else {
        return Ok(found);
    };
    let inputs: Vec<String> = graph
        .input
        .iter()
        .filter(|info| is_brain(info.r#type.as_ref()))
        .filter_map(|info| info.name.clone())
        .filter(|name| {
            let weights = &graph.initializer;
            !weights
                .iter()
                .any(|weight| weight.name.as_ref() == Some(name))
        })
        .collect();
    widen_graph(graph, &inputs, &mut found)?;
    for name in inputs {
        found = true;
        let wide = format!("{name}/float32");
        rename(&mut graph.node, &name, &wide);
        graph.node.insert(0, cast(&name, &wide));
    }
    Ok(found)
}

fn is_brain(kind: Option<&TypeProto>) -> bool {
    let value = kind.and_then(|kind| kind.value.as_ref());
    matches!(value, Some(TypeValue::TensorType(tensor)) if tensor.elem_type == Some(DType::BF16.to_onnx()))
}

fn widen_graph(graph: &mut GraphProto, kept: &[String], found: &mut bool) -> Result<(), Error> {
    for weight in &mut graph.initializer {
        widen_tensor(weight, found)?;
    }
    let declared = graph
        .input
        .iter_mut()
        .filter(|info| !info.name.as_ref().is_some_and(|name| kept.contains(name)))
        .chain(&mut graph.output)
        .chain(&mut graph.value_info);
    declared.for_each(|info| widen_info(info, found));
    widen_nodes(&mut graph.node, found)
}

fn widen_info(info: &mut ValueInfoProto, found: &mut bool) {
    if !is_brain(info.r#type.as_ref()) {
        return;
    }
    *found = true;
    if let Some(TypeValue::TensorType(tensor)) =
        info.r#type.as_mut().and_then(|kind| kind.value.as_mut())
    {
        tensor.elem_type = Some(DType::F32.to_onnx());
    }
}

fn widen_nodes(nodes: &mut [NodeProto], found: &mut bool) -> Result<(), Error> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        widen_attribute(attribute, found)?;
    }
    Ok(())
}

fn widen_attribute(attribute: &mut AttributeProto, found: &mut bool) -> Result<(), Error> {
    let names_type = attribute
        .name
        .as_deref()
        .is_some_and(|name| TYPE_ATTRIBUTES.contains(&name));
    if names_type && attribute.i == Some(DType::BF16.to_onnx().into()) {
        *found = true;
        attribute.i = Some(DType::F32.to_onnx().into());
    }
    for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
        widen_tensor(tensor, found)?;
    }
    for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
        widen_graph(graph, &[], found)?;
    }
    Ok(())
}

fn widen_tensor(proto: &mut TensorProto, found: &mut bool) -> Result<(), Error> {
    if proto.data_type != Some(DType::BF16.to_onnx()) {
        return Ok(());
    }
    *found = true;
    if let Tensor::BF16(elements) = onnx::to_tensor(proto)? {
        let wide = Tensor::F32(elements.mapv(half::bf16::to_f32));
        let name = proto.name.take();
        *proto = onnx::from_tensor(name.as_deref().unwrap_or_default(), &wide);
    }
    Ok(())
}

/// Reads `to` wherever `from` was read, in subgraphs too.
fn rename(nodes: &mut [NodeProto], from: &str, to: &str) {
    for node in nodes {
        for input in node.input.iter_mut().filter(|input| *input == from) {
            to.clone_into(input);
        }
        for attribute in &mut node.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                rename(&mut graph.node, from, to);
                let results = graph.output.iter_mut();
                for result in results.filter(|result| result.name.as_deref() == Some(from)) {
                    result.name = Some(to.to_owned());
                }
            }
        }
    }
}

fn cast(from: &str, to: &str) -> NodeProto {
    use crate::graph::Attribute;
    NodeProto {
        op_type: Some("Cast".into()),
        name: Some(format!("mohs/widen/{from}")),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        attribute: vec![Attribute::Int(DType::F32.to_onnx().into()).to_proto("to")],
        ..NodeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::TensorType;
    use half::bf16;

    fn info(name: &str, dtype: DType) -> ValueInfoProto {
        let tensor = TensorType {
            elem_type: Some(dtype.to_onnx()),
            shape: None,
        };
        ValueInfoProto {
            name: Some(name.into()),
            r#type: Some(TypeProto {
                value: Some(TypeValue::TensorType(tensor)),
                denotation: None,
            }),
            ..ValueInfoProto::default()
        }
    }

    fn node(inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: Some("Add".into()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    #[test]
    fn weights_keep_their_values_and_inputs_their_type() {
        let weights = Tensor::new(&[2], [1.5, -0.25].map(bf16::from_f32).to_vec()).unwrap();
        let mut model = ModelProto {
            graph: Some(GraphProto {
                input: vec![info("x", DType::BF16)],
                output: vec![info("y", DType::BF16)],
                initializer: vec![onnx::from_tensor("w", &weights)],
                node: vec![node(&["x", "w"], "y")],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        assert!(widen(&mut model).unwrap());
        let graph = model.graph.unwrap();
        assert!(is_brain(graph.input[0].r#type.as_ref()));
        assert!(!is_brain(graph.output[0].r#type.as_ref()));
        let wide = onnx::to_tensor(&graph.initializer[0]).unwrap();
        assert_eq!(wide, Tensor::new(&[2], vec![1.5_f32, -0.25]).unwrap());
        assert_eq!(graph.node[0].op_type.as_deref(), Some("Cast"));
        assert_eq!(graph.node[1].input, ["x/float32", "w"]);
    }

    #[test]
    fn a_model_without_bfloat16_is_left_alone() {
        let mut model = ModelProto {
            graph: Some(GraphProto {
                input: vec![info("x", DType::F16)],
                node: vec![node(&["x", "x"], "y")],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        let before = model.clone();
        assert!(!widen(&mut model).unwrap());
        assert_eq!(model, before);
    }
}
