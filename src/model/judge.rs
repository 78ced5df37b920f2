//! The judge: the model as shipped, run forward only. What an attack proposes counts only if the judge says so.

use super::Error;
use super::runner::Runner;

/// What the model says of one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The class with the largest score, the first of them on ties.
    pub prediction: u32,
    /// The cross-entropy of the label, in nats; NaN where the model gives nothing but a label.
    pub loss: f64,
}

/// What the output of a model says of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// A score for each class, to be put through a softmax.
    Logits {
        /// How many classes there are.
        classes: usize,
    },
    /// The probability of each class.
    Probabilities {
        /// How many classes there are.
        classes: usize,
    },
    /// The label of the predicted class, and nothing else.
    Labels,
}

impl Answers {
    /// How many numbers there are for a sample.
    #[must_use]
    pub fn width(self) -> usize {
        self.classes().unwrap_or(1).max(1)
    }

    /// The number of classes, where the output tells.
    #[must_use]
    pub fn classes(self) -> Option<usize> {
        match self {
            Answers::Logits { classes } | Answers::Probabilities { classes } => Some(classes),
            Answers::Labels => None,
        }
    }
}

/// The model as shipped, in a session for each thread that it runs on.
#[derive(Debug)]
pub struct Judge {
    runner: Runner,
    answers: Answers,
}

impl Judge {
    pub(super) fn new(runner: Runner, answers: Answers) -> Self {
        Judge { runner, answers }
    }

    /// What the numbers mean that [`Judge::scores`] gives.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// How many threads can ask at the same time.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.runner.lanes()
    }

    /// Lets threads ask at the same time: what `work` is given is this judge in that many parts, and at most [`Judge::lanes`].
    pub fn apart<T>(&mut self, count: usize, work: impl FnOnce(&mut [Judge]) -> T) -> T {
        let parts = self.runner.split(count).into_iter();
        let mut judges: Vec<Judge> = parts
            .map(|runner| Judge::new(runner, self.answers))
            .collect();
        let done = work(&mut judges);
        for judge in judges {
            self.runner.join(judge.runner);
        }
        done
    }

    /// The scores of each point, `[n, classes]`, or its label, `[n, 1]`; `points` holds n samples one behind the other, and `data` the data that they come from,
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
        self.verdicts(&scores, labels)
    }

    /// The verdicts that follow from [`Judge::scores`], each with its label.
    ///
    /// # Errors
    /// Where a score is not a number, or a label is no class.
    pub fn verdicts(&self, scores: &[f32], labels: &[u32]) -> Result<Vec<Verdict>, Error> {
        let rows = scores.chunks(self.answers.width()).zip(labels);
        rows.enumerate()
            .map(|(row, (scores, &label))| {
                let verdict = match self.answers {
                    Answers::Logits { .. } => verdict(scores, label, false),
                    Answers::Probabilities { .. } => verdict(scores, label, true),
                    Answers::Labels => return predicted(scores),
                };
                verdict.map_err(|class| Error::NotANumber { row, class })
            })
            .collect()
    }
}

/// From here on, single precision leaves out whole numbers.
const WHOLE: f32 = 16_777_216.0;

/// The verdict of a model that gives nothing but the label of a class.
fn predicted(row: &[f32]) -> Result<Verdict, Error> {
    let label = row.first().copied().unwrap_or(f32::NAN);
    if !(0.0..WHOLE).contains(&label) {
        return Err(Error::Unsuitable(format!(
            "the model gives {label} for a label, and classes are counted from 0"
        )));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 0 to 2^24"
    )]
    Ok(Verdict {
        prediction: label as u32,
        loss: f64::NAN,
    })
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
    fn labels_are_classes_counted_from_zero() {
        assert_eq!(predicted(&[3.0]).unwrap().prediction, 3);
        assert!(predicted(&[3.0]).unwrap().loss.is_nan());
        assert!(predicted(&[-1.0]).is_err());
    }

    #[test]
    fn scores_that_are_no_numbers_are_an_error() {
        assert_eq!(verdict(&[0.0, f32::NAN], 0, false), Err(1));
    }
}
