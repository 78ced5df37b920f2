//! What an interrupted run leaves behind: nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Temporary files, and folders that were made for results, in the order in which they came about.
static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Notes a file or folder to be taken away if the run is interrupted.
pub(super) fn note(path: &Path) {
    let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
    // Those that were renamed or removed meanwhile are done with.
    paths.retain(|path| path.exists());
    paths.push(path.to_owned());
}

/// Takes away what was noted and is still there; a folder that holds results is not empty, and stays.
pub fn remove_temporaries() {
    let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
    for path in paths.drain(..).rev() {
        if fs::remove_file(&path).is_err() {
            let _ = fs::remove_dir(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_folders_and_files_go_and_results_stay() {
        let folder = tempfile::tempdir().unwrap();
        let [made, full] = ["made", "full"].map(|name| folder.path().join(name));
        fs::create_dir(&made).unwrap();
        fs::create_dir(&full).unwrap();
        fs::write(full.join("summary.csv"), "").unwrap();
        let file = made.join(".mohs-1.tmp");
        fs::write(&file, "").unwrap();
        // Other tests of this process note paths of their own.
        for path in [&made, &full, &file] {
            note(path);
        }
        let mut paths = PATHS.lock().unwrap();
        paths.retain(|path| path.starts_with(folder.path()));
        drop(paths);
        remove_temporaries();
        assert!(!made.exists());
        assert!(full.join("summary.csv").exists());
    }
}
