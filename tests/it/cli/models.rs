//! Models of every kind that works, and what is said of them.

use super::fixtures::{N, Tiny, constant, evaluate, ready};
use super::results::assert_same;
use super::{Sandbox, shipped, texts};
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::graph::Attribute;
use mohs::onnx::proto::ModelProto;
use mohs::runtime::{Session, SessionOptions, Value};
use mohs::tensor::{DType, Tensor};
use std::process::Stdio;

fn metadata<'a>(model: &'a ModelProto, key: &str) -> &'a str {
    let entry = model
        .metadata_props
        .iter()
        .find(|entry| entry.key.as_deref() == Some(key));
    entry
        .and_then(|entry| entry.value.as_deref())
        .unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn the_gradient_graph_keeps_its_contract() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    let digits = shipped("digits-standard.onnx");
    sandbox.run(&[
        "gradient",
        &digits,
        "-o",
        "gradient.onnx",
        "--loss",
        "margin",
    ]);
    assert_eq!(sandbox.names(), ["gradient.onnx"]);
    let path = sandbox.path("gradient.onnx");
    let model = mohs::onnx::read(&path).unwrap();
    assert_eq!(metadata(&model, "mohs.contract"), "1");
    assert_eq!(metadata(&model, "mohs.loss"), "margin");
    assert_eq!(metadata(&model, "mohs.wrt"), "input");
    let bytes = std::fs::read(&digits).unwrap();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
    assert_eq!(metadata(&model, "mohs.sha256"), format!("{digest:x}"));
    let graph = model.graph.as_ref().unwrap();
    assert!(
        graph
            .node
            .iter()
            .all(|node| matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"))),
        "a node of a domain of its own"
    );
    let domains: Vec<&str> = model
        .opset_import
        .iter()
        .map(|import| import.domain.as_deref().unwrap_or_default())
        .collect();
    assert!(domains.contains(&""), "{domains:?}");

    // It runs alone.
    let mut session = Session::from_file(&path, &SessionOptions::default()).unwrap();
    let ports = |ports: &[mohs::runtime::Port]| -> Vec<(String, Option<DType>)> {
        ports
            .iter()
            .map(|port| (port.name.clone(), port.dtype))
            .collect()
    };
    let port = |name: &str, dtype| (name.to_owned(), Some(dtype));
    assert_eq!(
        ports(session.inputs()),
        [port("input", DType::F32), port("labels", DType::I64)]
    );
    assert_eq!(
        ports(session.outputs()),
        [
            port("logits", DType::F32),
            port("loss", DType::F32),
            port("grad", DType::F32)
        ]
    );
    let x = Tensor::new(&[5, 1, 8, 8], vec![0.25f32; 5 * 64]).unwrap();
    let labels = Tensor::new(&[5], vec![0i64, 1, 2, 3, 4]).unwrap();
    let (x, labels) = (
        Value::from_tensor(x).unwrap(),
        Value::from_tensor(labels).unwrap(),
    );
    let outputs = session.run(&[("input", &x), ("labels", &labels)]).unwrap();
    let shapes: Vec<&[usize]> = outputs.iter().map(Value::shape).collect();
    assert_eq!(shapes, [&[5, 10][..], &[5], &[5, 1, 8, 8]]);
    // The margin is what it says.
    let (logits, losses) = (
        outputs[0].as_slice::<f32>().unwrap(),
        outputs[1].as_slice::<f32>().unwrap(),
    );
    for (label, (row, loss)) in logits.chunks(10).zip(losses).enumerate() {
        let other = (0..10)
            .filter(|class| *class != label)
            .map(|class| row[class])
            .fold(f32::NEG_INFINITY, f32::max);
        assert!((other - row[label] - loss).abs() < 1e-5);
    }
}

#[test]
fn mohs_own_gradient_graph_gives_the_same_report() {
    let sandbox = Sandbox::new();
    let (model, data) = (shipped("digits-standard.onnx"), shipped("digits-test.npz"));
    sandbox.run(&["gradient", &model, "-o", "gradient.onnx"]);
    let run = |more: &[&str]| {
        let mut arguments = vec![
            "evaluate",
            &model,
            "--data",
            &data,
            "--attack",
            "fgsm,pgd:steps=5",
            "--epsilon",
            "0.1,0.2",
            "--limit",
            "20",
            "--out",
            "report",
        ];
        arguments.extend(more);
        sandbox.run(&arguments);
        sandbox.read("report/samples.csv")
    };
    assert_eq!(run(&[]), run(&["--gradient", "gradient.onnx"]));
}

