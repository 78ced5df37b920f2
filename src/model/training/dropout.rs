//! Dropout by masks that are inputs.

use super::derive::Forward;
use super::{Dropout, Dropped, Mask};
use crate::graph::{Expr, Fact, Graph, Node, ValueId};
use crate::model::{Error, gradient};
use crate::tensor::DType;

impl<'g> Forward<'g> {
    /// What a node drops from, where it stands for a dropout.
    pub(super) fn dropped_by(&self, node: &Node) -> Option<Dropped> {
        let factor = node.input(1).filter(|_| node.is("Mul"))?;
        let find = |graph: &Graph| {
            let name = graph.name(factor);
            self.dropped.iter().find(|one| one.factor == name).cloned()
        };
        self.builder.with_graph(find)
    }

    /// Adds what the node does by a mask: y = x / (1 − ratio) where the mask holds, else 0. Without dropout, y = x.
    pub(super) fn drop_out(&mut self, node: &Node, dropped: &Dropped) -> Result<(), Error> {
        let operand = node.input(0);
        let x = self.expr(operand.ok_or_else(|| Error::Internal("dropout of nothing".into()))?)?;
        let value = match self.options.dropout {
            Dropout::Masks => {
                let mask = self.mask(&dropped.node, x, dropped.ratio)?;
                (x * (1.0 / (1.0 - dropped.ratio))).where_(mask)
            }
            Dropout::Off => x,
        };
        self.forward(node.output(0), value);
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
