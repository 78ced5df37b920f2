//! Classifiers of two classes that give one number for each sample: a logit, a decision value, or the probability of the second class.

use crate::graph::{Graph, Node, ValueId};
use crate::onnx::proto::NodeProto;
use crate::tensor::{DType, Tensor};
use half::{bf16, f16};

/// Gives an output with one number z for each sample two scores in its place, −z/2 and z/2, whose softmax has the logistic function of z for
/// class 1; where the output is a logistic function, z is what it is taken of.
///
/// Returns a sentence on what was done.
///
/// # Errors
/// Where the output is of no float type, or a subgraph reads it by name.
pub fn two_classes(graph: &mut Graph, output: ValueId, dtype: DType) -> Result<String, String> {
    let name = graph.name(output).to_owned();
    let halves = [-0.5f32, 0.5];
    let tensor = match dtype {
        DType::F32 => Tensor::new(&[1, 2], halves.to_vec()),
        DType::F64 => Tensor::new(&[1, 2], halves.map(f64::from).to_vec()),
        DType::F16 => Tensor::new(&[1, 2], halves.map(f16::from_f32).to_vec()),
        DType::BF16 => Tensor::new(&[1, 2], halves.map(bf16::from_f32).to_vec()),
        _ => None,
    };
    let halves = tensor.ok_or_else(|| format!("output `{name}` is {dtype}, which is no score"))?;
    if !graph.rename(output, &format!("{name}.one")) {
        return Err(format!(
            "output `{name}` has one number for each sample, and a subgraph reads it"
        ));
    }
    let logit = below_sigmoid(graph, output);
    let score = logit.unwrap_or(output);
    let halves = graph.add_initializer("mohs/two-classes/halves", &halves);
    let column = Tensor::new(&[2], vec![-1i64, 1]).ok_or("a shape is a list")?;
    let column = graph.add_initializer("mohs/two-classes/column", &column);
    let scores = graph.fresh("mohs/two-classes/score");
    let both = graph
        .add_named(&name)
        .ok_or_else(|| format!("the name `{name}` is in use"))?;
    for (op_type, inputs, output) in [
        ("Reshape", [score, column], scores),
        ("Mul", [scores, halves], both),
    ] {
        let proto = NodeProto {
            op_type: Some(op_type.into()),
            name: Some(graph.fresh_name(&format!("mohs/two-classes/{op_type}"))),
            ..NodeProto::default()
        };
        graph.nodes.push(Node {
            proto,
            inputs: inputs.map(Some).to_vec(),
            outputs: vec![Some(output)],
        });
    }
    for (id, info) in graph.outputs.iter_mut().filter(|(id, _)| *id == output) {
        *id = both;
        info.r#type = None;
    }
    let before = logit.map_or("", |_| ", before its Sigmoid");
    Ok(format!(
        "output `{name}` has one number for each sample: it is taken{before} as the score of class 1 against class 0"
    ))
}

/// What an output is the logistic function of, where it is one, in whatever shape.
fn below_sigmoid(graph: &Graph, output: ValueId) -> Option<ValueId> {
    let producers = graph.producers();
    let mut id = output;
    loop {
        let node = &graph.nodes[producers[id.index()]?];
        let reshapes = ["Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"];
        match node {
            node if node.is("Sigmoid") => return node.input(0),
            node if reshapes.iter().any(|op_type| node.is(op_type)) => id = node.input(0)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{GraphProto, ModelProto, ValueInfoProto};

    fn graph(operators: &[(&str, &str, &str)]) -> Graph {
        let node = |(op_type, input, output): &(&str, &str, &str)| NodeProto {
            op_type: Some((*op_type).into()),
            input: vec![(*input).into()],
            output: vec![(*output).into()],
            ..Default::default()
        };
        let port = |name: &str| ValueInfoProto {
            name: Some(name.into()),
            ..Default::default()
        };
        Graph::from_model(ModelProto {
            graph: Some(GraphProto {
                node: operators.iter().map(node).collect(),
                input: vec![port("x")],
                output: vec![port("y")],
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// What the scores are made of, and the outputs.
    fn split(mut graph: Graph) -> (String, Vec<String>, String) {
        let output = graph.find("y").unwrap();
        let said = two_classes(&mut graph, output, DType::F32).unwrap();
        let reshape = graph.nodes.iter().find(|node| node.is("Reshape")).unwrap();
        let score = graph.name(reshape.input(0).unwrap()).to_owned();
        let names = graph.outputs.iter().map(|(id, _)| graph.name(*id).into());
        (score, names.collect(), said)
    }

    #[test]
    fn a_probability_is_taken_before_its_sigmoid() {
        let nodes = [
            ("Tanh", "x", "z"),
            ("Sigmoid", "z", "p"),
            ("Identity", "p", "y"),
        ];
        let (score, outputs, said) = split(graph(&nodes));
        assert_eq!((score.as_str(), outputs), ("z", vec!["y".to_owned()]));
        assert!(said.contains("before its Sigmoid"), "{said}");
    }

    #[test]
    fn a_logit_is_taken_as_it_is() {
        let (score, outputs, said) = split(graph(&[("Tanh", "x", "y")]));
        assert_eq!((score.as_str(), outputs), ("y.one", vec!["y".to_owned()]));
        assert!(!said.contains("Sigmoid"), "{said}");
    }

    #[test]
    fn integers_are_no_scores() {
        let mut graph = graph(&[("Tanh", "x", "y")]);
        let output = graph.find("y").unwrap();
        assert!(two_classes(&mut graph, output, DType::I64).is_err());
    }
}
