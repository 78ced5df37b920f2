//! Finds, loads and starts ONNX Runtime, once per process.

use std::ffi::{CStr, OsStr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;

use super::device::Device;
use super::error::{Error, chain};
use super::logging;
use super::place::{Finding, Origin, Rejection, Searched, System};
use super::provide::{self, Build};
use super::search::{self, Surroundings};

/// How the library is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LibraryOptions {
    /// The library, or the folder that holds it (`--onnxruntime`); counts before everything else.
    pub explicit: Option<PathBuf>,
    /// The device that it is to run: a build for it comes before others.
    pub device: Device,
    /// Nothing is downloaded. `MOHS_OFFLINE=1` has the same effect.
    pub offline: bool,
}

/// The ONNX Runtime that this process runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Library {
    /// The shared library; a bare name where the system's loader found it.
    pub path: PathBuf,
    /// The rule that chose it.
    pub origin: Origin,
    /// Its version, such as `1.31.1`.
    pub version: String,
    /// Every place that was looked at, in order.
    pub searched: Vec<Searched>,
}

struct Runtime {
    library: Library,
    environment: Environment,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
/// Held while a library is looked for, so that threads which ask at once do it once.
static STARTING: Mutex<()> = Mutex::new(());

/// Finds ONNX Runtime (or provides it) and starts it; later calls return what the first one found.
///
/// The order: [`LibraryOptions::explicit`]; `MOHS_ONNXRUNTIME`, `ORT_DYLIB_PATH`; mohs's cache (the build for the device first); the active Python environment
/// (`VIRTUAL_ENV`, `CONDA_PREFIX`, the `python3` on the `PATH`); the system's loader path (the program's folder first).
/// Where there is none, the pinned version is downloaded into the cache with pip, unless that is forbidden.
/// After an error, the next call looks again.
///
/// # Errors
/// If a library that the user named is missing or unusable, if there is none and none can be provided, if it does not start, or if
/// another one was named than this process runs on.
pub fn initialize(options: &LibraryOptions) -> Result<&'static Library, Error> {
    runtime(options).map(|runtime| &runtime.library)
}

/// The version of the library that this process runs on, such as `1.31.1`; none before [`initialize`].
#[must_use]
pub fn version() -> Option<&'static str> {
    RUNTIME
        .get()
        .map(|runtime| runtime.library.version.as_str())
}

/// The environment of ONNX Runtime, started with default options where nothing was initialized yet.
pub(super) fn environment() -> Result<&'static Environment, Error> {
    started_or_default().map(|runtime| &runtime.environment)
}

/// The library that this process runs on, started with default options where nothing was initialized yet.
pub(super) fn initialized() -> Result<&'static Library, Error> {
    started_or_default().map(|runtime| &runtime.library)
}

fn started_or_default() -> Result<&'static Runtime, Error> {
    match RUNTIME.get() {
        Some(runtime) => Ok(runtime),
        None => runtime(&LibraryOptions::default()),
    }
}

/// The library that this process runs on, if it was started.
pub(super) fn started() -> Option<&'static Library> {
    RUNTIME.get().map(|runtime| &runtime.library)
}

fn runtime(options: &LibraryOptions) -> Result<&'static Runtime, Error> {
    let _guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return match &options.explicit {
            Some(asked) if !same_library(asked, &runtime.library.path) => {
                Err(Error::LibraryLoaded {
                    loaded: runtime.library.path.clone(),
                    asked: asked.clone(),
                })
            }
            _ => Ok(runtime),
        };
    }
    let (library, loaded) = find(options)?;
    let environment = start(&library)?;
    // ONNX Runtime holds the library from here on.
    drop(loaded);
    tracing::debug!(
        path = %library.path.display(),
        version = library.version,
        "ONNX Runtime comes from: {}",
        library.origin
    );
    Ok(RUNTIME.get_or_init(|| Runtime {
        library,
        environment,
    }))
}

