//! The first samples judged once more: does the model say the same again, and does it speak in probabilities?

use super::super::source::Source;
use super::super::{Clean, Error, located};
use super::percent;
use crate::data::Dataset;
use crate::model::{Answers, Judge, Model};
use crate::outcome::{Diagnostic, DiagnosticKind};
use crate::threat::Bounds;

/// Losses may differ by so much, relative to their size: the order of additions on a device with many threads.
const ROUNDING: f64 = 1e-4;

/// A loss below this is a probability within this of 1.
const CERTAIN: f64 = 1e-6;

/// Judges the first samples again, in the batch that they were in.
pub(in super::super) fn run(
    judge: &mut Judge,
    model: &Model,
    data: &Dataset,
    bounds: Bounds,
    clean: &[Clean],
    through_softmax: bool,
) -> Result<Vec<Diagnostic>, Error> {
    let mut source = Source::new(model, data, bounds)?;
    let Some(block) = source.block()? else {
        return Ok(Vec::new());
    };
    let verdicts = judge
        .judge(block.points, block.data, block.labels)
        .map_err(|error| located(error, None, |row| block.indices.get(row).copied()))?;
    let mut changed = 0_usize;
    let mut largest = 0.0_f64;
    for (verdict, before) in verdicts.iter().zip(clean) {
        let off = (verdict.loss - before.loss).abs() / (1.0 + before.loss.abs());
        changed += usize::from(off > ROUNDING || verdict.prediction != before.prediction);
        largest = largest.max((verdict.loss - before.loss).abs());
    }
    let mut found = Vec::new();
    if changed > 0 {
        found.push(unstable(changed, verdicts.len(), largest));
    }
    let probabilities = match model.answers() {
        Answers::Labels => false,
        Answers::Probabilities { .. } => true,
        Answers::Logits { classes } => {
            are_probabilities(&judge.scores(block.points, block.data)?, classes)
        }
    };
    if probabilities {
        found.push(softmax(clean, model.ends_in_softmax() && !through_softmax));
    }
    Ok(found)
}

fn unstable(changed: usize, judged: usize, largest: f64) -> Diagnostic {
    Diagnostic {
        kind: DiagnosticKind::UnstableOutput,
        attack: None,
        norm: None,
        epsilons: Vec::new(),
        figure: changed as f64 / judged as f64,
        finding: format!(
            "the model answers otherwise when it is asked again: {changed} of {judged} samples got another loss the second time, by up to \
             {largest:.2e}"
        ),
        advice: "export it without dropout and other random layers; a random model has to be attacked through the mean over many draws"
            .to_owned(),
        untrustworthy: true,
    }
}

/// `from_logits`: whether gradients are taken below the Softmax.
fn softmax(clean: &[Clean], from_logits: bool) -> Diagnostic {
    let certain = clean.iter().filter(|clean| clean.loss < CERTAIN).count();
    let share = certain as f64 / clean.len().max(1) as f64;
    let (finding, advice) = if from_logits {
        (
            "the model ends in Softmax: gradients are taken from the logits below it",
            "nothing; --keep-softmax keeps it",
        )
    } else {
        (
            "the scores are probabilities, and gradients pass through what makes them so",
            "export the model without its Softmax, or evaluate without --keep-softmax where mohs can find it",
        )
    };
    Diagnostic {
        kind: DiagnosticKind::SoftmaxHead,
        attack: None,
        norm: None,
        epsilons: Vec::new(),
        figure: share,
        finding: format!(
            "{finding}; of {} % of the samples the model is certain to within a millionth",
            percent(share)
        ),
        advice: advice.to_owned(),
        // Where the gradients die in it, those that died are counted.
        untrustworthy: false,
    }
}

/// Whether every row of scores is a distribution over the classes.
fn are_probabilities(scores: &[f32], classes: usize) -> bool {
    let mut rows = scores.chunks_exact(classes.max(1)).peekable();
    classes > 1
        && rows.peek().is_some()
        && rows.all(|row| {
            let sum: f64 = row.iter().map(|score| f64::from(*score)).sum();
            row.iter().all(|score| *score >= 0.0) && (sum - 1.0).abs() < 1e-3
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_told_from_logits() {
        assert!(are_probabilities(&[0.25, 0.75, 1.0, 0.0], 2));
        assert!(!are_probabilities(&[0.25, 0.75, 1.5, -0.5], 2));
        assert!(!are_probabilities(&[0.25, 0.75, 0.5, 0.6], 2));
        assert!(!are_probabilities(&[], 2));
        assert!(
            !are_probabilities(&[1.0, 1.0], 1),
            "a single score says nothing"
        );
    }

    #[test]
    fn certainty_is_counted() {
        let clean = |loss| Clean {
            prediction: 0,
            loss,
        };
        let found = softmax(&[clean(1e-9), clean(0.1), clean(2.0), clean(1e-7)], true);
        assert_eq!(found.figure, 0.5);
        assert!(found.finding.contains("50.0 %") && !found.untrustworthy);
    }
}
