//! The losses of training graphs.

use super::Objective;
use super::derive::Forward;
use crate::grad;
use crate::graph::{Dim, Expr, ValueId};
use crate::model::gradient::Scores;
use crate::model::{Error, gradient};
use crate::tensor::DType;

/// A loss per sample, and what the gradient starts from.
pub(super) struct Head<'g> {
    pub(super) loss: Expr<'g>,
    pub(super) seeds: Vec<(ValueId, Expr<'g>)>,
}

impl<'g> Forward<'g> {
    /// Adds the loss; `scores` are those of the model, `twin` the logits of its second application.
    pub(super) fn head(
        &mut self,
        scores: Option<&Scores>,
        twin: Option<ValueId>,
    ) -> Result<Head<'g>, Error> {
        self.builder.set_scope("loss");
        let objective = self.options.objective.clone();
        if let Objective::Pairing { tensor } = &objective {
            return self.pairing(tensor);
        }
        let scores = scores.ok_or_else(|| Error::Internal("there are no scores".into()))?;
        let shape = [scores.batch, Dim::fixed(scores.classes)];
        let logits = self.expr(scores.logits)?.reshape(&shape);
        match objective {
            Objective::Labels(loss) => {
                let least = loss.least_classes();
                if scores.classes < least {
                    return Err(Error::Unsuitable(format!(
                        "the model has {} classes, and the {loss} loss needs at least {least}; choose another loss",
                        scores.classes
                    )));
                }
                let labels = self.input("labels", DType::I64, &[scores.batch])?;
                let built = grad::loss::build(loss, logits, labels, scores.classes);
                Ok(Head {
                    loss: built.loss,
                    seeds: vec![built.seed],
                })
            }
            Objective::Divergence => {
                let reference = self.input("reference", logits.dtype(), &shape)?;
                let built = grad::loss::divergence(reference, logits);
                Ok(Head {
                    loss: built.loss,
                    seeds: vec![built.to],
                })
            }
            Objective::Trades { beta } => {
                let twin = twin.ok_or_else(|| Error::Internal("there is no second pass".into()))?;
                let twin = self.expr(twin)?.reshape(&shape);
                let labels = self.input("labels", DType::I64, &[scores.batch])?;
                let clean = grad::loss::build(
                    crate::loss::Loss::CrossEntropy,
                    logits,
                    labels,
                    scores.classes,
                );
                let apart = grad::loss::divergence(logits, twin);
                let weighted = |(id, seed): (ValueId, Expr<'g>)| (id, seed * beta);
                Ok(Head {
                    loss: clean.loss + apart.loss * beta,
                    seeds: vec![clean.seed, weighted(apart.from), weighted(apart.to)],
                })
            }
            Objective::Pairing { .. } => Err(Error::Internal("the pairing has no scores".into())),
        }
    }

    /// Σ over a sample of cotangent · tensor.
    fn pairing(&mut self, tensor: &str) -> Result<Head<'g>, Error> {
        let id = self
            .builder
            .with_graph(|graph| gradient::wanted_value(graph, tensor))?;
        let id = self.substitute.get(&id).copied().unwrap_or(id);
        let value = self.expr(id)?;
        let shape = value.shape();
        let Some(batch) = shape.first().copied() else {
            return Err(Error::Unsuitable(format!(
                "tensor `{tensor}` is a single number; only tensors [N, …] can be paired with a cotangent"
            )));
        };
        let cotangent = self.input("cotangent", value.dtype(), &shape)?;
        let axes: Vec<usize> = (1..shape.len()).collect();
        let loss = (value * cotangent).reduce("ReduceSum", &axes, false);
        Ok(Head {
            loss: loss.reshape(&[batch]),
            seeds: vec![(id, cotangent)],
        })
    }
}
