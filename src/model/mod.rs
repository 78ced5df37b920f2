//! The model under test.

pub mod trace;

use crate::onnx::{self, ModelProto};
use crate::runtime::{self, Session, SessionOptions};
use std::path::PathBuf;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is at fault.
    #[error(transparent)]
    File(#[from] onnx::Error),
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
