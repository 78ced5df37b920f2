//! `gradient --check`: what is right has to agree, and what is wrong has to be caught.

use crate::cli::{Sandbox, shipped, texts};
use mohs::data::{Batch, Dataset, Options, Source};
use mohs::graph::{Builder, Expr};
use mohs::loss::Loss;
use mohs::model::slope::{Agreement, Samples, Verdict, compare};
use mohs::model::{GradientGraph, GradientOptions, Model, ModelOptions};
use std::path::PathBuf;

fn quantized(name: &str) -> PathBuf {
    crate::sources::root().join("tests/quantized").join(name)
}

/// A model with samples for it.
struct Case {
    model: Model,
    batch: Batch,
}

impl Case {
    fn new(model: PathBuf, data: PathBuf, samples: usize, straight_through: bool) -> Self {
        crate::runtime_ready();
        let options = ModelOptions {
            straight_through,
            ..ModelOptions::default()
        };
        let model = Model::open(&model, &options).unwrap();
        let options = Options {
            input_shape: Some(model.sample_shape().to_vec()),
            ..Options::default()
        };
        let dataset = Dataset::open(&Source::new(data)).unwrap();
        let dataset = dataset.prepared(&options).unwrap();
        let mut batch = Batch::default();
        let mut rows = dataset.samples().unwrap();
        rows.read_batch(samples, &mut batch).unwrap();
        Case { model, batch }
    }

    fn digits() -> Self {
        let [model, data] = ["digits-standard.onnx", "digits-test.npz"].map(shipped);
        Case::new(model.into(), data.into(), 16, false)
    }

    fn quantized(name: &str) -> Self {
        let [model, data] = ["onnx", "npz"].map(|end| quantized(&format!("{name}.{end}")));
        let straight_through = !name.starts_with("half");
        Case::new(model, data, 8, straight_through)
    }

    fn gradient(&self, loss: Loss) -> GradientGraph {
        let options = GradientOptions {
            loss,
            ..GradientOptions::default()
        };
        self.model.gradient(&options).unwrap()
    }

    fn compare(&self, graph: &GradientGraph) -> Agreement {
        let samples = Samples {
            points: &self.batch.pixels,
            data: &[],
            labels: &self.batch.labels,
        };
        compare(&self.model, graph, &samples).unwrap()
    }

    /// The comparison with the gradient changed.
    fn changed(&self, change: impl for<'g> Fn(Expr<'g>) -> Expr<'g>) -> Agreement {
        self.compare(&changed(self.gradient(Loss::CrossEntropy), change))
    }
}

/// The same graph with another gradient.
fn changed(
    mut gradient: GradientGraph,
    change: impl for<'g> Fn(Expr<'g>) -> Expr<'g>,
) -> GradientGraph {
    let (_, output) = gradient.gradients[0];
    let mut graph = gradient.graph;
    // What the output is a name of.
    let place = graph
        .nodes
        .iter()
        .position(|node| node.outputs[0] == Some(output));
    let source = graph.nodes[place.unwrap()].inputs[0].unwrap();
    let named = graph.nodes.remove(place.unwrap());
    let builder = Builder::new(graph);
    builder.set_scope("changed");
    let result = change(builder.expr(source).unwrap()).id();
    graph = builder.into_graph();
    let mut named = named;
    named.inputs[0] = Some(result);
    graph.nodes.push(named);
    gradient.graph = graph;
    gradient
}

