//! Where the ONNX Runtime library may lie, in which order, and what was found there.
//!
//! Pure but for looking into folders: everything that the order depends on comes in as [`Surroundings`], and loading is a function
//! that the caller passes.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::Error;

/// The rule that led to a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// `--onnxruntime PATH`.
    Explicit,
    /// The environment variable of this name.
    Variable(&'static str),
    /// The cache of mohs.
    Cache,
    /// The Python environment of the variable (`VIRTUAL_ENV`, `CONDA_PREFIX`) of this name.
    PythonEnvironment(&'static str),
    /// The Python on the `PATH`.
    PythonOnPath,
    /// The loader path of the system.
    System,
    /// Downloaded into the cache by this process.
    Provided,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Explicit => f.write_str("--onnxruntime"),
            Origin::Variable(name) => f.write_str(name),
            Origin::Cache => f.write_str("cache of mohs"),
            Origin::PythonEnvironment(name) => write!(f, "Python environment ({name})"),
            Origin::PythonOnPath => f.write_str("Python on the PATH"),
            Origin::System => f.write_str("loader path of the system"),
            Origin::Provided => f.write_str("downloaded into the cache of mohs"),
        }
    }
}

/// Why a library that is there cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The system's loader refuses the file.
    #[error("it does not load ({0})")]
    DoesNotLoad(String),
    /// The file loads but is another library.
    #[error("it is not ONNX Runtime (there is no `OrtGetApiBase` in it)")]
    NotOnnxRuntime,
    /// The version cannot be told.
    #[error("its version cannot be read from `{0}`")]
    UnknownVersion(String),
    /// The library lacks functions that mohs calls.
    #[error("it is version {version}, and mohs needs 1.{minimum} or newer")]
    TooOld {
        /// The library's version.
        version: String,
        /// The lowest minor version that will do.
        minimum: u32,
    },
}

/// What was found in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The library that is in use.
    Chosen,
    /// The variable or flag is not given, or there is no such environment.
    NotSet,
    /// There is no library there.
    Nothing,
    /// There is one, but it cannot be used.
    Rejected(Rejection),
}

/// One place that was looked at, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Searched {
    /// The rule that led there.
    pub origin: Origin,
    /// The library or folder; none where the rule names none.
    pub path: Option<PathBuf>,
    /// What came of it.
    pub finding: Finding,
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(path) = &self.path {
            write!(f, "{}, ", path.display())?;
        }
        match &self.finding {
            Finding::Chosen => f.write_str("chosen"),
            Finding::NotSet => f.write_str("not set"),
            Finding::Nothing => f.write_str("no library there"),
            Finding::Rejected(reason) => write!(f, "skipped, {reason}"),
        }
    }
}

/// How an operating system names libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    Linux,
    MacOs,
    Windows,
}

impl System {
    /// The system that mohs was built for. Other Unixes name libraries as Linux does.
    pub(super) const HERE: System = if cfg!(windows) {
        System::Windows
    } else if cfg!(target_vendor = "apple") {
        System::MacOs
    } else {
        System::Linux
    };

    /// Whether a file of this name is ONNX Runtime itself (not one of its providers).
    pub(super) fn is_library(self, name: &str) -> bool {
        match self {
            System::Linux => name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so."),
            System::MacOs => name.starts_with("libonnxruntime.") && name.ends_with(".dylib"),
            System::Windows => name.eq_ignore_ascii_case("onnxruntime.dll"),
        }
    }

    /// Whether a file of this name is ONNX Runtime or a library that it loads from its own folder.
    pub(super) fn belongs_to_library(self, name: &str) -> bool {
        match self {
            System::Linux => name.starts_with("libonnxruntime") && name.contains(".so"),
            System::MacOs => name.starts_with("libonnxruntime") && name.ends_with(".dylib"),
            System::Windows => name.to_ascii_lowercase().ends_with(".dll"),
        }
    }

    /// The names under which the system's loader may know ONNX Runtime.
    fn loader_names(self) -> &'static [&'static str] {
        match self {
            System::Linux => &["libonnxruntime.so.1", "libonnxruntime.so"],
            System::MacOs => &["libonnxruntime.dylib"],
            System::Windows => &["onnxruntime.dll"],
        }
    }
}

