//! The judge: the model as shipped, run forward only. What an attack proposes counts only if the judge says so.

use super::Error;
use super::runner::Runner;

/// What the model says of one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The class with the largest score, the first of them on ties.
    pub prediction: u32,
    /// The cross-entropy of the label, in nats.
    pub loss: f64,
}

/// A forward session of the model as shipped.
#[derive(Debug)]
pub struct Judge {
    runner: Runner,
    classes: usize,
    /// Whether the scores are probabilities rather than logits.
    probabilities: bool,
}

impl Judge {
    pub(super) fn new(runner: Runner, classes: usize, probabilities: bool) -> Self {
        Judge {
            runner,
            classes,
            probabilities,
        }
    }

    /// The scores of each point, `[n, classes]`; `points` holds n samples one behind the other, and `data` the data that they come from,
    /// which is looked at only where an inner tensor is perturbed.
    ///
    /// # Errors
    /// Where ONNX Runtime fails.
    pub fn scores(&mut self, points: &[f32], data: &[f32]) -> Result<Vec<f32>, Error> {
        self.runner.run(&[points, data])
    }

    /// The verdict on each point with its label; `data` as for [`Judge::scores`].
    ///
    /// # Errors
    /// Where ONNX Runtime fails, or where a score is not a number.
    pub fn judge(
        &mut self,
        points: &[f32],
        data: &[f32],
        labels: &[u32],
    ) -> Result<Vec<Verdict>, Error> {
        let scores = self.scores(points, data)?;
        let rows = scores.chunks(self.classes.max(1)).zip(labels);
        rows.enumerate()
            .map(|(row, (scores, &label))| {
                verdict(scores, label, self.probabilities)
                    .map_err(|class| Error::NotANumber { row, class })
            })
            .collect()
    }
}

/// The verdict from one row of scores, or the first class whose score is no number.
fn verdict(scores: &[f32], label: u32, probabilities: bool) -> Result<Verdict, usize> {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if score.is_nan() {
            return Err(class);
        }
        if *score > scores[best] {
            best = class;
        }
    }
    let own = scores
        .get(label as usize)
        .copied()
        .map_or(f64::NEG_INFINITY, f64::from);
    let loss = if probabilities {
        -own.max(f64::MIN_POSITIVE).ln()
    } else {
        let top = f64::from(scores[best]);
        top + scores
            .iter()
            .map(|&score| (f64::from(score) - top).exp())
            .sum::<f64>()
            .ln()
            - own
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "classes are counted in u32"
    )]
    Ok(Verdict {
        prediction: best as u32,
        loss,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_class() {
        assert_eq!(verdict(&[1.0, 1.0], 1, false).unwrap().prediction, 0);
    }

    #[test]
    fn the_loss_is_the_cross_entropy() {
        let verdict_of_logits = verdict(&[1000.0, 0.0], 1, false).unwrap();
        assert!((verdict_of_logits.loss - 1000.0).abs() < 1e-9);
        let verdict_of_probabilities = verdict(&[0.75, 0.25], 1, true).unwrap();
        assert!((verdict_of_probabilities.loss - 4f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn scores_that_are_no_numbers_are_an_error() {
        assert_eq!(verdict(&[0.0, f32::NAN], 0, false), Err(1));
    }
}