/// Half of the elements of each sample's gradient, from the first on.
fn first_half(gradient: Expr<'_>) -> Expr<'_> {
    let shape = gradient.shape();
    let axis = shape.len() - 2;
    let half = shape[axis].extent().unwrap() / 2;
    let mut after = vec![0; shape.len()];
    after[axis] = shape[axis].extent().unwrap() - half;
    let kept = gradient.slice(axis, 0, mohs::graph::Dim::fixed(half));
    kept.pad(&vec![0; shape.len()], &after)
}

fn disagrees(agreement: &Agreement) -> bool {
    matches!(agreement.verdict(), Verdict::Disagrees { .. })
}

#[test]
fn every_loss_of_a_derived_gradient_agrees() {
    let case = Case::digits();
    for loss in Loss::ALL {
        let found = case.compare(&case.gradient(loss));
        assert_eq!(found.verdict(), Verdict::Agrees, "{loss}: {found:#?}");
        assert!((found.slope_ratio() - 1.0).abs() < 0.02, "{found:?}");
    }
}

#[test]
fn wrong_gradients_are_caught() {
    let case = Case::digits();
    let wrong: [(&str, Agreement); 6] = [
        ("doubled", case.changed(|g| g * 2.0)),
        ("a tenth too long", case.changed(|g| g * 1.1)),
        ("turned round", case.changed(|g| -g)),
        ("zero", case.changed(|g| g * 0.0)),
        ("shuffled", case.changed(|g| g.reverse(&[2, 3]))),
        ("half of it", case.changed(first_half)),
    ];
    for (what, found) in wrong {
        assert!(disagrees(&found), "{what}: {found:#?}");
    }
}

#[test]
fn a_zero_gradient_is_counted() {
    let case = Case::digits();
    let found = case.changed(|g| g * 0.0);
    assert_eq!(found.dead(), 16);
}

#[test]
fn half_precision_agrees_within_its_rounding_and_what_is_wrong_is_caught() {
    for name in ["half-legacy", "half-dynamo", "half-converted"] {
        let case = Case::quantized(name);
        let found = case.changed(|g| g);
        assert_eq!(found.verdict(), Verdict::Agrees, "{name}: {found:#?}");
        let doubled = case.changed(|g| g * 2.0);
        assert!(disagrees(&doubled), "{name}: {doubled:#?}");
        assert!(disagrees(&case.changed(|g| -g)), "{name}");
        assert!(disagrees(&case.changed(|g| g * 0.0)), "{name}");
        assert!(disagrees(&case.changed(|g| g.reverse(&[2, 3]))), "{name}");
    }
}

#[test]
fn straight_through_agrees_with_what_passes_through_and_what_is_wrong_is_caught() {
    for name in ["qdq", "qdq-per-channel", "qoperator", "dynamic", "rounding"] {
        let case = Case::quantized(name);
        let found = case.changed(|g| g);
        assert!(found.straight_through);
        assert_eq!(found.verdict(), Verdict::Agrees, "{name}: {found:#?}");
        // Samples at a kink are compared beside it; quantised values tie often.
        let slopes = found.samples.iter().map(|at| at.slope / at.length);
        let mut slopes: Vec<f64> = slopes.collect();
        slopes.sort_by(f64::total_cmp);
        assert!((slopes[4] - 1.0).abs() < 0.02, "{name}: {slopes:?}");
        assert!(disagrees(&case.changed(|g| g * 2.0)), "{name}");
        assert!(disagrees(&case.changed(|g| g * 1.1)), "{name}");
        assert!(disagrees(&case.changed(|g| -g)), "{name}");
        assert!(disagrees(&case.changed(|g| g * 0.0)), "{name}");
        let shuffled = case.changed(|g| g.reverse(&[2, 3]));
        assert!(disagrees(&shuffled), "{name}: {shuffled:#?}");
    }
}

#[test]
fn the_command_shows_what_it_found_and_writes_what_agrees() {
    crate::runtime_ready();
    let sandbox = Sandbox::new();
    let [model, data] = ["digits-standard.onnx", "digits-test.npz"].map(shipped);
    let arguments = [
        "gradient", &model, "--check", &data, "--limit", "8", "-o", "g.onnx",
    ];
    let (stdout, _) = sandbox.run(&arguments);
    assert!(stdout.contains("8: 8 agree, 0 disagree"), "{stdout}");
    assert_eq!(sandbox.names(), ["g.onnx"]);
    let again = [
        "gradient",
        &model,
        "--check",
        &data,
        "--limit",
        "8",
        "--gradient",
        "g.onnx",
    ];
    let (found, _) = sandbox.run(&again);
    assert_eq!(found, stdout);
}

#[test]
fn a_wrong_file_ends_with_1_and_an_evaluation_refuses_it() {
    let case = Case::digits();
    let sandbox = Sandbox::new();
    let wrong = changed(case.gradient(Loss::CrossEntropy), |g| g * 2.0);
    let path = sandbox.path("wrong.onnx");
    mohs::onnx::write(&wrong.graph.to_model(), &path).unwrap();
    let [model, data] = ["digits-standard.onnx", "digits-test.npz"].map(shipped);
    let check = [
        "gradient",
        &model,
        "--check",
        &data,
        "--limit",
        "8",
        "--gradient",
        "wrong.onnx",
    ];
    let (code, stdout, stderr) = texts(&sandbox.mohs(&check).output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.contains("0 agree, 8 disagree"), "{stdout}");
    assert!(
        stderr.contains("is not that of the model's loss for 8 of 8"),
        "{stderr}"
    );
    let evaluate = [
        "evaluate",
        &model,
        "--data",
        &data,
        "--epsilon",
        "0.1",
        "--gradient",
        "wrong.onnx",
    ];
    sandbox.refused(&evaluate, &["is not that of the model"]);
}

#[test]
fn flags_of_data_without_a_check_are_refused() {
    let sandbox = Sandbox::new();
    let model = shipped("digits-standard.onnx");
    sandbox.refused(
        &["gradient", &model, "-o", "g.onnx", "--limit", "3"],
        &["--check"],
    );
    sandbox.refused(&["gradient", &model], &["--out"]);
}
