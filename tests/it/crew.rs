//! Several workers: who works on what changes no verdict, and the same run gives the same numbers to the last bit.

use crate::attacks::{Collector, config, digits_data, root};
use mohs::evaluate::{Config, evaluate};
use mohs::model::{Model, ModelOptions};
use mohs::runtime::SessionOptions;
use mohs::threat::Norm;

/// Attacks of both loops, with and without a search for the nearest point.
const ATTACKS: [&str; 4] = [
    "pgd:steps=12,restarts=2",
    "fmn:steps=12",
    "square:queries=60",
    "hopskipjump:queries=60",
];

fn run(attack: &str, threads: usize, slots: usize) -> Collector {
    crate::runtime_ready();
    let options = ModelOptions {
        session: SessionOptions {
            threads: Some(threads),
            ..SessionOptions::default()
        },
        ..ModelOptions::default()
    };
    let path = root().join("models/digits-standard.onnx");
    let model = Model::open(&path, &options).unwrap();
    let data = digits_data(&model, 40);
    let config = Config {
        batch_size: Some(slots),
        ..config(attack, Norm::L2, &[0.3, 0.9])
    };
    let mut collector = Collector::default();
    evaluate(&model, &data, &config, None, &mut collector).unwrap();
    collector
}

#[test]
fn the_number_of_workers_changes_no_verdict() {
    for attack in ATTACKS {
        let alone = run(attack, 1, 16).outcomes;
        assert!(alone.iter().any(|o| o.robust) && alone.iter().any(|o| !o.robust));
        for threads in [2, 3, 5] {
            let several = run(attack, threads, 16).outcomes;
            assert_eq!(alone.len(), several.len(), "{attack}");
            for (a, b) in alone.iter().zip(&several) {
                let of = |o: &mohs::outcome::SampleOutcome| {
                    (o.index, o.robust, o.adversarial_prediction, o.steps)
                };
                assert_eq!(of(a), of(b), "{attack} on {threads} threads");
                assert!((a.l2 - b.l2).abs() <= 1e-5 * a.l2.max(1.0), "{attack}");
            }
        }
    }
}

#[test]
fn a_run_on_several_threads_gives_the_same_bits_in_the_same_order_every_time() {
    for attack in ATTACKS {
        let first = run(attack, 3, 8);
        assert!(!first.points.is_empty(), "{attack}");
        for _ in 0..3 {
            let again = run(attack, 3, 8);
            assert_eq!(first.points, again.points, "{attack}");
            assert_eq!(first.outcomes, again.outcomes, "{attack}");
        }
    }
}

#[test]
fn more_workers_than_samples_are_no_trouble() {
    let outcomes = run("pgd:steps=3", 64, 256).outcomes;
    assert_eq!(outcomes.len(), 80);
}
