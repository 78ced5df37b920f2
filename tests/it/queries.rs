//! Attacks without gradients, end to end: on networks, and on models that have no gradient at all.

use crate::attacks::{Collector, config, digits, digits_data, root};
use mohs::evaluate::{Config, Error, evaluate};
use mohs::model::{Answers, Model, ModelOptions};
use mohs::outcome::SampleOutcome;
use mohs::threat::{Bounds, Norm};

/// Decision trees, with their probabilities or with labels alone.
fn forest(output: &str) -> Model {
    crate::runtime_ready();
    let options = ModelOptions {
        output: Some(output.to_owned()),
        ..ModelOptions::default()
    };
    Model::open(&root().join("tests/trees/forest.onnx"), &options).unwrap()
}

fn run(model: &Model, limit: u64, config: &Config) -> Collector {
    let data = digits_data(model, limit);
    let mut collector = Collector::default();
    evaluate(model, &data, config, None, &mut collector).unwrap();
    collector
}

/// Everything of an outcome, as it is written.
fn written(outcomes: &[SampleOutcome]) -> Vec<String> {
    outcomes
        .iter()
        .map(|outcome| format!("{outcome:?}"))
        .collect()
}

/// Peers draw squares and directions for a whole batch: what a sample gets then depends on those beside it.
#[test]
fn the_batch_size_changes_no_bit() {
    for (model, attacks, norm, radii) in [
        (
            digits("standard"),
            "square:queries=60,restarts=2",
            Norm::Linf,
            [0.05, 0.1],
        ),
        (
            digits("standard"),
            "square:queries=60,boundary:queries=300,hopskipjump:queries=300",
            Norm::L2,
            [0.3, 0.6],
        ),
        (
            forest("probabilities"),
            "square:queries=60",
            Norm::Linf,
            [0.02, 0.1],
        ),
        (
            forest("label"),
            "hopskipjump:queries=300",
            Norm::Linf,
            [0.1, 0.2],
        ),
    ] {
        let of_size = |size| {
            let config = Config {
                batch_size: Some(size),
                ..config(attacks, norm, &radii)
            };
            written(&run(&model, 30, &config).outcomes)
        };
        let one = of_size(1);
        assert!(!one.is_empty());
        for size in [7, 64] {
            assert_eq!(one, of_size(size), "{attacks}, batches of {size}");
        }
    }
}

#[test]
fn every_reported_point_is_allowed_and_wrong() {
    for (model, attack, norm, radii) in [
        (
            Box::new(digits("standard")),
            "square:queries=200",
            Norm::Linf,
            [0.05, 0.1],
        ),
        (
            Box::new(digits("standard")),
            "square:queries=200",
            Norm::L2,
            [0.3, 0.6],
        ),
        (
            Box::new(digits("standard")),
            "boundary:queries=500",
            Norm::L2,
            [0.4, 1.0],
        ),
        (
            Box::new(digits("standard")),
            "hopskipjump:queries=500",
            Norm::Linf,
            [0.05, 0.2],
        ),
        (
            Box::new(forest("probabilities")),
            "square:queries=200",
            Norm::Linf,
            [0.05, 0.1],
        ),
        (
            Box::new(forest("label")),
            "hopskipjump:queries=500",
            Norm::L2,
            [0.3, 1.0],
        ),
    ] {
        let collector = run(&model, 40, &config(attack, norm, &radii));
        let data = digits_data(&model, 40);
        let mut judge = model.judge().unwrap();
        let mut batch = mohs::data::Batch::default();
        data.samples().unwrap().read_batch(40, &mut batch).unwrap();
        let width = data.sample_len();
        assert!(!collector.points.is_empty(), "{attack}");
        for (index, point) in &collector.points {
            let row = usize::try_from(*index).unwrap();
            let clean = &batch.pixels[row * width..][..width];
            let outcomes = collector.outcomes.iter();
            let mut broken = outcomes.filter(|o| o.index == *index && !o.robust);
            let first = broken.next().unwrap();
            assert!(norm.distance(clean, point) <= first.epsilon, "{attack}");
            assert!(point.iter().all(|&value| Bounds::UNIT.contain(value)));
            let label = batch.labels[row];
            let verdict = judge.judge(point, &[], &[label]).unwrap()[0];
            assert_ne!(verdict.prediction, label, "{attack}");
        }
    }
}

/// A minimum-norm attack runs once, and what it finds counts for every radius from its distance on.
#[test]
fn the_nearest_point_breaks_every_larger_radius_and_is_paid_for_once() {
    let model = digits("standard");
    let radii = [0.01, 0.5, 1.0, 2.0];
    let collector = run(
        &model,
        20,
        &config("hopskipjump:queries=400", Norm::L2, &radii),
    );
    for rows in collector.outcomes.chunks(radii.len()) {
        if rows[0].clean_prediction != rows[0].label {
            continue;
        }
        assert_eq!(rows.iter().map(|row| row.steps).sum::<u64>(), 400);
        let distance = rows.iter().find(|row| !row.robust).map(|row| row.l2);
        for row in rows {
            let within = distance.is_some_and(|distance| distance <= row.epsilon);
            assert_eq!(!row.robust, within);
        }
    }
    assert!(
        collector
            .outcomes
            .iter()
            .any(|row| !row.robust && row.l2 > 0.0)
    );
}

#[test]
fn trees_are_broken_and_no_gradient_is_counted() {
    let model = forest("probabilities");
    assert_eq!(model.answers(), Answers::Probabilities { classes: 10 });
    let data = digits_data(&model, 60);
    let config = config("square:queries=300", Norm::Linf, &[0.02, 0.1]);
    let report = evaluate(&model, &data, &config, None, &mut ()).unwrap();
    let [near, far] = [&report.summary[0], &report.summary[1]];
    assert!(near.clean_accuracy > 0.85);
    assert!(far.robust_accuracy < near.robust_accuracy);
    assert!(far.robust_accuracy < 0.5);
    assert!(
        report
            .summary
            .iter()
            .all(|row| row.gradient_evaluations == 0)
    );
}

#[test]
fn labels_alone_are_enough_for_hopskipjump_and_give_no_loss() {
    let model = forest("label");
    assert_eq!(model.answers(), Answers::Labels);
    let collector = run(
        &model,
        20,
        &config("hopskipjump:queries=500", Norm::L2, &[1.0]),
    );
    assert!(collector.outcomes.iter().any(|row| !row.robust));
    assert!(collector.outcomes.iter().all(|row| row.loss.is_nan()));
}

#[test]
fn attacks_that_do_not_fit_a_model_name_those_that_do() {
    for (output, attack, expected) in [
        (
            "probabilities",
            "pgd",
            "`pgd` follows gradients; attack this model with square, which goes by the scores alone, or hopskipjump, which goes by the labels",
        ),
        (
            "label",
            "fgsm",
            "`fgsm` follows gradients; attack this model with hopskipjump, which goes by the labels alone",
        ),
        (
            "label",
            "square",
            "`square` goes by scores, and the model's output `label` has labels alone; use hopskipjump, which needs no more than that",
        ),
    ] {
        let model = forest(output);
        let data = digits_data(&model, 5);
        let config = config(attack, Norm::Linf, &[0.1]);
        let result: Result<_, Error> = evaluate(&model, &data, &config, None, &mut ());
        let message = result.unwrap_err().to_string();
        assert!(message.ends_with(expected), "{message}");
    }
}
