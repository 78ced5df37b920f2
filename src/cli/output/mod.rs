//! Files that appear whole or not at all.
//!
//! A run opens every file it will write before it starts, under temporary names in their final folders: a path that cannot be
//! written fails in the first second, not after an hour. [`commit`] gives all of them their names at the end; a run that fails
//! leaves neither a file nor a folder behind, and neither does one that is interrupted ([`remove_temporaries`]). A folder belongs to one run at a time, so that no report is mixed from two.

mod error;
mod lock;
mod temporaries;

pub use error::OutputError;
use std::collections::HashSet;
use std::fs;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;
pub use temporaries::remove_temporaries;

/// A folder for results.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    inner: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    made_here: bool,
    /// Held until the last file of the run has its name.
    _lock: Option<lock::FolderLock>,
    /// Goes after this folder has gone, if it was made here too.
    _parent: Option<Arc<Folder>>,
}

impl Drop for Folder {
    /// Takes an empty folder away again; one that holds results is not empty, and stays.
    fn drop(&mut self) {
        if self.made_here {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

impl OutputFolder {
    /// Takes the folder `path`, and every folder above it that is missing.
    ///
    /// For paths that mohs itself proposes; one that a user typed deserves [`OutputFolder::open`], which notices a slip.
    ///
    /// # Errors
    ///
    /// Where one of them is something other than a folder, or cannot be made.
    pub fn open_with_parents(path: &Path) -> Result<Self, OutputError> {
        let above = parent(path);
        let above = if path.exists() || above == path || above.exists() {
            None
        } else {
            Some(OutputFolder::open_with_parents(above)?.inner)
        };
        OutputFolder::open_in(path, above)
    }

    /// Takes the folder `path`, making it where only its parent exists.
    ///
    /// It is removed again if nothing is committed into it. Whether it can be written shows with [`OutputFolder::file`].
    ///
    /// # Errors
    ///
    /// Where `path` is something other than a folder, its parent does not exist, or it cannot be made.
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        OutputFolder::open_in(path, None)
    }

    fn open_in(path: &Path, above: Option<Arc<Folder>>) -> Result<Self, OutputError> {
        let made_here = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => false,
            Ok(_) => return Err(OutputError::NotAFolder { path: path.into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                require_folder(parent(path), path)?;
                make_folder(path)?
            }
            Err(source) => {
                return Err(OutputError::Unusable {
                    path: path.into(),
                    source,
                });
            }
        };
        let lock = lock::FolderLock::take(path)?;
        let folder = Folder {
            path: path.into(),
            made_here,
            _lock: lock,
            _parent: above,
        };
        Ok(OutputFolder {
            inner: Arc::new(folder),
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Opens a file in the folder, under a temporary name.
    ///
    /// # Errors
    ///
    /// As [`OutputFile::create`].
    pub fn file(&self, name: &str) -> Result<OutputFile, OutputError> {
        let mut file = OutputFile::create(&self.path().join(name))?;
        file.folder = Some(Arc::clone(&self.inner));
        Ok(file)
    }
}

/// A file under a temporary name in its final folder: written and sought as any other, gone if it is dropped, there under its own
/// name after [`commit`].
#[derive(Debug)]
pub struct OutputFile {
    /// Declared before `folder`, so that the temporary file goes before its folder does.
    writer: BufWriter<NamedTempFile>,
    target: PathBuf,
    folder: Option<Arc<Folder>>,
}

impl OutputFile {
    /// Opens a temporary file beside `path`. A file that `path` names stays as it is until [`commit`] replaces it.
    ///
    /// # Errors
    ///
    /// Where `path` names something other than a file, its folder does not exist, or the folder cannot be written.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        let target = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(OutputError::IsAFolder { path: path.into() });
            }
            // Renaming onto a device or a pipe would replace it.
            Ok(metadata) if !metadata.is_file() => {
                return Err(OutputError::NotAFile { path: path.into() });
            }
            // Through links, so that they go on pointing to the file.
            Ok(_) => fs::canonicalize(path).map_err(|source| OutputError::Unusable {
                path: path.into(),
                source,
            })?,
            Err(_) => path.to_owned(),
        };
        if target.file_name().is_none() {
            return Err(OutputError::NoName { path: path.into() });
        }
        let folder = parent(&target);
        require_folder(folder, path)?;
        let file = temporary(folder).map_err(|source| OutputError::Unwritable {
            path: path.into(),
            source,
        })?;
        Ok(OutputFile {
            writer: BufWriter::new(file),
            target,
            folder: None,
        })
    }

    /// The path that the file will have.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Gives the file another name in the same folder.
    pub fn rename(&mut self, name: &str) {
        self.target.set_file_name(name);
    }

    /// Refuses to replace a file that the run reads.
    ///
    /// # Errors
    ///
    /// Where `input` is the file that this one would replace.
    pub fn spare(&self, input: &Path) -> Result<(), OutputError> {
        // The target of a file that exists is a real path already.
        if fs::canonicalize(input).is_ok_and(|input| input == self.target) {
            return Err(OutputError::Input {
                path: self.target.clone(),
            });
        }
        Ok(())
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), self.unwritable(error))
    }

