//! Where the ONNX Runtime library may lie, in which order, and what was found there.
//!
//! Pure but for looking into folders: everything that the order depends on comes in as [`Surroundings`], and loading is a function
//! that the caller passes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::place::{Finding, Origin, Rejection, Searched, System};

/// Everything that the search depends on.
pub(super) struct Surroundings<'a> {
    pub(super) system: System,
    /// `--onnxruntime`.
    pub(super) explicit: Option<PathBuf>,
    /// The variables that name a library, in the order in which they count.
    pub(super) variables: Vec<(&'static str, Option<OsString>)>,
    /// The folders of the pinned builds in mohs's cache, in the order in which they count; none where the system has no cache folder.
    pub(super) cache: Vec<PathBuf>,
    /// The file of the provider that is wanted: libraries that mohs finds itself count only with it beside them.
    pub(super) provider_file: Option<String>,
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
        provider_file: around.provider_file.as_deref(),
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
    provider_file: Option<&'a str>,
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
        for folder in &around.cache {
            if let Some(found) = self.folder(Origin::Cache, folder) {
                return Ok(Some(found));
            }
        }
        if around.cache.is_empty() {
            self.note(Origin::Cache, None, Finding::NotSet);
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
        if let Some(file) = self.provider_file
            && !library.with_file_name(file).is_file()
        {
            let reason = Rejection::NoProvider(file.to_owned());
            self.note(origin, Some(library), Finding::Rejected(reason));
            return None;
        }
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
                Err(Rejection::DoesNotLoad(reason))
                    if library.is_relative() && is_absence(&reason, name) =>
                {
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

/// Whether the loader says that there is no file `name`, and not that the library lacks another one or is broken.
fn is_absence(reason: &str, name: &str) -> bool {
    reason.contains(name) && reason.to_ascii_lowercase().contains("no such file")
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
        provider_file: Option<&'static str>,
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
                provider_file: None,
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
                cache: vec![self.path("cache-gpu"), self.path("cache")],
                provider_file: self.provider_file.map(str::to_owned),
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
                Err(Rejection::DoesNotLoad(format!(
                    "{}: no such file",
                    path.display()
                )))
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
            .find(|place| matches!(place.finding, Finding::Rejected(_)));
        let skipped = skipped.expect("the cache").to_string();
        assert!(
            skipped.ends_with("skipped, it is version 1.9.0, and mohs needs 1.22 or newer"),
            "{skipped}"
        );
    }

    #[test]
    fn a_library_without_the_provider_that_is_wanted_is_passed_over() {
        const BUILD: &str = "cache-gpu/libonnxruntime.so.1.31.1";
        const PROVIDER: &str = "libonnxruntime_providers_cuda.so";
        let mut machine = Machine::with(&[CACHE, VENV]);
        machine.provider_file = Some(PROVIDER);
        let nothing = machine.search(&Named::default()).expect("no error");
        assert!(nothing.found.is_none());
        let told: Vec<_> = nothing.searched.iter().map(Searched::to_string).collect();
        assert!(
            told.iter().any(|place| place.contains(PROVIDER)),
            "{told:?}"
        );

        let beside = VENV.replace("libonnxruntime.so.1.30.0", PROVIDER);
        let mut machine = Machine::with(&[CACHE, VENV, &beside]);
        machine.provider_file = Some(PROVIDER);
        let (origin, _) = machine.chosen(&Named::default());
        assert_eq!(origin, Origin::PythonEnvironment("VIRTUAL_ENV"));

        let file = format!("cache-gpu/{PROVIDER}");
        let mut machine = Machine::with(&[BUILD, &file, CACHE, VENV, &beside]);
        machine.provider_file = Some(PROVIDER);
        let chosen = machine.chosen(&Named::default());
        assert_eq!(chosen, (Origin::Cache, machine.path(BUILD)));
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
    fn a_broken_library_on_the_loader_path_is_told_from_an_absent_one() {
        let name = "libonnxruntime.so";
        let absent = "libonnxruntime.so: cannot open shared object file: No such file or directory";
        assert!(is_absence(absent, name));
        assert!(!is_absence("libonnxruntime.so: file too short", name));
        let needs = "libcudart.so.13: cannot open shared object file: No such file or directory";
        assert!(!is_absence(needs, name));
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
}
