//! Training graphs made elsewhere: what is refused before the first step.

use super::methods::{attempt, config, folder};
use mohs::model::training::{TrainableOptions, TrainingOptions};
use mohs::model::{Model, ModelOptions};
use mohs::onnx::proto::{DimensionValue, GraphProto, TensorType, TypeValue};
use mohs::tensor::Tensor;
use mohs::threat::Norm;
use mohs::train::Config;

/// Plain training, without a look at robust accuracy.
fn standard() -> Config {
    Config {
        epsilon: None,
        ..config("standard", Norm::Linf, 0.1)
    }
}

/// The training graph of the CNN, its first weight frozen, changed by `change`, and what a training says of it.
fn refusal(change: impl FnOnce(&mut GraphProto), freeze: &[String]) -> String {
    let model = Model::open(&folder().join("cnn.onnx"), &ModelOptions::default()).unwrap();
    let options = TrainableOptions {
        freeze: freeze.to_vec(),
        keep: Vec::new(),
    };
    let trainable = model.trainable(&options).unwrap();
    let graph = trainable.derive(&TrainingOptions::default()).unwrap().graph;
    let mut proto = graph.to_model();
    change(proto.graph.as_mut().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("training.onnx");
    mohs::onnx::write(&proto, &file).unwrap();
    let config = Config {
        training_graph: Some(file),
        freeze: freeze.to_vec(),
        ..standard()
    };
    match attempt("cnn", &config, None) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// The declaration of an input or output.
fn port<'a>(graph: &'a mut GraphProto, name: &str) -> &'a mut TensorType {
    let mut ports = graph.input.iter_mut().chain(&mut graph.output);
    let port = ports
        .find(|port| port.name.as_deref() == Some(name))
        .unwrap();
    let value = port.r#type.as_mut().unwrap().value.as_mut().unwrap();
    match value {
        TypeValue::TensorType(tensor) => tensor,
        _ => panic!("`{name}` is no tensor"),
    }
}

#[test]
fn a_training_graph_of_another_model_is_refused() {
    crate::runtime_ready();
    let model = Model::open(&folder().join("cnn.onnx"), &ModelOptions::default()).unwrap();
    let trainable = model.trainable(&TrainableOptions::default()).unwrap();
    let weight = trainable.parameters[0].name.clone();
    let extent = |tensor: &mut TensorType, axis: usize, extent: i64| {
        let dims = &mut tensor.shape.as_mut().unwrap().dim;
        dims[axis].value = Some(DimensionValue::DimValue(extent));
    };
    let frozen = [weight.clone()];
    assert_eq!(refusal(|_| {}, &[]), "");
    assert_eq!(refusal(|_| {}, &frozen), "");
    for (error, expected) in [
        (
            refusal(|graph| extent(port(graph, &weight), 0, 5), &[]),
            format!("`{weight}: float32 [5, "),
        ),
        (
            refusal(
                |graph| extent(port(graph, &format!("grad.{weight}")), 1, 7),
                &[],
            ),
            "has to have the shape".into(),
        ),
        (
            refusal(|graph| extent(port(graph, "loss"), 0, 3), &[]),
            "for batches of 3 alone".into(),
        ),
        (
            refusal(|graph| port(graph, "labels").elem_type = Some(1), &[]),
            "has to be int64".into(),
        ),
        (
            refusal(
                |graph| {
                    graph
                        .output
                        .retain(|one| one.name.as_deref() != Some(&*format!("grad.{weight}")))
                },
                &[],
            ),
            format!("it has no output `grad.{weight}`"),
        ),
        (
            refusal(
                |graph| {
                    let mut constants = graph.initializer.iter_mut();
                    let constant = constants
                        .find(|one| one.name.as_deref() == Some(&weight))
                        .unwrap();
                    let tensor = mohs::onnx::to_tensor(constant).unwrap();
                    let zeros = Tensor::new(tensor.shape(), vec![0.0_f32; tensor.len()]).unwrap();
                    *constant = mohs::onnx::from_tensor(&weight, &zeros);
                },
                &frozen,
            ),
            format!("its constant `{weight}` has other numbers than the model's"),
        ),
    ] {
        assert!(error.contains("no training graph of the model"), "{error}");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_training_graph_has_to_take_what_is_to_be_trained() {
    crate::runtime_ready();
    let model = Model::open(&folder().join("cnn.onnx"), &ModelOptions::default()).unwrap();
    let weight = model
        .trainable(&TrainableOptions::default())
        .unwrap()
        .parameters[0]
        .name
        .clone();
    let options = TrainableOptions {
        freeze: vec![weight.clone()],
        keep: Vec::new(),
    };
    let trainable = model.trainable(&options).unwrap();
    let graph = trainable.derive(&TrainingOptions::default()).unwrap().graph;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("training.onnx");
    mohs::onnx::write(&graph.to_model(), &file).unwrap();
    let config = Config {
        training_graph: Some(file),
        ..standard()
    };
    let error = attempt("cnn", &config, None).unwrap_err().to_string();
    assert!(
        error.contains(&format!("--freeze {weight} leaves that as it is")),
        "{error}"
    );
}
