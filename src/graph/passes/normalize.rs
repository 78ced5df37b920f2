//! Normalisation of the input as the first nodes of a graph, so that the model is attacked in the data's own space.

use crate::graph::{Graph, Node, ValueId};
use crate::onnx::proto::NodeProto;
use crate::tensor::Tensor;

/// The normalisation (x − mean) / std, with one number or one per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalization {
    /// The means.
    pub mean: Vec<f32>,
    /// The standard deviations, as many.
    pub std: Vec<f32>,
}

/// Puts the normalisation in front of everything that reads `input`, whose samples have the given shape.
///
/// # Errors
/// Where the numbers are neither one nor as many as the channels (the first axis of a sample, else the last), or a subgraph reads the input.
pub fn normalize(
    graph: &mut Graph,
    input: ValueId,
    sample_shape: &[usize],
    normalization: &Normalization,
) -> Result<(), String> {
    let channels = normalization.mean.len();
    if channels != normalization.std.len() {
        return Err(format!(
            "--mean has {channels} numbers and --std has {}; give as many of both",
            normalization.std.len()
        ));
    }
    let shape: Vec<usize> = match sample_shape {
        _ if channels == 1 => vec![1],
        [first, rest @ ..] if *first == channels => std::iter::once(channels)
            .chain(rest.iter().map(|_| 1))
            .collect(),
        [.., last] if *last == channels => vec![channels],
        _ => {
            return Err(format!(
                "--mean and --std have {channels} numbers, and the samples {sample_shape:?} have no axis of channels with that extent"
            ));
        }
    };
    let name = graph.name(input).to_owned();
    if graph
        .nodes
        .iter()
        .any(|node| !node.inputs.contains(&Some(input)) && graph.reads(node).contains(&input))
    {
        return Err(format!(
            "a subgraph reads the input `{name}` from outside; normalise in the model instead"
        ));
    }
    let tensor = |values: &[f32]| {
        Tensor::new(&shape, values.to_vec()).ok_or_else(|| "the numbers do not fit".to_owned())
    };
    let (mean, std) = (tensor(&normalization.mean)?, tensor(&normalization.std)?);
    let mean = graph.add_initializer("mohs/mean", &mean);
    let std = graph.add_initializer("mohs/std", &std);
    let centred = graph.fresh("mohs/centred");
    let normalized = graph.fresh("mohs/normalized");
    for node in &mut graph.nodes {
        for operand in &mut node.inputs {
            if *operand == Some(input) {
                *operand = Some(normalized);
            }
        }
    }
    let mut node = |op_type: &str, inputs: [ValueId; 2], output: ValueId| {
        let proto = NodeProto {
            op_type: Some(op_type.into()),
            name: Some(graph.fresh_name(&format!("mohs/normalize/{op_type}"))),
            ..NodeProto::default()
        };
        Node {
            proto,
            inputs: inputs.map(Some).to_vec(),
            outputs: vec![Some(output)],
        }
    };
    let front = [
        node("Sub", [input, mean], centred),
        node("Div", [centred, std], normalized),
    ];
    graph.nodes.splice(0..0, front);
    Ok(())
}