/// Whether `asked`, a library or its folder, is the library that was loaded.
fn same_library(asked: &Path, loaded: &Path) -> bool {
    let (Ok(asked), Ok(loaded)) = (asked.canonicalize(), loaded.canonicalize()) else {
        return false;
    };
    asked == loaded || (asked.is_dir() && loaded.starts_with(asked))
}

/// The builds in mohs's cache, in the order in which they count.
fn builds(device: Device) -> Vec<Build> {
    match Build::for_device(device) {
        // A build that was installed for a faster device is there to be used; it runs on the CPU as well.
        None => vec![Build::Cuda, Build::Cpu],
        Some(Build::Cpu) => vec![Build::Cpu, Build::Cuda],
        Some(build) => vec![build],
    }
}

/// The file that a library with the device's provider has beside it.
fn provider_file(device: Device) -> Option<String> {
    let name = match device {
        Device::Auto | Device::Cpu => return None,
        Device::Cuda(_) => "cuda",
        Device::TensorRt => "tensorrt",
        Device::OpenVino => "openvino",
    };
    Some(System::HERE.provider_file(name))
}

fn look(
    options: &LibraryOptions,
    device: Device,
) -> Result<search::Outcome<(libloading::Library, String)>, Error> {
    let folders = builds(device).into_iter().filter_map(provide::folder);
    search::search(
        &Surroundings {
            system: System::HERE,
            explicit: options.explicit.clone(),
            variables: ["MOHS_ONNXRUNTIME", "ORT_DYLIB_PATH"]
                .map(|name| (name, std::env::var_os(name)))
                .into(),
            cache: folders.collect(),
            provider_file: provider_file(device),
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"]
                .map(|name| (name, std::env::var_os(name)))
                .into(),
            python_folders: &python_folders,
            program: std::env::current_exe()
                .ok()
                .and_then(|program| Some(program.parent()?.to_owned())),
        },
        &mut load,
    )
}

fn find(options: &LibraryOptions) -> Result<(Library, libloading::Library), Error> {
    let mut outcome = look(options, options.device)?;
    if outcome.found.is_none() && provider_file(options.device).is_some() {
        // Any library can then say what it lacks, and what to do.
        outcome = look(options, Device::Auto)?;
    }
    let mut searched = outcome.searched;
    if let Some((origin, path, (loaded, version))) = outcome.found {
        let library = Library {
            path,
            origin,
            version,
            searched,
        };
        return Ok((library, loaded));
    }
    let offline = std::env::var_os("MOHS_OFFLINE");
    let provided = if options.offline {
        Err("downloads are switched off".to_owned())
    } else if offline.is_some_and(|value| !value.is_empty() && value != "0") {
        Err("MOHS_OFFLINE is set".to_owned())
    } else {
        provide::provide(Build::Cpu)
    };
    let tried = provided.and_then(|path| match load(&path) {
        Ok(loaded) => Ok((path, loaded)),
        Err(reason) => Err(format!("{} was downloaded, but {reason}", path.display())),
    });
    match tried {
        Ok((path, (loaded, version))) => {
            searched.push(Searched {
                origin: Origin::Provided,
                path: Some(path.clone()),
                finding: Finding::Chosen,
            });
            let library = Library {
                path,
                origin: Origin::Provided,
                version,
                searched,
            };
            Ok((library, loaded))
        }
        Err(provision) => Err(Error::NoLibrary {
            provision,
            searched,
        }),
    }
}

/// Loads a library and reads its version, without starting anything.
#[expect(unsafe_code, reason = "shared libraries")]
fn load(path: &Path) -> Result<(libloading::Library, String), Rejection> {
    // SAFETY: loading runs the library's initializers. It is a file that the user, the pinned wheel, a Python package named
    // onnxruntime or the system offers as ONNX Runtime, whose initializers may run on any thread.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| Rejection::DoesNotLoad(chain(&error)))?;
    let version = {
        // SAFETY: this is the type of `OrtGetApiBase` in every version of ONNX Runtime's C API.
        let base = unsafe {
            library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0")
        }
        .map_err(|_| Rejection::NotOnnxRuntime)?;
        // SAFETY: the function takes nothing and returns null or a pointer to a constant of the library, which is still loaded here.
        let base = unsafe { base().as_ref() }.ok_or(Rejection::NotOnnxRuntime)?;
        // SAFETY: the function returns a constant string that ends in a zero byte.
        let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
        version.to_string_lossy().into_owned()
    };
    check_version(&version)?;
    Ok((library, version))
}