    fn unwritable(&self, source: io::Error) -> OutputError {
        OutputError::Unwritable {
            path: self.target.clone(),
            source,
        }
    }
}

impl Write for OutputFile {
    /// An error names the file: whoever writes may have several.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.writer.write(bytes);
        result.map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.writer.flush();
        result.map_err(|error| self.named(error))
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.writer.seek(position)
    }
}

/// Refuses results of which two would have the same name; best before anything runs.
///
/// # Errors
///
/// Where two have.
pub fn distinct<'a>(files: impl Iterator<Item = &'a OutputFile>) -> Result<(), OutputError> {
    let mut places = HashSet::new();
    for file in files {
        // The folder by its real path, which it has since the file was opened there; the name by its own.
        let folder = parent(&file.target);
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        if !places.insert(folder.join(file.target.file_name().unwrap_or_default())) {
            return Err(OutputError::Repeated {
                path: file.target.clone(),
            });
        }
    }
    Ok(())
}

/// Gives the files their names, replacing older ones.
///
/// All of them are on disk before the first is renamed, so that a full disk leaves everything as it was. Only the renames
/// themselves can come apart, if the machine stops between two of them.
///
/// # Errors
///
/// Where a file cannot be written out, two have the same name, or one cannot be renamed.
pub fn commit(files: Vec<OutputFile>) -> Result<(), OutputError> {
    distinct(files.iter())?;
    let mut ready = Vec::with_capacity(files.len());
    for mut file in files {
        file.writer
            .flush()
            .and_then(|()| file.writer.get_ref().as_file().sync_all())
            .map_err(|source| file.unwritable(source))?;
        ready.push(file);
    }
    for file in ready {
        let OutputFile {
            writer,
            target,
            folder: _folder,
        } = file;
        // The writer was flushed above: there is nothing in its buffer that could be lost.
        let (temporary, _) = writer.into_parts();
        temporary
            .persist(&target)
            .map_err(|error| OutputError::Unwritable {
                path: target.clone(),
                source: error.error,
            })?;
    }
    Ok(())
}

/// A hidden file that has the permissions of a new file, not those of a secret one.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mohs-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask takes its part away.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder)?;
    temporaries::note(file.path());
    Ok(file)
}

