//! The model under test: from a file to a graph that can be differentiated, and to sessions that run it.
//!
//! [`Model::open`] reads, lifts, simplifies and traces; [`Model::gradient`] derives the gradient graph; [`Model::judge`] loads the model as
//! shipped; [`program::Program`] fuses the gradient graph with an attack.

mod buffer;
mod check;
mod device_check;
mod external;
mod foreign;
mod fuse;
pub mod gradient;
mod inspection;
pub mod judge;
mod lane;
mod open;
mod perturbing;
mod ports;
pub mod program;
mod runner;
pub mod slope;
pub mod trace;
pub mod training;

pub(crate) use fuse::GraphArrays;
pub use gradient::{GradientGraph, GradientOptions};
pub use inspection::{Inspection, OperatorUse, Support};
pub use judge::{Answers, Judge, Verdict};
pub use perturbing::Front;
pub use program::Program;

use crate::graph::{Graph, ValueId, passes};
use crate::onnx::{self, ModelProto};
use crate::runtime::{self, Arithmetic, Device, Session, SessionOptions, Value};
use crate::tensor::DType;
use crate::threat::Precision;
use crate::{grad, graph::passes::Normalization};
use ports::Ports;
pub(crate) use ports::{describe, dtype as declared_type, extents as declared_extents, typed};
use std::path::{Path, PathBuf};

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is at fault.
    #[error(transparent)]
    File(#[from] onnx::Error),
    /// The model cannot be brought to the operator set that mohs differentiates.
    #[error(transparent)]
    Lift(#[from] passes::LiftError),
    /// The model cannot be differentiated.
    #[error(transparent)]
    Gradient(#[from] grad::Error),
    /// The model is of a kind, or has inputs or outputs, that do not fit what was asked.
    #[error("{0}")]
    Unsuitable(String),
    /// A score is NaN.
    #[error("the model gives NaN for class {class} of point {row}")]
    NotANumber {
        /// The point's position among those that were judged together.
        row: usize,
        /// The class.
        class: usize,
    },
    /// ONNX Runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A temporary file could not be made.
    #[error(
        "cannot write a temporary file in {folder}: {source}; set TMPDIR to a folder with room"
    )]
    Temporary {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Mohs itself is at fault.
    #[error("{0}; this is a defect of mohs, please report it with the model")]
    Internal(String),
}

impl Error {
    /// Whether the device or the machine ran out of memory: fewer samples at once may fit.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Error::Runtime(error) if error.is_out_of_memory())
    }

    /// Whether ONNX Runtime or the device failed, rather than the input being bad.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        matches!(
            self,
            Error::Runtime(_) | Error::Temporary { .. } | Error::Internal(_)
        )
    }
}

/// How many samples a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Any number.
    Dynamic,
    /// Just this number.
    Fixed(usize),
}

/// What is asked of a model.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// The attacked input; needed where there are several of float type.
    pub input: Option<String>,
    /// The output with the class scores; needed where several outputs could be that.
    pub output: Option<String>,
    /// The shape of one sample, for axes that the model leaves open.
    pub input_shape: Option<Vec<usize>>,
    /// Normalisation in front of the model.
    pub normalization: Option<Normalization>,
    /// Inner tensors that have to survive simplification, to be differentiated by.
    pub keep: Vec<String>,
    /// Whether the input may be of an integer type, such as token ids, though no inner tensor is kept: for weights, which need no gradient of the input.
    pub integer_input: bool,
    /// Whether gradients pass straight through rounding and quantisation; verdicts are those of the model as it is all the same.
    pub straight_through: bool,
    /// Device and threads.
    pub session: SessionOptions,
}

/// A model that has been read, understood and run.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    sha256: String,
    /// The model as shipped, but for a batch that was freed and the normalisation.
    shipped: Graph,
    /// The same, lifted, simplified and traced: what is differentiated.
    graph: Graph,
    input: ValueId,
    output: ValueId,
    sample_shape: Vec<usize>,
    answers: Answers,
    batch: Batch,
    notes: Vec<String>,
    others: Vec<String>,
    cut: Option<perturbing::Cut>,
    straight_through: bool,
    session: SessionOptions,
    search: Arithmetic,
    /// What was asked for, and the inputs that were chosen: the model is worked out again where it is trained.
    options: ModelOptions,
    ports: Ports,
}

impl Model {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The lifted, simplified and traced graph.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The name of the attacked input.
    #[must_use]
    pub fn input(&self) -> &str {
        self.graph.name(self.input)
    }

    /// The name of the output with the class scores.
    #[must_use]
    pub fn output(&self) -> &str {
        self.graph.name(self.output)
    }

    /// The shape of one sample, without the batch.
    #[must_use]
    pub fn sample_shape(&self) -> &[usize] {
        &self.sample_shape
    }

    /// The type of the attacked input.
    #[must_use]
    pub fn input_dtype(&self) -> DType {
        self.graph
            .fact(self.input)
            .map_or(DType::F32, |fact| fact.dtype)
    }

