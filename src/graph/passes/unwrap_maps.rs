//! Outputs that are no tensors of numbers: maps from labels to probabilities, and labels that are text.
//!
//! scikit-learn's classifiers are exported with a `ZipMap` behind their probabilities, which turns them into a list of dictionaries, and next to
//! them with the label of the predicted class, which may be text; or with an output for each class, a column of the probabilities.

use super::prune;
use crate::graph::{Attributes, Graph, Node, ValueId};
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
    notes.extend(join_columns(graph));
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

/// Where the columns of a matrix are outputs one by one, all from the first on, the matrix is an output in their place.
fn join_columns(graph: &mut Graph) -> Option<String> {
    let producers = graph.producers();
    let made_by = |id: ValueId| producers[id.index()].map(|position| &graph.nodes[position]);
    let columns: Vec<(ValueId, ValueId, i64)> = graph
        .outputs
        .iter()
        .filter_map(|(id, _)| {
            let flat = made_by(*id).filter(|node| node.is("Reshape"))?;
            let slice = made_by(flat.input(0)?).filter(|node| node.is("Slice"))?;
            Some((*id, slice.input(0)?, column_of(graph, slice)?))
        })
        .collect();
    let (_, matrix, _) = *columns.first()?;
    let mut places: Vec<i64> = columns.iter().map(|(_, _, place)| *place).collect();
    places.sort_unstable();
    let all = places.iter().zip(0..).all(|(place, index)| *place == index);
    let one_matrix = columns.iter().all(|(_, of, _)| *of == matrix);
    if places.len() < 2 || !all || !one_matrix {
        return None;
    }
    let name = graph.name(matrix).to_owned();
    let [first, last] = [columns.first()?, columns.last()?].map(|(id, _, _)| graph.name(*id));
    let note = format!(
        "outputs `{first}` to `{last}` are the columns of `{name}`, which is taken in their place"
    );
    let is_column = |id: &ValueId| columns.iter().any(|(column, _, _)| column == id);
    graph.outputs.retain(|(id, _)| !is_column(id));
    if !graph.outputs.iter().any(|(id, _)| *id == matrix) {
        let info = ValueInfoProto {
            name: Some(name),
            ..ValueInfoProto::default()
        };
        graph.outputs.push((matrix, info));
    }
    prune(graph);
    Some(note)
}

/// The column that a slice takes, where it takes one.
fn column_of(graph: &Graph, slice: &Node) -> Option<i64> {
    let numbers = |name: &str, position: usize| -> Option<Vec<i64>> {
        match slice.input(position) {
            Some(id) => graph.constant(id)?.to_i64(),
            None => slice.ints(name).map(<[i64]>::to_vec),
        }
    };
    let [start] = numbers("starts", 1)?[..] else {
        return None;
    };
    let one = numbers("ends", 2)?[..] == [start + 1] && numbers("axes", 3)?[..] == [1];
    one.then_some(start)
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
