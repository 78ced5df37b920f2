//! Steps along an axis, each of which goes on from the state that the one before left: the operator `Scan`, with its body written as a closure.

use super::{Attribute, Builder, Dim, Expr, Fact, Graph, Node, ValueId};
use crate::onnx::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto,
    TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};

/// What is stepped over, and from where.
#[derive(Debug, Clone)]
pub struct Sweep<'g> {
    /// The states before the first step.
    pub states: Vec<Expr<'g>>,
    /// The values that each step takes its entry of.
    pub sequences: Vec<Expr<'g>>,
    /// The values that every step takes whole.
    pub captured: Vec<Expr<'g>>,
    /// The axis of the sequences.
    pub axis: usize,
    /// Whether the steps go from the last entry to the first.
    pub backward: bool,
}

/// What one step sees: handles of its own graph, in the order of the [`Sweep`].
#[derive(Debug, Clone)]
pub struct Entries<'b> {
    /// The states before the step.
    pub states: Vec<Expr<'b>>,
    /// The entries of the sequences, which lack the axis.
    pub sequences: Vec<Expr<'b>>,
    /// The values that every step takes whole.
    pub captured: Vec<Expr<'b>>,
}

/// States, and sequences: of a step, the states after it and entries; of a sweep, the last states and whole sequences along the axis.
#[derive(Debug, Clone)]
pub struct Swept<'b> {
    /// As many states as the sweep starts from.
    pub states: Vec<Expr<'b>>,
    /// Any number of sequences, in the order of the input's steps.
    pub sequences: Vec<Expr<'b>>,
}

impl Builder {
    /// Takes the steps, each as `step` says.
    ///
    /// # Panics
    /// Where there is no sequence to step over.
    pub fn sweep<'g>(
        &'g self,
        sweep: &Sweep<'g>,
        step: impl for<'b> FnOnce(Entries<'b>) -> Swept<'b>,
    ) -> Swept<'g> {
        let steps = sweep.sequences.first();
        let steps = steps.expect("a sweep goes over a sequence").shape()[sweep.axis];
        let (body, entries) = self.body(sweep, step);
        let mut facts: Vec<Fact> = sweep.states.iter().map(|state| state.fact()).collect();
        facts.extend(entries.into_iter().map(|mut fact| {
            fact.shape.insert(sweep.axis, steps);
            fact
        }));
        let outputs = facts.len() - sweep.states.len();
        let inputs: Vec<_> = sweep.states.iter().chain(&sweep.sequences).collect();
        let inputs: Vec<_> = inputs.into_iter().map(|input| Some(*input)).collect();
        let node = Node {
            proto: scan(body, sweep, outputs),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let mut states = self.repeat(&node, &inputs, facts);
        let sequences = states.split_off(sweep.states.len());
        Swept { states, sequences }
    }

    /// The graph of one step, and what its entries of new sequences are.
    fn body<'g>(
        &'g self,
        sweep: &Sweep<'g>,
        step: impl for<'b> FnOnce(Entries<'b>) -> Swept<'b>,
    ) -> (GraphProto, Vec<Fact>) {
        let (opset_import, prefix) = self.with_graph_mut(|graph| {
            let prefix = graph.fresh_name("sweep");
            (graph.model.opset_import.clone(), prefix)
        });
        let mut inner = Graph::from_model(ModelProto {
            opset_import,
            graph: Some(GraphProto {
                name: Some(prefix.clone()),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        });
        let declared = |graph: &mut Graph, value: &Expr<'g>, without: Option<usize>| {
            let mut fact = Fact::new(value.dtype(), value.shape());
            if let Some(axis) = without {
                fact.shape.remove(axis);
            }
            let id = graph.fresh(&format!("{prefix}/entry"));
            graph.value_mut(id).fact = Some(fact);
            let info = declare(graph, id);
            graph.inputs.push((id, info));
            id
        };
        let states: Vec<_> = (sweep.states.iter())
            .map(|state| declared(&mut inner, state, None))
            .collect();
        let sequences: Vec<_> = (sweep.sequences.iter())
            .map(|sequence| declared(&mut inner, sequence, Some(sweep.axis)))
            .collect();
        let captured = sweep.captured.iter().map(|value| {
            // The same name inside: that is how a body takes a value from outside.
            let name = self.with_graph(|graph| graph.name(value.id()).to_owned());
            let id = inner.find(&name).or_else(|| inner.add_named(&name));
            let id = id.expect("a name is in the graph or can be added");
            inner.value_mut(id).fact = Some(value.fact());
            id
        });
        let captured: Vec<_> = captured.collect();
        let builder = Builder::new(inner);
        builder.set_scope(prefix);
        let handles = |ids: &[ValueId]| ids.iter().map(|id| Expr::new(&builder, *id)).collect();
        let swept = step(Entries {
            states: handles(&states),
            sequences: handles(&sequences),
            captured: handles(&captured),
        });
        let taken: Vec<_> = [&states[..], &sequences, &captured].concat();
        let mut outputs: Vec<ValueId> = Vec::new();
        for result in swept.states.iter().chain(&swept.sequences) {
            // A result has a name of its own.
            let mut own = *result;
            while taken.contains(&own.id()) || outputs.contains(&own.id()) {
                own = own.unary("Identity");
            }
            outputs.push(own.id());
        }
        let facts = swept.sequences.iter().map(|entry| entry.fact()).collect();
        drop(swept);
        let mut inner = builder.into_graph();
        for id in outputs {
            let info = declare(&inner, id);
            inner.outputs.push((id, info));
        }
        (inner.to_model().graph.unwrap_or_default(), facts)
    }
}

