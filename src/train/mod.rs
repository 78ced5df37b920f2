//! The job: make this model more robust by training it on perturbed samples.
//!
//! Everything runs in graphs on ONNX Runtime: the gradients of the weights, the attack's steps and the optimizer's.
//! [`train`] goes through the data epoch by epoch and tells an [`Observer`]; it writes nothing but checkpoints and draws no bar.
//! Start at [`train`] for the whole, at [`methods`] for what is done with a batch.

mod checkpoint;
pub mod choice;
mod engine;
mod given;
mod loader;
pub mod methods;
pub mod optim;
mod pass;
pub mod schedule;
mod start;
mod trainer;
mod validate;
mod weights;

use crate::attack;
use crate::data;
use crate::model::training::BatchNorm;
use crate::model::{self};
use crate::onnx::proto::ModelProto;
use crate::runtime;
use crate::tensor::DType;
use crate::threat::{Bounds, Norm};
use methods::Method;
use optim::Optimizer;
use schedule::Schedule;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

pub use loader::Augmentation;
pub use trainer::train;

/// Why a model could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model is at fault, or ONNX Runtime.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// ONNX Runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The data are at fault.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The attack does not fit what was asked.
    #[error(transparent)]
    Attack(#[from] attack::Error),
    /// What was asked makes no sense together.
    #[error("{0}")]
    Config(String),
    /// The loss of a batch is no number.
    #[error("the loss is not finite for the samples {}", list(.samples))]
    LossNotFinite {
        /// The rows in the data set.
        samples: Vec<u64>,
    },
    /// The loss became no number in the course of the training.
    #[error(
        "the loss is not finite in epoch {epoch}, batch {batch}, for the samples {}: lower the learning rate (it is {learning_rate} there), clip the gradients (clip=1), \
         or look at these samples; {kept}", list(.samples)
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: u64,
        /// The batch in the epoch, from 1.
        batch: usize,
        /// The rows in the data set.
        samples: Vec<u64>,
        /// The learning rate of the step.
        learning_rate: f64,
        /// Which weights are left.
        kept: String,
    },
    /// A weight became no number.
    #[error(
        "the weights of `{parameter}` are not finite after epoch {epoch}: lower the learning rate or clip the gradients (clip=1); {kept}"
    )]
    WeightsNotFinite {
        /// The epoch, from 1.
        epoch: u64,
        /// The parameter.
        parameter: String,
        /// Which weights are left.
        kept: String,
    },
    /// A checkpoint cannot be used.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file of a checkpoint cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The observer ended the training.
    #[error(transparent)]
    Observer(ObserverError),
}

/// An error of an [`Observer`].
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

impl Error {
    pub(super) fn internal(reason: &str) -> Self {
        Error::Model(model::Error::Internal(reason.into()))
    }

    /// Whether ONNX Runtime or the device failed, rather than the input being bad.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        match self {
            Error::Model(error) => error.is_runtime(),
            Error::Runtime(_) => true,
            _ => false,
        }
    }
}

/// The first few numbers.
fn list(samples: &[u64]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = samples.iter().take(SHOWN).map(u64::to_string).collect();
    match samples.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

/// How a model is to be trained.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is done with a batch.
    pub method: Arc<dyn Method>,
    /// How gradients change weights.
    pub optimizer: Arc<dyn Optimizer>,
    /// How the learning rate changes.
    pub schedule: Arc<dyn Schedule>,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius; needed by every method that perturbs, and for robust accuracy.
    pub epsilon: Option<f64>,
    /// The range of valid inputs.
    pub bounds: Bounds,
    /// How often the data are gone through.
    pub epochs: NonZeroU32,
    /// Samples in a batch.
    pub batch_size: NonZeroUsize,
    /// The seed of everything random.
    pub seed: u64,
    /// How images are varied.
    pub augmentation: Augmentation,
    /// Which statistics batch normalisation uses in weight steps.
    pub batch_norm: BatchNorm,
    /// Patterns of the names of parameters that stay as they are.
    pub freeze: Vec<String>,
    /// The inner tensor that is perturbed instead of the input.
    pub tensor: Option<String>,
    /// The value of the samples that stands for padding, which is not perturbed.
    pub padding: Option<f32>,
    /// A training graph made elsewhere, in the place of those that mohs derives.
    pub training_graph: Option<PathBuf>,
    /// The seed by which all parameters are drawn anew first.
    pub reinitialize: Option<u64>,
    /// The steps of the attack by which robust accuracy is measured after each epoch.
    pub validation_steps: NonZeroU32,
    /// The folder for checkpoints.
    pub checkpoint: Option<PathBuf>,
    /// Whether to go on from the checkpoint.
    pub resume: bool,
}

/// What is perturbed, and how far.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The model's input.
    pub(super) input: String,
    /// The model's output with the scores.
    pub(super) output: String,
    /// A training graph made elsewhere.
    given: Option<Arc<given::Given>>,
    /// What is perturbed: the input or an inner tensor.
    pub(super) tensor: String,
    /// Whether it is an inner tensor.
    pub(super) inner: bool,
    /// The shape of one sample.
    pub(super) sample_shape: Vec<usize>,
    /// The shape of what is perturbed, of one sample.
    pub(super) point_shape: Vec<usize>,
    /// Its type.
    pub(super) point_dtype: DType,
    pub(super) norm: Norm,
    pub(super) epsilon: f64,
    pub(super) bounds: Bounds,
    /// Whether padding is left out.
    pub(super) padded: bool,
    pub(super) batch_norm: BatchNorm,
}

/// What an epoch has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u64,
    /// The weight steps so far.
    pub steps: u64,
    /// The learning rate of its last step.
    pub learning_rate: f64,
    /// The mean loss that its steps descended on.
    pub loss: f64,
    /// Accuracy on the validation data as they are.
    pub clean_accuracy: Option<f64>,
    /// Accuracy on the validation data under attack.
    pub robust_accuracy: Option<f64>,
    /// The passes forward and backward through the whole model so far.
    pub passes: u64,
    /// Seconds of training so far, validation left out.
    pub seconds: f64,
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The number of epochs.
    pub epochs: u64,
    /// Batches done in this epoch.
    pub batch: u64,
    /// Batches in an epoch.
    pub batches: u64,
    /// Samples trained on since the training was begun or resumed.
    pub samples: u64,
    /// Seconds since then.
    pub seconds: f64,
    /// The mean loss in this epoch.
    pub loss: f64,
    /// The accuracy on this epoch's samples as they are, where the method looks at it.
    pub clean_accuracy: Option<f64>,
    /// The accuracy on this epoch's perturbed samples, where the method looks at it.
    pub robust_accuracy: Option<f64>,
}

/// Follows a training.
pub trait Observer {
    /// An epoch is over; all epochs so far, those before a resumption included.
    ///
    /// # Errors
    /// Ends the training.
    fn epoch(&mut self, epochs: &[Epoch]) -> Result<(), ObserverError> {
        let _ = epochs;
        Ok(())
    }

    /// A batch is done.
    fn progress(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// Something was decided that a user should know.
    fn note(&mut self, note: &str) {
        let _ = note;
    }

    /// Whether to stop after this step.
    fn stops(&mut self) -> bool {
        false
    }
}

/// An observer that looks away.
impl Observer for () {}

/// What a training came to.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The model as it was, with new weights.
    pub model: ModelProto,
    /// The epochs.
    pub epochs: Vec<Epoch>,
    /// The epoch that the weights come from, where it is not the last.
    pub kept: Option<u64>,
    /// Whether the observer stopped it before the end.
    pub stopped: bool,
}