/// Everything that the search depends on.
pub(super) struct Surroundings<'a> {
    pub(super) system: System,
    /// `--onnxruntime`.
    pub(super) explicit: Option<PathBuf>,
    /// The variables that name a library, in the order in which they count.
    pub(super) variables: Vec<(&'static str, Option<OsString>)>,
    /// The folder of the pinned version in mohs's cache; none where the system has no cache folder.
    pub(super) cache: Option<PathBuf>,
    /// The variables that name the root of a Python environment.
    pub(super) environments: Vec<(&'static str, Option<OsString>)>,
    /// The folders in which the Python on the `PATH` looks for packages. Asked only when the search gets there: it starts a process.
    pub(super) python_folders: &'a dyn Fn() -> Vec<PathBuf>,
    /// The folder of the running program, where the loader looks first.
    pub(super) program: Option<PathBuf>,
}

/// What a search came to.
pub(super) struct Outcome<T> {
    /// The rule, the library, and what loading it gave.
    pub(super) found: Option<(Origin, PathBuf, T)>,
    pub(super) searched: Vec<Searched>,
}

/// Goes through the places in order, until `load` accepts a library.
///
/// What the user names (flag or variable) is taken or refused, never skipped.
pub(super) fn search<T>(
    around: &Surroundings<'_>,
    load: &mut dyn FnMut(&Path) -> Result<T, Rejection>,
) -> Result<Outcome<T>, Error> {
    let mut walk = Walk {
        system: around.system,
        load,
        searched: Vec::new(),
    };
    let found = walk.all(around)?;
    Ok(Outcome {
        found,
        searched: walk.searched,
    })
}

type Found<T> = Option<(Origin, PathBuf, T)>;

struct Walk<'a, T> {
    system: System,
    load: &'a mut dyn FnMut(&Path) -> Result<T, Rejection>,
    searched: Vec<Searched>,
}

impl<T> Walk<'_, T> {
    fn all(&mut self, around: &Surroundings<'_>) -> Result<Found<T>, Error> {
        let named = std::iter::once((Origin::Explicit, around.explicit.clone())).chain(
            around
                .variables
                .iter()
                .map(|(name, value)| (Origin::Variable(name), path(value.as_ref()))),
        );
        for (origin, path) in named {
            match path {
                Some(path) => return self.named(origin, path).map(Some),
                None => self.note(origin, None, Finding::NotSet),
            }
        }
        match &around.cache {
            Some(folder) => {
                if let Some(found) = self.folder(Origin::Cache, folder) {
                    return Ok(Some(found));
                }
            }
            None => self.note(Origin::Cache, None, Finding::NotSet),
        }
        for (name, value) in &around.environments {
            let origin = Origin::PythonEnvironment(name);
            let Some(root) = path(value.as_ref()) else {
                self.note(origin, None, Finding::NotSet);
                continue;
            };
            let folders = environment_folders(&root);
            if let Some(found) = self.packages(origin, &root, &folders) {
                return Ok(Some(found));
            }
        }
        let folders = (around.python_folders)();
        let shown = folders.last().cloned().unwrap_or_default();
        if folders.is_empty() {
            self.note(Origin::PythonOnPath, None, Finding::NotSet);
        } else if let Some(found) = self.packages(Origin::PythonOnPath, &shown, &folders) {
            return Ok(Some(found));
        }
        Ok(self.loader_path(around.program.as_deref()))
    }

    /// What the user named: a library file, or a folder that holds one.
    fn named(&mut self, origin: Origin, path: PathBuf) -> Result<(Origin, PathBuf, T), Error> {
        // The loader takes a relative path from elsewhere than the working directory, so it is made absolute first.
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let library = if absolute.is_dir() {
            ["", "capi", "lib", "onnxruntime/capi"]
                .iter()
                .find_map(|inner| library_in(self.system, &absolute.join(inner)))
        } else {
            absolute.is_file().then_some(absolute)
        };
        let Some(library) = library else {
            return Err(Error::LibraryMissing { origin, path });
        };
        match (self.load)(&library) {
            Ok(loaded) => {
                self.note(origin, Some(library.clone()), Finding::Chosen);
                Ok((origin, library, loaded))
            }
            Err(reason) => Err(Error::LibraryUnusable {
                origin,
                path: library,
                reason,
            }),
        }
    }

    /// A folder that may hold the library.
    fn folder(&mut self, origin: Origin, folder: &Path) -> Found<T> {
        match library_in(self.system, folder) {
            Some(library) => self.library(origin, library),
            None => {
                self.note(origin, Some(folder.to_owned()), Finding::Nothing);
                None
            }
        }
    }

    /// Folders of Python packages; `shown` stands for them all where none holds the library.
    fn packages(&mut self, origin: Origin, shown: &Path, folders: &[PathBuf]) -> Found<T> {
        let mut any = false;
        for folder in folders.iter().flat_map(|folder| packages_in(folder)) {
            if let Some(library) = library_in(self.system, &folder) {
                any = true;
                if let Some(found) = self.library(origin, library) {
                    return Some(found);
                }
            }
        }
        if !any {
            self.note(origin, Some(shown.to_owned()), Finding::Nothing);
        }
        None
    }

    fn library(&mut self, origin: Origin, library: PathBuf) -> Found<T> {
        match (self.load)(&library) {
            Ok(loaded) => {
                self.note(origin, Some(library.clone()), Finding::Chosen);
                Some((origin, library, loaded))
            }
            Err(reason) => {
                self.note(origin, Some(library), Finding::Rejected(reason));
                None
            }
        }
    }

    /// The bare names, which the loader looks up itself.
    fn loader_path(&mut self, program: Option<&Path>) -> Found<T> {
        for name in self.system.loader_names() {
            let beside = program.map(|folder| folder.join(name));
            let library = match beside {
                Some(beside) if beside.is_file() => beside,
                _ => PathBuf::from(name),
            };
            match (self.load)(&library) {
                Ok(loaded) => {
                    self.note(Origin::System, Some(library.clone()), Finding::Chosen);
                    return Some((Origin::System, library, loaded));
                }
                // For a bare name, "does not load" nearly always means "is not there".
                Err(Rejection::DoesNotLoad(_)) if library.is_relative() => {
                    self.note(Origin::System, Some(library), Finding::Nothing);
                }
                Err(reason) => {
                    self.note(Origin::System, Some(library), Finding::Rejected(reason));
                }
            }
        }
        None
    }

    fn note(&mut self, origin: Origin, path: Option<PathBuf>, finding: Finding) {
        self.searched.push(Searched {
            origin,
            path,
            finding,
        });
    }
}

