//! Which points an attack visits, which of them are judged, and what is reported.

use super::Case;
use crate::attacks::{Collector, config, digits, digits_data};
use crate::cli::fixtures::{Tiny, constant, samples};
use crate::lift::joined;
use mohs::evaluate::{Config, Keep, evaluate};
use mohs::model::Model;
use mohs::outcome::SampleOutcome;
use mohs::threat::{Bounds, Norm};
use std::collections::BTreeMap;

fn run(model: &Model, limit: u64, config: &Config) -> Collector {
    let data = digits_data(model, limit);
    let mut collector = Collector::default();
    evaluate(model, &data, config, None, &mut collector).unwrap();
    collector
}

/// Samples, and the linear model behind a wave: what lies half a wave further is wrong, and a whole wave further right again.
fn wave() -> Case {
    let mut tiny = Tiny::behind(vec![
        joined("Mul", &["x", "many"], &["fast"]),
        joined("Cos", &["fast"], &["inner"]),
    ]);
    tiny.initializers.push(constant("many", &[], &[62.831_853]));
    let (mut x, y) = samples();
    for (mut row, class) in x.rows_mut().into_iter().zip(&y) {
        for (column, value) in row.iter_mut().enumerate() {
            let own = column as i64 == *class;
            *value = if own { 0.502 } else { 0.452 };
        }
    }
    Case::new(&tiny, x, &y)
}

#[test]
fn a_point_on_the_way_that_breaks_the_sample_counts() {
    let case = wave();
    let robust = |keep| {
        let attack = "pgd:steps=2,step_size=0.05,random_start=false";
        let config = Config {
            keep,
            ..config(attack, Norm::Linf, &[0.1])
        };
        case.run(&config).1.summary[0].robust_accuracy
    };
    let last = robust(Keep::Last);
    assert!(
        last > 0.5,
        "half a wave further on it is right again: {last}"
    );
    assert_eq!(robust(Keep::Any), 0.0);
}

#[test]
fn a_sample_that_is_wrong_as_it_is_counts_as_broken_without_a_step() {
    let (x, mut y) = samples();
    y[0] = 1;
    y[5] = 0;
    let case = Case::new(&Tiny::linear(), x, &y);
    for attack in ["fgsm", "pgd", "apgd", "fab", "square:queries=20"] {
        let (collector, report) = case.run(&config(attack, Norm::Linf, &[1e-4]));
        let row = &report.summary[0];
        let four = 4.0 / 6.0;
        assert_eq!(
            (row.clean_accuracy, row.robust_accuracy),
            (four, four),
            "{attack}"
        );
        for outcome in &collector.outcomes {
            let wrong = [0, 5].contains(&outcome.index);
            assert_eq!(outcome.robust, !wrong, "{attack}");
            if wrong {
                assert_eq!((outcome.steps, outcome.linf), (0, 0.0), "{attack}");
                assert_eq!(outcome.adversarial_prediction, outcome.clean_prediction);
            }
        }
    }
}

#[test]
fn restarts_are_combined_sample_by_sample() {
    let model = digits("standard");
    let of = |restarts: u32, size| {
        let attack = format!("pgd:steps=4,restarts={restarts}");
        let config = Config {
            batch_size: Some(size),
            ..config(&attack, Norm::Linf, &[0.1])
        };
        run(&model, 80, &config).outcomes
    };
    let (one, four) = (of(1, 64), of(4, 64));
    let broken = |outcomes: &[SampleOutcome]| outcomes.iter().filter(|o| !o.robust).count();
    assert!(
        broken(&four) > broken(&one) + 1,
        "later restarts have to find something"
    );
    for (one, four) in one.iter().zip(&four) {
        assert!(
            one.robust || !four.robust,
            "sample {} was broken before",
            one.index
        );
        assert!(
            one.robust || four.restart == 0,
            "the first that breaks it is kept"
        );
    }
    // With nobody beside it, a sample comes to the same.
    for (four, alone) in four.iter().zip(of(4, 1)) {
        assert_eq!((four.robust, four.restart), (alone.robust, alone.restart));
    }
    assert!(four.iter().any(|o| !o.robust && o.restart > 0));
}

/// Uniform noise moves a pixel by half of ε on average, and by less where the bounds cut it; noise upon noise would move it by more each time.
#[test]
fn every_restart_begins_at_the_clean_sample() {
    let model = digits("standard");
    let attack = "pgd:steps=1,step_size=0.0001,restarts=12";
    let found = run(&model, 150, &config(attack, Norm::Linf, &[0.4]));
    let broken = found.outcomes.iter().filter(|o| !o.robust && o.steps > 0);
    let late: Vec<f64> = broken
        .filter(|o| o.restart > 0)
        .map(|o| o.l1 / (64.0 * 0.4))
        .collect();
    assert!(late.len() > 5, "{late:?}");
    let mean = late.iter().sum::<f64>() / late.len() as f64;
    assert!((0.2..0.48).contains(&mean), "{mean}");
}

#[test]
fn the_point_after_the_last_step_is_judged() {
    let (x, y) = samples();
    let case = Case::new(&Tiny::linear(), x, &y);
    for attack in [
        "fgsm",
        "fgm",
        "pgd:steps=1,step_size=0.6,random_start=false",
        "mi_fgsm:steps=1",
        "apgd:steps=1,random_start=false",
        "fab:steps=1",
        "deepfool:steps=1",
    ] {
        for keep in [Keep::Any, Keep::Last] {
            let config = Config {
                keep,
                ..config(attack, Norm::Linf, &[0.6])
            };
            let (collector, report) = case.run(&config);
            assert_eq!(report.summary[0].robust_accuracy, 0.0, "{attack} {keep:?}");
            assert!(collector.outcomes.iter().all(|o| o.linf > 0.0), "{attack}");
        }
    }
}