/// The node that takes the steps.
fn scan(body: GraphProto, sweep: &Sweep<'_>, outputs: usize) -> NodeProto {
    let list =
        |name: &str, value: i64, count: usize| Attribute::Ints(vec![value; count]).to_proto(name);
    let axis = i64::try_from(sweep.axis).unwrap_or_default();
    let (inputs, direction) = (sweep.sequences.len(), i64::from(sweep.backward));
    let count = Attribute::Int(i64::try_from(inputs).unwrap_or_default());
    NodeProto {
        op_type: Some("Scan".into()),
        attribute: vec![
            AttributeProto {
                name: Some("body".into()),
                r#type: Some(AttributeType::Graph as i32),
                g: Some(body),
                ..AttributeProto::default()
            },
            count.to_proto("num_scan_inputs"),
            list("scan_input_axes", axis, inputs),
            list("scan_input_directions", direction, inputs),
            list("scan_output_axes", axis, outputs),
            list("scan_output_directions", direction, outputs),
        ],
        ..NodeProto::default()
    }
}

/// The declaration of an input or output of a body; extents that follow the batch are left open.
fn declare(graph: &Graph, id: ValueId) -> ValueInfoProto {
    let dim = |dim: &Dim| Dimension {
        value: dim.extent().map(DimensionValue::DimValue),
        denotation: None,
    };
    let tensor = graph.fact(id).map(|fact| TensorType {
        elem_type: Some(fact.dtype.to_onnx()),
        shape: Some(TensorShapeProto {
            dim: fact.shape.iter().map(dim).collect(),
        }),
    });
    ValueInfoProto {
        name: Some(graph.name(id).to_owned()),
        r#type: tensor.map(|tensor| TypeProto {
            value: Some(TypeValue::TensorType(tensor)),
            denotation: None,
        }),
        ..ValueInfoProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attributes;
    use crate::tensor::DType;

    /// A builder with values `x`, `[2, 5, N]`, and `state` and `factor`, `[2, N]`.
    fn builder() -> (Builder, [ValueId; 3]) {
        let mut graph = Graph::from_model(ModelProto::default());
        let shapes = [
            ("x", vec![Dim::fixed(2), Dim::fixed(5), Dim::BATCH]),
            ("state", vec![Dim::fixed(2), Dim::BATCH]),
            ("factor", vec![Dim::fixed(2), Dim::BATCH]),
        ];
        let ids = shapes.map(|(name, shape)| {
            let id = graph.add_named(name).unwrap();
            graph.value_mut(id).fact = Some(Fact::new(DType::F32, shape));
            id
        });
        (Builder::new(graph), ids)
    }

    fn swept(step: impl for<'b> FnOnce(Entries<'b>) -> Swept<'b>) -> (Graph, Vec<Fact>) {
        let (builder, ids) = builder();
        let [x, state, factor] = ids.map(|id| builder.expr(id).unwrap());
        let sweep = Sweep {
            states: vec![state],
            sequences: vec![x],
            captured: vec![factor],
            axis: 1,
            backward: true,
        };
        let swept = builder.sweep(&sweep, step);
        let facts = swept.states.iter().chain(&swept.sequences);
        let facts = facts.map(|value| value.fact()).collect();
        drop(swept);
        drop(sweep);
        (builder.into_graph(), facts)
    }

    #[test]
    fn sequences_regain_the_axis_that_their_entries_lack() {
        let (graph, facts) = swept(|step| {
            let next = step.states[0] * step.captured[0] + step.sequences[0];
            Swept {
                states: vec![next],
                sequences: vec![-next],
            }
        });
        let [state, sequence] = facts.as_slice() else {
            panic!("a state and a sequence, not {facts:?}");
        };
        assert_eq!(state.shape, [Dim::fixed(2), Dim::BATCH]);
        assert_eq!(sequence.shape, [Dim::fixed(2), Dim::fixed(5), Dim::BATCH]);
        let body = graph.nodes[0].graph("body").unwrap();
        assert_eq!(
            body.node[0].input[1], "factor",
            "taken from outside by name"
        );
        assert_eq!(body.input.len(), 2);
        assert!(
            graph
                .captured(&graph.nodes[0])
                .contains(&graph.find("factor").unwrap())
        );
    }

    #[test]
    fn every_result_of_a_step_has_a_name_of_its_own() {
        let (graph, _) = swept(|step| Swept {
            states: vec![step.sequences[0]],
            sequences: vec![step.sequences[0], step.captured[0]],
        });
        let body = graph.nodes[0].graph("body").unwrap();
        let mut names: Vec<_> = body
            .output
            .iter()
            .chain(&body.input)
            .map(|info| &info.name)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
