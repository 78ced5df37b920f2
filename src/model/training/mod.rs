//! Training graphs: a model whose weights are inputs, with the gradients that a weight step needs.
//!
//! [`Model::trainable`] finds what can be trained and brings the model, as it is in the file, into a form that can be differentiated;
//! [`Trainable::derive`] makes a graph for one purpose from it: a weight step, an attack's step, the first layer alone.
//! [`export()`] puts new weights into the original file.

mod batch_norm;
mod derive;
mod dropout;
mod export;
mod objective;
mod parameters;
mod pattern;
mod prepare;
mod untie;

pub use export::export;

use super::{Error, Model};
use crate::graph::{Graph, ValueId};
use crate::loss::Loss;
use crate::tensor::{DType, Tensor};

/// What a parameter does in the model; weight decay and drawing new weights depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParameterKind {
    /// Multiplies and sums: kernels, matrices, recurrent weights.
    Weight,
    /// Added to each channel or unit.
    Bias,
    /// Scales each channel of a normalisation, or each unit of an activation.
    Scale,
    /// Added to each channel of a normalisation.
    Shift,
    /// A table of vectors, or vectors that are added to tokens.
    Embedding,
}

impl ParameterKind {
    /// Whether weight decay applies to it where nothing else is asked for: biases and normalisation are spared.
    #[must_use]
    pub fn decays(self) -> bool {
        matches!(self, ParameterKind::Weight | ParameterKind::Embedding)
    }
}

/// A trainable tensor of the model.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name: that of an initializer or of a `Constant` node's result in the file; the graph's input has the same.
    pub name: String,
    /// What it does.
    pub kind: ParameterKind,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How many numbers one result is summed from; 1 for all but weights.
    pub fan_in: usize,
    /// Its elements in the file.
    pub initial: Tensor,
}

impl Parameter {
    /// The output with its gradient.
    #[must_use]
    pub fn gradient(&self) -> String {
        format!("grad.{}", self.name)
    }
}

/// A running statistic of a batch normalisation: a graph's input of this name, and where batch statistics are used, an output `next.NAME`.
#[derive(Debug, Clone)]
pub struct Statistic {
    /// Its name in the file.
    pub name: String,
    /// The number of channels.
    pub channels: usize,
    /// The type of its elements.
    pub dtype: DType,
    /// Its elements in the file.
    pub initial: Tensor,
    /// Whether it is a variance; a mean otherwise.
    pub is_variance: bool,
}

impl Statistic {
    /// The output with its value after the batch.
    #[must_use]
    pub fn next(&self) -> String {
        format!("next.{}", self.name)
    }
}

/// The input that says which elements a dropout keeps: booleans of the tensor's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// The input's name, `mask.NODE`.
    pub name: String,
    /// The shape of one sample's mask; the batch is in front of it.
    pub sample_shape: Vec<usize>,
    /// The part of the elements that is dropped; what is kept is multiplied by 1 / (1 − ratio) in the graph.
    pub ratio: f64,
}

/// What a training graph's loss is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Objective {
    /// A loss of the scores and the input `labels` (int64 `[N]`).
    Labels(Loss),
    /// KL(p ‖ q) of q, the model's distribution, from p, the softmax of the input `reference` (float `[N, classes]`, taken as constant): what the
    /// inner maximisation of TRADES ascends.
    Divergence,
    /// cross-entropy(clean) + β · KL(clean ‖ adversarial), of the model's own input and an input `adversarial` of the same shape, with the gradient
    /// through both; running statistics see the clean batch, then the adversarial one.
    Trades {
        /// β.
        beta: f64,
    },
    /// ⟨`cotangent`, tensor⟩ of each sample: the first layer of YOPO, with the input `cotangent` of the tensor's shape. What lies behind the tensor is
    /// left out.
    Pairing {
        /// The tensor; [`Trainable::first_layer`] finds the usual one.
        tensor: String,
    },
}

impl Default for Objective {
    fn default() -> Self {
        Objective::Labels(Loss::CrossEntropy)
    }
}

/// Which statistics a batch normalisation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchNorm {
    /// Those of the batch, with the gradient through them; running statistics come out as `next.NAME`.
    #[default]
    Train,
    /// The running ones, as in the file: for frozen statistics, and for attacks on the model as it will be shipped.
    Running,
}

/// What dropout nodes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dropout {
    /// They drop what masks say, which are inputs, so that one mask can be held over several passes.
    #[default]
    Masks,
    /// Nothing, as at inference.
    Off,
}

/// What is asked of a model that is to be trained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainableOptions {
    /// Patterns of names of parameters that are not trained: `*` stands for any characters, `?` for one.
    pub freeze: Vec<String>,
    /// Inner tensors that have to survive simplification, for [`TrainingOptions::wrt`] and [`Objective::Pairing`].
    pub keep: Vec<String>,
}

