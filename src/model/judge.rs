//! The judge: the model as shipped, run forward only. What an attack proposes counts only if the judge says so.

use super::{Batch, Error};
use crate::graph::Graph;
use crate::runtime::{Session, SessionOptions, Value};
use crate::tensor::{DType, Tensor};

/// What the model says of one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The class with the largest score, the first of them on ties.
    pub prediction: u32,
    /// The cross-entropy of the label, in nats.
    pub loss: f64,
}

/// Where a model has its class scores.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) input: String,
    pub(super) output: String,
    pub(super) sample_shape: Vec<usize>,
    pub(super) classes: usize,
    /// Whether the scores are probabilities rather than logits.
    pub(super) probabilities: bool,
}

/// A forward session of the model as shipped.
#[derive(Debug)]
pub struct Judge {
    session: Session,
    scores: Scores,
    batch: Batch,
}

impl Judge {
    /// Loads the graph.
    pub(super) fn new(
        graph: &Graph,
        scores: Scores,
        batch: Batch,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let session = super::load(&graph.to_model(), options)?;
        Ok(Judge {
            session,
            scores,
            batch,
        })
    }

    /// The number of elements of a sample.
    #[must_use]
    pub fn width(&self) -> usize {
        self.scores.sample_shape.iter().product()
    }

    /// The scores of each point, `[n, classes]`; `points` holds n samples one behind the other.
    ///
    /// # Errors
    /// Where ONNX Runtime fails.
    pub fn scores(&mut self, points: &[f32]) -> Result<Vec<f32>, Error> {
        let width = self.width().max(1);
        let rows = points.len() / width;
        let size = match self.batch {
            Batch::Dynamic => rows.max(1),
            Batch::Fixed(size) => size,
        };
        let mut scores = Vec::with_capacity(rows * self.scores.classes);
        for chunk in points.chunks(size * width) {
            let mut padded = chunk.to_vec();
            padded.resize(size * width, 0.0);
            let shape: Vec<usize> = std::iter::once(size)
                .chain(self.scores.sample_shape.iter().copied())
                .collect();
            let tensor = Tensor::new(&shape, padded)
                .ok_or_else(|| Error::Internal("a batch has the wrong size".into()))?;
            let value = Value::from_tensor(tensor)?;
            let outputs = self
                .session
                .run_for(&[&self.scores.output], &[(&self.scores.input, &value)])?;
            let output = outputs
                .first()
                .ok_or_else(|| Error::Internal("the model gave no output".into()))?;
            let used = chunk.len() / width * self.scores.classes;
            match output.dtype() {
                Some(DType::F32) => scores.extend(output.as_slice::<f32>()?.iter().take(used)),
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "scores are compared, not summed"
                )]
                _ => scores.extend(
                    output
                        .to_tensor()?
                        .to_f64()
                        .into_iter()
                        .take(used)
                        .map(|score| score as f32),
                ),
            }
        }
        Ok(scores)
    }

    /// The verdict on each point with its label.
    ///
    /// # Errors
    /// Where ONNX Runtime fails, or where a score is not a number.
    pub fn judge(&mut self, points: &[f32], labels: &[u32]) -> Result<Vec<Verdict>, Error> {
        let scores = self.scores(points)?;
        let rows = scores.chunks(self.scores.classes.max(1)).zip(labels);
        rows.map(|(scores, &label)| verdict(scores, label, self.scores.probabilities))
            .collect()
    }
}

/// The verdict from one row of scores.
fn verdict(scores: &[f32], label: u32, probabilities: bool) -> Result<Verdict, Error> {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if score.is_nan() {
            return Err(Error::Unsuitable(format!(
                "the model gives NaN for class {class} of a sample with label {label}; a model that is not a number there has no robustness"
            )));
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
        assert!(verdict(&[0.0, f32::NAN], 0, false).is_err());
    }
}
