//! Training graphs that were made elsewhere, under the contract of `mohs gradient --parameters`.
//!
//! Such a graph stands in for those that mohs derives, wherever the loss is the cross-entropy of the labels.
//! It says by names what its inputs and outputs are; shapes are those of the model.

use super::pass::PassSpec;
use super::{Error, Setting};
use crate::graph::{Dim, Dims, Fact, Graph, ValueId, passes};
use crate::loss::Loss;
use crate::model::Model;
use crate::model::training::{Objective, Trainable, TrainingGraph};
use crate::onnx;
use crate::tensor::DType;
use std::path::Path;

/// A training graph from a file.
#[derive(Debug, Clone)]
pub(super) struct Given {
    path: String,
    graph: Graph,
}

impl Given {
    /// Reads the file, and refuses it where it does not follow the contract.
    pub(super) fn open(path: &Path, model: &Model, trainable: &Trainable) -> Result<Self, Error> {
        let proto = onnx::read(path).map_err(crate::model::Error::File)?;
        let mut graph = Graph::from_model(proto);
        passes::lift(&mut graph).map_err(crate::model::Error::Lift)?;
        let given = Given {
            path: path.display().to_string(),
            graph,
        };
        for name in [model.input(), "labels"] {
            given.require(given.is_input(name), name, "input")?;
        }
        for name in [model.output(), "loss"] {
            given.require(given.output(name).is_some(), name, "output")?;
        }
        for parameter in &trainable.parameters {
            if given.is_input(&parameter.name) {
                let gradient = parameter.gradient();
                given.require(given.output(&gradient).is_some(), &gradient, "output")?;
            }
        }
        let mut names = trainable.parameters.iter().map(|known| &known.name);
        if !names.any(|name| given.is_input(name)) {
            return Err(given.refuse("it takes none of the model's parameters as an input"));
        }
        Ok(given)
    }

    fn is_input(&self, name: &str) -> bool {
        let mut inputs = self.graph.inputs.iter();
        inputs.any(|(id, _)| self.graph.name(*id) == name)
    }

    fn output(&self, name: &str) -> Option<ValueId> {
        let mut outputs = self.graph.outputs.iter();
        let found = outputs.find(|(id, _)| self.graph.name(*id) == name);
        found.map(|(id, _)| *id)
    }

    fn require(&self, holds: bool, name: &str, what: &str) -> Result<(), Error> {
        match holds {
            true => Ok(()),
            false => Err(self.refuse(&format!("it has no {what} `{name}`"))),
        }
    }

    fn refuse(&self, reason: &str) -> Error {
        Error::Config(format!(
            "{}: this is no training graph of the model: {reason}; `mohs gradient --parameters` makes one",
            self.path
        ))
    }

    /// The graph for a pass.
    pub(super) fn for_pass(
        &self,
        trainable: &Trainable,
        setting: &Setting,
        output: &str,
        spec: &PassSpec,
    ) -> Result<TrainingGraph, Error> {
        let fits = spec.objective == Objective::Labels(Loss::CrossEntropy);
        if !fits || spec.gradient_of.is_some() || setting.inner {
            return Err(Error::Config(
                "--training-graph serves the methods standard, fgsm, fgm, pgd, free and freelb on the model's input; others need graphs of \
                 other losses or tensors, which mohs derives without it"
                    .into(),
            ));
        }
        let mut graph = self.graph.clone();
        let batch = |shape: &[usize]| -> Dims {
            let sample = shape.iter().map(|&extent| Dim::fixed(extent as i64));
            std::iter::once(Dim::BATCH).chain(sample).collect()
        };
        let mut know = |name: &str, dtype: DType, shape: Dims| {
            if let Some(id) = graph.find(name) {
                graph.value_mut(id).fact = Some(Fact::new(dtype, shape));
            }
        };
        let sample = batch(&setting.sample_shape);
        know(&setting.tensor, setting.point_dtype, sample.clone());
        know("grad", setting.point_dtype, sample);
        know("labels", DType::I64, vec![Dim::BATCH]);
        know("loss", DType::F32, vec![Dim::BATCH]);
        for parameter in &trainable.parameters {
            let shape = parameter
                .shape
                .iter()
                .map(|&extent| Dim::fixed(extent as i64));
            let shape: Dims = shape.collect();
            know(&parameter.name, parameter.dtype, shape.clone());
            know(&parameter.gradient(), parameter.dtype, shape);
        }
        for statistic in &trainable.statistics {
            let shape = vec![Dim::fixed(statistic.channels as i64)];
            know(&statistic.name, statistic.dtype, shape.clone());
            know(&statistic.next(), statistic.dtype, shape);
        }
        let base = trainable.graph();
        if let Some(fact) = base.find(output).and_then(|id| base.fact(id)) {
            know(output, fact.dtype, fact.shape.clone());
        }
        let gradients = match (spec.ascent.is_some(), self.output("grad")) {
            (true, None) => {
                return Err(self.refuse("it has no output `grad`, the gradient of the input"));
            }
            (true, Some(_)) => vec![(setting.tensor.clone(), "grad".to_owned())],
            (false, _) => Vec::new(),
        };
        let loss = self.output("loss");
        let own = trainable
            .parameters
            .iter()
            .filter(|known| self.is_input(&known.name));
        let statistics = trainable
            .statistics
            .iter()
            .filter(|known| self.is_input(&known.name));
        Ok(TrainingGraph {
            parameters: own.cloned().collect(),
            statistics: statistics.cloned().collect(),
            masks: Vec::new(),
            gradients,
            output: self.output(output),
            loss: loss.ok_or_else(|| self.refuse("it has no output `loss`"))?,
            softmax_removed: false,
            graph,
        })
    }
}
