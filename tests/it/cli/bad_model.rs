//! Models that cannot be used.

use super::fixtures::{N, Tiny, constant, evaluate, named, npz, ready, samples};
use super::{Sandbox, shipped};
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::graph::Attribute;
use mohs::onnx::proto::NodeProto;
use mohs::onnx::{encode, from_tensor};
use mohs::tensor::{DType, Tensor};

/// Evaluates `bad.onnx` of a sandbox that has data.
fn refused(sandbox: &Sandbox, more: &[&str], words: &[&str]) -> String {
    sandbox.refused(&evaluate("bad.onnx", "data.npz", more), words)
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let sandbox = ready();
    std::fs::write(sandbox.path("bad.onnx"), "<html>404 not found</html>").unwrap();
    refused(&sandbox, &[], &["bad.onnx", "no ONNX model"]);
    for command in [
        &["inspect", "bad.onnx"][..],
        &["gradient", "bad.onnx", "-o", "gradient.onnx"],
    ] {
        sandbox.refused(command, &["bad.onnx", "no ONNX model"]);
    }
}

#[test]
fn an_empty_file_is_refused() {
    let sandbox = ready();
    std::fs::write(sandbox.path("bad.onnx"), "").unwrap();
    refused(&sandbox, &[], &["bad.onnx", "empty"]);
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let sandbox = ready();
    let whole = std::fs::read(shipped("digits-standard.onnx")).unwrap();
    for part in [2, 3, 50] {
        std::fs::write(sandbox.path("bad.onnx"), &whole[..whole.len() / part]).unwrap();
        refused(&sandbox, &[], &["bad.onnx", "truncated"]);
    }
}

#[test]
fn a_missing_file_and_a_folder_are_refused() {
    let sandbox = ready();
    std::fs::create_dir(sandbox.path("bad.onnx")).unwrap();
    refused(&sandbox, &[], &["bad.onnx", "folder"]);
    let message = sandbox.refused(
        &evaluate("modle.onnx", "data.npz", &[]),
        &["modle.onnx", "no such file"],
    );
    assert!(message.contains("model.onnx"), "no suggestion in {message}");
}

#[test]
fn operators_that_have_no_rule_are_all_listed_and_nothing_is_written() {
    let sandbox = ready();
    // Operators of ONNX Runtime's own, which it runs and mohs does not differentiate.
    let mut tiny = Tiny::behind(vec![
        named("first/half", own("Trilu", "x", "a")),
        named("second/half", own("Trilu", "a", "b")),
        named("third/sample", own("SampleOp", "b", "inner")),
        // Not on the way from the input to the scores.
        named("aside", own("Trilu", "weights", "unused")),
    ]);
    tiny.domains.push("com.microsoft");
    tiny.write(&sandbox, "bad.onnx");
    let words = [
        "Trilu",
        "first/half",
        "second/half",
        "SampleOp",
        "third/sample",
    ];
    let message = refused(&sandbox, &[], &words);
    assert!(!message.contains("aside"), "{message}");
    sandbox.refused(&["gradient", "bad.onnx", "-o", "gradient.onnx"], &words);
    let (text, _) = sandbox.run(&["inspect", "bad.onnx"]);
    assert!(text.contains("no rule for"), "{text}");
}

/// A node of an operator that only ONNX Runtime has.
fn own(op_type: &str, input: &str, output: &str) -> NodeProto {
    NodeProto {
        domain: Some("com.microsoft".into()),
        ..joined(op_type, &[input], &[output])
    }
}

#[test]
fn operators_that_nobody_knows_are_all_named() {
    let sandbox = ready();
    let foreign = |name, op_type, input, output| NodeProto {
        domain: Some("acme".into()),
        ..named(name, joined(op_type, &[input], &[output]))
    };
    let mut tiny = Tiny::behind(vec![
        foreign("secret/node", "Sauce", "x", "a"),
        joined("Relu", &["a"], &["b"]),
        foreign("last/node", "Spice", "b", "inner"),
    ]);
    tiny.domains.push("acme");
    tiny.write(&sandbox, "bad.onnx");
    let words = [
        "2 nodes",
        "acme::Sauce",
        "secret/node",
        "acme::Spice",
        "last/node",
    ];
    refused(&sandbox, &[], &words);
    let (text, _) = sandbox.run(&["inspect", "bad.onnx"]);
    assert!(text.contains("Sauce"), "{text}");
}

#[test]
fn shapes_that_depend_on_the_data_are_named_wherever_they_are_seen() {
    let sandbox = ready();
    // The sum of the elements above a half, as many as there are.
    let mut tiny = Tiny::behind(vec![
        joined("Greater", &["x", "half"], &["above"]),
        joined("NonZero", &["above"], &["found"]),
        joined("Transpose", &["found"], &["places"]),
        named("picks", joined("GatherND", &["x", "places"], &["picked"])),
        joined("ReduceSum", &["picked"], &["sum"]),
        joined("Add", &["x", "sum"], &["inner"]),
    ]);
    tiny.initializers.push(constant("half", &[], &[0.5]));
    tiny.write(&sandbox, "bad.onnx");
    refused(&sandbox, &[], &["picks", "depends on the data"]);
}

