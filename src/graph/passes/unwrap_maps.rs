//! Outputs that are no tensors of numbers: maps from labels to probabilities, and labels that are text.
//!
//! scikit-learn's classifiers are exported with a `ZipMap` behind their probabilities, which turns them into a list of dictionaries, and next to
//! them with the label of the predicted class, which may be text.

use super::prune;
use crate::graph::Graph;
use crate::onnx::proto::{TypeValue, ValueInfoProto};

/// `TensorProto.DataType.STRING`.
const STRING: i32 = 8;

/// Takes probabilities before they are made maps, under the same name, and drops outputs of text where others are left; says what it did.
pub fn unwrap_maps(graph: &mut Graph) -> Vec<String> {
    let mut notes = Vec::new();
    let mut unwrapped = Vec::new();
    for node in &mut graph.nodes {
        if node.domain() != "ai.onnx.ml" || node.op_type() != "ZipMap" {
            continue;
        }
        node.proto.op_type = Some("Identity".into());
        node.proto.domain = None;
        node.proto.attribute.clear();
        unwrapped.extend(node.output(0));
    }
    for id in unwrapped {
        for (_, info) in graph.outputs.iter_mut().filter(|(output, _)| *output == id) {
            info.r#type = None;
        }
        notes.push(format!(
            "output `{}` is a map from labels to scores: the scores are taken as they are before",
            graph.name(id)
        ));
    }
    let is_text = |info: &ValueInfoProto| {
        let kind = info.r#type.as_ref().and_then(|kind| kind.value.as_ref());
        matches!(kind, Some(TypeValue::TensorType(tensor)) if tensor.elem_type == Some(STRING))
    };
    let text = graph.outputs.iter().filter(|(_, info)| is_text(info));
    let text = text.count();
    if text > 0 && text < graph.outputs.len() {
        graph.outputs.retain(|(_, info)| !is_text(info));
        prune(graph);
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorType, TypeProto};

    fn output(name: &str, elem_type: Option<i32>) -> ValueInfoProto {
        let tensor = |elem_type| TypeProto {
            value: Some(TypeValue::TensorType(TensorType {
                elem_type: Some(elem_type),
                shape: None,
            })),
            denotation: None,
        };
        ValueInfoProto {
            name: Some(name.into()),
            r#type: elem_type.map(tensor),
            ..Default::default()
        }
    }

    #[test]
    fn maps_become_tensors_and_text_goes() {
        let node = |op_type: &str, domain: &str, input: &str, output: &str| NodeProto {
            op_type: Some(op_type.into()),
            domain: Some(domain.into()),
            input: vec![input.into()],
            output: vec![output.into()],
            ..Default::default()
        };
        let proto = GraphProto {
            node: vec![
                node("Softmax", "", "x", "p"),
                node("ZipMap", "ai.onnx.ml", "p", "map"),
                node("LabelEncoder", "ai.onnx.ml", "p", "label"),
            ],
            input: vec![output("x", Some(1))],
            output: vec![output("label", Some(STRING)), output("map", None)],
            ..Default::default()
        };
        let mut graph = Graph::from_model(ModelProto {
            graph: Some(proto),
            ..Default::default()
        });
        let notes = unwrap_maps(&mut graph);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("`map`"), "{notes:?}");
        let names: Vec<&str> = graph
            .outputs
            .iter()
            .map(|(id, _)| graph.name(*id))
            .collect();
        assert_eq!(names, ["map"]);
        let operators: Vec<&str> = graph.nodes.iter().map(|node| node.op_type()).collect();
        assert_eq!(operators, ["Softmax", "Identity"]);
    }
}