/// The folder that a path lies in; the current one for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `true` where the folder is new, `false` where it was made meanwhile by someone else.
fn make_folder(path: &Path) -> Result<bool, OutputError> {
    match fs::create_dir(path) {
        Ok(()) => {
            temporaries::note(path);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(source) => Err(OutputError::Unwritable {
            path: path.into(),
            source,
        }),
    }
}

fn require_folder(folder: &Path, path: &Path) -> Result<(), OutputError> {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(OutputError::NotAFolder {
            path: folder.into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OutputError::NoParent {
            path: path.into(),
            parent: folder.into(),
        }),
        Err(source) => Err(OutputError::Unusable {
            path: path.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The message, with the temporary folder's path taken out.
    fn message(error: &OutputError, root: &Path) -> String {
        error
            .to_string()
            .replace(root.to_str().unwrap(), "ROOT")
            .replace('\\', "/")
    }

    #[test]
    fn files_get_their_names_together_at_the_end() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("report");
        let folder = OutputFolder::open(&path).unwrap();
        let mut samples = folder.file("samples.csv").unwrap();
        let mut summary = folder.file("summary.csv").unwrap();
        samples.write_all(b"long before the end").unwrap();
        summary.write_all(b"at the end").unwrap();
        assert!(names(&path).iter().all(|name| name.starts_with(".mohs-")));
        drop(folder);
        commit(vec![samples, summary]).unwrap();
        assert_eq!(names(&path), ["samples.csv", "summary.csv"]);
        assert_eq!(
            fs::read(path.join("samples.csv")).unwrap(),
            b"long before the end"
        );
    }

    #[test]
    fn a_run_that_fails_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("report");
        let folder = OutputFolder::open(&path).unwrap();
        let mut file = folder.file("samples.csv").unwrap();
        file.write_all(b"half").unwrap();
        // In either order.
        drop(folder);
        drop(file);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn missing_parents_are_made_and_taken_away_again_only_where_asked() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("reports/demo/digits");
        let file = OutputFolder::open_with_parents(&path)
            .and_then(|folder| folder.file("summary.csv"))
            .unwrap();
        assert_eq!(names(&path).len(), 1);
        drop(file);
        assert!(names(root.path()).is_empty());
        let file = OutputFolder::open_with_parents(&path)
            .and_then(|folder| folder.file("summary.csv"))
            .unwrap();
        commit(vec![file]).unwrap();
        assert_eq!(names(&path), ["summary.csv"]);
    }

    #[test]
    fn an_older_report_stays_until_the_new_one_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("summary.csv");
        fs::write(&path, "old").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"nex").unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        file.write_all(b"w").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        commit(vec![file]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let folder = OutputFolder::open(root.path()).unwrap();
        drop(folder.file("samples.csv").unwrap());
        drop(folder);
        assert_eq!(names(root.path()), ["summary.csv"]);
    }

    #[test]
    fn bad_paths_are_refused_before_anything_is_written() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        let open = |name: &str| message(&OutputFolder::open(&at(name)).unwrap_err(), root.path());
        let create = |name: &str| message(&OutputFile::create(&at(name)).unwrap_err(), root.path());
        assert_eq!(
            open("file"),
            "ROOT/file: is not a folder; give another path, or move it away"
        );
        assert_eq!(
            open("none/report"),
            "ROOT/none/report: the folder ROOT/none does not exist; make it first"
        );
        assert_eq!(
            create("folder"),
            "ROOT/folder: is a folder; give the path of a file"
        );
        assert_eq!(
            create("none/out.onnx"),
            "ROOT/none/out.onnx: the folder ROOT/none does not exist; make it first"
        );
        assert_eq!(names(root.path()), ["file", "folder"]);
    }

    #[test]
    fn two_results_cannot_have_one_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("out.npz");
        let files = vec![
            OutputFile::create(&path).unwrap(),
            OutputFile::create(&path).unwrap(),
        ];
        assert!(matches!(commit(files), Err(OutputError::Repeated { .. })));
        let spelled_otherwise = root.path().join(".").join("out.npz");
        let files = [
            OutputFile::create(&path).unwrap(),
            OutputFile::create(&spelled_otherwise).unwrap(),
        ];
        assert!(distinct(files.iter()).is_err());
        drop(files);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn what_a_run_reads_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.onnx");
        fs::write(&path, "model").unwrap();
        let file = OutputFile::create(&root.path().join(".").join("model.onnx")).unwrap();
        assert!(matches!(file.spare(&path), Err(OutputError::Input { .. })));
        file.spare(&root.path().join("data.npz")).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_links_are_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(
            OutputFile::create(Path::new("/dev/null")),
            Err(OutputError::NotAFile { .. })
        ));
        let (target, link) = (root.path().join("target"), root.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut file = OutputFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        commit(vec![file]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_takes_no_files_is_refused_at_once() {
        // Not even the superuser can make a file here.
        let error = OutputFile::create(Path::new("/proc/mohs.csv")).unwrap_err();
        assert_eq!(error.to_string(), "/proc/mohs.csv: cannot be written");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn results_have_the_permissions_of_a_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let plain = root.path().join("plain");
        fs::write(&plain, "").unwrap();
        let path = root.path().join("result");
        commit(vec![OutputFile::create(&path).unwrap()]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }
}
