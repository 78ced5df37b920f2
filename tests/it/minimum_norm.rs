//! Attacks that look for the nearest point, through the engine.

use crate::attacks::{Collector, config, digits, digits_data};
use mohs::attack::AttackPlan;
use mohs::evaluate::{Config, Keep, evaluate};
use mohs::outcome::SampleOutcome;
use mohs::threat::Norm;

/// Each attack, short, with the norms it is made for.
const ATTACKS: [(&str, &[Norm]); 5] = [
    ("fab:steps=8,targets=3", &Norm::CONVEX),
    ("fmn:steps=12", &Norm::ALL),
    ("ddn:steps=12", &[Norm::L2]),
    ("deepfool:steps=12,candidates=3", &[Norm::Linf, Norm::L2]),
    ("cw:steps=12,searches=2,step_size=0.3,weight=1", &[Norm::L2]),
];

/// A radius that no sample's boundary is beyond.
fn far(norm: Norm) -> f64 {
    match norm {
        Norm::Linf => 1.0,
        Norm::L2 => 8.0,
        Norm::L1 | Norm::L0 => 64.0,
    }
}

fn distance(norm: Norm, outcome: &SampleOutcome) -> f64 {
    match norm {
        Norm::Linf => outcome.linf,
        Norm::L2 => outcome.l2,
        Norm::L1 => outcome.l1,
        Norm::L0 => outcome.l0,
    }
}

fn run(attack: &str, norm: Norm, radii: &[f64], batch_size: usize) -> Collector {
    let model = digits("standard");
    let data = digits_data(&model, 16);
    let config = Config {
        batch_size: Some(batch_size),
        ..config(attack, norm, radii)
    };
    let mut collector = Collector::default();
    evaluate(&model, &data, &config, None, &mut collector).unwrap();
    collector
}

#[test]
fn the_batch_size_changes_no_distance() {
    for (attack, norms) in ATTACKS {
        for &norm in norms {
            let one = run(attack, norm, &[far(norm)], 1).outcomes;
            assert!(one.iter().any(|o| !o.robust && distance(norm, o) > 0.0));
            let sizes: &[usize] = if norm == Norm::L2 { &[7, 64] } else { &[7] };
            for &size in sizes {
                let several = run(attack, norm, &[far(norm)], size).outcomes;
                assert_eq!(one.len(), several.len());
                for (a, b) in one.iter().zip(&several) {
                    assert_eq!((a.index, a.robust), (b.index, b.robust), "{attack} {norm}");
                    let (a, b) = (distance(norm, a), distance(norm, b));
                    // The rounding of ONNX Runtime's kernels differs between batch sizes, and steps across kinks enlarge it.
                    assert!((a - b).abs() <= 1e-3 * a, "{attack} {norm} {size}: {a} {b}");
                }
            }
        }
    }
}

/// One run serves all radii: each is broken exactly where the distance is within it.
#[test]
fn every_radius_that_reaches_the_nearest_point_is_broken() {
    for (attack, norms) in ATTACKS {
        let norm = norms[0];
        let whole = run(attack, norm, &[far(norm)], 16);
        let mut found: Vec<f64> = whole
            .outcomes
            .iter()
            .filter(|o| !o.robust && o.clean_prediction == o.label)
            .map(|o| distance(norm, o))
            .collect();
        found.sort_by(f64::total_cmp);
        let middle = 0.5 * (found[found.len() / 2 - 1] + found[found.len() / 2]);
        let both = run(attack, norm, &[middle, far(norm)], 16);
        for pair in both.outcomes.chunks(2) {
            let [near, far] = pair else { unreachable!() };
            if near.clean_prediction != near.label {
                continue;
            }
            let beyond = far.robust || distance(norm, far) > middle;
            assert_eq!(near.robust, beyond, "{attack}");
            assert_eq!(near.steps, 0, "the steps are taken once");
            assert!(far.steps > 0);
        }
        // Trap: where nothing is found, the clean sample is not handed out as an adversarial example.
        let broken = both.outcomes.iter().filter(|o| !o.robust && o.steps > 0);
        assert_eq!(both.points.len(), broken.count(), "{attack}");
        assert!(
            both.outcomes
                .iter()
                .all(|o| o.robust || o.adversarial_prediction != o.label)
        );
    }
}

#[test]
fn what_points_are_kept_changes_nothing_for_an_attack_that_looks_for_the_nearest() {
    let model = digits("standard");
    let data = digits_data(&model, 12);
    let distances = |keep| {
        let config = Config {
            keep,
            ..config("fmn:steps=12", Norm::L2, &[8.0])
        };
        let mut collector = Collector::default();
        evaluate(&model, &data, &config, None, &mut collector).unwrap();
        let outcomes = collector.outcomes.into_iter();
        outcomes.map(|outcome| outcome.l2).collect::<Vec<_>>()
    };
    assert_eq!(distances(Keep::Any), distances(Keep::Last));
}

/// ℓ0 counts elements: the point that is handed out differs from the clean sample in exactly so many.
#[test]
fn in_l0_the_distance_is_the_number_of_changed_elements() {
    let found = run("fmn:steps=30", Norm::L0, &[64.0], 16);
    let broken = || found.outcomes.iter().filter(|o| !o.robust && o.steps > 0);
    assert!(broken().any(|outcome| outcome.l0 < 32.0));
    for outcome in broken() {
        assert!(outcome.l0 >= 1.0 && outcome.l0.fract() == 0.0);
        assert!(outcome.l1 <= outcome.l0 * outcome.linf + 1e-9);
    }
}

#[test]
fn every_attack_but_fmn_refuses_l0_and_says_what_to_use() {
    for spec in mohs::attack::ATTACKS {
        // What has to be given, is.
        let source = match spec.name {
            "transfer" => ":source=other.onnx",
            _ => "",
        };
        let plan = AttackPlan::parse(&format!("{}{source}", spec.name)).unwrap();
        match plan.check_norm(Norm::L0) {
            Ok(()) => assert_eq!(spec.name, "fmn"),
            Err(error) => {
                let message = error.to_string();
                let names_one = ["fmn", "fgm", "linf", "hopskipjump"];
                assert!(
                    names_one.iter().any(|name| message.contains(name)),
                    "{message}"
                );
                assert_ne!(spec.name, "fmn", "{message}");
            }
        }
    }
}
