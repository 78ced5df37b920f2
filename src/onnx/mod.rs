//! ONNX files, read and written without loss.
//!
//! [`read()`] and [`write()`] turn files into [`ModelProto`]s and back; [`to_tensor`] decodes tensors, wherever their elements are.
//! Nothing here knows what a graph means.

mod external_data;
pub mod proto;
mod tensor;

pub use external_data::{ExternalData, WEIGHTS_IN_FILE};
pub use proto::ModelProto;
pub use tensor::{from_tensor, to_tensor};

use bytes::Bytes;
use prost::Message;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The bytes are no ONNX model.
    #[error(
        "{path} is no ONNX model, or a truncated one ({reason}); export the model again, or check that the file was copied whole"
    )]
    NoModel {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A tensor's elements do not fit its type and shape, or are of a type that mohs does not compute with.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// A tensor's elements are in a file that cannot be used.
    #[error("tensor `{name}` has its elements in {file}: {reason}")]
    ExternalData {
        /// The tensor.
        name: String,
        /// The file, as named in the model.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a model.
///
/// The file is memory-mapped, and so are the files with external data that it names: the elements of large tensors stay on the disk until
/// they are used.
/// Tensors with external data come back with their elements in `raw_data` and their `external_data` entries kept.
///
/// # Errors
/// Where the file cannot be read, is no model, or names external data that is missing, too short or outside the model's folder.
pub fn read(path: &Path) -> Result<ModelProto, Error> {
    let bytes = map(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    let mut model = decode(bytes, path)?;
    external_data::attach(&mut model, path.parent().unwrap_or(Path::new("")))?;
    Ok(model)
}

/// Reads a model from bytes in memory; external data are not looked for.
///
/// # Errors
/// Where the bytes are no model; `name` stands for the file in the message.
pub fn decode(bytes: Bytes, name: &Path) -> Result<ModelProto, Error> {
    let no_model = |reason: &str| Error::NoModel {
        path: name.into(),
        reason: reason.into(),
    };
    if bytes.is_empty() {
        return Err(no_model("it is empty"));
    }
    let length = bytes.len();
    let model = ModelProto::decode(bytes).map_err(|error| no_model(&error.to_string()))?;
    let Some(graph) = &model.graph else {
        return Err(no_model("it has no graph"));
    };
    if model.opset_import.is_empty() {
        return Err(no_model("it names no operator set"));
    }
    if graph.output.is_empty() {
        return Err(no_model("its graph has no outputs"));
    }
    // Decoding drops fields that the format does not have; what is left then is shorter.
    if model.encoded_len() < length {
        tracing::warn!(
            "{}: {} bytes are no fields of ONNX (IR version 14) and will not be kept",
            name.display(),
            length - model.encoded_len()
        );
    }
    Ok(model)
}

/// The model as bytes, with every tensor's elements inside.
#[must_use]
pub fn encode(model: &ModelProto) -> Vec<u8> {
    external_data::inlined(model).encode_to_vec()
}

/// A node as bytes, the same for equal nodes: a key that tells nodes apart.
#[must_use]
pub fn encode_node(node: &proto::NodeProto) -> Vec<u8> {
    node.encode_to_vec()
}

/// The number of bytes that [`encode`] would give.
#[must_use]
pub fn encoded_len(model: &ModelProto) -> usize {
    external_data::inlined(model).encoded_len()
}

/// Writes a model to `path`, by a temporary file that is renamed: a reader never sees half a model.
///
/// Tensors that were read from external data are written to one file beside it, `<path>.data`, and so is every large tensor of a model that
/// would otherwise be beyond the 2 GB that a protobuf message can hold.
///
/// # Errors
/// Where the folder or a file cannot be written.
pub fn write(model: &ModelProto, path: &Path) -> Result<(), Error> {
    let error = |source: io::Error| Error::Write {
        path: path.into(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let detached;
    let model = if external_data::wanted(model) {
        detached = external_data::detach(model, path)?;
        &detached
    } else {
        model
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(error)?;
    io::Write::write_all(&mut file, &encode(model)).map_err(error)?;
    external_data::set_permissions(&file).map_err(error)?;
    file.persist(path).map_err(|failed| error(failed.error))?;
    Ok(())
}

/// Maps a file into memory.
#[expect(unsafe_code, reason = "memory maps")]
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a folder",
        ));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: a map is unsound only if the file is changed while it is in use. Models are files that are written once and renamed (as mohs
    // itself does); whoever truncates one under a running program gets a signal from the kernel with any tool that maps it.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}