#[test]
fn a_model_without_a_float_input_is_refused() {
    let sandbox = ready();
    let mut tiny = Tiny::behind(vec![joined("Gather", &["table", "x"], &["inner"])]);
    tiny.inputs = vec![info("x", DType::I64, &[N])];
    tiny.initializers
        .push(constant("table", &[2, 4], &[0.5; 8]));
    tiny.write(&sandbox, "bad.onnx");
    refused(&sandbox, &[], &["no float input", "x: int64", "--wrt"]);
}

#[test]
fn a_dynamic_axis_beyond_the_batch_needs_a_shape_and_works_with_it() {
    let sandbox = ready();
    let mut tiny = Tiny::linear();
    tiny.inputs = vec![info("x", DType::F32, &[N, None])];
    tiny.write(&sandbox, "bad.onnx");
    refused(&sandbox, &[], &["dynamic axis", "`x: ", "--input-shape"]);
    refused(
        &sandbox,
        &["--input-shape", "2,2"],
        &["--input-shape", "x: "],
    );
    sandbox.run(&evaluate("bad.onnx", "data.npz", &["--input-shape", "4"]));
}

#[test]
fn several_inputs_need_a_choice() {
    let sandbox = ready();
    let mut tiny = Tiny::behind(vec![joined("Add", &["x", "offset"], &["inner"])]);
    tiny.inputs.push(info("offset", DType::F32, &[N, Some(4)]));
    tiny.write(&sandbox, "bad.onnx");
    refused(
        &sandbox,
        &[],
        &["several float inputs", "--input", "x: ", "offset: "],
    );
    refused(&sandbox, &["--input", "y"], &["no input `y`", "offset: "]);
    // Chosen, the other one is still there, and the data set has nothing for it.
    refused(
        &sandbox,
        &["--input", "x"],
        &["further inputs (offset)", "nothing for them"],
    );
    let arguments = ["gradient", "bad.onnx", "-o", "g.onnx", "--input", "offset"];
    sandbox.run(&arguments);
    assert!(sandbox.path("g.onnx").exists());
}

#[test]
fn several_outputs_need_a_choice_and_work_with_it() {
    let sandbox = ready();
    let mut tiny = Tiny::linear();
    tiny.nodes.push(joined("Relu", &["logits"], &["positive"]));
    tiny.outputs
        .push(info("positive", DType::F32, &[N, Some(3)]));
    tiny.write(&sandbox, "bad.onnx");
    refused(
        &sandbox,
        &[],
        &["several outputs", "--output", "logits: ", "positive: "],
    );
    refused(
        &sandbox,
        &["--output", "scores"],
        &["no output `scores`", "positive: "],
    );
    sandbox.run(&evaluate("bad.onnx", "data.npz", &["--output", "logits"]));
}

#[test]
fn a_model_without_class_scores_is_refused() {
    let sandbox = ready();
    let mut tiny = Tiny::before(vec![joined("ReduceSum", &["scores"], &["logits"])]);
    tiny.outputs = vec![info("logits", DType::F32, &[])];
    tiny.write(&sandbox, "bad.onnx");
    refused(&sandbox, &[], &["class scores", "logits: "]);
}

#[test]
fn one_score_for_two_classes_is_as_good_as_two() {
    let sandbox = ready();
    let mut tiny = Tiny::before(vec![
        joined("Gather", &["scores", "first"], &["one"]),
        joined("Sigmoid", &["one"], &["logits"]),
    ]);
    tiny.nodes[1]
        .attribute
        .push(Attribute::Int(1).to_proto("axis"));
    tiny.initializers.push(from_tensor(
        "first",
        &Tensor::new(&[1], vec![0i64]).unwrap(),
    ));
    tiny.outputs = vec![info("logits", DType::F32, &[N, Some(1)])];
    tiny.write(&sandbox, "bad.onnx");
    let (x, labels) = samples();
    npz(
        &sandbox,
        "two.npz",
        &x.into_dyn(),
        &labels.mapv(|label| i64::from(label == 0)),
    );
    let arguments = evaluate("bad.onnx", "two.npz", &[]);
    let (_, said) = sandbox.run(&arguments);
    assert!(said.contains("class 1 against class 0"), "{said}");
}

