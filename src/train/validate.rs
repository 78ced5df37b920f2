//! How good the model is between epochs: on the samples as they are, and under a cheap attack.

use super::Error;
use super::engine::{Engine, Feed, column};
use super::loader::{Loader, Prepared};
use crate::attack::Attack;
use crate::runtime::Value;

/// Which passes of the engine look at the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looks {
    /// The model forward.
    pub(super) forward: usize,
    /// One step of the attack, where anything is perturbed.
    pub(super) ascent: Option<usize>,
}

/// Accuracies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Accuracy {
    pub(super) clean: f64,
    pub(super) robust: Option<f64>,
}

/// Measures the accuracy on all samples of a loader, or on its first batch.
pub(super) fn measure(
    engine: &mut Engine,
    looks: Looks,
    attack: &dyn Attack,
    loader: &Loader<'_>,
    batches: usize,
) -> Result<Accuracy, Error> {
    let (mut samples, mut clean, mut robust) = (0_u64, 0_u64, 0_u64);
    // What is looked at costs passes, but none of the training.
    let passes = engine.state.passes;
    for prepared in loader.in_order().take(batches) {
        samples += prepared.counted as u64;
        let (right, standing) = look(engine, looks, attack, prepared)?;
        clean += right;
        robust += standing;
    }
    engine.state.passes = passes;
    let share = |count: u64| count as f64 / samples.max(1) as f64;
    Ok(Accuracy {
        clean: share(clean),
        robust: looks.ascent.map(|_| share(robust)),
    })
}

/// How many samples of a batch the model gets right, and how many of them at every point of the attack too.
fn look(
    engine: &mut Engine,
    looks: Looks,
    attack: &dyn Attack,
    prepared: Prepared,
) -> Result<(u64, u64), Error> {
    let batch = engine.batch(prepared, 0)?;
    let labels = batch.labels()?.to_vec();
    let mut standing = vec![true; batch.counted];
    let strike = |standing: &mut [bool], predictions: &[i64]| {
        let rows = standing.iter_mut().zip(predictions.iter().zip(&labels));
        rows.for_each(|(standing, (prediction, label))| *standing &= prediction == label);
    };
    let count = |standing: &[bool]| standing.iter().filter(|&&standing| standing).count() as u64;
    let nothing = engine.nothing(batch.rows)?;
    let feed = Feed {
        point: nothing.as_ref(),
        ..Feed::default()
    };
    strike(
        &mut standing,
        engine.run(looks.forward, &batch, feed)?.predictions()?,
    );
    let clean = count(&standing);
    let Some(ascent) = looks.ascent else {
        return Ok((clean, clean));
    };
    let size = column(batch.rows, attack.step_size(engine.epsilon()))?;
    let mut point: Option<Value> = None;
    for _ in 0..attack.steps() {
        let feed = Feed {
            point: point.as_ref().or(batch.start.as_ref()),
            step_size: Some(&size),
            ..Feed::default()
        };
        let ran = engine.run(ascent, &batch, feed)?;
        strike(&mut standing, ran.predictions()?);
        point = ran.point;
    }
    let feed = Feed {
        point: point.as_ref(),
        ..Feed::default()
    };
    strike(
        &mut standing,
        engine.run(looks.forward, &batch, feed)?.predictions()?,
    );
    Ok((clean, count(&standing)))
}