#[test]
fn steps_longer_than_the_ball_and_balls_beyond_the_bounds_are_no_error() {
    let (x, y) = samples();
    let case = Case::new(&Tiny::linear(), x, &y);
    for norm in Norm::CONVEX {
        for (attack, epsilon) in [("pgd:step_size=7", 0.3), ("pgd", 50.0), ("apgd", 50.0)] {
            let (collector, _) = case.run(&config(attack, norm, &[epsilon]));
            for (_, point) in &collector.points {
                assert!(point.iter().all(|value| (0.0..=1.0).contains(value)));
            }
            assert!(!collector.points.is_empty(), "{attack} {norm}");
        }
    }
}

#[test]
fn no_step_is_spent_on_a_sample_that_is_broken() {
    let model = digits("standard");
    for attack in [
        "apgd:steps=50",
        "apgd:steps=50,loss=dlr",
        "pgd:steps=50,restarts=2",
    ] {
        let data = digits_data(&model, 60);
        let mut collector = Collector::default();
        let config = config(attack, Norm::Linf, &[0.15]);
        let report = evaluate(&model, &data, &config, None, &mut collector).unwrap();
        let row = &report.summary[0];
        let budget = u64::from(row.steps) * u64::from(row.restarts);
        let steps: u64 = collector.outcomes.iter().map(|o| o.steps).sum();
        assert_eq!(steps, row.gradient_evaluations, "{attack}");
        let mut early = 0;
        for outcome in &collector.outcomes {
            if outcome.robust {
                assert_eq!(outcome.steps, budget, "{attack}");
            }
            early += usize::from(!outcome.robust && outcome.steps < budget / 4);
        }
        assert!(early > 30, "{attack}: most are broken soon: {early}");
        let broken = collector
            .outcomes
            .iter()
            .filter(|o| !o.robust && o.steps > 0);
        assert_eq!(
            collector.points.len(),
            broken.count(),
            "{attack}: one point for each"
        );
    }
}

/// One random start at the edge breaks many samples before the first step, and each of those points has to be the one that is reported.
#[test]
fn what_is_reported_as_broken_is_broken() {
    let model = digits("standard");
    let data = digits_data(&model, 60);
    let mut rows = data.samples().unwrap();
    let mut clean = BTreeMap::new();
    let mut sample = vec![0.0; data.sample_len()];
    while let Some(entry) = rows.read_into(&mut sample).unwrap() {
        clean.insert(entry.index, (entry.label, sample.clone()));
    }
    let mut judge = model.judge().unwrap();
    for (attack, norm, epsilon) in [
        ("apgd:steps=1", Norm::Linf, 0.4),
        ("apgd:steps=1", Norm::L2, 3.0),
        ("apgd:steps=10", Norm::L1, 6.0),
        ("pgd:steps=1,step_size=0.0001", Norm::Linf, 0.4),
        ("fgsm", Norm::Linf, 0.1),
        ("mi_fgsm", Norm::L2, 1.0),
        ("fab:steps=10", Norm::Linf, 0.1),
        ("fmn:steps=20", Norm::L1, 5.0),
        ("ddn:steps=20", Norm::L2, 1.0),
        (
            "cw:steps=60,searches=3,step_size=0.05,weight=1",
            Norm::L2,
            1.5,
        ),
        ("deepfool", Norm::L2, 1.0),
        ("autoattack:version=rand", Norm::Linf, 0.1),
    ] {
        for bounds in [Bounds::UNIT, Bounds::NONE] {
            let config = Config {
                bounds,
                ..config(attack, norm, &[epsilon])
            };
            let mut collector = Collector::default();
            evaluate(&model, &data, &config, None, &mut collector).unwrap();
            let outcomes = collector.outcomes.iter();
            let attacked = outcomes.filter(|o| !o.robust && o.clean_prediction == o.label);
            assert_eq!(collector.points.len(), attacked.count(), "{attack} {norm}");
            assert!(!collector.points.is_empty(), "{attack} {norm}");
            for (index, point) in &collector.points {
                let (label, sample) = &clean[index];
                let verdict = judge.judge(point, &[], &[*label]).unwrap()[0];
                assert_ne!(
                    verdict.prediction, *label,
                    "{attack} {norm}, sample {index}"
                );
                let distance = norm.distance(sample, point);
                assert!(
                    distance <= epsilon * (1.0 + 1e-6),
                    "{attack} {norm}: {distance}"
                );
                let inside = |value: &f32| (bounds.low..=bounds.high).contains(value);
                assert!(point.iter().all(inside), "{attack} {norm}");
            }
        }
    }
}

#[test]
fn runs_toward_a_class_break_more_than_none() {
    let model = digits("standard");
    for loss in ["margin", "dlr"] {
        let attack = format!("apgd:steps=20,loss={loss},targets=9");
        let outcomes = run(&model, 60, &config(&attack, Norm::Linf, &[0.1])).outcomes;
        let broken = |first: u32| {
            let broken = outcomes.iter().filter(|o| !o.robust && o.steps > 0);
            broken.filter(|o| o.restart == first).count()
        };
        assert!(
            broken(0) > 15,
            "{loss}: the nearest class is reached: {}",
            broken(0)
        );
        let toward: Vec<u32> = outcomes
            .iter()
            .filter(|o| !o.robust && o.steps > 0)
            .map(|o| o.restart)
            .collect();
        assert!(toward.iter().all(|restart| *restart < 9));
    }
}
