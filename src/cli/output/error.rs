//! Why results cannot be written.

use std::io;
use std::path::PathBuf;

/// Why results cannot be written where they should go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A folder is asked for where there is something else.
    #[error("{}: is not a folder; give another path, or move it away", .path.display())]
    NotAFolder {
        /// What is there.
        path: PathBuf,
    },
    /// A file is asked for where there is a folder.
    #[error("{}: is a folder; give the path of a file", .path.display())]
    IsAFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A file is asked for where there is a device, a pipe or the like.
    #[error("{}: is no regular file, and would be replaced by one; give another path", .path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// A path without a file name, such as `..`.
    #[error("`{}`: has no file name; give the path of a file", .path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The folder above does not exist.
    #[error("{}: the folder {} does not exist; make it first", .path.display(), .parent.display())]
    NoParent {
        /// What should be made.
        path: PathBuf,
        /// Where it should be made.
        parent: PathBuf,
    },
    /// The path cannot even be looked at.
    #[error("{}: cannot be looked at", .path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file or its folder cannot be written.
    #[error("{}: cannot be written", .path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another run has the folder.
    #[error("{}: another run of mohs is writing its report there; wait for it, or give another folder", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A result would replace what the run reads.
    #[error("{}: is read by this run, and would be replaced by its result; give another path", .path.display())]
    Input {
        /// The file.
        path: PathBuf,
    },
    /// Two results of one run have the same name.
    #[error("{}: two results would be written there; give each a path of its own", .path.display())]
    Repeated {
        /// The path.
        path: PathBuf,
    },
}