#[test]
fn a_model_that_gives_nan_is_refused() {
    let sandbox = ready();
    // The logarithm of what is negative for every sample.
    let nan = Tiny::before(vec![
        joined("Abs", &["scores"], &["size"]),
        joined("Neg", &["size"], &["negative"]),
        joined("Log", &["negative"], &["logits"]),
    ]);
    nan.write(&sandbox, "bad.onnx");
    refused(&sandbox, &[], &["NaN for class 0 of sample 0", "logarithm"]);
    // Finite scores with a gradient that is not: a root at 0.
    let mut root = Tiny::behind(vec![
        joined("Sub", &["x", "x0"], &["difference"]),
        joined("Abs", &["difference"], &["distance"]),
        joined("Pow", &["distance", "half"], &["inner"]),
    ]);
    root.initializers.push(constant("half", &[], &[-0.5]));
    root.initializers
        .push(constant("x0", &[4], &[0.9, 0.2, 0.1, 0.5]));
    root.write(&sandbox, "bad.onnx");
    refused(&sandbox, &["--limit", "1"], &["NaN"]);
}

#[test]
fn a_loss_that_needs_more_classes_is_refused() {
    let sandbox = ready();
    let mut tiny = Tiny::linear();
    tiny.initializers = vec![
        constant(
            "weights",
            &[4, 2],
            &[1.0, -1.0, -1.0, 1.0, 0.5, 0.5, 0.0, 1.0],
        ),
        constant("bias", &[2], &[0.0, 0.1]),
    ];
    tiny.outputs = vec![info("logits", DType::F32, &[N, Some(2)])];
    tiny.write(&sandbox, "bad.onnx");
    let (x, _) = samples();
    npz(
        &sandbox,
        "data.npz",
        &x.into_dyn(),
        &ndarray::array![0, 0, 1, 1, 1, 0],
    );
    refused(
        &sandbox,
        &["--attack", "pgd:loss=dlr"],
        &["2 classes", "dlr", "3"],
    );
    sandbox.refused(
        &["gradient", "bad.onnx", "-o", "g.onnx", "--loss", "dlr"],
        &["2 classes", "dlr"],
    );
}

#[test]
fn weights_outside_the_folder_of_the_model_are_refused() {
    let sandbox = ready();
    let mut model = Tiny::linear().model();
    let tensor = &mut model.graph.as_mut().unwrap().initializer[0];
    tensor.raw_data = None;
    tensor.float_data.clear();
    tensor.data_location = Some(1);
    tensor.external_data = vec![mohs::onnx::proto::StringStringEntryProto {
        key: Some("location".into()),
        value: Some("../secret.bin".into()),
    }];
    std::fs::write(sandbox.path("bad.onnx"), encode(&model)).unwrap();
    refused(&sandbox, &[], &["../secret.bin"]);
}

#[test]
fn a_gradient_graph_that_does_not_fit_is_refused() {
    let sandbox = ready();
    let with = |file| evaluate("model.onnx", "data.npz", &["--gradient", file]);
    // One that breaks the contract: the model itself.
    sandbox.refused(&with("model.onnx"), &["model.onnx", "`labels`"]);
    // One of another model with the same names and shapes.
    let mut other = Tiny::linear();
    other.initializers[1] = constant("bias", &[3], &[0.3, 0.1, 0.0]);
    other.write(&sandbox, "other.onnx");
    sandbox.run(&["gradient", "other.onnx", "-o", "other-gradient.onnx"]);
    sandbox.refused(
        &with("other-gradient.onnx"),
        &["other-gradient.onnx", "another"],
    );
    // One of the model itself, with the gradient turned round.
    sandbox.run(&["gradient", "model.onnx", "-o", "gradient.onnx"]);
    let mut wrong = mohs::onnx::read(&sandbox.path("gradient.onnx")).unwrap();
    let graph = wrong.graph.as_mut().unwrap();
    for node in &mut graph.node {
        for name in node.output.iter_mut().filter(|name| *name == "grad") {
            *name = "descent".into();
        }
    }
    graph.node.push(joined("Neg", &["descent"], &["grad"]));
    mohs::onnx::write(&wrong, &sandbox.path("wrong.onnx")).unwrap();
    sandbox.refused(&with("wrong.onnx"), &["wrong.onnx", "gradient"]);
    // One that gives no numbers.
    let graph = wrong.graph.as_mut().unwrap();
    graph.node.pop();
    graph.node.push(joined("Sqrt", &["descent"], &["grad"]));
    mohs::onnx::write(&wrong, &sandbox.path("nan.onnx")).unwrap();
    sandbox.refused(&with("nan.onnx"), &["nan.onnx", "gradient"]);
    // One for another loss than the attack's.
    let arguments = [
        "gradient",
        "model.onnx",
        "-o",
        "margin.onnx",
        "--loss",
        "margin",
    ];
    sandbox.run(&arguments);
    sandbox.refused(&with("margin.onnx"), &["margin", "loss=margin"]);
    sandbox.refused(&with("none.onnx"), &["none.onnx"]);
}
