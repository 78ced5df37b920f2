//! The control: an attack that may change a sample into any other has to break it.
//!
//! Where the ball holds every valid input, a sample that stays robust was not attacked: the gradients do not lead (Athalye et al.,
//! Obfuscated Gradients Give a False Sense of Security, ICML 2018: unbounded attacks reach 100 % success).
//! It starts at the clean sample: from a random point of so large a ball the noise alone would break it, gradients or not.

use super::super::engine::{self, Bench, Job};
use super::super::source::Source;
use super::super::{Config, Error, Keep, Progress};
use crate::attack::{AttackPlan, Loss};
use crate::model::{GradientGraph, Judge};
use crate::outcome::{Accumulator, Diagnostic, DiagnosticKind, Norm};
use crate::threat::Bounds;
use std::sync::Arc;

/// How many samples are attacked, from the first.
const CONTROLLED: u64 = 16;

/// Where so large a share survives, no number can be trusted; one of the sixteen may be a class that fills the ball.
const GRAVE: f64 = 0.1;

/// Runs the control on the first samples of a job, with the gradient of its own attack.
pub(in super::super) fn run(
    job: &Job<'_>,
    loss: Loss,
    gradient: Arc<GradientGraph>,
    judge: &mut Judge,
) -> Result<Option<Diagnostic>, Error> {
    let (low, high) = range(job)?;
    let norm = job.config.norm;
    let epsilon = covering(
        norm,
        f64::from(high) - f64::from(low),
        job.data.sample_len(),
    );
    if !(epsilon > 0.0 && (epsilon as f32).is_finite()) {
        return Ok(None);
    }
    let plan = AttackPlan::parse(&format!("pgd:random_start=false,loss={}", loss.name()))?;
    let Some(planned) = plan.attacks().first() else {
        return Ok(None);
    };
    let Some(attack) = planned.gradient() else {
        return Ok(None);
    };
    let config = Config {
        attacks: plan.clone(),
        epsilons: vec![epsilon],
        keep: Keep::Any,
        // Without bounds of its own the attack would leave the range, and prove nothing about points within.
        bounds: Bounds { low, high },
        ..job.config.clone()
    };
    let controlled = Job {
        config: &config,
        attack: attack.as_ref(),
        most: CONTROLLED,
        search: None,
        ensemble: None,
        foreign: None,
        ..*job
    };
    let run = super::super::run_of(planned, norm, epsilon);
    let mut accumulator = Accumulator::new(String::new(), vec![run])?;
    let mut progress = Progress::default();
    let bench = &mut Bench {
        judge,
        accumulator: &mut accumulator,
        progress: &mut progress,
        observer: &mut (),
    };
    engine::run(&controlled, gradient, bench)?;
    let rows = accumulator.finish()?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares of at most sixteen samples, rounded back to counts"
    )]
    let count = |share: f64| (share * row.samples as f64).round() as u64;
    let attacked = count(row.clean_accuracy);
    let survivors = count(row.robust_accuracy);
    Ok((survivors > 0).then(|| diagnostic(survivors, attacked, norm, epsilon)))
}

fn diagnostic(survivors: u64, attacked: u64, norm: Norm, epsilon: f64) -> Diagnostic {
    let share = survivors as f64 / attacked as f64;
    Diagnostic {
        kind: DiagnosticKind::LargeEpsilonSurvivors,
        attack: None,
        norm: None,
        epsilons: Vec::new(),
        figure: share,
        finding: format!(
            "{survivors} of {attacked} samples stay robust under pgd from the clean sample in a ball that holds every valid input ({norm}, \
             ε {epsilon}): the gradients do not lead there"
        ),
        advice: "look for what stops gradients in the model (rounding, saturation, a random layer); try loss=margin, --straight-through, \
                 and an attack that needs no gradients"
            .to_owned(),
        untrustworthy: share >= GRAVE,
    }
}

/// The range of valid values: the bounds, or what the first samples hold where there are none.
fn range(job: &Job<'_>) -> Result<(f32, f32), Error> {
    let bounds = job.config.bounds;
    if bounds.low.is_finite() && bounds.high.is_finite() {
        return Ok((bounds.low, bounds.high));
    }
    let mut source = Source::new(job.model, job.data, bounds)?;
    let points = source.block()?.map_or(&[][..], |block| block.points);
    let low = points.iter().copied().fold(f32::INFINITY, f32::min);
    let high = points.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    Ok((low, high))
}

/// The radius of a ball around any point of a cube that holds the whole cube.
fn covering(norm: Norm, range: f64, width: usize) -> f64 {
    let width = width as f64;
    match norm {
        Norm::Linf => range,
        Norm::L2 => range * width.sqrt(),
        Norm::L1 => range * width,
        Norm::L0 => width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ball_holds_the_cube_from_corner_to_corner() {
        for norm in Norm::ALL {
            let corner = norm.distance(&[-1.0; 9], &[1.0; 9]);
            assert!((covering(norm, 2.0, 9) - corner).abs() < 1e-12, "{norm}");
        }
    }

    #[test]
    fn a_single_survivor_is_no_verdict() {
        assert!(!diagnostic(1, 16, Norm::Linf, 1.0).untrustworthy);
        assert!(diagnostic(2, 16, Norm::Linf, 1.0).untrustworthy);
    }
}
