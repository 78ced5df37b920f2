//! Training graphs that were made elsewhere, under the contract of `mohs gradient --parameters`.
//!
//! Such a graph stands in for those that mohs derives, wherever the loss is the cross-entropy of the labels.
//! It says by names what its inputs and outputs are.
//! Types and shapes have to be those of the model, as far as the file declares them, and so do the numbers of weights that are constants in it.

use super::pass::PassSpec;
use super::{Error, Setting};
use crate::graph::{Dim, Dims, Fact, Graph, ValueId, passes};
use crate::loss::Loss;
use crate::model::training::{Objective, Trainable, TrainingGraph};
use crate::model::{Batch, Model, declared_extents, declared_type, describe};
use crate::onnx::{self, proto::ValueInfoProto};
use crate::tensor::{DType, Tensor};
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
        let mut names = trainable.parameters.iter().map(|known| &known.name);
        if !names.any(|name| given.is_input(name)) {
            return Err(given.refuse("it takes none of the model's parameters as an input"));
        }
        given.check_samples(model)?;
        given.check_weights(trainable)?;
        Ok(given)
    }

    /// Holds what has a row for each sample to the model.
    fn check_samples(&self, model: &Model) -> Result<(), Error> {
        let batch = match model.batch() {
            Batch::Fixed(size) => Some(size),
            Batch::Dynamic => None,
        };
        let sample: Vec<usize> = model.sample_shape().to_vec();
        let dtype = model.input_dtype();
        for (name, dtype, rest) in [
            (model.input(), dtype, sample.as_slice()),
            ("grad", dtype, sample.as_slice()),
            ("labels", DType::I64, &[]),
            ("loss", DType::F32, &[]),
        ] {
            let Some(info) = self.declaration(name) else {
                continue;
            };
            // A loss is brought to single precision in any case.
            let floats = name == "loss" && declared_type(info).is_some_and(DType::is_float);
            self.check_type(info, dtype, floats)?;
            let Some(found) = declared_extents(info) else {
                continue;
            };
            if let Some(&Some(size)) = found.first()
                && batch != Some(size)
            {
                return Err(self.refuse(&format!(
                    "`{}` is for batches of {size} alone, and the first axis has to be open",
                    describe(info)
                )));
            }
            let open = std::iter::once(None).chain(rest.iter().copied().map(Some));
            self.check_shape(info, &open.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Holds weights, statistics and gradients to the model.
    fn check_weights(&self, trainable: &Trainable) -> Result<(), Error> {
        for parameter in &trainable.parameters {
            let name = &parameter.name;
            if !self.is_input(name) {
                return Err(self.refuse(&format!(
                    "it has no input `{name}`, which is to be trained; --freeze {name} leaves that as it is"
                )));
            }
            let gradient = parameter.gradient();
            self.require(self.output(&gradient).is_some(), &gradient, "output")?;
            for name in [name, &gradient] {
                self.check_tensor(name, parameter.dtype, &parameter.shape)?;
            }
        }
        for statistic in &trainable.statistics {
            for name in [&statistic.name, &statistic.next()] {
                self.check_tensor(name, statistic.dtype, &[statistic.channels])?;
            }
            self.check_constant(&statistic.name, &statistic.initial)?;
        }
        let base = trainable.graph();
        for name in &trainable.frozen {
            let initial = base.find(name).and_then(|id| constant(base, id));
            if let Some(initial) = initial {
                self.check_constant(name, &initial)?;
            }
        }
        Ok(())
    }

    /// Holds an input or output that the file declares to a type and a shape.
    fn check_tensor(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<(), Error> {
        let Some(info) = self.declaration(name) else {
            return Ok(());
        };
        self.check_type(info, dtype, false)?;
        let shape: Vec<_> = shape.iter().copied().map(Some).collect();
        self.check_shape(info, &shape)
    }

    fn check_type(&self, info: &ValueInfoProto, dtype: DType, fits: bool) -> Result<(), Error> {
        match declared_type(info) {
            Some(found) if found != dtype && !fits => Err(self.refuse(&format!(
                "`{}` has to be {dtype} as in the model",
                describe(info)
            ))),
            _ => Ok(()),
        }
    }

    /// Holds a declared shape to one in which `None` stands for any extent.
    fn check_shape(&self, info: &ValueInfoProto, shape: &[Option<usize>]) -> Result<(), Error> {
        let Some(found) = declared_extents(info) else {
            return Ok(());
        };
        let fits = |(found, wanted): (&Option<usize>, &Option<usize>)| {
            found
                .zip(*wanted)
                .is_none_or(|(found, wanted)| found == wanted)
        };
        if found.len() == shape.len() && found.iter().zip(shape).all(fits) {
            return Ok(());
        }
        let extents = shape.iter();
        let extents = extents.map(|extent| extent.map_or("N".to_owned(), |one| one.to_string()));
        Err(self.refuse(&format!(
            "`{}` has to have the shape [{}] as in the model",
            describe(info),
            extents.collect::<Vec<_>>().join(", ")
        )))
    }

    /// Holds a weight that is constant in the file to the model's.
    fn check_constant(&self, name: &str, initial: &Tensor) -> Result<(), Error> {
        let found = self
            .graph
            .find(name)
            .and_then(|id| constant(&self.graph, id));
        match found {
            Some(found) if !self.is_input(name) && found != *initial => Err(self.refuse(&format!(
                "its constant `{name}` has other numbers than the model's"
            ))),
            _ => Ok(()),
        }
    }

    /// How an input or output is declared.
    fn declaration(&self, name: &str) -> Option<&ValueInfoProto> {
        let mut ports = self.graph.inputs.iter().chain(&self.graph.outputs);
        let found = ports.find(|(id, _)| self.graph.name(*id) == name);
        found.map(|(_, info)| info)
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

/// The numbers of an initializer.
fn constant(graph: &Graph, id: ValueId) -> Option<Tensor> {
    let tensor = graph.value(id).initializer.as_ref()?;
    onnx::to_tensor(tensor).ok()
}