/// A variable's value as a path; an empty variable counts as unset.
fn path(value: Option<&OsString>) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The package folders of a Python environment, on any system.
fn environment_folders(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("Lib").join("site-packages")];
    folders.extend(
        entries(&root.join("lib"))
            .into_iter()
            .filter(|(name, _)| name.starts_with("python3"))
            .map(|(_, path)| path.join("site-packages")),
    );
    folders
}

/// The `capi` folders of all packages named `onnxruntime…` in a folder of Python packages.
fn packages_in(folder: &Path) -> Vec<PathBuf> {
    entries(folder)
        .into_iter()
        .filter(|(name, _)| name.starts_with("onnxruntime"))
        .map(|(_, path)| path.join("capi"))
        .filter(|path| path.is_dir())
        .collect()
}

/// The library in a folder; where there are several, the one with the highest version in its name.
pub(super) fn library_in(system: System, folder: &Path) -> Option<PathBuf> {
    entries(folder)
        .into_iter()
        .filter(|(name, path)| system.is_library(name) && path.is_file())
        .max_by_key(|(name, _)| numbers(name))
        .map(|(_, path)| path)
}

/// The numbers in a name, for comparison: "libonnxruntime.so.1.31.1" gives 1, 31, 1.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// The entries of a folder, sorted by name; none where it cannot be read.
fn entries(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .collect();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A machine in a temporary folder: files, and what loading each of them gives.
    struct Machine {
        folder: tempfile::TempDir,
        refused: Vec<(PathBuf, Rejection)>,
        loader_knows: bool,
    }

    /// Which of the rules name a place in [`Machine::search`].
    #[derive(Default)]
    struct Named {
        explicit: Option<&'static str>,
        mohs_onnxruntime: Option<&'static str>,
        ort_dylib_path: Option<&'static str>,
    }

    const CACHE: &str = "cache/libonnxruntime.so.1.31.1";
    const VENV: &str =
        "venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.30.0";
    const CONDA: &str =
        "conda/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.29.0";
    const PYTHON: &str = "python/site-packages/onnxruntime/capi/libonnxruntime.so.1.28.0";

    impl Machine {
        fn with(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("temporary folder");
            for file in files {
                let path = folder.path().join(file);
                fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
                fs::write(path, "").expect("writable");
            }
            Machine {
                folder,
                refused: Vec::new(),
                loader_knows: false,
            }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn search(&self, named: &Named) -> Result<Outcome<()>, Error> {
            let os = |path: &str| Some(self.path(path).into_os_string());
            let around = Surroundings {
                system: System::Linux,
                explicit: named.explicit.map(|path| self.path(path)),
                variables: vec![
                    ("MOHS_ONNXRUNTIME", named.mohs_onnxruntime.and_then(os)),
                    ("ORT_DYLIB_PATH", named.ort_dylib_path.and_then(os)),
                ],
                cache: Some(self.path("cache")),
                environments: vec![("VIRTUAL_ENV", os("venv")), ("CONDA_PREFIX", os("conda"))],
                python_folders: &|| vec![self.path("python/site-packages")],
                program: None,
            };
            search(&around, &mut |path| {
                if let Some((_, reason)) = self.refused.iter().find(|(refused, _)| refused == path)
                {
                    return Err(reason.clone());
                }
                if path.is_file() || self.loader_knows {
                    return Ok(());
                }
                Err(Rejection::DoesNotLoad("no such file".into()))
            })
        }

        fn chosen(&self, named: &Named) -> (Origin, PathBuf) {
            let outcome = self.search(named).expect("no error");
            let (origin, path, ()) = outcome.found.expect("a library");
            let last = outcome.searched.last().expect("a place");
            assert_eq!((last.origin, &last.finding), (origin, &Finding::Chosen));
            (origin, path)
        }
    }

    #[test]
    fn each_rule_counts_before_the_next_one() {
        let mut files = vec![CACHE, VENV, CONDA, PYTHON];
        let all = Machine::with(&[&files[..], &["a.so", "b.so", "c.so"]].concat());
        let mut named = Named {
            explicit: Some("a.so"),
            mohs_onnxruntime: Some("b.so"),
            ort_dylib_path: Some("c.so"),
        };
        assert_eq!(all.chosen(&named), (Origin::Explicit, all.path("a.so")));
        named.explicit = None;
        let (origin, path) = all.chosen(&named);
        assert_eq!(origin, Origin::Variable("MOHS_ONNXRUNTIME"));
        assert_eq!(path, all.path("b.so"));
        named.mohs_onnxruntime = None;
        let (origin, path) = all.chosen(&named);
        assert_eq!(origin, Origin::Variable("ORT_DYLIB_PATH"));
        assert_eq!(path, all.path("c.so"));
        let rest = [
            Origin::Cache,
            Origin::PythonEnvironment("VIRTUAL_ENV"),
            Origin::PythonEnvironment("CONDA_PREFIX"),
            Origin::PythonOnPath,
        ];
        for origin in rest {
            let machine = Machine::with(&files);
            let first = files.remove(0);
            assert_eq!(
                machine.chosen(&Named::default()),
                (origin, machine.path(first))
            );
        }
        let mut machine = Machine::with(&[]);
        machine.loader_knows = true;
        let (origin, path) = machine.chosen(&Named::default());
        assert_eq!(origin, Origin::System);
        assert_eq!(path, Path::new("libonnxruntime.so.1"));
    }

    #[test]
    fn a_path_that_the_user_named_is_an_error_where_it_does_not_exist() {
        let machine = Machine::with(&[CACHE]);
        let named = Named {
            mohs_onnxruntime: Some("nowhere/libonnxruntime.so"),
            ..Named::default()
        };
        let error = machine.search(&named).err().expect("an error");
        assert!(matches!(
            error,
            Error::LibraryMissing {
                origin: Origin::Variable("MOHS_ONNXRUNTIME"),
                ..
            }
        ));
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    #[test]
    fn a_library_that_the_user_named_is_an_error_where_it_is_too_old() {
        let mut machine = Machine::with(&["old.so", CACHE]);
        machine.refused = vec![(machine.path("old.so"), too_old())];
        let named = Named {
            explicit: Some("old.so"),
            ..Named::default()
        };
        let error = machine.search(&named).err().expect("an error").to_string();
        assert!(error.starts_with("--onnxruntime names"), "{error}");
        assert!(
            error.ends_with("it is version 1.9.0, and mohs needs 1.22 or newer"),
            "{error}"
        );
    }

    fn too_old() -> Rejection {
        Rejection::TooOld {
            version: "1.9.0".into(),
            minimum: 22,
        }
    }

    #[test]
    fn a_library_that_is_too_old_is_skipped_and_said_so() {
        let mut machine = Machine::with(&[CACHE, VENV]);
        machine.refused = vec![(machine.path(CACHE), too_old())];
        let outcome = machine.search(&Named::default()).expect("no error");
        let (origin, _, ()) = outcome.found.expect("a library");
        assert_eq!(origin, Origin::PythonEnvironment("VIRTUAL_ENV"));
        let skipped = outcome
            .searched
            .iter()
            .find(|place| place.origin == Origin::Cache);
        let skipped = skipped.expect("the cache").to_string();
        assert!(
            skipped.ends_with("skipped, it is version 1.9.0, and mohs needs 1.22 or newer"),
            "{skipped}"
        );
    }

    #[test]
    fn where_nothing_is_found_every_place_is_told() {
        let outcome = Machine::with(&[])
            .search(&Named::default())
            .expect("no error");
        assert!(outcome.found.is_none());
        let origins: Vec<_> = outcome.searched.iter().map(|place| place.origin).collect();
        assert_eq!(
            origins,
            [
                Origin::Explicit,
                Origin::Variable("MOHS_ONNXRUNTIME"),
                Origin::Variable("ORT_DYLIB_PATH"),
                Origin::Cache,
                Origin::PythonEnvironment("VIRTUAL_ENV"),
                Origin::PythonEnvironment("CONDA_PREFIX"),
                Origin::PythonOnPath,
                Origin::System,
                Origin::System,
            ]
        );
    }

    #[test]
    fn a_folder_can_be_named_instead_of_the_library_in_it() {
        let machine = Machine::with(&[
            "gpu/onnxruntime/capi/libonnxruntime.so.1.31.1",
            "gpu/onnxruntime/capi/libonnxruntime_providers_cuda.so",
        ]);
        for folder in ["gpu", "gpu/onnxruntime", "gpu/onnxruntime/capi"] {
            let named = Named {
                explicit: Some(folder),
                ..Named::default()
            };
            let (_, path) = machine.chosen(&named);
            assert_eq!(
                path,
                machine.path("gpu/onnxruntime/capi/libonnxruntime.so.1.31.1")
            );
        }
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(path(Some(&OsString::new())), None);
        assert_eq!(path(Some(&"a".into())), Some(PathBuf::from("a")));
    }

    #[test]
    fn the_highest_version_in_a_folder_is_taken() {
        let machine = Machine::with(&[
            "lib/libonnxruntime.so",
            "lib/libonnxruntime.so.1.9.1",
            "lib/libonnxruntime.so.1.31.1",
            "lib/libonnxruntime_providers_shared.so",
        ]);
        assert_eq!(
            library_in(System::Linux, &machine.path("lib")),
            Some(machine.path("lib/libonnxruntime.so.1.31.1"))
        );
    }

    #[test]
    fn libraries_are_known_by_the_names_of_each_system() {
        assert!(System::Linux.is_library("libonnxruntime.so.1.31.1"));
        assert!(!System::Linux.is_library("libonnxruntime_providers_cuda.so"));
        assert!(System::MacOs.is_library("libonnxruntime.1.31.1.dylib"));
        assert!(!System::MacOs.is_library("libonnxruntime_providers_shared.dylib"));
        assert!(System::Windows.is_library("OnnxRuntime.dll"));
        assert!(!System::Windows.is_library("onnxruntime_providers_shared.dll"));
        assert!(System::Linux.belongs_to_library("libonnxruntime_providers_cuda.so"));
        assert!(!System::Linux.belongs_to_library("onnxruntime_pybind11_state.so"));
        assert!(!System::Windows.belongs_to_library("onnxruntime_pybind11_state.pyd"));
    }
}
