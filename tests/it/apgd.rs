//! APGD as it runs, against the curve that PyTorch's loss rises along (`tests/references/make_apgd.py`).

use crate::attacks::{attack, digits, root};
use mohs::attack::host::HostArrays;
use mohs::attack::{Attack, Context};
use mohs::model::program::{Program, Start};
use mohs::model::{GradientOptions, Model};
use mohs::threat::{Bounds, Norm};
use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::NpzReader;
use std::fs::File;

/// The first state at the clean sample.
fn first_state(attack: &dyn Attack, norm: Norm, clean: &[f32], epsilon: f64) -> Vec<Vec<f32>> {
    let arrays = HostArrays::new(clean.len());
    let row = |values: &[f32]| {
        let row = Array2::from_shape_vec((1, values.len()), values.to_vec());
        arrays.input(row.unwrap())
    };
    let context = Context {
        norm,
        clean: row(clean),
        low: row(&[0.0]),
        high: row(&[1.0]),
        epsilon: row(&[epsilon as f32]),
        step_size: row(&[attack.step_size(epsilon) as f32]),
    };
    let state = attack.init(&context, None).state;
    let values = |array| arrays.value(array).iter().copied().collect();
    state.into_iter().map(values).collect()
}

/// The largest loss of each sample's first 1, 2, … points.
fn curves(model: &Model, norm: Norm, epsilon: f64, x: &[f32], labels: &[u32]) -> Vec<Vec<f64>> {
    let attack = attack("apgd:random_start=false");
    let gradient = model.gradient(&GradientOptions::default()).unwrap();
    let count = labels.len();
    let mut program =
        Program::new(model, &gradient, attack.as_ref(), norm, Bounds::UNIT, count).unwrap();
    let width = program.width();
    for (slot, (clean, &label)) in x.chunks(width).zip(labels).enumerate() {
        let start = Start {
            clean,
            data: &[],
            point: clean,
            state: &first_state(attack.as_ref(), norm, clean, epsilon),
            label,
            target: label,
            epsilon,
            step_size: attack.step_size(epsilon),
        };
        program.place(slot, &start).unwrap();
    }
    let mut judge = model.judge().unwrap();
    let mut curves = vec![Vec::new(); count];
    for _ in 0..attack.steps() {
        let points: Vec<f32> = (0..count)
            .flat_map(|slot| program.point(slot).unwrap())
            .collect();
        let verdicts = judge.judge(&points, &[], labels).unwrap();
        for (curve, verdict) in curves.iter_mut().zip(verdicts) {
            let best = curve.last().copied().unwrap_or(f64::NEG_INFINITY);
            curve.push(verdict.loss.max(best));
        }
        let (_, advance) = program.run().unwrap();
        program.advance(advance);
    }
    curves
}

#[test]
fn the_largest_loss_rises_as_in_pytorch() {
    let model = digits("adversarial");
    let path = root().join("tests/references/apgd.npz");
    let mut file = NpzReader::new(File::open(path).unwrap()).unwrap();
    let x: ArrayD<f32> = file.by_name("x").unwrap();
    let y: Array1<i64> = file.by_name("y").unwrap();
    let (x, labels) = (
        x.into_raw_vec_and_offset().0,
        y.iter().map(|&label| label as u32).collect::<Vec<_>>(),
    );
    for (norm, epsilon, name) in [(Norm::Linf, 0.15, "best_linf"), (Norm::L2, 0.75, "best_l2")] {
        let expected: Array2<f64> = file.by_name(name).unwrap();
        let found = curves(&model, norm, epsilon, &x, &labels);
        assert_eq!(expected.dim(), (found.len(), 100));
        for (sample, (curve, expected)) in found.iter().zip(expected.rows()).enumerate() {
            for (point, (found, expected)) in curve.iter().zip(expected).enumerate() {
                let apart = (found / expected - 1.0).abs();
                assert!(
                    apart < 0.01,
                    "{norm}, sample {sample}, point {point}: {found} instead of {expected}"
                );
            }
        }
    }
}
