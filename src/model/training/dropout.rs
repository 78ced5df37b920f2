//! Dropout by masks that are inputs.

use super::derive::Forward;
use super::{Dropout, Mask};
use crate::graph::{Attributes, Expr, Fact, Node, ValueId};
use crate::model::{Error, gradient};
use crate::tensor::DType;

impl<'g> Forward<'g> {
    /// Adds what the node does by a mask: y = x / (1 − ratio) where the mask holds, else 0. Without dropout, y = x.
    pub(super) fn drop_out(&mut self, node: &Node) -> Result<(), Error> {
        let name = node.proto.name.clone().unwrap_or_default();
        let operand = node.input(0);
        let x = self.expr(operand.ok_or_else(|| Error::Internal("dropout of nothing".into()))?)?;
        let (value, mask) = if self.options.dropout == Dropout::Masks {
            let ratio = ratio(self, node)?;
            let mask = self.mask(&name, x, ratio)?;
            ((x * (1.0 / (1.0 - ratio))).where_(mask), Some(mask))
        } else {
            (x, None)
        };
        self.forward(node.output(0), value);
        if node.output(1).is_some() {
            let all = || self.builder.full(DType::Bool, &x.shape(), 1.0);
            let mask = mask.unwrap_or_else(all);
            self.forward(node.output(1), mask);
        }
        Ok(())
    }

    /// The input for a node's mask.
    fn mask(&mut self, node: &str, x: Expr<'g>, ratio: f64) -> Result<Expr<'g>, Error> {
        let shape = x.shape();
        let sample_shape = shape
            .iter()
            .skip(1)
            .map(|dim| dim.extent().and_then(|extent| usize::try_from(extent).ok()));
        let sample_shape = sample_shape.collect::<Option<Vec<usize>>>().ok_or_else(|| {
            Error::Unsuitable(format!(
                "dropout node `{node}` drops from {}, whose extents beyond the first follow the batch; train without dropout",
                gradient::show(&shape)
            ))
        })?;
        let name = if node.is_empty() {
            "mask.dropout".to_owned()
        } else {
            format!("mask.{node}")
        };
        let (id, name) = self.builder.with_graph_mut(|graph| {
            let id = graph.fresh(&name);
            let name = graph.name(id).to_owned();
            graph.value_mut(id).fact = Some(Fact::new(DType::Bool, shape.clone()));
            let info = gradient::declare(&name, DType::Bool, &shape);
            graph.inputs.push((id, info));
            (id, name)
        });
        self.masks.push(Mask {
            name,
            sample_shape,
            ratio,
        });
        self.expr(id)
    }

    /// Makes a value of the model the same as one that was made for it.
    fn forward(&self, id: Option<ValueId>, value: Expr<'g>) {
        if let Some(id) = id {
            let proto = crate::onnx::proto::NodeProto {
                op_type: Some("Identity".into()),
                ..Default::default()
            };
            self.add(Node {
                proto,
                inputs: vec![Some(value.id())],
                outputs: vec![Some(id)],
            });
        }
    }
}

/// The part that a node drops: 0.5 where it does not say.
fn ratio(forward: &Forward<'_>, node: &Node) -> Result<f64, Error> {
    let Some(id) = node.input(1) else {
        return Ok(node.float("ratio").map_or(0.5, f64::from));
    };
    let tensor = forward.builder.with_graph(|graph| graph.constant(id));
    let ratio = tensor.and_then(|tensor| tensor.to_f64().first().copied());
    ratio
        .filter(|ratio| (0.0..1.0).contains(ratio))
        .ok_or_else(|| {
            Error::Unsuitable(format!(
                "dropout node `{}` has no constant ratio in [0, 1); train without dropout",
                node.proto.name.as_deref().unwrap_or_default()
            ))
        })
}
