//! Files: nothing is lost by reading and writing, and elements may lie in other files.

use mohs::graph::Graph;
use mohs::model::{GradientOptions, Model, ModelOptions};
use mohs::onnx::proto::{
    AttributeProto, DataLocation, FunctionProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorAnnotation, TensorProto, TrainingInfoProto,
};
use mohs::onnx::{decode, encode, read, to_tensor, write};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Every model in the repository.
fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("models"), root.join("tests/references")];
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|kind| kind == "onnx"))
        .collect()
}

fn pair(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    }
}

#[test]
fn reading_and_writing_gives_back_equal_messages() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.onnx");
    let models = models();
    assert!(models.len() > 300);
    for path in models {
        let model = read(&path).unwrap();
        let again = Graph::from_model(model.clone()).to_model();
        assert!(
            again == model,
            "{} is changed by way of a graph",
            path.display()
        );
        write(&again, &copy).unwrap();
        assert!(
            read(&copy).unwrap() == model,
            "{} is changed by writing it",
            path.display()
        );
    }
}

#[test]
fn what_mohs_has_no_use_for_is_kept() {
    let mut model = read(&models()[0]).unwrap();
    model.metadata_props.push(pair("owner", "somebody"));
    model.training_info.push(TrainingInfoProto {
        update_binding: vec![pair("w", "w.new")],
        ..Default::default()
    });
    let unknown = NodeProto {
        op_type: Some("Invented".into()),
        domain: Some("some.where".into()),
        overload: Some("second".into()),
        attribute: vec![AttributeProto {
            name: Some("a".into()),
            ref_attr_name: Some("b".into()),
            ..Default::default()
        }],
        ..NodeProto::default()
    };
    model.functions.push(FunctionProto {
        name: Some("F".into()),
        domain: Some("some.where".into()),
        node: vec![unknown.clone()],
        opset_import: vec![OperatorSetIdProto {
            domain: Some("some.where".into()),
            version: Some(3),
        }],
        ..FunctionProto::default()
    });
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(unknown);
    graph.sparse_initializer.push(SparseTensorProto {
        dims: vec![3, 4],
        ..Default::default()
    });
    // 8-bit floats, which mohs does not compute with.
    graph.initializer.push(TensorProto {
        data_type: Some(17),
        dims: vec![1],
        int32_data: vec![56],
        name: Some("tiny".into()),
        ..Default::default()
    });
    let annotation = TensorAnnotation {
        tensor_name: Some("tiny".into()),
        quant_parameter_tensor_names: vec![pair("SCALE_TENSOR", "s")],
    };
    graph.quantization_annotation.push(annotation);
    let again = Graph::from_model(model.clone()).to_model();
    assert!(again == model);
    assert!(decode(encode(&again).into(), Path::new("copy")).unwrap() == model);
}

/// The digits classifier with every initializer in a file beside it.
fn with_external_data(folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut model = read(&root.join("models/digits-standard.onnx")).unwrap();
    let path = folder.join("digits.onnx");
    // Marked as external, they are written to a file of their own.
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        if tensor.raw_data.is_some() {
            tensor.data_location = Some(DataLocation::External as i32);
        }
    }
    write(&model, &path).unwrap();
    path
}

#[test]
fn a_model_with_external_data_is_differentiated_like_any_other() {
    crate::runtime_ready();
    let folder = tempfile::tempdir().unwrap();
    let path = with_external_data(folder.path());
    assert!(folder.path().join("digits.onnx.data").is_file());
    let model = Model::open(&path, &ModelOptions::default()).unwrap();
    let gradient = model
        .gradient(&GradientOptions::default())
        .unwrap()
        .graph
        .to_model();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let whole = Model::open(
        &root.join("models/digits-standard.onnx"),
        &ModelOptions::default(),
    )
    .unwrap();
    let expected = whole
        .gradient(&GradientOptions::default())
        .unwrap()
        .graph
        .to_model();
    let initializers = |model: &ModelProto| -> Vec<Vec<f64>> {
        let tensors = &model.graph.as_ref().unwrap().initializer;
        tensors
            .iter()
            .map(|tensor| to_tensor(tensor).unwrap().to_f64())
            .collect()
    };
    assert_eq!(initializers(&gradient), initializers(&expected));
    // What is written has its own elements, or a file beside it.
    let out = folder.path().join("gradient.onnx");
    write(&gradient, &out).unwrap();
    fs::remove_file(folder.path().join("digits.onnx.data")).unwrap();
    assert_eq!(initializers(&read(&out).unwrap()), initializers(&expected));
}

#[test]
fn external_data_that_cannot_be_had_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_external_data(folder.path());
    let data = folder.path().join("digits.onnx.data");
    File::options()
        .write(true)
        .open(&data)
        .unwrap()
        .set_len(100)
        .unwrap();
    let short = read(&path).unwrap_err().to_string();
    assert!(
        short.contains("digits.onnx.data") && short.contains("truncated"),
        "{short}"
    );
    fs::remove_file(&data).unwrap();
    let missing = read(&path).unwrap_err().to_string();
    assert!(missing.contains("keep it beside the model"), "{missing}");
}

#[test]
fn external_data_outside_the_folder_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_external_data(folder.path());
    let bytes = fs::read(&path).unwrap();
    let mut model = decode(bytes.into(), &path).unwrap();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        for entry in &mut tensor.external_data {
            if entry.key.as_deref() == Some("location") {
                entry.value = Some("../../etc/passwd".into());
            }
        }
    }
    fs::write(&path, encode(&model)).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(
        error.contains("only files in the model's own folder"),
        "{error}"
    );
}

/// A tensor of more than 2 GB in a sparse file, which takes no room on the disk.
#[test]
fn elements_beyond_two_gigabytes_are_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let length: u64 = (1 << 31) + 4096;
    File::create(folder.path().join("huge.bin"))
        .unwrap()
        .set_len(length)
        .unwrap();
    let mut model = read(&models()[0]).unwrap();
    let tail = length - 8;
    let external = |name: &str, offset: u64, length: u64| TensorProto {
        name: Some(name.into()),
        data_type: Some(1),
        dims: vec![i64::try_from(length / 4).unwrap()],
        data_location: Some(DataLocation::External as i32),
        external_data: vec![
            pair("location", "huge.bin"),
            pair("offset", &offset.to_string()),
            pair("length", &length.to_string()),
        ],
        ..TensorProto::default()
    };
    let tensors = &mut model.graph.as_mut().unwrap().initializer;
    tensors.extend([external("huge", 0, length), external("tail", tail, 8)]);
    let path = folder.path().join("huge.onnx");
    fs::write(&path, encode(&model)).unwrap();
    let model = read(&path).unwrap();
    let graph = Graph::from_model(model);
    let huge = graph
        .value(graph.find("huge").unwrap())
        .initializer
        .as_ref()
        .unwrap();
    assert_eq!(huge.raw_data.as_ref().unwrap().len() as u64, length);
    assert_eq!(
        graph
            .constant(graph.find("tail").unwrap())
            .unwrap()
            .to_f64(),
        [0.0, 0.0]
    );
    // It would not go into one message, so it would be written to a file of its own.
    assert!(mohs::onnx::encoded_len(&graph.to_model()) > mohs::onnx::WEIGHTS_IN_FILE);
}
