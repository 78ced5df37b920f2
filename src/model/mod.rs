//! The model under test: from a file to a graph that can be differentiated, and to sessions that run it.
//!
//! [`Model::open`] reads, lifts, simplifies and traces; [`Model::gradient`] derives the gradient graph; [`Model::judge`] loads the model as
//! shipped; [`program::Program`] fuses the gradient graph with an attack.

mod buffer;
mod check;
mod external;
pub mod gradient;
mod inspection;
pub mod judge;
mod perturbing;
mod ports;
pub mod program;
mod runner;
pub mod trace;

pub use gradient::{GradientGraph, GradientOptions};
pub use inspection::{Inspection, OperatorUse, Support};
pub use judge::{Judge, Verdict};
pub use perturbing::Front;
pub use program::Program;

use crate::graph::{Graph, ValueId, passes};
use crate::onnx::{self, ModelProto};
use crate::runtime::{self, Optimization, Session, SessionOptions, Value};
use crate::tensor::DType;
use crate::{grad, graph::passes::Normalization};
use ports::Ports;
use sha2::{Digest, Sha256};
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
    classes: usize,
    batch: Batch,
    notes: Vec<String>,
    others: Vec<String>,
    cut: Option<perturbing::Cut>,
    session: SessionOptions,
}

impl Model {
    /// Reads a model and runs it, so that every shape is known.
    ///
    /// # Errors
    /// Where the file is no model, where its inputs and outputs leave a choice that was not made, or where ONNX Runtime cannot run it.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Self, Error> {
        let proto = onnx::read(path)?;
        let sha256 = digest(path)?;
        let mut original = Graph::from_model(proto);
        let ports = Ports::choose(&original, options)?;
        ports.declare(&mut original);
        let mut notes = ports.notes.clone();
        let (shipped, batch) = free(&original, &ports, options, &mut notes)?;
        let mut graph = shipped.clone();
        passes::lift(&mut graph)?;
        let mut graph = simplify(&graph, options, &mut notes)?;
        trace_at(&mut graph, &ports, batch, &options.session)?;
        let output = ports::choose_output(&graph, options.output.as_deref())?;
        let (_, classes) = graph
            .fact(output)
            .and_then(|fact| gradient::class_axis(&fact.shape))
            .ok_or_else(|| Error::Internal("the chosen output has no classes".into()))?;
        let input = graph
            .find(&ports.input)
            .ok_or_else(|| Error::Internal("the input was lost".into()))?;
        let model = Model {
            path: path.to_owned(),
            sha256,
            input,
            output,
            sample_shape: ports.sample_shape.clone(),
            classes: usize::try_from(classes).unwrap_or_default(),
            batch,
            notes,
            others: ports.others().map(str::to_owned).collect(),
            cut: None,
            session: options.session.clone(),
            shipped,
            graph,
        };
        check::agrees(&model, &original, &ports, options)?;
        Ok(model)
    }

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

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
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
            &self.sha256,
        )
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
        Ok(Judge::new(runner, self.classes, self.ends_in_softmax()))
    }
}

/// The model with a dynamic batch where that is possible, else as it is; with the normalisation in front.
fn free(
    original: &Graph,
    ports: &Ports,
    options: &ModelOptions,
    notes: &mut Vec<String>,
) -> Result<(Graph, Batch), Error> {
    let normalized = |mut graph: Graph| -> Result<Graph, Error> {
        if let Some(normalization) = &options.normalization {
            let input = graph
                .find(&ports.input)
                .ok_or_else(|| Error::Internal("the input was lost".into()))?;
            passes::normalize(&mut graph, input, &ports.sample_shape, normalization)
                .map_err(Error::Unsuitable)?;
        }
        Ok(graph)
    };
    let mut freed = original.clone();
    if let Some(size) = ports.declared_batch {
        // With shapes known, the batch is found on every axis that it moves to. Where the model does not run, that shows below.
        let _ = trace::trace(
            &mut freed,
            &|batch| ports.feeds(batch),
            &[size],
            &options.session,
        );
    }
    let inputs: Vec<ValueId> = original.real_inputs().map(|(id, _)| *id).collect();
    let attempt = match passes::free_batch(&mut freed, &inputs) {
        Ok(changes) => {
            check::runs_at_several_sizes(&freed, ports, &options.session).map(|()| changes)
        }
        Err(error) => Err(error.to_string()),
    };
    match attempt {
        Ok(changes) => {
            if let Some(size) = changes.pinned {
                let nodes = if changes.nodes.is_empty() {
                    String::new()
                } else {
                    format!(", also in node {}", changes.nodes.join(", "))
                };
                notes.push(format!(
                    "the model pins the batch to {size}: made dynamic{nodes}"
                ));
            }
            Ok((normalized(freed)?, Batch::Dynamic))
        }
        Err(reason) => {
            let size = ports.declared_batch.unwrap_or(1);
            notes.push(format!(
                "the model runs only with batches of {size} ({reason}); this is slower"
            ));
            Ok((normalized(original.clone())?, Batch::Fixed(size)))
        }
    }
}

/// Lets ONNX Runtime fold constants, inline functions and fuse batch normalisation, in standard operators.
fn simplify(
    graph: &Graph,
    options: &ModelOptions,
    notes: &mut Vec<String>,
) -> Result<Graph, Error> {
    let mut model = graph.to_model();
    if onnx::encoded_len(&model) > onnx::WEIGHTS_IN_FILE {
        notes.push(
            "the model has more than 2 GB: it is differentiated without being simplified first"
                .into(),
        );
        return Ok(graph.clone());
    }
    let declared = model.graph.as_ref().map_or(0, |graph| graph.output.len());
    if let Some(proto) = &mut model.graph {
        for name in &options.keep {
            let known = graph.find(name).is_some()
                && !proto
                    .output
                    .iter()
                    .any(|info| info.name.as_ref() == Some(name));
            let outer = proto
                .input
                .iter()
                .chain(&proto.output)
                .any(|info| info.name.as_ref() == Some(name));
            if known && !outer {
                proto.output.push(onnx::proto::ValueInfoProto {
                    name: Some(name.clone()),
                    ..Default::default()
                });
            }
        }
    }
    let folder = temporary()?;
    let file = folder.path().join("simplified.onnx");
    let session = SessionOptions {
        device: runtime::Device::Cpu,
        optimization: Optimization::Basic,
        save_optimized: Some(file.clone()),
        ..options.session.clone()
    };
    drop(load(&model, &session)?);
    let mut simplified = onnx::read(&file)?;
    if let Some(proto) = &mut simplified.graph {
        proto.output.truncate(declared);
    }
    Ok(Graph::from_model(simplified))
}

/// Runs the graph to learn every shape.
fn trace_at(
    graph: &mut Graph,
    ports: &Ports,
    batch: Batch,
    session: &SessionOptions,
) -> Result<(), Error> {
    let sizes = match batch {
        Batch::Dynamic => trace::BATCHES.to_vec(),
        Batch::Fixed(size) => vec![size],
    };
    trace::trace(graph, &|batch| ports.feeds(batch), &sizes, session)
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

fn digest(path: &Path) -> Result<String, Error> {
    let bytes = onnx::map(path).map_err(|source| onnx::Error::Read {
        path: path.into(),
        source,
    })?;
    Ok(format!("{:x}", Sha256::digest(&bytes)))
}

/// Named values, as sessions take them.
type Feeds = Vec<(String, Value)>;
