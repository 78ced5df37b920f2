//! Why a file of settings cannot be taken.

use super::Place;
use std::io;
use std::path::PathBuf;

/// Why a file of settings cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no working directory to look from.
    #[error(
        "the current folder cannot be looked at, to find mohs.toml; give --config or --no-config"
    )]
    NoFolder(#[source] io::Error),
    /// The file that was named is not there.
    #[error("{}: no such file; `mohs gate --init` writes one into the current folder", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{}, line {line}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key that is no flag of `mohs gate`.
    #[error("{place}: there is no such key; {hint}")]
    UnknownKey {
        /// Where it stands.
        place: Box<Place>,
        /// What may have been meant.
        hint: String,
    },
    /// A value of another type.
    #[error("{place}: it takes {expected}, not {found}")]
    Type {
        /// Where it stands.
        place: Box<Place>,
        /// What the key takes.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A value that the flag refuses.
    #[error("{place}: {reason}")]
    Value {
        /// Where it stands.
        place: Box<Place>,
        /// What the flag has against it.
        reason: String,
    },
    /// A file that `--init` would replace.
    #[error("{}: is there already; move it away, or change it", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}
