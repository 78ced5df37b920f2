//! Writes what is known of shapes into the file.

use crate::graph::{Dim, Fact, Graph};
use crate::onnx::proto::{
    Dimension, DimensionValue, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use std::collections::HashSet;

/// Declares the type and shape of every value that a node makes, as its fact says; extents that follow the batch in the same way have one name.
///
/// ONNX Runtime lays values of one shape into the same memory, and knows one shape from another by these names.
/// Where it has none, it compares every value with all others: a graph of three thousand nodes takes ten seconds to load then instead of half a
/// second.
pub fn declare_shapes(graph: &mut Graph) {
    let outputs: HashSet<_> = graph.outputs.iter().map(|(id, _)| *id).collect();
    let made = graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().flatten());
    let inner = made.filter(|id| !outputs.contains(id));
    let known = inner.filter_map(|id| Some(declaration(graph.name(*id), graph.fact(*id)?)));
    let mut declared: Vec<ValueInfoProto> = known.collect();
    let Some(shell) = &mut graph.model.graph else {
        return;
    };
    let names: HashSet<Option<&str>> = declared.iter().map(|info| info.name.as_deref()).collect();
    let mut infos = std::mem::take(&mut shell.value_info);
    infos.retain(|info| !names.contains(&info.name.as_deref()));
    infos.append(&mut declared);
    shell.value_info = infos;
}

fn declaration(name: &str, fact: &Fact) -> ValueInfoProto {
    let dim = |dim: &Dim| Dimension {
        value: Some(match dim.extent() {
            Some(extent) => DimensionValue::DimValue(extent),
            None => DimensionValue::DimParam(dim.to_string()),
        }),
        denotation: None,
    };
    let tensor = TensorType {
        elem_type: Some(fact.dtype.to_onnx()),
        shape: Some(TensorShapeProto {
            dim: fact.shape.iter().map(dim).collect(),
        }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Builder;
    use crate::onnx::proto::{GraphProto, ModelProto};
    use crate::tensor::DType;

    #[test]
    fn every_inner_value_is_declared_once_by_its_fact() {
        let mut graph = Graph::from_model(ModelProto {
            graph: Some(GraphProto::default()),
            ..ModelProto::default()
        });
        let x = graph.add_named("x").unwrap();
        let shape = vec![Dim::BATCH.times(4), Dim::fixed(3)];
        graph.value_mut(x).fact = Some(Fact::new(DType::F32, shape));
        let builder = Builder::new(graph);
        let inner = builder.expr(x).unwrap().unary("Neg");
        let last = inner.unary("Abs").id();
        let inner = inner.id();
        let mut graph = builder.into_graph();
        graph.outputs.push((last, ValueInfoProto::default()));
        declare_shapes(&mut graph);
        declare_shapes(&mut graph);
        let declared = graph.model.graph.as_ref().unwrap().value_info.as_slice();
        let [info] = declared else {
            panic!("one value, not {declared:?}");
        };
        assert_eq!(info.name.as_deref(), Some(graph.name(inner)));
        let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().unwrap().value.as_ref()
        else {
            panic!("a tensor, not {info:?}");
        };
        let values: Vec<_> = tensor
            .shape
            .as_ref()
            .unwrap()
            .dim
            .iter()
            .map(|dim| &dim.value)
            .collect();
        assert_eq!(
            values,
            [
                &Some(DimensionValue::DimParam("4N".into())),
                &Some(DimensionValue::DimValue(3))
            ]
        );
    }
}