    /// The precision of the attacked input.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self.input_dtype() {
            DType::F16 => Precision::Half,
            DType::BF16 => Precision::Brain,
            _ => Precision::Single,
        }
    }

    /// The coarsest precision that the model computes in anywhere.
    #[must_use]
    pub fn coarsest(&self) -> Precision {
        let computes_in = |dtype: DType| {
            let mut facts = self.graph.value_ids().filter_map(|id| self.graph.fact(id));
            facts.any(|fact| fact.dtype == dtype)
        };
        if computes_in(DType::BF16) {
            Precision::Brain
        } else if computes_in(DType::F16) {
            Precision::Half
        } else {
            Precision::Single
        }
    }

    /// What the output says of a sample.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// The number of classes; `None` where the model gives nothing but the label of one.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.answers.classes()
    }

    /// How many samples a run takes.
    #[must_use]
    pub fn batch(&self) -> Batch {
        self.batch
    }

    /// What was decided on the way, in sentences for the log.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The names of inputs besides the attacked one, where there are any.
    #[must_use]
    pub fn other_inputs(&self) -> Option<String> {
        (!self.others.is_empty()).then(|| self.others.join(", "))
    }

    /// Device and threads.
    #[must_use]
    pub fn session_options(&self) -> &SessionOptions {
        &self.session
    }

    /// The same model, with gradients of attacks computed in `search`; verdicts are computed in single precision all the same.
    ///
    /// # Errors
    /// Where the device does not compute in that precision.
    pub fn with_search_precision(self, search: Arithmetic) -> Result<Self, Error> {
        search
            .check(self.session.device)
            .map_err(Error::Unsuitable)?;
        Ok(Model { search, ..self })
    }

    /// The precision that gradients of attacks are computed in.
    #[must_use]
    pub fn search_precision(&self) -> Arithmetic {
        self.search
    }

    /// Derives the gradient graph that attacks follow: as [`Model::gradient`], in the precision of the search.
    ///
    /// # Errors
    /// As [`Model::gradient`].
    pub fn search_gradient(&self, options: &GradientOptions) -> Result<GradientGraph, Error> {
        let options = GradientOptions {
            scale_seed: self.search.in_graph(self.session.device) == Some(DType::F16),
            ..options.clone()
        };
        Ok(self.lowered(self.gradient(&options)?))
    }

    /// A gradient graph in the precision of the search, where it is the graph that has to say so.
    #[must_use]
    pub fn lowered(&self, mut gradient: GradientGraph) -> GradientGraph {
        if let Some(low) = self.search.in_graph(self.session.device) {
            passes::lower_precision(&mut gradient.graph, low);
        }
        gradient
    }

    /// Which precision gradients and verdicts are computed in, where it is not the same.
    #[must_use]
    pub fn search_note(&self) -> Option<String> {
        let low = matches!(self.search, Arithmetic::Brain | Arithmetic::Half);
        low.then(|| {
            format!(
                "gradients are computed in {}, verdicts in {}",
                self.search,
                Arithmetic::Exact
            )
        })
    }

    /// Derives the gradient graph.
    ///
    /// # Errors
    /// Where an operator on the path has no rule, or the loss does not fit the output.
    pub fn gradient(&self, options: &GradientOptions) -> Result<GradientGraph, Error> {
        gradient::derive(
            self.graph.clone(),
            self.input,
            self.output,
            options,
            &gradient::Source {
                straight_through: self.straight_through,
                probabilities: matches!(self.answers, Answers::Probabilities { .. }),
                sha256: &self.sha256,
            },
        )
    }

    /// Whether it runs on the CPU alone, with ONNX Runtime's own kernels.
    #[must_use]
    pub fn is_on_cpu(&self) -> bool {
        let device = runtime::resolve(self.session.device);
        device.is_ok_and(|device| device == Device::Cpu) && self.session.others.is_empty()
    }

    /// Whether gradients pass straight through rounding and quantisation.
    #[must_use]
    pub fn straight_through(&self) -> bool {
        self.straight_through
    }

    /// Whether the scores are probabilities: the output comes out of a softmax.
    #[must_use]
    pub fn ends_in_softmax(&self) -> bool {
        gradient::ends_in_softmax(&self.graph, self.output)
    }

    /// Loads the model as shipped, for verdicts.
    ///
    /// # Errors
    /// Where ONNX Runtime cannot load it.
    pub fn judge(&self) -> Result<Judge, Error> {
        let attacked = runner::Feed {
            name: self.input().to_owned(),
            dtype: self.input_dtype(),
            sample_shape: self.sample_shape.clone(),
        };
        let feeds = std::iter::once(attacked)
            .chain(self.carried().cloned())
            .collect();
        let runner = runner::Runner::new(
            &self.shipped,
            feeds,
            self.output(),
            self.batch,
            &self.session,
        )?;
        Ok(Judge::new(runner, self.answers))
    }
}

/// Loads a model, by way of a file where it is too large for a message.
pub(crate) fn load(model: &ModelProto, options: &SessionOptions) -> Result<Session, Error> {
    if onnx::encoded_len(model) <= onnx::WEIGHTS_IN_FILE {
        return Ok(Session::from_bytes(&onnx::encode(model), options)?);
    }
    let folder = temporary()?;
    let file = folder.path().join("model.onnx");
    onnx::write(model, &file)?;
    Ok(Session::from_file(&file, options)?)
}

fn temporary() -> Result<tempfile::TempDir, Error> {
    tempfile::tempdir().map_err(|source| Error::Temporary {
        folder: std::env::temp_dir(),
        source,
    })
}

/// Named values, as sessions take them.
type Feeds = Vec<(String, Value)>;