/// The linear model's gradient graph as another program could write it, at the opset of the model.
fn foreign_gradient() -> ModelProto {
    let mut tiny = Tiny::linear();
    tiny.inputs.push(info("labels", DType::I64, &[N]));
    tiny.outputs.extend([
        info("loss", DType::F32, &[N]),
        info("grad", DType::F32, &[N, Some(4)]),
    ]);
    let integers = |name: &str, values: &[i64]| {
        let shape: &[usize] = if values.len() == 1 {
            &[]
        } else {
            &[values.len()]
        };
        let tensor = Tensor::new(shape, values.to_vec()).unwrap();
        mohs::onnx::from_tensor(name, &tensor)
    };
    let axes = mohs::onnx::from_tensor("axes", &Tensor::new(&[1], vec![1i64]).unwrap());
    tiny.initializers.extend([
        integers("depth", &[3]),
        constant("values", &[2], &[0.0, 1.0]),
        axes,
    ]);
    let mut sum = joined("ReduceSum", &["own", "axes"], &["likelihood"]);
    sum.attribute = vec![Attribute::Int(0).to_proto("keepdims")];
    tiny.nodes.extend([
        joined("OneHot", &["labels", "depth", "values"], &["one_hot"]),
        joined("LogSoftmax", &["logits"], &["log"]),
        joined("Mul", &["log", "one_hot"], &["own"]),
        sum,
        joined("Neg", &["likelihood"], &["loss"]),
        joined("Softmax", &["logits"], &["probabilities"]),
        joined("Sub", &["probabilities", "one_hot"], &["error"]),
        joined("Transpose", &["weights"], &["turned"]),
        joined("MatMul", &["error", "turned"], &["grad"]),
    ]);
    tiny.model()
}

#[test]
fn a_gradient_graph_made_elsewhere_gives_the_same_verdicts() {
    let sandbox = ready();
    std::fs::write(
        sandbox.path("foreign.onnx"),
        mohs::onnx::encode(&foreign_gradient()),
    )
    .unwrap();
    for (attack, norm) in [("pgd:steps=6", "linf"), ("fgm,pgd:steps=6", "l1")] {
        let report = |more: &[&str]| {
            let mut arguments = vec!["--epsilon", "0.2,0.8", "--norm", norm, "--attack", attack];
            arguments.extend(more);
            let mut all = vec![
                "evaluate",
                "model.onnx",
                "--data",
                "data.npz",
                "--out",
                "report",
            ];
            all.extend(arguments);
            sandbox.run(&all);
            sandbox.read("report/samples.csv")
        };
        assert_same(&report(&[]), &report(&["--gradient", "foreign.onnx"]));
    }
}

#[test]
fn a_gradient_by_an_inner_tensor_has_its_shape() {
    crate::runtime_ready();
    let sandbox = ready();
    // Token numbers, their embeddings, and a classifier of the mean embedding.
    let mut mean = joined("ReduceMean", &["embeddings"], &["inner"]);
    let attribute = |name: &str, attribute: Attribute| attribute.to_proto(name);
    mean.attribute = vec![
        attribute("axes", Attribute::Ints(vec![1])),
        attribute("keepdims", Attribute::Int(0)),
    ];
    let gather = joined("Gather", &["table", "tokens"], &["embeddings"]);
    let mut text = Tiny::behind(vec![gather, mean]);
    text.inputs = vec![info("tokens", DType::I64, &[N, Some(5)])];
    text.initializers.push(constant(
        "table",
        &[2, 4],
        &[0.5, 0.25, 1.0, -1.0, 0.125, 2.0, 0.0, 0.5],
    ));
    text.write(&sandbox, "text.onnx");
    let arguments = [
        "gradient",
        "text.onnx",
        "--wrt",
        "embeddings",
        "-o",
        "g.onnx",
    ];
    sandbox.run(&arguments);
    let mut session =
        Session::from_file(&sandbox.path("g.onnx"), &SessionOptions::default()).unwrap();
    let value = |tensor| Value::from_tensor(tensor).unwrap();
    let tokens = value(Tensor::new(&[3, 5], vec![1i64; 15]).unwrap());
    let labels = value(Tensor::new(&[3], vec![0i64, 1, 2]).unwrap());
    let outputs = session
        .run_for(&["grad"], &[("tokens", &tokens), ("labels", &labels)])
        .unwrap();
    assert_eq!(outputs[0].shape(), [3, 5, 4]);
    let message = sandbox.refused(
        &["gradient", "text.onnx", "--wrt", "none", "-o", "none.onnx"],
        &["`none`", "mohs inspect --tensors"],
    );
    assert!(!message.contains("several"), "{message}");
}

