//! How many samples are attacked at once, where nobody said.

use super::{Config, Error, Gradients};
use crate::attack::Planned;
use crate::model::program::Program;
use crate::model::{Batch, Model};
use std::time::{Duration, Instant};

/// What a search for a good batch may take, loading apart.
const BUDGET: Duration = Duration::from_millis(1500);

/// A batch is better where a sample takes so much less time in it.
const GAIN: f64 = 0.95;

/// Batches that are tried, at most.
const LARGEST: usize = 8192;

/// The batch that was asked for, or one that keeps the device busy and fits its memory; also a sentence where it was measured.
///
/// On the CPU it follows from the size of a sample alone, since there a larger batch takes as much longer, and a run should repeat to the bit.
pub(super) fn size(
    model: &Model,
    config: &Config,
    gradients: &mut Gradients<'_>,
    samples: u64,
) -> Result<(usize, Option<String>), Error> {
    if let Some(size) = config.batch_size {
        return Ok((size, None));
    }
    let usual = usual(model.sample_shape().iter().product());
    let parts = config.attacks.parts(config.norm);
    let (Some(attack), false) = (
        parts.iter().find_map(Planned::gradient),
        model.batch() != Batch::Dynamic || model.is_on_cpu(),
    ) else {
        return Ok((usual, None));
    };
    let gradient = gradients.get(attack.as_ref())?;
    let most = usize::try_from(samples).map_or(LARGEST, |samples| samples.min(LARGEST));
    let mut program = Program::new(
        model,
        &gradient,
        attack.as_ref(),
        config.norm,
        config.bounds,
        1,
    )?;
    let size = best(&mut program, most)?;
    let devices = 1 + model.session_options().others.len();
    Ok((
        size * devices,
        Some(format!(
            "batch size {}: the best of those that were tried (--batch-size {} asks for it without trying)",
            size * devices,
            size * devices
        )),
    ))
}

/// Large where what is perturbed of a sample is small.
fn usual(width: usize) -> usize {
    (1_000_000 / width.max(1))
        .clamp(16, 256)
        .next_power_of_two()
        .min(256)
}

/// Tries batches, each twice as large as the one before, until two in a row were no better, or memory runs out.
fn best(program: &mut Program, most: usize) -> Result<usize, Error> {
    let start = Instant::now();
    let mut tried: Vec<(usize, f64)> = Vec::new();
    let mut size = 16;
    while size <= most.next_power_of_two() && start.elapsed() < BUDGET && !is_flat(&tried) {
        let seconds = match seconds(program, size) {
            Err(error) if error.is_out_of_memory() => {
                // Half of what does not fit does, and a quarter leaves room for the judge.
                tried.pop();
                break;
            }
            seconds => seconds?,
        };
        #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
        tried.push((size, seconds / size as f64));
        size *= 2;
    }
    Ok(smallest(&tried))
}

/// Whether the last two were no better than the best of those before.
fn is_flat(tried: &[(usize, f64)]) -> bool {
    let Some((before, [.., a, b])) = tried.split_at_checked(tried.len().saturating_sub(2)) else {
        return false;
    };
    let best = before.iter().map(|(_, each)| *each).reduce(f64::min);
    best.is_some_and(|best| a.1.min(b.1) > GAIN * best)
}

/// The smallest batch in which a sample takes hardly longer than in the best.
fn smallest(tried: &[(usize, f64)]) -> usize {
    let best = tried
        .iter()
        .map(|(_, each)| *each)
        .fold(f64::INFINITY, f64::min);
    let good = tried.iter().find(|(_, each)| GAIN * each <= best);
    good.map_or(1, |(size, _)| *size)
}

/// What a run of so many slots takes: the shorter of two, after one in which the device gets ready for the shape.
fn seconds(program: &mut Program, slots: usize) -> Result<f64, crate::model::Error> {
    program.resize(slots)?;
    drop(program.run()?);
    let mut least = f64::INFINITY;
    for _ in 0..2 {
        let before = Instant::now();
        drop(program.run()?);
        least = least.min(before.elapsed().as_secs_f64());
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_come_in_large_batches() {
        assert_eq!(usual(64), 256);
        assert_eq!(usual(3 * 224 * 224), 16);
    }

    #[test]
    fn the_smallest_batch_is_taken_that_is_about_as_good_as_the_best() {
        assert_eq!(
            smallest(&[(16, 2.0), (32, 1.02), (64, 1.0), (128, 1.1)]),
            32
        );
        assert_eq!(smallest(&[]), 1);
    }

    #[test]
    fn a_search_goes_on_behind_a_single_batch_that_is_no_better() {
        assert!(!is_flat(&[(16, 1.0), (32, 1.1)]));
        assert!(!is_flat(&[(16, 1.0), (32, 1.1), (64, 0.7)]));
        assert!(is_flat(&[(16, 1.0), (32, 1.1), (64, 0.99)]));
    }
}
