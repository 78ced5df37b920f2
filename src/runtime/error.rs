//! What can go wrong with the library, a device, a session or a value.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use super::device::Device;
use super::place::{Origin, Rejection, Searched};
use crate::tensor::DType;

/// A failure of the runtime or of a device.
///
/// Where ONNX Runtime itself refused, its own message is the [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library that the user named is not there.
    #[error(
        "{origin} names {}, where there is no ONNX Runtime library: give the library file or the folder that holds it",
        path.display()
    )]
    LibraryMissing {
        /// Who named it.
        origin: Origin,
        /// The path as it was named.
        path: PathBuf,
    },
    /// The library that the user named cannot be used.
    #[error("{origin} names {}, which cannot be used: {reason}", path.display())]
    LibraryUnusable {
        /// Who named it.
        origin: Origin,
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: Rejection,
    },
    /// A second library was asked for in a process that already runs on another.
    #[error(
        "this process already runs on {}, so {} cannot be loaded: name the library before anything runs",
        loaded.display(),
        asked.display()
    )]
    LibraryLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        asked: PathBuf,
    },
    /// There is no library anywhere, and it could not be provided.
    #[error("{}", no_library(provision, searched))]
    NoLibrary {
        /// Why mohs did not provide one itself.
        provision: String,
        /// Every place that was looked at.
        searched: Vec<Searched>,
    },
    /// The library was loaded but did not start.
    #[error("ONNX Runtime at {} does not start", path.display())]
    Start {
        /// The library.
        path: PathBuf,
        /// ONNX Runtime's message.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The device that was asked for cannot be had.
    #[error("device `{device}` cannot be had: {reason}")]
    Device {
        /// The device.
        device: Device,
        /// Why, and what to do.
        reason: String,
    },
    /// No session can be made of a model.
    #[error("ONNX Runtime cannot load {model}")]
    Load {
        /// The model's name.
        model: String,
        /// ONNX Runtime's message.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A run failed.
    #[error("running {model} failed")]
    Run {
        /// The model's name.
        model: String,
        /// ONNX Runtime's message.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An output was asked for that the model does not have.
    #[error("{model} has no output `{output}`, only {}", quoted(outputs))]
    UnknownOutput {
        /// The model's name.
        model: String,
        /// The name asked for.
        output: String,
        /// The names that exist.
        outputs: Vec<String>,
    },
    /// A host tensor could not be handed to ONNX Runtime.
    #[error("a {dtype} tensor of shape {shape:?} cannot be handed to ONNX Runtime")]
    Value {
        /// The element type.
        dtype: DType,
        /// The shape.
        shape: Vec<usize>,
        /// ONNX Runtime's message.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The elements of a value were asked for as another type than it holds, or are not in host memory.
    #[error("a value of {} was read as {asked}", held.map_or("another kind".to_owned(), |dtype| dtype.to_string()))]
    ValueType {
        /// What the value holds; none where that is no tensor, or one of a type that mohs does not know.
        held: Option<DType>,
        /// What was asked for.
        asked: DType,
    },
    /// A value was asked for as a host tensor that is none, or one of a type that mohs does not know.
    #[error("a value of type {held} cannot be read as a tensor of numbers")]
    NoTensor {
        /// ONNX Runtime's name of the type.
        held: String,
    },
}

/// What ONNX Runtime, CUDA, TensorRT and the C++ library write where memory runs out.
const OUT_OF_MEMORY: &[&str] = &[
    "out of memory",
    "failed to allocate memory",
    "bad_alloc",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "outofmemory",
];

impl Error {
    /// Whether the device or the machine ran out of memory: fewer samples at once may fit.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        let text = chain(self).to_lowercase();
        matches!(
            self,
            Error::Load { .. } | Error::Run { .. } | Error::Value { .. }
        ) && OUT_OF_MEMORY.iter().any(|words| text.contains(words))
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn quoted(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn no_library(provision: &str, searched: &[Searched]) -> String {
    use fmt::Write;
    let mut text = format!(
        "no ONNX Runtime of version 1.{} or newer was found, and it could not be downloaded: {provision}\nlooked at:\n",
        ort::MINOR_VERSION
    );
    for place in searched {
        let _ = writeln!(text, "  {place}");
    }
    let _ = write!(
        text,
        "ways out:\n  \
         name the library or its folder with --onnxruntime PATH or MOHS_ONNXRUNTIME=PATH\n  \
         or run `pip install -U onnxruntime` in the Python environment that is active"
    );
    if std::env::var_os("MOHS_OFFLINE").is_some() {
        text.push_str("\n  or unset MOHS_OFFLINE, so that mohs downloads it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_known_by_what_the_runtime_writes() {
        let run = |text: &str| Error::Run {
            model: "the pgd step".into(),
            source: text.into(),
        };
        for text in [
            "Non-zero status code returned while running Conv node. Name:'a' Status Message: bad allocation: std::bad_alloc",
            "BFCArena::AllocateRawInternal Available memory of 0 is smaller than requested bytes of 9: Failed to allocate memory for requested buffer of size 9",
            "CUDA failure 2: out of memory ; GPU=0",
        ] {
            assert!(run(text).is_out_of_memory(), "{text}");
        }
        assert!(
            !run("CUDA failure 700: an illegal memory access was encountered").is_out_of_memory()
        );
    }
}