/// Refuses versions that lack functions which mohs calls.
fn check_version(version: &str) -> Result<(), Rejection> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= ort::MINOR_VERSION => Ok(()),
        (Some(Ok(0 | 1)), Some(Ok(_))) => Err(Rejection::TooOld {
            version: version.to_owned(),
            minimum: ort::MINOR_VERSION,
        }),
        _ => Err(Rejection::UnknownVersion(version.to_owned())),
    }
}

fn start(library: &Library) -> Result<Environment, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Start {
        path: library.path.clone(),
        source,
    };
    let environment = ort::init_from(&library.path)
        .map_err(|error| failed(Box::new(error)))?
        .with_name("mohs")
        .with_telemetry(false)
        .with_logger(logging::logger())
        .build()
        .map_err(|error| failed(Box::new(error)))?;
    environment.set_log_level(logging::level());
    Ok(environment)
}

/// The names under which Python is started, in the order in which they are tried.
pub(super) const PYTHONS: &[&str] = &["python3", "python"];

/// The folders in which the Python on the `PATH` looks for packages; none where there is no Python.
fn python_folders() -> Vec<PathBuf> {
    for python in PYTHONS {
        let output = Command::new(python)
            .args(["-c", "import sys; print('\\n'.join(sys.path))"])
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => return lines_as_paths(&output.stdout),
            _ => {}
        }
    }
    Vec::new()
}

/// Absolute paths, one a line. (Python's first entry is empty: the working directory.)
fn lines_as_paths(text: &[u8]) -> Vec<PathBuf> {
    String::from_utf8_lossy(text)
        .lines()
        .map(|line| PathBuf::from(OsStr::new(line.trim_end())))
        .filter(|path| path.is_absolute())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_below_the_api_asked_for_are_too_old() {
        assert_eq!(check_version("1.31.1"), Ok(()));
        assert_eq!(check_version("1.22.0"), Ok(()));
        assert_eq!(
            check_version("1.21.9"),
            Err(Rejection::TooOld {
                version: "1.21.9".into(),
                minimum: 22
            })
        );
        assert!(matches!(
            check_version("latest"),
            Err(Rejection::UnknownVersion(_))
        ));
    }

    #[test]
    fn a_file_that_is_no_library_does_not_load() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("libonnxruntime.so");
        std::fs::write(&path, b"garbage").expect("writable");
        assert!(matches!(load(&path), Err(Rejection::DoesNotLoad(_))));
    }

    #[test]
    fn only_absolute_folders_of_python_count() {
        let root = if cfg!(windows) { "C:\\a" } else { "/a" };
        let text = format!("\n{root}\r\nrelative\n");
        assert_eq!(lines_as_paths(text.as_bytes()), [PathBuf::from(root)]);
    }

    #[test]
    fn the_library_is_started_once_and_another_one_is_refused() {
        let library = initialize(&LibraryOptions::default()).expect("a library");
        assert_eq!(version(), Some(library.version.as_str()));
        assert!(
            library
                .searched
                .iter()
                .any(|place| place.finding == Finding::Chosen)
        );
        let again = initialize(&LibraryOptions::default()).expect("the same library");
        assert!(std::ptr::eq(library, again));
        let other = LibraryOptions {
            explicit: Some("another/libonnxruntime.so".into()),
            offline: true,
            ..LibraryOptions::default()
        };
        assert!(matches!(
            initialize(&other),
            Err(Error::LibraryLoaded { .. })
        ));
    }
}