#[test]
fn a_pinned_batch_is_freed_and_changes_nothing() {
    let sandbox = ready();
    let mut pinned = Tiny::linear();
    pinned.inputs = vec![info("x", DType::F32, &[Some(1), Some(4)])];
    pinned.outputs = vec![info("logits", DType::F32, &[Some(1), Some(3)])];
    pinned.write(&sandbox, "pinned.onnx");
    sandbox.run(&evaluate("model.onnx", "data.npz", &[]));
    let expected = sandbox.read("report/samples.csv");
    let (_, stderr) = sandbox.run(&evaluate("pinned.onnx", "data.npz", &[]));
    assert!(stderr.contains("pins the batch to 1"), "{stderr}");
    assert_eq!(sandbox.read("report/samples.csv"), expected);
}

#[test]
fn a_model_that_ends_in_softmax_is_said_to() {
    let sandbox = ready();
    sandbox.run(&evaluate("model.onnx", "data.npz", &[]));
    let expected = sandbox.read("report/samples.csv");
    Tiny::before(vec![joined("Softmax", &["scores"], &["logits"])]).write(&sandbox, "soft.onnx");
    let (stdout, _) = sandbox.run(&evaluate("soft.onnx", "data.npz", &[]));
    assert!(stdout.contains("[softmax-head]"), "{stdout}");
    assert!(stdout.contains("ends in Softmax"), "{stdout}");
    assert!(stdout.contains("--keep-softmax keeps it"), "{stdout}");
    // The logits are the same, so the attack is.
    let column = |text: &str, column: usize| -> Vec<String> {
        text.lines()
            .map(|line| line.split(',').nth(column).unwrap().to_owned())
            .collect()
    };
    let found = sandbox.read("report/samples.csv");
    for position in [0, 6, 7, 10] {
        assert_eq!(column(&found, position), column(&expected, position));
    }
    let (stdout, _) = sandbox.run(&evaluate("soft.onnx", "data.npz", &["--keep-softmax"]));
    assert!(!stdout.contains("ends in Softmax"), "{stdout}");
    assert!(stdout.contains("[softmax-head]"), "{stdout}");
    let (_, stderr) = sandbox.run(&["gradient", "soft.onnx", "-o", "gradient.onnx"]);
    assert!(stderr.contains("ends in Softmax"), "{stderr}");
}

#[test]
fn inspect_shows_inputs_operators_and_what_is_missing() {
    let sandbox = ready();
    let (text, stderr) = sandbox.run(&["inspect", &shipped("digits-standard.onnx")]);
    assert_eq!(stderr, "");
    for word in [
        "opset",
        "ai.onnx 18",
        "float32",
        "[batch, 1, 8, 8]",
        "logits",
        "Conv",
        "19,178",
        "every operator can be differentiated",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (text, _) = sandbox.run(&["inspect", "model.onnx", "--tensors"]);
    assert_eq!(text, "logits\n");
}

#[test]
fn quiet_says_nothing_but_the_result() {
    let sandbox = ready();
    let (loud, _) = sandbox.run(&evaluate("model.onnx", "data.npz", &[]));
    let (quiet, stderr) = sandbox.run(&evaluate("model.onnx", "data.npz", &["--quiet"]));
    assert_eq!(stderr, "");
    // The times differ.
    assert_eq!(quiet.lines().count(), loud.lines().count());
    let (_, stderr) = sandbox.run(&["--quiet", "gradient", "model.onnx", "-o", "g.onnx"]);
    assert_eq!(stderr, "");
    let (_, stderr) = sandbox.run(&evaluate("model.onnx", "data.npz", &["-v"]));
    assert!(stderr.contains("mohs: debug: ONNX Runtime 1."), "{stderr}");
    // Errors are said all the same.
    sandbox.refused(&evaluate("none.onnx", "data.npz", &["-q"]), &["none.onnx"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = ready();
    let evaluation = evaluate("model.onnx", "data.npz", &["--quiet"]);
    for arguments in [
        &evaluation[..],
        &["list", "operators"],
        &["inspect", "model.onnx"],
    ] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mohs"))
            .args(arguments)
            .current_dir(sandbox.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let (code, _, stderr) = texts(&child.wait_with_output().unwrap());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn double_and_half_precision_models_are_attacked_too() {
    let sandbox = ready();
    for (dtype, name) in [(DType::F64, "double.onnx"), (DType::F16, "half.onnx")] {
        let mut tiny = Tiny::behind(vec![cast("x", "inner", DType::F32)]);
        tiny.inputs = vec![info("x", dtype, &[N, Some(4)])];
        tiny.write(&sandbox, name);
        let (stdout, _) = sandbox.run(&evaluate(name, "data.npz", &[]));
        assert!(stdout.contains("worst-case"), "{stdout}");
    }
}

fn cast(from: &str, to: &str, dtype: DType) -> mohs::onnx::proto::NodeProto {
    let mut node = joined("Cast", &[from], &[to]);
    node.attribute
        .push(mohs::graph::Attribute::Int(dtype.to_onnx().into()).to_proto("to"));
    node
}
