//! Batch normalisation by the statistics of the batch.

use super::derive::Forward;
use crate::graph::{Attributes, Expr, Fact, Node, ValueId};
use crate::model::Error;
use crate::tensor::DType;

impl<'g> Forward<'g> {
    /// Adds the node with the mean and variance of its own input in place of the running ones, and notes what these are after the batch.
    ///
    /// The gradient goes through the statistics by the nodes that compute them.
    /// The next running variance is unbiased, as in PyTorch: `momentum · old + (1 − momentum) · variance · M / (M − 1)` over M positions.
    pub(super) fn train_batch_norm(&mut self, node: Node) -> Result<(), Error> {
        let operand = |position: usize| {
            node.input(position)
                .ok_or_else(|| Error::Internal("a normalisation lacks an operand".into()))
        };
        let (x, statistics) = (self.expr(operand(0)?)?, [operand(3)?, operand(4)?]);
        let own = self.expr(statistics[0])?;
        let numbers = x.cast(own.dtype());
        let axes: Vec<usize> = (0..x.rank()).filter(|&axis| axis != 1).collect();
        let mean = numbers.reduce("ReduceMean", &axes, true);
        let centred = numbers - mean;
        let variance = (centred * centred).reduce("ReduceMean", &axes, false);
        let mean = mean.reshape(&own.shape());
        let keep = f64::from(node.float("momentum").unwrap_or(0.9));
        let positions = count(x) / own_extent(own);
        let unbiased = positions / (positions - 1.0).max(1.0);
        let seen = [mean, variance * unbiased.cast_like(variance)];
        for (id, seen) in statistics.into_iter().zip(seen) {
            self.step_statistic(&node, id, keep, seen)?;
        }
        let mut node = running(node);
        node.inputs[3] = Some(mean.id());
        node.inputs[4] = Some(variance.id());
        self.add(node);
        Ok(())
    }

    fn step_statistic(
        &mut self,
        node: &Node,
        id: ValueId,
        keep: f64,
        seen: Expr<'g>,
    ) -> Result<(), Error> {
        let Some(place) = self.statistics.iter().position(|(own, _)| *own == id) else {
            return Err(Error::Unsuitable(format!(
                "the running statistics of BatchNormalization node `{}` are computed in the model, so new ones cannot be written back; use --batch-norm frozen",
                node.proto.name.as_deref().unwrap_or_default()
            )));
        };
        // A node that is applied twice sees what it left itself.
        let before = self.expr(self.statistics[place].1)?;
        let next = before * keep + seen * (1.0 - keep);
        self.statistics[place].1 = next.id();
        Ok(())
    }
}

/// The node as it is at inference.
pub(super) fn running(mut node: Node) -> Node {
    node.proto
        .attribute
        .retain(|attribute| attribute.name.as_deref() != Some("training_mode"));
    node.outputs.truncate(1);
    node
}

/// The number of elements, as a float.
fn count(x: Expr<'_>) -> Expr<'_> {
    let fact = Fact::new(DType::I64, Vec::new());
    x.builder().node("Size", &[x], &[], fact).cast(DType::F32)
}

#[expect(clippy::cast_precision_loss, reason = "channels are few")]
fn own_extent(own: Expr<'_>) -> f64 {
    let extents = own.shape();
    extents.iter().map(|dim| dim.fixed as f64).product()
}
