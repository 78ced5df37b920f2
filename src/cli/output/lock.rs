//! One run at a time in a folder.

use super::OutputError;
use std::fs::{File, TryLockError};
use std::path::Path;

/// A folder that is reserved for this process; free again when this is dropped, or when the process ends in whatever way.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Reserves a folder; none where its file system knows no locks.
    ///
    /// # Errors
    /// Where another run has it.
    pub(super) fn take(folder: &Path) -> Result<Option<Self>, OutputError> {
        let Some(file) = handle(folder) else {
            return Ok(None);
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(FolderLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(OutputError::InUse {
                path: folder.into(),
            }),
            Err(TryLockError::Error(error)) => {
                tracing::debug!(
                    "{}: cannot be reserved for this run: {error}",
                    folder.display()
                );
                Ok(None)
            }
        }
    }
}

/// The folder itself, so that nothing has to be put into it.
#[cfg(unix)]
fn handle(folder: &Path) -> Option<File> {
    File::open(folder).ok()
}

/// Elsewhere folders cannot be locked, and a file stands in for them.
#[cfg(not(unix))]
fn handle(folder: &Path) -> Option<File> {
    let path = folder.join(".mohs.lock");
    let mut options = File::options();
    options.create(true).write(true).truncate(false);
    options.open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_reserved_until_its_lock_goes() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        assert!(first.is_some());
        assert!(matches!(
            FolderLock::take(folder.path()),
            Err(OutputError::InUse { .. })
        ));
        drop(first);
        assert!(FolderLock::take(folder.path()).unwrap().is_some());
    }
}