/// What is asked of a training graph.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOptions {
    /// The loss.
    pub objective: Objective,
    /// Whether the gradients of the parameters come out.
    pub parameters: bool,
    /// The tensors whose gradient comes out: the model's input, or inner ones.
    pub wrt: Vec<String>,
    /// Whether each inner tensor of `wrt` gets an input `perturbation.NAME` of its shape that is added to it.
    pub perturbed: bool,
    /// Which statistics batch normalisation uses.
    pub batch_norm: BatchNorm,
    /// What dropout nodes do.
    pub dropout: Dropout,
    /// Whether a final softmax is differentiated through, instead of taking the loss on the logits below it.
    pub keep_softmax: bool,
}

impl Default for TrainingOptions {
    /// A weight step: the gradients of all parameters, of the mean cross-entropy, with batch statistics and dropout.
    fn default() -> Self {
        TrainingOptions {
            objective: Objective::default(),
            parameters: true,
            wrt: Vec::new(),
            perturbed: false,
            batch_norm: BatchNorm::Train,
            dropout: Dropout::Masks,
            keep_softmax: false,
        }
    }
}

/// A graph that gives losses and gradients, with the model's weights as inputs.
///
/// | | name | type, shape |
/// | --- | --- | --- |
/// | input | the model's own inputs | as in the model, unless nothing reads them |
/// | input | `labels`, `reference`, `adversarial`, `cotangent` | as the [`Objective`] says |
/// | input | each parameter's and statistic's name | as the initializer |
/// | input | `perturbation.NAME` | as the tensor, where asked for |
/// | input | `mask.NODE` | bool, as the tensor that is dropped from |
/// | output | the model's own outputs | as in the model (not for [`Objective::Pairing`]) |
/// | output | `loss` | float `[N]` |
/// | output | `grad`, or `grad.NAME` where `wrt` names several | d(sum of losses)/d(tensor) |
/// | output | `grad.PARAMETER` | d(mean of losses)/d(parameter) |
/// | output | `next.STATISTIC` | as the statistic |
#[derive(Debug, Clone)]
pub struct TrainingGraph {
    /// The graph, every value with its shape.
    pub graph: Graph,
    /// The parameters whose gradients come out, in the file's order; the graph may take others as inputs as well.
    pub parameters: Vec<Parameter>,
    /// The running statistics that are inputs, in the graph's order.
    pub statistics: Vec<Statistic>,
    /// The dropout masks that are inputs.
    pub masks: Vec<Mask>,
    /// Each tensor of `wrt` with the output that has its gradient.
    pub gradients: Vec<(String, String)>,
    /// The model's output with a number for each class; `None` for [`Objective::Pairing`].
    pub output: Option<ValueId>,
    /// The loss of each sample.
    pub loss: ValueId,
    /// Whether the loss was taken on the logits below a final softmax.
    pub softmax_removed: bool,
}

/// A dropout of the file, which is a multiplication by an input of rank 0 until it is known what it is to do.
#[derive(Debug, Clone)]
struct Dropped {
    /// The name of the input.
    factor: String,
    /// The name of the node.
    node: String,
    ratio: f64,
}

/// A model made ready for training: its weights are inputs, its shapes known, nothing of the weights folded.
#[derive(Debug, Clone)]
pub struct Trainable {
    /// What can be trained and is not frozen, in the file's order.
    pub parameters: Vec<Parameter>,
    /// The names of parameters that are frozen: constants of the graph.
    pub frozen: Vec<String>,
    /// The running statistics of batch normalisations.
    pub statistics: Vec<Statistic>,
    /// What was decided on the way, in sentences for the log.
    pub notes: Vec<String>,
    /// The graph, before a loss is put on it.
    graph: Graph,
    input: ValueId,
    output: ValueId,
    /// The dropout nodes.
    dropped: Vec<Dropped>,
    sha256: String,
    straight_through: bool,
}

impl Model {
    /// Finds what can be trained, and makes the model ready for it.
    ///
    /// # Errors
    /// Where there is nothing to train, or a pattern matches nothing.
    pub fn trainable(&self, options: &TrainableOptions) -> Result<Trainable, Error> {
        prepare::trainable(self, options)
    }
}

impl Trainable {
    /// Derives a graph.
    ///
    /// # Errors
    /// Where an operator on the path has no rule, a tensor is not there, or the objective does not fit the model.
    pub fn derive(&self, options: &TrainingOptions) -> Result<TrainingGraph, Error> {
        derive::derive(self, options)
    }

    /// The place where YOPO cuts: the first tensor behind weights that everything from `tensor` (the model's input or an inner tensor, such as an
    /// embedding) to the scores passes through.
    #[must_use]
    pub fn first_layer(&self, tensor: &str) -> Option<&str> {
        let from = self.graph.find(tensor)?;
        parameters::first_layer(&self.graph, &self.parameters, from, self.output)
            .map(|id| self.graph.name(id))
    }

    /// The graph with the weights as inputs, before a loss is put on it.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}
