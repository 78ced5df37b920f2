//! Perturbing an inner tensor (an embedding, say) instead of an input.
//!
//! The model is cut at the tensor: the front computes it from the data, the rest takes it as an input.
//! Where the rest also needs the data itself (an attention mask made from token ids), the data are carried along.

use super::runner::{Feed, Runner};
use super::{Error, Model, gradient};
use crate::graph::{Graph, ValueId, passes};
use crate::tensor::DType;

/// How the points that are attacked come from the data.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// The model as shipped with the tensor as its only output.
    pub(super) front: Graph,
    /// The input that the data go into.
    pub(super) data: Feed,
    /// Whether the rest of the model reads the data too.
    pub(super) carried: bool,
}

/// Computes the attacked tensor from the data.
#[derive(Debug)]
pub struct Front {
    runner: Runner,
}

impl Front {
    /// The attacked tensor of each sample, one behind the other.
    ///
    /// # Errors
    /// Where ONNX Runtime fails.
    pub fn points(&mut self, data: &[f32]) -> Result<Vec<f32>, Error> {
        self.runner.run(&[data])
    }
}

impl Model {
    /// The same model with an inner tensor as what is attacked.
    ///
    /// # Errors
    /// Where there is no such tensor, or it is no float tensor with the batch in front.
    pub fn perturbing(mut self, tensor: &str) -> Result<Self, Error> {
        let inner = gradient::wanted_value(&self.graph, tensor)?;
        if inner == self.input {
            return Ok(self);
        }
        let fact = self.graph.fact(inner).cloned();
        let fact = fact.ok_or_else(|| Error::Internal("the tensor has no shape".into()))?;
        let fixed = fact
            .shape
            .iter()
            .skip(1)
            .map(|dim| dim.extent().and_then(|extent| usize::try_from(extent).ok()));
        let batch = self
            .graph
            .fact(self.input)
            .and_then(|fact| fact.shape.first().copied());
        let sample_shape = fixed
            .collect::<Option<Vec<usize>>>()
            .filter(|_| fact.shape.first().copied() == batch);
        let sample_shape = sample_shape.ok_or_else(|| {
            let shape = gradient::show(&fact.shape);
            Error::Unsuitable(format!("tensor `{tensor}` is {shape}; only tensors [N, …] with the batch in front can be perturbed sample by sample"))
        })?;
        let shipped_inner = self
            .shipped
            .find(tensor)
            .ok_or_else(|| Error::Internal("the tensor was lost".into()))?;
        let mut front = self.shipped.clone();
        front.outputs = vec![(
            shipped_inner,
            gradient::declare(tensor, fact.dtype, &fact.shape),
        )];
        passes::prune(&mut front);
        let data = Feed {
            name: self.input().to_owned(),
            dtype: self.input_dtype(),
            sample_shape: std::mem::replace(&mut self.sample_shape, sample_shape),
        };
        cut(&mut self.shipped, shipped_inner, fact.dtype, &fact.shape);
        cut(&mut self.graph, inner, fact.dtype, &fact.shape);
        let carried = drop_unread(&mut self.graph, &data.name);
        drop_unread(&mut self.shipped, &data.name);
        self.input = inner;
        self.cut = Some(Cut {
            front,
            data,
            carried,
        });
        Ok(self)
    }

    /// The shape of one sample of the data: that of the attacked input, or where an inner tensor is perturbed, that of the input before it.
    #[must_use]
    pub fn data_shape(&self) -> &[usize] {
        self.cut
            .as_ref()
            .map_or(&self.sample_shape, |cut| &cut.data.sample_shape)
    }

    /// Whether an inner tensor is perturbed instead of an input.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Loads what computes the attacked tensor from the data; `None` where the data are attacked themselves.
    ///
    /// # Errors
    /// Where ONNX Runtime cannot load it.
    pub fn front(&self) -> Result<Option<Front>, Error> {
        let Some(cut) = &self.cut else {
            return Ok(None);
        };
        let runner = Runner::new(
            &cut.front,
            vec![cut.data.clone()],
            self.input(),
            self.batch,
            &self.session,
        )?;
        Ok(Some(Front { runner }))
    }

    /// The input that carries the data along, where the rest of the model reads it too.
    pub(super) fn carried(&self) -> Option<&Feed> {
        self.cut
            .as_ref()
            .filter(|cut| cut.carried)
            .map(|cut| &cut.data)
    }
}

/// Makes an inner value an input; what computed it alone is dropped.
fn cut(graph: &mut Graph, inner: ValueId, dtype: DType, shape: &[crate::graph::Dim]) {
    let name = graph.name(inner).to_owned();
    let detached = graph.fresh(&format!("{name}.before"));
    for node in &mut graph.nodes {
        for output in &mut node.outputs {
            if *output == Some(inner) {
                *output = Some(detached);
            }
        }
    }
    let declared = gradient::declare(&name, dtype, shape);
    graph.inputs.insert(0, (inner, declared));
    passes::prune(graph);
}

/// Drops an input that nothing reads; whether it is still read.
fn drop_unread(graph: &mut Graph, name: &str) -> bool {
    let Some(id) = graph.find(name) else {
        return false;
    };
    let read = graph
        .nodes
        .iter()
        .any(|node| graph.reads(node).contains(&id));
    if !read {
        graph.inputs.retain(|(input, _)| *input != id);
    }
    read
}
